//! What a single node keeps on disk, and its text (`text.rs`): a first line that names the format, then one line a field,
//! the last of them a checksum over all before it.

use core::fmt::Write;
use core::time::Duration;

use alloc::string::String;
use fairlock_protocol::limits::TTL_MAX;
use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey};

use crate::text::Format;
pub use crate::text::NotARecord;

/// The format this library writes, and the newest it reads.
pub const FORMAT: u32 = 2;
/// Longest text that is looked at, in bytes; a record of this format has less than 400.
pub const RECORD_BYTES_MAX: usize = 4096;
/// How every record begins, before the number of its format.
const OPENING: &str = "fairlock-state ";
/// The kind of text it is.
const TEXT: Format = Format {
    opening: OPENING,
    not_opened: "it does not begin with `fairlock-state` and a format number",
    newest: FORMAT,
    bytes_max: RECORD_BYTES_MAX,
};

/// What must survive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which cell the directory belongs to.
    pub cell: CellId,
    /// The epoch of the run that wrote this.
    pub epoch: Epoch,
    /// The longest lease that may be alive; whole milliseconds.
    pub ttl_horizon: Duration,
    /// The run ended and left no lease alive, or all in a snapshot.
    pub clean: bool,
    /// The sum over the snapshot that the run left; never without `clean`. An earlier format has none, and whoever reads only
    /// that one must not take such an end for a clean one.
    pub snapshot: Option<u128>,
    /// Key of the proofs that clients get with their grants; `None` in a record of an earlier format.
    pub mac_key: Option<MacKey>,
    /// Key of the digests that spread names over shards: the same in every run, so that clients find theirs again. `None` in a
    /// record of an earlier format.
    pub digest_key: Option<DigestKey>,
}

impl Record {
    /// The text to store.
    ///
    /// # Panics
    /// When the horizon is longer than any lease can be: whoever raises it has checked the lease.
    pub fn to_text(&self) -> String {
        assert!(self.ttl_horizon <= TTL_MAX, "no lease is longer than the protocol allows");
        assert!(self.clean || self.snapshot.is_none(), "only a run that ended leaves a snapshot");
        let mut text = String::with_capacity(400);
        let Record { cell, epoch, ttl_horizon, clean, snapshot, mac_key, digest_key } = *self;
        let (epoch, horizon_ms) = (epoch.get(), ttl_horizon.as_millis());
        let written = write!(
            text,
            "{OPENING}{FORMAT}\ncell={cell}\nepoch={epoch}\nttl_horizon_ms={horizon_ms}\nclean={clean}\n"
        );
        written.expect("a string takes whatever is written to it");
        let mac_key = mac_key.map(|key| u128::from_be_bytes(key.0));
        let digest_key = digest_key.map(|DigestKey([low, high])| u128::from(low) | u128::from(high) << 64);
        let more = [("snapshot=", snapshot), ("mac_key=", mac_key), ("digest_key=", digest_key)];
        for (name, value) in more {
            if let Some(value) = value {
                writeln!(text, "{name}{value:032x}").expect("a string takes whatever is written to it");
            }
        }
        TEXT.seal(text)
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`NotARecord`]; a newer format is recognised by the first line alone.
    pub fn from_text(bytes: &[u8]) -> Result<Record, NotARecord> {
        use NotARecord::Corrupt;
        let mut fields = TEXT.open(bytes)?;
        let cell = fields.next("cell=", "cell")?;
        let cell = u128::from_str_radix(cell, 16).map_err(|_| Corrupt("`cell` is not a cell id"))?;
        let epoch = fields.next("epoch=", "epoch")?.parse().ok().and_then(Epoch::new);
        let horizon_ms = fields.next("ttl_horizon_ms=", "ttl_horizon_ms")?.parse().ok();
        let ttl_horizon = horizon_ms.map(Duration::from_millis).filter(|horizon| *horizon <= TTL_MAX);
        let clean = fields.next("clean=", "clean")?.parse().ok();
        let snapshot =
            hex128(fields.next_if("snapshot=")).map_err(|()| Corrupt("`snapshot` is not a sum"))?;
        let mac_key = hex128(fields.next_if("mac_key=")).map_err(|()| Corrupt("`mac_key` is not a key"))?;
        let digest_key =
            hex128(fields.next_if("digest_key=")).map_err(|()| Corrupt("`digest_key` is not a key"))?;
        fields.check()?;
        if cell == 0 {
            return Err(Corrupt("`cell` is zero"));
        }
        if snapshot.is_some() && clean != Some(true) {
            return Err(Corrupt("`snapshot` without a clean end"));
        }
        Ok(Record {
            cell: CellId(cell),
            epoch: epoch.ok_or(Corrupt("`epoch` is not an epoch"))?,
            ttl_horizon: ttl_horizon.ok_or(Corrupt("`ttl_horizon_ms` is not the length of a lease"))?,
            clean: clean.ok_or(Corrupt("`clean` is neither true nor false"))?,
            snapshot,
            mac_key: mac_key.map(|key| MacKey(key.to_be_bytes())),
            digest_key: digest_key.map(halves),
        })
    }
}

/// A key from its number, low half first.
fn halves(key: u128) -> DigestKey {
    let half = |shift: u32| u64::try_from(key >> shift & u128::from(u64::MAX)).expect("masked to 64 bits");
    DigestKey([half(0), half(64)])
}

/// The number in a field of 32 hexadecimal digits, if the field is there.
fn hex128(text: Option<&str>) -> Result<Option<u128>, ()> {
    let whole = |text: &str| (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    text.map(|text| whole(text).ok_or(())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::checksum;
    use std::format;

    fn record() -> Record {
        Record {
            cell: CellId(0xFEED),
            epoch: Epoch::new(941_000).unwrap(),
            ttl_horizon: Duration::from_secs(5),
            clean: false,
            snapshot: None,
            mac_key: Some(MacKey(*b"sixteen bytes ok")),
            digest_key: Some(DigestKey([7, 1 << 63])),
        }
    }

    #[test]
    fn a_record_reads_back_from_its_text() {
        for (clean, snapshot) in [(false, None), (true, None), (true, Some(7))] {
            for mac_key in [None, record().mac_key] {
                let record = Record { clean, snapshot, mac_key, ..record() };
                assert_eq!(Record::from_text(record.to_text().as_bytes()), Ok(record));
            }
        }
        assert!(record().to_text().starts_with("fairlock-state 2\ncell=0000"));
    }

    #[test]
    fn a_record_of_a_newer_server_is_told_from_a_damaged_one() {
        let newer = b"fairlock-state 3\nwho knows what\xFF";
        assert_eq!(Record::from_text(newer), Err(NotARecord::Newer { format: 3, known: 2 }));
        let long = [b"fairlock-state 7\n".as_slice(), &[b'x'; 10_000]].concat();
        assert_eq!(Record::from_text(&long), Err(NotARecord::Newer { format: 7, known: 2 }));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let text = record().to_text();
        for cut in 0..text.len() {
            assert!(Record::from_text(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let read = Record::from_text(&bytes);
                // A changed letter case in a hexadecimal digit is the same number.
                assert!(read.is_err() || read == Ok(record()), "byte {at} bit {bit}: {read:?}");
            }
        }
    }

    #[test]
    fn garbage_is_corrupt_whatever_it_is() {
        let sealed = |body: &str| format!("{body}check={:016x}\n", checksum(body.as_bytes()));
        let fields = "cell=1\nepoch=1\nttl_horizon_ms=0\nclean=true\n";
        assert!(Record::from_text(sealed(&format!("fairlock-state 1\n{fields}")).as_bytes()).is_ok());
        for (from, to) in [
            ("cell=1", "cell=0"),
            ("cell=1", "cell=x"),
            ("epoch=1", "epoch=0"),
            ("epoch=1", "epoch=16777216"),
            ("ttl_horizon_ms=0", "ttl_horizon_ms=-1"),
            ("ttl_horizon_ms=0", "ttl_horizon_ms=3600001"),
            ("clean=true", "clean=yes"),
            ("clean=true\n", "clean=true\nmore=1\n"),
            ("epoch=1\n", ""),
            ("clean=true\n", "clean=true\nsnapshot=12\n"),
            ("clean=true\n", "clean=false\nsnapshot=00000000000000000000000000000007\n"),
            ("clean=true\n", "clean=true\nmac_key=0000000000000000000000000000000g\n"),
        ] {
            let text = sealed(&format!("fairlock-state 1\n{}", fields.replace(from, to)));
            assert!(matches!(Record::from_text(text.as_bytes()), Err(NotARecord::Corrupt(_))), "{to}");
        }
        for garbage in [b"".as_slice(), b"\n", b"{}", b"fairlock-state\n", b"fairlock-state 0\n", &[0xFF; 9]]
        {
            assert!(matches!(Record::from_text(garbage), Err(NotARecord::Corrupt(_))));
        }
        let followed = format!("{}\n", record().to_text());
        assert!(Record::from_text(followed.as_bytes()).is_err());
    }
}

//! What a single node keeps on disk, and its text: a first line that names the format, then `key=value` lines, the last
//! of them a checksum over all before it.
//!
//! Text, because an operator in trouble opens it; no serialisation library, because five fields need none. The number
//! in the first line is looked at before anything else, so that a record of a newer server is told from a damaged one.

use core::fmt::{self, Write};
use core::time::Duration;

use alloc::string::String;
use fairlock_protocol::limits::TTL_MAX;
use fairlock_protocol::{CellId, Epoch};

/// The format this library writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Longest text that is looked at, in bytes; a record of this format has less than 200.
pub const RECORD_BYTES_MAX: usize = 4096;
/// How every record begins, before the number of its format.
const OPENING: &str = "fairlock-state ";

/// What must survive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which cell the directory belongs to.
    pub cell: CellId,
    /// The epoch of the run that wrote this.
    pub epoch: Epoch,
    /// The longest lease that may be alive; whole milliseconds.
    pub ttl_horizon: Duration,
    /// The run ended and left no lease alive.
    pub clean: bool,
}

/// Why a text is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotARecord {
    /// A newer server wrote it.
    Newer {
        /// The format it names.
        format: u32,
    },
    /// It is damaged, or was never one.
    Corrupt(&'static str),
}

impl fmt::Display for NotARecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NotARecord::Newer { format } => {
                write!(f, "written by a newer version (format {format}, this one knows {FORMAT})")
            }
            NotARecord::Corrupt(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl core::error::Error for NotARecord {}

impl Record {
    /// The text to store.
    ///
    /// # Panics
    /// When the horizon is longer than any lease can be: whoever raises it has checked the lease.
    pub fn to_text(&self) -> String {
        assert!(self.ttl_horizon <= TTL_MAX, "no lease is longer than the protocol allows");
        let mut text = String::with_capacity(200);
        let Record { cell, epoch, ttl_horizon, clean } = *self;
        let (epoch, horizon_ms) = (epoch.get(), ttl_horizon.as_millis());
        let written = write!(
            text,
            "{OPENING}{FORMAT}\ncell={cell}\nepoch={epoch}\nttl_horizon_ms={horizon_ms}\nclean={clean}\n"
        );
        let check = checksum(text.as_bytes());
        let written = written.and_then(|()| writeln!(text, "check={check:016x}"));
        written.expect("a string takes whatever is written to it");
        assert!(text.len() < RECORD_BYTES_MAX, "what is written can be read back");
        text
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`NotARecord`]; a newer format is recognised by the first line alone.
    pub fn from_text(bytes: &[u8]) -> Result<Record, NotARecord> {
        use NotARecord::Corrupt;
        if bytes.is_empty() {
            return Err(Corrupt("the file is empty"));
        }
        let head = bytes.get(..RECORD_BYTES_MAX).unwrap_or(bytes);
        let (opening, rest) = split_line(head).ok_or(Corrupt("the first line has no end"))?;
        let format = opening.strip_prefix(OPENING).and_then(|number| number.parse::<u32>().ok());
        match format {
            None | Some(0) => {
                return Err(Corrupt("it does not begin with `fairlock-state` and a format number"));
            }
            Some(format) if format > FORMAT => return Err(NotARecord::Newer { format }),
            Some(_) => {}
        }
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Corrupt("it is longer than a record can be"));
        }
        let mut fields = Fields { bytes, rest };
        let cell = fields.next("cell=", "cell")?;
        let cell = u128::from_str_radix(cell, 16).map_err(|_| Corrupt("`cell` is not a cell id"))?;
        let epoch = fields.next("epoch=", "epoch")?.parse().ok().and_then(Epoch::new);
        let horizon_ms = fields.next("ttl_horizon_ms=", "ttl_horizon_ms")?.parse().ok();
        let ttl_horizon = horizon_ms.map(Duration::from_millis).filter(|horizon| *horizon <= TTL_MAX);
        let clean = fields.next("clean=", "clean")?.parse().ok();
        fields.check()?;
        if cell == 0 {
            return Err(Corrupt("`cell` is zero"));
        }
        Ok(Record {
            cell: CellId(cell),
            epoch: epoch.ok_or(Corrupt("`epoch` is not an epoch"))?,
            ttl_horizon: ttl_horizon.ok_or(Corrupt("`ttl_horizon_ms` is not the length of a lease"))?,
            clean: clean.ok_or(Corrupt("`clean` is neither true nor false"))?,
        })
    }
}

/// The first line without its end, and what follows it. `None` when there is no whole line of UTF-8.
fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((core::str::from_utf8(line).ok()?, rest.get(1..)?))
}

/// Takes lines off the front of a record, in their one order.
struct Fields<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The value of the next line, whose key must be this one.
    fn next(&mut self, key: &'static str, name: &'static str) -> Result<&'a str, NotARecord> {
        let (line, rest) = split_line(self.rest).ok_or(NotARecord::Corrupt(name))?;
        self.rest = rest;
        line.strip_prefix(key).ok_or(NotARecord::Corrupt(name))
    }

    /// The last line is the checksum of all before it, and nothing follows.
    fn check(mut self) -> Result<(), NotARecord> {
        let covered = self.bytes.len() - self.rest.len();
        let expected = checksum(self.bytes.get(..covered).unwrap_or_default());
        let found = u64::from_str_radix(self.next("check=", "check")?, 16);
        if found != Ok(expected) || !self.rest.is_empty() {
            return Err(NotARecord::Corrupt("its checksum is wrong"));
        }
        Ok(())
    }
}

/// FNV-1a, 64 bits: tells a torn or edited file, not an attacker, who would own the directory anyhow.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn record() -> Record {
        Record {
            cell: CellId(0xFEED),
            epoch: Epoch::new(941_000).unwrap(),
            ttl_horizon: Duration::from_secs(5),
            clean: false,
        }
    }

    #[test]
    fn a_record_reads_back_from_its_text() {
        for clean in [false, true] {
            let record = Record { clean, ..record() };
            assert_eq!(Record::from_text(record.to_text().as_bytes()), Ok(record));
        }
        assert!(record().to_text().starts_with("fairlock-state 1\ncell=0000"));
    }

    #[test]
    fn a_record_of_a_newer_server_is_told_from_a_damaged_one() {
        let newer = b"fairlock-state 2\nwho knows what\xFF";
        assert_eq!(Record::from_text(newer), Err(NotARecord::Newer { format: 2 }));
        let long = [b"fairlock-state 7\n".as_slice(), &[b'x'; 10_000]].concat();
        assert_eq!(Record::from_text(&long), Err(NotARecord::Newer { format: 7 }));
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

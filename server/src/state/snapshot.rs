//! What a planned stop leaves for the next start: a file for each shard with its whole table and what the doors knew.
//!
//! The files mean nothing by themselves. The record names a sum over all of them, and is written after they are durable;
//! the next start writes a record that names none, and removes them, before it serves. So a snapshot is used once, and
//! files of a stop that did not come to its end, or of a backup, are never taken for the newest.
//!
//! Time goes on: where the clock is the same one, as it shows; after the host itself was restarted, from the moment of the
//! snapshot, as though nothing had lain between. Leases only get longer by that.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

use fairlock_locktable::snapshot::{BadSnapshot, PIECE_BYTES_MAX, Restorer};
use fairlock_locktable::{Settings as TableSettings, Table};
use fairlock_protocol::{CellId, DigestKey, Epoch, SessionId, ShardId, Tick};
use fairlock_replication::Record;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{StateDirectory, StateError};
use crate::config::SHARDS_MAX;

/// The first line of every file.
const OPENING: &[u8; 20] = b"fairlock-snapshot 1\n";
/// Bytes of the fixed fields behind it.
const HEAD_BYTES: usize = 16 + 4 + 2 + 2 + 16 + 8 + 8 + 16 + 4;
/// Longest file that is read or written: a thousand times what a million locks take.
const FILE_BYTES_MAX: u64 = 1 << 37;
/// More sessions than a table can have.
const SESSIONS_END: u32 = 1 << 24;
/// Files hold the secrets of sessions.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
/// Bytes of a file's sum.
const SUM_BYTES: usize = 32;

/// The sum over one shard's file.
pub(crate) type FileSum = [u8; SUM_BYTES];

/// What a shard goes on from.
#[derive(Debug)]
pub(crate) struct Past {
    /// Everything it had.
    pub(crate) table: Table,
    /// Whose processes were watched.
    pub(crate) watched: Vec<SessionId>,
    /// The table's time is this much ahead of the clock.
    pub(crate) ahead_ns: i64,
}

/// What all shards go on from.
#[derive(Debug)]
pub(crate) struct Pasts {
    /// One for each shard.
    pub(crate) shards: Vec<Past>,
}

/// Facts about a shard's table that the table does not know.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) cell: CellId,
    pub(crate) epoch: Epoch,
    pub(crate) shard: ShardId,
    pub(crate) shards: u16,
    pub(crate) digest_key: DigestKey,
    /// The table's time, and the clock at the same moment.
    pub(crate) moment: Tick,
    pub(crate) now: Tick,
    /// Whose processes are watched.
    pub(crate) watched: Vec<SessionId>,
}

/// Why a snapshot cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(
        "it is of {found} shards, this server has {shards}; start it with --shards {found} after a clean stop"
    )]
    Shards { found: u16, shards: u16 },
    #[error("its file of shard {0} is missing")]
    Missing(u16),
    #[error("its file of shard {0} cannot be read: {1}")]
    Io(u16, #[source] io::Error),
    #[error("its file of shard {0} is damaged: {1}")]
    Damaged(u16, &'static str),
    #[error("its files are not those that the last stop wrote")]
    Sum,
    #[error("the table of shard {0}: {1}")]
    Table(u16, #[source] BadSnapshot),
}

/// Where a stopping shard leaves its snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotPlace {
    directory: OwnedFd,
}

fn file_name(shard: u16) -> String {
    format!("snapshot.{shard}")
}

/// Which clock this is: one boot of one host, seen from one time namespace.
fn clock_identity() -> u128 {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let mut sum = Sha256::new();
    sum.update(&boot);
    sum.update(namespace.as_os_str().as_encoded_bytes());
    first_half(&sum.finalize().into())
}

fn first_half(sum: &FileSum) -> u128 {
    let (half, _) = sum.split_at(16);
    u128::from_le_bytes(half.try_into().expect("16 of 32 bytes"))
}

/// The one number that stands for all files.
pub(crate) fn sum_of(files: &[FileSum]) -> u128 {
    let mut sum = Sha256::new();
    for file in files {
        sum.update(file);
    }
    first_half(&sum.finalize().into())
}

impl SnapshotPlace {
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn of(directory: &StateDirectory) -> io::Result<SnapshotPlace> {
        Ok(SnapshotPlace { directory: directory.directory.try_clone()? })
    }

    /// Writes one shard's file; its bytes are durable when this returns, its name when the directory is.
    ///
    /// # Errors
    /// There is no file, or one that nothing refers to.
    pub(crate) fn write(&self, setting: &Setting, table: &Table) -> io::Result<FileSum> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.directory, file_name(setting.shard.0), flags, FILE_MODE)?;
        let mut out = Summing { to: BufWriter::new(File::from(file)), sum: Sha256::new(), bytes: 0 };
        write_head(setting, &mut out)?;
        let mut outcome = Ok(());
        table.snapshot(|piece| {
            if outcome.is_ok() {
                outcome = write_piece(&piece, &mut out);
            }
        });
        outcome?;
        out.put(&0_u32.to_le_bytes())?;
        let sum: FileSum = out.sum.finalize().into();
        let file = out.to.into_inner().map_err(io::IntoInnerError::into_error)?;
        fsync(&file)?;
        Ok(sum)
    }
}

/// Writes, and sums up what it wrote.
struct Summing {
    to: BufWriter<File>,
    sum: Sha256,
    bytes: u64,
}

impl Summing {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }
}

fn write_piece(piece: &[u8], out: &mut Summing) -> io::Result<()> {
    assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES_MAX, "a piece has a bound");
    let length = u32::try_from(piece.len()).expect("bounded above");
    out.put(&length.to_le_bytes())?;
    out.put(piece)
}

fn write_head(setting: &Setting, out: &mut Summing) -> io::Result<()> {
    let watched = u32::try_from(setting.watched.len()).expect("a shard has at most 2^24 sessions");
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&setting.cell.0.to_le_bytes());
    head.extend_from_slice(&setting.epoch.get().to_le_bytes());
    head.extend_from_slice(&setting.shard.0.to_le_bytes());
    head.extend_from_slice(&setting.shards.to_le_bytes());
    setting.digest_key.0.iter().for_each(|half| head.extend_from_slice(&half.to_le_bytes()));
    head.extend_from_slice(&setting.moment.0.to_le_bytes());
    head.extend_from_slice(&setting.now.0.to_le_bytes());
    head.extend_from_slice(&clock_identity().to_le_bytes());
    head.extend_from_slice(&watched.to_le_bytes());
    assert_eq!(head.len(), HEAD_BYTES, "every field is told");
    out.put(OPENING)?;
    out.put(&head)?;
    setting.watched.iter().try_for_each(|id| out.put(&id.get().to_le_bytes()))
}

/// Reads, and sums up what it read.
struct Source {
    from: io::Take<BufReader<File>>,
    sum: Sha256,
}

impl Source {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.sum.update(&*bytes);
        Ok(())
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> io::Result<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

/// Reads what the last stop left, whole: the files of every shard and the sum that the record names.
///
/// # Errors
/// Says why it cannot be used; nothing was changed.
pub(crate) fn read(
    directory: &StateDirectory,
    record: &Record,
    shards: u16,
    now: Tick,
    settings: impl Fn(ShardId) -> TableSettings,
) -> Result<Pasts, Unusable> {
    let (mut pasts, mut sums) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        let (past, key, sum) = read_file(directory, record, (shard, shards), now, settings(ShardId(shard)))?;
        if Some(key) != record.digest_key {
            return Err(Unusable::Damaged(shard, "its names are spread by another key"));
        }
        pasts.push(past);
        sums.push(sum);
    }
    if Some(sum_of(&sums)) != record.snapshot {
        return Err(Unusable::Sum);
    }
    Ok(Pasts { shards: pasts })
}

fn read_file(
    directory: &StateDirectory,
    record: &Record,
    (shard, shards): (u16, u16),
    now: Tick,
    settings: TableSettings,
) -> Result<(Past, DigestKey, FileSum), Unusable> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match openat(&directory.directory, file_name(shard), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(Unusable::Missing(shard)),
        Err(errno) => return Err(Unusable::Io(shard, errno.into())),
    };
    let from = BufReader::new(file).take(FILE_BYTES_MAX);
    let mut source = Source { from, sum: Sha256::new() };
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unusable::Damaged(shard, "it ends too early"),
        _ => Unusable::Io(shard, error),
    };
    if &source.array::<{ OPENING.len() }>().map_err(io)? != OPENING {
        return Err(Unusable::Damaged(shard, "it does not begin as a snapshot of this version"));
    }
    let cell = (source.u128().map_err(io)?, source.u32().map_err(io)?);
    let place = (source.u16().map_err(io)?, source.u16().map_err(io)?);
    let digest_key = DigestKey([source.u64().map_err(io)?, source.u64().map_err(io)?]);
    let (moment, taken) = (Tick(source.u64().map_err(io)?), Tick(source.u64().map_err(io)?));
    let (clock, watched) = (source.u128().map_err(io)?, source.u32().map_err(io)?);
    if place.1 != shards {
        return Err(Unusable::Shards { found: place.1, shards });
    }
    if cell != (record.cell.0, record.epoch.get()) || place.0 != shard {
        return Err(Unusable::Sum);
    }
    if watched >= SESSIONS_END {
        return Err(Unusable::Damaged(shard, "it names too many sessions"));
    }
    let mut ids = Vec::new();
    for _ in 0..watched {
        let id = SessionId::from_raw(source.u64().map_err(io)?);
        ids.push(id.ok_or(Unusable::Damaged(shard, "it names a session that is none"))?);
    }
    let table = read_table(&mut source, settings, shard, &io)?;
    let past = Past { table, watched: ids, ahead_ns: ahead(moment, taken, now, clock == clock_identity()) };
    Ok((past, digest_key, source.sum.finalize().into()))
}

fn read_table(
    source: &mut Source,
    settings: TableSettings,
    shard: u16,
    io: &dyn Fn(io::Error) -> Unusable,
) -> Result<Table, Unusable> {
    let mut restorer = Restorer::new(settings);
    let mut piece = Vec::new();
    loop {
        let length = source.u32().map_err(io)? as usize;
        if length == 0 {
            break;
        }
        if length > PIECE_BYTES_MAX {
            return Err(Unusable::Damaged(shard, "a piece is longer than it can be"));
        }
        piece.resize(length, 0);
        source.fill(&mut piece).map_err(io)?;
        let unusable = |bad| Unusable::Table(shard, bad);
        restorer.piece(&piece).map_err(unusable)?;
        while !restorer.go_on(u32::MAX).map_err(unusable)? {}
    }
    if source.from.read(&mut [0]).map_err(io)? > 0 {
        return Err(Unusable::Damaged(shard, "something follows its end"));
    }
    restorer.finish().map_err(|bad| Unusable::Table(shard, bad))
}

/// How far the table's time is ahead of the clock when it shows `now`, from what both were.
fn ahead(moment: Tick, taken: Tick, now: Tick, same_clock: bool) -> i64 {
    let goes_on = same_clock && now >= taken;
    let clock = if goes_on { taken } else { now };
    // Both are less than 2^63: centuries of nanoseconds.
    i64::try_from(i128::from(moment.0) - i128::from(clock.0)).unwrap_or(0)
}

impl StateDirectory {
    /// Makes durable that there is no snapshot any more.
    ///
    /// # Errors
    /// [`StateError`]: one may be left, which no record refers to.
    pub(crate) fn remove_snapshot(&self) -> Result<(), StateError> {
        for shard in 0..SHARDS_MAX {
            match unlinkat(&self.directory, file_name(shard), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.fault("remove a snapshot from", &errno.into())),
            }
        }
        self.settle()
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn settle(&self) -> Result<(), StateError> {
        fsync(&self.directory).map_err(|errno| self.fault("make durable what is in", &errno.into()))
    }
}

#[cfg(test)]
mod tests;

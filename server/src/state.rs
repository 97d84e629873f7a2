//! The state directory: the few bytes a single node must find again, and the lock that keeps a second server off them.
//!
//! A write is a new file, made durable, renamed over the old one, and the rename made durable too, so that a reader
//! finds the old record or the new one and nothing else. The lock is `flock` on a file of its own, held as long as the
//! process lives however it ends; it also names the process, for the message a second server prints.

mod error;
mod node;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fairlock_replication::record::RECORD_BYTES_MAX;
use fairlock_replication::{NotARecord, Record};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, ftruncate, openat, renameat};
use rustix::io::Errno;

pub use error::StateError;
pub(crate) use node::{Beginning, Begun, Leftovers, NodeState, epoch_alone};
pub(crate) use snapshot::{Past, Pasts, SnapshotPlace};

/// The record.
const RECORD: &str = "state";
/// The record that is being written.
const RECORD_NEW: &str = "state.new";
/// The file that is locked.
const LOCK: &str = "lock";
/// A directory made here is closed to others.
const DIRECTORY_MODE: u32 = 0o750;
/// Files in it belong to the server alone.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Where a server keeps its state when it is not told: `/var/lib/fairlock` as root, else `fairlock` in
/// `$XDG_STATE_HOME` or `~/.local/state`.
///
/// # Errors
/// [`StateError::NoDefault`] when neither variable is set.
pub fn default_directory() -> Result<PathBuf, StateError> {
    default_for(rustix::process::geteuid().is_root(), |name| std::env::var_os(name))
}

fn default_for(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StateError> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/fairlock"));
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Ok(base.ok_or(StateError::NoDefault)?.join("fairlock"))
}

/// A state directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    directory: OwnedFd,
    /// Held for its lock.
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`StateError`], [`StateError::Locked`] among them.
    pub(crate) fn open(path: &Path) -> Result<StateDirectory, StateError> {
        let fault = |doing| move |errno: Errno| StateError::of(path, doing, &errno.into());
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        made.map_err(|error| StateError::of(path, "make", &error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(fault("open"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = openat(&directory, LOCK, flags, FILE_MODE).map_err(fault("open the lock file of"))?;
        let mut lock = File::from(lock);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StateError::Locked { path: path.into(), pid: pid_in(&mut lock) });
            }
            Err(errno) => return Err(fault("lock")(errno)),
        }
        // Who holds the lock is said for people only: that it cannot be written must not stop a server.
        let _ = ftruncate(&lock, 0);
        let _ = rustix::io::pwrite(&lock, format!("{}\n", std::process::id()).as_bytes(), 0);
        Ok(StateDirectory { path: path.into(), directory, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the run before left; `None` in a new directory.
    ///
    /// # Errors
    /// [`StateError`]; a record that cannot be read is never taken for a missing one.
    pub(crate) fn read(&self) -> Result<Option<Record>, StateError> {
        let Some(bytes) = self.read_file(RECORD, RECORD_BYTES_MAX)? else { return Ok(None) };
        Record::from_text(&bytes).map(Some).map_err(|error| self.not_a_record(RECORD, error))
    }

    /// Replaces the record; durable when this returns.
    ///
    /// # Errors
    /// [`StateError`]; whether the old record or the new one is there is not known then.
    pub(crate) fn write(&self, record: &Record) -> Result<(), StateError> {
        self.prepare_file(RECORD_NEW, record.to_text().as_bytes())?;
        self.replace_file(RECORD_NEW, RECORD)
    }

    /// What is in a file, and a byte more than the most it may have, if it has that; `None` when it is missing.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn read_file(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, StateError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.fault("open the record of", &errno.into())),
        };
        let mut bytes = Vec::with_capacity(bytes_max + 1);
        let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.fault("read the record of", &error))?;
        Ok(Some(bytes))
    }

    /// Writes a file beside the one it will replace; its bytes are durable when this returns.
    ///
    /// # Errors
    /// [`StateError`]; what it would have replaced is untouched.
    pub(crate) fn prepare_file(&self, new: &str, bytes: &[u8]) -> Result<(), StateError> {
        let fault = |doing| move |errno: Errno| self.fault(doing, &errno.into());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.directory, new, flags, FILE_MODE).map_err(fault("write to"))?;
        let mut file = File::from(file);
        io::Write::write_all(&mut file, bytes).map_err(|error| self.fault("write to", &error))?;
        fsync(&file).map_err(fault("make durable what is in"))
    }

    /// Puts a prepared file at the place of another; durable when this returns.
    ///
    /// # Errors
    /// [`StateError`]; which of the two is there is not known then.
    pub(crate) fn replace_file(&self, new: &str, name: &str) -> Result<(), StateError> {
        let fault = |doing| move |errno: Errno| self.fault(doing, &errno.into());
        renameat(&self.directory, new, &self.directory, name).map_err(fault("replace the record of"))?;
        fsync(&self.directory).map_err(fault("make durable what is in"))
    }

    /// What a text in a file of this directory is instead of a record.
    pub(crate) fn not_a_record(&self, name: &str, error: NotARecord) -> StateError {
        let path = self.path.join(name);
        match error {
            NotARecord::Newer { format, .. } => StateError::Newer { path, format },
            NotARecord::Corrupt(what) => StateError::Corrupt { path, what },
        }
    }

    fn fault(&self, doing: &'static str, error: &io::Error) -> StateError {
        StateError::of(&self.path, doing, error)
    }
}

/// The process a lock file names, if it names one.
fn pid_in(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

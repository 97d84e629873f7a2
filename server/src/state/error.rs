//! What can be wrong with a state directory, each with what the operator should do. Every one of them ends a start
//! with exit code 78: a server that cannot remember must not lend.

use std::io;
use std::path::{Path, PathBuf};

use fairlock_replication::EpochsExhausted;
use rustix::io::Errno;
use thiserror::Error;

/// The state directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// No directory was named and the environment names none.
    #[error("no state directory: set --state-dir, or XDG_STATE_HOME or HOME to an absolute path")]
    NoDefault,
    /// Another server uses it.
    #[error("the state directory {} is in use by another server{}; stop that one or set another --state-dir",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// The process that uses it, as its lock file says.
        pid: Option<u32>,
    },
    /// It is a register, and another node uses it.
    #[error("the register in {} is in use by another node{}; a directory serves a cell of one node, etcd:// several",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    RegisterLocked {
        /// Which directory.
        path: PathBuf,
        /// The process that uses it, as its lock file says.
        pid: Option<u32>,
    },
    /// Something else is at its place.
    #[error("the state directory {} is not a directory; move what is there away or set another --state-dir",
        path.display())]
    NotADirectory {
        /// Which path.
        path: PathBuf,
    },
    /// The file system takes no writes.
    #[error("the state directory {} is on a read-only file system; remount it or set another --state-dir",
        path.display())]
    ReadOnly {
        /// Which directory.
        path: PathBuf,
    },
    /// The process may not do what it must.
    #[error("no permission to {doing} the state directory {}; give it to uid {} or set another --state-dir",
        path.display(), rustix::process::geteuid().as_raw())]
    NoPermission {
        /// Which directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// The file system or a quota is full.
    #[error("no space is left for the state directory {}; free some (one block is enough)", path.display())]
    NoSpace {
        /// Which directory.
        path: PathBuf,
    },
    /// A newer server wrote the record.
    #[error("{} was written by a newer version (format {format}); start that version, or a newer one",
        path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The format it names.
        format: u32,
    },
    /// The record is damaged.
    #[error("{} is damaged: {what}; restore it, or, once every lease granted before is certainly over (`ttl_max` \
        after the last server's end), move it away to start a new cell", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no epoch after the one its record names.
    #[error("{}: every epoch was used; move the directory away to start a new cell, and begin anew with the tokens \
        of every resource that checks them", path.display())]
    EpochsExhausted {
        /// Which directory.
        path: PathBuf,
        /// What the start decided.
        source: EpochsExhausted,
    },
    /// A server alone used it before and left leases that may be alive: a node of a cell would not honour them.
    #[error("{} is of a server that ran alone and was killed, or keeps sessions for its next start; start it alone once \
        more and stop it when it grants again (`fairlock status`) and `fairlock sessions` shows none, or set another \
        --state-dir", path.display())]
    LeftAlone {
        /// Which file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot {doing} the state directory {}", path.display())]
    Other {
        /// Which directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StateError {
    /// The exit code of a server that cannot start because of this: `EX_CONFIG`.
    pub const fn exit_code(&self) -> u8 {
        78
    }

    /// What a failed system call on `path` means.
    pub(super) fn of(path: &Path, doing: &'static str, error: &io::Error) -> StateError {
        let path = path.to_path_buf();
        match Errno::from_io_error(error) {
            // EEXIST: `mkdir` met something that is no directory.
            Some(Errno::NOTDIR | Errno::EXIST) => StateError::NotADirectory { path },
            Some(Errno::ROFS) => StateError::ReadOnly { path },
            Some(Errno::ACCESS | Errno::PERM) => StateError::NoPermission { path, doing },
            Some(Errno::NOSPC | Errno::DQUOT) => StateError::NoSpace { path },
            Some(errno) => StateError::Other { path, doing, source: errno.into() },
            None => {
                StateError::Other { path, doing, source: io::Error::new(error.kind(), error.to_string()) }
            }
        }
    }
}

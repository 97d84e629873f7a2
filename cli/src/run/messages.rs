//! What the processes of one `run` tell each other.

use serde::{Deserialize, Serialize};

/// The first message on every channel; descriptors come with it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Hello;

/// Front to supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Pass this signal on; while the lock is waited for, INT, TERM, HUP and QUIT withdraw the request.
    Signal(i32),
    /// Let a stopped command go on. Numbered, so that a report of an earlier stop is recognised as old.
    Continue(u32),
}

/// Supervisor to front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The command runs, as leader of this process group.
    Started {
        /// Its process group.
        group: i32,
    },
    /// A signal stopped the command.
    Stopped {
        /// Which.
        signal: i32,
        /// How many `Continue` had been carried out before.
        continues: u32,
    },
    /// All is said: exit with this code.
    Over {
        /// The exit code.
        code: u8,
        /// What to print.
        text: Option<String>,
        /// And what to do about it.
        advice: Option<String>,
    },
}

/// Supervisor to gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Go {
    /// The fencing token; `None` in mode NL.
    pub(crate) token: Option<u64>,
    /// What a fenced resource remembers.
    pub(crate) fence: u64,
    /// The mode held.
    pub(crate) mode: String,
    /// How long the command has between TERM and KILL if the supervisor dies, in milliseconds; `None`: leave it.
    pub(crate) patience_ms: Option<u64>,
    /// Not to be started at or after this moment (CLOCK_BOOTTIME, in nanoseconds); `None`: at any time.
    pub(crate) not_after_ns: Option<u64>,
}

/// Gate to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sight {
    /// The command was executed as this process, leader of a group of its own.
    Started {
        /// Its process id and group.
        pid: i32,
    },
    /// It could not be executed.
    NotStarted {
        /// 126 or 127.
        code: u8,
        /// Why.
        text: String,
    },
    /// A signal stopped it.
    Stopped {
        /// Which.
        signal: i32,
    },
    /// It exited or was ended by a signal.
    Ended {
        /// Its exit code, or 128 + N.
        code: u8,
    },
}

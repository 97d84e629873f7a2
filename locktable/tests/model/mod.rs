//! A second lock table, written only from the specification: vectors, linear scans, nothing clever, so that it is
//! as obviously right as possible. The real table is compared with it command by command.
//!
//! Everything has a serial number here (sessions, grants, waits, tokens: indices of vectors that only grow). Which
//! key, grant id or token the real table chose for a serial is learned by the [`judge`] from its effects.
#![allow(clippy::unwrap_used, clippy::missing_errors_doc, reason = "tests may")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its own part of the model"
)]

pub mod bundles;
pub mod clock;
pub mod disciplines;
pub mod judge;
pub mod play;
pub mod queue;
pub mod story;
pub mod subject;
pub mod table;
pub mod takeover;
pub mod witness;

pub use fairlock_locktable::Rules;
pub use fairlock_locktable::command::{Ended, Lease, Wait};
use fairlock_protocol::limits;
pub use fairlock_protocol::{Mode, Refusal, Tick};

/// Serial numbers. A token's serial says only the order of issue, never its value.
pub type SessionSerial = usize;
pub type GrantSerial = usize;
pub type WaitSerial = usize;
pub type TokenSerial = usize;
pub type ResourceIndex = usize;

/// The bounds that a history may reach.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub unacknowledged: usize,
    pub reentry: u32,
    pub waiters: u32,
    pub sessions: u32,
}

impl Bounds {
    /// Those of `protocol::limits`.
    pub const REAL: Bounds = Bounds {
        unacknowledged: limits::UNACKNOWLEDGED_MAX,
        reentry: limits::REENTRY_MAX,
        waiters: limits::WAITERS_PER_RESOURCE_MAX,
        sessions: limits::SESSIONS_MAX,
    };
    /// So small that a short history runs into each of them.
    pub const TIGHT: Bounds = Bounds { unacknowledged: 9, reentry: 1, waiters: 2, sessions: 4 };
}

/// By what the queue of each resource goes.
pub type House = [Rules; play::RESOURCES];
/// Everybody first come, first served.
pub const STRICT: House = [Rules::STRICT; play::RESOURCES];

/// What a request asks for: equal exactly when a repetition is "the same request".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Acquire {
        resource: ResourceIndex,
        mode: Mode,
        priority: u8,
        wait: Wait,
        owner: u64,
        reentrant: bool,
        notify: bool,
        lock_delay_ms: u32,
        max_hold_ms: u32,
    },
    /// Several resources, all or none; `None` for one that is not asked for.
    AcquireAll {
        modes: [Option<Mode>; play::RESOURCES],
        wait: Wait,
        owner: u64,
    },
    Release {
        grant: GrantSerial,
    },
    Convert {
        grant: GrantSerial,
        mode: Mode,
        wait: Wait,
    },
    Cancel {
        target: u64,
    },
}

impl Ask {
    /// A plain request for the first resource.
    pub fn acquire(mode: Mode, wait: Wait, owner: u64) -> Ask {
        Ask::Acquire {
            resource: 0,
            mode,
            priority: 0,
            wait,
            owner,
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
        }
    }
}

/// What a holder is told, in serials. `fence` is the token whose predecessor is the bound; `None` stands for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub grant: GrantSerial,
    pub token: Option<TokenSerial>,
    pub fence: Option<TokenSerial>,
    pub mode: Mode,
    pub waited_us: u64,
    pub previous_owner_died: bool,
    pub reentered: bool,
}

/// The outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Granted(Told),
    Converted(Told),
    Released { remaining: u32 },
    Withdrawn { was_waiting: bool },
    Refused(Refusal),
    Deadlock { session: SessionSerial, owner: u64, mode: Mode },
}

impl Reply {
    /// Whether this answer changed state, and so must be repeatable until it is acknowledged.
    pub fn is_kept(&self) -> bool {
        matches!(
            self,
            Reply::Granted(_)
                | Reply::Converted(_)
                | Reply::Released { .. }
                | Reply::Refused(Refusal::Timeout | Refusal::Cancelled)
                | Reply::Withdrawn { was_waiting: true }
        )
    }
}

/// One thing that must follow from a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Opened {
        session: SessionSerial,
    },
    NotOpened {
        refusal: Refusal,
    },
    Answered {
        session: SessionSerial,
        request: u64,
        reply: Reply,
        kept: bool,
    },
    /// Must be said when it `begins`, may be said again while it lasts.
    Blocking {
        session: SessionSerial,
        grant: GrantSerial,
        wanted: Mode,
        waiters: u32,
        /// Those among them that may have come after it was said: requests for several that went on to here.
        late: u32,
        begins: bool,
    },
    Broken {
        session: SessionSerial,
        grant: GrantSerial,
        forced: bool,
    },
    HoldOver {
        session: SessionSerial,
        grant: GrantSerial,
    },
    Killed {
        session: SessionSerial,
    },
    Broke {
        holders: u32,
    },
    Doomed {
        session: SessionSerial,
    },
    Over {
        session: SessionSerial,
        why: Ended,
    },
}

/// A consequence and the resource whose order it is part of; `None` for those of no resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    pub resource: Option<ResourceIndex>,
    pub said: Said,
}

/// What time has decided and a command must carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    WaitOver(WaitSerial),
    HoldOver(GrantSerial),
    DelayOver(ResourceIndex),
    Doom(SessionSerial),
    Expire(SessionSerial),
}

//! What can happen to a lock table: a closed list of commands. A table changes by [`Table::apply`] alone, with the
//! moment handed in, so the same commands in the same order give the same table on every node.
//!
//! What time decides (a wait that ends, a lease that runs out) is a command too. The node that decides asks
//! [`Table::due`] for it and applies it like any other; nobody else recomputes it.
//!
//! [`Table::apply`]: crate::Table::apply
//! [`Table::due`]: crate::Table::due

use fairlock_protocol::{
    Digest, FencingToken, GrantId, Mode, OwnerId, Priority, RequestId, Resource, Secret, SessionId,
};

/// A session at this table: its slot and generation. A key outlives its session harmlessly: it is then unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Index of the session's slot.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// A waiting request or conversion at this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterKey {
    /// Index of the waiter's slot.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

pub use fairlock_protocol::Wait;

/// What ends a session that nobody closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Silence: it expires `ttl` after its last renewal.
    Heartbeat,
    /// Somebody else's word: the process is watched, or this shard is not the session's home.
    Watched,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed it: every grant counts as released.
    Closed,
    /// The lease ran out.
    Expired,
    /// The process, or the last of its descendants, is gone.
    Died,
    /// An operator ended it.
    Killed,
    /// Its successor asserted that it cannot run any more.
    Replaced,
}

/// What a person needs to find the process behind a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Process id on its host: for people, never an identity.
    pub pid: u32,
    /// Host name.
    pub host: &'a [u8],
    /// Path of the program.
    pub exe: &'a [u8],
    /// What the program calls itself.
    pub label: &'a [u8],
}

/// A new session.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// Its id, made by the home shard.
    pub id: SessionId,
    /// What a connection must show to act for it.
    pub secret: Secret,
    /// Length of its lease in milliseconds.
    pub ttl_ms: u32,
    /// What ends it.
    pub lease: Lease,
    /// Whether its home is another shard, which alone decides its end.
    pub visiting: bool,
    /// Who it is across restarts; empty for nobody in particular.
    pub identity: &'a [u8],
    /// What proves that a successor may take its place.
    pub reclaim_key: &'a [u8],
    /// The caller asserts (or the server saw) that the predecessor cannot run any more.
    pub predecessor_gone: bool,
    /// For people.
    pub attributes: Attributes<'a>,
}

/// A request for a lock.
#[derive(Clone, Copy, Debug)]
pub struct Acquire<'a> {
    /// Who asks.
    pub session: SessionKey,
    /// The request's number on its stream.
    pub request: RequestId,
    /// The server's own digest of `resource`.
    pub digest: Digest,
    /// What is asked for.
    pub resource: Resource<'a>,
    /// In which mode.
    pub mode: Mode,
    /// In which class; it counts in namespaces with the discipline `priority`.
    pub priority: Priority,
    /// How long it may wait.
    pub wait: Wait,
    /// Which thread or task of the session.
    pub owner: OwnerId,
    /// Whether the same owner may enter again.
    pub reentrant: bool,
    /// Whether the grant wants a notice when it begins to block somebody.
    pub notify: bool,
    /// After expiry of the session: keep others out this long (0 … 60 000 ms).
    pub lock_delay_ms: u32,
    /// End the grant by time after this many milliseconds; 0 for never.
    pub max_hold_ms: u32,
    /// For people.
    pub label: &'a [u8],
}

/// One lock of several that are asked for together.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The server's own digest of `resource`.
    pub digest: Digest,
    /// What is asked for.
    pub resource: Resource<'a>,
    /// In which mode.
    pub mode: Mode,
}

/// A request for several locks of this table, all or none. Each grant is answered by itself, all at once, in the order
/// of the items; or there is one refusal.
#[derive(Clone, Copy, Debug)]
pub struct AcquireAll<'a> {
    /// Who asks.
    pub session: SessionKey,
    /// The request's number on its stream.
    pub request: RequestId,
    /// What is asked for: at most 256, strictly rising by namespace and name, as bytes.
    pub items: &'a [Item<'a>],
    /// How long it may wait for all of them together.
    pub wait: Wait,
    /// Which thread or task of the session.
    pub owner: OwnerId,
    /// For people.
    pub label: &'a [u8],
}

/// Everything that changes a table.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// A session begins.
    Open(Open<'a>),
    /// A connection takes up a session again: everything it received so far is acknowledged.
    Resume {
        /// Which session.
        session: SessionKey,
        /// Kept answers its client has received on this stream, in all.
        received: u64,
    },
    /// The client received this many kept answers in all.
    Acknowledge {
        /// Which session.
        session: SessionKey,
        /// Kept answers its client has received on this stream, in all.
        received: u64,
    },
    /// A session ends, and everything it has at this table with it.
    End {
        /// Which session.
        session: SessionKey,
        /// Why.
        why: Ended,
    },
    /// A lock is asked for.
    Acquire(Acquire<'a>),
    /// Several locks are asked for, all or none.
    AcquireAll(AcquireAll<'a>),
    /// A grant from before the table was lost is held on, if it goes with those that were before it. It does not wait. For
    /// before the first ordinary request alone: that one ends the time of claims.
    Reassert {
        /// What is held, and how.
        acquire: Acquire<'a>,
        /// The token it had.
        token: FencingToken,
    },
    /// A grant is given back (one level of it, when re-entered).
    Release {
        /// Whose.
        session: SessionKey,
        /// The request's number.
        request: RequestId,
        /// Which grant.
        grant: GrantId,
    },
    /// A grant changes its mode.
    Convert {
        /// Whose.
        session: SessionKey,
        /// The request's number.
        request: RequestId,
        /// Which grant.
        grant: GrantId,
        /// The mode asked for.
        mode: Mode,
        /// How long it may wait for it.
        wait: Wait,
    },
    /// A waiting request or conversion is withdrawn.
    Cancel {
        /// Whose.
        session: SessionKey,
        /// This request's number.
        request: RequestId,
        /// The number of the request to withdraw.
        target: RequestId,
    },
    /// An operator takes a resource from its holders.
    Break {
        /// Which resource.
        digest: Digest,
        /// Let the next one in at once instead of on the holders' confirmation.
        force: bool,
    },
    /// An operator ends a session: told first, ended on its word or at its lease's end; at once when forced.
    Kill {
        /// Which session.
        session: SessionKey,
        /// At once.
        force: bool,
    },
    /// A client confirms that a broken grant is no longer used.
    Confirm {
        /// Whose.
        session: SessionKey,
        /// Which grant.
        grant: GrantId,
    },
    /// A grant stays with its session between two holds: no owner has it, and it is told when it blocks somebody.
    Cache {
        /// Whose.
        session: SessionKey,
        /// Which grant.
        grant: GrantId,
    },
    /// A cached grant is given back; nobody is answered.
    GiveBack {
        /// Whose.
        session: SessionKey,
        /// Which grant.
        grant: GrantId,
    },
    /// A wait has lasted as long as it may.
    WaitOver {
        /// Which wait.
        waiter: WaiterKey,
    },
    /// A grant has lasted as long as it may.
    HoldOver {
        /// Which grant.
        grant: GrantId,
    },
    /// The delay after an expiry is over.
    DelayOver {
        /// Of which resource.
        digest: Digest,
    },
    /// A broken grant or a killed session was not confirmed in time: the session is renewed no more.
    Doom {
        /// Which session.
        session: SessionKey,
    },
    /// From now on tokens and session ids belong to this epoch (a change of members, or a counter half used up).
    Epoch(fairlock_protocol::Epoch),
    /// A new primary takes office in this epoch: the first command of its reign. Tokens belong to the epoch from now on.
    /// Each session at home here whose client has opened or resumed since the last take-over gets a full lease; the
    /// others keep the one they have. Nobody is watched any more: every lease ends by silence. Longest holds begin anew.
    TakeOver(fairlock_protocol::Epoch),
}

/// What a holder is told about its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The grant.
    pub grant: GrantId,
    /// Its fencing token; `None` for NL.
    pub token: Option<FencingToken>,
    /// Lower bound that a resource remembers with this token (PR, PW, EX), else 0.
    pub fence: u64,
    /// The mode held.
    pub mode: Mode,
    /// How long the request waited, in microseconds, never over-stated.
    pub waited_us: u64,
    /// A holder before this one died holding a mode that writes.
    pub previous_owner_died: bool,
    /// The same grant as before, one level deeper.
    pub reentered: bool,
}

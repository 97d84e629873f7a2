//! What follows from a command: answers, notices, and the ends of sessions. Effects are plain values; who sends
//! them, and whether they may be seen already, is decided above.

use crate::command::{Ended, Granted, SessionKey};
use fairlock_protocol::{GrantId, Mode, OwnerId, Refusal, RequestId, SessionId};

/// The outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lock is held.
    Granted(Granted),
    /// The grant has the mode asked for; the token is new when it was an up-conversion.
    Converted(Granted),
    /// The grant (or one level of it) was given back.
    Released {
        /// Levels of re-entry that remain.
        remaining: u32,
    },
    /// The answer to a withdrawal; the withdrawn request has its own answer.
    Withdrawn {
        /// Whether it was still waiting.
        was_waiting: bool,
    },
    /// Refused; nothing changed, or the wait ended.
    Refused(Refusal),
    /// Two conversions would wait for each other.
    Deadlock {
        /// Session of the other one.
        session: SessionId,
        /// Owner of the other one.
        owner: OwnerId,
        /// What the other one asks for.
        mode: Mode,
    },
}

/// What a session is told without having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A grant that wanted to know begins to block others.
    Blocking {
        /// The grant.
        grant: GrantId,
        /// What the first blocked one asks for.
        wanted: Mode,
        /// How many are blocked.
        waiters: u32,
    },
    /// An operator took the grant: stop using it and confirm.
    Broken {
        /// The grant.
        grant: GrantId,
        /// The next holder is let in already.
        forced: bool,
    },
    /// The grant reached its longest hold and is over.
    HoldOver {
        /// The grant.
        grant: GrantId,
    },
    /// An operator ends this session: stop using everything and close.
    Killed,
}

/// One consequence of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A session began.
    Opened {
        /// Its key at this table.
        session: SessionKey,
        /// Its id.
        id: SessionId,
    },
    /// A request has its outcome.
    Answered {
        /// Whose request.
        session: SessionKey,
        /// Its number.
        request: RequestId,
        /// The outcome.
        answer: Answer,
        /// Kept (and counted) until the client acknowledges it; an answer that is not kept changed nothing.
        kept: bool,
    },
    /// A session is told something.
    Told {
        /// Whom.
        session: SessionKey,
        /// What.
        notice: Notice,
    },
    /// The holders of a resource were told that it is taken from them.
    Broke {
        /// How many; 0 means there were none.
        holders: u32,
    },
    /// A session ended; its key means nothing from here on.
    Over {
        /// Its key at this table.
        session: SessionKey,
        /// Its id.
        id: SessionId,
        /// Why.
        why: Ended,
    },
}

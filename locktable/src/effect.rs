//! What follows from a command: answers, notices, and the ends of sessions. Effects are plain values; who sends
//! them, and whether they may be seen already, is decided above.

use crate::command::{Ended, Granted, SessionKey};
use alloc::vec::Vec;
use core::ops::Deref;
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

impl Answer {
    /// Whether the request changed something, so that its outcome must outlive a lost connection.
    pub const fn is_kept(&self) -> bool {
        match self {
            Answer::Granted(_) | Answer::Converted(_) | Answer::Released { .. } => true,
            Answer::Withdrawn { was_waiting } => *was_waiting,
            Answer::Refused(refusal) => matches!(refusal, Refusal::Timeout | Refusal::Cancelled),
            Answer::Deadlock { .. } => false,
        }
    }
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
    /// A session was not opened.
    NotOpened {
        /// The id it would have had.
        id: SessionId,
        /// [`Refusal::Denied`] when its identity belongs to another reclaim key or its id is taken,
        /// [`Refusal::Quota`] when there are as many sessions as there may be.
        refusal: Refusal,
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
    /// From here on the session is renewed no more: it was replaced, or its client did not confirm in time. Its home
    /// lets its lease run out; a shard that is not its home tells the home.
    Doomed {
        /// Its key at this table.
        session: SessionKey,
        /// Its id.
        id: SessionId,
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

/// The effects of some commands, in the order they follow. Reusable: clearing keeps the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// No effects yet.
    pub const fn new() -> Effects {
        Effects(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Deref for Effects {
    type Target = [Effect];

    fn deref(&self) -> &[Effect] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = core::slice::Iter<'a, Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

//! The words both sides read and write: what stands in them and what each value says.

use std::fmt;

/// The client's two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Thread {
    T0,
    T1,
}

impl Thread {
    pub(crate) const BOTH: [Self; 2] = [Self::T0, Self::T1];
}

/// The generation of a grant word: one tenure has one. 0 is before the first grant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Generation(pub(crate) u8);

impl Generation {
    pub(crate) const BEFORE_ANY: Self = Self(0);

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The grant word itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    /// The server's, by its own locked instruction.
    None(Generation),
    /// Granted to the client and not held: any of its threads may take it.
    Free(Generation),
    Held(Generation, Thread),
    /// Taken by force.
    Revoked(Generation),
}

/// What the server wants of the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    Nobody,
    /// Somebody waits.
    Waiter,
    /// This tenure is over by force.
    Void,
}

/// Whether the server looks at the ring by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Listen {
    Listening,
    Asleep,
}

/// What a client puts into its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Acquire(Thread),
    /// "Look at the word of this generation."
    Release(Generation),
    /// The end of a grant without a word.
    Return(Thread),
}

/// What the server answers to an ACQUIRE: a grant that lives in the word, or one without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Word(Generation),
    Wordless,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(generation) => write!(f, "NONE,{generation}"),
            Self::Free(generation) => write!(f, "FREE,{generation}"),
            Self::Held(generation, thread) => write!(f, "HELD,{generation},{thread:?}"),
            Self::Revoked(generation) => write!(f, "REVOKED,{generation}"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire(thread) => write!(f, "ACQUIRE of {thread:?}"),
            Self::Release(generation) => write!(f, "RELEASE of {generation}"),
            Self::Return(thread) => write!(f, "RELEASE of {thread:?}, no word"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(generation) => write!(f, "granted {generation}"),
            Self::Wordless => f.write_str("granted without a word"),
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

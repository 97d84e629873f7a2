//! The register: one value outside all nodes, read and swapped linearizably. Whoever swaps it first wins, and nothing
//! else decides who is primary.
//!
//! A register may be away, and it may swap without the answer arriving. Both are answers here and not errors, because
//! each has a rule of its own: after [`Answer::Unknown`] a node stays silent and reads again before anything else.

use alloc::string::String;

use crate::configuration::Configuration;

/// Which write made a value. Rises with each write, and is never used twice for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value as it stands in the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub configuration: Configuration,
    /// The write that made it.
    pub revision: Revision,
}

/// What can be asked of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What stands there? The answer is at least as new as the moment of asking.
    Read,
    /// Replace what stands there, if it still is what was read.
    Cas {
        /// The write that made what was read; `None`: nothing may be there.
        expected: Option<Revision>,
        /// What to put there.
        new: Configuration,
    },
}

/// What a register says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a read: what stands there, `None` when nothing does.
    Value(Option<Stored>),
    /// To a swap: done, by this write.
    Written(Revision),
    /// To a swap: nothing was done, because this stands there.
    Conflict(Option<Stored>),
    /// To a swap: it happened, or did not, or will yet; why nobody knows. What is read next with another revision than
    /// was expected shows that it can happen no more.
    Unknown(String),
    /// It certainly did not happen and will not, or a read did not succeed; why, and what to do about it.
    Failed(String),
}

/// What a watch says, unasked. It is a hint that saves polling: several changes may come as one, and what was seen
/// may be old by now, so nothing is decided by it that a swap does not check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// This stands there; said at the beginning, after each change, and when a watch sees again.
    Value(Option<Stored>),
    /// Changes are not seen at present; why, and what to do about it. It goes on trying by itself.
    Blind(String),
}

/// A register, asked by one thread, which may wait as long as the register's own limit allows.
pub trait Register: Send {
    /// Reads: [`Answer::Value`] or [`Answer::Failed`].
    fn read(&mut self) -> Answer;

    /// Swaps: any answer but [`Answer::Value`].
    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer;

    /// Does what is asked.
    fn answer(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Read => self.read(),
            Ask::Cas { expected, new } => self.compare_and_swap(*expected, new),
        }
    }
}

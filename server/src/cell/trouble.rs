//! Why an introduction came to nothing, with what to do where somebody can do something.

use std::io;
use std::time::Duration;

use fairlock_protocol::wire::Malformed;
use thiserror::Error;

use super::introduction::Unsuited;
use super::words::{SENTENCE_BYTES_MAX, VERSION};

/// An introduction came to nothing. The stream is closed.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// It took too long.
    #[error("the introduction was not over after {} ms", limit.as_millis())]
    Late {
        /// How long it might have taken.
        limit: Duration,
    },
    /// The other side ended the stream.
    #[error("the stream ended within the introduction")]
    Ended,
    /// The stream was reset before the other side had said anything.
    #[error("the stream was reset before anything was said")]
    Reset,
    /// The other side speaks something else.
    #[error("what is there is no node of a cell; correct the peer address")]
    NotAPeer,
    /// The other side has no time for us.
    #[error("it is busy with other callers")]
    Busy,
    /// The other side speaks another version.
    #[error("it speaks version {theirs} of the peer protocol, we {VERSION}: upgrade the older node")]
    Version {
        /// Which.
        theirs: u16,
    },
    /// One side has a secret, the other none.
    #[error("{} has a cell secret: give every node of the cell the same --peer-secret",
        if *ours { "this node alone" } else { "the other node alone" })]
    OneSecret {
        /// We have it.
        ours: bool,
    },
    /// The proof is wrong: another secret, or somebody who knows none.
    #[error(
        "the cell secrets differ: give every node of the cell the same --peer-secret, and other cells others"
    )]
    WrongProof,
    /// What was said came back.
    #[error("our own words came back: what is there is no node of a cell")]
    Echo,
    /// What was said is longer than an introduction.
    #[error("{claimed} bytes were announced, an introduction has at most {SENTENCE_BYTES_MAX}")]
    TooLong {
        /// How many.
        claimed: u16,
    },
    /// What was said makes no sense.
    #[error("what was said makes no sense: {0}")]
    Malformed(#[from] Malformed),
    /// They know the same secret and do not go together.
    #[error("{0}")]
    Unsuited(#[from] Unsuited),
    /// No randomness, no descriptor, or whatever else the kernel says.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Trouble {
    /// A failed system call.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Trouble {
        move |source| Trouble::Io { doing, source }
    }
}

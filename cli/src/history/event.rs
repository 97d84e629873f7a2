//! One event of a history: what happened, to whom, and when.
//!
//! The smallest set from which the promises can be judged. Moments are nanoseconds on CLOCK_BOOTTIME of the one host on
//! which everybody ran; a moment of a call is read before it, a moment of an answer after it.

use super::line::{EventError, Line};
use fairlock_protocol::Mode;
use std::borrow::Cow;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Which run of which program; no two runs have the same. Empty where it is nobody's.
    pub client: Cow<'a, str>,
    /// What.
    pub what: What<'a>,
}

/// What happened. A request's number is the client's own and never used twice by it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What<'a> {
    /// The client has a session.
    Open {
        /// Its death ends nothing: only silence does (liveness `heartbeat`).
        heartbeat: bool,
    },
    /// It is about to ask for a lock.
    Acquire {
        /// The request.
        request: u64,
        /// Namespace of the lock.
        namespace: Cow<'a, str>,
        /// Name of the lock.
        name: Cow<'a, [u8]>,
        /// Mode asked for.
        mode: Mode,
        /// For whom inside of the client.
        owner: u64,
        /// How long it waits at most; `None` is for ever, 0 a try.
        wait_ms: Option<u64>,
    },
    /// The server has shown that the request has its place in the queue.
    Queued {
        /// The request.
        request: u64,
    },
    /// It has the lock.
    Granted {
        /// The request.
        request: u64,
        /// Fencing token; `None` in mode NL.
        token: Option<u64>,
        /// What a fenced resource remembers; `None` where that is not known or means nothing.
        fence: Option<u64>,
        /// How long it waited at the server, never over-stated; 0 where that is not known.
        waited_ns: u64,
        /// D: until when the guard is certain without another renewal. Not after the event: never certain.
        until_ns: u64,
        /// The session, for people.
        session: Cow<'a, str>,
    },
    /// The request was refused: it holds nothing and waits no more.
    Refused {
        /// The request.
        request: u64,
        /// Why, for people.
        code: Cow<'a, str>,
    },
    /// Nobody can say what became of the request.
    Unknown {
        /// The request.
        request: u64,
        /// Why, for people.
        code: Cow<'a, str>,
    },
    /// The guard was found valid.
    Valid {
        /// The request.
        request: u64,
        /// D, as it is now.
        until_ns: u64,
    },
    /// It is about to change the mode.
    Convert {
        /// The request that has the lock.
        request: u64,
        /// Mode asked for.
        mode: Mode,
    },
    /// The change has its outcome; after a refusal the mode is the old one.
    Converted {
        /// The request that has the lock.
        request: u64,
        /// Mode held from now on.
        mode: Mode,
        /// Fencing token from now on.
        token: Option<u64>,
        /// Its fence.
        fence: Option<u64>,
    },
    /// It is about to give the lock back.
    Release {
        /// The request.
        request: u64,
    },
    /// The guard was found lost.
    Lost {
        /// The request.
        request: u64,
        /// It was lost because time ran out and for no other reason: it was certain until D.
        lease: bool,
    },
    /// The client gives everything back and says no more.
    Closed,
    /// The client is about to be killed, or has crashed; written by whoever knows.
    Killed,
    /// Something befell a server.
    Server {
        /// Which, for people.
        node: Cow<'a, str>,
        /// What, for people.
        what: Cow<'a, str>,
        /// Every server's memory was lost, and with it every queue.
        memory_lost: bool,
    },
    /// How the queues of a namespace go; strict, if nothing is said.
    Namespace {
        /// Which.
        namespace: Cow<'a, str>,
        /// First come, first served.
        strict: bool,
    },
    /// A kind that this version does not know.
    Other,
}

impl<'a> Event<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// [`EventError`] says what is missing or wrong.
    pub fn parse(line: &'a [u8]) -> Result<Event<'a>, EventError> {
        Line::read(line)?.event()
    }

    /// Its line, with the line's end.
    pub fn line(&self) -> String {
        Line::of(self).write()
    }
}

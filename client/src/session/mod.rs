//! What a session means to its client, without sockets, clocks or threads: which requests are unanswered, what a reply
//! settles, until when the lease is certain, what is to be said again after a broken connection.
//!
//! Everything here is stepped with (now, input) and leaves outputs behind: bytes to send, and events for whoever
//! waits. The engine drives it with sockets; a simulator can drive it with anything.

mod ask;
mod hold;
mod jitter;
mod lease;
mod passport;
mod pulse;
mod stream;
mod tenure;

pub(crate) use ask::{Ask, Bundle, Spec};
pub(crate) use hold::{Hold, rouse};
pub(crate) use jitter::Jitter;
pub(crate) use lease::Lease;
pub(crate) use passport::{Directions, Passport};
pub(crate) use pulse::{Beat, Pulse};
pub(crate) use stream::{Answer, Attempt, Event, Fault, Stream};

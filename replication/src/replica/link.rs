//! One stream with a peer, and what is known of what arrived at its other end.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use fairlock_protocol::Tick;

use super::Peer;
use crate::log::Lsn;
use crate::message::Round;

/// How many times longer a follower that acknowledges something may take for all of it: a whole window on a slow line.
const LAG: u32 = 4;

/// A stream's name, given by whoever owns the socket; never used twice by one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub u64);

/// A greeting that waits until this node is in office.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) reign: u32,
    pub(super) received: Lsn,
    pub(super) joins: bool,
}

/// What a stream is used for.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing was said yet.
    Quiet,
    /// This node has greeted, and waits for an epoch.
    Greeted,
    /// The other end is the primary.
    Led,
    /// The other end has greeted and waits for this node's office.
    Waiting(Greeting),
    /// The other end follows.
    Follows(Progress),
}

/// A stream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) key: LinkKey,
    pub(super) peer: Peer,
    pub(super) dialed: bool,
    pub(super) stage: Stage,
    /// Bytes to send.
    pub(super) out: Vec<u8>,
}

impl Link {
    pub(super) fn new(key: LinkKey, peer: Peer, dialed: bool) -> Link {
        Link { key, peer, dialed, stage: Stage::Quiet, out: Vec::new() }
    }

    pub(super) fn progress(&self) -> Option<&Progress> {
        match &self.stage {
            Stage::Follows(progress) => Some(progress),
            _ => None,
        }
    }

    pub(super) fn progress_mut(&mut self) -> Option<&mut Progress> {
        match &mut self.stage {
            Stage::Follows(progress) => Some(progress),
            _ => None,
        }
    }
}

/// What a follower was sent and has acknowledged.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) sent: Lsn,
    pub(super) acked: Lsn,
    pub(super) acked_round: Round,
    /// Epoch of the newest acknowledgement: one of another epoch commits nothing (R2).
    pub(super) acked_in: u32,
    /// Newest round sent.
    pub(super) sent_round: Round,
    /// Since when something is unacknowledged and nothing is acknowledged.
    pub(super) waiting_since: Option<Tick>,
    /// A round that is unacknowledged, and since when: one that acknowledges ever less than it is sent is late as well.
    pub(super) awaited: Option<(Round, Tick)>,
    /// It is no member yet.
    pub(super) joiner: Option<Joiner>,
}

impl Progress {
    pub(super) fn from(at: Lsn, joiner: Option<Joiner>) -> Progress {
        Progress {
            sent: at,
            acked: at,
            acked_round: Round(0),
            acked_in: 0,
            sent_round: Round(0),
            waiting_since: None,
            awaited: None,
            joiner,
        }
    }

    /// Whether it has acknowledged nothing for this long, or lags behind by far more.
    pub(super) fn is_late(&self, now: Tick, limit: Duration) -> bool {
        self.waiting_since.is_some_and(|since| now.since(since) > limit)
            || self.awaited.is_some_and(|(_, since)| now.since(since) > limit * LAG)
    }

    /// Whether commits wait for it although it is not listed (R7).
    pub(super) fn counts(&self) -> bool {
        self.joiner.as_ref().is_some_and(|joiner| joiner.counts_from.is_some())
    }
}

/// A follower on its way to become a member.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// Pieces not sent yet.
    pub(super) pieces: VecDeque<Vec<u8>>,
    /// No more pieces come.
    pub(super) complete: bool,
    pub(super) sent: u32,
    pub(super) acked: u32,
    /// Commits wait for it from this position on.
    pub(super) counts_from: Option<Lsn>,
    /// The node was told that it has everything.
    pub(super) told: bool,
}

impl Joiner {
    /// Whether the whole snapshot has arrived and was put together.
    pub(super) fn is_restored(&self) -> bool {
        self.complete && self.pieces.is_empty() && self.acked == self.sent
    }
}

//! Lanes between the threads of a server: one bounded ring for each ordered pair, so that nothing mutable is shared
//! and nobody takes a lock. What does not fit waits with its sender.
//!
//! Only rare things travel here: connections that move to their shard, the begin and end of sessions, orders of the
//! control thread. No lock request ever does: a connection speaks to the shard that owns its names.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use fairlock_locktable::command::Ended;
use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey, RequestId, Secret, SessionId, Tick};

use fairlock_replication::replica::{self, Order, Report};

use crate::cell::desk::CellEvent;
use crate::cell::picture::CellAnswer;
use crate::connection::{ConnectionKey, Peer};
use crate::driver::Waker;
use crate::shard::replicated::CellFacts;
use crate::state::snapshot::FileSum;

/// Messages one lane holds; a sender with more keeps them back.
const LANE_MESSAGES: usize = 1024;

/// A connection on its way to its shard, its HELLO received but not answered.
#[derive(Debug)]
pub(crate) struct Adoption {
    /// The connection.
    pub(crate) socket: OwnedFd,
    /// Everything received on it so far, from its first byte.
    pub(crate) received: Vec<u8>,
    /// Who is at the other end.
    pub(crate) peer: Peer,
    /// What its client and its shard share; its bytes travel there from now on.
    pub(crate) segment: Option<std::sync::Arc<fairlock_shm::segment::Segment>>,
}

/// A request that is answered when another thread has done something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// On which connection.
    pub(crate) connection: ConnectionKey,
    /// Which request.
    pub(crate) request: RequestId,
}

/// A stream with another node, introduced on both sides.
#[derive(Debug)]
pub(crate) struct PeerStream {
    /// The connection.
    pub(crate) socket: OwnedFd,
    /// Who is at the other end.
    pub(crate) peer: replica::Peer,
    /// Whether it was made from here, to follow.
    pub(crate) dialed: bool,
}

/// What the cell's configuration means to a shard.
#[derive(Clone, Debug)]
pub(crate) struct CellNews {
    /// The cell.
    pub(crate) cell: CellId,
    /// Key of its digests.
    pub(crate) digest_key: DigestKey,
    /// Key of the proofs that go with grants.
    pub(crate) mac_key: MacKey,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// For clients.
    pub(crate) facts: CellFacts,
    /// Until when nothing is granted, when that changed.
    pub(crate) quarantine_until: Option<Tick>,
}

/// A session as its home announces it to the other shards.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) ttl_ms: u32,
    pub(crate) liveness: fairlock_protocol::Liveness,
    pub(crate) identity: Box<[u8]>,
    pub(crate) reclaim_key: Box<[u8]>,
    pub(crate) pid: u32,
    pub(crate) host: Box<[u8]>,
    pub(crate) exe: Box<[u8]>,
    pub(crate) label: Box<[u8]>,
    /// The session with the same identity cannot run any more.
    pub(crate) predecessor_gone: bool,
}

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// A connection belongs here.
    Adopt(Box<Adoption>),
    /// Another shard opened a session; answer with [`ToShard::SessionKnown`].
    SessionOpened(Box<Announcement>),
    /// A shard knows the session its home announced.
    SessionKnown {
        /// Which session.
        id: SessionId,
    },
    /// Its home ended the session.
    SessionOver {
        /// Which session.
        id: SessionId,
        /// Why.
        why: Ended,
    },
    /// A broken grant of this session was not confirmed in time: its home must renew it no more.
    SessionDoomed {
        /// Which session.
        id: SessionId,
    },
    /// Another shard than its home knows that the session is over: its client closed it, or hung up on shared memory.
    SessionClosed {
        /// Which session.
        id: SessionId,
        /// Which of the two.
        why: Ended,
    },
    /// Leases up to this length may be granted now: it is on disk.
    HorizonRaised {
        /// Milliseconds.
        ttl_ms: u32,
    },
    /// A client knows a later epoch of this cell than the server does: whatever it holds may lie on any shard.
    MemoryDoubted {
        /// The epoch it knows.
        epoch: u32,
    },
    /// A shard that inherited a session asks its home whether it is alive.
    SessionSought {
        /// Which session.
        id: SessionId,
        /// Who asks.
        by: fairlock_protocol::ShardId,
    },
    /// What the cell's configuration says now.
    Cell(Box<CellNews>),
    /// An order of this node to all its replicas.
    Order(Box<Order>),
    /// A stream with another node.
    Peer(Box<PeerStream>),
    /// What the control thread says to a question about the cell, or to a wish.
    CellAnswered {
        /// Who asked.
        asker: Asker,
        /// What.
        answer: Box<CellAnswer>,
    },
    /// How far are those who follow this shard? Answer with [`ToControl::Progress`].
    TellProgress {
        /// Comes back with the answer.
        ticket: u64,
    },
    /// The server will stop: refuse new requests, tell everybody, report when nobody holds anything.
    Drain,
    /// Stop now.
    Stop,
}

/// What the control thread is told by shards.
#[derive(Debug)]
pub(crate) enum ToControl {
    /// A client wants a lease longer than the longest on disk; answer with [`ToShard::HorizonRaised`].
    RaiseHorizon {
        /// Milliseconds.
        ttl_ms: u32,
    },
    /// What a replica has to say to its node.
    Report {
        /// Which shard's.
        shard: u16,
        /// What.
        report: Report,
    },
    /// What a thread of the cell has to say.
    Cell(CellEvent),
    /// An operator wants to see the cell; answered with [`ToShard::CellAnswered`].
    CellAsked {
        /// Whose client asks.
        shard: u16,
        /// Which client, in which request.
        asker: Asker,
    },
    /// How far those are who follow a shard.
    Progress {
        /// The question's.
        ticket: u64,
        /// Each with the operations that it has not acknowledged.
        followers: Vec<(replica::Peer, u64)>,
    },
    /// What an operator wants of the cell; answered with [`ToShard::CellAnswered`].
    Wish {
        /// Whose client asks.
        shard: u16,
        /// Which client, in which request.
        asker: Asker,
        /// What.
        wish: fairlock_replication::node::Wish,
    },
    /// While draining: no session has a grant or a wait here any more.
    Idle {
        /// Which shard.
        shard: u16,
    },
    /// The shard's thread ended.
    Stopped {
        /// Which shard.
        shard: u16,
        /// What it left behind.
        left: Left,
        /// Why, when it was not asked to.
        error: Option<std::io::Error>,
    },
}

/// What a shard left behind when it stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Sessions.
    pub(crate) sessions: u32,
    /// Sessions that hold something.
    pub(crate) holders: u32,
    /// It waited for older leases to end.
    pub(crate) recovering: bool,
    /// The sum of what it wrote down of everything it knew; `None` when it did not.
    pub(crate) file: Option<FileSum>,
}

impl Left {
    /// Nobody knows what: as much as there can be.
    pub(crate) const UNKNOWN: Left =
        Left { sessions: u32::MAX, holders: u32::MAX, recovering: false, file: None };
}

/// The sending end of one lane to a shard.
#[derive(Debug)]
pub(crate) struct ShardLane {
    producer: rtrb::Producer<ToShard>,
    waker: Waker,
    kept_back: VecDeque<ToShard>,
}

/// The receiving end of one lane.
pub(crate) type Inbox = rtrb::Consumer<ToShard>;

impl ShardLane {
    /// A lane to the shard that `waker` wakes.
    pub(crate) fn new(waker: Waker) -> (ShardLane, Inbox) {
        let (producer, consumer) = rtrb::RingBuffer::new(LANE_MESSAGES);
        (ShardLane { producer, waker, kept_back: VecDeque::new() }, consumer)
    }

    /// Sends one message and wakes the shard. Order is kept; nothing is lost while the shard's thread lives.
    pub(crate) fn send(&mut self, message: ToShard) {
        self.kept_back.push_back(message);
        self.flush();
    }

    /// Whether something waits for room.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.kept_back.is_empty()
    }

    /// Sends what did not fit before; to be called in each pass.
    pub(crate) fn flush(&mut self) {
        let mut sent = false;
        while let Some(message) = self.kept_back.pop_front() {
            match self.producer.push(message) {
                Ok(()) => sent = true,
                Err(rtrb::PushError::Full(message)) => {
                    self.kept_back.push_front(message);
                    break;
                }
            }
        }
        if sent {
            self.waker.wake();
        }
    }
}

/// A shard's way to the control thread, which sleeps in `poll` on the eventfd of its doorbell.
#[derive(Clone, Debug)]
pub(crate) struct ControlLane {
    sender: mpsc::Sender<ToControl>,
    doorbell: std::sync::Arc<OwnedFd>,
}

impl ControlLane {
    /// A lane to the control thread; the eventfd becomes readable when something was sent.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> std::io::Result<(ControlLane, mpsc::Receiver<ToControl>, std::sync::Arc<OwnedFd>)>
    {
        use rustix::event::{EventfdFlags, eventfd};
        let doorbell = std::sync::Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        Ok((ControlLane { sender, doorbell: doorbell.clone() }, receiver, doorbell))
    }

    /// Sends one message and wakes the control thread; after that thread's end it goes nowhere.
    pub(crate) fn send(&self, message: ToControl) {
        if self.sender.send(message).is_ok() {
            // A full counter cannot happen with less than 2^64 messages unread; the write then still wakes.
            let _ = rustix::io::write(&*self.doorbell, &1_u64.to_ne_bytes());
        }
    }
}

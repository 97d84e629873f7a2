//! From bytes to requests: what arrives on a connection is collected, and each pass takes at most a fair share of it.
//!
//! Nobody is served out of turn: connections with whole frames stand in one queue, and whoever has more than a pass
//! takes goes to its end. What is taken depends on nothing but the bytes, however they were cut on their way.

use std::collections::VecDeque;

use fairlock_locktable::command::SessionKey;
use fairlock_protocol::bundle::locks_asked;
use fairlock_protocol::limits::{READ_BACKLOG_BYTES_MAX, REQUESTS_PER_PASS};
use fairlock_protocol::request::{kind, resource_of_acquire};
use fairlock_protocol::{Digest, Frame, Malformed, Request, RequestId, SessionId, Tick};
use fairlock_shm::ring::Corrupt;

use super::Shard;
use crate::connection::{Connection, ConnectionKey, Phase};
use crate::stats::ShardStats;

/// What was computed of a share of requests before they are carried out.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Digests of the names asked for, by where their frames begin; which frame that is cannot be mistaken.
    digests: VecDeque<(usize, Digest)>,
    /// Where the frame that is being served begins.
    serving: usize,
}

impl Shard {
    /// Bytes arrived on a connection.
    pub(crate) fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        if connection.phase == Phase::Ending {
            return;
        }
        connection.receive(bytes);
        if !connection.paused && connection.unread().len() > READ_BACKLOG_BYTES_MAX {
            connection.paused = true;
            self.output.pause.push(key);
        }
        self.queue(key);
    }

    /// Gives a connection its turn, unless it has one or has answers to read first.
    fn queue(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.at_mut(key)
            && !connection.stalled
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(key);
        }
    }

    /// Too many answers wait to be written to a connection: its requests wait, too. `false`: they did already, or need
    /// not.
    pub(crate) fn stall(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.at_mut(key).filter(|found| !found.hung_up) else {
            return false;
        };
        !std::mem::replace(&mut connection.stalled, true)
    }

    /// The peer has read enough of its answers to be given more.
    pub(crate) fn unstall(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        connection.stalled = false;
        if connection.has_frame() {
            self.queue(key);
        }
    }

    /// A connection is gone. Its session, if it had one, lives on; whole requests that arrived are still served.
    pub(crate) fn disconnected(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        let talks = !matches!(connection.phase, Phase::Greeting | Phase::Moving | Phase::Ending);
        if talks && connection.has_frame() {
            // What it said before it went counts: a program may release its locks and exit in one breath.
            connection.hung_up = true;
            // Nothing is written any more, so nothing has to be waited for.
            self.unstall(key);
            assert!(
                self.connections.at(key).is_some_and(|connection| connection.ready),
                "whoever has a frame has a turn"
            );
            return;
        }
        self.forget(key);
    }

    /// A connection was ended by this side: its client may live, and know nothing of it yet.
    pub(crate) fn dropped(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.at_mut(key) {
            connection.dropped = true;
        }
        self.disconnected(key);
    }

    /// Lets go of a connection that is gone and has nothing more to say.
    fn forget(&mut self, key: ConnectionKey) {
        let connection = self.connections.at(key);
        let left = connection.is_some_and(|connection| !connection.dropped);
        if let Some(session) = connection.and_then(Connection::session) {
            self.hang_up(session, key, left);
        }
        if let Some(mut connection) = self.connections.remove(key) {
            self.timeouts.bound(&mut connection);
        }
    }

    /// Takes at most one pass's share of requests from one connection.
    pub(super) fn serve(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        connection.ready = false;
        let (has_words, hung_up) = (connection.words.is_some(), connection.hung_up);
        if connection.stalled {
            // It comes back when its answers are read.
            return;
        }
        let (inbound, first) = connection.take_inbound();
        self.look_ahead(&inbound, first);
        let mut at = first;
        let mut share = REQUESTS_PER_PASS;
        while share > 0 {
            match Connection::frame_at(&inbound, at) {
                Ok(None) => break,
                Ok(Some((frame, next))) if is_page(&frame) && hung_up => {
                    // Nobody is there to read it.
                    at = next;
                    share -= 1;
                }
                Ok(Some((frame, _))) if is_page(&frame) && self.pages_left == 0 => break,
                Ok(Some((frame, next))) => {
                    self.ahead.serving = at;
                    if !self.frame(key, &frame) {
                        break;
                    }
                    at = next;
                    share = share.saturating_sub(weight(&frame));
                    if is_page(&frame) {
                        // One is a connection's whole share of a pass.
                        self.pages_left = self.pages_left.saturating_sub(1);
                        break;
                    }
                }
                Err(malformed) => {
                    self.reject(key, RequestId::NOTICE, malformed);
                    break;
                }
            }
        }
        self.ahead.digests.clear();
        self.served(key, inbound, at, at > first);
        if has_words {
            self.look_at_retired(key);
        }
    }

    /// Computes the digests of the names asked for in one share, and has the table fetch what it will need for them: waiting
    /// for memory once for all of them instead of once for each.
    fn look_ahead(&mut self, inbound: &[u8], first: usize) {
        let mut at = first;
        for _ in 0..REQUESTS_PER_PASS {
            let Ok(Some((frame, next))) = Connection::frame_at(inbound, at) else { break };
            if let Some(resource) = resource_of_acquire(&frame) {
                self.ahead.digests.push_back((at, self.settings.digest_key.digest(resource)));
            }
            at = next;
        }
        if self.ahead.digests.len() > 1 {
            self.table.look_ahead(self.ahead.digests.iter().map(|(_, digest)| *digest));
        }
    }

    /// The digest of the frame that is being served, if it was computed ahead.
    pub(super) fn digest_ahead(&mut self) -> Option<Digest> {
        while let Some(&(at, digest)) = self.ahead.digests.front()
            && at <= self.ahead.serving
        {
            self.ahead.digests.pop_front();
            if at == self.ahead.serving {
                return Some(digest);
            }
        }
        None
    }

    /// A connection's shared memory is not what it should be: its client ends, and nobody else notices.
    pub(crate) fn corrupted(&mut self, now: Tick, key: ConnectionKey, corrupt: Corrupt) {
        self.now = now;
        if self.connections.at(key).is_none_or(|connection| connection.phase == Phase::Ending) {
            return;
        }
        ShardStats::add(&self.stats.malformed_total);
        tracing::warn!(connection = key.slot, %corrupt, "a client's shared memory is corrupt; its session ends");
        self.end_connection(key, false);
    }

    /// The session with this id, if it is here.
    pub(crate) fn session(&self, id: SessionId) -> Option<SessionKey> {
        self.table.session(id)
    }

    /// The connection that acts for a session.
    pub(crate) fn connection_of(&mut self, session: SessionKey) -> Option<ConnectionKey> {
        self.presence(session)?.connection
    }

    /// Serves what a connection has said whole, without regard to its share, because it says no more. `gone`: nobody is
    /// there to read an answer, so nothing has to wait for that.
    pub(crate) fn serve_out(&mut self, now: Tick, key: ConnectionKey, gone: bool) {
        self.now = now;
        if gone && let Some(connection) = self.connections.at_mut(key) {
            connection.hung_up = true;
            self.unstall(key);
        }
        let mut left = usize::MAX;
        loop {
            let Some(connection) = self.connections.at(key) else { return };
            // What is not taken now (a page beyond those of a pass) keeps its turn.
            if !connection.ready || connection.stalled || connection.unread().len() >= left {
                return;
            }
            left = connection.unread().len();
            self.ready.retain(|other| *other != key);
            self.serve(key);
        }
    }

    /// Puts the rest of the input back and decides when this connection's turn is next. `progressed`: a whole frame was
    /// taken, so that what is left is the beginning of a new one.
    fn served(&mut self, key: ConnectionKey, inbound: Vec<u8>, taken: usize, progressed: bool) {
        let now = self.now;
        let Some(connection) = self.connections.at_mut(key) else { return };
        connection.give_inbound(inbound, taken);
        match connection.phase {
            Phase::Ending | Phase::Moving => return,
            _ if connection.has_frame() => {
                connection.ready = true;
                connection.partial_since = None;
                self.ready.push_back(key);
            }
            _ if connection.hung_up => return self.forget(key),
            _ if connection.unread().is_empty() => connection.partial_since = None,
            Phase::Greeting => self.output.read_once.push(key),
            // Its process may be stopped between two slots of a frame, and its session lasts as long as the process does.
            // What waits here is less than a frame.
            Phase::Bound(_) if connection.words.is_some() => {}
            _ if progressed || connection.partial_since.is_none() => {
                connection.partial_since = Some(now);
                self.timeouts.partial(now, key);
            }
            // The rest came in pieces: its time still counts from the first.
            _ => {}
        }
        if connection.paused && connection.unread().len() < READ_BACKLOG_BYTES_MAX / 2 {
            connection.paused = false;
            self.output.read_on.push(key);
        }
    }

    /// One whole frame. `false`: the connection is not to be read any further in this pass, and the frame stays.
    fn frame(&mut self, key: ConnectionKey, frame: &Frame<'_>) -> bool {
        ShardStats::add(&self.stats.frames_total);
        let Some(connection) = self.connections.at_mut(key) else { return false };
        let phase = connection.phase;
        if phase == Phase::Welcomed {
            connection.phase = Phase::Talking;
        }
        match (phase, Request::decode(frame)) {
            (Phase::Ending | Phase::Moving, _) => return false,
            (Phase::Greeting, Ok(Request::Hello(hello))) => return self.hello(key, &hello),
            (Phase::Greeting, Ok(_)) => {
                self.reject(key, frame.request, Malformed::Illegal("HELLO comes first"));
            }
            (_, Ok(Request::Hello(_))) => {
                self.reject(key, frame.request, Malformed::Illegal("a second HELLO"));
            }
            (Phase::Opening, Ok(Request::Open(_) | Request::Resume { .. })) => {
                self.reject(key, frame.request, Malformed::Illegal("an OPEN is under way"));
            }
            (Phase::Bound(session), Ok(request)) => self.bound_request(key, session, frame, &request),
            (_, Ok(request)) => self.unbound_request(key, frame.request, &request),
            (phase, Err(malformed)) if malformed.is_confined() && phase != Phase::Greeting => {
                self.refuse(key, frame.request, malformed.refusal().into());
            }
            (_, Err(malformed)) => self.reject(key, frame.request, malformed),
        }
        true
    }
}

/// How much of a pass's share a request is: as much as it may ask for, and be answered.
fn weight(frame: &Frame<'_>) -> usize {
    if frame.kind == kind::ACQUIRE_ALL { locks_asked(frame.body) } else { 1 }
}

/// Whether a request may walk over thousands of records.
fn is_page(frame: &Frame<'_>) -> bool {
    matches!(frame.kind, kind::LIST | kind::SHOW | kind::SESSIONS | kind::STATUS)
}

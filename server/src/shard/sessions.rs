//! Sessions at the doors: how they are opened on every shard, which connection acts for them, what renews them, and
//! how they end.
//!
//! The home shard alone decides a session's expiry. It announces an opened session to the other shards and answers the
//! OPEN when all know it; it tells them of the end after its own table has ended it. No frame of a client creates a
//! session on a shard that is not its home.

use std::io;
use std::os::fd::OwnedFd;

use fairlock_locktable::command::{Attributes, Command, Ended, Lease, Open as OpenCommand, SessionKey};
use fairlock_locktable::effect::Effect;
use fairlock_protocol::limits::{TTL_DEFAULT, TTL_MIN};
use fairlock_protocol::reply::Refused;
use fairlock_protocol::request::Open;
use fairlock_protocol::wire::FLAG_RENEWED;
use fairlock_protocol::{Epoch, Liveness, Refusal, Reply, RequestId, Secret, SessionId, ShardId, Tick};

use super::{Shard, Watch};
use crate::connection::{ConnectionKey, Peer, Phase};
use crate::driver::Watched;
use crate::lanes::{Announcement, ToControl, ToShard};

/// How long an OPEN may wait for its lease to be written to disk.
const HORIZON_TIME_MS: u64 = 2_000;

/// What the doors know of a session beyond the table.
#[derive(Debug)]
pub(super) struct Presence {
    /// Whose; a slot's former tenant is told apart by it.
    pub(super) session: SessionKey,
    /// Its id.
    pub(super) id: SessionId,
    /// The connection that acts for it here.
    pub(super) connection: Option<ConnectionKey>,
    /// What ends it when it is silent.
    pub(super) liveness: Liveness,
    /// Its process was watched by the server before this one, and is to be again when it comes back.
    pub(super) to_watch: bool,
    /// Its lease can be renewed here: this is its home, and nobody forbade it. Never true again once false.
    pub(super) renewable: bool,
    /// Kept answers sent so far on this stream.
    pub(super) kept: u64,
    /// How many of them the client has.
    pub(super) acknowledged: u64,
}

/// A session that not every shard knows yet.
#[derive(Debug)]
pub(super) struct Opening {
    /// Shards that have not answered.
    pub(super) missing: u16,
    /// Who waits for the OPENED.
    pub(super) connection: ConnectionKey,
    /// Which request.
    pub(super) request: RequestId,
}

/// An OPEN that waits until its lease is on disk.
#[derive(Debug)]
pub(super) struct Parked {
    /// When it is refused.
    pub(super) due: Tick,
    connection: ConnectionKey,
    request: RequestId,
    new: Announcement,
}

impl Shard {
    /// An OPEN: checks what is asked, and makes sure that the disk knows the longest lease before it is granted.
    pub(super) fn open(&mut self, key: ConnectionKey, request: RequestId, open: &Open<'_>) {
        if self.draining {
            return self.refuse(key, request, Refusal::Draining.into());
        }
        let Some(connection) = self.connections.at(key) else { return };
        let legal = match (open.liveness, &connection.peer) {
            (Liveness::Heartbeat, _) | (Liveness::Process, Peer::Unix(_)) => true,
            (Liveness::Inherit, Peer::Unix(peer)) => peer.pipe.is_some(),
            (_, Peer::Tcp(_)) => false,
        };
        if !legal {
            let detail =
                "liveness `process` and `inherit` need the Unix socket, `inherit` a pipe with the HELLO";
            return self.refuse(key, request, Refused { detail, ..Refusal::Unsupported.into() });
        }
        // On this host the kernel knows the process id better than the client does.
        let pid = match &connection.peer {
            Peer::Unix(peer) if peer.credentials.pid != 0 => peer.credentials.pid,
            Peer::Unix(_) | Peer::Tcp(_) => open.pid,
        };
        let Some(id) = self.next_session_id() else {
            return self.refuse(key, request, Refusal::Quota.into());
        };
        let announcement = Announcement {
            id,
            secret: Secret((self.entropy)()),
            ttl_ms: self.granted_ttl_ms(open.ttl_ms),
            liveness: open.liveness,
            identity: open.identity.into(),
            reclaim_key: open.reclaim_key.into(),
            pid,
            host: open.host.into(),
            exe: open.exe.into(),
            label: open.label.into(),
            predecessor_gone: open.predecessor_gone,
        };
        if announcement.ttl_ms > self.settings.horizon_ms {
            let due = self.now.after_millis(HORIZON_TIME_MS);
            self.output.to_control.push(ToControl::RaiseHorizon { ttl_ms: announcement.ttl_ms });
            self.set_opening(key, true);
            self.parked.push_back(Parked { due, connection: key, request, new: announcement });
        } else {
            self.open_now(key, request, announcement);
        }
    }

    /// The id of the session that is entered next. Nobody has it before: an OPEN that is refused uses up no number, of
    /// which an epoch has only so many. In a cell the epoch is one of the office's own: the news of the next one may be here
    /// before the order to hand over, and its ids are another node's to give.
    fn next_session_id(&self) -> Option<SessionId> {
        let seq = self.session_seq.checked_add(1)?;
        let epoch = match &self.replicated {
            Some(replicated) => Epoch::new(replicated.replica.view())?,
            None => self.settings.epoch,
        };
        SessionId::new(epoch, self.settings.me, seq)
    }

    fn granted_ttl_ms(&self, asked_ms: u32) -> u32 {
        let max = u32::try_from(self.settings.ttl_max.as_millis()).unwrap_or(u32::MAX);
        let min = u32::try_from(TTL_MIN.as_millis()).unwrap_or(0);
        let default = u32::try_from(TTL_DEFAULT.as_millis()).unwrap_or(max);
        let wanted = if asked_ms == 0 { default } else { asked_ms };
        wanted.clamp(min.min(max), max)
    }

    /// The disk knows leases up to `ttl_ms`: whoever waited for that goes on.
    pub(super) fn horizon_raised(&mut self, ttl_ms: u32) {
        self.settings.horizon_ms = self.settings.horizon_ms.max(ttl_ms);
        for _ in 0..self.parked.len() {
            let Some(parked) = self.parked.pop_front() else { return };
            if parked.new.ttl_ms <= self.settings.horizon_ms {
                self.open_now(parked.connection, parked.request, parked.new);
            } else {
                self.parked.push_back(parked);
            }
        }
    }

    /// Refuses the OPENs whose lease could not be written in time.
    pub(super) fn expire_parked(&mut self) {
        while let Some(&Parked { due, connection, request, .. }) = self.parked.front() {
            if due > self.now {
                break;
            }
            self.parked.pop_front();
            self.set_opening(connection, false);
            let detail = "the state directory could not be written; see the server's log";
            self.refuse(connection, request, Refused { detail, ..Refusal::Unavailable.into() });
        }
    }

    fn open_now(&mut self, key: ConnectionKey, request: RequestId, mut new: Announcement) {
        // The connection may have ended while the disk was written.
        self.set_opening(key, false);
        if !self.connections.at(key).is_some_and(|connection| connection.phase == Phase::Talking) {
            return;
        }
        // Before anybody knows the session: without a descriptor to watch nobody would ever end it.
        let Ok(watched) = self.to_watch(key, new.liveness) else {
            let detail = "no descriptor is left to watch the process";
            return self.refuse(key, request, Refused { detail, ..Refusal::Busy.into() });
        };
        // Others may have been entered while this one waited for the disk.
        let Some(id) = self.next_session_id() else {
            return self.refuse(key, request, Refusal::Quota.into());
        };
        new.id = id;
        let session = match self.enter(&new, false) {
            Ok(session) => session,
            Err(refusal) => return self.refuse(key, request, refusal.into()),
        };
        self.session_seq += 1;
        self.bind(key, session);
        self.output.watch.extend(watched.map(|(descriptor, kind)| (session, Watch::Begin(descriptor, kind))));
        if self.settings.shards == 1 {
            return self.opened(key, request, session);
        }
        let missing = self.settings.shards - 1;
        self.openings.insert(new.id, Opening { missing, connection: key, request });
        self.tell_others(|| ToShard::SessionOpened(Box::new(new.clone())));
    }

    /// Puts a session into the table: at its home, or where it visits.
    pub(super) fn enter(&mut self, new: &Announcement, visiting: bool) -> Result<SessionKey, Refusal> {
        let lease =
            if visiting || new.liveness != Liveness::Heartbeat { Lease::Watched } else { Lease::Heartbeat };
        let command = Command::Open(OpenCommand {
            id: new.id,
            secret: new.secret,
            ttl_ms: new.ttl_ms,
            lease,
            visiting,
            identity: &new.identity,
            reclaim_key: &new.reclaim_key,
            predecessor_gone: new.predecessor_gone,
            attributes: Attributes { pid: new.pid, host: &new.host, exe: &new.exe, label: &new.label },
        });
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.change(command, &mut effects);
        let mut outcome = Err(Refusal::Internal);
        for effect in &effects {
            match *effect {
                Effect::Opened { session, id } if id == new.id => outcome = Ok(session),
                Effect::NotOpened { id, refusal } if id == new.id => outcome = Err(refusal),
                ref other => self.carry_out(other),
            }
        }
        self.effects = effects;
        self.apply_returned();
        // A session may be announced twice; what is known of it stays.
        if let Ok(session) = outcome
            && self.presence(session).is_none()
        {
            self.visiting += u64::from(visiting);
            self.greet(session, new, !visiting);
        }
        outcome
    }

    /// Notes a session that the table has just opened.
    fn greet(&mut self, session: SessionKey, new: &Announcement, renewable: bool) {
        let presence = Presence {
            session,
            id: new.id,
            connection: None,
            liveness: new.liveness,
            to_watch: false,
            renewable,
            kept: 0,
            acknowledged: 0,
        };
        self.note_presence(presence);
    }

    pub(super) fn note_presence(&mut self, presence: Presence) {
        let slot = presence.session.slot as usize;
        if self.presences.len() <= slot {
            self.presences.resize_with(slot + 1, || None);
        }
        self.presences[slot] = Some(presence);
    }

    /// What is known of a session, if it is still there.
    pub(super) fn presence(&mut self, session: SessionKey) -> Option<&mut Presence> {
        self.presences.get_mut(session.slot as usize)?.as_mut().filter(|presence| presence.session == session)
    }

    /// From now on the connection acts for the session.
    pub(super) fn bind(&mut self, key: ConnectionKey, session: SessionKey) {
        let Some(connection) = self.connections.at_mut(key) else { return };
        assert!(connection.is_unbound(), "a connection acts for one session");
        connection.phase = Phase::Bound(session);
        self.timeouts.bound(connection);
        if let Some(presence) = self.presence(session) {
            presence.connection = Some(key);
        }
    }

    /// The connection acts for the session no more; the session lives on.
    pub(super) fn unbind(&mut self, session: SessionKey, key: ConnectionKey) {
        if let Some(presence) = self.presence(session)
            && presence.connection == Some(key)
        {
            presence.connection = None;
        }
    }

    /// The connection that acted for a session is gone. The session lives on, unless it shared memory with us: nobody
    /// watches its words any more, so it ends. `left`: the client hung up, or is gone.
    pub(super) fn hang_up(&mut self, session: SessionKey, key: ConnectionKey, left: bool) {
        let shares = self.connections.at(key).is_some_and(|connection| connection.words.is_some());
        let present = self.presence(session).is_some_and(|presence| presence.connection == Some(key));
        if !(shares && present) {
            return self.unbind(session, key);
        }
        if !self.serves() {
            // Whoever serves next goes on with it.
            self.stop_renewing(session);
            return self.unbind(session, key);
        }
        let Some((id, liveness)) = self.presence(session).map(|presence| (presence.id, presence.liveness))
        else {
            return;
        };
        let is_home = id.home() == self.settings.me;
        if is_home && liveness != Liveness::Inherit {
            return if left {
                self.end_left(session, key);
            } else {
                self.end_session(session, Ended::Expired);
            };
        }
        if liveness != Liveness::Inherit {
            // Its home ends it, here too but not here first: a guard of what is held in no word finds the end in the home's
            // memory alone. What it held passes as a dead holder's.
            self.output.to_shards.push((id.home(), ToShard::SessionClosed { id, why: Ended::Expired }));
        }
        // Until then, or as long as its descendants keep it alive, what is held is held on without words.
        self.give_words_up(session, left);
        self.unbind(session, key);
    }

    /// Marks a connection whose OPEN waits for the disk, or waits no more.
    fn set_opening(&mut self, key: ConnectionKey, opening: bool) {
        let (before, after) =
            if opening { (Phase::Talking, Phase::Opening) } else { (Phase::Opening, Phase::Talking) };
        if let Some(connection) = self.connections.at_mut(key).filter(|found| found.phase == before) {
            connection.phase = after;
        }
    }

    /// What the kernel is to watch for a session of this liveness: the process, or the pipe of its descendants.
    pub(super) fn to_watch(
        &self,
        key: ConnectionKey,
        liveness: Liveness,
    ) -> io::Result<Option<(OwnedFd, Watched)>> {
        let peer = self.connections.at(key).map(|connection| &connection.peer);
        let watched = match (liveness, peer) {
            (Liveness::Process, Some(Peer::Unix(peer))) => Some((&peer.pidfd, Watched::Process)),
            (Liveness::Inherit, Some(Peer::Unix(peer))) => {
                peer.pipe.as_ref().map(|pipe| (pipe, Watched::Pipe))
            }
            _ => None,
        };
        watched.map(|(descriptor, kind)| Ok((descriptor.try_clone()?, kind))).transpose()
    }

    /// A watched process or pipe is gone.
    pub(crate) fn process_gone(&mut self, now: Tick, session: SessionKey) {
        self.now = now;
        self.end_session(session, Ended::Died);
    }

    /// Answers the OPEN: every shard knows the session.
    pub(super) fn opened(&mut self, key: ConnectionKey, request: RequestId, session: SessionKey) {
        let Some(view) = self.table.session_view(session) else { return };
        let (id, secret, ttl_ms) = (view.id, view.secret, view.ttl_ms);
        let reply = Reply::Opened { session: id, secret, ttl_ms, home: self.settings.me };
        let flags = self.renewed_flag(session);
        self.reply(key, request, flags, &reply);
        self.tell_nodes(key);
    }

    /// A frame of a session arrived at its home: the lease is as long again, unless somebody forbade it.
    pub(super) fn renew(&mut self, session: SessionKey) {
        let now = self.moment();
        let renewable = self.presence(session).is_some_and(|presence| presence.renewable);
        if renewable
            && !self.table.renew(session, now)
            && let Some(presence) = self.presence(session)
        {
            presence.renewable = false;
        }
    }

    /// What an answer to a request of this session carries: the lease was renewed when the request arrived. As nothing
    /// makes a lease renewable again, one that is renewable now was so then.
    pub(super) fn renewed_flag(&mut self, session: SessionKey) -> u8 {
        if self.presence(session).is_some_and(|presence| presence.renewable) { FLAG_RENEWED } else { 0 }
    }

    /// A KEEPALIVE: renews at the home; elsewhere it only acknowledges.
    pub(super) fn keepalive(&mut self, key: ConnectionKey, session: SessionKey, request: RequestId) {
        let flags = self.renewed_flag(session);
        let me = self.settings.me;
        let at_home = self.presence(session).is_some_and(|presence| presence.id.home() == me);
        let replaced = at_home && self.table.session_view(session).is_some_and(|view| view.replaced);
        if replaced {
            return self.refuse(key, request, Refusal::SessionReplaced.into());
        }
        self.reply(key, request, flags, &Reply::Alive);
    }

    /// A CLOSE: at the home the session ends; elsewhere the home is told.
    pub(super) fn close_session(&mut self, key: ConnectionKey, session: SessionKey, request: RequestId) {
        let Some(id) = self.presence(session).map(|presence| presence.id) else { return };
        if id.home() == self.settings.me {
            self.end_session(session, Ended::Closed);
        } else {
            self.output.to_shards.push((id.home(), ToShard::SessionClosed { id, why: Ended::Closed }));
        }
        self.reply(key, request, 0, &Reply::Closed);
    }

    /// Tells every other shard something.
    pub(super) fn tell_others(&mut self, message: impl Fn() -> ToShard) {
        for shard in (0..self.settings.shards).map(ShardId) {
            if shard != self.settings.me {
                self.output.to_shards.push((shard, message()));
            }
        }
    }
}

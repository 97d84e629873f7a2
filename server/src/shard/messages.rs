//! What other threads tell a shard: sessions that begin and end elsewhere, the disk, and the end of the server.

use fairlock_locktable::command::{Command, Ended};
use fairlock_protocol::reply::Refused;
use fairlock_protocol::{Refusal, Reply, RequestId, SessionId, Tick};
use fairlock_replication::replica::Part;

use super::Shard;
use crate::connection::Phase;
use crate::lanes::{Announcement, ToShard};

impl Shard {
    /// Takes one message of another thread. Connections that move here, and the order to stop, are for the driver.
    pub(crate) fn message(&mut self, now: Tick, message: ToShard) {
        self.now = now;
        match message {
            ToShard::SessionOpened(new) => self.session_opened(new),
            ToShard::SessionKnown { id } => self.session_known(id),
            ToShard::SessionOver { id, why } | ToShard::SessionClosed { id, why } => self.end_by_id(id, why),
            ToShard::SessionDoomed { id } => {
                if let Some(session) = self.table.session(id) {
                    self.apply(Command::Doom { session });
                }
            }
            ToShard::HorizonRaised { ttl_ms } => self.horizon_raised(ttl_ms),
            ToShard::MemoryDoubted { epoch } => self.doubt_memory(epoch),
            ToShard::SessionSought { id, by } => self.session_sought(id, by),
            ToShard::Cell(news) => self.cell_news(*news),
            ToShard::CellAnswered { asker, answer } => self.cell_answered(asker, &answer),
            ToShard::TellProgress { ticket } => self.tell_progress(ticket),
            ToShard::Order(order) => self.obey(*order),
            ToShard::Drain => self.drain(),
            ToShard::Adopt(_) | ToShard::Peer(_) | ToShard::Stop => unreachable!("the driver keeps these"),
        }
    }

    /// Another shard opened a session: it is entered here before its home answers the client. The home may have taken office
    /// before this shard, which then enters it when it does.
    pub(super) fn session_opened(&mut self, new: Box<Announcement>) {
        let home = new.id.home();
        assert_ne!(home, self.settings.me, "a home does not announce to itself");
        if let Some(replicated) = self.replicated.as_mut().filter(|one| one.replica.part() != Part::Primary) {
            return replicated.announced.push(new);
        }
        // A full table refuses the session: it is then over everywhere, and its client is told by the home.
        let known = match self.enter(&new, true) {
            Ok(_) => ToShard::SessionKnown { id: new.id },
            Err(refusal) => {
                tracing::warn!(session = %new.id, %refusal, "a session opened elsewhere could not be entered");
                ToShard::SessionClosed { id: new.id, why: Ended::Closed }
            }
        };
        self.output.to_shards.push((home, known));
    }

    /// One more shard knows a session of ours; the last one completes its OPEN.
    fn session_known(&mut self, id: SessionId) {
        let Some(opening) = self.openings.get_mut(&id) else { return };
        assert!(opening.missing > 0, "no shard answers twice");
        opening.missing -= 1;
        if opening.missing == 0
            && let Some(opening) = self.openings.remove(&id)
            && let Some(session) = self.table.session(id)
        {
            self.opened(opening.connection, opening.request, session);
        }
    }

    fn end_by_id(&mut self, id: SessionId, why: Ended) {
        if let Some(opening) = self.openings.remove(&id) {
            let refused =
                Refused { detail: "a shard could not take one more session", ..Refusal::Quota.into() };
            self.refuse(opening.connection, opening.request, refused);
        }
        if let Some(session) = self.table.session(id) {
            self.end_session(session, why);
        }
    }

    /// The server will stop: everybody is told, nothing new is granted.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        self.revoke_all();
        for key in self.connections.keys() {
            if self
                .connections
                .at(key)
                .is_some_and(|c| !matches!(c.phase, Phase::Greeting | Phase::Moving | Phase::Ending))
            {
                self.reply(key, RequestId::NOTICE, 0, &Reply::Draining);
            }
        }
    }
}

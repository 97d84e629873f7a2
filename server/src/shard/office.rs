//! An office begins or ends: what a shard does when its node becomes the primary of its cell, or is it no more, and what
//! clients are told of who is.

use fairlock_locktable::command::Command;
use fairlock_protocol::reply::Refused;
use fairlock_protocol::{Epoch, Liveness, Refusal, Reply, RequestId, SessionId, ShardId, Tick, Whereabouts};
use fairlock_replication::replica::Part;

use super::replicated::CellFacts;
use super::sessions::Presence;
use super::{Shard, Watch};
use crate::connection::{ConnectionKey, Phase};
use crate::lanes::{CellNews, ToShard};

impl Shard {
    /// What the configuration says now.
    fn know_cell(&mut self, facts: CellFacts) {
        let is_here = facts.is_here;
        if let Some(replicated) = &mut self.replicated {
            replicated.facts = facts;
        }
        // Where another one is named, this one hands over: clients hear of it when that serves.
        if self.serves() && is_here {
            self.tell_nodes_to_all();
        }
        self.tell_of_primary();
    }

    /// Whoever was welcomed before this node knew its cell took it for another one, or for none: it has to come again.
    fn end_strangers(&mut self) {
        for key in self.connections.keys() {
            let phase = self.connections.at(key).map(|connection| connection.phase);
            if matches!(phase, Some(Phase::Welcomed | Phase::Talking)) {
                self.refuse_not_primary(key, RequestId::NOTICE);
                self.end_connection(key, true);
            }
        }
    }

    /// Another node has begun to serve, and this one follows it: clients that stand by here hear of it at once. Their own
    /// server may be the one before, which stands still.
    pub(super) fn tell_of_primary(&mut self) {
        let follows = self.follows_known();
        let Some(replicated) = &mut self.replicated else { return };
        let reign = replicated.replica.reign();
        if follows && std::mem::replace(&mut replicated.told_of, reign) != reign {
            self.tell_nodes_to_all();
        }
    }

    /// Tells one who begins to stand by here who serves, if this node is certain of it: he may have missed the news.
    pub(super) fn tell_who_serves(&mut self, key: ConnectionKey) {
        if self.serves() || self.follows_known() {
            self.tell_nodes(key);
        }
    }

    /// Whether the primary that speaks here is the one that the configuration names: what is known of the cell may be older or
    /// newer than what it said.
    fn follows_known(&self) -> bool {
        self.replicated.as_ref().is_some_and(|replicated| {
            let replica = &replicated.replica;
            matches!(replica.part(), Part::Backup | Part::Idle)
                && replica.reign() != 0
                && replica.view() == replicated.facts.epoch
        })
    }

    /// Tells every client, also those that only stand by, which nodes there are and that this one serves.
    fn tell_nodes_to_all(&mut self) {
        for key in self.connections.keys() {
            let phase = self.connections.at(key).map(|connection| connection.phase);
            if matches!(phase, Some(Phase::Welcomed | Phase::Talking | Phase::Bound(_))) {
                self.tell_nodes(key);
            }
        }
    }

    /// Tells a client that opened or resumed a session where the other nodes are.
    pub(super) fn tell_nodes(&mut self, key: ConnectionKey) {
        let Some(replicated) = &self.replicated else { return };
        if replicated.facts.is_known() {
            let (epoch, nodes) = (replicated.facts.epoch, replicated.facts.nodes.clone());
            self.reply(key, RequestId::NOTICE, 0, &Reply::Members(Whereabouts { epoch, endpoints: &nodes }));
        }
    }

    /// Refuses what only the primary can do, and says where that is.
    pub(super) fn refuse_not_primary(&mut self, key: ConnectionKey, request: RequestId) {
        let facts = self.replicated.as_ref().map(|replicated| replicated.facts.clone()).unwrap_or_default();
        let primary = Some(Whereabouts { epoch: facts.epoch, endpoints: &facts.primary });
        self.refuse(key, request, Refused { primary, ..Refusal::NotPrimary.into() });
    }

    /// Goes on where the log ends: the cell's time from the newest moment, and everybody's lease from now.
    pub(super) fn begin_office(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let Some(epoch) = Epoch::new(replicated.replica.view()) else { return };
        replicated.ahead_ns = i128::from(replicated.moment.0) - i128::from(self.now.0);
        (replicated.confirmed, replicated.told_of) = (Tick::ZERO, replicated.replica.reign());
        (self.settings.epoch, self.session_seq, self.draining) = (epoch, 0, false);
        self.meet_sessions();
        self.apply(Command::TakeOver(epoch));
        self.hear_sooner();
        self.tell_nodes_to_all();
        tracing::info!(shard = self.settings.me.0, epoch = epoch.get(), "in office");
    }

    /// What shards that took office sooner have said to this one. Who opened a session may have left that office again: so it
    /// is asked whether the session is alive.
    fn hear_sooner(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let (sought, announced) =
            (std::mem::take(&mut replicated.sought), std::mem::take(&mut replicated.announced));
        for (id, by) in sought {
            self.session_sought(id, by);
        }
        for new in announced {
            let (id, by) = (new.id, self.settings.me);
            self.session_opened(new);
            self.output.to_shards.push((id.home(), ToShard::SessionSought { id, by }));
        }
    }

    /// The doors get to know the sessions that the table has.
    pub(super) fn meet_sessions(&mut self) {
        (self.presences, self.visiting) = (Vec::new(), 0);
        let me = self.settings.me;
        let (mut all, mut visitors) = (Vec::new(), Vec::new());
        let end = self.table.sessions(0, |view| {
            all.push(Presence {
                session: view.key,
                id: view.id,
                connection: None,
                liveness: Liveness::Heartbeat,
                to_watch: false,
                renewable: view.renewable && !view.visiting,
                kept: view.kept_sent,
                acknowledged: view.acknowledged,
            });
            if view.visiting {
                visitors.push(view.id);
            }
            std::ops::ControlFlow::Continue(())
        });
        assert!(end.is_none(), "nobody stopped the visit");
        for presence in all {
            self.note_presence(presence);
        }
        self.visiting = visitors.len() as u64;
        // The end of one may have been told by the primary before to nobody.
        for id in visitors {
            self.output.to_shards.push((id.home(), ToShard::SessionSought { id, by: me }));
        }
    }

    /// Everybody is sent on; what waited for a round is void.
    pub(super) fn leave_office(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let confirmed = replicated.confirmed;
        let left = replicated.batches.iter().flat_map(|batch| &batch.ended).chain(&replicated.ended);
        left.for_each(|words| words.stop_renewing(confirmed));
        // Connections that were to end end, without what was to be said before; the rest is void.
        let closes = replicated.batches.drain(..).flat_map(|batch| batch.closes);
        self.output.close.extend(closes.chain(std::mem::take(&mut replicated.free).closes));
        replicated.begun.clear();
        replicated.written.clear();
        replicated.ended.clear();
        replicated.sought.clear();
        replicated.announced.clear();
        let watched = std::mem::take(&mut self.presences).into_iter().flatten();
        self.output.watch.extend(watched.map(|presence| (presence.session, Watch::End)));
        self.visiting = 0;
        self.openings.clear();
        self.parked.clear();
        self.holds_back = false;
        // The next office begins with what the register covers then, which may be less.
        self.settings.horizon_ms = 0;
        self.output.to_shards.clear();
        for key in self.connections.keys() {
            let Some(connection) = self.connections.at_mut(key) else { continue };
            // Another node may end its session now; what this one stamps in its next office says nothing of it.
            if let Some(words) = &connection.words {
                words.stop_renewing(confirmed);
            }
            // Whoever is owed an answer learns that it will not come: from the end of the connection.
            let is_owed = connection.forget_held() && connection.phase != Phase::Ending;
            if is_owed || matches!(connection.phase, Phase::Bound(_) | Phase::Opening) {
                self.refuse_not_primary(key, RequestId::NOTICE);
                self.end_connection(key, true);
            }
        }
        tracing::info!(shard = self.settings.me.0, "out of office");
    }

    /// A shard that inherited a visiting session asks whether it is alive. It may have taken office before this one, which
    /// then has yet to apply what it inherits, perhaps that session's end.
    pub(super) fn session_sought(&mut self, id: SessionId, by: ShardId) {
        if let Some(replicated) = self.replicated.as_mut().filter(|one| one.replica.part() != Part::Primary) {
            replicated.sought.push((id, by));
        } else if self.table.session(id).is_none() {
            let why = fairlock_locktable::command::Ended::Expired;
            self.output.to_shards.push((by, ToShard::SessionOver { id, why }));
        }
    }

    /// What the cell's configuration says now.
    pub(super) fn cell_news(&mut self, news: CellNews) {
        if std::mem::replace(&mut self.settings.cell, news.cell) != news.cell {
            self.end_strangers();
        }
        self.settings.digest_key = news.digest_key;
        self.settings.mac_key = news.mac_key;
        self.settings.epoch = news.epoch;
        if let Some(until) = news.quarantine_until {
            self.settings.quarantine_until = until;
        }
        self.know_cell(news.facts);
    }
}

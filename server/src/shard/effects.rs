//! From effects to bytes: what the table decided goes to the connection that acts for the session, if there is one.
//! What is kept waits in the table for a RESUME; notices are said to whoever is there, and an operator's orders again
//! after a RESUME.

use fairlock_locktable::command::{Command, Ended, Granted, SessionKey};
use fairlock_locktable::effect::{Answer, Effect, Notice};
use fairlock_protocol::reply::{CycleEdge, Grant, Refused};
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{Refusal, Reply, RequestId};

use super::{Shard, Watch};
use crate::connection::{ConnectionKey, Phase};
use crate::lanes::ToShard;

impl Shard {
    /// Applies a command at the moment of this step and carries out what follows. What it says leaves the shard when it
    /// is committed (`replicated.rs`): at once where nobody else has a copy.
    pub(super) fn apply(&mut self, command: Command<'_>) {
        self.apply_one(command);
        self.apply_returned();
    }

    /// As [`Shard::apply`], without the cached grants that come back because of it.
    pub(super) fn apply_one(&mut self, command: Command<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.change(command, &mut effects);
        for effect in &effects {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    /// Carries out one effect.
    pub(super) fn carry_out(&mut self, effect: &Effect) {
        match *effect {
            Effect::Answered { session, request, ref answer, kept } => {
                self.answered(session, request, answer, kept);
            }
            Effect::Told { session, ref notice } => self.told(session, notice),
            Effect::Over { session, id, why } => self.over(session, id, why),
            Effect::Doomed { id, .. } if id.home() != self.settings.me => {
                self.output.to_shards.push((id.home(), ToShard::SessionDoomed { id }));
            }
            Effect::Doomed { session, .. } => self.stop_renewing(session),
            // These answer a command of this shard and are read where it was applied.
            Effect::Opened { .. } | Effect::NotOpened { .. } | Effect::Broke { .. } => {}
        }
    }

    fn answered(&mut self, session: SessionKey, request: RequestId, answer: &Answer, kept: bool) {
        let Some(presence) = self.presence(session) else { return };
        presence.kept += u64::from(kept);
        if let Some(connection) = presence.connection {
            self.send_answer(connection, session, request, answer, if kept { FLAG_KEPT } else { 0 });
        }
    }

    /// Writes an answer; those that mean something was done also say that the lease was renewed.
    pub(super) fn send_answer(
        &mut self,
        connection: ConnectionKey,
        session: SessionKey,
        request: RequestId,
        answer: &Answer,
        kept: u8,
    ) {
        let flags = if kept == 0 { 0 } else { kept | self.renewed_flag(session) };
        match *answer {
            Answer::Granted(ref granted) => {
                let proof = self.proof_of(connection, session, granted);
                self.reply(connection, request, flags, &Reply::Granted(Grant { proof, ..grant(granted) }));
            }
            Answer::Converted(ref granted) => {
                let proof = self.proof_of(connection, session, granted);
                self.reply(connection, request, flags, &Reply::Converted(Grant { proof, ..grant(granted) }));
            }
            Answer::Released { remaining } => {
                self.reply(connection, request, flags, &Reply::Released { remaining });
            }
            Answer::Withdrawn { was_waiting } => {
                self.reply(connection, request, flags, &Reply::Withdrawn { was_waiting });
            }
            Answer::Refused(refusal) => {
                crate::stats::ShardStats::add(&self.stats.refusals_total);
                // A refusal that waited for nothing renews nothing, and one that ended a wait is not a confirmation.
                self.reply(connection, request, kept, &Reply::Refused(refusal.into()));
            }
            Answer::Deadlock { session, owner, mode } => {
                let known = self.table.session(session).and_then(|other| self.table.session_view(other));
                let label: Box<[u8]> = known.map_or_else(Box::default, |view| view.attributes.label.into());
                let cycle = Some(CycleEdge { session, owner, mode, label: &label });
                self.refuse(connection, request, Refused { cycle, ..Refusal::Deadlock.into() });
            }
        }
    }

    /// Says a notice, if anybody is there to hear it.
    pub(super) fn told(&mut self, session: SessionKey, notice: &Notice) {
        match *notice {
            Notice::Blocking { grant, .. } if self.revoke(session, grant) => return,
            Notice::Broken { grant, forced } => self.break_word(session, grant, forced),
            _ => {}
        }
        let Some(connection) = self.presence(session).and_then(|presence| presence.connection) else {
            return;
        };
        let reply = match *notice {
            Notice::Blocking { grant, wanted, waiters } => Reply::Blocking { grant, wanted, waiters },
            Notice::Broken { grant, forced } => Reply::Broken { grant, forced },
            Notice::HoldOver { grant } => Reply::HoldOver { grant },
            Notice::Killed => Reply::KillAnnounced,
        };
        self.reply(connection, RequestId::NOTICE, 0, &reply);
    }

    /// A session ended here: its connection is told, its watch ends, and the home tells the other shards.
    fn over(&mut self, session: SessionKey, id: fairlock_protocol::SessionId, why: Ended) {
        self.end_words(session);
        let opening = self.openings.remove(&id);
        self.output.watch.push((session, Watch::End));
        if id.home() == self.settings.me {
            self.tell_others(|| ToShard::SessionOver { id, why });
        } else {
            self.visiting -= 1;
        }
        let Some(key) = self.presence(session).and_then(|presence| presence.connection.take()) else {
            return;
        };
        // A connection whose end took the session with it talks no more.
        if let Some(connection) = self.connections.at_mut(key).filter(|found| found.phase != Phase::Ending) {
            connection.phase = Phase::Talking;
            self.timeouts.unbound(key, connection);
        }
        let refusal = match why {
            Ended::Closed => return,
            Ended::Replaced => Refusal::SessionReplaced,
            Ended::Expired | Ended::Died | Ended::Killed => Refusal::SessionExpired,
        };
        match opening {
            // It ended before every shard knew it: its client has yet to hear of it.
            Some(opening) => self.refuse(opening.connection, opening.request, refusal.into()),
            None => self.reply(key, RequestId::NOTICE, 0, &Reply::Over(refusal)),
        }
    }
}

fn grant(granted: &Granted) -> Grant {
    Grant {
        grant: granted.grant,
        token: granted.token,
        fence: granted.fence,
        mode: granted.mode,
        waited_us: granted.waited_us,
        previous_owner_died: granted.previous_owner_died,
        reentered: granted.reentered,
        proof: None,
    }
}

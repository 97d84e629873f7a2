//! After a loss of memory: clients show what they held, and hold it on.
//!
//! A grant may come with a proof, over everything that identifies it, under a key that outlives the server's memory. While a
//! quarantine keeps all others out, whoever shows such a proof gets the grant back with a new token, if it goes with what
//! was shown before. What contradicts is refused and alarmed: one of the two holders is mistaken.

use fairlock_locktable::command::{Acquire, Command, Granted, SessionKey};
use fairlock_locktable::effect::{Answer, Effect};
use fairlock_protocol::proof::Proven;
use fairlock_protocol::reply::Refused;
use fairlock_protocol::request::Reassert;
use fairlock_protocol::{Proof, Refusal, RequestId};

use super::Shard;
use crate::connection::ConnectionKey;

impl Shard {
    /// What proves a grant, where the client asked for that.
    pub(super) fn proof_of(
        &self,
        key: ConnectionKey,
        session: SessionKey,
        granted: &Granted,
    ) -> Option<Proof> {
        if !self.connections.at(key).is_some_and(|connection| connection.proves) {
            return None;
        }
        let (session, resource) = self.table.session_and_resource(session, granted.grant)?;
        let it =
            Proven { cell: self.settings.cell, session, resource, mode: granted.mode, token: granted.token? };
        Some(self.settings.mac_key.prove(&it))
    }

    /// A REASSERT.
    pub(super) fn reassert(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        request: RequestId,
        claim: &Reassert<'_>,
    ) {
        let acquire = &claim.acquire;
        let Some(digest) = self.digest_here(key, request, acquire.resource) else { return };
        if self.now >= self.settings.quarantine_until {
            let detail = "nothing is taken on any more: the quarantine is over";
            return self.refuse(key, request, Refused { detail, ..Refusal::NotHeld.into() });
        }
        let it = Proven {
            cell: self.settings.cell,
            session: claim.session,
            resource: acquire.resource,
            mode: acquire.mode,
            token: claim.token,
        };
        if self.settings.mac_key.prove(&it) != claim.proof {
            let text = format!("session {} claims a lock without proof that it held it", claim.session);
            self.alarms.raise("reassert", text);
            let detail = "the proof does not fit";
            return self.refuse(key, request, Refused { detail, ..Refusal::Denied.into() });
        }
        let Some(asked) = self.asked_of_table(key, (session, request), digest, acquire) else { return };
        let command = Command::Reassert {
            acquire: Acquire { wait: fairlock_protocol::Wait::Try, ..asked },
            token: claim.token,
        };
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        self.change(command, &mut effects);
        for effect in &effects {
            let contradicts =
                matches!(effect, Effect::Answered { answer: Answer::Refused(Refusal::StaleToken), .. });
            if contradicts {
                let (session, token) = (claim.session, claim.token.get());
                let text =
                    format!("session {session} claims a lock with token {token} that another has claimed");
                self.alarms.raise("reassert", text);
            }
            self.carry_out(effect);
        }
        self.effects = effects;
        self.apply_returned();
    }
}

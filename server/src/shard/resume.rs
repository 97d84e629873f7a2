//! Taking up a session on a new connection, and the acknowledgement of what was answered.
//!
//! A session has one stream with each shard. The client numbers its requests and counts the answers that were kept for
//! it; both counts together tell either side, after any interruption, exactly what the other has: kept answers that
//! did not arrive are sent again, and requests that were not seen are sent again by the client.

use fairlock_locktable::command::{Command, SessionKey};
use fairlock_locktable::effect::Notice;
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{Malformed, Refusal, Reply, RequestId, Secret, SessionId};

use super::Shard;
use crate::connection::{ConnectionKey, Phase};

impl Shard {
    /// A RESUME: the connection acts for the session from here on, and the one that did so before ends.
    pub(super) fn resume(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        id: SessionId,
        secret: Secret,
        received: u64,
    ) {
        self.check_memory(self.settings.cell, id.epoch_number());
        let session = match self.table.session(id) {
            Some(session) if self.table.session_view(session).is_some_and(|view| view.secret == secret) => {
                session
            }
            _ => return self.refuse(key, request, Refusal::SessionUnknown.into()),
        };
        let Some(presence) = self.presence(session) else { return };
        if received < presence.acknowledged || received > presence.kept {
            return self.reject(key, request, Malformed::Illegal("received"));
        }
        // Nobody looks after the words of a former segment any more: what was only kept there comes back.
        self.give_words_up(session, false);
        if let Some(former) = self.presence(session).and_then(|presence| presence.connection.take()) {
            self.forget_connection(former);
        }
        self.bind(key, session);
        self.watch_again(key, session);
        self.apply(Command::Resume { session, received });
        if let Some(presence) = self.presence(session) {
            presence.acknowledged = received;
        }
        self.renew(session);
        self.send_resumed(key, request, session);
    }

    /// Ends a connection whose session came back on another: nothing it still says may count.
    fn forget_connection(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.at_mut(key) {
            connection.phase = Phase::Ending;
            self.output.close.push((key, false));
        }
    }

    fn send_resumed(&mut self, key: ConnectionKey, request: RequestId, session: SessionKey) {
        let flags = self.renewed_flag(session);
        let Some(view) = self.table.session_view(session) else { return };
        let (ttl_ms, seen) = (view.ttl_ms, view.seen.0);
        let kept: Vec<_> = self.table.unacknowledged(session).collect();
        let following = u32::try_from(kept.len()).expect("at most 1024 answers are kept");
        self.reply(key, request, flags, &Reply::Resumed { ttl_ms, seen, following });
        for (request, answer) in kept {
            self.send_answer(key, session, request, &answer, FLAG_KEPT);
        }
        self.repeat_orders(session);
        self.tell_nodes(key);
    }

    /// Says an operator's orders again that the session has yet to confirm: they may have been said while nobody was
    /// there. After the kept answers, because a grant is known before it is taken.
    fn repeat_orders(&mut self, session: SessionKey) {
        if self.table.session_view(session).is_some_and(|view| view.killed) {
            self.told(session, &Notice::Killed);
        }
        let broken: Vec<_> = self.table.broken_grants(session).collect();
        for grant in broken {
            self.told(session, &Notice::Broken { grant, forced: false });
        }
    }

    /// Every frame of a session says how many kept answers have arrived, modulo 2¹⁶. `false`: it cannot be.
    pub(super) fn acknowledge(&mut self, session: SessionKey, low: u16) -> bool {
        let Some(presence) = self.presence(session) else { return true };
        let known = presence.acknowledged;
        let low_of_known = u16::try_from(known & 0xFFFF).expect("masked to 16 bits");
        let news = u64::from(low.wrapping_sub(low_of_known));
        if news == 0 {
            return true;
        }
        let received = known + news;
        if received > presence.kept {
            return false;
        }
        presence.acknowledged = received;
        self.apply(Command::Acknowledge { session, received });
        true
    }
}

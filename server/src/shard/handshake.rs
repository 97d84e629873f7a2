//! HELLO and WELCOME: a connection is taken, refused, or sent on to the shard it asked for.

use fairlock_protocol::handshake::{FEATURE_ADMIN, FEATURE_PROOF, FEATURE_SHM, FEATURE_STANDBY};
use fairlock_protocol::reply::Refused;
use fairlock_protocol::{Hello, Malformed, Refusal, Reply, RequestId, ShardId, Welcome};

use super::Shard;
use crate::connection::{ConnectionKey, Phase};
use crate::lanes::ToShard;

impl Shard {
    /// Answers a HELLO. `false`: the connection belongs to another shard and moves there with its HELLO unread.
    pub(super) fn hello(&mut self, key: ConnectionKey, hello: &Hello<'_>) -> bool {
        let version = match hello.agree() {
            Ok(version) => version,
            Err(refusal) => {
                let (min, max) = (hello.version_min, hello.version_max);
                let detail = format!("the server speaks version 1, the client {min} to {max}");
                self.refuse(key, RequestId::NOTICE, Refused { detail: &detail, ..refusal.into() });
                self.end_connection(key, true);
                return true;
            }
        };
        if hello.shard != ShardId::ANY && hello.shard != self.settings.me {
            if hello.shard.0 >= self.settings.shards {
                self.reject(key, RequestId::NOTICE, Malformed::Illegal("shard"));
                return true;
            }
            if let Some(connection) = self.connections.at_mut(key) {
                connection.phase = Phase::Moving;
            }
            self.output.moves.push((key, hello.shard));
            return false;
        }
        self.check_memory(hello.cell, hello.epoch);
        if let Some(connection) = self.connections.at_mut(key) {
            connection.phase = Phase::Welcomed;
            connection.proves = hello.features & FEATURE_PROOF != 0;
        }
        let shares = self.connections.at(key).is_some_and(|connection| connection.words.is_some());
        let known = FEATURE_ADMIN | FEATURE_STANDBY | FEATURE_PROOF | if shares { FEATURE_SHM } else { 0 };
        let welcome = self.welcome(version, hello.features & known);
        self.reply(key, RequestId::NOTICE, 0, &Reply::Welcome(welcome));
        if hello.features & FEATURE_STANDBY == 0 {
            self.await_first_frame(key);
        } else {
            self.stand_by(key);
            self.tell_who_serves(key);
        }
        self.output.read_on.push(key);
        true
    }

    fn welcome(&self, version: u16, features: u64) -> Welcome {
        let settings = &self.settings;
        Welcome {
            version,
            shard: settings.me,
            shards: settings.shards,
            role: self.role(),
            features,
            cell: settings.cell,
            epoch: settings.epoch.get(),
            ttl_max_ms: u32::try_from(settings.ttl_max.as_millis()).unwrap_or(u32::MAX),
            recovering_ms: self.recovering_ms(),
            digest_key: settings.digest_key,
        }
    }

    /// A client that has seen this cell in a later epoch proves that this server forgot something: whatever was
    /// granted meanwhile may still be held, so nothing is granted until the longest lease is over.
    pub(super) fn check_memory(&mut self, cell: fairlock_protocol::CellId, epoch: u32) {
        let ours = cell == self.settings.cell || cell.0 == 0;
        if self.memory_alarm || !ours || epoch <= self.settings.epoch.get() || !self.is_whole_cell() {
            return;
        }
        self.doubt_memory(epoch);
        self.tell_others(|| ToShard::MemoryDoubted { epoch });
    }

    /// Somebody, here or at another shard, has seen `epoch` of this cell: nothing is granted for the longest lease, unless
    /// it is too late for that.
    pub(super) fn doubt_memory(&mut self, epoch: u32) {
        if std::mem::replace(&mut self.memory_alarm, true) {
            return;
        }
        let ours = self.settings.epoch.get();
        let text =
            format!("a client knows epoch {epoch} of this cell, the state directory only {ours}: it is old");
        self.alarms.raise("memory", text);
        if self.table.counts().grants_total == self.granted_before {
            let wait = fairlock_protocol::tick::quarantine(self.settings.ttl_max);
            self.settings.quarantine_until = self.settings.quarantine_until.max(self.now.after(wait));
        }
    }

    /// What is left of a quarantine, in milliseconds, rounded up.
    pub(crate) fn recovering_ms(&self) -> u32 {
        let left = self.settings.quarantine_until.since(self.now);
        u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }

    /// Refuses a request that would have to be granted in a quarantine, and says how long it lasts.
    pub(super) fn refuse_recovering(&mut self, key: ConnectionKey, request: RequestId) {
        let retry_after_ms = self.recovering_ms();
        self.refuse(key, request, Refused { retry_after_ms, ..Refusal::Recovering.into() });
    }
}

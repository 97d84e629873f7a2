//! Which grants stay with their clients, and how they come back.
//!
//! Whether to cache follows what was seen of a lock: after a run of acquires by one session it is, and for a while after
//! it had to be taken back it is not (the rule of biased reader locks).

use std::time::Duration;

use fairlock_locktable::command::{Command, Ended, SessionKey};
use fairlock_locktable::effect::{Answer, Effect};
use fairlock_protocol::{Digest, GrantId, Mode, Reply, RequestId, Tick};
use fairlock_shm::word::Leaving;

use super::{Asked, RECLAIM_WORDS_MAX, Use, Words};
use crate::connection::ConnectionKey;
use crate::shard::Shard;
use crate::stats::ShardStats;

/// Acquires of one lock in a row by one session after which its grant stays.
const RUN_BEFORE_CACHING: u8 = 4;
/// For so long after a revocation a lock is not cached: nine times what a revocation costs at least (10 µs), so that in
/// the worst case a tenth of the time goes into revoking.
const INHIBITED_FOR: Duration = Duration::from_micros(90);
/// Locks whose history is remembered; two that share a row only delay each other's caching.
const ROWS: usize = 4096;
/// How often words that nobody entered since are taken back.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// What was seen of the locks last asked for.
#[derive(Debug)]
pub(crate) struct Histories {
    rows: Vec<History>,
    /// Words that are wanted and had somebody inside.
    wanted: Vec<(ConnectionKey, SessionKey, GrantId)>,
    /// Grants that came back and that the table has yet to hear of.
    returned: Vec<(SessionKey, GrantId)>,
    reclaim_at: Tick,
}

#[derive(Clone, Copy, Debug)]
struct History {
    tag: u32,
    session: SessionKey,
    run: u8,
    inhibited_until: Tick,
}

impl Default for Histories {
    fn default() -> Histories {
        let (wanted, returned) = (Vec::new(), Vec::new());
        Histories { rows: Vec::new(), wanted, returned, reclaim_at: Tick::ZERO }
    }
}

impl Histories {
    /// The row of a lock; made when there is the first client with words.
    fn row(&mut self, digest: Digest) -> &mut History {
        if self.rows.is_empty() {
            let nobody = SessionKey { slot: u32::MAX, generation: 0 };
            let blank = History { tag: 0, session: nobody, run: 0, inhibited_until: Tick::ZERO };
            self.rows.resize(ROWS, blank);
        }
        let [low, high] = digest.0;
        let (at, tag) = (usize::try_from(low % ROWS as u64).expect("a few thousand"), (high >> 32) as u32);
        let row = &mut self.rows[at];
        if row.tag != tag {
            (row.tag, row.run, row.inhibited_until) = (tag, 0, Tick::ZERO);
        }
        row
    }

    /// Notes that a session was granted a lock, and says whether the grant should stay with it.
    fn granted(&mut self, now: Tick, digest: Digest, session: SessionKey) -> bool {
        let row = self.row(digest);
        row.run = if row.session == session { row.run.saturating_add(1) } else { 1 };
        row.session = session;
        row.run >= RUN_BEFORE_CACHING && now >= row.inhibited_until
    }

    /// Notes that a lock was wanted back.
    fn revoked(&mut self, now: Tick, digest: Digest) {
        let row = self.row(digest);
        (row.run, row.inhibited_until) = (0, now.after(INHIBITED_FOR));
    }
}

impl Shard {
    fn words(&mut self, key: ConnectionKey) -> Option<&mut Words> {
        self.connections.at_mut(key)?.words.as_mut()
    }

    /// The words of the connection that acts for a session.
    fn words_of(&mut self, session: SessionKey) -> Option<(ConnectionKey, &mut Words)> {
        let key = self.presence(session)?.connection?;
        Some((key, self.words(key)?))
    }

    /// A cacheable request was just carried out: its grant, if it was granted at once, may stay with the client.
    pub(in crate::shard) fn consider_caching(
        &mut self,
        key: ConnectionKey,
        (session, request): (SessionKey, RequestId),
        digest: Digest,
        mode: Mode,
    ) {
        if !matches!(mode, Mode::EX | Mode::PR) || self.words(key).is_none() {
            return;
        }
        let granted =
            |effect: &Effect| match *effect {
                Effect::Answered {
                    session: whose, request: which, answer: Answer::Granted(granted), ..
                } if whose == session && which == request && !granted.reentered => Some(granted.grant),
                _ => None,
            };
        let Some(grant) = self.effects.iter().find_map(granted) else { return };
        let stays = self.histories.granted(self.now, digest, session);
        if !stays || self.draining || self.table.is_waited_for(digest) {
            return;
        }
        let Some((word, generation)) = self.words(key).and_then(|words| words.keep(grant)) else { return };
        ShardStats::add(&self.stats.cached_total);
        self.apply(Command::Cache { session, grant });
        let note = Reply::Cached { grant, word, generation: generation.0 };
        self.reply(key, RequestId::NOTICE, 0, &note);
    }

    /// A grant blocks somebody. If it is cached it is taken back: at once, or when its holder leaves. `false`: it is not.
    pub(in crate::shard) fn revoke(&mut self, session: SessionKey, grant: GrantId) -> bool {
        let digest = self.table.digest_of(grant);
        let Some((key, words)) = self.words_of(session) else { return false };
        let Some(&index) = words.by_grant.get(&grant) else { return false };
        match words.want(index) {
            Asked::Returned(grant) => self.histories.returned.push((session, grant)),
            Asked::Inside => self.histories.wanted.push((key, session, grant)),
            // It stands on the list, however many came and went meanwhile.
            Asked::Again => return true,
        }
        if let Some(digest) = digest {
            self.histories.revoked(self.now, digest);
        }
        ShardStats::add(&self.stats.revocations_total);
        true
    }

    /// An operator ended a grant. If it is cached nobody enters it any more; forced, whoever is inside finds out before
    /// anybody else is let in.
    pub(in crate::shard) fn break_word(&mut self, session: SessionKey, grant: GrantId, forced: bool) {
        if !forced {
            self.revoke(session, grant);
            return;
        }
        if let Some((_, words)) = self.words_of(session)
            && let Some(&index) = words.by_grant.get(&grant)
        {
            words.void(index);
        }
    }

    /// A broken grant was confirmed: whoever was inside may still write to its word.
    pub(in crate::shard) fn confirm_word(&mut self, key: ConnectionKey, grant: GrantId) {
        if let Some(words) = self.words(key)
            && let Some(&index) = words.by_grant.get(&grant)
        {
            words.void(index);
        }
    }

    /// A session is over: that stands in its memory before anybody can see what follows, and no word of it is entered.
    pub(in crate::shard) fn end_words(&mut self, session: SessionKey) {
        if let Some((_, words)) = self.words_of(session) {
            words.end();
        }
    }

    /// The session is renewed no more: its client, which sees renewals in its memory, sees that there.
    pub(in crate::shard) fn stop_renewing(&mut self, session: SessionKey) {
        let until = self.shown_until();
        if let Some((_, words)) = self.words_of(session) {
            words.stop_renewing(until);
        }
    }

    /// The client goes on with a cached grant by messages (it releases or converts it): its word is in use no more.
    pub(in crate::shard) fn forget_word(&mut self, key: ConnectionKey, grant: GrantId) {
        if let Some(words) = self.words(key)
            && let Some(&index) = words.by_grant.get(&grant)
        {
            // The client says by this that it will not touch the word again.
            let generation = words.places[index as usize].generation;
            words.word(index).void(generation);
            words.drop_use(index, Use::Free);
        }
    }

    /// Tells the table of grants that came back, and of those that their coming back made come back.
    pub(in crate::shard) fn apply_returned(&mut self) {
        while let Some((session, grant)) = self.histories.returned.pop() {
            self.apply_one(Command::GiveBack { session, grant });
        }
    }

    /// Looks again at words that are wanted and had somebody inside.
    pub(crate) fn look_at_wanted(&mut self) -> bool {
        if !self.serves() {
            return false;
        }
        let mut wanted = std::mem::take(&mut self.histories.wanted);
        wanted.retain(|&(key, session, grant)| {
            let Some(words) = self.words(key) else { return false };
            let Some(&index) = words.by_grant.get(&grant) else { return false };
            let Some(grant) = words.take(index) else { return true };
            self.histories.returned.push((session, grant));
            false
        });
        assert!(self.histories.wanted.is_empty(), "nothing was revoked meanwhile");
        self.histories.wanted = wanted;
        let any = !self.histories.returned.is_empty();
        self.apply_returned();
        any
    }

    /// Whether a word is wanted that somebody may leave by a plain store: then a barrier comes before the last look.
    pub(crate) fn wants_barrier(&self) -> bool {
        self.histories.wanted.iter().any(|&(key, _, _)| {
            let words = self.connections.at(key).and_then(|connection| connection.words.as_ref());
            words.is_some_and(|words| words.segment.leaving() == Leaving::Barrier)
        })
    }

    /// Whether any word is wanted.
    pub(crate) fn wants_words(&self) -> bool {
        !self.histories.wanted.is_empty() && self.serves()
    }

    /// How many are.
    #[cfg(test)]
    pub(in crate::shard) fn wanted_count(&self) -> usize {
        self.histories.wanted.len()
    }

    /// The client said something: words it had to give up may be acknowledged.
    pub(in crate::shard) fn look_at_retired(&mut self, key: ConnectionKey) {
        if let Some(words) = self.words(key).filter(|words| !words.retired.is_empty()) {
            words.look_at_retired();
        }
    }

    /// Takes back cached grants that nobody has used for a while, now and then.
    pub(in crate::shard) fn reclaim_idle_words(&mut self) {
        if self.histories.rows.is_empty() || self.now < self.histories.reclaim_at || !self.serves() {
            return;
        }
        self.histories.reclaim_at = self.now.after(RECLAIM_EVERY);
        let mut left = RECLAIM_WORDS_MAX;
        let mut keys = self.connections.keys();
        let first = usize::try_from(self.passes).unwrap_or(0) % keys.len().max(1);
        keys.rotate_left(first);
        for key in keys {
            let Some(connection) = self.connections.at_mut(key) else { continue };
            let (Some(session), Some(words)) = (connection.session(), connection.words.as_mut()) else {
                continue;
            };
            let mut found = Vec::new();
            left = left.saturating_sub(words.take_idle(&mut found));
            self.histories.returned.extend(found.into_iter().map(|grant| (session, grant)));
            if left == 0 {
                break;
            }
        }
        self.apply_returned();
    }

    /// Whether any client has asked for grants that stay.
    pub(in crate::shard) fn keeps_words(&self) -> bool {
        !self.histories.rows.is_empty()
    }

    /// When idle words are to be looked for next; `None` while no client has asked for any.
    pub(in crate::shard) fn reclaim_due(&self) -> Option<Tick> {
        (!self.histories.rows.is_empty() && self.serves()).then_some(self.histories.reclaim_at)
    }

    /// While draining no grant stays with anybody.
    pub(in crate::shard) fn revoke_all(&mut self) {
        for key in self.connections.keys() {
            let Some(connection) = self.connections.at_mut(key) else { continue };
            let (Some(session), Some(words)) = (connection.session(), connection.words.as_ref()) else {
                continue;
            };
            let mut grants: Vec<GrantId> = words.by_grant.keys().copied().collect();
            grants.sort_unstable();
            for grant in grants {
                self.revoke(session, grant);
            }
        }
        self.apply_returned();
    }

    /// A session loses its words and lives on: what it kept without being inside comes back, the rest are grants like
    /// others. `left`: its client has gone, or goes on with the session elsewhere (see [`Shard::end_left`]).
    pub(in crate::shard) fn give_words_up(&mut self, session: SessionKey, left: bool) {
        let (until, left) = (self.shown_until(), left && self.holds_back);
        if let Some((_, words)) = self.words_of(session) {
            // Nothing shows in this memory any more when the session ends; its client counts on stamps no longer.
            words.stop_renewing(until);
            let free = if left { words.take_free() } else { words.void_all() };
            self.histories.returned.extend(free.into_iter().map(|grant| (session, grant)));
            self.apply_returned();
        }
    }

    /// Ends a session. What it kept without being inside counts as given back; that it has ended stands in its memory
    /// before anybody can see what follows.
    pub(in crate::shard) fn end_session(&mut self, session: SessionKey, why: Ended) {
        if !self.serves() {
            return;
        }
        if let Some((_, words)) = self.words_of(session) {
            words.segment.status().end();
            let free = words.void_all();
            self.histories.returned.extend(free.into_iter().map(|grant| (session, grant)));
            self.apply_returned();
        }
        self.apply(Command::End { session, why });
    }

    /// Ends the session of a client that has gone. Or it has left this node, because another one serves: so nothing is shown to it,
    /// and nobody is thrown out of a word, before everybody has it. A primary that was replaced ends nothing.
    pub(in crate::shard) fn end_left(&mut self, session: SessionKey, key: ConnectionKey) {
        let words = self.connections.at_mut(key).filter(|_| self.holds_back);
        if let Some(mut words) = words.and_then(|connection| connection.words.take())
            && let Some(replicated) = &mut self.replicated
        {
            let free = words.take_free();
            replicated.ended.push(words);
            self.histories.returned.extend(free.into_iter().map(|grant| (session, grant)));
            self.apply_returned();
        }
        self.end_session(session, Ended::Expired);
    }

    /// The moment until which clients on this host were shown renewals, at most.
    fn shown_until(&self) -> Tick {
        match &self.replicated {
            Some(replicated) if !replicated.replica.stands_alone() => replicated.confirmed,
            _ => self.now,
        }
    }
}

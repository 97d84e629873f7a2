//! Grant words of the shard's clients: which grants stay with a client after it left them, and how they come back.
//!
//! The words themselves lie in memory that a client writes, so what is known about them is kept here: which word is in
//! use for which grant, and in which tenure. A word says something only through this side's own compare-and-swap. The
//! table knows a cached grant as one that nobody of the client owns and that is told when it blocks somebody; being
//! told is where it is taken back.
//!
//! Whether to cache follows what was seen of a lock: after a run of acquires by one session it is, and for a while after
//! it had to be taken back it is not (the rule of biased reader locks).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fairlock_locktable::command::{Command, Ended, SessionKey};
use fairlock_locktable::effect::{Answer, Effect};
use fairlock_protocol::{Digest, GrantId, Mode, Reply, RequestId, Tick};
use fairlock_shm::segment::{Segment, WORDS};
use fairlock_shm::word::{Generation, Leaving, Seen, Word};

use super::Shard;
use crate::connection::ConnectionKey;
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
/// Words looked at for that in one step.
const RECLAIM_WORDS_MAX: usize = 1024;
/// Retired words looked at when their client says something.
const RETIRED_LOOKS_MAX: usize = 16;

/// What a word of a client is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing.
    Free,
    /// A grant that stays with its client. `entries`: how often it had been entered when it was last looked at.
    Kept { grant: GrantId, entries: u64 },
    /// The same, wanted back.
    Wanted { grant: GrantId },
    /// Nothing, but a holder whose tenure ended by force may still write to it.
    Retired,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    generation: Generation,
    used: Use,
}

/// How a word answered when it was wanted.
enum Asked {
    /// Nobody was inside.
    Returned(GrantId),
    /// Somebody is.
    Inside,
    /// Somebody is, and was when it was wanted before.
    Again,
}

/// The words of one connection.
#[derive(Debug)]
pub(crate) struct Words {
    segment: Arc<Segment>,
    /// As many as were ever used.
    places: Vec<Place>,
    free: Vec<u32>,
    retired: VecDeque<u32>,
    by_grant: HashMap<GrantId, u32>,
    /// Where the search for idle words goes on.
    hand: usize,
}

impl Words {
    /// None in use.
    pub(crate) fn new(segment: Arc<Segment>) -> Words {
        let (places, free, retired) = (Vec::new(), Vec::new(), VecDeque::new());
        Words { segment, places, free, retired, by_grant: HashMap::new(), hand: 0 }
    }

    fn word(&self, index: u32) -> &Word {
        self.segment.word(index).expect("only words that exist are used")
    }

    fn place(&mut self, index: u32) -> &mut Place {
        &mut self.places[index as usize]
    }

    /// Grants into a word that is not in use; `None` when all are.
    fn keep(&mut self, grant: GrantId) -> Option<(u32, Generation)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < WORDS => {
                self.places.push(Place { generation: Generation(0), used: Use::Free });
                u32::try_from(self.places.len() - 1).expect("a segment has a few thousand words")
            }
            None => return None,
        };
        let place = self.place(index);
        assert_eq!(place.used, Use::Free, "a word is in use once");
        // Wraps after 2³² tenures of one word; a client that slept through as many is mistaken about one of them.
        place.generation = Generation(place.generation.0.wrapping_add(1));
        place.used = Use::Kept { grant, entries: 0 };
        let generation = place.generation;
        self.word(index).grant(generation, false);
        self.by_grant.insert(grant, index);
        Some((index, generation))
    }

    /// The word is in use no more.
    fn drop_use(&mut self, index: u32, next: Use) {
        let place = self.place(index);
        if let Use::Kept { grant, .. } | Use::Wanted { grant } = place.used {
            place.used = next;
            self.by_grant.remove(&grant);
        }
        match next {
            Use::Free => self.free.push(index),
            Use::Retired => self.retired.push_back(index),
            Use::Kept { .. } | Use::Wanted { .. } => unreachable!("a use ends in none"),
        }
    }

    /// Takes a word back if nobody is inside.
    fn take(&mut self, index: u32) -> Option<GrantId> {
        let Place { generation, used } = self.places[index as usize];
        let (Use::Kept { grant, .. } | Use::Wanted { grant }) = used else { return None };
        if !self.word(index).take(generation) {
            return None;
        }
        self.drop_use(index, Use::Free);
        Some(grant)
    }

    /// Somebody waits for this grant. Gives it back if nobody is inside; else says whether it was wanted before.
    fn want(&mut self, index: u32) -> Asked {
        self.word(index).want();
        let before = self.places[index as usize].used;
        if let Use::Kept { grant, .. } = before {
            self.place(index).used = Use::Wanted { grant };
        }
        match (self.take(index), before) {
            (Some(grant), _) => Asked::Returned(grant),
            (None, Use::Wanted { .. }) => Asked::Again,
            (None, _) => Asked::Inside,
        }
    }

    /// Ends the use of a word by force. Gives the grant when nobody was inside.
    fn void(&mut self, index: u32) -> Option<GrantId> {
        let Place { generation, used } = self.places[index as usize];
        let (Use::Kept { grant, .. } | Use::Wanted { grant }) = used else { return None };
        let free = self.word(index).void(generation) == Seen::Free;
        self.drop_use(index, if free { Use::Free } else { Use::Retired });
        free.then_some(grant)
    }

    /// Looks whether retired words were acknowledged.
    fn look_at_retired(&mut self) {
        for _ in 0..self.retired.len().min(RETIRED_LOOKS_MAX) {
            let Some(index) = self.retired.pop_front() else { return };
            let generation = self.places[index as usize].generation;
            if self.word(index).take(generation) {
                self.place(index).used = Use::Free;
                self.free.push(index);
            } else {
                self.retired.push_back(index);
            }
        }
    }

    /// Takes back words that nobody entered since the last time, a few at a time. Appends their grants.
    fn take_idle(&mut self, found: &mut Vec<GrantId>) -> usize {
        let looks = self.places.len().min(RECLAIM_WORDS_MAX);
        for _ in 0..looks {
            let at = self.hand;
            self.hand = (at + 1) % self.places.len();
            let index = u32::try_from(at).expect("a segment has a few thousand words");
            if let Use::Kept { grant, entries } = self.places[at].used {
                let now = self.word(index).entries();
                if now == entries {
                    found.extend(self.take(index));
                } else {
                    self.places[at].used = Use::Kept { grant, entries: now };
                }
            }
        }
        looks
    }

    /// Whether a grant is cached and nobody inside, for people.
    pub(crate) fn is_idle(&self, grant: GrantId) -> bool {
        let Some(&index) = self.by_grant.get(&grant) else { return false };
        self.word(index).look(self.places[index as usize].generation) == Seen::Free
    }

    /// Ends every use by force. Gives the grants with nobody inside.
    fn void_all(&mut self) -> Vec<GrantId> {
        let mut kept: Vec<u32> = self.by_grant.values().copied().collect();
        kept.sort_unstable();
        kept.into_iter().filter_map(|index| self.void(index)).collect()
    }
}

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
    pub(super) fn consider_caching(
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
    pub(super) fn revoke(&mut self, session: SessionKey, grant: GrantId) -> bool {
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
    pub(super) fn break_word(&mut self, session: SessionKey, grant: GrantId, forced: bool) {
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
    pub(super) fn confirm_word(&mut self, key: ConnectionKey, grant: GrantId) {
        if let Some(words) = self.words(key)
            && let Some(&index) = words.by_grant.get(&grant)
        {
            words.void(index);
        }
    }

    /// A session is over: that stands in its memory before anybody can see what follows, and no word of it is entered.
    pub(super) fn end_words(&mut self, session: SessionKey) {
        if let Some((_, words)) = self.words_of(session) {
            words.segment.status().end();
            words.void_all();
        }
    }

    /// The session is renewed no more: its client, which sees renewals in its memory, sees that there.
    pub(super) fn stop_renewing(&mut self, session: SessionKey) {
        let now = self.now;
        if let Some((_, words)) = self.words_of(session) {
            words.segment.status().stop_renewing(now.0);
        }
    }

    /// The client goes on with a cached grant by messages (it releases or converts it): its word is in use no more.
    pub(super) fn forget_word(&mut self, key: ConnectionKey, grant: GrantId) {
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
    pub(super) fn apply_returned(&mut self) {
        while let Some((session, grant)) = self.histories.returned.pop() {
            self.apply_one(Command::GiveBack { session, grant });
        }
    }

    /// Looks again at words that are wanted and had somebody inside.
    pub(crate) fn look_at_wanted(&mut self) -> bool {
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
        !self.histories.wanted.is_empty()
    }

    /// How many are.
    #[cfg(test)]
    pub(super) fn wanted_count(&self) -> usize {
        self.histories.wanted.len()
    }

    /// The client said something: words it had to give up may be acknowledged.
    pub(super) fn look_at_retired(&mut self, key: ConnectionKey) {
        if let Some(words) = self.words(key).filter(|words| !words.retired.is_empty()) {
            words.look_at_retired();
        }
    }

    /// Takes back cached grants that nobody has used for a while, now and then.
    pub(super) fn reclaim_idle_words(&mut self) {
        if self.histories.rows.is_empty() || self.now < self.histories.reclaim_at {
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

    /// When idle words are to be looked for next; `None` while no client has asked for any.
    pub(super) fn reclaim_due(&self) -> Option<Tick> {
        (!self.histories.rows.is_empty()).then_some(self.histories.reclaim_at)
    }

    /// While draining no grant stays with anybody.
    pub(super) fn revoke_all(&mut self) {
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
    /// others.
    pub(super) fn give_words_up(&mut self, session: SessionKey) {
        let now = self.now;
        if let Some((_, words)) = self.words_of(session) {
            // Nothing shows in this memory any more when the session ends; its client counts on stamps no longer.
            words.segment.status().stop_renewing(now.0);
            let free = words.void_all();
            self.histories.returned.extend(free.into_iter().map(|grant| (session, grant)));
            self.apply_returned();
        }
    }

    /// Ends a session. What it kept without being inside counts as given back; that it has ended stands in its memory
    /// before anybody can see what follows.
    pub(super) fn end_session(&mut self, session: SessionKey, why: Ended) {
        if let Some((_, words)) = self.words_of(session) {
            words.segment.status().end();
            let free = words.void_all();
            self.histories.returned.extend(free.into_iter().map(|grant| (session, grant)));
            self.apply_returned();
        }
        self.apply(Command::End { session, why });
    }
}

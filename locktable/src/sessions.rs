//! Sessions at this table: how they begin, stay alive and end, and what was answered to them.
//!
//! A session ends in one command, whatever it has: first every wait, conversion and grant is gone, then the freed
//! locks are scanned, so no grant to an ended session can exist and nobody is granted beside a half-ended one.
//! A renewal only moves a deadline; the timer finds out when it rings.
//!
//! Answers that changed something are kept until the client says it has them. The bound counts kept answers and
//! not request numbers, because one long wait would pin any number below which all is acknowledged.

use crate::chunks::NONE;
use crate::command::{Attributes, Ended, Lease, Open, SessionKey};
use crate::effect::{Answer, Effect, Effects};
use crate::list::{self, Ends, Link};
use crate::record::{Grant, Lock, SESSION_SLOTS};
use crate::slab::Record;
use crate::table::{Generations, Table};
use crate::wheel::Alarm;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use fairlock_protocol::{Refusal, RequestId, Secret, SessionId, Tick};

/// Kept answers a session has room for without giving it back: 16 KiB. A client that once left many
/// unacknowledged does not cost their room for ever.
const KEPT_ROOM: usize = 256;

/// One session.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts, none a state of another")]
pub(crate) struct Session {
    /// 0 for a vacant record.
    pub(crate) generation: u32,
    /// The last grants and waits have this session's slot in them; all of them are linked here.
    pub(crate) grants: Ends,
    pub(crate) grant_count: u32,
    /// Those that an operator took and the client has not confirmed.
    pub(crate) broken_count: u32,
    pub(crate) waits: Ends,
    pub(crate) wait_count: u32,
    /// Answers that its waiting bundles may give beyond one each.
    pub(crate) wait_answers: u32,
    /// Highest request number seen.
    pub(crate) seen: RequestId,
    /// Kept answers ever sent.
    pub(crate) kept_sent: u64,
    /// Kept answers the client has.
    pub(crate) acknowledged: u64,
    /// Those between the two.
    pub(crate) kept: VecDeque<(RequestId, Answer)>,
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) ttl_ms: u32,
    pub(crate) lease: Lease,
    pub(crate) visiting: bool,
    pub(crate) renewable: bool,
    /// A successor has its identity.
    pub(crate) replaced: bool,
    /// An operator wants it to end.
    pub(crate) killed: bool,
    /// End of the lease, if there is a lease timer.
    pub(crate) deadline: Tick,
    /// The same without renewals, of which other nodes do not know: what commands alone say of it.
    pub(crate) granted: Tick,
    /// Its client opened or resumed it since the last take-over, and may be renewed.
    pub(crate) fresh: bool,
    pub(crate) lease_timer: u32,
    /// Set while an operator waits for it to end.
    pub(crate) confirm_timer: u32,
    /// Sessions of the same identity, newest first.
    pub(crate) twins: Link,
    /// The older ones have this reclaim key, all of them. When it is not set they may have it all the same.
    pub(crate) alike: bool,
    pub(crate) about: About,
}

/// What is known of the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) identity: Box<[u8]>,
    pub(crate) reclaim_key: Box<[u8]>,
    pub(crate) pid: u32,
    pub(crate) host: Box<[u8]>,
    pub(crate) exe: Box<[u8]>,
    pub(crate) label: Box<[u8]>,
}

impl About {
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes { pid: self.pid, host: &self.host, exe: &self.exe, label: &self.label }
    }
}

impl Record for Session {
    fn vacant(next: u32) -> Session {
        Session::new(0, SessionId::from_raw(u64::MAX).expect("not 0"), Secret(0), next)
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.generation == 0).then_some(self.ttl_ms)
    }
}

impl Session {
    pub(crate) fn new(generation: u32, id: SessionId, secret: Secret, ttl_ms: u32) -> Session {
        Session {
            generation,
            grants: Ends::EMPTY,
            grant_count: 0,
            broken_count: 0,
            waits: Ends::EMPTY,
            wait_count: 0,
            wait_answers: 0,
            seen: RequestId(0),
            kept_sent: 0,
            acknowledged: 0,
            kept: VecDeque::new(),
            id,
            secret,
            ttl_ms,
            lease: Lease::Watched,
            visiting: false,
            renewable: true,
            replaced: false,
            killed: false,
            deadline: Tick::ZERO,
            granted: Tick::ZERO,
            fresh: false,
            lease_timer: NONE,
            confirm_timer: NONE,
            twins: Link::NONE,
            alike: false,
            about: About::default(),
        }
    }

    /// Keeps an answer until it is acknowledged.
    pub(crate) fn keep(&mut self, request: RequestId, answer: Answer) {
        self.kept.push_back((request, answer));
        self.kept_sent += 1;
        debug_assert_eq!(
            self.kept_sent - self.acknowledged,
            self.kept.len() as u64,
            "kept and not acknowledged"
        );
    }

    /// Bytes of what the record owns beyond itself.
    pub(crate) fn memory(&self) -> usize {
        let about = &self.about;
        let texts = [&about.identity, &about.reclaim_key, &about.host, &about.exe, &about.label];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        texts + self.kept.capacity() * size_of::<(RequestId, Answer)>()
    }
}

impl Table {
    /// A session begins, unless its identity is another's.
    pub(crate) fn open(&mut self, now: Tick, open: &Open<'_>, effects: &mut Effects) {
        if let Some(session) = self.session(open.id) {
            // Told twice, as a fan-out after a take-over does.
            let known = self.sessions[session.slot].secret == open.secret;
            effects.push(if known {
                Effect::Opened { session, id: open.id }
            } else {
                self.counts.refuse(Refusal::Denied);
                Effect::NotOpened { id: open.id, refusal: Refusal::Denied }
            });
            return;
        }
        if let Err(refusal) = self.make_way(now, open, effects) {
            self.counts.refuse(refusal);
            effects.push(Effect::NotOpened { id: open.id, refusal });
            return;
        }
        let generation = Generations::next(&mut self.generations.session);
        let mut session = Session::new(generation, open.id, open.secret, open.ttl_ms.max(1));
        (session.lease, session.visiting, session.fresh) = (open.lease, open.visiting, true);
        session.about = About {
            identity: open.identity.into(),
            reclaim_key: open.reclaim_key.into(),
            pid: open.attributes.pid,
            host: open.attributes.host.into(),
            exe: open.attributes.exe.into(),
            label: open.attributes.label.into(),
        };
        let slot = self.sessions.insert(session);
        self.by_id.insert(self.key.hash(open.id.get(), 0), slot);
        self.join_twins(slot);
        if open.lease == Lease::Heartbeat && !open.visiting {
            self.start_lease(now, slot);
        }
        self.counts.sessions_total += 1;
        effects.push(Effect::Opened { session: SessionKey { slot, generation }, id: open.id });
    }

    /// Deals with the sessions that have this identity already, and with the bound on sessions.
    fn make_way(&mut self, now: Tick, open: &Open<'_>, effects: &mut Effects) -> Result<(), Refusal> {
        let newest = self.newest_twin(open.identity).unwrap_or(NONE);
        let twins = || list::walk(&self.sessions, newest, |session| session.twins);
        let same_key = |&twin: &u32| *self.sessions[twin].about.reclaim_key == *open.reclaim_key;
        // What a session's home has let in, no other shard refuses. Who opens an identity again and again walks past
        // none of its sessions: the newest answers for those behind it.
        let all_have_it = || {
            let answers = newest != NONE && self.sessions[newest].alike;
            twins().take(if answers { 1 } else { usize::MAX }).all(|twin| same_key(&twin))
        };
        if !open.visiting && !all_have_it() {
            return Err(Refusal::Denied);
        }
        let replaces = !open.reclaim_key.is_empty() && twins().any(|twin| same_key(&twin));
        let makes_room = replaces && open.predecessor_gone;
        if !open.visiting && !makes_room && self.sessions.len() >= self.limits.sessions {
            return Err(Refusal::Quota);
        }
        if replaces {
            self.replace_twins(now, newest, open, effects);
        }
        assert!(self.sessions.len() < SESSION_SLOTS - 1, "no more sessions than a grant can name");
        Ok(())
    }

    /// From here on a session is renewed no more, and its lease runs.
    pub(crate) fn refuse_renewals(&mut self, now: Tick, slot: u32, effects: &mut Effects) {
        let session = &mut self.sessions[slot];
        if !core::mem::replace(&mut session.renewable, false) {
            return;
        }
        let (id, generation) = (session.id, session.generation);
        let fresh = core::mem::replace(&mut session.fresh, false);
        if !session.visiting && session.lease_timer == NONE {
            self.start_lease(now, slot);
        } else if fresh {
            // No renewal was confirmed later than now.
            session.granted = now.after_millis(u64::from(session.ttl_ms));
        }
        effects.push(Effect::Doomed { session: SessionKey { slot, generation }, id });
    }

    fn start_lease(&mut self, now: Tick, slot: u32) {
        let session = &mut self.sessions[slot];
        assert!(session.lease_timer == NONE && !session.visiting, "only its home ends a session by time");
        session.deadline = now.after_millis(u64::from(session.ttl_ms));
        session.granted = session.deadline;
        session.lease_timer = self.wheel.arm(session.deadline, Alarm::Lease(slot));
    }

    /// Extends a session's lease to a full one from `now`. Not a command: other nodes need not know.
    ///
    /// False when the session is unknown or is renewed no more (it was replaced, or is doomed); also, at its home, when
    /// its client has not resumed it since the last take-over: the next primary would not know of that promise.
    pub fn renew(&mut self, session: SessionKey, now: Tick) -> bool {
        let Some(slot) = self.session_slot(session) else { return false };
        let session = &mut self.sessions[slot];
        let may = session.renewable && (session.fresh || session.visiting);
        if may {
            session.deadline = session.deadline.max(now.after_millis(u64::from(session.ttl_ms)));
        }
        may
    }

    /// The client took the session up again: it is there, and the next take-over gives it a full lease.
    pub(crate) fn resume(&mut self, key: SessionKey, received: u64) {
        let Some(slot) = self.session_slot(key) else { return };
        self.sessions[slot].fresh = self.sessions[slot].renewable;
        self.acknowledge(key, received);
    }

    /// The client has received this many kept answers; those are forgotten.
    pub(crate) fn acknowledge(&mut self, key: SessionKey, received: u64) {
        let Some(slot) = self.session_slot(key) else { return };
        let session = &mut self.sessions[slot];
        if received > session.kept_sent {
            return;
        }
        while session.acknowledged < received {
            let dropped = session.kept.pop_front();
            assert!(dropped.is_some(), "what is not acknowledged is kept");
            session.acknowledged += 1;
        }
        if session.kept.capacity() > KEPT_ROOM && session.kept.len() * 8 < session.kept.capacity() {
            session.kept.shrink_to(session.kept.capacity() / 2);
        }
    }

    /// Lets a request in: gives the session's slot when it is to be carried out, and answers it otherwise.
    ///
    /// `same` tells whether a waiter is this request, for one that arrives again while it waits.
    pub(crate) fn admit(
        &mut self,
        key: SessionKey,
        request: RequestId,
        same: impl FnOnce(&Table, u32) -> bool,
        effects: &mut Effects,
    ) -> Option<u32> {
        let Some(slot) = self.session_slot(key) else {
            let answer = Answer::Refused(Refusal::SessionUnknown);
            self.counts.refuse(Refusal::SessionUnknown);
            effects.push(Effect::Answered { session: key, request, answer, kept: false });
            return None;
        };
        let session = &mut self.sessions[slot];
        let again = request <= session.seen;
        session.seen = session.seen.max(request);
        let has_room = session.kept.len() < self.limits.unacknowledged;
        let told_again = again && request != RequestId::NOTICE && self.tell_again(slot, request, effects);
        let refusal = if request == RequestId::NOTICE {
            Refusal::BadRequest
        } else if told_again {
            return None;
        } else if let Some(waiter) = if again { self.pending_slot(slot, request) } else { None } {
            if same(self, waiter) {
                return None;
            }
            Refusal::ReplayMismatch
        } else if has_room {
            return Some(slot);
        } else {
            Refusal::Busy
        };
        self.answer(slot, request, Answer::Refused(refusal), effects);
        None
    }

    /// Gives the kept answers to a request once more, and says whether there were any: one, or as many as a bundle has
    /// locks. A walk, but only a request that arrives again comes here.
    fn tell_again(&self, slot: u32, request: RequestId, effects: &mut Effects) -> bool {
        let session = self.session_key(slot);
        let kept = self.sessions[slot].kept.iter().filter(|(number, _)| *number == request);
        let before = effects.len();
        for &(_, answer) in kept {
            effects.push(Effect::Answered { session, request, answer, kept: false });
        }
        effects.len() > before
    }

    /// A session ends, and everything it has with it; then what it had passes on.
    pub(crate) fn end(&mut self, now: Tick, slot: u32, why: Ended, effects: &mut Effects) {
        self.strip(now, slot, why, effects);
        self.settle_touched(now, effects);
    }

    /// A session ends, and everything it has with it. The freed locks are noted, not scanned.
    pub(crate) fn strip(&mut self, now: Tick, slot: u32, why: Ended, effects: &mut Effects) {
        let (session, id) = (self.session_key(slot), self.sessions[slot].id);
        effects.push(Effect::Over { session, id, why });
        match why {
            Ended::Expired | Ended::Died => self.counts.expiries_total += 1,
            Ended::Killed => self.counts.kills_total += 1,
            Ended::Closed | Ended::Replaced => {}
        }
        while !self.sessions[slot].waits.is_empty() {
            let waiter = self.dequeue(self.sessions[slot].waits.head);
            self.names.remove(waiter.label);
            if waiter.bundle != NONE {
                self.take_bundle(waiter.bundle);
            }
            self.touch(waiter.lock);
        }
        while !self.sessions[slot].grants.is_empty() {
            let slot = self.sessions[slot].grants.head;
            let grant = self.grants[slot];
            self.bequeath(now, slot, &grant, why);
            self.unseat(slot);
            self.touch(grant.lock);
        }
        let (lease, confirm) = (self.sessions[slot].lease_timer, self.sessions[slot].confirm_timer);
        for timer in [lease, confirm] {
            if timer != NONE {
                self.wheel.disarm(timer);
            }
        }
        self.leave_twins(slot);
        self.by_id.remove(self.key.hash(id.get(), 0), slot);
        let gone = self.sessions.remove(slot);
        let left = gone.grant_count + gone.wait_count + gone.wait_answers;
        assert_eq!(left, 0, "nothing of an ended session is left");
    }

    /// What the end of its session means for whoever holds this lock next.
    fn bequeath(&mut self, now: Tick, slot: u32, grant: &Grant, why: Ended) {
        if grant.has(Grant::PARTIAL) {
            // Nobody wrote under it, and whatever it was to tell, it never told.
            return self.pass_hint_on(slot);
        }
        if why != Ended::Closed && grant.mode().writes() {
            self.locks[grant.lock].flags |= Lock::DIED;
        }
        let delay_ms = if grant.has(Grant::EXTRA) { self.extra(slot).lock_delay_ms } else { 0 };
        if delay_ms > 0 && matches!(why, Ended::Expired | Ended::Died) {
            self.close_lock(now.after_millis(u64::from(delay_ms)), grant.lock, grant.session());
        }
    }

    /// Asserts what the sessions' own lists say.
    pub(crate) fn audit_session(&self, slot: u32) {
        let session = &self.sessions[slot];
        let grants = list::audit(&self.grants, session.grants, |grant| grant.sibling);
        assert_eq!(grants, session.grant_count, "grants of session {slot}");
        let waits = list::audit(&self.waiters, session.waits, |waiter| waiter.sibling);
        assert_eq!(waits, session.wait_count, "waits of session {slot}");
        let mut broken = 0;
        for grant in list::walk(&self.grants, session.grants.head, |grant| grant.sibling) {
            assert_eq!(self.grants[grant].session(), slot, "a grant is listed at its session");
            broken += u32::from(self.grants[grant].has(Grant::BROKEN));
        }
        assert_eq!(broken, session.broken_count, "broken grants of session {slot}");
        assert_eq!(session.kept_sent - session.acknowledged, session.kept.len() as u64, "kept answers");
        assert!(
            session.kept.iter().all(|(_, answer)| answer.is_kept()),
            "only what changed something is kept"
        );
        assert_eq!(self.session(session.id), Some(self.session_key(slot)), "a session is found by its id");
        assert!(session.renewable || !session.fresh, "who is renewed no more gets no other full lease");
        if session.lease_timer != NONE {
            assert_eq!(self.wheel.alarm(session.lease_timer), Alarm::Lease(slot));
        }
        let timed = !session.visiting && (session.lease == Lease::Heartbeat || !session.renewable);
        assert_eq!(session.lease_timer != NONE, timed, "who ends by time has a timer");
        if session.confirm_timer != NONE {
            assert_eq!(self.wheel.alarm(session.confirm_timer), Alarm::Confirm(slot));
            assert!(session.killed, "only a killed session is to confirm its end");
        }
        if !session.about.identity.is_empty() {
            let newest = self.newest_twin(&session.about.identity).expect("an identity in use is filed");
            let walk = |from| list::walk(&self.sessions, from, |session| session.twins);
            assert!(walk(newest).any(|twin| twin == slot), "a session is among those of its identity");
            let key = &session.about.reclaim_key;
            let same = |&twin: &u32| self.sessions[twin].about.reclaim_key == *key;
            let mut older = walk(session.twins.next);
            assert!(!session.alike || older.all(|twin| same(&twin)), "the older ones have the same key");
            let mut behind = walk(session.twins.next).filter(same);
            let replaced = behind.all(|twin| self.sessions[twin].replaced);
            assert!(replaced || key.is_empty(), "a session replaces the older ones of its key");
        }
    }
}

//! One stream: what a session has said to one shard and not been answered, over as many connections as it takes.
//!
//! Numbers of requests rise and are never used twice; a request stays pending, with its number, until a reply settles
//! it. A broken connection therefore costs nothing but time: the next one resumes, receives again what was on its way,
//! and says again what is still pending. Only the end of the lease ends a stream.

mod cache;
mod claims;
mod holds;
mod replies;

use super::ask::{Ask, Bundle};
use super::hold::Hold;
use super::jitter::Jitter;
use super::lease::Lease;
use super::passport::{Directions, Passport};
use super::tenure::{Tenure, Tenures};
use crate::builder::Notice;
use crate::error::{Cycle, LostCause};
use crate::transport::Memory;
use fairlock_protocol::{GrantId, Malformed, OwnerId, Refusal, RequestId, ShardId, Tick, Wait};
use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};
use std::sync::Arc;

pub(crate) use cache::Attempt;

/// Kept replies that may stay unacknowledged while nothing else is said: a quarter of what the server keeps.
const SILENT_KEPT_MAX: u64 = 256;

/// How a request came out.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The lock is held.
    Granted(Arc<Hold>),
    /// All locks of a share are held, in its order.
    GrantedAll(Vec<Arc<Hold>>),
    /// The grant has another mode; its hold says which.
    Converted,
    /// The server refused.
    Refused(Refusal, Option<Cycle>),
    /// The session ended first.
    Lost(LostCause),
}

/// What whoever drives the stream must do.
#[derive(Debug)]
pub(crate) enum Event<T> {
    /// Tell the one who asked.
    Answered(T, Answer),
    /// Wake those who watch this grant: it is lost, or given back.
    HoldOver(Arc<Hold>),
    /// Tell the program.
    Notice(Notice),
    /// The session is over: end the lease and every stream.
    Over(LostCause),
    /// The CLOSE was answered.
    Closed,
    /// This connection leads nowhere: break it and try another address, after this many milliseconds; perhaps this one.
    Elsewhere(u32, Option<Directions>),
    /// The nodes of the cell, the primary first.
    Members(Directions),
    /// Something is to be done at an earlier moment than before: ask `due` again.
    Rearm,
}

/// What a server said that it must not say; its connection is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed(Malformed),
    OutOfTurn(&'static str),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Malformed(malformed)
    }
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Down,
    /// HELLO is said.
    Greeting,
    /// RESUME is said, at this moment.
    Resuming(Tick),
    /// So many kept replies come again before anything is said.
    Replaying(u32),
    /// Talk.
    Live,
}

/// Where a pending request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    /// Never sent: the server cannot know it.
    Here,
    /// Sent on some connection: the server may know it.
    Sent,
    /// Refused for the moment, without effect; to be sent again at this time.
    Resting(Tick),
}

#[derive(Debug)]
struct Pending<T> {
    ask: Ask,
    /// Who is told; `None` when nobody waits (releases, keepalives, what was abandoned).
    interest: Option<T>,
    /// When it was first encoded, which is before it was first sent: what a confirmation counts from, and a wait.
    asked: Tick,
    whereabouts: Whereabouts,
    tries: u32,
    /// Nobody reads for it in the foreground.
    tended: bool,
    /// Given up by the one who asked: a grant goes back at once.
    abandoned: bool,
    /// Another acquire of the same owner was unanswered when this one was asked.
    behind: bool,
    /// What a request for several locks was granted so far.
    gathered: Vec<Arc<Hold>>,
}

/// One session's talk with one shard. `T` names who asked.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    shard: ShardId,
    passport: Arc<Passport>,
    lease: Arc<Lease>,
    phase: Phase,
    /// Number of the next request.
    next: u64,
    /// Kept replies received on this stream, in all.
    received: u64,
    /// How many of them the server was told of.
    acknowledged: u64,
    pending: HashMap<u64, Pending<T>>,
    /// How many acquires of each owner are pending.
    asked_by: HashMap<OwnerId, usize>,
    /// Pending requests for which nobody reads in the foreground.
    tended: usize,
    holds: HashMap<GrantId, Arc<Hold>>,
    /// Grants that end by time of their own.
    ends: BTreeSet<(Tick, GrantId)>,
    /// Confirmations that the server may not have, by number.
    confirms: Vec<(u64, GrantId)>,
    /// Whether a broken grant is confirmed only when its last guard is given back.
    confirms_late: bool,
    /// Those that are still in use.
    broken: HashSet<GrantId>,
    /// The memory of the present connection, if it goes through memory.
    memory: Option<Arc<Memory>>,
    /// Grants that stay with the client.
    tenures: Tenures,
    /// Broken ones that somebody is still inside whom only the word knows, and when to look.
    broken_inside: Vec<(Arc<Tenure>, cache::Owed)>,
    broken_due: Option<Tick>,
    /// What words of former connections are still known for.
    former: cache::Former,
    /// Earliest moment at which a resting request is to be sent again.
    retry_due: Option<Tick>,
    /// Over: nothing is asked any more, except CLOSE.
    ended: bool,
    jitter: Jitter,
    /// Bytes to be sent on the present connection.
    pub(crate) out: Vec<u8>,
    events: Vec<Event<T>>,
}

impl<T> Stream<T> {
    /// A stream of a session that has not spoken to this shard yet.
    pub(crate) fn new(
        shard: ShardId,
        passport: Arc<Passport>,
        lease: Arc<Lease>,
        jitter: Jitter,
    ) -> Stream<T> {
        assert!(shard.0 < passport.shards, "a stream leads to a shard that exists");
        Stream {
            shard,
            passport,
            lease,
            phase: Phase::Down,
            next: 1,
            received: 0,
            acknowledged: 0,
            pending: HashMap::new(),
            asked_by: HashMap::new(),
            tended: 0,
            holds: HashMap::new(),
            ends: BTreeSet::new(),
            confirms: Vec::new(),
            confirms_late: false,
            broken: HashSet::new(),
            memory: None,
            tenures: Tenures::default(),
            broken_inside: Vec::new(),
            broken_due: None,
            former: cache::Former::default(),
            retry_due: None,
            ended: false,
            jitter,
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The home stream continues the connection on which the session was opened: `said` requests were made on it, and
    /// `kept` kept replies received.
    pub(crate) fn opened(mut self, said: u64, kept: u64) -> Stream<T> {
        assert!(self.phase == Phase::Down && self.next == 1, "a session is opened once");
        self.phase = Phase::Live;
        self.next = said + 1;
        self.received = kept;
        self
    }

    /// From now on broken grants are confirmed only when their last guard is given back.
    pub(crate) fn confirm_when_released(&mut self) {
        self.confirms_late = true;
    }

    /// Every guard is lost, though none is given back. Says whether there was any.
    pub(crate) fn take_all_away(&mut self, cause: LostCause) -> bool {
        let mut grants: Vec<GrantId> = self.holds.keys().copied().collect();
        grants.sort_unstable();
        for hold in grants.iter().filter_map(|grant| self.holds.get(grant)) {
            hold.take_away(cause);
            self.events.push(Event::HoldOver(Arc::clone(hold)));
        }
        self.renounce_all() || !grants.is_empty()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    /// Pending requests that nobody reads for.
    pub(crate) fn tended(&self) -> usize {
        self.tended
    }

    /// Whether anything is unanswered, held or owed here: a reason to have a connection.
    pub(crate) fn is_wanted(&self) -> bool {
        let owes = !self.confirms.is_empty() || self.waits_for_words();
        owes || !self.pending.is_empty() || !self.holds.is_empty()
    }

    /// Takes the events away.
    pub(crate) fn take_events(&mut self) -> Vec<Event<T>> {
        std::mem::take(&mut self.events)
    }

    /// Asks for something. `None` when the stream is over and the question is not CLOSE.
    pub(crate) fn submit(
        &mut self,
        now: Tick,
        ask: Ask,
        interest: Option<T>,
        tended: bool,
    ) -> Option<RequestId> {
        if self.ended && !matches!(ask, Ask::Close) {
            return None;
        }
        let behind = match &ask {
            Ask::Acquire(spec) => {
                let asked = self.asked_by.entry(spec.owner).or_default();
                *asked += 1;
                *asked > 1
            }
            _ => false,
        };
        let converts = ask.converts();
        let id = self.next;
        self.next += 1;
        self.tended += usize::from(tended);
        let pending = Pending {
            ask,
            interest,
            asked: now,
            whereabouts: Whereabouts::Here,
            tries: 0,
            tended,
            abandoned: false,
            behind,
            gathered: Vec::new(),
        };
        self.pending.insert(id, pending);
        if let Some(grant) = converts {
            // Before anything is said.
            self.go_on_by_messages(grant);
            self.believe(grant);
        }
        if self.is_live() {
            self.send(now, id);
        }
        Some(RequestId(id))
    }

    /// Gives up a request: it is withdrawn, and a grant that is on its way goes back.
    pub(crate) fn abandon(&mut self, now: Tick, id: RequestId) {
        let Some(pending) = self.pending.get_mut(&id.0) else { return };
        if pending.abandoned {
            return;
        }
        pending.abandoned = true;
        pending.interest = None;
        match pending.whereabouts {
            Whereabouts::Here | Whereabouts::Resting(_) => {
                let converts = self.forget(id.0).and_then(|pending| pending.ask.converts());
                if let Some(grant) = converts {
                    self.believe(grant);
                }
            }
            Whereabouts::Sent => {
                // Not tended: whoever withdraws does not wait, and the next reader finds the answer.
                self.submit(now, Ask::Cancel(id), None, false);
            }
        }
    }

    /// One guard of this grant is given back. Says nothing to the server when the grant is gone already.
    pub(crate) fn release(&mut self, now: Tick, hold: &Arc<Hold>) {
        let ours = self.holds.get(&hold.grant()).is_some_and(|known| Arc::ptr_eq(known, hold));
        if !ours {
            // Lost before; a word it was held in is left all the same, so that it can be used again.
            if hold.is_entered() && hold.leave() == 0 {
                self.left(hold);
            }
            return;
        }
        if hold.leave() == 0 {
            self.drop_hold(hold.grant());
            hold.take_away(LostCause::Released);
            self.events.push(Event::HoldOver(Arc::clone(hold)));
            let left = self.left(hold);
            if self.broken.remove(&hold.grant()) {
                return self.confirm(hold.grant());
            }
            if left {
                return;
            }
        } else if hold.is_ours_alone() {
            return;
        }
        if !self.broken.contains(&hold.grant()) {
            self.submit(now, Ask::Release(hold.grant(), hold.end), None, false);
        }
    }

    /// A connection stands: says HELLO, with these feature bits beside the library's own.
    pub(crate) fn connected(&mut self, features: u64) {
        assert!(self.is_down(), "one connection at a time");
        self.out.clear();
        let hello = self.passport.hello(self.shard, features);
        hello.encode(RequestId::NOTICE, 0, &mut self.out);
        self.phase = Phase::Greeting;
    }

    /// A RESUME to be said on a connection that is not this stream's yet, and was welcomed. Gives its number.
    pub(crate) fn ask_to_resume(&mut self, out: &mut Vec<u8>) -> RequestId {
        assert!(self.is_down(), "one connection at a time");
        let id = RequestId(self.next);
        self.next += 1;
        self.acknowledged = self.received;
        self.passport.resume(self.received).encode(id, low_half(self.received), out);
        id
    }

    /// That connection takes the stream: the RESUME was said on it at this moment, and its answer is to be received next.
    pub(crate) fn resumes(&mut self, sent: Tick) {
        assert!(self.is_down(), "one connection at a time");
        self.out.clear();
        self.phase = Phase::Resuming(sent);
    }

    /// The connection is gone; everything pending stays so.
    pub(crate) fn disconnected(&mut self) {
        self.out.clear();
        self.phase = Phase::Down;
        self.lose_words();
        if self.shard == self.passport.home {
            self.lease.look_away();
        }
    }

    /// The earliest moment at which `tick` has something to do.
    pub(crate) fn due(&self) -> Option<Tick> {
        let end = self.ends.first().map(|(end, _)| *end);
        let retry = self.retry_due.filter(|_| self.is_live());
        [end, retry, self.broken_due].into_iter().flatten().min()
    }

    /// Time has come: sends again what rested, and ends grants whose longest hold is over.
    pub(crate) fn tick(&mut self, now: Tick) {
        while let Some(&(end, grant)) = self.ends.first()
            && end <= now
        {
            self.ends.remove(&(end, grant));
            if let Some(hold) = self.holds.get(&grant) {
                hold.take_away(LostCause::MaxHold);
                self.events.push(Event::HoldOver(Arc::clone(hold)));
            }
        }
        self.confirm_left(now);
        if self.is_live() && self.retry_due.is_some_and(|due| due <= now) {
            self.send_rested(now);
        }
    }

    fn send_rested(&mut self, now: Tick) {
        let mut rested = Vec::new();
        let mut later: Option<Tick> = None;
        for (&id, pending) in &self.pending {
            if let Whereabouts::Resting(until) = pending.whereabouts {
                if until <= now {
                    rested.push(id);
                } else {
                    later = Some(later.map_or(until, |soonest| soonest.min(until)));
                }
            }
        }
        self.retry_due = later;
        rested.sort_unstable();
        for id in rested {
            self.send(now, id);
        }
    }

    /// The session is over: everything pending fails, every grant is lost. What is left is CLOSE.
    pub(crate) fn end(&mut self, cause: LostCause) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.asked_by.clear();
        self.confirms.clear();
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|(id, _)| *id);
        for (_, pending) in pending {
            if let Some(interest) = pending.interest {
                self.events.push(Event::Answered(interest, Answer::Lost(cause)));
            }
        }
        let mut holds: Vec<_> = self.holds.drain().collect();
        holds.sort_unstable_by_key(|(grant, _)| *grant);
        for (_, hold) in holds {
            hold.take_away(cause);
            self.events.push(Event::HoldOver(hold));
        }
        self.ends.clear();
        self.tenures.clear();
        (self.former, self.broken_inside) = Default::default();
        self.broken_due = None;
        self.retry_due = None;
        self.tended = 0;
    }

    /// Encodes a pending request on the present connection.
    fn send(&mut self, now: Tick, id: u64) {
        assert!(self.is_live(), "requests are sent on a resumed stream only");
        self.acknowledged = self.received;
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.whereabouts = Whereabouts::Sent;
        let passed = (now.since(pending.asked), self.memory.is_some());
        pending.ask.encode(RequestId(id), low_half(self.received), passed, &mut self.out);
    }

    fn forget(&mut self, id: u64) -> Option<Pending<T>> {
        let pending = self.pending.remove(&id)?;
        self.tended -= usize::from(pending.tended);
        if let Ask::Acquire(spec) = &pending.ask
            && let Entry::Occupied(mut asked) = self.asked_by.entry(spec.owner)
        {
            *asked.get_mut() -= 1;
            if *asked.get() == 0 {
                asked.remove();
            }
        }
        Some(pending)
    }
}

/// Low 16 bits of a count, as acknowledgements carry it.
fn low_half(count: u64) -> u16 {
    u16::try_from(count & 0xFFFF).expect("masked to 16 bits")
}

impl<T> Pending<T> {
    fn is_try(&self) -> bool {
        matches!(self.ask.wait(), Some(Wait::Try))
    }
}

#[cfg(test)]
mod tests;

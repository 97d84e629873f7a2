//! What a stream does without a message: grants that the server left in words are entered, left, and given up.

use super::{Answer, Ask, Event, Fault, Hold, Stream};
use crate::owner::{holder_of, is_thread};
use crate::session::Spec;
use crate::session::tenure::Tenure;
use crate::transport::Memory;
use fairlock_protocol::{GrantId, Mode, Refusal, Request, RequestId, Tick, Wait};
use fairlock_shm::word::{Entry, Generation, Holder, Seen};
use std::sync::Arc;
use std::time::Duration;

/// How often a broken tenure that somebody is still inside is looked at, when that one is known only to its word.
const BROKEN_LOOK: Duration = Duration::from_millis(10);

/// How an attempt to do without a message came out.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Held.
    Entered(Arc<Hold>),
    /// It could never be granted.
    Refused(Refusal),
    /// The server is to be asked.
    Ask,
}

/// What the server is owed when whoever is inside has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// That a break is confirmed.
    Confirm,
    /// The grant.
    Release,
}

/// What is left of words of connections that are gone.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Somebody is still inside whom only the word knows.
    pub(super) left_behind: Vec<(Arc<Spec>, Arc<Tenure>)>,
    /// What was held in one and is held on: the server still does not know whose it is.
    pub(super) holds: Vec<Arc<Hold>>,
}

impl<T> Stream<T> {
    /// The present connection goes through this memory.
    pub(crate) fn shares(&mut self, memory: &Arc<Memory>) {
        if self.memory.is_none() {
            self.memory = Some(Arc::clone(memory));
        }
    }

    /// Tries to have the lock without a message. Also finds out whether its owner is inside already: of a grant that
    /// stays with the client the server does not know whose it is.
    pub(crate) fn enter(&mut self, spec: &Arc<Spec>) -> Attempt {
        if self.ended {
            return Attempt::Ask;
        }
        let holds = &self.holds;
        let is_held = |hold: &Arc<Hold>| holds.get(&hold.grant()).is_some_and(|it| Arc::ptr_eq(it, hold));
        self.former.holds.retain(is_held);
        if let Some(hold) = self.own(spec) {
            let held = hold.facts().mode;
            if spec.reentrant && held.covers(spec.mode) {
                hold.enter();
                return Attempt::Entered(hold);
            }
            if !held.compatible(spec.mode) {
                return Attempt::Refused(Refusal::AlreadyHeld);
            }
        } else if self.is_inside_unseen(spec) {
            return Attempt::Refused(Refusal::AlreadyHeld);
        }
        if !spec.cacheable || !self.is_live() {
            return Attempt::Ask;
        }
        let holder = holder_of(spec.owner);
        let (mut entered, mut over) = (None, Vec::new());
        for kept in self.tenures.of(spec) {
            let tenure = &kept.tenure;
            if !kept.is_open || tenure.facts.mode != spec.mode {
                continue;
            }
            match tenure.enter(holder) {
                Entry::Entered => {
                    entered = Some(Arc::clone(tenure));
                    break;
                }
                // The request that follows says more than a hint.
                Entry::Undone => break,
                Entry::Refused if tenure.look() == Seen::Neither => over.push(Arc::clone(tenure)),
                Entry::Refused => {}
            }
        }
        // Not forgotten: a primary that is no more may have taken it, and then the next one still knows the grant as ours.
        for tenure in over {
            self.tenures.shut(&tenure);
        }
        let Some(tenure) = entered else { return Attempt::Ask };
        let hold = Arc::new(Hold::entered(tenure, holder, Arc::clone(spec)));
        self.holds.insert(hold.grant(), Arc::clone(&hold));
        Attempt::Entered(hold)
    }

    /// Whether one of these is held by its owner, in a tenure, in a mode that goes not with it.
    pub(crate) fn meets_itself(&self, specs: &[Arc<Spec>]) -> bool {
        let Former { left_behind, holds } = &self.former;
        !(self.tenures.is_empty() && left_behind.is_empty() && holds.is_empty())
            && specs.iter().any(|spec| {
                let own = self.own(spec).map(|hold| !hold.facts().mode.compatible(spec.mode));
                own.unwrap_or_else(|| self.is_inside_unseen(spec))
            })
    }

    /// What the owner of this request holds of a tenure of the same lock.
    fn own(&self, spec: &Arc<Spec>) -> Option<Arc<Hold>> {
        let holds = self.tenures.of(spec).iter().filter_map(|kept| self.holds.get(&kept.tenure.grant));
        let former =
            self.former.holds.iter().filter(|hold| {
                hold.spec.resource() == spec.resource() && self.holds.contains_key(&hold.grant())
            });
        holds.chain(former).find(|hold| hold.spec.owner == spec.owner).map(Arc::clone)
    }

    /// Whether the thread that asks is inside a tenure of the same lock through a prepared lock, which only the word
    /// knows, in a mode that goes not with what it asks for.
    fn is_inside_unseen(&self, spec: &Arc<Spec>) -> bool {
        let holder = holder_of(spec.owner);
        let inside = |tenure: &Tenure| {
            tenure.is_held(holder)
                && !self.holds.contains_key(&tenure.grant)
                && !tenure.facts.mode.compatible(spec.mode)
        };
        let mut left_behind =
            self.former.left_behind.iter().filter(|(of, _)| of.resource() == spec.resource());
        is_thread(spec.owner)
            && (self.tenures.of(spec).iter().any(|kept| inside(&kept.tenure))
                || left_behind.any(|(_, tenure)| inside(tenure)))
    }

    /// The server left a grant with us, in a word. One that was released meanwhile it takes back by itself.
    pub(super) fn keep(
        &mut self,
        now: Tick,
        grant: GrantId,
        (word, generation): (u32, Generation),
    ) -> Result<(), Fault> {
        let memory = self.memory.as_ref().ok_or(Fault::OutOfTurn("a word without memory"))?;
        let Some(hold) = self.holds.get(&grant) else {
            self.tenures.forget(word);
            return Ok(());
        };
        let tenure = Tenure::new(memory, (word, generation), (grant, hold.facts()));
        let tenure = Arc::new(tenure.ok_or(Fault::OutOfTurn("a word beyond the memory"))?);
        // A conversion that left before the note came takes the word back: it may be somebody else's by now.
        let by_messages = self.asked_of(grant).next().is_some();
        hold.stays_in(Arc::clone(&tenure), Holder::GRANTED, by_messages);
        let (spec, hold_mode) = (Arc::clone(&hold.spec), hold.facts().mode);
        self.tenures.keep(&spec, &tenure);
        if by_messages {
            self.tenures.shut(&tenure);
        }
        self.refuse_its_own(now, &spec, hold_mode);
        Ok(())
    }

    /// Requests of the one who holds it that left before it was known that the server would not know him by it: he would
    /// wait for himself.
    fn refuse_its_own(&mut self, now: Tick, held: &Arc<Spec>, mode: Mode) {
        let meets = |ask: &Ask| match ask {
            Ask::Acquire(spec) => {
                spec.owner == held.owner
                    && (spec.resource() == held.resource())
                    && !mode.compatible(spec.mode)
                    && spec.wait != Wait::Try
            }
            _ => false,
        };
        let met = self.pending.iter_mut().filter(|(_, pending)| meets(&pending.ask));
        let mut met: Vec<_> = met.filter_map(|(id, pending)| Some((*id, pending.interest.take()?))).collect();
        met.sort_unstable_by_key(|(id, _)| *id);
        for (id, interest) in met {
            let refused = Answer::Refused(Refusal::AlreadyHeld, None);
            self.events.push(Event::Answered(interest, refused));
            self.abandon(now, RequestId(id));
        }
    }

    /// The hold of this grant goes on by messages.
    pub(super) fn go_on_by_messages(&mut self, grant: GrantId) {
        if let Some(hold) = self.holds.get(&grant)
            && let Some(tenure) = hold.go_on_by_messages()
        {
            self.tenures.shut(tenure);
        }
    }

    /// The last guard of a hold that is inside a word is given back. Whether it was.
    pub(super) fn left(&mut self, hold: &Hold) -> bool {
        let Some(inside) = hold.inside() else { return false };
        if inside.tenure.leave() {
            self.look();
        }
        true
    }

    /// A word that somebody waits for was left. Fire and forget: a connection that breaks ends the session.
    pub(crate) fn look(&mut self) {
        if self.is_live() && !self.ended {
            let id = RequestId(self.next);
            self.next += 1;
            self.acknowledged = self.received;
            Request::Look.encode(id, super::low_half(self.received), &mut self.out);
        }
    }

    /// An operator broke a grant: its word is entered no more. `true`: somebody is inside whom only the word knows, and he
    /// is to be waited for before it is confirmed.
    pub(super) fn renounce(&mut self, now: Tick, grant: GrantId, late: bool) -> bool {
        if let Some(at) = self.broken_inside.iter().position(|(tenure, _)| tenure.grant == grant) {
            // Said again, after a RESUME.
            self.broken_inside[at].1 = Owed::Confirm;
            if !late {
                self.broken_inside.swap_remove(at);
            }
            return late;
        }
        let left_behind = &mut self.former.left_behind;
        let tenure = if let Some(tenure) = self.tenures.of_grant(grant) {
            self.tenures.end(&tenure);
            tenure
        } else if let Some(at) = left_behind.iter().position(|(_, tenure)| tenure.grant == grant) {
            left_behind.swap_remove(at).1
        } else {
            return false;
        };
        tenure.memory().revise();
        tenure.renounce();
        let unseen = late && tenure.is_occupied() && !self.holds.contains_key(&grant);
        if unseen {
            self.broken_inside.push((tenure, Owed::Confirm));
            self.broken_due = Some(now.after(BROKEN_LOOK));
            self.events.push(Event::Rearm);
        }
        unseen
    }

    /// No word is entered any more, and whoever is inside one finds out. Whether anybody is whom only the word knows: what he
    /// has is given back when he has left.
    pub(super) fn renounce_all(&mut self) -> bool {
        let left_behind = std::mem::take(&mut self.former.left_behind);
        let former = left_behind.len();
        for (at, (_, tenure)) in left_behind.into_iter().chain(self.tenures.all()).enumerate() {
            tenure.memory().revise();
            tenure.renounce();
            let is_known = self.holds.contains_key(&tenure.grant)
                || self.broken_inside.iter().any(|(known, _)| known.grant == tenure.grant);
            if tenure.is_occupied() && !is_known {
                self.broken_inside.push((tenure, Owed::Release));
            } else if at < former {
                self.submit(Tick::ZERO, Ask::Release(tenure.grant, Tick(u64::MAX)), None, false);
            }
        }
        if !self.broken_inside.is_empty() {
            self.broken_due = Some(Tick::ZERO);
            self.events.push(Event::Rearm);
        }
        !self.broken_inside.is_empty()
    }

    /// Confirms broken tenures that were left, and releases those of a connection that is gone.
    pub(super) fn confirm_left(&mut self, now: Tick) {
        if self.broken_due.is_none_or(|due| now < due) {
            return;
        }
        let all = std::mem::take(&mut self.broken_inside);
        let (inside, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(it, _)| it.is_occupied());
        self.broken_inside = inside;
        for (tenure, owed) in left {
            match owed {
                Owed::Confirm => self.confirm(tenure.grant),
                Owed::Release => {
                    self.submit(Tick::ZERO, Ask::Release(tenure.grant, Tick(u64::MAX)), None, false);
                }
            }
        }
        let all = std::mem::take(&mut self.former.left_behind);
        let (inside, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, it)| it.is_occupied());
        self.former.left_behind = inside;
        for (_, tenure) in left {
            self.submit(Tick::ZERO, Ask::Release(tenure.grant, Tick(u64::MAX)), None, false);
        }
        self.broken_due = self.waits_for_words().then(|| now.after(BROKEN_LOOK));
    }

    /// The connection is gone, and with it its words; whoever is inside keeps his guard until the lease ends.
    pub(super) fn lose_words(&mut self) {
        self.memory = None;
        // Should the session live on, the server knows them as grants like others.
        for hold in self.holds.values() {
            let _ = hold.go_on_by_messages();
        }
        self.former.holds = self.holds.values().filter(|hold| hold.is_ours_alone()).map(Arc::clone).collect();
        // Those that no hold stands for, too, once nobody is inside whom only the word knows; none is entered again. Nothing
        // is to be renewed by the answers.
        for (spec, tenure) in self.tenures.all() {
            let seen = tenure.shut();
            let waits = self.broken_inside.iter().any(|(broken, _)| broken.grant == tenure.grant);
            if waits || self.holds.contains_key(&tenure.grant) {
                continue;
            }
            if seen == Seen::Held {
                self.former.left_behind.push((spec, tenure));
            } else {
                self.submit(Tick::ZERO, Ask::Release(tenure.grant, Tick(u64::MAX)), None, false);
            }
        }
        self.tenures.clear();
        self.broken_due = self.waits_for_words().then_some(Tick::ZERO);
        self.events.extend(self.broken_due.map(|_| Event::Rearm));
    }

    /// Whether somebody is inside a word whom only the word knows, and for whom the server is owed something.
    pub(super) fn waits_for_words(&self) -> bool {
        !(self.former.left_behind.is_empty() && self.broken_inside.is_empty())
    }
}

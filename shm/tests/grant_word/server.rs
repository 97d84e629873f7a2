//! What the server does: it alone orders the waiters, grants, revokes and ends by force. Its own table changes at once,
//! what it tells the client goes through its store buffer like everything else.

use crate::memory::{Processor, Store};
use crate::rules::Weakening;
use crate::shared::{Generation, Message, Reply, Thread, Wanted, Word};
use crate::state::{Duty, Holder, Remote, Run, Standing, State, Waiter};
use crate::step::{Deed, Step, Steps};

/// The server's own processor.
pub(crate) const BY: Processor = Processor::Server;
/// Stores that one step of the server makes at most: it wakes, and grants by word with a reply.
const STORES_A_STEP: usize = 4;

/// All that can happen at the server from here; going to sleep is in `sleep.rs`.
pub(crate) fn steps(state: &State, run: &Run, steps: &mut Steps) {
    match state.server.duty {
        Duty::Loop => {
            crate::outside::steps(state, run, steps);
            serve(state, run, steps);
            poll(state, run, steps);
            reuse(state, run, steps);
        }
        Duty::Asleep => crate::outside::steps(state, run, steps),
        Duty::Revoking => revoke(state, run, steps),
        Duty::Ending => end_by_force(state, run, steps),
        Duty::Dozing(_) | Duty::Dead => {}
    }
}

pub(crate) fn has_room(state: &State) -> bool {
    state.memory.room(BY, STORES_A_STEP)
}

fn serve(state: &State, run: &Run, steps: &mut Steps) {
    let mut next = *state;
    let Some(message) = next.memory.ring.pop() else { return };
    if !has_room(state) {
        return;
    }
    if state.server.standing == Standing::Dead && !run.rules.has(Weakening::DeadRingServed) {
        return steps.push(Step::Server(Deed::DropsDead(message)), next);
    }
    match message {
        Message::Acquire(thread) => next.enqueue(Waiter::Local(thread), run),
        Message::Return(thread) if state.server.holder == Holder::Wordless(thread) => next.pass_on(run),
        // Its grant was over before the message came.
        Message::Return(_) => {}
        Message::Release(generation) => next.hear_release(generation, run),
    }
    steps.push(Step::Server(Deed::Serves(message)), next);
}

/// Every pass looks at the words that are on the revoking list or retired.
fn poll(state: &State, run: &Run, steps: &mut Steps) {
    let listed = match state.server.standing {
        Standing::Revoking => true,
        Standing::Retired => !run.rules.has(Weakening::ReleaseAcknowledges),
        _ => false,
    };
    let mut next = *state;
    if listed && next.take_word(run) {
        next.word_taken(run);
        steps.push(Step::Server(Deed::TakesRevoked), next);
    }
}

/// The unused word goes to another lock, cached at this client.
fn reuse(state: &State, run: &Run, steps: &mut Steps) {
    if state.left.reuses == 0 || state.server.standing != Standing::Unused || !has_room(state) {
        return;
    }
    let mut next = *state;
    next.left.reuses -= 1;
    next.next_generation(run);
    next.memory.store(BY, Store::Wanted(Wanted::Nobody));
    next.memory.store(BY, Store::Word(Word::Free(next.server.generation)));
    next.server.standing = Standing::OtherLock;
    steps.push(Step::Server(Deed::ReusesWord), next);
}

fn revoke(state: &State, run: &Run, steps: &mut Steps) {
    if !state.memory.fenced(BY) {
        return;
    }
    let mut next = *state;
    next.server.duty = Duty::Loop;
    next.server.standing = Standing::Revoking;
    let taken = next.take_word(run);
    if taken {
        next.word_taken(run);
    }
    steps.push(Step::Server(if taken { Deed::RevokesAtOnce } else { Deed::RevokesLater }), next);
}

/// The locked instruction of a forced end, before anyone else is granted.
fn end_by_force(state: &State, run: &Run, steps: &mut Steps) {
    if !state.memory.fenced(BY) {
        return;
    }
    let mut next = *state;
    next.server.duty = Duty::Loop;
    if state.server.holder == Holder::Word {
        let was_free = matches!(state.memory.word, Word::Free(_));
        if !run.rules.has(Weakening::ForcedEndFencedOnly) {
            next.memory.word = Word::Revoked(state.server.generation);
        }
        next.retire(was_free && !run.rules.has(Weakening::ForcedEndFencedOnly), run);
        if run.rules.has(Weakening::ForcedEndClears) {
            next.memory.store(BY, Store::Wanted(Wanted::Nobody));
        }
    }
    next.pass_on(run);
    steps.push(Step::Server(Deed::EndsByForce), next);
}

impl State {
    pub(crate) fn enqueue(&mut self, waiter: Waiter, run: &Run) {
        self.server.queue.push(waiter);
        match self.server.holder {
            Holder::Nobody => self.grant(run),
            Holder::Word if self.server.standing == Standing::Granted => {
                self.memory.store(BY, Store::Wanted(Wanted::Waiter));
                self.server.duty = Duty::Revoking;
            }
            _ => {}
        }
    }

    /// The lock is free by the server's table: the head of the queue gets it.
    pub(crate) fn pass_on(&mut self, run: &Run) {
        self.server.holder = Holder::Nobody;
        self.grant(run);
    }

    fn grant(&mut self, run: &Run) {
        match self.server.queue.pop() {
            None => {}
            Some(Waiter::Remote) => {
                self.server.holder = Holder::Remote;
                self.remote = Remote::Inside;
            }
            Some(Waiter::Local(thread)) => {
                if self.server.standing == Standing::Unused && self.left.grants > 0 {
                    self.grant_word(thread, run);
                } else {
                    self.grant_wordless(thread);
                }
            }
        }
    }

    /// `wanted`, the word, the reply; what the client sees of them comes in this order.
    fn grant_word(&mut self, thread: Thread, run: &Run) {
        self.left.grants -= 1;
        self.next_generation(run);
        let generation = self.server.generation;
        let more_wait = !self.server.queue.is_empty();
        let announced = more_wait && !run.rules.has(Weakening::NextNotAnnounced);
        let wanted = Store::Wanted(if announced { Wanted::Waiter } else { Wanted::Nobody });
        let clears_late = run.rules.has(Weakening::WantedClearedLate);
        if !clears_late {
            self.memory.store(BY, wanted);
        }
        self.memory.store(BY, Store::Word(Word::Held(generation, thread)));
        self.memory.store(BY, Store::Reply(thread, Reply::Word(generation)));
        if clears_late {
            self.memory.store(BY, wanted);
        }
        self.server.holder = Holder::Word;
        self.server.standing = if more_wait { Standing::Revoking } else { Standing::Granted };
        self.bypasses = 0;
        self.passing_takes = 0;
    }

    fn grant_wordless(&mut self, thread: Thread) {
        self.server.holder = Holder::Wordless(thread);
        if self.memory.load_void(BY, thread) {
            self.memory.store(BY, Store::Void(thread, false));
        }
        self.memory.store(BY, Store::Reply(thread, Reply::Wordless));
    }

    fn next_generation(&mut self, run: &Run) {
        if !run.rules.has(Weakening::SameGeneration) {
            self.server.generation = self.server.generation.next();
        }
    }

    /// The server's own compare-and-swap FREE to NONE, as soon as its buffer lets it.
    pub(crate) fn take_word(&mut self, run: &Run) -> bool {
        let generation = self.server.generation;
        if !self.memory.fenced(BY) {
            return false;
        }
        if run.rules.has(Weakening::TakesHeld) {
            self.memory.word = Word::None(generation);
            return true;
        }
        self.memory.swap_if_free(BY, generation, Word::None(generation))
    }

    /// The word is the server's again. Of a retired word that says nothing about the lock, which went on long ago.
    pub(crate) fn word_taken(&mut self, run: &Run) {
        let was = self.server.standing;
        self.server.standing = Standing::Unused;
        self.server.drained = false;
        match was {
            Standing::Revoking => self.pass_on(run),
            Standing::Retired if run.rules.has(Weakening::AcknowledgementReleases) => self.pass_on(run),
            _ => assert!(was == Standing::Retired, "a word is taken from the revoking list or retired"),
        }
    }

    /// What becomes of a word whose tenure ended by force.
    pub(crate) fn retire(&mut self, was_free: bool, run: &Run) {
        let reusable = was_free || run.rules.has(Weakening::NoAcknowledgement);
        self.server.standing = if reusable { Standing::Unused } else { Standing::Retired };
        self.server.drained = false;
    }

    /// RELEASE is a hint to look at the word, and the poll looks anyway: by itself it changes nothing.
    fn hear_release(&mut self, generation: Generation, run: &Run) {
        let rules = &run.rules;
        let current = generation == self.server.generation;
        if self.server.standing == Standing::Retired {
            if rules.has(Weakening::ReleaseAcknowledges) && current {
                self.server.standing = Standing::Unused;
            }
            return;
        }
        let returns = rules.has(Weakening::ReleaseReturnsAny)
            || current
                && (rules.has(Weakening::ReleaseReturns) || rules.has(Weakening::ReleaseReturnsAndRetires));
        if returns && self.server.holder == Holder::Word {
            let retires = rules.has(Weakening::ReleaseReturnsAndRetires);
            self.server.standing = if retires { Standing::Retired } else { Standing::Unused };
            self.pass_on(run);
        }
    }
}

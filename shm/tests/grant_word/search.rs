//! Breadth first over every state that can be reached, so the first broken promise found is one with a shortest story.
//! Waiting is judged on the whole graph afterwards: backwards along the steps that happen by themselves, from every state
//! where somebody does not wait; what is not reached waits for ever.

use crate::memory::{Fifo, Processor};
use crate::promises::{Promise, Waits};
use crate::state::{Run, State};
use crate::step::{Step, Steps};
use crate::story::Story;
use crate::{client, outside, server, sleep};
use std::hash::{Hash, Hasher};

/// States a search may keep: about 20 GB. Beyond that a run has bounds it was not meant to have.
const STATES_MAX: usize = 100_000_000;

/// Index of a state in the order it was found.
type Found = u32;
const NOWHERE: Found = Found::MAX;

/// Every step that is possible in a state.
pub(crate) fn successors(state: &State, run: &Run, steps: &mut Steps) {
    steps.clear();
    for processor in Processor::ALL {
        if state.memory.fenced(processor) {
            continue;
        }
        let mut next = *state;
        next.drain_one(processor);
        steps.push(Step::Drains(processor), next);
        if state.client_dead && processor != Processor::Server {
            let mut next = *state;
            next.memory.buffers[processor as usize] = Fifo::new();
            steps.push(Step::Loses(processor), next);
        }
    }
    client::steps(state, run, steps);
    server::steps(state, run, steps);
    sleep::steps(state, run, steps);
    outside::death(state, steps);
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// The broken promise and how it came about.
    pub(crate) broken: Option<(Promise, Story)>,
    /// Of the corners asked for, those that no state was in.
    pub(crate) unseen: Vec<&'static str>,
}

/// A situation that a search must come through, or it proves less than it says.
pub(crate) type Corner = (&'static str, fn(&State, &Run) -> bool);

/// Searches everything within the bounds.
pub(crate) fn search(run: &Run, corners: &[Corner]) -> Outcome {
    let mut search = Search::new(*run);
    let mut unseen = corners.to_vec();
    let broken = search.explore(&mut unseen).or_else(|| search.waits_for_ever());
    let broken = broken.map(|(promise, at)| (promise, Story::new(&search.path(at), run)));
    Outcome { states: search.states.len(), broken, unseen: unseen.iter().map(|(name, _)| *name).collect() }
}

struct Search {
    run: Run,
    states: Vec<State>,
    parents: Vec<Found>,
    /// Steps that happen by themselves: to, from.
    progress: Vec<(Found, Found)>,
    index: Index,
}

impl Search {
    fn new(run: Run) -> Self {
        let mut search = Self {
            run,
            states: Vec::new(),
            parents: Vec::new(),
            progress: Vec::new(),
            index: Index { slots: vec![(0, NOWHERE); 1 << 16] },
        };
        search.find(&State::first(&run.bounds), NOWHERE);
        search
    }

    /// The place of a state, and whether it is new.
    fn find(&mut self, state: &State, parent: Found) -> (Found, bool) {
        let hash = Index::hash_of(state);
        let slot = self.index.slot_of(hash, |place| self.states[place as usize] == *state);
        let known = self.index.slots[slot].1;
        if known != NOWHERE {
            return (known, false);
        }
        assert!(self.states.len() < STATES_MAX, "too many states: {:?}", self.run);
        let place = Found::try_from(self.states.len()).expect("STATES_MAX fits");
        self.index.slots[slot] = (hash, place);
        self.states.push(*state);
        self.parents.push(parent);
        if self.states.len() * 2 > self.index.slots.len() {
            self.index.grow();
        }
        (place, true)
    }

    fn explore(&mut self, unseen: &mut Vec<Corner>) -> Option<(Promise, Found)> {
        let mut steps = Steps::default();
        let mut at = 0;
        while at < self.states.len() {
            let here = Found::try_from(at).expect("STATES_MAX fits");
            successors(&self.states[at], &self.run, &mut steps);
            for (step, next) in steps.iter() {
                let (there, new) = self.find(next, here);
                if step.is_progress() && there != here {
                    self.progress.push((there, here));
                }
                if !new {
                    continue;
                }
                if let Some(promise) = Promise::broken_by(next, &self.run) {
                    return Some((promise, there));
                }
                unseen.retain(|(_, corner)| !corner(next, &self.run));
            }
            at += 1;
        }
        None
    }

    /// The first state from which somebody who waits cannot be served; one where all is quiet, if there is one.
    fn waits_for_ever(&mut self) -> Option<(Promise, Found)> {
        let origins = Origins::new(std::mem::take(&mut self.progress), self.states.len());
        let mut steps = Steps::default();
        for waits in Waits::ALL {
            let served = self.can_be_served(waits, &origins);
            let stuck = || (0..self.states.len()).filter(|&at| !served[at]);
            let quiet = stuck().find(|&at| {
                successors(&self.states[at], &self.run, &mut steps);
                !steps.iter().any(|(step, next)| step.is_progress() && *next != self.states[at])
            });
            if let Some(at) = quiet.or_else(|| stuck().next()) {
                return Some((Promise::Served, Found::try_from(at).expect("STATES_MAX fits")));
            }
        }
        None
    }

    /// Of each state, whether steps that happen by themselves can lead to where this one does not wait.
    fn can_be_served(&self, waits: Waits, origins: &Origins) -> Vec<bool> {
        let mut served: Vec<bool> = self.states.iter().map(|state| !waits.is_waiting(state)).collect();
        let mut reached: Vec<usize> = (0..served.len()).filter(|&at| served[at]).collect();
        while let Some(at) = reached.pop() {
            for &from in origins.of(at) {
                let from = from as usize;
                if !served[from] {
                    served[from] = true;
                    reached.push(from);
                }
            }
        }
        served
    }

    /// From the first state to this one.
    fn path(&self, to: Found) -> Vec<State> {
        let mut path = Vec::new();
        let mut at = to;
        while at != NOWHERE {
            path.push(self.states[at as usize]);
            at = self.parents[at as usize];
        }
        path.reverse();
        path
    }
}

/// Of each state, the states that lead to it by themselves: all in one row, with where each state's begin.
struct Origins {
    begin: Vec<usize>,
    row: Vec<Found>,
}

impl Origins {
    fn new(steps: Vec<(Found, Found)>, states: usize) -> Self {
        let mut begin = vec![0; states + 1];
        for &(to, _) in &steps {
            begin[to as usize] += 1;
        }
        let mut sum = 0;
        for count in &mut begin {
            sum += *count;
            *count = sum;
        }
        let mut row = vec![NOWHERE; steps.len()];
        for (to, from) in steps {
            // Counted down from the end of its part, so that at last it says where the part begins.
            begin[to as usize] -= 1;
            row[begin[to as usize]] = from;
        }
        Self { begin, row }
    }

    fn of(&self, to: usize) -> &[Found] {
        &self.row[self.begin[to]..self.begin[to + 1]]
    }
}

/// Places of states by their hash, open addressing, at most half full. The hash stands beside the place, so that a state
/// is fetched only to be confirmed, and never to be moved.
struct Index {
    slots: Vec<(u32, Found)>,
}

impl Index {
    fn hash_of(state: &State) -> u32 {
        let mut mix = Mix(0x2545_f491_4f6c_dd1d);
        state.hash(&mut mix);
        u32::try_from(mix.finish() >> 32).expect("32 bits are left")
    }

    fn slot_of(&self, hash: u32, is_it: impl Fn(Found) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot].1 != NOWHERE && (self.slots[slot].0 != hash || !is_it(self.slots[slot].1)) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let wider = vec![(0, NOWHERE); self.slots.len() * 4];
        for (hash, place) in std::mem::replace(&mut self.slots, wider) {
            if place != NOWHERE {
                let slot = self.slot_of(hash, |_| false);
                self.slots[slot] = (hash, place);
            }
        }
    }
}

/// A multiplicative hash: states are trusted, and there are millions.
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(discriminant.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        let (low, high) = (wide & u128::from(u64::MAX), wide >> 64);
        self.0 = u64::try_from(low ^ high).expect("both are below 2^64");
    }
}

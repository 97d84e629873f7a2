//! How the server falls asleep without leaving anyone behind: say so, then look once more at everything whose owner may
//! have looked before it was said. The order of these steps is the protocol, so it is a list, and a weakening is another
//! list.

use crate::memory::{Processor, Store};
use crate::rules::{Nap, Weakening};
use crate::server::BY;
use crate::shared::Listen;
use crate::state::{Duty, Run, Standing, State};
use crate::step::{Deed, Step, Steps};

/// The next step towards sleep, or out of it.
pub(crate) fn steps(state: &State, run: &Run, steps: &mut Steps) {
    match state.server.duty {
        Duty::Loop if state.memory.ring.is_empty() => doze(state, 0, run, steps),
        Duty::Dozing(at) => doze(state, at, run, steps),
        Duty::Asleep if state.memory.bell => {
            steps.push(Step::Server(Deed::Wakes), crate::outside::woken(state));
        }
        _ => {}
    }
}

fn doze(state: &State, at: u8, run: &Run, steps: &mut Steps) {
    let Some(&nap) = run.rules.falling_asleep.get(usize::from(at)) else {
        // A system call: the buffer drains before the processor is given away.
        if state.memory.fenced(BY) {
            let mut next = *state;
            next.server.duty = Duty::Asleep;
            steps.push(Step::Server(Deed::Sleeps), next);
        }
        return;
    };
    if !is_due(state, nap, run) {
        return doze(state, at + 1, run, steps);
    }
    if let Some((deed, mut next)) = step_of(state, nap, run) {
        if matches!(deed, Deed::Dozes(_)) {
            next.server.duty = Duty::Dozing(at + 1);
        }
        steps.push(Step::Server(deed), next);
    }
}

/// Without a word on the revoking list nobody waits for a store that may still be in a client's buffer: no membarrier.
fn is_due(state: &State, nap: Nap, run: &Run) -> bool {
    let listed = state.server.standing == Standing::Revoking;
    match nap {
        Nap::Drain(_) if run.rules.has(Weakening::MembarrierAlways) => true,
        Nap::Drain(_) => listed && !state.server.drained,
        Nap::Check => listed,
        _ => true,
    }
}

fn step_of(state: &State, nap: Nap, run: &Run) -> Option<(Deed, State)> {
    let mut next = *state;
    let fenced = state.memory.fenced(BY);
    match nap {
        Nap::NoteBell => next.memory.bell = false,
        Nap::SayAsleep if !state.memory.room(BY, 2) => return None,
        Nap::SayAsleep => next.memory.store(BY, Store::Listen(Listen::Asleep)),
        Nap::Fence | Nap::Drain(_) | Nap::Check if !fenced => return None,
        Nap::Fence => {}
        Nap::Scan if state.memory.ring.is_empty() => {}
        Nap::Scan => {
            next.stay_awake();
            return Some((Deed::FindsWork, next));
        }
        Nap::Drain(processor) => {
            assert!(processor != Processor::Server, "membarrier drains the others");
            next.drain_all(processor);
            next.server.drained = processor == Processor::Second && run.rules.has(Weakening::MembarrierOnce);
        }
        Nap::Check => {
            if next.take_word(run) {
                next.stay_awake();
                next.word_taken(run);
                return Some((Deed::TakesAtLast, next));
            }
        }
    }
    Some((Deed::Dozes(nap), next))
}

impl State {
    fn stay_awake(&mut self) {
        self.memory.store(BY, Store::Listen(Listen::Listening));
        self.server.duty = Duty::Loop;
    }
}

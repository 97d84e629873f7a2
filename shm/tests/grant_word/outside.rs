//! What comes to the server from outside of the shared memory: the remote session's messages by socket, forced ends by
//! timer or operator, the death of the client by pidfd, and the server's own death, after which another node may grant.
//! Each of these wakes a sleeping server by itself.

use crate::memory::Store;
use crate::rules::Weakening;
use crate::server::{BY, has_room};
use crate::shared::{Listen, Wanted, Word};
use crate::state::{Duty, Holder, Remote, Run, Standing, State, Waiter};
use crate::step::{Deed, Step, Steps};

/// Arrivals at a server that loops or sleeps.
pub(crate) fn steps(state: &State, run: &Run, steps: &mut Steps) {
    if has_room(state) {
        remote(state, run, steps);
        forced_end(state, run, steps);
    }
    if state.client_dead && state.server.standing != Standing::Dead && state.memory.fenced(BY) {
        steps.push(Step::Server(Deed::SeesClientDead), client_dead(state, run));
    }
}

/// The server may die in the middle of anything; the kernel then marks it dead for every client.
pub(crate) fn death(state: &State, steps: &mut Steps) {
    if state.server.duty != Duty::Dead {
        if state.left.deaths > 0 && state.memory.room(BY, 1) {
            let mut next = *state;
            next.left.deaths -= 1;
            next.server.duty = Duty::Dead;
            next.memory.store(BY, Store::Gone);
            steps.push(Step::Server(Deed::Dies), next);
        }
    } else if state.memory.fenced(BY) {
        takeover(state, steps);
    }
}

/// Another node, once every lease of the dead server is over.
fn takeover(state: &State, steps: &mut Steps) {
    let mut next = *state;
    match state.remote {
        Remote::Inside => {
            next.remote = Remote::Away;
            next.server.holder = Holder::Elsewhere;
            steps.push(Step::LeavesElsewhere, next);
        }
        Remote::Away if state.left.visits == 0 => {}
        Remote::Away | Remote::Waiting => {
            let waited = state.remote == Remote::Waiting;
            next.left.visits -= u8::from(!waited);
            next.remote = Remote::Inside;
            next.server.holder = Holder::Remote;
            next.server.queue.retain(|_| false);
            steps.push(Step::GrantsElsewhere { waited }, next);
        }
    }
}

fn remote(state: &State, run: &Run, steps: &mut Steps) {
    let mut next = woken(state);
    match state.remote {
        Remote::Away if state.left.visits > 0 => {
            next.left.visits -= 1;
            next.remote = Remote::Waiting;
            next.enqueue(Waiter::Remote, run);
            steps.push(Step::Server(Deed::RemoteAsks), next);
        }
        Remote::Waiting if state.left.cancels > 0 => {
            next.left.cancels -= 1;
            next.remote = Remote::Away;
            next.server.queue.retain(|waiter| waiter != Waiter::Remote);
            let revoking = state.server.standing == Standing::Revoking;
            if run.rules.has(Weakening::CancelClears) && revoking && next.server.queue.is_empty() {
                next.memory.store(BY, Store::Wanted(Wanted::Nobody));
                next.server.standing = Standing::Granted;
            }
            steps.push(Step::Server(Deed::RemoteCancels), next);
        }
        Remote::Inside => {
            next.remote = Remote::Away;
            next.pass_on(run);
            steps.push(Step::Server(Deed::RemoteLeaves), next);
        }
        Remote::Away | Remote::Waiting => {}
    }
}

/// First the client is told, by `wanted` or by the flag; then, behind a locked instruction, somebody else is granted.
fn forced_end(state: &State, run: &Run, steps: &mut Steps) {
    if state.left.forced_ends == 0 || state.client_dead {
        return;
    }
    let mut next = woken(state);
    next.left.forced_ends -= 1;
    let unfenced = match state.server.holder {
        Holder::Word => {
            let waiter = run.rules.has(Weakening::ForcedEndSaysWaiter);
            next.memory.store(BY, Store::Wanted(if waiter { Wanted::Waiter } else { Wanted::Void }));
            run.rules.has(Weakening::ForcedEndUnfenced)
        }
        Holder::Wordless(thread) => {
            next.memory.store(BY, Store::Void(thread, true));
            run.rules.has(Weakening::FlagUnfenced)
        }
        Holder::Nobody | Holder::Remote | Holder::Elsewhere => return,
    };
    if unfenced {
        if state.server.holder == Holder::Word {
            next.retire(false, run);
        }
        next.pass_on(run);
    } else {
        next.server.duty = Duty::Ending;
    }
    steps.push(Step::Server(Deed::ForcesEnd), next);
}

/// The word is taken by swap, the queue entries are dropped, whatever it held goes on.
fn client_dead(state: &State, run: &Run) -> State {
    let mut next = woken(state);
    next.memory.word = Word::Revoked(state.server.generation);
    next.server.standing = Standing::Dead;
    next.server.queue.retain(|waiter| waiter == Waiter::Remote);
    if matches!(state.server.holder, Holder::Word | Holder::Wordless(_)) {
        next.pass_on(run);
    } else {
        assert!(
            state.server.holder != Holder::Nobody || next.server.queue.is_empty(),
            "nobody waits for nobody"
        );
    }
    next
}

/// The same state with the server up and listening.
pub(crate) fn woken(state: &State) -> State {
    let mut next = *state;
    if state.server.duty == Duty::Asleep {
        next.memory.store(BY, Store::Listen(Listen::Listening));
        next.server.duty = Duty::Loop;
    }
    next
}

//! The cells that are walked through, and what each must have reached: a walk that never comes to what it is for proves nothing.

use stateright::Property;

use super::state::{Bounds, LOG_MAX, State};
use super::{Op, Rules};

/// Clients that meet at the first lock; one of them ends.
fn meeting() -> Vec<Op> {
    vec![Op::Acquire { lock: 0, session: 0 }, Op::Acquire { lock: 0, session: 1 }, Op::Expire { session: 0 }]
}

fn rules(name: &'static str, members: u8, ops: Vec<Op>, bounds: Bounds) -> Rules {
    let log_max = u8::try_from(ops.len().min(LOG_MAX)).expect("few operations");
    Rules { name, members, ops, log_max, bounds, mistake: None }
}

/// The primary is passed over, by either of two members.
pub fn take_over() -> Rules {
    let bounds = Bounds { seizures: 2, keepalives: 1, breaks: 1, heartbeats: 1, ..Bounds::default() };
    rules("take-over", 3, vec![meeting()[0], meeting()[1]], bounds)
}

/// The primary is passed over while an expiry passes a lock on.
pub fn expiry() -> Rules {
    let bounds = Bounds { seizures: 1, keepalives: 1, ..Bounds::default() };
    rules("expiry", 2, meeting(), bounds)
}

/// A node joins a pair that is about to break.
pub fn join() -> Rules {
    let bounds = Bounds { joins: 1, unknowns: 1, seizures: 1, breaks: 1, ..Bounds::default() };
    let ops = vec![Op::Acquire { lock: 0, session: 0 }, Op::Acquire { lock: 1, session: 1 }];
    rules("join", 1, ops, bounds)
}

pub fn eviction() -> Rules {
    let bounds = Bounds { joins: 1, evictions: 1, seizures: 1, breaks: 1, unknowns: 1, ..Bounds::default() };
    rules("eviction", 2, vec![meeting()[0]], bounds)
}

pub fn switchover() -> Rules {
    let bounds = Bounds { switchovers: 1, seizures: 1, breaks: 1, keepalives: 1, ..Bounds::default() };
    rules("switchover", 3, vec![meeting()[0], meeting()[1]], bounds)
}

pub fn restart() -> Rules {
    let bounds = Bounds { crashes: 1, seizures: 1, joins: 1, ..Bounds::default() };
    let ops = vec![Op::Acquire { lock: 0, session: 0 }, Op::Release { lock: 0, session: 0 }, meeting()[1]];
    rules("restart", 2, ops, bounds)
}

pub fn all() -> Vec<Rules> {
    vec![take_over(), expiry(), join(), eviction(), switchover(), restart()]
}

/// What each walk must come to.
pub fn reached(rules: &Rules) -> Vec<Property<Rules>> {
    fn primary(state: &State) -> Option<&super::Node> {
        state.nodes.iter().find(|node| node.in_office() && node.reign == state.register.reign)
    }
    fn shown(state: &State) -> usize {
        state.seen.shown.iter().filter(|entry| entry.op != 0).count()
    }
    let later = Property::<Rules>::sometimes("a later reign answers", |rules, state| {
        state.register.reign > 1
            && primary(state).is_some()
            && shown(state) == usize::from(rules.log_max)
            && state.seen.shown.iter().any(|entry| entry.reign == 1)
    });
    let passed = Property::<Rules>::sometimes("a lock is passed on by expiry", |_, state| {
        state.seen.gone[0] && state.seen.holds[0] == 2
    });
    let joined = Property::<Rules>::sometimes("a joiner is listed and acknowledges", |rules, state| {
        let whole = |node: &super::Node| node.conf.members.iter().filter(|life| **life != 0).count();
        state.left.joins < rules.bounds.joins
            && primary(state).is_some_and(|node| {
                whole(node) > 1 && node.conf.epoch > 1 && node.released == node.round
            })
    });
    let handed = Property::<Rules>::sometimes("an office is handed over", |rules, state| {
        state.left.switchovers < rules.bounds.switchovers
            && primary(state).is_some_and(|node| node.released > 0 && node.conf.members == [1, 1, 1])
    });
    match rules.name {
        "take-over" => vec![later],
        "expiry" => vec![later, passed],
        "join" | "eviction" => vec![joined],
        "switchover" => vec![later, handed],
        _ => vec![later, joined],
    }
}

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

/// The primary is passed over, by one member or by the other and then by the first; streams break.
pub fn take_over() -> Rules {
    let bounds = Bounds { seizures: 1, keepalives: 1, breaks: 1, ..Bounds::default() };
    rules("take-over", 3, meeting()[..2].to_vec(), bounds)
}

/// Two take-overs, one after or beside the other.
pub fn take_over_twice() -> Rules {
    let bounds = Bounds { seizures: 2, keepalives: 1, heartbeats: 1, ..Bounds::default() };
    rules("two take-overs", 3, meeting()[..2].to_vec(), bounds)
}

/// A member is evicted while another takes over.
pub fn passed_over() -> Rules {
    let bounds = Bounds { seizures: 1, evictions: 1, keepalives: 1, ..Bounds::default() };
    rules("eviction and take-over", 3, meeting()[..1].to_vec(), bounds)
}

/// The primary is passed over while an expiry passes a lock on.
pub fn expiry() -> Rules {
    let bounds = Bounds { seizures: 1, keepalives: 1, ..Bounds::default() };
    rules("expiry", 2, meeting(), bounds)
}

/// A node joins another, with a snapshot in two pieces; nothing is certain.
pub fn join() -> Rules {
    let bounds = Bounds { joins: 1, unknowns: 1, seizures: 1, breaks: 1, ..Bounds::default() };
    let ops = vec![Op::Acquire { lock: 0, session: 0 }, Op::Acquire { lock: 1, session: 1 }];
    rules("join", 1, ops, bounds)
}

/// A node joins another, and neither the listing nor its repetition is answered.
pub fn join_unknown_twice() -> Rules {
    let bounds = Bounds { joins: 1, unknowns: 2, seizures: 1, breaks: 1, ..Bounds::default() };
    rules("join, unknown twice", 1, meeting()[..1].to_vec(), bounds)
}

/// A node joins a pair of which one is evicted or takes over.
pub fn join_a_pair() -> Rules {
    let bounds = Bounds { joins: 1, evictions: 1, seizures: 1, unknowns: 1, ..Bounds::default() };
    rules("join a pair", 2, meeting()[..1].to_vec(), bounds)
}

/// A former primary joins again and takes over again.
pub fn come_back() -> Rules {
    let bounds = Bounds { joins: 1, seizures: 2, ..Bounds::default() };
    rules("come back", 2, meeting()[..1].to_vec(), bounds)
}

/// An office is handed over.
pub fn switchover() -> Rules {
    let bounds = Bounds { switchovers: 1, keepalives: 1, ..Bounds::default() };
    rules("switchover", 3, meeting()[..2].to_vec(), bounds)
}

/// An office is handed over and taken over meanwhile.
pub fn switchover_broken() -> Rules {
    let bounds = Bounds { switchovers: 1, seizures: 1, ..Bounds::default() };
    rules("switchover and take-over", 3, meeting()[..1].to_vec(), bounds)
}

/// A process ends and another begins.
pub fn restart() -> Rules {
    let bounds = Bounds { crashes: 1, seizures: 1, joins: 1, ..Bounds::default() };
    let ops = vec![Op::Acquire { lock: 0, session: 0 }, Op::Release { lock: 0, session: 0 }];
    rules("restart", 2, ops, bounds)
}

/// Those that take a moment.
pub fn small() -> Vec<Rules> {
    vec![expiry(), join(), restart(), switchover_broken(), come_back(), passed_over()]
}

/// Those of a million states or so each, besides two take-overs.
pub fn large() -> Vec<Rules> {
    vec![take_over(), join_a_pair(), switchover()]
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
            && primary(state)
                .is_some_and(|node| whole(node) > 1 && node.conf.epoch > 1 && node.released == node.round)
    });
    let handed = Property::<Rules>::sometimes("an office is handed over", |rules, state| {
        state.left.switchovers < rules.bounds.switchovers
            && primary(state).is_some_and(|node| node.released > 0 && node.conf.members == [1, 1, 1])
    });
    match rules.name {
        "expiry" => vec![later, passed],
        "join" | "join, unknown twice" | "join a pair" => vec![joined],
        "switchover" | "switchover and take-over" => vec![later, handed],
        "restart" | "come back" => vec![later, joined],
        _ => vec![later],
    }
}

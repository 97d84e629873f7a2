//! A judge that ignores tokens: every pair of holds is compared, from the words of docs/histories.md alone. It is slow, knows one rule
//! (incompatible holds that were certain do not overlap) and shares no line with the judge it stands beside. Conversions
//! are unknown to it.

use fairlock::Mode;
use fairlock_cli::history::{Event, What};

/// A hold that was certain for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold {
    /// Line of the grant, from 1.
    line: u32,
    lock: (String, Vec<u8>),
    holder: (String, u64),
    mode: Mode,
    from_ns: u64,
    end_ns: u64,
}

/// The lines of every two grants that cannot both be true, the smaller one first.
pub fn overlaps(events: &[Event<'_>]) -> Vec<(u32, u32)> {
    let holds: Vec<Hold> =
        (1..).zip(events).filter_map(|(line, event)| certain(events, event, line)).collect();
    let mut found = Vec::new();
    for (at, one) in holds.iter().enumerate() {
        for other in &holds[at + 1..] {
            if one.lock == other.lock
                && one.holder != other.holder
                && !one.mode.compatible(other.mode)
                && both_held(one, other)
            {
                found.push((one.line, other.line));
            }
        }
    }
    found
}

/// Whether some moment lies in both: who came later came before the other's end.
fn both_held(one: &Hold, other: &Hold) -> bool {
    let (first, second) =
        if (one.from_ns, one.end_ns) <= (other.from_ns, other.end_ns) { (one, other) } else { (other, one) };
    second.from_ns < first.end_ns
}

/// The hold that this event began, if it is a grant and was ever certain.
fn certain(events: &[Event<'_>], granted: &Event<'_>, line: u32) -> Option<Hold> {
    let What::Granted { request, until_ns: mut deadline, .. } = granted.what else { return None };
    let (mut last_look, mut released, mut lost_by_time, mut taken) = (granted.at_ns, None, None, false);
    let mut asked = None;
    for event in events.iter().filter(|event| event.client == granted.client) {
        let at_ns = event.at_ns;
        match &event.what {
            What::Acquire { request: number, namespace, name, mode, owner, .. } if *number == request => {
                asked = Some(((namespace.to_string(), name.to_vec()), *owner, *mode));
            }
            What::Valid { request: number, until_ns } if *number == request => {
                deadline = deadline.max(*until_ns);
                last_look = last_look.max(at_ns);
            }
            What::Release { request: number } if *number == request => released = Some(at_ns),
            What::Lost { request: number, lease: true } if *number == request => lost_by_time = Some(at_ns),
            What::Lost { request: number, .. } if *number == request => taken = true,
            _ => {}
        }
    }
    let end_ns = if taken { last_look } else { released.or(lost_by_time).unwrap_or(last_look) }.min(deadline);
    let (lock, owner, mode) = asked?;
    let holder = (granted.client.to_string(), owner);
    let from_ns = granted.at_ns;
    (deadline > from_ns && end_ns >= from_ns).then_some(Hold { line, lock, holder, mode, from_ns, end_ns })
}

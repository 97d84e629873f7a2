//! The protocol as it is meant, in both modes and in bounds that each leave something out, since all of it at once is
//! too much. The wide bounds are for whoever changes a rule.

use crate::memory::{Fifo, Store};
use crate::rules::{Bounds, Rules, Tries, Weakening};
use crate::search::Corner;
use crate::shared::Word;
use crate::state::{Actor, Duty, Phase, Remote, Standing};
use crate::{holds, searched};

const SMALL: Bounds = Bounds::SMALL;

/// The narrow bounds always, the wide ones when FAIRLOCK_BOUNDS asks for them.
fn holds_within(rules: Rules, narrow: Bounds, wide: Bounds) {
    let asked = std::env::var("FAIRLOCK_BOUNDS").is_ok_and(|bounds| bounds == "wide");
    holds(rules, if asked { wide } else { narrow });
}

macro_rules! every_promise_is_kept {
    ($($name:ident: $narrow:expr, wide $wide:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn with_membarrier() {
                holds_within(Rules::MEMBARRIER, $narrow, $wide);
            }

            #[test]
            fn with_xchg() {
                holds_within(Rules::XCHG, $narrow, $wide);
            }
        }
    )* };
}

every_promise_is_kept! {
    when_the_word_is_granted_again:
        Bounds { visits: 2, grants: 2, ..SMALL },
        wide Bounds { acquisitions: [3, 2], visits: 2, grants: 2, ..SMALL };
    when_calls_may_be_tries:
        Bounds { tries: Tries::Some, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, grants: 2, tries: Tries::Some, ..SMALL };
    when_tries_never_end:
        Bounds { acquisitions: [1, 1], tries: Tries::Endless, ..SMALL },
        wide Bounds { acquisitions: [2, 2], tries: Tries::Endless, ..SMALL };
    when_tenures_end_by_force:
        Bounds { forced_ends: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, grants: 2, forced_ends: 1, ..SMALL };
    when_a_forced_end_meets_tries:
        Bounds { acquisitions: [1, 1], forced_ends: 1, tries: Tries::Some, ..SMALL },
        wide Bounds { acquisitions: [2, 2], forced_ends: 1, tries: Tries::Some, ..SMALL };
    when_two_tenures_end_by_force:
        Bounds { acquisitions: [1, 1], forced_ends: 2, ..SMALL },
        wide Bounds { forced_ends: 2, visits: 2, ..SMALL };
    when_the_word_goes_to_another_lock:
        Bounds { acquisitions: [1, 1], forced_ends: 1, reuses: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, forced_ends: 1, reuses: 1, ..SMALL };
    when_the_client_dies:
        Bounds { visits: 2, crashes: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, grants: 2, forced_ends: 1, crashes: 1, ..SMALL };
    when_the_server_dies:
        Bounds { visits: 2, deaths: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, grants: 2, forced_ends: 1, deaths: 1, ..SMALL };
    when_the_waiter_cancels:
        Bounds { visits: 2, cancels: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, grants: 2, forced_ends: 1, cancels: 1, ..SMALL };
    when_nothing_is_cached_yet:
        Bounds { grants: 2, cached: false, ..SMALL },
        wide Bounds { acquisitions: [2, 2], grants: 2, forced_ends: 1, cached: false, ..SMALL };
    when_the_threads_share_a_processor:
        Bounds { forced_ends: 1, processors: 1, ..SMALL },
        wide Bounds { acquisitions: [2, 2], visits: 2, forced_ends: 1, tries: Tries::Some, processors: 1, ..SMALL };
}

// Departures that cost nothing: what a later change may use, and why two of them are not taken for granted.

#[test]
fn a_guard_may_look_for_void_instead_of_the_word() {
    holds(Rules::MEMBARRIER.but(Weakening::GuardReadsVoid), Bounds { forced_ends: 1, ..SMALL });
}

/// Whoever released before `wanted` was visible is drained at any time after; whoever releases later sends a message.
#[test]
fn membarrier_may_come_before_asleep_is_stored() {
    holds(Rules::MEMBARRIER.but(Weakening::MembarrierBeforeAsleep), Bounds { visits: 2, grants: 2, ..SMALL });
}

#[test]
fn one_membarrier_for_each_revocation_is_enough() {
    let rules = Rules::MEMBARRIER.but(Weakening::MembarrierOnce);
    holds(rules, Bounds { tries: Tries::Some, visits: 2, ..SMALL });
    holds(rules, Bounds { acquisitions: [1, 1], visits: 2, grants: 2, forced_ends: 1, ..SMALL });
}

#[test]
fn membarrier_at_every_sleep_would_spare_the_fence_of_a_publish() {
    let rules = Rules::MEMBARRIER.but(Weakening::UnfencedPublish).but(Weakening::MembarrierAlways);
    holds(rules, Bounds { visits: 2, grants: 2, ..SMALL });
}

/// A search that does not come through these situations proves less than it says.
#[test]
fn the_search_comes_through_every_corner() {
    let corners: &[Corner] = &[
        ("the remote session inside, and a thread that has lost", |state, _| {
            state.remote == Remote::Inside && state.threads.iter().any(Actor::is_inside)
        }),
        ("both threads inside, one has lost", |state, _| state.threads.iter().all(Actor::is_inside)),
        ("asleep with a revocation under way", |state, _| {
            state.server.duty == Duty::Asleep && state.server.standing == Standing::Revoking
        }),
        ("asleep, and the bell rung", |state, _| state.server.duty == Duty::Asleep && state.memory.bell),
        ("FREE in a buffer while the server waits for it", |state, _| {
            let stores = state.memory.buffers.iter().skip(1).flat_map(Fifo::iter);
            let free = stores.filter(|store| matches!(store, Store::Word(Word::Free(_)))).count();
            state.server.standing == Standing::Revoking && free > 0
        }),
        ("a retired word that its holder has set free", |state, _| {
            state.server.standing == Standing::Retired && matches!(state.memory.word, Word::Free(_))
        }),
        ("a word taken again in a later generation", |state, _| {
            let again = |actor: &Actor| actor.phase == Phase::Look && actor.generation.0 > 1;
            state.threads.iter().any(again)
        }),
        ("a grant without a word, ended by force while held", |state, _| {
            state.memory.voids.contains(&true) && state.threads.iter().any(|actor| actor.wordless)
        }),
    ];
    let outcome = searched(Rules::MEMBARRIER, Bounds { forced_ends: 1, ..SMALL }, corners);
    assert_eq!(outcome.unseen, [""; 0], "never seen");
}

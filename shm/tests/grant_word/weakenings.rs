//! Every rule of the protocol, broken once: the search must find what goes wrong, or the rule is not needed, or the search
//! does not see it. Each test is named for what is done wrong.

use crate::breaks;
use crate::promises::Promise::{
    FirstComeFirstServed, NoFalseAlarm, OwnWordOnly, RemoteExcluded, Served, ThreadsExcluded, WordNotHidden,
};
use crate::rules::Weakening::{self, *};
use crate::rules::{Bounds, Rules, Tries};

const SMALL: Bounds = Bounds::SMALL;
const FORCED: Bounds = Bounds { forced_ends: 1, ..SMALL };
const REUSED: Bounds = Bounds { reuses: 1, ..SMALL };
const TRIED: Bounds = Bounds { tries: Tries::Some, ..SMALL };

fn weak(weakening: Weakening) -> Rules {
    Rules::MEMBARRIER.but(weakening)
}

macro_rules! caught {
    ($($name:ident: $promise:expr, $rules:expr, $bounds:expr;)*) => { $(
        #[test]
        fn $name() {
            breaks($promise, $rules, $bounds);
        }
    )* };
}

// What a RELEASE means.
caught! {
    a_release_is_taken_as_the_return_of_the_word: RemoteExcluded, weak(ReleaseReturns), SMALL;
    a_release_of_any_generation_is_taken_as_the_return: RemoteExcluded, weak(ReleaseReturnsAny), SMALL;
    a_release_is_taken_as_the_return_and_the_word_is_retired:
        RemoteExcluded, weak(ReleaseReturnsAndRetires), SMALL;
    a_release_is_taken_as_the_acknowledgement_of_a_retired_word: OwnWordOnly, weak(ReleaseAcknowledges), FORCED;
    a_release_acknowledges_for_guards_that_look_for_void:
        OwnWordOnly, weak(ReleaseAcknowledges).but(GuardReadsVoid), FORCED;
    an_acknowledgement_is_taken_as_the_release_of_the_lock: RemoteExcluded, weak(AcknowledgementReleases), FORCED;
}

// Taking the word, and taking it back.
caught! {
    the_word_is_entered_without_a_look_at_wanted: FirstComeFirstServed, weak(NoLook).but(NoGlance), SMALL;
    wanted_is_looked_at_only_before_the_word_is_taken: FirstComeFirstServed, weak(NoLook), SMALL;
    wanted_is_not_looked_at_and_tenures_end_by_force: FirstComeFirstServed, weak(NoLook).but(NoGlance), FORCED;
    wanted_is_not_looked_at_before_endless_tries:
        WordNotHidden, weak(NoGlance), Bounds { tries: Tries::Endless, ..SMALL };
    the_generation_is_read_from_the_word: RemoteExcluded, weak(GenerationFromWord), REUSED;
    a_try_undoes_without_a_message: Served, weak(SilentUndo), TRIED;
    the_server_takes_the_word_by_swap: OwnWordOnly, weak(TakesHeld), SMALL;
    the_server_takes_by_swap_from_guards_that_look_for_void:
        RemoteExcluded, weak(TakesHeld).but(GuardReadsVoid), SMALL;
}

// Granting again.
caught! {
    the_word_of_another_lock_keeps_its_generation: RemoteExcluded, weak(SameGeneration), REUSED;
    a_retired_word_is_granted_again_without_acknowledgement: OwnWordOnly, weak(NoAcknowledgement), FORCED;
    an_unacknowledged_word_for_guards_that_look_for_void:
        ThreadsExcluded, weak(NoAcknowledgement).but(GuardReadsVoid), FORCED;
    neither_acknowledgement_nor_generation: NoFalseAlarm, weak(NoAcknowledgement).but(SameGeneration), FORCED;
    neither_of_them_for_guards_that_look_for_void:
        NoFalseAlarm, weak(NoAcknowledgement).but(SameGeneration).but(GuardReadsVoid), FORCED;
    a_grant_does_not_announce_the_next_waiter:
        Served, weak(NextNotAnnounced), Bounds { visits: 2, grants: 2, ..SMALL };
    a_grant_clears_wanted_late_and_a_release_is_the_return:
        RemoteExcluded, weak(WantedClearedLate).but(ReleaseReturnsAndRetires), SMALL;
    a_cancel_clears_wanted_and_a_release_is_the_return:
        RemoteExcluded, weak(CancelClears).but(ReleaseReturnsAndRetires), Bounds { visits: 2, cancels: 1, ..SMALL };
    the_ring_of_a_dead_client_is_served:
        Served, weak(DeadRingServed), Bounds { visits: 2, grants: 2, crashes: 1, ..SMALL };
}

// Forced ends, and what the guard reads.
caught! {
    the_guard_reads_that_the_server_lives_and_nothing_else: RemoteExcluded, weak(GuardReadsAlive), FORCED;
    the_guard_reads_the_word_and_not_that_the_server_lives:
        RemoteExcluded, weak(GuardReadsWord), Bounds { deaths: 1, ..SMALL };
    the_guard_of_a_grant_without_a_word_reads_no_flag: RemoteExcluded, weak(GuardReadsNoFlag), FORCED;
    the_flag_of_a_grant_without_a_word_is_not_fenced: RemoteExcluded, weak(FlagUnfenced), FORCED;
    a_forced_end_clears_wanted: OwnWordOnly, weak(ForcedEndClears), FORCED;
    a_forced_end_says_that_somebody_waits_where_guards_look_for_void:
        RemoteExcluded, weak(ForcedEndSaysWaiter).but(GuardReadsVoid), FORCED;
    a_forced_end_grants_the_next_one_before_the_swap: OwnWordOnly, weak(ForcedEndUnfenced), FORCED;
    a_forced_end_fences_and_does_not_swap: RemoteExcluded, weak(ForcedEndFencedOnly), FORCED;
}

// Going to sleep.
caught! {
    the_server_sleeps_without_membarrier: Served, weak(NoMembarrier), SMALL;
    the_server_sleeps_without_a_check_after_membarrier: Served, weak(NoCheck), SMALL;
    the_server_checks_before_membarrier: Served, weak(CheckBeforeMembarrier), SMALL;
    membarrier_stands_for_the_fence_of_a_publish_and_comes_before_asleep_is_stored:
        Served, weak(UnfencedPublish).but(MembarrierAlways).but(MembarrierBeforeAsleep), SMALL;
    asleep_is_stored_after_the_scan: Served, weak(AsleepAfterScan), SMALL;
    asleep_is_not_fenced_before_the_scan: Served, weak(AsleepUnfenced), SMALL;
    the_bell_is_noted_after_the_scan: Served, weak(BellNotedAfterScan), SMALL;
    a_publish_is_not_fenced_with_membarrier: Served, weak(UnfencedPublish), SMALL;
    a_publish_is_not_fenced_with_xchg: Served, Rules::XCHG.but(UnfencedPublish), SMALL;
    a_release_is_a_plain_store_without_membarrier: Served, Rules::XCHG.but(PlainRelease), SMALL;
    the_server_sleeps_without_a_check_with_xchg: Served, Rules::XCHG.but(NoCheck), SMALL;
    asleep_is_not_fenced_with_xchg: Served, Rules::XCHG.but(AsleepUnfenced), SMALL;
}

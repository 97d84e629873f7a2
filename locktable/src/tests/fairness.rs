//! Who is next: the queues, conversions, re-entry.

use super::*;

#[test]
fn compatible_requests_hold_together_and_others_wait_in_order() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let first = story.hold(a, Mode::PR);
    let second = story.hold(a, Mode::PR);
    let writer = story.queue(b, Mode::PW);
    story.queue(b, Mode::PR);
    assert_eq!(grants(&story.release(a, first.grant)), []);
    assert_eq!(grants(&story.release(a, second.grant)), [writer]);
    assert_eq!(story.table.counts().waiters, 1);
}

#[test]
fn a_try_obeys_the_queue() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::PR);
    story.queue(b, Mode::EX);
    assert_eq!(story.attempt(a, Mode::PR), refused(Refusal::WouldBlock), "compatible, but somebody waits");
    assert!(matches!(story.attempt(a, Mode::NL), Answer::Granted(_)), "NL always");
}

#[test]
fn neighbours_that_go_together_are_one_batch() {
    let mut story = Story::new();
    let s = story.open();
    let writer = story.hold(s, Mode::EX);
    let readers = [0, 1, 2].map(|owner| {
        let asking = Acquire { owner: OwnerId(owner + 1), ..story.asking(s, Mode::PR, Wait::Forever) };
        story.ask(asking);
        asking.request
    });
    let next_writer = Acquire { owner: OwnerId(9), ..story.asking(s, Mode::EX, Wait::Forever) };
    story.ask(next_writer);
    let late = Acquire { owner: OwnerId(10), ..story.asking(s, Mode::PR, Wait::Forever) };
    story.ask(late);
    assert_eq!(grants(&story.release(s, writer.grant)), readers);
}

#[test]
fn a_down_conversion_is_done_at_once_and_lets_others_in() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let writer = story.hold(a, Mode::EX);
    let reader = story.queue(b, Mode::PR);
    let (request, effects) = story.convert(a, writer.grant, Mode::PR);
    assert_eq!(grants(&effects), [request, reader]);
    assert_eq!(granted(&effects, request).token, writer.token);
}

#[test]
fn an_up_conversion_waits_for_the_rest_of_the_holders_and_passes_the_wait_queue() {
    let mut story = Story::new();
    let (a, b, c) = (story.open(), story.open(), story.open());
    let reader = story.hold(a, Mode::PR);
    let other = story.hold(b, Mode::PR);
    story.queue(c, Mode::EX);
    let (request, effects) = story.convert(a, reader.grant, Mode::EX);
    assert!(effects.is_empty());
    assert_eq!(story.table.counts().conversions, 1);
    let effects = story.release(b, other.grant);
    assert_eq!(grants(&effects), [request]);
    assert!(granted(&effects, request).token > reader.token);
}

#[test]
fn two_conversions_that_would_wait_for_each_other_are_told_at_once() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let first = story.hold(a, Mode::PR);
    let second = story.hold(b, Mode::PR);
    let (waiting, _) = story.convert(a, first.grant, Mode::EX);
    let (refused, effects) = story.convert(b, second.grant, Mode::EX);
    let id = story.table.session_view(a).unwrap().id;
    let expected = Answer::Deadlock { session: id, owner: OwnerId(0), mode: Mode::EX };
    assert_eq!(answer_to(&effects, refused), Some(expected));
    assert_eq!(grants(&story.release(b, second.grant)), [waiting]);
    assert_eq!(story.table.counts().deadlocks_total, 1);
}

#[test]
fn an_up_conversion_from_nl_is_a_new_request() {
    let mut story = Story::new();
    let (a, b, c) = (story.open(), story.open(), story.open());
    let null = story.hold(a, Mode::NL);
    let writer = story.hold(b, Mode::EX);
    let first = story.queue(c, Mode::PR);
    let (second, effects) = story.convert(a, null.grant, Mode::PR);
    assert!(effects.is_empty() && null.token.is_none());
    let counts = story.table.counts();
    assert_eq!((counts.waiters, counts.conversions), (2, 0));
    assert_eq!(grants(&story.release(b, writer.grant)), [first, second]);
}

#[test]
fn conversions_are_served_before_the_wait_queue() {
    let mut story = Story::new();
    let (a, b, c) = (story.open(), story.open(), story.open());
    let reader = story.hold(a, Mode::CR);
    let writer = story.hold(b, Mode::PW);
    let blocked = story.queue(c, Mode::PR);
    let (up, effects) = story.convert(a, reader.grant, Mode::PR);
    assert!(effects.is_empty());
    assert_eq!(grants(&story.release(b, writer.grant)), [up, blocked]);
}

#[test]
fn between_concurrent_write_and_protected_read_a_conversion_counts_as_up() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let reader = story.hold(a, Mode::PR);
    let waiting = story.queue(b, Mode::CW);
    let (request, effects) = story.convert(a, reader.grant, Mode::CW);
    assert_eq!(grants(&effects), [request, waiting], "the head of W goes with a concurrent writer");
    let writer = granted(&effects, request);
    assert!(writer.token > reader.token && writer.fence == 0);
}

#[test]
fn a_conversion_to_the_same_mode_changes_nothing() {
    let mut story = Story::new();
    let s = story.open();
    let held = story.hold(s, Mode::EX);
    assert_eq!(story.converted(s, held.grant, Mode::EX), held);
}

#[test]
fn a_second_conversion_of_a_grant_is_none() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PR);
    story.hold(b, Mode::PR);
    let (first, _) = story.convert(a, held.grant, Mode::PW);
    let (second, effects) = story.convert(a, held.grant, Mode::CR);
    assert_eq!(answer_to(&effects, second), Some(refused(Refusal::BadConversion)));
    let effects = story.release(a, held.grant);
    assert_eq!(answer_to(&effects, first), Some(refused(Refusal::Cancelled)), "its grant is gone");
}

#[test]
fn a_withdrawn_conversion_leaves_the_grant_as_it_was() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PR);
    story.hold(b, Mode::PR);
    let (conversion, _) = story.convert(a, held.grant, Mode::EX);
    let request = story.request();
    let effects = story.apply(Command::Cancel { session: a, request, target: conversion });
    assert_eq!(answer_to(&effects, conversion), Some(refused(Refusal::Cancelled)));
    assert_eq!(answer_to(&effects, request), Some(Answer::Withdrawn { was_waiting: true }));
    assert_eq!(story.converted(a, held.grant, Mode::PR).token, held.token);
}

#[test]
fn cancelling_the_head_lets_the_next_in() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::PR);
    let head = story.queue(b, Mode::EX);
    let next = story.queue(b, Mode::PR);
    let request = story.request();
    let effects = story.apply(Command::Cancel { session: b, request, target: head });
    assert_eq!(grants(&effects), [next]);
    let again = story.request();
    let effects = story.apply(Command::Cancel { session: b, request: again, target: head });
    assert_eq!(answer_to(&effects, again), Some(Answer::Withdrawn { was_waiting: false }));
}

#[test]
fn the_same_owner_enters_again_even_past_a_queue() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PW);
    story.queue(b, Mode::EX);
    let again = Acquire { reentrant: true, ..story.asking(a, Mode::PR, Wait::Try) };
    let inner = granted(&story.ask(again), again.request);
    assert!(inner.reentered && inner.grant == held.grant && inner.token == held.token);
    assert_eq!(inner.mode, Mode::PW, "the grant is what it was");
    let stronger = Acquire { reentrant: true, ..story.asking(a, Mode::EX, Wait::Forever) };
    let effects = story.ask(stronger);
    assert_eq!(answer_to(&effects, stronger.request), Some(refused(Refusal::AlreadyHeld)));
    let first = story.release(a, held.grant);
    assert!(matches!(first[0], Effect::Answered { answer: Answer::Released { remaining: 1 }, .. }));
    assert_eq!(grants(&story.release(a, held.grant)).len(), 1);
}

#[test]
fn who_could_never_be_granted_is_told_so() {
    let mut story = Story::new();
    let s = story.open();
    story.hold(s, Mode::EX);
    assert_eq!(story.attempt(s, Mode::EX), refused(Refusal::AlreadyHeld));
    let other = Acquire { owner: OwnerId(1), ..story.asking(s, Mode::EX, Wait::Try) };
    let effects = story.ask(other);
    assert_eq!(
        answer_to(&effects, other.request),
        Some(refused(Refusal::WouldBlock)),
        "another owner may wait"
    );
}

#[test]
fn re_entry_has_a_limit() {
    let mut story = Story::with(Limits { reentry: 2, ..Limits::default() });
    let s = story.open();
    story.hold(s, Mode::EX);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let again = Acquire { reentrant: true, ..story.asking(s, Mode::EX, Wait::Try) };
        answers.push(answer_to(&story.ask(again), again.request).unwrap());
    }
    assert!(matches!(answers[1], Answer::Granted(_)));
    assert_eq!(answers[2], refused(Refusal::HoldLimit));
}

#[test]
fn an_owner_is_found_among_many_readers() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let mut held = Vec::new();
    for owner in 0..40 {
        for session in [a, b] {
            let asking =
                Acquire { owner: OwnerId(owner % 20), ..story.asking(session, Mode::PR, Wait::Forever) };
            held.push((session, owner % 20, granted(&story.ask(asking), asking.request)));
        }
    }
    for &(session, owner, first) in &held[..40] {
        let again =
            Acquire { owner: OwnerId(owner), reentrant: true, ..story.asking(session, Mode::CR, Wait::Try) };
        assert_eq!(granted(&story.ask(again), again.request).grant, first.grant, "the oldest one");
        let worse = Acquire { owner: OwnerId(owner), ..story.asking(session, Mode::EX, Wait::Forever) };
        assert_eq!(answer_to(&story.ask(worse), worse.request), Some(refused(Refusal::AlreadyHeld)));
        story.release(session, first.grant);
    }
    for (session, _, held) in held {
        story.release(session, held.grant);
    }
    assert_eq!((story.table.counts().locks, story.table.stakes.len()), (0, 0));
}

#[test]
fn a_full_queue_and_a_full_session_refuse() {
    let limits = Limits { waiters_per_resource: 2, locks_per_session: 4, ..Limits::default() };
    let mut story = Story::with(limits);
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::EX);
    story.queue(b, Mode::EX);
    story.queue(b, Mode::EX);
    let third = story.asking(b, Mode::EX, Wait::Forever);
    let effects = story.ask(third);
    assert_eq!(answer_to(&effects, third.request), Some(refused(Refusal::QueueFull)));
    story.hold(b, Mode::NL);
    story.hold(b, Mode::NL);
    assert_eq!(story.attempt(b, Mode::NL), refused(Refusal::Quota));
    assert_eq!(story.table.counts().refused(Refusal::Quota), 1);
}

#[test]
fn a_holder_that_wants_to_know_is_told_once_until_nobody_waits() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let asking = Acquire { notify: true, ..story.asking(a, Mode::PR, Wait::Forever) };
    let held = granted(&story.ask(asking), asking.request);
    let wait = |story: &mut Story, mode| {
        let asking = story.asking(b, mode, Wait::Forever);
        (asking.request, notices(&story.ask(asking)))
    };
    let (first, told) = wait(&mut story, Mode::EX);
    let notice = Notice::Blocking { grant: held.grant, wanted: Mode::EX, waiters: 1 };
    assert_eq!(told, [(a, notice)]);
    let (second, told) = wait(&mut story, Mode::PW);
    assert_eq!(told, []);
    for target in [first, second] {
        let request = story.request();
        story.apply(Command::Cancel { session: b, request, target });
    }
    assert_eq!(wait(&mut story, Mode::CW).1.len(), 1, "told again");
}

#[test]
fn a_grant_from_the_queue_is_told_whom_it_blocks_already() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let first = story.hold(a, Mode::EX);
    let asking = Acquire { notify: true, ..story.asking(b, Mode::EX, Wait::Forever) };
    story.ask(asking);
    story.queue(b, Mode::PR);
    let effects = story.release(a, first.grant);
    let grant = granted(&effects, asking.request).grant;
    assert_eq!(notices(&effects), [(b, Notice::Blocking { grant, wanted: Mode::PR, waiters: 1 })]);
}

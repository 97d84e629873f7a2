//! One outcome a request, whatever is lost and sent again.

use super::*;

#[test]
fn a_request_sent_again_gets_the_same_answer_and_no_second_grant() {
    let mut story = Story::new();
    let s = story.open();
    let asking = story.asking(s, Mode::EX, Wait::Forever);
    let first = answer_to(&story.ask(asking), asking.request);
    let again = story.ask(asking);
    let expected =
        Effect::Answered { session: s, request: asking.request, answer: first.unwrap(), kept: false };
    assert_eq!(again, [expected]);
    assert_eq!(story.table.session_view(s).unwrap().kept_sent, 1);
    assert_eq!(story.table.counts().grants_total, 1);
}

#[test]
fn a_waiting_request_sent_again_keeps_its_place() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::EX);
    let asking = story.asking(b, Mode::EX, Wait::Forever);
    assert!(story.ask(asking).is_empty() && story.ask(asking).is_empty());
    let other = Acquire { mode: Mode::PR, ..asking };
    assert_eq!(answer_to(&story.ask(other), asking.request), Some(refused(Refusal::ReplayMismatch)));
    assert_eq!(grants(&story.release(a, held.grant)), [asking.request]);
}

#[test]
fn a_request_that_changed_nothing_is_carried_out_when_it_comes_again() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::EX);
    let asking = story.asking(b, Mode::EX, Wait::Try);
    assert_eq!(answer_to(&story.ask(asking), asking.request), Some(refused(Refusal::WouldBlock)));
    story.release(a, held.grant);
    granted(&story.ask(asking), asking.request);
}

#[test]
fn a_release_sent_again_is_answered_again() {
    let mut story = Story::new();
    let s = story.open();
    let held = story.hold(s, Mode::EX);
    let request = story.request();
    let release = Command::Release { session: s, request, grant: held.grant };
    let released = Some(Answer::Released { remaining: 0 });
    assert_eq!(answer_to(&story.apply(release), request), released);
    assert_eq!(answer_to(&story.apply(release), request), released);
    let unknown = story.release(s, held.grant);
    assert!(matches!(unknown[0], Effect::Answered { answer: Answer::Refused(Refusal::NotHeld), .. }));
}

#[test]
fn answers_are_kept_until_they_are_acknowledged() {
    let mut story = Story::new();
    let s = story.open();
    let held = story.hold(s, Mode::EX);
    story.attempt(s, Mode::EX);
    story.release(s, held.grant);
    let kept: Vec<RequestId> = story.table.unacknowledged(s).map(|(request, _)| request).collect();
    assert_eq!(kept, [RequestId(1), RequestId(3)], "the refusal changed nothing");
    story.apply(Command::Acknowledge { session: s, received: 3 });
    assert_eq!(story.table.unacknowledged(s).count(), 2, "more than was sent is not believed");
    story.apply(Command::Resume { session: s, received: 1 });
    assert_eq!(story.table.unacknowledged(s).next().unwrap().0, RequestId(3));
    story.apply(Command::Acknowledge { session: s, received: 0 });
    assert_eq!(story.table.session_view(s).unwrap().acknowledged, 1, "never back");
}

#[test]
fn a_client_that_acknowledges_nothing_is_refused_in_the_end() {
    let mut story = Story::with(Limits { unacknowledged: 2, ..Limits::default() });
    let s = story.open();
    let held = story.hold(s, Mode::EX);
    story.release(s, held.grant);
    assert_eq!(story.attempt(s, Mode::EX), refused(Refusal::Busy));
    story.apply(Command::Acknowledge { session: s, received: 1 });
    assert!(matches!(story.attempt(s, Mode::EX), Answer::Granted(_)));
}

#[test]
fn an_ended_session_is_unknown() {
    let mut story = Story::new();
    let s = story.open();
    story.hold(s, Mode::EX);
    story.end(s, Ended::Closed);
    assert_eq!(story.attempt(s, Mode::EX), refused(Refusal::SessionUnknown));
    assert!(!story.table.renew(s, story.now) && story.end(s, Ended::Closed).is_empty());
    let next = story.open();
    assert_eq!(next.slot, s.slot, "the slot is used again");
    assert_eq!(story.attempt(s, Mode::EX), refused(Refusal::SessionUnknown));
}

#[test]
fn the_same_commands_give_the_same_table() {
    let run = |key: u64, late: u64| {
        let mut story = Story::new();
        story.table.key = crate::index::IndexKey::new(key);
        story.now = Tick::from_millis(late);
        let (a, b) = (story.open(), story.open());
        let held = story.hold(a, Mode::EX);
        story.queue(b, Mode::PR);
        story.now = story.now.after_millis(late);
        story.release(a, held.grant);
        (story.table.digest(), story)
    };
    let (first, mut story) = run(1, 10);
    assert_eq!(first, run(2, 2000).0, "moments and index positions are no part of it");
    let s = story.open();
    assert_ne!(first, story.table.digest());
    story.end(s, Ended::Closed);
    assert_ne!(first, story.table.digest(), "generations went on");
}

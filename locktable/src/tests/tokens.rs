//! Fencing tokens, fences, and the news of a holder's death.

use super::*;

#[test]
fn tokens_rise_through_release_and_re_creation() {
    let mut story = Story::new();
    let s = story.open();
    let mut last = None;
    for _ in 0..5 {
        let held = story.hold(s, Mode::EX);
        assert!(held.token > last);
        last = held.token;
        story.release(s, held.grant);
        assert_eq!(story.table.counts().locks, 0, "a free lock costs nothing");
    }
    assert_eq!(story.table.counts().tokens_issued, 5);
}

#[test]
fn readers_of_one_run_share_their_fence() {
    let mut story = Story::new();
    let s = story.open();
    let first = story.hold(s, Mode::PR);
    let second = story.hold(s, Mode::PR);
    assert_eq!((first.fence, second.fence), (first.token.unwrap().get() - 1, first.fence));
    story.release(s, first.grant);
    let third = story.hold(s, Mode::PR);
    assert_eq!(third.fence, first.fence, "the run was not broken");
    story.release(s, second.grant);
    story.release(s, third.grant);
    let fourth = story.hold(s, Mode::PR);
    assert_eq!(fourth.fence, fourth.token.unwrap().get() - 1, "a new run");
}

#[test]
fn a_down_conversion_to_protected_read_starts_the_run_with_its_own_token() {
    let mut story = Story::new();
    let s = story.open();
    let writer = story.hold(s, Mode::EX);
    let reader = story.converted(s, writer.grant, Mode::PR);
    assert_eq!((reader.token, reader.fence), (writer.token, writer.fence));
    assert_eq!(story.hold(s, Mode::PR).fence, writer.fence);
}

#[test]
fn only_readers_and_writers_that_protect_are_fenced() {
    let mut story = Story::new();
    let s = story.open();
    for mode in [Mode::CR, Mode::CW] {
        let held = story.hold(s, mode);
        assert!(held.token.is_some() && held.fence == 0, "{mode}");
        story.release(s, held.grant);
    }
    for mode in [Mode::PR, Mode::PW, Mode::EX] {
        let held = story.hold(s, mode);
        assert_eq!(held.fence, held.token.unwrap().get() - 1, "{mode}");
        story.release(s, held.grant);
    }
    assert_eq!(story.hold(s, Mode::NL).token, None);
}

#[test]
fn a_token_is_current_while_its_grant_lives() {
    let mut story = Story::new();
    let s = story.open();
    let asking = story.asking(s, Mode::EX, Wait::Try);
    let held = granted(&story.ask(asking), asking.request);
    let token = held.token.unwrap();
    assert!(story.table.is_current(asking.digest, token));
    story.converted(s, held.grant, Mode::CR);
    assert!(story.table.is_current(asking.digest, token), "one tenure");
    story.converted(s, held.grant, Mode::EX);
    assert!(!story.table.is_current(asking.digest, token), "another tenure");
    story.release(s, held.grant);
    assert!(!story.table.is_current(asking.digest, token));
}

#[test]
fn a_used_up_counter_refuses_until_the_next_epoch() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::EX);
    let waiting = story.queue(b, Mode::EX);
    assert!(!story.table.counts().tokens_half_used);
    story.table.seq = fairlock_protocol::ids::TOKEN_SEQ_END;
    assert!(story.table.counts().tokens_half_used);
    assert_eq!(grants(&story.release(a, held.grant)), []);
    let other =
        Acquire { resource: Resource::new(b"", b"other").unwrap(), ..story.asking(a, Mode::EX, Wait::Try) };
    let other = named(other);
    assert_eq!(answer_to(&story.ask(other), other.request), Some(refused(Refusal::Internal)));
    let effects = story.apply(Command::Epoch(Epoch::new(8).unwrap()));
    assert_eq!(grants(&effects), [waiting]);
    assert_eq!(granted(&effects, waiting).token.unwrap().epoch_number(), 8);
}

#[test]
fn the_next_holder_hears_that_a_writer_died() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::EX);
    let waiting = story.queue(b, Mode::PR);
    let effects = story.end(a, Ended::Died);
    assert!(granted(&effects, waiting).previous_owner_died);
    assert!(!story.hold(b, Mode::PR).previous_owner_died, "told once");
}

#[test]
fn a_death_is_remembered_after_the_lock_is_free() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::PW);
    story.end(a, Ended::Expired);
    assert_eq!(story.table.counts().locks, 0);
    let null = story.hold(b, Mode::NL);
    assert!(!null.previous_owner_died, "NL protects nothing and is not told");
    story.release(b, null.grant);
    assert!(story.hold(b, Mode::CR).previous_owner_died);
}

#[test]
fn a_reader_that_dies_and_a_writer_that_closes_leave_no_news() {
    let mut story = Story::new();
    let (a, b, c) = (story.open(), story.open(), story.open());
    story.hold(a, Mode::PR);
    story.end(a, Ended::Died);
    story.hold(b, Mode::EX);
    story.end(b, Ended::Closed);
    assert!(!story.hold(c, Mode::EX).previous_owner_died);
}

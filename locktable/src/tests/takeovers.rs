//! What a new primary does with the leases it inherits.

use super::*;
use crate::command::Item;
use fairlock_protocol::Epoch;

const TTL_MS: u64 = 5000;

impl Story {
    fn take_over(&mut self) -> Vec<Effect> {
        let epoch = self.table.epoch().next().unwrap();
        self.apply(Command::TakeOver(epoch))
    }

    fn left_ms(&self, session: SessionKey) -> Option<u128> {
        let view = self.table.session_view(session).expect("it is there");
        Some(view.expires_in(self.now)?.as_millis())
    }

    fn lives(&self, session: SessionKey) -> bool {
        self.table.session_view(session).is_some()
    }

    fn resume(&mut self, session: SessionKey) {
        self.apply(Command::Resume { session, received: 0 });
    }

    fn leased(&mut self) -> SessionKey {
        let open = self.opening();
        self.open_as(open)
    }
}

#[test]
fn tokens_and_sessions_belong_to_the_new_epoch() {
    let mut story = Story::new();
    let s = story.open();
    let before = story.hold(s, Mode::PR).token.unwrap();
    story.take_over();
    let after = story.hold(s, Mode::PR).token.unwrap();
    assert!(after > before);
    assert_eq!(after.epoch_number(), Epoch::new(8).unwrap().get());
}

#[test]
fn an_inherited_lease_is_a_full_one_from_the_take_over_on() {
    let mut story = Story::new();
    let s = story.leased();
    story.pass(4000);
    story.take_over();
    assert_eq!(story.left_ms(s), Some(5000));
    story.pass(TTL_MS - 1);
    assert!(story.lives(s));
    story.pass(1);
    assert!(!story.lives(s));
}

#[test]
fn a_dead_client_is_kept_for_one_lease_however_often_the_primary_changes() {
    let mut story = Story::new();
    let s = story.leased();
    story.take_over();
    for _ in 0..4 {
        story.pass(1000);
        story.take_over();
    }
    assert_eq!(story.left_ms(s), Some(1000));
    story.pass(1000);
    assert!(!story.lives(s));
}

#[test]
fn who_resumes_gets_another_full_lease_at_the_next_take_over() {
    let mut story = Story::new();
    let s = story.leased();
    story.take_over();
    story.pass(4000);
    story.resume(s);
    assert_eq!(story.left_ms(s), Some(1000), "taking a session up is no renewal by itself");
    story.take_over();
    assert_eq!(story.left_ms(s), Some(5000));
}

#[test]
fn nobody_is_renewed_before_the_client_was_heard_of_in_this_reign() {
    let mut story = Story::new();
    let s = story.leased();
    assert!(story.table.renew(s, story.now));
    story.take_over();
    story.pass(1000);
    assert!(!story.table.renew(s, story.now));
    assert_eq!(story.left_ms(s), Some(4000));
    story.resume(s);
    assert!(story.table.renew(s, story.now));
    assert_eq!(story.left_ms(s), Some(5000));
}

#[test]
fn a_watched_process_is_watched_no_more() {
    let mut story = Story::new();
    let s = story.open();
    assert_eq!(story.left_ms(s), None);
    story.take_over();
    assert_eq!(story.left_ms(s), Some(5000));
    story.pass(TTL_MS);
    assert!(!story.lives(s));
}

#[test]
fn a_session_that_is_not_at_home_here_is_left_to_its_home() {
    let mut story = Story::new();
    let open = story.opening();
    let s = story.open_as(Open { visiting: true, lease: Lease::Watched, ..open });
    story.take_over();
    assert_eq!(story.left_ms(s), None);
    assert!(story.table.renew(s, story.now), "a shard that is not its home decides nothing");
    story.pass(100_000);
    assert!(story.lives(s));
}

#[test]
fn what_a_renewal_moved_is_forgotten_by_the_next_primary_and_the_old_one_alike() {
    let (mut primary, mut backup) = (Story::new(), Story::new());
    let s = primary.leased();
    let same = backup.leased();
    assert_eq!(s, same);
    for story in [&mut primary, &mut backup] {
        story.now = story.now.after_millis(3000);
    }
    assert!(primary.table.renew(s, primary.now));
    assert_ne!(primary.left_ms(s), backup.left_ms(s));
    assert_eq!(primary.table.digest(), backup.table.digest(), "a digest knows of no renewal");
    for story in [&mut primary, &mut backup] {
        story.now = story.now.after_millis(1000);
        story.take_over();
        assert_eq!(story.left_ms(s), Some(5000));
    }
    assert_eq!(primary.table.digest(), backup.table.digest());
}

#[test]
fn time_that_the_new_primary_counts_anew_makes_no_lease_and_no_wait_shorter() {
    let mut story = Story::new();
    let (s, t) = (story.leased(), story.open());
    story.hold(s, Mode::EX);
    let asking = story.asking(t, Mode::EX, Wait::Millis(2000));
    story.ask(asking);
    let last_command = story.now;
    story.now = story.now.after_millis(4000);
    assert!(story.table.renew(s, story.now));
    // The old primary looked at its clock, and the log heard nothing of it.
    assert!(story.table.due(story.now).is_some());
    story.now = last_command;
    story.take_over();
    assert_eq!(story.left_ms(s), Some(5000));
    assert_eq!(story.pass(1999), []);
    assert_eq!(answer_to(&story.pass(1), asking.request), Some(refused(Refusal::Timeout)));
    assert_eq!(story.pass(2999), []);
    assert_eq!(story.pass(1).len(), 2, "both leases are over");
}

#[test]
fn a_doomed_session_keeps_a_lease_from_its_doom_and_gets_no_other() {
    let (mut primary, mut backup) = (Story::new(), Story::new());
    let s = primary.leased();
    backup.leased();
    primary.now = primary.now.after_millis(4000);
    backup.now = primary.now;
    primary.table.renew(s, primary.now);
    for story in [&mut primary, &mut backup] {
        story.now = story.now.after_millis(500);
        story.apply(Command::Doom { session: s });
        story.now = story.now.after_millis(1000);
        // Its client is alive and comes back; that changes nothing.
        story.resume(s);
        story.take_over();
        assert_eq!(story.left_ms(s), Some(4000), "no renewal was confirmed after its doom");
        story.resume(s);
        story.take_over();
        assert_eq!(story.left_ms(s), Some(4000));
    }
    assert_eq!(primary.table.digest(), backup.table.digest());
}

#[test]
fn a_session_doomed_after_it_was_inherited_is_not_kept_longer_for_it() {
    let mut story = Story::new();
    let s = story.leased();
    story.take_over();
    story.pass(3000);
    story.apply(Command::Doom { session: s });
    story.take_over();
    assert_eq!(story.left_ms(s), Some(2000));
}

#[test]
fn a_watched_session_that_was_doomed_keeps_the_lease_it_got_then() {
    let mut story = Story::new();
    let s = story.open();
    story.apply(Command::Doom { session: s });
    story.pass(1000);
    story.take_over();
    assert_eq!(story.left_ms(s), Some(4000));
}

#[test]
fn a_longest_hold_begins_anew() {
    let mut story = Story::new();
    let s = story.open();
    let asking = story.asking(s, Mode::EX, Wait::Forever);
    let effects = story.ask(Acquire { max_hold_ms: 2000, ..asking });
    let held = granted(&effects, asking.request);
    story.pass(1500);
    story.take_over();
    assert_eq!(notices(&story.pass(1999)), []);
    assert_eq!(notices(&story.pass(1)), [(s, Notice::HoldOver { grant: held.grant })]);
}

#[test]
fn the_time_to_confirm_begins_anew() {
    let mut story = Story::new();
    let (s, t) = (story.open(), story.open());
    let held = story.hold(s, Mode::EX);
    story.apply(Command::Break { digest: story.table.digest_of(held.grant).unwrap(), force: false });
    story.apply(Command::Kill { session: t, force: false });
    story.pass(900);
    story.take_over();
    let renewable = |story: &Story| [s, t].map(|s| story.table.session_view(s).unwrap().renewable);
    story.pass(999);
    assert_eq!(renewable(&story), [true, true]);
    story.pass(1);
    assert_eq!(renewable(&story), [false, false]);
}

#[test]
fn queues_and_requests_for_several_locks_stay_as_they_are() {
    let mut story = Story::new();
    let (s, t) = (story.open(), story.open());
    let held = story.hold(s, Mode::EX);
    let waits = story.queue(t, Mode::EX);
    let asking = story.asking(t, Mode::EX, Wait::Forever);
    let items = [Item { digest: asking.digest, resource: asking.resource, mode: Mode::EX }];
    let request = story.request();
    let all = crate::command::AcquireAll {
        session: t,
        request,
        items: &items,
        wait: Wait::Forever,
        owner: OwnerId(1),
        label: b"",
    };
    story.apply(Command::AcquireAll(all));
    assert_eq!(story.take_over(), []);
    assert_eq!(grants(&story.release(s, held.grant)), [waits]);
}

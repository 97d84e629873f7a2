//! What ends: leases, waits, holds, delays, broken grants and killed sessions.

use super::*;

fn over(effects: &[Effect]) -> Vec<(SessionKey, Ended)> {
    let over = |effect: &Effect| match *effect {
        Effect::Over { session, why, .. } => Some((session, why)),
        _ => None,
    };
    effects.iter().filter_map(over).collect()
}

fn heartbeat(story: &mut Story) -> SessionKey {
    let open = story.opening();
    story.open_as(open)
}

#[test]
fn a_silent_session_expires_and_its_locks_pass_on() {
    let mut story = Story::new();
    let (a, b) = (heartbeat(&mut story), story.open());
    story.hold(a, Mode::EX);
    let waiting = story.queue(b, Mode::EX);
    assert!(story.pass(4999).is_empty());
    let effects = story.pass(1);
    assert_eq!(over(&effects), [(a, Ended::Expired)]);
    assert_eq!(grants(&effects), [waiting]);
    assert_eq!(granted(&effects, waiting).waited_us, 5_000_000);
    assert_eq!(story.table.counts().expiries_total, 1);
}

#[test]
fn a_renewed_lease_starts_anew_without_touching_the_wheel() {
    let mut story = Story::new();
    let s = heartbeat(&mut story);
    for _ in 0..10 {
        assert!(story.pass(4000).is_empty());
        assert!(story.table.renew(s, story.now));
        story.table.audit();
    }
    assert!(story.pass(4999).is_empty());
    assert_eq!(over(&story.pass(1)).len(), 1);
    assert_eq!(story.table.next_due(), None);
}

#[test]
fn a_watched_or_visiting_session_does_not_end_by_silence() {
    let mut story = Story::new();
    let watched = story.open();
    let open = story.opening();
    let visiting = story.open_as(Open { visiting: true, ..open });
    assert!(story.pass(1_000_000).is_empty());
    assert!(story.table.session_view(watched).is_some() && story.table.session_view(visiting).is_some());
}

#[test]
fn a_wait_ends_in_its_time_and_the_next_goes_in() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    story.hold(a, Mode::PR);
    let asking = story.asking(b, Mode::EX, Wait::Millis(20));
    story.ask(asking);
    let reader = story.queue(b, Mode::PR);
    assert!(story.pass(19).is_empty());
    let effects = story.pass(1);
    assert_eq!(answer_to(&effects, asking.request), Some(refused(Refusal::Timeout)));
    assert_eq!(grants(&effects), [reader]);
    assert_eq!(story.table.counts().timeouts_total, 1);
}

#[test]
fn a_conversion_that_times_out_keeps_the_old_mode() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PR);
    story.hold(b, Mode::PR);
    let (request, wait) = (story.request(), Wait::Millis(5));
    story.apply(Command::Convert { session: a, request, grant: held.grant, mode: Mode::EX, wait });
    let effects = story.pass(5);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::Timeout)));
    assert_eq!(story.converted(a, held.grant, Mode::PR).token, held.token);
}

#[test]
fn a_longest_hold_ends_the_grant_and_tells_the_holder() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let asking = Acquire { max_hold_ms: 100, ..story.asking(a, Mode::EX, Wait::Forever) };
    let held = granted(&story.ask(asking), asking.request);
    let waiting = story.queue(b, Mode::EX);
    assert!(story.pass(99).is_empty());
    let effects = story.pass(1);
    assert_eq!(notices(&effects), [(a, Notice::HoldOver { grant: held.grant })]);
    assert_eq!(grants(&effects), [waiting]);
}

#[test]
fn after_an_expiry_a_delay_keeps_others_out() {
    let mut story = Story::new();
    let (a, b) = (heartbeat(&mut story), story.open());
    let asking = Acquire { lock_delay_ms: 1000, ..story.asking(a, Mode::EX, Wait::Forever) };
    story.ask(asking);
    let waiting = story.queue(b, Mode::PR);
    assert_eq!(grants(&story.pass(5000)), []);
    assert_eq!(story.attempt(b, Mode::CR), refused(Refusal::WouldBlock));
    assert!(story.pass(999).is_empty());
    assert_eq!(grants(&story.pass(1)), [waiting]);
}

#[test]
fn a_delay_after_a_release_or_a_close_there_is_none() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let asking = Acquire { lock_delay_ms: 1000, ..story.asking(a, Mode::EX, Wait::Forever) };
    story.ask(asking);
    story.end(a, Ended::Closed);
    story.hold(b, Mode::EX);
}

#[test]
fn a_closed_lock_outlives_its_holders_and_opens_by_itself() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let asking = Acquire { lock_delay_ms: 50, ..story.asking(a, Mode::EX, Wait::Forever) };
    story.ask(asking);
    story.end(a, Ended::Died);
    assert_eq!(story.table.counts().locks, 1);
    assert_eq!(story.attempt(b, Mode::EX), refused(Refusal::WouldBlock));
    story.pass(50);
    assert_eq!(story.table.counts().locks, 0);
    assert!(story.hold(b, Mode::EX).previous_owner_died);
}

#[test]
fn a_delay_does_not_keep_out_the_successor_of_the_dead() {
    let mut story = Story::new();
    let named = Open { identity: b"db-1", reclaim_key: b"secret", lease: Lease::Watched, ..story.opening() };
    let a = story.open_as(named);
    let asking = Acquire { lock_delay_ms: 1000, ..story.asking(a, Mode::EX, Wait::Forever) };
    story.ask(asking);
    story.end(a, Ended::Died);
    let successor = Open { id: story.opening().id, ..named };
    let b = story.open_as(successor);
    assert!(story.hold(b, Mode::EX).previous_owner_died);
}

#[test]
fn a_successor_stops_the_renewals_of_the_session_it_replaces() {
    let mut story = Story::new();
    let named = Open { identity: b"db-1", reclaim_key: b"secret", ..story.opening() };
    let a = story.open_as(named);
    story.hold(a, Mode::EX);
    let id = story.opening().id;
    let b = story.open_as(Open { id, ..named });
    assert!(!story.table.renew(a, story.now) && story.table.session_view(a).unwrap().replaced);
    let waiting = story.queue(b, Mode::EX);
    story.now = story.now.after_millis(100);
    assert!(story.table.renew(b, story.now));
    let effects = story.pass(4900);
    assert_eq!((over(&effects), grants(&effects)), ([(a, Ended::Expired)].into(), [waiting].into()));
}

#[test]
fn a_predecessor_that_cannot_run_any_more_ends_at_once() {
    let mut story = Story::new();
    let named = Open { identity: b"db-1", reclaim_key: b"secret", ..story.opening() };
    let a = story.open_as(named);
    story.hold(a, Mode::EX);
    let id = story.opening().id;
    let effects = story.apply(Command::Open(Open { id, predecessor_gone: true, ..named }));
    assert_eq!(over(&effects), [(a, Ended::Replaced)]);
    assert!(matches!(effects.last(), Some(Effect::Opened { .. })));
}

#[test]
fn a_long_line_of_successors_is_not_walked_by_each() {
    let mut story = Story::new();
    let (named, keyless) = (Open { identity: b"db-1", reclaim_key: b"secret", ..story.opening() }, b"db-2");
    let mut effects = Effects::new();
    // So many that a walk by each would be noticed; nothing is audited in between for the same reason.
    for _ in 0..20_000 {
        let id = story.opening().id;
        story.table.apply(story.now, Command::Open(Open { id, ..named }), &mut effects);
        let (id, identity) = (story.opening().id, keyless);
        story.table.apply(
            story.now,
            Command::Open(Open { id, identity, reclaim_key: b"", ..named }),
            &mut effects,
        );
        effects.clear();
    }
    let (mut renewable, mut replaced) = (0, 0);
    story.table.sessions(0, |view| {
        renewable += u32::from(view.renewable && view.identity == b"db-1");
        replaced += u32::from(view.replaced);
        core::ops::ControlFlow::Continue(())
    });
    assert_eq!((renewable, replaced), (1, 19_999), "the newest goes on, and only who has a key is replaced");
    let guess = Open { id: story.opening().id, reclaim_key: b"guess", ..named };
    story.table.apply(story.now, Command::Open(guess), &mut effects);
    assert_eq!(effects[..], [Effect::NotOpened { id: guess.id, refusal: Refusal::Denied }]);
    effects.clear();
    let last = Open { id: story.opening().id, predecessor_gone: true, ..named };
    story.table.apply(story.now, Command::Open(last), &mut effects);
    assert_eq!(over(&effects).len(), 20_000, "all of them end before the last begins");
}

#[test]
fn a_visitor_with_another_key_is_not_overlooked_behind_a_twin() {
    let mut story = Story::new();
    let named = Open { identity: b"db-1", reclaim_key: b"secret", ..story.opening() };
    let first = story.open_as(named);
    let id = story.opening().id;
    let rival = story.open_as(Open { id, reclaim_key: b"other", visiting: true, ..named });
    let id = story.opening().id;
    let visitor = story.open_as(Open { id, visiting: true, ..named });
    let renewed = [first, rival, visitor].map(|session| story.table.session_view(session).unwrap().renewable);
    assert_eq!(renewed, [false, true, true], "a session replaces those of its key, wherever they stand");
    let id = story.opening().id;
    let open = Open { id, ..named };
    let denied = Effect::NotOpened { id, refusal: Refusal::Denied };
    assert_eq!(story.apply(Command::Open(open)), [denied]);
    story.end(rival, Ended::Closed);
    story.open_as(open);
    let renewed = [first, visitor].map(|session| story.table.session_view(session).unwrap().renewable);
    assert_eq!(renewed, [false, false]);
}

#[test]
fn an_identity_is_not_taken_without_its_key() {
    let mut story = Story::new();
    let named = Open { identity: b"db-1", reclaim_key: b"secret", ..story.opening() };
    let a = story.open_as(named);
    let id = story.opening().id;
    let effects = story.apply(Command::Open(Open { id, reclaim_key: b"guess", ..named }));
    assert_eq!(effects, [Effect::NotOpened { id, refusal: Refusal::Denied }]);
    assert!(story.table.renew(a, story.now));
    assert_eq!(story.table.session(id), None);
}

#[test]
fn there_are_only_so_many_sessions() {
    let mut story = Story::with(Limits { sessions: 1, ..Limits::default() });
    story.open();
    let open = story.opening();
    let refused = Effect::NotOpened { id: open.id, refusal: Refusal::Quota };
    assert_eq!(story.apply(Command::Open(open)), [refused]);
}

#[test]
fn a_session_told_twice_is_opened_once() {
    let mut story = Story::new();
    let open = story.opening();
    let key = story.open_as(open);
    assert_eq!(story.open_as(open), key);
    assert_eq!(story.table.counts().sessions, 1);
}

/// A guard made from a second entry would have outlived the grant, whose end its client may confirm at any moment.
#[test]
fn a_broken_grant_is_not_entered_again() {
    let mut story = Story::new();
    let a = story.open();
    let entering = |story: &mut Story| {
        let asking = story.asking(a, Mode::EX, Wait::Try);
        let asking = Acquire { reentrant: true, ..asking };
        answer_to(&story.ask(asking), asking.request).unwrap()
    };
    assert!(matches!(entering(&mut story), Answer::Granted(granted) if !granted.reentered));
    assert!(matches!(entering(&mut story), Answer::Granted(granted) if granted.reentered));
    let digest = story.asking(a, Mode::EX, Wait::Try).digest;
    story.apply(Command::Break { digest, force: false });
    assert_eq!(entering(&mut story), Answer::Refused(Refusal::AlreadyHeld));
}

#[test]
fn a_broken_lock_passes_on_the_word_of_its_holder() {
    let mut story = Story::new();
    let (a, b) = (heartbeat(&mut story), story.open());
    let asking = story.asking(a, Mode::EX, Wait::Forever);
    let held = granted(&story.ask(asking), asking.request);
    let waiting = story.queue(b, Mode::EX);
    let effects = story.apply(Command::Break { digest: asking.digest, force: false });
    assert_eq!(notices(&effects), [(a, Notice::Broken { grant: held.grant, forced: false })]);
    assert_eq!(effects.last(), Some(&Effect::Broke { holders: 1 }));
    let effects = story.apply(Command::Confirm { session: a, grant: held.grant });
    assert_eq!(grants(&effects), [waiting]);
    story.table.renew(a, story.now);
    assert!(story.pass(4000).is_empty());
    assert!(story.table.renew(a, story.now), "who confirmed is not doomed");
}

#[test]
fn broken_grants_are_known_until_they_are_confirmed_or_over() {
    let mut story = Story::new();
    let a = story.open();
    let held = story.hold(a, Mode::PR);
    let other = named(Acquire {
        resource: Resource::new(b"x", b"other").unwrap(),
        ..story.asking(a, Mode::EX, Wait::Forever)
    });
    story.ask(other);
    let second = story.hold(a, Mode::PR);
    let broken = |story: &Story| story.table.broken_grants(a).collect::<Vec<_>>();
    assert!(broken(&story).is_empty());
    let digest = story.asking(a, Mode::PR, Wait::Try).digest;
    story.apply(Command::Break { digest, force: false });
    story.apply(Command::Break { digest, force: false });
    assert_eq!(broken(&story), [held.grant, second.grant]);
    story.apply(Command::Confirm { session: a, grant: held.grant });
    assert_eq!(broken(&story), [second.grant]);
    story.release(a, second.grant);
    assert!(broken(&story).is_empty());
    story.end(a, Ended::Closed);
    assert!(broken(&story).is_empty());
}

#[test]
fn who_does_not_confirm_is_renewed_no_more() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let asking = story.asking(a, Mode::EX, Wait::Forever);
    story.ask(asking);
    let waiting = story.queue(b, Mode::EX);
    story.apply(Command::Break { digest: asking.digest, force: false });
    assert!(story.pass(999).is_empty() && story.table.renew(a, story.now));
    let id = story.table.session_view(a).unwrap().id;
    assert_eq!(story.pass(1), [Effect::Doomed { session: a, id }]);
    assert!(!story.table.renew(a, story.now));
    assert!(story.pass(4999).is_empty());
    let effects = story.pass(1);
    assert_eq!((over(&effects), grants(&effects)), ([(a, Ended::Expired)].into(), [waiting].into()));
}

#[test]
fn a_forced_break_lets_the_next_one_in_at_once() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let first = story.hold(a, Mode::PR);
    story.hold(a, Mode::PR);
    let (conversion, _) = story.convert(a, first.grant, Mode::EX);
    let waiting = story.queue(b, Mode::EX);
    let digest = story.asking(b, Mode::EX, Wait::Try).digest;
    let effects = story.apply(Command::Break { digest, force: true });
    assert!(effects.contains(&Effect::Broke { holders: 2 }));
    assert_eq!(answer_to(&effects, conversion), Some(refused(Refusal::Cancelled)));
    assert_eq!(grants(&effects), [waiting]);
    assert_eq!(
        story.apply(Command::Break { digest: Digest([9, 9]), force: true }),
        [Effect::Broke { holders: 0 }]
    );
}

#[test]
fn a_killed_session_is_told_and_then_doomed() {
    let mut story = Story::new();
    let a = heartbeat(&mut story);
    story.hold(a, Mode::EX);
    let effects = story.apply(Command::Kill { session: a, force: false });
    assert_eq!(notices(&effects), [(a, Notice::Killed)]);
    assert_eq!(story.pass(1000).len(), 1);
    assert!(!story.table.renew(a, story.now));
    assert_eq!(over(&story.pass(4000)), [(a, Ended::Expired)]);
    let b = story.open();
    assert_eq!(over(&story.apply(Command::Kill { session: b, force: true })), [(b, Ended::Killed)]);
}

#[test]
fn a_session_ends_as_a_whole_before_anybody_is_granted() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PR);
    story.hold(b, Mode::PR);
    story.convert(a, held.grant, Mode::EX);
    let other = named(Acquire {
        resource: Resource::new(b"x", b"other").unwrap(),
        label: b"second",
        ..story.asking(a, Mode::EX, Wait::Forever)
    });
    story.ask(other);
    let behind = Acquire { session: b, request: story.request(), ..other };
    story.ask(behind);
    let after = story.queue(b, Mode::PR);
    let effects = story.end(a, Ended::Died);
    assert!(matches!(effects[0], Effect::Over { .. }), "first it is over");
    assert_eq!(grants(&effects), [after, behind.request], "in the order the locks were freed");
    assert_eq!(effects.len(), 3, "requests of the ended session get no answer");
}

//! Several locks in one request: all or none, invisible until complete, and never two that wait for each other.

use super::*;
use crate::command::{AcquireAll, Item};
use crate::views::{EntryView, Role};
use std::format;
use std::string::String;
use std::vec;

fn digest(name: &str) -> Digest {
    fairlock_protocol::DigestKey([1, 2]).digest(Resource::new(b"", name.as_bytes()).unwrap())
}

fn items<'a>(asked: &[(&'a str, Mode)]) -> Vec<Item<'a>> {
    let item = |&(name, mode): &(&'a str, Mode)| {
        let resource = Resource::new(b"", name.as_bytes()).unwrap();
        Item { digest: digest(name), resource, mode }
    };
    asked.iter().map(item).collect()
}

impl Story {
    fn all(&mut self, session: SessionKey, asked: &[(&str, Mode)], wait: Wait) -> (RequestId, Vec<Effect>) {
        let request = self.request();
        (request, self.all_as(session, request, asked, wait))
    }

    fn all_as(
        &mut self,
        session: SessionKey,
        request: RequestId,
        asked: &[(&str, Mode)],
        wait: Wait,
    ) -> Vec<Effect> {
        let items = items(asked);
        let ask = AcquireAll { session, request, items: &items, wait, owner: OwnerId(0), label: b"both" };
        self.apply(Command::AcquireAll(ask))
    }

    fn one(&mut self, session: SessionKey, name: &str, mode: Mode, wait: Wait) -> (RequestId, Vec<Effect>) {
        let asking = self.asking(session, mode, wait);
        let asking = named(Acquire { resource: Resource::new(b"", name.as_bytes()).unwrap(), ..asking });
        (asking.request, self.ask(asking))
    }

    fn held(&mut self, session: SessionKey, name: &str, mode: Mode) -> Granted {
        let (request, effects) = self.one(session, name, mode, Wait::Forever);
        granted(&effects, request)
    }

    fn cancel(&mut self, session: SessionKey, target: RequestId) -> Vec<Effect> {
        let request = self.request();
        self.apply(Command::Cancel { session, request, target })
    }

    /// Whether somebody holds a lock, and whether as part of what is not complete.
    fn holders(&self, name: &str) -> Vec<bool> {
        let mut partial = vec![];
        self.table.show(digest(name), 0, |entry: EntryView<'_>| {
            if entry.role == Role::Holder {
                partial.push(entry.partial);
            }
            core::ops::ControlFlow::Continue(())
        });
        partial
    }
}

/// All grants that answer one request, in order.
fn all_granted(effects: &[Effect], wanted: RequestId) -> Vec<Granted> {
    let granted = |effect: &Effect| match *effect {
        Effect::Answered { request, answer: Answer::Granted(granted), kept: true, .. }
            if request == wanted =>
        {
            Some(granted)
        }
        _ => None,
    };
    effects.iter().filter_map(granted).collect()
}

const AB: [(&str, Mode); 2] = [("a", Mode::EX), ("b", Mode::EX)];

#[test]
fn what_is_free_is_granted_at_once_one_answer_a_lock_in_the_order_asked() {
    let mut story = Story::new();
    let s = story.open();
    let (request, effects) = story.all(s, &[("a", Mode::EX), ("b", Mode::PR), ("c", Mode::NL)], Wait::Try);
    let granted = all_granted(&effects, request);
    assert_eq!(granted.iter().map(|g| g.mode).collect::<Vec<_>>(), [Mode::EX, Mode::PR, Mode::NL]);
    assert!(granted[0].token < granted[1].token && granted[2].token.is_none());
    assert_eq!(effects.len(), 3);
    assert_eq!((story.holders("a"), story.holders("c")), (vec![false], vec![false]));
    for grant in granted {
        story.release(s, grant.grant);
    }
    assert_eq!(story.table.counts().locks, 0);
}

#[test]
fn what_is_held_on_the_way_shows_as_a_holder_and_is_told_only_with_the_rest() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let b = story.held(other, "b", Mode::EX);
    let (request, effects) =
        story.all(s, &[("a", Mode::EX), ("b", Mode::EX), ("c", Mode::EX)], Wait::Forever);
    assert_eq!(effects, [], "nobody is told of a part");
    assert_eq!(
        (story.holders("a"), story.holders("b"), story.holders("c")),
        (vec![true], vec![false], vec![])
    );
    let (waits, effects) = story.one(other, "a", Mode::PR, Wait::Try);
    assert_eq!(answer_to(&effects, waits), Some(refused(Refusal::WouldBlock)));
    story.now = story.now.after_millis(30);
    let effects = story.release(other, b.grant);
    let granted = all_granted(&effects, request);
    assert_eq!(granted.iter().map(|g| g.waited_us).collect::<Vec<_>>(), [30_000; 3]);
    assert_eq!(story.holders("a"), [false]);
    let again = story.all_as(s, request, &[("a", Mode::EX), ("b", Mode::EX), ("c", Mode::EX)], Wait::Forever);
    assert_eq!(again.len(), 3, "told again, as often as it has locks");
    assert!(again.iter().all(|effect| matches!(effect, Effect::Answered { kept: false, .. })));
}

#[test]
fn a_try_takes_everything_or_nothing() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    story.held(other, "b", Mode::PR);
    let (request, effects) = story.all(s, &AB, Wait::Try);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::WouldBlock)));
    assert_eq!(story.holders("a"), []);
    let (request, effects) = story.all(s, &[("a", Mode::EX), ("b", Mode::PR)], Wait::Try);
    assert_eq!(all_granted(&effects, request).len(), 2);
}

#[test]
fn a_wait_that_ends_gives_everything_back_and_lets_others_in_in_the_same_command() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    story.held(other, "c", Mode::EX);
    let abc = [("a", Mode::EX), ("b", Mode::PR), ("c", Mode::EX)];
    let (timed, _) = story.all(s, &abc, Wait::Millis(100));
    let (first, _) = story.one(other, "a", Mode::EX, Wait::Forever);
    let (second, _) = story.one(other, "b", Mode::EX, Wait::Forever);
    assert_eq!(story.pass(99), []);
    let effects = story.pass(1);
    assert_eq!(answer_to(&effects, timed), Some(refused(Refusal::Timeout)));
    assert_eq!(grants(&effects), [first, second]);
}

#[test]
fn the_wait_limit_covers_all_locks_together() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let a = story.held(other, "a", Mode::EX);
    story.held(other, "b", Mode::EX);
    let (timed, _) = story.all(s, &AB, Wait::Millis(100));
    story.pass(60);
    story.release(other, a.grant);
    assert_eq!(story.pass(39), []);
    assert_eq!(answer_to(&story.pass(1), timed), Some(refused(Refusal::Timeout)));
    assert_eq!(story.holders("a"), []);
}

#[test]
fn a_limit_that_passed_before_the_next_wait_began_ends_it_all_the_same() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let a = story.held(other, "a", Mode::EX);
    story.held(other, "b", Mode::EX);
    let (timed, _) = story.all(s, &AB, Wait::Millis(100));
    story.now = story.now.after_millis(150);
    let late = story.table.due(story.now).unwrap();
    story.release(other, a.grant);
    assert_eq!(story.apply(late), [], "that wait is over already");
    assert_eq!(answer_to(&story.pass(0), timed), Some(refused(Refusal::Timeout)));
}

#[test]
fn a_withdrawal_gives_everything_back_under_one_answer() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    story.held(other, "b", Mode::EX);
    let (request, _) = story.all(s, &AB, Wait::Forever);
    let (waits, _) = story.one(other, "a", Mode::EX, Wait::Forever);
    let effects = story.cancel(s, request);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::Cancelled)));
    assert_eq!(grants(&effects), [waits]);
    assert_eq!(effects.len(), 3);
}

#[test]
fn bundles_in_any_number_and_order_never_wait_for_each_other() {
    let mut story = Story::new();
    let names = ["a", "b", "c", "d", "e"];
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut open = Vec::new();
    let mut held: Vec<(SessionKey, GrantId)> = Vec::new();
    for _ in 0..60 {
        let s = story.open();
        let modes = [Mode::EX, Mode::PR, Mode::CR, Mode::PW];
        let mut asked: Vec<(&str, Mode)> = Vec::new();
        for name in names {
            if random(2) == 0 {
                asked.push((name, modes[usize::try_from(random(4)).unwrap()]));
            }
        }
        if asked.is_empty() {
            continue;
        }
        let (request, effects) = story.all(s, &asked, Wait::Forever);
        held.extend(all_granted(&effects, request).iter().map(|g| (s, g.grant)));
        open.push((s, request));
    }
    while !held.is_empty() {
        let (session, grant) = held.swap_remove(usize::try_from(random(held.len() as u64)).unwrap());
        let effects = story.release(session, grant);
        for &(s, request) in &open {
            held.extend(all_granted(&effects, request).iter().map(|g| (s, g.grant)));
        }
    }
    assert_eq!(story.table.counts().locks, 0, "everybody was served");
}

#[test]
fn a_bundle_that_waits_keeps_its_number_and_another_request_under_it_is_refused() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    story.held(other, "b", Mode::EX);
    let (request, _) = story.all(s, &AB, Wait::Forever);
    assert_eq!(story.all_as(s, request, &AB, Wait::Forever), [], "it waits already");
    let changed = story.all_as(s, request, &[("a", Mode::EX), ("b", Mode::PR)], Wait::Forever);
    assert_eq!(answer_to(&changed, request), Some(refused(Refusal::ReplayMismatch)));
    let asking = story.asking(s, Mode::EX, Wait::Forever);
    let b = named(Acquire { request, resource: Resource::new(b"", b"b").unwrap(), ..asking });
    assert_eq!(answer_to(&story.ask(b), request), Some(refused(Refusal::ReplayMismatch)));
}

#[test]
fn a_part_that_was_not_told_cannot_be_named_and_is_not_entered_again() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let b = story.held(other, "b", Mode::EX);
    let (all, _) = story.all(s, &AB, Wait::Forever);
    let mut id = None;
    story.table.show(digest("a"), 0, |entry| {
        id = entry.grant;
        core::ops::ControlFlow::Break(())
    });
    let grant = id.unwrap();
    let request = story.request();
    let released = story.apply(Command::Release { session: s, request, grant });
    assert_eq!(answer_to(&released, request), Some(refused(Refusal::NotHeld)));
    let (request, converted) = story.convert(s, grant, Mode::PR);
    assert_eq!(answer_to(&converted, request), Some(refused(Refusal::NotHeld)));
    assert_eq!(story.apply(Command::Confirm { session: s, grant }), []);
    let asking = story.asking(s, Mode::EX, Wait::Forever);
    let a = Acquire { resource: Resource::new(b"", b"a").unwrap(), reentrant: true, ..asking };
    assert_eq!(answer_to(&story.ask(named(a)), a.request), Some(refused(Refusal::AlreadyHeld)));
    let granted = all_granted(&story.release(other, b.grant), all);
    assert_eq!(granted[0].grant, grant, "afterwards it can");
    story.release(s, grant);
    assert_eq!(story.holders("a"), []);
}

#[test]
fn a_break_calls_a_bundle_off_that_holds_the_lock_and_leaves_one_that_waits_for_it() {
    for force in [false, true] {
        let mut story = Story::new();
        let (s, waits, other) = (story.open(), story.open(), story.open());
        story.held(other, "b", Mode::EX);
        let (holds, _) = story.all(s, &AB, Wait::Forever);
        let (queued, _) = story.all(waits, &[("a", Mode::EX), ("c", Mode::EX)], Wait::Forever);
        let effects = story.apply(Command::Break { digest: digest("a"), force });
        assert_eq!(answer_to(&effects, holds), Some(refused(Refusal::Cancelled)));
        assert!(effects.contains(&Effect::Broke { holders: 1 }));
        assert_eq!(notices(&effects), [], "nobody used it");
        assert_eq!(all_granted(&effects, queued).len(), 2);
    }
}

#[test]
fn a_death_under_a_part_harms_nobody_and_a_hint_that_was_not_told_passes_on() {
    let mut story = Story::new();
    let (s, other, third) = (story.open(), story.open(), story.open());
    story.held(third, "a", Mode::EX);
    story.held(other, "b", Mode::EX);
    story.end(third, Ended::Died);
    // This one gets `a` with the hint, and dies before it was told anything.
    story.all(s, &AB, Wait::Forever);
    story.end(s, Ended::Died);
    let next = story.held(other, "a", Mode::EX);
    assert!(next.previous_owner_died, "of the writer's death");
    story.release(other, next.grant);
    let s = story.open();
    let (request, _) = story.all(s, &AB, Wait::Forever);
    story.cancel(s, request);
    let s = story.open();
    story.all(s, &AB, Wait::Forever);
    story.end(s, Ended::Expired);
    assert!(!story.held(other, "a", Mode::EX).previous_owner_died, "nobody wrote");
}

#[test]
fn the_hint_of_a_death_is_told_with_the_lock_it_is_about() {
    let mut story = Story::new();
    let (s, dies, other) = (story.open(), story.open(), story.open());
    story.held(dies, "b", Mode::EX);
    let a = story.held(other, "a", Mode::EX);
    let (request, _) = story.all(s, &AB, Wait::Forever);
    story.end(dies, Ended::Died);
    let died: Vec<bool> = all_granted(&story.release(other, a.grant), request)
        .iter()
        .map(|granted| granted.previous_owner_died)
        .collect();
    assert_eq!(died, [false, true]);
}

#[test]
fn a_bound_on_the_way_refuses_the_whole() {
    let mut story =
        Story::with(Limits { waiters_per_resource: 1, locks_per_session: 4, ..Limits::default() });
    let (s, other) = (story.open(), story.open());
    let a = story.held(other, "a", Mode::EX);
    story.held(other, "b", Mode::EX);
    let third = story.open();
    story.one(third, "b", Mode::EX, Wait::Forever);
    let (request, _) = story.all(s, &AB, Wait::Forever);
    let (request_2, effects) =
        story.all(s, &[("x", Mode::EX), ("y", Mode::EX), ("z", Mode::EX), ("zz", Mode::NL)], Wait::Try);
    assert_eq!(answer_to(&effects, request_2), Some(refused(Refusal::Quota)));
    let effects = story.release(other, a.grant);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::QueueFull)));
    assert_eq!(story.holders("a"), []);
}

#[test]
fn what_its_owner_took_meanwhile_refuses_the_whole() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let a = story.held(other, "a", Mode::EX);
    let (request, _) = story.all(s, &AB, Wait::Forever);
    let b = story.held(s, "b", Mode::EX);
    let effects = story.release(other, a.grant);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::AlreadyHeld)));
    let (request, effects) = story.all(s, &AB, Wait::Forever);
    assert_eq!(answer_to(&effects, request), Some(refused(Refusal::AlreadyHeld)), "said at once");
    story.release(s, b.grant);
    let (request, effects) = story.all(s, &AB, Wait::Forever);
    assert_eq!(all_granted(&effects, request).len(), 2);
}

#[test]
fn a_long_chain_of_bundles_that_fail_unwinds_in_one_command() {
    let mut story = Story::new();
    let names: Vec<String> = (0..300).map(|number| format!("{number:04}")).collect();
    let other = story.open();
    let last = story.held(other, names.last().unwrap(), Mode::EX);
    let mut requests = Vec::new();
    for pair in names.windows(2).rev() {
        // It holds the first and waits for the second, which the one before it holds.
        let s = story.open();
        let asked = [(pair[0].as_str(), Mode::EX), (pair[1].as_str(), Mode::EX), ("x", Mode::PR)];
        requests.push(story.all(s, &asked, Wait::Forever).0);
        story.held(s, "x", Mode::CW);
    }
    let effects = story.release(other, last.grant);
    let refusals: Vec<RequestId> = effects
        .iter()
        .filter_map(|effect| match *effect {
            Effect::Answered { request, answer: Answer::Refused(Refusal::AlreadyHeld), .. } => Some(request),
            _ => None,
        })
        .collect();
    assert_eq!(refusals, requests, "each lets the next one in, which fails in turn");
    assert_eq!(story.holders(&names[0]), []);
}

#[test]
fn of_several_that_go_on_in_one_command_the_oldest_goes_first() {
    let mut story = Story::new();
    let (holder, older, younger) = (story.open(), story.open(), story.open());
    story.held(holder, "a", Mode::EX);
    story.held(holder, "b", Mode::EX);
    let (first, _) = story.all(older, &[("b", Mode::EX), ("c", Mode::EX)], Wait::Forever);
    let (second, _) = story.all(younger, &[("a", Mode::EX), ("c", Mode::EX)], Wait::Forever);
    let effects = story.end(holder, Ended::Closed);
    assert_eq!(all_granted(&effects, first).len(), 2);
    assert_eq!(all_granted(&effects, second).len(), 0, "it waits for `c`");
}

#[test]
fn items_out_of_order_twice_or_none_are_no_request() {
    let mut story = Story::new();
    let s = story.open();
    for asked in [vec![], vec![("b", Mode::EX), ("a", Mode::EX)], vec![("a", Mode::EX), ("a", Mode::EX)]] {
        let (request, effects) = story.all(s, &asked, Wait::Forever);
        assert_eq!(answer_to(&effects, request), Some(refused(Refusal::BadRequest)));
    }
}

#[test]
fn memory_returns_when_bundles_came_and_went() {
    let mut story = Story::new();
    let (s, other) = (story.open(), story.open());
    let mut before = 0;
    for round in 0..1000 {
        let b = story.held(other, "b", Mode::EX);
        let (all, _) = story.all(s, &AB, Wait::Forever);
        for granted in all_granted(&story.release(other, b.grant), all) {
            story.release(s, granted.grant);
        }
        for session in [s, other] {
            let received = story.table.session_view(session).unwrap().kept_sent;
            story.apply(Command::Acknowledge { session, received });
        }
        if round == 500 {
            before = story.table.memory();
        }
    }
    assert!(story.table.memory() < before + 1000, "{} before, {} after", before, story.table.memory());
}

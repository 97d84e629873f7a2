//! What a lock costs, and that nothing is left of locks that are gone.

use super::*;
use crate::views::Role::{Conversion, Holder, Waiter};
use fairlock_protocol::limits;

fn sixteen(number: u64) -> [u8; 16] {
    let mut name = *b"lock/0000000000/";
    let mut rest = number;
    for place in (5..15).rev() {
        name[place] += u8::try_from(rest % 10).unwrap();
        rest /= 10;
    }
    name
}

fn hold_many(story: &mut Story, session: SessionKey, count: u64) -> Vec<GrantId> {
    let mut grants = Vec::new();
    for number in 0..count {
        let name = sixteen(number);
        let resource = Resource::new(b"", &name).unwrap();
        let request = story.request();
        let asking = named(Acquire { request, resource, ..story.asking(session, Mode::EX, Wait::Forever) });
        let asking = Acquire { request: story.request(), ..asking };
        story.effects.clear();
        story.table.apply(story.now, Command::Acquire(asking), &mut story.effects);
        grants.push(granted(&story.effects, asking.request).grant);
        let received = story.table.session_view(session).unwrap().kept_sent;
        story.table.apply(story.now, Command::Acknowledge { session, received }, &mut story.effects);
    }
    grants
}

#[test]
fn memory_returns_when_a_million_locks_came_and_went() {
    let mut story = Story::new();
    let s = story.open();
    let one = story.hold(s, Mode::EX);
    story.release(s, one.grant);
    let before = story.table.memory();
    let grants = hold_many(&mut story, s, 1_000_000);
    let per_lock = (story.table.memory() - before) / 1_000_000;
    assert!(per_lock <= 96 + 16, "{per_lock} bytes for a held lock with a name of 16");
    let name = sixteen(999_999);
    let digest = named(Acquire {
        resource: Resource::new(b"", &name).unwrap(),
        ..story.asking(s, Mode::EX, Wait::Try)
    });
    assert_eq!(story.table.lock(digest.digest).unwrap().resource.name.as_bytes(), name);
    for grant in grants {
        let request = story.request();
        story.effects.clear();
        story.table.apply(story.now, Command::Release { session: s, request, grant }, &mut story.effects);
        let received = story.table.session_view(s).unwrap().kept_sent;
        story.table.apply(story.now, Command::Acknowledge { session: s, received }, &mut story.effects);
    }
    story.table.audit();
    let left = story.table.memory() - before;
    assert!(left < 1_000_000, "{left} bytes are left of a million locks");
}

#[test]
fn locks_that_come_and_go_take_no_more_memory() {
    let mut story = Story::new();
    let s = story.open();
    let round = |story: &mut Story, count| {
        for grant in hold_many(story, s, count) {
            let request = story.request();
            story.table.apply(story.now, Command::Release { session: s, request, grant }, &mut story.effects);
            let received = story.table.session_view(s).unwrap().kept_sent;
            story.table.apply(story.now, Command::Acknowledge { session: s, received }, &mut story.effects);
        }
        story.table.memory()
    };
    let after_first = round(&mut story, 3000);
    for _ in 0..20 {
        assert_eq!(round(&mut story, 3000), after_first);
    }
}

#[test]
fn what_a_slow_client_left_unacknowledged_is_given_back() {
    let mut story = Story::new();
    let s = story.open();
    let before = story.table.memory();
    for _ in 0..limits::UNACKNOWLEDGED_MAX / 2 {
        let held = story.hold(s, Mode::EX);
        story.release(s, held.grant);
    }
    assert!(story.table.memory() > before + limits::UNACKNOWLEDGED_MAX * 56);
    for received in 1..=limits::UNACKNOWLEDGED_MAX as u64 {
        story.apply(Command::Acknowledge { session: s, received });
    }
    assert!(story.table.sessions[s.slot].kept.capacity() <= 256);
}

#[test]
fn listings_go_on_where_they_stopped() {
    let mut story = Story::new();
    let s = story.open();
    hold_many(&mut story, s, 1000);
    let (mut cursor, mut pages, mut seen) = (Some(0), 0, 0);
    while let Some(at) = cursor {
        let mut left = 64;
        cursor = story.table.locks(at, |view| {
            assert_eq!((view.holders, view.mode), (1, Some(Mode::EX)));
            seen += 1;
            left -= 1;
            if left == 0 { core::ops::ControlFlow::Break(()) } else { core::ops::ControlFlow::Continue(()) }
        });
        pages += 1;
    }
    assert_eq!((pages, seen), (16, 1000));
    let mut sessions = 0;
    let end = story.table.sessions(0, |view| {
        sessions += u32::from(view.grants == 1000);
        core::ops::ControlFlow::Continue(())
    });
    assert_eq!((end, sessions), (None, 1));
}

#[test]
fn a_queue_is_shown_with_holders_conversions_and_waiters_in_order() {
    let mut story = Story::new();
    let (a, b) = (story.open(), story.open());
    let held = story.hold(a, Mode::PR);
    let labelled = Acquire { label: b"report", ..story.asking(b, Mode::PR, Wait::Forever) };
    story.ask(labelled);
    story.convert(a, held.grant, Mode::EX);
    let waiting = Acquire { label: b"nightly", ..story.asking(b, Mode::EX, Wait::Forever) };
    let waiting = Acquire { owner: OwnerId(3), ..waiting };
    story.ask(waiting);
    let mut shown = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = story.table.show(labelled.digest, at, |entry| {
            shown.push((entry.role, entry.position, entry.mode, entry.asked, entry.label.to_vec()));
            core::ops::ControlFlow::Break(())
        });
    }
    let expected = [
        (Holder, 1, Some(Mode::PR), None, Vec::new()),
        (Holder, 2, Some(Mode::PR), None, b"report".to_vec()),
        (Conversion, 1, Some(Mode::PR), Some(Mode::EX), Vec::new()),
        (Waiter, 1, None, Some(Mode::EX), b"nightly".to_vec()),
    ];
    assert_eq!(shown, expected);
}

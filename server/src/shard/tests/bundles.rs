//! Several locks in one request, at the doors: one answer for each under one number, kept until they are acknowledged.

use fairlock_protocol::bundle::ItemsBuffer;
use fairlock_protocol::limits::REQUESTS_PER_PASS;
use fairlock_protocol::request::AcquireAll;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Mode, OwnerId, Refusal, Reply, Request, RequestId, Resource, Tick, Wait};

use super::world::{Heard, Line, World, acquire, name_on};

fn items(names: &[&str]) -> ItemsBuffer {
    let items = names.iter().map(|name| (Resource::new(b"", name.as_bytes()).unwrap(), Mode::EX));
    ItemsBuffer::new(items.collect()).unwrap()
}

fn all(items: &ItemsBuffer, wait: Wait) -> Request<'_> {
    Request::AcquireAll(AcquireAll { wait, owner: OwnerId(0), items: items.items(), label: b"both" })
}

fn refusal(heard: &Heard) -> Refusal {
    match heard.reply() {
        Reply::Refused(refused) => refused.refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_grant(heard: &Heard, request: u64) -> bool {
    heard.request == request && matches!(heard.reply(), Reply::Granted(_))
}

/// Somebody who holds this name.
fn holder(world: &mut World, name: &str) -> (Line, fairlock_protocol::GrantId) {
    let (line, ..) = world.open(0, 60_000);
    world.send(line, 2, 0, &acquire(name, Wait::Try));
    let heard = world.only(line);
    let Reply::Granted(grant) = heard.reply() else { panic!("{heard:?}") };
    (line, grant.grant)
}

#[test]
fn each_lock_is_granted_under_the_same_number_and_all_at_once() {
    let mut world = World::new(1);
    let (other, grant) = holder(&mut world, "b");
    let (line, session, secret) = world.open(0, 60_000);
    world.send(line, 2, 0, &all(&items(&["a", "b", "c"]), Wait::Forever));
    assert!(world.heard(line).is_empty(), "it waits for the second");
    world.send(other, 3, 1, &Request::Release(grant));
    let heard = world.heard(line);
    assert_eq!(heard.len(), 3);
    assert!(heard.iter().all(|heard| is_grant(heard, 2) && heard.flags == FLAG_KEPT | FLAG_RENEWED));
    // One arrived before the line broke: the others come again.
    world.hang_up(line);
    let again = world.greet(0);
    world.send(again, 3, 0, &Request::Resume { session, secret, received: 1 });
    let heard = world.heard(again);
    assert!(matches!(heard[0].reply(), Reply::Resumed { following: 2, .. }));
    assert!(heard[1..].iter().all(|heard| is_grant(heard, 2)));
    assert_eq!(heard.len(), 3);
}

#[test]
fn a_name_of_another_shard_refuses_all_with_nothing_done() {
    let mut world = World::new(2);
    let (line, ..) = world.open(0, 60_000);
    let (here, there) = (name_on(0, 2), name_on(1, 2));
    world.send(line, 2, 0, &all(&items(&[&here, &there]), Wait::Try));
    assert_eq!(refusal(&world.only(line)), Refusal::BadRequest);
    assert_eq!(world.shards[0].table().counts().locks, 0);
    world.send(line, 3, 0, &all(&items(&[&here]), Wait::Try));
    assert!(is_grant(&world.only(line), 3));
}

#[test]
fn nothing_is_granted_in_a_quarantine() {
    let mut world = World::with(1, |settings| settings.quarantine_until = Tick::from_millis(5000));
    let (line, ..) = world.open(0, 60_000);
    let both = items(&["a", "b"]);
    world.send(line, 2, 0, &all(&both, Wait::Forever));
    assert_eq!(refusal(&world.only(line)), Refusal::Recovering);
    world.pass_ms(4000);
    world.send(line, 2, 0, &all(&both, Wait::Forever));
    assert_eq!(world.heard(line).len(), 2);
}

#[test]
fn a_withdrawal_and_the_end_of_the_wait_leave_nothing_held() {
    let mut world = World::new(1);
    let (_other, _) = holder(&mut world, "b");
    let (line, ..) = world.open(0, 60_000);
    let both = items(&["a", "b"]);
    world.send(line, 2, 0, &all(&both, Wait::Millis(50)));
    world.pass_ms(51);
    assert_eq!(refusal(&world.only(line)), Refusal::Timeout);
    world.send(line, 3, 1, &all(&both, Wait::Forever));
    world.send(line, 4, 1, &Request::Cancel(RequestId(3)));
    let heard = world.heard(line);
    assert_eq!((heard[0].request, refusal(&heard[0])), (3, Refusal::Cancelled));
    assert!(matches!(heard[1].reply(), Reply::Withdrawn { was_waiting: true }));
    assert_eq!(world.shards[0].table().counts().grants, 1);
}

#[test]
fn each_lock_of_a_request_counts_in_a_pass() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    let names: Vec<String> = (0..REQUESTS_PER_PASS).map(|number| format!("{number:03}")).collect();
    let many = items(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut bytes = vec![];
    for request in 2..5 {
        all(&many, Wait::Try).encode(RequestId(request), 0, &mut bytes);
    }
    let before = world.shards[0].passes;
    world.send_bytes(line, &bytes);
    assert_eq!(world.heard(line).len(), REQUESTS_PER_PASS + 2, "all, and two refusals");
    assert!(world.shards[0].passes >= before + 3, "a pass each");
}

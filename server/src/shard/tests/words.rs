//! Clients that share memory, as a shard sees them: what becomes of their sessions and words when they end, move, stop in
//! the middle or mean no good.

use fairlock_protocol::request::Acquire;
use fairlock_protocol::{GrantId, Reply, Request, RequestId, Wait};
use fairlock_shm::word::{Entry, Generation, Holder, Leaving};

use super::world::{Line, World, acquire, name_on, open};

/// Takes a lock as a client that would keep it.
fn take(world: &mut World, line: Line, number: u64, name: &str) -> (GrantId, Option<(u32, Generation)>) {
    let Request::Acquire(asked) = acquire(name, Wait::Forever) else { unreachable!() };
    let ack = u16::try_from(number - 1).unwrap();
    world.send(line, number, ack, &Request::Acquire(Acquire { cacheable: true, ..asked }));
    let heard = world.heard(line);
    let Reply::Granted(granted) = heard[0].reply() else { panic!("{heard:?}") };
    let note = heard.get(1).map(|note| match note.reply() {
        Reply::Cached { word, generation, .. } => (word, Generation(generation)),
        other => panic!("{other:?}"),
    });
    (granted.grant, note)
}

/// Takes and releases a lock until the grant stays with the client: it, its word and its tenure. Requests are numbered
/// from `number`.
pub(super) fn cached(world: &mut World, line: Line, number: u64, name: &str) -> (GrantId, u32, Generation) {
    let mut number = number;
    loop {
        let (grant, note) = take(world, line, number, name);
        if let Some((word, generation)) = note {
            return (grant, word, generation);
        }
        let ack = u16::try_from(number).unwrap();
        world.send(line, number + 1, ack, &Request::Release(grant));
        world.heard(line);
        number += 2;
        assert!(number < 100, "a run of acquires is cached");
    }
}

#[test]
fn a_connection_that_is_rejected_opens_no_other_session_on_its_way_out() {
    let mut world = World::new(1);
    let (line, _segment) = world.share(0);
    world.open_on(line, 60_000);
    let mut bytes = vec![];
    // Another OPEN is a mistake that ends the connection, and with it the session.
    for request in 1..=3 {
        Request::Open(open(60_000)).encode(RequestId(request), 0, &mut bytes);
    }
    world.send_bytes(line, &bytes);
    assert!(!world.is_open(line));
    let refused = world.heard(line).iter().filter(|heard| matches!(heard.reply(), Reply::Refused(_))).count();
    assert_eq!(refused, 1, "nothing is read after that");
    assert_eq!(world.shards[0].table().counts().sessions, 0, "nobody would ever end it");
    assert_eq!(world.shards[0].timeouts.unbound_count(), 0);
}

#[test]
fn a_word_that_many_want_one_after_the_other_is_noted_once() {
    let mut world = World::new(1);
    let (keeper, segment) = world.share(0);
    world.open_on(keeper, 60_000);
    let (_, index, generation) = cached(&mut world, keeper, 1, "mine");
    let (other, ..) = world.open(0, 60_000);
    // Each comes, finds somebody inside and gives up; the next one is told of again.
    for request in 0..500 {
        world.send(other, 2 * request + 1, 0, &acquire("mine", Wait::Forever));
        world.send(other, 2 * request + 2, 0, &Request::Cancel(RequestId(2 * request + 1)));
    }
    assert_eq!(world.shards[0].wanted_count(), 1, "what is looked at in every pass does not grow");
    assert!(segment.word(index).unwrap().leave(generation, Leaving::Exchange));
    world.turn();
    assert_eq!((world.shards[0].wanted_count(), world.shards[0].table().counts().grants), (0, 0));
}

#[test]
fn a_client_that_is_stopped_in_the_middle_of_a_frame_goes_on_where_it_was() {
    let mut world = World::new(1);
    let (line, segment) = world.share(0);
    world.open_on(line, 60_000);
    let mut bytes = vec![];
    acquire("x", Wait::Forever).encode(RequestId(1), 0, &mut bytes);
    let (beginning, rest) = bytes.split_at(20);
    world.send_bytes(line, beginning);
    world.pass_ms(30_000);
    assert!(world.is_open(line) && !segment.status().has_ended());
    world.send_bytes(line, rest);
    assert!(matches!(world.only(line).reply(), Reply::Granted(_)));
    // Without a session it waits no longer than others.
    let (line, _segment) = world.share(0);
    world.send(line, 0, 0, &Request::Status);
    world.heard(line);
    world.send_bytes(line, beginning);
    world.pass_ms(1_001);
    assert!(!world.is_open(line));
}

#[test]
fn who_hangs_up_at_another_shard_has_died_at_home() {
    let mut world = World::new(2);
    let (home, _) = world.share(0);
    let (session, secret) = world.open_on(home, 60_000);
    let (there, _) = world.share(1);
    world.send(there, 1, 0, &Request::Resume { session, secret, received: 0 });
    let name = name_on(0, 2);
    take(&mut world, home, 1, &name);
    let (waiter, ..) = world.open(0, 60_000);
    world.send(waiter, 1, 0, &acquire(&name, Wait::Forever));
    // The news from there comes before the home sees the end of its own line.
    world.hang_up(there);
    world.turn();
    let heard = world.only(waiter);
    assert!(
        matches!(heard.reply(), Reply::Granted(granted) if granted.previous_owner_died),
        "{:?}",
        heard.reply()
    );
}

#[test]
fn who_hangs_up_at_another_shard_keeps_what_he_holds_there_until_his_home_shows_the_end() {
    let mut world = World::new(2);
    let (home, shown) = world.share(0);
    let (session, secret) = world.open_on(home, 60_000);
    let (there, _) = world.share(1);
    world.send(there, 1, 0, &Request::Resume { session, secret, received: 0 });
    world.heard(there);
    let held = name_on(1, 2);
    take(&mut world, there, 1, &held);
    let (waiter, ..) = world.open(1, 60_000);
    world.send(waiter, 1, 0, &acquire(&held, Wait::Forever));
    world.lanes_open = false;
    world.hang_up(there);
    world.turn();
    // A guard of a grant in no word finds its end in the home's memory alone.
    assert!(!shown.status().has_ended() && world.heard(waiter).is_empty(), "nobody is let in beside it");
    world.lanes_open = true;
    world.turn();
    assert!(shown.status().has_ended());
    assert!(matches!(world.only(waiter).reply(), Reply::Granted(granted) if granted.previous_owner_died));
}

#[test]
fn a_session_that_goes_on_elsewhere_leaves_no_grant_behind_that_nobody_takes_back() {
    let mut world = World::new(1);
    let (line, segment) = world.share(0);
    let (session, secret) = world.open_on(line, 60_000);
    let (_, index, generation) = cached(&mut world, line, 1, "free");
    assert!(!segment.word(index).unwrap().leave(generation, Leaving::Exchange));
    let (_, inside, tenure) = cached(&mut world, line, 8, "held");
    let back = world.greet(0);
    world.send(back, 200, 0, &Request::Resume { session, secret, received: 14 });
    assert!(!world.is_open(line));
    let free = segment.word(index).unwrap().enter(generation, Holder::new(1), Leaving::Exchange);
    assert_eq!(free, Entry::Refused);
    assert!(!segment.word(inside).unwrap().is_held(tenure, Holder::GRANTED), "whoever is inside finds out");
    let (other, ..) = world.open(0, 60_000);
    world.send(other, 1, 0, &acquire("free", Wait::Try));
    assert!(matches!(world.only(other).reply(), Reply::Granted(_)));
    world.send(other, 2, 1, &acquire("held", Wait::Try));
    assert!(matches!(world.only(other).reply(), Reply::Refused(_)), "that one its client has to give back");
}

#[test]
fn a_grant_with_an_end_of_its_own_is_not_kept() {
    let mut world = World::new(1);
    let (line, _segment) = world.share(0);
    world.open_on(line, 60_000);
    let Request::Acquire(asked) = acquire("x", Wait::Forever) else { unreachable!() };
    let mut number = 1;
    for limited in [Acquire { max_hold_ms: 5000, ..asked }, Acquire { lock_delay_ms: 5, ..asked }] {
        for _ in 0..10 {
            let ack = u16::try_from(number - 1).unwrap();
            world.send(line, number, ack, &Request::Acquire(Acquire { cacheable: true, ..limited }));
            let heard = world.only(line);
            let Reply::Granted(granted) = heard.reply() else { panic!("{heard:?}") };
            world.send(line, number + 1, ack + 1, &Request::Release(granted.grant));
            world.only(line);
            number += 2;
        }
    }
}

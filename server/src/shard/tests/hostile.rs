//! What a client may do to a shard without meaning well, or by breaking off in the middle: nothing grows without end,
//! nobody else waits for it, and what it said in time counts.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::limits::{LIST_VISITS_MAX, PAGES_PER_PASS, WAITS_PER_STREAM_MAX};
use fairlock_protocol::request::{Acquire, Open};
use fairlock_protocol::{Liveness, Mode, Refusal, Reply, Request, RequestId, ShardId, Wait};

use super::world::{World, acquire, open};
use crate::connection::{Peer, UnixPeer};
use crate::driver::peer::PeerCredentials;

fn bytes_of(messages: &[(u64, u16, Request<'_>)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (request, ack, message) in messages {
        message.encode(RequestId(*request), *ack, &mut bytes);
    }
    bytes
}

fn refusals(heard: &[super::world::Heard]) -> Vec<Refusal> {
    let refusal = |heard: &super::world::Heard| match heard.reply() {
        Reply::Refused(refused) => Some(refused.refusal),
        _ => None,
    };
    heard.iter().filter_map(refusal).collect()
}

#[test]
fn what_was_said_before_hanging_up_counts() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let heard = world.only(line);
    let Reply::Granted(grant) = heard.reply() else { panic!("{heard:?}") };
    // More than one pass takes from a connection, and the release comes last.
    let mut bytes = bytes_of(&vec![(0, 1, Request::Keepalive); 200]);
    bytes.extend(bytes_of(&[(2, 1, Request::Release(grant.grant))]));
    world.send_and_hang_up(line, &bytes);
    assert_eq!(world.shards[0].table().counts().grants, 0, "the program released its lock and exited");
    assert_eq!(world.shards[0].table().counts().sessions, 1, "the session itself ends by its lease");
    assert!(!world.shards[0].is_busy());
}

#[test]
fn who_has_answers_to_read_is_not_served_and_then_is() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    world.stall(line, true);
    let bytes = bytes_of(&[(1, 0, acquire("x", Wait::Try)), (2, 0, acquire("y", Wait::Try))]);
    world.send_bytes(line, &bytes[..20]);
    world.pass_ms(600);
    world.send_bytes(line, &bytes[20..]);
    world.pass_ms(600);
    assert!(world.is_open(line), "the rest of the frame came in time");
    assert!(world.heard(line).is_empty() && !world.shards[0].is_busy(), "nothing to do but to wait");
    world.stall(line, false);
    assert_eq!(world.heard(line).len(), 2);
}

#[test]
fn who_hangs_up_with_answers_unread_has_said_what_it_said() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let heard = world.only(line);
    let Reply::Granted(grant) = heard.reply() else { panic!("{heard:?}") };
    world.stall(line, true);
    world.send_and_hang_up(line, &bytes_of(&[(2, 1, Request::Release(grant.grant))]));
    assert_eq!(world.shards[0].table().counts().grants, 0);
    assert!(!world.shards[0].is_busy());
}

#[test]
fn a_half_said_request_dies_with_its_connection() {
    let mut world = World::new(1);
    let (line, session, secret) = world.open(0, 5000);
    let bytes = bytes_of(&[(1, 0, acquire("x", Wait::Try)), (2, 0, acquire("y", Wait::Try))]);
    world.send_and_hang_up(line, &bytes[..bytes.len() - 1]);
    assert_eq!(world.shards[0].table().counts().grants, 1);
    let back = world.greet(0);
    world.send(back, 3, 0, &Request::Resume { session, secret, received: 0 });
    let heard = world.heard(back);
    assert!(
        matches!(heard[0].reply(), Reply::Resumed { seen: 1, following: 1, .. }),
        "{:?}",
        heard[0].reply()
    );
}

#[test]
fn a_frame_that_comes_drop_by_drop_has_one_second_in_all() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    let mut bytes = bytes_of(&[(1, 0, Request::Keepalive)]);
    bytes.extend_from_slice(&[90, 0, 0]);
    world.send_bytes(line, &bytes);
    world.pass_ms(600);
    world.send_bytes(line, &[0]);
    assert!(world.is_open(line));
    world.pass_ms(401);
    assert!(!world.is_open(line), "another drop does not begin another second");
}

#[test]
fn a_connection_waits_for_one_open_at_a_time() {
    let mut world = World::with(1, |settings| settings.horizon_ms = 1000);
    for again in [Request::Open(open(5000)), Request::Open(open(1000))] {
        let line = world.greet(0);
        world.send(line, 1, 0, &Request::Open(open(5000)));
        world.send(line, 2, 0, &Request::Status);
        assert!(matches!(world.only(line).reply(), Reply::Status(_)));
        world.send(line, 3, 0, &again);
        let heard = world.heard(line);
        assert_eq!(refusals(&heard), [Refusal::BadRequest]);
        assert!(!world.is_open(line));
    }
    let now = world.now;
    world.shards[0].message(now, crate::lanes::ToShard::HorizonRaised { ttl_ms: 5000 });
    world.turn();
    assert_eq!(world.shards[0].table().counts().sessions, 0, "both are gone");
}

#[test]
fn a_session_that_ends_before_every_shard_knew_it_is_refused_and_forgotten() {
    let mut world = World::new(2);
    let line = world.greet(0);
    world.lanes_open = false;
    world.send(line, 1, 0, &Request::Open(open(200)));
    world.pass_ms(201);
    assert_eq!(refusals(&world.heard(line)), [Refusal::SessionExpired]);
    world.lanes_open = true;
    world.turn();
    assert!(world.heard(line).is_empty() && world.is_open(line));
    assert!(world.shards.iter().all(|shard| shard.table().counts().sessions == 0));
}

#[test]
fn a_slot_that_changes_its_session_within_a_pass_is_watched_once() {
    let mut world = World::new(1);
    // Any descriptor does: the world only counts watches.
    let descriptor = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let credentials = PeerCredentials { pid: 1, uid: 0, gid: 0 };
    let peer = UnixPeer { credentials, pidfd: descriptor(), pipe: Some(descriptor()) };
    let line = world.connect_as(Peer::Unix(Box::new(peer)));
    world.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(0))));
    let watched = |liveness| Request::Open(Open { liveness, ..open(1000) });
    let bytes = bytes_of(&[
        (1, 0, watched(Liveness::Process)),
        (2, 0, Request::Close),
        (3, 0, watched(Liveness::Inherit)),
        (4, 0, Request::Close),
        (5, 0, watched(Liveness::Process)),
    ]);
    world.send_bytes(line, &bytes);
    assert_eq!(world.watched.len(), 1, "two of three sessions are over");
    world.send(line, 6, 0, &Request::Close);
    assert!(world.watched.is_empty());
}

#[test]
fn one_page_of_a_list_looks_at_so_many_names_and_no_more() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 60_000);
    let names: Vec<String> = (0..LIST_VISITS_MAX + 10).map(|number| format!("name/{number}")).collect();
    let mut bytes = vec![];
    let mut ack = 0;
    for (name, request) in names.iter().zip(1..) {
        acquire(name, Wait::Try).encode(RequestId(request), ack, &mut bytes);
        if request % 512 == 0 {
            world.send_bytes(line, &std::mem::take(&mut bytes));
            ack = u16::try_from(request).unwrap();
        }
    }
    world.send_bytes(line, &bytes);
    assert!(refusals(&world.heard(line)).is_empty());
    let mut pages = vec![];
    let mut cursor = 0;
    loop {
        world.send(line, 0, ack, &Request::List { cursor, prefix: b"other/" });
        let heard = world.only(line);
        let Reply::Listed(page) = heard.reply() else { panic!("{heard:?}") };
        pages.push(page.entries().count());
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(pages, [0, 0]);
    let (mut listed, mut cursor) = (0, 0);
    loop {
        world.send(line, 0, ack, &Request::List { cursor, prefix: b"name/" });
        let heard = world.only(line);
        let Reply::Listed(page) = heard.reply() else { panic!("{heard:?}") };
        listed += page.entries().count();
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(listed, names.len(), "no name is left out and none comes twice");
}

#[test]
fn a_pass_answers_one_list_of_a_connection() {
    let mut world = World::new(1);
    let line = world.greet(0);
    let mut bytes = bytes_of(&vec![(1, 0, Request::List { cursor: 0, prefix: b"" }); 3]);
    bytes.extend(bytes_of(&[(2, 0, Request::Keepalive)]));
    world.send_bytes(line, &bytes);
    let before = world.shards[0].passes;
    assert_eq!(world.heard(line).len(), 4);
    world.send_bytes(line, &bytes);
    assert!(world.shards[0].passes >= before + 4, "a pass each, and one for the rest");
}

#[test]
fn sessions_that_come_and_go_on_a_connection_leave_nothing_behind() {
    let mut world = World::new(1);
    let old = world.greet(0);
    world.send(old, 1, 0, &Request::Status);
    for _ in 0..100 {
        let (line, ..) = world.open(0, 1000);
        world.send(line, 1, 0, &Request::Close);
        world.send(line, 2, 0, &Request::Open(open(1000)));
        world.send(line, 3, 0, &Request::Close);
        assert_eq!(world.shards[0].timeouts.unbound_count(), 2);
        world.hang_up(line);
        assert_eq!(world.shards[0].timeouts.unbound_count(), 1);
    }
    assert!(world.is_open(old));
}

#[test]
fn answers_that_come_all_at_once_can_still_be_acknowledged() {
    let mut world = World::new(1);
    let (holder, ..) = world.open(0, 60_000);
    world.send(holder, 1, 0, &acquire("x", Wait::Try));
    let heard = world.only(holder);
    let Reply::Granted(held) = heard.reply() else { panic!("{heard:?}") };
    let (line, ..) = world.open(0, 60_000);
    let Request::Acquire(asked) = acquire("x", Wait::Forever) else { unreachable!() };
    let shared = Request::Acquire(Acquire { mode: Mode::PR, ..asked });
    let waits = u64::from(WAITS_PER_STREAM_MAX);
    let requests: Vec<_> = (1..=waits + 5).map(|request| (request, 0, shared)).collect();
    world.send_bytes(line, &bytes_of(&requests));
    assert_eq!(refusals(&world.heard(line)), [Refusal::Quota; 5]);
    world.send(holder, 2, 1, &Request::Release(held.grant));
    assert_eq!(
        world.heard(line).len() as u64,
        waits,
        "more than a client could tell apart modulo 2^16 must not wait"
    );
    world.send(line, waits + 6, u16::try_from(waits).unwrap(), &acquire("y", Wait::Try));
    assert!(matches!(world.only(line).reply(), Reply::Granted(_)), "every one of them is acknowledged");
}

#[test]
fn many_who_ask_for_lists_take_turns_and_each_is_answered() {
    let mut world = World::new(1);
    let lines: Vec<_> = (0..3 * PAGES_PER_PASS)
        .map(|number| {
            let host = u8::try_from(number).unwrap();
            let line = world.connect_from(SocketAddr::from(([127, 0, 1, host], 1)));
            world.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(0))));
            world.heard(line);
            line
        })
        .collect();
    let before = world.shards[0].passes;
    for &line in &lines {
        world.push(line, &bytes_of(&[(1, 0, Request::Status), (2, 0, Request::Keepalive)]));
    }
    world.turn();
    assert!(lines.iter().all(|&line| world.heard(line).len() == 2));
    assert!(world.shards[0].passes >= before + 3, "so many in a pass and no more");
}

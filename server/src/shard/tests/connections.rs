//! Handshakes, malformed input and slow peers: each ends one connection with a code, and touches nobody else.

use std::net::SocketAddr;

use fairlock_protocol::handshake::{FEATURE_STANDBY, Hello};
use fairlock_protocol::request::kind;
use fairlock_protocol::{Refusal, Reply, Request, RequestId, ShardId, Wait};

use super::world::{World, acquire, name_on};

/// Has an innocent client hold a lock, runs `attack`, and checks that the holder noticed nothing.
fn beside_a_holder(attack: impl Fn(&mut World)) {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("precious", Wait::Try));
    assert!(matches!(world.only(line).reply(), Reply::Granted(_)));
    attack(&mut world);
    assert!(world.is_open(line) && world.heard(line).is_empty());
    assert_eq!(world.shards[0].table().counts().grants, 1);
}

fn refused_and_closed(world: &mut World, line: super::world::Line, refusal: Refusal) {
    let heard = world.only(line);
    assert!(
        matches!(heard.reply(), Reply::Refused(refused) if refused.refusal == refusal),
        "{:?}",
        heard.reply()
    );
    assert!(!world.is_open(line));
}

#[test]
fn garbage_before_the_hello_ends_that_connection_only() {
    beside_a_holder(|world| {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xFF; 64]] {
            let line = world.connect();
            world.send_bytes(line, garbage);
            assert!(!world.is_open(line), "{garbage:?}");
        }
    });
}

#[test]
fn an_oversized_frame_is_refused_by_its_length_alone() {
    beside_a_holder(|world| {
        let line = world.greet(0);
        world.send_bytes(line, &100_000_u32.to_le_bytes());
        refused_and_closed(world, line, Refusal::FrameTooLarge);
    });
}

#[test]
fn unknown_kinds_and_broken_bodies_are_refused() {
    beside_a_holder(|world| {
        for (kind, body) in
            [(0x7E, &b""[..]), (kind::ACQUIRE, b"short"), (kind::RELEASE, &[0; 8]), (kind::STATUS, b"x")]
        {
            let line = world.greet(0);
            world.send_frame(line, kind, body);
            refused_and_closed(world, line, Refusal::BadRequest);
        }
    });
}

#[test]
fn flags_of_a_request_are_refused() {
    beside_a_holder(|world| {
        let mut bytes = vec![];
        Request::Status.encode(RequestId(1), 0, &mut bytes);
        for flag in 0..8 {
            let line = world.greet(0);
            bytes[5] = 1 << flag;
            world.send_bytes(line, &bytes);
            refused_and_closed(world, line, Refusal::BadRequest);
        }
        let line = world.connect();
        let mut hello = vec![];
        Request::Hello(Hello::to(ShardId(0))).encode(RequestId::NOTICE, 0, &mut hello);
        hello[5] = 1;
        world.send_bytes(line, &hello);
        refused_and_closed(world, line, Refusal::BadRequest);
    });
}

#[test]
fn a_request_before_the_hello_and_a_second_hello_are_refused() {
    beside_a_holder(|world| {
        let line = world.connect();
        world.send(line, 1, 0, &Request::Status);
        refused_and_closed(world, line, Refusal::BadRequest);
        let line = world.greet(0);
        world.send(line, 1, 0, &Request::Hello(Hello::to(ShardId(0))));
        refused_and_closed(world, line, Refusal::BadRequest);
    });
}

#[test]
fn a_client_of_another_version_is_told_so() {
    beside_a_holder(|world| {
        let line = world.connect();
        world.send(
            line,
            0,
            0,
            &Request::Hello(Hello { version_min: 7, version_max: 9, ..Hello::to(ShardId(0)) }),
        );
        refused_and_closed(world, line, Refusal::Version);
    });
}

#[test]
fn locks_without_a_session_are_refused_and_the_connection_goes_on() {
    let mut world = World::new(1);
    let line = world.greet(0);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let heard = world.only(line);
    assert!(matches!(heard.reply(), Reply::Refused(refused) if refused.refusal == Refusal::SessionUnknown));
    assert!(world.is_open(line));
}

#[test]
fn a_bad_name_refuses_one_request() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 5000);
    let mut bytes = vec![];
    acquire("x", Wait::Try).encode(RequestId(1), 0, &mut bytes);
    bytes.truncate(bytes.len() - 1);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[16 + 24..16 + 26].copy_from_slice(&0_u16.to_le_bytes());
    world.send_bytes(line, &bytes);
    let heard = world.only(line);
    assert!(matches!(heard.reply(), Reply::Refused(refused) if refused.refusal == Refusal::BadName));
    assert!(world.is_open(line));
}

#[test]
fn a_silent_connection_goes_after_its_time_and_a_talking_one_stays() {
    let mut world = World::new(1);
    let silent = world.connect();
    let half = world.connect();
    world.send_bytes(half, &[90, 0]);
    let welcomed = world.greet(0);
    let talking = world.greet(0);
    world.send(talking, 1, 0, &Request::Status);
    world.pass_ms(1_999);
    assert!([silent, half, welcomed, talking].into_iter().all(|line| world.is_open(line)));
    world.pass_ms(2);
    assert!(!world.is_open(silent) && !world.is_open(half) && !world.is_open(welcomed));
    assert!(world.is_open(talking));
}

#[test]
fn a_connection_that_stands_by_may_be_silent_and_then_takes_a_session_up() {
    let mut world = World::new(1);
    let standby = standing_by(&mut world);
    let (line, session, secret) = world.open(0, 60_000);
    world.pass_ms(30_000);
    assert!(world.is_open(standby) && world.is_open(line));
    world.send(standby, 1, 0, &Request::Resume { session, secret, received: 0 });
    assert!(matches!(world.only(standby).reply(), Reply::Resumed { .. }));
    assert!(!world.is_open(line), "the session came back on another connection");
}

#[test]
fn connections_that_stand_by_make_room_like_others_without_a_session() {
    let mut world = World::new(1);
    let standby = standing_by(&mut world);
    for _ in 0..15 {
        world.connect();
    }
    assert!(world.is_open(standby));
    world.connect();
    world.turn();
    assert!(!world.is_open(standby), "the oldest goes first");
}

/// A connection that was welcomed and waits for a session.
fn standing_by(world: &mut World) -> super::world::Line {
    let line = world.connect();
    let hello = Hello { features: FEATURE_STANDBY, ..Hello::to(ShardId(0)) };
    world.send(line, 0, 0, &Request::Hello(hello));
    let heard = world.only(line);
    assert!(matches!(heard.reply(), Reply::Welcome(welcome) if welcome.features == FEATURE_STANDBY));
    line
}

#[test]
fn the_rest_of_a_frame_has_to_come_in_time() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 5000);
    let mut bytes = vec![];
    acquire("x", Wait::Try).encode(RequestId(1), 0, &mut bytes);
    world.send_bytes(line, &bytes[..20]);
    world.pass_ms(999);
    world.send_bytes(line, &bytes[20..]);
    assert!(matches!(world.only(line).reply(), Reply::Granted(_)));
    world.send_bytes(line, &bytes[..3]);
    world.pass_ms(1_001);
    assert!(!world.is_open(line));
    assert_eq!(world.shards[0].table().counts().grants, 1, "the session outlives its connection");
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut world = World::new(1);
    let line = world.connect();
    let mut bytes = vec![];
    Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut bytes);
    Request::Status.encode(RequestId(3), 0, &mut bytes);
    for byte in bytes {
        world.send_bytes(line, &[byte]);
    }
    let heard = world.heard(line);
    assert!(matches!(heard[0].reply(), Reply::Welcome(_)) && matches!(heard[1].reply(), Reply::Status(_)));
}

#[test]
fn a_flood_from_one_address_costs_its_own_oldest_connections() {
    let mut world = World::new(1);
    let victim = world.connect_from(SocketAddr::from(([127, 0, 0, 2], 5)));
    let (bound, ..) = world.open(0, 5000);
    let flood: Vec<_> = (0..100).map(|_| world.connect()).collect();
    world.turn();
    assert!(world.is_open(victim) && world.is_open(bound), "other addresses and sessions are left alone");
    let open: Vec<_> = flood.iter().filter(|&&line| world.is_open(line)).collect();
    assert_eq!(open.len(), 16);
    assert_eq!(open, flood[84..].iter().collect::<Vec<_>>(), "the oldest went first");
}

#[test]
fn a_connection_moves_to_the_shard_it_names() {
    let mut world = World::new(3);
    let line = world.connect();
    world.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(2))));
    let heard = world.only(line);
    assert!(
        matches!(heard.reply(), Reply::Welcome(welcome) if welcome.shard == ShardId(2) && welcome.shards == 3)
    );
    let line = world.connect();
    world.send(line, 0, 0, &Request::Hello(Hello::to(ShardId(3))));
    refused_and_closed(&mut world, line, Refusal::BadRequest);
}

#[test]
fn a_name_of_another_shard_is_refused_with_the_right_one() {
    let mut world = World::new(2);
    let (line, ..) = world.open(0, 5000);
    let name = name_on(1, 2);
    world.send(line, 1, 0, &acquire(&name, Wait::Try));
    let heard = world.only(line);
    let Reply::Refused(refused) = heard.reply() else { panic!("{heard:?}") };
    assert_eq!(refused.refusal, Refusal::BadRequest);
    assert!(refused.detail.contains("shard 1"), "{}", refused.detail);
    assert!(world.is_open(line));
}

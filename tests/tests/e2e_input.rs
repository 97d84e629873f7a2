//! Bytes from peers that are wrong, by mistake or on purpose, against a real server: each is answered as
//! docs/wire-format.md §8 says, and another client's lock is untouched by all of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::request::Acquire;
use fairlock_protocol::{
    GrantId, Hello, Liveness, Malformed, Mode, Refusal, Reply, Request, RequestId, Secret, SessionId,
    ShardId, Wait,
};
use fairlock_tests::fuzz::corpus;
use fairlock_tests::random::{Random, seed};
use fairlock_tests::raw::{Raw, exclusive, session};
use fairlock_tests::server::{Plan, Server};
use fairlock_tests::ways;
use std::time::Duration;

/// A client that holds a lock while others misbehave.
struct Bystander {
    raw: Raw,
    grant: GrantId,
}

impl Bystander {
    fn of(endpoint: &str) -> Bystander {
        let mut raw = Raw::greeted(endpoint, ShardId::ANY);
        raw.open(60_000, Liveness::Heartbeat);
        let grant = raw.acquire(b"bystander").grant;
        Bystander { raw, grant }
    }

    /// It still holds its lock, and its connection was never touched.
    fn leaves(mut self) {
        let arrived = self.raw.call(&Request::Keepalive);
        assert!(matches!(arrived.reply(), Reply::Alive), "{arrived:?}");
        self.raw.release(self.grant);
    }
}

/// Lets a peer misbehave towards every kind of server, beside a bystander.
fn beside_a_bystander(mut misbehave: impl FnMut(&Server, &str)) {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let bystander = Bystander::of(&endpoint);
        misbehave(&server, &endpoint);
        bystander.leaves();
    }
}

fn frame(length: u32, kind: u8, request: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend(request.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn whole(kind: u8, request: u64, body: &[u8]) -> Vec<u8> {
    frame(16 + u32::try_from(body.len()).unwrap(), kind, request, body)
}

/// G26: each kind of malformed frame has its code, and ends its connection.
#[test]
fn malformed_frames_are_refused_with_their_code_and_end_their_connection() {
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("longer than a frame may be", frame(65_537, 5, 9, b""), Refusal::FrameTooLarge),
        ("as long as can be said", frame(u32::MAX, 5, 9, b""), Refusal::FrameTooLarge),
        ("shorter than its header", frame(15, 5, 9, b""), Refusal::BadRequest),
        ("of no length", frame(0, 5, 9, b""), Refusal::BadRequest),
        ("of an unknown kind", whole(0x7E, 9, b""), Refusal::BadRequest),
        ("of a server's kind", whole(0x90, 9, b""), Refusal::BadRequest),
        ("an ACQUIRE that ends early", whole(0x10, 9, &[0; 27]), Refusal::BadRequest),
        ("a KEEPALIVE with more behind it", whole(0x05, 9, b"x"), Refusal::BadRequest),
        ("a RELEASE of grant 0", whole(0x11, 9, &[0; 8]), Refusal::BadRequest),
        ("garbage", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Refusal::FrameTooLarge),
    ];
    beside_a_bystander(|_, endpoint| {
        for (what, bytes, refusal) in &cases {
            eprintln!("{what}");
            let mut raw = Raw::greeted(endpoint, ShardId::ANY);
            raw.open(60_000, Liveness::Heartbeat);
            raw.send_bytes(bytes).unwrap();
            raw.is_refused_and_closed(*refusal);
        }
    });
}

/// G26: the first words have an order.
#[test]
fn words_out_of_order_end_their_connection() {
    beside_a_bystander(|_, endpoint| {
        let mut silent = Raw::connect(endpoint);
        silent.send(&Request::Open(session(500, Liveness::Heartbeat)));
        silent.is_refused_and_closed(Refusal::BadRequest);

        let mut twice = Raw::greeted(endpoint, ShardId::ANY);
        twice.send_numbered(0, &Request::Hello(Hello::to(ShardId::ANY)));
        twice.is_refused_and_closed(Refusal::BadRequest);

        let mut two_sessions = Raw::greeted(endpoint, ShardId::ANY);
        two_sessions.open(60_000, Liveness::Heartbeat);
        two_sessions.send(&Request::Open(session(500, Liveness::Heartbeat)));
        two_sessions.is_refused_and_closed(Refusal::BadRequest);

        let mut nowhere = Raw::connect(endpoint);
        nowhere.send_numbered(0, &Request::Hello(Hello::to(ShardId(7))));
        nowhere.is_refused_and_closed(Refusal::BadRequest);

        let mut stranger = Raw::connect(endpoint);
        let mut hello = Vec::new();
        Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut hello);
        hello[16] = b'f';
        stranger.send_bytes(&hello).unwrap();
        stranger.is_refused_and_closed(Refusal::BadRequest);
    });
}

/// G26: an old or a future client learns why it is not served.
#[test]
fn a_version_that_nobody_speaks_is_refused_as_that() {
    beside_a_bystander(|_, endpoint| {
        for (version_min, version_max) in [(2, 9), (0, 0)] {
            let mut raw = Raw::connect(endpoint);
            let hello = Hello { version_min, version_max, ..Hello::to(ShardId::ANY) };
            raw.send_numbered(0, &Request::Hello(hello));
            raw.is_refused_and_closed(Refusal::Version);
        }
        let mut tolerant = Raw::connect(endpoint);
        tolerant.send_numbered(0, &Request::Hello(Hello { version_max: 9, ..Hello::to(ShardId::ANY) }));
        assert!(matches!(tolerant.receive().reply(), Reply::Welcome(welcome) if welcome.version == 1));
    });
}

/// G13: a session is proved by its secret; a wrong one and an unknown session look the same.
#[test]
fn a_session_is_not_taken_up_without_its_secret() {
    beside_a_bystander(|_, endpoint| {
        let mut owner = Raw::greeted(endpoint, ShardId::ANY);
        let (session, secret) = owner.open(60_000, Liveness::Heartbeat);
        let unknown = SessionId::from_raw(session.get() + 77).unwrap();
        let mut thief = Raw::greeted(endpoint, ShardId::ANY);
        for (session, secret) in [(session, Secret(secret.0 ^ 1)), (session, Secret(0)), (unknown, secret)] {
            let arrived = thief.call(&Request::Resume { session, secret, received: 0 });
            assert_eq!(arrived.refusal(), Some(Refusal::SessionUnknown));
        }
        assert!(matches!(owner.call(&Request::Keepalive).reply(), Reply::Alive), "its owner did not notice");
    });
}

/// G26: requests that need a session are refused without one, and the connection goes on.
#[test]
fn nothing_is_locked_without_a_session() {
    beside_a_bystander(|_, endpoint| {
        let mut raw = Raw::greeted(endpoint, ShardId::ANY);
        let grant = GrantId::from_raw(1).unwrap();
        for request in [
            Request::Acquire(exclusive(b"x")),
            Request::Keepalive,
            Request::Close,
            Request::Release(grant),
            Request::Convert { grant, mode: Mode::PR, wait: Wait::Forever },
            Request::Cancel(RequestId(1)),
            Request::Confirm(grant),
        ] {
            assert_eq!(raw.call(&request).refusal(), Some(Refusal::SessionUnknown), "{request:?}");
        }
        raw.open(60_000, Liveness::Heartbeat);
        raw.acquire(b"x");
    });
}

/// G26: a count of answers that cannot be is not believed.
#[test]
fn an_impossible_acknowledgement_ends_the_connection_and_not_the_session() {
    beside_a_bystander(|_, endpoint| {
        let mut raw = Raw::greeted(endpoint, ShardId::ANY);
        let (session, secret) = raw.open(60_000, Liveness::Heartbeat);
        let held = raw.acquire(b"held");
        raw.kept += 5;
        raw.send(&Request::Keepalive);
        raw.is_refused_and_closed(Refusal::BadRequest);

        let mut again = Raw::greeted(endpoint, ShardId::ANY);
        again.send(&Request::Resume { session, secret, received: 9 });
        again.is_refused_and_closed(Refusal::BadRequest);

        let mut honest = Raw::greeted(endpoint, ShardId::ANY);
        let arrived = honest.call(&Request::Resume { session, secret, received: 1 });
        assert!(matches!(arrived.reply(), Reply::Resumed { following: 0, .. }), "{arrived:?}");
        honest.kept = 1;
        honest.next = 100;
        honest.release(held.grant);
    });
}

/// G31: what is no name is refused, the connection goes on; NUL and invalid UTF-8 are names.
#[test]
fn names_that_are_none_are_refused_one_by_one() {
    // An ACQUIRE as the protocol's own writer would never write it.
    fn acquire(namespace: &[u8], name: &[u8], label: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 20];
        body[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        body.extend([5, 0, 0, u8::try_from(namespace.len()).unwrap()]);
        body.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        body.extend(u16::try_from(label.len()).unwrap().to_le_bytes());
        body.extend([namespace, name, label].concat());
        body
    }
    beside_a_bystander(|_, endpoint| {
        let mut raw = Raw::greeted(endpoint, ShardId::ANY);
        raw.open(60_000, Liveness::Heartbeat);
        let long = [b'n'; 1025];
        let cases: [([&[u8]; 3], Refusal); 5] = [
            ([b"", b"", b""], Refusal::BadName),
            ([b"Upper", b"x", b""], Refusal::BadName),
            ([b"", &long, b""], Refusal::TooLong),
            ([&long[..65], b"x", b""], Refusal::TooLong),
            ([b"", b"x", &long[..257]], Refusal::TooLong),
        ];
        for (number, ([namespace, name, label], refusal)) in (1..).zip(cases) {
            raw.send_bytes(&whole(0x10, number, &acquire(namespace, name, label))).unwrap();
            assert_eq!(raw.answer(number).refusal(), Some(refusal));
        }
        raw.next = 50;
        for name in [&b"with\0nul"[..], b"\xff\xfe", &long[..1024]] {
            let grant = raw.acquire(name).grant;
            raw.release(grant);
        }
        let mut late = exclusive(b"x");
        late.lock_delay_ms = 60_001;
        assert_eq!(raw.call(&Request::Acquire(late)).refusal(), Some(Refusal::BadRequest));
    });
}

/// G26: what is not one's own cannot be given back, changed, or confirmed.
#[test]
fn a_grant_of_somebody_else_is_not_held() {
    beside_a_bystander(|_, endpoint| {
        let mut owner = Raw::greeted(endpoint, ShardId::ANY);
        owner.open(60_000, Liveness::Heartbeat);
        let grant = owner.acquire(b"mine").grant;
        let mut other = Raw::greeted(endpoint, ShardId::ANY);
        other.open(60_000, Liveness::Heartbeat);
        assert_eq!(other.call(&Request::Release(grant)).refusal(), Some(Refusal::NotHeld));
        let convert = Request::Convert { grant, mode: Mode::NL, wait: Wait::Try };
        assert_eq!(other.call(&convert).refusal(), Some(Refusal::NotHeld));
        other.send(&Request::Confirm(grant));
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"mine") };
        assert_eq!(other.call(&Request::Acquire(attempt)).refusal(), Some(Refusal::WouldBlock));
        owner.release(grant);
    });
}

/// G27: who begins a frame and does not end it, or says nothing, is dropped; a waiter that is silent is not.
#[test]
fn the_slow_are_dropped_and_the_patient_are_not() {
    beside_a_bystander(|_, endpoint| {
        let mut half = Raw::greeted(endpoint, ShardId::ANY);
        half.open(60_000, Liveness::Heartbeat);
        half.send_bytes(&whole(0x05, 9, b"")[..9]).unwrap();
        let mut mute = Raw::connect(endpoint);
        let mut half_hello = Raw::connect(endpoint);
        half_hello.send_bytes(&[60, 0, 0]).unwrap();
        let mut welcomed = Raw::greeted(endpoint, ShardId::ANY);
        let mut waiter = Raw::greeted(endpoint, ShardId::ANY);
        waiter.open(60_000, Liveness::Heartbeat);
        waiter.send(&Request::Acquire(exclusive(b"bystander")));
        half.is_refused_and_closed(Refusal::BadRequest);
        for raw in [&mut mute, &mut half_hello, &mut welcomed] {
            let last = raw.until_closed().pop();
            let refusal = last.and_then(|last| last.refusal());
            assert!(matches!(refusal, None | Some(Refusal::BadRequest)), "{refusal:?}");
        }
        assert!(waiter.frame_within(Duration::from_millis(50)).is_err(), "it waits, and nobody minds");
    });
}

/// G27: bytes that come one by one are as good as any, if they come.
#[test]
fn a_frame_may_come_byte_by_byte() {
    beside_a_bystander(|_, endpoint| {
        let mut raw = Raw::connect(endpoint);
        let mut hello = Vec::new();
        Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut hello);
        for byte in hello {
            raw.send_bytes(&[byte]).unwrap();
        }
        assert!(matches!(raw.receive().reply(), Reply::Welcome(_)));
        let mut bytes = Vec::new();
        Request::Open(session(60_000, Liveness::Heartbeat)).encode(RequestId(1), 0, &mut bytes);
        Request::Acquire(exclusive(b"drop by drop")).encode(RequestId(2), 0, &mut bytes);
        for byte in bytes {
            raw.send_bytes(&[byte]).unwrap();
        }
        assert!(matches!(raw.answer(2).reply(), Reply::Granted(_)));
    });
}

/// G26: a storm of spoilt streams leaves a server that serves.
#[test]
fn spoilt_streams_harm_nobody() {
    let seed = seed("spoilt streams", 0x5B01);
    beside_a_bystander(|server, endpoint| {
        let mut random = Random::from_seed(seed);
        let sound = corpus::sound();
        for _ in 0..300 {
            let mut raw = Raw::connect(endpoint);
            if random.once_in(2) {
                raw.greet(ShardId::ANY);
                raw.open(200, Liveness::Heartbeat);
            }
            for _ in 0..=random.below(4) {
                if raw.send_bytes(&corpus::spoilt(&sound, &mut random)).is_err() {
                    break;
                }
            }
        }
        assert!(!server.plan.log().contains("panicked"), "{}", server.plan.log());
        let mut after = Raw::greeted(endpoint, ShardId::ANY);
        after.open(60_000, Liveness::Heartbeat);
        after.acquire(b"after");
    });
}

/// G30: a name of another shard is refused, and nothing is done.
#[test]
fn a_name_of_another_shard_is_refused_and_the_connection_goes_on() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).start();
        let mut raw = Raw::greeted(&server.tcp(), ShardId(0));
        raw.open(60_000, Liveness::Heartbeat);
        let key = raw.welcome.unwrap().digest_key;
        let names: Vec<String> = (0..64).map(|number| format!("name {number}")).collect();
        let shard_of = |name: &String| key.digest(exclusive(name.as_bytes()).resource).shard(2);
        let foreign = names.iter().find(|name| shard_of(name) == ShardId(1)).unwrap();
        let own = names.iter().find(|name| shard_of(name) == ShardId(0)).unwrap();
        let arrived = raw.call(&Request::Acquire(exclusive(foreign.as_bytes())));
        assert_eq!(arrived.refusal(), Some(Refusal::BadRequest));
        raw.acquire(own.as_bytes());
        let mut other = Raw::greeted(&server.unix(), ShardId(1));
        other.open(60_000, Liveness::Heartbeat);
        other.acquire(foreign.as_bytes());
    }
}

#[test]
fn the_codes_above_are_those_of_the_protocol() {
    assert_eq!(Malformed::TooLarge { claimed: 65_537 }.refusal(), Refusal::FrameTooLarge);
    assert_eq!(Malformed::UnknownKind(0x7E).refusal(), Refusal::BadRequest);
}

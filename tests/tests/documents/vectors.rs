//! The messages behind the examples of docs/wire-format.md, and the kind numbers with their names.

use fairlock_protocol::cluster::{ClusterView, NodeBuffer, NodeEntry, NodePart};
use fairlock_protocol::handshake::{FEATURE_ADMIN, HELLO, WELCOME};
use fairlock_protocol::reply::{self, Grant, Refused};
use fairlock_protocol::request::{self, Acquire, Open};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    CellId, DigestKey, Epoch, FencingToken, Frame, GrantId, Hello, Liveness, Mode, OwnerId, Priority,
    Refusal, Reply, Request, RequestId, Resource, Role, Secret, SessionId, ShardId, Wait, Welcome,
    Whereabouts,
};

fn request(number: u64, ack: u16, message: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(RequestId(number), ack, &mut out);
    let (frame, _) = Frame::split(&out).unwrap().unwrap();
    assert_eq!(Request::decode(&frame), Ok(*message), "what is written is what is read");
    out
}

fn reply(number: u64, flags: u8, message: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(RequestId(number), flags, &mut out);
    let (frame, _) = Frame::split(&out).unwrap().unwrap();
    assert_eq!(Reply::decode(&frame), Ok(*message), "what is written is what is read");
    out
}

/// Every example, in the order of the document.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let (epoch, secret) = (Epoch::new(1000).unwrap(), Secret(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100));
    let session = SessionId::new(epoch, ShardId(0), 7).unwrap();
    let grant_id = GrantId::from_raw(0x0000_0001_0000_0002).unwrap();
    let token = FencingToken::new(epoch, 1).unwrap();
    let welcome = Welcome {
        version: 1,
        shard: ShardId(0),
        shards: 1,
        role: Role::Standalone,
        features: FEATURE_ADMIN,
        cell: CellId(1),
        epoch: 1000,
        ttl_max_ms: 60_000,
        recovering_ms: 0,
        digest_key: DigestKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]),
    };
    let open = Open {
        ttl_ms: 5000,
        liveness: Liveness::Heartbeat,
        predecessor_gone: false,
        pid: 42,
        identity: b"",
        reclaim_key: b"",
        host: b"h1",
        exe: b"/bin/x",
        label: b"nightly",
    };
    let acquire = Acquire {
        resource: Resource::new(b"", b"demo").unwrap(),
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait: Wait::Forever,
        owner: OwnerId(0),
        reentrant: false,
        notify: false,
        cacheable: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    };
    let nodes = Whereabouts { epoch: 1001, endpoints: "tcp://b:7411" };
    let not_primary = Refused { primary: Some(nodes), ..Refusal::NotPrimary.into() };
    let opened = Reply::Opened { session, secret, ttl_ms: 5000, home: ShardId(0) };
    vec![
        ("hello", request(0, 0, &Request::Hello(Hello::to(ShardId::ANY)))),
        ("welcome", reply(0, 0, &Reply::Welcome(welcome))),
        ("open", request(1, 0, &Request::Open(open))),
        ("opened", reply(1, FLAG_RENEWED, &opened)),
        ("acquire", request(2, 0, &Request::Acquire(acquire))),
        ("granted", reply(2, FLAG_RENEWED | FLAG_KEPT, &Reply::Granted(granted(grant_id, token)))),
        ("keepalive", request(3, 1, &Request::Keepalive)),
        ("alive", reply(3, FLAG_RENEWED, &Reply::Alive)),
        ("release", request(4, 1, &Request::Release(grant_id))),
        ("released", reply(4, FLAG_RENEWED | FLAG_KEPT, &Reply::Released { remaining: 0 })),
        ("resume", request(1, 0, &Request::Resume { session, secret, received: 2 })),
        ("resumed", reply(1, FLAG_RENEWED, &Reply::Resumed { ttl_ms: 5000, seen: 4, following: 0 })),
        ("refused", reply(5, 0, &Reply::Refused(Refusal::WouldBlock.into()))),
        ("not_primary", reply(1, 0, &Reply::Refused(not_primary))),
        ("members", reply(0, 0, &Reply::Members(nodes))),
        ("switchover", request(1, 0, &Request::Switchover("b"))),
        ("fulfilled", reply(1, 0, &Reply::Fulfilled { took_ms: 12, primary: nodes })),
        ("cluster", cluster()),
    ]
}

fn granted(grant: GrantId, token: FencingToken) -> Grant {
    Grant {
        grant,
        token: Some(token),
        fence: token.get() - 1,
        mode: Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered: false,
        proof: None,
    }
}

/// What a node says of a cell that it is alone in.
fn cluster() -> Vec<u8> {
    let mut of_cell = NodeBuffer::default();
    assert!(of_cell.push(&NodeEntry {
        node: "b",
        part: NodePart::Primary,
        incarnation: 5,
        machine: "4a",
        peer: "b:7413",
        clients: "tcp://b:7411",
        lag: Some(0),
        streams: 0,
    }));
    let view = ClusterView {
        name: "prod",
        cell: CellId(1),
        epoch: 1001,
        reign: 1001,
        primary: "b",
        node: "b",
        part: NodePart::Primary,
        feature_level: 1,
        feature_level_own: 1,
        shards: 1,
        copies: 1,
        copies_min: 1,
        ttl_horizon_ms: 5000,
        recovering_ms: 0,
        state_lost: false,
        register: "etcd://r:2379",
        register_fault: "",
        waits_for: "",
        alarms: "",
        nodes: of_cell.list(),
    };
    reply(2, 0, &Reply::Cluster(view))
}

/// An example as it should stand in the document: the header on the first line, then sixteen bytes a line.
pub(crate) fn block(name: &str, bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = bytes.chunks(16).map(line).collect();
    format!("```vector {name}\n{}\n```\n\n", lines.join("\n"))
}

/// Kind numbers and names.
pub(crate) fn kinds() -> Vec<(u8, &'static str)> {
    macro_rules! named {
        ($($side:ident: $($name:ident)*;)*) => { vec![$($(($side::kind::$name, stringify!($name)),)*)*] };
    }
    let mut kinds = named! {
        request: OPEN RESUME CLOSE KEEPALIVE ACQUIRE RELEASE CONVERT CANCEL VALIDATE CONFIRM ACQUIRE_ALL LOOK LIST SHOW SESSIONS
            STATUS BREAK KILL CLUSTER SWITCHOVER EVICT FORCE_NEW;
        reply: OPENED RESUMED CLOSED ALIVE SEGMENT GRANTED RELEASED CONVERTED WITHDRAWN VALIDATED REFUSED LISTED SHOWN
            SESSIONS STATUS BROKE KILLED CLUSTER FULFILLED NOTE_BLOCKING NOTE_BROKEN NOTE_HOLD_OVER NOTE_KILLED NOTE_OVER
            NOTE_DRAINING NOTE_CACHED NOTE_MEMBERS;
    };
    kinds.extend([(HELLO, "HELLO"), (WELCOME, "WELCOME")]);
    kinds
}

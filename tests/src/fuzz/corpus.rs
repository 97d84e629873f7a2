//! Sound streams to begin with, and the ways in which they are made unsound.

use crate::random::Random;
use crate::raw::{exclusive, session};
use fairlock_protocol::bundle::ItemsBuffer;
use fairlock_protocol::cluster::{ClusterView, NodeBuffer, NodeEntry, NodePart};
use fairlock_protocol::reply::{Grant, Refused};
use fairlock_protocol::request::{Acquire, AcquireAll};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    CellId, Epoch, FencingToken, GrantId, Hello, Liveness, Mode, OwnerId, Refusal, Reply, Request, RequestId,
    Resource, Secret, SessionId, ShardId, Wait, Whereabouts,
};

/// Streams of frames that are as they should be.
///
/// # Panics
/// Never: the parts are sound.
pub fn sound() -> Vec<Vec<u8>> {
    let resource = Resource::new(b"vm", b"disk\0\xff").expect("a resource");
    let epoch = Epoch::new(3).expect("an epoch");
    let session_id = SessionId::new(epoch, ShardId(1), 9).expect("a session");
    let token = FencingToken::new(epoch, 5).expect("a token");
    let grant = GrantId::from_raw(7).expect("a grant");
    let mut open = session(500, Liveness::Process);
    (open.host, open.label) = (b"h1", b"nightly");
    let items = ItemsBuffer::new(vec![(resource, Mode::EX), (exclusive(b"b").resource, Mode::PR)])
        .expect("two items");
    let all = AcquireAll { wait: Wait::Forever, owner: OwnerId(0), items: items.items(), label: b"both" };
    let requests = [
        Request::AcquireAll(all),
        Request::Hello(Hello { auth: b"credential", ..Hello::to(ShardId(2)) }),
        Request::Open(open),
        Request::Resume { session: session_id, secret: Secret(1 << 77), received: 3 },
        Request::Close,
        Request::Keepalive,
        Request::Acquire(exclusive(b"demo")),
        Request::Acquire(Acquire {
            resource,
            mode: Mode::CW,
            wait: Wait::Millis(9),
            label: b"x",
            ..exclusive(b"d")
        }),
        Request::Release(grant),
        Request::Convert { grant, mode: Mode::PW, wait: Wait::Try },
        Request::Cancel(RequestId(4)),
        Request::Validate { resource, token },
        Request::Confirm(grant),
        Request::List { cursor: 0, prefix: b"ord" },
        Request::Show { cursor: 1, resource },
        Request::Sessions { cursor: 2 },
        Request::Status,
        Request::Break { resource, force: false },
        Request::Kill { session: session_id, force: true },
        Request::Cluster,
        Request::Switchover(""),
        Request::Evict("b"),
        Request::ForceNew("b,c"),
    ];
    let mut streams = vec![Vec::new(), Vec::new()];
    for (request, number) in requests.iter().zip(0..) {
        request.encode(RequestId(number), 0, &mut streams[0]);
        let mut alone = Vec::new();
        request.encode(RequestId(number), 1, &mut alone);
        streams.push(alone);
    }
    for (reply, number) in replies(session_id, grant, token).iter().zip(1..) {
        reply.encode(RequestId(number), FLAG_KEPT | FLAG_RENEWED, &mut streams[1]);
        let mut alone = Vec::new();
        reply.encode(RequestId(number), 0, &mut alone);
        streams.push(alone);
    }
    streams.push(view());
    streams
}

/// What a node of a cell says of it.
fn view() -> Vec<u8> {
    let mut nodes = NodeBuffer::default();
    for (node, part, lag) in [("a", NodePart::Primary, Some(0)), ("b", NodePart::Joining, None)] {
        let (peer, clients) = ("10.0.0.1:7413", "tcp://10.0.0.1:7411");
        let entry = NodeEntry { node, part, incarnation: 9, machine: "4a", peer, clients, lag, streams: 1 };
        assert!(nodes.push(&entry), "two nodes fit");
    }
    let view = ClusterView {
        name: "prod",
        cell: CellId(77),
        epoch: 4,
        reign: 3,
        primary: "a",
        node: "a",
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
        register_fault: "it is silent",
        waits_for: "c",
        alarms: "copies: copies=1",
        nodes: nodes.list(),
    };
    let mut out = Vec::new();
    Reply::Cluster(view).encode(RequestId(1), 0, &mut out);
    out
}

/// What a server says, each once.
fn replies(session: SessionId, grant: GrantId, token: FencingToken) -> [Reply<'static>; 9] {
    let granted = Grant {
        grant,
        token: Some(token),
        fence: 4,
        mode: Mode::EX,
        waited_us: 8,
        previous_owner_died: true,
        reentered: false,
        proof: None,
    };
    let nodes = Whereabouts { epoch: 4, endpoints: "tcp://b:7411,tcp://a:7411" };
    [
        Reply::Opened { session, secret: Secret(7), ttl_ms: 500, home: ShardId(1) },
        Reply::Granted(granted),
        Reply::Released { remaining: 1 },
        Reply::Refused(Refused {
            refusal: Refusal::Timeout,
            retry_after_ms: 0,
            cycle: None,
            primary: None,
            detail: "why",
        }),
        Reply::Blocking { grant, wanted: Mode::PR, waiters: 2 },
        Reply::Over(Refusal::SessionExpired),
        Reply::Refused(Refused { primary: Some(nodes), ..Refusal::NotPrimary.into() }),
        Reply::Members(nodes),
        Reply::Fulfilled { took_ms: 3, primary: nodes },
    ]
}

/// One more stream: a sound one, spoilt in one to four ways; sometimes nothing but noise.
pub fn spoilt(sound: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if random.once_in(32) {
        let length = random.index(200);
        return random.bytes(length);
    }
    let mut bytes = sound[random.index(sound.len())].clone();
    for _ in 0..=random.below(4) {
        spoil(&mut bytes, sound, random);
    }
    bytes
}

/// Values at which things go wrong.
const EDGES: [u64; 10] = [0, 1, 15, 16, 17, 0xFF, 0xFFFF, 65_536, 65_537, u64::MAX];

fn spoil(bytes: &mut Vec<u8>, sound: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(0);
    }
    let at = random.index(bytes.len());
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next().to_le_bytes()[0],
        2 => bytes.truncate(at),
        3 => {
            let edge = EDGES[random.index(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.index(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&edge[..width]);
        }
        4 => {
            let length = random.index(20);
            let noise = random.bytes(length);
            bytes.splice(at..at, noise);
            repair(bytes);
        }
        5 => {
            let until = at + random.index(bytes.len() - at + 1);
            bytes.drain(at..until);
            repair(bytes);
        }
        _ => bytes.extend_from_slice(&sound[random.index(sound.len())]),
    }
}

/// Lets the first frame's length be true again, so that what is wrong lies deeper.
fn repair(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(field) = bytes.first_chunk_mut::<4>() {
        *field = length;
    }
}

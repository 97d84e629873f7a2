//! Opening a session: the one talk during which nothing is held yet, so that a thread may simply wait for it.

use super::core::Config;
use super::lane::Lane;
use super::nodes::Nodes;
use super::session::Session;
use crate::builder::Transport;
use crate::clock;
use crate::dial::{self, Wire};
use crate::error::ConnectError;
use crate::session::{Directions, Fault, Jitter, Lease, Passport, Stream};
use crate::transport::{self, Link, Memory, Road, Target};
use fairlock_protocol::handshake::FEATURE_PROOF;
use fairlock_protocol::limits::{ATTRIBUTE_BYTES_MAX, TTL_MAX, TTL_MIN};
use fairlock_protocol::request::Open;
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{Hello, Liveness, Reply, Request, Role, Secret, SessionId, ShardId, Welcome};
use fairlock_shm::fork::ForkMark;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What OPENED said.
pub(super) struct Opened {
    pub(super) session: SessionId,
    pub(super) secret: Secret,
    pub(super) ttl: Duration,
    pub(super) home: ShardId,
    pub(super) kept: bool,
}

/// Connects to the first of the nodes that takes us, and opens a session there.
pub(super) fn open(
    config: &Config,
    nodes: &Arc<Nodes>,
    mark: &Arc<ForkMark>,
    wanted: &dyn Fn() -> bool,
) -> Result<Arc<Session>, ConnectError> {
    dial::first_that(&|| nodes.in_order(), config.deadline, wanted, |target, allowed| {
        let mut asks = transport::asks_for_memory(target, config.transport).then_some(mark);
        loop {
            let mut wire = Wire::connect(target, allowed, wanted)?;
            let plain = Hello::to(ShardId::ANY);
            let hello = Hello { features: plain.features | FEATURE_PROOF, ..plain };
            let greeted = wire.greet(hello, config.inherit.as_ref(), asks, wanted);
            let (welcome, reason) = match greeted {
                Err(ConnectError::NoSharedMemory { reason, .. }) if config.transport == Transport::Auto => {
                    tracing::info!(%reason, "no shared memory; another connection stays on the socket");
                    asks = None;
                    continue;
                }
                greeted => greeted?,
            };
            if let Some(reason) = reason {
                if config.transport == Transport::Shm {
                    return Err(ConnectError::NoSharedMemory { endpoint: wire.endpoint, reason });
                }
                tracing::info!(%reason, "no shared memory; the connection stays on the socket");
            }
            return introduce(config, wire, &welcome, (nodes, target, mark), wanted);
        }
    })
}

/// Opens the session on a connection that was welcomed.
fn introduce(
    config: &Config,
    mut wire: Wire,
    welcome: &Welcome,
    place: (&Arc<Nodes>, &Target, &Arc<ForkMark>),
    wanted: &dyn Fn() -> bool,
) -> Result<Arc<Session>, ConnectError> {
    let shard = dial::shard_of(welcome).map_err(|fault| wire.fault(fault, "WELCOME"))?;
    // Read before the first byte of OPEN can be on its way: the lease counts from here.
    let sent = clock::now();
    let opened = say_open(config, &mut wire, (place.0, place.1), wanted)?;
    if opened.home != shard {
        return Err(wire.fault(Fault::OutOfTurn("another home than the shard that was asked"), "OPENED"));
    }
    let passport = Passport {
        identity: Mutex::new((opened.session, opened.secret)),
        home: opened.home,
        shards: welcome.shards,
        digest_key: welcome.digest_key,
        cell: welcome.cell,
        epoch: AtomicU32::new(welcome.epoch),
    };
    let memory = wire.memory.take().map(Arc::new);
    let mut lease = Lease::new(sent, opened.ttl);
    if let Some(memory) = &memory {
        let (stamps_renew, alone) =
            (config.liveness != Liveness::Heartbeat, welcome.role == Role::Standalone);
        lease = lease.shown_in(Arc::clone(memory), stamps_renew, alone);
    }
    let in_cell = welcome.role != Role::Standalone;
    let session = assemble((passport, lease, in_cell), (wire, memory), &opened, place)?;
    if config.confirm_when_released {
        session.lanes.iter().for_each(|lane| lane.state().stream.confirm_when_released());
    }
    Ok(session)
}

pub(super) fn say_open(
    config: &Config,
    wire: &mut Wire,
    (nodes, target): (&Arc<Nodes>, &Target),
    wanted: &dyn Fn() -> bool,
) -> Result<Opened, ConnectError> {
    // Of a local program that found the primary on another host, as of one whose session was taken there.
    let liveness = match (config.liveness, target) {
        (Liveness::Process, Target::Tcp(..)) => Liveness::Heartbeat,
        (said, _) => said,
    };
    let host = rustix::system::uname();
    let exe = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let open = Open {
        ttl_ms: config.ttl_ms,
        liveness,
        predecessor_gone: config.predecessor_gone,
        pid: std::process::id(),
        identity: &config.identity,
        reclaim_key: &config.reclaim_key,
        host: cut(host.nodename().to_bytes()),
        exe: cut(exe.as_os_str().as_bytes()),
        label: config.label.as_bytes(),
    };
    wire.ask(&Request::Open(open), wanted)?;
    let endpoint = wire.endpoint.clone();
    wire.answer(wanted, |reply, flags, _| match *reply {
        Reply::Opened { session, secret, ttl_ms, home } => {
            let ttl = Duration::from_millis(ttl_ms.into());
            if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
                return Err(ConnectError::OutOfTurn {
                    endpoint,
                    said: "a lease out of bounds",
                    expected: "OPENED",
                });
            }
            Ok(Opened { session, secret, ttl, home, kept: flags & FLAG_KEPT != 0 })
        }
        Reply::Refused(refused) => {
            if let Some(primary) = refused.primary {
                nodes.learn(&Directions::from(primary), false);
            }
            let detail = refused.detail.to_owned();
            Err(ConnectError::Refused { endpoint, refusal: refused.refusal, detail })
        }
        _ => Err(ConnectError::OutOfTurn { endpoint, said: "something else", expected: "OPENED" }),
    })?
}

/// An attribute as far as a server keeps it.
fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(ATTRIBUTE_BYTES_MAX)]
}

/// Builds the session around its first connection.
fn assemble(
    (passport, lease, in_cell): (Passport, Lease, bool),
    (wire, memory): (Wire, Option<Arc<Memory>>),
    opened: &Opened,
    (nodes, target, mark): (&Arc<Nodes>, &Target, &Arc<ForkMark>),
) -> Result<Arc<Session>, ConnectError> {
    let mut seed = [0; 8];
    if getrandom::fill(&mut seed).is_err() {
        // Only deviations hang on it; the id differs between clients too.
        seed = passport.session().get().to_le_bytes();
    }
    let seed = u64::from_le_bytes(seed);
    let (passport, lease) = (Arc::new(passport), Arc::new(lease));
    let place = nodes.all().iter().position(|known| known.is_same_place(target)).unwrap_or(0);
    let lanes = (0..passport.shards).map(|index| {
        let (shard, jitter) = (ShardId(index), Jitter::new(seed.rotate_left(index.into())));
        let stream = Stream::new(shard, Arc::clone(&passport), Arc::clone(&lease), jitter.clone());
        let stream = if shard == opened.home { stream.opened(1, opened.kept.into()) } else { stream };
        Lane::new(stream, shard, place, jitter)
    });
    let lanes = lanes
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ConnectError::System { what: "a descriptor", source: Arc::new(source) })?;
    let session = Session::new(passport, lease, lanes, in_cell);
    let road = memory.map_or(Road::Stream, Road::Memory);
    let link = |number| Link::new(wire.socket, road, opened.home, mark, number);
    session.home().adopt(link, wire.inbox, target);
    Ok(Arc::new(session))
}

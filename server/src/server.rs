//! A running server: everything is opened and checked before the first thread serves, so that a server either starts
//! whole or says why it cannot.
//!
//! Order matters at two places. The state directory is locked, read and made durable before any frame can be read, and
//! a shard's driver is opened by the thread that will use it, because a ring has a single issuer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use fairlock_locktable::{Limits, NamespaceRules, Settings as TableSettings, Table};
use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey, ShardId, Tick};
use fairlock_replication::Fresh;
use fairlock_replication::profile::Profile;
use fairlock_replication::replica::Replica;
use fairlock_shm::beacon::{BEACON_SHARDS, Beacon};
use fairlock_shm::robust::LastWord;
use fairlock_shm::word::Leaving;

use crate::clock;
use crate::config::{Config, IoChoice, SHARDS_MAX};
use crate::control::{
    Alarms, Control, ControlParts, ExitReport, Keeping, Settled, StopReason, Stopper, bind_tcp,
};
use crate::driver::{self, Waker};
use crate::error::StartError;
use crate::host::{pin, processors, raise_descriptor_limit};
use crate::lanes::{ControlLane, ShardLane};
use crate::pass::{ShardThread, Wiring};
use crate::patience::{Temper, wake_cost};
use crate::shard::{Settings, Shard};
use crate::state::{
    Beginning, Begun, NodeState, Past, Pasts, SnapshotPlace, StateDirectory, default_directory, snapshot,
};
use crate::stats::ShardStats;

/// What a started server tells whoever started it: the fields of the ready line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ready {
    /// TCP addresses it listens on, with the real port.
    pub tcp: Vec<SocketAddr>,
    /// Path of its Unix socket.
    pub socket: Option<PathBuf>,
    /// Address of the admin page.
    pub admin: Option<SocketAddr>,
    /// Number of shards.
    pub shards: u16,
    /// Driver in use: `uring` or `epoll`.
    pub io: &'static str,
    /// What it is to its cell.
    pub role: &'static str,
    /// Its epoch.
    pub epoch: u32,
    /// What is left of a quarantine, in milliseconds.
    pub recovering_ms: u64,
    /// Process id.
    pub pid: u32,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    ready: Ready,
    control: Control,
}

/// What a shard's thread needs once every other thread is there.
struct Start {
    settings: Settings,
    limits: Limits,
    rules: NamespaceRules,
    index_key: u64,
    listeners: Vec<OwnedFd>,
    wiring: Wiring,
    stats: Arc<ShardStats>,
    alarms: Alarms,
    temper: Temper,
    write_backlog_bytes: usize,
    beacon: Option<Arc<Beacon>>,
    profile: Option<Profile>,
    past: Option<Past>,
    snapshots: Option<SnapshotPlace>,
}

const _: () = assert!(SHARDS_MAX as usize <= BEACON_SHARDS, "every shard has a line in the beacon");

/// A shard's thread that has opened its driver and waits for the others.
struct Worker {
    thread: JoinHandle<()>,
    start: mpsc::Sender<Start>,
    waker: Waker,
    io: &'static str,
}

impl Server {
    /// Starts a server and returns when it serves.
    ///
    /// # Errors
    /// [`StartError`], each saying what to do; nothing is left behind then.
    #[expect(clippy::needless_pass_by_value, reason = "a running server's configuration cannot be changed")]
    pub fn start(config: Config) -> Result<Server, StartError> {
        config.check()?;
        if config.is_exposed() {
            tracing::warn!("listening beyond loopback without authentication, as --insecure allows");
        }
        raise_descriptor_limit();
        let started = clock::now();
        let path = match &config.state_dir {
            Some(path) => path.clone(),
            None => default_directory()?,
        };
        let directory = StateDirectory::open(&path)?;
        let tcp = config.listen.iter().map(|&address| bind_tcp(address)).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<SocketAddr> =
            tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let doors = crate::control::Doors::open(&config)?;
        let count = shard_count(&config);
        let workers = spawn_workers(count, &config)?;
        let io = workers.first().map_or("none", |worker| worker.io);
        let in_cell = config.cell.is_told();
        let founding =
            in_cell.then(|| crate::cell::found(&config, &addresses, count, &directory)).transpose()?;
        let profile = founding.as_ref().map(|founding| founding.profile);
        let index_key = random_key()?.0[0];
        let (mut alone, mut lock) = (None, None);
        let (beginning, past) = if founding.is_some() {
            lock = Some(directory);
            (Beginning::unknown(), Inheritance::default())
        } else {
            let begun = begin(directory, &config, count, index_key)?;
            let past =
                Inheritance::of(&begun.state, begun.pasts, begun.unusable.map(|why| why.to_string()), count)?;
            alone = Some(begun.state);
            (begun.beginning, past)
        };
        let mut ready = Ready {
            tcp: addresses,
            socket: doors.socket_path(),
            admin: doors.admin_address(),
            shards: count,
            io,
            role: if profile.is_some() { "joining" } else { "standalone" },
            epoch: beginning.epoch.get(),
            recovering_ms: milliseconds_until(beginning.recovering_until),
            pid: std::process::id(),
        };
        let cell = Cell { beginning, started, index_key, profile };
        let listeners = tcp.into_iter().map(OwnedFd::from).collect();
        let unusable = past.unusable.clone();
        let parts = set_off(&config, &cell, workers, listeners, past)?;
        if let Some(why) = unusable {
            let what = "the sessions of the run before are forgotten: its snapshot cannot be used";
            parts.alarms.raise("snapshot", format!("{what}: {why}"));
        }
        let (told, settled) = mpsc::channel();
        let keeping = match (founding, alone, lock) {
            (Some(founding), _, Some(lock)) => Keeping::Cell(Box::new(founding.begin(&parts.control)?), lock),
            (_, Some(state), _) => Keeping::Alone(state),
            _ => unreachable!("a node is alone or has a cell"),
        };
        let waits = profile.is_some().then_some(told);
        let control = Control::start(&config, &ready, doors, keeping, parts, waits)?;
        if profile.is_none() {
            return Ok(Server { ready, control });
        }
        let Ok(place) = settled.recv() else { return Err(without_place(control)) };
        (ready.role, ready.epoch) = (place.role, place.epoch);
        ready.recovering_ms = milliseconds_until(place.recovering_until);
        Server { ready, control }.with_place(place)
    }

    /// A node that does not fit its cell does not run.
    fn with_place(self, place: Settled) -> Result<Server, StartError> {
        if place.role != "halted" {
            return Ok(self);
        }
        self.control.stopper().stop();
        self.control.wait();
        Err(StartError::Misfit(place.why))
    }

    /// What it listens on, and as what.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A handle that stops it from any thread.
    pub fn stopper(&self) -> Stopper {
        self.control.stopper()
    }

    /// Waits until it has stopped: by a signal, when the configuration asks for that, or by a [`Stopper`].
    pub fn wait(self) -> ExitReport {
        self.control.wait()
    }
}

/// Why a node of a cell ended before it had its place.
fn without_place(control: Control) -> StartError {
    match control.wait().reason {
        StopReason::ShardFailed { .. } => StartError::ThreadDied,
        StopReason::Signal | StopReason::Asked => StartError::NoPlace,
    }
}

/// What a run has of the one before.
#[derive(Default)]
struct Inheritance {
    shards: Vec<Past>,
    /// Where it leaves the same to the next one, a place for each shard.
    places: Vec<SnapshotPlace>,
    unusable: Option<String>,
}

impl Inheritance {
    fn of(
        state: &NodeState,
        pasts: Option<Pasts>,
        unusable: Option<String>,
        shards: u16,
    ) -> Result<Inheritance, StartError> {
        let place = |_| SnapshotPlace::of(state.directory()).map_err(StartError::Resources);
        let places = (0..shards).map(place).collect::<Result<_, _>>()?;
        let shards = pasts.map(|pasts| pasts.shards).unwrap_or_default();
        Ok(Inheritance { shards, places, unusable })
    }
}

/// Reads what the run before left, and makes durable that a new one begins.
fn begin(
    directory: StateDirectory,
    config: &Config,
    shards: u16,
    index_key: u64,
) -> Result<Begun, StartError> {
    let (cell, mac_key) = (CellId(random()?), MacKey(random()?.to_le_bytes()));
    let fresh = Fresh { cell, mac_key, digest_key: random_key()? };
    let epoch = Epoch::new(1).expect("1 is an epoch");
    let (limits, rules) = (config.table_limits(), config.table_rules());
    // The epoch is the snapshot's.
    let table = |shard| TableSettings { epoch, shard, index_key, limits, rules: rules.clone() };
    let begun = NodeState::begin(
        directory,
        unix_seconds(),
        fresh,
        |directory, record| snapshot::read(directory, record, shards, clock::now(), table),
        clock::now,
    );
    Ok(begun?)
}

/// What all shards of a run have in common.
struct Cell {
    beginning: Beginning,
    started: Tick,
    index_key: u64,
    /// Times of the cell, when there is one.
    profile: Option<Profile>,
}

/// Connects the threads with each other and lets them go.
fn set_off(
    config: &Config,
    cell: &Cell,
    workers: Vec<Worker>,
    mut listeners: Vec<OwnedFd>,
    past: Inheritance,
) -> Result<ControlParts, StartError> {
    let (control_lane, from_shards, doorbell) = ControlLane::new().map_err(StartError::Resources)?;
    let (processors, wake) = (processors(), wake_cost());
    tracing::info!(?wake, processors, "waiting follows what a wake-up costs here");
    let wakers: Vec<Waker> = workers.iter().map(|worker| worker.waker.clone()).collect();
    let alarms = Alarms::default();
    let beacon = light_beacon();
    let mut parts = ControlParts {
        lanes: vec![],
        stats: vec![],
        threads: vec![],
        from_shards,
        doorbell,
        alarms,
        beacon,
        control: control_lane.clone(),
    };
    let mut wirings: Vec<Wiring> = Vec::new();
    for waker in &wakers {
        let (lane, inbox) = ShardLane::new(waker.clone());
        parts.lanes.push(lane);
        wirings.push(Wiring { inboxes: vec![inbox], shards: vec![], control: control_lane.clone() });
    }
    for from in 0..wakers.len() {
        for (to, waker) in wakers.iter().enumerate() {
            let lane = (to != from).then(|| {
                let (lane, inbox) = ShardLane::new(waker.clone());
                wirings[to].inboxes.push(inbox);
                lane
            });
            wirings[from].shards.push(lane);
        }
    }
    let (mut pasts, mut places) = (past.shards.into_iter(), past.places.into_iter());
    for ((worker, wiring), me) in workers.into_iter().zip(wirings).zip(0_u16..) {
        let stats = Arc::new(ShardStats::default());
        parts.stats.push(stats.clone());
        let start = Start {
            settings: settings(
                config,
                cell,
                ShardId(me),
                u16::try_from(wakers.len()).unwrap_or(1),
                worker.io,
            ),
            limits: config.table_limits(),
            rules: config.table_rules(),
            write_backlog_bytes: config.limits.write_backlog_bytes,
            beacon: parts.beacon.clone(),
            index_key: cell.index_key,
            profile: cell.profile,
            past: pasts.next(),
            snapshots: places.next(),
            // The first shard accepts; a connection moves to the shard it names.
            listeners: std::mem::take(&mut listeners),
            wiring,
            stats,
            alarms: parts.alarms.clone(),
            temper: Temper::new(config.poll, processors, wake),
        };
        worker.start.send(start).map_err(|_| StartError::ThreadDied)?;
        parts.threads.push(worker.thread);
    }
    Ok(parts)
}

/// What clients on this host will see of the shards; without it they stay on their sockets.
fn light_beacon() -> Option<Arc<Beacon>> {
    let leaving = if fairlock_shm::wait::has_barrier() {
        Leaving::Barrier
    } else {
        tracing::warn!(
            "membarrier is not to be had; clients on this host leave locks by a slower instruction"
        );
        Leaving::Exchange
    };
    match Beacon::create(leaving) {
        Ok(beacon) => Some(Arc::new(beacon)),
        Err(error) => {
            tracing::warn!(%error, "no memory can be shared with clients on this host; they use the socket");
            None
        }
    }
}

fn settings(config: &Config, cell: &Cell, me: ShardId, shards: u16, io: &'static str) -> Settings {
    Settings {
        me,
        shards,
        cell: cell.beginning.cell,
        epoch: cell.beginning.epoch,
        digest_key: cell.beginning.digest_key,
        mac_key: cell.beginning.mac_key,
        ttl_max: config.ttl_max,
        horizon_ms: 0,
        quarantine_until: cell.beginning.recovering_until,
        unbound_max: config.limits.unbound_connections,
        unbound_per_address_max: config.limits.unbound_connections_per_address,
        cached_grants_max: config.limits.cached_grants,
        io,
        started: cell.started,
    }
}

/// Starts the shards' threads. The first chooses the driver, and says so in the log; the others follow it.
fn spawn_workers(count: u16, config: &Config) -> Result<Vec<Worker>, StartError> {
    let mut choice = config.io;
    let mut workers = Vec::new();
    for shard in 0..count {
        let worker = spawn_worker(shard, choice, config.pin)?;
        choice = if worker.io == "uring" { IoChoice::Uring } else { IoChoice::Epoll };
        workers.push(worker);
    }
    Ok(workers)
}

/// Starts a shard's thread, which opens its driver and then waits for the rest of the server.
fn spawn_worker(shard: u16, io: IoChoice, pin_it: bool) -> Result<Worker, StartError> {
    let (start, starting) = mpsc::channel::<Start>();
    let (opened, opening) = mpsc::channel();
    let processor = pin_it.then_some(usize::from(shard));
    let body = move || {
        if let Some(processor) = processor {
            pin(processor);
        }
        let driver = match driver::open(io.into()) {
            Ok(driver) => driver,
            Err(error) => {
                // Whoever started us is gone only when it failed itself.
                let _ = opened.send(Err(error));
                return;
            }
        };
        let _ = opened.send(Ok((driver.waker(), driver.name())));
        // The sender is dropped without a word when the start failed elsewhere.
        if let Ok(start) = starting.recv() {
            serve(shard, driver, start);
        }
    };
    let thread = std::thread::Builder::new().name(format!("shard-{shard}")).spawn(body);
    let thread = thread.map_err(StartError::Resources)?;
    match opening.recv() {
        Ok(Ok((waker, io))) => Ok(Worker { thread, start, waker, io }),
        Ok(Err(error)) => Err(StartError::Driver(error)),
        Err(_) => Err(StartError::ThreadDied),
    }
}

/// The life of a shard's thread.
fn serve(shard: u16, mut driver: Box<dyn driver::Driver>, start: Start) {
    let Start { settings, limits, rules, index_key, listeners, wiring, stats, alarms, temper, .. } = start;
    let (beacon, write_backlog_bytes, profile) = (start.beacon, start.write_backlog_bytes, start.profile);
    // Until this thread ends, however it does, clients on this host see that it lives.
    let last_word = beacon.clone().map(|beacon| LastWord::new(beacon, shard)).transpose();
    if let Err(error) = &last_word {
        tracing::warn!(%error, "clients on this host notice this thread's death only by its silence");
    }
    for listener in listeners {
        if let Err(error) = driver.listen(listener) {
            tracing::error!(%error, "cannot accept connections on a listener");
        }
    }
    let (epoch, me) = (settings.epoch, settings.me);
    let table_settings = TableSettings { epoch, shard: me, index_key, limits, rules };
    let (table, past) = match start.past {
        Some(mut past) => {
            (std::mem::replace(&mut past.table, Table::new(table_settings.clone())), Some(past))
        }
        None => (Table::new(table_settings.clone()), None),
    };
    let entropy =
        Box::new(|| random().unwrap_or_else(|error| panic!("the kernel gives no randomness: {error}")));
    let mut shard_state = Shard::new(settings, table, stats.clone(), alarms, entropy);
    if let Some(profile) = profile {
        shard_state.replicate(Replica::new(profile), table_settings);
    }
    if let Some(past) = past {
        shard_state.go_on(clock::now(), &past);
    }
    let rest = (write_backlog_bytes, shard, beacon);
    ShardThread::new(shard_state, driver, wiring, temper, stats, rest, start.snapshots).run();
}

/// One shard for each processor but one, which is the control thread's and everybody else's.
fn shard_count(config: &Config) -> u16 {
    let spare = u16::try_from(processors().saturating_sub(1)).unwrap_or(u16::MAX);
    config.shards.unwrap_or(spare).clamp(1, SHARDS_MAX)
}

fn random() -> Result<u128, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Resources(std::io::Error::other(error)))?;
    Ok(u128::from_le_bytes(bytes))
}

fn random_key() -> Result<DigestKey, StartError> {
    let bytes = random()?.to_le_bytes();
    let half = |range: std::ops::Range<usize>| {
        let mut part = [0; 8];
        part.copy_from_slice(&bytes[range]);
        u64::from_le_bytes(part)
    };
    Ok(DigestKey([half(0..8), half(8..16)]))
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn milliseconds_until(moment: Tick) -> u64 {
    u64::try_from(moment.since(clock::now()).as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

//! The control thread against shards that are played by the test: what they are sent, what they say, and how it ends.

mod admin;
mod doors;
mod ending;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fairlock_protocol::{
    CellId, DigestKey, Frame, Hello, MacKey, Refusal, Reply, Request, RequestId, ShardId, Tick,
};

use fairlock_replication::{Fresh, Record};

use super::test_room::TempDir;
use super::*;
use crate::clock;
use crate::driver::{self, Driver};
use crate::lanes::{ControlLane, Inbox, Left, ToShard};
use crate::state::{Begun, NodeState, StateDirectory};

/// How long anything may take before a test gives up; never asserted as a longest time of the server.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run on this directory, which has no snapshot.
fn begin(directory: StateDirectory, cell: u128) -> Begun {
    let fresh = Fresh { cell: CellId(cell), mac_key: MacKey([1; 16]), digest_key: DigestKey([1, 2]) };
    let none = |_: &StateDirectory, _: &Record| unreachable!("nothing writes a snapshot here");
    NodeState::begin(directory, 1_800_000_000, fresh, none, clock::now).unwrap()
}

/// A control thread whose shards the test plays.
struct Stage {
    room: TempDir,
    control: Option<Control>,
    inboxes: Vec<Inbox>,
    lane: ControlLane,
    alarms: Alarms,
    stats: Vec<Arc<ShardStats>>,
    socket: PathBuf,
    admin: SocketAddr,
    /// Dropping one ends the thread of that shard.
    lives: Vec<Option<mpsc::Sender<()>>>,
    /// Their wakers are rung by the lanes.
    drivers: Vec<Box<dyn Driver>>,
}

impl Stage {
    fn new(shards: u16) -> Stage {
        Stage::with(shards, TempDir::new(), |_| {})
    }

    fn with(shards: u16, room: TempDir, adjust: impl FnOnce(&mut Config)) -> Stage {
        let mut config = Config {
            socket: Some(room.path().join("s")),
            admin: Some("127.0.0.1:0".parse().unwrap()),
            drain: PATIENCE,
            ..Config::default()
        };
        adjust(&mut config);
        let doors = Doors::open(&config).unwrap();
        let directory = StateDirectory::open(&room.path().join("state")).unwrap();
        let Begun { state: node, beginning, .. } = begin(directory, 5);
        let (lane, from_shards, doorbell) = ControlLane::new().unwrap();
        let (socket, admin) = (room.path().join("s"), doors.admin_address().unwrap());
        let alarms = Alarms::default();
        let mut stage = Stage {
            room,
            control: None,
            inboxes: vec![],
            lane: lane.clone(),
            alarms: alarms.clone(),
            stats: vec![],
            socket,
            admin,
            lives: vec![],
            drivers: vec![],
        };
        let mut parts = ControlParts {
            lanes: vec![],
            stats: vec![],
            threads: vec![],
            from_shards,
            doorbell,
            alarms,
            beacon: None,
            control: lane,
        };
        for _ in 0..shards {
            let driver = driver::open(driver::IoChoice::Epoll).unwrap();
            let (to_shard, inbox) = ShardLane::new(driver.waker());
            let (life, ends) = mpsc::channel::<()>();
            parts.lanes.push(to_shard);
            parts.stats.push(Arc::default());
            parts.threads.push(std::thread::spawn(move || while ends.recv().is_ok() {}));
            stage.inboxes.push(inbox);
            stage.lives.push(Some(life));
            stage.drivers.push(driver);
        }
        stage.stats.clone_from(&parts.stats);
        let ready = Ready {
            tcp: vec![],
            socket: None,
            admin: None,
            shards,
            io: "epoll",
            role: "standalone",
            epoch: beginning.epoch.get(),
            recovering_ms: 0,
            pid: 1,
        };
        stage.control =
            Some(Control::start(&config, &ready, doors, Keeping::Alone(node), parts, None).unwrap());
        stage
    }

    /// The next message to a shard.
    fn told(&mut self, shard: usize) -> ToShard {
        let given_up = Instant::now() + PATIENCE;
        loop {
            match self.inboxes[shard].pop() {
                Ok(message) => return message,
                Err(_) => assert!(Instant::now() < given_up, "shard {shard} was told nothing"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nothing was sent to a shard in a while.
    fn is_told_nothing(&mut self, shard: usize) {
        std::thread::sleep(Duration::from_millis(50));
        assert!(self.inboxes[shard].is_empty());
    }

    /// A shard ends as told.
    fn stop_shard(&mut self, shard: u16, live_sessions: u32) {
        let left = Left { sessions: live_sessions, holders: live_sessions, recovering: false, file: None };
        self.lane.send(ToControl::Stopped { shard, left, error: None });
        self.lives[usize::from(shard)] = None;
    }

    fn wait(&mut self) -> ExitReport {
        self.control.take().unwrap().wait()
    }

    fn stopper(&self) -> Stopper {
        self.control.as_ref().unwrap().stopper()
    }

    /// Ends everything and gives the directory to the next run.
    fn finish(mut self, live_sessions: u32) -> (ExitReport, TempDir) {
        self.stopper().stop();
        for shard in 0..self.inboxes.len() {
            while !matches!(self.told(shard), ToShard::Stop) {}
            self.stop_shard(u16::try_from(shard).unwrap(), live_sessions);
        }
        let report = self.wait();
        (report, std::mem::replace(&mut self.room, TempDir::new()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A failed test must not leave its control thread behind.
        if let Some(control) = self.control.take() {
            control.stopper().stop();
            self.lives.clear();
            self.drivers.clear();
        }
    }
}

/// The bytes of a HELLO.
fn hello(hello: Hello<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Request::Hello(hello).encode(RequestId::NOTICE, 0, &mut out);
    out
}

/// The refusal a connection gets, and then its end.
fn refusal(stream: &mut UnixStream) -> (Refusal, String) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    // The peer may close with our bytes unread, which ends the stream with an error.
    let _ = stream.read_to_end(&mut bytes);
    let (frame, used) = Frame::split(&bytes).unwrap().expect("a refusal is answered");
    assert_eq!(used, bytes.len(), "nothing follows");
    match Reply::decode(&frame).unwrap() {
        Reply::Refused(refused) => (refused.refusal, refused.detail.to_string()),
        other => panic!("{other:?}"),
    }
}

//! The clients of a broken cell: some of them fight for few locks and die now and then, and two ask for nothing but locks
//! that nobody else wants, to see when the cell serves.

use fairlock_cli::history::{Event, What};
use fairlock_tests::cell::{Cell, CellNode};
use fairlock_tests::command::Running;
use fairlock_tests::random::Random;
use fairlock_tests::recorder::Recorder;
use fairlock_tests::scratch::Scratch;
use fairlock_tests::{eventually, workspace};
use rustix::process::Signal;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Leases of the fighters, in milliseconds: shorter and longer than what happens.
const LEASES_MS: [u64; 3] = [400, 1500, 3000];
/// Who fights.
const FIGHTERS: usize = 5;
/// Lease of those who look whether the cell serves.
const PROBE_LEASE_MS: u64 = 3000;

/// All clients, and what they wrote.
pub struct Crowd {
    /// Every node over TCP, and every node by its socket and shared memory.
    endpoints: [String; 2],
    places: Option<[PathBuf; 2]>,
    scratch: Scratch,
    pub watcher: Recorder,
    fighters: Vec<(String, Running)>,
    probes: Vec<(Running, Probe)>,
    started: usize,
}

/// When one client was granted something, read from what it writes.
struct Probe {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Crowd {
    pub fn start(cell: &Cell, random: &mut Random) -> Crowd {
        let scratch = Scratch::new();
        let watcher = Recorder::new(&scratch.join("watcher"), "watcher");
        let places = cell.network.is_some().then(|| [0, 1].map(|number| cell.client_place(number).file()));
        let sockets: Vec<String> = cell.nodes.iter().map(CellNode::unix).collect();
        let mut crowd = Crowd {
            endpoints: [cell.endpoint(), sockets.join(",")],
            places,
            scratch,
            watcher,
            fighters: Vec::new(),
            probes: Vec::new(),
            started: 0,
        };
        for number in 0..2 {
            let path = crowd.scratch.join(&format!("probe-{number}"));
            let words = ["0", &PROBE_LEASE_MS.to_string(), "1000000000", "3000"].map(str::to_owned);
            let running = crowd.launch((1, 0), &path, random.next(), &words);
            crowd.probes.push((running, Probe { path, read: 0, rest: Vec::new() }));
        }
        crowd.replace_the_dead(random);
        crowd
    }

    /// A client that goes on until it is killed.
    fn launch(&self, (place, door): (usize, usize), path: &PathBuf, seed: u64, words: &[String]) -> Running {
        let mut command = Command::new(workspace::own_binary("confined"));
        if let Some(places) = &self.places {
            command.arg("--network").arg(&places[place]);
        }
        command.arg("--").arg(workspace::own_binary("storm-client")).arg(&self.endpoints[door]);
        command.arg(seed.to_string()).arg(path).arg("100000000").args(words);
        let log = std::fs::File::options().create(true).append(true).open(self.scratch.join("errors"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the scratch directory can be written"));
        Running::start(command)
    }

    /// Starts a fighter for each that crashed. A test fails when one ended in another way.
    pub fn replace_the_dead(&mut self, random: &mut Random) {
        for at in (0..self.fighters.len()).rev() {
            if !self.fighters[at].1.is_running() {
                let code = self.fighters.swap_remove(at).1.wait();
                assert!([134, 137].contains(&code), "a client failed with {code}: {}", self.errors());
            }
        }
        for (running, _) in &mut self.probes {
            assert!(running.is_running(), "a client that only looks ended: {}", self.errors());
        }
        while self.fighters.len() < FIGHTERS {
            self.started += 1;
            let name = format!("client-{}", self.started);
            let lease = LEASES_MS[random.index(LEASES_MS.len())].to_string();
            let words = ["400".to_owned(), lease, "3".to_owned(), "6000".to_owned()];
            let running =
                self.launch((0, self.started % 2), &self.scratch.join(&name), random.next(), &words);
            self.fighters.push((name, running));
        }
    }

    /// One fighter is killed.
    pub fn kill_one(&mut self, random: &mut Random) {
        let (name, fighter) = &self.fighters[random.index(self.fighters.len())];
        self.watcher.killed(name);
        fighter.signal(Signal::KILL);
    }

    /// Ends everybody, and waits until they are gone.
    pub fn end(&mut self) {
        for (name, mut fighter) in self.fighters.drain(..) {
            self.watcher.killed(&name);
            fighter.signal(Signal::KILL);
            fighter.wait();
        }
        for (number, (probe, _)) in self.probes.iter_mut().enumerate() {
            self.watcher.killed(&format!("probe-{number}"));
            probe.signal(Signal::KILL);
            probe.wait();
        }
    }

    /// Moments at which somebody who looks was granted something since this was asked last.
    pub fn served(&mut self) -> Vec<u64> {
        self.probes.iter_mut().flat_map(|(_, probe)| probe.news()).collect()
    }

    /// Waits until each who looks is served after this moment; all moments that were seen.
    pub fn served_after(&mut self, moment: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        for index in 0..self.probes.len() {
            eventually("the cell serves again", || {
                let news = self.probes[index].1.news();
                let is_served = news.iter().any(|at| *at > moment);
                seen.extend(news);
                is_served.then_some(())
            });
        }
        seen
    }

    /// Every history.
    pub fn files(&self) -> Vec<PathBuf> {
        let clients = (1..=self.started).map(|number| self.scratch.join(&format!("client-{number}")));
        let probes = self.probes.iter().map(|(_, probe)| probe.path.clone());
        let all = clients.chain(probes).chain([self.scratch.join("watcher")]);
        all.filter(|path| path.exists()).collect()
    }

    /// What clients complained about.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.scratch.join("errors")).unwrap_or_default()
    }
}

impl Probe {
    /// Grants that were written since the last look.
    fn news(&mut self) -> Vec<u64> {
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.read)).expect("a file can be read from any place");
        let more = file.read_to_end(&mut self.rest).expect("a file can be read");
        self.read += more as u64;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let events = lines.split(|byte| *byte == b'\n').filter_map(|line| Event::parse(line).ok());
        events.filter(|event| matches!(event.what, What::Granted { .. })).map(|event| event.at_ns).collect()
    }
}

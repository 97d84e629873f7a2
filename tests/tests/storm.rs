//! Storms: many client processes take, try, wait, cancel and crash at random for some seconds; what they wrote down must be
//! true of a fair exclusive lock. The schedule differs from run to run; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::command::{Running, finish};
use fairlock_tests::history::{judge_clean, tokens};
use fairlock_tests::random::{Random, fresh_seed};
use fairlock_tests::recorder::Recorder;
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::lasting_address;
use fairlock_tests::ways;
use fairlock_tests::{eventually, workspace};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const LENGTH: Duration = Duration::from_secs(4);

/// What a storm left behind: its histories, while the directory they are in lives.
struct Storm {
    scratch: Scratch,
    /// What the one who watches it knows: whom it killed, and what befell the server.
    watcher: Recorder,
    started: u64,
    /// Clients that ended early.
    ended: usize,
    /// Further arguments of the clients.
    more: &'static [&'static str],
}

/// Three names, and a rest between two turns: of clients that wait for a server that is just being started.
const PATIENT: &[&str] = &["3", "1"];

impl Storm {
    fn new(more: &'static [&'static str]) -> Storm {
        let scratch = Scratch::new();
        let watcher = Recorder::new(&scratch.join("watcher"), "watcher");
        Storm { scratch, watcher, started: 0, ended: 0, more }
    }

    fn files(&self) -> Vec<PathBuf> {
        let clients = (1..=self.started).map(|number| self.scratch.join(&format!("client-{number}")));
        // One that was killed before its first word has no file.
        clients.filter(|path| path.exists()).chain([self.scratch.join("watcher")]).collect()
    }

    fn start_client(&mut self, endpoint: &str, random: &mut Random, left: Duration) -> (String, Running) {
        self.started += 1;
        let name = format!("client-{}", self.started);
        let mut command = Command::new(workspace::own_binary("storm-client"));
        command.arg(endpoint).arg(random.next().to_string()).arg(self.scratch.join(&name));
        command.arg(left.as_millis().to_string()).args(["40", "400"]).args(self.more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        (name, Running::start(command))
    }

    /// Keeps so many clients going for a while, replacing those that crash, and kills one now and then.
    fn rage(&mut self, endpoint: &str, length: Duration, seed: u64, mut meanwhile: impl FnMut(&Recorder)) {
        let mut random = Random::from_seed(seed);
        let begun = Instant::now();
        let mut clients: Vec<(String, Running)> = Vec::new();
        while begun.elapsed() < length {
            while clients.len() < CLIENTS {
                let left = length.saturating_sub(begun.elapsed());
                clients.push(self.start_client(endpoint, &mut random, left));
            }
            std::thread::sleep(Duration::from_millis(10));
            meanwhile(&self.watcher);
            if random.once_in(20) {
                let (name, client) = clients.swap_remove(random.index(clients.len()));
                self.watcher.killed(&name);
                client.signal(Signal::KILL);
                self.ended += 1;
                is_sound(client, &[0, 134, 137]);
            }
            for at in (0..clients.len()).rev() {
                if !clients[at].1.is_running() {
                    self.ended += 1;
                    is_sound(clients.swap_remove(at).1, &[0, 134]);
                }
            }
        }
        for (_, client) in clients {
            is_sound(client, &[0, 134]);
        }
    }
}

/// It ended by its own will, in time or by the crash it was to have; or it was killed.
fn is_sound(client: Running, codes: &[i32]) {
    let finished = client.finish();
    assert!(codes.contains(&finished.code), "a client failed: {} {}", finished.code, finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

/// G1, G2, G3, G5, G8, G35: nothing the clients saw contradicts a fair and fenced lock, whoever crashes or is killed.
#[test]
fn what_the_clients_of_a_storm_saw_is_true_of_a_fair_lock() {
    let seed = fresh_seed("storm");
    for way in ways::all() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut storm = Storm::new(&[]);
        storm.rage(&endpoint, LENGTH, seed, |_| {});
        let report = judge_clean(&storm.files(), &format!("FAIRLOCK_SEED={seed} {way:?}"));
        eprintln!("{} clients ended early; {:?}", storm.ended, report.counts);
        let counts = report.counts;
        assert!(counts.certain_holds > 100 && counts.killed > 0, "a storm of {counts:?} is none");
        // G9 in the large: when everybody is gone, nothing is held and nobody waits.
        eventually("everything came free", || {
            let status = finish(&endpoint, ["status", "--json"]).json();
            let counts = status.get("counts").unwrap_or(&status);
            assert_eq!(counts["overtakes_total"], 0, "{status}");
            (counts["grants"] == 0 && counts["waiters"] == 0).then_some(())
        });
    }
}

/// G1, G2, G15: the same while the server is killed and started again: what was certain stays certain, tokens rise.
#[test]
fn what_the_clients_saw_is_true_also_when_the_server_crashes() {
    let seed = fresh_seed("storm with crashes");
    for way in ways::single() {
        let plan = way.plan().at(lasting_address());
        let mut server = Some(plan.start());
        let endpoint = way.endpoint(server.as_ref().unwrap());
        let mut last_crash = Instant::now();
        let mut restarts = 0;
        let mut storm = Storm::new(PATIENT);
        storm.rage(&endpoint, 2 * LENGTH, seed, |watcher| {
            if last_crash.elapsed() > Duration::from_millis(1800) {
                let plan = server.take().unwrap().crash();
                watcher.server("killed", true);
                server = Some(plan.start());
                last_crash = Instant::now();
                restarts += 1;
            }
        });
        let files = storm.files();
        let report = judge_clean(&files, &format!("FAIRLOCK_SEED={seed} {way:?}"));
        eprintln!("{restarts} restarts, {} clients ended early; {:?}", storm.ended, report.counts);
        assert!(report.counts.certain_holds > 100 && restarts >= 2, "a storm of {:?} is none", report.counts);
        let epochs: BTreeSet<u64> = tokens(&files).iter().map(|token| token >> 39).collect();
        assert!(epochs.len() >= 2, "somebody held a lock before a crash and after it: {epochs:?}");
    }
}

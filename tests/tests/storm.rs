//! Storms: many client processes take, try, wait, cancel and crash at random for some seconds; what they wrote down must be
//! true of a fair exclusive lock. The schedule differs from run to run; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::command::{Running, finish};
use fairlock_tests::history::{self, Hold};
use fairlock_tests::random::{Random, fresh_seed};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::lasting_address;
use fairlock_tests::ways;
use fairlock_tests::{eventually, workspace};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const LENGTH: Duration = Duration::from_secs(4);

fn start_client(
    endpoint: &str,
    scratch: &Scratch,
    number: u64,
    random: &mut Random,
    left: Duration,
) -> Running {
    let mut command = Command::new(workspace::own_binary("storm-client"));
    command.arg(endpoint).arg(random.next().to_string());
    command.arg(scratch.join(&format!("client-{number}")));
    command.arg(left.as_millis().to_string()).arg("40").arg("400");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Running::start(command)
}

/// Keeps so many clients going for a while, replacing those that crash; gives every hold they wrote down.
fn storm(endpoint: &str, length: Duration, seed: u64, mut meanwhile: impl FnMut()) -> (Vec<Hold>, usize) {
    let scratch = Scratch::new();
    let mut random = Random::from_seed(seed);
    let begun = Instant::now();
    let mut started = 0;
    let mut crashes = 0;
    let mut clients: Vec<Running> = Vec::new();
    while begun.elapsed() < length {
        while clients.len() < CLIENTS {
            started += 1;
            let left = length.saturating_sub(begun.elapsed());
            clients.push(start_client(endpoint, &scratch, started, &mut random, left));
        }
        std::thread::sleep(Duration::from_millis(10));
        meanwhile();
        let (ended, running): (Vec<_>, Vec<_>) =
            clients.into_iter().map(|mut client| (client.is_running(), client)).partition(|(runs, _)| !runs);
        clients = running.into_iter().map(|(_, client)| client).collect();
        crashes += ended.len();
        for (_, client) in ended {
            is_sound(client);
        }
    }
    clients.into_iter().for_each(is_sound);
    let mut holds = Vec::new();
    for number in 1..=started {
        let log = std::fs::read_to_string(scratch.join(&format!("client-{number}"))).unwrap_or_default();
        holds.extend(history::read(&log));
    }
    (holds, crashes)
}

/// It ended by its own will: in time, or by the crash it was to have.
fn is_sound(client: Running) {
    let finished = client.finish();
    assert!(matches!(finished.code, 0 | 134), "a client failed: {} {}", finished.code, finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

/// G1, G2, G5: no two certain holds at once, tokens in the order of time, nobody overtaken, whoever crashes.
#[test]
fn what_the_clients_of_a_storm_saw_is_true_of_a_fair_lock() {
    let seed = fresh_seed("storm");
    for way in ways::all() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let (holds, crashes) = storm(&endpoint, LENGTH, seed, || {});
        eprintln!("{} certain holds, {crashes} clients ended early", holds.len());
        assert!(holds.len() > 100, "a storm of {} holds is none", holds.len());
        let found = history::contradictions(&holds);
        assert!(
            found.is_empty(),
            "FAIRLOCK_SEED={seed} {way:?}: {} contradictions, first {:#?}",
            found.len(),
            found.first()
        );
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
        let (holds, crashes) = storm(&endpoint, 2 * LENGTH, seed, || {
            if last_crash.elapsed() > Duration::from_millis(1800) {
                server = Some(server.take().unwrap().crash().start());
                last_crash = Instant::now();
                restarts += 1;
            }
        });
        eprintln!("{} certain holds, {crashes} clients ended early, {restarts} restarts", holds.len());
        assert!(holds.len() > 100 && restarts >= 2, "a storm of {} holds is none", holds.len());
        let epochs: BTreeSet<u64> = holds.iter().map(|hold| hold.token >> 39).collect();
        assert!(epochs.len() >= 2, "somebody held a lock before a crash and after it: {epochs:?}");
        let found = history::contradictions(&holds);
        assert!(
            found.is_empty(),
            "FAIRLOCK_SEED={seed} {way:?}: {} contradictions, first {:#?}",
            found.len(),
            found.first()
        );
    }
}

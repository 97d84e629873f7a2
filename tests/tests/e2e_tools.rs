//! The tools beside the locks: orders that are forced, the benchmark, the doctor, completions. What they print is a
//! contract; how fast anything was is not asserted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::command::{Running, fairlock, finish};
use fairlock_tests::{eventually, ways};
use std::process::Stdio;

fn holding(endpoint: &str) -> (Running, String) {
    let mut command = fairlock(endpoint, ["hold", "x"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running::start(command);
    let session = eventually("somebody holds x", || {
        let said = finish(endpoint, ["show", "x", "--json"]).json();
        said["holders"][0]["session"].as_str().map(str::to_owned)
    });
    (running, session)
}

/// G24: a forced order lets the next one in at once, and the holder learns that it has lost.
#[test]
fn a_forced_break_and_a_forced_kill_end_the_hold() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let (mut first, _) = holding(&endpoint);
        let broken = finish(&endpoint, ["break", "x", "--force"]);
        assert_eq!((broken.code, first.wait()), (0, 76), "{}", broken.stderr);
        assert_eq!(finish(&endpoint, ["run", "-n", "x", "--", "true"]).code, 0);
        let (mut second, session) = holding(&endpoint);
        let killed = finish(&endpoint, ["session", "kill", &session, "--force"]);
        assert_eq!((killed.code, second.wait()), (0, 76), "{}", killed.stderr);
        assert_eq!(finish(&endpoint, ["break", "x"]).code, 66, "nobody holds it any more");
        assert_eq!(finish(&endpoint, ["session", "kill", &session]).code, 66);
    }
}

#[test]
fn the_benchmark_prints_one_document_with_the_published_fields() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let said =
            finish(&endpoint, ["bench", "--seconds", "0.3", "--clients", "2", "--locks", "200", "--json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let report = said.json();
        let transport = if endpoint.starts_with("unix") { "shm" } else { "tcp" };
        assert_eq!((&report["transport"], &report["clients"]), (&transport.into(), &2.into()), "{report}");
        for figure in ["acquire_ns", "pair_ns", "cached_pair_ns"] {
            for quantile in ["p50", "p99", "p999"] {
                assert!(
                    report[figure][quantile].as_u64().is_some_and(|ns| ns > 0),
                    "{figure} {quantile}: {report}"
                );
            }
        }
        if endpoint.starts_with("unix") {
            let forced =
                finish(&endpoint, ["bench", "--seconds", "0.1", "--transport", "unix", "--json"]).json();
            assert_eq!(forced["transport"], "unix", "{forced}");
        }
        assert!(report["ops_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
        assert!(report["bytes_per_lock"].is_number(), "{report}");
        assert_eq!(
            finish(&endpoint, ["ls", "--json"]).json(),
            serde_json::json!([]),
            "nothing is left behind"
        );
    }
}

#[test]
fn the_doctor_finds_a_live_server_well_and_a_missing_one_not() {
    let server = ways::single()[0].plan().start();
    let well = finish(&server.unix(), ["doctor", "--json"]);
    assert_eq!(well.code, 0, "{}", well.stderr);
    assert!(well.json().to_string().contains("endpoint"), "{}", well.stdout);
    let gone = finish("unix:/nonexistent/fairlock.sock", ["doctor"]);
    assert_ne!(gone.code, 0, "{}", gone.stdout);
    assert!(gone.stdout.contains("fairlock serve"), "it says what to do: {}", gone.stdout);
}

#[test]
fn completions_are_a_script_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let said = finish("unix:/nonexistent", ["completions", shell]);
        assert!(said.code == 0 && said.stdout.contains("fairlock"), "{shell}");
    }
}

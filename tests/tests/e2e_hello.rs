//! The first things anybody does with the command line: two commands one after the other, a queue of twenty, a look at who
//! holds and who waits; and the exit codes that scripts depend on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::command::{Running, fairlock, finish};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Io, Plan};
use fairlock_tests::{eventually, ways};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

/// Waits until `show NAME` lists this many holders and waiters, and gives what it said.
fn shown(endpoint: &str, name: &str, holders: usize, waiters: usize) -> Value {
    eventually(&format!("{name} has {holders} holders and {waiters} waiters"), || {
        let said = finish(endpoint, ["show", name, "--json"]).json();
        let count = |list: &str| said[list].as_array().unwrap().len();
        (count("holders") == holders && count("waiters") == waiters).then_some(said)
    })
}

/// `run NAME -- sh -c SCRIPT`, started.
fn run(endpoint: &str, name: &str, script: &str) -> Running {
    let mut command = fairlock(endpoint, ["run", name, "--", "sh", "-c", script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

/// A command that holds until this file is there.
fn until(file: &Path) -> String {
    format!("while [ ! -e {0} ]; do sleep 0.01; done", file.display())
}

/// G5: two commands with one lock run one after the other, in the order in which they came.
#[test]
fn two_commands_run_one_after_the_other() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let log = scratch.join("log");
        let gate = scratch.join("gate");
        let script = |who: &str, then: &str| {
            format!("echo {who} in >> {0}; {then}; echo {who} out >> {0}", log.display())
        };
        let first = run(&endpoint, "demo", &script("first", &until(&gate)));
        shown(&endpoint, "demo", 1, 0);
        let second = run(&endpoint, "demo", &script("second", "true"));
        shown(&endpoint, "demo", 1, 1);
        fs::write(&gate, "").unwrap();
        let (first, second) = (first.finish(), second.finish());
        assert_eq!((first.code, second.code), (0, 0), "{}{}", first.stderr, second.stderr);
        assert_eq!(fs::read_to_string(&log).unwrap(), "first in\nfirst out\nsecond in\nsecond out\n");
        shown(&endpoint, "demo", 0, 0);
    }
}

/// G5: twenty that came one after the other are served so, and their tokens say it. G23: `show` lists them in order.
#[test]
fn twenty_waiters_are_served_in_the_order_they_came() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let (log, gate) = (scratch.join("log"), scratch.join("gate"));
        let holder = run(&endpoint, "queue", &until(&gate));
        shown(&endpoint, "queue", 1, 0);
        let mut waiters = Vec::new();
        for number in 0..20 {
            let script = format!("echo {number} $FAIRLOCK_TOKEN >> {}", log.display());
            waiters.push(run(&endpoint, "queue", &script));
            let said = shown(&endpoint, "queue", 1, number + 1);
            let positions: Vec<u64> = said["waiters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|waiter| waiter["position"].as_u64().unwrap())
                .collect();
            assert!(positions.iter().copied().eq(1..=number as u64 + 1), "{positions:?}");
        }
        fs::write(&gate, "").unwrap();
        assert_eq!(holder.finish().code, 0);
        for waiter in waiters {
            let finished = waiter.finish();
            assert_eq!(finished.code, 0, "{}", finished.stderr);
        }
        let log = fs::read_to_string(&log).unwrap();
        let lines: Vec<(usize, u64)> = log
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(number, token)| (number.parse().unwrap(), token.parse().unwrap()))
            .collect();
        assert!(lines.iter().map(|&(number, _)| number).eq(0..20), "{lines:?}");
        assert!(lines.is_sorted_by(|one, other| one.1 < other.1), "tokens rise: {lines:?}");
    }
}

/// G23: who holds and who waits, for scripts.
#[test]
fn show_names_the_holder_and_the_waiter() {
    for way in ways::all() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let gate = scratch.join("gate");
        let mut command =
            fairlock(&endpoint, ["run", "--label", "nightly", "demo", "--", "sh", "-c", &until(&gate)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let holder = Running::start(command);
        shown(&endpoint, "demo", 1, 0);
        let waiter = run(&endpoint, "demo", "true");
        let said = shown(&endpoint, "demo", 1, 1);
        assert_eq!((&said["name"], &said["namespace"]), (&"demo".into(), &"default".into()));
        assert_eq!(said["overtakes_total"], 0);
        let held = &said["holders"][0];
        assert_eq!(
            (&held["label"], &held["mode"], &held["state"]),
            (&"nightly".into(), &"EX".into(), &"held".into())
        );
        assert!(held["token"].as_str().unwrap().parse::<u64>().unwrap() > 0);
        assert!(held["since_ms"].is_u64() && held["pid"].as_u64().unwrap() > 0 && held["host"].is_string());
        // Over a Unix endpoint a command shares memory with the server by itself.
        let transport = if endpoint.starts_with("unix:") { "shm" } else { "tcp" };
        assert_eq!(held["transport"], transport, "{said}");
        assert_eq!(said["waiters"][0]["position"], 1);
        assert!(said["waiters"][0]["waited_ms"].is_u64());
        for command in ["show", "why"] {
            let text = finish(&endpoint, [command, "demo"]);
            assert_eq!(text.code, 0);
            assert!(text.stdout.contains("nightly"), "{command}: {}", text.stdout);
        }
        let listed = finish(&endpoint, ["ls", "--json"]).json();
        let line = listed.as_array().unwrap().iter().find(|line| line["name"] == "demo").unwrap();
        assert_eq!((&line["holders"], &line["waiters"], &line["mode"]), (&1.into(), &1.into(), &"EX".into()));
        let sessions = finish(&endpoint, ["sessions", "--json"]).json();
        let session =
            sessions.as_array().unwrap().iter().find(|line| line["session"] == held["session"]).unwrap();
        assert_eq!((&session["grants"], &session["waits"]), (&1.into(), &0.into()));
        let status = finish(&endpoint, ["status", "--json"]).json();
        assert_eq!((&status["shards"], &status["role"]), (&way.shards.into(), &"standalone".into()));
        fs::write(&gate, "").unwrap();
        assert_eq!((holder.finish().code, waiter.finish().code), (0, 0));
        eventually("it is free", || {
            let free = finish(&endpoint, ["show", "demo", "--json"]);
            (free.code == 0 && free.json()["holders"].as_array()?.is_empty()).then_some(())
        });
    }
}

/// G31: a name that is no text is shown escaped, with its bytes beside it.
#[test]
fn a_name_that_is_no_text_is_shown_with_its_bytes() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let gate = scratch.join("gate");
        let name = std::ffi::OsStr::from_bytes(b"a\xff\xfeb");
        let mut command = fairlock(&endpoint, ["run"]);
        command.arg(name).args(["--", "sh", "-c", &until(&gate)]);
        let mut holder = Running::start(command);
        let line = eventually("it is listed", || {
            let listed = finish(&endpoint, ["ls", "--json"]).json();
            listed.as_array().unwrap().first().cloned()
        });
        assert_eq!(line["name_hex"], "61fffe62", "{line}");
        assert!(line["name"].as_str().unwrap().contains("\\xff"), "{line}");
        fs::write(&gate, "").unwrap();
        assert_eq!(holder.wait(), 0);
    }
}

/// G22: what the child finds, and that its streams are its own.
#[test]
fn the_child_finds_its_token_and_keeps_its_streams() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let script =
            r#"cat; echo "$FAIRLOCK_NAME $FAIRLOCK_MODE $FAIRLOCK_TOKEN $FAIRLOCK_FENCE"; echo oops >&2"#;
        let mut command = fairlock(&endpoint, ["run", "-s", "streams", "--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command);
        running.stdin().unwrap().write_all(b"from stdin\n").unwrap();
        let finished = running.finish();
        let lines: Vec<&str> = finished.stdout.lines().collect();
        assert_eq!((lines.len(), lines[0], finished.code), (2, "from stdin", 0), "{finished:?}");
        let words: Vec<&str> = lines[1].split(' ').collect();
        assert_eq!(words[..2], ["streams", "PR"]);
        let (token, fence): (u64, u64) = (words[2].parse().unwrap(), words[3].parse().unwrap());
        assert!(fence < token && i64::try_from(token).is_ok());
        assert_eq!(finished.stderr, "oops\n");
    }
}

/// G20: the child's code, or what kept it from having one.
#[test]
fn exit_codes_tell_scripts_what_happened() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let plain = scratch.join("not-a-program");
        fs::write(&plain, "text").unwrap();
        let plain = plain.to_str().unwrap();
        let long = "n".repeat(1025);
        let cases: Vec<(i32, Vec<&str>)> = vec![
            (0, vec!["run", "x", "--", "true"]),
            (7, vec!["run", "x", "--", "sh", "-c", "exit 7"]),
            (128 + 15, vec!["run", "x", "--", "sh", "-c", "kill -TERM $$"]),
            (128 + 9, vec!["run", "x", "--", "sh", "-c", "kill -KILL $$"]),
            (126, vec!["run", "x", "--", plain]),
            (127, vec!["run", "x", "--", "/no/such/program"]),
            (64, vec!["run", "", "--", "true"]),
            (64, vec!["run", &long, "--", "true"]),
            (64, vec!["run", "x", "--mode", "ZZ", "--", "true"]),
            (64, vec!["run", "x"]),
            (64, vec!["no-such-command"]),
            (64, vec!["ls", "--transport", "shmm"]),
            (66, vec!["break", "nobody-holds-this"]),
            (66, vec!["session", "kill", "00000000000000ff"]),
            (0, vec!["show", "free"]),
            (0, vec!["--version"]),
            (0, vec!["run", "--help"]),
        ];
        for (code, arguments) in cases {
            let finished = finish(&endpoint, &arguments);
            assert_eq!(finished.code, code, "{arguments:?}: {}", finished.stderr);
        }
        let gate = scratch.join("gate");
        let holder = run(&endpoint, "taken", &until(&gate));
        shown(&endpoint, "taken", 1, 0);
        for arguments in
            [vec!["run", "-n", "taken", "--", "true"], vec!["run", "-w", "50ms", "taken", "--", "true"]]
        {
            let finished = finish(&endpoint, &arguments);
            assert_eq!(finished.code, 75, "{arguments:?}: {}", finished.stderr);
        }
        fs::write(&gate, "").unwrap();
        assert_eq!(holder.finish().code, 0);
    }
    let nobody = format!("unix:{}", Scratch::new().join("nobody").display());
    for arguments in [vec!["run", "x", "--", "true"], vec!["ls"], vec!["status"], vec!["hold", "x"]] {
        let finished = finish(&nobody, &arguments);
        assert_eq!(finished.code, 69, "{arguments:?}: {}", finished.stderr);
    }
    assert_eq!(finish("tcp://localhost:1/x", ["ls"]).code, 64);
    let server = Plan::new(Io::Auto).start();
    assert_eq!(finish(&server.tcp(), ["run", "--liveness", "inherit", "x", "--", "true"]).code, 64);
}

/// G9: a command that gave up left the queue.
#[test]
fn who_gave_up_does_not_wait_any_more() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let scratch = Scratch::new();
        let gate = scratch.join("gate");
        let holder = run(&endpoint, "taken", &until(&gate));
        shown(&endpoint, "taken", 1, 0);
        assert_eq!(finish(&endpoint, ["run", "-w", "0.05", "taken", "--", "true"]).code, 75);
        shown(&endpoint, "taken", 1, 0);
        fs::write(&gate, "").unwrap();
        holder.finish();
        shown(&endpoint, "taken", 0, 0);
        assert_eq!(finish(&endpoint, ["run", "-n", "taken", "--", "true"]).code, 0);
    }
}

/// G22: `hold` is for what cannot be wrapped.
#[test]
fn hold_keeps_a_lock_until_its_stdin_closes() {
    for way in ways::single() {
        let server = way.plan().start();
        let endpoint = way.endpoint(&server);
        let mut command = fairlock(&endpoint, ["hold", "held"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = Running::start(command);
        let line: Value = serde_json::from_str(&holder.line()).unwrap();
        let number = |field: &str| line[field].as_str().unwrap().parse::<u64>().unwrap();
        assert!(number("fence") < number("token"), "{line}");
        shown(&endpoint, "held", 1, 0);
        drop(holder.stdin());
        assert_eq!(holder.finish().code, 0);
        shown(&endpoint, "held", 0, 0);
    }
}

/// G23: the commands that say how things are have an answer for scripts and for people.
#[test]
fn every_question_has_an_answer() {
    let server = Plan::new(Io::Auto).start();
    let endpoint = server.unix();
    for command in ["ls", "sessions", "status"] {
        let text = finish(&endpoint, [command]);
        assert_eq!(text.code, 0, "{command}: {}", text.stderr);
        finish(&endpoint, [command, "--json"]).json();
        // Global options may stand anywhere before `--`.
        finish("", ["--json", "--endpoint", &endpoint, command]).json();
    }
    for command in ["show", "why"] {
        assert_eq!(
            finish(&endpoint, [command, "free", "--json"]).json()["holders"],
            Value::Array(Vec::new())
        );
    }
    let completions = finish(&endpoint, ["completions", "bash"]);
    assert!(completions.code == 0 && completions.stdout.contains("fairlock"));
    for command in
        ["serve", "run", "hold", "ls", "show", "why", "sessions", "status", "break", "session", "completions"]
    {
        let help = finish(&endpoint, [command, "--help"]);
        assert_eq!(help.code, 0, "{command}");
        assert!(help.stdout.contains("Usage"), "{command}: {}", help.stdout);
    }
}

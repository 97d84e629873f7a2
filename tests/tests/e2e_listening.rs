//! Where a server listens and what it refuses, how it says that it is ready, which driver it takes, and what its control
//! door tells.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::{Liveness, Request, ShardId};
use fairlock_tests::command::{Running, code, fairlock};
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Io, Plan};
use fairlock_tests::{eventually, ways};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::Arc;

/// Two plans that share their directory.
fn twins() -> (Plan, Plan) {
    let first = Plan::new(Io::Epoll);
    (first.clone(), first)
}

#[test]
fn the_ready_line_says_what_scripts_need() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).admin().start();
        let ready = &server.ready;
        assert_eq!(ready["socket"], server.socket().to_str().unwrap());
        assert_eq!((&ready["shards"], &ready["io"]), (&2.into(), &io.name().into()));
        assert_eq!((&ready["role"], &ready["recovering_ms"]), (&"standalone".into(), &0.into()));
        assert_eq!(ready["pid"].as_i64().unwrap(), i64::from(server.pid().as_raw_nonzero().get()));
        assert!(ready["epoch"].as_u64().unwrap() > 0 && server.address().port() > 0);
        let mode = fs::metadata(server.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "the socket is open to its group and nobody else");
    }
}

/// G17: one state directory, one server.
#[test]
fn a_second_server_on_the_same_state_directory_is_refused() {
    let (first, mut second) = twins();
    let mut server = first.start();
    let elsewhere = Scratch::new();
    second.arguments.extend(["--socket".to_owned(), elsewhere.join("s").to_str().unwrap().to_owned()]);
    let status = {
        let mut command = fairlock("", ["serve", "--listen", "127.0.0.1:0", "--io", "epoll"]);
        command.arg("--socket").arg(elsewhere.join("s")).arg("--state-dir").arg(first.state());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command).finish()
    };
    assert_eq!(status.code, 78, "{}", status.stderr);
    assert!(!elsewhere.join("s").exists(), "it left nothing behind");
    assert!(server.is_running());
}

/// G17: a port in use and a live socket are refused, a stale one is replaced, a file is left alone.
#[test]
fn places_that_are_taken_are_refused_and_stale_ones_are_replaced() {
    let server = Plan::new(Io::Epoll).start();
    let taken = Plan::new(Io::Epoll).argument("--listen").argument(server.address().to_string());
    assert_eq!(code(taken.try_start().unwrap_err()), 69, "{}", taken.log());

    let mut live = Plan::new(Io::Epoll);
    live.home = Arc::new(Scratch::new());
    let other = UnixListener::bind(live.socket()).unwrap();
    assert_eq!(code(live.try_start().unwrap_err()), 69, "{}", live.log());
    assert!(
        fs::symlink_metadata(live.socket()).unwrap().file_type().is_socket(),
        "the live one is still there"
    );
    drop(other);
    let mut replaced = live.start();
    let mut raw = Raw::greeted(&replaced.unix(), ShardId::ANY);
    raw.open(500, Liveness::Heartbeat);
    assert!(replaced.is_running());

    let file = Plan::new(Io::Epoll);
    fs::write(file.socket(), "precious").unwrap();
    assert_eq!(code(file.try_start().unwrap_err()), 69, "{}", file.log());
    assert_eq!(fs::read_to_string(file.socket()).unwrap(), "precious");
}

/// G17: the first server's clients do not notice those that were refused.
#[test]
fn a_refused_start_disturbs_nobody() {
    let (first, second) = twins();
    let server = first.start();
    let mut raw = Raw::greeted(&server.unix(), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    let held = raw.acquire(b"x").grant;
    let refused = code(second.try_start().unwrap_err());
    assert!(matches!(refused, 69 | 78), "{refused}: {}", second.log());
    raw.release(held);
    let mut newcomer = Raw::greeted(&server.unix(), ShardId::ANY);
    newcomer.open(500, Liveness::Heartbeat);
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused() {
    for (what, plan) in [
        ("an unknown key", Plan::new(Io::Epoll).configuration("speed = 11\n")),
        ("no TOML", Plan::new(Io::Epoll).configuration("[[[\n")),
        ("a public address", Plan::new(Io::Epoll).argument("--listen").argument("0.0.0.0:0")),
    ] {
        let status = plan.try_start().map(drop).unwrap_err();
        assert_eq!(code(status), 78, "{what}: {}", plan.log());
    }
    let mut usage = fairlock("", ["serve", "--no-such-flag"]);
    usage.stderr(Stdio::piped()).stdout(Stdio::piped());
    assert_eq!(Running::start(usage).finish().code, 64);
}

#[test]
fn the_printed_configuration_loads_again() {
    let mut print = fairlock("", ["serve", "--print-config"]);
    print.stdout(Stdio::piped()).stderr(Stdio::piped());
    let printed = Running::start(print).finish();
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    for key in ["listen", "socket", "state_dir", "shards", "io", "drain", "ttl_max", "[limits]"] {
        assert!(printed.stdout.contains(key), "{key} is not explained");
    }
    Plan::new(Io::Epoll).configuration(&printed.stdout).start();
}

/// G32: where io_uring is blocked the server says so, once, and serves with epoll.
#[test]
fn a_blocked_io_uring_is_replaced_by_epoll_and_said_once() {
    let server = Plan::new(Io::Auto).denied("--without-uring").shards(2).start();
    assert_eq!(server.ready["io"], "epoll");
    let log = server.plan.log();
    let says_why = |line: &&str| line.contains("epoll") && line.contains("uring");
    let lines: Vec<&str> = log.lines().filter(says_why).collect();
    assert_eq!(lines.len(), 1, "one line says which driver and why:\n{log}");
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    drop(raw);
    let forced = Plan::new(Io::Uring).denied("--without-uring");
    assert!(forced.try_start().is_err(), "what was asked for by name is not replaced");
}

/// G25: /healthz and /metrics.
#[test]
fn the_control_door_says_whether_grants_are_possible_and_counts_overtakes() {
    for &io in ways::drivers() {
        let server = Plan::new(io).shards(2).admin().start();
        assert_eq!(get(server.admin(), "/healthz").0, 200);
        assert_eq!(get(server.admin(), "/nothing-here").0, 404);
        let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
        raw.open(60_000, Liveness::Heartbeat);
        let key = raw.welcome.unwrap().digest_key;
        let here = raw.welcome.unwrap().shard;
        let names = (0..40).map(|number| format!("metric {number}"));
        let own: Vec<String> =
            names.filter(|name| key.digest(exclusive(name.as_bytes()).resource).shard(2) == here).collect();
        for name in &own {
            raw.call(&Request::Acquire(exclusive(name.as_bytes()))).grant();
        }
        let expected = f64::from(u32::try_from(own.len()).unwrap());
        eventually("the grants are counted", || {
            let (status, page) = get(server.admin(), "/metrics");
            assert_eq!(status, 200);
            assert_eq!(metric(&page, "overtakes_total"), Some(0.0), "{page}");
            (metric(&page, "grants_total") == Some(expected)).then_some(())
        });
    }
}

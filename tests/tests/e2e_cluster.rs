//! Operators of a cell: how they see it, and what they do to it. Real nodes, a real etcd, the real commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, GuardState};
use fairlock_protocol::{Liveness, Request, ShardId};
use fairlock_tests::cell::CellNode;
use fairlock_tests::cluster::{Demo, Operated};
use fairlock_tests::command::{Finished, finish};
use fairlock_tests::metrics::get;
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::server::{Io, Plan};
use fairlock_tests::{Over, eventually, ways};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn driver() -> Io {
    *ways::drivers().first().expect("a driver is tested")
}

/// It says no, with this code and these words.
fn refused(said: &Finished, code: i32, words: &str) {
    assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
}

/// G52: every node tells of the cell what it knows, from the first node to the third.
#[test]
fn a_cell_grows_from_one_node_to_three_and_says_so() {
    let mut cell = Operated::new(3);
    cell.start(0);
    let alone = cell.await_members(1);
    assert_eq!(
        (&alone["cell"], &alone["primary"], &alone["copies"]),
        (&"broken".into(), &"n1".into(), &1.into())
    );
    assert!(alone["alarms"][0].as_str().unwrap().contains("copies=1"), "{alone}");
    cell.start(1);
    cell.await_members(2);
    cell.start(2);
    let whole = cell.await_members(3);
    for at in [1, 2] {
        let log = cell.cell.nodes[at].plan.log();
        assert!(!log.contains("copies=1"), "who joins worries nobody: {log}");
        cell.view(at, |view| view["alarms"] == serde_json::json!([]));
    }
    assert!(
        whole["epoch"].as_u64() >= alone["epoch"].as_u64().map(|epoch| epoch + 2),
        "each join is an epoch"
    );
    assert_eq!(whole["reign"], alone["reign"], "nobody else took office");
    assert_eq!(
        (&whole["copies"], &whole["min_copies"], &whole["alarms"]),
        (&3.into(), &1.into(), &Value::Array(vec![]))
    );
    assert_eq!((&whole["register"]["answers"], &whole["state_lost"]), (&true.into(), &false.into()));
    assert!(whole["register"]["place"].as_str().unwrap().contains(&cell.cell.etcds[0].endpoint()));
    assert_eq!(whole["cell_id"].as_str().unwrap().len(), 32);
    for (at, member) in whole["members"].as_array().unwrap().iter().enumerate() {
        let role = if at == 0 { "primary" } else { "backup" };
        assert_eq!((&member["node"], &member["role"]), (&format!("n{}", at + 1).into(), &role.into()));
        assert_eq!(member["clients"], cell.one(at));
        assert_eq!(member["incarnation"].as_str().unwrap().len(), 16);
        assert!(member["lag"].is_u64() && !member["peer"].as_str().unwrap().is_empty(), "{member}");
    }
    // A backup tells what it knows: all but how far the others are.
    let backup = cell.at(1, ["cluster", "status", "--json"]).json();
    assert_eq!(
        (&backup["node"], &backup["role"], &backup["primary"]),
        (&"n2".into(), &"backup".into(), &"n1".into())
    );
    assert_eq!((&backup["epoch"], &backup["members"][0]["lag"]), (&whole["epoch"], &Value::Null));
    let text = cell.anywhere(["cluster", "status"]);
    assert!(
        text.code == 0 && text.stdout.contains("answers") && text.stdout.contains("backup"),
        "{}",
        text.stdout
    );
    // The pages of monitors.
    let (_, metrics) = get(cell.admins[0], "/metrics");
    assert!(
        metrics.contains("\nfairlock_copies 3\n") && metrics.contains("\nfairlock_offices_total 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nfairlock_followers{shard=\"0\"} 2\n"), "{metrics}");
    assert_eq!((get(cell.admins[0], "/healthz").0, get(cell.admins[1], "/healthz").0), (200, 503));
}

/// G25, G51: a primary that waits for a member which its register cannot take out grants nothing, and says so to monitors.
#[test]
fn a_primary_that_can_grant_nothing_is_not_healthy() {
    let mut cell = Operated::running(2);
    assert_eq!(get(cell.admins[0], "/healthz"), (200, "ok\n".to_owned()));
    cell.cell.etcds[0].freeze();
    cell.cell.nodes[1].kill();
    let said =
        eventually("it says so", || Some(get(cell.admins[0], "/healthz")).filter(|said| said.0 != 200));
    assert!(said.0 == 503 && said.1.starts_with("n2 does not answer, nor does the register"), "{said:?}");
    cell.cell.etcds[0].thaw();
    eventually("it grants again", || (get(cell.admins[0], "/healthz").0 == 200).then_some(()));
}

/// Operators' questions reach the primary, whichever node is named; those about a node stay with it.
#[test]
fn any_node_may_be_asked() {
    let cell = Operated::running(2);
    let mut holder = Raw::greeted(&cell.one(0), ShardId::ANY);
    holder.open(60_000, Liveness::Heartbeat);
    holder.acquire(b"orders/42");
    for at in [0, 1] {
        assert_eq!(cell.at(at, ["ls", "--json"]).json()[0]["name"], "orders/42");
        assert_eq!(
            cell.at(at, ["show", "orders/42", "--json"]).json()["holders"].as_array().unwrap().len(),
            1
        );
        assert_eq!(cell.at(at, ["sessions", "--json"]).json().as_array().unwrap().len(), 1);
        let role = ["primary", "backup"][at];
        assert_eq!(cell.at(at, ["status", "--json"]).json()["role"], role);
    }
    // Of several the primary is asked, in whatever order they stand.
    for (one, other) in [(0, 1), (1, 0)] {
        let both = format!("{},{}", cell.one(one), cell.one(other));
        assert_eq!(finish(&both, ["status", "--json"]).json()["role"], "primary");
    }
    assert_eq!(cell.at(1, ["break", "orders/42"]).code, 0);
    let doctor = cell.at(1, ["doctor"]).stdout;
    assert!(
        ["cell", "register", "peers"].iter().all(|check| doctor.contains(&format!("  {check} "))),
        "{doctor}"
    );
}

/// G53: a switchover takes nothing from a holder: its guard is valid all along, and the token is the same.
#[test]
fn a_switchover_keeps_a_held_lock() {
    let cell = Operated::running(3);
    let client =
        Client::builder().ttl(Duration::from_secs(5)).connect(cell.cell.endpoint().as_str()).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let token = guard.token();
    let (over, lost) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                lost.fetch_or(guard.check().is_err(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _over = Over(&over);
        for (asked, to) in [(0, "n2"), (0, "n3"), (2, "n1")] {
            let done = cell.at(asked, ["cluster", "switchover", to, "--json"]);
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert_eq!(done.json()["done"], "switchover");
            assert!(done.json()["took_ms"].is_u64());
            let status = cell.await_members(3);
            assert_eq!(status["primary"], to);
            assert!(status["epoch"].as_u64() >= done.json()["epoch"].as_u64(), "{status}");
            let shown = cell.anywhere(["show", "x", "--json"]).json();
            assert_eq!(shown["holders"][0]["token"], token.get().to_string(), "{shown}");
        }
    });
    assert!(!lost.load(Ordering::Relaxed), "the guard was lost for a moment");
    eventually("the client is connected again", || (guard.state() == GuardState::Valid).then_some(()));
    guard.release().unwrap();
    refused(&cell.anywhere(["cluster", "switchover", "n1"]), 66, "primary already");
    refused(&cell.anywhere(["cluster", "switchover", "zz"]), 66, "no other member");
    refused(&cell.anywhere(["cluster", "switchover", "No Name"]), 64, "names no node");
}

/// A member that is taken out counts no more; it lives, so it joins again.
#[test]
fn an_evicted_node_joins_again() {
    let cell = Operated::running(3);
    let before = cell.await_members(3);
    let done = cell.at(1, ["cluster", "evict", "n3", "--json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.json()["epoch"].as_u64() > before["epoch"].as_u64());
    let after = cell.await_members(3);
    assert!(after["epoch"].as_u64() > done.json()["epoch"].as_u64());
    assert_eq!(after["members"][2]["incarnation"], before["members"][2]["incarnation"], "the same process");
    refused(&cell.anywhere(["cluster", "evict", "zz"]), 66, "zz");
    refused(&cell.anywhere(["cluster", "evict", "n1"]), 77, "switchover");
    refused(&cell.anywhere(["cluster", "evict", "A"]), 64, "names no node");
}

/// G54: a cell is begun anew by force only when everybody is named who may be alive, and nobody of them answers; then
/// nothing is granted until the longest lease is over, and tokens go on rising.
#[test]
fn force_new_is_refused_while_somebody_may_be_alive() {
    let mut cell = Operated::running(3);
    refused(&cell.at(0, ["cluster", "force-new", "n2", "n3"]), 77, "primary");
    cell.view(1, |view| view["alarms"] == serde_json::json!([]));
    refused(&cell.at(1, ["cluster", "force-new", "n1", "n3"]), 77, "n1 serves this cell");
    let mut holder = Raw::greeted(&cell.one(0), ShardId::ANY);
    // Longer than a busy machine takes for all that is looked at before its quarantine is over.
    holder.open(10_000, Liveness::Heartbeat);
    let before = holder.acquire(b"x").token.unwrap();
    // All at once, so that nobody takes over: of the last configuration only the names are left.
    for node in &cell.cell.nodes {
        let _ = kill_process(node.pid(), Signal::STOP);
    }
    cell.cell.nodes.iter().for_each(CellNode::freeze);
    cell.cell.nodes.iter_mut().for_each(CellNode::kill);
    // One comes back. It waits for the others, and says so.
    cell.start(1);
    let status = cell.view(1, |view| view["alarms"].to_string().contains("force-new"));
    assert_eq!(
        (&status["role"], &status["waits_for"]),
        (&"joining".into(), &serde_json::json!(["n1", "n3"]))
    );
    refused(&cell.at(1, ["cluster", "force-new", "n1"]), 77, "n3");
    refused(&cell.at(1, ["cluster", "force-new", "n3", "zz"]), 77, "n1");
    assert_eq!(cell.at(1, ["cluster", "force-new"]).code, 64, "nobody is named");
    let done = cell.at(1, ["cluster", "force-new", "n1", "n3", "--json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.json()["epoch"].as_u64(), status["epoch"].as_u64().map(|epoch| epoch + 1));
    let status = cell.view(1, |view| view["role"] == "primary");
    assert_eq!((&status["state_lost"], &status["copies"]), (&true.into(), &1.into()));
    assert!(status["recovering_ms"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(cell.at(1, ["run", "x", "-n", "--", "true"]).code, 75, "nothing is granted yet");
    let mut next = Raw::greeted(&cell.one(1), ShardId::ANY);
    next.open(60_000, Liveness::Heartbeat);
    let after = eventually("the quarantine is over", || {
        let number = next.send(&Request::Acquire(exclusive(b"x")));
        let answer = next.answer(number);
        answer.refusal().is_none().then(|| answer.grant().token.unwrap())
    });
    assert!(after > before, "tokens rise");
    // The others come back, and join with nothing.
    cell.start(0);
    assert_eq!(cell.await_members(2)["primary"], "n2");
}

/// A start that waits says for what, and ends when it is told to.
#[test]
fn a_start_that_waits_says_for_what_and_answers_sigterm() {
    let mut cell = Operated::new(1);
    cell.cell.etcds[0].kill();
    cell.start(0);
    let said = cell.view(0, |view| view["register"]["answers"] == false);
    assert_eq!(
        (&said["role"], &said["epoch"], &said["primary"]),
        (&"joining".into(), &0.into(), &Value::Null)
    );
    let node = &mut cell.cell.nodes[0];
    eventually("it says what it waits for", || node.plan.log().contains("not ready yet").then_some(()));
    assert!(node.plan.log().contains("the register at etcd://"), "{}", node.plan.log());
    assert_eq!(node.stop().unwrap().code(), Some(0), "{}", node.plan.log());
}

/// A node that cannot be a part of the cell does not start.
#[test]
fn a_node_with_another_number_of_shards_is_refused() {
    let mut cell = Operated::new(2);
    cell.start(0);
    cell.await_members(1);
    let plan = cell.cell.nodes[1].plan.clone().shards(2);
    let status = plan.try_start().expect_err("it does not fit");
    assert_eq!(status.code(), Some(78), "{}", plan.log());
    assert!(plan.log().contains("--shards 1"), "{}", plan.log());
}

/// A server that runs alone has no cell to tell of.
#[test]
fn a_server_alone_belongs_to_no_cell() {
    let server = Plan::new(driver()).start();
    for command in [&["cluster", "status"][..], &["cluster", "switchover"], &["cluster", "evict", "a"]] {
        refused(&finish(&server.tcp(), command), 66, "no cell");
    }
    refused(&finish(&server.tcp(), ["cluster", "force-new", "a"]), 66, "no cell");
    assert_eq!(finish("tcp://127.0.0.1:1", ["cluster", "status"]).code, 69);
    assert_eq!(finish(&server.tcp(), ["cluster"]).code, 64);
    assert_eq!(finish(&server.tcp(), ["cluster", "evict"]).code, 64);
}

fn pid_of(node: &Value) -> Pid {
    Pid::from_raw(i32::try_from(node["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

/// A demo shows a cell, survives the death of its primary, and leaves nothing behind.
#[test]
fn a_demo_shows_a_failover_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--restart"]);
    let whole = |line: &Value| line["members"].as_array().is_some_and(|members| members.len() == 3);
    let started = demo.await_line("it has begun", |line| line["event"] == "started");
    let first = demo.await_line("three copies", whole);
    let endpoint = started["endpoint"].as_str().unwrap().to_owned();
    let status = eventually("it can be asked", || {
        let said = finish(&endpoint, ["cluster", "status", "--json"]);
        (said.code == 0).then(|| said.json()).filter(|status| status["copies"] == 3)
    });
    assert_eq!(status["role"], "primary", "{status}");
    let primary = first["primary"].as_str().unwrap().to_owned();
    let victim =
        first["nodes"].as_array().unwrap().iter().find(|node| node["node"] == primary.as_str()).unwrap();
    kill_process(pid_of(victim), Signal::KILL).unwrap();
    demo.await_line("another one serves", |line| line["primary"].as_str().is_some_and(|now| now != primary));
    let again = demo.await_line("the dead one is back", |line| {
        let back = |node: &Value| node["node"] == primary.as_str() && node["state"] == "backup";
        whole(line) && line["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(back))
    });
    demo.child.signal(Signal::TERM);
    assert_eq!(demo.child.wait(), 0);
    assert_eq!(demo.lines().last().unwrap()["event"], "ended");
    for node in again["nodes"].as_array().unwrap() {
        assert!(test_kill_process(pid_of(node)).is_err(), "{node} still runs");
    }
    assert!(!std::path::Path::new(started["directory"].as_str().unwrap()).exists());
}

/// A demo that is killed takes everything it started with it.
#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let mut demo = Demo::start(&["--nodes", "2"]);
    let line = demo.await_line("they serve", |line| line["primary"].is_string());
    demo.child.signal(Signal::KILL);
    assert_eq!(demo.child.wait(), 137);
    for node in line["nodes"].as_array().unwrap() {
        let pid = pid_of(node);
        eventually("the node is gone", || test_kill_process(pid).is_err().then_some(()));
    }
}

#[test]
fn a_demo_ends_by_itself_and_is_explained_without_a_terminal() {
    let said = finish("", ["cluster", "demo", "--seconds", "3", "--nodes", "1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for words in ["export FAIRLOCK_ENDPOINT=tcp://", "kill -9 PID", "cluster switchover", "cleaned up"] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
}

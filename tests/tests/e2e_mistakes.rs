//! Mistakes of operators: what a cell does when its record is deleted, a name is given twice, a secret is wrong, or a node
//! starts where a server ran alone. Real nodes, a real etcd, the real commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_protocol::reply::Grant;
use fairlock_protocol::{Liveness, Request, ShardId};
use fairlock_tests::cluster::Operated;
use fairlock_tests::eventually;
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Io, Plan};
use serde_json::json;
use std::sync::Arc;

/// The key of the cell's record, `/fairlock/broken/configuration`, as etcd's gateway wants it.
const RECORD: &str = "L2ZhaXJsb2NrL2Jyb2tlbi9jb25maWd1cmF0aW9u";

/// Somebody with a long lease who holds `x`.
fn holder(endpoint: &str) -> (Raw, Grant) {
    let mut raw = Raw::greeted(endpoint, ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    let granted = raw.acquire(b"x");
    (raw, granted)
}

/// The plan of the third node, under the name of the first.
fn namesake(cell: &Operated) -> Plan {
    let mut plan = cell.cell.nodes[2].plan.clone();
    plan.configuration = plan.configuration.replace("node = \"n3\"", "node = \"n1\"");
    plan.home = Arc::new(Scratch::new());
    plan
}

/// G51: a cell whose record was deleted stops at once, before a node that finds no record begins another one beside it.
#[test]
fn a_cell_whose_record_is_deleted_stops_and_can_be_begun_anew() {
    let mut cell = Operated::running(2);
    let (_holder, before) = holder(&cell.one(0));
    let epoch = cell.await_members(2)["epoch"].as_u64();
    let answer = cell.cell.etcds[0].post("/v3/kv/deleterange", &json!({ "key": RECORD }));
    assert_eq!(answer["deleted"], "1", "{answer}");
    for at in [0, 1] {
        let view = cell.view(at, |view| view["role"] == "halted");
        assert!(view["alarms"].to_string().contains("gone from the register"), "{view}");
    }
    let refused = cell.at(0, ["cluster", "force-new", "n2"]);
    assert!(refused.code == 77 && refused.stderr.contains("somebody answers at"), "{}", refused.stderr);
    cell.cell.nodes[1].kill();
    eventually("the other is off", || (cell.at(0, ["cluster", "force-new", "n2"]).code == 0).then_some(()));
    let begun = cell.view(0, |view| view["role"] == "primary");
    assert!(begun["epoch"].as_u64() > epoch && begun["recovering_ms"].as_u64().unwrap() > 0, "{begun}");
    let mut next = Raw::greeted(&cell.one(0), ShardId::ANY);
    let (session, _) = next.open(60_000, Liveness::Heartbeat);
    assert!(u64::from(session.epoch_number()) > before.token.unwrap().get() >> 39);
}

/// G51: an etcd that was restored from a backup stops the nodes that know better, before others begin with what it says.
#[test]
fn a_register_that_was_restored_from_a_backup_stops_the_cell() {
    let mut cell = Operated::running(2);
    cell.cell.etcds[0].back_up();
    cell.view(0, |view| view["register"]["answers"] == true);
    for to in ["n2", "n1"] {
        assert_eq!(cell.anywhere(["cluster", "switchover", to]).code, 0);
        cell.await_members(2);
    }
    let epoch = cell.await_members(2)["epoch"].as_u64();
    cell.cell.etcds[0].restore();
    for at in [0, 1] {
        let view = cell.view(at, |view| view["role"] == "halted" && view["register"]["answers"] == true);
        assert!(view["alarms"].to_string().contains("the register went back"), "{view}");
    }
    cell.cell.nodes[1].kill();
    eventually("the other is off", || (cell.at(0, ["cluster", "force-new", "n2"]).code == 0).then_some(()));
    let begun = cell.view(0, |view| view["role"] == "primary");
    assert!(begun["epoch"].as_u64() > epoch, "{begun}");
    assert!(!begun["alarms"].to_string().contains("register"), "{begun}");
}

/// G54: a node is not taken for an earlier life of itself while that one answers, and goes; nobody notices anything of it.
#[test]
fn a_name_that_runs_already_is_refused() {
    let mut cell = Operated::new(3);
    cell.start(0);
    let before = cell.await_members(1);
    let (mut holder, _) = holder(&cell.one(0));
    let second = namesake(&cell);
    let status = second.try_start().expect_err("its name is taken");
    assert_eq!(status.code(), Some(78), "{}", second.log());
    assert!(second.log().contains("give this one another name with --node"), "{}", second.log());
    assert_eq!(cell.await_members(1)["epoch"], before["epoch"]);
    holder.call(&Request::Keepalive);
    // Nor while it follows another.
    cell.start(1);
    cell.await_members(2);
    assert_eq!(cell.at(0, ["cluster", "switchover", "n2"]).code, 0);
    let before = cell.await_members(2);
    let status = second.try_start().expect_err("its name is taken");
    assert_eq!(status.code(), Some(78), "{}", second.log());
    let after = cell.await_members(2);
    assert_eq!((&after["primary"], &after["members"].as_array().unwrap().len()), (&"n2".into(), &2));
    assert_eq!(after["epoch"], before["epoch"], "nobody noticed");
    // When that one is gone for certain its name is free.
    cell.cell.nodes[0].kill();
    let third = second.start();
    cell.view(1, |view| view["members"].as_array().is_some_and(|members| members.len() == 2));
    drop(third);
}

/// G54: whoever answers where a named node is listed is not declared off, also when the secrets differ.
#[test]
fn members_that_answer_are_not_forced_away_for_a_wrong_secret() {
    let mut cell = Operated::new(2);
    let home = Scratch::new();
    let secret = home.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    rustix::fs::chmod(&secret, rustix::fs::Mode::RUSR).unwrap();
    let told = ["--peer-secret".to_owned(), secret.display().to_string()];
    cell.cell.nodes[0].plan.arguments.extend(told);
    cell.start(0);
    cell.await_members(1);
    let (mut holder, _) = holder(&cell.one(0));
    cell.start(1);
    let view = cell.view(1, |view| view["alarms"].to_string().contains("peer"));
    assert_eq!((&view["role"], &view["waits_for"]), (&"joining".into(), &json!(["n1"])));
    let refused = eventually("it was asked", || {
        let said = cell.at(1, ["cluster", "force-new", "n1"]);
        (said.code == 77 && said.stderr.contains("somebody answers at")).then_some(said)
    });
    assert!(refused.stderr.contains("where n1 is listed"), "{}", refused.stderr);
    holder.call(&Request::Keepalive);
    assert_eq!(cell.at(0, ["cluster", "status", "--json"]).json()["role"], "primary");
}

/// G2, G15: what a server alone granted is honoured when its state directory becomes a node's of a cell: by waiting for its
/// end, and with higher tokens, however often it was started.
#[test]
fn a_server_alone_becomes_a_cell_with_higher_tokens_and_not_while_somebody_holds() {
    let mut cell = Operated::new(1);
    let state = cell.cell.nodes[0].plan.state();
    let alone = Plan::new(Io::Auto).argument("--drain").argument("0");
    let mut alone = Plan { home: cell.cell.nodes[0].plan.home.clone(), ..alone };
    assert_eq!(alone.state(), state);
    let mut last = None;
    for _ in 0..3 {
        let server = alone.start();
        let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
        raw.open(1000, Liveness::Heartbeat);
        let token = raw.acquire(b"x").token;
        assert!(token > last, "{token:?} after {last:?}");
        last = token;
        raw.call(&Request::Close);
        alone = server.stop().0;
    }
    let server = alone.start();
    let (holder, _) = holder(&server.tcp());
    let (alone, status) = server.stop();
    assert_eq!(status.code(), Some(0));
    drop(holder);
    let node = &cell.cell.nodes[0].plan;
    let status = node.try_start().expect_err("somebody may hold something");
    assert_eq!(status.code(), Some(78), "{}", node.log());
    assert!(node.log().contains("start it alone once more"), "{}", node.log());
    let server = alone.start();
    let sessions = fairlock_tests::command::finish(&server.tcp(), ["sessions", "--json"]).json();
    let id = sessions[0]["session"].as_str().unwrap().to_owned();
    assert_eq!(fairlock_tests::command::finish(&server.tcp(), ["session", "kill", &id, "--force"]).code, 0);
    eventually("it is gone", || {
        let all = fairlock_tests::command::finish(&server.tcp(), ["sessions", "--json"]).json();
        all.as_array().unwrap().is_empty().then_some(())
    });
    let (_, status) = server.stop();
    assert_eq!(status.code(), Some(0));
    cell.start(0);
    cell.await_members(1);
    let mut raw = Raw::greeted(&cell.one(0), ShardId::ANY);
    raw.open(1000, Liveness::Heartbeat);
    let token = raw.call(&Request::Acquire(exclusive(b"x"))).grant().token;
    assert!(token > last, "{token:?} after {last:?}");
}

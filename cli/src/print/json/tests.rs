//! Shapes of the documents, from fixed entries.

use super::*;
use fairlock::admin::Transport;
use fairlock::{Priority, SessionId};
use fairlock_protocol::{Epoch, FencingToken, Liveness, OwnerId, ShardId};
use serde_json::{Value, json};

fn line(mode: Mode) -> ShowLine {
    let epoch = Epoch::new(26).expect("in range");
    ShowLine {
        cached: false,
        mode,
        from: None,
        transport: Transport::Unix,
        session: SessionId::new(epoch, ShardId(0), 7).expect("in range"),
        owner: OwnerId(0),
        token: FencingToken::new(epoch, 3),
        age_ms: 3200,
        position: 0,
        pid: 4711,
        discipline: Discipline::Strict,
        priority: Priority::LOWEST,
        class: Priority::LOWEST,
        passed: 0,
        host: "db1".to_owned(),
        exe: "/usr/bin/migrate".to_owned(),
        label: "nightly".to_owned(),
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_queue_has_exactly_the_fields_of_the_contract() {
    let mut waiter = line(Mode::PR);
    (waiter.position, waiter.token) = (1, None);
    let show = Show { holders: vec![line(Mode::EX)], waiters: vec![waiter], ..Show::default() };
    let document = serde_json::to_value(Queue::new("default", b"orders/42", &show)).expect("plain data");
    assert_eq!(
        keys(&document),
        ["conversions", "holders", "name", "namespace", "overtakes_total", "waiters"]
    );
    assert_eq!(
        document["holders"][0],
        json!({"session": "00001a0000000007", "pid": 4711, "host": "db1", "exe": "/usr/bin/migrate",
            "label": "nightly", "mode": "EX", "transport": "unix", "token": "14293651161091", "since_ms": 3200,
            "state": "held"})
    );
    assert_eq!(document["waiters"][0]["position"], 1);
    assert_eq!(document["waiters"][0]["waited_ms"], 3200);
    assert_eq!(document["waiters"][0].get("token"), None);
}

#[test]
fn a_queue_that_is_not_strict_says_so_and_has_classes() {
    let mut waiter = line(Mode::EX);
    (waiter.position, waiter.token, waiter.discipline, waiter.passed) = (1, None, Discipline::Priority, 2);
    waiter.class = Priority::HIGHEST;
    let show = Show { waiters: vec![waiter.clone()], bypasses_total: 9, ..Show::default() };
    let document = serde_json::to_value(Queue::new("jobs", b"x", &show)).expect("plain data");
    assert_eq!((&document["discipline"], &document["bypasses_total"]), (&json!("priority"), &json!(9)));
    let entry = &document["waiters"][0];
    assert_eq!((&entry["priority"], &entry["class"], &entry["passed"]), (&json!(0), &json!(7), &json!(2)));
    waiter.discipline = Discipline::Phase;
    let show = Show { waiters: vec![waiter], ..Show::default() };
    let document = serde_json::to_value(Queue::new("jobs", b"x", &show)).expect("plain data");
    assert_eq!((&document["discipline"], &document["waiters"][0]["passed"]), (&json!("phase"), &json!(2)));
    assert_eq!(document["waiters"][0].get("class"), None);
}

#[test]
fn a_free_name_has_empty_lists() {
    let document =
        serde_json::to_value(Queue::new("default", b"free", &Show::default())).expect("plain data");
    assert_eq!(
        document,
        json!({"name": "free", "namespace": "default", "holders": [], "conversions": [], "waiters": [],
            "overtakes_total": 0})
    );
}

#[test]
fn a_name_that_is_no_text_has_its_bytes_beside_it() {
    let lock = LockLine {
        namespace: "default".to_owned(),
        name: b"a\xff\\".to_vec(),
        holders: 1,
        cached: 0,
        waiters: 2,
        mode: Some(Mode::EX),
    };
    let document = serde_json::to_value(Lock::from(&lock)).expect("plain data");
    assert_eq!(
        document,
        json!({"name": "a\\xff\\\\", "name_hex": "61ff5c", "namespace": "default", "holders": 1, "cached": 0, "waiters": 2,
            "mode": "EX"})
    );
    let text = LockLine { name: "tab\tand\\ü".into(), mode: None, ..lock };
    let document = serde_json::to_value(Lock::from(&text)).expect("plain data");
    assert_eq!(document["name"], "tab\tand\\ü");
    assert_eq!(document["mode"], Value::Null);
    assert_eq!(document.get("name_hex"), None);
}

#[test]
fn a_session_has_exactly_the_fields_of_the_contract() {
    let session = SessionLine {
        session: SessionId::from_raw(0x1a).expect("not zero"),
        transport: Transport::Tcp,
        liveness: Liveness::Heartbeat,
        pid: 1,
        ttl_ms: 5000,
        expires_in_ms: None,
        grants: 2,
        waits: 1,
        host: "h".to_owned(),
        exe: "e".to_owned(),
        label: String::new(),
    };
    let document = serde_json::to_value(Session::from(&session)).expect("plain data");
    assert_eq!(
        document,
        json!({"session": "000000000000001a", "pid": 1, "host": "h", "exe": "e", "label": "", "transport": "tcp",
            "ttl_ms": 5000, "expires_in_ms": null, "grants": 2, "waits": 1})
    );
}

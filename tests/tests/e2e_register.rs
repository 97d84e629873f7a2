//! The register in real etcds: swaps, watches, and what is known when they are frozen, killed, full, without a leader,
//! compacted, or want a user.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch};
use fairlock_replication::{
    Answer, Configuration, Incarnation, MacKey, Member, NodeId, Register, Revision, Watched,
};
use fairlock_server::RegisterConfig;
use fairlock_server::register::{Watch, open};
use fairlock_tests::certificates::Authority;
use fairlock_tests::etcd::Etcd;
use fairlock_tests::scratch::Scratch;
use fairlock_tests::{WATCHDOG, eventually};
use serde_json::json;

/// A configuration of one node, told apart by its epoch.
fn configuration(epoch: u32) -> Configuration {
    let node = NodeId::new("a").unwrap();
    let member = Member {
        node: node.clone(),
        machine: "00ff".to_owned(),
        incarnation: Incarnation::new(7).unwrap(),
        peer: "10.0.0.1:7412".to_owned(),
        clients: String::new(),
    };
    Configuration {
        cell: CellId(9),
        epoch: Epoch::new(epoch).unwrap(),
        primary: node,
        members: vec![member],
        reign: Epoch::new(1).unwrap(),
        feature_level: 1,
        shards: 2,
        digest_key: DigestKey([1, 2]),
        mac_key: MacKey([3; 16]),
        ttl_horizon: Duration::from_secs(5),
        clean: false,
        state_lost: false,
    }
}

/// How to reach these, with a limit that no disk of a busy machine reaches.
fn reaching(scheme: &str, etcds: &[&Etcd]) -> RegisterConfig {
    let endpoints: Vec<String> = etcds.iter().map(|etcd| etcd.endpoint()).collect();
    let mut config = RegisterConfig::default();
    config.url = Some(format!("{scheme}://{}", endpoints.join(",")));
    config.timeout = Duration::from_secs(10);
    config
}

fn register(etcds: &[&Etcd]) -> Box<dyn Register> {
    open(&reaching("etcd", etcds), "cell-1").unwrap().register
}

/// Writes, which must succeed.
fn written(register: &mut dyn Register, expected: Option<Revision>, epoch: u32) -> Revision {
    match register.compare_and_swap(expected, &configuration(epoch)) {
        Answer::Written(revision) => revision,
        other => panic!("{other:?}"),
    }
}

/// Epoch and revision of what stands there.
fn standing(register: &mut dyn Register) -> Option<(u32, Revision)> {
    match register.read() {
        Answer::Value(stored) => stored.map(|stored| (stored.configuration.epoch.get(), stored.revision)),
        other => panic!("{other:?}"),
    }
}

fn failed(answer: Answer) -> String {
    match answer {
        Answer::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn watch(config: &RegisterConfig) -> (Watch, mpsc::Receiver<Watched>) {
    let (sender, told) = mpsc::channel();
    let watch = open(config, "cell-1").unwrap().watcher.start(move |watched| {
        let _ = sender.send(watched);
    });
    (watch.unwrap(), told)
}

/// Waits until this epoch is told; what was told on the way.
fn await_epoch(told: &mpsc::Receiver<Watched>, epoch: u32) -> Vec<Watched> {
    let mut before = Vec::new();
    loop {
        let watched = told.recv_timeout(WATCHDOG).expect("the watch tells something");
        if matches!(&watched, Watched::Value(Some(stored)) if stored.configuration.epoch.get() == epoch) {
            return before;
        }
        before.push(watched);
    }
}

#[test]
fn one_of_two_wins_each_swap() {
    let etcd = Etcd::start();
    let (mut one, mut other) = (register(&[&etcd]), register(&[&etcd]));
    assert_eq!(standing(&mut *one), None);
    assert_eq!(one.compare_and_swap(Some(Revision(1)), &configuration(1)), Answer::Conflict(None));
    let first = written(&mut *one, None, 1);
    assert!(matches!(other.compare_and_swap(None, &configuration(2)), Answer::Conflict(Some(there))
        if there.revision == first && there.configuration == configuration(1)));
    let second = written(&mut *other, Some(first), 2);
    assert!(second > first);
    assert!(matches!(one.compare_and_swap(Some(first), &configuration(3)), Answer::Conflict(Some(there))
        if there.revision == second && there.configuration == configuration(2)));
    assert_eq!(standing(&mut *one), Some((2, second)));
    // Another cell is another key.
    let mut elsewhere = open(&reaching("etcd", &[&etcd]), "cell-2").unwrap().register;
    assert_eq!(standing(&mut *elsewhere), None);
}

#[test]
fn a_watch_sees_changes_over_a_restart_and_a_compaction() {
    let mut etcd = Etcd::start();
    let mut register = register(&[&etcd]);
    let (_watch, told) = watch(&reaching("etcd", &[&etcd]));
    assert_eq!(told.recv_timeout(WATCHDOG), Ok(Watched::Value(None)));
    let first = written(&mut *register, None, 1);
    assert!(await_epoch(&told, 1).is_empty());
    etcd.post("/v3/kv/compaction", &json!({ "revision": first.0.to_string(), "physical": true }));
    let second = written(&mut *register, Some(first), 2);
    assert!(await_epoch(&told, 2).is_empty());

    etcd.kill();
    let blind = told.recv_timeout(WATCHDOG);
    assert!(matches!(&blind, Ok(Watched::Blind(why)) if why.contains(&etcd.endpoint())), "{blind:?}");
    etcd.restart();
    let third = written(&mut *register, Some(second), 3);
    let fourth = written(&mut *register, Some(third), 4);
    etcd.post("/v3/kv/compaction", &json!({ "revision": fourth.0.to_string(), "physical": true }));
    await_epoch(&told, 4);
}

#[test]
fn a_frozen_etcd_leaves_a_swap_unknown_and_it_may_happen_later() {
    let etcd = Etcd::start();
    let mut register = register(&[&etcd]);
    let first = written(&mut *register, None, 1);
    etcd.freeze();
    let mut config = reaching("etcd", &[&etcd]);
    config.timeout = Duration::from_millis(500);
    let mut hasty = open(&config, "cell-1").unwrap().register;
    let why = failed(hasty.read());
    assert!(why.contains(&etcd.endpoint()) && why.contains("register.timeout"), "{why}");
    let answer = hasty.compare_and_swap(Some(first), &configuration(2));
    assert!(matches!(&answer, Answer::Unknown(why) if why.contains("register.timeout")), "{answer:?}");
    etcd.thaw();
    // It lies in etcd's socket: it happens now, or is dropped with its connection. Either way a swap on top of what
    // is read settles it.
    let settled = eventually("a swap settles it", || {
        let (epoch, revision) = standing(&mut *register)?;
        assert!((epoch, revision) == (1, first) || epoch == 2, "{epoch}");
        match register.compare_and_swap(Some(revision), &configuration(3)) {
            Answer::Written(revision) => Some(revision),
            Answer::Conflict(_) => None,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(standing(&mut *register), Some((3, settled)));
}

#[test]
fn a_swap_that_reached_nobody_has_certainly_failed() {
    let mut etcd = Etcd::start();
    let mut register = register(&[&etcd]);
    let first = written(&mut *register, None, 1);
    etcd.kill();
    for why in [failed(register.read()), failed(register.compare_and_swap(Some(first), &configuration(2)))] {
        assert!(why.contains(&etcd.endpoint()) && why.contains("register.url"), "{why}");
    }
    etcd.restart();
    assert_eq!(standing(&mut *register), Some((1, first)));
    written(&mut *register, Some(first), 2);
}

#[test]
fn a_cluster_serves_without_one_and_says_when_it_has_no_leader() {
    let mut etcds = Etcd::cluster(3);
    let mut register = register(&etcds.iter().collect::<Vec<_>>());
    let first = written(&mut *register, None, 1);
    etcds[0].kill();
    // The member that was killed may have been the leader: until there is another nothing is served, and a swap may
    // be unknown.
    let second = eventually("the other two serve", || {
        let Answer::Value(Some(there)) = register.read() else { return None };
        assert!(there.revision >= first);
        match register.compare_and_swap(Some(there.revision), &configuration(2)) {
            Answer::Written(revision) => Some(revision),
            Answer::Unknown(_) | Answer::Failed(_) | Answer::Conflict(_) => None,
            other @ Answer::Value(_) => panic!("{other:?}"),
        }
    });
    etcds[1].kill();
    eventually("it says that it has no leader", || {
        let Answer::Failed(why) = register.compare_and_swap(Some(second), &configuration(3)) else {
            return None;
        };
        why.contains("has no leader").then_some(())
    });
    etcds[1].restart();
    let there = eventually("two serve again", || match register.read() {
        Answer::Value(there) => there,
        _ => None,
    });
    assert!(there.configuration.epoch.get() >= 2);
}

#[test]
fn a_full_etcd_refuses_and_says_so() {
    let etcd = Etcd::with(&["--quota-backend-bytes", "100000"]);
    let mut register = register(&[&etcd]);
    let first = written(&mut *register, None, 1);
    let body = json!({ "key": "eA==", "value": "AAAA".repeat(20_000) });
    eventually("it is full", || etcd.post("/v3/kv/put", &body).get("error").map(drop));
    let why = failed(register.compare_and_swap(Some(first), &configuration(2)));
    assert!(why.contains("is full") && why.contains("etcdctl alarm disarm"), "{why}");
    assert_eq!(standing(&mut *register), Some((1, first)), "it can still be read");
}

#[test]
fn an_etcd_with_users_wants_one_who_may() {
    let etcd = Etcd::start();
    let key = |text: &str| text.to_owned();
    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "secret" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("user/add", json!({ "name": "fair", "password": "word" })),
        ("user/add", json!({ "name": "other", "password": "word" })),
        ("role/add", json!({ "name": "cells" })),
        // "/fairlock/" up to "/fairlock0", which is everything that begins so.
        (
            "role/grant",
            json!({ "name": "cells", "perm": {
                "permType": "READWRITE", "key": key("L2ZhaXJsb2NrLw=="), "range_end": key("L2ZhaXJsb2NrMA==") } }),
        ),
        ("user/grant", json!({ "user": "fair", "role": "cells" })),
    ] {
        let answer = etcd.post(&format!("/v3/auth/{path}"), &body);
        assert!(answer.get("error").is_none(), "{path}: {answer}");
    }
    let room = Scratch::new();
    let file = room.join("password");
    std::fs::write(&file, "word\n").unwrap();
    let with = |user: &str| {
        let mut config = reaching("etcd", &[&etcd]);
        (config.user, config.password_file) = (Some(user.to_owned()), Some(file.clone()));
        config
    };
    let mut fair = open(&with("fair"), "cell-1").unwrap().register;
    let first = written(&mut *fair, None, 1);
    let (_watch, told) = watch(&with("fair"));
    await_epoch(&told, 1);
    // Users begin to count only now: who has no token yet gets one.
    etcd.post("/v3/auth/enable", &json!({}));
    let second =
        eventually("etcd wants users", || match fair.compare_and_swap(Some(first), &configuration(2)) {
            Answer::Written(revision) => Some(revision),
            other => panic!("{other:?}"),
        });
    await_epoch(&told, 2);
    assert!(failed(register(&[&etcd]).read()).contains("wants a user"));
    let mut other = open(&with("other"), "cell-1").unwrap().register;
    assert!(failed(other.read()).contains("grant-permission"));
    assert!(failed(other.compare_and_swap(Some(second), &configuration(3))).contains("grant-permission"));
    std::fs::write(&file, "wrong").unwrap();
    let mut wrong = open(&with("fair"), "cell-1").unwrap().register;
    assert!(
        failed(wrong.compare_and_swap(Some(second), &configuration(3))).contains("register.password_file")
    );
    assert_eq!(standing(&mut *fair), Some((2, second)));
}

#[test]
fn tls_is_spoken_with_whom_the_authority_has_signed_only() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.issue("etcd");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, cert, key) = (text(&authority.certificate()), text(&cert), text(&key));
    let files = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let etcd = Etcd::with(&files);
    let trusting = |whom: &Authority, identity: Option<(PathBuf, PathBuf)>| {
        let mut config = reaching("etcds", &[&etcd]);
        config.ca = Some(whom.certificate());
        (config.cert, config.key) = identity.unzip();
        config
    };
    let ours = trusting(&authority, Some(authority.issue("fairlock")));
    let mut good = open(&ours, "cell-1").unwrap().register;
    let first = written(&mut *good, None, 1);
    let (_watch, told) = watch(&ours);
    await_epoch(&told, 1);
    let second = written(&mut *good, Some(first), 2);
    await_epoch(&told, 2);
    // Whom we do not know, who does not know us, and nobody at all.
    let mut deceived = open(&trusting(&stranger, None), "cell-1").unwrap().register;
    let why = failed(deceived.compare_and_swap(Some(second), &configuration(3)));
    assert!(why.contains("TLS") && why.contains("register.ca"), "{why}");
    for identity in [None, Some(stranger.issue("fairlock"))] {
        let mut unknown = open(&trusting(&authority, identity), "cell-1").unwrap().register;
        let why = failed(unknown.read());
        assert!(why.contains("TLS") && why.contains("register.cert"), "{why}");
    }
    let why = failed(register(&[&etcd]).read());
    assert!(why.contains("etcds://"), "{why}");
    assert_eq!(standing(&mut *good), Some((2, second)));
}

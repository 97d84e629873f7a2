//! A watch tells each change, is renewed where it must be, and says when it is blind.

use std::sync::mpsc;

use fairlock_replication::{Revision, Watched};
use serde_json::json;

use super::fake::{Fake, Say};
use super::*;
use crate::register::Watch;

/// Longer than anything here takes; only turns a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(30);

fn watch(fake: &Fake) -> (Watch, mpsc::Receiver<Watched>) {
    let (sender, told) = mpsc::channel();
    let watcher = super::super::open(&reaching(&[fake]), "test").unwrap().watcher;
    let watch = watcher.start(move |watched| {
        let _ = sender.send(watched);
    });
    (watch.unwrap(), told)
}

fn next(told: &mpsc::Receiver<Watched>) -> Watched {
    told.recv_timeout(WATCHDOG).expect("the watch tells something")
}

/// Epoch and revision of a value.
fn value(watched: Watched) -> Option<(u32, Revision)> {
    match watched {
        Watched::Value(stored) => stored.map(|stored| (stored.configuration.epoch.get(), stored.revision)),
        Watched::Blind(why) => panic!("{why}"),
    }
}

fn created() -> Value {
    json!({ "result": { "header": { "revision": "1" }, "created": true } })
}

fn event(epoch: u32, revision: u64) -> Value {
    json!({ "result": { "events": [{ "kv": kv(epoch - 1, revision - 1) }, { "kv": kv(epoch, revision) }] } })
}

#[test]
fn a_watch_tells_what_stands_there_and_every_change_behind_it() {
    let removed = json!({ "result": { "events": [{ "type": "DELETE", "kv": { "mod_revision": "9" } }] } });
    let fake = Fake::saying(move |asked| match asked.path.as_str() {
        "/v3/kv/range" => Say::Json(200, found(3, 5)),
        _ => Say::Stream(vec![created(), event(4, 7), removed.clone()]),
    });
    let (watch, told) = watch(&fake);
    assert_eq!(value(next(&told)), Some((3, Revision(5))));
    assert_eq!(value(next(&told)), Some((4, Revision(7))));
    assert_eq!(value(next(&told)), None);
    assert_eq!(fake.asked()[1].body.pointer("/create_request/start_revision").unwrap(), "6");
    drop(watch);
    assert!(told.recv().is_err(), "nothing is told behind the end");
}

#[test]
fn what_is_compacted_is_read_again() {
    let mut reads = 0;
    let fake = Fake::saying(move |asked| match asked.path.as_str() {
        "/v3/kv/range" => {
            reads += 1;
            Say::Json(200, found(reads, u64::from(reads) * 10))
        }
        _ if reads == 1 => {
            let canceled = json!({ "result": { "canceled": true, "compact_revision": "15" } });
            Say::Stream(vec![created(), canceled])
        }
        _ => Say::Stream(vec![created()]),
    });
    let (_watch, told) = watch(&fake);
    assert_eq!(value(next(&told)), Some((1, Revision(10))));
    assert_eq!(value(next(&told)), Some((2, Revision(20))));
}

#[test]
fn a_watch_that_is_lost_says_so_once_and_sees_again() {
    let mut watches = 0;
    let fake = Fake::saying(move |asked| {
        if asked.path == "/v3/kv/range" {
            return Say::Json(200, found(1, 1));
        }
        watches += 1;
        if watches < 3 { Say::End } else { Say::Stream(vec![created()]) }
    });
    let (_watch, told) = watch(&fake);
    for _ in 0..2 {
        assert_eq!(value(next(&told)), Some((1, Revision(1))));
        assert!(matches!(next(&told), Watched::Blind(why) if why.contains("begins again")));
    }
    assert_eq!(value(next(&told)), Some((1, Revision(1))));
}

#[test]
fn a_watch_that_is_refused_says_why() {
    let reasons = [
        (
            json!({ "result": { "canceled": true, "cancel_reason": "etcdserver: permission denied" } }),
            "grant-permission",
        ),
        (json!({ "error": { "grpc_code": 14, "message": "etcdserver: no leader" } }), "has no leader"),
        (json!({ "error": { "code": 7, "message": "etcdserver: permission denied" } }), "grant-permission"),
        (json!({ "hello": 1 }), "no etcd"),
    ];
    for (line, words) in reasons {
        let fake = Fake::saying(move |asked| match asked.path.as_str() {
            "/v3/kv/range" => Say::Json(200, json!({ "header": { "revision": "1" } })),
            _ => Say::Stream(vec![line.clone()]),
        });
        let (_watch, told) = watch(&fake);
        assert_eq!(value(next(&told)), None);
        assert!(matches!(next(&told), Watched::Blind(why) if why.contains(words)));
    }
}

#[test]
fn a_watch_ends_at_once_whatever_it_waits_for() {
    // A stream that says nothing, and an etcd that is not there: both are left by being dropped.
    let silent = Fake::saying(|asked| match asked.path.as_str() {
        "/v3/kv/range" => Say::Json(200, found(1, 1)),
        _ => Say::Nothing,
    });
    let (watching, told) = watch(&silent);
    next(&told);
    drop(watching);
    let refusing = Fake::saying(|_| Say::End);
    let (watching, told) = watch(&refusing);
    assert!(matches!(next(&told), Watched::Blind(_)));
    drop(watching);
    assert!(told.recv().is_err());
}

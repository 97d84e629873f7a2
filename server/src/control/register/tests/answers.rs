//! Reads and swaps: what is asked, what the answers become, and which troubles leave nobody knowing.

use std::net::TcpListener;

use fairlock_replication::{Answer, Revision, Stored};
use serde_json::json;

use super::fake::{Fake, Say};
use super::*;

const EXPECTED: Option<Revision> = Some(Revision(5));

fn stored(epoch: u32, revision: u64) -> Stored {
    Stored { configuration: configuration(epoch), revision: Revision(revision) }
}

/// The message of an answer that did not happen.
fn failed(answer: Answer) -> String {
    match answer {
        Answer::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

/// The message of an answer that nobody knows.
fn unknown(answer: Answer) -> String {
    match answer {
        Answer::Unknown(why) => why,
        other => panic!("{other:?}"),
    }
}

/// An error as etcd 3.4 says it.
fn error(code: u64, message: &str) -> Value {
    json!({ "error": message, "message": message, "code": code })
}

#[test]
fn a_read_gives_what_stands_there() {
    let fake = Fake::always(200, found(3, 17));
    assert_eq!(register(&[&fake]).read(), Answer::Value(Some(stored(3, 17))));
    let asked = &fake.asked()[0];
    assert_eq!(asked.path, "/v3/kv/range");
    assert_eq!(asked.body, json!({ "key": base64::encode(b"/fairlock/test/configuration") }));
    let empty = Fake::always(200, json!({ "header": { "revision": "1" } }));
    assert_eq!(register(&[&empty]).read(), Answer::Value(None));
}

#[test]
fn a_swap_compares_the_revision_or_the_absence() {
    let fake = Fake::always(200, json!({ "header": { "revision": "18" }, "succeeded": true }));
    let mut register = register(&[&fake]);
    assert_eq!(register.compare_and_swap(EXPECTED, &configuration(4)), Answer::Written(Revision(18)));
    assert_eq!(register.compare_and_swap(None, &configuration(4)), Answer::Written(Revision(18)));
    let asked = fake.asked();
    let compared = |at: usize| asked[at].body.pointer("/compare/0").unwrap().clone();
    assert_eq!(
        (compared(0)["target"].as_str(), compared(0)["mod_revision"].as_str()),
        (Some("MOD"), Some("5"))
    );
    assert_eq!(
        (compared(1)["target"].as_str(), compared(1)["create_revision"].as_str()),
        (Some("CREATE"), Some("0"))
    );
    let value = asked[0].body.pointer("/success/0/request_put/value").unwrap().as_str().unwrap();
    assert_eq!(base64::decode(value).unwrap(), configuration(4).to_text().into_bytes());
}

#[test]
fn a_swap_that_comes_too_late_tells_what_stands_there() {
    let there =
        json!({ "header": { "revision": "9" }, "responses": [{ "response_range": { "kvs": [kv(8, 9)] } }] });
    let fake = Fake::always(200, there);
    let answer = register(&[&fake]).compare_and_swap(EXPECTED, &configuration(4));
    assert_eq!(answer, Answer::Conflict(Some(stored(8, 9))));
    let gone = json!({ "header": { "revision": "9" }, "responses": [{ "response_range": {} }] });
    let fake = Fake::always(200, gone);
    assert_eq!(register(&[&fake]).compare_and_swap(EXPECTED, &configuration(4)), Answer::Conflict(None));
}

#[test]
fn a_swap_whose_answer_is_lost_is_unknown_and_is_not_asked_again() {
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"header\"";
    let makers: [fn() -> Say; 3] = [|| Say::Nothing, || Say::End, || Say::Raw(HALF.to_owned())];
    for make in makers {
        let (lost, other) = (Fake::saying(move |_| make()), Fake::always(200, found(1, 1)));
        let mut register = hasty(reaching(&[&lost, &other]));
        let why = unknown(register.compare_and_swap(EXPECTED, &configuration(4)));
        assert!(why.contains(&lost.address().to_string()) && why.contains("register.timeout"), "{why}");
        assert_eq!((lost.asked().len(), other.asked().len()), (1, 0));
        // What is asked next goes elsewhere first.
        assert_eq!(register.read(), Answer::Value(Some(stored(1, 1))));
        assert_eq!(lost.asked().len(), 1);
    }
}

#[test]
fn errors_that_may_hide_an_effect_are_unknown_and_refusals_are_not() {
    for (status, code, message) in [
        (503, 14, "etcdserver: request timed out"),
        (503, 14, "etcdserver: request timed out, possibly due to previous leader failure"),
        (503, 14, "etcdserver: leader changed"),
        (504, 4, "context deadline exceeded"),
        (500, 2, "etcdserver: server stopped"),
        (408, 1, "context canceled"),
    ] {
        let fake = Fake::always(status, error(code, message));
        let why = unknown(register(&[&fake]).compare_and_swap(EXPECTED, &configuration(4)));
        assert!(why.contains(message), "{why}");
        assert!(failed(register(&[&fake]).read()).contains(message));
    }
    let proxy = Fake::raw("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>");
    unknown(register(&[&proxy]).compare_and_swap(EXPECTED, &configuration(4)));
    for (status, code, message, advice) in [
        (503, 14, "etcdserver: no leader", "start more of its members"),
        (429, 8, "etcdserver: too many requests", "too many requests"),
        (400, 3, "etcdserver: user name is empty", "register.user"),
        (403, 7, "etcdserver: permission denied", "grant-permission"),
        (400, 3, "etcdserver: authentication failed, invalid user ID or password", "register.password_file"),
    ] {
        let fake = Fake::always(status, error(code, message));
        let why = failed(register(&[&fake]).compare_and_swap(EXPECTED, &configuration(4)));
        assert!(why.contains(advice) && why.contains(&fake.address().to_string()), "{why}");
        assert!(failed(register(&[&fake]).read()).contains(advice));
    }
}

/// The swap that fills it up is carried out, and answered as those after it.
#[test]
fn whether_a_full_etcd_has_swapped_is_read() {
    let swap = |stands: Option<Value>| {
        let fake = Fake::saying(move |asked| match &stands {
            Some(stands) if asked.path.ends_with("range") => Say::Json(200, stands.clone()),
            _ => Say::Json(429, error(8, "etcdserver: mvcc: database space exceeded")),
        });
        register(&[&fake]).compare_and_swap(EXPECTED, &configuration(4))
    };
    assert_eq!(swap(Some(found(4, 18))), Answer::Written(Revision(18)));
    assert!(failed(swap(Some(found(3, 5)))).contains("etcdctl alarm disarm"));
    assert!(
        matches!(swap(Some(found(5, 19))), Answer::Conflict(Some(there)) if there.revision == Revision(19))
    );
    assert!(unknown(swap(None)).contains("etcdctl alarm disarm"));
}

#[test]
fn whoever_is_no_etcd_is_told_from_an_old_one() {
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n";
    for (fake, words) in [
        (
            Fake::raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!DOCTYPE html><p>hello"),
            "<!DOCTYPE html>",
        ),
        (Fake::raw("SSH-2.0-OpenSSH_9.2p1\r\n"), "not an HTTP answer"),
        (
            Fake::raw("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server."),
            "HTTPS server",
        ),
        (Fake::raw(missing), "status 404"),
        (Fake::always(200, json!({ "hello": 1 })), "no revision"),
        (Fake::always(200, json!({ "header": { "revision": "1" }, "kvs": [{ "value": "x" }] })), "base64"),
    ] {
        let why = failed(register(&[&fake]).read());
        assert!(why.contains("no etcd") && why.contains(words) && why.contains("register.url"), "{why}");
    }
    let old = Fake::saying(move |asked| match asked.path.as_str() {
        "/version" => Say::Json(200, json!({ "etcdserver": "3.3.27", "etcdcluster": "3.3.0" })),
        _ => Say::Raw(missing.to_owned()),
    });
    let why = failed(register(&[&old]).compare_and_swap(EXPECTED, &configuration(4)));
    assert!(why.contains("3.3.27") && why.contains("3.4"), "{why}");
}

#[test]
fn a_value_that_is_not_ours_is_never_written_over() {
    for (value, words) in [("hello", "no configuration"), ("fairlock-configuration 2\n", "newer version")] {
        let kv = json!({ "mod_revision": "5", "value": base64::encode(value.as_bytes()) });
        let range = json!({ "header": { "revision": "5" }, "kvs": [kv] });
        let both =
            json!({ "header": { "revision": "5" }, "kvs": [kv], "responses": [{ "response_range": range }] });
        let fake = Fake::always(200, both);
        let mut register = register(&[&fake]);
        for why in [failed(register.read()), failed(register.compare_and_swap(None, &configuration(1)))] {
            assert!(why.contains(words) && why.contains("/fairlock/test/configuration"), "{why}");
        }
    }
}

#[test]
fn endpoints_are_tried_in_turn_and_the_one_that_works_is_remembered() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = away.local_addr().unwrap();
    drop(away);
    let leaderless = Fake::always(503, error(14, "etcdserver: no leader"));
    let good = Fake::always(200, json!({ "header": { "revision": "2" }, "succeeded": true }));
    let mut config = reaching(&[&leaderless, &good]);
    config.url = Some(format!("etcd://{gone},{},{}", leaderless.address(), good.address()));
    let mut register = super::super::open(&config, "test").unwrap().register;
    for _ in 0..3 {
        assert_eq!(register.compare_and_swap(None, &configuration(1)), Answer::Written(Revision(2)));
    }
    assert_eq!((leaderless.asked().len(), good.asked().len()), (1, 3));
}

#[test]
fn an_endpoint_that_hangs_leaves_time_for_the_next() {
    let (hangs, good) = (Fake::saying(|_| Say::Nothing), Fake::always(200, found(1, 1)));
    assert_eq!(hasty(reaching(&[&hangs, &good])).read(), Answer::Value(Some(stored(1, 1))));
}

#[test]
fn when_nobody_can_be_reached_everybody_is_named() {
    let url = Some("etcd://127.0.0.1:1,[::1]:1,no-such-host.invalid:7".to_owned());
    let config = RegisterConfig { url, ..RegisterConfig::default() };
    let mut register = super::super::open(&config, "test").unwrap().register;
    for why in [failed(register.read()), failed(register.compare_and_swap(None, &configuration(1)))] {
        for part in ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:7", "register.url"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}

/// A configuration with a user, and the file with its password.
fn with_user(config: RegisterConfig, room: &crate::control::test_room::TempDir) -> RegisterConfig {
    let file = room.path().join("password");
    std::fs::write(&file, "pass word\n").unwrap();
    RegisterConfig { user: Some("fair".to_owned()), password_file: Some(file), ..config }
}

#[test]
fn a_user_logs_in_once_and_again_when_the_token_is_over() {
    let mut tokens = 0;
    let fake = Fake::saying(move |asked| {
        if asked.path == "/v3/auth/authenticate" {
            assert_eq!(asked.body, json!({ "name": "fair", "password": "pass word" }));
            tokens += 1;
            return Say::Json(200, json!({ "token": format!("t.{tokens}") }));
        }
        // The first token holds for nothing at all.
        let good = asked.head.contains("\r\nAuthorization: t.2\r\n");
        if good {
            Say::Json(200, found(1, 1))
        } else {
            Say::Json(401, error(16, "etcdserver: invalid auth token"))
        }
    });
    let room = crate::control::test_room::TempDir::new();
    let config = with_user(reaching(&[&fake]), &room);
    let mut register = super::super::open(&config, "test").unwrap().register;
    for _ in 0..2 {
        assert_eq!(register.read(), Answer::Value(Some(stored(1, 1))));
    }
    let (login, range) = ("/v3/auth/authenticate", "/v3/kv/range");
    assert_eq!(fake.paths(), [login, range, login, range, range]);
}

#[test]
fn a_user_does_no_harm_where_etcd_has_no_users() {
    let fake = Fake::saying(|asked| match asked.path.as_str() {
        "/v3/kv/range" => Say::Json(200, found(1, 1)),
        _ => Say::Json(400, error(9, "etcdserver: authentication is not enabled")),
    });
    let room = crate::control::test_room::TempDir::new();
    let config = with_user(reaching(&[&fake]), &room);
    let mut register = super::super::open(&config, "test").unwrap().register;
    assert_eq!(register.read(), Answer::Value(Some(stored(1, 1))));
}

#[test]
fn a_login_that_hangs_leaves_a_swap_certainly_undone() {
    let fake = Fake::saying(|_| Say::Nothing);
    let room = crate::control::test_room::TempDir::new();
    let config = with_user(reaching(&[&fake]), &room);
    failed(hasty(config).compare_and_swap(None, &configuration(1)));
    assert_eq!(fake.paths(), ["/v3/auth/authenticate"]);
}

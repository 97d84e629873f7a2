//! Lines read back as they were written, and say what is wrong with them.

use super::*;

fn events() -> Vec<Event<'static>> {
    let acquire = |name: &'static [u8], namespace: &'static str| What::Acquire {
        request: 1,
        namespace: namespace.into(),
        name: name.into(),
        mode: Mode::PR,
        owner: 7,
        wait_ms: Some(30),
    };
    let whats = [
        What::Open { heartbeat: true },
        What::Open { heartbeat: false },
        acquire(b"a \"quoted\" \\ name", "jobs"),
        acquire(b"\xff\x00", "default"),
        What::Queued { request: 1 },
        What::Granted {
            request: 1,
            token: Some(u64::MAX >> 1),
            fence: Some(3),
            waited_ns: 4,
            until_ns: 5,
            session: "00001a0000000007".into(),
        },
        What::Refused { request: 1, code: "TIMEOUT".into() },
        What::Unknown { request: 1, code: "UNAVAILABLE".into() },
        What::Valid { request: 1, until_ns: 9 },
        What::Convert { request: 1, mode: Mode::EX },
        What::Converted { request: 1, mode: Mode::EX, token: Some(8), fence: None },
        What::Release { request: 1 },
        What::Lost { request: 1, lease: true },
        What::Lost { request: 1, lease: false },
        What::Closed,
        What::Killed,
        What::Namespace { namespace: "jobs".into(), strict: false },
        What::Server { node: "1".into(), what: "killed".into(), memory_lost: true },
    ];
    whats.into_iter().map(|what| Event { at_ns: 11, client: "c".into(), what }).collect()
}

#[test]
fn every_event_reads_back() {
    for event in events() {
        let line = event.line();
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        assert_eq!(Event::parse(line.as_bytes()), Ok(event), "{line}");
    }
}

#[test]
fn unknown_keys_and_kinds_are_no_errors_and_numbers_may_be_tokens() {
    let line = br#"{"at":1,"event":"granted","client":"c","request":2,"token":3,"until":4,"colour":"red"}"#;
    let What::Granted { token: Some(3), fence: None, waited_ns: 0, .. } = Event::parse(line).unwrap().what
    else {
        panic!("{:?}", Event::parse(line));
    };
    assert_eq!(Event::parse(br#"{"at":1,"event":"lunch"}"#).unwrap().what, What::Other);
}

#[test]
fn a_broken_line_says_what_is_wrong() {
    for (line, said) in [
        (r#"{"at":1,"event":"acquire","client":"c","name":"x","mode":"EX"}"#, "without `request`"),
        (r#"{"at":1,"event":"acquire","client":"c","request":1,"mode":"EX"}"#, "without `name`"),
        (r#"{"at":1,"event":"acquire","client":"c","request":1,"name":"x","mode":"XX"}"#, "XX"),
        (r#"{"at":1,"event":"acquire","client":"c","request":1,"name_hex":"f","mode":"EX"}"#, "name_hex"),
        (r#"{"at":1,"event":"release","request":1}"#, "without `client`"),
        (r#"{"event":"closed","client":"c"}"#, "at"),
        (r#"{"at":1,"event":"granted","client":"c","request":1,"token":"x","until":1}"#, "digits"),
        ("nonsense", "expected"),
    ] {
        let error = Event::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{line}: {error}");
    }
}

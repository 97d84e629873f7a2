//! Namespaces that are served in phases or by priority, from the configuration file to the order of grants, and beside
//! them a strict one that knows nothing of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{AcquireError, Client, Refusal};
use fairlock_protocol::request::Acquire;
use fairlock_protocol::{GrantId, Liveness, Mode, Priority, Request, Resource, ShardId, Wait};
use fairlock_tests::command::{Running, code, fairlock, finish};
use fairlock_tests::eventually;
use fairlock_tests::metrics::{get, metric};
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::scratch::Scratch;
use fairlock_tests::server::{Io, Plan, Server};
use fairlock_tests::ways;
use std::time::Duration;

const FILE: &str = "\
[namespace.reports]
discipline = \"phase\"
bypass_budget = 3

[namespace.jobs]
discipline = \"priority\"
bypass_budget = 2
age_step = \"1h\"

[namespace.ageing]
discipline = \"priority\"
age_step = \"20ms\"
";

/// Clients with a session each, and what they asked for.
struct Crowd {
    clients: Vec<(Raw, u64)>,
    endpoint: String,
}

impl Crowd {
    fn at(endpoint: String) -> Crowd {
        Crowd { clients: Vec::new(), endpoint }
    }

    /// One more asks for a lock of a namespace; gives its place in the crowd.
    fn ask(&mut self, namespace: &str, mode: Mode, class: u8) -> usize {
        let mut raw = Raw::greeted(&self.endpoint, ShardId::ANY);
        raw.open(60_000, Liveness::Heartbeat);
        let acquire = acquire(namespace, mode, class);
        let number = raw.send(&Request::Acquire(acquire));
        // The answer to this one tells that the other has been decided.
        raw.call(&Request::Keepalive);
        self.clients.push((raw, number));
        self.clients.len() - 1
    }

    /// Asks and is granted at once.
    fn hold(&mut self, namespace: &str, mode: Mode) -> (usize, GrantId) {
        let mut raw = Raw::greeted(&self.endpoint, ShardId::ANY);
        raw.open(60_000, Liveness::Heartbeat);
        let grant = raw.call(&Request::Acquire(acquire(namespace, mode, 0))).grant().grant;
        self.clients.push((raw, 0));
        (self.clients.len() - 1, grant)
    }

    fn release(&mut self, (at, grant): (usize, GrantId)) {
        self.clients[at].0.release(grant);
    }

    /// The grant of one that was let in by now.
    fn granted(&mut self, at: usize) -> (usize, GrantId) {
        let (raw, number) = &mut self.clients[at];
        (at, raw.answer(*number).grant().grant)
    }
}

fn acquire(namespace: &str, mode: Mode, class: u8) -> Acquire<'_> {
    let resource = Resource::new(namespace.as_bytes(), b"x").unwrap();
    Acquire { resource, mode, priority: Priority::new(class).unwrap(), ..exclusive(b"x") }
}

fn attempt(server: &Server, namespace: &str, mode: Mode, class: u8) -> Option<Refusal> {
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    let answer = raw.call(&Request::Acquire(Acquire { wait: Wait::Try, ..acquire(namespace, mode, class) }));
    answer.refusal()
}

fn shown(server: &Server, namespace: &str) -> serde_json::Value {
    finish(&server.tcp(), ["show", "x", "--namespace", namespace, "--json"]).json()
}

/// G38: readers join at most as often as the file says, then the writer is next.
#[test]
fn readers_join_readers_as_often_as_the_file_says() {
    for way in ways::single() {
        let server = way.plan().configuration(FILE).admin().start();
        let mut crowd = Crowd::at(way.endpoint(&server));
        let mut readers = vec![crowd.hold("reports", Mode::PR)];
        let writer = crowd.ask("reports", Mode::EX, 0);
        for _ in 0..3 {
            readers.push(crowd.hold("reports", Mode::PR));
        }
        assert_eq!(attempt(&server, "reports", Mode::PR, 7), Some(Refusal::WouldBlock), "three joined");
        let late = crowd.ask("reports", Mode::PR, 0);
        let said = shown(&server, "reports");
        assert_eq!(
            (&said["discipline"], &said["waiters"][0]["passed"]),
            (&"phase".into(), &3.into()),
            "{said}"
        );
        assert_eq!((&said["overtakes_total"], &said["bypasses_total"]), (&0.into(), &3.into()), "{said}");
        for reader in readers {
            crowd.release(reader);
        }
        let writing = crowd.granted(writer);
        crowd.release(writing);
        crowd.granted(late);
        let page = get(server.admin(), "/metrics").1;
        assert_eq!(
            (metric(&page, "bypasses_total"), metric(&page, "overtakes_total")),
            (Some(3.0), Some(0.0))
        );
    }
}

/// G39: a high class passes a low one, a low one is passed twice and no more.
#[test]
fn a_high_class_passes_a_low_one_that_is_not_starved() {
    for way in ways::single() {
        let server = way.plan().configuration(FILE).start();
        let mut crowd = Crowd::at(way.endpoint(&server));
        let mut holder = crowd.hold("jobs", Mode::EX);
        let low = crowd.ask("jobs", Mode::EX, 0);
        let high: Vec<usize> = (0..4).map(|_| crowd.ask("jobs", Mode::EX, 7)).collect();
        let said = shown(&server, "jobs");
        assert_eq!((&said["waiters"][1]["class"], &said["waiters"][1]["position"]), (&7.into(), &2.into()));
        for next in [high[0], high[1], low, high[2], high[3]] {
            crowd.release(holder);
            holder = crowd.granted(next);
        }
        assert_eq!(shown(&server, "jobs")["overtakes_total"], 0);
    }
}

/// G39: age lifts a waiter above those who ask in a higher class, later.
#[test]
fn a_waiter_rises_with_age() {
    let server = Plan::new(Io::Auto).configuration(FILE).start();
    let mut crowd = Crowd::at(server.tcp());
    let holder = crowd.hold("ageing", Mode::EX);
    let low = crowd.ask("ageing", Mode::EX, 0);
    eventually("it has risen to the top", || {
        (shown(&server, "ageing")["waiters"][0]["class"] == 7).then_some(())
    });
    crowd.ask("ageing", Mode::EX, 7);
    crowd.release(holder);
    crowd.granted(low);
}

/// G40: a holder that waits inherits the class of those who wait for it.
#[test]
fn a_holder_that_waits_is_served_with_the_class_that_waits_for_it() {
    let server = Plan::new(Io::Auto).configuration(FILE).start();
    let endpoint = server.tcp();
    let connect = || Client::connect(endpoint.as_str()).unwrap();
    let (owner, holder, middle, urgent) = (connect(), connect(), connect(), connect());
    let outer = owner.lock("outer").namespace("jobs").acquire().unwrap();
    let inner = holder.lock("inner").namespace("jobs").owner(fairlock::OwnerId(5)).acquire().unwrap();
    let waiters = |name: &str, count: usize| {
        eventually("they wait", || {
            let said = finish(&endpoint, ["show", name, "--namespace", "jobs", "--json"]).json();
            (said["waiters"].as_array().unwrap().len() == count).then_some(said)
        })
    };
    let (middle, _middle) = (middle.lock("outer").namespace("jobs").priority(3).acquire_async(), middle);
    waiters("outer", 1);
    let waiting = holder.lock("outer").namespace("jobs").owner(fairlock::OwnerId(5));
    let nested = std::thread::spawn(move || waiting.acquire().map(drop));
    waiters("outer", 2);
    let (wanted, _urgent) = (urgent.lock("inner").namespace("jobs").priority(6).acquire_async(), urgent);
    waiters("inner", 1);
    let said = waiters("outer", 2);
    assert_eq!(
        (&said["waiters"][1]["priority"], &said["waiters"][1]["class"]),
        (&0.into(), &6.into()),
        "{said}"
    );
    outer.release().unwrap();
    nested.join().unwrap().unwrap();
    drop((inner, wanted, middle));
}

/// G41: what is not named is strict, whatever a request says of itself.
#[test]
fn a_namespace_that_is_not_named_stays_strict() {
    let server = Plan::new(Io::Auto).configuration(FILE).start();
    let mut crowd = Crowd::at(server.tcp());
    let reader = crowd.hold("", Mode::PR);
    let writer = crowd.ask("", Mode::EX, 0);
    assert_eq!(attempt(&server, "", Mode::PR, 7), Some(Refusal::WouldBlock));
    let urgent = crowd.ask("", Mode::PR, 7);
    let said = shown(&server, "default");
    assert_eq!((said.get("discipline"), said["waiters"][1].get("class")), (None, None), "{said}");
    crowd.release(reader);
    let writing = crowd.granted(writer);
    crowd.release(writing);
    crowd.granted(urgent);
}

#[test]
fn run_asks_in_the_class_it_is_told_and_the_command_line_can_name_disciplines() {
    let plan = Plan::new(Io::Auto).argument("--discipline").argument("jobs=priority:4:1h");
    let server = plan.start();
    let scratch = Scratch::new();
    let mut crowd = Crowd::at(server.tcp());
    let holder = crowd.hold("jobs", Mode::EX);
    let order = scratch.join("order");
    let write = |class: &str| format!("echo {class} >> {}", order.display());
    let mut running = Vec::new();
    for (count, class) in (1..).zip(["0", "2", "7"]) {
        let words = ["run", "x", "--namespace", "jobs", "--priority", class, "--", "sh", "-c"];
        let mut command = fairlock(&server.tcp(), words);
        running.push(Running::start({
            command.arg(write(class));
            command
        }));
        eventually("it waits", || {
            (shown(&server, "jobs")["waiters"].as_array().unwrap().len() == count).then_some(())
        });
    }
    crowd.release(holder);
    for run in running {
        assert_eq!(run.finish().code, 0);
    }
    assert_eq!(std::fs::read_to_string(&order).unwrap(), "7\n2\n0\n");
    assert_eq!(finish(&server.tcp(), ["run", "x", "--priority", "8", "--", "true"]).code, 64);
}

#[test]
fn rules_that_cannot_be_are_refused_with_78_and_a_class_that_does_not_exist_is_refused() {
    for (what, plan) in [
        (
            "a discipline nobody knows",
            Plan::new(Io::Epoll).configuration("[namespace.a]\ndiscipline = \"fair\"\n"),
        ),
        ("an unknown key", Plan::new(Io::Epoll).configuration("[namespace.a]\nbudget = 3\n")),
        (
            "a budget of a strict one",
            Plan::new(Io::Epoll).configuration("[namespace.a]\nbypass_budget = 3\n"),
        ),
        ("a namespace of no name", Plan::new(Io::Epoll).configuration("[namespace.\"A B\"]\n")),
        ("a flag for no name", Plan::new(Io::Epoll).argument("--discipline").argument("A=phase")),
    ] {
        let status = plan.try_start().map(drop).unwrap_err();
        assert_eq!(code(status), 78, "{what}: {}", plan.log());
    }
    let server = Plan::new(Io::Auto).configuration(FILE).start();
    let client = Client::connect(server.tcp().as_str()).unwrap();
    let refused = client.lock("x").namespace("jobs").priority(8).wait(Duration::ZERO).acquire();
    assert!(matches!(refused, Err(AcquireError::Refused(Refusal::BadRequest))), "{refused:?}");
}

/// G26: a class that does not exist is malformed.
#[test]
fn a_priority_above_seven_on_the_wire_ends_the_connection() {
    let server = Plan::new(Io::Auto).start();
    let mut raw = Raw::greeted(&server.tcp(), ShardId::ANY);
    raw.open(60_000, Liveness::Heartbeat);
    let mut bytes = Vec::new();
    Request::Acquire(exclusive(b"x")).encode(fairlock_protocol::RequestId(9), 0, &mut bytes);
    bytes[16 + 22] = 8;
    raw.send_bytes(&bytes).unwrap();
    raw.is_refused_and_closed(Refusal::BadRequest);
}

//! A client that shares memory with a server, to be killed, stopped or replaced at a known moment. It does one thing, says
//! so in one line, and then waits for its end.
//!
//! `sharer ENDPOINT WHAT NAME [COUNT]`, where WHAT is
//! * `hold`: takes the lock and prints its token; told something on stdin, it releases; `leave`: exits without a word;
//!   `breath`: releases and exits in one breath; `exec`: becomes another program; `bequeath`: starts a child that has its
//!   socket and its memory's file;
//! * `wait`: asks for the lock, and prints its token when it has it;
//! * `half`: publishes the first slots of a frame that never ends;
//! * `pour`: publishes frames of many slots without end;
//! * `keep`: keeps COUNT grants, NAME/0 and on; those with odd numbers it stays in.

use fairlock_protocol::{Request, RequestId};
use fairlock_tests::keeper::{cached, client_at, leave};
use fairlock_tests::raw::{Raw, exclusive};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn main() {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a process may ask for that");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, what, name, rest @ ..] = arguments.as_slice() else { panic!("ENDPOINT WHAT NAME") };
    let mut raw = client_at(endpoint, 300);
    let name = name.as_bytes();
    match what.as_str() {
        "hold" => hold(&mut raw, name),
        "leave" => {
            println!("{}", token(&mut raw, name));
            std::process::exit(0);
        }
        "breath" => breath(&mut raw, name),
        "exec" => {
            println!("{}", token(&mut raw, name));
            panic!("{}", Command::new("sleep").arg("1000").exec());
        }
        "bequeath" => bequeath(&mut raw, name),
        "wait" => {
            let wait = raw.send(&Request::Acquire(exclusive(name)));
            println!("asked");
            println!("{}", raw.answer(wait).grant().token.expect("exclusive").get());
        }
        "half" => half(&mut raw, name),
        "pour" => pour(&mut raw),
        "keep" => keep(&mut raw, name, rest[0].parse().expect("COUNT")),
        other => panic!("{other}: unknown"),
    }
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn hold(raw: &mut Raw, name: &[u8]) {
    let grant = raw.acquire(name);
    println!("{}", grant.token.expect("exclusive").get());
    if std::io::stdin().read(&mut [0]).is_ok_and(|length| length > 0) {
        raw.release(grant.grant);
        println!("released");
    }
}

fn token(raw: &mut Raw, name: &[u8]) -> u64 {
    raw.acquire(name).token.expect("exclusive").get()
}

/// Nothing of this process waits for an answer, or closes anything.
fn breath(raw: &mut Raw, name: &[u8]) {
    let grant = raw.acquire(name);
    println!("{}", grant.token.expect("exclusive").get());
    raw.send(&Request::Release(grant.grant));
    std::process::exit(0);
}

#[expect(clippy::zombie_processes, reason = "it outlives this process, and is ended by its number")]
/// The child has what a forked one would have, and does nothing with it; its number is printed.
fn bequeath(raw: &mut Raw, name: &[u8]) {
    let token = token(raw, name);
    let memory: OwnedFd = raw.shared().file.try_clone().expect("a descriptor is left");
    let mut heir = Command::new("sleep");
    heir.arg("60").stdin(OwnedFd::from(raw.bell())).stdout(memory).stderr(Stdio::null());
    let heir = heir.spawn().expect("sleep exists");
    println!("{token} {}", heir.id());
}

/// A frame that says it has 600 bytes, of which 200 come.
fn half(raw: &mut Raw, name: &[u8]) {
    let token = token(raw, name);
    raw.send_bytes(&frame()[..200]).expect("the ring has room");
    println!("{token}");
}

fn frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    let name = [b'n'; 600];
    Request::List { cursor: 0, prefix: &name }.encode(RequestId(1), 0, &mut bytes);
    bytes
}

fn pour(raw: &mut Raw) {
    let frame = frame();
    println!("pouring");
    loop {
        let _ = raw.send_bytes(&frame);
        while let Ok(Some(_)) = raw.frame_within(Duration::ZERO) {}
    }
}

fn keep(raw: &mut Raw, name: &[u8], count: usize) {
    for number in 0..count {
        let name = format!("{}/{number}", String::from_utf8_lossy(name));
        let (_, word, generation) = cached(raw, name.as_bytes());
        if number % 2 == 0 {
            leave(raw, word, generation);
        }
    }
    println!("kept");
}

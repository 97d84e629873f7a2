//! A server that is killed with SIGKILL does nothing any more, and yet its clients see at once that it is gone. The
//! server here is this test's own executable, started again.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_shm::beacon::{Beacon, Sight};
use fairlock_shm::robust::LastWord;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, io, thread};

/// Set in the process that is to be killed.
const ROLE: &str = "FAIRLOCK_SHM_TEST_SERVER";
/// What that process says before the descriptor of its beacon.
const SAYS: &str = "the beacon is ";
const SHARD: u16 = 5;

/// Of the tests below one is the server, when it is started with the variable: it lights its line, says where the beacon
/// is, and waits until it is killed or nobody is left to kill it.
#[test]
fn the_server_that_is_killed() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let beacon = Arc::new(Beacon::create(fairlock_shm::word::Leaving::Barrier).unwrap());
    let thread = thread::spawn(move || {
        let descriptor = beacon.file().as_raw_fd();
        let _last = LastWord::new(beacon, SHARD).unwrap();
        println!("\n{SAYS}{descriptor}");
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    });
    thread.join().unwrap();
}

/// Starts it, and maps what it passes to clients.
fn start() -> (Child, Sight) {
    let mut server = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_server_that_is_killed", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let descriptor = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "it does not say where the beacon is");
        if let Some(descriptor) = line.strip_prefix(SAYS) {
            break descriptor.trim().to_owned();
        }
    };
    // Its last words would end it by SIGPIPE if nobody could read them.
    server.stdout = Some(said.into_inner());
    let path = format!("/proc/{}/fd/{descriptor}", server.id());
    let sight = Sight::open(&File::open(path).unwrap(), SHARD).unwrap();
    (server, sight)
}

#[test]
fn a_server_that_is_killed_is_seen_to_be_dead_once_it_is_gone() {
    let (mut server, sight) = start();
    assert!(sight.is_alive());
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!sight.is_alive());
}

#[test]
fn a_server_that_is_frozen_lives_until_it_is_killed() {
    let (mut server, sight) = start();
    let pid = Pid::from_child(&server);
    kill_process(pid, Signal::STOP).unwrap();
    waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    assert!(sight.is_alive(), "only its stamp stops");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!sight.is_alive());
}

#[test]
fn a_server_that_ends_in_order_is_seen_to_be_gone() {
    let (mut server, sight) = start();
    assert!(sight.is_alive());
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
    assert!(!sight.is_alive());
}

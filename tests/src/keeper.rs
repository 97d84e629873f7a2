//! What a raw client that shares memory with the server does besides speaking frames: it keeps grants in words, and looks
//! how many wait.

use crate::random::Random;
use crate::raw::{Raw, exclusive};
use crate::server::Server;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::{Liveness, Reply, Request, ShardId, request::Acquire};
use fairlock_shm::word::{Generation, Leaving};
use std::time::Duration;

/// A client through shared memory, with a session that lasts as long as its process, whatever its lease.
pub fn client(server: &Server) -> Raw {
    client_at(&server.shm(), 5000)
}

/// The same at an endpoint, with this lease.
pub fn client_at(endpoint: &str, ttl_ms: u32) -> Raw {
    let mut raw = Raw::greeted(endpoint, ShardId::ANY);
    raw.open(ttl_ms, Liveness::Process);
    raw
}

/// Takes a lock as a client that would keep it.
pub fn take(raw: &mut Raw, name: &[u8]) -> Grant {
    raw.call(&Request::Acquire(Acquire { cacheable: true, ..exclusive(name) })).grant()
}

/// Takes and releases until the server leaves the grant here: its word, and in which tenure.
///
/// # Panics
/// When it does not.
pub fn cached(raw: &mut Raw, name: &[u8]) -> (Grant, u32, Generation) {
    let mut random = Random::from_seed(crate::boottime_ns());
    for round in 0..200 {
        if round > 0 && round % 8 == 0 {
            // Two names that share a row of what the server remembers, asked for in step, keep each other out. A rest
            // much longer than the rounds between two rests gives the other a run of its own.
            std::thread::sleep(Duration::from_micros(random.below(20_000)));
        }
        let granted = take(raw, name);
        // The note follows the grant, and both come before this answer.
        let number = raw.send(&Request::Keepalive);
        let mut kept = None;
        loop {
            let arrived = raw.receive();
            match arrived.reply() {
                Reply::Cached { grant, word, generation } if grant == granted.grant => {
                    kept = Some((word, Generation(generation)));
                }
                _ if arrived.request == number => break,
                other => panic!("{other:?}"),
            }
        }
        if let Some((word, generation)) = kept {
            return (granted, word, generation);
        }
        raw.release(granted.grant);
    }
    panic!("no grant of {name:?} was left here");
}

/// Leaves a word, with nobody waiting for it.
///
/// # Panics
/// When somebody waits.
pub fn leave(raw: &Raw, word: u32, generation: Generation) {
    let segment = raw.shared().segment;
    let word = segment.word(word).expect("the server named it");
    assert!(!word.leave(generation, Leaving::Exchange), "nobody waits");
}

/// Waits until so many wait: two doors of one pass are served in either order.
///
/// # Panics
/// When they never do.
pub fn queued(raw: &mut Raw, name: &[u8], waiters: usize) {
    crate::eventually("the queue", || {
        let shown = raw.call(&Request::Show { cursor: 0, resource: exclusive(name).resource });
        let Reply::Shown(page) = shown.reply() else { panic!("{shown:?}") };
        (page.entries().filter(|entry| entry.position > 0).count() == waiters).then_some(())
    });
}

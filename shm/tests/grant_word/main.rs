//! Is the grant word safe? An exhaustive search over everything that one client with two threads, one server and one
//! remote session can do with one word, on processors with store buffers. It decides which fences, checks and orders the
//! fast path needs: `protocol.rs` holds that the protocol as it is meant keeps every promise, `weakenings.rs` that each of
//! its rules is needed, by breaking it and asking for the counter-example.
//!
//! Found first means found shortest; a run that should pass and does not prints the steps. `-- --nocapture` prints every
//! run with its states and seconds, and the counter-examples of the weakenings as well if FAIRLOCK_STORIES is set.
//! FAIRLOCK_BOUNDS=wide searches the protocol in wider bounds: up to minutes and gigabytes a run, so with
//! `--release` and `--test-threads 1`.
//!
//! Not searched here: clocks (a lease that ends is a forced end, or the takeover of a dead server), how a waiting thread
//! parks, the ring's own slots, and direct hand-over between clients.
#![allow(missing_docs, reason = "a test binary has no readers from outside")]

mod client;
mod memory;
mod outside;
mod promises;
mod protocol;
mod rules;
mod search;
mod server;
mod shared;
mod sleep;
mod state;
mod step;
mod story;
mod weakenings;

use promises::Promise;
use rules::{Bounds, Rules};
use search::{Corner, Outcome, search};
use state::Run;
use std::time::Instant;

/// Searches, and prints the run's line of the table: its test's name says what it is.
fn searched(rules: Rules, bounds: Bounds, corners: &[Corner]) -> Outcome {
    let begun = Instant::now();
    let outcome = search(&Run { rules, bounds }, corners);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    let found = match &outcome.broken {
        None => "every promise kept".to_owned(),
        Some((promise, story)) => format!("{promise} ({} steps)", story.len()),
    };
    println!("{name:<88} {:>9} states {:>5.1} s  {found}", outcome.states, begun.elapsed().as_secs_f64());
    outcome
}

/// The protocol, or a variant of it, that must keep every promise.
fn holds(rules: Rules, bounds: Bounds) {
    if let Some((promise, story)) = searched(rules, bounds, &[]).broken {
        panic!("{promise}\n{rules:?}\n{bounds:?}\n{story}");
    }
}

/// A weakened protocol must break this promise.
fn breaks(promise: Promise, rules: Rules, bounds: Bounds) {
    let outcome = searched(rules, bounds, &[]);
    let Some((broken, story)) = outcome.broken else {
        panic!("not caught within {} states\n{rules:?}\n{bounds:?}", outcome.states);
    };
    if std::env::var_os("FAIRLOCK_STORIES").is_some() {
        println!("{story}");
    }
    assert_eq!(broken, promise, "another promise than expected\n{story}");
}

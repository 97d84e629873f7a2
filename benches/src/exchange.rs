//! One lock at a time: taken, then given back, each half timed, through whatever can do that.

use crate::figures::{Samples, Series};
use crate::raw::{Raw, name};
use std::io;
use std::time::Instant;

/// Names in turn: not one hot record, and not more than a cache holds.
const NAMES: u64 = 1024;

/// Of acquires alone and of pairs (acquire and release).
#[derive(Clone, Debug, Default)]
pub struct Both<T> {
    /// Of acquires.
    pub acquire: T,
    /// Of pairs.
    pub pair: T,
}

impl Both<Series> {
    /// Adds a round.
    pub fn add(&mut self, samples: &Both<Samples>) {
        self.acquire.add(&samples.acquire);
        self.pair.add(&samples.pair);
    }
}

/// Pairs through the raw protocol.
///
/// # Errors
/// What the server says.
pub fn through_protocol(raw: &mut Raw, count: usize) -> io::Result<Both<Samples>> {
    exchanges(count, |number| {
        let grant = raw.acquire(&name(number))?.grant;
        let acquired = Instant::now();
        raw.release(grant)?;
        Ok(acquired)
    })
}

/// Pairs through the client library, which does not wait for the answer to a release.
///
/// # Errors
/// What the client says.
pub fn through_library(client: &fairlock::Client, count: usize) -> io::Result<Both<Samples>> {
    exchanges(count, |number| {
        let guard = client.lock(name(number)).acquire().map_err(io::Error::other)?;
        let acquired = Instant::now();
        guard.release().map_err(io::Error::other)?;
        Ok(acquired)
    })
}

/// Runs pairs, each of which says when its first half was over. A tenth more goes before, unmeasured.
///
/// # Errors
/// What the pair says.
pub fn exchanges(
    count: usize,
    mut pair: impl FnMut(u64) -> io::Result<Instant>,
) -> io::Result<Both<Samples>> {
    let mut samples = Both::<Samples>::default();
    for number in (0..NAMES).cycle().take(count / 10) {
        pair(number)?;
    }
    for number in (0..NAMES).cycle().take(count) {
        let start = Instant::now();
        let acquired = pair(number)?;
        samples.pair.add(start.elapsed());
        samples.acquire.add(acquired - start);
    }
    Ok(samples)
}

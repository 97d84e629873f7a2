//! The clients of a measurement: some that acquire and release, and one that merely holds.

use crate::args::Reach;
use crate::failure::Failure;
use crate::print::duration::human;
use crate::print::progress::Progress;
use crate::remote;
use fairlock::{Client, Guard, OwnerId};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Names each client goes round, so that none is the one just held.
const NAMES: usize = 64;
/// Threads that fill the stock: enough to keep the connection busy.
const STOCKERS: u32 = 8;
/// The part of the time given to the same name again.
const AGAIN_DIVISOR: u32 = 4;
/// Pairs timed together where one may be shorter than a look at the clock.
const AGAIN_PAIRS: u32 = 16;
/// Longest time told apart, in nanoseconds: a minute.
const NS_MAX: u64 = 60_000_000_000;
/// Between two looks at how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Figures kept of each time.
const FIGURES: u8 = 3;

fn connect(reach: &Reach, label: &str) -> Result<Client, Failure> {
    Client::builder()
        .label(label)
        .transport(remote::transport(reach))
        .deadline(reach.deadline)
        .connect(remote::endpoint(reach)?)
        .map_err(|error| remote::of_connect(&error))
}

fn refused(error: &fairlock::AcquireError) -> Failure {
    Failure::new(crate::failure::code_of(error.refusal()), remote::with_sources(error))
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, NS_MAX, FIGURES).map_err(|error| Failure::system("count times", &error))
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NS_MAX)
}

/// Locks that are only held.
pub(super) struct Stock {
    /// Given back before the session ends.
    guards: Vec<Guard>,
    client: Option<Client>,
}

impl Stock {
    /// Takes that many.
    ///
    /// # Errors
    /// What connecting or acquiring met.
    pub(super) fn hold(count: u32, reach: &Reach) -> Result<Stock, Failure> {
        if count == 0 {
            return Ok(Stock { guards: Vec::new(), client: None });
        }
        let client = connect(reach, "bench stock")?;
        let next = AtomicU32::new(0);
        let progress = Progress::new();
        let take = || -> Result<Vec<Guard>, Failure> {
            let mut taken = Vec::new();
            loop {
                // Relaxed: only the numbers must differ.
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(taken);
                }
                if number.is_multiple_of(1_000) {
                    progress.show(&format!("taking locks: {number} of {count}"));
                }
                let name = format!("bench/{}/stock/{number}", std::process::id());
                taken.push(client.lock(name).acquire().map_err(|error| refused(&error))?);
            }
        };
        let taken: Vec<Result<Vec<Guard>, Failure>> = thread::scope(|scope| {
            let stockers: Vec<_> = (0..STOCKERS).map(|_| scope.spawn(take)).collect();
            let lost = || Failure::new(crate::failure::INTERNAL, "a thread ended early");
            stockers.into_iter().map(|stocker| stocker.join().unwrap_or_else(|_| Err(lost()))).collect()
        });
        let mut guards = Vec::new();
        for some in taken {
            guards.extend(some?);
        }
        Ok(Stock { guards, client: Some(client) })
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // The end of the session gives everything back in one message; each guard would send its own.
        if let Some(client) = &self.client {
            client.close();
        }
        self.guards.clear();
    }
}

/// What the clients measured, together.
pub(super) struct Crowd {
    /// From the call to the guard.
    pub(super) acquire: Histogram<u64>,
    /// Acquire and release.
    pub(super) pair: Histogram<u64>,
    /// The same of the name just held.
    pub(super) again: Histogram<u64>,
    /// How long the pairs took, by the clock on the wall.
    pub(super) took: Duration,
    /// One of the clients, still connected.
    pub(super) one: Client,
}

/// Lets that many clients acquire and release for that long.
///
/// # Errors
/// What connecting or acquiring met.
pub(super) fn run(clients: u32, time: Duration, reach: &Reach) -> Result<Crowd, Failure> {
    let connected: Vec<Client> = (0..clients).map(|_| connect(reach, "bench")).collect::<Result<_, _>>()?;
    let one = connected.first().cloned();
    let one = one.ok_or_else(|| Failure::new(crate::failure::USAGE, "at least one client is needed"))?;
    let again_time = time / AGAIN_DIVISOR;
    let start = Arc::new(Barrier::new(connected.len() + 1));
    let workers: Vec<_> = (0_u32..)
        .zip(&connected)
        .map(|(number, client)| {
            let (client, start) = (client.clone(), Arc::clone(&start));
            thread::spawn(move || {
                let names: Vec<String> =
                    (0..NAMES).map(|name| format!("bench/{}/{number}/{name}", std::process::id())).collect();
                start.wait();
                pairs(&client, &names, time.saturating_sub(again_time), again_time)
            })
        })
        .collect();
    start.wait();
    watch(time);
    let mut sum =
        Crowd { acquire: histogram()?, pair: histogram()?, again: histogram()?, took: Duration::ZERO, one };
    for worker in workers {
        let lost = || Failure::new(crate::failure::INTERNAL, "a thread ended early");
        let one = worker.join().unwrap_or_else(|_| Err(lost()))?;
        let add = |all: &mut Histogram<u64>, one| {
            all.add(one).map_err(|error| Failure::system("add times", &error))
        };
        add(&mut sum.acquire, &one.acquire)?;
        add(&mut sum.pair, &one.pair)?;
        add(&mut sum.again, &one.again)?;
        sum.took = sum.took.max(one.took);
    }
    Ok(sum)
}

/// Shows how far it is.
fn watch(time: Duration) {
    let progress = Progress::new();
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        progress.show(&format!("measuring: {} of {}", human(began.elapsed()), human(time)));
        thread::sleep(left.min(PROGRESS_EVERY));
    }
}

/// One client's times.
struct Times {
    acquire: Histogram<u64>,
    pair: Histogram<u64>,
    again: Histogram<u64>,
    took: Duration,
}

fn pairs(client: &Client, names: &[String], time: Duration, again: Duration) -> Result<Times, Failure> {
    let mut times =
        Times { acquire: histogram()?, pair: histogram()?, again: histogram()?, took: Duration::ZERO };
    let began = Instant::now();
    for name in names.iter().cycle() {
        let (acquired, released) = pair(client, name)?;
        times.acquire.saturating_record(ns(acquired));
        times.pair.saturating_record(ns(released));
        times.took = began.elapsed();
        if times.took >= time {
            break;
        }
    }
    let Some(name) = names.first() else { return Ok(times) };
    let lock = client.lock(name).prepare().map_err(|error| refused(&error))?;
    let began = Instant::now();
    while began.elapsed() < again {
        let batch = Instant::now();
        for _ in 0..AGAIN_PAIRS {
            drop(lock.acquire().map_err(|error| refused(&error))?);
        }
        times.again.saturating_record(ns(batch.elapsed() / AGAIN_PAIRS));
    }
    Ok(times)
}

/// How long until the guard was there, and until it was given back. Its owner has a name, so that no grant stays with the
/// client: this is what a message there and back costs.
fn pair(client: &Client, name: &str) -> Result<(Duration, Duration), Failure> {
    let asked = Instant::now();
    let guard = client.lock(name).owner(OwnerId(1)).acquire().map_err(|error| refused(&error))?;
    let acquired = asked.elapsed();
    let lost = |error: &fairlock::ReleaseError| Failure::new(crate::failure::LOST, error.to_string());
    guard.release().map_err(|error| lost(&error))?;
    Ok((acquired, asked.elapsed()))
}

//! P1: a lock that nobody else wants, taken and given back again and again by one client, without a message; beside a robust
//! process-shared pthread mutex with nobody else about. Timed a thousand pairs at a time, as the mutex is.

use fairlock::{Client, Lock, Transport};
use fairlock_benches::cores::{Place, pin};
use fairlock_benches::figures::{Quantiles, Samples, Series, heading, row_ns};
use fairlock_benches::options::Options;
use fairlock_benches::rivals::Rivals;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Door;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Pairs between two looks at the clock.
const PAIRS: u32 = 1000;

pub(crate) fn measure(options: &Options, program: &PathBuf, rivals: &Rivals) -> io::Result<()> {
    if !options.wants("P1 cached") {
        return Ok(());
    }
    let rounds = options.of(2000, 50);
    for io in &options.io {
        let server = Server::start(&Manor { program, io, poll: "auto", core: None })?;
        let Door::Unix(path) = &server.unix else { return Err(io::ErrorKind::InvalidInput.into()) };
        let endpoint = format!("unix:{}", path.display());
        let client = Client::builder()
            .transport(Transport::Shm)
            .label("bench")
            .connect(endpoint.as_str())
            .map_err(io::Error::other)?;
        let lock = client.lock("cached").prepare().map_err(io::Error::other)?;
        let beside = client.lock("cached beside").prepare().map_err(io::Error::other)?;
        let mut series: [Series; 5] = Default::default();
        for _ in 0..options.rounds {
            series[0].add_quantiles(rivals.run("pair", None, rounds)?);
            series[1].add_quantiles(batches(rounds, || {
                drop(lock.acquire().map_err(io::Error::other)?);
                Ok(())
            })?);
            let held = lock.acquire().map_err(io::Error::other)?;
            series[2].add_quantiles(batches(rounds, || held.check().map_err(io::Error::other))?);
            drop(held);
            series[4].add_quantiles(two_threads(&lock, &beside, rounds)?);
            series[3].add_quantiles(batches(rounds / 10, || {
                drop(client.lock("cached").acquire().map_err(io::Error::other)?);
                Ok(())
            })?);
        }
        heading(&format!("P1 cached: taken again by the client that had it last, --io {io}"));
        row_ns("robust process-shared pthread mutex, a pair (limit)", &series[0], None);
        row_ns("prepared lock: acquire + drop", &series[1], Some(&series[0]));
        row_ns("the same while another thread takes another lock", &series[4], Some(&series[0]));
        row_ns("check() of what is held", &series[2], None);
        row_ns("client.lock(name).acquire() + drop", &series[3], Some(&series[0]));
    }
    Ok(())
}

/// Two threads of one client on two cores, a lock each: what they share (session, lease, memory) must not slow them.
fn two_threads(one: &Lock, other: &Lock, rounds: usize) -> io::Result<Quantiles> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            pin(Place::Cross.other_core());
            // Relaxed: it ends a little sooner or later.
            while !over.load(Ordering::Relaxed) {
                drop(other.acquire().map_err(io::Error::other)?);
            }
            Ok(())
        });
        let pair = || -> io::Result<()> {
            drop(one.acquire().map_err(io::Error::other)?);
            Ok(())
        };
        let quantiles = batches(rounds, pair);
        over.store(true, Ordering::Relaxed);
        let ended: io::Result<()> = beside.join().map_err(|_| io::Error::other("a thread panicked"))?;
        ended.and(quantiles)
    })
}

/// Nanoseconds of one call, of batches; a figure of the tail is that of a batch.
fn batches(count: usize, mut call: impl FnMut() -> io::Result<()>) -> io::Result<Quantiles> {
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        for _ in 0..PAIRS {
            call()?;
        }
        samples.add(begun.elapsed());
    }
    let Quantiles { p50, p99, p999 } = samples.quantiles();
    let each = f64::from(PAIRS);
    Ok(Quantiles { p50: p50 / each, p99: p99 / each, p999: p999 / each })
}

//! P4: two processes want one lock all the time. From the release of one to the grant of the other, through the server,
//! beside a futex hand-over and a process-shared pthread mutex. Here the two are threads with a connection each, pinned
//! to the two cores; the server runs wherever it is put.

use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::figures::{Samples, Series, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::rivals::Rivals;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::{Door, Manner};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// When whoever held last let go, in ns since the start; what a clock read costs is part of the figure.
static RELEASED_AT: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Through the server, with both clients asleep while they wait.
pub(crate) fn measure(options: &Options, program: &PathBuf, rivals: &Rivals) -> io::Result<()> {
    if !options.wants("P4") {
        return Ok(());
    }
    let other = Place::Cross.other_core();
    let count = options.of(20_000, 500);
    for io in &options.io {
        let server = Server::start(&Manor { program, io, poll: "auto", core: None })?;
        let mut series: [Series; 4] = Default::default();
        for _ in 0..options.rounds {
            server.process.freeze();
            series[0].add_quantiles(rivals.run("futex", Some(other), count)?);
            series[1].add_quantiles(rivals.run("handoff", Some(other), count)?);
            server.process.thaw();
            series[2].add(&hand_over(&server.memory, own_core(), count)?);
            series[3].add(&hand_over(&server.memory, other, count)?);
        }
        heading(&format!("P4 hand-over between two that wait asleep (server --poll auto), --io {io}"));
        row("futex to and fro, cross core (limit)", &series[0], None);
        row("pthread mutex, two processes (limit, stage 2)", &series[1], None);
        row("through the server, clients on one core", &series[2], Some(&series[0]));
        row("through the server, clients on two cores", &series[3], Some(&series[0]));
    }
    Ok(())
}

fn hand_over(door: &Door, other: usize, count: usize) -> io::Result<Samples> {
    OVER.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let rival = scope.spawn(|| {
            pin(other);
            contend(door, begun, usize::MAX)
        });
        let samples = contend(door, begun, count);
        OVER.store(true, Ordering::Relaxed);
        rival.join().map_err(|_| io::Error::other("a client panicked"))??;
        samples
    })
}

fn contend(door: &Door, begun: Instant, count: usize) -> io::Result<Samples> {
    let ns = |moment: Instant| u64::try_from((moment - begun).as_nanos()).unwrap_or(u64::MAX);
    let mut raw = Raw::open(door, Manner::Sleeping, 60_000)?;
    let mut samples = Samples::default();
    let mut done = 0;
    while done < count && !OVER.load(Ordering::Relaxed) {
        let grant = raw.acquire(b"handed over     ")?;
        let held = ns(Instant::now());
        if grant.waited_us > 0 {
            let released = RELEASED_AT.load(Ordering::Acquire);
            samples.add(std::time::Duration::from_nanos(held.saturating_sub(released)));
            done += 1;
        }
        RELEASED_AT.store(ns(Instant::now()), Ordering::Release);
        raw.release(grant.grant)?;
    }
    Ok(samples)
}

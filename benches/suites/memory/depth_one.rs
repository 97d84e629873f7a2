//! P2 and P3: one request at a time through the ring, beside a cache line that goes to and fro (the server polls on the
//! other core) or a futex hand-over (both sleep).

use fairlock_benches::cores::{Place, own_core};
use fairlock_benches::figures::{Samples, Series, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::rivals::Rivals;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

/// Names in turn: not one hot record, and not more than a cache holds.
const NAMES: u64 = 1024;

/// Every setting that makes sense on this machine.
pub(crate) fn measure(options: &Options, program: &PathBuf, rivals: &Rivals) -> io::Result<()> {
    for io in &options.io {
        if options.wants("P2") && Place::Cross.other_core() != own_core() {
            one("P2", io, Place::Cross, Manner::Spinning, options, program, rivals)?;
        }
        if options.wants("P3") {
            for place in [Place::Same, Place::Cross] {
                one("P3", io, place, Manner::Sleeping, options, program, rivals)?;
            }
        }
    }
    Ok(())
}

fn one(
    section: &str,
    io: &str,
    place: Place,
    manner: Manner,
    options: &Options,
    program: &PathBuf,
    rivals: &Rivals,
) -> io::Result<()> {
    let (poll, limit) = if manner == Manner::Spinning { ("always", "line") } else { ("never", "futex") };
    let core = place.other_core();
    let server = Server::start(&Manor { program, io, poll, core: Some(core) })?;
    let mut raw = Raw::open(&server.memory, manner, 60_000)?;
    let count = options.of(if manner == Manner::Spinning { 100_000 } else { 10_000 }, 500);
    let mut series: [Series; 3] = Default::default();
    for _ in 0..options.rounds {
        server.process.freeze();
        series[0].add_quantiles(rivals.run(limit, Some(core), count)?);
        server.process.thaw();
        let (acquires, pairs) = through_ring(&mut raw, count)?;
        series[1].add(&acquires);
        series[2].add(&pairs);
    }
    let (place, manner) = (place.name(), manner.name());
    heading(&format!("{section} shared memory, depth 1, {place}, both {manner} (--poll {poll}), --io {io}"));
    row(&format!("{limit} to and fro between two processes (limit)"), &series[0], None);
    row("acquire through the ring", &series[1], Some(&series[0]));
    row("acquire + release through the ring", &series[2], Some(&series[0]));
    Ok(())
}

/// Acquires and pairs; what reading the clock costs is taken off each.
fn through_ring(raw: &mut Raw, count: usize) -> io::Result<(Samples, Samples)> {
    let clock = std::time::Duration::from_secs_f64(Samples::of(1000, || ()).quantiles().p50 / 1e9);
    let (mut acquires, mut pairs) = (Samples::default(), Samples::default());
    for (turn, number) in (0..NAMES).cycle().take(count + count / 10).enumerate() {
        let begun = Instant::now();
        let grant = raw.acquire(&name(number))?.grant;
        let acquired = Instant::now();
        raw.release(grant)?;
        let done = begun.elapsed();
        if turn >= count / 10 {
            acquires.add((acquired - begun).saturating_sub(clock));
            pairs.add(done.saturating_sub(clock * 2));
        }
    }
    Ok((acquires, pairs))
}

//! P5: windows of 64 through one ring to one shard, with many locks held meanwhile, so that the table does not fit a
//! cache. An acquire is one operation, a release another.

use fairlock_benches::cores::Place;
use fairlock_benches::figures::{median, rate};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use fairlock_protocol::{GrantId, Liveness, Request, Wait};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Requests on the way at once.
const WINDOW: u64 = 64;
/// Locks one session may hold on a shard, less some room.
const SESSION_HOLDS: usize = 900_000;
/// Slots a second through the bare ring at this window (docs/performance.md), the limit of the transport.
const TRANSPORT_PER_S: f64 = 183e6;

/// With few and with a million locks held.
pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P5") {
        return Ok(());
    }
    for io in &options.io {
        println!(
            "\nP5 shared memory, window {WINDOW}, names of 16 bytes, server on the other core, --io {io}"
        );
        println!("  {:>12} {:>14} {:>14} {:>12}", "locks held", "operations", "server time", "of transport");
        let mut sizes = vec![1000, options.of(100_000, 10_000), options.of(1_000_000, 20_000)];
        sizes.extend(options.large.then_some(10_000_000));
        for held in sizes {
            let core = Some(Place::Cross.other_core());
            let server = Server::start(&Manor { program, io, poll: "always", core })?;
            let mut holders = Vec::new();
            for from in (0..held).step_by(SESSION_HOLDS) {
                let mut holder = Raw::open_as(&server.memory, Manner::Spinning, 60_000, Liveness::Process)?;
                holder.hold(from..held.min(from + SESSION_HOLDS as u64))?;
                holders.push(holder);
            }
            let mut raw = Raw::open(&server.memory, Manner::Spinning, 60_000)?;
            let (mut rates, mut own) = (Vec::new(), Vec::new());
            let mut next = held;
            for _ in 0..options.rounds {
                let before = server.process.cpu_time()?;
                let (done, span) = windows(&mut raw, &mut next, options.of(1500, 100))?;
                rates.push(done as f64 / span.as_secs_f64());
                let cpu = server.process.cpu_time()?.saturating_sub(before);
                own.push(cpu.as_nanos() as f64 / done as f64);
            }
            let (per_s, own) = (median(&rates), median(&own));
            let share = 100.0 * per_s / TRANSPORT_PER_S;
            println!("  {held:>12} {:>14} {own:>11.0} ns {share:>10.1} %", rate(per_s));
            drop(holders);
        }
    }
    Ok(())
}

/// Takes and gives back names nobody holds, a window at a time and two on the way, for so many milliseconds.
fn windows(raw: &mut Raw, next: &mut u64, ms: u64) -> io::Result<(u64, Duration)> {
    let (begun, span) = (Instant::now(), Duration::from_millis(ms));
    let mut done = 0;
    let mut take = |raw: &mut Raw| {
        for number in *next..*next + WINDOW {
            raw.put_acquire(&name(number), Wait::Try);
        }
        *next += WINDOW;
        raw.send()
    };
    take(raw)?;
    loop {
        let over = begun.elapsed() >= span;
        let mut grants: Vec<GrantId> = Vec::with_capacity(64);
        for _ in 0..WINDOW {
            grants.push(raw.granted()?.grant);
        }
        for grant in grants {
            raw.put(&Request::Release(grant));
        }
        raw.send()?;
        // The next window is on its way before the answers of this one are read.
        if !over {
            take(raw)?;
        }
        for _ in 0..WINDOW {
            raw.released()?;
        }
        done += 2 * WINDOW;
        if over {
            return Ok((done, begun.elapsed()));
        }
    }
}

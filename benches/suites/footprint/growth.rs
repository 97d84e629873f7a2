//! P16 from outside: an acquire and release through TCP, and what it costs the server, with more and more locks held,
//! sessions open, and requests waiting in the queue of the lock itself.

use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::figures::{Samples, median};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use fairlock_protocol::request::Acquire;
use fairlock_protocol::{GrantId, Mode, OwnerId, Priority, Reply, Request, Resource, Wait};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Names from here on are not held.
const FREE: u64 = 1 << 33;
const BATCH: u64 = 256;

/// A size, and what was measured there.
struct Point {
    size: u64,
    pair_us: f64,
    server_ns: f64,
}

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P16") {
        return Ok(());
    }
    pin(own_core());
    let core = Some(Place::Cross.other_core());
    println!("\nP16 growth through TCP, cross core, sleeping (target: largest / smallest <= 2 x)");
    let driver = options.io.first().map_or("auto", String::as_str);
    let manor = Manor { program, io: driver, poll: "never", core };
    by_locks(options, &manor)?;
    by_sessions(options, &manor)?;
    by_queue(options, &manor)?;
    pin(own_core());
    Ok(())
}

fn by_locks(options: &Options, manor: &Manor<'_>) -> io::Result<()> {
    let server = Server::start(manor)?;
    let mut raw = Raw::open(&server.tcp, Manner::Sleeping, 60_000)?;
    let largest = options.of(if options.large { 10_000_000 } else { 1_000_000 }, 10_000);
    let (mut held, mut points, mut holders) = (0, Vec::new(), Vec::new());
    for size in [1000, 10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|&size| size <= largest) {
        while held < size {
            let until = size.min(held + 500_000);
            holders.push(Raw::open(&server.tcp, Manner::Sleeping, 60_000)?);
            holders.last_mut().expect("just opened").hold(held..until)?;
            held = until;
        }
        holders.iter_mut().try_for_each(Raw::keep_alive)?;
        points.push(point(options, size, &mut raw, &server)?);
    }
    print("held locks", &points);
    Ok(())
}

fn by_sessions(options: &Options, manor: &Manor<'_>) -> io::Result<()> {
    let server = Server::start(manor)?;
    let mut raw = Raw::open(&server.tcp, Manner::Sleeping, 60_000)?;
    let (mut points, mut others) = (Vec::new(), Vec::new());
    for size in [1, 100, options.of(1000, 200), options.of(10_000, 300)] {
        while others.len() + 1 < size {
            others.push(Raw::open(&server.tcp, Manner::Sleeping, 60_000)?);
        }
        others.iter_mut().try_for_each(Raw::keep_alive)?;
        points.push(point(options, size as u64, &mut raw, &server)?);
    }
    print("sessions", &points);
    Ok(())
}

/// Middle of a pair one at a time, and the server's time for an operation in batches.
fn point(options: &Options, size: u64, raw: &mut Raw, server: &Server) -> io::Result<Point> {
    raw.keep_alive()?;
    let (mut pairs, mut server_times) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let mut number = FREE;
        let samples = Samples::of(options.of(2000, 100), || {
            number += 1;
            let pair = raw.acquire(&name(number)).and_then(|held| raw.release(held.grant));
            pair.expect("the server answers");
        });
        pairs.push(samples.quantiles().p50 / 1000.0);
        let (before, rounds) = (server.process.cpu_time()?, options.of(200, 5));
        for round in 0..rounds {
            let base = FREE + round * BATCH;
            for number in base..base + BATCH {
                raw.put_acquire(&name(number), Wait::Try);
            }
            raw.send()?;
            let grants =
                (0..BATCH).map(|_| Ok(raw.granted()?.grant)).collect::<io::Result<Vec<GrantId>>>()?;
            for grant in grants {
                raw.put(&Request::Release(grant));
            }
            raw.send()?;
            (0..BATCH).try_for_each(|_| raw.released())?;
        }
        let ran = server.process.cpu_time()?.saturating_sub(before);
        server_times.push(ran.as_secs_f64() * 1e9 / (2 * rounds * BATCH) as f64);
    }
    Ok(Point { size, pair_us: median(&pairs), server_ns: median(&server_times) })
}

/// A queue of one session's owners: each release grants the next, who goes to the tail again.
fn by_queue(options: &Options, manor: &Manor<'_>) -> io::Result<()> {
    let server = Server::start(manor)?;
    let mut points = Vec::new();
    for size in [1_u64, 100, options.of(1000, 200), options.of(10_000, 300)] {
        let mut raw = Raw::open(&server.tcp, Manner::Sleeping, 60_000)?;
        let (mut owner, turns) = (0, options.of(4000, 200));
        let lock = name(size);
        let mut holder = ask(&mut raw, &lock, &mut owner).and_then(|()| raw.granted())?.grant;
        for _ in 0..size {
            ask(&mut raw, &lock, &mut owner)?;
        }
        // An answered request after them all: the queue is there when it comes back.
        raw.keep_alive()?;
        let before = server.process.cpu_time()?;
        let (start, mut samples) = (Instant::now(), Samples::default());
        for _ in 0..turns {
            let begin = Instant::now();
            ask(&mut raw, &lock, &mut owner)?;
            raw.put(&Request::Release(holder));
            raw.send()?;
            holder = handed_over(&mut raw)?;
            samples.add(begin.elapsed());
        }
        let ran = server.process.cpu_time()?.saturating_sub(before);
        assert!(start.elapsed() < Duration::from_mins(1), "a lease lasts a minute");
        let server_ns = ran.as_secs_f64() * 1e9 / f64::from(2 * turns);
        points.push(Point { size, pair_us: samples.quantiles().p50 / 1000.0, server_ns });
    }
    print("queue length", &points);
    Ok(())
}

fn ask(raw: &mut Raw, name: &[u8], owner: &mut u64) -> io::Result<()> {
    *owner += 1;
    let resource = Resource::new(b"", name).map_err(|_| io::ErrorKind::InvalidInput)?;
    raw.put(&Request::Acquire(Acquire {
        resource,
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait: Wait::Forever,
        owner: OwnerId(*owner),
        reentrant: false,
        notify: false,
        cacheable: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    }));
    raw.send()
}

/// The answers to a release that lets somebody in: its own and the grant, in either order.
fn handed_over(raw: &mut Raw) -> io::Result<GrantId> {
    let mut next = None;
    for _ in 0..2 {
        let grant = raw.reply(|_, reply| match reply {
            Reply::Granted(granted) => Some(Some(granted.grant)),
            Reply::Released { .. } => Some(None),
            _ => None,
        })?;
        next = next.or(grant);
    }
    next.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn print(what: &str, points: &[Point]) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    println!(
        "  {what:<14} pair at depth 1: {:.2} x   server time an operation: {:.2} x",
        last.pair_us / first.pair_us,
        last.server_ns / first.server_ns
    );
    for point in points {
        println!(
            "    {:>9}: pair p50 {:>8.1} us   server {:>7.0} ns/op",
            point.size, point.pair_us, point.server_ns
        );
    }
}

//! P7: batches over one connection to one shard, pinned apart from this program. Beside it an echo of the same frames
//! and Redis with `SET NX` and `DEL`, each on the same core and driven by the same loop.
//!
//! A batch of ACQUIREs is answered whole, then the same locks are given back in one batch. With two batches on the way
//! the server has work while this program reads. Each server's own time for an operation is printed as well:
//! it says what one core could do if this program cost nothing.

use fairlock_benches::batches::{Pace, run};
use fairlock_benches::cores::{Place, own_core};
use fairlock_benches::echo::Echo;
use fairlock_benches::figures::{median, rate};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::redis::{Pipeline, Redis};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// (operations in a batch, batches on the way). A session may leave 1024 answers unacknowledged.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (8, 1), (64, 1), (64, 4), (256, 1), (256, 2), (256, 3), (1024, 1)];

/// Every shape with every peer.
pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P7") {
        return Ok(());
    }
    let core = if Place::Cross.other_core() == own_core() { own_core() } else { Place::Cross.other_core() };
    let span = options.of(Duration::from_millis(400), Duration::from_millis(100));
    for io in &options.io {
        for poll in ["never", "always"] {
            let server = Server::start(&Manor { program, io, poll, core: Some(core) })?;
            let redis = Redis::start(core);
            if redis.is_none() {
                println!("\nredis-server is not installed: its column is empty");
            }
            println!(
                "\nP7 tcp, one connection, one shard, cross core, --io {io} --poll {poll}: lock operations/s"
            );
            println!(
                "  {:<10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}  {:>9} {:>9} {:>9} {:>10}",
                "batch",
                "fairlock",
                "best",
                "echo",
                "redis",
                "/ echo",
                "/ redis",
                "server",
                "echo",
                "redis",
                "batch p50"
            );
            for shape in SHAPES.into_iter().filter(|shape| options.batch.is_none_or(|batch| batch == shape.0))
            {
                one(shape, options.rounds, span, core, &server, redis.as_ref())?;
            }
        }
    }
    Ok(())
}

fn one(
    shape: (usize, usize),
    rounds: usize,
    span: Duration,
    core: usize,
    server: &Server,
    redis: Option<&Redis>,
) -> io::Result<()> {
    let (mut ours, mut bare, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        server.process.freeze();
        let echo = Echo::start(core, Manner::Sleeping, None)?;
        bare.push(run(&mut (Raw::bare(&echo.door, Manner::Sleeping)?, false), &echo.process, shape, span)?);
        drop(echo);
        if let Some(redis) = redis {
            let mut pipeline = Pipeline::connect(&redis.door, Manner::Sleeping)?;
            theirs.push(run(&mut pipeline, &redis.process, shape, span)?);
            redis.process.freeze();
        }
        server.process.thaw();
        let raw = Raw::open(&server.tcp, Manner::Sleeping, 60_000)?;
        ours.push(run(&mut (raw, true), &server.process, shape, span)?);
        if let Some(redis) = redis {
            redis.process.thaw();
        }
    }
    let of = |paces: &[Pace], pick: fn(&Pace) -> f64| median(&paces.iter().map(pick).collect::<Vec<_>>());
    let against = |others: &[Pace]| {
        median(&ours.iter().zip(others).map(|(own, other)| own.rate / other.rate).collect::<Vec<_>>())
    };
    let best = ours.iter().map(|pace| pace.rate).fold(0.0, f64::max);
    let ns = |paces: &[Pace]| format!("{:.0} ns", of(paces, |pace| pace.server_ns));
    println!(
        "  {:<10} {:>10} {:>10} {:>10} {:>10} {:>6.2} x {:>6.2} x  {:>9} {:>9} {:>9} {:>7.0} us",
        format!("{} x {}", shape.0, shape.1),
        rate(of(&ours, |pace| pace.rate)),
        rate(best),
        rate(of(&bare, |pace| pace.rate)),
        rate(of(&theirs, |pace| pace.rate)),
        against(&bare),
        against(&theirs),
        ns(&ours),
        ns(&bare),
        ns(&theirs),
        of(&ours, |pace| pace.batch_us),
    );
    Ok(())
}

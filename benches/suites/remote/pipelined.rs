//! P7: batches over one connection to one shard, pinned apart from this program. Beside it an echo of the same frames
//! and Redis with `SET NX` and `DEL`, each on the same core and driven by the same loop.
//!
//! A batch of ACQUIREs is answered whole, then the same locks are given back in one batch. With two batches on the way
//! the server has work while this program reads. Each server's own time for an operation is printed as well:
//! it says what one core could do if this program cost nothing.

use fairlock_benches::cores::{Place, own_core};
use fairlock_benches::echo::Echo;
use fairlock_benches::figures::{median, rate};
use fairlock_benches::options::Options;
use fairlock_benches::process::Measured;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::redis::{Pipeline, Redis};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use fairlock_protocol::{GrantId, Reply, Request, Wait};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Names in turn, so that the table is larger than the nearest cache.
const NAMES: u64 = 100_000;
/// (operations in a batch, batches on the way). A session may leave 1024 answers unacknowledged.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (8, 1), (64, 1), (64, 4), (256, 1), (256, 2), (256, 3), (1024, 1)];

/// What one round gave.
#[derive(Clone, Copy)]
struct Pace {
    /// Operations a second.
    rate: f64,
    /// Time the server ran for one operation, in nanoseconds.
    server_ns: f64,
    /// Middle of the time from the sending of a batch to its last answer, in microseconds.
    batch_us: f64,
}

/// Whom batches go to.
trait Peer {
    /// Sends a batch that takes these names.
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()>;
    /// Waits for its answers.
    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>>;
    /// Sends a batch that gives them back.
    fn send_gives(&mut self, names: &[[u8; 16]], grants: &[GrantId]) -> io::Result<()>;
    /// Waits for its answers.
    fn given(&mut self, count: usize) -> io::Result<()>;
}

impl Peer for (Raw, bool) {
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()> {
        for name in names {
            self.0.put_acquire(name, Wait::Try);
        }
        self.0.send()
    }

    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>> {
        let real = self.1;
        let grant = |raw: &mut Raw| {
            if real {
                return raw.granted().map(|granted| granted.grant);
            }
            raw.frame(|_| GrantId::from_raw(1))?.ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        (0..count).map(|_| grant(&mut self.0)).collect()
    }

    fn send_gives(&mut self, _: &[[u8; 16]], grants: &[GrantId]) -> io::Result<()> {
        for &grant in grants {
            self.0.put(&Request::Release(grant));
        }
        self.0.send()
    }

    fn given(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            if self.1 {
                self.0.reply(|_, reply| matches!(reply, Reply::Released { .. }).then_some(()))?;
            } else {
                self.0.frame(|_| ())?;
            }
        }
        Ok(())
    }
}

impl Peer for Pipeline {
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()> {
        for name in names {
            self.put_set(name);
        }
        self.send()
    }

    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>> {
        self.answers(count, b"+OK\r\n").map(|()| Vec::new())
    }

    fn send_gives(&mut self, names: &[[u8; 16]], _: &[GrantId]) -> io::Result<()> {
        for name in names {
            self.put_delete(name);
        }
        self.send()
    }

    fn given(&mut self, count: usize) -> io::Result<()> {
        self.answers(count, b":1\r\n")
    }
}

/// A batch on the way.
struct Batch {
    sent: Instant,
    names: Vec<[u8; 16]>,
    takes: bool,
}

/// Runs batches for a while.
fn run(peer: &mut dyn Peer, process: &Measured, shape: (usize, usize), span: Duration) -> io::Result<Pace> {
    let (size, on_the_way) = shape;
    let mut numbers = (0..NAMES).cycle();
    let mut batches = VecDeque::new();
    let mut next = |peer: &mut dyn Peer| -> io::Result<Batch> {
        let names: Vec<[u8; 16]> = numbers.by_ref().take(size).map(name).collect();
        peer.send_takes(&names)?;
        Ok(Batch { sent: Instant::now(), names, takes: true })
    };
    for _ in 0..on_the_way {
        batches.push_back(next(peer)?);
    }
    let (mut operations, mut spans) = (0_usize, Vec::new());
    let (start, cpu) = (Instant::now(), process.cpu_time()?);
    while let Some(batch) = batches.pop_front() {
        let Batch { sent, names, takes } = batch;
        let over = start.elapsed() >= span;
        if takes {
            let grants = peer.taken(size)?;
            spans.push(sent.elapsed().as_secs_f64() * 1e6);
            peer.send_gives(&names, &grants)?;
            batches.push_back(Batch { sent: Instant::now(), names, takes: false });
        } else {
            peer.given(size)?;
            spans.push(sent.elapsed().as_secs_f64() * 1e6);
            if !over {
                batches.push_back(next(peer)?);
            }
        }
        operations += size;
    }
    let (took, ran) = (start.elapsed(), process.cpu_time()?.saturating_sub(cpu));
    Ok(Pace {
        rate: operations as f64 / took.as_secs_f64(),
        server_ns: ran.as_secs_f64() * 1e9 / operations as f64,
        batch_us: median(&spans),
    })
}

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

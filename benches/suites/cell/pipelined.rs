//! P8, many locks at once: grants a second at cells of two nodes and of three beside a cell of one, and beside Redis with one
//! copy where each batch ends with `WAIT 1`, which is as much as Redis can promise of a copy.

use crate::burst;
use crate::depth_one::{TTL_MS, connect};
use crate::ground::{Ground, Manner};
use fairlock_benches::batches::{Copied, run};
use fairlock_benches::cell::Cell;
use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::figures::{median, rate};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::redis::{Pipeline, Redis};
use fairlock_benches::stream::{self, Door};
use std::io;
use std::time::{Duration, Instant};

/// (operations in a batch, batches on the way): what is on the way is within the answers that a server keeps for a session.
const SHAPES: [(usize, usize); 7] = [(1, 1), (64, 1), (256, 1), (256, 2), (256, 3), (256, 4), (512, 2)];
/// Asked for at once through the library.
const BURST: usize = 256;
const TTL: Duration = Duration::from_mins(1);
/// Confirmations in a row after which the copy of Redis is there: a new one pauses for a second now and then.
const CONFIRMED: usize = 20;
/// Longest wait for that.
const COPY_TIME: Duration = Duration::from_secs(10);

/// Redis and its copy.
struct Pair {
    first: Redis,
    _copy: Redis,
}

/// Grants a second of each party, round by round: cells of one, two and three nodes, and Redis.
#[derive(Default)]
struct Paces([Vec<f64>; 4]);

pub(crate) fn measure(options: &Options, ground: &Ground<'_>) -> io::Result<()> {
    if !options.wants("P8 pipelined") {
        return Ok(());
    }
    let other = Place::Cross.other_core();
    let span = options.of(Duration::from_millis(400), Duration::from_millis(60));
    for io in &options.io {
        let manner = Manner { io, poll: "auto", cores: Some((other, own_core())) };
        let cells: io::Result<Vec<Cell>> = (1..=3).map(|nodes| ground.cell(nodes, manner)).collect();
        let cells = cells?;
        let redis = redis(ground, other)?;
        if redis.is_none() {
            println!("\nredis-server is not installed: its column is empty");
        }
        pin(own_core());
        println!(
            "\nP8 pipelined, tcp, one connection, one shard, --io {io} --poll auto: grants/s (target: two nodes >= 1 M/s)"
        );
        println!(
            "  {:<34} {:>10} {:>10} {:>8} {:>10} {:>8} {:>14}",
            "batch", "one node", "two", "/ one", "three", "/ one", "redis + WAIT 1"
        );
        for shape in SHAPES.into_iter().filter(|shape| options.batch.is_none_or(|batch| batch == shape.0)) {
            let mut paces = Paces::default();
            for _ in 0..options.rounds {
                raw_round(&cells, redis.as_ref(), shape, span, &mut paces)?;
            }
            paces.print(&format!("raw protocol, {} x {}", shape.0, shape.1));
        }
        let mut paces = Paces::default();
        let clients: io::Result<Vec<_>> = cells.iter().map(|cell| connect(cell, TTL)).collect();
        let clients = clients?;
        for _ in 0..options.rounds {
            for (at, client) in clients.iter().enumerate() {
                paces.0[at].push(burst::grants_per_s(client, BURST, span)?);
            }
        }
        paces.print(&format!("client library, {BURST} at once"));
    }
    Ok(())
}

fn raw_round(
    cells: &[Cell],
    redis: Option<&Pair>,
    shape: (usize, usize),
    span: Duration,
    paces: &mut Paces,
) -> io::Result<()> {
    for (at, cell) in cells.iter().enumerate() {
        let raw = Raw::open(&cell.nodes[0].door(), stream::Manner::Sleeping, TTL_MS)?;
        let process = cell.nodes[0].process.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // A pair of operations is one grant.
        paces.0[at].push(run(&mut (raw, true), process, shape, span)?.rate / 2.0);
    }
    if let Some(Pair { first, .. }) = redis {
        let mut peer = Copied(Pipeline::connect(&first.door, stream::Manner::Sleeping)?);
        paces.0[3].push(run(&mut peer, &first.process, shape, span)?.rate / 2.0);
    }
    Ok(())
}

impl Paces {
    fn print(&self, title: &str) {
        let [one, two, three, redis] = &self.0;
        let against = |paces: &[f64]| {
            median(&paces.iter().zip(one).map(|(own, limit)| own / limit).collect::<Vec<_>>())
        };
        let redis = if redis.is_empty() { "-".to_owned() } else { rate(median(redis)) };
        println!(
            "  {title:<34} {:>10} {:>10} {:>6.2} x {:>10} {:>6.2} x {redis:>14}",
            rate(median(one)),
            rate(median(two)),
            against(two),
            rate(median(three)),
            against(three),
        );
    }
}

/// Redis at the first place of two, its copy at the second, once the copy confirms.
fn redis(ground: &Ground<'_>, core: usize) -> io::Result<Option<Pair>> {
    let [at, copy_at] = ground.places(2) else { return Ok(None) };
    let Some(first) = Redis::placed(at, core, None) else { return Ok(None) };
    let Door::Tcp(address) = first.door else { return Ok(None) };
    let Some(copy) = Redis::placed(copy_at, own_core(), Some(address)) else { return Ok(None) };
    let until = Instant::now() + COPY_TIME;
    let mut in_a_row = 0;
    while in_a_row < CONFIRMED {
        if Instant::now() > until {
            return Err(io::Error::other("the copy of Redis does not confirm"));
        }
        in_a_row = if is_confirmed(&first)? { in_a_row + 1 } else { 0 };
    }
    Ok(Some(Pair { first, _copy: copy }))
}

/// Whether the copy confirms soon. Without something written even a copy that is not there yet would.
fn is_confirmed(redis: &Redis) -> io::Result<bool> {
    let mut pipeline = Pipeline::connect(&redis.door, stream::Manner::Sleeping)?;
    pipeline.put_set(&name(0));
    pipeline.put_delete(&name(0));
    pipeline.put_wait(100);
    pipeline.send()?;
    pipeline.answer_is(b"+OK\r\n")?;
    pipeline.answer_is(b":1\r\n")?;
    Ok(pipeline.answer_is(b":1\r\n").is_ok())
}

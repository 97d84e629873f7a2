//! Whether the number of held locks matters: the gap of a fail-over, how long a node takes to join (from its start until it
//! is a member), and what a client notices of that, at a thousand held locks up to a million.

use crate::depth_one::TTL_MS;
use crate::ground::Ground;
use crate::scene::{Fault, Scene};
use fairlock_benches::figures::{Samples, ms};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::stream::Manner;
use std::io;
use std::time::{Duration, Instant};

/// How long the usual answers are sampled.
const USUALLY: Duration = Duration::from_secs(1);

/// What was measured at one size.
#[derive(Default)]
struct Line {
    gaps: Samples,
    joins: Samples,
    usual: Samples,
    /// All answers during the joins, and the longest of each join.
    meanwhile: Samples,
    worst: Duration,
    lost: u64,
}

pub(crate) fn measure(options: &Options, ground: &Ground<'_>) -> io::Result<()> {
    if !options.wants("growth of a cell") {
        return Ok(());
    }
    let (sizes, times) =
        (options.of(&[1000, 10_000, 100_000, 1_000_000][..], &[1000, 20_000]), options.of(10, 1));
    let mut scene = Scene::start(ground, 2)?;
    println!("\nGrowth of a cell, 2 nodes: {times} kills of the primary at each size, and as many joins");
    println!(
        "  {:>9} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>6}",
        "held", "gap p50", "gap max", "join p50", "join max", "usual p99", "while p99", "while max", "lost"
    );
    let mut held = 0;
    for &size in sizes {
        let primary = scene.calm()?;
        let mut holder = Raw::open(&scene.cell.nodes[primary].door(), Manner::Sleeping, TTL_MS)?;
        holder.hold(held..size)?;
        held = size;
        drop(holder);
        let mut line = Line::default();
        for _ in 0..times {
            one(&mut scene, size, &mut line)?;
        }
        line.print(size);
    }
    println!("  {}", scene.verdict());
    Ok(())
}

fn one(scene: &mut Scene, size: u64, line: &mut Line) -> io::Result<()> {
    scene.calm()?;
    scene.pinger.begin();
    std::thread::sleep(USUALLY);
    line.usual.join(&scene.pinger.window().answers);

    let (node, window) = scene.suffer(Fault::Killed)?;
    line.gaps.add(window.gap);

    scene.pinger.begin();
    let start = Instant::now();
    scene.mend(node)?;
    line.joins.add(start.elapsed());
    let window = scene.pinger.window();
    line.meanwhile.join(&window.answers);
    line.worst = line.worst.max(window.stall);

    let primary = scene.calm()?;
    let mut asking = Raw::open(&scene.cell.nodes[primary].door(), Manner::Sleeping, TTL_MS)?;
    let (grants, _) = asking.counts()?;
    line.lost = line.lost.max((size + scene.held()).saturating_sub(grants));
    Ok(())
}

impl Line {
    fn print(&self, size: u64) {
        println!(
            "  {size:>9} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>6}",
            ms(self.gaps.at(0.5)),
            ms(self.gaps.at(1.0)),
            ms(self.joins.at(0.5)),
            ms(self.joins.at(1.0)),
            ms(self.usual.at(0.99)),
            ms(self.meanwhile.at(0.99)),
            ms(self.worst.as_nanos() as f64),
            self.lost
        );
    }
}

//! P15: how long a client waits when another node takes over as an operator wishes (`fairlock cluster switchover`). The
//! stall is the longest acquire around it; the limit is what one takes usually, a round trip.

use crate::ground::Ground;
use crate::scene::Scene;
use fairlock_benches::figures::{Samples, spread_heading, spread_row};
use fairlock_benches::options::Options;
use std::io;
use std::process::Stdio;
use std::time::Duration;

/// How a program ends that does not understand its command line.
const UNKNOWN: i32 = 64;
/// How long the usual round trips are sampled.
const USUALLY: Duration = Duration::from_secs(1);

pub(crate) fn measure(options: &Options, ground: &Ground<'_>) -> io::Result<()> {
    if !options.wants("P15 switchover") {
        return Ok(());
    }
    for nodes in [2, 3] {
        let mut scene = Scene::start(ground, nodes)?;
        scene.calm()?;
        scene.pinger.begin();
        std::thread::sleep(USUALLY);
        let usual = scene.pinger.window().answers;
        let Some((stalls, refused)) = stalls(&mut scene, options.of(200, 3))? else {
            println!("\nskipped: P15, for this program knows no `cluster switchover`");
            return Ok(());
        };
        spread_heading(&format!(
            "P15 planned switchover, {nodes} nodes (target: p99 <= 5 ms, 0 lost grants)"
        ));
        spread_row("an acquire, usually (limit)", &usual);
        spread_row("longest acquire around a switchover", &stalls);
        println!("  switchovers that were refused: {refused}; {}", scene.verdict());
    }
    Ok(())
}

/// The stalls, and how many switchovers were refused; `None`: there is no such command.
fn stalls(scene: &mut Scene, times: usize) -> io::Result<Option<(Samples, usize)>> {
    let (mut stalls, mut refused) = (Samples::default(), 0);
    for _ in 0..times {
        let mut code = None;
        let window = scene.during(|cell, primary| {
            let mut command = cell.nodes[primary].ask(&["cluster", "switchover"])?;
            code = command.stdout(Stdio::null()).status()?.code();
            Ok(code == Some(0))
        })?;
        match window {
            Some(window) => stalls.add(window.stall),
            None if code == Some(UNKNOWN) => return Ok(None),
            None => refused += 1,
        }
    }
    Ok(Some((stalls, refused)))
}

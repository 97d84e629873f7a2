//! P15: how long a client waits when another node takes over as an operator wishes (`fairlock cluster switchover`). The
//! stall is the longest acquire around it; the limit is what one takes usually, a round trip.

use crate::ground::Ground;
use crate::scene::Scene;
use fairlock::AdminError;
use fairlock::admin::Admin;
use fairlock_benches::figures::{Samples, spread_heading, spread_row};
use fairlock_benches::options::Options;
use std::io;
use std::time::Duration;

/// How long an operator waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
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
        let (stalls, refused) = stalls(&mut scene, options.of(200, 3))?;
        spread_heading(&format!(
            "P15 planned switchover, {nodes} nodes (target: p99 <= 5 ms, 0 lost grants)"
        ));
        spread_row("an acquire, usually (limit)", &usual);
        spread_row("longest acquire around a switchover", &stalls);
        println!("  switchovers that were refused: {refused}; {}", scene.verdict());
    }
    Ok(())
}

/// The stalls, and how many switchovers were refused. The wish is said from here: a program that starts to say it would take
/// the processors from those who are measured.
fn stalls(scene: &mut Scene, times: usize) -> io::Result<(Samples, usize)> {
    let (mut stalls, mut refused) = (Samples::default(), 0);
    for _ in 0..times {
        let window = scene.during(|cell, primary| {
            let endpoint = cell.nodes[primary].endpoint();
            let mut operator = Admin::connect(endpoint.as_str(), PATIENCE).map_err(io::Error::other)?;
            match operator.switchover(None) {
                Err(AdminError::Refused(_) | AdminError::Explained { .. }) => Ok(false),
                other => other.map(|_| true).map_err(io::Error::other),
            }
        })?;
        match window {
            Some(window) => stalls.add(window.stall),
            None => refused += 1,
        }
    }
    Ok((stalls, refused))
}

//! P9: how long nobody is served when the primary is killed, or frozen. The gap is the longest time between two grants of a
//! client that takes and gives back a lock of its own every millisecond. Its limit is what cannot be saved: one swap at the
//! register, by which another node takes office, and a client's way to it (connect, HELLO, RESUME).

use crate::depth_one::TTL_MS;
use crate::ground::Ground;
use crate::scene::{Fault, Scene};
use fairlock_benches::etcd::Gateway;
use fairlock_benches::figures::{Samples, spread_heading, spread_row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::stream::{Door, Manner};
use fairlock_protocol::Liveness;
use std::io;
use std::time::{Duration, Instant};

/// Longest wait for the register.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn measure(options: &Options, ground: &Ground<'_>) -> io::Result<()> {
    if !options.wants("P9 fail-over") {
        return Ok(());
    }
    for nodes in [2, 3] {
        let mut scene = Scene::start(ground, nodes)?;
        let primary = scene.calm()?;
        let limit = limit(ground, &scene.cell.nodes[primary].door(), options.of(200, 20))?;
        let killed = gaps(&mut scene, Fault::Killed, options.of(200, 3))?;
        let frozen = gaps(&mut scene, Fault::Frozen, options.of(50, 2))?;
        spread_heading(&format!(
            "P9 fail-over, {nodes} nodes (target: killed p50 <= 20 ms, p99 <= 100 ms; frozen p99 <= 200 ms)"
        ));
        spread_row("swap at the register, then connect + RESUME (limit)", &limit);
        spread_row("longest gap between grants, primary killed", &killed);
        spread_row("longest gap between grants, primary frozen", &frozen);
        println!("  killed / limit: {:.1} x at p50; {}", killed.at(0.5) / limit.at(0.5), scene.verdict());
    }
    Ok(())
}

fn gaps(scene: &mut Scene, fault: Fault, times: usize) -> io::Result<Samples> {
    let mut gaps = Samples::default();
    for _ in 0..times {
        let (node, window) = scene.suffer(fault)?;
        gaps.add(window.gap);
        scene.mend(node)?;
    }
    Ok(gaps)
}

fn limit(ground: &Ground<'_>, primary: &Door, times: usize) -> io::Result<Samples> {
    let mut register = Gateway::new(ground.etcd.addresses(), PATIENCE);
    let (raw, ticket) = Raw::with_ticket(primary, Manner::Sleeping, TTL_MS, Liveness::Heartbeat)?;
    drop(raw);
    let mut samples = Samples::default();
    // The first swap makes the connection, which a node has all the time.
    register.swap("bench/limit", "0")?;
    for number in 0..times {
        let start = Instant::now();
        register.swap("bench/limit", &number.to_string())?;
        drop(Raw::resume(primary, Manner::Sleeping, ticket)?);
        samples.add(start.elapsed());
    }
    Ok(samples)
}

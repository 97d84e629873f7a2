//! P9, the peer: how long nobody is served when the leader of etcd is killed, measured as for a cell. A client writes a key
//! every millisecond, and goes on to the next member when one has not answered for 300 ms.

use crate::ground::Ground;
use fairlock_benches::etcd::Gateway;
use fairlock_benches::figures::{Samples, spread_heading, spread_row};
use fairlock_benches::options::Options;
use fairlock_benches::pinger::Pinger;
use std::io;
use std::time::Duration;

/// Patience of its client with one member.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(1);
/// Writes after which the client is served again, or calm.
const SERVED: u64 = 10;

pub(crate) fn measure(options: &Options, ground: &mut Ground<'_>) -> io::Result<()> {
    if !options.wants("P9 etcd") {
        return Ok(());
    }
    let mut gateway = Gateway::new(ground.etcd.addresses(), PATIENCE);
    let pinger = Pinger::start(PAUSE, move || gateway.swap("bench/ping", "here"));
    let (mut gaps, mut answers) = (Samples::default(), Samples::default());
    for _ in 0..options.of(20, 2) {
        let leader = ground.etcd.await_leader()?;
        pinger.begin();
        pinger.more(SERVED)?;
        answers = pinger.window().answers;
        pinger.begin();
        ground.etcd.kill(leader);
        pinger.more(SERVED)?;
        gaps.add(pinger.window().gap);
        ground.etcd.restart(leader)?;
    }
    ground.etcd.await_leader()?;
    spread_heading("P9 beside it: etcd of three members");
    spread_row("a write, usually", &answers);
    spread_row("longest gap between writes, leader killed", &gaps);
    Ok(())
}

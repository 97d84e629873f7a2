//! What several nodes cost, and what they are good for: a lock that is replicated beside one that is not (P8), the gap when
//! the primary is killed or frozen (P9) beside etcd's own, a planned switchover (P15), and what the number of held locks does
//! to any of it. All with real nodes, each in a network namespace of its own, and an etcd of three members as their register.
//!
//! Figures of a round stand beside their limit in the same round, and every held lock is asked for after every fault.
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

mod burst;
mod depth_one;
mod failover;
mod ground;
mod growth;
mod peer;
mod pipelined;
mod scene;
mod switchover;

use fairlock_benches::options::Options;
use fairlock_benches::{cores, launch, machine, server};
use ground::Ground;

fn main() -> std::io::Result<()> {
    launch::perhaps();
    let options = Options::read();
    println!("{}", machine::line());
    let program = server::program_or_exit(&options);
    cores::unpin();
    let mut ground = Ground::prepare(&program)?;
    println!("{}", ground.line());
    depth_one::measure(&options, &ground)?;
    pipelined::measure(&options, &ground)?;
    cores::unpin();
    failover::measure(&options, &ground)?;
    peer::measure(&options, &mut ground)?;
    switchover::measure(&options, &ground)?;
    growth::measure(&options, &ground)
}

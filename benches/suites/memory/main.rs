//! What a lock costs through shared memory, against a real server in a process of its own: entered again without a message (P1),
//! one at a time with the server polling (P2) and asleep (P3), handed over between two clients (P4), pipelined (P5), and passed on by a death (P10);
//! each beside what the machine does between two processes, measured in the same run.
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

mod cached;
mod crowd;
mod death;
mod depth_one;
mod handover;
mod pipelined;

use fairlock_benches::options::Options;
use fairlock_benches::rivals::Rivals;
use fairlock_benches::{cores, machine, server};

fn main() -> std::io::Result<()> {
    let options = Options::read();
    death::perhaps()?;
    println!("{}", machine::line());
    cores::pin(cores::own_core());
    let program = server::program_or_exit(&options);
    let rivals = Rivals::compile()?;
    cached::measure(&options, &program, &rivals)?;
    depth_one::measure(&options, &program, &rivals)?;
    handover::measure(&options, &program, &rivals)?;
    pipelined::measure(&options, &program)?;
    crowd::measure(&options, &program)?;
    death::measure(&options, &program, &rivals)
}

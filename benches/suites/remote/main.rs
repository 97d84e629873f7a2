//! What a lock costs over a socket: one at a time (P6) and pipelined (P7), against a real server in a process of its
//! own, each beside a bare echo of equally long frames in the same round.
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

mod depth_one;
mod pipelined;

use fairlock_benches::options::Options;
use fairlock_benches::{cores, echo, machine, server};

fn main() -> std::io::Result<()> {
    echo::perhaps();
    let options = Options::read();
    println!("{}", machine::line());
    cores::pin(cores::own_core());
    let program = server::program_or_exit(&options);
    depth_one::measure(&options, &program)?;
    pipelined::measure(&options, &program)
}

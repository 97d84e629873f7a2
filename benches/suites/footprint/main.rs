//! What a server takes up and how it shares: memory of held locks (P11), time when idle (P12), fairness (P13), time to
//! the first grant (P14), and whether any of it grows (P16). All with real servers in processes of their own.
#![allow(clippy::cast_precision_loss, reason = "figures are printed with three digits")]

mod fairness;
mod growth;
mod idle;
mod memory;
mod start;

use fairlock_benches::options::Options;
use fairlock_benches::{cores, machine, server};

fn main() -> std::io::Result<()> {
    fairness::perhaps()?;
    let options = Options::read();
    println!("{}", machine::line());
    let program = server::program_or_exit(&options);
    raise_descriptor_limit();
    cores::unpin();
    memory::measure(&options, &program)?;
    idle::measure(&options, &program)?;
    fairness::measure(&options, &program)?;
    start::measure(&options, &program)?;
    growth::measure(&options, &program)
}

/// As many descriptors as we may have: ten thousand sessions need as many.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        eprintln!("the limit of descriptors stays at {:?}: {error}", limit.current);
    }
}

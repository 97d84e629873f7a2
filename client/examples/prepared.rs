//! A lock that is taken again and again: prepared once, and over shared memory taken in nanoseconds while nobody else asks
//! for it.
//!
//! `cargo run --release -p fairlock --example prepared -- unix:/run/fairlock.sock`

use fairlock::Client;
use std::time::Instant;

const ROUNDS: u32 = 10_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "unix:/run/fairlock.sock".to_owned());
    let client = Client::connect(&endpoint)?;
    let lock = client.lock("counters/7").prepare()?;
    let rounds = if client.transport() == fairlock::Transport::Shm { ROUNDS } else { ROUNDS / 1000 };
    let begun = Instant::now();
    let mut token = 0;
    for _ in 0..rounds {
        let held = lock.acquire()?;
        token = held.token().get();
    }
    let each = begun.elapsed() / rounds;
    println!(
        "{rounds} times taken and given back over {:?}, {each:?} each, token {token}",
        client.transport()
    );
    let held = lock.acquire()?;
    let begun = Instant::now();
    for _ in 0..rounds {
        held.check()?;
    }
    println!("a check: {:?}", begun.elapsed() / rounds);
    drop(held);
    let begun = Instant::now();
    for _ in 0..rounds / 100 {
        client.lock("counters/7").acquire()?.release()?;
    }
    println!("without preparing: {:?}", begun.elapsed() / (rounds / 100));
    client.close();
    Ok(())
}

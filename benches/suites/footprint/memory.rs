//! P11: bytes of a held lock, seen from outside: how much more of the server is resident when a million locks with
//! names of 16 bytes are held. Redis with as many keys stands beside it.

use fairlock_benches::cores::Place;
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::redis::{Pipeline, Redis};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use std::io;
use std::path::PathBuf;

/// Locks a session may hold.
const SESSION_LOCKS: u64 = 1_000_000;
const NAME_BYTES: f64 = 16.0;

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P11") {
        return Ok(());
    }
    let mut sizes = vec![options.of(1_000_000, 50_000)];
    if options.large {
        sizes.push(10_000_000);
    }
    println!(
        "\nP11 resident memory of the server for each held lock with a 16-byte name (target <= 96 B + name)"
    );
    for size in sizes {
        let manor = Manor { program, io: "auto", poll: "auto", core: None };
        let server = Server::start(&manor)?;
        let mut sessions = vec![Raw::open(&server.tcp, Manner::Sleeping, 60_000)?];
        sessions[0].hold(0..1024)?;
        let before = server.process.resident()?;
        let mut at = 1024;
        while at < size {
            let until = size.min((at / SESSION_LOCKS + 1) * SESSION_LOCKS);
            if at.is_multiple_of(SESSION_LOCKS) {
                sessions.push(Raw::open(&server.tcp, Manner::Sleeping, 60_000)?);
            }
            sessions.last_mut().expect("one was opened first").hold(at..until)?;
            at = until;
        }
        let after = server.process.resident()?;
        let bytes = (after - before) as f64 / (size - 1024) as f64;
        println!(
            "  fairlock {size:>9} locks: {:.1} B + name   ({:.2} x the 60 B of the design; {} MiB in all)",
            bytes - NAME_BYTES,
            (bytes - NAME_BYTES) / 60.0,
            after >> 20
        );
        if let Some(redis) = Redis::start(Place::Cross.other_core()) {
            println!("  redis    {size:>9} keys:  {:.1} B + name", redis_bytes(&redis, size)? - NAME_BYTES);
        } else {
            println!("  redis: not installed, skipped");
        }
    }
    Ok(())
}

fn redis_bytes(redis: &Redis, size: u64) -> io::Result<f64> {
    let mut pipeline = Pipeline::connect(&redis.door, Manner::Sleeping)?;
    let before = redis.process.resident()?;
    let mut numbers = 0..size;
    loop {
        let mut asked = 0;
        for number in numbers.by_ref().take(256) {
            pipeline.put_set(&name(number));
            asked += 1;
        }
        if asked == 0 {
            break;
        }
        pipeline.send()?;
        pipeline.answers(asked, b"+OK\r\n")?;
    }
    Ok((redis.process.resident()? - before) as f64 / size as f64)
}

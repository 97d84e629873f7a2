//! P12: what a thousand sessions cost that do nothing but say every twelve seconds that they are there, or share memory with
//! the server and say nothing at all.

use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use fairlock_protocol::Liveness;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Lease of each session, and how often its client renews it: a fifth.
const TTL_MS: u32 = 60_000;
const KEEPALIVE: Duration = Duration::from_secs(12);

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P12") {
        return Ok(());
    }
    let (sessions, span) =
        (options.of(1000, 50), options.of(Duration::from_secs(24), Duration::from_secs(2)));
    println!(
        "\nP12 processor time of a server with {sessions} idle sessions over {span:?} (target < 0.5 % of a core)"
    );
    for io in &options.io {
        for poll in ["auto", "never"] {
            let server = Server::start(&Manor { program, io, poll, core: None })?;
            let open = |_| Raw::open(&server.tcp, Manner::Sleeping, TTL_MS);
            let mut raws = (0..sessions).map(open).collect::<io::Result<Vec<_>>>()?;
            std::thread::sleep(Duration::from_secs(1));
            let (start, before) = (Instant::now(), server.process.cpu_time()?);
            let step = KEEPALIVE / u32::try_from(raws.len()).unwrap_or(u32::MAX);
            let mut renewals = 0_u32;
            'renewing: loop {
                for raw in &mut raws {
                    raw.keep_alive()?;
                    renewals += 1;
                    let next = start + step * renewals;
                    if next > start + span {
                        break 'renewing;
                    }
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            }
            let ran = server.process.cpu_time()?.saturating_sub(before);
            let share = 100.0 * ran.as_secs_f64() / start.elapsed().as_secs_f64();
            let each = ran.as_secs_f64() * 1e6 / f64::from(renewals);
            println!(
                "  --io {io:<6} --poll {poll:<6} {share:>6.3} % of a core ({renewals} renewals, {each:.1} us each)"
            );
            drop((raws, server));
            silent(&Manor { program, io, poll, core: None }, sessions, span)?;
        }
    }
    Ok(())
}

/// As many sessions through shared memory, whose lives the server watches.
fn silent(manor: &Manor<'_>, sessions: usize, span: Duration) -> io::Result<()> {
    let server = Server::start(manor)?;
    let open = |_| Raw::open_as(&server.memory, Manner::Sleeping, TTL_MS, Liveness::Process);
    let raws = (0..sessions).map(open).collect::<io::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), server.process.cpu_time()?);
    std::thread::sleep(span);
    let ran = server.process.cpu_time()?.saturating_sub(before);
    let share = 100.0 * ran.as_secs_f64() / start.elapsed().as_secs_f64();
    let resident = server.process.resident()? / (1 << 20);
    println!(
        "  --io {:<6} --poll {:<6} {share:>6.3} % of a core (shared memory, {} sessions, {resident} MiB resident)",
        manor.io,
        manor.poll,
        raws.len()
    );
    Ok(())
}

//! P10: the holder of a lock is killed with SIGKILL; from the signal until the next waiter holds, beside what waking a
//! sleeping process costs.

use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::figures::{Samples, Series, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::rivals::Rivals;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::{Door, Manner};
use fairlock_protocol::{Liveness, Wait};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The word by which this program is told to hold a lock until it is killed, with the socket's path.
const HOLD: &str = "FAIRLOCK_BENCH_HOLD";
const NAME: &[u8] = b"of one who dies ";

/// Holds a lock for ever, when this process was started for that.
pub(crate) fn perhaps() -> io::Result<()> {
    let Some(path) = std::env::var_os(HOLD) else { return Ok(()) };
    let door = Door::Memory(PathBuf::from(path));
    let mut raw = Raw::open_as(&door, Manner::Sleeping, 60_000, Liveness::Process)?;
    raw.acquire(NAME)?;
    println!("held");
    loop {
        std::thread::sleep(Duration::from_mins(1));
    }
}

/// Kills holders, one after the other.
pub(crate) fn measure(options: &Options, program: &PathBuf, rivals: &Rivals) -> io::Result<()> {
    if !options.wants("P10") {
        return Ok(());
    }
    let core = Place::Cross.other_core();
    for io in &options.io {
        let server = Server::start(&Manor { program, io, poll: "auto", core: Some(core) })?;
        let mut series: [Series; 2] = Default::default();
        for _ in 0..options.rounds {
            series[0].add_quantiles(rivals.run("wake", Some(core), options.of(500, 50))?);
            pin(own_core());
            series[1].add(&deaths(&server.memory, options.of(200, 10))?);
        }
        heading(&format!("P10 kill -9 of a holder, next waiter asleep on the other core, --io {io}"));
        row("waking a sleeping process (limit)", &series[0], None);
        row("from the signal until the next one holds", &series[1], Some(&series[0]));
    }
    Ok(())
}

fn deaths(door: &Door, count: usize) -> io::Result<Samples> {
    let Door::Memory(path) = door else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut next = Raw::open(door, Manner::Sleeping, 60_000)?;
    let mut samples = Samples::default();
    for _ in 0..count {
        let mut holder =
            Command::new(std::env::current_exe()?).env(HOLD, path).stdout(Stdio::piped()).spawn()?;
        let ready = hold_and_queue(&mut holder, &mut next);
        // Let the waiter's request be queued and everybody fall asleep.
        std::thread::sleep(Duration::from_millis(2));
        let begun = Instant::now();
        holder.kill()?;
        ready?;
        let grant = next.granted()?;
        samples.add(begun.elapsed());
        holder.wait()?;
        next.release(grant.grant)?;
    }
    Ok(samples)
}

fn hold_and_queue(holder: &mut Child, next: &mut Raw) -> io::Result<()> {
    let stdout = holder.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut String::new())?;
    next.put_acquire(NAME, Wait::Forever);
    next.send()
}

//! P13: eight processes want one lock for a few seconds. How evenly it went round (Jain's index: 1 when all got it
//! equally often), and whether the server ever served anybody before one who came earlier.

use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::{Door, Manner};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The word that makes this program one of the eight.
const WORD: &str = "contender";
const CONTENDERS: usize = 8;

/// Becomes a contender when the command line says so; the program ends then.
pub(crate) fn perhaps() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, address, ms] = words.as_slice() else { return Ok(()) };
    if word != WORD {
        return Ok(());
    }
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let door = match address.strip_prefix("shm:") {
        Some(path) => Door::Memory(path.into()),
        None => Door::Tcp(address.parse().map_err(|_| io::ErrorKind::InvalidInput)?),
    };
    let span = Duration::from_millis(ms.parse().map_err(wrong)?);
    let mut raw = Raw::open(&door, Manner::Sleeping, 60_000)?;
    println!("ready");
    io::stdout().flush()?;
    // All begin when their starter closes stdin.
    io::stdin().lines().for_each(drop);
    let (start, mut grants) = (Instant::now(), 0_u64);
    while start.elapsed() < span {
        let grant = raw.acquire(&name(0))?.grant;
        grants += 1;
        raw.release(grant)?;
    }
    println!("{grants}");
    std::process::exit(0);
}

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P13") {
        return Ok(());
    }
    let span = options.of(Duration::from_secs(4), Duration::from_millis(500));
    println!("\nP13 {CONTENDERS} processes, one lock, {span:?} (target: 0 overtakes, Jain's index >= 0.99)");
    for (io, memory) in options.io.iter().flat_map(|io| [(io, false), (io, true)]) {
        for round in 1..=options.rounds.min(3) {
            let server = Server::start(&Manor { program, io, poll: "auto", core: None })?;
            let counts = contend(if memory { &server.memory } else { &server.tcp }, span)?;
            let overtakes = Raw::open(&server.tcp, Manner::Sleeping, 5000)?.overtakes()?;
            let sum: f64 = counts.iter().sum();
            let squares: f64 = counts.iter().map(|count| count * count).sum();
            let jain = sum * sum / (counts.len() as f64 * squares);
            let (least, most) = counts.iter().fold((f64::MAX, 0.0_f64), |(l, m), &c| (l.min(c), m.max(c)));
            println!(
                "  --io {io:<6} {:<4} round {round}: overtakes {overtakes}, Jain's index {jain:.6}, {:.0} grants/s, {least:.0} to {most:.0} each",
                if memory { "shm" } else { "tcp" },
                sum / span.as_secs_f64(),
            );
        }
    }
    Ok(())
}

fn contend(door: &Door, span: Duration) -> io::Result<Vec<f64>> {
    let address = match door {
        Door::Tcp(address) => address.to_string(),
        Door::Memory(path) => format!("shm:{}", path.display()),
        Door::Unix(_) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let own = std::env::current_exe()?;
    let mut children = Vec::new();
    for _ in 0..CONTENDERS {
        let mut command = Command::new(&own);
        command.args([WORD, &address, &span.as_millis().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        lines.read_line(&mut String::new())?;
        children.push((child, lines));
    }
    for (child, _) in &mut children {
        drop(child.stdin.take());
    }
    children.into_iter().map(|(child, lines)| count_of(child, lines)).collect()
}

fn count_of(mut child: Child, mut lines: impl BufRead) -> io::Result<f64> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    child.wait()?;
    line.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

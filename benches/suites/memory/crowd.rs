//! More clients than processors: 1 to 8 clients of the library on two cores, each with names of its own, and all of them at
//! one name. Nobody may spin where somebody else has to run, so the sum must not collapse.

use fairlock::{Client, OwnerId, Transport};
use fairlock_benches::cores::unpin;
use fairlock_benches::figures::rate;
use fairlock_benches::options::Options;
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Door;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Names each client goes round.
const NAMES: usize = 64;
/// An owner with a name, so that no grant stays with a client: every pair is two messages.
const OWNER: OwnerId = OwnerId(1);

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("crowd") {
        return Ok(());
    }
    let span = options.of(Duration::from_secs(1), Duration::from_millis(100));
    for io in &options.io {
        println!(
            "\ncrowd: clients of the library over shared memory on two cores, pairs a second in all, --io {io}"
        );
        println!("  {:>8} {:>16} {:>16}", "clients", "names of its own", "one name");
        for clients in [1, 2, 4, 8] {
            let server = Server::start(&Manor { program, io, poll: "auto", core: None })?;
            unpin();
            let own = pairs(&server, clients, span, |client, turn| format!("own/{client}/{}", turn % NAMES))?;
            let one = pairs(&server, clients, span, |_, _| "one".to_owned())?;
            println!("  {clients:>8} {:>16} {:>16}", rate(own), rate(one));
        }
    }
    Ok(())
}

fn pairs(
    server: &Server,
    clients: usize,
    span: Duration,
    name: impl Fn(usize, usize) -> String + Sync,
) -> io::Result<f64> {
    let Door::Unix(path) = &server.unix else { return Err(io::ErrorKind::InvalidInput.into()) };
    let endpoint = format!("unix:{}", path.display());
    let one = |number: usize| -> io::Result<usize> {
        let builder = Client::builder().transport(Transport::Shm).label("bench");
        let client = builder.connect(endpoint.as_str()).map_err(io::Error::other)?;
        let (begun, mut turns) = (Instant::now(), 0);
        while begun.elapsed() < span {
            drop(client.lock(name(number, turns)).owner(OWNER).acquire().map_err(io::Error::other)?);
            turns += 1;
        }
        Ok(turns)
    };
    let turns: Vec<io::Result<usize>> = std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || one(number))).collect();
        let lost = || io::Error::other("a client panicked");
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost()))).collect()
    });
    let mut sum = 0;
    for turns in turns {
        sum += turns?;
    }
    Ok(sum as f64 / span.as_secs_f64())
}

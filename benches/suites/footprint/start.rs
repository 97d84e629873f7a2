//! P14: from starting the program to the first grant in a client's hand, with an empty state directory and with one
//! that a server left in order. The limit is the start of the same program when it only says its version.

use fairlock_benches::figures::{Samples, Series, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::Manner;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P14") {
        return Ok(());
    }
    let starts = options.of(20, 3);
    for io in &options.io {
        let manor = Manor { program, io, poll: "auto", core: None };
        let (mut bare, mut fresh, mut again) = (Samples::default(), Samples::default(), Samples::default());
        let mut ready = Samples::default();
        for _ in 0..starts {
            let start = Instant::now();
            Command::new(program).arg("--version").stdout(Stdio::null()).status()?;
            bare.add(start.elapsed());

            let start = Instant::now();
            let server = Server::start(&manor)?;
            ready.add(start.elapsed());
            first_grant(&server)?;
            fresh.add(start.elapsed());
            let directory = server.stop();

            let start = Instant::now();
            let server = Server::start_in(&manor, directory)?;
            first_grant(&server)?;
            again.add(start.elapsed());
        }
        heading(&format!("P14 start to first grant, {starts} starts, --io {io} (target <= 100 ms)"));
        let series = |samples: &Samples| {
            let mut series = Series::default();
            series.add(samples);
            series
        };
        row("the program saying its version (limit)", &series(&bare), None);
        row("ready line, empty directory", &series(&ready), Some(&series(&bare)));
        row("first grant, empty directory", &series(&fresh), Some(&series(&bare)));
        row("first grant, directory left in order", &series(&again), Some(&series(&bare)));
    }
    Ok(())
}

fn first_grant(server: &Server) -> io::Result<()> {
    let mut raw = Raw::open(&server.tcp, Manner::Sleeping, 5000)?;
    let grant = raw.acquire(&name(1))?.grant;
    raw.release(grant)
}

//! P6: one request at a time. The same exchange three times in each round: with a bare echo, with a server through the
//! raw protocol, with a server through the client library. Whoever is not measured is frozen meanwhile, so that two
//! that spin on one core do not disturb each other.

use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::echo::Echo;
use fairlock_benches::exchange::{Both, exchanges, through_library, through_protocol};
use fairlock_benches::figures::{Samples, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::{Raw, name};
use fairlock_benches::server::{Manor, Server};
use fairlock_benches::stream::{Door, Manner};
use fairlock_protocol::{GrantId, Request, Wait};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_mins(1);

/// One way to measure.
struct Setting<'a> {
    unix: bool,
    io: &'a str,
    place: Place,
    manner: Manner,
}

/// Every setting that makes sense on this machine.
pub(crate) fn measure(options: &Options, program: &PathBuf) -> io::Result<()> {
    if !options.wants("P6") {
        return Ok(());
    }
    let shapes = [
        (false, Place::Cross, Manner::Spinning),
        (false, Place::Same, Manner::Sleeping),
        (false, Place::Cross, Manner::Sleeping),
        (true, Place::Cross, Manner::Spinning),
        (true, Place::Same, Manner::Sleeping),
        (true, Place::Cross, Manner::Sleeping),
    ];
    for io in &options.io {
        for (unix, place, manner) in shapes {
            if place == Place::Cross && Place::Cross.other_core() == own_core() {
                println!("\nskipped: {} needs two cores", place.name());
                continue;
            }
            one(&Setting { unix, io, place, manner }, options, program)?;
        }
    }
    Ok(())
}

fn one(setting: &Setting<'_>, options: &Options, program: &PathBuf) -> io::Result<()> {
    let core = setting.place.other_core();
    let poll = if setting.manner == Manner::Spinning { "always" } else { "never" };
    let server = Server::start(&Manor { program, io: setting.io, poll, core: Some(core) })?;
    let door = if setting.unix { &server.unix } else { &server.tcp };
    let mut raw = Raw::open(door, setting.manner, 60_000)?;
    let client = library(door)?;
    pin(own_core());
    let socket = std::env::temp_dir().join(format!("fairlock-bench-echo-{}", std::process::id()));
    let count = options.of(if setting.manner == Manner::Spinning { 6000 } else { 3000 }, 300);

    let (mut bare, mut thin, mut whole) = (Both::default(), Both::default(), Both::default());
    for _ in 0..options.rounds {
        server.process.freeze();
        bare.add(&echoed(core, setting, &socket, count)?);
        server.process.thaw();
        thin.add(&through_protocol(&mut raw, count)?);
        whole.add(&through_library(&client, count)?);
    }
    let door = if setting.unix { "unix" } else { "tcp" };
    let (place, manner) = (setting.place.name(), setting.manner.name());
    heading(&format!(
        "P6 {door}, depth 1, {place}, both {manner} (server --poll {poll}), --io {}",
        setting.io
    ));
    row("bare echo of the acquire (limit)", &bare.acquire, None);
    row("acquire, raw protocol", &thin.acquire, Some(&bare.acquire));
    row("acquire, client library", &whole.acquire, Some(&bare.acquire));
    row("bare echo of the pair (limit)", &bare.pair, None);
    row("acquire + release, raw protocol", &thin.pair, Some(&bare.pair));
    row("acquire + unawaited release, client library", &whole.pair, Some(&bare.pair));
    Ok(())
}

fn library(door: &Door) -> io::Result<fairlock::Client> {
    let (endpoint, transport) = match door {
        Door::Tcp(address) => (format!("tcp://{address}"), fairlock::Transport::Tcp),
        Door::Unix(path) => (format!("unix:{}", path.display()), fairlock::Transport::Unix),
        Door::Memory(path) => (format!("unix:{}", path.display()), fairlock::Transport::Shm),
    };
    let builder = fairlock::Client::builder()
        .ttl(TTL)
        .label("bench")
        .liveness(fairlock::Liveness::Heartbeat)
        .transport(transport);
    builder.connect(endpoint.as_str()).map_err(io::Error::other)
}

fn echoed(core: usize, setting: &Setting<'_>, socket: &Path, count: usize) -> io::Result<Both<Samples>> {
    let echo = Echo::start(core, setting.manner, setting.unix.then_some(socket))?;
    let mut raw = Raw::bare(&echo.door, setting.manner)?;
    let grant = GrantId::from_raw(1).ok_or(io::ErrorKind::InvalidInput)?;
    exchanges(count, |number| {
        raw.put_acquire(&name(number), Wait::Forever);
        raw.send()?;
        raw.frame(|_| ())?;
        let acquired = Instant::now();
        raw.put(&Request::Release(grant));
        raw.send()?;
        raw.frame(|_| ())?;
        Ok(acquired)
    })
}

//! A program with a lock server inside: it picks a free port, prints where it listens, and serves until Ctrl-C.

use fairlock_server::{Config, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("fairlock-embedded-{}", std::process::id()));
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?];
    config.socket = Some(directory.join("fairlock.sock"));
    config.state_dir = Some(directory.clone());
    config.signals = true;
    let server = Server::start(config)?;
    println!("{:?}", server.ready());
    let report = server.wait();
    println!("{report:?}");
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

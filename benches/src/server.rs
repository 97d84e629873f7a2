//! A real server to measure: the release program, in a process of its own, with a state directory that goes with it.

use crate::cores;
use crate::options::Options;
use crate::process::Measured;
use crate::stream::Door;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Manor<'a> {
    /// Which program.
    pub program: &'a PathBuf,
    /// `uring`, `epoll` or `auto`.
    pub io: &'a str,
    /// `always`, `never` or `auto`.
    pub poll: &'a str,
    /// The core all its threads run on; `None`: any.
    pub core: Option<usize>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Measured,
    /// Where it listens for TCP.
    pub tcp: Door,
    /// Its Unix socket.
    pub unix: Door,
    /// Shared memory, through its Unix socket.
    pub memory: Door,
    directory: PathBuf,
    stdout: BufReader<std::process::ChildStdout>,
}

/// Tells directories of one run apart. It guards nothing, so it needs no partner.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The program to measure: the one named on the command line, else `fairlock` beside this one.
pub fn program(options: &Options) -> Option<PathBuf> {
    if let Some(path) = &options.program {
        return Some(path.clone());
    }
    // A benchmark lies in `release/deps`, the program in `release`.
    let own = std::env::current_exe().ok()?;
    let beside = own.parent()?.parent()?.join("fairlock");
    beside.exists().then_some(beside)
}

/// The program to measure, or the end of this one with a word on how to build it.
pub fn program_or_exit(options: &Options) -> PathBuf {
    program(options).unwrap_or_else(|| {
        eprintln!("no `fairlock` to measure: `cargo build --release -p fairlock-cli`, or --program PATH");
        std::process::exit(66);
    })
}

impl Server {
    /// Starts one with an empty state directory and waits until it listens.
    ///
    /// # Errors
    /// What the system says, or that the server did not start.
    pub fn start(manor: &Manor<'_>) -> io::Result<Server> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("fairlock-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Server::start_in(manor, directory)
    }

    /// Starts one in a directory that may have a state already.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_in(manor: &Manor<'_>, directory: PathBuf) -> io::Result<Server> {
        let socket = directory.join("sock");
        let mut command = Command::new(manor.program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--drain", "0s"]);
        command.args(["--io", manor.io, "--poll", manor.poll]);
        command.arg("--socket").arg(&socket).arg("--state-dir").arg(directory.join("state"));
        command.env("FAIRLOCK_LOG", "error").stdout(Stdio::piped()).stdin(Stdio::null());
        let mut spawn = || command.spawn();
        let child = if let Some(core) = manor.core {
            cores::born_on(core, spawn)?
        } else {
            cores::unpin();
            spawn()?
        };
        let mut process = Measured::new(child);
        let stdout = process.child().stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let tcp = address(&line).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no address in the ready line `{}`", line.trim()),
            )
        })?;
        let memory = Door::Memory(socket.clone());
        Ok(Server { process, tcp, unix: Door::Unix(socket), memory, directory, stdout })
    }

    /// Ends it in order and hands its directory over.
    pub fn stop(mut self) -> PathBuf {
        self.process.end(Duration::from_secs(10));
        std::mem::take(&mut self.directory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.end(Duration::from_secs(2));
        let _ = io::Read::read_to_end(&mut self.stdout, &mut Vec::new());
        if !self.directory.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// The TCP address of a ready line: the first text in it, at any depth, that is one.
fn address(line: &str) -> Option<Door> {
    fn find(value: &serde_json::Value) -> Option<std::net::SocketAddr> {
        match value {
            serde_json::Value::String(text) => text.trim_start_matches("tcp://").parse().ok(),
            serde_json::Value::Array(items) => items.iter().find_map(find),
            serde_json::Value::Object(fields) => fields.values().find_map(find),
            _ => None,
        }
    }
    find(&serde_json::from_str(line).ok()?).map(Door::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_wherever_the_ready_line_has_it() {
        let door = Some(Door::Tcp("127.0.0.1:7411".parse().unwrap()));
        assert_eq!(address(r#"{"event":"ready","tcp":["127.0.0.1:7411"],"pid":1}"#), door);
        assert_eq!(address(r#"{"ready":{"listen":"tcp://127.0.0.1:7411"}}"#), door);
        assert_eq!(address("not json"), None);
    }
}

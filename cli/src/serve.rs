//! `serve`: the command line put over the file put over the defaults, one ready line on stdout, logs on stderr. What
//! a server is stands in the server library; this is the only file that touches it.

pub(crate) mod notify;

use crate::args::{CellArgs, IoWord, LogFormat, PollWord, ProfileWord, ServeArgs};
use crate::failure::{self, Failure};
use crate::print;
use crate::remote;
use fairlock_server::{
    CellConfig, Config, IoChoice, NamespaceConfig, Poll, ProfileChoice, Ready, Server, StartError,
};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Environment variable that says what is logged (`debug`, `fairlock_server=trace`).
const LOG_VARIABLE: &str = "FAIRLOCK_LOG";

/// Serves until a signal ends it.
///
/// # Errors
/// 69 when it cannot listen, 78 for a configuration or state directory that cannot be used.
pub(crate) fn serve(order: &ServeArgs) -> Result<u8, Failure> {
    let config = configured(order)?;
    if order.print_config {
        print::out(&config.describe())?;
        return Ok(0);
    }
    log_to_stderr(order.log_format);
    let server = start(order, config)?;
    print::document(&ReadyLine::from(server.ready()))?;
    notify::ready();
    let report = server.wait();
    notify::stopping();
    tracing::info!(?report, "stopped");
    Ok(0)
}

/// Starts it. A door that nobody named is a convenience: when another server has it, this one, which was given a door
/// of its own, does without; two servers with a socket each need not agree on who gets the default port.
fn start(order: &ServeArgs, config: Config) -> Result<Server, Failure> {
    let told = |error: StartError| Failure::new(error.exit_code(), remote::with_sources(&error));
    let mut fewer = config.clone();
    match (order.config.is_some(), order.listen.is_empty(), order.socket.is_none()) {
        (false, false, true) => fewer.socket = None,
        (false, true, false) if fewer.socket.is_some() => fewer.listen.clear(),
        _ => return Server::start(config).map_err(told),
    }
    match Server::start(config) {
        Err(StartError::Door(error)) => {
            let server = Server::start(fewer).map_err(told)?;
            tracing::warn!(%error, "a default door is taken; serving without it");
            Ok(server)
        }
        started => started.map_err(told),
    }
}

/// Flags win over the file, the file over the defaults.
fn configured(order: &ServeArgs) -> Result<Config, Failure> {
    let refused =
        |error: &dyn std::error::Error| Failure::new(failure::CONFIGURATION, remote::with_sources(error));
    let mut config = match &order.config {
        Some(path) => Config::load(path).map_err(|error| refused(&error))?,
        None => Config::default(),
    };
    if !order.listen.is_empty() {
        config.listen.clone_from(&order.listen);
    }
    if let Some(socket) = &order.socket {
        // The empty path switches the socket off, as in the file.
        config.socket = Some(socket.clone()).filter(|path| !path.as_os_str().is_empty());
    }
    if let Some(mode) = order.socket_mode {
        config.socket_mode = mode;
    }
    if order.socket_group.is_some() {
        config.socket_group.clone_from(&order.socket_group);
    }
    if order.shards.is_some() {
        config.shards = order.shards;
    }
    if order.state_dir.is_some() {
        config.state_dir.clone_from(&order.state_dir);
    }
    if order.admin.is_some() {
        config.admin = order.admin;
    }
    if let Some(drain) = order.drain {
        config.drain = drain;
    }
    if let Some(io) = order.io {
        config.io = match io {
            IoWord::Auto => IoChoice::Auto,
            IoWord::Uring => IoChoice::Uring,
            IoWord::Epoll => IoChoice::Epoll,
        };
    }
    if let Some(poll) = order.poll {
        config.poll = match poll {
            PollWord::Auto => Poll::Auto,
            PollWord::Always => Poll::Always,
            PollWord::Never => Poll::Never,
        };
    }
    for told in &order.discipline {
        let mut namespace = NamespaceConfig::new(told.discipline);
        (namespace.bypass_budget, namespace.age_step) = (told.bypass_budget, told.age_step);
        config.namespaces.insert(told.namespace.clone(), namespace);
    }
    put_cell(&mut config.cell, &order.cell);
    if order.cell.register.is_some() {
        config.register.url.clone_from(&order.cell.register);
    }
    config.insecure |= order.insecure;
    config.signals = true;
    config.check().map_err(|error| refused(&error))?;
    Ok(config)
}

/// The flags of a cell over what the file says of it.
fn put_cell(cell: &mut CellConfig, order: &CellArgs) {
    let texts = [
        (&mut cell.name, &order.name),
        (&mut cell.node, &order.node),
        (&mut cell.peer_address, &order.peer_address),
        (&mut cell.client_address, &order.client_address),
    ];
    for (told, flag) in texts {
        if flag.is_some() {
            told.clone_from(flag);
        }
    }
    cell.peer_listen = order.peer_listen.or(cell.peer_listen);
    if let Some(profile) = order.profile {
        cell.profile = Some(match profile {
            ProfileWord::Lan => ProfileChoice::Lan,
            ProfileWord::Cloud => ProfileChoice::Cloud,
        });
    }
    cell.min_copies = order.min_copies.or(cell.min_copies);
    if order.peer_secret.is_some() {
        cell.peer_secret.clone_from(&order.peer_secret);
    }
}

/// Logs go to stderr; stdout has the ready line alone.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A program can have one log; a second `serve` in a process does not exist.
    let _ = match format {
        LogFormat::Text => {
            let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_ansi(coloured).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// The one line on stdout.
#[derive(Debug, Serialize)]
struct ReadyLine {
    event: &'static str,
    tcp: Option<SocketAddr>,
    socket: Option<PathBuf>,
    shards: u16,
    io: String,
    role: String,
    epoch: u32,
    recovering_ms: u64,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<SocketAddr>,
    /// Only when there is more than one TCP address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tcp_all: Vec<SocketAddr>,
}

impl From<&Ready> for ReadyLine {
    fn from(ready: &Ready) -> ReadyLine {
        ReadyLine {
            event: "ready",
            tcp: ready.tcp.first().copied(),
            socket: ready.socket.clone(),
            shards: ready.shards,
            io: ready.io.to_owned(),
            role: ready.role.to_owned(),
            epoch: ready.epoch,
            recovering_ms: ready.recovering_ms,
            pid: ready.pid,
            admin: ready.admin,
            tcp_all: if ready.tcp.len() > 1 { ready.tcp.clone() } else { Vec::new() },
        }
    }
}

/// Where a server that is told nothing keeps its state.
pub(crate) fn default_state_directory() -> Option<PathBuf> {
    fairlock_server::default_directory().ok()
}

/// A server of one's own, on a Unix socket alone: for `bench`.
pub(crate) struct OwnServer {
    server: Option<Server>,
    socket: PathBuf,
}

impl OwnServer {
    /// Starts it with everything below `directory`.
    ///
    /// # Errors
    /// As `serve`.
    pub(crate) fn start(directory: &Path) -> Result<OwnServer, Failure> {
        let socket = directory.join("bench.sock");
        let mut config = Config::default();
        config.listen = Vec::new();
        config.socket = Some(socket.clone());
        config.state_dir = Some(directory.join("state"));
        config.drain = std::time::Duration::ZERO;
        let server = Server::start(config)
            .map_err(|error| Failure::new(error.exit_code(), remote::with_sources(&error)))?;
        Ok(OwnServer { server: Some(server), socket })
    }

    /// Its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stopper().stop();
            server.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Invocation};
    use clap::Parser;
    use fairlock_protocol::Discipline;

    fn order(flags: &[&str]) -> Box<ServeArgs> {
        let words = ["fairlock", "serve"].iter().chain(flags);
        match Invocation::try_parse_from(words).expect("a command line").command {
            Command::Serve(order) => order,
            other => panic!("not serve: {other:?}"),
        }
    }

    #[test]
    fn flags_win_over_defaults() {
        let flags =
            ["--listen", "127.0.0.1:0", "--shards", "3", "--io", "epoll", "--drain", "250ms", "--socket", ""];
        let config = configured(&order(&flags)).expect("usable");
        assert_eq!(config.listen, ["127.0.0.1:0".parse().expect("an address")]);
        assert_eq!((config.shards, config.io, config.socket), (Some(3), IoChoice::Epoll, None));
        assert_eq!(config.drain.as_millis(), 250);
    }

    #[test]
    fn what_listens_to_the_world_needs_a_word() {
        let code = |flags: &[&str]| configured(&order(flags)).map_or_else(|failure| failure.code, |_| 0);
        assert_eq!(code(&["--listen", "0.0.0.0:0"]), 78);
        assert_eq!(code(&["--listen", "0.0.0.0:0", "--insecure"]), 0);
    }

    #[test]
    fn a_discipline_on_the_command_line_wins_over_the_file_and_is_checked() {
        let config =
            configured(&order(&["--discipline", "jobs=priority:3:250ms", "--discipline", "r=phase"]));
        let config = config.expect("usable");
        let jobs = &config.namespaces["jobs"];
        assert_eq!((jobs.discipline, jobs.bypass_budget), (Discipline::Priority, Some(3)));
        assert_eq!(jobs.age_step, Some(std::time::Duration::from_millis(250)));
        assert_eq!(config.namespaces["r"], NamespaceConfig::new(Discipline::Phase));
        let failure = configured(&order(&["--discipline", "Reports=phase"])).expect_err("no such namespace");
        assert_eq!(failure.code, 78);
        assert!(failure.text.contains("namespace.Reports"), "{}", failure.text);
        for wrong in ["jobs", "jobs=fair", "jobs=phase:many", "jobs=priority:1:soon", "jobs=priority:1:1s:1"]
        {
            assert!(
                Invocation::try_parse_from(["fairlock", "serve", "--discipline", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_flags_of_a_cell_reach_the_configuration_and_are_checked() {
        let whole = ["--cell", "prod", "--node", "a", "--register", "etcd://r:2379"];
        let more = ["--peer-listen", "192.0.2.1:7413", "--peer-address", "a:1", "--client-address", "a:2"];
        let rest = ["--profile", "lan", "--min-copies", "2", "--peer-secret", "/etc/secret"];
        let config = configured(&order(&[&whole[..], &more, &rest].concat())).expect("usable");
        let cell = config.cell;
        let text = |value: &Option<String>| value.clone().expect("told");
        assert_eq!(
            [text(&cell.name), text(&cell.node), text(&config.register.url)],
            ["prod", "a", "etcd://r:2379"]
        );
        assert_eq!([text(&cell.peer_address), text(&cell.client_address)], ["a:1", "a:2"]);
        assert_eq!(cell.peer_listen, Some("192.0.2.1:7413".parse().expect("an address")));
        assert_eq!((cell.profile, cell.min_copies), (Some(ProfileChoice::Lan), Some(2)));
        assert_eq!(cell.peer_secret, Some(PathBuf::from("/etc/secret")));
        let failure = configured(&order(&["--cell", "prod", "--node", "a"])).expect_err("not whole");
        assert_eq!(failure.code, failure::CONFIGURATION);
        let missing = "--register (`register.url`) and --peer-listen (`cell.peer_listen`)";
        assert!(failure.text.contains(missing), "{}", failure.text);
    }
}

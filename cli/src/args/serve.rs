//! What `serve` can be told.

use super::values::duration;
use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use fairlock_protocol::Discipline;
use fairlock_protocol::priority::NotADiscipline;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  fairlock serve                                     default socket and 127.0.0.1:7411
  fairlock serve --listen 127.0.0.1:0                any free port; the ready line on stdout names it
  fairlock serve --socket /run/app/lock.sock --socket-mode 0660 --socket-group app
  fairlock serve --admin 127.0.0.1:7412              /metrics and /healthz for Prometheus and probes
  fairlock serve --discipline reports=phase --discipline jobs=priority:16:100ms
                                                     readers may join readers; by class, rising with age
  fairlock serve --cell prod --node a --register etcd://127.0.0.1:2379 --peer-listen 127.0.0.1:7413
                                                     a node of a cell; `fairlock cluster demo` shows one
  fairlock serve --print-config                      every key of the config file, explained

With only one of --listen and --socket given, the other's default is opened when nobody else has it.
Prints one JSON line on stdout when it listens (in a cell: when it has its place there, and says on stderr what it waits
for until then). SIGTERM drains: holders have --drain to release, then it exits 0; a primary hands over first. What is
held or waited for at a server that is alone goes on at its next start; --drain 0 restarts at once.
Exits with 69 when it cannot listen, with 78 for a bad configuration or state directory.";

/// `serve`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Address for TCP clients; port 0 picks one; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Unix socket for clients on this host; the empty text for none
    #[arg(long, value_name = "PATH", value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) socket: Option<PathBuf>,
    /// Permissions of the socket, octal
    #[arg(long, value_name = "MODE", value_parser = octal)]
    pub(crate) socket_mode: Option<u32>,
    /// Group of the socket
    #[arg(long, value_name = "GROUP")]
    pub(crate) socket_group: Option<String>,
    /// Threads that each own a part of the names
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// Where epoch and lease horizon are kept; locked against a second server
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// How wait queues of a namespace go: NAMESPACE=strict|phase|priority[:BYPASS_BUDGET[:AGE_STEP]]; may be repeated
    #[arg(long, value_name = "NAMESPACE=RULE")]
    pub(crate) discipline: Vec<DisciplineOrder>,
    /// How bytes are moved
    #[arg(long, value_enum, value_name = "IO")]
    pub(crate) io: Option<IoWord>,
    /// Whether a shard spins before it sleeps
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) poll: Option<PollWord>,
    /// Configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address of /metrics and /healthz
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin: Option<SocketAddr>,
    /// How long holders may take to release after SIGTERM [default: 5s]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) drain: Option<Duration>,
    /// Listen beyond loopback without authentication
    #[arg(long)]
    pub(crate) insecure: bool,
    /// How log lines look (on stderr); FAIRLOCK_LOG sets what is logged
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Print every key of the config file with default, unit and meaning, and exit
    #[arg(long)]
    pub(crate) print_config: bool,
    /// The cell.
    #[command(flatten)]
    pub(crate) cell: CellArgs,
}

/// One `--discipline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DisciplineOrder {
    /// Of which namespace.
    pub(crate) namespace: String,
    /// By what its queues go.
    pub(crate) discipline: Discipline,
    /// Times a waiter may be passed.
    pub(crate) bypass_budget: Option<u32>,
    /// How long a waiter waits for each class it rises.
    pub(crate) age_step: Option<Duration>,
}

impl FromStr for DisciplineOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<DisciplineOrder, String> {
        let shape = || {
            "a rule is NAMESPACE=DISCIPLINE[:BYPASS_BUDGET[:AGE_STEP]], like jobs=priority:16:100ms"
                .to_owned()
        };
        let (namespace, rule) = text.split_once('=').ok_or_else(shape)?;
        let mut parts = rule.split(':');
        let discipline =
            parts.next().unwrap_or_default().parse().map_err(|error: NotADiscipline| error.to_string())?;
        let bypass_budget = parts.next().map(str::parse).transpose().map_err(|_| shape())?;
        let age_step = parts.next().map(duration).transpose().map_err(|error| error.to_string())?;
        if parts.next().is_some() {
            return Err(shape());
        }
        Ok(DisciplineOrder { namespace: namespace.to_owned(), discipline, bypass_budget, age_step })
    }
}

/// The flags of a replicated cell.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "A cell of several nodes (the first four go together)")]
pub(crate) struct CellArgs {
    /// Name of the cell, the same on all its nodes
    #[arg(long = "cell", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Name of this node, different on each
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Where the nodes agree on who is in the cell: etcd://host:port,…, etcds://…, or file:/directory (one node)
    #[arg(long, value_name = "PLACE")]
    pub(crate) register: Option<String>,
    /// Address for the other nodes; a name goes to --peer-address
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) peer_listen: Option<SocketAddr>,
    /// What the other nodes dial [default: --peer-listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peer_address: Option<String>,
    /// What clients dial [default: --listen]
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) client_address: Option<String>,
    /// How long silence may last: 50ms (lan: one rack) or 500ms (cloud) [default: cloud]
    #[arg(long, value_enum, value_name = "PROFILE", hide_possible_values = true)]
    pub(crate) profile: Option<ProfileWord>,
    /// Copies without which nothing is granted [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) min_copies: Option<u16>,
    /// File with what all nodes of the cell know and nobody else, 16 bytes or more
    #[arg(long, value_name = "FILE")]
    pub(crate) peer_secret: Option<PathBuf>,
}

/// The words `--profile` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileWord {
    /// One rack.
    Lan,
    /// Virtual machines.
    Cloud,
}

/// The words `--io` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IoWord {
    /// io_uring where the system allows it.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// The words `--poll` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PollWord {
    /// When cores are to spare.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The words `--log-format` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode is octal: 0660".to_owned()),
    }
}

//! The command line as types: what may be said, and with which words it is explained. Whether a server likes it is
//! not decided here.
//!
//! Every command carries examples in its help; a test reads them.

mod cluster;
mod lock;
mod serve;
mod values;

pub(crate) use cluster::{
    ClusterArgs, ClusterCommand, DemoArgs, EvictArgs, ForceNewArgs, LeashArgs, SwitchoverArgs,
};
pub(crate) use lock::{HoldArgs, LockTerms, OnLost, RunArgs};
pub(crate) use serve::{CellArgs, IoWord, LogFormat, PollWord, ProfileWord, ServeArgs};
pub(crate) use values::duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const ABOUT: &str = "Fair, fenced, crash-safe locks across processes and hosts";

const EXAMPLES: &str = "\
Examples:
  fairlock serve                               start a server on the default socket and 127.0.0.1:7411
  fairlock run deploy -- ./deploy.sh           run a command while holding the lock `deploy`
  fairlock run -w 10s -s db -- pg_dump app     shared, give up (75) after 10 seconds
  fairlock why deploy                          who holds it, who waits, and why
  fairlock cluster demo                        a cell of three nodes on this machine, to play with

Exit codes:
  0 done   1 `verify` found a broken promise   64 usage   65 unreadable history   66 no such lock, session or node   69 no server
  75 not acquired, or not done, in time
  76 lost while running   77 denied   78 bad configuration   126 not executable   127 not found
  128+N ended by signal N   130/143 cancelled by INT/TERM; `run` gives the code of its command";

/// A whole command line.
#[derive(Debug, Parser)]
#[command(name = "fairlock", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Invocation {
    /// Which of the processes of one `run` this is; only `run` itself sets it.
    #[arg(long = "internal-role", hide = true, value_enum, default_value = "front")]
    pub(crate) role: Role,
    /// How to reach a server.
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The part a process plays in one `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// What the shell started.
    Front,
    /// What holds the lock.
    Supervisor,
    /// What starts the command when it is told to.
    Gate,
}

/// How to reach a server: valid before and after the command's name.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Reach {
    /// Where the server is: unix:/path, tcp://host:port, several separated by commas [default: the default socket]
    #[arg(long, global = true, env = "FAIRLOCK_ENDPOINT", value_name = "ENDPOINT", hide_env_values = true)]
    pub(crate) endpoint: Option<String>,
    /// Force one transport; refused when it does not fit the endpoint
    #[arg(long, global = true, value_enum, value_name = "TRANSPORT")]
    pub(crate) transport: Option<TransportWord>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Longest talk with the server; never bounds the wait for a lock
    #[arg(long, global = true, value_parser = duration, default_value = "5s", value_name = "DURATION")]
    pub(crate) deadline: Duration,
}

/// The words `--transport` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportWord {
    /// Shared memory, through a unix: endpoint.
    Shm,
    /// A stream over a unix: endpoint.
    Unix,
    /// TCP.
    Tcp,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server
    Serve(Box<ServeArgs>),
    /// Run a command while holding a lock
    Run(Box<RunArgs>),
    /// Hold a lock until stdin closes
    Hold(HoldArgs),
    /// List the names in use
    Ls(LsArgs),
    /// Show who holds a lock and who waits for it
    Show(NameArgs),
    /// Explain a queue: who waits for whom, and why
    Why(NameArgs),
    /// List the sessions of clients
    Sessions(NoArgs<SESSIONS>),
    /// Tell how the server is
    Status(NoArgs<STATUS>),
    /// Take a lock away from its holders
    Break(BreakArgs),
    /// End a client's session
    Session(SessionArgs),
    /// Look at a cell of several nodes, and operate it
    Cluster(ClusterArgs),
    /// Check server, connection and system
    Doctor(DoctorArgs),
    /// Measure acquire times
    Bench(BenchArgs),
    /// Judge what clients saw, from the histories they wrote
    Verify(VerifyArgs),
    /// Print a shell's completion script
    Completions(CompletionsArgs),
    /// Ends with the process that started it; only `cluster demo` calls it.
    #[command(name = "internal-leash", hide = true)]
    Leash(LeashArgs),
    /// Gives the terminal to a process group; only `run` calls it.
    #[command(name = "internal-terminal", hide = true)]
    Terminal {
        /// Which group.
        group: i32,
    },
}

const SESSIONS: u8 = 0;
const STATUS: u8 = 1;

/// No arguments of its own.
#[derive(Debug, Args)]
#[command(after_help = if OF == SESSIONS {
"Examples:
  fairlock sessions                      every client, its lease, what it holds and waits for
  fairlock sessions --json | jq '.[] | select(.grants > 0)'"
} else {
"Examples:
  fairlock status                        version, role, counts and alarms
  fairlock status --json | jq .counts.waiters"
})]
pub(crate) struct NoArgs<const OF: u8> {}

/// `ls`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock ls                            every name in use
  fairlock ls orders/                    those that begin with `orders/`
  fairlock ls --json | jq -r '.[].name'")]
pub(crate) struct LsArgs {
    /// Only names that begin with this
    pub(crate) prefix: Option<OsString>,
}

/// `show` and `why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock show orders/42                holders, conversions and waiters of one lock
  fairlock why orders/42                 the same, explained
  fairlock why orders/42 --json | jq '.waiters[0].pid'")]
pub(crate) struct NameArgs {
    /// The lock's name
    pub(crate) name: OsString,
    /// Its namespace
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
}

/// `break`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock break deploy                  tell the holder; the next one enters when it has let go, or at its lease's end
  fairlock break deploy --force          let the next one in at once: both may run for a moment")]
pub(crate) struct BreakArgs {
    /// The lock's name
    pub(crate) name: OsString,
    /// Its namespace
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// Let the next one in at once, though the holder may still be running
    #[arg(long)]
    pub(crate) force: bool,
}

/// `session`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock session kill 00001a0000000007")]
pub(crate) struct SessionArgs {
    /// What to do with it
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

/// What can be done with a session.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// End it; everything it holds passes on
    Kill(KillArgs),
}

/// `session kill`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock sessions                             find the id
  fairlock session kill 00001a0000000007        its client is told, its locks pass when it has let go
  fairlock session kill 00001a0000000007 --force")]
pub(crate) struct KillArgs {
    /// Its id, as `fairlock sessions` prints it
    pub(crate) id: String,
    /// At once, though its client may still be running
    #[arg(long)]
    pub(crate) force: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock doctor                        check the default server and this system
  fairlock --endpoint tcp://db1:7411 doctor
  fairlock doctor --state-dir /var/lib/fairlock --json")]
pub(crate) struct DoctorArgs {
    /// State directory to look at [default: the one `serve` would use]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock bench                         one client, 3 seconds, against a server of its own when none runs
  fairlock bench --clients 8 --seconds 10
  fairlock bench --locks 100000 --json   hold 100 000 locks meanwhile")]
pub(crate) struct BenchArgs {
    /// Clients, each with a session of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    pub(crate) clients: u32,
    /// Locks held at once meanwhile
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000), value_name = "N")]
    pub(crate) locks: u32,
    /// How long to measure
    #[arg(long, default_value = "3", value_parser = duration, value_name = "SECONDS")]
    pub(crate) seconds: Duration,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock verify client-*.jsonl         one history in many files: mutual exclusion, leases, tokens, order, fences, outcomes
  fairlock verify run.jsonl --json | jq '.violations[0]'

Exit codes:
  0 nothing is wrong   1 a promise was broken   64 usage   65 a history that cannot be read")]
pub(crate) struct VerifyArgs {
    /// Files of events, one JSON object a line (docs/histories.md)
    #[arg(required = true, value_name = "HISTORY")]
    pub(crate) histories: Vec<PathBuf>,
}

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock completions bash > /etc/bash_completion.d/fairlock
  fairlock completions zsh > \"${fpath[1]}/_fairlock\"
  fairlock completions fish > ~/.config/fish/completions/fairlock.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

//! How a lock is asked for: the options that `run` and `hold` share, and what `run` adds.

use super::values::duration;
use clap::{ArgGroup, Args, ValueEnum};
use fairlock_protocol::limits::{LABEL_BYTES_MAX, TTL_MAX, TTL_MIN};
use fairlock_protocol::{Liveness, Mode};
use std::ffi::OsString;
use std::time::Duration;

/// Which lock, how, and for how long to wait.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("mode_choice").args(["mode", "shared"]))]
#[command(group = ArgGroup::new("wait_choice").args(["wait", "nonblock"]))]
pub(crate) struct LockTerms {
    /// The lock's name: 1 to 1024 bytes
    pub(crate) name: OsString,
    /// Its namespace: 1 to 64 of a-z 0-9 . _ -
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// Lock mode: EX exclusive, PW update, PR shared, CW, CR, NL [default: EX]
    #[arg(long, value_parser = mode, value_name = "MODE")]
    mode: Option<Mode>,
    /// Shared: the same as --mode PR
    #[arg(short, long)]
    shared: bool,
    /// Class, 0 (lowest) to 7: counts in namespaces that the server serves by priority [default: 0]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u8).range(0..=7), value_name = "CLASS")]
    pub(crate) priority: u8,
    /// Give up (75) when the lock is not free within this time [default: wait for ever]
    #[arg(short, long, value_parser = duration, value_name = "DURATION")]
    wait: Option<Duration>,
    /// Give up (75) at once when the lock is not free
    #[arg(short, long)]
    nonblock: bool,
    /// Lease: how long the lock outlives a client that fell silent, 200ms to 1h [default: 5s]
    #[arg(long, value_parser = ttl, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// What keeps the lock: `inherit` (default of `run` on unix: endpoints) until the last descendant is gone;
    /// `process` until the process ends; `heartbeat` as long as renewals arrive (the only one over tcp:)
    #[arg(long, value_enum, value_name = "LIVENESS")]
    pub(crate) liveness: Option<LivenessWord>,
    /// What others see as the holder's label [default of `run`: the command]
    #[arg(long, value_parser = label, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

impl LockTerms {
    /// The mode asked for.
    pub(crate) fn mode(&self) -> Mode {
        self.mode.unwrap_or(if self.shared { Mode::SHARED } else { Mode::EXCLUSIVE })
    }

    /// How long to wait: zero for a try, `None` for ever.
    pub(crate) fn wait(&self) -> Option<Duration> {
        if self.nonblock { Some(Duration::ZERO) } else { self.wait }
    }
}

/// The words `--liveness` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LivenessWord {
    /// Until the process ends.
    Process,
    /// As long as renewals arrive.
    Heartbeat,
    /// Until the last descendant is gone.
    Inherit,
}

impl From<LivenessWord> for Liveness {
    fn from(word: LivenessWord) -> Liveness {
        match word {
            LivenessWord::Process => Liveness::Process,
            LivenessWord::Heartbeat => Liveness::Heartbeat,
            LivenessWord::Inherit => Liveness::Inherit,
        }
    }
}

/// What to do with the command when the lock is being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLost {
    /// TERM in time, KILL before anybody else can enter.
    Term,
    /// KILL at the moment TERM would be sent.
    Kill,
    /// Nothing: only the fencing token protects what it does.
    Ignore,
}

const RUN_EXAMPLES: &str = "\
Examples:
  fairlock run deploy -- ./deploy.sh               wait for the lock, run, release
  fairlock run -n cron/backup -- backup.sh         skip (75) when it is running elsewhere
  fairlock run -w 1.5m -s db -- pg_dump app        shared with other readers, wait at most 90 seconds
  fairlock run --namespace jobs --priority 7 nightly -- ./repair.sh
  fairlock run db --mode PW -- sh -c 'psql -v token=$FAIRLOCK_TOKEN -f migrate.sql'

The command finds FAIRLOCK_TOKEN, FAIRLOCK_FENCE, FAIRLOCK_NAME and FAIRLOCK_MODE in its environment. When the lease
is being lost its process group gets TERM, then KILL, before anybody else is let in; `run` then exits with 76.";

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The lock.
    #[command(flatten)]
    pub(crate) lock: LockTerms,
    /// What happens to the command when the lock is being lost
    #[arg(long, value_enum, default_value = "term", value_name = "WHAT")]
    pub(crate) on_lost: OnLost,
    /// How long before the lease's end the command gets TERM [default: a quarter of the ttl, at least 50ms]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) kill_after: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

const HOLD_EXAMPLES: &str = "\
Examples:
  fairlock hold deploy                             prints one JSON line when granted, holds until ^D
  coproc LOCK { fairlock hold -w 10 db; }          from a bash script:
  read -r grant <&\"${LOCK[0]}\"                       granted; $grant has token and fence
  eval \"exec ${LOCK[1]}>&-\"                          release";

/// `hold`.
#[derive(Debug, Args)]
#[command(after_help = HOLD_EXAMPLES)]
pub(crate) struct HoldArgs {
    /// The lock.
    #[command(flatten)]
    pub(crate) lock: LockTerms,
}

fn mode(text: &str) -> Result<Mode, fairlock_protocol::mode::NotAMode> {
    text.parse()
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text).map_err(|error| error.to_string())?;
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(ttl) } else { Err("a ttl is between 200ms and 1h".to_owned()) }
}

fn label(text: &str) -> Result<String, String> {
    let fits = text.len() <= LABEL_BYTES_MAX;
    if fits { Ok(text.to_owned()) } else { Err(format!("a label has at most {LABEL_BYTES_MAX} bytes")) }
}

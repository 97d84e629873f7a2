//! What `cluster` can be told.

use super::duration;
use clap::{Args, Subcommand};
use std::time::Duration;

/// `cluster`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock cluster demo                  a cell of three nodes on this machine, to play with
  fairlock cluster status                who is primary, who has copies, what is wrong
  fairlock cluster switchover            another node takes over, without a gap
  fairlock cluster evict b               take node `b` out; it joins again when it lives
  fairlock cluster force-new a c         last resort: `a` and `c` are off, begin anew without them")]
pub(crate) struct ClusterArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

/// What can be done with a cell.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Tell how the cell is
    Status(ClusterStatusArgs),
    /// Have another node take over, without a gap
    Switchover(SwitchoverArgs),
    /// Take a node out of the cell
    Evict(EvictArgs),
    /// Begin the cell anew although nodes are missing: what they know is lost
    ForceNew(ForceNewArgs),
    /// Start a cell of three nodes on this machine, and watch it
    Demo(DemoArgs),
}

/// `cluster status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock cluster status                             as the node at the default socket knows it
  fairlock --endpoint tcp://a:7411,tcp://b:7411 cluster status        the primary of these is asked if it is found
  fairlock --endpoint tcp://b:7411 cluster status     what the node `b` knows; no lag when it is not the primary
  fairlock cluster status --json | jq -r '.members[] | [.node, .role, .lag] | @tsv'

Exit codes:
  0 told   66 the server belongs to no cell   69 no server")]
pub(crate) struct ClusterStatusArgs {}

/// `cluster switchover`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock cluster switchover            any other member
  fairlock cluster switchover b          the node `b`
  fairlock cluster switchover b --json | jq .took_ms

Any node may be asked; it names the primary. Locks stay with their holders, waiters keep their places.

Exit codes:
  0 the other node serves   64 no name of a node   66 no such member, or no other   69 no server or no primary   75 not done in time; see `cluster status`")]
pub(crate) struct SwitchoverArgs {
    /// The node that takes over [default: any other member]
    #[arg(value_name = "NODE")]
    pub(crate) to: Option<String>,
}

/// `cluster evict`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock cluster evict b               its copy counts no more; a node that lives joins again by itself
  fairlock cluster evict b --json | jq .epoch

The primary does this by itself when a node is silent. Stop a node first if it shall stay out.

Exit codes:
  0 the configuration has changed   64 no name of a node   66 no such member   69 no server or no primary   75 not done in time")]
pub(crate) struct EvictArgs {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
}

/// `cluster force-new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock --endpoint unix:/run/fairlock.sock cluster force-new a c    asked at `b`: `a` and `c` are certainly off
  fairlock cluster force-new a c --json

Only when members are lost for good and no primary can come by itself: `cluster status` on the node that is left names whom it
waits for. Name each of them, after you have made sure that its process is off: the power is out, the machine is gone. If one of
them still serves, two nodes grant the same locks.
What is lost: every lock, waiter and session. What stays: tokens go on rising. Nothing is granted until the longest lease granted
before is over.

Exit codes:
  0 this node is the primary of the new cell   64 no name of a node   69 no server or no register   75 not done in time
  77 refused: a member that may be alive was not named, or one of them answers, or a primary serves")]
pub(crate) struct ForceNewArgs {
    /// Every member that is off for good
    #[arg(value_name = "NODE", required = true)]
    pub(crate) off: Vec<String>,
}

/// `cluster demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fairlock cluster demo                  until Ctrl-C; prints what to try in another terminal
  fairlock cluster demo --restart        a node that was killed comes back after 5 seconds
  fairlock cluster demo --seconds 10 --json      one JSON line for each change, for scripts

Needs etcd (Debian: apt-get install etcd-server). Everything lives in a directory of its own below $TMPDIR and on free ports of
127.0.0.1, and is gone at the end.")]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5), value_name = "N")]
    pub(crate) nodes: u8,
    /// Start a node again 5 seconds after its end
    #[arg(long)]
    pub(crate) restart: bool,
    /// End by itself after this long
    #[arg(long, value_parser = duration, value_name = "SECONDS")]
    pub(crate) seconds: Option<Duration>,
}

/// `internal-leash`: a process that ends with the one that started it.
#[derive(Debug, Args)]
pub(crate) struct LeashArgs {
    /// Who started it.
    pub(crate) parent: u32,
    /// What it becomes.
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

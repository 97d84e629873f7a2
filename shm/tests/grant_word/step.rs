//! The steps by their names, so that a counter-example reads as a story, and whether they need help from outside.

use crate::memory::Processor;
use crate::rules::Nap;
use crate::shared::{Message, Reply, Thread};
use crate::state::State;
use std::fmt;

/// What a client thread does in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Acquires,
    Tries,
    SeesNobodyWaiting,
    SeesWanted,
    ReadsGeneration,
    Takes,
    FindsNotFree,
    SeesAlive,
    SeesDead,
    Undoes,
    Publishes(Message),
    SeesListening,
    SeesAsleep,
    Rings,
    ReadsReply(Reply),
    GivesUp,
    Leaves,
    Releases,
}

/// What the server does in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    RemoteAsks,
    RemoteLeaves,
    RemoteCancels,
    ForcesEnd,
    SeesClientDead,
    Dies,
    Serves(Message),
    DropsDead(Message),
    TakesRevoked,
    RevokesAtOnce,
    RevokesLater,
    EndsByForce,
    ReusesWord,
    Dozes(Nap),
    FindsWork,
    TakesAtLast,
    Sleeps,
    Wakes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Drains(Processor),
    /// What a dead client had stored is lost.
    Loses(Processor),
    ClientDies,
    Thread(Thread, Act),
    Server(Deed),
    /// Another node takes over a dead server's lock and grants it to the remote session.
    GrantsElsewhere {
        waited: bool,
    },
    LeavesElsewhere,
}

impl Step {
    /// Does this happen by itself, sooner or later? What comes from outside (a new call, a death) may never come, and
    /// nobody's waiting may depend on it. A holder leaves, a buffer drains, a server serves.
    pub(crate) fn is_progress(self) -> bool {
        match self {
            Self::Loses(_) | Self::ClientDies | Self::Thread(_, Act::Acquires | Act::Tries) => false,
            Self::Server(deed) => !matches!(
                deed,
                Deed::RemoteAsks | Deed::RemoteCancels | Deed::ForcesEnd | Deed::Dies | Deed::ReusesWord
            ),
            Self::GrantsElsewhere { waited } => waited,
            Self::Drains(_) | Self::Thread(..) | Self::LeavesElsewhere => true,
        }
    }
}

/// The steps that are possible in one state, with the states after them.
#[derive(Default)]
pub(crate) struct Steps(Vec<(Step, State)>);

impl Steps {
    pub(crate) fn push(&mut self, step: Step, next: State) {
        self.0.push((step, next));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Step, State)> {
        self.0.iter()
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Acquires => "begins a blocking acquisition",
            Self::Tries => "begins a try",
            Self::SeesNobodyWaiting => "loads wanted: nobody",
            Self::SeesWanted => "loads wanted: set",
            Self::ReadsGeneration => "reads the generation from the word",
            Self::Takes => "takes the word, FREE to HELD",
            Self::FindsNotFree => "finds the word not free in its generation",
            Self::SeesAlive => "sees the server alive",
            Self::SeesDead => "sees the server dead",
            Self::Undoes => "undoes: stores FREE",
            Self::Publishes(message) => return write!(f, "publishes {message}"),
            Self::SeesListening => "loads listen: the server listens",
            Self::SeesAsleep => "loads listen: the server is asleep",
            Self::Rings => "rings the bell",
            Self::ReadsReply(reply) => return write!(f, "reads its reply: {reply}"),
            Self::GivesUp => "gives up, the server is dead",
            Self::Leaves => "leaves",
            Self::Releases => "leaves and releases: FREE",
        };
        f.write_str(words)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::RemoteAsks => "hears that the remote session asks",
            Self::RemoteLeaves => "hears that the remote session left",
            Self::RemoteCancels => "hears that the remote session cancels",
            Self::ForcesEnd => "begins a forced end",
            Self::SeesClientDead => "sees the client dead and takes its word",
            Self::Dies => "dies",
            Self::Serves(message) => return write!(f, "serves {message}"),
            Self::DropsDead(message) => return write!(f, "drops {message}, its client is dead"),
            Self::TakesRevoked => "polls the word and takes it",
            Self::RevokesAtOnce => "takes the word by compare-and-swap",
            Self::RevokesLater => "finds the word held: revoking list",
            Self::EndsByForce => "ends the tenure by force",
            Self::ReusesWord => "uses the word for another lock",
            Self::Dozes(Nap::NoteBell) => "going to sleep: notes the bell",
            Self::Dozes(Nap::SayAsleep) => "going to sleep: stores listen = ASLEEP",
            Self::Dozes(Nap::Fence) => "going to sleep: fence",
            Self::Dozes(Nap::Scan) => "going to sleep: scans the ring, empty",
            Self::Dozes(Nap::Drain(processor)) => {
                return write!(f, "going to sleep: membarrier, {processor:?}");
            }
            Self::Dozes(Nap::Check) => "going to sleep: checks the revoking list, nothing to take",
            Self::FindsWork => "going to sleep: scans the ring, finds work, stays awake",
            Self::TakesAtLast => "going to sleep: checks the revoking list, takes the word, stays awake",
            Self::Sleeps => "sleeps",
            Self::Wakes => "wakes: the bell",
        };
        f.write_str(words)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drains(processor) => write!(f, "buffer of {processor:?} drains one store"),
            Self::Loses(processor) => write!(f, "buffer of {processor:?} is lost with the dead client"),
            Self::ClientDies => f.write_str("the client dies"),
            Self::Thread(thread, act) => write!(f, "{thread:?} {act}"),
            Self::Server(deed) => write!(f, "server {deed}"),
            Self::GrantsElsewhere { .. } => {
                f.write_str("another node takes over and grants the remote session")
            }
            Self::LeavesElsewhere => f.write_str("the remote session leaves"),
        }
    }
}

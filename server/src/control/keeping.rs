//! What outlives this process, and who keeps it: the state directory of a node that is alone, or the register of a cell.

use fairlock_protocol::Tick;

use crate::cell::desk::Desk;
use crate::state::{NodeState, StateDirectory};

/// Who keeps the epoch and the horizon of leases.
#[derive(Debug)]
pub(crate) enum Keeping {
    /// The state directory.
    Alone(NodeState),
    /// The register. The directory is this node's lock: whoever has it is the only life of the node on this machine (R13).
    Cell(Box<Desk>, #[expect(dead_code, reason = "a lock is held, not read")] StateDirectory),
}

impl Keeping {
    /// Until when nothing is granted; [`Tick::ZERO`] when there is no quarantine.
    pub(crate) fn recovering_until(&self) -> Tick {
        match self {
            Keeping::Alone(state) => state.recovering_until(),
            Keeping::Cell(desk, _) => desk.quarantine_until(),
        }
    }

    /// The node's desk, in a cell.
    pub(crate) fn desk(&mut self) -> Option<&mut Desk> {
        match self {
            Keeping::Alone(_) => None,
            Keeping::Cell(desk, _) => Some(desk),
        }
    }
}

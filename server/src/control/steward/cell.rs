//! The cell's part of the control thread's loop: what its threads say goes to the desk, and what comes of it to the rest
//! of the server.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fairlock_protocol::Tick;
use fairlock_replication::node::{Standing, Wish};

use super::super::keeping::Keeping;
use super::super::stopping::Phase;
use super::Steward;
use crate::cell::desk::{CellEvent, Desk, Outcome, Tray, role_name};
use crate::clock;
use crate::lanes::{Asker, ShardLane, ToControl};

/// How long the end of a cell may take to be written down.
const END_TIME: Duration = Duration::from_secs(3);
/// The ticket of a hand-over that a stopping node wants for itself.
const OWN_TICKET: u64 = 0;

/// What a server waits for before it says that it is ready.
#[derive(Debug)]
pub(crate) struct Settled {
    /// What the node is.
    pub(crate) role: &'static str,
    /// The cell's epoch.
    pub(crate) epoch: u32,
    /// Until when nothing is granted.
    pub(crate) recovering_until: Tick,
}

impl Steward {
    /// Something for the desk.
    pub(super) fn at_desk(&mut self, work: impl FnOnce(&mut Desk, &mut Tray<'_>) -> Outcome) {
        let Keeping::Cell(desk, _) = &mut self.keeping else { return };
        let mut tray = Tray { lanes: &mut self.lanes, alarms: &self.alarms };
        let outcome = work(desk, &mut tray);
        self.facts.epoch = desk.epoch();
        if let Some(standing) = outcome.became {
            self.became(standing);
        }
        for (ticket, answer) in outcome.answers {
            self.answer_wish(ticket, answer);
        }
    }

    /// An operator's wish, on its way from a client of a shard.
    pub(super) fn wish(&mut self, now: Tick, shard: u16, asker: Asker, wish: Wish) {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.wishes.insert(ticket, (shard, asker));
        self.at_desk(|desk, tray| desk.wish(now, ticket, wish, tray));
    }

    /// When the desk has something to do by itself.
    pub(super) fn next_desk_look(&self) -> Option<Tick> {
        match &self.keeping {
            Keeping::Alone(_) => None,
            Keeping::Cell(desk, _) => Some(desk.next_due(clock::now())),
        }
    }

    pub(super) fn hear_cell(&mut self, now: Tick, event: CellEvent) {
        self.at_desk(|desk, tray| desk.hear(now, event, tray));
    }

    /// The node's part changed: `status`, the metrics page and whoever waits for the start are told.
    fn became(&mut self, standing: Standing) {
        self.facts.role = role_name(standing);
        let settled = matches!(standing, Standing::Primary | Standing::Backup | Standing::Halted);
        if settled && let Some(waiting) = self.settled.take() {
            let (role, epoch) = (self.facts.role, self.facts.epoch);
            let recovering_until = self.keeping.recovering_until();
            // Whoever started the server may have given up.
            let _ = waiting.send(Settled { role, epoch, recovering_until });
        }
        if standing != Standing::Primary && self.handing_over && matches!(self.phase, Phase::Draining { .. })
        {
            self.stop_shards(clock::now());
        }
    }

    fn answer_wish(&mut self, ticket: u64, answer: Result<(), String>) {
        if ticket == OWN_TICKET {
            if let Err(why) = answer {
                tracing::warn!(why, "nobody takes over; draining as a node that is alone");
                self.handing_over = false;
                self.lanes.iter_mut().for_each(|lane| lane.send(crate::lanes::ToShard::Drain));
            }
            return;
        }
        let Some((shard, asker)) = self.wishes.remove(&ticket) else { return };
        if let Some(lane) = self.lanes.get_mut(usize::from(shard)) {
            lane.send(crate::lanes::ToShard::WishAnswered { asker, answer });
        }
    }

    /// A stopping node of a cell: a primary hands over first, a backup just goes. `false`: it is alone and drains.
    pub(super) fn leave_cell(&mut self, now: Tick) -> bool {
        let Keeping::Cell(desk, _) = &self.keeping else { return false };
        let members = desk.node().known().map_or(0, |known| known.configuration.members.len());
        if desk.node().standing() != Standing::Primary {
            self.stop_shards(now);
            return true;
        }
        if members < 2 {
            return false;
        }
        self.handing_over = true;
        self.phase = Phase::Draining { until: now.after(self.drain) };
        self.at_desk(|desk, tray| desk.wish(now, OWN_TICKET, Wish::Switchover(None), tray));
        true
    }

    /// Every shard of a node that was alone has stopped and left no lease: the register is told, for a bounded time.
    pub(super) fn end_cell(&mut self, live_sessions: u32) -> bool {
        let Keeping::Cell(desk, _) = &mut self.keeping else { return false };
        let alone = desk.node().known().is_some_and(|known| known.configuration.members.len() == 1);
        if desk.node().standing() != Standing::Primary || !alone {
            // Others go on with everything.
            return !alone;
        }
        if live_sessions > 0 || clock::now() < desk.quarantine_until() {
            return false;
        }
        let deadline = Instant::now() + END_TIME;
        let mut lanes: Vec<ShardLane> = Vec::new();
        let mut tray = Tray { lanes: &mut lanes, alarms: &self.alarms };
        let mut outcome = desk.stop_clean(clock::now(), &mut tray);
        while !outcome.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.from_shards.recv_timeout(left.min(Duration::from_millis(20))) {
                Ok(ToControl::Cell(event)) => outcome = desk.hear(clock::now(), event, &mut tray),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) if !left.is_zero() => {
                    outcome = desk.tick(clock::now(), &mut tray);
                }
                Err(_) => {
                    tracing::error!("the register does not take the end of the cell; the next start waits");
                    return false;
                }
            }
        }
        true
    }
}

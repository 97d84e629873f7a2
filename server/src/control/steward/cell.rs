//! The cell's part of the control thread's loop: what its threads say goes to the desk, and what comes of it to the rest
//! of the server.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fairlock_protocol::Tick;
use fairlock_replication::node::{Standing, Wish};

use super::super::keeping::Keeping;
use super::super::stopping::Phase;
use super::Steward;
use crate::cell::desk::{CellEvent, Desk, OWN_TICKET, Outcome, Tray, role_name};
use crate::cell::picture::CellAnswer;
use crate::clock;
use crate::lanes::{Asker, ShardLane, ToControl, ToShard};
use crate::metrics::CellNumbers;

/// How long the end of a cell may take to be written down.
const END_TIME: Duration = Duration::from_secs(3);
/// How often it is said what a start waits for.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(3);

/// What a server waits for before it says that it is ready.
#[derive(Debug)]
pub(crate) struct Settled {
    /// What the node is.
    pub(crate) role: &'static str,
    /// The cell's epoch.
    pub(crate) epoch: u32,
    /// Until when nothing is granted.
    pub(crate) recovering_until: Tick,
    /// Of a node that goes on no more: why, and what to do.
    pub(crate) why: String,
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
        if let Some(Err((_, why))) = outcome.own_wish {
            self.stay_alone(&why);
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
            let why = self.alarms.texts().join("; ");
            // Whoever started the server may have given up.
            let _ = waiting.send(Settled { role, epoch, recovering_until, why });
        }
        if standing != Standing::Primary && self.handing_over && matches!(self.phase, Phase::Draining { .. })
        {
            self.stop_shards(clock::now());
        }
    }

    /// A stopping primary finds nobody who takes over.
    fn stay_alone(&mut self, why: &str) {
        tracing::warn!(why, "nobody takes over; draining as a node that is alone");
        self.handing_over = false;
        self.lanes.iter_mut().for_each(|lane| lane.send(ToShard::Drain));
    }

    fn answer_wish(&mut self, ticket: u64, answer: CellAnswer) {
        if let Some((shard, asker)) = self.wishes.remove(&ticket) {
            self.answer_operator(shard, asker, answer);
        }
    }

    /// Has the shard whose client asked say so.
    pub(super) fn answer_operator(&mut self, shard: u16, asker: Asker, answer: CellAnswer) {
        if let Some(lane) = self.lanes.get_mut(usize::from(shard)) {
            lane.send(ToShard::CellAnswered { asker, answer: Box::new(answer) });
        }
    }

    /// For the log, now and then: what a server that is not ready waits for.
    pub(super) fn say_what_is_waited_for(&mut self, now: Tick) {
        let Keeping::Cell(desk, _) = &self.keeping else { return };
        if self.settled.is_some() && now >= self.say_at {
            self.say_at = now.after(SAY_EVERY);
            tracing::warn!(waiting = desk.waiting(), "not ready yet");
        }
    }

    /// Why a primary can grant nothing for the time being.
    pub(super) fn cell_grants_nothing_because(&self, now: Tick) -> Option<String> {
        let Keeping::Cell(desk, _) = &self.keeping else { return None };
        let (copies, copies_min) = (desk.copies(), desk.copies_min());
        if copies < copies_min {
            return Some(format!("copies={copies}, min_copies={copies_min}"));
        }
        let silent = desk.waits_for_both(now)?;
        Some(format!("{silent} does not answer, nor does the register, in which it is to be taken out"))
    }

    /// Numbers of the cell, for the metrics page.
    pub(super) fn cell_numbers(&self) -> Option<CellNumbers> {
        let Keeping::Cell(desk, _) = &self.keeping else { return None };
        Some(CellNumbers {
            copies: desk.copies() as u64,
            copies_min: desk.copies_min() as u64,
            register_answers: desk.register_fault().is_empty(),
            offices_total: desk.offices_total(),
        })
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

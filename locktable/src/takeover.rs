//! A new primary takes office: what its first command does to sessions and to what time will decide.
//!
//! Renewals are no commands, so only the primary that confirmed them knows of them. But whatever it confirmed, its
//! client had sent before the new primary took office; a full lease from that moment on therefore covers every promise
//! of the old one. Each session gets that once: who has neither opened nor resumed since the take-over before was
//! confirmed nothing since, and keeps the deadline it was given then. So a dead client is kept for one lease longer,
//! however often the primary changes. For that a session has two deadlines. `granted` is moved by commands alone, and so
//! is the same everywhere; `deadline`, which the primary goes by, is moved by renewals as well, and goes back to
//! `granted` here.
//!
//! Time goes on from the last command that the new primary has. A node that was primary itself may have looked at later
//! moments since; its timers are turned back, or they would ring early.

use crate::chunks::NONE;
use crate::command::Lease;
use crate::effect::Effects;
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::{Epoch, Tick};

impl Table {
    /// Tokens come from `epoch`; leases, longest holds and the time to confirm begin anew at `now`.
    pub(crate) fn take_over(&mut self, now: Tick, epoch: Epoch, effects: &mut Effects) {
        self.wheel.turn_back(now);
        let mut next = self.sessions.next_used(0);
        while let Some(slot) = next {
            next = self.sessions.next_used(slot + 1);
            self.inherit_session(now, slot);
        }
        let mut next = self.extras.next_used(0);
        while let Some(slot) = next {
            next = self.extras.next_used(slot + 1);
            self.restart_times(now, slot);
        }
        self.begin_epoch(now, epoch, effects);
    }

    /// A lease that was kept by watching a process is kept by renewals from here on: nobody here watches that process.
    fn inherit_session(&mut self, now: Tick, slot: u32) {
        let session = &mut self.sessions[slot];
        if session.confirm_timer != NONE {
            let (timer, due) = (session.confirm_timer, self.confirmation_due(now, slot));
            self.wheel.rearm(timer, due);
        }
        let session = &mut self.sessions[slot];
        if session.visiting {
            // Its home decides.
            return;
        }
        let fresh = core::mem::replace(&mut session.fresh, false);
        assert!(fresh || session.lease_timer != NONE, "who was inherited before has a lease that runs");
        if fresh {
            session.granted = now.after_millis(u64::from(session.ttl_ms));
        }
        session.lease = Lease::Heartbeat;
        session.deadline = session.granted;
        if session.lease_timer == NONE {
            session.lease_timer = self.wheel.arm(session.deadline, Alarm::Lease(slot));
        } else {
            self.wheel.rearm(session.lease_timer, session.deadline);
        }
    }

    /// A longest hold begins anew, because its holder measures it from an answer of the old primary; so does the time
    /// to confirm an order, which the client may have to be told again.
    fn restart_times(&mut self, now: Tick, slot: u32) {
        let extra = self.extras[slot];
        if extra.hold_timer != NONE {
            self.wheel.rearm(extra.hold_timer, now.after_millis(u64::from(extra.max_hold_ms)));
        }
        if extra.confirm_timer != NONE {
            let due = self.confirmation_due(now, self.grants[extra.grant].session());
            self.wheel.rearm(extra.confirm_timer, due);
        }
    }
}

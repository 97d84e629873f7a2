//! A new primary takes office: the model's leases, and which of the tables is asked from here on.

use super::play::Play;
use super::table::Model;
use super::{SessionSerial, Tick};
use fairlock_locktable::command::Command;

impl Model {
    /// The client takes its session up again.
    pub fn resume(&mut self, session: SessionSerial) {
        let s = &mut self.sessions[session];
        s.fresh = s.live && !s.closed_to_renewal;
    }

    pub fn take_over(&mut self) {
        let now = self.now;
        for s in self.sessions.iter_mut().filter(|s| s.live) {
            s.kill_due = s.kill_due.map(|_| now.after(s.ttl / 5));
            if s.visiting {
                continue;
            }
            if s.fresh || s.granted.is_none() {
                s.granted = Some(now.after(s.ttl));
            }
            (s.fresh, s.deadline) = (false, s.granted);
        }
        for g in self.grants.iter_mut().filter(|g| g.live) {
            g.break_due = g.break_due.map(|_| now.after(self.sessions[g.session].ttl / 5));
            if g.hold_until.is_some() {
                g.hold_until = Some(now.after_millis(u64::from(g.max_hold_ms)));
            }
        }
    }
}

impl Play {
    /// The backup becomes the primary, or the primary goes on in another epoch.
    pub(super) fn take_over(&mut self, by_backup: bool) -> Result<(), String> {
        if by_backup {
            self.tale.push("the backup takes over".into());
            core::mem::swap(&mut self.table, &mut self.twin);
            // It goes on from the last moment that it knows of.
            self.now = self.last_command;
            self.witness.time_goes_on_from(self.now);
        }
        // What another primary decided and did not carry out is decided anew.
        self.late.clear();
        let epoch = self.next_epoch()?;
        self.perform(&Command::TakeOver(epoch), false, |model, _| model.take_over())?;
        for session in self.model.live_sessions() {
            let key = self.judge.key(session);
            let expected: Option<Tick> = self.model.sessions[session].deadline;
            for table in [&self.table, &self.twin] {
                if table.deadline(key) != expected {
                    return Err(format!("lease of {session}: {expected:?}, {:?}", table.deadline(key)));
                }
            }
        }
        Ok(())
    }
}

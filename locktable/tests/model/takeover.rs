//! Several nodes: backups that follow and compare, nodes that join, and a new primary that takes office.

use super::play::Play;
use super::subject::Subject;
use super::table::Model;
use super::{SessionSerial, Tick};
use fairlock_locktable::Counts;
use fairlock_locktable::command::Command;
use fairlock_locktable::effect::Effect;

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

/// A node that is told the table in slices.
#[derive(Debug)]
pub(super) struct Joining {
    pieces: Vec<Vec<u8>>,
    /// The commands since the beginning.
    log: Vec<Vec<u8>>,
    /// What the table was at the beginning.
    sums: (u128, u128, Counts),
}

/// Nodes beside the primary; who joins later takes the place of the last.
const BACKUPS_MAX: usize = 2;

impl Play {
    /// One of the backups becomes the primary, or the primary goes on in another epoch.
    pub(super) fn take_over(&mut self, by: u8) -> Result<(), String> {
        let by = usize::from(by) % (self.backups.len() + 1);
        if let Some(backup) = self.backups.get_mut(by) {
            self.tale.push(format!("backup {by} takes over"));
            // Whoever was joining begins anew with the new primary.
            if self.joining.take().is_some() {
                self.table.stop_telling();
            }
            core::mem::swap(&mut self.table, backup);
            // It goes on from the last moment that it knows of.
            self.now = self.last_command;
            self.witness.time_goes_on_from(self.now);
        }
        for backup in &self.backups {
            backup.audit();
        }
        // What another primary decided and did not carry out is decided anew.
        self.late.clear();
        let epoch = self.next_epoch()?;
        self.perform(&Command::TakeOver(epoch), false, |model, _| model.take_over())?;
        for session in self.model.live_sessions() {
            let key = self.judge.key(session);
            let expected: Option<Tick> = self.model.sessions[session].deadline;
            for table in self.backups.iter().chain([&self.table]) {
                if table.deadline(key) != expected {
                    return Err(format!("lease of {session}: {expected:?}, {:?}", table.deadline(key)));
                }
            }
        }
        Ok(())
    }

    /// A node joins by a snapshot of the primary.
    pub(super) fn join(&mut self) -> Result<(), String> {
        self.joined += 1;
        if !self.joined.is_multiple_of(2) {
            return self.begin_to_join();
        }
        self.finish_joining()?;
        self.tale.push("a node joins".into());
        let joined = self.table.joined(self.model.house, self.model.bounds, self.joined);
        self.backups.truncate(BACKUPS_MAX - 1);
        joined.audit();
        self.backups.push(joined);
        self.compare_backups()
    }

    /// A node begins to join: it is told the table as it is now, slice by slice between later commands.
    fn begin_to_join(&mut self) -> Result<(), String> {
        self.finish_joining()?;
        if !self.table.begin_telling() {
            return Err("nothing is told, and yet something is".into());
        }
        self.tale.push("a node begins to join".into());
        let sums = (self.table.digest(), self.table.rolling(), self.table.all_counts());
        self.joining = Some(Joining { pieces: Vec::new(), log: Vec::new(), sums });
        Ok(())
    }

    /// A slice more for a node that joins, and the command for when it has the table.
    fn tell_joiner(&mut self, command: &Command<'_>) -> Result<(), String> {
        let Some(joining) = &mut self.joining else { return Ok(()) };
        joining.log.push(Subject::operation(self.now, command));
        let records = u32::try_from(self.commands % 5 + 1).unwrap();
        if self.table.tell(records, &mut joining.pieces) { self.read_joined() } else { Ok(()) }
    }

    /// Tells what is left at once.
    pub(super) fn finish_joining(&mut self) -> Result<(), String> {
        let Some(joining) = &mut self.joining else { return Ok(()) };
        while !self.table.tell(1, &mut joining.pieces) {}
        self.read_joined()
    }

    /// A joiner has everything: it is the table as that was when telling began, and with the commands since as it is now.
    fn read_joined(&mut self) -> Result<(), String> {
        let Some(joining) = self.joining.take() else { return Ok(()) };
        let mut joined = Subject::read(&joining.pieces, self.model.house, self.model.bounds, self.joined);
        joined.audit();
        if (joined.digest(), joined.rolling(), joined.all_counts()) != joining.sums {
            return Err("what was told is not the table as it was at the beginning".into());
        }
        for operation in &joining.log {
            joined.replay(operation);
        }
        joined.audit();
        self.tale.push("a node has joined".into());
        self.backups.truncate(BACKUPS_MAX - 1);
        self.backups.push(joined);
        self.compare_backups()
    }

    /// The backups carry out a command, and have the same effects.
    pub(super) fn follow(&mut self, command: &Command<'_>, effects: &[Effect]) -> Result<(), String> {
        for backup in &mut self.backups {
            let again = backup.apply_bytes(self.now, command);
            if effects != again {
                return Err(format!("the same command had other effects: {effects:?}, {again:?}"));
            }
        }
        self.tell_joiner(command)?;
        self.compare_backups()
    }

    fn compare_backups(&self) -> Result<(), String> {
        let sums = |table: &Subject| (table.digest(), table.rolling(), table.all_counts());
        for (backup, number) in self.backups.iter().zip(0..) {
            if sums(backup) != sums(&self.table) {
                return Err(format!("backup {number} is another table than the primary"));
            }
        }
        Ok(())
    }
}

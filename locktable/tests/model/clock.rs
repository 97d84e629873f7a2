//! Time in a history, and what can be asked of a table without changing it: what is due, and when next; who holds and
//! who waits in which order; which answers are kept; which tokens are current.

use super::play::{DUE_MAX, Play, RESOURCES, digest_of};
use super::table::Line;
use super::{Due, Refusal, ResourceIndex, SessionSerial};
use fairlock_locktable::Role;
use fairlock_locktable::command::Command;
use fairlock_locktable::effect::{Answer, Effect};

impl Play {
    pub(super) fn pass(&mut self, ms: u64, renewed: u8) -> Result<(), String> {
        for session in self.model.live_sessions() {
            if renewed >> (session % 8) & 1 == 1 {
                self.renew(session)?;
            }
        }
        self.now = self.now.after_millis(ms);
        for command in core::mem::take(&mut self.late) {
            self.carry_out(&command)?;
        }
        self.drain()
    }

    fn renew(&mut self, session: SessionSerial) -> Result<(), String> {
        let key = self.judge.key(session);
        let accepted = self.table.renew(key, self.now);
        self.model.now = self.now;
        let expected = self.model.renew(session);
        self.tale.push(format!("{:?} renew {key:?} -> {accepted}", self.now));
        if accepted {
            self.witness.renewed(key, self.now);
        }
        if accepted == expected {
            Ok(())
        } else {
            Err(format!("renewal: model {expected}, table {accepted}"))
        }
    }

    /// Carries out everything that is due; then the model has nothing due either.
    fn drain(&mut self) -> Result<(), String> {
        for _ in 0..DUE_MAX {
            let Some(command) = self.table.due(self.now) else {
                self.model.now = self.now;
                let overdue = self.model.due();
                if !overdue.is_empty() {
                    return Err(format!("not due at the table: {overdue:?}"));
                }
                return self.check_next_due();
            };
            self.carry_out(&command)?;
        }
        Err("the same is due for ever".into())
    }

    /// Whoever sleeps until the table's next moment (rounded to a millisecond) misses nothing.
    fn check_next_due(&self) -> Result<(), String> {
        let Some(earliest) = self.model.earliest() else { return Ok(()) };
        match self.table.next_due() {
            Some(next) if next <= earliest.after_millis(1) => Ok(()),
            next => Err(format!("next due at {next:?}, and something is at {earliest:?}")),
        }
    }

    pub(super) fn decide(&mut self, ms: u64) -> Result<(), String> {
        self.now = self.now.after_millis(ms);
        match self.table.due(self.now) {
            Some(command @ (Command::End { .. } | Command::Doom { .. })) => self.carry_out(&command),
            Some(command) => {
                self.late.push(command);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What the table decided by time must be what the model has due, unless it has become pointless meanwhile.
    fn carry_out(&mut self, command: &Command<'static>) -> Result<(), String> {
        self.model.now = self.now;
        let expected = self.model.due();
        let mut early = None;
        let known = match *command {
            Command::HoldOver { grant } => {
                Some(Due::HoldOver(self.judge.grant_of(grant).ok_or("unknown grant")?))
            }
            Command::DelayOver { digest } => Some(Due::DelayOver(
                (0..RESOURCES).find(|&r| digest_of(r) == digest).ok_or("unknown digest")?,
            )),
            Command::Doom { session } => {
                Some(Due::Doom(self.judge.session_of(session).ok_or("unknown session")?))
            }
            Command::End { session, .. } => {
                Some(Due::Expire(self.judge.session_of(session).ok_or("unknown session")?))
            }
            _ => None,
        };
        let judge = self.judge.clone();
        let outcome = self.perform(command, true, |model, effects| {
            // A wait's key is the table's own; whose wait it was shows in the answer.
            let due = known.or_else(|| {
                effects.iter().find_map(|effect| match *effect {
                    Effect::Answered {
                        session, request, answer: Answer::Refused(Refusal::Timeout), ..
                    } => {
                        let session = judge.session_of(session)?;
                        let of = model.live_waits(|w| w.session == session && w.request == request.0);
                        of.first().copied().map(Due::WaitOver)
                    }
                    _ => None,
                })
            });
            if let Some(due) = due {
                if !effects.is_empty() && !expected.contains(&due) {
                    early = Some(due);
                }
                model.carry_out(due);
            }
        });
        match early {
            Some(due) => Err(format!("too early or never due: {due:?}, {command:?}, due are {expected:?}")),
            None => outcome,
        }
    }

    /// What can be asked without changing anything.
    pub(super) fn compare_views(&self) -> Result<(), String> {
        for (digest, token, current) in self.witness.tokens() {
            if self.table.is_current(digest, token) != current {
                return Err(format!("{token:?} is current: {current}, and the table says otherwise"));
            }
        }
        for resource in 0..RESOURCES {
            self.compare_queue(resource)?;
        }
        for session in self.model.live_sessions() {
            let s = &self.model.sessions[session];
            let kept: Vec<u64> = s.kept[s.acknowledged..].iter().map(|&(request, ..)| request).collect();
            let real = self.table.kept(self.judge.key(session));
            if kept != real {
                return Err(format!("kept answers of session {session}: model {kept:?}, table {real:?}"));
            }
        }
        Ok(())
    }

    /// The queue as operators see it: holders (in any order), then conversions and waiters in theirs.
    fn compare_queue(&self, resource: ResourceIndex) -> Result<(), String> {
        let mut holders = Vec::new();
        for grant in self.model.live_grants(|g| g.resource == resource) {
            let g = &self.model.grants[grant];
            let known = self.judge.grants.get(grant).copied().flatten();
            if known.is_some() != g.part_of.is_none() {
                return Err(format!("grant {grant} was told, or not: {g:?}"));
            }
            holders.push((
                self.judge.key(g.session),
                known,
                g.mode,
                g.levels,
                g.break_due.is_some(),
                g.owner,
            ));
        }
        let waits = |line: Line| {
            let of_line = self.model.live_waits(|w| w.resource == resource && w.line == line);
            of_line.into_iter().map(|w| &self.model.waits[w]).collect::<Vec<_>>()
        };
        let mut queue = Vec::new();
        for (role, line) in [(Role::Conversion, Line::Conversions), (Role::Waiter, Line::Waits)] {
            for (w, position) in waits(line).into_iter().zip(1_u32..) {
                let key = self.judge.key(w.session);
                queue.push((role, position, key, w.request, w.mode, w.owner, w.passed));
            }
        }
        let (mut seen_holders, mut seen_queue) = (Vec::new(), Vec::new());
        for entry in self.table.entries(digest_of(resource)) {
            match entry {
                Ok(holder) => seen_holders.push(holder),
                Err(waiting) => seen_queue.push(waiting),
            }
        }
        // Grants that nobody was told of have no id to go by.
        holders.sort_by_key(|holder| (holder.1, holder.0, holder.5, holder.2.wire()));
        seen_holders.sort_by_key(|holder| (holder.1, holder.0, holder.5, holder.2.wire()));
        if holders != seen_holders || queue != seen_queue {
            return Err(format!("seen {seen_holders:?} {seen_queue:?}, model {holders:?} {queue:?}"));
        }
        Ok(())
    }
}

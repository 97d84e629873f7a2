//! What clients want of two locks, and what they may believe of what they were shown.
//!
//! The table follows from the log: strict FIFO, one holder. A client holds from the answer it was shown until it sends its
//! release, or until its session's expiry is committed: by R9 no lease was confirmed that lasts longer, and that is what
//! [`Rule::Rounds`] looks at.

use super::Rules;
use super::state::{Entry, Log, Rule, State};
use super::turn::Turn;

pub const LOCKS: usize = 2;
pub const SESSIONS: usize = 3;

/// One request of a client, or a decision of the primary's clock. Its number in a scenario is its request id: it is entered
/// once in any log (R11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Acquire { lock: usize, session: usize },
    Release { lock: usize, session: usize },
    Expire { session: usize },
}

/// Two locks; sessions are counted from 1, 0 is nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    pub holder: [u8; LOCKS],
    pub waits: [[u8; SESSIONS]; LOCKS],
    gone: [bool; SESSIONS],
}

#[expect(clippy::cast_possible_truncation, reason = "three sessions")]
fn named(session: usize) -> u8 {
    session as u8 + 1
}

impl Table {
    /// The table after a log.
    pub fn of(log: &[Entry], ops: &[Op]) -> Table {
        let mut table = Table::default();
        for entry in log.iter().filter(|entry| entry.op != 0) {
            table.apply(ops[usize::from(entry.op) - 1]);
        }
        table
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Acquire { session, .. } if self.gone[session] => {}
            Op::Acquire { lock, session } => {
                let place = self.waits[lock].iter_mut().find(|place| **place == 0);
                *place.expect("a place for each session") = named(session);
            }
            Op::Release { lock, session } => self.drop_from(lock, named(session)),
            Op::Expire { session } => {
                self.gone[session] = true;
                (0..LOCKS).for_each(|lock| self.drop_from(lock, named(session)));
            }
        }
        (0..LOCKS).for_each(|lock| self.pass_on(lock));
    }

    fn drop_from(&mut self, lock: usize, session: u8) {
        if self.holder[lock] == session {
            self.holder[lock] = 0;
        }
        if let Some(at) = self.waits[lock].iter().position(|waiter| *waiter == session) {
            self.waits[lock][at..].rotate_left(1);
            self.waits[lock][SESSIONS - 1] = 0;
        }
    }

    fn pass_on(&mut self, lock: usize) {
        if self.holder[lock] == 0 {
            self.holder[lock] = self.waits[lock][0];
            self.waits[lock].rotate_left(1);
            self.waits[lock][SESSIONS - 1] = 0;
        }
    }

    fn is_gone(&self, session: usize) -> bool {
        self.gone[session]
    }
}

impl State {
    /// Whether somebody may bring this operation to this node now. A release is sent by who believes to hold, and again
    /// until it is answered; an expiry is entered for who holds or waits.
    pub fn may_submit(&self, rules: &Rules, at: u8, op: u8) -> bool {
        let node = self.node(at);
        if node.log.has(op) || node.log.len() == rules.log_max {
            return false;
        }
        match rules.op(op) {
            Op::Acquire { .. } => true,
            Op::Release { lock, session } => {
                self.seen.holds[lock] == named(session) || self.seen.let_go & (1 << op) != 0
            }
            Op::Expire { session } => {
                let table = Table::of(node.log.all(), &rules.ops);
                let any = |lock: usize| {
                    table.holder[lock] == named(session) || table.waits[lock].contains(&named(session))
                };
                !table.is_gone(session) && (0..LOCKS).any(any)
            }
        }
    }
}

impl Turn<'_> {
    /// `Replica::append` and the end of the pass: the operation is in the log, its answer waits for the round.
    pub fn submit(&mut self, at: u8, op: u8) {
        if let Op::Release { lock, session } = self.rules.op(op) {
            if self.seen.holds[lock] == named(session) {
                self.seen.holds[lock] = 0;
            }
            self.seen.let_go |= 1 << op;
        }
        let node = self.node_mut(at);
        let entry = Entry { op, reign: node.reign };
        node.log.push(entry);
        node.applied = node.log.len();
        let answer = super::state::Held::Answer { lsn: node.log.len(), entry };
        self.hold(at, answer);
        self.begin_round(at);
        self.advance(at);
    }

    /// A client is shown the answer of an entry, and the grants that it made.
    pub fn show(&mut self, at: u8, lsn: u8, entry: Entry) {
        let index = usize::from(lsn) - 1;
        if self.seen.committed.get(lsn) != Some(entry) {
            self.broken(Rule::CommittedFirst);
        }
        let former = self.seen.shown[index];
        if former == entry {
            return;
        }
        if former != Entry::default() {
            self.broken(Rule::AnswersStay);
        }
        self.seen.shown[index] = entry;
        let log = self.node(at).log;
        if log.get(lsn) == Some(entry) {
            self.show_grants(&log, lsn);
        }
    }

    fn show_grants(&mut self, log: &Log, lsn: u8) {
        let before = Table::of(&log.all()[..usize::from(lsn) - 1], &self.rules.ops);
        let after = Table::of(&log.all()[..usize::from(lsn)], &self.rules.ops);
        let reign = log.get(lsn).map_or(0, |entry| entry.reign);
        for lock in 0..LOCKS {
            let holder = after.holder[lock];
            // What comes for a session that is over is believed by nobody: its deadline has passed.
            if holder == 0 || before.holder[lock] == holder || self.seen.gone[usize::from(holder) - 1] {
                continue;
            }
            if self.seen.holds[lock] != 0 && self.seen.holds[lock] != holder {
                self.broken(Rule::OneHolder);
            }
            if (reign, lsn) <= self.seen.token[lock] {
                self.broken(Rule::TokensRise);
            }
            self.seen.token[lock] = (reign, lsn);
            self.seen.holds[lock] = holder;
        }
    }

    /// R9: what was asked for after a later primary's promise is confirmed by no earlier one.
    pub fn confirm(&mut self, at: u8, overtaken: u8) {
        if overtaken > self.node(at).view {
            self.broken(Rule::Rounds);
        }
    }

    /// A primary takes everything up to here for committed.
    pub fn commit(&mut self, at: u8, to: u8) {
        let (log, view) = (self.node(at).log, self.node(at).view);
        // What the register says of this epoch, if it says it still: whoever is listed there, lives and has promised nothing
        // later has all of it.
        let truth = if self.register.epoch == view { self.register } else { self.node(at).conf };
        for member in super::state::others(at) {
            let there = self.node(member);
            let listed = truth.lists(self.peer(member)) && there.promised <= view;
            if listed && (1..=to).any(|lsn| there.log.get(lsn) != log.get(lsn)) {
                self.broken(Rule::ListedHaveIt);
            }
        }
        for lsn in 1..=to {
            let entry = log.get(lsn).unwrap_or_default();
            match self.seen.committed.get(lsn) {
                Some(committed) if committed == entry => {}
                Some(_) => self.broken(Rule::OneHistory),
                None => {
                    self.seen.committed.push(entry);
                    self.end_session(entry);
                }
            }
        }
    }

    fn end_session(&mut self, entry: Entry) {
        if entry.op != 0
            && let Op::Expire { session } = self.rules.op(entry.op)
        {
            self.seen.gone[session] = true;
            for holder in &mut self.seen.holds {
                if *holder == named(session) {
                    *holder = 0;
                }
            }
        }
    }

    /// A member applies everything up to here (R3, S6). What a joiner has of its snapshot may be committed nowhere yet: it is
    /// listed only when it is.
    pub fn applies(&mut self, at: u8) {
        if !self.register.lists(self.peer(at)) {
            return;
        }
        let node = self.node(at);
        let (log, commit) = (node.log, node.commit);
        for lsn in 1..=commit {
            match (self.seen.committed.get(lsn), log.get(lsn)) {
                (None, _) => self.broken(Rule::CommittedFirst),
                // Its piece has yet to come.
                (_, Some(Entry { op: 0, .. })) => {}
                (committed, here) if committed == here => {}
                _ => self.broken(Rule::OneHistory),
            }
        }
    }
}

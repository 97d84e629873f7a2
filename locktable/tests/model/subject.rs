//! The real table, behind the few calls that the tests need of it.

use super::play::namespace_of;
use super::{Bounds, House, Rules, Tick};
use core::ops::ControlFlow;
use fairlock_locktable::command::{Command, SessionKey};
use fairlock_locktable::effect::{Effect, Effects};
use fairlock_locktable::operation;
use fairlock_locktable::snapshot::{Restorer, Slice};
use fairlock_locktable::{Counts, Limits, NamespaceRules, Role, Settings, Table};
use fairlock_protocol::{Digest, Epoch, FencingToken, GrantId, Mode, Namespace, ShardId};

/// Session, grant, mode, levels, whether broken, owner.
pub type Holder = (SessionKey, Option<GrantId>, Mode, u32, bool, u64);
/// Queue, position, session, request, mode asked for, owner, how often it was passed.
pub type Waiter = (Role, u32, SessionKey, u64, Mode, u64, u32);

/// The table under test.
#[derive(Debug)]
pub struct Subject {
    table: Table,
    effects: Effects,
}

impl Subject {
    /// `index_key` is private to a process: it must not show in anything that follows.
    pub fn new(epoch: Epoch, house: House, bounds: Bounds, index_key: u64) -> Subject {
        let mut table = Table::new(settings(epoch, house, bounds, index_key));
        table.begin_rolling();
        Subject { table, effects: Effects::new() }
    }

    /// A table that joins, by a snapshot of this one.
    pub fn joined(&self, house: House, bounds: Bounds, index_key: u64) -> Subject {
        let mut pieces = Vec::new();
        self.table.snapshot(|piece| pieces.push(piece));
        let settings = settings(Epoch::new(1).unwrap(), house, bounds, index_key);
        let table = Table::from_snapshot(settings, pieces).expect("what was told can be read");
        Subject { table, effects: Effects::new() }
    }

    /// Begins to tell this table in slices; false while it is told already.
    pub fn begin_telling(&mut self) -> bool {
        self.table.begin_snapshot()
    }

    /// The next slice; true when the last piece was given. What is kept for it is forgotten then.
    pub fn tell(&mut self, records: u32, pieces: &mut Vec<Vec<u8>>) -> bool {
        let Slice::Piece { bytes, last } = self.table.snapshot_slice(records) else { return false };
        pieces.push(bytes);
        if last {
            self.stop_telling();
        }
        last
    }

    /// Nobody wants it any more.
    pub fn stop_telling(&mut self) {
        self.table.end_snapshot();
        while self.table.snapshot_slice(3) != Slice::Over {}
        assert!(!self.table.has_slices(), "nothing is left of it");
    }

    /// A table that joins by these pieces, which are read a few records at a time.
    pub fn read(pieces: &[Vec<u8>], house: House, bounds: Bounds, index_key: u64) -> Subject {
        let settings = settings(Epoch::new(1).unwrap(), house, bounds, index_key);
        let mut restorer = Restorer::new(settings);
        for piece in pieces {
            restorer.piece(piece).expect("what was told can be read");
            while !restorer.go_on(2).expect("what was told is sound") {}
        }
        Subject { table: restorer.finish().expect("all of it was told"), effects: Effects::new() }
    }

    /// What a backup gets of a command.
    pub fn operation(now: Tick, command: &Command<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        operation::encode(now, command, &mut bytes);
        bytes
    }

    /// Carries such bytes out.
    pub fn replay(&mut self, bytes: &[u8]) {
        self.effects.clear();
        self.table.apply_operation(bytes, &mut self.effects).expect("what was written can be read");
    }

    pub fn apply(&mut self, now: Tick, command: &Command<'_>) -> Vec<Effect> {
        self.effects.clear();
        self.table.apply(now, *command, &mut self.effects);
        self.effects.to_vec()
    }

    /// As a backup does: from the bytes of the log.
    pub fn apply_bytes(&mut self, now: Tick, command: &Command<'_>) -> Vec<Effect> {
        self.replay(&Subject::operation(now, command));
        self.effects.to_vec()
    }

    /// End of a session's lease, as far as this table knows.
    pub fn deadline(&self, session: SessionKey) -> Option<Tick> {
        self.table.session_view(session)?.deadline
    }

    pub fn due(&mut self, now: Tick) -> Option<Command<'static>> {
        self.table.due(now)
    }

    pub fn next_due(&self) -> Option<Tick> {
        self.table.next_due()
    }

    pub fn renew(&mut self, session: SessionKey, now: Tick) -> bool {
        self.table.renew(session, now)
    }

    pub fn digest(&self) -> u128 {
        self.table.digest()
    }

    pub fn rolling(&self) -> u128 {
        self.table.rolling()
    }

    pub fn audit(&self) {
        self.table.audit();
    }

    /// Gauges and totals, but for timers: one that is pointless is taken down where time is looked at.
    pub fn all_counts(&self) -> Counts {
        let mut counts = self.table.counts();
        counts.timers = 0;
        counts
    }

    pub fn overtakes_total(&self) -> u64 {
        self.table.counts().overtakes_total
    }

    pub fn bypasses_total(&self) -> u64 {
        self.table.counts().bypasses_total
    }

    /// Sessions, grants, and what waits in either queue.
    pub fn counts(&self) -> (usize, usize, usize) {
        let counts = self.table.counts();
        (counts.sessions as usize, counts.grants as usize, (counts.waiters + counts.conversions) as usize)
    }

    pub fn is_current(&self, digest: Digest, token: FencingToken) -> bool {
        self.table.is_current(digest, token)
    }

    /// Numbers of the answers kept for a session, oldest first.
    pub fn kept(&self, session: SessionKey) -> Vec<u64> {
        self.table.unacknowledged(session).map(|(request, _)| request.0).collect()
    }

    /// Who holds a lock, and who waits for it, as operators see it.
    pub fn entries(&self, digest: Digest) -> Vec<Result<Holder, Waiter>> {
        let mut entries = Vec::new();
        let end = self.table.show(digest, 0, |entry| {
            entries.push(match entry.role {
                Role::Holder => {
                    let (mode, broken) = (entry.mode.unwrap(), entry.broken);
                    Ok((
                        entry.session,
                        entry.grant.filter(|_| !entry.partial),
                        mode,
                        entry.levels,
                        broken,
                        entry.owner.0,
                    ))
                }
                role => {
                    let (asked, request) = (entry.asked.unwrap(), entry.request.unwrap().0);
                    let (owner, passed) = (entry.owner.0, entry.passed);
                    Err((role, entry.position, entry.session, request, asked, owner, passed))
                }
            });
            ControlFlow::Continue(())
        });
        assert!(end.is_none(), "the visitor never broke");
        entries
    }

    /// Locks and timers: nothing of them may remain when everybody is gone.
    pub fn leftovers(&self) -> (u32, u32) {
        (self.table.counts().locks, self.table.counts().timers)
    }
}

fn settings(epoch: Epoch, house: House, bounds: Bounds, index_key: u64) -> Settings {
    let limits = Limits {
        unacknowledged: bounds.unacknowledged,
        reentry: bounds.reentry,
        waiters_per_resource: bounds.waiters,
        sessions: bounds.sessions,
        ..Limits::default()
    };
    let mut rules = NamespaceRules::new();
    for (resource, told) in house.into_iter().enumerate().filter(|(_, told)| *told != Rules::STRICT) {
        rules.set(Namespace::new(namespace_of(house, resource)).unwrap(), told);
    }
    Settings { epoch, shard: ShardId(0), index_key, limits, rules }
}

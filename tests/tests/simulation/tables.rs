//! What holds in every node's table after every pass: S1, S3, S5, S6, S8, S9, S11, S12 of REPLICATION.md, seen from outside
//! through what a table shows of itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use fairlock_locktable::{Role, Table};
use fairlock_protocol::{Digest, Mode, Resource};
use fairlock_replication::Stored;
use fairlock_replication::replica::Part;

use super::host::index_of;
use super::{MS, World};

/// Changes of a table between two walks over all of it.
const CHANGES_BETWEEN_AUDITS: u64 = 199;

/// A timer of the table rings within this time.
const TIMER: Duration = Duration::from_millis(2);

/// One lock, as it was seen last.
#[derive(Debug, Default)]
struct Seen {
    /// Labels of those who wait, in order.
    waits: Vec<u64>,
    token: u64,
    tokens: BTreeMap<u64, u64>,
}

/// What was seen of one table.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    rolling: u128,
    part: Option<Part>,
    origin: Option<u32>,
    locks: BTreeMap<String, Seen>,
    /// Sums that are not known to be committed.
    pending: VecDeque<(u64, u128)>,
    sessions: u32,
    changes: u64,
}

/// What was seen of the cell.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Who was in office in which epoch, and since when at the latest.
    pub(crate) offices: BTreeMap<u32, (u64, u64)>,
    /// The epochs in which a history began, and until when nothing may be granted in it.
    pub(crate) origins: BTreeMap<u32, u64>,
    /// The sum behind each committed operation, by history, shard and place.
    truth: BTreeMap<(u32, u16, u64), (u128, usize, u32)>,
    /// Of whom each token is, by shard.
    tokens: BTreeMap<(u16, u64), u64>,
    pub(crate) compared: u64,
    pub(crate) inherited: u64,
    pub(crate) forgotten: u64,
    pub(crate) grants: u64,
}

impl World {
    /// The register has changed: S5, and where a history begins.
    pub(super) fn judge_configuration(&mut self, before: Option<&Stored>, now: &Stored) {
        let new = &now.configuration;
        let Some(old) = before.map(|before| &before.configuration) else {
            self.judge.origins.insert(new.epoch.get(), 0);
            let digest = |name: &String| {
                let resource = Resource::new(b"", name.as_bytes()).expect("a good name");
                (new.digest_key.digest(resource), name.clone())
            };
            self.digests = self.names.iter().map(digest).collect();
            return;
        };
        assert!(new.epoch >= old.epoch && new.reign >= old.reign, "S5: an epoch went back");
        assert!(new.primary == old.primary || new.reign > old.reign, "S5: another primary in the same reign");
        let inherits = old.members.iter().any(|member| {
            let primary = new.primary_member();
            (&member.node, member.incarnation) == (&primary.node, primary.incarnation)
        });
        if new.reign > old.reign && !inherits {
            let horizon = u64::try_from(old.ttl_horizon.as_nanos()).expect("a minute at most");
            let until = if old.clean { 0 } else { self.now + horizon };
            self.judge.origins.insert(new.epoch.get(), until);
            self.judge.forgotten += 1;
        }
    }

    /// Looks at a table after a pass.
    pub(super) fn look_at_table(&mut self, host: usize, shard: u16) {
        let now = self.now;
        let life = self.hosts[host].life;
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        let (table, replica) = (desk.shard.table(), desk.shard.replica());
        let (part, view, rolling) = (replica.part(), replica.view(), table.rolling());
        let sum = rolling;
        let watcher = &mut desk.watcher;
        let before = watcher.part.replace(part);
        let begins = part == Part::Primary && before != Some(Part::Primary);
        if part == Part::Idle && before != Some(part) {
            *watcher = Watcher { part: Some(part), ..Watcher::default() };
        }
        if part == Part::Idle {
            return;
        }
        let origin = self.judge.origins.range(..=table.epoch().get()).next_back().map(|(epoch, _)| *epoch);
        if watcher.origin != origin {
            // A snapshot of another history.
            *watcher = Watcher { part: Some(part), origin, ..Watcher::default() };
        }
        let origin = watcher.origin.unwrap_or(0);
        if sum != watcher.rolling {
            watcher.rolling = sum;
            watcher.changes += 1;
            let lsn = desk.shard.applied_lsn();
            watcher.pending.push_back((lsn, sum));
            let quarantine = self.judge.origins.get(&origin).copied().unwrap_or(0);
            assert!(
                now >= quarantine || table.counts().grants_total == 0,
                "S11: n{host}/{shard} grants {} ms too early",
                quarantine.saturating_sub(now) / MS
            );
            let audit = watcher.changes.is_multiple_of(CHANGES_BETWEEN_AUDITS);
            look_at_locks(table, &self.digests, watcher, &mut self.judge, shard);
            if audit {
                table.audit();
            }
        }
        // A joiner has what its primary had, committed or not, and nobody asks it before it is listed.
        let listed = self.is_listed(host);
        let desk = self.hosts[host].desk(shard).expect("it was there just now");
        if !listed {
            desk.watcher.pending.clear();
            desk.watcher.locks.clear();
        }
        let commit = desk.shard.replica().commit_lsn().0;
        while let Some((lsn, sum)) = desk.watcher.pending.front().copied().filter(|(lsn, _)| *lsn <= commit) {
            desk.watcher.pending.pop_front();
            let known = *self.judge.truth.entry((origin, shard, lsn)).or_insert((sum, host, view));
            assert_eq!(
                known.0, sum,
                "S6: n{host}/{shard}, {part:?} in {view}, has another history of {origin} at {lsn} than n{} in {}",
                known.1, known.2
            );
            self.judge.compared += 1;
        }
        if begins {
            self.judge_office(host, life, shard, view);
        }
        if part == Part::Primary {
            self.judge_sessions(host, shard);
        }
    }

    /// An office begins: S5, and S4 for everything that is certainly held.
    fn judge_office(&mut self, host: usize, life: u64, shard: u16, epoch: u32) {
        self.trace("office", host as u64, epoch.into(), shard.into());
        let known = *self.judge.offices.entry(epoch).or_insert((life, self.now));
        assert_eq!(known.0, life, "S5: two primaries in epoch {epoch}");
        if let Some(office) = self.judge.offices.get_mut(&epoch) {
            office.1 = self.now;
        }
        let named = self.stored().is_some_and(|stored| {
            let primary = stored.configuration.primary_member();
            (index_of(&primary.node), primary.incarnation.get()) == (host, life)
                && stored.configuration.reign.get() == epoch
        });
        if !named || self.judge.origins.contains_key(&epoch) {
            return;
        }
        for index in 0..self.guards.len() {
            if self.guards[index].shard == shard && self.is_held(index) && self.is_remembered(index) {
                self.judge.inherited += 1;
                let has = self.has_grant(host, index);
                assert!(has, "S4: n{host}/{shard} takes over in {epoch} without {:?}", self.guards[index]);
            }
        }
    }

    /// Whether a node's present life is a member.
    fn is_listed(&self, host: usize) -> bool {
        let members =
            self.stored().iter().flat_map(|stored| &stored.configuration.members).collect::<Vec<_>>();
        let life = self.hosts[host].life;
        members.iter().any(|member| (index_of(&member.node), member.incarnation.get()) == (host, life))
    }

    /// Whether a guard is of the present history, and not of one that everybody has forgotten.
    pub(super) fn is_remembered(&self, guard: usize) -> bool {
        let origin = self.judge.origins.keys().last().copied().unwrap_or(0);
        let token = self.guards[guard].held.token();
        token.is_some_and(|token| token.epoch_number() >= origin)
    }

    /// The node that the register names, if its shard is in office there.
    pub(super) fn primary(&self, shard: u16) -> Option<usize> {
        let primary = self.stored()?.configuration.primary_member();
        let host = index_of(&primary.node);
        let process = self.hosts[host].process.as_ref()?;
        let replica = process.desks[usize::from(shard)].shard.replica();
        let same = self.hosts[host].life == primary.incarnation.get();
        (same && replica.part() == Part::Primary).then_some(host)
    }

    /// Sessions whose leases are certain by their own clocks are there (S9); those whose leases are over are not, and no
    /// lease lasts longer than it may (L3).
    fn judge_sessions(&mut self, host: usize, shard: u16) {
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        let moment = desk.shard.moment();
        // What is left to do is done in the next pass.
        let rests = !desk.shard.is_busy();
        let end = desk.shard.table().sessions(0, |view| {
            let ttl = Duration::from_millis(view.ttl_ms.into());
            assert!(view.expires_in(moment).is_none_or(|left| left <= ttl), "L3: too long a lease");
            let is_over = view.deadline.is_some_and(|deadline| deadline.after(TIMER) < moment);
            assert!(!(rests && is_over), "L3: n{host}/{shard} keeps {}, which is over", view.id);
            ControlFlow::Continue(())
        });
        assert!(end.is_none(), "nobody stopped the visit");
        let count = desk.shard.table().counts().sessions;
        let before = std::mem::replace(&mut desk.watcher.sessions, count);
        if count >= before || self.primary(shard) != Some(host) {
            return;
        }
        for client in 0..self.clients.len() {
            let local = self.clients[client].clock.shows(self.now);
            let Some(session) = &self.clients[client].session else { continue };
            if session.home().0 != shard || session.is_over() || session.lease(local).is_err() {
                continue;
            }
            let id = session.id();
            let origin = self.judge.origins.keys().last().copied().unwrap_or(0);
            if id.epoch_number() < origin {
                // Everybody has forgotten it.
                continue;
            }
            let Some(desk) = self.hosts[host].desk(shard) else { return };
            assert!(
                desk.shard.table().session(id).is_some(),
                "S9: n{host}/{shard} ended {id} of client {client}, which is certain of it"
            );
        }
    }
}

/// S1, S3 and S8 of one table.
fn look_at_locks(
    table: &Table,
    digests: &[(Digest, String)],
    watcher: &mut Watcher,
    judge: &mut Judge,
    shard: u16,
) {
    assert_eq!(table.counts().overtakes_total, 0, "S8: somebody was overtaken");
    let mut present = BTreeSet::new();
    for (digest, name) in digests.iter().filter(|(digest, _)| table.lock(*digest).is_some()) {
        let mut modes: Vec<Mode> = Vec::new();
        let (mut waits, mut granted) = (Vec::new(), Vec::new());
        let seen = watcher.locks.entry(name.clone()).or_default();
        table.show(*digest, 0, |entry| {
            let label = label_number(entry.label);
            match entry.role {
                Role::Holder => {
                    let mode = entry.mode.expect("a holder holds");
                    for other in &modes {
                        assert!(mode.compatible(*other), "S1: {mode:?} beside {other:?}");
                    }
                    modes.push(mode);
                    granted.push(label);
                    if let (Some(token), Some(grant)) = (entry.token, entry.grant) {
                        seen.look_at_token(grant.get(), token.get());
                        let of = *judge.tokens.entry((shard, token.get())).or_insert(label);
                        assert_eq!(of, label, "S3: a token was issued twice");
                    }
                }
                Role::Waiter if entry.grant.is_none() => waits.push(label),
                Role::Waiter | Role::Conversion => {}
            }
            ControlFlow::Continue(())
        });
        seen.look_at_queue(&waits, &granted);
        present.insert(name.as_str());
    }
    for (name, seen) in &mut watcher.locks {
        if !present.contains(name.as_str()) {
            seen.waits.clear();
            seen.tokens.clear();
        }
    }
}

impl Seen {
    /// A token of a grant: newer ones are higher (S3).
    fn look_at_token(&mut self, grant: u64, token: u64) {
        let known = self.tokens.insert(grant, token);
        if known != Some(token) {
            assert!(token > self.token, "S3: {token} after {}", self.token);
        }
    }

    /// Who waited before somebody who was granted was granted before, or waits no more (S8).
    fn look_at_queue(&mut self, waits: &[u64], granted: &[u64]) {
        self.token = self.tokens.values().copied().max().unwrap_or(0).max(self.token);
        let last = self.waits.iter().rposition(|id| !waits.contains(id) && granted.contains(id));
        let passed = last.and_then(|last| self.waits[..last].iter().find(|id| waits.contains(id)));
        assert_eq!(passed, None, "S8: somebody was served before one who came earlier");
        let left: Vec<u64> = self.waits.iter().filter(|id| waits.contains(id)).copied().collect();
        let order: Vec<u64> = waits.iter().filter(|id| self.waits.contains(id)).copied().collect();
        assert_eq!(left, order, "S8: the order of a queue changed");
        self.waits = waits.to_vec();
    }
}

/// The number that a request's label is.
fn label_number(label: &[u8]) -> u64 {
    std::str::from_utf8(label).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

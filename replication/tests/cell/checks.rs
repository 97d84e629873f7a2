//! What holds after every step, by the numbers of REPLICATION.md: S3 to S7, S10, R3, R4, R9, R13, and the liveness of a cell
//! that was left in peace.

use std::collections::BTreeMap;

use fairlock_replication::Stored;
use fairlock_replication::message::Message;
use fairlock_replication::node::Standing;
use fairlock_replication::replica::Part;

use super::host::Held;
use super::{World, index_of, primary_of};

/// A promise that a shard gave: nothing below this epoch is acknowledged by it.
#[derive(Debug)]
struct Promise {
    epoch: u32,
    host: usize,
    life: u64,
    at: u64,
}

/// What was seen of one history of a shard from outside; one that was lost is another history.
#[derive(Debug, Default)]
struct History {
    /// The committed history: the digest behind each operation.
    truth: Vec<Option<u64>>,
    /// Who was answered what.
    answers: BTreeMap<(usize, u64), u64>,
    newest: [(u64, u64); super::table::CLIENTS],
    lsn: u64,
}

/// What was seen of one shard from outside.
#[derive(Debug, Default)]
struct Seen {
    /// By the epoch in which each began.
    histories: BTreeMap<u64, History>,
    /// Of whom each token is.
    tokens: BTreeMap<u64, (usize, u64)>,
    token: u64,
    promises: Vec<Promise>,
}

/// What was seen of the cell.
#[derive(Debug)]
pub struct Checks {
    shards: Vec<Seen>,
    /// Who was in office in which epoch.
    offices: BTreeMap<u32, (usize, u64)>,
    /// Epoch in which the present history began.
    origin: u64,
    pub exposed: u64,
    pub lost: u64,
}

impl Checks {
    pub fn new(shards: u16) -> Checks {
        let shards = (0..shards).map(|_| Seen::default()).collect();
        Checks { shards, offices: BTreeMap::new(), origin: 10, exposed: 0, lost: 0 }
    }

    /// The newest token that anybody has seen.
    pub fn newest_seen(&self, shard: u16) -> u64 {
        self.shards[usize::from(shard)].token
    }

    pub fn offices(&self) -> usize {
        self.offices.len()
    }
}

impl World {
    /// Operations that a node knows to be committed are the same on all nodes (S6).
    pub(super) fn note_commits(&mut self, host: usize, shard: u16) {
        let here = &self.hosts[host].shards[usize::from(shard)];
        let commits = here.digests.front().is_some_and(|(lsn, _)| *lsn <= here.replica.commit_lsn().0);
        if commits && here.table.origin == self.checks.origin {
            self.check_everywhere(host, shard, here.replica.commit_lsn().0);
        }
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        let histories = &mut self.checks.shards[usize::from(shard)].histories;
        let truth = &mut histories.entry(here.table.origin).or_default().truth;
        while let Some((lsn, digest)) = here.digests.front().copied() {
            if lsn > here.replica.commit_lsn().0 {
                break;
            }
            here.digests.pop_front();
            let at = usize::try_from(lsn).unwrap();
            if truth.len() <= at {
                truth.resize(at + 1, None);
            }
            let known = *truth[at].get_or_insert(digest);
            assert_eq!(known, digest, "S6: n{host}/{shard} has another operation committed at {lsn}");
        }
    }

    /// An answer leaves a node.
    pub(super) fn check_exposed(&mut self, host: usize, shard: u16, held: &Held) {
        let life = self.hosts[host].life;
        let here = &self.hosts[host].shards[usize::from(shard)];
        let view = here.replica.view().max(held.view);
        let seen = &mut self.checks.shards[usize::from(shard)];
        let request = held.request;
        self.checks.exposed += 1;
        assert!(
            held.answer >= request.floor,
            "S3: an answer is older than what was seen before it was asked"
        );
        for promise in &seen.promises {
            let elsewhere = (promise.host, promise.life) != (host, life);
            assert!(
                !(elsewhere && promise.epoch > view && promise.at <= held.arrived),
                "R9, S10: n{host}/{shard} answers in {view} what came after the promise of {}",
                promise.epoch
            );
        }
        if request.read {
            return;
        }
        let at = usize::try_from(held.lsn).unwrap();
        let past = seen.histories.entry(held.origin).or_default();
        assert!(past.truth.get(at).is_some_and(Option::is_some), "R3: exposed before it was committed");
        let one = (request.client, request.number);
        let first = *past.answers.entry(one).or_insert(held.answer);
        assert_eq!(first, held.answer, "S7: one operation is answered twice, differently");
        let owner = *seen.tokens.entry(held.answer).or_insert(one);
        assert_eq!(owner, one, "S3: one token for two operations");
        seen.token = seen.token.max(held.answer);
        past.lsn = past.lsn.max(held.lsn);
        let newest = &mut past.newest[request.client];
        *newest = (*newest).max((request.number, held.answer));
        if held.origin == self.checks.origin {
            self.check_everywhere(host, shard, held.lsn);
        }
    }

    /// Everybody who could take over has what is exposed (R2, S4).
    fn check_everywhere(&self, host: usize, shard: u16, lsn: u64) {
        let Some(stored) = &self.memory.value else { return };
        for member in &stored.configuration.members {
            let other = &self.hosts[index_of(&member.node)];
            if other.life != member.incarnation.get() || other.index == host {
                continue;
            }
            let replica = &other.shards[usize::from(shard)].replica;
            assert!(
                replica.part() == Part::Idle || replica.received_lsn().0 >= lsn,
                "R2: n{host}/{shard} has {lsn} committed, and n{} has {}",
                other.index,
                replica.received_lsn().0
            );
        }
    }

    /// What is acknowledged was not promised away, and acknowledged epochs rise (R4).
    pub(super) fn check_acks(&mut self, host: usize, shard: u16, bytes: &[u8]) {
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        if here.replica.part() == Part::Primary {
            return;
        }
        let mut rest = bytes;
        while let Ok(Some((message, length))) = Message::split(rest) {
            if let Message::Ack { epoch, .. } = message {
                assert!(
                    epoch >= here.promised,
                    "R4: n{host}/{shard} acknowledges {epoch} and has promised {}",
                    here.promised
                );
                here.promised = epoch;
            }
            rest = &rest[length..];
        }
    }

    /// A shard begins to serve, with what it inherited applied.
    pub(super) fn check_office(&mut self, host: usize, shard: u16, epoch: u32) {
        let here = &self.hosts[host];
        let first = *self.checks.offices.entry(epoch).or_insert((host, here.life));
        assert_eq!(first, (host, here.life), "S5: two primaries in epoch {epoch}");
        let reign = self.memory.value.as_ref().map(|stored| stored.configuration.reign.get());
        if reign != Some(epoch) {
            return;
        }
        let table = &here.shards[usize::from(shard)].table;
        if table.lsn == 0 {
            assert_eq!(u64::from(epoch), self.checks.origin, "S4: n{host}/{shard} takes over with nothing");
            return;
        }
        assert_eq!(table.origin, self.checks.origin, "S4: n{host}/{shard} takes over with what was lost");
        let Some(seen) = self.checks.shards[usize::from(shard)].histories.get(&table.origin) else { return };
        assert!(table.lsn >= seen.lsn, "S4: n{host}/{shard} takes over with {} of {}", table.lsn, seen.lsn);
        for (client, exposed) in seen.newest.iter().enumerate() {
            let has = table.newest[client];
            assert!(
                has.0 > exposed.0 || has == *exposed,
                "S4: n{host}/{shard} lacks {exposed:?} of client {client}, has {has:?}"
            );
        }
    }

    pub(super) fn check_promise(&mut self, host: usize, shard: u16, epoch: u32) {
        let (life, at) = (self.hosts[host].life, self.now);
        let promise = Promise { epoch, host, life, at };
        self.checks.shards[usize::from(shard)].promises.push(promise);
    }

    /// The register has changed.
    pub(super) fn check_written(&mut self, before: Option<&Stored>) {
        let (Some(before), Some(now)) = (before, &self.memory.value) else { return };
        if self.loud {
            eprintln!(
                "{:>10.3} REGISTER {:?}",
                self.now as f64 / 1e6,
                (
                    now.configuration.epoch,
                    now.configuration.reign,
                    &now.configuration.primary,
                    now.configuration
                        .members
                        .iter()
                        .map(|m| (m.node.as_str(), m.incarnation.get()))
                        .collect::<Vec<_>>(),
                    now.configuration.state_lost
                )
            );
        }
        let (old, new) = (&before.configuration, &now.configuration);
        assert!(new.epoch >= old.epoch, "S5: epochs only rise");
        assert!(new.reign >= old.reign, "S5: reigns only rise");
        if new.reign == old.reign {
            assert_eq!(new.primary, old.primary, "S5: one primary a reign");
            let (host, life) = primary_of(now);
            for shard in 0..self.shards {
                let here = &self.hosts[host];
                if here.life == life && here.shards[usize::from(shard)].serves.is_some() {
                    // R7: whoever is listed has everything that is committed.
                    let commit = here.shards[usize::from(shard)].replica.commit_lsn().0;
                    self.check_everywhere(host, shard, commit);
                }
            }
            return;
        }
        assert_eq!(new.reign, new.epoch, "S5: a reign begins with its epoch");
        let (host, life) = primary_of(now);
        let inherits = old
            .members
            .iter()
            .any(|member| (index_of(&member.node), member.incarnation.get()) == (host, life));
        if inherits && !new.state_lost {
            return;
        }
        // R13: everybody who was listed is certainly gone, or has nothing any more.
        for member in &old.members {
            let other = &self.hosts[index_of(&member.node)];
            assert!(
                other.life != member.incarnation.get() || !other.is_stateful(),
                "R13: the cell begins anew, and n{} has everything",
                other.index
            );
        }
        self.checks.lost += 1;
        self.checks.origin = u64::from(new.reign.get());
    }

    /// What is still missing until the cell is whole.
    pub(super) fn unsettled(&self) -> Option<String> {
        let Some(stored) = &self.memory.value else { return Some("no cell".into()) };
        let (host, _) = primary_of(stored);
        if let Some(off) = self.hosts.iter().find(|host| host.life == 0) {
            return Some(format!("n{} is off", off.index));
        }
        for other in &self.hosts {
            if other.standing == Standing::Halted {
                return Some(format!("n{} has halted", other.index));
            }
            let wanted = if other.index == host { Standing::Primary } else { Standing::Backup };
            let listed = stored.configuration.members.iter().any(|member| {
                index_of(&member.node) == other.index && member.incarnation.get() == other.life
            });
            if !listed || other.standing != wanted {
                return Some(format!("n{} is {:?}, listed {listed}", other.index, other.standing));
            }
            for (number, shard) in other.shards.iter().enumerate() {
                let part = if other.index == host { Part::Primary } else { Part::Backup };
                if shard.replica.part() != part {
                    return Some(format!("n{}/{number} is {:?}", other.index, shard.replica.part()));
                }
                let first = &self.hosts[host].shards[number].replica;
                if shard.replica.view() != stored.configuration.epoch.get() {
                    return Some(format!("n{}/{number} works in {}", other.index, shard.replica.view()));
                }
                if first.progress().filter(|(_, _, listed)| *listed).count() + 1 != self.hosts.len() {
                    return Some(format!("n{host}/{number} has not all followers"));
                }
            }
        }
        let waiting = self.clients.iter().position(|client| {
            client.asks.is_some_and(|request| request.attempt > 3) && client.answered == 0
        });
        waiting.map(|client| format!("client {client} was not answered"))
    }

    /// The cell was left in peace for a while: all is answered, and all tables are equal (L1, L4, L6).
    pub(super) fn check_calm(&self) {
        assert_eq!(self.unsettled(), None, "L4: it fell apart again");
        for (number, client) in self.clients.iter().enumerate() {
            assert!(client.asks.is_none(), "L6: {:?} was never answered", client.asks);
            assert!(client.answered > 10, "L1: client {number} got {} answers", client.answered);
        }
        for (number, first) in self.hosts[0].shards.iter().enumerate() {
            for other in &self.hosts[1..] {
                let table = &other.shards[number].table;
                assert_eq!(*table, first.table, "S6: n{}/{number} differs", other.index);
            }
        }
    }

    /// How much happened, for people.
    pub fn summary(&self) -> [u64; 4] {
        [self.checks.exposed, self.checks.offices() as u64, self.checks.lost, self.events]
    }
}

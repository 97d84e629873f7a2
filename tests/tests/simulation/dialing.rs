//! Nodes that dial each other: who answers, and the streams that stand then.

use fairlock_replication::Member;
use fairlock_replication::node::Dialed;

use super::host::{Errand, index_of};
use super::network::End;
use super::{Event, MS, World};

/// How long a node tries to reach another.
const DIAL_TIME: u64 = 1000 * MS;

impl World {
    /// A node dials another.
    pub(super) fn dial(&mut self, host: usize, member: Member, probe: bool) {
        let (there, life) = (index_of(&member.node), self.hosts[host].life);
        if !self.network.is_whole(host, there) || self.hosts[there].dark {
            let errand = Errand::Dialed(member, probe, Dialed::Silent("no answer".into()), Vec::new());
            return self.put(DIAL_TIME, Event::Errand(host, life, Box::new(errand)));
        }
        let there_after = self.on_the_way(host);
        self.put(there_after, Event::Knock(host, life, Box::new(member), probe));
    }

    /// A dialled node hears of it.
    pub(super) fn knock(&mut self, from: usize, life: u64, member: Member, probe: bool) {
        let there = index_of(&member.node);
        if self.hosts[from].life != life {
            return;
        }
        let back = self.on_the_way(there);
        let mut streams = Vec::new();
        let outcome = match (&self.hosts[there].process, &self.hosts[from].process) {
            _ if !self.network.is_whole(from, there) || self.hosts[there].dark => {
                Dialed::Silent("no answer".into())
            }
            (Some(process), _) if process.me.incarnation != member.incarnation => {
                Dialed::Other(process.me.clone())
            }
            (Some(_), _) if probe => Dialed::Alive,
            (Some(process), Some(caller)) => {
                let (me, its) = (caller.me.clone(), process.me.incarnation.get());
                for shard in 0..self.shards {
                    let ends = [End::Node(from, life, shard), End::Node(there, its, shard)];
                    let stream = self.network.open(ends, [true; 2]);
                    streams.push(stream);
                    self.errand(there, its, Errand::Called(me.clone(), shard, stream));
                }
                Dialed::Up
            }
            _ => Dialed::Refused,
        };
        let delay = if matches!(outcome, Dialed::Silent(_)) { DIAL_TIME } else { back };
        self.put(delay, Event::Errand(from, life, Box::new(Errand::Dialed(member, probe, outcome, streams))));
    }
}

//! The register: linearizable, and as unreliable as a seed wants it. A question of unknown outcome may take effect before
//! its asker gives up, later, or never.

use fairlock_replication::memory::Memory;
use fairlock_replication::{Answer, Ask, Register, Stored, Watched};
use fairlock_server::deciding::Told;

use super::host::Errand;
use super::{Event, MS, World};

/// How long a node waits for an answer.
const TIMEOUT: u64 = 1000 * MS;

/// What goes wrong with it, in a thousand.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) failed: u64,
    pub(crate) unknown_done: u64,
    pub(crate) unknown_void: u64,
    pub(crate) unknown_later: u64,
    /// Changes that a watch misses.
    pub(crate) blind: u64,
    /// Longest time on the way.
    pub(crate) delay: u64,
    pub(crate) outage: bool,
    /// Nodes that do not reach it.
    pub(crate) cut: Vec<bool>,
}

impl World {
    /// A node asks.
    pub(super) fn ask_register(&mut self, host: usize, ask: Ask) {
        let delay = 1 + self.random.below(self.trouble.delay);
        let life = self.hosts[host].life;
        self.put(delay, Event::Asked(host, life, Box::new(ask)));
    }

    /// A question arrives.
    pub(super) fn asked(&mut self, host: usize, life: u64, ask: &Ask) {
        let lost = self.trouble.outage || self.trouble.cut[host];
        let mut chance = |per_mille| self.random.below(1000) < per_mille;
        let answer = match ask {
            Ask::Read if lost => Err(Answer::Failed("no answer".into())),
            Ask::Cas { .. } if lost => Err(Answer::Unknown("no answer".into())),
            _ if chance(self.trouble.failed) => Ok(Answer::Failed("no quorum".into())),
            Ask::Read => Ok(Answer::Value(self.memory.stored().cloned())),
            Ask::Cas { .. } if chance(self.trouble.unknown_void) => Err(Answer::Unknown("void".into())),
            Ask::Cas { .. } if chance(self.trouble.unknown_later) => {
                let later = self.random.below(2 * TIMEOUT);
                self.put(later, Event::Effect(Box::new(ask.clone())));
                Err(Answer::Unknown("later".into()))
            }
            Ask::Cas { .. } if chance(self.trouble.unknown_done) => {
                self.swap(ask);
                Err(Answer::Unknown("done".into()))
            }
            Ask::Cas { .. } => Ok(self.swap(ask)),
        };
        let back = 1 + self.random.below(self.trouble.delay);
        let (delay, answer) = match answer {
            Ok(answer) => (back, answer),
            Err(answer) => (TIMEOUT, answer),
        };
        self.put(delay, Event::Errand(host, life, Box::new(Errand::Told(Told::Register(answer)))));
    }

    /// A swap takes effect, if it still can.
    pub(super) fn swap(&mut self, ask: &Ask) -> Answer {
        let before = self.memory.stored().cloned();
        let answer = self.memory.answer(ask);
        if let Answer::Written(_) = answer
            && let Some(now) = self.memory.stored().cloned()
        {
            let epoch = now.configuration.epoch.get();
            self.trace("register", epoch.into(), u64::from(now.configuration.state_lost), 0);
            self.judge_configuration(before.as_ref(), &now);
            self.tell_watches(&now);
        }
        answer
    }

    fn tell_watches(&mut self, stored: &Stored) {
        for host in 0..self.hosts.len() {
            if self.trouble.cut[host] || self.random.below(1000) < self.trouble.blind {
                continue;
            }
            let delay = 1 + self.random.below(self.trouble.delay);
            let told = Told::Watched(Watched::Value(Some(stored.clone())));
            self.put(delay, Event::Errand(host, self.hosts[host].life, Box::new(Errand::Told(told))));
        }
    }

    /// What stands there.
    pub(super) fn stored(&self) -> Option<&Stored> {
        let memory: &Memory = &self.memory;
        memory.stored()
    }
}

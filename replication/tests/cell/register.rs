//! The register in memory, and everything that may go wrong between it and a node.

use fairlock_replication::register::{Answer, Ask, Revision, Stored};

use super::random::Random;

/// How often things go wrong, in one of 1000 questions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chaos {
    pub failed: u64,
    /// Done, and nobody knows.
    pub unknown_done: u64,
    /// Not done, and nobody knows.
    pub unknown_void: u64,
    /// Done some time later, and nobody knows.
    pub unknown_later: u64,
    /// Longest time on the way, ns.
    pub delay: u64,
    pub outage: bool,
}

/// What becomes of a question.
pub enum Outcome {
    Now(Answer),
    /// The answer is known now, the effect comes later.
    Later(Answer),
}

#[derive(Debug, Default)]
pub struct Memory {
    pub value: Option<Stored>,
    pub writes: u64,
}

impl Memory {
    /// What the register does with a question that reached it.
    pub fn handle(&mut self, ask: &Ask, chaos: &Chaos, random: &mut Random) -> Outcome {
        if chaos.outage || random.chance(chaos.failed) {
            return Outcome::Now(Answer::Failed("no quorum".into()));
        }
        let unknown = || Answer::Unknown("timed out".into());
        match ask {
            Ask::Read => Outcome::Now(Answer::Value(self.value.clone())),
            Ask::Cas { .. } if random.chance(chaos.unknown_void) => Outcome::Now(unknown()),
            Ask::Cas { .. } if random.chance(chaos.unknown_later) => Outcome::Later(unknown()),
            Ask::Cas { .. } if random.chance(chaos.unknown_done) => {
                self.swap(ask);
                Outcome::Now(unknown())
            }
            Ask::Cas { .. } => Outcome::Now(self.swap(ask)),
        }
    }

    /// A swap, whole.
    pub fn swap(&mut self, ask: &Ask) -> Answer {
        let Ask::Cas { expected, new } = ask else { return Answer::Value(self.value.clone()) };
        if self.value.as_ref().map(|stored| stored.revision) != *expected {
            return Answer::Conflict(self.value.clone());
        }
        assert_eq!(new.check(), Ok(()), "only a consistent configuration is stored");
        self.writes += 1;
        let revision = Revision(self.writes);
        self.value = Some(Stored { configuration: new.clone(), revision });
        Answer::Written(revision)
    }
}

//! A register in memory, and one that goes wrong as it is told: for tests and simulators.
//!
//! Both are plain values with one owner, so that a simulator decides when an ask takes effect and when its answer
//! arrives; who needs to share one between threads puts it into a mutex. What matters about a real register is here: a
//! swap that was asked may take effect *later* than its asker gave up, and then only if nothing came between.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::configuration::Configuration;
use crate::register::{Answer, Ask, Register, Revision, Stored};

/// A register that always answers.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    stored: Option<Stored>,
    /// Number of the newest write; goes on over a removal.
    writes: u64,
}

impl Memory {
    /// An empty one.
    pub const fn new() -> Memory {
        Memory { stored: None, writes: 0 }
    }

    /// What stands there.
    pub const fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// What an operator does who deletes the key.
    pub fn remove(&mut self) {
        self.stored = None;
    }
}

impl Register for Memory {
    fn read(&mut self) -> Answer {
        Answer::Value(self.stored.clone())
    }

    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer {
        if self.stored.as_ref().map(|stored| stored.revision) != expected {
            return Answer::Conflict(self.stored.clone());
        }
        assert_eq!(new.check(), Ok(()), "only a consistent configuration is stored");
        self.writes += 1;
        let revision = Revision(self.writes);
        self.stored = Some(Stored { configuration: new.clone(), revision });
        Answer::Written(revision)
    }
}

/// What becomes of one ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done and answered.
    Served,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is not done and will not be, and nobody is told so.
    RequestLost,
    /// It is under way for a while: nothing is answered, and a swap takes effect later or never.
    Late,
    /// It is refused before any effect.
    Failed,
}

/// A register in memory that goes wrong: by a plan, by chance, or altogether.
#[derive(Debug)]
pub struct Chaos {
    memory: Memory,
    /// Fates of the next asks; behind them chance decides.
    plan: VecDeque<Fate>,
    /// Swaps under way.
    late: Vec<Ask>,
    /// State of the chance.
    dice: u64,
    /// How many of a thousand asks go wrong by chance.
    trouble_per_mille: u16,
    /// Nothing reaches it.
    away: bool,
}

impl Chaos {
    /// One that does as planned, and else always answers.
    pub const fn new() -> Chaos {
        Chaos::seeded(0, 0)
    }

    /// One in which so many of a thousand asks go wrong; the same seed gives the same troubles.
    pub const fn seeded(seed: u64, trouble_per_mille: u16) -> Chaos {
        Chaos {
            memory: Memory::new(),
            plan: VecDeque::new(),
            late: Vec::new(),
            dice: seed,
            trouble_per_mille,
            away: false,
        }
    }

    /// What becomes of the next ask that has no fate yet.
    pub fn plan(&mut self, fate: Fate) {
        self.plan.push_back(fate);
    }

    /// Begins or ends an outage: nothing reaches the register, and whoever asks knows only that it did not answer.
    pub const fn set_away(&mut self, away: bool) {
        self.away = away;
    }

    /// How many of a thousand asks go wrong from now on.
    pub const fn set_trouble(&mut self, per_mille: u16) {
        self.trouble_per_mille = per_mille;
    }

    /// The register itself, which always answers.
    pub const fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Swaps that are under way.
    pub const fn late(&self) -> usize {
        self.late.len()
    }

    /// Lets the oldest swap under way arrive: it takes effect if what it expects still stands there. Whether it did.
    pub fn land(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let ask = self.late.remove(0);
        matches!(self.memory.answer(&ask), Answer::Written(_))
    }

    /// Lets the oldest swap under way be lost.
    pub fn lose(&mut self) {
        if !self.late.is_empty() {
            self.late.remove(0);
        }
    }

    /// A number below `bound`. SplitMix64.
    const fn roll(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// What becomes of the ask that is here now.
    fn fate(&mut self) -> Fate {
        if self.away {
            return Fate::RequestLost;
        }
        if let Some(fate) = self.plan.pop_front() {
            return fate;
        }
        if self.trouble_per_mille == 0 || self.roll(1000) >= u64::from(self.trouble_per_mille) {
            return Fate::Served;
        }
        match self.roll(4) {
            0 => Fate::AnswerLost,
            1 => Fate::RequestLost,
            2 => Fate::Late,
            _ => Fate::Failed,
        }
    }

    /// By chance, what is under way arrives or is lost while others ask.
    fn traffic(&mut self) {
        while self.trouble_per_mille > 0 && !self.late.is_empty() {
            match self.roll(4) {
                0 => self.lose(),
                1 => {
                    self.land();
                }
                _ => return,
            }
        }
    }

    fn ask(&mut self, ask: &Ask) -> Answer {
        self.traffic();
        let fate = self.fate();
        let read = *ask == Ask::Read;
        match fate {
            Fate::Served => return self.memory.answer(ask),
            Fate::AnswerLost => drop(self.memory.answer(ask)),
            Fate::Late if !read => self.late.push(ask.clone()),
            Fate::Late | Fate::RequestLost | Fate::Failed => {}
        }
        if read || fate == Fate::Failed {
            return Answer::Failed("the register refused, as it was told to".to_owned());
        }
        Answer::Unknown("the register did not answer, as it was told to".to_owned())
    }
}

impl Default for Chaos {
    fn default() -> Chaos {
        Chaos::new()
    }
}

impl Register for Chaos {
    fn read(&mut self) -> Answer {
        self.ask(&Ask::Read)
    }

    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer {
        self.ask(&Ask::Cas { expected, new: new.clone() })
    }
}

#[cfg(test)]
mod tests;

//! The register: one question at a time, and what each answer means.
//!
//! A swap whose outcome is unknown is looked at again before anything else: what stands there is what was wanted (it
//! happened), what was there before (it is asked again, word for word, so that it does no harm if the first one still
//! arrives), or something else (it can happen no more).

use alloc::string::{String, ToString};
use core::time::Duration;

use fairlock_protocol::tick::quarantine;
use fairlock_protocol::{Refusal, Tick};

use super::forcing::ANOTHER;
use super::{
    Answer, Ask, Asked, Configuration, Node, Output, Phase, Purpose, Revision, Stored, TRY_AGAIN, exhausted,
};

impl Node {
    pub(super) fn look(&mut self) {
        if self.asked.is_none() {
            // What is missed from here on is not what this look will show.
            let missed = core::mem::take(&mut self.is_missed);
            self.asked = Some(Asked::Look { missed });
            self.outputs.push(Output::Ask(Ask::Read));
        }
    }

    /// Asks for a swap of what was read last.
    pub(super) fn swap(&mut self, purpose: Purpose, new: Option<Configuration>) {
        let expected = self.known.as_ref().map(|known| known.revision);
        self.swap_with(expected, purpose, new);
    }

    /// Asks for a swap of what stands there at this revision, or of nothing.
    pub(super) fn swap_with(
        &mut self,
        expected: Option<Revision>,
        purpose: Purpose,
        new: Option<Configuration>,
    ) {
        assert!(self.asked.is_none(), "one question at a time");
        let Some(new) = new else {
            return self.halt("epochs", exhausted());
        };
        self.asked = Some(Asked::Swap { purpose, expected, new: new.clone(), again: false });
        self.outputs.push(Output::Ask(Ask::Cas { expected, new }));
    }

    pub(super) fn answered(&mut self, now: Tick, answer: Answer) {
        let Some(asked) = self.asked.take() else { return };
        match (asked, answer) {
            (Asked::Look { .. }, Answer::Value(found)) => {
                self.register_answers();
                match self.forcing.take() {
                    Some((ticket, named)) => self.force_on(now, ticket, &named, found.as_ref()),
                    None => self.found(now, found),
                }
            }
            (Asked::Look { missed }, answer) => {
                self.is_missed |= missed;
                self.no_answer(now, &answer);
                if let Some((ticket, _)) = self.forcing.take() {
                    let why = "the register does not answer, and nothing can begin without it".to_string();
                    self.outputs.push(Output::Answer(ticket, Err((Refusal::Unavailable, why))));
                }
            }
            (Asked::Swap { purpose, new, .. }, Answer::Written(revision)) => {
                self.register_answers();
                self.swapped(now, purpose, &Stored { configuration: new, revision });
            }
            (Asked::Swap { purpose, expected, new, .. }, Answer::Conflict(found))
            | (Asked::Check { purpose, expected, new, .. }, Answer::Value(found)) => {
                self.compare(now, (purpose, expected, new), found);
            }
            (Asked::Swap { purpose, .. }, answer @ Answer::Unknown(_)) if mutant!(UnknownIsFailure) => {
                self.no_answer(now, &answer);
                self.not_swapped(now, purpose);
            }
            (Asked::Swap { purpose, expected, new, .. }, Answer::Unknown(_)) if mutant!(UnknownIsSuccess) => {
                let revision = Revision(expected.map_or(1, |expected| expected.0 + 1));
                self.swapped(now, purpose, &Stored { configuration: new, revision });
            }
            (Asked::Swap { purpose, expected, new, again }, Answer::Unknown(why)) => {
                self.register_fails(why);
                // At once, but for a register that answers like this again and again.
                let again_at = again.then(|| now.after(TRY_AGAIN));
                self.asked = Some(Asked::Check { purpose, expected, new, again_at });
                if again_at.is_none() {
                    self.outputs.push(Output::Ask(Ask::Read));
                }
            }
            // This one will not happen, but the one before it may.
            (Asked::Swap { purpose, expected, new, again: true }, answer)
                if !mutant!(FailedRepeatIsFailure) =>
            {
                self.no_answer(now, &answer);
                self.asked = Some(Asked::Check { purpose, expected, new, again_at: Some(self.ask_at) });
            }
            (Asked::Swap { purpose, .. }, answer) => {
                self.no_answer(now, &answer);
                self.not_swapped(now, purpose);
            }
            // Still unknown: nothing else may be asked before it is.
            (Asked::Check { purpose, expected, new, .. }, answer) => {
                self.no_answer(now, &answer);
                self.asked = Some(Asked::Check { purpose, expected, new, again_at: Some(self.ask_at) });
            }
        }
    }

    /// A check that failed is made again.
    pub(super) fn check_again(&mut self, now: Tick) {
        if let Some(Asked::Check { again_at, .. }) = &mut self.asked
            && again_at.take_if(|at| now >= *at).is_some()
        {
            self.outputs.push(Output::Ask(Ask::Read));
        }
    }

    fn no_answer(&mut self, now: Tick, answer: &Answer) {
        let why = match answer {
            Answer::Failed(why) | Answer::Unknown(why) => why.clone(),
            other => alloc::format!("the register gave an answer that fits no question: {other:?}"),
        };
        self.register_fails(why);
        self.ask_at = now.after(TRY_AGAIN);
    }

    /// What stands in the register, against what was to be put there.
    fn compare(
        &mut self,
        now: Tick,
        (purpose, expected, new): (Purpose, Option<Revision>, Configuration),
        found: Option<Stored>,
    ) {
        match found {
            Some(found) if found.configuration == new => {
                self.register_answers();
                self.swapped(now, purpose, &found);
            }
            // It has had no effect yet, and may still have one: the same once more.
            found if found.as_ref().map(|found| found.revision) == expected => {
                self.asked = Some(Asked::Swap { purpose, expected, new: new.clone(), again: true });
                self.outputs.push(Output::Ask(Ask::Cas { expected, new }));
            }
            found => {
                self.register_answers();
                self.found(now, found);
                self.not_swapped(now, purpose);
            }
        }
    }

    /// Something was read.
    pub(super) fn found(&mut self, now: Tick, found: Option<Stored>) {
        match found {
            Some(stored) => self.adopt(now, stored),
            None if self.known.is_some() => self.halt(
                "register",
                "the configuration is gone from the register; stop the other nodes, let this one run on, and \
                 `fairlock cluster force-new` the others here"
                    .to_string(),
            ),
            None => {
                if matches!(self.phase, Phase::Seeking { .. }) {
                    self.begin_cell();
                }
            }
        }
    }

    /// Its alarm ends, but for the one that says why this node goes on no more.
    fn register_answers(&mut self) {
        if !matches!(self.phase, Phase::Halted) {
            self.alarm("register", None);
        }
    }

    /// Nor does one of a node that halted give way to this.
    pub(super) fn register_fails(&mut self, why: String) {
        if !matches!(self.phase, Phase::Halted) {
            self.alarm("register", Some(why));
        }
    }

    /// The watch saw something.
    pub(super) fn watched(&mut self, now: Tick, stored: Stored) {
        self.register_answers();
        // Late, or what a restored backup has.
        self.is_missed |= self.known.as_ref().is_some_and(|known| {
            let differs = stored.configuration != known.configuration;
            stored.revision < known.revision || stored.revision == known.revision && differs
        });
        self.told(now, stored);
    }

    /// A watch or a primary told what stands in the register, which is as good as reading it. While a question is under way
    /// it is kept: the answer may be older.
    pub(super) fn told(&mut self, now: Tick, stored: Stored) {
        if self.told.as_ref().is_none_or(|told| stored.revision > told.revision) {
            self.told = Some(stored);
        }
        self.adopt_told(now);
    }

    /// Goes by what was told, when nothing is asked.
    pub(super) fn adopt_told(&mut self, now: Tick) {
        if self.asked.is_some() {
            return;
        }
        let Some(told) = self.told.take() else { return };
        if self.known.as_ref().is_none_or(|known| told.revision > known.revision) {
            self.adopt(now, told);
        }
    }

    /// Makes what was read the configuration to go by.
    pub(super) fn adopt(&mut self, now: Tick, stored: Stored) {
        if matches!(self.phase, Phase::Halted) {
            return;
        }
        if let Some(known) = &self.known {
            let is_same = stored.configuration == known.configuration;
            if known.revision == stored.revision && is_same {
                if matches!(self.phase, Phase::Seeking { .. }) {
                    self.settle(now);
                }
                return;
            }
            if stored.configuration.cell != known.configuration.cell {
                let why = "another cell was begun in the register since: stop these nodes, or those";
                return self.halt("register", why.to_string());
            }
            // Within an epoch the horizon rises, and nothing else is written.
            let (new, old) = (&stored.configuration, &known.configuration);
            let is_fork = new.epoch == old.epoch
                && (&new.members, &new.primary, new.reign) != (&old.members, &old.primary, old.reign);
            let went_back = stored.revision <= known.revision && !is_same;
            let (found, knows) = (new.epoch.get(), old.epoch.get());
            let what = if is_fork {
                alloc::format!("others wrote an epoch {found} as well")
            } else if went_back || found < knows {
                alloc::format!("the register went back from epoch {knows} to {found}")
            } else {
                return self.go_by(now, stored);
            };
            let todo =
                "stop the other nodes, let this one run on, and `fairlock cluster force-new` the others here";
            return self.halt("register", alloc::format!("{what}: an old backup was restored; {todo}"));
        }
        self.go_by(now, stored);
    }

    fn go_by(&mut self, now: Tick, stored: Stored) {
        self.others.clear();
        self.know(now, stored);
        self.settle(now);
    }

    /// Remembers a configuration; what probes said about the one before says nothing about this one.
    pub(super) fn know(&mut self, now: Tick, stored: Stored) {
        // It was wished when something else stood there, and others were called.
        if let Some((ticket, _)) = self.forcing.take() {
            self.outputs.push(Output::Answer(ticket, Err((Refusal::Denied, ANOTHER.to_string()))));
        }
        let reign = self.known.as_ref().map(|known| known.configuration.reign);
        let news = &stored.configuration;
        // Whoever may take over keeps the quarantine, too (R13). One that learned of it late counts from then.
        let wait = match news.state_lost {
            true if reign != Some(news.reign) => Some(quarantine(news.ttl_horizon)),
            false if now < self.quarantine_until => Some(Duration::ZERO),
            _ => None,
        };
        self.was_listed |= self.lists_me(news);
        self.answering.clear();
        self.probing.values_mut().for_each(|counts| *counts = false);
        self.probe_at = Tick::ZERO;
        self.outputs.push(Output::Configured(stored.clone()));
        self.known = Some(stored);
        if let Some(wait) = wait {
            self.quarantine_until = now.after(wait);
            self.outputs.push(Output::Quarantine(wait));
        }
    }

    /// A swap certainly did not happen, and what stands there instead was dealt with.
    fn not_swapped(&mut self, now: Tick, purpose: Purpose) {
        match purpose {
            Purpose::Begin => {
                // What an operator had wanted; it can be wanted again.
                if let Phase::Seeking { look_at } = &mut self.phase {
                    *look_at = (*look_at).min(now.after(TRY_AGAIN));
                }
            }
            Purpose::Seize => {
                if matches!(self.phase, Phase::Seizing) {
                    self.settle(now);
                }
            }
            // Nobody asks for it again: a read shows when the register is well.
            Purpose::Handover => self.is_missed = true,
            Purpose::Members | Purpose::Horizon | Purpose::End => {}
        }
    }

    fn swapped(&mut self, now: Tick, purpose: Purpose, stored: &Stored) {
        self.know(now, stored.clone());
        match purpose {
            Purpose::Begin => {
                self.others.clear();
                self.enter(true, stored);
            }
            Purpose::Seize => self.enter(false, stored),
            Purpose::Members | Purpose::Horizon | Purpose::Handover | Purpose::End => {
                self.reconfigured(now, purpose, stored);
            }
        }
    }
}

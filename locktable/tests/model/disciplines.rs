//! Queues that are not strict, as docs/decisions/0004 has them: who may pass whom, how often, and by which class. Every
//! waiter counts for itself how often it was passed; classes and what is inherited are worked out anew each time.

use super::table::{Line, Model};
use super::{Mode, ResourceIndex, Rules, SessionSerial, WaitSerial};
use core::cmp::Reverse;
use fairlock_protocol::Discipline;

/// Removes over which a class is inherited.
pub const REMOVES: usize = 8;
const HIGHEST: u64 = 7;

/// A request that has just come.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    pub session: SessionSerial,
    pub owner: u64,
    pub resource: ResourceIndex,
    pub mode: Mode,
    pub priority: u8,
}

impl Model {
    fn rules(&self, resource: ResourceIndex) -> Rules {
        self.house[resource]
    }

    fn has_classes(&self, resource: ResourceIndex) -> bool {
        self.rules(resource).discipline == Discipline::Priority
    }

    /// Everybody who waits here sees somebody let in that came later.
    pub fn pass(&mut self, waits: &[WaitSerial], resource: ResourceIndex) {
        for &w in waits {
            self.waits[w].passed += 1;
            assert!(self.waits[w].passed <= self.rules(resource).bypass_budget, "passed once too often");
        }
        self.bypasses += u64::from(!waits.is_empty());
    }

    /// A newcomer is granted at once: whoever waits is passed, but by one in NL.
    pub fn pass_all(&mut self, resource: ResourceIndex, mode: Mode) {
        if mode != Mode::NL {
            self.pass(&self.line(resource, Line::Waits), resource);
        }
    }

    /// Whether nobody waits whom the newcomer may not pass.
    pub fn way_is_free(&self, newcomer: Newcomer) -> bool {
        let Newcomer { session, owner, resource, mode, priority } = newcomer;
        let (conversions, waits) = (self.line(resource, Line::Conversions), self.line(resource, Line::Waits));
        let rules = self.rules(resource);
        if conversions.is_empty() && waits.is_empty() {
            return true;
        }
        let spent = waits.iter().any(|&w| self.waits[w].passed >= rules.bypass_budget);
        if !conversions.is_empty() || spent {
            return false;
        }
        match rules.discipline {
            Discipline::Strict => false,
            Discipline::Phase => {
                let held = self.live_grants(|g| g.resource == resource);
                let reads = |mode: Mode| matches!(mode, Mode::CR | Mode::PR);
                reads(mode)
                    && held.iter().any(|&g| reads(self.grants[g].mode))
                    && held.iter().all(|&g| reads(self.grants[g].mode) || self.grants[g].mode == Mode::NL)
            }
            Discipline::Priority => {
                let class = u64::from(priority).max(self.waiting_for(session, owner, REMOVES - 1));
                let classes = self.classes(REMOVES);
                waits.iter().all(|&w| classes[w] < class)
            }
        }
    }

    /// Who of W is next, with what is inherited over so many removes.
    pub fn next_of_waits(&self, resource: ResourceIndex, removes: usize) -> Option<WaitSerial> {
        let waits = self.line(resource, Line::Waits);
        let oldest = *waits.first()?;
        let spent = self.waits[oldest].passed >= self.rules(resource).bypass_budget;
        if !self.has_classes(resource) || spent {
            return Some(oldest);
        }
        let classes = self.classes(removes);
        waits.into_iter().max_by_key(|&w| (classes[w], Reverse(w)))
    }

    /// The class of every waiter in W of a queue that has classes, with what it inherits over so many removes.
    fn classes(&self, removes: usize) -> Vec<u64> {
        let own = |w: &super::table::Waiting| {
            let step_ns = self.rules(w.resource).age_step.as_nanos();
            let risen = u64::try_from(self.now.since(w.since).as_nanos() / step_ns).unwrap();
            (u64::from(w.priority) + risen).min(HIGHEST)
        };
        let own: Vec<u64> = self.waits.iter().map(own).collect();
        let mut classes = own.clone();
        for _ in 0..removes {
            let before = classes.clone();
            for w in self.classed() {
                let waiter = &self.waits[w];
                let inherited = self.highest_for(waiter.session, waiter.owner, &before);
                classes[w] = own[w].max(inherited);
            }
            if classes == before {
                break;
            }
        }
        classes
    }

    fn classed(&self) -> Vec<WaitSerial> {
        self.live_waits(|w| w.line == Line::Waits && self.has_classes(w.resource))
    }

    /// The highest of `classes` among those who wait for what this owner holds.
    fn highest_for(&self, session: SessionSerial, owner: u64, classes: &[u64]) -> u64 {
        let held = self.live_grants(|g| g.session == session && g.owner == owner && g.mode != Mode::NL);
        let wait_for_it =
            |w: &WaitSerial| held.iter().any(|&g| self.grants[g].resource == self.waits[*w].resource);
        self.classed().into_iter().filter(wait_for_it).map(|w| classes[w]).max().unwrap_or(0)
    }

    fn waiting_for(&self, session: SessionSerial, owner: u64, removes: usize) -> u64 {
        self.highest_for(session, owner, &self.classes(removes))
    }
}

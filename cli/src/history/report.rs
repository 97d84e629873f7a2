//! The judgement: which rules were broken, by which events, and what was looked at.

use std::fmt;

/// Violations of which the report keeps the events; of further ones only the number.
const KEPT_MAX: usize = 1000;

/// A promise that can be seen broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Two incompatible guards were certainly valid at one moment.
    Exclusion,
    /// Somebody was let in while the lease of a silent holder still ran.
    Lease,
    /// A fencing token of two tenures, or none where there has to be one.
    Token,
    /// Tokens against the order of time.
    Order,
    /// Who came later was served earlier.
    Fifo,
    /// A fenced resource would accept an older tenure, or refuse a present one.
    Fence,
    /// A request without an outcome, or with two.
    Outcome,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 7] =
        [Rule::Exclusion, Rule::Lease, Rule::Token, Rule::Order, Rule::Fifo, Rule::Fence, Rule::Outcome];

    /// One word, as the documents print it.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Exclusion => "exclusion",
            Rule::Lease => "lease",
            Rule::Token => "token",
            Rule::Order => "order",
            Rule::Fifo => "fifo",
            Rule::Fence => "fence",
            Rule::Outcome => "outcome",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which of the files, from 0, in the order in which they were read.
    pub file: u32,
    /// Which line of it, from 1.
    pub line: u32,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// Namespace of the lock.
    pub namespace: String,
    /// Name of the lock; empty when it is not about one.
    pub name: Vec<u8>,
    /// What is wrong, lower case, one line.
    pub text: String,
    /// The events that show it.
    pub places: Vec<Place>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Whole lines.
    pub lines: u64,
    /// Files whose last line was cut short: their writer was killed.
    pub cut: u64,
    /// Events of a kind that this version does not know.
    pub other: u64,
    /// Clients.
    pub clients: u64,
    /// Of them, those that were killed.
    pub killed: u64,
    /// Locks.
    pub resources: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests in doubt: flagged so, or left by a client that ended.
    pub in_doubt: u64,
    /// Tenures: different tokens of a lock.
    pub tenures: u64,
    /// Holds that were certain for some time.
    pub certain_holds: u64,
    /// Pairs of which the later one was served first, in strict namespaces.
    pub overtaken_pairs: u64,
}

/// The judgement.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What was looked at.
    pub counts: Counts,
    /// The first violations, in the order of the files.
    pub violations: Vec<Violation>,
    broken: [u64; Rule::ALL.len()],
}

impl Report {
    /// Notes a violation.
    pub(super) fn add(&mut self, violation: Violation) {
        self.broken[violation.rule as usize] += 1;
        if self.violations.len() < KEPT_MAX {
            self.violations.push(violation);
        }
    }

    /// Puts them into the order in which the files show them.
    pub(super) fn arrange(&mut self) {
        self.violations.sort_by_key(|violation| violation.places.iter().max().copied());
    }

    /// How often a rule was broken.
    pub const fn broken(&self, rule: Rule) -> u64 {
        self.broken[rule as usize]
    }

    /// How many violations there are, also those whose events were not kept.
    pub fn total(&self) -> u64 {
        self.broken.iter().sum()
    }

    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.total() == 0
    }
}

//! What a namespace may be told about its queues. A namespace that is not named here is strict, and a strict queue
//! pays one flag for the others.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::time::Duration;
use fairlock_protocol::limits::{AGE_STEP_DEFAULT, BYPASS_BUDGET_DEFAULT};
use fairlock_protocol::{Discipline, Namespace};

/// By what the queues of a namespace go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Strict, phase or priority.
    pub discipline: Discipline,
    /// Times a waiter may be passed; nothing to a strict queue.
    pub bypass_budget: u32,
    /// How long a waiter waits for each class it rises; not zero; counts under `priority` alone.
    pub age_step: Duration,
}

impl Rules {
    /// First come, first served.
    pub const STRICT: Rules = Rules::new(Discipline::Strict);

    /// A discipline with the default numbers.
    pub const fn new(discipline: Discipline) -> Rules {
        Rules { discipline, bypass_budget: BYPASS_BUDGET_DEFAULT, age_step: AGE_STEP_DEFAULT }
    }

    /// Classes that a waiter of this age has risen.
    pub(crate) fn risen(&self, age: Duration) -> u64 {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        nanos(age) / nanos(self.age_step)
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::STRICT
    }
}

/// The rules of each namespace that has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRules(BTreeMap<Box<str>, Rules>);

impl NamespaceRules {
    /// Every namespace is strict.
    pub const fn new() -> NamespaceRules {
        NamespaceRules(BTreeMap::new())
    }

    /// Gives a namespace rules of its own, instead of those it may have had.
    ///
    /// # Panics
    /// For an age step of no length.
    pub fn set(&mut self, namespace: Namespace<'_>, rules: Rules) {
        assert!(!rules.age_step.is_zero(), "to rise by a class takes time");
        self.0.insert(namespace.as_str().into(), rules);
    }

    /// Each namespace that has rules of its own, in the order of their names.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Rules)> {
        self.0.iter().map(|(namespace, &rules)| (&**namespace, rules))
    }

    /// The rules of a namespace.
    pub fn of(&self, namespace: Namespace<'_>) -> Rules {
        self.0.get(namespace.as_str()).copied().unwrap_or(Rules::STRICT)
    }
}

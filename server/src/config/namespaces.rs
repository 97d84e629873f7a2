//! What a namespace can be told: by what its wait queues go. A number that would mean nothing under the discipline that
//! was chosen is refused, because whoever wrote it expects something of it.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlock_locktable::{NamespaceRules, Rules};
use fairlock_protocol::limits::{AGE_STEP_MAX, AGE_STEP_MIN, BYPASS_BUDGET_MAX, NAMESPACES_MAX};
use fairlock_protocol::{Discipline, Namespace};
use serde::Deserialize;

use super::{ConfigError, values};

/// A section `[namespace.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NamespaceConfig {
    /// By what wait queues go.
    #[serde(deserialize_with = "values::discipline")]
    pub discipline: Discipline,
    /// Times a waiter may be passed; `None`: 16. Not for `strict`.
    pub bypass_budget: Option<u32>,
    /// How long a waiter waits for each class it rises; `None`: 100 ms. For `priority` alone.
    #[serde(deserialize_with = "values::some_duration")]
    pub age_step: Option<Duration>,
}

impl NamespaceConfig {
    /// A discipline with the default numbers.
    pub const fn new(discipline: Discipline) -> NamespaceConfig {
        NamespaceConfig { discipline, bypass_budget: None, age_step: None }
    }

    /// What cannot be: the key, and what to do.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let choose = "nobody is passed in a strict namespace; leave it out, or set `discipline` to \"phase\" or \"priority\"";
        let no_age = "classes rise with age under discipline \"priority\" alone; leave it out";
        let is_possible = |budget: u32| (1..=BYPASS_BUDGET_MAX).contains(&budget);
        let (strict, classed) =
            (self.discipline == Discipline::Strict, self.discipline == Discipline::Priority);
        match (self.bypass_budget, self.age_step) {
            (Some(_), _) if strict => Some(("bypass_budget", choose)),
            (Some(budget), _) if !is_possible(budget) => {
                Some(("bypass_budget", "1 to 65536 is possible; where nobody may be passed, be \"strict\""))
            }
            (_, Some(_)) if !classed => Some(("age_step", no_age)),
            (_, Some(step)) if !(AGE_STEP_MIN..=AGE_STEP_MAX).contains(&step) => {
                Some(("age_step", "1ms to 1h is possible"))
            }
            _ => None,
        }
    }

    fn rules(&self) -> Rules {
        let mut rules = Rules::new(self.discipline);
        rules.bypass_budget = self.bypass_budget.unwrap_or(rules.bypass_budget);
        rules.age_step = self.age_step.unwrap_or(rules.age_step);
        rules
    }
}

/// Whether queues may go so.
///
/// # Errors
/// [`ConfigError`], naming namespace and key, and what to do.
pub(super) fn check(namespaces: &BTreeMap<String, NamespaceConfig>) -> Result<(), ConfigError> {
    if namespaces.len() > NAMESPACES_MAX {
        return Err(ConfigError::value("namespace", "at most 4096 namespaces are possible"));
    }
    for (name, config) in namespaces {
        let named = !name.is_empty() && Namespace::new(name.as_bytes()).is_ok();
        let unnamed = ("", "a namespace is named with 1 to 64 of a-z 0-9 . _ -");
        if let Some((key, message)) = if named { config.fault() } else { Some(unnamed) } {
            return Err(ConfigError::Namespace { namespace: name.clone(), key, message });
        }
    }
    Ok(())
}

/// What the lock tables are told. The namespaces were checked.
pub(super) fn rules(namespaces: &BTreeMap<String, NamespaceConfig>) -> NamespaceRules {
    let mut told = NamespaceRules::new();
    for (name, config) in namespaces {
        if let Ok(namespace) = Namespace::new(name.as_bytes()) {
            told.set(namespace, config.rules());
        }
    }
    told
}

//! Grants that stay with the client (cached grants): which words of the connection's memory stand for which locks, and how
//! one is entered and left without a message.
//!
//! A tenure begins with the server's note and ends when the server takes the word, which nobody is told of: whoever tries
//! to enter finds out. So what is remembered here is a hint, and the word decides.

use super::ask::Spec;
use super::hold::Facts;
use crate::transport::Memory;
use fairlock_protocol::GrantId;
use fairlock_protocol::name::DEFAULT_NAMESPACE;
use fairlock_shm::word::{Entry, Generation, Holder, Seen, Word};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One tenure of a word.
#[derive(Debug)]
pub(crate) struct Tenure {
    memory: Arc<Memory>,
    pub(crate) index: u32,
    pub(crate) generation: Generation,
    pub(crate) grant: GrantId,
    pub(crate) facts: Facts,
}

impl Tenure {
    /// `None`: there is no such word.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        (index, generation): (u32, Generation),
        (grant, facts): (GrantId, Facts),
    ) -> Option<Tenure> {
        memory.word(index)?;
        Some(Tenure { memory: Arc::clone(memory), index, generation, grant, facts })
    }

    fn word(&self) -> &Word {
        self.memory.word(self.index).expect("looked at when the tenure began")
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Enters, if nobody is inside and nobody waits.
    pub(crate) fn enter(&self, holder: Holder) -> Entry {
        self.word().enter(self.generation, holder, self.memory.leaving())
    }

    /// Leaves. `true`: the server should look at the word.
    pub(crate) fn leave(&self) -> bool {
        self.word().leave(self.generation, self.memory.leaving())
    }

    /// Whether this one is inside.
    pub(crate) fn is_held(&self, holder: Holder) -> bool {
        self.word().is_held(self.generation, holder)
    }

    /// Whether anybody is inside, also one who was renounced.
    pub(crate) fn is_occupied(&self) -> bool {
        self.word().is_occupied(self.generation)
    }

    /// What the word says.
    pub(crate) fn look(&self) -> Seen {
        self.word().look(self.generation)
    }

    /// Nobody enters any more; what the word said last.
    pub(crate) fn shut(&self) -> Seen {
        self.word().shut(self.generation)
    }

    /// Nobody enters any more, and whoever is inside finds out.
    pub(crate) fn renounce(&self) {
        self.word().renounce(self.generation);
    }
}

/// A tenure and the one who is inside.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) holder: Holder,
}

/// What is locked, as a key.
#[derive(Clone, Debug)]
struct Named(Arc<Spec>);

impl Named {
    fn parts(&self) -> (&str, &[u8]) {
        let namespace: &str = &self.0.namespace;
        (if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }, &self.0.name)
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Named) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Named {}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// A tenure that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) tenure: Arc<Tenure>,
    /// It may be entered. Else its holder went on by messages, and it is remembered only because the server does not
    /// know whose it is.
    pub(crate) is_open: bool,
}

/// The tenures of one connection; never more than its memory has words, because a new one in a word ends the old one.
#[derive(Debug, Default)]
pub(crate) struct Tenures {
    by_name: HashMap<Named, Vec<Kept>>,
    names: HashMap<u32, Named>,
}

impl Tenures {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Those of one lock, in every mode.
    pub(crate) fn of(&self, spec: &Arc<Spec>) -> &[Kept] {
        if self.is_empty() {
            return &[];
        }
        self.by_name.get(&Named(Arc::clone(spec))).map_or(&[], Vec::as_slice)
    }

    /// A tenure begins.
    pub(crate) fn keep(&mut self, spec: &Arc<Spec>, tenure: &Arc<Tenure>) {
        self.forget(tenure.index);
        let name = Named(Arc::clone(spec));
        self.names.insert(tenure.index, name.clone());
        self.by_name.entry(name).or_default().push(Kept { tenure: Arc::clone(tenure), is_open: true });
    }

    /// The tenure in this word is over.
    pub(crate) fn forget(&mut self, index: u32) {
        let Some(name) = self.names.remove(&index) else { return };
        if let Some(kept) = self.by_name.get_mut(&name) {
            kept.retain(|kept| kept.tenure.index != index);
            if kept.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// This tenure is over. Its word may be another one's by now.
    pub(crate) fn end(&mut self, tenure: &Arc<Tenure>) {
        if self.kept(tenure).is_some() {
            self.forget(tenure.index);
        }
    }

    /// This tenure goes on by messages.
    pub(crate) fn shut(&mut self, tenure: &Arc<Tenure>) {
        if let Some(kept) = self.kept(tenure) {
            kept.is_open = false;
        }
    }

    fn kept(&mut self, tenure: &Arc<Tenure>) -> Option<&mut Kept> {
        let kept = self.by_name.get_mut(self.names.get(&tenure.index)?)?;
        kept.iter_mut().find(|kept| Arc::ptr_eq(&kept.tenure, tenure))
    }

    /// The tenure of a grant.
    pub(crate) fn of_grant(&self, grant: GrantId) -> Option<Arc<Tenure>> {
        let mut kept = self.by_name.values().flatten();
        kept.find(|kept| kept.tenure.grant == grant).map(|kept| Arc::clone(&kept.tenure))
    }

    /// All of them and whose they are, in the order of their grants.
    pub(crate) fn all(&self) -> Vec<(Arc<Spec>, Arc<Tenure>)> {
        let named = self.by_name.iter().flat_map(|(name, kept)| kept.iter().map(move |kept| (name, kept)));
        let mut all: Vec<_> =
            named.map(|(name, kept)| (Arc::clone(&name.0), Arc::clone(&kept.tenure))).collect();
        all.sort_unstable_by_key(|(_, tenure)| tenure.grant);
        all
    }

    /// All are over.
    pub(crate) fn clear(&mut self) {
        self.by_name.clear();
        self.names.clear();
    }
}

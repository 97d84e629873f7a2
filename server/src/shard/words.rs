//! Grant words of the shard's clients: which grants stay with a client after it left them, and how they come back.
//!
//! The words themselves lie in memory that a client writes, so what is known about them is kept here: which word is in
//! use for which grant, and in which tenure. A word says something only through this side's own compare-and-swap. The
//! table knows a cached grant as one that nobody of the client owns and that is told when it blocks somebody; being
//! told is where it is taken back.

mod caching;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fairlock_protocol::{GrantId, Tick};
use fairlock_shm::segment::{Segment, WORDS};
use fairlock_shm::word::{Generation, Seen, Word};

pub(super) use caching::Histories;

/// Words looked at for that in one step.
const RECLAIM_WORDS_MAX: usize = 1024;
/// Retired words looked at when their client says something.
const RETIRED_LOOKS_MAX: usize = 16;

/// What a word of a client is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing.
    Free,
    /// A grant that stays with its client. `entries`: how often it had been entered when it was last looked at.
    Kept { grant: GrantId, entries: u64 },
    /// The same, wanted back.
    Wanted { grant: GrantId },
    /// Nothing, but a holder whose tenure ended by force may still write to it.
    Retired,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    generation: Generation,
    used: Use,
}

/// How a word answered when it was wanted.
enum Asked {
    /// Nobody was inside.
    Returned(GrantId),
    /// Somebody is.
    Inside,
    /// Somebody is, and was when it was wanted before.
    Again,
}

/// The words of one connection.
#[derive(Debug)]
pub(crate) struct Words {
    segment: Arc<Segment>,
    /// Grants that may stay with the client at a time.
    most: usize,
    /// As many as were ever used.
    places: Vec<Place>,
    free: Vec<u32>,
    retired: VecDeque<u32>,
    by_grant: HashMap<GrantId, u32>,
    /// Where the search for idle words goes on.
    hand: usize,
}

impl Words {
    /// None in use, and never more than `most`.
    pub(crate) fn new(segment: Arc<Segment>, most: usize) -> Words {
        let (places, free, retired) = (Vec::new(), Vec::new(), VecDeque::new());
        Words { segment, most: most.min(WORDS), places, free, retired, by_grant: HashMap::new(), hand: 0 }
    }

    /// The client is shown renewals up to this moment, and no later ones.
    pub(super) fn stop_renewing(&self, at: Tick) {
        self.segment.status().stop_renewing(at.0);
    }

    fn word(&self, index: u32) -> &Word {
        self.segment.word(index).expect("only words that exist are used")
    }

    fn place(&mut self, index: u32) -> &mut Place {
        &mut self.places[index as usize]
    }

    /// Grants into a word that is not in use; `None` when all are.
    fn keep(&mut self, grant: GrantId) -> Option<(u32, Generation)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.most => {
                self.places.push(Place { generation: Generation(0), used: Use::Free });
                u32::try_from(self.places.len() - 1).expect("a segment has a few thousand words")
            }
            None => return None,
        };
        let place = self.place(index);
        assert_eq!(place.used, Use::Free, "a word is in use once");
        // Wraps after 2³² tenures of one word; a client that slept through as many is mistaken about one of them.
        place.generation = Generation(place.generation.0.wrapping_add(1));
        place.used = Use::Kept { grant, entries: 0 };
        let generation = place.generation;
        self.word(index).grant(generation, false);
        self.by_grant.insert(grant, index);
        Some((index, generation))
    }

    /// The word is in use no more.
    fn drop_use(&mut self, index: u32, next: Use) {
        let place = self.place(index);
        if let Use::Kept { grant, .. } | Use::Wanted { grant } = place.used {
            place.used = next;
            self.by_grant.remove(&grant);
        }
        match next {
            Use::Free => self.free.push(index),
            Use::Retired => self.retired.push_back(index),
            Use::Kept { .. } | Use::Wanted { .. } => unreachable!("a use ends in none"),
        }
    }

    /// Takes a word back if nobody is inside.
    fn take(&mut self, index: u32) -> Option<GrantId> {
        let Place { generation, used } = self.places[index as usize];
        let (Use::Kept { grant, .. } | Use::Wanted { grant }) = used else { return None };
        if !self.word(index).take(generation) {
            return None;
        }
        self.drop_use(index, Use::Free);
        Some(grant)
    }

    /// Somebody waits for this grant. Gives it back if nobody is inside; else says whether it was wanted before.
    fn want(&mut self, index: u32) -> Asked {
        self.word(index).want();
        let before = self.places[index as usize].used;
        if let Use::Kept { grant, .. } = before {
            self.place(index).used = Use::Wanted { grant };
        }
        match (self.take(index), before) {
            (Some(grant), _) => Asked::Returned(grant),
            (None, Use::Wanted { .. }) => Asked::Again,
            (None, _) => Asked::Inside,
        }
    }

    /// Ends the use of a word by force. Gives the grant when nobody was inside.
    fn void(&mut self, index: u32) -> Option<GrantId> {
        let Place { generation, used } = self.places[index as usize];
        let (Use::Kept { grant, .. } | Use::Wanted { grant }) = used else { return None };
        let free = self.word(index).void(generation) == Seen::Free;
        self.drop_use(index, if free { Use::Free } else { Use::Retired });
        free.then_some(grant)
    }

    /// Looks whether retired words were acknowledged.
    fn look_at_retired(&mut self) {
        for _ in 0..self.retired.len().min(RETIRED_LOOKS_MAX) {
            let Some(index) = self.retired.pop_front() else { return };
            let generation = self.places[index as usize].generation;
            if self.word(index).take(generation) {
                self.place(index).used = Use::Free;
                self.free.push(index);
            } else {
                self.retired.push_back(index);
            }
        }
    }

    /// Takes back words that nobody entered since the last time, a few at a time. Appends their grants.
    fn take_idle(&mut self, found: &mut Vec<GrantId>) -> usize {
        let looks = self.places.len().min(RECLAIM_WORDS_MAX);
        for _ in 0..looks {
            let at = self.hand;
            self.hand = (at + 1) % self.places.len();
            let index = u32::try_from(at).expect("a segment has a few thousand words");
            if let Use::Kept { grant, entries } = self.places[at].used {
                let now = self.word(index).entries();
                if now == entries {
                    found.extend(self.take(index));
                } else {
                    self.places[at].used = Use::Kept { grant, entries: now };
                }
            }
        }
        looks
    }

    /// Whether a grant is cached and nobody inside, for people.
    pub(crate) fn is_idle(&self, grant: GrantId) -> bool {
        let Some(&index) = self.by_grant.get(&grant) else { return false };
        self.word(index).look(self.places[index as usize].generation) == Seen::Free
    }

    /// Takes back every word with nobody inside. Gives their grants.
    fn take_free(&mut self) -> Vec<GrantId> {
        let mut kept: Vec<u32> = self.by_grant.values().copied().collect();
        kept.sort_unstable();
        kept.into_iter().filter_map(|index| self.take(index)).collect()
    }

    /// The session is over: that is to be seen before any word changes.
    pub(super) fn end(&mut self) {
        self.segment.status().end();
        let _ = self.void_all();
    }

    /// Ends every use by force. Gives the grants with nobody inside.
    fn void_all(&mut self) -> Vec<GrantId> {
        let mut kept: Vec<u32> = self.by_grant.values().copied().collect();
        kept.sort_unstable();
        kept.into_iter().filter_map(|index| self.void(index)).collect()
    }
}

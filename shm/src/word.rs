//! The grant word: how a lock that nobody else wants stays with a client, to be entered again without a message.
//!
//! The word lies in the client's own segment. While it says FREE its client may enter (compare-and-swap to HELD) and
//! leave (store of FREE); the server takes it away by compare-and-swap from FREE, with nobody's help, and that is the
//! only way in which a tenure ends but by force or by death. A client that finds `wanted` set after it left sends a
//! hint to look at the word; the hint is never the return of the grant, because another thread may have entered
//! lawfully between the store and the load. A tenure has a generation, which a client remembers from its GRANTED reply
//! and never reads from the word: a word that was taken and given for another lock is not entered by mistake.
//!
//! Forced ends swap the word to REVOKED before anybody else is granted. A holder's late store may still write FREE
//! over that, so the word is *retired*: it is used again only after the server itself has taken that FREE back.
//!
//! `tests/grant_word` searches every interleaving of this protocol under x86-TSO, and its weakened variants.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

const NONE: u64 = 0;
const FREE: u64 = 1;
const HELD: u64 = 2;
const REVOKED: u64 = 3;
/// As REVOKED, but by the client's own library, which goes on to wait for the holder.
const RENOUNCED: u64 = 4;

/// How often a forced end tries to spare a renounced word.
const VOID_TRIES: u32 = 4;

/// `wanted`: somebody waits for this tenure to end.
const WANTED: u32 = 1;
/// `wanted`: this tenure is over by force.
const VOID: u32 = 2;

/// Which tenure of a word: raised with every grant into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// Who in the client's process holds: 0 for the one whose request the server granted, else a number of the library's
/// own. 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u32);

impl Holder {
    /// The one whose request was granted.
    pub const GRANTED: Holder = Holder(0);

    /// A number of 24 bits; higher bits are cut off.
    pub const fn new(number: u32) -> Holder {
        Holder(number & 0x00ff_ffff)
    }
}

const fn pack(status: u64, generation: Generation, holder: Holder) -> u64 {
    (generation.0 as u64) << 32 | (holder.0 as u64) << 8 | status
}

/// One word of a segment, on a line of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Word {
    state: AtomicU64,
    /// Entries made without a message; a hint that the tenure is in use.
    entries: AtomicU64,
    wanted: AtomicU32,
}

/// How an attempt to enter came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Held.
    Entered,
    /// Not free, or not this tenure any more: ask the server.
    Refused,
    /// Entered and left again, because somebody waits: ask the server, and if nothing is asked send it a hint to look
    /// at this word.
    Undone,
}

/// What a word said to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody is inside.
    Free,
    /// A client's thread is inside.
    Held,
    /// Neither: the word is not in use, or its client wrote something of its own.
    Neither,
}

const fn seen(state: u64, generation: Generation) -> Seen {
    if state >> 32 != generation.0 as u64 {
        return Seen::Neither;
    }
    match state & 0xff {
        // A free word has no holder; one that has is not what a client of ours writes, and `take` would not take it.
        FREE if state == pack(FREE, generation, Holder::GRANTED) => Seen::Free,
        HELD => Seen::Held,
        _ => Seen::Neither,
    }
}

/// How a client's stores of FREE are made visible before the server sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// A plain store; the server issues a barrier on every processor before it sleeps over a wanted word.
    Barrier,
    /// An exchange, where such a barrier is not to be had.
    Exchange,
}

/// The client's side.
impl Word {
    /// Enters without a message, if the word is free, of this tenure, and nobody waits.
    #[inline]
    pub fn enter(&self, generation: Generation, holder: Holder, leaving: Leaving) -> Entry {
        // Relaxed: only keeps a loop of tries from hiding FREE from the server; the load below counts.
        if self.wanted.load(Ordering::Relaxed) != 0 {
            return Entry::Refused;
        }
        let free = pack(FREE, generation, Holder::GRANTED);
        let held = pack(HELD, generation, holder);
        // SeqCst: a locked instruction orders it before the load of `wanted`. Acquire part: pairs with the Release of
        // `leave`, so that what the last holder did under the lock is seen.
        if self.state.compare_exchange(free, held, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Entry::Refused;
        }
        // SeqCst: pairs with the store in `want` and `void`. Either the server's attempt to take the word came first
        // and the exchange above failed, or it finds HELD and this, or the load after leaving, finds `wanted`.
        if self.wanted.load(Ordering::SeqCst) != 0 {
            self.store_free(generation, leaving);
            return Entry::Undone;
        }
        // Relaxed, and a load and a store: only the holder writes, and it is a hint.
        self.entries.store(self.entries.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Entry::Entered
    }

    /// Leaves. `true`: somebody waits; send the server a hint to look at this word.
    #[inline]
    #[must_use]
    pub fn leave(&self, generation: Generation, leaving: Leaving) -> bool {
        self.store_free(generation, leaving);
        // SeqCst: after an exchange this is ordered behind it. After a plain store it is not; then a server that sleeps
        // meanwhile has issued its barrier between setting `wanted` and its last look at this word.
        self.wanted.load(Ordering::SeqCst) != 0
    }

    #[inline]
    fn store_free(&self, generation: Generation, leaving: Leaving) {
        let free = pack(FREE, generation, Holder::GRANTED);
        match leaving {
            // Release: pairs with the exchanges in `enter` and `take`.
            Leaving::Barrier => self.state.store(free, Ordering::Release),
            Leaving::Exchange => {
                self.state.swap(free, Ordering::SeqCst);
            }
        }
    }

    /// Whether this holder of this tenure is still inside: false from the moment at which the server ended it by force.
    #[inline]
    pub fn is_held(&self, generation: Generation, holder: Holder) -> bool {
        // Acquire: pairs with the swap in `void`; whatever came before the forced end is seen with it.
        self.state.load(Ordering::Acquire) == pack(HELD, generation, holder)
    }

    /// The client's own library lets nobody enter this tenure any more, because its connection is gone; whoever is inside
    /// stays there until he leaves.
    pub fn shut(&self, generation: Generation) -> Seen {
        let free = pack(FREE, generation, Holder::GRANTED);
        self.wanted.store(VOID, Ordering::SeqCst);
        // SeqCst: as in `renounce`, and changes nothing either: of this and an exchange in `enter` one sees the other.
        let found = self.state.compare_exchange(free, free, Ordering::SeqCst, Ordering::SeqCst);
        seen(found.unwrap_or_else(|state| state), generation)
    }

    /// The client's own library ends a tenure that an operator broke, before it confirms: nobody enters it any more, and
    /// whoever is inside finds out. A free word stays free, for the server to take; one that was held is [`Seen::Neither`]
    /// until its holder leaves, and then free.
    pub fn renounce(&self, generation: Generation) {
        let mut state = self.state.load(Ordering::Relaxed);
        if seen(state, generation) == Seen::Neither {
            return;
        }
        // As the server would by force, and for the same reason: a holder's late store of FREE opens the word to nobody.
        // Should the word be given again at this moment, its new tenure ends at its first leaving: slower, not wrong.
        self.wanted.store(VOID, Ordering::SeqCst);
        while seen(state, generation) != Seen::Neither {
            // Over FREE it changes nothing, but is ordered with the exchange in `enter`: either that finds `wanted`,
            // or this finds HELD.
            let over = match seen(state, generation) {
                Seen::Free => state,
                _ => pack(RENOUNCED, generation, Holder::GRANTED),
            };
            // SeqCst: as in `void`.
            match self.state.compare_exchange(state, over, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }
}

/// The client's side, of one who waits for another.
impl Word {
    /// Whether somebody of this tenure is inside, and not thrown out by the server: what he was given may be given to
    /// nobody else.
    pub fn is_occupied(&self, generation: Generation) -> bool {
        // Acquire: pairs with the Release of `leave`; what he did inside comes before whatever follows from his leaving.
        let state = self.state.load(Ordering::Acquire);
        state >> 32 == u64::from(generation.0) && matches!(state & 0xff, HELD | RENOUNCED)
    }
}

/// The server's side. It keeps privately which word is in use for what, and believes of a word only what its own
/// compare-and-swap proved.
impl Word {
    /// Grants into a word that is not in use: the granted thread is inside. `wanted`: more wait behind it already.
    pub fn grant(&self, generation: Generation, wanted: bool) {
        // `wanted` is never cleared within a tenure; the one before was over when the word came back.
        self.wanted.store(if wanted { WANTED } else { 0 }, Ordering::Relaxed);
        // Release: `wanted` of this tenure is seen with it. The client learns the generation from the reply.
        self.state.store(pack(HELD, generation, Holder::GRANTED), Ordering::Release);
    }

    /// Somebody waits. No thread of the client enters any more once this is visible.
    pub fn want(&self) {
        // SeqCst: pairs with the loads in `enter` and `leave`. Never takes a VOID back.
        if self.wanted.load(Ordering::Relaxed) == 0 {
            self.wanted.store(WANTED, Ordering::SeqCst);
        }
    }

    /// Takes the word back if nobody is inside: the tenure is over, the word may be used again. Also the
    /// acknowledgement of a retired word.
    #[must_use]
    pub fn take(&self, generation: Generation) -> bool {
        let free = pack(FREE, generation, Holder::GRANTED);
        let none = pack(NONE, generation, Holder::GRANTED);
        // SeqCst: after `want`, so that of this and an `enter` one sees the other; also where it fails, because the server
        // then waits for the hint of a holder who must have seen `wanted`. Acquire part: pairs with the Release in
        // `leave`.
        self.state.compare_exchange(free, none, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Ends a tenure by force, before anybody else is granted. [`Seen::Free`]: nobody was inside and the word may be used
    /// again; else it is retired until [`Word::take`] succeeds.
    ///
    /// A word that its library has renounced is believed by nobody, and stays as it is: who is inside is waited for.
    pub fn void(&self, generation: Generation) -> Seen {
        self.wanted.store(VOID, Ordering::SeqCst);
        let over = pack(REVOKED, generation, Holder::GRANTED);
        // A holder's and his library's stores are two; whoever goes on storing is no client of ours.
        for _ in 0..VOID_TRIES {
            let state = self.state.load(Ordering::SeqCst);
            if state == pack(RENOUNCED, generation, Holder::GRANTED) {
                return Seen::Neither;
            }
            // SeqCst: a locked instruction; it is visible to the holder's next check before anything later of the server is.
            if self.state.compare_exchange(state, over, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return seen(state, generation);
            }
        }
        // SeqCst: the same.
        seen(self.state.swap(over, Ordering::SeqCst), generation)
    }

    /// What the word says at this moment, for people to look at.
    pub fn look(&self, generation: Generation) -> Seen {
        seen(self.state.load(Ordering::Relaxed), generation)
    }

    /// How often it was entered without a message; modulo 2⁶⁴, and only as true as the client is.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod order;

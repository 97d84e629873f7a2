//! Who must be woken: two words of a segment with which each side tells the other how it waits.
//!
//! [`Attention`] is the server's: while it says LISTENING the server comes by and looks at the ring itself, so that a
//! client says something by storing it. Before the server sleeps it says ASLEEP and looks once more; a client that
//! reads ASLEEP rings (a byte on its socket). [`Parking`] is the client's: it says how to wake whoever waits for a
//! reply, and the server, having published its replies, looks whether anybody does.
//!
//! Both are the same argument. One side stores its message, fences, and loads the word; the other stores the word,
//! fences, and loads the message. Sequentially consistent fences are totally ordered: whichever comes second sees what
//! the other stored. So either the message is seen before sleeping, or the sleeper is seen after speaking.

use crate::sync::{AtomicU32, Ordering, fence};

const LISTENING: u32 = 1;
const ASLEEP: u32 = 0;

/// Whether the server looks at a ring by itself. Written by the server alone; zeroed memory says that it does not.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Attention {
    word: AtomicU32,
}

impl Attention {
    /// The server comes by from now on.
    pub fn listen(&self) {
        // Release: nothing depends on it; a client that reads the old word rings once too often.
        self.word.store(LISTENING, Ordering::Release);
    }

    /// The server stops coming by. It must look at the ring once more after this, and only then sleep.
    pub fn doze(&self) {
        self.word.store(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `must_ring`: see the module.
        fence(Ordering::SeqCst);
    }

    /// Whether the server must be rung, asked after a message was published.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        // Pairs with the fence in `doze`: see the module.
        fence(Ordering::SeqCst);
        self.word.load(Ordering::Relaxed) != LISTENING
    }
}

/// How a client waits for replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It looks by itself.
    Looking,
    /// It sleeps on the word.
    Futex,
    /// It polls its socket.
    Socket,
}

impl Waiting {
    const fn word(self) -> u32 {
        match self {
            Waiting::Looking => 0,
            Waiting::Futex => 1,
            Waiting::Socket => 2,
        }
    }

    /// What a word says; one that says nothing is taken for a client that looks by itself.
    const fn of(word: u32) -> Waiting {
        match word {
            1 => Waiting::Futex,
            2 => Waiting::Socket,
            _ => Waiting::Looking,
        }
    }
}

/// How a client waits: written by the client, and set back by a server that wakes it.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Parking {
    word: AtomicU32,
}

impl Parking {
    /// The client says how it waits from now on. Unless it looks by itself, it must look at the ring once more after this.
    pub fn announce(&self, waiting: Waiting) {
        // AcqRel and the fence: pairs with the fence in `to_wake`; see the module.
        self.word.swap(waiting.word(), Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// How the client says it waits, asked after replies were published (and fenced once for all of them, with
    /// [`publish_fence`]). Whoever waits is set back to looking: he is woken once.
    #[must_use]
    pub fn to_wake(&self) -> Waiting {
        if self.word.load(Ordering::Relaxed) == Waiting::Looking.word() {
            return Waiting::Looking;
        }
        // AcqRel: of a server's wake-ups and the client's own change of mind each is seen once.
        Waiting::of(self.word.swap(Waiting::Looking.word(), Ordering::AcqRel))
    }

    /// The word to sleep on, and the value it has while sleeping makes sense.
    #[cfg(not(loom))]
    pub(crate) fn futex(&self) -> (&AtomicU32, u32) {
        (&self.word, Waiting::Futex.word())
    }
}

/// Orders every reply published so far before every [`Parking::to_wake`] after it.
pub fn publish_fence() {
    fence(Ordering::SeqCst);
}

#[cfg(all(test, loom))]
mod order;

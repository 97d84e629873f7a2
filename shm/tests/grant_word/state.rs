//! One state of the whole: memory, the client's two threads, the server's private knowledge, the remote session, and
//! what of the bounds is left. States are compared and hashed as they stand, so whatever no longer matters is reset.

use crate::memory::{Fifo, Memory, Processor, Store};
use crate::rules::{Bounds, Rules, Weakening};
use crate::shared::{Generation, Thread, Wanted, Word};

/// Two threads and the remote session may wait at once.
pub(crate) const WAITERS: usize = 3;

/// One search: the protocol and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
}

impl Run {
    pub(crate) fn processor(&self, thread: Thread) -> Processor {
        if thread == Thread::T0 || self.bounds.processors == 1 { Processor::First } else { Processor::Second }
    }
}

/// Why a message is published; what comes after it depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Errand {
    Ask,
    Undo,
    Release,
}

/// Where a client thread stands: each is one load, one store or one locked instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Idle,
    /// Loads `wanted` before it takes the word.
    Glance,
    ReadGeneration,
    /// Takes the word: compare-and-swap FREE to HELD.
    Take,
    /// Loads `wanted` after it took the word: the look that counts.
    Look,
    /// Loads whether the server is alive.
    LookAlive,
    /// Stores FREE again.
    Undo,
    Publish(Errand),
    /// Loads `listen`.
    Listen(Errand),
    Bell(Errand),
    Await,
    Inside,
    /// Loads `wanted` after its release.
    LookBack,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Actor {
    pub(crate) phase: Phase,
    pub(crate) acquisitions_left: u8,
    /// Of the word it tries to take or holds.
    pub(crate) generation: Generation,
    pub(crate) is_try: bool,
    /// It holds by a grant without a word.
    pub(crate) wordless: bool,
    pub(crate) seen: Seen,
}

/// What the search watches and the thread does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// It took the word when a waiter was visible.
    pub(crate) late: bool,
    /// It took the word when that was not granted to it.
    pub(crate) foreign: bool,
    /// It went in although it was late and somebody waited.
    pub(crate) overtook: bool,
}

impl Actor {
    pub(crate) fn is_inside(&self) -> bool {
        self.phase == Phase::Inside
    }

    /// The call is over.
    pub(crate) fn rest(&mut self) {
        *self = Self { acquisitions_left: self.acquisitions_left, ..Self::idle(0) };
    }

    const fn idle(acquisitions: u8) -> Self {
        Self {
            phase: Phase::Idle,
            acquisitions_left: acquisitions,
            generation: Generation::BEFORE_ANY,
            is_try: false,
            wordless: false,
            seen: Seen { late: false, foreign: false, overtook: false },
        }
    }
}

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Duty {
    Loop,
    /// `wanted` is stored; the compare-and-swap follows.
    Revoking,
    /// `wanted` is stored as VOID; the swap follows.
    Ending,
    /// At this step of `Rules::falling_asleep`.
    Dozing(u8),
    Asleep,
    Dead,
}

/// Who holds the lock, by the server's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Nobody,
    /// The client, by the word of the current generation: any of its threads or none.
    Word,
    Wordless(Thread),
    Remote,
    /// Nobody here: another node has taken over.
    Elsewhere,
}

/// What the word is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    Unused,
    Granted,
    Revoking,
    /// Ended by force while held; a last store of the holder may still come.
    Retired,
    /// Its client is dead.
    Dead,
    OtherLock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Waiter {
    Local(Thread),
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) duty: Duty,
    pub(crate) holder: Holder,
    pub(crate) standing: Standing,
    pub(crate) generation: Generation,
    pub(crate) queue: Fifo<Waiter, WAITERS>,
    /// Membarrier has drained the clients since the word is on the revoking list (noted with `MembarrierOnce` only).
    pub(crate) drained: bool,
}

/// The remote session; its messages come by socket and wake a sleeping server by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Remote {
    Away,
    Waiting,
    Inside,
}

/// What is left of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) visits: u8,
    pub(crate) grants: u8,
    pub(crate) forced_ends: u8,
    pub(crate) cancels: u8,
    pub(crate) crashes: u8,
    pub(crate) deaths: u8,
    pub(crate) reuses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) threads: [Actor; 2],
    /// The client's memory of the newest reply that granted the word.
    pub(crate) remembered: Generation,
    pub(crate) client_dead: bool,
    pub(crate) server: Server,
    pub(crate) remote: Remote,
    pub(crate) left: Left,
    /// Local entries in this grant that finished after a waiter was visible.
    pub(crate) bypasses: u8,
    /// How often a thread took the word, to undo it, after a waiter was visible (counted with endless tries only).
    pub(crate) passing_takes: u8,
}

impl State {
    pub(crate) fn first(bounds: &Bounds) -> Self {
        let generation = if bounds.cached { Generation::BEFORE_ANY.next() } else { Generation::BEFORE_ANY };
        let word = if bounds.cached { Word::Free(generation) } else { Word::None(generation) };
        let (holder, standing) = if bounds.cached {
            (Holder::Word, Standing::Granted)
        } else {
            (Holder::Nobody, Standing::Unused)
        };
        Self {
            memory: Memory::new(word),
            threads: bounds.acquisitions.map(Actor::idle),
            remembered: generation,
            client_dead: false,
            server: Server {
                duty: Duty::Loop,
                holder,
                standing,
                generation,
                queue: Fifo::new(),
                drained: false,
            },
            remote: Remote::Away,
            left: Left {
                visits: bounds.visits,
                grants: bounds.grants,
                forced_ends: bounds.forced_ends,
                cancels: bounds.cancels,
                crashes: bounds.crashes,
                deaths: bounds.deaths,
                reuses: bounds.reuses,
            },
            bypasses: 0,
            passing_takes: 0,
        }
    }

    pub(crate) fn thread(&self, thread: Thread) -> &Actor {
        &self.threads[thread as usize]
    }

    /// The oldest store of a buffer reaches memory. A take is late for the waiter that it could see only.
    pub(crate) fn drain_one(&mut self, of: Processor) {
        if self.memory.drain_one(of) == Some(Store::Wanted(Wanted::Nobody)) {
            self.threads.iter_mut().for_each(|thread| thread.seen.late = false);
        }
    }

    pub(crate) fn drain_all(&mut self, of: Processor) {
        while !self.memory.fenced(of) {
            self.drain_one(of);
        }
    }

    /// Does the server count this thread's hold as a grant?
    pub(crate) fn is_granted(&self, thread: Thread) -> bool {
        let actor = self.thread(thread);
        match self.server.holder {
            Holder::Word => !actor.wordless && actor.generation == self.server.generation,
            Holder::Wordless(holder) => actor.wordless && holder == thread,
            _ => false,
        }
    }

    /// What the guard of a thread inside says when it is asked now.
    pub(crate) fn guard_says_lost(&self, thread: Thread, run: &Run) -> bool {
        let (actor, by) = (self.thread(thread), run.processor(thread));
        let rules = &run.rules;
        if !self.memory.alive && !rules.has(Weakening::GuardReadsWord) {
            return true;
        }
        if rules.has(Weakening::GuardReadsAlive) {
            return false;
        }
        if actor.wordless {
            return self.memory.load_void(by, thread) && !rules.has(Weakening::GuardReadsNoFlag);
        }
        if rules.has(Weakening::GuardReadsVoid) {
            return self.memory.load_wanted(by) == Wanted::Void;
        }
        self.memory.load_word(by) != Word::Held(actor.generation, thread)
    }
}

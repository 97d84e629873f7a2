//! What a load may return: memory as x86 processors see it. Each processor has one store buffer, first in first out; a
//! store enters it and reaches memory some time later, a load sees the newest own buffered store or else memory. A
//! locked instruction, a fence and a system call wait until the own buffer is empty. That is all of x86-TSO, and it is
//! what lets a client believe it has released a word which the server still sees held.

use crate::shared::{Generation, Listen, Message, Reply, Thread, Wanted, Word};
use std::hash::{Hash, Hasher};

/// Stores a buffer takes: enough for every store between two fences of a client, release or undo with their message, of
/// both threads on one processor. A step that finds no room waits.
pub(crate) const BUFFER_STORES: usize = 6;
/// Messages the ring takes; a client waits for room before it publishes.
pub(crate) const RING_MESSAGES: usize = 6;

/// The server runs on one processor, the client's threads on the two others or both on the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Processor {
    Server,
    First,
    Second,
}

impl Processor {
    pub(crate) const ALL: [Self; 3] = [Self::Server, Self::First, Self::Second];
}

/// First in, first out, in place; unused places are always `None`, so equal queues are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fifo<T, const N: usize> {
    places: [Option<T>; N],
    taken: u8,
}

impl<T: Copy, const N: usize> Fifo<T, N> {
    pub(crate) const fn new() -> Self {
        Self { places: [None; N], taken: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.taken)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = T> {
        self.places[..self.len()].iter().flatten().copied()
    }

    pub(crate) fn push(&mut self, item: T) {
        assert!(self.len() < N, "a step that adds to a queue first asks for room");
        self.places[self.len()] = Some(item);
        self.taken += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.places[0]?;
        // Nothing may stay behind in a place that is not taken.
        self.places[0] = None;
        self.places.rotate_left(1);
        self.taken -= 1;
        Some(first)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(T) -> bool) {
        let before = *self;
        *self = Self::new();
        before.iter().filter(|item| keep(*item)).for_each(|item| self.push(item));
    }
}

impl<T: Copy + Hash, const N: usize> Hash for Fifo<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.taken);
        self.iter().for_each(|item| item.hash(state));
    }
}

/// One store on its way to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Store {
    Word(Word),
    Wanted(Wanted),
    Listen(Listen),
    /// The server is gone: the kernel writes it, from the processor the server died on.
    Gone,
    Reply(Thread, Reply),
    /// The flag that says a grant without a word is over by force.
    Void(Thread, bool),
    Publish(Message),
}

/// Everything shared between client and server, and what is still under way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    pub(crate) word: Word,
    pub(crate) wanted: Wanted,
    pub(crate) listen: Listen,
    pub(crate) alive: bool,
    /// Rung and not yet noted. Only system calls and locked instructions touch it, so no buffer holds it.
    pub(crate) bell: bool,
    pub(crate) replies: [Option<Reply>; 2],
    pub(crate) voids: [bool; 2],
    pub(crate) ring: Fifo<Message, RING_MESSAGES>,
    pub(crate) buffers: [Fifo<Store, BUFFER_STORES>; 3],
}

impl Memory {
    pub(crate) fn new(word: Word) -> Self {
        Self {
            word,
            wanted: Wanted::Nobody,
            listen: Listen::Listening,
            alive: true,
            bell: false,
            replies: [None; 2],
            voids: [false; 2],
            ring: Fifo::new(),
            buffers: [Fifo::new(); 3],
        }
    }

    /// May a locked instruction, a fence or a system call of this processor complete?
    pub(crate) fn fenced(&self, by: Processor) -> bool {
        self.buffers[by as usize].is_empty()
    }

    pub(crate) fn room(&self, by: Processor, stores: usize) -> bool {
        self.buffers[by as usize].len() + stores <= BUFFER_STORES
    }

    /// Is there a place in the ring, those counted that are claimed and not yet visible?
    pub(crate) fn ring_has_room(&self) -> bool {
        let claimed = |by: Processor| {
            self.buffers[by as usize].iter().filter(|store| matches!(store, Store::Publish(_))).count()
        };
        self.ring.len() + claimed(Processor::First) + claimed(Processor::Second) < RING_MESSAGES
    }

    pub(crate) fn store(&mut self, by: Processor, store: Store) {
        self.buffers[by as usize].push(store);
    }

    /// The oldest store of a buffer reaches memory.
    pub(crate) fn drain_one(&mut self, by: Processor) -> Option<Store> {
        let store = self.buffers[by as usize].pop()?;
        match store {
            Store::Word(word) => self.word = word,
            Store::Wanted(wanted) => self.wanted = wanted,
            Store::Listen(listen) => self.listen = listen,
            Store::Gone => self.alive = false,
            Store::Reply(thread, reply) => self.replies[thread as usize] = Some(reply),
            Store::Void(thread, void) => self.voids[thread as usize] = void,
            Store::Publish(message) => self.ring.push(message),
        }
        Some(store)
    }

    /// The own newest buffered store of what `pick` recognises, or what memory holds.
    fn load<T>(&self, by: Processor, pick: impl Fn(Store) -> Option<T>, memory: T) -> T {
        self.buffers[by as usize].iter().rev().find_map(pick).unwrap_or(memory)
    }

    pub(crate) fn load_word(&self, by: Processor) -> Word {
        self.load(by, |store| if let Store::Word(word) = store { Some(word) } else { None }, self.word)
    }

    pub(crate) fn load_wanted(&self, by: Processor) -> Wanted {
        self.load(
            by,
            |store| if let Store::Wanted(wanted) = store { Some(wanted) } else { None },
            self.wanted,
        )
    }

    pub(crate) fn load_listen(&self, by: Processor) -> Listen {
        self.load(
            by,
            |store| if let Store::Listen(listen) = store { Some(listen) } else { None },
            self.listen,
        )
    }

    pub(crate) fn load_void(&self, by: Processor, of: Thread) -> bool {
        let pick = |store| match store {
            Store::Void(thread, void) if thread == of => Some(void),
            _ => None,
        };
        self.load(by, pick, self.voids[of as usize])
    }

    /// The word, by a compare-and-swap of FREE of this generation; the caller has seen that the buffer is empty.
    pub(crate) fn swap_if_free(&mut self, by: Processor, generation: Generation, new: Word) -> bool {
        assert!(self.fenced(by), "a locked instruction waits for the own store buffer");
        let free = self.word == Word::Free(generation);
        if free {
            self.word = new;
        }
        free
    }
}

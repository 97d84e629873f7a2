//! The grant word under every order in which its sides may see each other's stores: never two inside, nobody sleeps
//! through a return, a generation is no other, and an end by force is seen before anybody else is let in. Then with each
//! rule left out in turn, which must be found.
//!
//! Words are left by exchange here. Plain stores need the server's barrier on every processor, which loom has no
//! word for: a fence in one thread cannot stand for one in all. `tests/grant_word` has it, under x86-TSO, and
//! `tests/litmus.rs` on the machine; here that mode is shown to fail without the barrier.

mod ends;

use super::*;
use loom::sync::atomic::AtomicU32 as Plain;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const G: Generation = Generation(7);
const NEXT: Generation = Generation(8);
const ME: Holder = Holder::new(3);
const OTHER: Holder = Holder::new(4);

/// What a lock protects: a number that is read and written apart, so that two who are inside together, or one who does
/// not see what the last one did, lose a visit.
#[derive(Default)]
struct Protected(Plain);

impl Protected {
    fn visit(&self) -> u32 {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        1
    }

    fn assert_visits(&self, visits: u32) {
        assert_eq!(self.0.load(Ordering::Relaxed), visits, "two were inside");
    }
}

/// Hints on their way to the server, which sleeps until one arrives or none can come any more.
#[derive(Default)]
struct Hints {
    state: Mutex<(u32, u32)>,
    changed: Condvar,
}

impl Hints {
    fn send(&self) {
        self.state.lock().expect("nobody panics").0 += 1;
        self.changed.notify_one();
    }

    /// A thread of the client will send no more.
    fn ends(&self) {
        self.state.lock().expect("nobody panics").1 += 1;
        self.changed.notify_one();
    }

    /// `false`: none came, and all `threads` have ended.
    fn wait(&self, threads: u32) -> bool {
        let mut state = self.state.lock().expect("nobody panics");
        while state.0 == 0 && state.1 < threads {
            state = self.changed.wait(state).expect("nobody panics");
        }
        let came = state.0 > 0;
        state.0 = 0;
        came
    }
}

#[derive(Default)]
struct Shared {
    word: Word,
    lock: Protected,
    hints: Hints,
}

impl Shared {
    /// A tenure of this word that nobody is inside of.
    fn free() -> Arc<Shared> {
        let shared = Shared::default();
        shared.word.grant(G, false);
        assert!(!shared.word.leave(G, Leaving::Exchange));
        Arc::new(shared)
    }
}

/// Every run with at most so many switches away from a side that could go on; `None`: every run.
fn model(bound: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.check(run);
}

/// How the sides of a run behave.
#[derive(Clone, Copy)]
struct Habits {
    enter: fn(&Word, Holder) -> Entry,
    leave: fn(&Word) -> bool,
    /// Whether an attempt that was undone says so.
    tells: bool,
    /// What the server takes for the end of a tenure, once it has had a hint.
    returned: fn(&Word) -> bool,
}

const SOUND: Habits = Habits {
    enter: |word, holder| word.enter(G, holder, Leaving::Exchange),
    leave: |word| word.leave(G, Leaving::Exchange),
    tells: true,
    returned: |word| word.take(G),
};

impl Habits {
    /// One attempt of a client's thread; how often it was inside.
    fn attempt(&self, shared: &Shared, holder: Holder) -> u32 {
        match (self.enter)(&shared.word, holder) {
            Entry::Entered => self.visit(shared),
            Entry::Undone if self.tells => {
                shared.hints.send();
                0
            }
            Entry::Refused | Entry::Undone => 0,
        }
    }

    /// Of a thread that is inside.
    fn visit(&self, shared: &Shared) -> u32 {
        let visits = shared.lock.visit();
        if (self.leave)(&shared.word) {
            shared.hints.send();
        }
        visits
    }
}

fn two_threads_exclude_each_other(habits: Habits) {
    model(None, move || {
        let shared = Shared::free();
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || habits.attempt(&theirs, OTHER) + habits.attempt(&theirs, OTHER));
        let visits = habits.attempt(&shared, ME) + habits.attempt(&shared, ME);
        shared.lock.assert_visits(visits + thread.join().expect("the thread ends"));
    });
}

#[test]
fn two_threads_of_a_client_are_never_inside_together() {
    two_threads_exclude_each_other(SOUND);
    // What they do to each other needs no barrier.
    two_threads_exclude_each_other(BY_PLAIN_STORE);
}

const BY_PLAIN_STORE: Habits = Habits {
    enter: |word, holder| word.enter(G, holder, Leaving::Barrier),
    leave: |word| word.leave(G, Leaving::Barrier),
    ..SOUND
};

#[test]
#[should_panic(expected = "two were inside")]
fn mutant_a_holder_leaves_by_a_relaxed_store() {
    let leave = |word: &Word| {
        word.state.store(pack(FREE, G, Holder::GRANTED), Ordering::Relaxed);
        word.wanted.load(Ordering::SeqCst) != 0
    };
    two_threads_exclude_each_other(Habits { leave, ..SOUND });
}

#[test]
#[should_panic(expected = "two were inside")]
fn mutant_a_holder_enters_by_a_relaxed_exchange() {
    let enter = |word: &Word, holder| {
        let (free, held) = (pack(FREE, G, Holder::GRANTED), pack(HELD, G, holder));
        match word.state.compare_exchange(free, held, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Entry::Entered,
            Err(_) => Entry::Refused,
        }
    };
    two_threads_exclude_each_other(Habits { enter, ..SOUND });
}

/// One thread is inside and leaves, another tries; somebody waits, and the server lets him in once it has the word back.
fn the_word_comes_back(bound: Option<usize>, others: u32, habits: Habits) {
    model(bound, move || {
        let shared = Arc::new(Shared::default());
        shared.word.grant(G, false);
        let threads: Vec<_> = (0..=others)
            .map(|number| {
                let theirs = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut visits = if number == 0 { habits.visit(&theirs) } else { 0 };
                    visits += habits.attempt(&theirs, Holder::new(number + 1));
                    theirs.hints.ends();
                    visits
                })
            })
            .collect();
        shared.word.want();
        let mut has_it = shared.word.take(G);
        while !has_it {
            assert!(shared.hints.wait(others + 1), "slept through the return");
            has_it = (habits.returned)(&shared.word);
        }
        let mut visits = shared.lock.visit();
        for thread in threads {
            visits += thread.join().expect("the thread ends");
        }
        shared.lock.assert_visits(visits);
    });
}

#[test]
fn a_word_that_is_wanted_comes_back_to_a_sleeping_server() {
    the_word_comes_back(None, 0, SOUND);
    the_word_comes_back(Some(3), 1, SOUND);
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_words_are_left_by_plain_stores_and_the_server_issues_no_barrier() {
    the_word_comes_back(None, 0, BY_PLAIN_STORE);
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_an_attempt_is_undone_in_silence() {
    the_word_comes_back(Some(3), 0, Habits { tells: false, ..SOUND });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_a_holder_leaves_without_looking_who_waits() {
    let leave = |word: &Word| {
        let _ = word.leave(G, Leaving::Exchange);
        false
    };
    the_word_comes_back(None, 0, Habits { leave, ..SOUND });
}

#[test]
#[should_panic(expected = "two were inside")]
fn mutant_a_hint_is_taken_for_the_return() {
    the_word_comes_back(Some(3), 1, Habits { returned: |_| true, ..SOUND });
}

/// A thread is inside until the server has said that it found it there; does another, which looked at `wanted` long
/// before, get in behind it?
fn nobody_passes_a_waiter(habits: Habits) {
    model(Some(3), move || {
        let shared = Arc::new(Shared::default());
        shared.word.grant(G, false);
        let said = Arc::new(Plain::new(0));
        let (theirs, heard) = (Arc::clone(&shared), Arc::clone(&said));
        let holder = thread::spawn(move || {
            let found = heard.load(Ordering::Acquire) == 1;
            habits.visit(&theirs);
            found
        });
        let theirs = Arc::clone(&shared);
        let another = thread::spawn(move || habits.attempt(&theirs, OTHER) == 1);
        shared.word.want();
        if !shared.word.take(G) {
            said.store(1, Ordering::Release);
        }
        let found = holder.join().expect("the thread ends");
        let entered = another.join().expect("the thread ends");
        assert!(!(found && entered), "passed a waiter");
    });
}

#[test]
fn nobody_enters_a_word_behind_a_holder_whom_the_server_found_inside() {
    nobody_passes_a_waiter(SOUND);
}

#[test]
#[should_panic(expected = "passed a waiter")]
fn mutant_wanted_is_not_looked_at_after_entering() {
    let enter = |word: &Word, holder| {
        let (free, held) = (pack(FREE, G, Holder::GRANTED), pack(HELD, G, holder));
        if word.wanted.load(Ordering::Relaxed) != 0 {
            return Entry::Refused;
        }
        match word.state.compare_exchange(free, held, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => Entry::Entered,
            Err(_) => Entry::Refused,
        }
    };
    nobody_passes_a_waiter(Habits { enter, ..SOUND });
}

/// The word is taken and given for another lock, while a thread that knows the old tenure tries to enter.
fn a_tenure_is_not_mistaken_for_another(habits: Habits) {
    model(None, move || {
        let shared = Shared::free();
        let theirs = Arc::clone(&shared);
        let slow = thread::spawn(move || habits.attempt(&theirs, ME));
        let mut visits = 0;
        if shared.word.take(G) {
            shared.word.grant(NEXT, false);
            assert!(!shared.word.leave(NEXT, Leaving::Exchange));
            visits += shared.lock.visit();
        }
        visits += slow.join().expect("the thread ends");
        shared.lock.assert_visits(visits);
    });
}

#[test]
fn a_word_that_was_given_for_another_lock_is_not_entered_for_the_old_one() {
    a_tenure_is_not_mistaken_for_another(SOUND);
}

#[test]
#[should_panic(expected = "two were inside")]
fn mutant_the_generation_is_read_from_the_word() {
    let enter = |word: &Word, holder| {
        let state = word.state.load(Ordering::Relaxed);
        let generation = Generation(u32::try_from(state >> 32).expect("the upper half"));
        word.enter(generation, holder, Leaving::Exchange)
    };
    a_tenure_is_not_mistaken_for_another(Habits { enter, ..SOUND });
}

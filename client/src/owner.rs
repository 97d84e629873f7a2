//! Who asks: a label for threads and tasks that the program named nobody for, and the number under which each of them
//! enters a grant word.

use fairlock_protocol::OwnerId;
use fairlock_shm::word::Holder;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Owners that no program named have the highest bit, so that they never meet those that were.
const UNNAMED: u64 = 1 << 63;
/// Of those, requests that are nobody's but their own have this bit too.
const ALONE: u64 = 1 << 62;
/// Threads that enter words are told apart by numbers from 1 to this; beyond it two of them share one.
const THREADS_MAX: u64 = 0x00ff_fffe;
/// In a word, all who are no thread: futures, and owners that the program named.
const SOMEBODY: Holder = Holder::new(0x00ff_ffff);

/// An owner like no other in this process.
pub(crate) fn fresh_owner() -> OwnerId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only different numbers are wanted.
    OwnerId(UNNAMED | ALONE | NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The calling thread's number, from 1, and that under which it enters words.
#[inline]
fn this_thread() -> (u64, u32) {
    thread_local!(static THREAD: Cell<(u64, u32)> = const { Cell::new((0, 0)) });
    THREAD.with(|thread| {
        if thread.get().0 == 0 {
            thread.set(number_a_thread());
        }
        thread.get()
    })
}

#[cold]
fn number_a_thread() -> (u64, u32) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: only different numbers are wanted.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (number, holder_number(number))
}

/// The owner that stands for the calling thread.
pub(crate) fn owner_of_this_thread() -> OwnerId {
    OwnerId(UNNAMED | this_thread().0)
}

/// Under which number the calling thread enters words.
#[inline]
pub(crate) fn holder_of_this_thread() -> Holder {
    Holder::new(this_thread().1)
}

fn holder_number(thread: u64) -> u32 {
    u32::try_from((thread - 1) % THREADS_MAX + 1).expect("24 bits")
}

fn thread_holder(number: u64) -> Holder {
    Holder::new(holder_number(number))
}

/// Under which number an owner enters words.
pub(crate) fn holder_of(owner: OwnerId) -> Holder {
    if is_thread(owner) { thread_holder((owner.0 & !UNNAMED).max(1)) } else { SOMEBODY }
}

/// Whether an owner stands for a thread.
pub(crate) fn is_thread(owner: OwnerId) -> bool {
    owner.0 & (UNNAMED | ALONE) == UNNAMED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_one_owner_and_two_threads_are_two() {
        let here = owner_of_this_thread();
        assert_eq!(owner_of_this_thread(), here);
        assert_ne!(std::thread::spawn(owner_of_this_thread).join().ok(), Some(here));
        assert_ne!(fresh_owner(), fresh_owner());
        assert_eq!(here.0 >> 63, 1, "never a number that a program would name");
    }

    #[test]
    fn a_thread_enters_words_under_one_number_which_is_nobody_elses() {
        let here = holder_of_this_thread();
        assert_eq!(holder_of(owner_of_this_thread()), here);
        assert!(is_thread(owner_of_this_thread()) && !is_thread(fresh_owner()) && !is_thread(OwnerId(3)));
        assert_eq!((holder_of(fresh_owner()), holder_of(OwnerId(3))), (SOMEBODY, SOMEBODY));
        for number in [1, 2, THREADS_MAX, THREADS_MAX + 1, u64::from(u32::MAX)] {
            let holder = thread_holder(number);
            assert!(holder != Holder::GRANTED && holder != SOMEBODY, "{number}");
        }
        assert_eq!(thread_holder(THREADS_MAX + 1), thread_holder(1));
    }
}

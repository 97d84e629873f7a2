//! The race of leaving a word, on this machine: a holder stores FREE and loads `wanted`, while a server that is about to
//! sleep stores `wanted` and looks at the word. If neither sees the other, nobody wakes the server.
//!
//! Without a barrier that happens (the counts are printed; a machine that shows none proves nothing). With an exchange,
//! or with the server's barrier before its last look, it must not happen once in millions of rounds. Where the barrier is
//! not to be had, a server must find out.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_shm::wait::{accept_barriers, barrier, has_barrier};
use fairlock_shm::word::{Generation, Leaving, Word};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Each way is tried until so many rounds or so long.
const ROUNDS_MAX: u64 = 4_000_000;
const TIME_MAX: Duration = Duration::from_millis(1500);

#[derive(Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// Waits for the other side, and lets it run where both share one processor.
fn wait_for(line: &Line, round: u64) -> bool {
    for spins in 0_u64.. {
        match line.0.load(Ordering::Acquire) {
            u64::MAX => return false,
            at if at >= round => return true,
            _ if spins % 256 == 255 => thread::yield_now(),
            _ => spin_loop(),
        }
    }
    unreachable!("a loop without an end")
}

/// Rounds in which both missed each other, and rounds in all.
fn race(leaving: Leaving, before_last_look: fn()) -> (u64, u64) {
    let (word, begin, end) = (Word::default(), Line::default(), Line::default());
    let hinted = AtomicU64::new(0);
    let (mut missed, mut round) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1_u32.. {
                if !wait_for(&begin, round.into()) {
                    return;
                }
                let hint = word.leave(Generation(round), leaving);
                hinted.store(hint.into(), Ordering::Relaxed);
                end.0.store(round.into(), Ordering::Release);
            }
        });
        let begun = Instant::now();
        while round < ROUNDS_MAX && (round % 1024 != 0 || begun.elapsed() < TIME_MAX) {
            round += 1;
            let generation = Generation(u32::try_from(round).unwrap());
            word.grant(generation, false);
            begin.0.store(round, Ordering::Release);
            // Meets the holder at a moment that moves from round to round.
            for _ in 0..round % 64 {
                spin_loop();
            }
            word.want();
            let mut taken = word.take(generation);
            before_last_look();
            taken = taken || word.take(generation);
            assert!(wait_for(&end, round));
            if !taken {
                missed += u64::from(hinted.load(Ordering::Relaxed) == 0);
                assert!(word.take(generation), "the holder has left");
            }
        }
        begin.0.store(u64::MAX, Ordering::Release);
    });
    (missed, round)
}

#[test]
fn a_plain_store_and_no_barrier_may_miss_each_other() {
    let (missed, rounds) = race(Leaving::Barrier, || {});
    println!("plain store, no barrier: {missed} of {rounds} rounds missed");
}

#[test]
fn an_exchange_is_never_missed() {
    let (missed, rounds) = race(Leaving::Exchange, || {});
    println!("exchange: {missed} of {rounds} rounds missed");
    assert_eq!(missed, 0);
}

#[test]
fn a_plain_store_is_never_missed_by_a_server_that_issues_its_barrier() {
    if !accept_barriers() || !has_barrier() {
        println!("this kernel or sandbox has no barrier");
        return;
    }
    let (missed, rounds) = race(Leaving::Barrier, || assert!(barrier()));
    println!("plain store, barrier: {missed} of {rounds} rounds missed");
    assert_eq!(missed, 0);
}

#[test]
fn where_a_sandbox_forbids_the_barrier_both_sides_find_out() {
    // A filter is of one thread, and ends with it.
    let thread = thread::spawn(|| {
        let rules = [(libc::SYS_membarrier, Vec::new())].into_iter().collect();
        let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
        let here = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, here).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        (accept_barriers(), has_barrier(), barrier())
    });
    assert_eq!(thread.join().unwrap(), (false, false, false));
}

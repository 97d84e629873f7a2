//! What is not a stream: processes that end, pipes that hang up, other threads that call, and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;

pub(super) fn the_death_of_a_child_is_seen_once(rig: &mut Rig) {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let watch = rig.driver.watch(pidfd_open(pid, PidfdFlags::empty()).unwrap(), Watched::Process);
    let watch = watch.unwrap();
    rig.silent();
    child.kill().unwrap();
    let Event::Gone { watch: gone } = rig.next() else { panic!("a death expected") };
    assert_eq!(gone, watch);
    rig.silent();
    child.wait().unwrap();
    rig.driver.unwatch(watch);
    rig.silent();
}

pub(super) fn a_pipe_is_watched_until_it_hangs_up(rig: &mut Rig) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (read2, write2) = rustix::pipe::pipe().unwrap();
    let first = rig.driver.watch(read, Watched::Pipe).unwrap();
    let second = rig.driver.watch(read2, Watched::Pipe).unwrap();
    assert_ne!(first.slot(), second.slot());
    rig.silent();
    drop(write);
    assert!(matches!(rig.next(), Event::Gone { watch } if watch == first));
    drop(write2);
    assert!(matches!(rig.next(), Event::Gone { watch } if watch == second));
    rig.silent();
}

pub(super) fn bytes_in_a_watched_pipe_do_not_end_the_watch(rig: &mut Rig) {
    let (early, write_early) = rustix::pipe::pipe().unwrap();
    let (late, write_late) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&write_early, b"before the watch").unwrap();
    let early = rig.driver.watch(early, Watched::Pipe).unwrap();
    let late = rig.driver.watch(late, Watched::Pipe).unwrap();
    rig.silent();
    let heir = write_late.try_clone().unwrap();
    for write in [&write_early, &write_late, &heir] {
        rustix::io::write(write, b"a descendant that says something is alive").unwrap();
        rig.silent();
    }
    drop(write_late);
    rig.silent();
    drop(heir);
    assert!(matches!(rig.next(), Event::Gone { watch } if watch == late), "the last write end is closed");
    drop(write_early);
    assert!(matches!(rig.next(), Event::Gone { watch } if watch == early));
    rig.silent();
}

pub(super) fn an_ended_watch_is_silent(rig: &mut Rig) {
    for round in 0..100 {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let watch = rig.driver.watch(read, Watched::Pipe).unwrap();
        if round % 2 == 0 {
            rig.pass(Patience::Poll);
        }
        if round % 3 == 0 {
            rustix::io::write(&write, b"x").unwrap();
        }
        rig.driver.unwatch(watch);
        rig.driver.unwatch(watch);
    }
    rig.silent();
}

pub(super) fn every_one_of_ten_thousand_wakes_is_seen(rig: &mut Rig) {
    const WAKES: u32 = 10_000;
    let mailbox = Arc::new(AtomicU32::new(0));
    let seen = Arc::new(AtomicU32::new(0));
    let waker = rig.driver.waker();
    let caller = std::thread::spawn({
        let (mailbox, seen) = (Arc::clone(&mailbox), Arc::clone(&seen));
        move || {
            for call in 1..=WAKES {
                // Relaxed on purpose: the waker alone has to make the message visible.
                mailbox.store(call, Ordering::Relaxed);
                waker.wake();
                while seen.load(Ordering::Acquire) < call {
                    std::thread::yield_now();
                }
            }
        }
    });
    let mut last = 0;
    while last < WAKES {
        // Without a time: a lost call would be slept over for ever.
        rig.pass(Patience::Sleep(None));
        for event in rig.events.drain(..) {
            assert!(matches!(event, Event::Woken));
            assert_eq!(mailbox.load(Ordering::Relaxed), last + 1);
            last += 1;
            seen.store(last, Ordering::Release);
        }
    }
    caller.join().unwrap();
    rig.silent();
}

pub(super) fn a_burst_of_wakes_from_many_threads_is_seen_to_its_end(rig: &mut Rig) {
    const EACH: u32 = 50_000;
    let mailbox = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (mailbox, waker) = (Arc::clone(&mailbox), rig.driver.waker());
            std::thread::spawn(move || {
                for _ in 0..EACH {
                    mailbox.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            })
        })
        .collect();
    let mut turn = 0;
    while mailbox.load(Ordering::Relaxed) < 3 * EACH {
        turn += 1;
        rig.pass(if turn % 5 == 0 { Patience::Poll } else { Patience::Sleep(None) });
        rig.events.clear();
    }
    for caller in callers {
        caller.join().unwrap();
    }
    rig.settle();
    rig.events.clear();
    rig.silent();
}

pub(super) fn a_sleep_ends_with_its_time(rig: &mut Rig) {
    for millis in [0, 1, 20] {
        let begin = Instant::now();
        let time = Duration::from_millis(millis);
        rig.pass(Patience::Sleep(Some(time)));
        assert!(begin.elapsed() >= time);
    }
    rig.silent();
}

pub(super) fn what_nobody_wants_does_not_end_a_sleep(rig: &mut Rig) {
    let sleeps = |rig: &mut Rig| {
        rig.settle();
        let begin = Instant::now();
        rig.pass(Patience::Sleep(Some(MOMENT)));
        assert!(begin.elapsed() >= MOMENT, "a driver that returns at once spins");
    };
    // Links read once or paused, whose peers write, hang up or reset.
    let (near, far) = UnixStream::pair().unwrap();
    let once = rig.driver.attach(near.into()).unwrap();
    write_all(&far, b"first");
    rig.receive(once, 5);
    write_all(&far, b"second");
    sleeps(rig);
    drop(far);
    sleeps(rig);
    let (paused, far) = rig.tcp();
    rig.driver.pause(paused);
    rig.settle();
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    sleeps(rig);
    assert!(rig.events.is_empty(), "nobody reads: {:?}", rig.events);
    rig.driver.read_on(paused);
    assert!(rig.closed().1.is_some());
    // A link without a chunk to read into.
    let (full, far) = rig.unix();
    far.set_nonblocking(true).unwrap();
    let mut held = Vec::new();
    while held.len() < usize::from(CHUNKS) {
        let _ = (&far).write(&[1; CHUNK_BYTES]);
        rig.pass(Patience::Poll);
        for event in rig.events.drain(..) {
            if let Event::Received { chunk, .. } = event {
                held.push(chunk);
            }
        }
    }
    while (&far).write(&[1; CHUNK_BYTES]).is_ok() {}
    sleeps(rig);
    for chunk in held {
        rig.driver.recycle(chunk);
    }
    assert_eq!(rig.received().0, full);
}

//! How a thread waits for its own answer: it looks for a while, then sleeps, on its socket or on its memory's word.
//!
//! Looking pays when the answer comes sooner than a thread falls asleep and wakes. Looking too hard does harm: on few
//! cores the one who is waited for may need this very core. So a look spins only for a moment, and then lets others run
//! between looks.

use super::core::Core;
use super::lane::Lane;
use super::slot::{Place, Slot};
use crate::clock;
use crate::transport::{self, Link, Memory};
use fairlock_protocol::Tick;
use fairlock_shm::bell::Waiting;
use rustix::event::{PollFd, PollFlags};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How long answers are looked for before the thread sleeps: about what a sleep and a wake-up across cores cost
/// (docs/performance.md), so that looking at worst doubles the cost of a short wait.
const LOOK_TIME: Duration = Duration::from_micros(25);
/// How long of it a ring is looked at without a pause: what a server on another core needs to answer, and no more than
/// a server on this core can spare.
const SPIN_TIME: Duration = Duration::from_micros(2);
/// Where looking without a pause did not pay, it is tried again with every so many waits: clients, server and whoever
/// else there is change places all the time.
const SPIN_EVERY: u32 = 16;
/// Looks between two readings of the clock, which cost more than a look.
const LOOKS_AT_ONCE: u32 = 16;

/// One thread's wait.
struct Watch<'a> {
    core: &'a Core,
    place: &'a Place,
    lane: &'a Lane,
    slot: &'a Slot,
    link: &'a Arc<Link>,
}

/// Reads, settling whatever comes, until our own is settled, the link is gone, or it is time to give up.
pub(super) fn read_until_settled(
    core: &Core,
    place: &Place,
    slot: &Slot,
    link: &Arc<Link>,
    give_up: Option<Tick>,
) {
    let lane = place.session.lane(place.shard);
    let watch = Watch { core, place, lane, slot, link };
    let looked = match link.memory() {
        Some(memory) => watch.look_at_ring(memory),
        None => watch.look_at_socket(),
    };
    if !looked {
        return;
    }
    while !slot.is_settled() {
        let left = give_up.map(|give_up| give_up.since(clock::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        let stands = match link.memory() {
            Some(memory) => watch.sleep_on_word(memory, left),
            None => watch.sleep_on_socket(left),
        };
        if !stands {
            return;
        }
    }
}

impl Watch<'_> {
    fn pump(&self) -> bool {
        self.lane.pump(&self.place.session, self.core, self.link, true)
    }

    /// Looks for the answer for a while, letting others run between looks: the server itself, when it shares this core.
    /// `false`: the link is gone.
    fn look_at_socket(&self) -> bool {
        let until = clock::now().after(LOOK_TIME);
        loop {
            if !self.pump() {
                return false;
            }
            if self.slot.is_settled() || clock::now() >= until {
                return true;
            }
            thread::yield_now();
        }
    }

    /// The same, of a ring: one load a look, so it can be looked at more often.
    fn look_at_ring(&self, memory: &Memory) -> bool {
        // Relaxed, and a load and a store: a hint, of which a lost change does no harm.
        let in_vain = self.lane.spun_in_vain.load(Ordering::Relaxed);
        let spin_time = if in_vain.is_multiple_of(SPIN_EVERY) { SPIN_TIME } else { Duration::ZERO };
        let began = clock::now();
        loop {
            for _ in 0..LOOKS_AT_ONCE {
                if memory.is_ready() {
                    if !self.pump() {
                        return false;
                    }
                    break;
                }
                std::hint::spin_loop();
            }
            let passed = clock::now().since(began);
            if self.link.is_down() {
                return false;
            }
            if self.slot.is_settled() || passed >= LOOK_TIME {
                let in_vain = if passed <= SPIN_TIME { 0 } else { in_vain.wrapping_add(1) };
                self.lane.spun_in_vain.store(in_vain, Ordering::Relaxed);
                return true;
            }
            if passed >= spin_time {
                thread::yield_now();
            }
        }
    }

    fn sleep_on_socket(&self, left: Option<Duration>) -> bool {
        let mut fds = [PollFd::new(self.link, PollFlags::IN), PollFd::new(&self.lane.bell, PollFlags::IN)];
        if let Err(error) = transport::wait(&mut fds, left) {
            tracing::error!(%error, "poll refused; the tender reads instead");
            return false;
        }
        let [socket, bell] = fds.map(|fd| transport::is_ready(&fd));
        if bell {
            self.lane.bell.hear();
        }
        !socket || self.pump()
    }

    /// Whoever has something for this thread, or takes the link away, says so first and changes the word second; here it
    /// is the other way round, so at least one of the two sees the other.
    fn sleep_on_word(&self, memory: &Memory, left: Option<Duration>) -> bool {
        memory.announce(Waiting::Futex);
        if !(memory.is_ready() || self.slot.is_settled() || self.link.is_down()) {
            memory.park(left);
        }
        memory.announce(Waiting::Looking);
        !self.link.is_down() && self.pump()
    }
}

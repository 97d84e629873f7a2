//! That nobody sleeps through a message: both bells with a side that really sleeps, under every order in which stores
//! may be seen. Then with each fence, look or order left out in turn: each time somebody must be found asleep.

use super::*;
use crate::ring::{Receiver, Ring, Sender};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Where somebody sleeps. A sleeper whom nobody will wake any more is told that it is over: that is what is looked for.
#[derive(Default)]
struct Bed {
    state: Mutex<Sleep>,
    changed: Condvar,
}

#[derive(Default)]
struct Sleep {
    asleep: bool,
    woken: bool,
    over: bool,
}

impl Bed {
    fn change(&self, change: impl Fn(&mut Sleep)) {
        change(&mut self.state.lock().expect("nobody panics"));
        self.changed.notify_one();
    }

    /// The other side has said all it will ever say.
    fn is_over(&self) {
        self.change(|state| state.over = true);
    }

    /// A byte on a socket: it stays until it is read, whenever it was sent.
    fn send(&self) {
        self.change(|state| state.woken = true);
    }

    fn poll(&self) {
        self.sleep(|| true);
    }

    /// A futex: who is not yet asleep is not woken, and the word is compared under the lock under which a waker wakes.
    fn wake(&self) {
        self.change(|state| state.woken = state.asleep);
    }

    fn park(&self, parking: &Parking) {
        self.sleep(|| parking.word.load(Ordering::Relaxed) == Waiting::Futex.word());
    }

    fn sleep(&self, makes_sense: impl Fn() -> bool) {
        let mut state = self.state.lock().expect("nobody panics");
        if !makes_sense() {
            return;
        }
        state.asleep = true;
        while !state.woken && !state.over {
            state = self.changed.wait(state).expect("nobody panics");
        }
        let woken = state.woken;
        (state.asleep, state.woken) = (false, false);
        drop(state);
        assert!(woken, "slept through what was said");
    }
}

/// Every run with at most five switches away from a side that could go on.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(run);
}

#[derive(Default)]
struct Shared {
    ring: Ring<2>,
    attention: Attention,
    parking: Parking,
    socket: Bed,
    futex: Bed,
}

/// Both sides of one bell.
#[derive(Clone, Copy)]
struct Habits {
    doze: fn(&Attention),
    must_ring: fn(&Attention) -> bool,
    /// Whether the server looks once more before it sleeps.
    looks_again: bool,
}

const SOUND: Habits = Habits { doze: Attention::doze, must_ring: Attention::must_ring, looks_again: true };

/// A client says two things; the server looks, sleeps, is rung, and looks again until it has both.
fn the_server_hears_everything(habits: Habits) {
    model(move || {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let client = thread::spawn(move || {
            let mut sender = Sender::default();
            for _ in 0..2 {
                sender.send(&theirs.ring, b"hear").expect("the server is honest");
                if (habits.must_ring)(&theirs.attention) {
                    theirs.socket.send();
                }
            }
            theirs.socket.is_over();
        });
        let (mut receiver, mut heard) = (Receiver::default(), 0);
        let mut look = || {
            let before = heard;
            while receiver.receive(&shared.ring).expect("the client is honest").is_some() {
                heard += 1;
            }
            (heard, heard > before)
        };
        loop {
            shared.attention.listen();
            if look().0 == 2 {
                break;
            }
            (habits.doze)(&shared.attention);
            let (all, something) = if habits.looks_again { look() } else { (0, false) };
            if all == 2 {
                break;
            }
            if !something {
                shared.socket.poll();
            }
        }
        client.join().expect("the client ends");
    });
}

#[test]
fn a_client_is_heard_by_a_server_that_goes_to_sleep_meanwhile() {
    the_server_hears_everything(SOUND);
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_server_dozes_without_a_fence() {
    let doze = |attention: &Attention| attention.word.store(ASLEEP, Ordering::Release);
    the_server_hears_everything(Habits { doze, ..SOUND });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_client_looks_at_the_bell_without_a_fence() {
    let must_ring = |attention: &Attention| attention.word.load(Ordering::Acquire) != LISTENING;
    the_server_hears_everything(Habits { must_ring, ..SOUND });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_server_dozes_after_its_last_look() {
    the_server_hears_everything(Habits { looks_again: false, ..SOUND });
}

/// How client and server of a run behave.
#[derive(Clone, Copy)]
struct Manners {
    announce: fn(&Parking, Waiting),
    fence: fn(),
    to_wake: fn(&Parking) -> Waiting,
    looks_again: bool,
    /// The server asks who waits before it has published.
    asks_first: bool,
}

const POLITE: Manners = Manners {
    announce: Parking::announce,
    fence: publish_fence,
    to_wake: Parking::to_wake,
    looks_again: true,
    asks_first: false,
};

/// The server answers twice; the client waits for each answer in one of the two ways.
fn the_client_wakes(ways: [Waiting; 2], manners: Manners) {
    model(move || {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let server = thread::spawn(move || {
            let mut sender = Sender::default();
            let mut answer = || sender.send(&theirs.ring, b"done").expect("the client is honest");
            for _ in ways {
                if !manners.asks_first {
                    answer();
                }
                (manners.fence)();
                match (manners.to_wake)(&theirs.parking) {
                    Waiting::Looking => {}
                    Waiting::Futex => theirs.futex.wake(),
                    Waiting::Socket => theirs.socket.send(),
                }
                if manners.asks_first {
                    answer();
                }
            }
            theirs.socket.is_over();
            theirs.futex.is_over();
        });
        let mut receiver = Receiver::default();
        let mut has_answer = || receiver.receive(&shared.ring).expect("the server is honest").is_some();
        for way in ways {
            while !has_answer() {
                (manners.announce)(&shared.parking, way);
                if manners.looks_again && has_answer() {
                    break;
                }
                match way {
                    Waiting::Looking => thread::yield_now(),
                    Waiting::Futex => shared.futex.park(&shared.parking),
                    Waiting::Socket => shared.socket.poll(),
                }
            }
            (manners.announce)(&shared.parking, Waiting::Looking);
        }
        server.join().expect("the server ends");
    });
}

#[test]
fn an_answer_wakes_a_client_that_goes_to_sleep_meanwhile() {
    the_client_wakes([Waiting::Futex; 2], POLITE);
}

#[test]
fn an_answer_wakes_a_client_that_polls_its_socket() {
    the_client_wakes([Waiting::Socket; 2], POLITE);
}

#[test]
fn an_answer_wakes_a_client_that_waits_in_another_way_than_before() {
    the_client_wakes([Waiting::Futex, Waiting::Socket], POLITE);
    the_client_wakes([Waiting::Socket, Waiting::Futex], POLITE);
}

#[test]
fn a_client_that_looks_by_itself_is_not_woken() {
    let to_wake = |parking: &Parking| {
        let waiting = parking.to_wake();
        assert_eq!(waiting, Waiting::Looking);
        waiting
    };
    the_client_wakes([Waiting::Looking; 2], Manners { to_wake, ..POLITE });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_client_announces_without_a_fence() {
    let announce = |parking: &Parking, waiting: Waiting| {
        parking.word.swap(waiting.word(), Ordering::AcqRel);
    };
    the_client_wakes([Waiting::Futex; 2], Manners { announce, ..POLITE });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_server_answers_without_a_fence() {
    the_client_wakes([Waiting::Futex; 2], Manners { fence: || {}, ..POLITE });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_client_announces_after_its_last_look() {
    the_client_wakes([Waiting::Futex; 2], Manners { looks_again: false, ..POLITE });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_server_asks_who_waits_before_it_answers() {
    the_client_wakes([Waiting::Futex; 2], Manners { asks_first: true, ..POLITE });
}

#[test]
#[should_panic(expected = "slept through")]
fn mutant_the_server_wakes_without_changing_the_word() {
    let to_wake = |parking: &Parking| Waiting::of(parking.word.load(Ordering::Acquire));
    the_client_wakes([Waiting::Futex; 2], Manners { to_wake, ..POLITE });
}

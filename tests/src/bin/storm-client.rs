//! One client of a storm: takes, tries, waits for, cancels and holds random locks through the Rust client until its
//! time is over or it crashes, and writes down every hold that was certain.
//!
//! `storm-client ENDPOINT SEED LOG MILLISECONDS CRASH_ONE_IN TTL_MS`

use fairlock::{Client, Guard, OwnerId, Refusal};
use fairlock_tests::boottime_ns;
use fairlock_tests::history::Hold;
use fairlock_tests::random::Random;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

struct Storm {
    random: Random,
    log: File,
    crash_one_in: u64,
    turns: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let length = Duration::from_millis(number(3));
    let log = File::options().create(true).append(true).open(&arguments[2]).expect("the log can be written");
    let mut storm = Storm { random: Random::from_seed(number(1)), log, crash_one_in: number(4), turns: 0 };
    let builder =
        Client::builder().ttl(Duration::from_millis(number(5))).label(format!("storm {}", number(1)));
    let client = builder.connect(arguments[0].as_str()).expect("the server is there");
    let begun = Instant::now();
    while begun.elapsed() < length {
        storm.turn(&client);
    }
}

impl Storm {
    /// One lock, one way of asking for it.
    fn turn(&mut self, client: &Client) {
        let name = format!("storm/{}", self.random.below(3));
        let asked_ns = boottime_ns();
        // An owner of its own for each turn: nobody meets a grant of his own that is still on its way back.
        self.turns += 1;
        let request = client.lock(name.as_str()).owner(OwnerId(self.turns));
        let outcome = match self.random.below(4) {
            0 => request.try_acquire(),
            1 => request.wait(Duration::from_millis(1 + self.random.below(30))).acquire(),
            2 => {
                let canceller = request.canceller();
                let after = Duration::from_micros(self.random.below(5_000));
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(after);
                    canceller.cancel();
                });
                let outcome = request.acquire();
                thread.join().expect("cancelling does not panic");
                outcome
            }
            _ => request.acquire(),
        };
        match outcome {
            Ok(guard) => self.hold(&name, asked_ns, guard),
            Err(error) => {
                let refusal = error.refusal();
                let expected = [
                    Refusal::WouldBlock,
                    Refusal::Timeout,
                    Refusal::Cancelled,
                    Refusal::SessionExpired,
                    Refusal::SessionUnknown,
                    Refusal::LeaseGuard,
                    Refusal::Unavailable,
                    Refusal::Recovering,
                ];
                assert!(expected.contains(&refusal), "{error}");
                std::thread::sleep(Duration::from_micros(self.random.below(2_000)));
            }
        }
    }

    fn hold(&mut self, name: &str, asked_ns: u64, guard: Guard) {
        let from_ns = boottime_ns();
        if guard.check().is_err() {
            return;
        }
        std::thread::sleep(Duration::from_micros(self.random.below(3_000)));
        let now_ns = boottime_ns();
        // Valid now, so certainly valid at the moment read just before.
        let until_ns = if guard.check().is_ok() { now_ns } else { from_ns };
        let waited_ns = u64::try_from(guard.waited().as_nanos()).expect("less than 584 years");
        let hold = Hold {
            name: name.to_owned(),
            token: guard.token().get(),
            asked_ns,
            waited_ns,
            from_ns,
            until_ns,
        };
        self.log.write_all(hold.line().as_bytes()).expect("the log can be written");
        if self.crash_one_in > 0 && self.random.once_in(self.crash_one_in) {
            std::process::abort();
        }
        if self.random.once_in(8) {
            drop(guard);
        } else {
            let _ = guard.release();
        }
    }
}

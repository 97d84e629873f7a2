//! One client of a storm: takes, tries, waits for, cancels, converts and holds random locks in random modes through the Rust
//! client until its time is over or it crashes, and writes the history of it. Its name is that of the file.
//!
//! `storm-client ENDPOINT[,ENDPOINT…] SEED HISTORY MILLISECONDS CRASH_ONE_IN TTL_MS [NAMES [PAUSE_US]]`: with a pause it rests
//! up to so long between two turns, and goes on asking for a session as long as there is no server.

use fairlock::{AcquireError, Client, Guard, LockRequest, Mode, OwnerId, Refusal};
use fairlock_tests::random::Random;
use fairlock_tests::recorder::{Recorded, Recorder, Wish};
use std::path::Path;
use std::time::{Duration, Instant};

/// How a lock is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Try,
    Wait(Duration),
    Cancel(Duration),
    Forever,
}

struct Storm {
    random: Random,
    recorder: Recorder,
    crash_one_in: u64,
    names: u64,
    /// Longest rest between two turns, in microseconds.
    pause: u64,
    turns: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let length = Duration::from_millis(number(3));
    let path = Path::new(&arguments[2]);
    let own_name = path.file_name().expect("the history is a file").to_string_lossy();
    let mut storm = Storm {
        random: Random::from_seed(number(1)),
        recorder: Recorder::new(path, own_name.clone()),
        crash_one_in: number(4),
        names: if arguments.len() > 6 { number(6) } else { 3 },
        pause: if arguments.len() > 7 { number(7) } else { 0 },
        turns: 0,
    };
    let begun = Instant::now();
    let patient = storm.pause > 0;
    let client = loop {
        let builder =
            Client::builder().ttl(Duration::from_millis(number(5))).label(format!("storm {own_name}"));
        match builder.connect(arguments[0].as_str()) {
            Ok(client) => break client,
            Err(_) if patient && begun.elapsed() >= length => return,
            Err(_) if patient => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("the server is there: {error}"),
        }
    };
    // Over a Unix socket the server watches the process, and its death passes the locks on.
    storm.recorder.open(arguments[0].starts_with("tcp"));
    while begun.elapsed() < length {
        storm.turn(&client);
        if storm.pause > 0 {
            std::thread::sleep(Duration::from_micros(storm.random.below(storm.pause)));
        }
    }
    storm.recorder.closed();
}

impl Storm {
    /// Half of them exclusive, the others anything.
    fn mode(&mut self) -> Mode {
        if self.random.once_in(2) { Mode::EX } else { Mode::ALL[self.random.index(Mode::ALL.len())] }
    }

    fn way(&mut self) -> Way {
        match self.random.below(4) {
            0 => Way::Try,
            1 => Way::Wait(Duration::from_millis(1 + self.random.below(30))),
            2 => Way::Cancel(Duration::from_micros(self.random.below(5_000))),
            _ => Way::Forever,
        }
    }

    /// One lock, one way of asking for it.
    fn turn(&mut self, client: &Client) {
        let name = format!("storm/{}", self.random.below(self.names));
        let (mode, way) = (self.mode(), self.way());
        self.turns += 1;
        // Now and then nobody's in particular, so that the grant may stay with the client. Else an owner of its own for
        // each turn: nobody meets a grant of his own that is still on its way back.
        let owner = if way == Way::Forever && self.random.once_in(2) { 0 } else { self.turns };
        let wait = match way {
            Way::Try => Some(Duration::ZERO),
            Way::Wait(wait) => Some(wait),
            Way::Cancel(_) | Way::Forever => None,
        };
        let request = client.lock(name.as_str()).mode(mode);
        let request = if owner == 0 { request } else { request.owner(OwnerId(owner)) };
        let recorder = &self.recorder;
        match recorder.acquire(Wish { name: &name, mode, owner, wait }, || ask(request, way)) {
            Ok(held) => hold(&mut self.random, recorder, self.crash_one_in, held),
            Err(error) => {
                is_expected(&error);
                std::thread::sleep(Duration::from_micros(self.random.below(2_000)));
            }
        }
    }
}

fn ask(request: LockRequest, way: Way) -> Result<Guard, AcquireError> {
    match way {
        Way::Try => request.try_acquire(),
        Way::Wait(wait) => request.wait(wait).acquire(),
        Way::Forever => request.acquire(),
        Way::Cancel(after) => {
            let canceller = request.canceller();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(after);
                canceller.cancel();
            });
            let outcome = request.acquire();
            thread.join().expect("cancelling does not panic");
            outcome
        }
    }
}

fn is_expected(error: &AcquireError) {
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
    assert!(expected.contains(&error.refusal()), "{error}");
}

/// Holds it for a while, in another mode for a part of it perhaps, and looks at it often.
fn hold(random: &mut Random, recorder: &Recorder, crash_one_in: u64, mut held: Recorded<'_>) {
    let looks = 1 + random.below(3);
    for _ in 0..looks {
        std::thread::sleep(Duration::from_micros(random.below(1_200)));
        if !held.check() {
            return;
        }
    }
    if random.once_in(8) {
        let mode = Mode::ALL[random.index(Mode::ALL.len())];
        if held.convert(mode, Duration::from_millis(random.below(10))) {
            held.check();
        }
    }
    if crash_one_in > 0 && random.once_in(crash_one_in) {
        recorder.crashing();
        std::process::abort();
    }
    held.release();
}

//! One lock that goes round between clients of two threads each, by grant words. Messages go by a channel, on which the
//! server sleeps; what is under test are the words.

use crate::{Random, TIME, WATCH, seed};
use fairlock_shm::segment::Segment;
use fairlock_shm::wait;
use fairlock_shm::word::{Entry, Generation, Holder, Leaving, Seen, Word};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 3;
const THREADS: usize = 2;
/// Words of a client in this test: enough for those that are retired.
const WORDS: usize = 8;
/// One wait in so many ends by force.
const FORCED: u64 = 20;

/// Which word of a client, in which tenure.
#[derive(Clone, Copy, PartialEq)]
struct Tenure {
    client: usize,
    word: usize,
    generation: Generation,
}

enum Message {
    Ask(usize, Sender<Tenure>),
    /// Look at the words of this client.
    Hint(usize),
    Ended,
}

/// What everybody can see.
struct World {
    leaving: Leaving,
    /// The newest tenure: generations rise with every grant here, whichever the word. Release store of the server before
    /// it grants, Acquire load of whoever is inside.
    newest: AtomicU32,
    /// Threads inside of each client's words.
    inside: [[AtomicU32; WORDS]; CLIENTS],
    over: AtomicBool,
    entries: AtomicU64,
}

/// One client: its mapping, and the tenure it remembers.
struct Client {
    number: usize,
    segment: Segment,
    remembered: Mutex<Option<Tenure>>,
    server: Sender<Message>,
}

fn word(segment: &Segment, index: usize) -> &Word {
    segment.word(u32::try_from(index).unwrap()).unwrap()
}

impl Client {
    /// Holds the lock for a moment.
    fn hold(&self, world: &World, random: &mut Random, holder: Holder) {
        let remembered = *self.remembered.lock().unwrap();
        if let Some(tenure) = remembered {
            match word(&self.segment, tenure.word).enter(tenure.generation, holder, world.leaving) {
                Entry::Entered => return self.inside(world, random, tenure, holder),
                // It asks, which is a hint to look as well.
                Entry::Refused | Entry::Undone => {}
            }
        }
        let (reply, granted) = channel();
        self.server.send(Message::Ask(self.number, reply)).unwrap();
        let tenure = granted.recv_timeout(WATCH).expect("a grant");
        *self.remembered.lock().unwrap() = Some(tenure);
        self.inside(world, random, tenure, Holder::GRANTED);
    }

    fn inside(&self, world: &World, random: &mut Random, tenure: Tenure, holder: Holder) {
        let (word, inside) = (word(&self.segment, tenure.word), &world.inside[self.number][tenure.word]);
        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two are inside of a word");
        for look in 0..=random.below(20) {
            let newest = world.newest.load(Ordering::Acquire);
            let held = word.is_held(tenure.generation, holder);
            assert!(newest == tenure.generation.0 || !held, "held what another was given");
            if look % 8 == 7 {
                thread::yield_now();
            }
        }
        inside.fetch_sub(1, Ordering::Relaxed);
        world.entries.fetch_add(1, Ordering::Relaxed);
        if word.leave(tenure.generation, world.leaving) {
            self.server.send(Message::Hint(self.number)).unwrap();
        }
    }
}

/// What a word is used for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Unused,
    Granted,
    Retired(Generation),
}

struct Server {
    segments: Vec<Segment>,
    uses: [[Use; WORDS]; CLIENTS],
    current: Option<Tenure>,
    queue: VecDeque<(usize, Sender<Tenure>)>,
    generation: u32,
    taken: u64,
    voided: u64,
}

impl Server {
    fn word(&self, tenure: Tenure) -> &Word {
        word(&self.segments[tenure.client], tenure.word)
    }

    /// Lets the next ones in, as far as the lock comes back.
    fn advance(&mut self, world: &World, random: &mut Random) {
        while !self.queue.is_empty() {
            if let Some(tenure) = self.current {
                self.word(tenure).want();
                if self.word(tenure).take(tenure.generation) {
                    self.uses[tenure.client][tenure.word] = Use::Unused;
                    self.taken += 1;
                } else if random.below(FORCED) == 0 {
                    self.force(tenure);
                } else {
                    return;
                }
                self.current = None;
            }
            let client = self.queue[0].0;
            self.acknowledge(client);
            let Some(word) = self.uses[client].iter().position(|each| *each == Use::Unused) else { return };
            let (_, reply) = self.queue.pop_front().unwrap();
            self.generation += 1;
            let tenure = Tenure { client, word, generation: Generation(self.generation) };
            world.newest.store(self.generation, Ordering::Release);
            self.word(tenure).grant(tenure.generation, !self.queue.is_empty());
            self.uses[client][word] = Use::Granted;
            self.current = Some(tenure);
            reply.send(tenure).unwrap();
        }
    }

    fn force(&mut self, tenure: Tenure) {
        let seen = self.word(tenure).void(tenure.generation);
        self.uses[tenure.client][tenure.word] =
            if seen == Seen::Free { Use::Unused } else { Use::Retired(tenure.generation) };
        self.voided += 1;
    }

    /// Retired words whose holders have left are used again.
    fn acknowledge(&mut self, client: usize) {
        for (index, each) in self.uses[client].iter_mut().enumerate() {
            if let Use::Retired(generation) = *each
                && word(&self.segments[client], index).take(generation)
            {
                *each = Use::Unused;
            }
        }
    }

    fn serve(&mut self, world: &World, messages: &Receiver<Message>, seed: u64) {
        let (mut random, mut living) = (Random(seed), CLIENTS * THREADS);
        while living > 0 {
            let message = messages.try_recv().unwrap_or_else(|_| {
                // About to sleep: plain stores of FREE become visible, then a last look.
                if world.leaving == Leaving::Barrier {
                    assert!(wait::barrier());
                }
                self.advance(world, &mut random);
                messages.recv_timeout(WATCH).expect("the server slept through a return")
            });
            match message {
                Message::Ask(client, reply) => self.queue.push_back((client, reply)),
                Message::Hint(client) => self.acknowledge(client),
                Message::Ended => living -= 1,
            }
            self.advance(world, &mut random);
        }
    }
}

fn the_lock_goes_round(leaving: Leaving) {
    let seed = seed();
    let (sender, messages) = channel();
    let world = World {
        leaving,
        newest: AtomicU32::new(0),
        inside: Default::default(),
        over: AtomicBool::new(false),
        entries: AtomicU64::new(0),
    };
    let (mut segments, mut clients) = (Vec::new(), Vec::new());
    for number in 0..CLIENTS {
        let (segment, file) = Segment::create().unwrap();
        segments.push(segment);
        let segment = Segment::open(&file).unwrap();
        clients.push(Arc::new(Client {
            number,
            segment,
            remembered: Mutex::new(None),
            server: sender.clone(),
        }));
    }
    let mut server = Server {
        segments,
        uses: [[Use::Unused; WORDS]; CLIENTS],
        current: None,
        queue: VecDeque::new(),
        generation: 0,
        taken: 0,
        voided: 0,
    };
    thread::scope(|scope| {
        for number in 0..CLIENTS * THREADS {
            let (client, world) = (Arc::clone(&clients[number % CLIENTS]), &world);
            scope.spawn(move || {
                let mut random = Random(seed + number as u64);
                let holder = Holder::new(u32::try_from(number + 1).unwrap());
                while !world.over.load(Ordering::Relaxed) {
                    // Often again and again, as an owner does; then a pause, so that words are left free.
                    for _ in 0..=random.below(50) {
                        client.hold(world, &mut random, holder);
                    }
                    thread::sleep(Duration::from_micros(random.below(4000)));
                }
                client.server.send(Message::Ended).unwrap();
            });
        }
        let world = &world;
        let clock = scope.spawn(move || {
            let begun = Instant::now();
            while begun.elapsed() < TIME {
                thread::sleep(TIME / 20);
            }
            world.over.store(true, Ordering::Relaxed);
        });
        server.serve(world, &messages, seed);
        clock.join().unwrap();
    });
    let entries = world.entries.load(Ordering::Relaxed);
    println!(
        "{leaving:?}: {entries} holds, {} tenures, {} taken, {} voided",
        server.generation, server.taken, server.voided
    );
    assert!(server.taken > 0 && server.voided > 0);
}

#[test]
fn a_lock_goes_round_by_words_that_are_left_by_exchange() {
    the_lock_goes_round(Leaving::Exchange);
}

#[test]
fn a_lock_goes_round_by_words_that_are_left_by_plain_stores() {
    if wait::accept_barriers() && wait::has_barrier() {
        the_lock_goes_round(Leaving::Barrier);
    } else {
        println!("this kernel or sandbox has no barrier");
    }
}

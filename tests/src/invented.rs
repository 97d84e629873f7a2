//! Histories that nobody lived: a lock service in a few lines, on a clock of its own, with clients who ask, wait, hold, give
//! up and die; and the same service with one thing wrong in it.

use crate::random::Random;
use fairlock::Mode;
use fairlock_cli::history::{Event, What};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What is wrong with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Now and then it forgets who holds a lock.
    LosesGrants,
    /// Now and then the last in a queue is served first.
    Overtakes,
    /// Now and then it never answers.
    FallsSilent,
    /// It takes silence for an end before the lease is over.
    Impatient,
    /// Now and then it issues a token again.
    RepeatsTokens,
    /// Its fences let older writers in.
    LaxFences,
}

/// From a grant to its D: longer than anybody here holds who lives.
const LEASE_NS: u64 = 200;
const CLIENTS: usize = 6;
const LOCKS: usize = 2;
/// Once in so many times a fault shows.
const FAULT_ONE_IN: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The client has nothing and asks, or is killed.
    Asks,
    /// The question is at the server.
    Arrives,
    /// The client stops waiting, if it still waits.
    GivesUp,
    /// The grant is at the client.
    Learns,
    /// The client gives it back.
    Releases,
    /// That is at the server.
    Freed,
}

/// A request that waits or holds.
#[derive(Clone, Debug)]
struct Place {
    client: usize,
    mode: Mode,
    queued_ns: u64,
}

#[derive(Clone, Debug, Default)]
struct Lock {
    holders: Vec<Place>,
    waiters: Vec<Place>,
    token: u64,
    /// First token of the present run of readers.
    run: Option<u64>,
}

#[derive(Clone, Debug)]
struct Client {
    run: u64,
    /// Only silence ends its session.
    heartbeat: bool,
    /// Nothing was heard of it since.
    dead: bool,
    /// D of what it holds.
    until_ns: u64,
    request: u64,
    lock: usize,
    mode: Mode,
    /// (token, fence, waited) of a grant under way.
    grant: Option<(u64, u64, u64)>,
}

/// When, the how-manieth plan, whose, for which request, and what.
type Due = (u64, u64, usize, u64, Step);

struct World<'a> {
    random: &'a mut Random,
    fault: Fault,
    events: Vec<Event<'static>>,
    due: BinaryHeap<Reverse<Due>>,
    /// Ties are broken by the order in which things were planned.
    planned: u64,
    locks: Vec<Lock>,
    clients: Vec<Client>,
}

/// A history of about so many events.
pub fn history(random: &mut Random, fault: Fault, length: usize) -> Vec<Event<'static>> {
    let client = Client {
        run: 0,
        heartbeat: false,
        dead: false,
        until_ns: 0,
        request: 0,
        lock: 0,
        mode: Mode::EX,
        grant: None,
    };
    let lock = Lock { token: 1 << 39, ..Lock::default() };
    let mut world = World {
        random,
        fault,
        events: Vec::new(),
        due: BinaryHeap::new(),
        planned: 0,
        locks: vec![lock; LOCKS],
        clients: vec![client; CLIENTS],
    };
    for client in 0..CLIENTS {
        world.begin(100, client);
    }
    while let Some(Reverse((now_ns, _, client, request, step))) = world.due.pop() {
        if world.clients[client].request == request && (step != Step::Asks || world.events.len() < length) {
            world.take(now_ns, client, step);
        }
    }
    world.events
}

impl World<'_> {
    /// Something happens to the present request of the client, some time after `now`.
    fn plan(&mut self, now_ns: u64, client: usize, step: Step) {
        let longest = if step == Step::Releases { 60 } else { 15 };
        let at_ns = now_ns + 1 + self.random.below(longest);
        self.planned += 1;
        self.due.push(Reverse((at_ns, self.planned, client, self.clients[client].request, step)));
    }

    fn note(&mut self, at_ns: u64, client: usize, what: What<'static>) {
        let client = format!("c{client}.{}", self.clients[client].run).into();
        self.events.push(Event { at_ns, client, what });
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        self.fault == fault && self.random.once_in(FAULT_ONE_IN)
    }

    fn take(&mut self, now_ns: u64, client: usize, step: Step) {
        let Client { request, lock, mode, grant, .. } = self.clients[client];
        match step {
            Step::Asks => self.ask(now_ns, client),
            Step::Arrives => {
                self.locks[lock].waiters.push(Place { client, mode, queued_ns: now_ns });
                if self.random.once_in(3) {
                    self.note(now_ns + 1, client, What::Queued { request });
                }
                self.serve(now_ns, lock);
            }
            Step::GivesUp => {
                let waiters = &mut self.locks[lock].waiters;
                if let Some(at) = waiters.iter().position(|place| place.client == client) {
                    waiters.remove(at);
                    self.note(now_ns + 1, client, What::Refused { request, code: "TIMEOUT".into() });
                    self.serve(now_ns, lock);
                    self.plan(now_ns + 1, client, Step::Asks);
                }
            }
            Step::Learns => {
                let (token, fence, waited_ns) = grant.expect("it was granted");
                let until_ns = now_ns + LEASE_NS;
                self.clients[client].until_ns = until_ns;
                let what = What::Granted {
                    request,
                    token: (token > 0).then_some(token),
                    fence: mode.is_fenced().then_some(fence),
                    waited_ns,
                    until_ns,
                    session: "".into(),
                };
                self.note(now_ns, client, what);
                self.plan(now_ns, client, Step::Releases);
            }
            Step::Releases if self.random.once_in(20) => self.die(now_ns, client),
            Step::Releases => {
                self.note(now_ns - 1, client, What::Valid { request, until_ns: now_ns + LEASE_NS });
                self.note(now_ns, client, What::Release { request });
                self.plan(now_ns, client, Step::Freed);
            }
            Step::Freed => {
                self.free(now_ns, client);
                if self.clients[client].dead {
                    self.begin(now_ns, client);
                } else {
                    self.plan(now_ns, client, Step::Asks);
                }
            }
        }
    }

    fn ask(&mut self, now_ns: u64, client: usize) {
        let modes = [Mode::EX, Mode::EX, Mode::PR, Mode::PR, Mode::PW, Mode::CR, Mode::CW, Mode::NL];
        let mode = modes[self.random.index(modes.len())];
        let lock = self.random.index(LOCKS);
        let own = &mut self.clients[client];
        own.request += 1;
        (own.mode, own.lock, own.grant) = (mode, lock, None);
        let request = own.request;
        let what = What::Acquire {
            request,
            namespace: "default".into(),
            name: vec![b'a' + u8::try_from(lock).expect("few locks")].into(),
            mode,
            owner: request,
            wait_ms: None,
        };
        self.note(now_ns, client, what);
        if self.strikes(Fault::FallsSilent) {
            return;
        }
        self.plan(now_ns, client, Step::Arrives);
        if self.random.once_in(5) {
            self.plan(now_ns + 20, client, Step::GivesUp);
        }
    }

    /// A client that was not there before takes this place.
    fn begin(&mut self, now_ns: u64, client: usize) {
        let heartbeat = self.random.once_in(2);
        let own = &mut self.clients[client];
        own.run += 1;
        (own.dead, own.heartbeat) = (false, heartbeat);
        self.note(now_ns, client, What::Open { heartbeat });
        self.plan(now_ns, client, Step::Asks);
    }

    /// Killed while it holds. The service sees that at once, or waits for the lease's end.
    fn die(&mut self, now_ns: u64, client: usize) {
        self.note(now_ns, client, What::Killed);
        let own = &mut self.clients[client];
        own.dead = true;
        let waits = own.heartbeat && self.fault != Fault::Impatient;
        let until_ns = own.until_ns;
        self.plan(if waits { until_ns } else { now_ns }, client, Step::Freed);
    }

    fn free(&mut self, now_ns: u64, client: usize) {
        let lock = self.clients[client].lock;
        self.locks[lock].holders.retain(|place| place.client != client);
        self.serve(now_ns, lock);
    }

    /// Lets in whoever is next, as long as somebody is.
    fn serve(&mut self, now_ns: u64, at: usize) {
        if self.strikes(Fault::LosesGrants) {
            self.locks[at].holders.clear();
        }
        if self.locks[at].waiters.len() > 1 && self.strikes(Fault::Overtakes) {
            self.locks[at].waiters.rotate_right(1);
        }
        loop {
            let lock = &mut self.locks[at];
            let fits = |place: &Place| lock.holders.iter().all(|held| held.mode.compatible(place.mode));
            if !lock.waiters.first().is_some_and(fits) {
                return;
            }
            let place = lock.waiters.remove(0);
            let (mut token, mut fence) = lock.issue(place.mode);
            if token > 0 && self.strikes(Fault::RepeatsTokens) {
                token -= 1;
            }
            if place.mode == Mode::PR && self.strikes(Fault::LaxFences) {
                fence = 1 << 39;
            }
            self.clients[place.client].grant = Some((token, fence, now_ns - place.queued_ns));
            self.plan(now_ns, place.client, Step::Learns);
            self.locks[at].holders.push(place);
        }
    }
}

impl Lock {
    /// Token and fence of a new tenure.
    fn issue(&mut self, mode: Mode) -> (u64, u64) {
        if mode == Mode::NL {
            return (0, 0);
        }
        self.token += 1;
        if !self.holders.iter().any(|held| held.mode == Mode::PR) {
            self.run = None;
        }
        let first = if mode == Mode::PR { *self.run.get_or_insert(self.token) } else { self.token };
        (self.token, first - 1)
    }
}

/// Holds at random moments under random tokens: true of no service, and so of every kind of contradiction.
pub fn noise(random: &mut Random, holds: u64) -> Vec<Event<'static>> {
    let mut events = Vec::new();
    for request in 1..=holds {
        let client = format!("c{}", random.below(4));
        let mode = Mode::ALL[random.index(Mode::ALL.len())];
        let asked_ns = 100 + random.below(400);
        let from_ns = asked_ns + random.below(40);
        let end_ns = from_ns + random.below(40);
        let until_ns = from_ns + random.below(60);
        let ending = match random.below(5) {
            0 => What::Lost { request, lease: true },
            1 => What::Lost { request, lease: false },
            2 => What::Valid { request, until_ns: end_ns + random.below(30) },
            _ => What::Release { request },
        };
        let acquire = What::Acquire {
            request,
            namespace: "default".into(),
            name: b"x".as_slice().into(),
            mode,
            owner: request,
            wait_ms: None,
        };
        let granted = What::Granted {
            request,
            token: Some(1 + random.below(2 * holds)),
            fence: Some(random.below(2 * holds)),
            waited_ns: random.below(40),
            until_ns,
            session: "".into(),
        };
        for (at_ns, what) in [(asked_ns, acquire), (from_ns, granted), (end_ns, ending)] {
            events.push(Event { at_ns, client: client.clone().into(), what });
        }
    }
    events
}

/// Lets a hold end only after a later one against it has begun; `None` when no two follow each other so.
pub fn overlap_two(random: &mut Random, mut events: Vec<Event<'static>>) -> Option<Vec<Event<'static>>> {
    let pairs = followers(&events);
    let &(earlier, later) = pairs.get(random.index(pairs.len().max(1)))?;
    let from_ns = events[later].at_ns;
    let What::Granted { request, .. } = events[earlier].what else { return None };
    let client = events[earlier].client.clone();
    for event in events.iter_mut().filter(|event| event.client == client) {
        match &mut event.what {
            What::Valid { request: number, until_ns } if *number == request => {
                *until_ns = (*until_ns).max(from_ns + LEASE_NS);
            }
            What::Release { request: number } if *number == request => event.at_ns = from_ns + 1,
            _ => {}
        }
    }
    Some(events)
}

/// Swaps the tokens of two holds against each other; `None` when no two follow each other so.
pub fn swap_tokens(random: &mut Random, mut events: Vec<Event<'static>>) -> Option<Vec<Event<'static>>> {
    let pairs = followers(&events);
    let &(earlier, later) = pairs.get(random.index(pairs.len().max(1)))?;
    let token_of = |event: &Event<'_>| match event.what {
        What::Granted { token, .. } => token,
        _ => None,
    };
    let (one, other) = (token_of(&events[earlier]), token_of(&events[later]));
    for (at, new) in [(earlier, other), (later, one)] {
        if let What::Granted { token, .. } = &mut events[at].what {
            *token = new;
        }
    }
    Some(events)
}

/// Grants of which the later one began after the earlier one was given back, in modes that exclude each other.
fn followers(events: &[Event<'_>]) -> Vec<(usize, usize)> {
    let mut asked = BTreeMap::new();
    let mut released = BTreeMap::new();
    for event in events {
        match &event.what {
            What::Acquire { request, name, mode, .. } => {
                asked.insert((&event.client, *request), (name, *mode));
            }
            What::Release { request } => {
                released.insert((&event.client, *request), event.at_ns);
            }
            _ => {}
        }
    }
    let grants: Vec<usize> =
        (0..events.len()).filter(|&at| matches!(events[at].what, What::Granted { .. })).collect();
    let key = |at: usize| match events[at].what {
        What::Granted { request, .. } => (&events[at].client, request),
        _ => unreachable!("only grants are looked at"),
    };
    let follow = |&(one, other): &(usize, usize)| {
        let ((lock, mode), (other_lock, other_mode)) = (asked[&key(one)], asked[&key(other)]);
        let is_over = released.get(&key(one)).is_some_and(|&end_ns| end_ns < events[other].at_ns);
        lock == other_lock && !mode.compatible(other_mode) && is_over
    };
    let pairs = grants.iter().flat_map(|&one| grants.iter().map(move |&other| (one, other)));
    pairs.filter(follow).collect()
}

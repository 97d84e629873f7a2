//! A lock that is asked for again and again: everything that can be done once is done once.
//!
//! When the server leaves the grant with the client, taking and leaving such a lock is an exchange and a store on one word
//! of shared memory, with nothing allocated, looked up or counted on the way. What is remembered of the tenure is a few
//! numbers; they may be out of date at any time, because the word itself decides. Whatever does not fit goes the way of
//! every other request.

use crate::clock;
use crate::engine::{Anchor, Session};
use crate::error::{AcquireError, GuardError, LostCause, ReleaseError};
use crate::guard::Guard;
use crate::lock::LockRequest;
use crate::owner::holder_of_this_thread;
use crate::session::{Hold, Lease, Spec};
use crate::transport::Memory;
use fairlock_protocol::{FencingToken, Mode, OwnerId, ShardId, Tick, Wait};
use fairlock_shm::beacon::Sight;
use fairlock_shm::fork::ForkMark;
use fairlock_shm::segment::Segment;
use fairlock_shm::word::{Entry, Generation, Holder, Leaving, Seen, Word};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Memories a lock can remember: one more with every session that was lost. One that has outlived so many goes on as
/// quick as an ordinary acquire.
const WAYS_MAX: usize = 16;
/// No tenure is remembered.
const NOWHERE: u64 = u64::MAX;
const GENERATION_SHIFT: u32 = 32;
const WAY_SHIFT: u32 = 24;
const WORD_MASK: u64 = (1 << WAY_SHIFT) - 1;
const WAY_MASK: u64 = 0xff;

/// A lock that was prepared with [`LockRequest::prepare`], to be taken any number of times, by any number of threads.
///
/// Over shared memory a lock that nobody else asks for stays with the client between two holds; taking it again then costs
/// some nanoseconds and no message. Nothing else changes: the queue is as fair, tokens and leases are the same, and the
/// server takes the lock back as soon as somebody waits for it. Over a socket it is an ordinary request each time.
///
/// After a fork the child's copy is closed, like everything of the client's. The lock keeps the client open.
///
/// ```no_run
/// let client = fairlock::Client::connect("unix:/run/fairlock.sock")?;
/// let lock = client.lock("orders/42").prepare()?;
/// for _ in 0..1_000_000 {
///     let held = lock.acquire()?;
///     println!("under token {}", held.token().get());
///     held.check()?;
/// } // each `held` gives the lock back where it is dropped
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lock {
    mark: Arc<ForkMark>,
    known: Known,
    anchor: Arc<Anchor>,
    spec: Spec,
    owner: Option<OwnerId>,
}

/// What is remembered of a tenure. Written under `writing`: `place` is [`NOWHERE`] meanwhile, and a reader who finds the
/// same `place` before and after has read what belongs to it.
struct Known {
    /// Generation, way and word of the tenure. Release stores, Acquire loads.
    place: AtomicU64,
    edition: AtomicU32,
    token: AtomicU64,
    fence: AtomicU64,
    ways: [OnceLock<Way>; WAYS_MAX],
    writing: Mutex<()>,
}

/// A memory, and whose it is. Every load on the way to a word is waited for by the exchange on it, so what is needed
/// there stands here, however often it can be found elsewhere.
struct Way {
    segment: Arc<Segment>,
    sight: Sight,
    lease: Arc<Lease>,
    leaving: Leaving,
    /// How long after a stamp of this shard the lease is certain on the coarse clock, if that is enough.
    coarsely_certain_ns: Option<u64>,
    memory: Arc<Memory>,
    session: Weak<Session>,
    shard: ShardId,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(&self.spec.name);
        f.debug_struct("Lock").field("name", &name).field("mode", &self.spec.mode).finish_non_exhaustive()
    }
}

impl Known {
    fn new() -> Known {
        Known {
            place: AtomicU64::new(NOWHERE),
            edition: AtomicU32::new(0),
            token: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            ways: [const { OnceLock::new() }; WAYS_MAX],
            writing: Mutex::new(()),
        }
    }

    #[inline]
    fn way(&self, place: u64) -> Option<(&Way, &Word, Generation)> {
        let number = usize::try_from(place >> WAY_SHIFT & WAY_MASK).ok()?;
        let way = self.ways.get(number)?.get()?;
        let word = way.segment.word(u32::try_from(place & WORD_MASK).ok()?)?;
        Some((way, word, Generation(u32::try_from(place >> GENERATION_SHIFT).ok()?)))
    }

    /// Remembers the tenure in which this one is held, unless the present one goes on.
    fn remember(&self, session: &Arc<Session>, hold: &Hold) {
        let Some(inside) = hold.inside() else { return };
        let tenure = &inside.tenure;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the look: a tenure that is broken after it has another edition.
        let Some(edition) = tenure.memory().edition() else { return };
        if !tenure.is_held(inside.holder) || self.goes_on() {
            return;
        }
        let way = || Way::new(tenure.memory(), session, session.lane_of(&hold.spec).shard);
        let same = |slot: &OnceLock<Way>| Arc::ptr_eq(&slot.get_or_init(way).memory, tenure.memory());
        let Some(number) = self.ways.iter().position(same) else { return };
        let place = u64::from(tenure.generation.0) << GENERATION_SHIFT
            | (number as u64) << WAY_SHIFT
            | u64::from(tenure.index);
        self.place.store(NOWHERE, Ordering::Relaxed);
        // Pairs with the fence in `quick`: who has read one of the numbers below finds NOWHERE, or the new place.
        fence(Ordering::Release);
        self.edition.store(edition, Ordering::Relaxed);
        self.token.store(tenure.facts.token.map_or(0, FencingToken::get), Ordering::Relaxed);
        self.fence.store(tenure.facts.fence, Ordering::Relaxed);
        // Release: pairs with the Acquire load in `quick`.
        self.place.store(place, Ordering::Release);
    }

    /// Whether the remembered tenure is not over: another thread is inside.
    fn goes_on(&self) -> bool {
        let found = self.way(self.place.load(Ordering::Acquire));
        found.is_some_and(|(way, word, generation)| {
            word.look(generation) != Seen::Neither
                && way.memory.edition() == Some(self.edition.load(Ordering::Relaxed))
        })
    }
}

impl Way {
    fn new(memory: &Arc<Memory>, session: &Arc<Session>, shard: ShardId) -> Way {
        Way {
            segment: Arc::clone(memory.segment()),
            sight: memory.sight().clone(),
            lease: Arc::clone(&session.lease),
            leaving: memory.leaving(),
            coarsely_certain_ns: session.lease.coarsely_certain_ns(memory),
            memory: Arc::clone(memory),
            session: Arc::downgrade(session),
            shard,
        }
    }

    /// Has the server look at the words.
    #[cold]
    fn look(&self, anchor: &Anchor) {
        if let Some(session) = self.session.upgrade() {
            session.lane(self.shard).look(&session, &anchor.core);
        }
    }

    /// Whether the session certainly lives, and the server that keeps it.
    #[inline]
    fn is_sound(&self) -> bool {
        if !self.sight.is_alive() || self.segment.status().has_ended() {
            return false;
        }
        self.is_coarsely_certain() || self.is_certain()
    }

    #[inline]
    fn is_coarsely_certain(&self) -> bool {
        let Some(certain_ns) = self.coarsely_certain_ns else { return false };
        // Read before the clock, as everything else here.
        let certain_until = self.sight.steady().saturating_add(certain_ns);
        self.segment.status().renewed_until().is_none()
            && self.memory.edition().is_some()
            && !self.lease.is_over()
            && clock::coarse_ns() < certain_until
    }

    /// The same, by the lease's own clock.
    #[cold]
    fn is_certain(&self) -> bool {
        self.lease.check(clock::now()).is_ok()
    }
}

impl Lock {
    pub(crate) fn new(anchor: Arc<Anchor>, spec: Spec, owner: Option<OwnerId>) -> Lock {
        Lock { mark: Arc::clone(&anchor.core.mark), known: Known::new(), anchor, spec, owner }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.spec.name
    }

    /// The mode it is taken in.
    pub fn mode(&self) -> Mode {
        self.spec.mode
    }

    /// Waits for the lock, as long as was said when it was prepared.
    ///
    /// # Errors
    /// As [`LockRequest::acquire`]. A thread that holds the lock already is refused
    /// [`Refusal::AlreadyHeld`](crate::Refusal::AlreadyHeld).
    #[expect(
        clippy::inline_always,
        reason = "a result that is moved through memory costs as much as the exchange"
    )]
    #[inline(always)]
    pub fn acquire(&self) -> Result<Held<'_>, AcquireError> {
        match self.quick() {
            Some(entered) => Ok(Held { by: By::Word(entered) }),
            None => match self.ask(None) {
                Ok(guard) => Ok(Held { by: By::Guard(guard) }),
                Err(error) => Err(*error),
            },
        }
    }

    /// Takes the lock if nobody holds it against us and nobody waits before us.
    ///
    /// # Errors
    /// As [`LockRequest::try_acquire`].
    #[expect(
        clippy::inline_always,
        reason = "a result that is moved through memory costs as much as the exchange"
    )]
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Held<'_>, AcquireError> {
        match self.quick() {
            Some(entered) => Ok(Held { by: By::Word(entered) }),
            None => match self.ask(Some(Wait::Try)) {
                Ok(guard) => Ok(Held { by: By::Guard(guard) }),
                Err(error) => Err(*error),
            },
        }
    }

    /// Tries the remembered tenure; `None`: the server is to be asked.
    #[expect(
        clippy::inline_always,
        reason = "a result that is moved through memory costs as much as the exchange"
    )]
    #[inline(always)]
    fn quick(&self) -> Option<Entered<'_>> {
        // Acquire: pairs with the Release store in `remember`.
        let place = self.known.place.load(Ordering::Acquire);
        if place == NOWHERE || self.mark.is_child() {
            return None;
        }
        let (way, word, generation) = self.known.way(place)?;
        let holder = holder_of_this_thread();
        match word.enter(generation, holder, way.leaving) {
            Entry::Entered => {}
            Entry::Refused => return None,
            Entry::Undone => {
                // Whatever is asked next may find another way than a message.
                way.look(&self.anchor);
                return None;
            }
        }
        let known = &self.known;
        let token = known.token.load(Ordering::Relaxed);
        let marks = known.fence.load(Ordering::Relaxed);
        let edition = known.edition.load(Ordering::Relaxed);
        // Pairs with the fence in `remember`.
        fence(Ordering::Acquire);
        let belongs = known.place.load(Ordering::Relaxed) == place;
        // From here on a drop leaves the word. All this is looked at after it was entered, so that no pause slips between.
        let entered = Entered { lock: self, way, word, generation, holder, token, fence: marks };
        (belongs && way.memory.edition() == Some(edition) && way.is_sound()).then_some(entered)
    }

    /// The way of every other request. What it gives is boxed, so that it comes in registers: a result that was written
    /// through a pointer here would have to be written to memory, and copied there, on the short way too, at the price
    /// of an exchange.
    #[cold]
    #[inline(never)]
    fn ask(&self, wait: Option<Wait>) -> Result<Box<Guard>, Box<AcquireError>> {
        let mut spec = self.spec.clone();
        spec.wait = wait.unwrap_or(spec.wait);
        let is_try = spec.wait == Wait::Try;
        let request = LockRequest::again(Arc::clone(&self.anchor), spec, self.owner);
        let guard = if is_try { request.try_acquire() } else { request.acquire() }?;
        let (session, hold) = guard.parts();
        self.known.remember(session, hold);
        Ok(Box::new(guard))
    }
}

/// A held [`Lock`]. Dropping it gives the lock back, without waiting for anything.
#[derive(Debug)]
#[must_use = "dropped, it gives the lock back"]
pub struct Held<'a> {
    by: By<'a>,
}

#[derive(Debug)]
enum By<'a> {
    Word(Entered<'a>),
    Guard(Box<Guard>),
}

/// A word that was entered without a message.
struct Entered<'a> {
    lock: &'a Lock,
    way: &'a Way,
    word: &'a Word,
    generation: Generation,
    holder: Holder,
    token: u64,
    fence: u64,
}

impl fmt::Debug for Entered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Entered<'_> {
    /// Why it is lost, if it is.
    #[inline]
    fn check(&self) -> Result<(), LostCause> {
        if self.lock.mark.is_child() {
            return Err(LostCause::Forked);
        }
        if self.word.is_held(self.generation, self.holder) && self.way.is_sound() {
            return Ok(());
        }
        self.certain_until(clock::now()).map(drop)
    }

    /// The moment until which it is certainly held. The word first: whatever ended it was written before the word changed.
    #[cold]
    fn certain_until(&self, now: Tick) -> Result<Tick, LostCause> {
        if self.lock.mark.is_child() {
            return Err(LostCause::Forked);
        }
        let inside = self.word.is_held(self.generation, self.holder);
        let until = self.way.lease.check(now)?;
        if inside { Ok(until) } else { Err(LostCause::Broken) }
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        // The fork mark first of all: in a child nothing is touched.
        if !self.lock.mark.is_child() && self.word.leave(self.generation, self.way.leaving) {
            self.way.look(&self.lock.anchor);
        }
    }
}

impl Held<'_> {
    /// The fencing token: higher than that of every earlier tenure of this lock, through every failure. The same while the
    /// lock stays with the client.
    ///
    /// # Panics
    /// In mode NL, which keeps nobody out and has no token.
    pub fn token(&self) -> FencingToken {
        match &self.by {
            By::Word(entered) => {
                FencingToken::from_raw(entered.token).expect("only EX and PR stay with a client")
            }
            By::Guard(guard) => guard.token(),
        }
    }

    /// What a fenced resource remembers; as [`Guard::fence`].
    pub fn fence(&self) -> u64 {
        match &self.by {
            By::Word(entered) => entered.fence,
            By::Guard(guard) => guard.fence(),
        }
    }

    /// A holder before this one died while it could write: what the lock protects may be half changed.
    pub fn previous_owner_died(&self) -> bool {
        match &self.by {
            By::Word(_) => false,
            By::Guard(guard) => guard.previous_owner_died(),
        }
    }

    /// Whether the lock is held, without I/O and without asking anybody.
    ///
    /// # Errors
    /// [`GuardError::Lost`]; final.
    #[inline]
    pub fn check(&self) -> Result<(), GuardError> {
        match &self.by {
            By::Word(entered) => entered.check().map_err(GuardError::Lost),
            By::Guard(guard) => guard.check(),
        }
    }

    /// Whether the lock is certainly held for `work` longer, even if the server is heard of no more.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn valid_for(&self, work: Duration) -> Result<(), GuardError> {
        match &self.by {
            By::Word(entered) => {
                let now = clock::now();
                let remaining = entered.certain_until(now).map_err(GuardError::Lost)?.since(now);
                if work < remaining { Ok(()) } else { Err(GuardError::TooShort { remaining }) }
            }
            By::Guard(guard) => guard.valid_for(work),
        }
    }

    /// Gives the lock back. Who need not know whether it was lost drops it.
    ///
    /// # Errors
    /// [`ReleaseError::Lost`] when the lock was lost before: what was done under it may have overlapped.
    #[inline]
    pub fn release(self) -> Result<(), ReleaseError> {
        match self.by {
            By::Word(entered) => entered.check().map_err(ReleaseError::Lost),
            By::Guard(guard) => guard.release(),
        }
    }
}

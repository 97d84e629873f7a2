//! A session's way to one shard: the stream, the link under it, and who reads.
//!
//! A lane's lock is held for bookkeeping only, never across a system call that could wait. Bytes leave in the order of
//! their encoding: the thread that finds nobody writing writes for all who come meanwhile (they share its send).
//! Bytes are read and taken apart under the inbox lock, so their order holds whoever reads.

use super::core::Core;
use super::session::Session;
use super::slot::Slot;
use super::spares::Owner;
use super::tender::RESUME_TIME;
use crate::clock;
use crate::dial::Inbox;
use crate::session::{Attempt, Hold, Jitter, Spec, Stream};
use crate::transport::{Bell, Link, Memory, Target};
use fairlock_protocol::handshake::FEATURE_SHM;
use fairlock_protocol::{Refusal, ShardId, Tick};
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause before the first new connection after one broke, doubling from there.
pub(super) const REDIAL_PAUSE: Duration = Duration::from_millis(5);
/// Longest such pause.
pub(super) const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How the tender sees to a lane (the argument stands in [`super`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// It polls the socket.
    Watched,
    /// It comes by at this moment at the latest.
    Napping(Tick),
    /// It comes when it is called; only while there is a reader.
    Called,
}

/// What the socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlet {
    /// Nothing: the connection is under way.
    Connecting,
    /// Bytes.
    Open,
    /// Nothing at the moment; the tender waits until it does.
    Full,
}

/// What of a lane is behind its lock.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) stream: Stream<Arc<Slot>>,
    pub(super) link: Option<Arc<Link>>,
    pub(super) outlet: Outlet,
    /// By when the present connection must have resumed.
    pub(super) resume_by: Tick,
    /// When to try a new connection.
    pub(super) redial: Tick,
    pub(super) tries: u32,
    /// Which of the targets the next connection goes to, modulo their number.
    pub(super) target: usize,
    /// Where the present connection leads, or the last one did.
    at: Option<Target>,
    /// Memory was passed that cannot be used: the next connections do not ask for it.
    pub(super) without_memory: bool,
    /// A ring that was full is tried again at this moment.
    pub(super) retry: Tick,
    links: u64,
    writing: bool,
    /// A thread in the foreground reads.
    pub(super) reader: bool,
    /// How often somebody began to read, or asked for something.
    pub(super) activity: u64,
    /// Threads that wait for a reply and do not read.
    pub(super) parked: Vec<Arc<Slot>>,
    pub(super) cover: Cover,
    pub(super) jitter: Jitter,
}

/// A session's way to one shard.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shard: ShardId,
    state: Mutex<LaneState>,
    inbox: Mutex<(u64, Inbox)>,
    /// Wakes the foreground reader out of its poll.
    pub(super) bell: Bell,
    /// Waits since an answer last came so soon that it was worth spinning for.
    pub(super) spun_in_vain: AtomicU32,
}

impl Lane {
    pub(super) fn new(
        stream: Stream<Arc<Slot>>,
        shard: ShardId,
        target: usize,
        jitter: Jitter,
    ) -> io::Result<Lane> {
        let state = LaneState {
            stream,
            link: None,
            outlet: Outlet::Open,
            resume_by: Tick::ZERO,
            redial: Tick::ZERO,
            tries: 0,
            target,
            at: None,
            without_memory: false,
            retry: Tick::ZERO,
            links: 0,
            writing: false,
            reader: false,
            activity: 0,
            parked: Vec::new(),
            cover: Cover::Watched,
            jitter,
        };
        Ok(Lane {
            shard,
            state: Mutex::new(state),
            inbox: Mutex::default(),
            bell: Bell::new()?,
            spun_in_vain: AtomicU32::new(0),
        })
    }

    /// The home lane goes on with the connection on which the session was opened, and what came with its last answer.
    pub(super) fn adopt(&self, core_link: impl FnOnce(u64) -> Link, inbox: Inbox, target: &Target) {
        let mut state = self.state();
        state.at = Some(target.clone());
        state.links += 1;
        let number = state.links;
        let link = Arc::new(core_link(number));
        if let Some(memory) = link.memory() {
            state.stream.shares(memory);
        }
        state.link = Some(link);
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = (number, inbox);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the stream, then sends what it has to say and does what follows.
    pub(crate) fn with<R>(
        &self,
        session: &Arc<Session>,
        core: &Core,
        change: impl FnOnce(&mut Stream<Arc<Slot>>) -> R,
    ) -> R {
        let (result, events, has_bytes) = {
            let mut state = self.state();
            state.activity += 1;
            let result = change(&mut state.stream);
            (result, state.stream.take_events(), !state.stream.out.is_empty())
        };
        if has_bytes {
            self.flush(core);
        }
        session.follow(core, self, events, false);
        result
    }

    /// Writes what is to be written, unless another thread is at it: then that one does.
    pub(super) fn flush(&self, core: &Core) {
        let mut state = self.state();
        if state.writing {
            return;
        }
        state.writing = true;
        let mut bytes = Vec::new();
        while state.outlet == Outlet::Open && !state.stream.out.is_empty() {
            let Some(link) = state.link.clone() else { break };
            std::mem::swap(&mut bytes, &mut state.stream.out);
            drop(state);
            let written = link.write(&bytes);
            state = self.state();
            if state.link.as_ref().is_none_or(|present| present.number != link.number) {
                // Another connection: what was left of this one is said again there.
                bytes.clear();
                continue;
            }
            match written {
                Ok(count) if count == bytes.len() => bytes.clear(),
                Ok(count) => {
                    state.stream.out.splice(0..0, bytes.drain(..).skip(count));
                    state.outlet = Outlet::Full;
                    core.ring();
                }
                Err(_) => {
                    bytes.clear();
                    break_link(&mut state, link.number, Duration::ZERO);
                    core.ring();
                }
            }
        }
        state.writing = false;
        if state.stream.out.is_empty() && bytes.capacity() > 0 {
            // The larger buffer stays, so that nothing is allocated next time.
            bytes.clear();
            state.stream.out = bytes;
        }
    }

    /// Tries to have a lock without a message; `None`: the server is to be asked.
    pub(super) fn enter(
        &self,
        session: &Arc<Session>,
        core: &Core,
        spec: &Arc<Spec>,
    ) -> Option<Result<Arc<Hold>, Refusal>> {
        let (attempt, memory) = {
            let mut state = self.state();
            let attempt = state.stream.enter(spec);
            (attempt, state.memory().cloned())
        };
        match attempt {
            Attempt::Ask => None,
            Attempt::Refused(refusal) => Some(Err(refusal)),
            Attempt::Entered(hold) => {
                // After the word was taken, so that no pause slips between. What is held in none is judged by the lease alone.
                let shows = |memory: Arc<Memory>| memory.is_alive() && !memory.has_ended();
                let shown = !hold.is_entered() || memory.is_some_and(shows);
                if shown && session.lease.check(clock::now()).is_ok() {
                    return Some(Ok(hold));
                }
                self.release(session, core, &hold);
                None
            }
        }
    }

    /// Reads this link once and takes apart what came. `by_reader`: the foreground reader does it. Says whether the
    /// link stands.
    pub(super) fn pump(&self, session: &Arc<Session>, core: &Core, link: &Link, by_reader: bool) -> bool {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let is_present =
            |state: &LaneState| state.link.as_ref().is_some_and(|present| present.number == link.number);
        if !is_present(&self.state()) {
            return false;
        }
        if inbox.0 != link.number {
            inbox.0 = link.number;
            inbox.1.clear();
        }
        let read = link.read(&mut inbox.1);
        if matches!(read, Ok(None)) {
            return true;
        }
        let stands = matches!(read, Ok(Some(count)) if count > 0);
        let mut state = self.state();
        if !is_present(&state) {
            return false;
        }
        if let Err(error) = &read
            && error.kind() == io::ErrorKind::Unsupported
        {
            tracing::info!(%error, "no shared memory; another connection stays on the socket");
            state.without_memory = true;
        }
        if let Some(memory) = link.memory() {
            state.stream.shares(memory);
        }
        let sound = stands && take_apart(&mut state.stream, &mut inbox.1);
        if !sound {
            break_link(&mut state, link.number, Duration::ZERO);
        }
        let events = state.stream.take_events();
        let has_bytes = !state.stream.out.is_empty();
        drop(state);
        drop(inbox);
        if has_bytes {
            self.flush(core);
        }
        session.follow(core, self, events, by_reader);
        if !sound {
            core.ring();
        }
        sound
    }

    /// What came with the session's first answer and has not been looked at.
    pub(super) fn take_first(&self, session: &Arc<Session>, core: &Core) {
        let events = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.state();
            if !take_apart(&mut state.stream, &mut inbox.1) {
                break_link(&mut state, inbox.0, Duration::ZERO);
            }
            state.stream.take_events()
        };
        session.follow(core, self, events, false);
    }

    /// A connection on which RESUME was said, at this moment, takes the lane; its answer has arrived.
    pub(super) fn take_over(
        &self,
        Owner { core, session, .. }: Owner<'_>,
        link: Arc<Link>,
        arrived: Inbox,
        target: &Target,
        sent: Tick,
    ) {
        let events = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.state();
            assert!(state.link.is_none(), "one connection at a time");
            let number = link.number;
            state.link = Some(link);
            state.at = Some(target.clone());
            state.outlet = Outlet::Open;
            state.resume_by = clock::now().after(RESUME_TIME);
            *inbox = (number, arrived);
            state.stream.resumes(sent);
            if !take_apart(&mut state.stream, &mut inbox.1) {
                break_link(&mut state, number, Duration::ZERO);
            }
            state.stream.take_events()
        };
        self.flush(core);
        session.follow(core, self, events, false);
    }

    /// Where the present connection leads, or the last one did.
    pub(crate) fn at(&self) -> Option<Target> {
        self.state().at.clone()
    }

    /// A number for a connection that may take the lane.
    pub(super) fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.links += 1;
        state.links
    }

    /// Breaks the present connection; another one is tried after the pause, `elsewhere` if there is a choice.
    pub(super) fn break_now(&self, core: &Core, pause: Duration, elsewhere: bool) {
        let mut state = self.state();
        state.target += usize::from(elsewhere);
        if let Some(number) = state.number() {
            break_link(&mut state, number, pause);
        }
        drop(state);
        core.ring();
    }

    /// Ends the present connection for good.
    pub(super) fn hang_up(&self) {
        let mut state = self.state();
        if let Some(number) = state.number() {
            break_link(&mut state, number, Duration::ZERO);
        }
    }

    /// No connection could be begun; the next target is tried later.
    pub(super) fn not_connected(&self, now: Tick) -> Tick {
        let mut state = self.state();
        state.target += 1;
        let tries = state.tries;
        state.tries += 1;
        state.redial = now.after(state.jitter.backoff(tries, REDIAL_PAUSE, REDIAL_PAUSE_MAX));
        state.redial
    }

    /// A new connection takes the lane. `stands`: it is writable already.
    pub(super) fn connected(
        &self,
        core: &Core,
        make: impl FnOnce(u64) -> Link,
        target: &Target,
        stands: bool,
        resume_by: Tick,
    ) {
        let mut state = self.state();
        assert!(state.link.is_none(), "one connection at a time");
        state.links += 1;
        let number = state.links;
        state.link = Some(Arc::new(make(number)));
        state.at = Some(target.clone());
        state.outlet = if stands { Outlet::Open } else { Outlet::Connecting };
        state.resume_by = resume_by;
        if stands {
            state.greet();
        }
        drop(state);
        self.flush(core);
    }

    /// Wakes the reader, if there is one, because somebody else settled what it waits for.
    pub(super) fn ring_reader(&self) {
        let state = self.state();
        if !state.reader {
            return;
        }
        // Under the lock: while there is a reader, nobody has announced that the socket is polled.
        match state.memory() {
            Some(memory) => memory.rouse(),
            None => self.bell.ring(),
        }
    }

    /// Has the server look at the words: one that somebody waits for was left.
    pub(crate) fn look(&self, session: &Arc<Session>, core: &Core) {
        self.with(session, core, Stream::look);
    }

    /// One guard of a grant is given back.
    pub(crate) fn release(&self, session: &Arc<Session>, core: &Core, hold: &Arc<Hold>) {
        self.with(session, core, |stream| stream.release(clock::now(), hold));
    }
}

impl LaneState {
    /// The number of the present connection.
    fn number(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.number)
    }

    /// Whether the session has ever been tried to be reached here.
    pub(super) fn was_tried(&self) -> bool {
        self.links > 0 || self.tries > 0
    }

    /// The present connection stands: HELLO is said.
    pub(super) fn greet(&mut self) {
        let asks = self.link.as_ref().is_some_and(|link| link.asks());
        self.stream.connected(if asks { FEATURE_SHM } else { 0 });
    }

    /// The memory of the present connection, if it goes through memory.
    pub(super) fn memory(&self) -> Option<&Arc<Memory>> {
        self.link.as_ref().and_then(|link| link.memory())
    }
}

/// Gives every whole frame to the stream; `false` when one of them cannot be right.
fn take_apart(stream: &mut Stream<Arc<Slot>>, inbox: &mut Inbox) -> bool {
    // After the bytes were received, and under the lock: a confirmation is judged by the time at which it counts.
    let now = clock::now();
    loop {
        let length = match inbox.frame() {
            Ok(None) => return true,
            Ok(Some((frame, length))) => match stream.receive(now, &frame) {
                Ok(()) => length,
                Err(fault) => {
                    tracing::warn!(?fault, "a server said what it must not; the connection is broken");
                    return false;
                }
            },
            Err(malformed) => {
                tracing::warn!(%malformed, "a server sent what is no frame; the connection is broken");
                return false;
            }
        };
        inbox.taken(length);
    }
}

/// Ends connection `number`, if it is still the present one.
pub(super) fn break_link(state: &mut LaneState, number: u64, pause: Duration) {
    if state.link.as_ref().is_none_or(|link| link.number != number) {
        return;
    }
    let link = state.link.take();
    if state.stream.is_live() {
        state.tries = 0;
    } else {
        state.tries += 1;
        state.target += 1;
    }
    // Whoever is inside a word knows that it means nothing any more before the server sees the end.
    state.stream.disconnected();
    if let Some(link) = link {
        link.hang_up();
    }
    state.outlet = Outlet::Open;
    let backoff = state.jitter.backoff(state.tries, REDIAL_PAUSE, REDIAL_PAUSE_MAX);
    state.redial = clock::now().after(pause.max(backoff));
}

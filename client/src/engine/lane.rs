//! A session's connections, one lane a shard: the stream, the link under it, and who reads.
//!
//! A lane's lock is held for bookkeeping only, never across a system call that could wait. Bytes leave in the order of
//! their encoding: the thread that finds nobody writing writes for all who come meanwhile (they share its send).
//! Bytes are read and taken apart under the inbox lock, so their order holds whoever reads.

use super::core::Core;
use super::slot::{Outcome, Slot};
use crate::builder::Notice;
use crate::clock;
use crate::dial::Inbox;
use crate::error::LostCause;
use crate::session::{Ask, Event, Hold, Jitter, Lease, Passport, Spec, Stream};
use crate::transport::{self, Bell, Link};
use fairlock_protocol::{ShardId, Tick};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
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
}

/// One session, over all its shards.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) passport: Arc<Passport>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) lanes: Box<[Lane]>,
    /// The home lane talks. Relaxed: a hint for people.
    pub(super) reachable: AtomicBool,
    /// `end` was begun. AcqRel swap: exactly one thread does the work.
    ended: AtomicBool,
    /// CLOSE was answered. Release store, Acquire load in the tender.
    pub(super) closed: AtomicBool,
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
            links: 0,
            writing: false,
            reader: false,
            activity: 0,
            parked: Vec::new(),
            cover: Cover::Watched,
            jitter,
        };
        Ok(Lane { shard, state: Mutex::new(state), inbox: Mutex::default(), bell: Bell::new()? })
    }

    /// The home lane goes on with the connection on which the session was opened, and what came with its last answer.
    pub(super) fn adopt(&self, core_link: impl FnOnce(u64) -> Link, inbox: Inbox) {
        let mut state = self.state();
        state.links += 1;
        let number = state.links;
        state.link = Some(Arc::new(core_link(number)));
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
            let written = write_all(&link, &bytes);
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
        let stands = match transport::read(link.as_fd(), inbox.1.room()) {
            Ok(Some(0)) | Err(_) => false,
            Ok(Some(count)) => {
                inbox.1.filled(count);
                true
            }
            Ok(None) => return true,
        };
        let mut state = self.state();
        if !is_present(&state) {
            return false;
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
                let number = state.links;
                break_link(&mut state, number, Duration::ZERO);
            }
            state.stream.take_events()
        };
        session.follow(core, self, events, false);
    }

    /// Breaks the present connection; another one is tried after the pause, `elsewhere` if there is a choice.
    pub(super) fn break_now(&self, core: &Core, pause: Duration, elsewhere: bool) {
        let mut state = self.state();
        let number = state.links;
        state.target += usize::from(elsewhere);
        break_link(&mut state, number, pause);
        drop(state);
        core.ring();
    }

    /// Ends the present connection for good.
    pub(super) fn hang_up(&self) {
        let mut state = self.state();
        let number = state.links;
        break_link(&mut state, number, Duration::ZERO);
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
        stands: bool,
        resume_by: Tick,
    ) {
        let mut state = self.state();
        assert!(state.link.is_none(), "one connection at a time");
        state.links += 1;
        let number = state.links;
        state.link = Some(Arc::new(make(number)));
        state.outlet = if stands { Outlet::Open } else { Outlet::Connecting };
        state.resume_by = resume_by;
        if stands {
            state.stream.connected();
        }
        drop(state);
        self.flush(core);
    }

    /// Wakes the reader, if there is one, because somebody else settled what it waits for.
    pub(super) fn ring_reader(&self) {
        if self.state().reader {
            self.bell.ring();
        }
    }

    /// One guard of a grant is given back.
    pub(crate) fn release(&self, session: &Arc<Session>, core: &Core, hold: &Arc<Hold>) {
        self.with(session, core, |stream| stream.release(clock::now(), hold));
    }
}

/// Writes as much as the socket takes.
fn write_all(link: &Link, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match transport::write(link.as_fd(), &bytes[done..])? {
            Some(count) => done += count,
            None => break,
        }
    }
    Ok(done)
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
    if let Some(link) = state.link.take() {
        link.hang_up();
    }
    if state.stream.is_live() {
        state.tries = 0;
    } else {
        state.tries += 1;
        state.target += 1;
    }
    state.stream.disconnected();
    state.outlet = Outlet::Open;
    let backoff = state.jitter.backoff(state.tries, REDIAL_PAUSE, REDIAL_PAUSE_MAX);
    state.redial = clock::now().after(pause.max(backoff));
}

impl Session {
    pub(super) fn new(passport: Arc<Passport>, lease: Arc<Lease>, lanes: Vec<Lane>) -> Session {
        assert_eq!(lanes.len(), usize::from(passport.shards), "a lane for every shard");
        Session {
            passport,
            lease,
            lanes: lanes.into_boxed_slice(),
            reachable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The way to a shard.
    pub(crate) fn lane(&self, shard: ShardId) -> &Lane {
        &self.lanes[usize::from(shard.0)]
    }

    /// The way to the shard that owns a name.
    pub(crate) fn lane_of(&self, spec: &Spec) -> &Lane {
        let resource = spec.resource().expect("names are checked before a request is made");
        self.lane(self.passport.digest_key.digest(resource).shard(self.passport.shards))
    }

    pub(super) fn home(&self) -> &Lane {
        self.lane(self.passport.home)
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Does what follows from what a stream learned. No lock is held here: wakers and callbacks may do anything.
    pub(super) fn follow(
        self: &Arc<Self>,
        core: &Core,
        lane: &Lane,
        events: Vec<Event<Arc<Slot>>>,
        by_reader: bool,
    ) {
        let mut settled_for_reader = false;
        for event in events {
            match event {
                Event::Answered(slot, answer) => {
                    settled_for_reader = true;
                    let late = match slot.settle(Outcome::of(answer, self)) {
                        Err(Outcome::Granted(_, hold)) => vec![hold],
                        Err(Outcome::GrantedAll(_, holds)) => holds,
                        _ => Vec::new(),
                    };
                    for hold in late {
                        lane.release(self, core, &hold);
                    }
                }
                Event::HoldOver(hold) => hold.wake_watchers(),
                Event::Notice(notice) => core.tell(notice),
                Event::Over(LostCause::Killed) if core.config.confirm_when_released && self.recall(core) => {}
                Event::Over(cause) => self.end(core, cause),
                Event::Closed => {
                    self.closed.store(true, Ordering::Release);
                    core.ring();
                }
                Event::Elsewhere(ms) => lane.break_now(core, Duration::from_millis(ms.into()), true),
                Event::Rearm => core.ring(),
            }
        }
        if settled_for_reader && !by_reader {
            lane.ring_reader();
        }
    }

    /// An operator ends the session, and the program wants to stop what its guards protect before that is confirmed:
    /// they are lost now, and CLOSE is said when the program closes. Says whether there was any guard.
    fn recall(self: &Arc<Self>, core: &Core) -> bool {
        let mut any = false;
        for lane in &self.lanes {
            let events = {
                let mut state = lane.state();
                any |= state.stream.take_all_away(LostCause::Killed);
                state.stream.take_events()
            };
            self.follow(core, lane, events, false);
        }
        if any {
            core.tell(crate::builder::Notice::Killed);
        }
        any
    }

    /// The session is over: every guard is lost before anybody is told, every waiting request fails, and the server,
    /// if it can be reached, is told last, so that it need not wait.
    pub(crate) fn end(self: &Arc<Self>, core: &Core, cause: LostCause) {
        self.lease.end(cause);
        let now = clock::now();
        let cause = self.lease.check(now).err().unwrap_or(cause);
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        for lane in &self.lanes {
            let events = {
                let mut state = lane.state();
                state.stream.end(cause);
                state.stream.take_events()
            };
            self.follow(core, lane, events, false);
        }
        if !matches!(cause, LostCause::Session(_)) {
            self.home().with(self, core, |stream| stream.submit(now, Ask::Close, None, true));
        }
        match cause {
            LostCause::Closed => {}
            LostCause::Killed => core.tell(Notice::Killed),
            _ => core.tell(Notice::Lost),
        }
        core.ring();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

//! The one thread that does what nobody waits for: renewals, the end of the lease, new connections, longest holds,
//! requests that rest, and reading where no thread in the foreground does.
//!
//! It never blocks on one thing: every pass looks at everything, works out the earliest moment at which something is
//! due, and polls until then. The one exception is opening a new session, when there is nothing to keep alive.

use super::core::Core;
use super::foreground;
use super::lane::{Cover, Lane, LaneState, Outlet, break_link};
use super::opening;
use super::reassert::{Rescue, rescue};
use super::session::Session;
use super::slot::Outcome;
use super::spares::{Owner, Spares, Want};
use crate::clock;
use crate::error::{AcquireError, LostCause};
use crate::session::{Ask, Beat, Jitter, Pulse};
use crate::transport::{self, Link, Road};
use fairlock_protocol::{Refusal, Tick};
use fairlock_shm::bell::Waiting;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a lane may be left to threads that come and go before somebody looks whether they still do. Bounds how
/// late a notice is read that arrives between two of their calls; 100 looks a second cost a busy client 0.1 % of a core.
const NAP: Duration = Duration::from_millis(10);
/// Pause before another server is looked for that takes on what is held.
const RESCUE_PAUSE: Duration = Duration::from_millis(20);
/// How soon a ring that was full is tried again.
const RING_RETRY: Duration = Duration::from_millis(1);
/// How long a connection may take until the session is resumed on it, before another one is tried.
pub(super) const RESUME_TIME: Duration = Duration::from_secs(1);
/// How long a session that is over anyway may take to say so to its server.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// One session and what the tender remembers of it.
#[derive(Debug)]
struct Tended {
    session: Arc<Session>,
    pulse: Pulse,
    /// Activity of each lane when its present nap began.
    seen: Vec<u64>,
    /// What each lane has beside its connection.
    spares: Vec<Spares>,
    /// The newest epoch for which no server has to be left any more.
    left_for: u32,
    /// Once the session is over: how long its last word may take.
    farewell: Option<Tick>,
    finished: bool,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Tender {
    core: Arc<Core>,
    tended: Vec<Tended>,
}

/// A descriptor to poll, and whose it is.
struct Watch {
    tended: usize,
    lane: usize,
    /// Which of the lane's spares; `None`: the lane's own.
    spare: Option<usize>,
    link: Arc<Link>,
    flags: PollFlags,
}

impl Tended {
    fn new(session: Arc<Session>) -> Tended {
        let confirmed = session.lease.confirmed().unwrap_or_else(clock::now);
        let jitter = Jitter::new(session.passport.session().get().rotate_left(17));
        let pulse = Pulse::new(session.lease.ttl(), confirmed, jitter);
        let seen = vec![0; session.lanes.len()];
        let seed = session.passport.session().get().rotate_left(29);
        let spares = (0..session.lanes.len()).map(|lane| Spares::new(Jitter::new(seed ^ lane as u64)));
        let spares = spares.collect();
        Tended { session, pulse, seen, spares, left_for: 0, farewell: None, finished: false }
    }

    /// Looks at everything; the earliest moment at which something is due.
    fn pass(&mut self, core: &Core, now: Tick) -> Tick {
        let session = Arc::clone(&self.session);
        let mut due = Tick(u64::MAX);
        match session.lease.check(now) {
            Ok(deadline) => due = due.min(deadline),
            Err(cause) => session.end(core, cause),
        }
        if session.unknown.load(Ordering::Acquire) && !session.is_ended() {
            match rescue(core, &session) {
                // At once, with what is known then. Whoever was asked for the session of before says nothing of this one.
                Rescue::GoesOn => {
                    self.spares.iter_mut().for_each(Spares::forget_asked);
                    return now;
                }
                Rescue::Again => return due.min(clock::now().after(RESCUE_PAUSE)),
                Rescue::Over => session.end(core, LostCause::Session(Refusal::SessionUnknown)),
            }
        }
        if session.is_ended() {
            due = due.min(self.say_farewell(core, now));
            if self.finished {
                return due;
            }
        }
        let may_dial = !session.is_ended() || core.is_closing();
        let several = core.nodes.are_several();
        for (index, lane) in session.lanes.iter().enumerate() {
            let want = if several { wants(&session, lane, may_dial) } else { Want::Nothing };
            let owner = Owner { core, session: &session, lane };
            due = due.min(self.spares[index].pass(owner, want, now));
            let may_dial = may_dial && want != Want::Home;
            due = due.min(look_after(core, &session, lane, now, &mut self.seen[index], may_dial));
        }
        let live = session.home().state().stream.is_live();
        self.leave_who_is_left(core, live);
        session.reachable.store(live, Ordering::Relaxed);
        if let Some(confirmed) = session.lease.confirmed() {
            due = due.min(self.beat(core, now, confirmed, live));
        }
        due
    }

    /// The cell has gone on without the session's server, says another node that serves: its silence is not waited for.
    /// What was known while the session had no server is no reason: whoever took it up may be known by an earlier epoch.
    fn leave_who_is_left(&mut self, core: &Core, live: bool) {
        let epoch = core.nodes.epoch();
        if live && epoch > self.left_for && self.session.is_left_behind(core) && !self.session.is_ended() {
            tracing::info!(epoch, "the cell went on without this node; the session is taken elsewhere");
            self.session.lanes.iter().for_each(|lane| lane.break_now(core, Duration::ZERO, false));
            self.left_for = epoch;
        }
        if !live {
            self.left_for = epoch;
        }
    }

    fn beat(&mut self, core: &Core, now: Tick, confirmed: Tick, live: bool) -> Tick {
        let session = &self.session;
        match self.pulse.beat(now, confirmed, live) {
            Beat::Wait(due) => due,
            Beat::Send(due) => {
                session.home().with(session, core, |stream| stream.submit(now, Ask::Keepalive, None, true));
                due
            }
            // It is the server that stands still, not the way to it; hanging up would only end the session, unless the cell has
            // gone on without that server.
            Beat::Break if session.home().state().memory().is_some() && !session.is_left_behind(core) => now,
            Beat::Break => {
                tracing::warn!("no renewal was answered; the connection is given up for another");
                // The others go the same way through the network; on them nothing is said that would show it.
                let goes_too = |lane: &&Lane| session.is_left_behind(core) || lane.state().memory().is_none();
                let streams = session.lanes.iter().filter(goes_too);
                streams.for_each(|lane| lane.break_now(core, Duration::ZERO, false));
                now
            }
        }
    }

    /// The session is over. Its CLOSE gets a moment to arrive, then every connection is hung up.
    fn say_farewell(&mut self, core: &Core, now: Tick) -> Tick {
        let closing = core.is_closing();
        let time = if closing { core.config.deadline } else { FAREWELL_TIME.min(core.config.deadline) };
        let until = *self.farewell.get_or_insert_with(|| now.after(time));
        let cause = self.session.lease.check(now).err();
        let nothing_to_say = matches!(cause, Some(LostCause::Session(_)));
        let nobody_there = !closing && self.session.home().state().link.is_none();
        let said = self.session.closed.load(Ordering::Acquire);
        if said || nothing_to_say || nobody_there || now >= until {
            for lane in &self.session.lanes {
                lane.hang_up();
            }
            self.finished = true;
        }
        until
    }
}

/// What a lane needs beside its connection, where there are several nodes. A lane that was never tried begins where the home
/// lane is.
fn wants(session: &Session, lane: &Lane, may_dial: bool) -> Want {
    let is_home = lane.shard == session.passport.home;
    let home_stands = is_home || session.home().state().stream.is_live();
    let state = lane.state();
    let in_cell = session.in_cell.load(Ordering::Relaxed) && !session.is_ended();
    match &state.link {
        Some(_) if in_cell => Want::Standby,
        None if may_dial && (is_home || state.stream.is_wanted()) && (state.was_tried() || !home_stands) => {
            Want::Home
        }
        _ => Want::Nothing,
    }
}

/// One lane: its timers, its connection, and whether the tender reads it.
fn look_after(
    core: &Core,
    session: &Arc<Session>,
    lane: &Lane,
    now: Tick,
    seen: &mut u64,
    may_dial: bool,
) -> Tick {
    let is_home = lane.shard == session.passport.home;
    let mut state = lane.state();
    state.stream.tick(now);
    let mut due = state.stream.due().unwrap_or(Tick(u64::MAX));
    due = due.min(await_resume(&mut state, now));
    if state.outlet == Outlet::Full && state.memory().is_some() {
        // Nothing tells when a ring has room again.
        if now >= state.retry {
            state.outlet = Outlet::Open;
            state.retry = now.after(RING_RETRY);
        }
        due = due.min(state.retry);
    }
    let wanted = is_home || state.stream.is_wanted();
    let mut dial = false;
    if state.link.is_none() && may_dial && wanted {
        dial = state.redial <= now;
        due = due.min(state.redial);
    }
    state.cover = cover(&state, now, seen);
    if let Cover::Napping(until) = state.cover {
        due = due.min(until);
    }
    let events = state.stream.take_events();
    let unread = watch_ring(&state);
    drop(state);
    lane.flush(core);
    session.follow(core, lane, events, false);
    if let Some(link) = unread {
        lane.pump(session, core, &link, false);
    }
    if dial { dial_now(core, session, lane, now).min(due) } else { due }
}

/// A connection that does not resume in time is given up. Not one through memory: there the socket's end shows a server
/// that is gone, and hanging up on one that is only slow would end the session.
fn await_resume(state: &mut LaneState, now: Tick) -> Tick {
    let Some(link) = state.link.as_ref().filter(|_| !state.stream.is_live()) else { return Tick(u64::MAX) };
    if link.memory().is_some() {
        return Tick(u64::MAX);
    }
    if now < state.resume_by {
        return state.resume_by;
    }
    let number = link.number;
    break_link(state, number, Duration::ZERO);
    Tick(u64::MAX)
}

/// While the tender watches a ring, the server rings for it. Announced before every sleep, because a server that has rung
/// takes it for said and done; the ring that has something already is to be read at once.
fn watch_ring(state: &LaneState) -> Option<Arc<Link>> {
    if state.reader || state.cover != Cover::Watched {
        return None;
    }
    let memory = state.memory()?;
    memory.announce(Waiting::Socket);
    if memory.is_ready() { state.link.clone() } else { None }
}

/// How the lane is to be covered from here on.
fn cover(state: &LaneState, now: Tick, seen: &mut u64) -> Cover {
    let quiet = *seen == state.activity;
    let mut nap = || {
        *seen = state.activity;
        Cover::Napping(now.after(NAP))
    };
    if !state.stream.is_live() {
        return Cover::Watched;
    }
    if state.reader {
        return match state.cover {
            Cover::Napping(until) if now < until => state.cover,
            Cover::Napping(_) if quiet => Cover::Called,
            Cover::Called => Cover::Called,
            _ => nap(),
        };
    }
    match state.cover {
        Cover::Watched => Cover::Watched,
        _ if state.stream.tended() > 0 => Cover::Watched,
        Cover::Napping(until) if now < until => state.cover,
        _ if quiet => Cover::Watched,
        _ => nap(),
    }
}

/// Begins a new connection for a lane that has none. When to look again.
fn dial_now(core: &Core, session: &Session, lane: &Lane, now: Tick) -> Tick {
    let targets = core.nodes.all();
    let home_at = session.home().at().filter(|_| lane.shard != session.passport.home);
    let (target, without_memory) = {
        let state = lane.state();
        let next = &targets[state.target % targets.len()];
        (if state.was_tried() { next.clone() } else { home_at.unwrap_or(next.clone()) }, state.without_memory)
    };
    // A server ends a session together with the socket of its memory, and shows that in the memory; guards look there only
    // if the session was opened through it.
    let may_share = session.lease.is_shown() && !without_memory;
    let asks = may_share && transport::asks_for_memory(&target, core.config.transport);
    match transport::begin(&target) {
        Ok((socket, stands)) => {
            let resume_by = now.after(RESUME_TIME.min(core.config.deadline));
            let road = if asks { Road::Asking } else { Road::Stream };
            let make = |number| Link::new(socket, road, lane.shard, &core.mark, number);
            lane.connected(core, make, &target, stands, resume_by);
            // The poll set is built after this; it has the new descriptor.
            resume_by
        }
        Err(error) => {
            tracing::debug!(%error, %target, "no connection");
            lane.not_connected(now)
        }
    }
}

impl Tender {
    pub(super) fn new(core: Arc<Core>, session: Arc<Session>) -> Tender {
        Tender { core, tended: vec![Tended::new(session)] }
    }

    pub(super) fn run(mut self) {
        loop {
            let now = clock::now();
            let due = self.tended.iter_mut().map(|tended| tended.pass(&self.core, now)).min();
            self.tended.retain(|tended| !tended.finished);
            if self.core.is_closing() && self.tended.is_empty() {
                return self.core.finish();
            }
            if self.core.has_orphans() {
                self.settle_orphans();
                continue;
            }
            let left = due.filter(|due| *due < Tick(u64::MAX)).map(|due| due.since(clock::now()));
            self.poll(left);
        }
    }

    /// Waits for what is due, or for what the lanes it watches have to say.
    fn poll(&mut self, left: Option<Duration>) {
        let watches = self.watches();
        let mut fds = Vec::with_capacity(watches.len() + 1);
        fds.push(PollFd::new(self.core.bell(), PollFlags::IN));
        fds.extend(watches.iter().map(|watch| PollFd::from_borrowed_fd(watch.link.as_fd(), watch.flags)));
        if let Err(error) = transport::wait(&mut fds, left) {
            tracing::error!(%error, "poll refused");
            // Out of memory for a moment; leases still have to be watched.
            std::thread::sleep(NAP);
            return;
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let Some((bell, ready)) = ready.split_first() else { return };
        if !bell.is_empty() {
            self.core.bell().hear();
        }
        for (watch, flags) in watches.iter().zip(ready).filter(|(_, flags)| !flags.is_empty()) {
            let Some(tended) = self.tended.get_mut(watch.tended) else { continue };
            let (session, lane) = (&tended.session, &tended.session.lanes[watch.lane]);
            match watch.spare {
                None => react(&self.core, session, lane, &watch.link, *flags),
                Some(spare) => {
                    let owner = Owner { core: &self.core, session, lane };
                    tended.spares[watch.lane].react(owner, spare, &watch.link);
                }
            }
        }
    }

    fn watches(&self) -> Vec<Watch> {
        let mut watches = Vec::new();
        for (tended, of) in self.tended.iter().enumerate() {
            for (lane, spares) in of.spares.iter().enumerate() {
                let watch = |(spare, link, flags)| Watch { tended, lane, spare: Some(spare), link, flags };
                watches.extend(spares.watches().map(watch));
            }
            for (index, lane) in of.session.lanes.iter().enumerate() {
                let state = lane.state();
                let Some(link) = &state.link else { continue };
                let mut flags = PollFlags::empty();
                if state.outlet != Outlet::Open {
                    flags |= PollFlags::OUT;
                }
                let through_memory = link.memory().is_some();
                if through_memory {
                    flags = PollFlags::empty();
                }
                if state.outlet != Outlet::Connecting && (through_memory || state.cover == Cover::Watched) {
                    flags |= PollFlags::IN;
                }
                if !flags.is_empty() {
                    let link = Arc::clone(link);
                    watches.push(Watch { tended, lane: index, spare: None, link, flags });
                }
            }
        }
        watches
    }

    /// Opens a session for those who asked when there was none.
    fn settle_orphans(&mut self) {
        let core = Arc::clone(&self.core);
        let mut session = core.session();
        if let Err(cause) = session.lease.check(clock::now()) {
            // Whoever asked saw the lease pass before this thread did.
            session.end(&core, cause);
        }
        if session.is_ended() {
            if let Ok(targets) = transport::resolve(&core.config.endpoint, core.config.transport) {
                core.nodes.set_named(targets);
            }
            match opening::open(&core.config, &core.nodes, &core.mark, &|| !core.is_closing()) {
                Ok(opened) => {
                    core.set_session(&opened);
                    opened.home().take_first(&opened, &core);
                    self.tended.push(Tended::new(Arc::clone(&opened)));
                    session = opened;
                }
                Err(error) => {
                    for orphan in core.take_orphans(core.is_closing()) {
                        let failed = Outcome::Failed(AcquireError::Connection(error.clone()));
                        drop(orphan.slot.settle(failed));
                    }
                    return;
                }
            }
            if core.is_closing() {
                session.end(&core, LostCause::Closed);
            }
        }
        for orphan in core.take_orphans(core.is_closing()) {
            if !foreground::place(&core, &session, &orphan.wish, &orphan.slot, orphan.tended) {
                let cause = session.lease.check(clock::now()).err().unwrap_or(LostCause::Lease);
                drop(orphan.slot.settle(Outcome::Failed(AcquireError::from_lost(cause))));
            }
            orphan.slot.nudge();
        }
    }
}

/// A watched descriptor is ready.
fn react(core: &Core, session: &Arc<Session>, lane: &Lane, link: &Arc<Link>, flags: PollFlags) {
    let mut state = lane.state();
    if state.link.as_ref().is_none_or(|present| present.number != link.number) {
        return;
    }
    if state.outlet == Outlet::Connecting {
        match transport::concluded(link.as_fd()) {
            Ok(()) => {
                state.outlet = Outlet::Open;
                state.greet();
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                break_link(&mut state, link.number, Duration::ZERO);
            }
        }
    }
    if flags.contains(PollFlags::OUT) {
        state.outlet = Outlet::Open;
    }
    let rung = !(flags - PollFlags::OUT).is_empty();
    let reads = rung && !state.reader;
    drop(state);
    lane.flush(core);
    let stands = !(rung && link.memory().is_some()) || link.hear();
    if reads || !stands {
        lane.pump(session, core, link, false);
    }
    if !stands {
        // What it said last has been read; its end is the end.
        break_link(&mut lane.state(), link.number, Duration::ZERO);
        core.ring();
    }
}

//! The loop of the control thread: one `poll` over everything, then what became ready, then what time has decided.
//!
//! Shards only ever hear from it through their lanes; it waits for none of them except at the end, and there for a
//! bounded time.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fairlock_protocol::{Refusal, ShardId, Tick};
use fairlock_shm::beacon::Beacon;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::accepting::Acceptor;
use super::admin::{Admin, Answer};
use super::alarms::Alarms;
use super::binding::SocketFile;
use super::greeting::{Greeted, Greetings};
use super::keeping::Keeping;
use super::sharing;
use super::stopping::{Phase, Signals, StopReason, Stopper};
use super::{ControlParts, DoorCounts, Doors, ExitReport};
use crate::cell::desk::CellEvent;
use crate::clock;
use crate::config::Config;
use crate::lanes::{Asker, ShardLane, ToControl, ToShard};
use crate::metrics::{self, NodeNumbers};
use crate::server::Ready;
use crate::stats::ShardStats;

mod cell;
mod ending;
mod views;
use cell::SAY_EVERY;
pub(crate) use cell::Settled;
use ending::Shards;
use views::View;

/// Pause between two tries to make something durable that failed.
const RETRY_TIME: Duration = Duration::from_secs(1);
/// Pause before a message that did not fit into a lane is tried again.
const LANE_RETRY_TIME: Duration = Duration::from_millis(1);
/// Pause after `poll` itself failed, which only a lack of memory explains.
const POLL_REST: Duration = Duration::from_millis(10);
/// The alarm's subject when the state directory takes no writes.
const STATE_ALARM: &str = "state directory";

/// Everything the control thread owns.
#[derive(Debug)]
pub(super) struct Steward {
    door: Option<UnixEntrance>,
    admin: Option<Admin>,
    signals: Option<Signals>,
    stopper: Stopper,
    keeping: Keeping,
    lanes: Vec<ShardLane>,
    stats: Vec<Arc<ShardStats>>,
    from_shards: mpsc::Receiver<ToControl>,
    doorbell: Arc<OwnedFd>,
    alarms: Alarms,
    beacon: Option<Arc<Beacon>>,
    shards: Shards,
    phase: Phase,
    drain: Duration,
    /// Longest lease asked for and not durable yet, in milliseconds.
    horizon_wanted_ms: Option<u32>,
    /// The horizon is to fall back when the quarantine is over, and that is not durable yet.
    quarantine_until: Option<Tick>,
    retry_at: Option<Tick>,
    /// Whoever waits for this node to know its part in a cell.
    settled: Option<mpsc::Sender<Settled>>,
    /// A stopping primary waits for its successor.
    handing_over: bool,
    /// Wishes of operators that are not answered: which shard's client asked.
    wishes: HashMap<u64, (u16, Asker)>,
    last_ticket: u64,
    /// Pictures of the cell that wait for what shards say.
    views: HashMap<u64, View>,
    /// When it is said again what a start waits for.
    say_at: Tick,
    facts: Facts,
}

/// What never changes while the server runs.
#[derive(Clone, Copy, Debug)]
struct Facts {
    io: &'static str,
    role: &'static str,
    epoch: u32,
    started: Tick,
}

/// The Unix socket, its file, and who has come through but not introduced himself.
#[derive(Debug)]
struct UnixEntrance {
    acceptor: Acceptor,
    greetings: Greetings,
    /// Removed when this is dropped.
    _file: SocketFile,
    /// The shard the next connection without a wish goes to.
    next_shard: u16,
}

/// What `poll` can report.
#[derive(Clone, Copy, Debug)]
enum Source {
    Shards,
    Stopper,
    Signals,
    Door,
    Greeting(u64),
    Admin,
    Exchange(u64),
}

impl Steward {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(
        config: &Config,
        ready: &Ready,
        doors: Doors,
        keeping: Keeping,
        parts: ControlParts,
        stopper: Stopper,
        settled: Option<mpsc::Sender<Settled>>,
    ) -> io::Result<Steward> {
        let entrance = |door: super::UnixDoor| {
            let (listener, file) = door.into_parts();
            let greetings = Greetings::new(config.limits.unbound_connections);
            Ok::<_, io::Error>(UnixEntrance {
                acceptor: Acceptor::new(listener)?,
                greetings,
                _file: file,
                next_shard: 0,
            })
        };
        let ControlParts { lanes, stats, threads, from_shards, doorbell, alarms, beacon, .. } = parts;
        let recovering_until = keeping.recovering_until();
        let facts = Facts { io: ready.io, role: ready.role, epoch: ready.epoch, started: clock::now() };
        Ok(Steward {
            door: doors.unix.map(entrance).transpose()?,
            admin: doors.admin.map(Admin::new).transpose()?,
            signals: config.signals.then(Signals::install).transpose()?,
            stopper,
            keeping,
            lanes,
            stats,
            from_shards,
            doorbell,
            alarms,
            beacon,
            shards: Shards::new(threads),
            phase: Phase::Serving,
            drain: config.drain,
            horizon_wanted_ms: None,
            quarantine_until: (recovering_until > Tick::ZERO).then_some(recovering_until),
            retry_at: None,
            settled,
            handing_over: false,
            wishes: HashMap::new(),
            last_ticket: 0,
            views: HashMap::new(),
            say_at: clock::now().after(SAY_EVERY),
            facts,
        })
    }

    /// The life of the thread.
    pub(super) fn run(&mut self) -> ExitReport {
        loop {
            let ready = self.sleep();
            let now = clock::now();
            for source in ready {
                self.serve(source, now);
            }
            self.pass_time(now);
            self.lanes.iter_mut().for_each(ShardLane::flush);
            if self.shards.are_over(self.phase, now) {
                // A thread that was seen to be over has sent its last word before; it may still be unread.
                self.hear_shards(now);
                return self.end();
            }
        }
    }

    /// Waits until something happens or something is due.
    fn sleep(&self) -> Vec<Source> {
        let (mut sources, mut watched) = (Vec::new(), Vec::new());
        let mut watch = |source, fd, flags| {
            sources.push(source);
            watched.push(PollFd::from_borrowed_fd(fd, flags));
        };
        watch(Source::Shards, std::os::fd::AsFd::as_fd(&*self.doorbell), PollFlags::IN);
        watch(Source::Stopper, self.stopper.descriptor(), PollFlags::IN);
        if let Some(signals) = &self.signals {
            watch(Source::Signals, signals.descriptor(), PollFlags::IN);
        }
        if let Some(door) = &self.door {
            door.acceptor.listener().into_iter().for_each(|fd| watch(Source::Door, fd, PollFlags::IN));
            door.greetings.sockets().for_each(|(id, fd)| watch(Source::Greeting(id), fd, PollFlags::IN));
        }
        if let Some(admin) = &self.admin {
            admin.acceptor.listener().into_iter().for_each(|fd| watch(Source::Admin, fd, PollFlags::IN));
            admin.sockets().for_each(|(id, fd, flags)| watch(Source::Exchange(id), fd, flags));
        }
        let patience = self.next_deadline().map(|due| due.since(clock::now()));
        let timeout = patience.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Vec::new(),
            Err(errno) => {
                tracing::warn!(error = %io::Error::from(errno), "the control thread cannot wait");
                std::thread::sleep(POLL_REST);
                return Vec::new();
            }
        }
        let ready = sources.iter().zip(&watched).filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|(source, _)| *source).collect()
    }

    /// When something is due although nothing happens.
    fn next_deadline(&self) -> Option<Tick> {
        let door = self.door.as_ref();
        let admin = self.admin.as_ref();
        let lanes_full = self.lanes.iter().any(ShardLane::has_backlog);
        let all = [
            door.and_then(|door| door.acceptor.resting_until()),
            door.and_then(|door| door.greetings.next_deadline()),
            admin.and_then(|admin| admin.acceptor.resting_until()),
            admin.and_then(Admin::next_deadline),
            lanes_full.then(|| clock::now().after(LANE_RETRY_TIME)),
            // After a failure both wait for the next try.
            self.retry_at.or(self.quarantine_until),
            self.next_look(),
            self.next_desk_look(),
        ];
        all.into_iter().flatten().min()
    }

    fn serve(&mut self, source: Source, now: Tick) {
        match source {
            Source::Shards => self.hear_shards(now),
            Source::Stopper => {
                let at_once = self.stopper.take();
                self.asked_to_stop(StopReason::Asked, at_once, now);
            }
            Source::Signals => {
                let signals = self.signals.as_ref().map_or(0, Signals::take);
                let again = self.phase != Phase::Serving || signals > 1;
                if signals > 0 {
                    self.asked_to_stop(StopReason::Signal, again, now);
                }
            }
            Source::Door => {
                if let Some(door) = &mut self.door {
                    for socket in door.acceptor.accept(now) {
                        door.greetings.accept(socket, now);
                    }
                }
            }
            Source::Greeting(id) => self.greet(id),
            Source::Admin => self.admin.iter_mut().for_each(|admin| admin.accept(now)),
            Source::Exchange(id) => self.exchange(id, now),
        }
    }

    /// What time decides.
    fn pass_time(&mut self, now: Tick) {
        if let Some(door) = &mut self.door {
            door.acceptor.rested(now);
            door.greetings.expire(now);
        }
        if let Some(admin) = &mut self.admin {
            admin.acceptor.rested(now);
            admin.expire(now);
        }
        self.at_desk(|desk, tray| desk.tick(now, tray));
        self.end_late_views(now);
        self.say_what_is_waited_for(now);
        let retry = self.retry_at.is_some_and(|at| now >= at);
        let untried = self.retry_at.is_none() && self.quarantine_until.is_some_and(|until| now >= until);
        if retry || untried {
            self.make_durable(now);
        }
        if matches!(self.phase, Phase::Draining { until } if now >= until) {
            self.stop_shards(now);
        }
    }

    /// A HELLO may be whole: its connection goes to the shard it names.
    fn greet(&mut self, id: u64) {
        let Some(door) = &mut self.door else { return };
        let Some(Greeted { shard: wanted, wants_memory, mut adoption }) = door.greetings.receive(id) else {
            return;
        };
        let shards = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        let mut shard = wanted.0;
        if wanted == ShardId::ANY {
            shard = door.next_shard % shards.max(1);
            door.next_shard = (shard + 1) % shards.max(1);
        }
        if let Some(lane) = self.lanes.get_mut(usize::from(shard)) {
            if wants_memory {
                match sharing::offer(&adoption.socket, self.beacon.as_deref()) {
                    Ok(segment) => adoption.segment = segment,
                    Err(error) => return tracing::debug!(%error, "a client could not be told of its memory"),
                }
            }
            lane.send(ToShard::Adopt(adoption));
        } else {
            let detail = format!("there is no shard {shard}, the server has {shards}");
            door.greetings.refuse_adoption(&adoption, Refusal::BadRequest, &detail);
        }
    }

    fn exchange(&mut self, id: u64, now: Tick) {
        // Taken out for the moment, so that the answer can look at everything else.
        let Some(mut admin) = self.admin.take() else { return };
        admin.serve(id, |path| self.look_up(path, now));
        self.admin = Some(admin);
    }

    fn look_up(&self, path: &str, now: Tick) -> Answer {
        match path {
            "/metrics" => {
                let body = metrics::page(&self.numbers(now), &self.stats);
                Answer { status: "200 OK", kind: metrics::CONTENT_TYPE, body }
            }
            "/healthz" => match self.no_grants_because(now) {
                None => Answer::text("200 OK", "ok\n"),
                Some(reason) => Answer::text("503 Service Unavailable", format!("{reason}\n")),
            },
            _ => Answer::text("404 Not Found", "/metrics and /healthz are served here\n"),
        }
    }

    /// Why no grant is possible now; `None` when grants are possible.
    fn no_grants_because(&self, now: Tick) -> Option<String> {
        if let Some(reason) = self.phase.reason() {
            return Some(reason.to_string());
        }
        // A shard may begin a quarantine of its own, when a client shows that it knows a later epoch.
        let by_shards =
            self.stats.iter().map(|stats| stats.recovering_ms.load(std::sync::atomic::Ordering::Relaxed));
        let by_start = self.keeping.recovering_until().since(now).as_millis();
        let left_ms = u128::from(by_shards.max().unwrap_or(0)).max(by_start);
        if left_ms > 0 {
            return Some(format!("recovering, {left_ms} ms left"));
        }
        if !matches!(self.facts.role, "standalone" | "primary") {
            return Some(self.facts.role.to_string());
        }
        self.cell_grants_nothing_because(now)
    }

    fn numbers(&self, now: Tick) -> NodeNumbers {
        let Facts { io, role, epoch, started } = self.facts;
        NodeNumbers {
            io,
            role,
            epoch,
            uptime_s: now.since(started).as_secs(),
            alarms: self.alarms.texts().len(),
            grants_possible: self.no_grants_because(now).is_none(),
            door: self.door.as_ref().map_or_else(DoorCounts::default, |door| door.greetings.counts()),
            cell: self.cell_numbers(),
        }
    }

    fn hear_shards(&mut self, now: Tick) {
        // The count does not matter: everything that was sent is read below.
        let _ = rustix::io::read(&*self.doorbell, &mut [0_u8; 8]);
        while let Ok(message) = self.from_shards.try_recv() {
            match message {
                ToControl::RaiseHorizon { ttl_ms } if self.keeping.desk().is_some() => {
                    let ttl = Duration::from_millis(u64::from(ttl_ms));
                    self.at_desk(|desk, tray| desk.raise_horizon(now, ttl, tray));
                }
                ToControl::Report { shard, report } => self.hear_cell(now, CellEvent::Report(shard, report)),
                ToControl::Cell(event) => self.hear_cell(now, event),
                ToControl::Wish { shard, asker, wish } => self.wish(now, shard, asker, wish),
                ToControl::CellAsked { shard, asker } => self.begin_view(now, shard, asker),
                ToControl::Progress { ticket, followers } => self.add_to_view(now, ticket, followers),
                ToControl::RaiseHorizon { ttl_ms } => {
                    self.horizon_wanted_ms = self.horizon_wanted_ms.max(Some(ttl_ms));
                }
                ToControl::Idle { shard } => self.shards.is_idle(shard),
                ToControl::Stopped { shard, left, error } => {
                    self.shards.has_stopped(shard, left);
                    let unasked = !matches!(self.phase, Phase::Stopping { .. });
                    if unasked || error.is_some() {
                        self.shard_failed(shard, error, now);
                    }
                }
            }
        }
        // After a failure everybody waits for the next try: each is a write that blocks this thread.
        if self.horizon_wanted_ms.is_some() && self.retry_at.is_none() {
            self.make_durable(now);
        }
        if matches!(self.phase, Phase::Draining { .. }) && self.shards.are_idle() {
            self.stop_shards(now);
        }
    }

    /// Writes what is asked for or due, and tells the shards. After a failure nobody is told anything, so that they
    /// keep refusing, and it is tried again.
    fn make_durable(&mut self, now: Tick) {
        let Keeping::Alone(state) = &mut self.keeping else { return };
        self.retry_at = None;
        let raised = self.horizon_wanted_ms.map(|ttl_ms| {
            let outcome = state.raise(Duration::from_millis(u64::from(ttl_ms)));
            outcome.map(|()| ttl_ms)
        });
        let fallen = match self.quarantine_until.filter(|until| now >= *until) {
            Some(_) => state.quarantine_over().map(|()| self.quarantine_until = None),
            None => Ok(()),
        };
        let failure = match raised {
            Some(Ok(ttl_ms)) => {
                self.horizon_wanted_ms = None;
                self.lanes.iter_mut().for_each(|lane| lane.send(ToShard::HorizonRaised { ttl_ms }));
                fallen.err()
            }
            Some(Err(error)) => Some(error),
            None => fallen.err(),
        };
        match failure {
            None => self.alarms.clear(STATE_ALARM),
            Some(error) => {
                let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                self.alarms
                    .raise(STATE_ALARM, format!("{error}{cause}; no longer lease is granted until then"));
                self.retry_at = Some(now.after(RETRY_TIME));
            }
        }
    }
}

//! One session over all its shards: what follows from what its streams learn, and its end.

use super::core::Core;
use super::lane::Lane;
use super::slot::{Outcome, Slot};
use crate::builder::{Notice, Transport};
use crate::clock;
use crate::error::LostCause;
use crate::session::{Ask, Event, Lease, Passport, Spec};
use crate::transport::Target;
use fairlock_protocol::{Refusal, ShardId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// One session, over all its shards.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) passport: Arc<Passport>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) lanes: Box<[Lane]>,
    /// Its server is a node among several. Relaxed: it decides how soon another one is found.
    pub(super) in_cell: AtomicBool,
    /// The newest epoch its own server has told of. Relaxed: a number alone.
    epoch_told: AtomicU32,
    /// The home lane talks. Relaxed: a hint for people.
    pub(super) reachable: AtomicBool,
    /// `end` was begun. AcqRel swap: exactly one thread does the work.
    ended: AtomicBool,
    /// A server of its cell does not know it, and what it holds is to be shown. Release stores, Acquire loads in the tender.
    pub(super) unknown: AtomicBool,
    /// CLOSE was answered. Release store, Acquire load in the tender.
    pub(super) closed: AtomicBool,
}

impl Session {
    pub(super) fn new(
        passport: Arc<Passport>,
        lease: Arc<Lease>,
        lanes: Vec<Lane>,
        in_cell: bool,
    ) -> Session {
        assert_eq!(lanes.len(), usize::from(passport.shards), "a lane for every shard");
        Session {
            passport,
            lease,
            lanes: lanes.into_boxed_slice(),
            in_cell: AtomicBool::new(in_cell),
            epoch_told: AtomicU32::new(0),
            reachable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
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

    pub(crate) fn home(&self) -> &Lane {
        self.lane(self.passport.home)
    }

    /// How the home lane's bytes travel, or did.
    pub(crate) fn transport(&self) -> Transport {
        let home = self.home();
        let through_memory = home.state().link.as_ref().map(|link| link.memory().is_some());
        if through_memory.unwrap_or_else(|| self.lease.was_shown()) {
            return Transport::Shm;
        }
        match home.at() {
            Some(Target::Unix(_)) => Transport::Unix,
            Some(Target::Tcp(..)) | None => Transport::Tcp,
        }
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed) && self.lease.sees_its_server(clock::now())
    }

    /// Whether other nodes have told of another primary, in an epoch that the session's own server knows nothing of. A mere
    /// change of members may be told by one that follows before the primary may say it.
    pub(super) fn is_left_behind(&self, core: &Core) -> bool {
        let own = self.passport.epoch.load(Ordering::Relaxed).max(self.epoch_told.load(Ordering::Relaxed));
        core.nodes.primary_since() > own
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
                Event::Over(LostCause::Session(Refusal::SessionUnknown)) if self.has_claims() => {
                    self.unknown.store(true, Ordering::Release);
                    core.ring();
                }
                Event::Over(cause) => self.end(core, cause),
                Event::Closed => {
                    self.closed.store(true, Ordering::Release);
                    core.ring();
                }
                Event::Elsewhere(ms, primary) => {
                    if let Some(primary) = primary {
                        core.nodes.learn(&primary, false);
                    }
                    lane.break_now(core, Duration::from_millis(ms.into()), true);
                }
                Event::Members(nodes) => {
                    self.in_cell.store(true, Ordering::Relaxed);
                    self.epoch_told.fetch_max(nodes.epoch, Ordering::Relaxed);
                    core.nodes.learn(&nodes, true);
                    // The tender has connections to make, or to let go.
                    core.ring();
                }
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

    /// Whether it holds anything that it can prove.
    fn has_claims(&self) -> bool {
        let holds = |lane: &Lane| lane.state().stream.has_claims();
        !self.is_ended() && self.lease.check(clock::now()).is_ok() && self.lanes.iter().any(holds)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

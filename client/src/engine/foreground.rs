//! The path of a thread that waits for its own request: write, read until it is settled, pass the place on.

use super::core::{Core, Orphan};
use super::lane::{Cover, Lane, LaneState};
use super::session::Session;
use super::slot::{Outcome, Place, Slot};
use super::waiting::read_until_settled;
use crate::clock;
use crate::error::AcquireError;
use crate::session::{Ask, Bundle, Hold, Spec};
use crate::transport::Link;
use fairlock_protocol::{GrantId, Mode, Refusal, ShardId, Tick, Wait};
use fairlock_shm::bell::Waiting;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What is asked of a session, whichever it will be.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// One lock.
    One(Arc<Spec>),
    /// Of these, in canonical order, those of the lowest shard; wait so long for them.
    FirstOf(Arc<[Arc<Spec>]>, Wait),
}

/// Asks for a lock, or several; the slot is settled when it is known how it came out. `tended`: nobody will read for it.
pub(crate) fn ask_for(core: &Core, wish: Wish, slot: &Arc<Slot>, tended: bool) {
    let session = core.session();
    let alive = session.lease.check(clock::now()).is_ok();
    if !(alive && place(core, &session, &wish, slot, tended)) {
        core.leave(Orphan { wish, slot: Arc::clone(slot), tended });
    }
}

/// The lowest shard above `after` that owns some of several names, and what it owns, in the order given.
pub(crate) fn share(
    session: &Session,
    specs: &[Arc<Spec>],
    after: Option<ShardId>,
) -> Option<(ShardId, Vec<Arc<Spec>>)> {
    let owners = specs.iter().map(|spec| (session.lane_of(spec).shard, spec));
    let above = owners.filter(|&(shard, _)| after.is_none_or(|after| shard > after));
    let lowest = above.clone().map(|(shard, _)| shard).min()?;
    let owned = above.filter(|&(shard, _)| shard == lowest).map(|(_, spec)| Arc::clone(spec));
    Some((lowest, owned.collect()))
}

/// Asks another shard for its share of several locks; `false` when the session is over.
pub(crate) fn ask_share(
    core: &Core,
    session: &Arc<Session>,
    shard: ShardId,
    bundle: Arc<Bundle>,
    slot: &Arc<Slot>,
    tended: bool,
) -> bool {
    let lane = session.lane(shard);
    if lane.state().stream.meets_itself(&bundle.specs) {
        // Settled before only if it was withdrawn; then nothing is owed.
        let _ = slot.settle(Outcome::Failed(AcquireError::Refused(Refusal::AlreadyHeld)));
        return true;
    }
    submit(core, session, lane, Ask::AcquireAll(bundle), slot, tended)
}

/// Hands a request to the session's stream; `false` when the session is over.
pub(super) fn place(
    core: &Core,
    session: &Arc<Session>,
    wish: &Wish,
    slot: &Arc<Slot>,
    tended: bool,
) -> bool {
    match wish {
        Wish::One(spec) => {
            let lane = session.lane_of(spec);
            let Some(attempt) = lane.enter(session, core, spec) else {
                return submit(core, session, lane, Ask::Acquire(Arc::clone(spec)), slot, tended);
            };
            let outcome = match attempt {
                Ok(hold) => Outcome::Granted(Arc::clone(session), hold),
                Err(refusal) => Outcome::Failed(AcquireError::Refused(refusal)),
            };
            if let Err(Outcome::Granted(_, hold)) = slot.settle(outcome) {
                lane.release(session, core, &hold);
            }
            true
        }
        Wish::FirstOf(specs, wait) => {
            let (shard, specs) = share(session, specs, None).expect("several are at least one");
            ask_share(core, session, shard, Arc::new(Bundle { specs, wait: *wait }), slot, tended)
        }
    }
}

/// Asks for another mode of a grant; `false` when the session is over.
pub(crate) fn ask_to_convert(
    core: &Core,
    session: &Arc<Session>,
    lane: &Lane,
    (grant, mode, wait): (GrantId, Mode, Wait),
    slot: &Arc<Slot>,
) -> bool {
    submit(core, session, lane, Ask::Convert { grant, mode, wait }, slot, false)
}

fn submit(
    core: &Core,
    session: &Arc<Session>,
    lane: &Lane,
    ask: Ask,
    slot: &Arc<Slot>,
    tended: bool,
) -> bool {
    // Read before the frame can be on its way: a confirmation counts from here.
    let now = clock::now();
    let placed = lane.with(session, core, |stream| {
        let Some(id) = stream.submit(now, ask, Some(Arc::clone(slot)), tended) else { return false };
        let wanted = slot.put(Place { session: Arc::clone(session), shard: lane.shard, id });
        if !wanted {
            stream.abandon(now, id);
        }
        true
    });
    if placed {
        let state = lane.state();
        let unread = tended && !state.reader && state.cover != Cover::Watched;
        if unread || !state.stream.is_live() {
            drop(state);
            core.ring();
        }
    }
    placed
}

/// Waits for the outcome, reading for it when nobody else does. After `give_up` the request is withdrawn: `None`.
pub(crate) fn await_slot(core: &Core, slot: &Arc<Slot>, give_up: Option<Tick>) -> Option<Outcome> {
    let mut parked = false;
    let outcome = loop {
        if let Some(outcome) = slot.take_or_unpark() {
            break Some(outcome);
        }
        let left = give_up.map(|give_up| give_up.since(clock::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break undo(core, slot);
        }
        match slot
            .place()
            .and_then(|place| take_turn(core, slot, place, &mut parked).map(|link| (place, link)))
        {
            Some((place, link)) => {
                let lane = place.session.lane(place.shard);
                read_until_settled(core, place, slot, &link, give_up);
                let mut state = lane.state();
                state.reader = false;
                hand_over(core, &mut state);
            }
            None if slot.is_settled() => {}
            None => park(left),
        }
    };
    if parked && let Some(place) = slot.place() {
        let mut state = place.session.lane(place.shard).state();
        state.parked.retain(|other| !Arc::ptr_eq(other, slot));
        hand_over(core, &mut state);
    }
    outcome
}

/// Without a timeout only an unpark ends it; whoever settles the slot, or leaves the reader's place, gives one.
fn park(left: Option<Duration>) {
    match left {
        Some(left) => thread::park_timeout(left),
        None => thread::park(),
    }
}

/// Takes the reader's place, or a place among those who wait for it.
fn take_turn(core: &Core, slot: &Arc<Slot>, place: &Place, parked: &mut bool) -> Option<Arc<Link>> {
    let mut state = place.session.lane(place.shard).state();
    let free = !state.reader && state.stream.is_live();
    let link = if free { state.link.clone() } else { None };
    match (&link, *parked) {
        (Some(link), was_parked) => {
            if let Some(memory) = link.memory()
                && state.cover == Cover::Watched
            {
                // From here on the reader says how it waits. The tender is not rung by the server meanwhile, so it is
                // told that it has to come by again.
                memory.announce(Waiting::Looking);
                state.cover = Cover::Napping(Tick::ZERO);
                core.ring();
            }
            if was_parked {
                state.parked.retain(|other| !Arc::ptr_eq(other, slot));
                *parked = false;
            }
            state.reader = true;
            state.activity += 1;
        }
        (None, false) => {
            state.parked.push(Arc::clone(slot));
            *parked = true;
        }
        (None, true) => {}
    }
    link
}

/// The reader's place is, or may be, free: somebody who waits takes it, else the tender sees to the lane.
fn hand_over(core: &Core, state: &mut LaneState) {
    if state.reader {
        return;
    }
    if let Some(next) = state.parked.first() {
        next.nudge();
        return;
    }
    match state.cover {
        // The server rings only for those who announced that they wait for it: the tender has to do that.
        Cover::Watched if state.memory().is_some() => core.ring(),
        Cover::Watched => {}
        Cover::Napping(_) if state.stream.tended() == 0 => {}
        Cover::Napping(_) | Cover::Called => {
            state.cover = Cover::Napping(Tick::ZERO);
            core.ring();
        }
    }
}

/// Withdraws a request from another thread than the one that waits.
pub(crate) fn cancel(core: &Core, slot: &Arc<Slot>) {
    let cancelled = Outcome::Failed(AcquireError::Refused(Refusal::Cancelled));
    if slot.settle(cancelled).is_err() {
        return;
    }
    if let Some(place) = slot.place() {
        withdraw(core, place);
        place.session.lane(place.shard).ring_reader();
    }
}

/// Nobody waits any more. What came in meanwhile is given back, or, if it is no grant, shown.
pub(crate) fn undo(core: &Core, slot: &Arc<Slot>) -> Option<Outcome> {
    match slot.leave() {
        Some(Outcome::Granted(session, hold)) => {
            give_back(core, &session, &hold);
            None
        }
        Some(Outcome::GrantedAll(session, holds)) => {
            for hold in holds {
                give_back(core, &session, &hold);
            }
            None
        }
        Some(outcome) => Some(outcome),
        None => {
            if let Some(place) = slot.place() {
                withdraw(core, place);
            }
            None
        }
    }
}

fn withdraw(core: &Core, place: &Place) {
    let lane = place.session.lane(place.shard);
    lane.with(&place.session, core, |stream| stream.abandon(clock::now(), place.id));
}

/// Gives one guard of a grant back, without waiting for the answer.
pub(crate) fn give_back(core: &Core, session: &Arc<Session>, hold: &Arc<Hold>) {
    session.lane_of(&hold.spec).release(session, core, hold);
}

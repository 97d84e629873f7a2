//! What a stream believes to hold: no more than the server has named and is asked for, and no longer than it was granted.

use super::{Ask, Event, Hold, Stream};
use crate::error::LostCause;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::{GrantId, Mode, Tick};
use std::sync::Arc;

impl<T> Stream<T> {
    /// The modes that a grant is asked for.
    pub(super) fn asked_of(&self, of: GrantId) -> impl Iterator<Item = Mode> {
        self.pending.values().filter_map(move |pending| match pending.ask {
            Ask::Convert { grant, mode, .. } if grant == of => Some(mode),
            _ => None,
        })
    }

    /// A hold has no more than the server has named and is asked for.
    pub(super) fn believe(&self, grant: GrantId) {
        if let Some(hold) = self.holds.get(&grant) {
            hold.has_at_most(self.asked_of(grant));
        }
    }

    /// When a grant that is being given back would end by time of its own; `None`: it is not being given back.
    pub(super) fn end_left(&self, left: GrantId) -> Option<Tick> {
        let ends = self.pending.values().filter_map(|pending| match pending.ask {
            Ask::Release(grant, end) if grant == left => Some(end),
            _ => None,
        });
        ends.min()
    }

    /// When a grant ends by time of its own, if not at `own`: one that is entered again lasts as long as who had it first was
    /// granted it, who may be giving it back.
    pub(super) fn end_of(&self, granted: &Grant, own: Tick) -> Tick {
        if !granted.reentered {
            return own;
        }
        let held = self.holds.get(&granted.grant).map(|hold| hold.end);
        [held, self.end_left(granted.grant)].into_iter().flatten().fold(own, Tick::min)
    }

    /// The hold of a grant: the one that is entered again, or a new one.
    pub(super) fn take_hold(&mut self, granted: &Grant, new: impl FnOnce() -> Hold) -> Arc<Hold> {
        if granted.reentered
            && let Some(hold) = self.holds.get(&granted.grant)
        {
            hold.enter();
            return Arc::clone(hold);
        }
        let mut hold = new();
        if granted.reentered {
            // Of whoever had it before, who may have asked for less, and gone.
            hold.end = self.end_of(granted, hold.end);
            hold.has_at_most(self.asked_of(granted.grant));
        }
        let hold = Arc::new(hold);
        if hold.end < Tick(u64::MAX) {
            self.ends.insert((hold.end, hold.grant()));
            self.events.push(Event::Rearm);
        }
        self.holds.insert(hold.grant(), Arc::clone(&hold));
        hold
    }

    /// It is held no more.
    pub(super) fn drop_hold(&mut self, grant: GrantId) -> Option<Arc<Hold>> {
        let hold = self.holds.remove(&grant)?;
        self.ends.remove(&(hold.end, grant));
        if let Some(inside) = hold.was_inside() {
            self.tenures.end(inside);
        }
        Some(hold)
    }

    /// It was taken away, for this reason.
    pub(super) fn take_grant_away(&mut self, grant: GrantId, cause: LostCause) {
        if let Some(hold) = self.drop_hold(grant) {
            hold.take_away(cause);
            self.events.push(Event::HoldOver(hold));
        }
    }
}

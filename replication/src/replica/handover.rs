//! Handing over: taking nothing in any more, until all that was taken in is everywhere, and then turning the streams round.

use alloc::vec::Vec;
use core::mem;

use fairlock_protocol::Tick;

use super::{Peer, Replica, Report, Role, Setup, Stage};
use crate::message::Message;

impl Replica {
    pub(super) fn begin_to_yield(&mut self, now: Tick, setup: Setup, to: Peer) {
        if !matches!(self.role, Role::Primary) {
            return self.report(Report::Yielded { complete: false });
        }
        self.role = Role::Yielding { setup, to, since: now };
        self.begin_round(now);
        self.advance(now);
    }

    /// Nobody answered in time. What is here is all kept: this node may have to take over again with it. A successor that
    /// goes on without some of it finds this node astray.
    pub(super) fn give_up_yielding(&mut self) {
        self.retire();
        self.report(Report::Yielded { complete: false });
    }

    /// Hands over once everything that was ever taken in is committed.
    pub(super) fn try_to_yield(&mut self, now: Tick) {
        if !matches!(self.role, Role::Yielding { .. })
            || !mutant!(HandOverUncommitted) && (self.released < self.round || self.commit < self.log.end())
        {
            return;
        }
        let Role::Yielding { setup, to, .. } = mem::replace(&mut self.role, Role::Idle) else { return };
        self.promised = self.promised.max(setup.epoch.get());
        self.pinned = None;
        let mut gone = Vec::new();
        let mut successor = None;
        for link in &mut self.links {
            if link.progress().is_some_and(|progress| progress.joiner.is_none()) {
                if link.peer == to {
                    // The stream is turned round.
                    (successor, link.dialed) = (Some(link.key), true);
                }
                let (epoch, configuration) = (setup.epoch.get(), &setup.configuration);
                Message::Yield { epoch, configuration }.encode(&mut link.out);
                link.stage = Stage::Quiet;
            } else {
                gone.push(link.key);
            }
        }
        for key in gone {
            self.hang_up(now, key);
        }
        self.report(Report::Yielded { complete: true });
        if let Some(key) = successor {
            self.greet(now, key);
        }
    }
}

//! Pictures of the cell on their way to operators: each waits until every shard has said how far its followers are, and not
//! for long.

use std::time::Duration;

use fairlock_protocol::{Refusal, Tick};
use fairlock_replication::replica::Peer;

use super::super::keeping::Keeping;
use super::Steward;
use crate::cell::picture::{CellAnswer, Picture, Progress};
use crate::lanes::{Asker, ToShard};

/// Pictures under way at one time.
const VIEWS_MAX: usize = 64;
/// How long shards are waited for: they answer in their next pass, or hang.
const VIEW_TIME: Duration = Duration::from_secs(1);

/// A picture that is being put together.
#[derive(Debug)]
pub(super) struct View {
    shard: u16,
    asker: Asker,
    /// Shards that have yet to answer.
    missing: usize,
    until: Tick,
    progress: Progress,
}

impl Steward {
    /// An operator asks for the cell.
    pub(super) fn begin_view(&mut self, now: Tick, shard: u16, asker: Asker) {
        if self.views.len() >= VIEWS_MAX {
            let why = "too many ask at once; try again in a second".to_string();
            return self.answer_operator(shard, asker, CellAnswer::Unmet { refusal: Refusal::Busy, why });
        }
        self.last_ticket += 1;
        let (ticket, missing) = (self.last_ticket, self.lanes.len());
        let until = now.after(VIEW_TIME);
        self.views.insert(ticket, View { shard, asker, missing, until, progress: Progress::default() });
        self.lanes.iter_mut().for_each(|lane| lane.send(ToShard::TellProgress { ticket }));
    }

    /// One shard has answered.
    pub(super) fn add_to_view(&mut self, now: Tick, ticket: u64, followers: Vec<(Peer, u64)>) {
        let Some(view) = self.views.get_mut(&ticket) else { return };
        view.progress.add(followers);
        view.missing = view.missing.saturating_sub(1);
        if view.missing == 0 {
            self.end_view(now, ticket);
        }
    }

    /// What some shard leaves open is not waited for any longer.
    pub(super) fn end_late_views(&mut self, now: Tick) {
        let late = self.views.iter().filter(|(_, view)| now >= view.until).map(|(ticket, _)| *ticket);
        for ticket in late.collect::<Vec<_>>() {
            self.end_view(now, ticket);
        }
    }

    fn end_view(&mut self, now: Tick, ticket: u64) {
        let Some(View { shard, asker, progress, .. }) = self.views.remove(&ticket) else { return };
        let Keeping::Cell(desk, _) = &self.keeping else { return };
        let picture = Picture::of(desk, now, &progress, &self.alarms.texts());
        self.answer_operator(shard, asker, CellAnswer::Picture(Box::new(picture)));
    }
}

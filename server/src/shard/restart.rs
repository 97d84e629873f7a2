//! One shard over a planned restart of its server: what it writes down at its end, and how it goes on from what the one
//! before wrote.
//!
//! To the table a restart is a take-over (docs/decisions/0008): tokens of the new epoch, one full lease for everybody, and
//! nobody watched. A process on this host is watched again when it comes back; until then, and beside that, its session
//! lives by renewals.

use std::io;

use fairlock_locktable::command::{Command, SessionKey};
use fairlock_protocol::{Liveness, Tick};

use super::{Shard, Watch};
use crate::connection::{ConnectionKey, Peer};
use crate::lanes::Left;
use crate::state::snapshot::{FileSum, Past, Setting, SnapshotPlace};

impl Shard {
    /// Writes everything down. Nothing is to be stepped any more.
    ///
    /// # Errors
    /// It could not be written; what was is to be left alone.
    pub(crate) fn write_down(&mut self, now: Tick, place: &SnapshotPlace) -> io::Result<FileSum> {
        assert!(self.replicated.is_none(), "a cell keeps itself");
        self.now = self.now.max(now);
        let present = self.presences.iter().flatten();
        let watched =
            present.filter(|it| it.liveness == Liveness::Process && it.id.home() == self.settings.me);
        let setting = Setting {
            cell: self.settings.cell,
            epoch: self.settings.epoch,
            shard: self.settings.me,
            shards: self.settings.shards,
            digest_key: self.settings.digest_key,
            moment: self.moment(),
            now: self.now,
            watched: watched.map(|presence| presence.id).collect(),
        };
        place.write(&setting, &self.table)
    }

    /// What remains here at the end.
    pub(crate) fn left(&self, file: Option<FileSum>) -> Left {
        let (mut sessions, mut holders) = (0, 0);
        let end = self.table.sessions(0, |view| {
            sessions += 1;
            holders += u32::from(view.grants > 0);
            std::ops::ControlFlow::Continue(())
        });
        assert!(end.is_none(), "nobody stopped the visit");
        Left { sessions, holders, recovering: self.recovering_ms() > 0, file }
    }

    /// Goes on from what the server before wrote down. The table is in place already.
    pub(crate) fn go_on(&mut self, now: Tick, past: &Past) {
        assert!(self.replicated.is_none(), "a cell keeps itself");
        (self.now, self.ahead_ns) = (now, past.ahead_ns);
        self.meet_sessions();
        for id in &past.watched {
            if let Some(session) = self.table.session(*id)
                && let Some(presence) = self.presence(session)
            {
                (presence.liveness, presence.to_watch) = (Liveness::Process, true);
            }
        }
        self.apply(Command::TakeOver(self.settings.epoch));
        self.granted_before = self.table.counts().grants_total;
    }

    /// A process that was watched before the restart came back over the Unix socket: it is watched again. One that came
    /// otherwise, or for which no descriptor is left, goes on as a heartbeat.
    pub(super) fn watch_again(&mut self, key: ConnectionKey, session: SessionKey) {
        if !self.presence(session).is_some_and(|presence| presence.to_watch) {
            return;
        }
        let known = self.table.session_view(session).map(|view| view.attributes.pid);
        let peer = self.connections.at(key).map(|connection| &connection.peer);
        let is_same = matches!(peer, Some(Peer::Unix(peer)) if Some(peer.credentials.pid) == known);
        if is_same && let Ok(Some((descriptor, kind))) = self.to_watch(key, Liveness::Process) {
            self.output.watch.push((session, Watch::Begin(descriptor, kind)));
            if let Some(presence) = self.presence(session) {
                presence.to_watch = false;
            }
        }
    }
}

//! The follower's half: greeting a primary, taking its log in, acknowledging, and noticing its silence.

use alloc::vec::Vec;

use fairlock_protocol::Tick;

use super::{LinkKey, Nonsense, Output, Peer, Replica, Report, Role, Stage};
use crate::log::{Log, Lsn};
use crate::message::{Entries, Message, Round, Unwelcome};

impl Replica {
    /// Asks the other end of a stream to be followed.
    pub(super) fn greet(&mut self, now: Tick, key: LinkKey) {
        let (view, reign, received, joins) = (self.view, self.reign, self.log.end(), !self.has_state);
        if let Some(link) = self.link(key) {
            link.stage = Stage::Greeted;
            Message::Greet { view, reign, received, joins }.encode(&mut link.out);
            self.heard = now;
        }
    }

    pub(super) fn hear_primary(
        &mut self,
        now: Tick,
        key: LinkKey,
        message: &Message<'_>,
    ) -> Result<(), Nonsense> {
        if !matches!(self.role, Role::Idle) {
            // What a former primary still says; its stream ends soon.
            self.answer_late(key);
            return Ok(());
        }
        match *message {
            Message::Activate { epoch, reign, from, snapshot, configuration } => {
                self.activated(now, key, (epoch, reign, from, snapshot), configuration)
            }
            Message::Append { epoch, round, commit, after, entries } => {
                self.take_in(now, key, (epoch, round, commit, after), entries)
            }
            Message::Piece { epoch, number, last, bytes } => {
                self.piece(now, key, (epoch, number, last), bytes)
            }
            Message::Yield { configuration, .. } => {
                if self.leader == Some(key) {
                    self.leader = None;
                    // The stream is turned round: whoever handed over greets, if it follows this node.
                    if let Some(link) = self.link(key) {
                        (link.stage, link.dialed) = (Stage::Quiet, false);
                    }
                    self.report(Report::HandedOver { configuration: configuration.into() });
                }
                Ok(())
            }
            Message::Refuse { why, .. } => self.refused(now, key, why),
            _ => Err(Nonsense),
        }
    }

    /// Tells a primary of an earlier epoch that its time is over.
    fn answer_late(&mut self, key: LinkKey) {
        let promised = self.promised;
        if let Some(link) = self.link(key) {
            Message::Late { promised }.encode(&mut link.out);
        }
    }

    fn activated(
        &mut self,
        now: Tick,
        key: LinkKey,
        (epoch, reign, from, snapshot): (u32, u32, Lsn, bool),
        configuration: &[u8],
    ) -> Result<(), Nonsense> {
        if epoch < self.promised && !mutant!(AcceptOldActivation) {
            self.answer_late(key);
            return Ok(());
        }
        let link = self.link(key).ok_or(Nonsense)?;
        if !matches!(link.stage, Stage::Greeted | Stage::Led) {
            return Err(Nonsense);
        }
        let primary = link.peer.clone();
        if snapshot {
            self.forget_state();
            self.log = Log::behind(from);
            (self.commit, self.applied, self.pieces) = (from, from, 0);
        } else {
            self.go_on(&primary, reign, from)?;
        }
        if let Some(link) = self.link(key) {
            link.stage = Stage::Led;
        }
        (self.view, self.promised, self.reign) = (epoch, epoch, reign);
        (self.leader, self.heard) = (Some(key), now);
        self.seen_round = Round(0);
        self.ack_due = true;
        self.report(Report::Follows { primary, epoch, configuration: configuration.into() });
        Ok(())
    }

    /// Makes the log one that the primary's goes on from.
    fn go_on(&mut self, primary: &Peer, reign: u32, from: Lsn) -> Result<(), Nonsense> {
        if reign == self.reign {
            return if from == self.log.end() { Ok(()) } else { Err(Nonsense) };
        }
        // Another reign: what it does not know was never committed.
        if !self.has_state || from > self.log.end() || from < self.commit || from < self.log.base() {
            return Err(Nonsense);
        }
        if from < self.applied {
            // A former primary, whose table is ahead. Its node decides, which may be about to take over with it.
            self.report(Report::Astray(primary.clone()));
            return Err(Nonsense);
        }
        self.log.truncate(from);
        self.begin_reign(reign, from);
        Ok(())
    }

    /// The log is from here on another reign's; what it has in common with each before.
    pub(super) fn begin_reign(&mut self, reign: u32, from: Lsn) {
        for (_, common) in &mut self.before {
            *common = (*common).min(from);
        }
        self.before.push((self.reign, from));
        let base = self.log.base();
        // Nobody goes on behind what is not kept.
        self.before.retain(|(_, common)| *common >= base);
        self.reign = reign;
    }

    fn take_in(
        &mut self,
        now: Tick,
        key: LinkKey,
        (epoch, round, commit, after): (u32, Round, Lsn, Lsn),
        entries: Entries<'_>,
    ) -> Result<(), Nonsense> {
        if (epoch < self.promised || self.view < self.promised) && !mutant!(AckOldEpoch) {
            self.answer_late(key);
            return Ok(());
        }
        if self.leader != Some(key)
            || epoch != self.view
            || after != self.log.end()
            || round < self.seen_round && round != Round(0)
        {
            return Err(Nonsense);
        }
        for entry in entries.iter() {
            self.log.push(entry);
        }
        self.heard = now;
        self.commit = self.commit.max(commit.min(self.log.end()));
        if round != Round(0) {
            self.seen_round = round;
        }
        // Also the parts of what it lacked: it is not silent while they come.
        self.ack_due = true;
        Ok(())
    }

    fn piece(
        &mut self,
        now: Tick,
        key: LinkKey,
        (_epoch, number, last): (u32, u32, bool),
        bytes: &[u8],
    ) -> Result<(), Nonsense> {
        if self.leader != Some(key) || self.has_state || number != self.pieces {
            return Err(Nonsense);
        }
        self.heard = now;
        self.outputs.push(Output::Piece { bytes: Vec::from(bytes), last });
        self.pieces += 1;
        // The last one is acknowledged when a table was made of them all.
        if last {
            self.pieces -= 1;
        } else {
            self.ack_due = true;
        }
        Ok(())
    }

    /// The table was made of the pieces.
    ///
    /// # Panics
    /// When no snapshot was asked for.
    pub fn restored(&mut self) {
        assert!(!self.has_state && self.leader.is_some(), "only what was asked for is put together");
        self.has_state = true;
        self.pieces += 1;
        self.ack_due = true;
        self.report(Report::Restored);
    }

    fn refused(&mut self, now: Tick, key: LinkKey, why: Unwelcome) -> Result<(), Nonsense> {
        let link = self.link(key).ok_or(Nonsense)?;
        link.stage = Stage::Quiet;
        let peer = link.peer.clone();
        match why {
            Unwelcome::NotPrimary => {
                self.report(Report::Refused(peer));
                Err(Nonsense)
            }
            // A stranger that is listed has everything, and may have to take over until it is listed no more: it keeps
            // what it has until a snapshot comes.
            Unwelcome::Stranger | Unwelcome::NotYet => {
                self.heard = now;
                Ok(())
            }
        }
    }

    /// Says what has arrived, once a pass.
    pub(super) fn acknowledge(&mut self) {
        self.log.drop_to(self.applied.min(self.commit).max(self.log.base()));
        if !core::mem::take(&mut self.ack_due) || self.view < self.promised && !mutant!(AckOldEpoch) {
            return;
        }
        let ack = Message::Ack {
            epoch: self.view,
            round: self.seen_round,
            received: self.log.end(),
            pieces: self.pieces,
        };
        if let Some(link) = self.leader.and_then(|leader| self.link(leader)) {
            ack.encode(&mut link.out);
        }
    }

    /// A primary that is silent is suspected; one that refused us for now is asked again.
    pub(super) fn watch_leader(&mut self, now: Tick) {
        let quiet: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|link| link.dialed && matches!(link.stage, Stage::Quiet))
            .map(|link| link.key)
            .collect();
        if self.leader.is_none() {
            for key in quiet {
                let heard = self.heard;
                self.greet(now, key);
                self.heard = heard;
            }
        }
        let silent = now.since(self.heard.max(self.suspected)) > self.profile.suspect;
        if !silent || !self.is_punctual() || mutant!(NeverSuspect) {
            return;
        }
        let asked = |link: &&super::Link| matches!(link.stage, Stage::Greeted | Stage::Led);
        let silent: Vec<_> = self.links.iter().filter(asked).map(|link| link.peer.clone()).collect();
        if !silent.is_empty() {
            self.suspected = now;
        }
        for peer in silent {
            self.report(Report::Suspect(peer));
        }
    }
}

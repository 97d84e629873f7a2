//! The primary's half: `replica/primary.rs` and `replica/handover.rs`.

use super::Mistake;
use super::state::{
    Config, Held, Joiner, Log, Message, NODES, NOTHING_COMMON, PIECES, Peer, Phase, Progress, Stage, State,
    others,
};
use super::turn::Turn;

impl State {
    /// Whether somebody has yet to hear how far the log is committed.
    pub fn has_news(&self, me: u8) -> bool {
        let commit = self.node(me).commit;
        let behind = |other| self.progress(me, other).is_some_and(|progress| progress.sent_commit < commit);
        self.is_primary(me) && others(me).any(behind)
    }

    /// Who has everything of a snapshot and since, and may be listed.
    pub fn is_ready(&self, me: u8, other: u8) -> bool {
        let joiner = self.progress(me, other).and_then(|progress| progress.joiner);
        joiner.is_some_and(|joiner| joiner.told && joiner.counts_from.is_some())
    }
}

impl Turn<'_> {
    /// `Replica::begin_round`.
    pub fn begin_round(&mut self, me: u8) {
        self.node_mut(me).round += 1;
        for other in others(me) {
            self.send_log(me, other);
        }
    }

    /// `Replica::send_log`.
    fn send_log(&mut self, me: u8, other: u8) {
        let node = self.node(me);
        let (epoch, round, commit, log) = (node.view, node.round, node.commit, node.log);
        let Some(progress) = self.progress_mut(me, other) else { return };
        let after = progress.sent;
        (progress.sent, progress.sent_round, progress.sent_commit) = (log.len(), round, commit);
        let entries = log.behind(after);
        self.send(me, other, Message::Append { epoch, round, commit, after, entries });
    }

    /// `Replica::advance`: how far everybody who counts has come (R2), and what follows from it.
    pub fn advance(&mut self, me: u8) {
        if !self.node(me).in_office() {
            return;
        }
        let node = self.node(me);
        let (mut round, mut commit) = (node.round, node.log.len());
        for other in others(me) {
            if let Some((acked_round, acked)) = self.vote(me, other) {
                (round, commit) = (round.min(acked_round), commit.min(acked));
            }
        }
        if self.makes(Mistake::CommitIsOwnEnd) {
            (round, commit) = (self.node(me).round, self.node(me).log.len());
        }
        let node = self.node_mut(me);
        node.released = node.released.max(round);
        if commit > node.commit {
            node.commit = commit;
            self.commit(me, commit);
        }
        self.let_go(me);
        self.look_at_joiners(me);
        self.try_to_yield(me);
    }

    /// What another's acknowledgements let through; `None` when they are not waited for.
    fn vote(&self, me: u8, other: u8) -> Option<(u8, u8)> {
        let (node, peer) = (self.node(me), self.peer(other));
        let listed = node.conf.life(other);
        let progress = self.progress(me, other);
        let pinned = node.pinned.filter(|pinned| pinned.node == other);
        let said = progress.filter(|progress| progress.acked_in == node.view);
        let said = said.map_or((0, 0), |progress| (progress.acked_round, progress.acked));
        // Whoever is listed or pinned in another life says nothing any more.
        let awaited = (listed != 0).then_some(listed).or(pinned.map(|pinned| pinned.life));
        if self.makes(Mistake::PinnedNotCounted) && listed == 0 {
            return None;
        }
        match awaited {
            Some(life) if life == peer.life => Some(said),
            Some(_) => Some((0, 0)),
            None => {
                let joiner = progress.and_then(|progress| progress.joiner)?;
                let counts = joiner.counts_from.is_some() && !self.makes(Mistake::JoinerDoesNotCount);
                counts.then_some(said)
            }
        }
    }

    /// `Replica::look_at_joiners`.
    fn look_at_joiners(&mut self, me: u8) {
        let at_once = self.makes(Mistake::JoinerToldAtOnce);
        let node = self.node(me);
        let (end, view, commit) = (node.log.len(), node.view, node.commit);
        for other in others(me) {
            let Some(progress) = self.progress_mut(me, other) else { continue };
            let Progress { acked, acked_in, joiner: Some(joiner), .. } = progress else { continue };
            if !at_once && (joiner.pieces < PIECES || *acked_in != view) {
                continue;
            }
            let from = *joiner.counts_from.get_or_insert(end);
            joiner.told |= at_once || *acked >= from && commit >= from;
        }
    }

    pub fn hear_follower(&mut self, me: u8, from: u8, message: Message) -> Option<()> {
        match message {
            Message::Greet { reign, received, joins } if self.is_primary(me) => {
                self.greeted(me, from, (reign, received, joins))
            }
            Message::Greet { reign, received, joins } => {
                *self.stage_mut(me, from) = Stage::Waiting { reign, received, joins };
                Some(())
            }
            Message::Ack { epoch, round, received, pieces } => {
                self.acked(me, from, (epoch, round, received, pieces))
            }
            _ => None,
        }
    }

    /// `Replica::greeted`; who is refused asks again later, which is a new stream here.
    pub fn greeted(&mut self, me: u8, from: u8, (reign, received, joins): (u8, u8, bool)) -> Option<()> {
        let (listed, peer) = (self.node(me).conf.life(from), self.peer(from));
        if listed == peer.life {
            let at = self.common_place(me, reign, received).filter(|_| !joins)?;
            self.activate(me, from, at, None);
        } else if listed != 0 || self.node(me).pinned.is_some() || self.left.joins == 0 {
            return None;
        } else {
            self.left.joins -= 1;
            self.offer_snapshot(me, from);
        }
        Some(())
    }

    /// `Replica::welcome_member`: where a member's log goes on. The log is all kept here; the code forgets what everybody
    /// has, and refuses whoever lacks it, which is one of the things that may happen here as well.
    fn common_place(&self, me: u8, reign: u8, received: u8) -> Option<u8> {
        let node = self.node(me);
        if reign == node.reign {
            return (received <= node.log.len()).then_some(received);
        }
        let common = node.common[usize::from(reign)];
        let wrong = self.makes(Mistake::KeepForeignSuffix);
        let at = if wrong { received.min(node.log.len()) } else { received.min(common) };
        (common != NOTHING_COMMON).then_some(at)
    }

    /// `Replica::activate`.
    fn activate(&mut self, me: u8, other: u8, from: u8, joiner: Option<Joiner>) {
        let configuration = self.activation(me);
        self.send(me, other, Message::Activate { from, snapshot: joiner.is_some(), configuration });
        *self.stage_mut(me, other) = Stage::Follows(Progress {
            sent: from,
            acked: from,
            sent_round: 0,
            acked_round: 0,
            acked_in: 0,
            sent_commit: 0,
            joiner,
        });
        self.node_mut(me).round += 1;
        self.send_log(me, other);
        self.advance(me);
    }

    /// What an activation says: the epoch and reign of this office.
    fn activation(&self, me: u8) -> Config {
        let node = self.node(me);
        Config { epoch: node.view, reign: node.reign, ..node.conf }
    }

    /// `Replica::begin_snapshot` and `offer_piece`: one piece has what was done to the first lock, the other the rest.
    fn offer_snapshot(&mut self, me: u8, other: u8) {
        let mut table = self.node(me).log;
        self.activate(me, other, table.len(), Some(Joiner::default()));
        if self.makes(Mistake::SnapshotIsStale) && table.len() > 0 {
            table.set(table.len(), super::state::Entry::default());
        }
        for number in 0..PIECES {
            let mut part = Log::blank(table.len());
            for lsn in 1..=table.len() {
                let entry = table.get(lsn).unwrap_or_default();
                if self.rules.piece_of(entry) == number {
                    part.set(lsn, entry);
                }
            }
            self.send(me, other, Message::Piece { number, table: part });
        }
    }

    /// `Replica::acked`.
    fn acked(&mut self, me: u8, from: u8, (epoch, round, received, pieces): (u8, u8, u8, u8)) -> Option<()> {
        let (view, wrong) = (self.node(me).view, self.makes(Mistake::AckMeansSent));
        let Some(progress) = self.progress_mut(me, from) else { return Some(()) };
        if received > progress.sent || round > progress.sent_round || epoch > view {
            return None;
        }
        progress.acked = progress.acked.max(received);
        progress.acked_in = epoch;
        if wrong {
            (progress.acked, progress.acked_round) = (progress.sent, progress.sent_round);
        }
        if epoch == view {
            progress.acked_round = progress.acked_round.max(round);
        }
        if let Some(joiner) = &mut progress.joiner {
            joiner.pieces = joiner.pieces.max(pieces);
        }
        self.advance(me);
        Some(())
    }

    /// `Replica::pin` and `Node::pin_next`.
    pub fn pin(&mut self, me: u8, joiner: u8) {
        self.node_mut(me).pinned = Some(self.peer(joiner));
        self.advance(me);
    }

    /// `Node::unpin`: it was certainly not listed.
    pub fn unpin(&mut self, me: u8) {
        let Some(Peer { node, life }) = self.node_mut(me).pinned.take() else { return };
        if self.node(node).life == life {
            self.end_stream(me, node);
        }
        self.advance(me);
    }

    /// `Replica::configure`: the members changed by this node's own doing.
    pub fn configure(&mut self, me: u8, new: Config) {
        let node = self.node_mut(me);
        (node.conf, node.view, node.promised) = (new, new.epoch, node.promised.max(new.epoch));
        node.pinned.take_if(|pinned| new.lists(*pinned));
        for other in others(me) {
            let listed = new.lists(self.peer(other));
            let Some(progress) = self.progress_mut(me, other) else { continue };
            if listed {
                progress.joiner = None;
            } else if progress.joiner.is_none() {
                self.hang_up(me, other);
                continue;
            }
            let from = progress.sent;
            let configuration = self.activation(me);
            self.send(me, other, Message::Activate { from, snapshot: false, configuration });
        }
        self.begin_round(me);
        self.advance(me);
    }

    /// `Replica::take_office`: with everything that is in the log. Clients ask again for what they were not answered.
    pub fn take_office(&mut self, me: u8) {
        let drops = self.makes(Mistake::TakeOverDropsSuffix);
        let node = self.node_mut(me);
        let conf = node.known;
        if drops {
            node.log.truncate(node.commit);
        }
        begin_reign(node, conf.reign, node.log.len());
        (node.phase, node.conf, node.pinned) = (Phase::Primary, conf, None);
        (node.view, node.promised) = (conf.epoch, conf.epoch);
        (node.round, node.released) = (node.round.max(node.seen_round), 0);
        node.applied = node.log.len();
        let log = node.log;
        for lsn in 1..=log.len() {
            self.hold(me, Held::Answer { lsn, entry: log.get(lsn).unwrap_or_default() });
        }
        self.node_mut(me).round += 1;
        if self.makes(Mistake::InheritedIsCommitted) {
            self.node_mut(me).commit = log.len();
            self.commit(me, log.len());
        }
        for other in others(me) {
            match self.stage(me, other).copied() {
                Some(Stage::Waiting { reign, received, joins }) => {
                    let welcome = self.greeted(me, other, (reign, received, joins));
                    if welcome.is_none() {
                        self.hang_up(me, other);
                    }
                }
                Some(Stage::Greeted | Stage::Led) => self.hang_up(me, other),
                _ => {}
            }
        }
        self.advance(me);
    }

    /// `Replica::try_to_yield`, and `Node::yielded` after it.
    fn try_to_yield(&mut self, me: u8) {
        let node = self.node(me);
        let Phase::Yielding { setup } = node.phase else { return };
        if node.released < node.round || node.commit < node.log.len() {
            return;
        }
        let (reign, received) = (node.reign, node.log.len());
        let node = self.node_mut(me);
        node.phase = Phase::Following { primary: setup.primary_peer(), handed: false };
        (node.promised, node.pinned) = (node.promised.max(setup.epoch), None);
        node.held.clear();
        for other in (0..NODES).filter(|other| *other != me) {
            let Some(progress) = self.progress(me, other) else { continue };
            if progress.joiner.is_some() {
                self.hang_up(me, other);
                continue;
            }
            self.send(me, other, Message::Yield { configuration: setup });
            *self.stage_mut(me, other) = Stage::Quiet;
            if other == setup.primary {
                *self.stage_mut(me, other) = Stage::Greeted;
                self.send(me, other, Message::Greet { reign, received, joins: false });
            }
        }
        self.settle(me);
    }

    /// `Replica::give_up_yielding`: everything is kept, this node may have to take over again with it.
    pub fn give_up_yielding(&mut self, me: u8) {
        self.retire(me);
        let node = self.node_mut(me);
        node.phase = Phase::Following { primary: node.known.primary_peer(), handed: false };
        self.settle(me);
    }
}

/// `Replica::begin_reign`: the log is from here on another reign's.
pub fn begin_reign(node: &mut super::state::Node, reign: u8, from: u8) {
    for common in node.common.iter_mut().filter(|common| **common != NOTHING_COMMON) {
        *common = (*common).min(from);
    }
    if node.reign != 0 {
        node.common[usize::from(node.reign)] = from;
    }
    node.reign = reign;
}

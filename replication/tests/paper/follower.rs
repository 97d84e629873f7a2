//! The follower's half: `replica/follower.rs`. `None` is a stream that makes no sense any more, and ends.

use super::Mistake;
use super::primary::begin_reign;
use super::state::{Config, Log, Message, NOTHING_COMMON, PIECES, Phase, Stage};
use super::turn::Turn;

impl Turn<'_> {
    /// `Replica::greet`, over a new stream: the node has dialled.
    pub fn dial(&mut self, me: u8, primary: u8) {
        self.connect(me, primary);
        *self.stage_mut(me, primary) = Stage::Greeted;
        let node = self.node(me);
        let (reign, received, joins) = (node.reign, node.log.len(), !node.has_state);
        self.send(me, primary, Message::Greet { reign, received, joins });
    }

    pub fn hear_primary(&mut self, me: u8, from: u8, message: Message) -> Option<()> {
        if self.node(me).in_office() {
            // It is told that its time is over, and may look at the register, which it may do at any time.
            return Some(());
        }
        match message {
            Message::Activate { from: at, snapshot, configuration } => {
                self.activated(me, from, (at, snapshot), configuration)
            }
            Message::Append { epoch, round, commit, after, entries } => {
                self.take_in(me, from, (epoch, round, commit, after), &entries)
            }
            Message::Piece { number, table } => self.piece(me, from, number, &table),
            Message::Yield { configuration } => {
                self.handed_over(me, from, configuration);
                Some(())
            }
            Message::Greet { .. } | Message::Ack { .. } => None,
        }
    }

    /// `Replica::activated`.
    fn activated(&mut self, me: u8, from: u8, (at, snapshot): (u8, bool), conf: Config) -> Option<()> {
        let accepts = self.makes(Mistake::AcceptOldActivation);
        if conf.epoch < self.node(me).promised && !accepts {
            return Some(());
        }
        if !self.is_led_by(me, from) {
            return None;
        }
        if snapshot {
            let node = self.node_mut(me);
            (node.has_state, node.log, node.pieces) = (false, Log::blank(at), 0);
            (node.commit, node.applied, node.astray) = (at, at, 0);
            (node.common, node.reign) = ([NOTHING_COMMON; super::state::EPOCHS], conf.reign);
        } else {
            self.go_on_from(me, conf.reign, at)?;
        }
        *self.stage_mut(me, from) = Stage::Led;
        let node = self.node_mut(me);
        (node.view, node.promised, node.reign) = (conf.epoch, conf.epoch, conf.reign);
        node.seen_round = 0;
        self.acknowledge(me, from);
        self.told(me, conf);
        Some(())
    }

    /// `Replica::go_on`: makes the log one that the primary's goes on from.
    fn go_on_from(&mut self, me: u8, reign: u8, at: u8) -> Option<()> {
        let node = self.node(me);
        if reign == node.reign {
            return (at == node.log.len()).then_some(());
        }
        if !node.has_state || at > node.log.len() || at < node.commit {
            return None;
        }
        if at < node.applied {
            // `Node::astray`: a former primary whose table is ahead joins anew when it has been taken out.
            if matches!(node.phase, Phase::Following { .. }) {
                if self.is_member(me) {
                    self.node_mut(me).astray = reign;
                } else {
                    self.step_down(me);
                }
            }
            return None;
        }
        let node = self.node_mut(me);
        node.log.truncate(at);
        begin_reign(node, reign, at);
        Some(())
    }

    /// `Replica::take_in`.
    fn take_in(
        &mut self,
        me: u8,
        from: u8,
        (epoch, round, commit, after): (u8, u8, u8, u8),
        entries: &Log,
    ) -> Option<()> {
        let node = self.node(me);
        let late = epoch < node.promised || node.view < node.promised;
        if late && !self.makes(Mistake::AckOldEpoch) {
            return Some(());
        }
        let fits = epoch == node.view && after == node.log.len() && round >= node.seen_round;
        if self.stage(me, from) != Some(&Stage::Led) || !fits {
            return None;
        }
        let all = self.makes(Mistake::ApplyUncommitted);
        let node = self.node_mut(me);
        entries.all().iter().for_each(|entry| node.log.push(*entry));
        let end = node.log.len();
        node.commit = node.commit.max(if all { end } else { commit.min(end) });
        (node.applied, node.seen_round) = (node.applied.max(node.commit), round);
        self.applies(me);
        self.acknowledge(me, from);
        Some(())
    }

    /// `Replica::piece` and `restored`.
    fn piece(&mut self, me: u8, from: u8, number: u8, table: &Log) -> Option<()> {
        let node = self.node(me);
        if self.stage(me, from) != Some(&Stage::Led) || node.has_state || number != node.pieces {
            return None;
        }
        let node = self.node_mut(me);
        for lsn in 1..=table.len() {
            if let Some(entry) = table.get(lsn).filter(|entry| entry.op != 0) {
                node.log.set(lsn, entry);
            }
        }
        node.pieces += 1;
        node.has_state = node.pieces == PIECES;
        self.acknowledge(me, from);
        Some(())
    }

    /// `Replica::acknowledge`: R4 is kept here.
    fn acknowledge(&mut self, me: u8, to: u8) {
        let node = self.node(me);
        if node.view < node.promised && !self.makes(Mistake::AckOldEpoch) {
            return;
        }
        let (epoch, round, received, pieces) = (node.view, node.seen_round, node.log.len(), node.pieces);
        self.send(me, to, Message::Ack { epoch, round, received, pieces });
    }

    /// The primary hands over: the stream is turned round, or ends.
    fn handed_over(&mut self, me: u8, from: u8, configuration: Config) {
        if self.stage(me, from) != Some(&Stage::Led) {
            return;
        }
        *self.stage_mut(me, from) = Stage::Quiet;
        if let Phase::Following { handed, .. } = &mut self.node_mut(me).phase {
            *handed = true;
        }
        self.told(me, configuration);
        if self.node(me).asked.is_none() {
            self.settle(me);
        }
    }
}

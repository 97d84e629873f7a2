//! A shard of a cell: what it does is logged, what it says waits for a round, and what others did is applied here.
//!
//! The table changes at one place ([`Shard::change`]), which enters the command into the log with its moment. The moment is
//! the cell's time (docs/decisions/0008): this node's clock and an offset that is set when it takes office. Outputs leave
//! at one place, too: bytes for clients, ends of connections and messages to other shards wait in the order in which they
//! were made until their round has come back from everybody (R3, R9).

use std::collections::VecDeque;

use super::Shard;
use super::joining::Join;
use super::words::Words;
use crate::connection::ConnectionKey;
use crate::lanes::{Announcement, ToControl, ToShard};
use fairlock_locktable::command::Command;
use fairlock_locktable::{Effects, Settings as TableSettings, Table, operation};
use fairlock_protocol::{Role, SessionId, ShardId, Tick};
use fairlock_replication::message::{Message, Round};
use fairlock_replication::replica::{Input, LinkKey, Order, Output as Wish, Part, Peer, Replica};

/// Operations between two comparisons of the members' tables (S6), and the first byte of the entry that compares.
const COMPARE_EVERY: u64 = 4096;
const COMPARISON: u8 = 0xFF;

/// What the cell's configuration means to a shard and its clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellFacts {
    /// Where clients reach the primary, of which epoch.
    pub(crate) primary: String,
    /// Where they reach all nodes, the primary first.
    pub(crate) nodes: String,
    /// The epoch of both.
    pub(crate) epoch: u32,
    /// This node is the primary.
    pub(crate) is_here: bool,
    /// How many members there are.
    pub(crate) copies: usize,
    /// With fewer nothing is granted.
    pub(crate) copies_min: usize,
}

impl CellFacts {
    /// Whether clients can be told of any node.
    pub(super) fn is_known(&self) -> bool {
        self.epoch > 0 && !self.nodes.is_empty()
    }
}

/// What one pass wrote, and what it waits for.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) round: Round,
    /// Words of clients that have left; before all else.
    pub(super) ended: Vec<Words>,
    pub(super) writes: Vec<(ConnectionKey, usize)>,
    pub(super) closes: Vec<(ConnectionKey, bool)>,
    pub(super) to_shards: Vec<(ShardId, ToShard)>,
}

/// What has waited long enough, but for bytes, which go to their connections at once.
#[derive(Debug, Default)]
pub(super) struct Free {
    pub(super) closes: Vec<(ConnectionKey, bool)>,
    pub(super) to_shards: Vec<(ShardId, ToShard)>,
}

/// A stream with another node.
#[derive(Debug)]
struct Stream {
    key: LinkKey,
    unread: Vec<u8>,
}

/// The replicated half of a shard.
#[derive(Debug)]
pub(super) struct Replicated {
    pub(super) replica: Replica,
    pub(super) facts: CellFacts,
    /// What a new table is made of.
    pub(super) table: TableSettings,
    /// The cell's time is this much ahead of this node's clock.
    pub(super) ahead_ns: i128,
    /// Moment of the newest operation.
    pub(super) moment: Tick,
    operation: Vec<u8>,
    streams: Vec<Stream>,
    pub(super) written: Vec<ConnectionKey>,
    /// Words of clients that have left in this pass.
    pub(super) ended: Vec<Words>,
    pub(super) batches: VecDeque<Batch>,
    /// What everybody has acknowledged: it leaves at the end of the pass, not to be taken for something that was made there.
    pub(super) free: Free,
    /// A snapshot on its way, here or from here.
    pub(super) join: Join,
    was_serving: bool,
    /// The reign of the primary of which clients were told that it serves, while this node follows it.
    pub(super) told_of: u32,
    /// Sessions of this home that other shards, in office already, have asked after, and which.
    pub(super) sought: Vec<(SessionId, ShardId)>,
    /// Sessions that other shards, in office already, have opened.
    #[expect(clippy::vec_box, reason = "they came in boxes, and go on in them")]
    pub(super) announced: Vec<Box<Announcement>>,
    /// When rounds were begun that have not come back, and when the newest was that has.
    pub(super) begun: VecDeque<(Round, Tick)>,
    pub(super) confirmed: Tick,
    /// The newest round that was ever noted there.
    pub(super) begun_newest: Round,
    /// Streams to end.
    hang_ups: Vec<LinkKey>,
}

impl Replicated {
    pub(super) fn new(replica: Replica, table: TableSettings) -> Replicated {
        Replicated {
            replica,
            facts: CellFacts::default(),
            table,
            ahead_ns: 0,
            moment: Tick::ZERO,
            operation: Vec::new(),
            streams: Vec::new(),
            written: Vec::new(),
            ended: Vec::new(),
            batches: VecDeque::new(),
            free: Free::default(),
            join: Join::default(),
            was_serving: false,
            told_of: 0,
            sought: Vec::new(),
            announced: Vec::new(),
            begun: VecDeque::new(),
            begun_newest: Round::default(),
            confirmed: Tick::ZERO,
            hang_ups: Vec::new(),
        }
    }

    /// The log, for whoever wants to look.
    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The cell's time when this node's clock says `now`.
    fn moment_at(&self, now: Tick) -> Tick {
        let moment = i128::from(now.0) + self.ahead_ns;
        Tick(u64::try_from(moment.max(0)).unwrap_or(u64::MAX)).max(self.moment)
    }

    /// When this node's clock shows a moment of the cell.
    fn tick_of(&self, moment: Tick) -> Tick {
        let tick = i128::from(moment.0) - self.ahead_ns;
        Tick(u64::try_from(tick.max(0)).unwrap_or(u64::MAX))
    }

    fn waits(&self) -> bool {
        matches!(self.replica.part(), Part::Primary | Part::Yielding) && !self.replica.stands_alone()
    }
}

impl Shard {
    /// Makes this a shard of a cell. Until an order of the control thread it serves nobody.
    pub(crate) fn replicate(&mut self, replica: Replica, table: TableSettings) {
        self.replicated = Some(Box::new(Replicated::new(replica, table)));
    }

    /// The replica of a shard of a cell, for whoever checks it.
    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.replicated.as_ref().map(|replicated| &replicated.replica)
    }

    /// Whether requests are taken in here.
    pub(super) fn serves(&self) -> bool {
        self.replicated.as_ref().is_none_or(|replicated| replicated.replica.part() == Part::Primary)
    }

    /// What this node is to its clients.
    pub(crate) fn role(&self) -> Role {
        match &self.replicated {
            None => Role::Standalone,
            Some(replicated) if replicated.replica.part() == Part::Primary => Role::Primary,
            Some(_) => Role::Backup,
        }
    }

    /// Whether nothing more can be taken in for the moment.
    pub(super) fn is_full(&self) -> bool {
        self.replicated.as_ref().is_some_and(|replicated| {
            replicated.replica.part() == Part::Yielding || replicated.replica.is_full()
        })
    }

    /// Whether nobody but this node could know a later epoch: it is alone, or all of its cell and nobody follows it, who might
    /// be a member without this node's knowing.
    pub(super) fn is_whole_cell(&self) -> bool {
        self.serves()
            && self
                .replicated
                .as_ref()
                .is_none_or(|replicated| replicated.facts.copies <= 1 && replicated.replica.stands_alone())
    }

    /// Why nothing can be granted although this node serves: too few others have a copy.
    pub(super) fn lacks_copies(&self) -> bool {
        self.replicated
            .as_ref()
            .is_some_and(|replicated| replicated.facts.copies < replicated.facts.copies_min)
    }

    /// The table's time.
    pub(crate) fn moment(&self) -> Tick {
        let alone = || Tick(self.now.0.saturating_add_signed(self.ahead_ns));
        self.replicated.as_ref().map_or_else(alone, |replicated| replicated.moment_at(self.now))
    }

    /// When this node's clock shows a moment of the table.
    pub(super) fn tick_of(&self, moment: Tick) -> Tick {
        let alone = || Tick(moment.0.saturating_add_signed(-self.ahead_ns));
        self.replicated.as_ref().map_or_else(alone, |replicated| replicated.tick_of(moment))
    }

    /// The moment until which leases of clients on this host are confirmed: everybody has answered a round sent then (R9).
    pub(crate) fn confirmed(&self, now: Tick) -> Option<Tick> {
        match &self.replicated {
            None => Some(now),
            Some(replicated) if replicated.replica.part() != Part::Primary => None,
            Some(replicated) if replicated.replica.stands_alone() => Some(now),
            Some(replicated) => (replicated.confirmed > Tick::ZERO).then_some(replicated.confirmed),
        }
    }

    /// Changes the table: the one place where that happens. A shard that does not serve changes nothing by itself.
    pub(super) fn change(&mut self, command: Command<'_>, effects: &mut Effects) {
        let moment = self.moment();
        let Some(replicated) = &mut self.replicated else {
            return self.table.apply(moment, command, effects);
        };
        if replicated.replica.part() != Part::Primary {
            return;
        }
        self.table.apply(moment, command, effects);
        replicated.moment = moment;
        replicated.operation.clear();
        if !replicated.replica.stands_alone() {
            operation::encode(moment, &command, &mut replicated.operation);
        }
        let at = replicated.replica.append(&replicated.operation);
        if at.0.is_multiple_of(COMPARE_EVERY) {
            replicated.operation.clear();
            replicated.operation.push(COMPARISON);
            replicated.operation.extend_from_slice(&self.table.rolling().to_le_bytes());
            replicated.replica.append(&replicated.operation);
        }
    }

    /// A stream with another node stands.
    pub(crate) fn peer_linked(&mut self, now: Tick, key: LinkKey, peer: Peer, dialed: bool) {
        self.now = self.now.max(now);
        if let Some(replicated) = &mut self.replicated {
            replicated.streams.push(Stream { key, unread: Vec::new() });
            replicated.replica.step(self.now, Input::Linked { link: key, peer, dialed });
        }
    }

    /// Bytes came on it.
    pub(crate) fn peer_received(&mut self, key: LinkKey, bytes: &[u8]) {
        let streams = self.replicated.iter_mut().flat_map(|replicated| &mut replicated.streams);
        if let Some(stream) = streams.into_iter().find(|stream| stream.key == key) {
            stream.unread.extend_from_slice(bytes);
        }
    }

    /// It ended.
    pub(crate) fn peer_unlinked(&mut self, now: Tick, key: LinkKey) {
        self.hear_peers(now);
        if let Some(replicated) = &mut self.replicated {
            replicated.streams.retain(|stream| stream.key != key);
            replicated.replica.step(self.now, Input::Unlinked(key));
        }
    }

    /// An order of the node.
    pub(super) fn obey(&mut self, order: Order) {
        // What was said before the order counts before it.
        self.hear_peers(self.now);
        if let Some(replicated) = &mut self.replicated {
            replicated.replica.step(self.now, Input::Order(order));
        }
        self.follow_replica();
    }

    /// Takes in what other nodes said, and what follows from it.
    pub(super) fn hear_peers(&mut self, now: Tick) {
        let Some(replicated) = &mut self.replicated else { return };
        self.now = self.now.max(now);
        let now = self.now;
        let Replicated { streams, replica, hang_ups, .. } = &mut **replicated;
        let mut broken = Vec::new();
        for stream in streams.iter_mut() {
            let mut taken = 0;
            loop {
                match Message::split(&stream.unread[taken..]) {
                    Ok(Some((message, length))) => {
                        replica.step(now, Input::Received(stream.key, message));
                        taken += length;
                    }
                    Ok(None) => break,
                    Err(malformed) => {
                        tracing::warn!(%malformed, "a node's stream makes no sense; it ends");
                        broken.push(stream.key);
                        taken = stream.unread.len();
                        break;
                    }
                }
            }
            stream.unread.drain(..taken);
        }
        for key in broken {
            streams.retain(|stream| stream.key != key);
            hang_ups.push(key);
            replica.step(now, Input::Unlinked(key));
        }
        replica.step(now, Input::Tick);
        self.follow_replica();
    }

    /// Does what the replica wants, and lets go what has waited long enough. Who takes office applies what it inherited here;
    /// a backup applies at the end of its pass.
    fn follow_replica(&mut self) {
        self.fulfil_wishes();
        self.restore();
        self.fulfil_wishes();
        if self.serves() {
            self.apply_committed();
        }
        // What was acknowledged before an office ended counts.
        self.release();
        self.change_part();
        self.tell_of_primary();
        let waits = self.replicated.as_ref().is_some_and(|replicated| replicated.waits());
        if std::mem::replace(&mut self.holds_back, waits) && !waits {
            self.let_go_written();
        }
    }

    fn fulfil_wishes(&mut self) {
        while let Some(replicated) = &mut self.replicated {
            let wishes = std::mem::take(replicated.replica.outputs());
            if wishes.is_empty() {
                break;
            }
            for wish in wishes {
                self.fulfil(wish);
            }
        }
    }

    fn fulfil(&mut self, wish: Wish) {
        let Some(replicated) = &mut self.replicated else { return };
        match wish {
            Wish::Report(report) => {
                let shard = self.settings.me.0;
                self.output.to_control.push(ToControl::Report { shard, report });
            }
            Wish::HangUp(key) => {
                replicated.streams.retain(|stream| stream.key != key);
                replicated.hang_ups.push(key);
            }
            Wish::Reset => {
                replicated.join = Join::default();
                self.table = Table::new(replicated.table.clone());
                self.table.begin_rolling();
            }
            Wish::SnapshotWanted(key) => {
                self.apply_committed();
                self.begin_to_tell(key);
            }
            Wish::Piece { bytes, last } => {
                replicated.join.take_in(bytes, last);
            }
        }
    }

    /// Applies what other nodes decided and is committed; what followed from it was said there.
    pub(crate) fn apply_committed(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let mut effects = std::mem::take(&mut self.effects);
        while let Some(bytes) = replicated.replica.next_committed() {
            if let [COMPARISON, theirs @ ..] = bytes {
                // Whoever differs could not take over: better it ends, and joins again with what the others have.
                let ours = self.table.rolling().to_le_bytes();
                assert_eq!(
                    theirs, ours,
                    "S6: this node's table differs from the primary's; it stops, and joins anew"
                );
                continue;
            }
            effects.clear();
            let mut moment = replicated.moment;
            let table = &mut self.table;
            let applied = operation::decode(bytes, |at, command| {
                moment = at;
                table.apply(at, command, &mut effects);
            });
            replicated.moment = moment;
            if let Err(malformed) = applied {
                panic!(
                    "the primary's operation cannot be read ({malformed}); this node cannot go on with its table"
                );
            }
        }
        self.effects = effects;
    }

    /// An office begins or ends.
    fn change_part(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let serving = matches!(replicated.replica.part(), Part::Primary | Part::Yielding);
        if std::mem::replace(&mut replicated.was_serving, serving) == serving {
            return;
        }
        if serving {
            self.begin_office();
        } else {
            self.leave_office();
        }
    }

    /// Hands out the bytes for other nodes, and which streams are to end after them.
    pub(crate) fn take_peer_out(&mut self, send: impl FnMut(LinkKey, &mut Vec<u8>)) -> Vec<LinkKey> {
        let Some(replicated) = &mut self.replicated else { return Vec::new() };
        replicated.replica.take_out(send);
        std::mem::take(&mut replicated.hang_ups)
    }

    /// When the replica has something to do by itself.
    pub(super) fn replica_due(&self) -> Option<Tick> {
        self.replicated.as_ref()?.replica.next_due()
    }
}

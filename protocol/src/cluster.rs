//! What an operator sees of a cell with several nodes: one node's view of all of them, in one frame.
//!
//! It is what the node that was asked knows, not a truth: a backup knows no lag, and one that waits for its place knows what
//! it last read. Everything is bounded, so that the largest view fits a frame.

use crate::ids::CellId;
use crate::limits::{
    ALARMS_BYTES_MAX, CELL_NODES_MAX, FRAME_BYTES_MAX, NODE_NAMES_BYTES_MAX, PLACE_BYTES_MAX,
};
use crate::wire::{Malformed, Reader, Writer};
use alloc::vec::Vec;

/// Most bytes of one node's entry: its name, machine, two addresses, and numbers.
const ENTRY_BYTES_MAX: usize = 1500;
/// Everything but the nodes: three names, names of nodes, the register and its fault, alarms, numbers.
const REST_BYTES_MAX: usize = 3 * 128 + NODE_NAMES_BYTES_MAX + 2 * PLACE_BYTES_MAX + ALARMS_BYTES_MAX + 256;

const _: () = assert!(CELL_NODES_MAX * ENTRY_BYTES_MAX + REST_BYTES_MAX < FRAME_BYTES_MAX);

/// A node's part in its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NodePart {
    /// It looks for its place, or is being brought up to date: it counts for nothing yet.
    Joining = 0,
    /// A member that is ready to take over.
    Backup = 1,
    /// It serves.
    Primary = 2,
    /// It goes on no more by itself; its alarms say why.
    Halted = 3,
}

impl NodePart {
    /// The part with this wire number.
    pub const fn from_wire(number: u8) -> Option<NodePart> {
        match number {
            0 => Some(NodePart::Joining),
            1 => Some(NodePart::Backup),
            2 => Some(NodePart::Primary),
            3 => Some(NodePart::Halted),
            _ => None,
        }
    }

    /// The word that `cluster status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            NodePart::Joining => "joining",
            NodePart::Backup => "backup",
            NodePart::Primary => "primary",
            NodePart::Halted => "halted",
        }
    }
}

/// One node of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEntry<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its part.
    pub part: NodePart,
    /// Which of its lives.
    pub incarnation: u64,
    /// Id of its machine.
    pub machine: &'a str,
    /// Where other nodes reach it.
    pub peer: &'a str,
    /// Where clients reach it.
    pub clients: &'a str,
    /// Operations it has not acknowledged, of all shards; `None`: not known here.
    pub lag: Option<u64>,
    /// Shards that have a stream with it; only the primary knows.
    pub streams: u16,
}

fn text(w: &mut Writer<'_>, text: &str) {
    w.u16(u16::try_from(text.len()).expect("texts of a view are bounded where they are made"));
    w.bytes(text.as_bytes());
}

fn read_text<'a>(r: &mut Reader<'a>, field: &'static str) -> Result<&'a str, Malformed> {
    let length = usize::from(r.u16(field)?);
    core::str::from_utf8(r.bytes(length, field)?).map_err(|_| Malformed::Illegal(field))
}

impl<'a> NodeEntry<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.part as u8).u64(self.incarnation).u64(self.lag.unwrap_or(u64::MAX)).u16(self.streams);
        for part in [self.node, self.machine, self.peer, self.clients] {
            text(w, part);
        }
    }

    fn read(r: &mut Reader<'a>) -> Result<NodeEntry<'a>, Malformed> {
        let part = NodePart::from_wire(r.u8("part")?).ok_or(Malformed::Illegal("part"))?;
        let (incarnation, lag) = (r.u64("incarnation")?, r.u64("lag")?);
        Ok(NodeEntry {
            part,
            incarnation,
            lag: (lag != u64::MAX).then_some(lag),
            streams: r.u16("streams")?,
            node: read_text(r, "node")?,
            machine: read_text(r, "machine")?,
            peer: read_text(r, "peer")?,
            clients: read_text(r, "clients")?,
        })
    }

    fn bytes(&self) -> usize {
        19 + [self.node, self.machine, self.peer, self.clients]
            .iter()
            .map(|text| 2 + text.len())
            .sum::<usize>()
    }
}

/// One node's view of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterView<'a> {
    /// Name of the cell.
    pub name: &'a str,
    /// Its id; 0: not known yet.
    pub cell: CellId,
    /// Number of the newest configuration that is known; 0: none.
    pub epoch: u32,
    /// Epoch in which its primary took office.
    pub reign: u32,
    /// The primary's name; empty: not known.
    pub primary: &'a str,
    /// The node that says all this, and its part.
    pub node: &'a str,
    /// Its part.
    pub part: NodePart,
    /// Newest operations that the cell uses.
    pub feature_level: u16,
    /// The newest that this node understands.
    pub feature_level_own: u16,
    /// Shards of every node.
    pub shards: u16,
    /// Members with a copy.
    pub copies: u16,
    /// With fewer nothing is granted, says this node's configuration.
    pub copies_min: u16,
    /// Longest lease granted so far, in milliseconds: so long a cold start waits.
    pub ttl_horizon_ms: u32,
    /// What is left of a quarantine here, in milliseconds.
    pub recovering_ms: u32,
    /// The cell began anew without what its nodes knew.
    pub state_lost: bool,
    /// Where the register is.
    pub register: &'a str,
    /// Why it does not answer; empty: it does.
    pub register_fault: &'a str,
    /// Nodes that this one waits for, separated by commas.
    pub waits_for: &'a str,
    /// Conditions somebody should look at, one a line.
    pub alarms: &'a str,
    /// Members, and who is on the way to become one.
    pub nodes: NodeList<'a>,
}

impl<'a> ClusterView<'a> {
    pub(crate) fn write(&self, mut w: Writer<'_>) {
        w.u128(self.cell.0).u32(self.epoch).u32(self.reign).u8(self.part as u8);
        w.u16(self.feature_level).u16(self.feature_level_own).u16(self.shards);
        w.u16(self.copies).u16(self.copies_min);
        w.u32(self.ttl_horizon_ms).u32(self.recovering_ms).u8(u8::from(self.state_lost));
        let texts = [self.name, self.primary, self.node, self.register, self.register_fault];
        for part in texts.into_iter().chain([self.waits_for, self.alarms]) {
            text(&mut w, part);
        }
        w.u16(self.nodes.count).bytes(self.nodes.bytes);
        w.finish();
    }

    pub(crate) fn read(mut r: Reader<'a>) -> Result<ClusterView<'a>, Malformed> {
        let r = &mut r;
        let (cell, epoch, reign) = (CellId(r.u128("cell")?), r.u32("epoch")?, r.u32("reign")?);
        let view = ClusterView {
            cell,
            epoch,
            reign,
            part: NodePart::from_wire(r.u8("part")?).ok_or(Malformed::Illegal("part"))?,
            feature_level: r.u16("feature_level")?,
            feature_level_own: r.u16("feature_level_own")?,
            shards: r.u16("shards")?,
            copies: r.u16("copies")?,
            copies_min: r.u16("copies_min")?,
            ttl_horizon_ms: r.u32("ttl_horizon")?,
            recovering_ms: r.u32("recovering")?,
            state_lost: match r.u8("state_lost")? {
                0 => false,
                1 => true,
                _ => return Err(Malformed::Illegal("state_lost")),
            },
            name: read_text(r, "name")?,
            primary: read_text(r, "primary")?,
            node: read_text(r, "node")?,
            register: read_text(r, "register")?,
            register_fault: read_text(r, "register_fault")?,
            waits_for: read_text(r, "waits_for")?,
            alarms: read_text(r, "alarms")?,
            nodes: NodeList::read(r)?,
        };
        Ok(view)
    }
}

/// Entries of nodes, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeList<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> NodeList<'a> {
    fn read(r: &mut Reader<'a>) -> Result<NodeList<'a>, Malformed> {
        let count = r.u16("count")?;
        if usize::from(count) > CELL_NODES_MAX {
            return Err(Malformed::Illegal("count"));
        }
        let bytes = r.remaining();
        let mut entries = Reader::new(bytes);
        for _ in 0..count {
            NodeEntry::read(&mut entries)?;
        }
        entries.end()?;
        Ok(NodeList { count, bytes })
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = NodeEntry<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| NodeEntry::read(&mut reader).ok())
    }
}

/// Entries of nodes on their way into a frame.
#[derive(Debug, Default)]
pub struct NodeBuffer {
    count: u16,
    bytes: Vec<u8>,
}

impl NodeBuffer {
    /// Adds a node; one too many, or one with texts beyond every bound, is left out, and `false`.
    pub fn push(&mut self, entry: &NodeEntry<'_>) -> bool {
        if usize::from(self.count) == CELL_NODES_MAX || entry.bytes() > ENTRY_BYTES_MAX {
            return false;
        }
        entry.write(&mut Writer::behind(&mut self.bytes));
        self.count += 1;
        true
    }

    /// What was added.
    pub fn list(&self) -> NodeList<'_> {
        NodeList { count: self.count, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests;

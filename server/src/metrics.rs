//! The metrics page: what every shard published and what the node is, in Prometheus' text format 0.0.4.
//!
//! Written by hand: the numbers live in plain atomics that shards store to (`stats`), so a registry would only be a
//! second home for them.

use std::fmt::{Display, Write};
use std::sync::Arc;

use crate::control::DoorCounts;
use crate::stats::{Kind, ShardStats};

/// What the page is, for the header of an answer.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The numbers that belong to the node and to no shard.
#[derive(Clone, Debug)]
pub(crate) struct NodeNumbers {
    /// `uring` or `epoll`.
    pub(crate) io: &'static str,
    /// `standalone`, `primary` or `backup`.
    pub(crate) role: &'static str,
    /// The cell's epoch.
    pub(crate) epoch: u32,
    /// Since the start.
    pub(crate) uptime_s: u64,
    /// Alarms on the board.
    pub(crate) alarms: usize,
    /// Grants are possible.
    pub(crate) grants_possible: bool,
    /// What happened at the Unix socket's door.
    pub(crate) door: DoorCounts,
    /// Of a node of a cell.
    pub(crate) cell: Option<CellNumbers>,
}

/// How a cell stands, as a node of it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellNumbers {
    /// Members with a copy.
    pub(crate) copies: u64,
    /// With fewer nothing is granted.
    pub(crate) copies_min: u64,
    /// The register answered when it was last asked, or looked at.
    pub(crate) register_answers: bool,
    /// How often this node became primary.
    pub(crate) offices_total: u64,
}

/// The page.
pub(crate) fn page(node: &NodeNumbers, shards: &[Arc<ShardStats>]) -> String {
    let mut page = Page { text: String::with_capacity(8 * 1024) };
    let (version, io, role) = (env!("CARGO_PKG_VERSION"), node.io, node.role);
    page.one("up", Kind::Gauge, "1 while the server runs", 1);
    page.head("info", Kind::Gauge, "What runs; always 1");
    page.sample("info", format_args!("version=\"{version}\",io=\"{io}\",role=\"{role}\""), 1);
    page.one("epoch", Kind::Gauge, "Epoch of the cell", u64::from(node.epoch));
    page.one("uptime_seconds", Kind::Gauge, "Seconds since the start", node.uptime_s);
    page.one("alarms", Kind::Gauge, "Alarms that stand; status tells them", node.alarms as u64);
    let help = "1 while grants are possible: not recovering, not draining";
    page.one("grants_possible", Kind::Gauge, help, u64::from(node.grants_possible));
    let door = node.door;
    page.one("unix_accepts_total", Kind::Counter, "Connections accepted on the Unix socket", door.accepted);
    page.one("unix_refused_total", Kind::Counter, "Connections refused at their HELLO", door.refused);
    page.one("unix_dropped_total", Kind::Counter, "Connections dropped before their HELLO", door.dropped);
    if let Some(cell) = node.cell {
        page.one("copies", Kind::Gauge, "Members of the cell, each with a copy", cell.copies);
        page.one("copies_min", Kind::Gauge, "With fewer copies nothing is granted", cell.copies_min);
        let help = "1 while the register of the cell answers";
        page.one("register_answers", Kind::Gauge, help, u64::from(cell.register_answers));
        let help = "Times this node became the primary: its start, failovers, switchovers";
        page.one("offices_total", Kind::Counter, help, cell.offices_total);
    }
    let read: Vec<_> = shards.iter().map(|stats| stats.read()).collect();
    for (at, (name, kind, help, _)) in read.first().into_iter().flatten().enumerate() {
        page.head(name, *kind, help);
        for (shard, numbers) in read.iter().enumerate() {
            if let Some((_, _, _, value)) = numbers.get(at) {
                page.sample(name, format_args!("shard=\"{shard}\""), *value);
            }
        }
    }
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let written = write!(self.text, "# HELP fairlock_{name} {help}\n# TYPE fairlock_{name} {kind}\n");
        written.expect("a string takes it");
    }

    fn sample(&mut self, name: &str, labels: impl Display, value: u64) {
        writeln!(self.text, "fairlock_{name}{{{labels}}} {value}").expect("a string takes it");
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.head(name, kind, help);
        writeln!(self.text, "fairlock_{name} {value}").expect("a string takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_names_every_number_of_every_shard_once() {
        let shards = [Arc::new(ShardStats::default()), Arc::new(ShardStats::default())];
        ShardStats::set(&shards[1].grants_total, 42);
        let door = DoorCounts { accepted: 3, refused: 2, dropped: 1 };
        let node = NodeNumbers {
            io: "epoll",
            role: "standalone",
            epoch: 7,
            uptime_s: 9,
            alarms: 0,
            grants_possible: true,
            door,
            cell: Some(CellNumbers { copies: 3, copies_min: 2, register_answers: false, offices_total: 4 }),
        };
        let text = page(&node, &shards);
        assert!(text.contains("\n# TYPE fairlock_grants_total counter\n"));
        assert!(
            text.contains("\nfairlock_grants_total{shard=\"0\"} 0\nfairlock_grants_total{shard=\"1\"} 42\n")
        );
        assert!(text.starts_with("# HELP fairlock_up ") && text.contains("\nfairlock_up 1\n"));
        assert!(
            text.contains("io=\"epoll\",role=\"standalone\"} 1\n") && text.contains("\nfairlock_epoch 7\n")
        );
        assert!(text.contains("\nfairlock_unix_refused_total 2\n"));
        assert!(text.contains("\nfairlock_copies 3\n") && text.contains("\nfairlock_register_answers 0\n"));
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let series = line.rsplit_once(' ').unwrap().0;
            assert!(line.starts_with("# HELP") || seen.insert(series.to_string()), "twice: {line}");
            assert!(line.starts_with("# ") || line.starts_with("fairlock_"), "{line}");
        }
    }
}

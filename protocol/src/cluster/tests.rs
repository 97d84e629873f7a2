//! What is written is what is read, and nothing beyond its bound is written or believed.

use super::*;
use crate::{Frame, Reply, RequestId};
use std::string::String;
use std::vec;

fn entry(node: &str) -> NodeEntry<'_> {
    NodeEntry {
        node,
        part: NodePart::Backup,
        incarnation: 7,
        machine: "4a",
        peer: "10.0.0.1:7413",
        clients: "tcp://10.0.0.1:7411",
        lag: Some(3),
        streams: 2,
    }
}

fn view<'a>(nodes: &'a NodeBuffer, alarms: &'a str) -> ClusterView<'a> {
    ClusterView {
        name: "prod",
        cell: CellId(1 << 100),
        epoch: 9,
        reign: 8,
        primary: "a",
        node: "b",
        part: NodePart::Halted,
        feature_level: 1,
        feature_level_own: 2,
        shards: 2,
        copies: 3,
        copies_min: 2,
        ttl_horizon_ms: 5000,
        recovering_ms: 1,
        state_lost: true,
        register: "etcd://r:2379",
        register_fault: "refused",
        waits_for: "c,d",
        alarms,
        nodes: nodes.list(),
    }
}

fn decoded(bytes: &[u8]) -> Result<Reply<'_>, Malformed> {
    let (frame, length) = Frame::split(bytes)?.expect("a whole frame");
    assert_eq!(length, bytes.len());
    Reply::decode(&frame)
}

#[test]
fn a_view_is_read_as_it_was_written() {
    let mut nodes = NodeBuffer::default();
    assert!(nodes.push(&entry("a")) && nodes.push(&NodeEntry { lag: None, ..entry("b") }));
    let written = Reply::Cluster(view(&nodes, "copies: 1"));
    let mut out = vec![];
    written.encode(RequestId(5), 0, &mut out);
    assert_eq!(decoded(&out), Ok(written));
    let Ok(Reply::Cluster(read)) = decoded(&out) else { panic!("a view") };
    let entries: std::vec::Vec<NodeEntry<'_>> = read.nodes.entries().collect();
    assert_eq!(entries, [entry("a"), NodeEntry { lag: None, ..entry("b") }]);
}

#[test]
fn the_largest_view_fits_a_frame_and_one_node_more_is_left_out() {
    let long = |bytes: usize| -> String { core::iter::repeat_n('x', bytes).collect() };
    let (name, machine, peer, clients) = (long(64), long(64), long(260), long(1024));
    let node = NodeEntry { machine: &machine, peer: &peer, clients: &clients, ..entry(&name) };
    let mut nodes = NodeBuffer::default();
    for _ in 0..CELL_NODES_MAX {
        assert!(nodes.push(&node));
    }
    assert!(!nodes.push(&node), "one too many");
    let (place, waits, alarms) = (long(PLACE_BYTES_MAX), long(NODE_NAMES_BYTES_MAX), long(ALARMS_BYTES_MAX));
    let largest =
        ClusterView { register: &place, register_fault: &place, waits_for: &waits, ..view(&nodes, &alarms) };
    let mut out = vec![];
    Reply::Cluster(largest).encode(RequestId(1), 0, &mut out);
    assert_eq!(decoded(&out), Ok(Reply::Cluster(largest)));
    let mut none = NodeBuffer::default();
    assert!(!none.push(&NodeEntry { clients: &long(1500), ..node }), "texts beyond every bound");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let nodes = NodeBuffer::default();
    let mut sound = vec![];
    Reply::Cluster(view(&nodes, "")).encode(RequestId(1), 0, &mut sound);
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        decoded(&bytes).map(|_| ()).unwrap_err()
    };
    let body = 16;
    assert_eq!(with(body + 24, 4), Malformed::Illegal("part"));
    assert_eq!(with(body + 43, 2), Malformed::Illegal("state_lost"));
    assert_eq!(with(body + 46, 0xFF), Malformed::Illegal("name"));
    let count_at = sound.len() - 2;
    assert_eq!(with(count_at, 255), Malformed::Illegal("count"));
    assert_eq!(with(count_at, 1), Malformed::Truncated("part"));
}

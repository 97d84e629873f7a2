//! The checks of a cell: enough copies, the register, and whether this host reaches what the nodes have to reach. Only what
//! the node that was asked knows is checked, and the ways from here, which need not be those of the nodes.

use super::Finding;
use crate::args::Reach;
use crate::remote;
use fairlock::admin::{ClusterReport, NodeLine, NodePart};
use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a door may take to open.
const DIAL_TIME: Duration = Duration::from_secs(1);
/// Clock sources whose rate is trusted across stops and migrations of a guest.
const STEADY_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

/// Checks the cell, if the server belongs to one.
pub(super) fn all(reach: &Reach) -> Vec<Finding> {
    // A server that cannot be asked, or is alone, has been told of before.
    let Ok(mut admin) = remote::admin(reach) else { return Vec::new() };
    match admin.cluster() {
        Ok(report) => vec![cell(&report), register(&report), peers(&report), rate()],
        Err(_) => Vec::new(),
    }
}

fn cell(report: &ClusterReport) -> Finding {
    const CHECK: &str = "cell";
    let primary = if report.primary.is_empty() { "no primary" } else { report.primary.as_str() };
    let found = format!("{}, epoch {}, {primary}, {} copies", report.name, report.epoch, report.copies);
    let away = |node: &&NodeLine| {
        report.part == NodePart::Primary && node.part == NodePart::Backup && node.lag.is_none()
    };
    let away: Vec<&str> = report.nodes.iter().filter(away).map(|node| node.node.as_str()).collect();
    if report.part == NodePart::Halted {
        return Finding::fail(
            CHECK,
            found,
            format!("{} goes on no more: {}", report.node, report.alarms.join("; ")),
        );
    }
    // Of a node that knows nothing of the cell yet the register's check tells.
    if report.epoch > 0 && report.copies < report.copies_min {
        let advice =
            format!("nothing is granted with fewer than {} copies; start more nodes", report.copies_min);
        return Finding::fail(CHECK, found, advice);
    }
    if !report.waits_for.is_empty() {
        let advice = format!("waits for {}; see `fairlock cluster status`", report.waits_for.join(", "));
        return Finding::fail(CHECK, found, advice);
    }
    if !away.is_empty() {
        return Finding::warn(CHECK, found, format!("{} is not connected", away.join(", ")));
    }
    match report.copies {
        1 => Finding::warn(CHECK, found, "one copy alone survives nothing; start another node"),
        2 => Finding::warn(
            CHECK,
            found,
            "with two copies the loss of one leaves one; a third gives you time to repair",
        ),
        _ => Finding::ok(CHECK, found),
    }
}

fn register(report: &ClusterReport) -> Finding {
    const CHECK: &str = "register";
    if !report.register_fault.is_empty() {
        let found = format!("{} does not answer {}: {}", report.register, report.node, report.register_fault);
        return Finding::fail(CHECK, found, "without it nobody can take over or join; see to etcd");
    }
    if report.register.starts_with("file:") {
        let found = format!("{} answers {}", report.register, report.node);
        return Finding::warn(CHECK, found, "a directory serves a cell of one node; etcd is for several");
    }
    let places = report.register.split_once("://").map_or("", |(_, places)| places);
    let closed: Vec<&str> = places.split(',').filter(|place| !place.is_empty() && !opens(place)).collect();
    let found = format!("{} answers {}", report.register, report.node);
    match closed.as_slice() {
        [] if places.split(',').count() == 1 => {
            let advice =
                "one etcd is enough to serve, but not to take over when it is lost too; three survive one";
            Finding::warn(CHECK, found, advice)
        }
        [] => Finding::ok(CHECK, found),
        closed => Finding::warn(CHECK, found, format!("cannot be reached from here: {}", closed.join(", "))),
    }
}

fn peers(report: &ClusterReport) -> Finding {
    const CHECK: &str = "peers";
    if let Some(alarm) = report.alarms.iter().find(|alarm| alarm.starts_with("peer:")) {
        return Finding::fail(CHECK, alarm.clone(), "compare --peer-secret, --cell and the addresses");
    }
    let shut = |address: &str| !address.is_empty() && !opens(address);
    let closed: Vec<String> = report
        .nodes
        .iter()
        .flat_map(|node| {
            let clients = node.clients.split(',').map(|address| address.trim_start_matches("tcp://"));
            let doors: Vec<&str> = std::iter::once(node.peer.as_str()).chain(clients).collect();
            let shut: Vec<String> = doors.into_iter().filter(|door| shut(door)).map(str::to_owned).collect();
            shut.into_iter().map(|door| format!("{} at {door}", node.node)).collect::<Vec<_>>()
        })
        .collect();
    if closed.is_empty() {
        Finding::ok(CHECK, format!("the doors of all {} nodes open from here", report.nodes.len()))
    } else {
        let found = format!("closed from here: {}", closed.join(", "));
        Finding::warn(
            CHECK,
            found,
            "start the node, or look at firewall, --peer-address and --client-address",
        )
    }
}

/// All leases of a cell are counted by its nodes' clocks, whose rates must be right.
fn rate() -> Finding {
    const CHECK: &str = "clock rate";
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match source.as_deref().map(str::trim) {
        Ok(source) if STEADY_CLOCKS.contains(&source) => {
            Finding::ok(CHECK, format!("{source}; leases allow for an error of 0.1 %"))
        }
        Ok(source) => {
            Finding::warn(CHECK, source, "leases allow for an error of 0.1 %; use tsc or kvm-clock")
        }
        Err(error) => {
            Finding::warn(CHECK, error.to_string(), "leases allow for an error of 0.1 % of this clock")
        }
    }
}

/// Whether somebody listens there.
fn opens(address: &str) -> bool {
    let Ok(mut places) = address.to_socket_addrs() else { return false };
    places.any(|place| TcpStream::connect_timeout(&place, DIAL_TIME).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use fairlock::admin::CellId;

    fn report(copies: u16) -> ClusterReport {
        ClusterReport {
            name: "prod".to_owned(),
            cell: CellId(1),
            epoch: 9,
            reign: 9,
            primary: "a".to_owned(),
            node: "a".to_owned(),
            part: NodePart::Primary,
            feature_level: 1,
            feature_level_own: 1,
            shards: 1,
            copies,
            copies_min: 1,
            ttl_horizon_ms: 0,
            recovering_ms: 0,
            state_lost: false,
            register: "etcd://127.0.0.1:1".to_owned(),
            register_fault: String::new(),
            waits_for: vec![],
            alarms: vec![],
            nodes: vec![],
        }
    }

    #[test]
    fn a_cell_is_as_well_as_its_copies() {
        assert_eq!(
            [3, 2, 1].map(|copies| cell(&report(copies)).verdict),
            [Verdict::Ok, Verdict::Warn, Verdict::Warn]
        );
        let few = ClusterReport { copies_min: 2, ..report(1) };
        assert_eq!(cell(&few).verdict, Verdict::Fail);
        let blind = ClusterReport { epoch: 0, waits_for: vec!["b".to_owned()], ..report(0) };
        assert!(cell(&blind).advice.contains('b'));
        let waits = ClusterReport { waits_for: vec!["b".to_owned()], ..report(3) };
        assert!(cell(&waits).advice.contains('b'));
    }

    #[test]
    fn a_node_that_is_not_taken_in_is_a_failure_although_every_door_opens() {
        let alarm = "peer: 10.0.0.1:7413: the secrets differ".to_owned();
        let alone = ClusterReport { alarms: vec![alarm], ..report(3) };
        assert_eq!((peers(&alone).verdict, peers(&report(3)).verdict), (Verdict::Fail, Verdict::Ok));
        let directory = ClusterReport { register: "file:/x".to_owned(), ..report(1) };
        assert!(register(&directory).advice.contains("one node"));
    }

    #[test]
    fn a_register_that_does_not_answer_its_node_is_a_failure() {
        let silent = ClusterReport { register_fault: "refused".to_owned(), ..report(3) };
        assert_eq!(register(&silent).verdict, Verdict::Fail);
        // Nobody listens on port 1.
        assert!(register(&report(3)).advice.contains("127.0.0.1:1"));
    }
}

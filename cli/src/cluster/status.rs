//! `cluster status`: what one node knows of its cell, with what should be looked at last, where it is seen.

use crate::args::Reach;
use crate::failure::Failure;
use crate::print;
use crate::print::duration::human_ms;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Side, Table};
use crate::print::text::printable;
use crate::remote;
use fairlock::admin::{ClusterReport, NodeLine, NodePart};
use serde::Serialize;
use std::fmt::Write;

/// Tells how the cell is.
///
/// # Errors
/// What reaching a node or writing the answer met.
pub(super) fn status(reach: &Reach) -> Result<u8, Failure> {
    let report = remote::admin(reach)?.cluster().map_err(|error| super::of_cell(&error))?;
    if reach.json {
        print::document(&Document::of(&report))?;
    } else {
        print::out(&text(&report, Style::of_stdout()))?;
    }
    Ok(0)
}

/// The cell, for scripts.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    cell: String,
    cell_id: Option<String>,
    epoch: u32,
    reign: u32,
    primary: Option<String>,
    node: String,
    role: &'static str,
    members: Vec<Member>,
    joining: Vec<Member>,
    copies: u16,
    min_copies: u16,
    shards: u16,
    feature_level: u16,
    feature_level_own: u16,
    ttl_horizon_ms: u32,
    recovering_ms: u32,
    state_lost: bool,
    register: Register,
    waits_for: Vec<String>,
    alarms: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Member {
    node: String,
    role: &'static str,
    incarnation: String,
    machine: String,
    peer: String,
    clients: String,
    /// Operations not acknowledged; null: not known to the node that was asked.
    lag: Option<u64>,
    /// Shards that have a stream with it.
    streams: u16,
}

#[derive(Debug, Serialize)]
struct Register {
    place: String,
    answers: bool,
    fault: Option<String>,
}

impl From<&NodeLine> for Member {
    fn from(line: &NodeLine) -> Member {
        Member {
            node: line.node.clone(),
            role: line.part.name(),
            incarnation: format!("{:016x}", line.incarnation),
            machine: line.machine.clone(),
            peer: line.peer.clone(),
            clients: line.clients.clone(),
            lag: line.lag,
            streams: line.streams,
        }
    }
}

/// Whether it is a member.
fn counts(line: &NodeLine) -> bool {
    matches!(line.part, NodePart::Primary | NodePart::Backup)
}

fn told(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Document {
    pub(super) fn of(report: &ClusterReport) -> Document {
        Document {
            cell: report.name.clone(),
            cell_id: (report.cell.0 != 0).then(|| format!("{:032x}", report.cell.0)),
            epoch: report.epoch,
            reign: report.reign,
            primary: told(&report.primary),
            node: report.node.clone(),
            role: report.part.name(),
            members: report.nodes.iter().filter(|line| counts(line)).map(Member::from).collect(),
            joining: report.nodes.iter().filter(|line| !counts(line)).map(Member::from).collect(),
            copies: report.copies,
            min_copies: report.copies_min,
            shards: report.shards,
            feature_level: report.feature_level,
            feature_level_own: report.feature_level_own,
            ttl_horizon_ms: report.ttl_horizon_ms,
            recovering_ms: report.recovering_ms,
            state_lost: report.state_lost,
            register: Register {
                place: report.register.clone(),
                answers: report.register_fault.is_empty(),
                fault: told(&report.register_fault),
            },
            waits_for: report.waits_for.clone(),
            alarms: report.alarms.clone(),
        }
    }
}

fn tone(part: NodePart) -> Tone {
    match part {
        NodePart::Primary => Tone::Good,
        NodePart::Backup => Tone::Plain,
        NodePart::Joining => Tone::Warn,
        NodePart::Halted => Tone::Bad,
    }
}

fn text(report: &ClusterReport, style: Style) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}  {value}", style.paint(Tone::Dim, &format!("{name:<9}")));
    };
    let plain = |text: &str| printable(text.as_bytes());
    if report.epoch == 0 {
        line("cell", format!("{}, of which nothing is known yet", plain(&report.name)));
    } else {
        let id = format!("{:032x}", report.cell.0);
        line("cell", format!("{}, epoch {}, id {id}", plain(&report.name), report.epoch));
        line("primary", format!("{}, since epoch {}", plain(&report.primary), report.reign));
    }
    let part = style.paint(tone(report.part), report.part.name());
    line("asked", format!("{}, {part}", plain(&report.node)));
    let enough = report.copies >= report.copies_min;
    let copies = format!("{}, at least {} to grant", report.copies, report.copies_min);
    line("copies", style.paint(if enough { Tone::Plain } else { Tone::Bad }, &copies));
    let register = match report.register_fault.as_str() {
        "" => format!("{} {}", plain(&report.register), style.paint(Tone::Good, "answers")),
        fault => {
            let fault = style.paint(Tone::Bad, &format!("does not answer: {}", plain(fault)));
            format!("{} {fault}", plain(&report.register))
        }
    };
    line("register", register);
    let level = match (report.feature_level, report.feature_level_own) {
        (cell, own) if cell == own => format!("{cell}"),
        (cell, own) => format!("{cell}, {} knows {own}", plain(&report.node)),
    };
    line("level", level);
    let lease = match report.ttl_horizon_ms {
        0 => "none yet".to_owned(),
        ms => format!("{} at most: so long a cell that lost its memory grants nothing", human_ms(ms.into())),
    };
    line("leases", lease);
    if report.state_lost {
        line(
            "began",
            "anew without what its nodes knew: locks are lost but for those that holders prove".to_owned(),
        );
    }
    if report.recovering_ms > 0 {
        let left = human_ms(report.recovering_ms.into());
        let text = format!("{left} more: nothing is granted until the leases of before are over");
        line("recovers", style.paint(Tone::Warn, &text));
    }
    if !report.waits_for.is_empty() {
        line("waits for", style.paint(Tone::Warn, &plain(&report.waits_for.join(", "))));
    }
    for alarm in &report.alarms {
        line("alarm", style.paint(Tone::Bad, &plain(alarm)));
    }
    if !report.nodes.is_empty() {
        out.push('\n');
        out.push_str(&table(report).render(style));
    }
    out
}

fn table(report: &ClusterReport) -> Table {
    let mut table = Table::new(&[
        ("NODE", Side::Left),
        ("ROLE", Side::Left),
        ("LAG", Side::Right),
        ("CLIENTS", Side::Left),
        ("PEER", Side::Left),
        ("INCARNATION", Side::Left),
        ("MACHINE", Side::Left),
    ]);
    let plain = |text: &str| printable(text.as_bytes());
    for line in &report.nodes {
        let lag = match (line.lag, line.part) {
            (Some(lag), _) => lag.to_string(),
            (None, NodePart::Backup) if report.part == NodePart::Primary => "away".to_owned(),
            (None, _) => "?".to_owned(),
        };
        table.row([
            Cell::toned(plain(&line.node), Tone::Strong),
            Cell::toned(line.part.name(), tone(line.part)),
            lag.into(),
            plain(&line.clients).into(),
            plain(&line.peer).into(),
            format!("{:016x}", line.incarnation).into(),
            plain(&line.machine).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlock::admin::CellId;

    fn line(node: &str, part: NodePart, lag: Option<u64>) -> NodeLine {
        NodeLine {
            node: node.to_owned(),
            part,
            incarnation: 7,
            machine: "4a".to_owned(),
            peer: "h:1".to_owned(),
            clients: "tcp://h:2".to_owned(),
            lag,
            streams: 1,
        }
    }

    fn report() -> ClusterReport {
        ClusterReport {
            name: "prod".to_owned(),
            cell: CellId(5),
            epoch: 9,
            reign: 8,
            primary: "a".to_owned(),
            node: "a".to_owned(),
            part: NodePart::Primary,
            feature_level: 1,
            feature_level_own: 1,
            shards: 1,
            copies: 2,
            copies_min: 1,
            ttl_horizon_ms: 5000,
            recovering_ms: 0,
            state_lost: false,
            register: "etcd://r:1".to_owned(),
            register_fault: String::new(),
            waits_for: vec![],
            alarms: vec![],
            nodes: vec![
                line("a", NodePart::Primary, Some(0)),
                line("b", NodePart::Backup, None),
                line("c", NodePart::Joining, Some(3)),
            ],
        }
    }

    #[test]
    fn the_document_has_the_fields_of_the_contract_and_joiners_apart() {
        let document = serde_json::to_value(Document::of(&report())).expect("a document");
        assert_eq!((&document["cell"], &document["epoch"]), (&"prod".into(), &9.into()));
        assert_eq!((&document["primary"], &document["role"]), (&"a".into(), &"primary".into()));
        assert_eq!(document["members"].as_array().map(Vec::len), Some(2));
        assert_eq!((&document["members"][0]["lag"], &document["members"][1]["lag"]), (&0.into(), &().into()));
        assert_eq!(document["members"][1]["incarnation"], "0000000000000007");
        assert_eq!(
            (&document["joining"][0]["node"], &document["joining"][0]["lag"]),
            (&"c".into(), &3.into())
        );
        assert_eq!(document["register"]["answers"], true);
        assert_eq!((&document["copies"], &document["min_copies"]), (&2.into(), &1.into()));
        assert_eq!(document["alarms"], serde_json::json!([]));
    }

    #[test]
    fn a_person_sees_who_is_away_and_what_is_wrong() {
        let calm = text(&report(), Style::PLAIN);
        assert!(calm.contains("register   etcd://r:1 answers\n") && !calm.contains("alarm"), "{calm}");
        assert!(calm.contains("\nb     backup   away  tcp://h:2"), "{calm}");
        let troubled = ClusterReport {
            register_fault: "refused".to_owned(),
            waits_for: vec!["c".to_owned(), "d".to_owned()],
            alarms: vec!["copies: alone".to_owned()],
            recovering_ms: 1500,
            epoch: 0,
            nodes: vec![],
            ..report()
        };
        let troubled = text(&troubled, Style::PLAIN);
        for words in [
            "nothing is known",
            "does not answer: refused",
            "waits for  c, d",
            "alarm      copies: alone",
            "1.5s more",
        ] {
            assert!(troubled.contains(words), "{words}: {troubled}");
        }
    }
}

//! What can be seen of a cell at one moment: each node asked for itself, and what follows from all of them.

use super::stage::{Node, Stage};
use fairlock::admin::{Admin, ClusterReport, NodePart};
use std::time::Duration;

/// How long one node may take to answer; one that is frozen must not hold the picture up.
const ASK_TIME: Duration = Duration::from_millis(400);

/// How a node looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its process is gone.
    Dead,
    /// It runs, and has not said anything yet.
    Starting,
    /// It runs, and says nothing any more.
    Silent,
    /// It says this of itself.
    Told {
        /// Its part.
        part: NodePart,
        /// The epoch it knows.
        epoch: u32,
    },
}

/// The cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scene {
    /// Each node.
    pub(super) looks: Vec<(&'static str, Look)>,
    /// Who serves, of the highest epoch.
    pub(super) primary: Option<String>,
    /// That epoch, or the highest that is known.
    pub(super) epoch: u32,
    /// Who is a member there.
    pub(super) members: Vec<String>,
    /// What the primary says is wrong, or whoever is asked when there is none.
    pub(super) alarms: Vec<String>,
}

impl Scene {
    /// Looks at every node.
    pub(super) fn of(stage: &mut Stage) -> Scene {
        let seen = stage.nodes.iter_mut().map(|node| {
            let report = ask(node);
            node.was_heard |= report.is_some();
            let silent = if node.was_heard { Look::Silent } else { Look::Starting };
            (node.name, if node.pid().is_some() { silent } else { Look::Dead }, report)
        });
        Scene::from_reports(&seen.collect::<Vec<_>>())
    }

    /// From what each node says, or how it looks when it says nothing.
    fn from_reports(seen: &[(&'static str, Look, Option<ClusterReport>)]) -> Scene {
        let looks = seen.iter().map(|(name, otherwise, report)| {
            let told = report.as_ref().map(|report| Look::Told { part: report.part, epoch: report.epoch });
            (*name, told.unwrap_or_else(|| otherwise.clone()))
        });
        let reports = || seen.iter().filter_map(|(_, _, report)| report.as_ref());
        let primary = reports().filter(|report| report.part == NodePart::Primary);
        let primary = primary.max_by_key(|report| report.epoch);
        let best = primary.or_else(|| reports().max_by_key(|report| report.epoch));
        let counts = |part| matches!(part, NodePart::Primary | NodePart::Backup);
        Scene {
            looks: looks.collect(),
            primary: primary.map(|report| report.node.clone()),
            epoch: best.map_or(0, |report| report.epoch),
            members: best.map_or_else(Vec::new, |report| {
                let members = report.nodes.iter().filter(|node| counts(node.part));
                members.map(|node| node.node.clone()).collect()
            }),
            alarms: best.map_or_else(Vec::new, |report| report.alarms.clone()),
        }
    }
}

fn ask(node: &Node) -> Option<ClusterReport> {
    node.pid()?;
    let mut admin = Admin::connect(node.endpoint().as_str(), ASK_TIME).ok()?;
    admin.cluster().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlock::admin::{CellId, NodeLine};

    fn report(node: &str, part: NodePart, epoch: u32) -> ClusterReport {
        let line = |node: &str, part| NodeLine {
            node: node.to_owned(),
            part,
            incarnation: 1,
            machine: String::new(),
            peer: String::new(),
            clients: String::new(),
            lag: None,
            streams: 0,
        };
        ClusterReport {
            name: "demo".to_owned(),
            cell: CellId(1),
            epoch,
            reign: epoch,
            primary: "a".to_owned(),
            node: node.to_owned(),
            part,
            feature_level: 1,
            feature_level_own: 1,
            shards: 1,
            copies: 2,
            copies_min: 1,
            ttl_horizon_ms: 0,
            recovering_ms: 0,
            state_lost: false,
            register: String::new(),
            register_fault: String::new(),
            waits_for: vec![],
            alarms: vec![format!("{node} says so")],
            nodes: vec![
                line("a", NodePart::Primary),
                line("b", NodePart::Backup),
                line("c", NodePart::Joining),
            ],
        }
    }

    #[test]
    fn of_two_who_call_themselves_primary_the_later_one_is_shown() {
        let frozen = report("a", NodePart::Primary, 7);
        let seen = [
            ("a", Look::Silent, Some(frozen)),
            ("b", Look::Silent, Some(report("b", NodePart::Primary, 8))),
            ("c", Look::Dead, None),
        ];
        let scene = Scene::from_reports(&seen);
        assert_eq!((scene.primary.as_deref(), scene.epoch), (Some("b"), 8));
        assert_eq!(scene.members, ["a", "b"], "a joiner is no member");
        assert_eq!(scene.looks[2], ("c", Look::Dead));
        assert_eq!(scene.alarms, ["b says so"]);
    }

    #[test]
    fn without_a_primary_the_newest_news_count() {
        let seen = [("a", Look::Silent, None), ("b", Look::Silent, Some(report("b", NodePart::Backup, 8)))];
        let scene = Scene::from_reports(&seen);
        assert_eq!((scene.primary, scene.epoch, &scene.looks[0].1), (None, 8, &Look::Silent));
    }
}

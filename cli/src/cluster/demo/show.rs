//! How a demo is shown: a picture that is drawn anew on a terminal, a line for each change elsewhere, JSON lines for
//! scripts.

use super::scene::{Look, Scene};
use super::stage::Stage;
use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::print;
use crate::print::duration::human;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Side, Table};
use serde::Serialize;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Where the picture goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Terminal,
    Lines,
    Json,
}

/// What is shown, and what has been.
pub(super) struct Show {
    way: Way,
    style: Style,
    begun: Instant,
    /// What to type in another terminal.
    hints: String,
    /// Who was primary last, and how often another became it.
    primary: Option<String>,
    changes: u32,
}

#[derive(Serialize)]
struct Started<'a> {
    event: &'static str,
    endpoint: &'a str,
    register: &'a str,
    directory: &'a str,
    nodes: Vec<StartedNode<'a>>,
}

#[derive(Serialize)]
struct StartedNode<'a> {
    node: &'a str,
    pid: Option<u32>,
    clients: String,
}

#[derive(Serialize)]
struct Changed<'a> {
    event: &'static str,
    at_ms: u128,
    epoch: u32,
    primary: Option<&'a str>,
    members: &'a [String],
    nodes: Vec<ChangedNode<'a>>,
    alarms: &'a [String],
}

#[derive(Serialize)]
struct ChangedNode<'a> {
    node: &'a str,
    pid: Option<u32>,
    state: &'static str,
}

#[derive(Serialize)]
struct Ended {
    event: &'static str,
    primaries: u32,
}

impl Show {
    /// Nothing is shown yet.
    pub(super) fn new(json: bool, stage: &Stage) -> Show {
        let way = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Way::Json,
            (false, true) => Way::Terminal,
            (false, false) => Way::Lines,
        };
        Show {
            way,
            style: Style::of_stdout(),
            begun: Instant::now(),
            hints: hints(stage),
            primary: None,
            changes: 0,
        }
    }

    /// The beginning.
    ///
    /// # Errors
    /// stdout takes nothing.
    pub(super) fn begin(&mut self, stage: &Stage, order: &DemoArgs) -> Result<(), Failure> {
        if self.way == Way::Json {
            let nodes = stage.nodes.iter().map(|node| StartedNode {
                node: node.name,
                pid: node.pid(),
                clients: node.endpoint(),
            });
            let directory = stage.directory().display().to_string();
            let (endpoint, register) = (stage.endpoint(), stage.register());
            return print::document(&Started {
                event: "started",
                endpoint: &endpoint,
                register: &register,
                directory: &directory,
                nodes: nodes.collect(),
            });
        }
        let again = match (order.restart, std::io::stdin().is_terminal()) {
            (true, _) => "comes back after 5 seconds",
            (false, true) => "comes back when you press Enter",
            (false, false) => "stays away (--restart brings it back)",
        };
        let _ =
            writeln!(self.hints, "\nA node that was killed {again}. Ctrl-C ends everything and cleans up.");
        if self.way == Way::Lines {
            print::out(&format!("{}\n", self.hints))?;
        }
        Ok(())
    }

    /// What is to be seen now.
    ///
    /// # Errors
    /// stdout takes nothing.
    pub(super) fn update(&mut self, stage: &Stage, scene: &Scene, is_news: bool) -> Result<(), Failure> {
        if scene.primary.is_some() && scene.primary != self.primary {
            self.primary.clone_from(&scene.primary);
            self.changes += 1;
        }
        match self.way {
            Way::Terminal => print::out(&self.picture(stage, scene)),
            Way::Lines if is_news => print::out(&line(self.begun.elapsed(), stage, scene)),
            Way::Json if is_news => print::document(&self.changed(stage, scene)),
            Way::Lines | Way::Json => Ok(()),
        }
    }

    /// The end.
    ///
    /// # Errors
    /// stdout takes nothing.
    pub(super) fn end(&self) -> Result<(), Failure> {
        match self.way {
            Way::Json => print::document(&Ended { event: "ended", primaries: self.changes }),
            Way::Terminal | Way::Lines => print::out("ended; everything is cleaned up\n"),
        }
    }

    fn changed<'a>(&self, stage: &'a Stage, scene: &'a Scene) -> Changed<'a> {
        let nodes = scene.looks.iter().zip(&stage.nodes).map(|((name, look), node)| ChangedNode {
            node: name,
            pid: node.pid(),
            state: word(look),
        });
        Changed {
            event: "cell",
            at_ms: self.begun.elapsed().as_millis(),
            epoch: scene.epoch,
            primary: scene.primary.as_deref(),
            members: &scene.members,
            nodes: nodes.collect(),
            alarms: &scene.alarms,
        }
    }

    /// The whole screen: from its first line on, with what was there before wiped out.
    fn picture(&self, stage: &Stage, scene: &Scene) -> String {
        let style = self.style;
        let mut out = format!("{}\n\n", headline(scene, style));
        let columns = [
            ("NODE", Side::Left),
            ("PID", Side::Right),
            ("STATE", Side::Left),
            ("EPOCH", Side::Right),
            ("CLIENTS", Side::Left),
        ];
        let mut table = Table::new(&columns);
        for ((name, look), node) in scene.looks.iter().zip(&stage.nodes) {
            let epoch = if let Look::Told { epoch, .. } = look { epoch.to_string() } else { String::new() };
            let state = match node.dead_since {
                Some(since) => format!("dead for {}s", since.elapsed().as_secs()),
                None => word(look).to_owned(),
            };
            table.row([
                Cell::toned(*name, Tone::Strong),
                node.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string()).into(),
                Cell::toned(state, tone(look)),
                epoch.into(),
                node.endpoint().into(),
            ]);
        }
        out.push_str(&table.render(style));
        for alarm in &scene.alarms {
            let _ = writeln!(out, "{}", style.paint(Tone::Warn, &format!("alarm: {alarm}")));
        }
        let _ = write!(out, "\n{}", self.hints);
        format!("\x1b[H{}\x1b[J", out.replace('\n', "\x1b[K\n"))
    }
}

fn word(look: &Look) -> &'static str {
    match look {
        Look::Dead => "dead",
        Look::Starting => "starting",
        Look::Silent => "silent",
        Look::Told { part, .. } => part.name(),
    }
}

fn tone(look: &Look) -> Tone {
    use fairlock::admin::NodePart;
    match look {
        Look::Dead | Look::Told { part: NodePart::Halted, .. } => Tone::Bad,
        Look::Starting | Look::Silent | Look::Told { part: NodePart::Joining, .. } => Tone::Warn,
        Look::Told { part: NodePart::Primary, .. } => Tone::Good,
        Look::Told { part: NodePart::Backup, .. } => Tone::Plain,
    }
}

fn headline(scene: &Scene, style: Style) -> String {
    let copies = scene.members.len();
    match &scene.primary {
        Some(primary) => format!(
            "{} serves; {copies} {} of every lock, epoch {}",
            style.paint(Tone::Good, &format!("node {primary}")),
            if copies == 1 { "copy" } else { "copies" },
            scene.epoch
        ),
        None => style.paint(Tone::Warn, "nobody serves at the moment"),
    }
}

/// One change, on one line.
fn line(at: Duration, stage: &Stage, scene: &Scene) -> String {
    let each = scene.looks.iter().zip(&stage.nodes).map(|((name, look), node)| match node.pid() {
        Some(pid) => format!("{name} {} (pid {pid})", word(look)),
        None => format!("{name} {}", word(look)),
    });
    let primary = match &scene.primary {
        Some(primary) => format!("{primary} serves, epoch {}, copies {}", scene.epoch, scene.members.len()),
        None => "nobody serves".to_owned(),
    };
    format!("{:>7}  {primary}: {}\n", human(at), each.collect::<Vec<_>>().join(", "))
}

/// What to type in another terminal, with this very program and endpoint.
fn hints(stage: &Stage) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "fairlock".to_owned());
    let directory = stage.directory().display();
    format!(
        "A cell of {} nodes runs on this machine: one serves, the others have a copy of every lock and take over when it dies.\n\
         In another terminal:\n\n  \
         export FAIRLOCK_ENDPOINT={}\n  \
         {program} run deploy -- sh -c 'while :; do date; sleep 1; done'     a command that runs while it holds a lock\n  \
         {program} cluster status                   who serves, who follows, how far\n  \
         kill -9 PID                             of the node that serves: another takes over, the command goes on\n  \
         {program} show deploy                      still held, by the same session, with the same token\n  \
         {program} cluster switchover               the planned way\n  \
         kill -STOP PID                          a frozen node: the others go on without it; kill -CONT wakes it\n\n\
         Logs: {directory}/*.log. Register: {}.\n",
        stage.nodes.len(),
        stage.endpoint(),
        stage.register(),
    )
}

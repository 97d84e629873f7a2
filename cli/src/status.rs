//! `status`: what the server is, how much it holds, and whether somebody should look at it.

use crate::args::Reach;
use crate::failure::Failure;
use crate::print::duration::human_ms;
use crate::print::style::{Style, Tone};
use crate::print::text::{counted, printable};
use crate::print::{self, json};
use crate::remote;
use fairlock::admin::{Role, StatusReport};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Tells how the server is.
///
/// # Errors
/// What reaching the server or writing the answer met.
pub(crate) fn status(reach: &Reach) -> Result<u8, Failure> {
    let mut admin = remote::admin(reach)?;
    let report = admin.status().map_err(|error| remote::of_admin(&error))?;
    let mut transports = BTreeMap::new();
    // A node that is not the primary has no sessions to tell of.
    if report.role != Role::Backup {
        for session in admin.sessions().map_err(|error| remote::of_admin(&error))? {
            *transports.entry(session.transport.name()).or_default() += 1;
        }
    }
    if reach.json {
        print::document(&json::Status::of(&report, transports))?;
    } else {
        print::out(&text(&report, &transports, Style::of_stdout()))?;
    }
    Ok(0)
}

fn text(report: &StatusReport, transports: &BTreeMap<&'static str, u64>, style: Style) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}  {value}", style.paint(Tone::Dim, &format!("{name:<11}")));
    };
    let version = printable(report.version.as_bytes());
    line("server", format!("fairlock {version}, {}, pid {}", report.role.name(), report.pid));
    line("up", human_ms(report.uptime_ms));
    line("cell", format!("{:032x}, epoch {}", report.cell.0, report.epoch));
    line("shards", format!("{}, driven by {}", report.shards, printable(report.io.as_bytes())));
    line("locks", format!("{} in use, {} held", report.locks, report.grants));
    let tone = if report.waiters > 0 { Tone::Warn } else { Tone::Plain };
    line("waiting", style.paint(tone, &counted(report.waiters, "request")));
    let connections = counted(report.connections, "connection");
    let ways: Vec<String> = transports.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let ways = if ways.is_empty() { String::new() } else { format!(" ({})", ways.join(", ")) };
    line("sessions", format!("{}{ways}, {connections}", report.sessions));
    line("granted", format!("{} since the start", report.grants_total));
    let (tone, verdict) = if report.overtakes_total == 0 {
        (Tone::Good, "0: nobody was ever served before one who came earlier, against the rules".to_owned())
    } else {
        (Tone::Bad, format!("{}: this must be 0; please report it", report.overtakes_total))
    };
    line("overtakes", style.paint(tone, &verdict));
    if report.bypasses_total > 0 {
        line("bypasses", format!("{}, as disciplines of namespaces allow", report.bypasses_total));
    }
    line("memory", format!("{} KiB in the lock table", report.table_bytes.div_ceil(1024)));
    if report.recovering_ms > 0 {
        let left = human_ms(report.recovering_ms.into());
        let why =
            format!("{left} more: the memory was lost, old leases may still be alive, nothing is granted");
        line("recovering", style.paint(Tone::Warn, &why));
    }
    for alarm in &report.alarms {
        line("alarm", style.paint(Tone::Bad, &printable(alarm.as_bytes())));
    }
    out
}

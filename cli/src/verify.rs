//! `verify`: judges what clients saw, from the histories they wrote. No server is asked.

use crate::args::{Reach, VerifyArgs};
use crate::failure::{BROKEN_PROMISE, Failure, UNREADABLE};
use crate::print::progress::Progress;
use crate::print::style::{Style, Tone};
use crate::print::text::{counted, printable};
use crate::print::{self, json};
use fairlock_cli::history::{self, Counts, Place, ReadError, Report, Rule, Violation};
use std::fmt::Write;
use std::path::PathBuf;

/// Violations that are shown; of the others only the number.
const SHOWN_MAX: usize = 20;
const MIB: u64 = 1 << 20;

/// Reads the histories as one, and judges.
///
/// # Errors
/// A file or a line that cannot be read.
pub(crate) fn verify(order: &VerifyArgs, reach: &Reach) -> Result<u8, Failure> {
    let files = &order.histories;
    let progress = Progress::new();
    let story = history::read(files, |bytes| progress.show(&format!("{} MiB read", bytes / MIB)))
        .map_err(|error| unreadable(&error))?;
    progress.show("judging");
    let report = story.judge();
    drop(progress);
    if reach.json {
        print::document(&json::Judgement::new(&report, files, SHOWN_MAX))?;
    } else {
        print::out(&text(&report, files, Style::of_stdout()))?;
    }
    Ok(if report.is_clean() { 0 } else { BROKEN_PROMISE })
}

fn unreadable(error: &ReadError) -> Failure {
    let advice = match error {
        ReadError::Line { .. } => {
            "docs/histories.md says what a line has to be; only a last one may be cut short"
        }
        _ => "name files of events, one JSON object a line",
    };
    Failure::new(UNREADABLE, crate::remote::with_sources(error)).advise(advice)
}

fn text(report: &Report, files: &[PathBuf], style: Style) -> String {
    let mut out = String::new();
    for violation in report.violations.iter().take(SHOWN_MAX) {
        out.push_str(&paragraph(violation, files, style));
    }
    let shown = report.violations.len().min(SHOWN_MAX) as u64;
    // Writing to a String cannot fail.
    if report.total() > shown {
        let _ = writeln!(out, "and {} more\n", report.total() - shown);
    }
    out.push_str(&summary(&report.counts, files.len() as u64));
    out.push_str(&verdict(report, style));
    out
}

/// One violation: the rule, the lock, what is wrong, and where it stands.
fn paragraph(violation: &Violation, files: &[PathBuf], style: Style) -> String {
    let mut out = style.paint(Tone::Bad, violation.rule.name());
    if !violation.name.is_empty() {
        let name = style.paint(Tone::Strong, &printable(&violation.name));
        let _ = write!(out, "  {name}");
        if violation.namespace != "default" {
            let _ = write!(out, " in {}", violation.namespace);
        }
    }
    let _ = writeln!(out, "\n  {}", violation.text);
    for Place { file, line } in &violation.places {
        let path = files.get(*file as usize).map(|path| path.display().to_string()).unwrap_or_default();
        let _ = writeln!(out, "  {}", style.paint(Tone::Dim, &format!("{path}:{line}")));
    }
    out.push('\n');
    out
}

fn summary(counts: &Counts, files: u64) -> String {
    let mut out = format!(
        "{} in {}: {} ({} killed), {}, {} of {}\n",
        counted(counts.lines, "event"),
        counted(files, "file"),
        counted(counts.clients, "client"),
        counts.killed,
        counted(counts.requests, "request"),
        counted(counts.tenures, "tenure"),
        counted(counts.resources, "lock"),
    );
    let _ = writeln!(
        out,
        "{} granted, {} refused, {} in doubt; {} for some time",
        counts.granted,
        counts.refused,
        counts.in_doubt,
        counted(counts.certain_holds, "certain hold"),
    );
    if counts.cut > 0 {
        let _ =
            writeln!(out, "{} left out: cut short when the writer ended", counted(counts.cut, "last line"));
    }
    if counts.other > 0 {
        let _ = writeln!(out, "{} of a kind this version does not know", counted(counts.other, "event"));
    }
    out
}

fn verdict(report: &Report, style: Style) -> String {
    if report.is_clean() {
        return format!("{}\n", style.paint(Tone::Good, "clean: no promise was broken"));
    }
    let broken = Rule::ALL.into_iter().filter(|&rule| report.broken(rule) > 0);
    let parts: Vec<String> = broken.map(|rule| format!("{} {rule}", report.broken(rule))).collect();
    let mut line = format!("{}: {}", counted(report.total(), "violation"), parts.join(", "));
    if report.counts.overtaken_pairs > 0 {
        let _ =
            write!(line, " ({} served in the wrong order)", counted(report.counts.overtaken_pairs, "pair"));
    }
    format!("{}\n", style.paint(Tone::Bad, &line))
}

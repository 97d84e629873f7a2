//! `doctor`: everything about this system that decides how well a lock server or its clients do here, one line each,
//! with what to do. It changes nothing and never fails for what it finds; its exit code says whether something is
//! wrong.

mod cell;
mod checks;

use crate::args::{DoctorArgs, Reach};
use crate::failure::{self, Failure};
use crate::print;
use crate::print::style::{Style, Tone};
use serde::Serialize;
use std::fmt::Write;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty when there is nothing to do.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

/// Examines everything; 0 when nothing fails, 69 when only the server is missing, else 70.
///
/// # Errors
/// 64 for an endpoint that is none, and what writing the answer met.
pub(crate) fn doctor(order: &DoctorArgs, reach: &Reach) -> Result<u8, Failure> {
    let findings = checks::all(order, reach)?;
    if reach.json {
        print::document(&findings)?;
    } else {
        print::out(&text(&findings, Style::of_stdout()))?;
    }
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .map(|finding| finding.check)
        .collect();
    Ok(match failed.as_slice() {
        [] => 0,
        [checks::SERVER] => failure::NO_SERVER,
        _ => failure::INTERNAL,
    })
}

fn text(findings: &[Finding], style: Style) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding { check, verdict, found, advice } in findings {
        let mark = match verdict {
            Verdict::Ok => style.paint(Tone::Good, "ok  "),
            Verdict::Warn => style.paint(Tone::Warn, "warn"),
            Verdict::Fail => style.paint(Tone::Bad, "fail"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{mark}  {check:<width$}  {found}");
        if !advice.is_empty() {
            let _ =
                writeln!(out, "      {:<width$}  {}", "", style.paint(Tone::Strong, &format!("→ {advice}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_not_ok_says_what_to_do() {
        let findings = [
            Finding::ok("clock", "1ns"),
            Finding::warn("memlock", "64 KiB", "raise it"),
            Finding::fail("server", "none", "start one"),
        ];
        let text = text(&findings, Style::PLAIN);
        assert_eq!(
            text,
            "ok    clock    1ns\nwarn  memlock  64 KiB\n               → raise it\nfail  server   none\n               → start one\n"
        );
    }
}

//! The judgement of what the clients of a test wrote: the same that `fairlock verify` gives.

use fairlock_cli::history::{self, Event, Report, What};
use std::path::PathBuf;

/// Judges these files as one history.
///
/// # Panics
/// When one cannot be read.
pub fn judge(files: &[PathBuf]) -> Report {
    let story = history::read(files, |_| {}).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    story.judge()
}

/// Judges these files, in which nothing is to be wrong.
///
/// # Panics
/// When a promise was broken: with the first violation and its lines.
pub fn judge_clean(files: &[PathBuf], context: &str) -> Report {
    let report = judge(files);
    if let Some(first) = report.violations.first() {
        let line = |place: &history::Place| {
            let text = std::fs::read_to_string(&files[place.file as usize]).unwrap_or_default();
            text.lines().nth(place.line as usize - 1).unwrap_or_default().to_owned()
        };
        let lines: Vec<String> = first.places.iter().map(line).collect();
        panic!("{context}: {} violations, first {first:#?}\n{}", report.total(), lines.join("\n"));
    }
    report
}

/// The tokens that were granted.
///
/// # Panics
/// When a file cannot be read.
pub fn tokens(files: &[PathBuf]) -> Vec<u64> {
    let mut tokens = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("a history that was judged can be read");
        for line in text.lines() {
            if let Ok(Event { what: What::Granted { token, .. }, .. }) = Event::parse(line.as_bytes()) {
                tokens.extend(token);
            }
        }
    }
    tokens
}

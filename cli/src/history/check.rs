//! The rules, lock by lock. Everything is a sort and a walk, O(n log n): the token reveals the order in which grants were
//! made, and the clock the order in which they were seen.

mod exclusion;
mod fence;
mod order;
mod reach;

use super::span::Span;
use super::story::Story;
use std::mem;

/// Judges every lock of the story.
pub(super) fn all(story: &mut Story) {
    let mut spans = mem::take(&mut story.spans);
    spans.sort_unstable_by_key(|span| (span.resource, span.from_ns, span.certain_end()));
    for of_lock in spans.chunk_by(|one, other| one.resource == other.resource) {
        exclusion::check(story, of_lock);
        let tenures = tenures(of_lock);
        story.counts().tenures += tenures.len() as u64;
        order::check(story, of_lock, &tenures);
        fence::check(story, of_lock, &tenures);
    }
    story.spans = spans;
}

/// Everything under one token, in the order of tokens.
struct Tenure<'a> {
    token: u64,
    /// By the moment at which they began; never empty. The first is the one for which the token was issued: whoever
    /// enters again has heard of it.
    spans: Vec<&'a Span>,
}

impl<'a> Tenure<'a> {
    fn first(&self) -> &'a Span {
        self.spans[0]
    }

    /// No earlier was it asked for.
    fn asked_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.asked_ns).min().unwrap_or(u64::MAX)
    }
}

/// The tenures among spans that are sorted by the moment at which they began.
fn tenures(spans: &[Span]) -> Vec<Tenure<'_>> {
    let mut by_token: Vec<&Span> = spans.iter().filter(|span| span.token != 0).collect();
    by_token.sort_by_key(|span| span.token);
    let one = |spans: &[&'_ Span]| -> u64 { spans[0].token };
    let groups = by_token.chunk_by(|one, other| one.token == other.token);
    groups.map(|spans| Tenure { token: one(spans), spans: spans.to_vec() }).collect()
}

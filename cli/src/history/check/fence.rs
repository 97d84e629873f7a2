//! Token and fence order tenures at a resource that keeps h: it accepts a token above h, and h becomes at least the fence.
//! After a tenure was accepted no older writer is, and no reader who still holds is refused.

use super::Tenure;
use crate::history::report::Rule;
use crate::history::span::Span;
use crate::history::story::Story;
use fairlock_protocol::Mode;

/// What a tenure is to a fenced resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Writer,
    Reader,
    /// CR and CW are not fenced.
    None,
}

/// A tenure that became a reader was followed by readers of its own run: it is one of them.
fn part(tenure: &Tenure<'_>) -> Part {
    let has = |mode| tenure.spans.iter().any(|span| span.mode == mode);
    if has(Mode::PR) {
        Part::Reader
    } else if has(Mode::PW) || has(Mode::EX) {
        Part::Writer
    } else {
        Part::None
    }
}

/// Judges the tenures of one lock, in the order of tokens.
pub(super) fn check(story: &mut Story, spans: &[Span], tenures: &[Tenure<'_>]) {
    let Some(resource) = spans.first().map(|span| span.resource) else { return };
    let mut writer: Option<&Span> = None;
    // Of the readers up to each tenure: the one that certainly held longest.
    let mut longest: Vec<Option<(u64, &Span)>> = Vec::with_capacity(tenures.len());
    for (at, tenure) in tenures.iter().enumerate() {
        let (first, part) = (tenure.first(), part(tenure));
        if let Some(fence) = first.fence.filter(|_| part != Part::None) {
            let mut wrong = |text: String, other: Option<&Span>| {
                let places = other.map(|other| other.place).into_iter().chain([first.place]).collect();
                story.violation(Rule::Fence, resource, text, places);
            };
            if fence >= tenure.token || part == Part::Writer && fence != tenure.token - 1 {
                wrong(format!("fence {fence} of {} with token {}", first.mode, tenure.token), None);
            }
            if let Some(writer) = writer.filter(|writer| fence < writer.token) {
                let text = format!(
                    "fence {fence} of token {} lets the older writer {} in",
                    tenure.token, writer.token
                );
                wrong(text, Some(writer));
            }
            let below = tenures[..at].partition_point(|lower| lower.token <= fence);
            let reader = below.checked_sub(1).and_then(|last| longest[last]);
            if let Some((_, reader)) = reader.filter(|&(end_ns, _)| first.from_ns < end_ns) {
                let text = format!(
                    "fence {fence} of token {} shuts reader {} out, who still holds",
                    tenure.token, reader.token
                );
                wrong(text, Some(reader));
            }
        }
        if part == Part::Writer {
            writer = Some(first);
        }
        longest.push(longer(longest.last().copied().flatten(), tenure));
    }
}

/// The longest certain hold of a reader, with those of this tenure.
fn longer<'a>(before: Option<(u64, &'a Span)>, tenure: &Tenure<'a>) -> Option<(u64, &'a Span)> {
    let readers = tenure.spans.iter().filter(|span| span.mode == Mode::PR);
    let ends = readers.filter_map(|span| Some((span.certain_end()?, *span)));
    ends.chain(before).max_by_key(|(end_ns, _)| *end_ns)
}

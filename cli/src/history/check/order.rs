//! Tokens are unique and rise in the order of time; and in a strict namespace in the order of the queue.
//!
//! Whoever had a grant before another even asked was granted first. Whoever certainly stood in the queue before another
//! asked must be served first, too: it stood there no later than `granted − waited`, or when its place was shown. Only
//! those who came through the end of the queue are compared: no conversions, and no entries into a grant one has already.
//! Who gave up waiting is not compared either: nobody outside knows until when he stood there.

use super::Tenure;
use super::reach::Reach;
use crate::history::report::Rule;
use crate::history::span::Span;
use crate::history::story::Story;

/// Judges the tenures of one lock, in the order of tokens.
pub(super) fn check(story: &mut Story, spans: &[Span], tenures: &[Tenure<'_>]) {
    let Some(first) = spans.first() else { return };
    for tenure in tenures {
        is_of_one_client(story, tenure);
    }
    incompatible_ones_follow_each_other(story, tenures);
    let strict = story.is_strict(first.resource);
    who_asks_later_is_granted_later(story, tenures, strict);
    if strict {
        story.counts().overtaken_pairs += inversions(tenures);
    }
}

fn is_of_one_client(story: &mut Story, tenure: &Tenure<'_>) {
    let first = tenure.first();
    if tenure.token > i64::MAX.unsigned_abs() {
        let text = format!("token {} has more than 63 bits", tenure.token);
        story.violation(Rule::Token, first.resource, text, vec![first.place]);
    }
    if let Some(other) = tenure.spans.iter().find(|span| span.client != first.client) {
        let text = format!("token {} was given to two clients", tenure.token);
        story.violation(Rule::Token, first.resource, text, vec![first.place, other.place]);
    }
}

/// Of two holds that exclude each other the one with the higher token was later.
fn incompatible_ones_follow_each_other(story: &mut Story, tenures: &[Tenure<'_>]) {
    // How late the holds of lower tokens began, at the latest.
    let mut begun = Reach::default();
    for tenure in tenures {
        for span in &tenure.spans {
            let Some(end_ns) = span.certain_end() else { continue };
            // Who asked only after this one was granted is found by the other rule.
            let is_late =
                |&(from_ns, lower): &(u64, &Span)| end_ns < from_ns && lower.asked_ns <= span.from_ns;
            if let Some((from_ns, lower)) = begun.against(span).filter(is_late) {
                let text = format!(
                    "token {} was held until {end_ns}, the lower {} only from {from_ns} on",
                    span.token, lower.token
                );
                story.violation(Rule::Order, span.resource, text, vec![span.place, lower.place]);
            }
        }
        for span in tenure.spans.iter().filter(|span| span.certain_end().is_some()) {
            begun.add(span.from_ns, span);
        }
    }
}

/// The earlier of two by a figure of theirs.
fn earlier<'a>(one: Option<(u64, &'a Span)>, other: (u64, &'a Span)) -> (u64, &'a Span) {
    one.filter(|one| one.0 <= other.0).unwrap_or(other)
}

fn who_asks_later_is_granted_later(story: &mut Story, tenures: &[Tenure<'_>], strict: bool) {
    // Of those with higher tokens: who was granted first, who stood in the queue first.
    let (mut granted, mut queued) = (None, None);
    for tenure in tenures.iter().rev() {
        let (first, asked_ns) = (tenure.first(), tenure.asked_ns());
        if let Some((at_ns, higher)) = granted.filter(|&(at_ns, _): &(u64, &Span)| at_ns < asked_ns) {
            let text = format!(
                "token {} was asked for at {asked_ns}, after the higher {} was granted at {at_ns}",
                first.token, higher.token
            );
            story.violation(Rule::Order, first.resource, text, vec![higher.place, first.place]);
        } else if let Some((at_ns, higher)) = queued.filter(|&(at_ns, _): &(u64, &Span)| at_ns < asked_ns)
            && first.queued_ns.is_some()
        {
            let text = format!(
                "token {} was asked for at {asked_ns} and overtook one that was queued by {at_ns} and got {}",
                first.token, higher.token
            );
            story.violation(Rule::Fifo, first.resource, text, vec![higher.place, first.place]);
        }
        granted = Some(earlier(granted, (first.from_ns, first)));
        if let Some(queued_ns) = first.queued_ns.filter(|_| strict) {
            queued = Some(earlier(queued, (queued_ns, first)));
        }
    }
}

/// How many pairs there are of which the later one was served first, counted with a tree of sums.
fn inversions(tenures: &[Tenure<'_>]) -> u64 {
    let mut places: Vec<u64> = tenures.iter().filter_map(|tenure| tenure.first().queued_ns).collect();
    places.sort_unstable();
    let mut sums = vec![0_u64; places.len() + 1];
    let mut pairs = 0;
    for tenure in tenures.iter().rev() {
        let Some(queued_ns) = tenure.first().queued_ns else { continue };
        let asked_ns = tenure.asked_ns();
        let mut before = places.partition_point(|&place| place < asked_ns);
        while before > 0 {
            pairs += sums[before];
            before &= before - 1;
        }
        let mut own = places.partition_point(|&place| place < queued_ns) + 1;
        while own < sums.len() {
            sums[own] += 1;
            own += own & own.wrapping_neg();
        }
    }
    pairs
}

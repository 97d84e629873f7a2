//! Incompatible holds that were certain never overlap; and nobody is let in while the lease of a holder runs who only fell
//! silent. Tokens are not looked at.

use super::reach::Reach;
use crate::history::report::Rule;
use crate::history::span::Span;
use crate::history::story::Story;

/// Judges the spans of one lock, sorted by the moment at which they began.
pub(super) fn check(story: &mut Story, spans: &[Span]) {
    let (mut certain, mut reserved) = (Reach::default(), Reach::default());
    for span in spans {
        let Some(end_ns) = span.certain_end() else { continue };
        if let Some((until_ns, other)) =
            certain.against(span).filter(|&(until_ns, _)| span.from_ns < until_ns)
        {
            let text = format!(
                "{} granted at {} while {} was certainly held until {until_ns}",
                span.mode, span.from_ns, other.mode
            );
            story.violation(Rule::Exclusion, span.resource, text, vec![other.place, span.place]);
        } else if let Some((until_ns, other)) =
            reserved.against(span).filter(|&(until_ns, _)| span.from_ns < until_ns)
        {
            let text = format!(
                "{} granted at {} while the lease of a silent holder of {} ran until {until_ns}",
                span.mode, span.from_ns, other.mode
            );
            story.violation(Rule::Lease, span.resource, text, vec![other.place, span.place]);
        }
        certain.add(end_ns, span);
        if let Some(until_ns) = story.reserved_end(span) {
            reserved.add(until_ns, span);
        }
    }
}

//! `why`: a queue explained. Who holds, who waits for whom, and, of those that could stand beside every holder, why
//! they wait all the same: the queue is strict FIFO, and an earlier one is in front (or one of a higher class, where the
//! namespace goes by classes).
//!
//! The reasons are computed from the mode table and the order alone, as the server does it.

use crate::args::{NameArgs, Reach};
use crate::failure::Failure;
use crate::print::duration::human_ms;
use crate::print::style::{Style, Tone};
use crate::print::text::printable;
use crate::print::{self, json};
use crate::remote;
use crate::show::{ask, called, is_free, obstacles};
use fairlock::admin::{Show, ShowLine};
use fairlock::{Discipline, Mode};
use std::cmp::Reverse;
use std::fmt::Write;

/// Explains one lock.
///
/// # Errors
/// What reaching the server or writing the answer met.
pub(crate) fn why(order: &NameArgs, reach: &Reach) -> Result<u8, Failure> {
    let name = remote::name(&order.namespace, &order.name)?;
    let show = ask(order, reach, name)?;
    if reach.json {
        print::document(&json::Queue::new(&order.namespace, name, &show))?;
    } else {
        let obstacles = if is_free(&show) { obstacles(reach) } else { String::new() };
        print::out(&format!("{}{obstacles}", explain(name, &show, Style::of_stdout())))?;
    }
    Ok(0)
}

/// Why one that waits does not hold yet. Indices are those of the lists in [`Show`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// Its mode does not go together with what these holders hold.
    Holders(Vec<usize>),
    /// These conversions are served before it.
    Conversions(Vec<usize>),
    /// Its mode does not go together with what these earlier waiters ask for.
    Waiters(Vec<usize>),
    /// It could stand beside everybody; the one before it cannot, and nobody passes anybody.
    Order,
    /// Nothing stands in its way any more: the answer is a moment old.
    Nothing,
}

/// Why the waiter at `index` waits.
fn reason(show: &Show, index: usize) -> Reason {
    let Some(asked) = show.waiters.get(index).map(|line| line.mode) else { return Reason::Nothing };
    let holders = conflicting(&show.holders, asked);
    if !holders.is_empty() {
        return Reason::Holders(holders);
    }
    if !show.conversions.is_empty() {
        return Reason::Conversions((0..show.conversions.len()).collect());
    }
    let earlier = conflicting(show.waiters.get(..index).unwrap_or_default(), asked);
    match (earlier.is_empty(), index) {
        (false, _) => Reason::Waiters(earlier),
        (true, 0) => Reason::Nothing,
        (true, _) => Reason::Order,
    }
}

/// Why the conversion at `index` waits.
fn conversion_reason(show: &Show, index: usize) -> Reason {
    let Some(line) = show.conversions.get(index) else { return Reason::Nothing };
    let own = |other: &ShowLine| (other.session, other.owner) == (line.session, line.owner);
    let others = show.holders.iter().enumerate().filter(|(_, other)| !own(other));
    let holders: Vec<usize> =
        others.filter(|(_, other)| !other.mode.compatible(line.mode)).map(|(at, _)| at).collect();
    match (holders.is_empty(), index) {
        (false, _) => Reason::Holders(holders),
        (true, 0) => Reason::Nothing,
        (true, _) => Reason::Conversions((0..index).collect()),
    }
}

fn conflicting(lines: &[ShowLine], asked: Mode) -> Vec<usize> {
    lines.iter().enumerate().filter(|(_, line)| !line.mode.compatible(asked)).map(|(at, _)| at).collect()
}

/// Most entries named in one sentence; the rest is counted.
const NAMED_MAX: usize = 3;

/// The whole explanation.
fn explain(name: &[u8], show: &Show, style: Style) -> String {
    let show = &in_order_of_service(show);
    let name = style.paint(Tone::Strong, &printable(name));
    if is_free(show) {
        return format!("{name} is free: nobody holds it, nobody waits.\n");
    }
    let mut out = format!("{name} is {}.\n\n", summary(show));
    for line in &show.holders {
        let kept = if line.cached { "  kept by its client for later; given back on demand" } else { "" };
        entry(
            &mut out,
            &style.paint(Tone::Good, "holds"),
            &format!("{:<2}   ", line.mode),
            line,
            kept,
            style,
        );
    }
    for (index, line) in show.conversions.iter().enumerate() {
        let modes = format!("{}→{}", line.from.map_or("?", Mode::name), line.mode);
        let because = sentence(show, &conversion_reason(show, index), line.mode, index);
        entry(&mut out, &style.paint(Tone::Warn, &format!("c{:<4}", index + 1)), &modes, line, "", style);
        let _ = writeln!(out, "         {}", style.paint(Tone::Dim, &because));
    }
    if !show.waiters.is_empty() {
        let _ = writeln!(out, "  {}", style.paint(Tone::Dim, &rule(show)));
    }
    for (index, line) in show.waiters.iter().enumerate() {
        let because = sentence(show, &reason(show, index), line.mode, index);
        let place = style.paint(Tone::Warn, &format!("#{:<4}", index + 1));
        entry(&mut out, &place, &format!("{:<2}   ", line.mode), line, &standing(line), style);
        let _ = writeln!(out, "         {}", style.paint(Tone::Dim, &because));
    }
    if show.overtakes_total > 0 {
        let alarm = format!("{} overtakes were counted here: this must be 0", show.overtakes_total);
        let _ = writeln!(out, "\n{}", style.paint(Tone::Bad, &alarm));
    }
    out
}

/// The waiters in the order in which they would be served now, where that is not the order of arrival. (That somebody was
/// passed as often as may be is not known here; he is first then.)
fn in_order_of_service(show: &Show) -> Show {
    let mut show = show.clone();
    if show.discipline() == Discipline::Priority {
        show.waiters.sort_by_key(|line| (Reverse(line.class), line.position));
    }
    show
}

/// What everybody below may rely on.
fn rule(show: &Show) -> String {
    let passed = show.waiters.iter().map(|line| line.passed).max().unwrap_or(0);
    match show.discipline() {
        Discipline::Strict => "── nobody passes anybody below this line; served from the top ──".to_owned(),
        Discipline::Phase => {
            format!(
                "── served from the top; readers may join readers who hold: {passed} passed the oldest ──"
            )
        }
        Discipline::Priority => {
            format!("── served by class, which rises with age: the oldest was passed {passed} times ──")
        }
    }
}

/// The class of one that waits, where that counts.
fn standing(line: &ShowLine) -> String {
    match line.discipline {
        Discipline::Strict | Discipline::Phase => String::new(),
        Discipline::Priority if line.class == line.priority => format!("  class {}", line.class),
        Discipline::Priority => format!("  class {} (asked for {})", line.class, line.priority),
    }
}

fn summary(show: &Show) -> String {
    let held = match show.holders.as_slice() {
        [] => "held by nobody".to_owned(),
        [one] => format!("held {} by pid {} for {}", meaning(one.mode), one.pid, human_ms(one.age_ms)),
        many => format!("held by {} processes", many.len()),
    };
    let converting = match show.conversions.len() {
        0 => String::new(),
        1 => ", 1 holder waits for a stronger mode".to_owned(),
        many => format!(", {many} holders wait for a stronger mode"),
    };
    match show.waiters.as_slice() {
        [] => format!("{held}{converting}; nobody waits"),
        waiters @ [_, rest @ ..] => {
            let verb = if rest.is_empty() { "waits" } else { "wait" };
            let oldest = human_ms(waiters.iter().map(|line| line.age_ms).max().unwrap_or(0));
            format!("{held}{converting}; {} {verb}, the first for {oldest}", waiters.len())
        }
    }
}

fn meaning(mode: Mode) -> &'static str {
    match mode {
        Mode::EX => "exclusively",
        Mode::PW => "for update",
        Mode::PR => "shared",
        Mode::CW => "for concurrent writing",
        Mode::CR => "for concurrent reading",
        Mode::NL => "in mode NL, which keeps nobody out,",
    }
}

fn entry(out: &mut String, state: &str, modes: &str, line: &ShowLine, note: &str, style: Style) {
    let age = human_ms(line.age_ms);
    let who = format!("pid {} on {}", line.pid, printable(line.host.as_bytes()));
    let label = style.paint(Tone::Strong, &called(line));
    let session = style.paint(Tone::Dim, &format!("session {}", line.session));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  {state}  {modes}  {age:>6}  {who}  {label}  {session}{note}");
}

/// One reason, as a sentence.
fn sentence(show: &Show, reason: &Reason, asked: Mode, index: usize) -> String {
    match reason {
        Reason::Holders(at) => {
            let held: Vec<Mode> =
                at.iter().filter_map(|&at| show.holders.get(at)).map(|line| line.mode).collect();
            let who = named(at, |at| show.holders.get(at).map(|line| format!("pid {}", line.pid)));
            format!("{asked} cannot stand beside {}, held by {who}", modes(&held))
        }
        Reason::Conversions(at) => {
            let who = named(at, |at| Some(format!("c{}", at + 1)));
            format!("behind {who}: those who hold already and ask for more are served first")
        }
        Reason::Waiters(at) => {
            let who = named(at, |at| Some(format!("#{}", at + 1)));
            let before = match show.discipline() {
                Discipline::Strict | Discipline::Phase => "came earlier",
                Discipline::Priority => "is served earlier",
            };
            format!("could stand beside the holders, but {who} {before} and cannot stand beside {asked}")
        }
        Reason::Order => {
            format!("compatible with all before it; enters with or after #{index}, or #{index} might starve")
        }
        Reason::Nothing => "nothing is in its way any more; ask again".to_owned(),
    }
}

/// `A`, `A and B`, `A, B, C and 4 more`.
fn named(at: &[usize], name: impl Fn(usize) -> Option<String>) -> String {
    let mut names: Vec<String> = at.iter().take(NAMED_MAX).filter_map(|&at| name(at)).collect();
    if at.len() > NAMED_MAX {
        names.push(format!("{} more", at.len() - NAMED_MAX));
    }
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "somebody".to_owned(),
    }
}

fn modes(held: &[Mode]) -> String {
    let each = Mode::ALL.into_iter().rev().filter(|mode| held.contains(mode));
    each.map(Mode::name).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
#[path = "why/tests.rs"]
mod tests;

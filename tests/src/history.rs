//! What clients write down about their holds, and whether it can be true of a fair lock.
//!
//! A hold is *certain* from the moment the grant was received to the last moment at which the holder still found its
//! guard valid; outside of that nobody can say. Certain holds must not overlap, must bear rising tokens in the order of
//! time, and whoever was certainly in the queue before another asked must have the lower token.

use std::fmt::Write as _;

/// One client's hold on an exclusive lock; times are CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which lock.
    pub name: String,
    /// Fencing token.
    pub token: u64,
    /// When the client was about to ask.
    pub asked_ns: u64,
    /// How long the server says it waited, never over-stated.
    pub waited_ns: u64,
    /// When the grant had been received.
    pub from_ns: u64,
    /// When the guard was last found valid.
    pub until_ns: u64,
}

impl Hold {
    /// One line of a log.
    pub fn line(&self) -> String {
        let Hold { name, token, asked_ns, waited_ns, from_ns, until_ns } = self;
        format!("{name} {token} {asked_ns} {waited_ns} {from_ns} {until_ns}\n")
    }

    /// A hold from its line; `None` for a line that was cut short.
    pub fn parse(line: &str) -> Option<Hold> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<u64>().ok();
        let hold = Hold {
            name,
            token: number()?,
            asked_ns: number()?,
            waited_ns: number()?,
            from_ns: number()?,
            until_ns: number()?,
        };
        words.next().is_none().then_some(hold)
    }

    /// The latest moment at which it can have joined the queue.
    fn queued_by_ns(&self) -> u64 {
        self.from_ns.saturating_sub(self.waited_ns)
    }
}

/// Reads a log of whole lines; a last line without its end is left out.
pub fn read(log: &str) -> Vec<Hold> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().filter_map(Hold::parse).collect()
}

/// Everything about these holds that cannot be true of a fair exclusive lock.
pub fn contradictions(holds: &[Hold]) -> Vec<String> {
    let mut found = Vec::new();
    let mut names: Vec<&str> = holds.iter().map(|hold| hold.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut of_name: Vec<&Hold> = holds.iter().filter(|hold| hold.name == name).collect();
        of_name.sort_by_key(|hold| hold.token);
        for pair in of_name.windows(2) {
            let (earlier, later) = (pair[0], pair[1]);
            if earlier.token == later.token {
                found.push(remark("one token, two tenures", earlier, later));
            }
            if later.from_ns <= earlier.until_ns {
                found.push(remark("held by two at once, or tokens against time", earlier, later));
            }
        }
        // `earliest_queued` looks back from the highest token: nobody with a higher token may have been certainly
        // queued before one with a lower token had even asked.
        let mut earliest_queued: Option<&Hold> = None;
        for hold in of_name.iter().rev() {
            if let Some(other) = earliest_queued
                && other.queued_by_ns() < hold.asked_ns
            {
                found.push(remark("overtaken", other, hold));
            }
            if earliest_queued.is_none_or(|other| hold.queued_by_ns() < other.queued_by_ns()) {
                earliest_queued = Some(hold);
            }
        }
    }
    found
}

fn remark(what: &str, one: &Hold, other: &Hold) -> String {
    let mut text = String::from(what);
    let _ = write!(text, ": {} / {}", one.line().trim_end(), other.line().trim_end());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(token: u64, asked_ns: u64, waited_ns: u64, from_ns: u64, until_ns: u64) -> Hold {
        Hold { name: "x".to_owned(), token, asked_ns, waited_ns, from_ns, until_ns }
    }

    #[test]
    fn a_fair_history_is_not_contradicted() {
        let history = [hold(1, 0, 0, 10, 20), hold(2, 5, 17, 30, 40), hold(3, 8, 30, 50, 60)];
        assert!(contradictions(&history).is_empty(), "{:?}", contradictions(&history));
    }

    #[test]
    fn two_at_once_are_seen() {
        assert_eq!(contradictions(&[hold(1, 0, 0, 10, 31), hold(2, 0, 0, 30, 40)]).len(), 1);
        assert!(
            !contradictions(&[hold(2, 0, 0, 10, 20), hold(1, 0, 0, 30, 40)]).is_empty(),
            "tokens against time"
        );
        assert!(
            !contradictions(&[hold(1, 0, 0, 10, 20), hold(1, 0, 0, 30, 40)]).is_empty(),
            "one token twice"
        );
    }

    #[test]
    fn overtaking_is_seen_also_past_one_in_between() {
        // The holder of token 3 was queued by 20 ns; the one of token 1 asked at 25 ns.
        let history = [hold(1, 25, 0, 30, 35), hold(2, 18, 10, 40, 45), hold(3, 15, 40, 60, 70)];
        let found = contradictions(&history);
        assert!(found.iter().any(|text| text.starts_with("overtaken")), "{found:?}");
    }

    #[test]
    fn lines_read_back_and_half_a_line_does_not() {
        let one = hold(7, 1, 2, 3, 4);
        let log = format!("{}x 8 1 2", one.line());
        assert_eq!(read(&log), [one]);
    }
}

//! When the command gets TERM and when KILL: pure arithmetic over the guard's deadline D.
//!
//! TERM at D − max(ttl/4, 50 ms), KILL at D − max(ttl/20, 20 ms), both only while no renewal has moved D. Once TERM
//! was sent there is no way back: the moment of KILL is fixed then, so that a renewal that comes late cannot leave a
//! command half ended.

use crate::args::OnLost;
use fairlock_protocol::Tick;
use std::time::Duration;

/// TERM comes at least this long before D: a shell needs that long to run a trap.
const TERM_LEAD_MIN: Duration = Duration::from_millis(50);
/// KILL comes at least this long before D: scheduling noise on a loaded machine.
const KILL_LEAD_MIN: Duration = Duration::from_millis(20);

/// How the guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Held until then, unless renewed.
    Held(Tick),
    /// An operator asked for it back; the server waits for the confirmation, at most until then.
    Recalled(Tick),
    /// Gone: somebody else may hold it.
    Gone,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Look again at that moment, or when something happens.
    Watch(Option<Tick>),
    /// Send TERM; send KILL at that moment.
    Terminate(Tick),
    /// Send KILL.
    Kill,
}

/// How far before D each signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leads {
    term: Duration,
    kill: Duration,
    on_lost: OnLost,
}

impl Leads {
    /// For a lease of this length; `kill_after` replaces the first lead, which is never shorter than the second.
    pub(crate) fn new(ttl: Duration, kill_after: Option<Duration>, on_lost: OnLost) -> Leads {
        let kill = (ttl / 20).max(KILL_LEAD_MIN);
        let term = kill_after.unwrap_or_else(|| (ttl / 4).max(TERM_LEAD_MIN)).max(kill);
        Leads { term, kill, on_lost }
    }

    /// How long the command has between TERM and KILL.
    pub(crate) fn patience(&self) -> Duration {
        self.term.saturating_sub(self.kill)
    }

    /// The command must not start at or after this moment; `None`: it may at any time.
    pub(crate) fn latest_start(&self, standing: Standing) -> Option<Tick> {
        match (self.on_lost, standing) {
            (OnLost::Ignore, _) => None,
            (_, Standing::Held(end)) => Some(before(end, self.kill)),
            (_, Standing::Recalled(_) | Standing::Gone) => Some(Tick::ZERO),
        }
    }

    /// What to do at `now`; `kill_at` is the moment fixed when TERM was sent.
    pub(crate) fn act(&self, now: Tick, standing: Standing, kill_at: Option<Tick>) -> Act {
        if self.on_lost == OnLost::Ignore {
            return Act::Watch(None);
        }
        match (standing, kill_at) {
            (Standing::Gone, _) => Act::Kill,
            (_, Some(at)) if now >= at => Act::Kill,
            (_, Some(at)) => Act::Watch(Some(at)),
            (Standing::Held(end), None) if now < before(end, self.term) => {
                Act::Watch(Some(before(end, self.term)))
            }
            (Standing::Held(end) | Standing::Recalled(end), None) => {
                let at = before(end, self.kill);
                if now >= at || self.on_lost == OnLost::Kill { Act::Kill } else { Act::Terminate(at) }
            }
        }
    }
}

/// That much earlier.
fn before(end: Tick, lead: Duration) -> Tick {
    Tick(end.0.saturating_sub(u64::try_from(lead.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Tick = Tick::from_millis(10_000);

    fn leads(ttl_ms: u64) -> Leads {
        Leads::new(Duration::from_millis(ttl_ms), None, OnLost::Term)
    }

    #[test]
    fn term_comes_a_quarter_before_the_end_and_kill_a_twentieth() {
        let leads = leads(5_000);
        let term_at = Tick::from_millis(10_000 - 1_250);
        let kill_at = Tick::from_millis(10_000 - 250);
        assert_eq!(leads.act(Tick::ZERO, Standing::Held(D), None), Act::Watch(Some(term_at)));
        assert_eq!(leads.act(Tick(term_at.0 - 1), Standing::Held(D), None), Act::Watch(Some(term_at)));
        assert_eq!(leads.act(term_at, Standing::Held(D), None), Act::Terminate(kill_at));
        assert_eq!(leads.act(term_at, Standing::Held(D), Some(kill_at)), Act::Watch(Some(kill_at)));
        assert_eq!(leads.act(kill_at, Standing::Held(D), Some(kill_at)), Act::Kill);
    }

    #[test]
    fn nothing_starts_when_it_would_have_to_be_killed_at_once() {
        let leads = leads(5_000);
        assert_eq!(leads.latest_start(Standing::Held(D)), Some(Tick::from_millis(9_750)));
        assert_eq!(leads.latest_start(Standing::Gone), Some(Tick::ZERO));
        let ignore = Leads::new(Duration::from_secs(5), None, OnLost::Ignore);
        assert_eq!(ignore.latest_start(Standing::Gone), None);
    }

    #[test]
    fn short_leases_keep_the_least_leads() {
        let leads = leads(200);
        assert_eq!(
            leads.act(Tick::ZERO, Standing::Held(D), None),
            Act::Watch(Some(Tick::from_millis(9_950)))
        );
        assert_eq!(
            leads.act(Tick::from_millis(9_950), Standing::Held(D), None),
            Act::Terminate(Tick::from_millis(9_980))
        );
        assert_eq!(leads.patience(), Duration::from_millis(30));
    }

    #[test]
    fn a_renewal_moves_the_moment_until_term_was_sent_and_never_after() {
        let leads = leads(5_000);
        let renewed = Standing::Held(Tick::from_millis(14_000));
        assert_eq!(
            leads.act(Tick::from_millis(9_000), renewed, None),
            Act::Watch(Some(Tick::from_millis(12_750)))
        );
        let fixed = Some(Tick::from_millis(9_750));
        assert_eq!(leads.act(Tick::from_millis(9_000), renewed, fixed), Act::Watch(fixed));
        assert_eq!(leads.act(Tick::from_millis(9_750), renewed, fixed), Act::Kill);
    }

    #[test]
    fn one_that_wakes_too_late_for_term_kills() {
        assert_eq!(leads(5_000).act(Tick::from_millis(9_800), Standing::Held(D), None), Act::Kill);
        assert_eq!(leads(5_000).act(Tick::from_millis(20_000), Standing::Held(D), None), Act::Kill);
    }

    #[test]
    fn a_lock_that_is_gone_ends_the_command_at_once() {
        assert_eq!(leads(5_000).act(Tick::ZERO, Standing::Gone, None), Act::Kill);
        assert_eq!(leads(5_000).act(Tick::ZERO, Standing::Gone, Some(D)), Act::Kill);
    }

    #[test]
    fn a_recalled_lock_gives_term_at_once_and_kill_before_its_end() {
        assert_eq!(
            leads(5_000).act(Tick::from_millis(6_000), Standing::Recalled(D), None),
            Act::Terminate(Tick::from_millis(9_750))
        );
    }

    #[test]
    fn kill_means_the_first_moment_and_ignore_means_never() {
        let kill = Leads::new(Duration::from_secs(5), None, OnLost::Kill);
        assert_eq!(
            kill.act(Tick::from_millis(8_749), Standing::Held(D), None),
            Act::Watch(Some(Tick::from_millis(8_750)))
        );
        assert_eq!(kill.act(Tick::from_millis(8_750), Standing::Held(D), None), Act::Kill);
        assert_eq!(kill.act(Tick::ZERO, Standing::Recalled(D), None), Act::Kill);
        let ignore = Leads::new(Duration::from_secs(5), None, OnLost::Ignore);
        assert_eq!(ignore.act(D, Standing::Gone, None), Act::Watch(None));
    }

    #[test]
    fn kill_after_changes_the_first_moment_and_stays_before_the_second() {
        let leads = Leads::new(Duration::from_secs(5), Some(Duration::from_secs(3)), OnLost::Term);
        assert_eq!(
            leads.act(Tick::ZERO, Standing::Held(D), None),
            Act::Watch(Some(Tick::from_millis(7_000)))
        );
        let leads = Leads::new(Duration::from_secs(5), Some(Duration::ZERO), OnLost::Term);
        assert_eq!(leads.act(Tick::from_millis(9_750), Standing::Held(D), None), Act::Kill);
    }
}

//! What a table counts, for operators and for tests: gauges of what is there and totals of what has happened since
//! the table was made. Nothing here decides anything.

use fairlock_protocol::Refusal;

/// Codes of refusals are below this.
const REFUSAL_CODES: usize = 96;

/// Gauges and totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Locks held, waited for or kept closed by a delay.
    pub locks: u32,
    /// Grants.
    pub grants: u32,
    /// Requests in wait queues, up-conversions from NL among them.
    pub waiters: u32,
    /// Conversions in conversion queues.
    pub conversions: u32,
    /// Sessions.
    pub sessions: u32,
    /// Timers that are set.
    pub timers: u32,
    /// Grants ever given.
    pub grants_total: u64,
    /// Grants given back, with the levels of re-entry.
    pub releases_total: u64,
    /// Re-entries.
    pub reentries_total: u64,
    /// Conversions done.
    pub conversions_total: u64,
    /// Requests that began to wait.
    pub waits_total: u64,
    /// Waits that lasted as long as they might.
    pub timeouts_total: u64,
    /// Waits that were withdrawn.
    pub cancels_total: u64,
    /// Conversions refused because each would have waited for the other.
    pub deadlocks_total: u64,
    /// Grants ended by their longest hold.
    pub holds_over_total: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Sessions ended by their lease or their death.
    pub expiries_total: u64,
    /// Sessions ended by an operator.
    pub kills_total: u64,
    /// Grants taken by an operator.
    pub breaks_total: u64,
    /// Grants that passed an earlier entry of a wait queue against its discipline: 0, or the table is wrong.
    pub overtakes_total: u64,
    /// Grants that passed an earlier entry of a wait queue as its discipline allows; 0 where every namespace is strict.
    pub bypasses_total: u64,
    /// Tokens issued in this epoch.
    pub tokens_issued: u64,
    /// Half the tokens of this epoch are used: time for the next one.
    pub tokens_half_used: bool,
    refusals: [u64; REFUSAL_CODES],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            locks: 0,
            grants: 0,
            waiters: 0,
            conversions: 0,
            sessions: 0,
            timers: 0,
            grants_total: 0,
            releases_total: 0,
            reentries_total: 0,
            conversions_total: 0,
            waits_total: 0,
            timeouts_total: 0,
            cancels_total: 0,
            deadlocks_total: 0,
            holds_over_total: 0,
            sessions_total: 0,
            expiries_total: 0,
            kills_total: 0,
            breaks_total: 0,
            overtakes_total: 0,
            bypasses_total: 0,
            tokens_issued: 0,
            tokens_half_used: false,
            refusals: [0; REFUSAL_CODES],
        }
    }
}

impl Counts {
    /// Requests refused for this reason, waits that ended without a grant among them.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.get(usize::from(refusal.code())).copied().unwrap_or(0)
    }

    /// Every reason that occurred, with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        let counted = Refusal::ALL.iter().map(|&refusal| (refusal, self.refused(refusal)));
        counted.filter(|&(_, count)| count > 0)
    }

    /// All totals, in an order that stays.
    pub(crate) fn totals(&mut self) -> impl Iterator<Item = &mut u64> {
        let own = [
            &mut self.grants_total,
            &mut self.releases_total,
            &mut self.reentries_total,
            &mut self.conversions_total,
            &mut self.waits_total,
            &mut self.timeouts_total,
            &mut self.cancels_total,
            &mut self.deadlocks_total,
            &mut self.holds_over_total,
            &mut self.sessions_total,
            &mut self.expiries_total,
            &mut self.kills_total,
            &mut self.breaks_total,
            &mut self.overtakes_total,
            &mut self.bypasses_total,
        ];
        own.into_iter().chain(&mut self.refusals)
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        let count = self.refusals.get_mut(usize::from(refusal.code())).expect("codes are below 96");
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_count() {
        let mut counts = Counts::default();
        for &refusal in Refusal::ALL {
            counts.refuse(refusal);
        }
        assert!(counts.refusals().all(|(_, count)| count == 1));
        assert_eq!(counts.refusals().count(), Refusal::ALL.len());
    }
}

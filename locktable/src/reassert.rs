//! Grants of a time before the table was lost: their holders hold them on, one by one, before anything else is granted.
//!
//! Whether a claim is true is decided above (it is proven, and no ordinary request is let in until every lease of that time
//! is over). Here it is seen to that no two claims contradict each other: each token counts once, and a grant goes with
//! what was claimed before, whatever the queue would say.

use crate::command::Acquire;
use crate::effect::{Answer, Effects};
use crate::table::Table;
use fairlock_protocol::limits::REASSERTS_MAX;
use fairlock_protocol::{FencingToken, Mode, Refusal, Tick};

impl Table {
    /// The grant that had `token` is held on as `ask` says, under a new token.
    pub(crate) fn reassert(
        &mut self,
        now: Tick,
        ask: &Acquire<'_>,
        token: FencingToken,
        effects: &mut Effects,
    ) {
        let Some(session) = self.admit(ask.session, ask.request, |_, _| false, effects) else { return };
        let answer = self.take_on(now, session, ask, token).unwrap_or_else(Answer::Refused);
        self.answer(session, ask.request, answer, effects);
    }

    fn take_on(
        &mut self,
        now: Tick,
        session: u32,
        ask: &Acquire<'_>,
        token: FencingToken,
    ) -> Result<Answer, Refusal> {
        if ask.mode == Mode::NL || token.epoch_number() >= self.epoch.get() {
            return Err(Refusal::NotHeld);
        }
        if self.reasserted.contains(&token.get()) {
            return Err(Refusal::StaleToken);
        }
        if self.reasserted.len() >= REASSERTS_MAX {
            return Err(Refusal::Quota);
        }
        self.may_hold_more(session)?;
        if !self.has_tokens() {
            return Err(Refusal::Internal);
        }
        let known = self.lock_slot(ask.digest);
        if let Some(lock) = known {
            let waited_for = self.crowd_of(lock).is_some_and(crate::record::Crowd::is_waited_for);
            let goes = self.held_mask(lock, None).admits(ask.mode) && !self.is_kept_out(lock, session);
            if waited_for || !goes {
                return Err(Refusal::StaleToken);
            }
        }
        let created = || self.create_lock(ask.digest, ask.resource).ok_or(Refusal::Quota);
        let lock = known.map_or_else(created, Ok)?;
        self.reasserted.insert(token.get());
        Ok(self.grant_at_once(now, session, lock, ask))
    }

    /// Ordinary requests are let in again: nothing is claimed any more.
    #[cold]
    pub(crate) fn forget_reasserted(&mut self) {
        self.reasserted.clear();
    }
}

#[cfg(test)]
mod tests;

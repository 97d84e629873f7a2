//! A running sum over every command and what followed from it, by which members of a cell compare themselves cheaply.
//!
//! [`Table::digest`] walks the whole table; this costs some ten nanoseconds a command, only where there
//! is somebody to compare with, and nothing to read. It takes in the
//! moment, what the command is about, each effect, and the numbers that the next effects depend on, so two tables that
//! once answered differently never have the same sum again, however alike they become. It finds mistakes, not attacks.

use crate::command::{Command, SessionKey};
use crate::effect::{Answer, Effect, Notice};
use crate::index::IndexKey;
use crate::operation::kind;
use crate::table::Table;
use fairlock_protocol::{FencingToken, Tick};

const KEY: IndexKey = IndexKey::new(0x0F0F_5EED_0D15_C0DE);

/// The sum so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rolling(pub(crate) u64, pub(crate) u64);

impl Rolling {
    #[inline]
    pub(crate) fn fold(&mut self, x: u64, y: u64) {
        let product = KEY.hash(self.0 ^ x, self.1 ^ y);
        // The second half keeps what a product with zero would lose.
        self.1 = (self.1.rotate_left(29) ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(y);
        self.0 = product;
    }

    fn answer(&mut self, answer: &Answer) {
        match *answer {
            Answer::Granted(granted) | Answer::Converted(granted) => {
                let converted = matches!(answer, Answer::Converted(_));
                let facts = u64::from(converted)
                    | u64::from(granted.previous_owner_died) << 1
                    | u64::from(granted.reentered) << 2
                    | (granted.mode as u64) << 3;
                self.fold(granted.grant.get(), granted.token.map_or(0, FencingToken::get));
                self.fold(granted.fence ^ facts << 56, granted.waited_us);
            }
            Answer::Released { remaining } => self.fold(1, remaining.into()),
            Answer::Withdrawn { was_waiting } => self.fold(2, was_waiting.into()),
            Answer::Refused(refusal) => self.fold(3, refusal.code().into()),
            Answer::Deadlock { session, owner, mode } => {
                self.fold(session.get(), owner.0);
                self.fold(4, mode as u64);
            }
        }
    }

    fn effect(&mut self, effect: &Effect) {
        match *effect {
            Effect::Answered { session, request, ref answer, kept } => {
                self.fold(key_word(session), request.0 << 1 | u64::from(kept));
                self.answer(answer);
            }
            Effect::Opened { session, id } => self.fold(key_word(session), id.get()),
            Effect::NotOpened { id, refusal } => self.fold(id.get(), refusal.code().into()),
            Effect::Told { session, notice } => {
                let (what, about) = match notice {
                    Notice::Blocking { grant, wanted, waiters } => {
                        (1 | (wanted as u64) << 8 | u64::from(waiters) << 16, grant.get())
                    }
                    Notice::Broken { grant, forced } => (2 | u64::from(forced) << 8, grant.get()),
                    Notice::HoldOver { grant } => (3, grant.get()),
                    Notice::Killed => (4, 0),
                };
                self.fold(key_word(session), what);
                self.fold(about, what);
            }
            Effect::Doomed { session, id } => self.fold(!key_word(session), id.get()),
            Effect::Broke { holders } => self.fold(5, holders.into()),
            Effect::Over { session, id, why } => self.fold(key_word(session), id.get() ^ (why as u64) << 60),
        }
    }
}

const fn key_word(key: SessionKey) -> u64 {
    (key.slot as u64) << 32 | key.generation as u64
}

/// What a command is about, in two numbers.
fn gist(command: &Command<'_>) -> (u8, u64, u64) {
    match *command {
        Command::Open(ref open) => (kind::OPEN, open.id.get(), open.ttl_ms.into()),
        Command::Resume { session, received } => (kind::RESUME, key_word(session), received),
        Command::Acknowledge { session, received } => (kind::ACKNOWLEDGE, key_word(session), received),
        Command::End { session, why } => (kind::END, key_word(session), why as u64),
        Command::Acquire(ref ask) => (kind::ACQUIRE, key_word(ask.session), ask.digest.0[0] ^ ask.request.0),
        Command::Reassert { ref acquire, token } => {
            (kind::REASSERT, key_word(acquire.session), acquire.digest.0[0] ^ token.get())
        }
        Command::AcquireAll(ref ask) => (kind::ACQUIRE_ALL, key_word(ask.session), ask.request.0),
        Command::Release { session, grant, .. } => (kind::RELEASE, key_word(session), grant.get()),
        Command::Convert { session, grant, .. } => (kind::CONVERT, key_word(session), grant.get()),
        Command::Cancel { session, target, .. } => (kind::CANCEL, key_word(session), target.0),
        Command::Break { digest, force } => (kind::BREAK, digest.0[0], force.into()),
        Command::Kill { session, force } => (kind::KILL, key_word(session), force.into()),
        Command::Confirm { session, grant } => (kind::CONFIRM, key_word(session), grant.get()),
        Command::Cache { session, grant } => (kind::CACHE, key_word(session), grant.get()),
        Command::GiveBack { session, grant } => (kind::GIVE_BACK, key_word(session), grant.get()),
        Command::WaitOver { waiter } => (kind::WAIT_OVER, waiter.slot.into(), waiter.generation.into()),
        Command::HoldOver { grant } => (kind::HOLD_OVER, grant.get(), 0),
        Command::DelayOver { digest } => (kind::DELAY_OVER, digest.0[0], digest.0[1]),
        Command::Doom { session } => (kind::DOOM, key_word(session), 0),
        Command::Epoch(epoch) => (kind::EPOCH, epoch.get().into(), 0),
        Command::TakeOver(epoch) => (kind::TAKE_OVER, epoch.get().into(), 0),
    }
}

impl Table {
    /// Begins the running sum, unless it has begun. For a table with others to be compared with: before its first
    /// command. One restored from a snapshot goes on with the sum that came with it.
    pub fn begin_rolling(&mut self) {
        self.rolling = self.rolling.or(Some(Rolling::default()));
    }

    /// A running sum over every command since [`Table::begin_rolling`] and all that followed; 0 before. Members of a cell
    /// that applied the same operations have the same. To be compared every few thousand operations: a member that
    /// differs has gone astray.
    pub const fn rolling(&self) -> u128 {
        match self.rolling {
            Some(rolling) => (rolling.0 as u128) << 64 | rolling.1 as u128,
            None => 0,
        }
    }

    /// Takes in one command and what followed from it.
    #[inline(never)]
    pub(crate) fn roll(&mut self, now: Tick, command: &Command<'_>, effects: &[Effect]) {
        let Some(mut rolling) = self.rolling else { return };
        let (kind, about, what) = gist(command);
        rolling.fold(now.0, about);
        rolling.fold(what, u64::from(kind) << 56 | effects.len() as u64);
        // Who waits is told nothing yet; these numbers say what the next one will be told.
        let generations = u64::from(self.generations.grant) << 32 | u64::from(self.generations.waiter);
        rolling.fold(self.seq, generations);
        rolling.fold(
            u64::from(self.grants.len()) << 32 | u64::from(self.locks.len()),
            u64::from(self.waiters.len()) << 32 | u64::from(self.sessions.len()),
        );
        for effect in effects {
            rolling.effect(effect);
        }
        self.rolling = Some(rolling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Acquire, Ended, Wait};
    use crate::table::Limits;
    use crate::tests::Story;
    use fairlock_protocol::Mode;

    #[test]
    fn a_sum_remembers_order_zeros_and_every_bit() {
        let sum = |words: &[(u64, u64)]| {
            let mut rolling = Rolling::default();
            for &(x, y) in words {
                rolling.fold(x, y);
            }
            rolling
        };
        let plain = sum(&[(1, 2), (3, 4)]);
        assert_eq!(plain, sum(&[(1, 2), (3, 4)]));
        assert_ne!(plain, sum(&[(3, 4), (1, 2)]));
        assert_ne!(plain, sum(&[(1, 2), (3, 4), (0, 0)]));
        assert_ne!(plain, sum(&[(2, 1), (3, 4)]));
        for bit in 0..64 {
            assert_ne!(plain, sum(&[(1 ^ 1 << bit, 2), (3, 4)]), "bit {bit}");
            assert_ne!(plain, sum(&[(1, 2 ^ 1 << bit), (3, 4)]), "bit {bit}");
        }
    }

    #[test]
    fn tables_that_once_answered_differently_are_told_apart_for_ever() {
        let tolerant = Limits::default();
        let mut stories = [tolerant, Limits { reentry: 0, ..tolerant }].map(Story::with);
        for story in &mut stories {
            story.table.begin_rolling();
            let s = story.open();
            let held = story.hold(s, Mode::EX);
            let again = story.asking(s, Mode::EX, Wait::Try);
            // Entered again, or refused: afterwards it is left, and nothing is left of it.
            story.ask(Acquire { reentrant: true, ..again });
            story.release(s, held.grant);
            story.release(s, held.grant);
            story.end(s, Ended::Closed);
        }
        let [one, other] = stories.map(|story| (story.table.digest(), story.table.rolling()));
        assert_eq!(one.0, other.0);
        assert_ne!(one.1, other.1);
    }

    #[test]
    fn nothing_rolls_where_nobody_compares() {
        let mut story = Story::new();
        story.open();
        assert_eq!(story.table.rolling(), 0);
        story.table.begin_rolling();
        let begun = story.table.rolling();
        story.open();
        let later = story.table.rolling();
        assert_ne!(begun, later);
        story.table.begin_rolling();
        assert_eq!(story.table.rolling(), later, "it begins once");
    }
}

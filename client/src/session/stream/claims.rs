//! What of a stream goes on when its server has lost its memory: holds that can be proven, and requests, which are asked anew.
//! What was said about grants of before means nothing any more.

use super::{Answer, Ask, Event, Stream};
use crate::error::LostCause;
use crate::session::Hold;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::{GrantId, Refusal, Tick};
use std::collections::HashMap;
use std::sync::Arc;

impl<T> Stream<T> {
    /// Whether anything here can be proven.
    pub(crate) fn has_claims(&self) -> bool {
        self.holds.values().any(|hold| hold.claim().is_some())
    }

    /// What can be proven, oldest first, and the number before those under which it may be said. `None`: somebody is inside a
    /// word whom only the word knows, and who would be taken for one who goes on.
    pub(crate) fn claims(&mut self) -> Option<(u64, Vec<Arc<Hold>>)> {
        if self.waits_for_words() {
            return None;
        }
        let mut claims: Vec<_> =
            self.holds.values().filter(|hold| hold.claim().is_some()).map(Arc::clone).collect();
        claims.sort_unstable_by_key(|hold| hold.facts().token);
        let before = self.next;
        // OPEN or RESUME, too.
        self.next += claims.len() as u64 + 2;
        Some((before, claims))
    }

    /// The session is another one from here on, which received so many kept replies on this stream. What was taken on has
    /// these grants, by the number it had before.
    pub(crate) fn goes_on(&mut self, now: Tick, received: u64, taken_on: &HashMap<GrantId, Grant>) {
        assert!(self.is_down(), "nothing is said meanwhile");
        (self.received, self.acknowledged) = (received, received);
        self.confirms.clear();
        self.broken.clear();
        let returned: Vec<_> = taken_on.keys().map(|number| (*number, self.end_left(*number))).collect();
        let halves = self.forget_stale();
        let former = std::mem::take(&mut self.holds);
        self.ends.clear();
        for (number, end) in returned {
            if !former.contains_key(&number) {
                // Given back meanwhile; who enters it before that is said has it no longer than it lasts.
                let (granted, end) = (&taken_on[&number], end.unwrap_or(Tick(u64::MAX)));
                self.submit(now, Ask::Release(granted.grant, end), None, true);
            }
        }
        for (number, hold) in former {
            if let Some(granted) = taken_on.get(&number) {
                hold.goes_on_as(granted);
                if hold.end < Tick(u64::MAX) {
                    self.ends.insert((hold.end, granted.grant));
                }
                self.holds.insert(granted.grant, hold);
            } else {
                hold.take_away(LostCause::Session(Refusal::SessionUnknown));
                self.events.push(Event::HoldOver(hold));
            }
        }
        for hold in halves {
            self.release(now, &hold);
        }
        self.events.push(Event::Rearm);
    }

    /// Forgets what was said about grants of before, and what nobody wants any more. Gives what is to be given back.
    fn forget_stale(&mut self) -> Vec<Arc<Hold>> {
        let is_stale = |ask: &Ask| matches!(ask, Ask::Release(..) | Ask::Convert { .. } | Ask::Cancel(_));
        let stale = self.pending.iter().filter(|(_, pending)| {
            is_stale(&pending.ask) || pending.abandoned || !pending.gathered.is_empty()
        });
        let mut stale: Vec<u64> = stale.map(|(id, _)| *id).collect();
        stale.sort_unstable();
        let mut halves = Vec::new();
        for id in stale {
            let Some(pending) = self.forget(id) else { continue };
            halves.extend(pending.gathered);
            if let Some(interest) = pending.interest {
                let refused = Answer::Refused(Refusal::Recovering, None);
                self.events.push(Event::Answered(interest, refused));
            }
        }
        halves
    }
}

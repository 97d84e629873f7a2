//! Compares what the real table said with what the model says must follow. The two use different names; the judge
//! learns which key, grant id and token stands for which serial when it first meets them, and holds the table to it.
//!
//! Order counts among effects of one resource (FIFO is visible there). Between resources that one command freed the
//! table may choose; notices that a grant blocks somebody may stand anywhere.

use super::{Fact, GrantSerial, Reply, Said, SessionSerial, Told};
use fairlock_locktable::command::{Granted, SessionKey};
use fairlock_locktable::effect::{Answer, Effect, Notice};
use fairlock_protocol::{FencingToken, GrantId, SessionId};

/// Which real name stands for which serial.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    pub sessions: Vec<(SessionKey, SessionId)>,
    pub grants: Vec<Option<GrantId>>,
    tokens: Vec<Option<FencingToken>>,
}

impl Judge {
    /// The key of a session.
    pub fn key(&self, session: SessionSerial) -> SessionKey {
        self.sessions[session].0
    }

    /// The serial behind a key.
    pub fn session_of(&self, key: SessionKey) -> Option<SessionSerial> {
        self.sessions.iter().position(|&(known, _)| known == key)
    }

    /// The serial behind a grant id.
    pub fn grant_of(&self, grant: GrantId) -> Option<GrantSerial> {
        self.grants.iter().position(|&known| known == Some(grant))
    }

    /// Each effect must be a fact, each fact an effect.
    pub fn compare(&mut self, facts: &[Fact], effects: &[Effect]) -> Result<(), String> {
        let mut told = vec![false; facts.len()];
        for effect in effects {
            let found = (0..facts.len()).find(|&i| !told[i] && self.concerns(&facts[i].said, effect));
            let Some(found) = found else {
                return Err(format!("the model knows nothing of {effect:?}"));
            };
            let before = (0..found).find(|&i| {
                !told[i]
                    && facts[i].resource == facts[found].resource
                    && in_order(&facts[i].said, &facts[found].said)
            });
            if let Some(before) = before {
                return Err(format!("{effect:?} came before {:?}", facts[before].said));
            }
            told[found] = true;
            self.check(&facts[found].said, effect)?;
        }
        let may_be_unsaid = |fact: &Fact| matches!(fact.said, Said::Blocking { begins: false, .. });
        match (0..facts.len()).find(|&i| !told[i] && !may_be_unsaid(&facts[i])) {
            Some(missing) => Err(format!("missing: {:?}", facts[missing])),
            None => Ok(()),
        }
    }

    /// Whether they speak of the same thing.
    fn concerns(&self, said: &Said, effect: &Effect) -> bool {
        let is =
            |session: SessionSerial, key: SessionKey| self.sessions.get(session).is_some_and(|s| s.0 == key);
        let names = |serial: GrantSerial, grant: GrantId| self.grants.get(serial) == Some(&Some(grant));
        match (*said, *effect) {
            (Said::Opened { .. }, Effect::Opened { .. })
            | (Said::NotOpened { .. }, Effect::NotOpened { .. })
            | (Said::Broke { .. }, Effect::Broke { .. }) => true,
            (Said::Over { session, .. }, Effect::Over { session: key, .. })
            | (Said::Doomed { session }, Effect::Doomed { session: key, .. })
            | (Said::Killed { session }, Effect::Told { session: key, notice: Notice::Killed }) => {
                is(session, key)
            }
            (
                Said::Answered { session, request, .. },
                Effect::Answered { session: key, request: number, .. },
            ) => is(session, key) && request == number.0,
            (
                Said::Blocking { grant, .. },
                Effect::Told { notice: Notice::Blocking { grant: id, .. }, .. },
            )
            | (Said::Broken { grant, .. }, Effect::Told { notice: Notice::Broken { grant: id, .. }, .. })
            | (Said::HoldOver { grant, .. }, Effect::Told { notice: Notice::HoldOver { grant: id }, .. }) => {
                names(grant, id)
            }
            _ => false,
        }
    }

    /// Whether they say the same about it.
    fn check(&mut self, said: &Said, effect: &Effect) -> Result<(), String> {
        let same = match (*said, *effect) {
            (Said::Opened { session }, Effect::Opened { session: key, id }) => {
                assert_eq!(session, self.sessions.len(), "serials are given in order");
                self.sessions.push((key, id));
                true
            }
            (Said::NotOpened { refusal }, Effect::NotOpened { refusal: real, .. }) => refusal == real,
            (Said::Broke { holders }, Effect::Broke { holders: real }) => holders == real,
            (Said::Over { why, session }, Effect::Over { why: real, id, .. }) => {
                why == real && id == self.sessions[session].1
            }
            (Said::Answered { reply, kept, .. }, Effect::Answered { answer, kept: real, .. }) => {
                kept == real && self.same_reply(reply, answer)?
            }
            (
                Said::Blocking { session, wanted, waiters, late, .. },
                Effect::Told { session: key, notice: Notice::Blocking { wanted: mode, waiters: count, .. } },
            ) => self.key(session) == key && wanted == mode && (waiters - late..=waiters).contains(&count),
            (
                Said::Broken { session, forced, .. },
                Effect::Told { session: key, notice: Notice::Broken { forced: real, .. } },
            ) => self.key(session) == key && forced == real,
            (Said::HoldOver { session, .. }, Effect::Told { session: key, .. }) => self.key(session) == key,
            (Said::Doomed { session }, Effect::Doomed { id, .. }) => id == self.sessions[session].1,
            (Said::Killed { .. }, _) => true,
            _ => false,
        };
        if same { Ok(()) } else { Err(format!("model: {said:?}, table: {effect:?}")) }
    }

    fn same_reply(&mut self, reply: Reply, answer: Answer) -> Result<bool, String> {
        Ok(match (reply, answer) {
            (Reply::Granted(told), Answer::Granted(granted))
            | (Reply::Converted(told), Answer::Converted(granted)) => self.same_hold(&told, &granted)?,
            (Reply::Released { remaining }, Answer::Released { remaining: real }) => remaining == real,
            (Reply::Withdrawn { was_waiting }, Answer::Withdrawn { was_waiting: real }) => {
                was_waiting == real
            }
            (Reply::Refused(refusal), Answer::Refused(real)) => refusal == real,
            (
                Reply::Deadlock { session, owner, mode },
                Answer::Deadlock { session: id, owner: label, mode: asked },
            ) => self.sessions[session].1 == id && owner == label.0 && mode == asked,
            _ => false,
        })
    }

    fn same_hold(&mut self, told: &Told, granted: &Granted) -> Result<bool, String> {
        if self.grants.len() <= told.grant {
            self.grants.resize(told.grant + 1, None);
        }
        learn(&mut self.grants[told.grant], granted.grant, "grant")?;
        if told.token.is_some() != granted.token.is_some() {
            return Err(format!("token: model {told:?}, table {granted:?}"));
        }
        if let (Some(serial), Some(token)) = (told.token, granted.token) {
            if self.tokens.len() <= serial {
                self.tokens.resize(serial + 1, None);
            }
            learn(&mut self.tokens[serial], token, "token")?;
        }
        let fence = match told.fence {
            Some(first) => {
                if self.tokens.len() <= first {
                    self.tokens.resize(first + 1, None);
                }
                // The first of a run of readers may be part of a bundle that nobody was told of yet.
                let token = FencingToken::from_raw(granted.fence + 1).ok_or("a fence of no token")?;
                learn(&mut self.tokens[first], token, "first token of a run")?;
                granted.fence
            }
            None => 0,
        };
        Ok(fence == granted.fence
            && told.mode == granted.mode
            && told.waited_us == granted.waited_us
            && told.previous_owner_died == granted.previous_owner_died
            && told.reentered == granted.reentered)
    }
}

/// Whether the first must come before the second: not where one is a notice of blocking, nor between two sessions
/// that one command ends.
fn in_order(first: &Said, second: &Said) -> bool {
    let loose = |said: &Said| matches!(said, Said::Blocking { .. });
    let ends = |said: &Said| matches!(said, Said::Over { .. } | Said::Doomed { .. });
    let both_end = ends(first) && ends(second);
    !(loose(first) || loose(second) || both_end)
}

/// The name of a serial: learned at the first meeting, the same ever after.
fn learn<T: Copy + PartialEq + core::fmt::Debug>(
    known: &mut Option<T>,
    real: T,
    what: &str,
) -> Result<(), String> {
    match *known {
        Some(before) if before != real => Err(format!("the {what} was {before:?} and is now {real:?}")),
        _ => {
            *known = Some(real);
            Ok(())
        }
    }
}

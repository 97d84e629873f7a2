//! What must hold whatever the model thinks: a witness who sees only the commands and the effects of the real table
//! and knows nothing of how either decides. It keeps who holds and who waits, and checks compatibility, invariant F,
//! one answer a request, tokens and fences, leases, deaths and lock delays.

use super::play::{RESOURCES, digest_of};
use super::{Ended, House, Lease, Mode, Refusal, Rules, Tick, Wait};
use fairlock_locktable::command::{Command, Granted, SessionKey};
use fairlock_locktable::effect::{Answer, Effect, Notice};
use fairlock_protocol::{Digest, Discipline, FencingToken, GrantId};

#[derive(Clone, Debug)]
struct Client {
    key: SessionKey,
    over: bool,
    ttl_ms: u64,
    renewed: Tick,
    silence_ends_it: bool,
    identity: (Vec<u8>, Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    grant: GrantId,
    session: SessionKey,
    resource: usize,
    mode: Mode,
    lock_delay_ms: u64,
    token: Option<FencingToken>,
    fence: u64,
    broken: bool,
}

/// A request that was sent and is not answered; `conversion` when it may pass a new request.
#[derive(Clone, Debug)]
struct Sent {
    session: SessionKey,
    request: u64,
    resource: Option<usize>,
    conversion: bool,
    grant: Option<GrantId>,
    mode: Mode,
    lock_delay_ms: u64,
    may_wait: bool,
    fresh: bool,
    /// Of a request for several: what is asked for. It joins queues later than it was sent, so invariant F says
    /// nothing of it here.
    items: Vec<(usize, Mode)>,
    /// How many of them were answered.
    got: usize,
    /// How often somebody who came later was let in, as far as that is seen.
    passed: u32,
}

#[derive(Clone, Debug, Default)]
struct Place {
    digest: Option<Digest>,
    newest_token: u64,
    /// The number h that a resource remembers, if everybody who ever held the lock has shown his token.
    h: u64,
    /// Newest token of the fenced tenures that are over, but for the present run of PR holders.
    stale: u64,
    /// Newest token of the ended PR tenures of the present run.
    run: u64,
    unreported_death: bool,
    /// A request for several asked for it: there may be holders that were not told, which keep a run of readers
    /// unbroken and have older tokens.
    hidden: bool,
    delayed_until: Tick,
    delayed_for: (Vec<u8>, Vec<u8>),
}

/// The witness.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    clients: Vec<Client>,
    held: Vec<Tenure>,
    /// In the order in which they were sent, which is the order of their enqueueing.
    waiting: Vec<Sent>,
    places: Vec<Place>,
    house: House,
    grants_seen: Vec<GrantId>,
    tokens_seen: Vec<(usize, FencingToken)>,
    deaths_told: Vec<usize>,
    /// How many grants and conversions it saw.
    pub tenures: u64,
    /// How many passes it saw where they are lawful.
    pub bypasses: u64,
    /// How many tenures began during a lock delay, under the identity it is kept for.
    pub reclaimed: u64,
}

macro_rules! demand {
    ($holds:expr, $($text:tt)+) => { if !$holds { return Err(format!($($text)+)); } };
}

impl Witness {
    /// Sees a house in which queues go by these rules.
    pub fn new(house: House) -> Witness {
        Witness { house, ..Witness::default() }
    }

    /// The rules of a place.
    fn rules(&self, place: usize) -> Rules {
        let resource =
            (0..RESOURCES).find(|&resource| self.places[place].digest == Some(digest_of(resource)));
        resource.map_or(Rules::STRICT, |resource| self.house[resource])
    }

    fn place(&mut self, digest: Digest) -> usize {
        if let Some(found) = self.places.iter().position(|place| place.digest == Some(digest)) {
            return found;
        }
        self.places.push(Place { digest: Some(digest), ..Place::default() });
        self.places.len() - 1
    }

    fn client(&self, key: SessionKey) -> Result<&Client, String> {
        self.clients.iter().find(|client| client.key == key).ok_or_else(|| format!("nobody opened {key:?}"))
    }

    /// A renewal that the table accepted.
    pub fn renewed(&mut self, session: SessionKey, now: Tick) {
        for client in self.clients.iter_mut().filter(|client| client.key == session) {
            client.renewed = now;
        }
    }

    /// A new primary counts time from here; whatever was confirmed before was confirmed before now.
    pub fn time_goes_on_from(&mut self, now: Tick) {
        for client in &mut self.clients {
            client.renewed = client.renewed.min(now);
        }
    }

    /// Sees one command and everything that followed.
    pub fn see(
        &mut self,
        now: Tick,
        command: &Command<'_>,
        by_time: bool,
        effects: &[Effect],
    ) -> Result<(), String> {
        if let (Command::End { session, why: Ended::Expired }, true) = (command, by_time) {
            let client = self.client(*session)?;
            let promised = client.renewed.after_millis(client.ttl_ms);
            demand!(
                now >= promised || !client.silence_ends_it,
                "{session:?} expired at {now:?}, before {promised:?}"
            );
        }
        if let Command::Confirm { session, grant } = *command
            && self.held.iter().any(|t| t.grant == grant && t.session == session && t.broken)
        {
            self.finish(grant);
        }
        if let Some(sent) = self.sent(command)
            && !self.waiting.iter().any(|w| w.session == sent.session && w.request == sent.request)
        {
            self.waiting.push(sent);
        }
        for effect in effects {
            self.see_effect(now, command, effect)?;
        }
        for w in &self.waiting {
            demand!(w.got == 0 || w.got == w.items.len() || w.fresh, "told of a part: {w:?}");
        }
        self.waiting.retain(|w| w.got == 0);
        for place in core::mem::take(&mut self.deaths_told) {
            self.places[place].unreported_death = false;
        }
        self.check_standing()
    }

    fn sent(&mut self, command: &Command<'_>) -> Option<Sent> {
        let blank = |session: SessionKey, request: fairlock_protocol::RequestId| Sent {
            session,
            request: request.0,
            resource: None,
            conversion: false,
            grant: None,
            mode: Mode::NL,
            lock_delay_ms: 0,
            may_wait: false,
            fresh: true,
            items: Vec::new(),
            got: 0,
            passed: 0,
        };
        match *command {
            Command::Acquire(acquire) => Some(Sent {
                resource: Some(self.place(acquire.digest)),
                mode: acquire.mode,
                lock_delay_ms: u64::from(acquire.lock_delay_ms),
                may_wait: acquire.wait != Wait::Try,
                ..blank(acquire.session, acquire.request)
            }),
            Command::AcquireAll(all) => {
                let items = all.items.iter().map(|item| (self.place(item.digest), item.mode));
                let items: Vec<(usize, Mode)> = items.collect();
                for &(place, _) in &items {
                    self.places[place].hidden = true;
                }
                let may_wait = all.wait != Wait::Try;
                Some(Sent { may_wait, items, ..blank(all.session, all.request) })
            }
            Command::Convert { session, request, grant, mode, wait } => {
                let tenure = self.held.iter().find(|tenure| tenure.grant == grant);
                Some(Sent {
                    resource: tenure.map(|tenure| tenure.resource),
                    conversion: tenure.is_some_and(|tenure| tenure.mode != Mode::NL),
                    grant: Some(grant),
                    mode,
                    may_wait: wait != Wait::Try,
                    ..blank(session, request)
                })
            }
            Command::Release { session, request, grant } => {
                Some(Sent { grant: Some(grant), ..blank(session, request) })
            }
            Command::Cancel { session, request, .. } => Some(blank(session, request)),
            _ => None,
        }
    }

    fn see_effect(&mut self, now: Tick, command: &Command<'_>, effect: &Effect) -> Result<(), String> {
        match *effect {
            Effect::Opened { session, .. } => {
                let Command::Open(open) = command else { return Err("opened, but by no Open".into()) };
                demand!(self.client(session).is_err(), "{session:?} is used a second time");
                self.clients.push(Client {
                    key: session,
                    over: false,
                    ttl_ms: u64::from(open.ttl_ms),
                    renewed: now,
                    silence_ends_it: open.lease == Lease::Heartbeat,
                    identity: (open.identity.to_vec(), open.reclaim_key.to_vec()),
                });
            }
            Effect::Over { session, why, .. } => self.over(now, session, why)?,
            Effect::Told { session, notice } => {
                demand!(!self.client(session)?.over, "an ended session is told {notice:?}");
                match notice {
                    Notice::HoldOver { grant } | Notice::Broken { grant, forced: true } => self.finish(grant),
                    Notice::Broken { grant, forced: false } => {
                        self.held.iter_mut().filter(|t| t.grant == grant).for_each(|t| t.broken = true);
                    }
                    _ => {}
                }
            }
            Effect::Answered { session, request, answer, kept } => {
                let known = self.waiting.iter().position(|w| w.session == session && w.request == request.0);
                if known.is_none() && self.client(session).is_ok_and(|client| client.over) {
                    demand!(!kept, "an ended session gets {answer:?}");
                    return Ok(());
                }
                let known = known.ok_or_else(|| {
                    format!("{session:?} {request:?} gets {answer:?}, and nobody waits for it")
                })?;
                if answer == Answer::Refused(Refusal::ReplayMismatch) && !self.waiting[known].fresh {
                    return Ok(());
                }
                let sent = &mut self.waiting[known];
                if let (Answer::Granted(_), Some(&(place, mode))) = (answer, sent.items.get(sent.got)) {
                    (sent.resource, sent.mode) = (Some(place), mode);
                    if kept {
                        self.take_effect(now, known, answer)?;
                    }
                    let sent = &mut self.waiting[known];
                    (sent.resource, sent.got) = (None, sent.got + 1);
                    return Ok(());
                }
                // An answer that is given again has no effect again.
                if kept {
                    self.take_effect(now, known, answer)?;
                }
                self.waiting.remove(known);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_effect(&mut self, now: Tick, known: usize, answer: Answer) -> Result<(), String> {
        let sent = self.waiting[known].clone();
        match answer {
            Answer::Granted(granted) => {
                let same = self.held.iter().find(|t| t.grant == granted.grant);
                if granted.reentered {
                    let as_before = same.is_some_and(|t| {
                        t.session == sent.session && t.mode == granted.mode && t.fence == granted.fence
                    });
                    demand!(as_before, "re-entered what is not held so: {granted:?}, {same:?}");
                    return Ok(());
                }
                demand!(!self.grants_seen.contains(&granted.grant), "{:?} names two grants", granted.grant);
                self.grants_seen.push(granted.grant);
                self.admit(now, known, &granted)?;
                self.enter(
                    sent.resource.ok_or("a grant of nothing")?,
                    sent.session,
                    sent.lock_delay_ms,
                    &granted,
                )
            }
            Answer::Converted(granted) => {
                let at = self.held.iter().position(|t| t.grant == granted.grant && t.session == sent.session);
                let before =
                    self.held[at.ok_or_else(|| format!("converted what is not held: {granted:?}"))?];
                if before.mode.covers(granted.mode) {
                    demand!(
                        granted.mode == Mode::NL || before.token == granted.token,
                        "a tenure that only sinks keeps its token: {granted:?}"
                    );
                    if before.mode.is_fenced() && !granted.mode.is_fenced() {
                        self.finish(granted.grant);
                    }
                } else {
                    demand!(before.token != granted.token, "an up-conversion keeps its token: {granted:?}");
                    self.admit(now, known, &granted)?;
                    self.finish(granted.grant);
                }
                self.held.retain(|t| t.grant != granted.grant);
                self.enter(before.resource, sent.session, before.lock_delay_ms, &granted)?;
                let broken = before.broken;
                self.held.last_mut().ok_or("just entered")?.broken = broken;
                Ok(())
            }
            Answer::Released { remaining: 0 } => {
                self.finish(sent.grant.ok_or("released without a release")?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A tenure may begin: no ended session, invariant F, lock delay, death, rising tokens.
    fn admit(&mut self, now: Tick, known: usize, granted: &Granted) -> Result<(), String> {
        let sent = self.waiting[known].clone();
        let client = self.client(sent.session)?.clone();
        demand!(!client.over, "an ended session is granted {granted:?}");
        demand!(granted.mode == sent.mode, "granted another mode than asked: {granted:?}");
        let resource = sent.resource.ok_or("granted on nothing")?;
        if granted.mode != Mode::NL {
            let alone = sent.items.is_empty();
            let here = |w: &&Sent| alone && w.resource == Some(resource) && w.may_wait;
            let rules = self.rules(resource);
            let is_strict = rules.discipline == Discipline::Strict || sent.conversion;
            let passed = self.waiting[..known].iter().filter(here).find(|w| w.conversion == sent.conversion);
            demand!(passed.is_none() || !is_strict, "{sent:?} overtook {passed:?}");
            let converting = self.waiting.iter().filter(here).find(|w| w.conversion && !w.fresh);
            demand!(sent.conversion || converting.is_none(), "{sent:?} was served before {converting:?}");
            for w in self.waiting[..known].iter_mut().filter(|_| !is_strict && alone) {
                if w.items.is_empty() && w.resource == Some(resource) && w.may_wait && !w.conversion {
                    w.passed += 1;
                    self.bypasses += 1;
                    demand!(w.passed <= rules.bypass_budget, "passed too often: {w:?}, by {sent:?}");
                }
            }
            let place = &self.places[resource];
            // One of several locks was perhaps taken before the delay began.
            let is_heir = !client.identity.0.is_empty() && client.identity == place.delayed_for;
            let passes = is_heir || !alone;
            self.reclaimed += u64::from(now < place.delayed_until && is_heir);
            demand!(now >= place.delayed_until || passes, "granted during a lock delay: {granted:?}");
        }
        let place = &mut self.places[resource];
        if granted.previous_owner_died {
            demand!(place.unreported_death || place.hidden, "a death is told, but nobody died: {granted:?}");
            self.deaths_told.push(resource);
        }
        match granted.token {
            Some(token) => {
                let rises = token.get() > place.newest_token || !sent.items.is_empty();
                demand!(rises, "tokens do not rise: {granted:?}");
                place.newest_token = place.newest_token.max(token.get());
                self.tokens_seen.push((resource, token));
            }
            None => demand!(granted.mode == Mode::NL, "no token: {granted:?}"),
        }
        self.tenures += 1;
        Ok(())
    }

    /// A tenure begins or goes on in another mode: what its fence does to the resource's number.
    fn enter(
        &mut self,
        resource: usize,
        session: SessionKey,
        lock_delay_ms: u64,
        granted: &Granted,
    ) -> Result<(), String> {
        let Granted { grant, token, fence, mode, .. } = *granted;
        let place = &mut self.places[resource];
        let number = token.map_or(0, FencingToken::get);
        demand!(mode.is_fenced() || fence == 0, "a mode without fence has one: {granted:?}");
        if mode.is_fenced() {
            demand!(
                mode == Mode::PR || fence == number - 1,
                "the fence is the token's predecessor: {granted:?}"
            );
            demand!(
                place.stale <= fence || place.hidden,
                "stale token {} passes after {granted:?}",
                place.stale
            );
            demand!(
                mode == Mode::PR || place.run == 0 || place.hidden,
                "the run of readers is broken: {granted:?}"
            );
            place.h = place.h.max(fence);
        }
        self.held.push(Tenure { grant, session, resource, mode, lock_delay_ms, token, fence, broken: false });
        Ok(())
    }

    /// A tenure is over: from now on its token is stale, but to the other readers of its run.
    fn finish(&mut self, grant: GrantId) {
        let Some(at) = self.held.iter().position(|t| t.grant == grant) else { return };
        let over = self.held.remove(at);
        let place = &mut self.places[over.resource];
        let number = over.token.map_or(0, FencingToken::get);
        let reads = |t: &Tenure| t.resource == over.resource && t.mode == Mode::PR;
        if over.mode == Mode::PR && self.held.iter().any(reads) {
            place.run = place.run.max(number);
        } else if over.mode.is_fenced() {
            place.stale = place.stale.max(place.run).max(number);
            place.run = 0;
        }
    }

    fn over(&mut self, now: Tick, session: SessionKey, why: Ended) -> Result<(), String> {
        demand!(!self.client(session)?.over, "{session:?} ends twice");
        let identity = self.client(session)?.identity.clone();
        self.clients.iter_mut().filter(|client| client.key == session).for_each(|client| client.over = true);
        self.waiting.retain(|w| w.session != session || w.fresh);
        let held: Vec<Tenure> = self.held.iter().filter(|t| t.session == session).copied().collect();
        for tenure in held {
            let place = &mut self.places[tenure.resource];
            if why != Ended::Closed && tenure.mode.writes() {
                place.unreported_death = true;
                // Told of an earlier one in the same command is not told of this one.
                self.deaths_told.retain(|&told| told != tenure.resource);
            }
            let until = now.after_millis(tenure.lock_delay_ms);
            if matches!(why, Ended::Expired | Ended::Died) && until > place.delayed_until {
                place.delayed_until = until;
                place.delayed_for.clone_from(&identity);
            }
            self.finish(tenure.grant);
        }
        Ok(())
    }

    /// What must be true between any two commands.
    fn check_standing(&mut self) -> Result<(), String> {
        for w in &mut self.waiting {
            demand!(w.may_wait, "not answered at once: {w:?}");
            w.fresh = false;
        }
        for (i, a) in self.held.iter().enumerate() {
            for b in self.held[..i].iter().filter(|b| b.resource == a.resource) {
                demand!(a.mode.compatible(b.mode), "together: {a:?} and {b:?}");
            }
            let h = self.places[a.resource].h;
            demand!(
                !a.mode.is_fenced() || a.token.is_some_and(|token| token.get() > h),
                "a current holder is refused by h = {h}: {a:?}"
            );
        }
        Ok(())
    }

    /// Every token there ever was, and whether it names a tenure that still lasts (VALIDATE).
    pub fn tokens(&self) -> impl Iterator<Item = (Digest, FencingToken, bool)> + '_ {
        self.tokens_seen.iter().map(|&(place, token)| {
            let current = self.held.iter().any(|t| t.resource == place && t.token == Some(token));
            (self.places[place].digest.unwrap(), token, current)
        })
    }

    /// How many requests wait, as far as the witness saw.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many grants stand.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

//! The model's state and its commands, in this order: sessions, requests exactly once, acquire,
//! cancel, release. Granting, and who is next, stands in `queue.rs`.

use super::bundles::{Bundle, BundleSerial};
use super::disciplines::Newcomer;
use super::{
    Ask, Bounds, Due, Ended, Fact, GrantSerial, House, Lease, Mode, Refusal, Reply, ResourceIndex, Said,
    SessionSerial, Tick, TokenSerial, Told, WaitSerial,
};
use core::time::Duration;

/// A session and the answers it has not acknowledged.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none a state of another")]
pub struct Session {
    pub live: bool,
    pub ttl: Duration,
    pub identity: Vec<u8>,
    pub key: Vec<u8>,
    pub visiting: bool,
    /// When silence ends it; `None` while somebody else watches it.
    pub deadline: Option<Tick>,
    /// The same without renewals.
    pub granted: Option<Tick>,
    /// Opened or resumed since the last take-over.
    pub fresh: bool,
    /// Renewed no more: doomed or replaced.
    pub closed_to_renewal: bool,
    /// When an unconfirmed kill dooms it.
    pub kill_due: Option<Tick>,
    /// Every kept answer there ever was, in order; the first `acknowledged` are forgotten.
    pub kept: Vec<(u64, ResourceIndex, Reply)>,
    pub acknowledged: usize,
}

/// A hold.
#[derive(Clone, Debug)]
pub struct Grant {
    pub live: bool,
    pub session: SessionSerial,
    pub resource: ResourceIndex,
    pub owner: u64,
    pub mode: Mode,
    pub levels: u32,
    pub token: Option<TokenSerial>,
    pub fence: Option<TokenSerial>,
    pub notify: bool,
    pub lock_delay_ms: u32,
    pub hold_until: Option<Tick>,
    pub max_hold_ms: u32,
    /// When an unconfirmed break dooms the session.
    pub break_due: Option<Tick>,
    /// Whether it blocked somebody when last looked at.
    pub blocking: bool,
    /// The request for several locks that has taken it and has not got all: nobody knows of it.
    pub part_of: Option<BundleSerial>,
}

/// Which of the two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Conversions,
    Waits,
}

/// A waiting request. The serial is the order of enqueueing.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub live: bool,
    pub line: Line,
    pub session: SessionSerial,
    pub request: u64,
    pub ask: Ask,
    pub resource: ResourceIndex,
    pub mode: Mode,
    pub owner: u64,
    pub since: Tick,
    pub until: Option<Tick>,
    /// The grant it converts.
    pub converts: Option<GrantSerial>,
    pub bundle: Option<BundleSerial>,
    pub priority: u8,
    /// How often somebody who came later was let in before it.
    pub passed: u32,
}

/// Keeps others out after an expiry.
#[derive(Clone, Debug)]
pub struct Delay {
    pub until: Tick,
    pub identity: Vec<u8>,
    pub key: Vec<u8>,
}

/// What is remembered of a resource beside its grants and waits.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    pub delay: Option<Delay>,
    pub holder_died: bool,
    /// First token of the present unbroken run of PR holders.
    pub run_first: Option<TokenSerial>,
}

/// The whole model.
#[derive(Clone, Debug)]
pub struct Model {
    pub bounds: Bounds,
    pub house: House,
    /// Where something happened, so that it is to be looked at who is next, in order.
    pub stirred: Vec<ResourceIndex>,
    /// How often somebody was next because of what he inherits.
    pub inherited: u64,
    /// Lawful passes.
    pub bypasses: u64,
    pub now: Tick,
    pub sessions: Vec<Session>,
    pub grants: Vec<Grant>,
    pub waits: Vec<Waiting>,
    pub bundles: Vec<Bundle>,
    /// Bundles that got what they waited for and have not gone on yet.
    pub let_in: Vec<BundleSerial>,
    pub resources: Vec<Resource>,
    pub tokens: TokenSerial,
    pub facts: Vec<Fact>,
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    pub ttl: Duration,
    pub lease: Lease,
    pub visiting: bool,
    pub identity: Vec<u8>,
    pub key: Vec<u8>,
    pub predecessor_gone: bool,
}

impl Model {
    pub fn new(house: House, bounds: Bounds) -> Model {
        Model {
            bounds,
            house,
            stirred: Vec::new(),
            inherited: 0,
            bypasses: 0,
            now: Tick::ZERO,
            sessions: Vec::new(),
            grants: Vec::new(),
            waits: Vec::new(),
            bundles: Vec::new(),
            let_in: Vec::new(),
            resources: vec![Resource::default(); house.len()],
            tokens: 0,
            facts: Vec::new(),
        }
    }

    pub fn say(&mut self, resource: Option<ResourceIndex>, said: Said) {
        self.facts.push(Fact { resource, said });
    }

    pub fn answer(&mut self, session: SessionSerial, request: u64, resource: ResourceIndex, reply: Reply) {
        let kept = reply.is_kept();
        if kept {
            self.sessions[session].kept.push((request, resource, reply));
        }
        self.say(Some(resource), Said::Answered { session, request, reply, kept });
    }

    // ---- sessions -----------------------------------------------------------------------------------------------

    pub fn open(&mut self, open: &Opening) {
        let same_identity = |s: &Session| s.live && !open.identity.is_empty() && s.identity == open.identity;
        // A visiting session was let in by its home already.
        if !open.visiting && self.sessions.iter().any(|s| same_identity(s) && s.key != open.key) {
            self.say(None, Said::NotOpened { refusal: Refusal::Denied });
            return;
        }
        // Whoever takes the place of another needs none of its own; a visiting session has its place at home.
        let takes_a_place = open.predecessor_gone && self.sessions.iter().any(same_identity);
        let is_full = self.live_sessions().len() >= self.bounds.sessions as usize;
        if !open.visiting && is_full && !takes_a_place {
            self.say(None, Said::NotOpened { refusal: Refusal::Quota });
            return;
        }
        for old in (0..self.sessions.len()).rev() {
            if !same_identity(&self.sessions[old]) || self.sessions[old].key != open.key {
                continue;
            }
            if open.predecessor_gone {
                self.depart(old, Ended::Replaced);
            } else {
                self.renew_no_more(old);
            }
        }
        self.serve_all();
        self.sessions.push(Session {
            live: true,
            ttl: open.ttl,
            identity: open.identity.clone(),
            key: open.key.clone(),
            visiting: open.visiting,
            deadline: (open.lease == Lease::Heartbeat).then(|| self.now.after(open.ttl)),
            granted: (open.lease == Lease::Heartbeat).then(|| self.now.after(open.ttl)),
            fresh: true,
            closed_to_renewal: false,
            kill_due: None,
            kept: Vec::new(),
            acknowledged: 0,
        });
        let session = self.sessions.len() - 1;
        self.say(None, Said::Opened { session });
    }

    /// From now on nothing renews the session; one that only somebody's word would end runs out a ttl from now.
    pub fn renew_no_more(&mut self, session: SessionSerial) {
        let now = self.now;
        let s = &mut self.sessions[session];
        if !s.closed_to_renewal {
            s.closed_to_renewal = true;
            if !s.visiting {
                s.deadline = s.deadline.or(Some(now.after(s.ttl)));
                if s.fresh {
                    s.granted = Some(now.after(s.ttl));
                }
            }
            s.fresh = false;
            self.say(None, Said::Doomed { session });
        }
    }

    /// Whether the renewal counts.
    pub fn renew(&mut self, session: SessionSerial) -> bool {
        let now = self.now;
        let s = &mut self.sessions[session];
        if !s.live || s.closed_to_renewal || !(s.fresh || s.visiting) {
            return false;
        }
        if s.deadline.is_some() {
            s.deadline = Some(now.after(s.ttl));
        }
        true
    }

    pub fn acknowledge(&mut self, session: SessionSerial, received: u64) {
        let s = &mut self.sessions[session];
        let received = usize::try_from(received).unwrap_or(usize::MAX).min(s.kept.len());
        s.acknowledged = s.acknowledged.max(received);
    }

    pub fn end(&mut self, session: SessionSerial, why: Ended) {
        self.depart(session, why);
        self.serve_all();
    }

    pub fn serve_all(&mut self) {
        while !self.stirred.is_empty() {
            self.serve(self.stirred[0]);
        }
    }

    pub fn stir(&mut self, resource: ResourceIndex) {
        if !self.stirred.contains(&resource) {
            self.stirred.push(resource);
        }
    }

    /// A wait ends, with a grant or without.
    pub fn leave(&mut self, wait: WaitSerial) {
        assert!(self.waits[wait].live, "a wait ends once");
        self.waits[wait].live = false;
        self.stir(self.waits[wait].resource);
    }

    /// A session goes with everything it has; who is next is asked when all have gone that go.
    fn depart(&mut self, session: SessionSerial, why: Ended) {
        if !self.sessions[session].live {
            return;
        }
        self.sessions[session].live = false;
        self.say(None, Said::Over { session, why });
        for w in self.live_waits(|w| w.session == session) {
            self.leave(w);
        }
        let held: Vec<GrantSerial> = self.live_grants(|g| g.session == session);
        for &grant in &held {
            if let Some(bundle) = self.grants[grant].part_of {
                // Nobody wrote under it; a hint that it was to tell is still to be told.
                let taken = &self.bundles[bundle].taken;
                let died = taken.iter().any(|&(taken, died)| taken == grant && died);
                self.resources[self.grants[grant].resource].holder_died |= died;
                self.drop_grant(grant);
                continue;
            }
            if matches!(why, Ended::Expired | Ended::Died) {
                self.delay_others(grant);
            }
            let g = &self.grants[grant];
            let resource = g.resource;
            if why != Ended::Closed && g.mode.writes() {
                self.resources[resource].holder_died = true;
            }
            self.drop_grant(grant);
        }
    }

    fn delay_others(&mut self, grant: GrantSerial) {
        let g = &self.grants[grant];
        if g.lock_delay_ms == 0 {
            return;
        }
        let until = self.now.after_millis(u64::from(g.lock_delay_ms));
        let owner = &self.sessions[g.session];
        let delay = Delay { until, identity: owner.identity.clone(), key: owner.key.clone() };
        let present = &mut self.resources[g.resource].delay;
        if present.as_ref().is_none_or(|present| present.until < until) {
            *present = Some(delay);
        }
    }

    pub fn live_grants(&self, which: impl Fn(&Grant) -> bool) -> Vec<GrantSerial> {
        (0..self.grants.len()).filter(|&g| self.grants[g].live && which(&self.grants[g])).collect()
    }

    pub fn live_waits(&self, which: impl Fn(&Waiting) -> bool) -> Vec<WaitSerial> {
        (0..self.waits.len()).filter(|&w| self.waits[w].live && which(&self.waits[w])).collect()
    }

    pub fn live_sessions(&self) -> Vec<SessionSerial> {
        (0..self.sessions.len()).filter(|&s| self.sessions[s].live).collect()
    }

    /// The order of what one command told a session about several resources is the table's to choose; the client
    /// counts in that order, so the model keeps it.
    pub fn adopt_order(&mut self, session: SessionSerial, requests: &[u64]) {
        let kept = &mut self.sessions[session].kept;
        let first_new = kept.len() - requests.len();
        kept[first_new..].sort_by_key(|&(request, ..)| requests.iter().position(|&r| r == request));
    }

    // ---- requests, exactly once ---------------------------------------------------------------------------------

    pub fn request(&mut self, session: SessionSerial, request: u64, ask: Ask) {
        let resource = self.resource_of(session, ask);
        if !self.sessions[session].live {
            self.say(
                Some(resource),
                Said::Answered {
                    session,
                    request,
                    reply: Reply::Refused(Refusal::SessionUnknown),
                    kept: false,
                },
            );
            return;
        }
        if let Some(&w) = self.live_waits(|w| w.session == session && w.request == request).first() {
            if self.waits[w].ask != ask {
                self.answer(session, request, resource, Reply::Refused(Refusal::ReplayMismatch));
            }
            return;
        }
        let s = &self.sessions[session];
        let kept = s.kept[s.acknowledged..].iter().filter(|&&(number, ..)| number == request);
        let kept: Vec<_> = kept.copied().collect();
        for &(_, at, reply) in &kept {
            self.say(Some(at), Said::Answered { session, request, reply, kept: false });
        }
        if !kept.is_empty() {
            return;
        }
        let s = &self.sessions[session];
        if s.kept.len() - s.acknowledged >= self.bounds.unacknowledged {
            self.answer(session, request, resource, Reply::Refused(Refusal::Busy));
            return;
        }
        match ask {
            Ask::Acquire { .. } => self.acquire(session, request, ask),
            Ask::AcquireAll { .. } => self.acquire_all(session, request, ask),
            Ask::Release { grant } => self.release(session, request, grant, resource),
            Ask::Convert { grant, mode, wait } => self.convert(session, request, ask, (grant, mode, wait)),
            Ask::Cancel { target } => self.cancel(session, request, target, resource),
        }
    }

    /// The resource in whose order the answer stands.
    fn resource_of(&self, session: SessionSerial, ask: Ask) -> ResourceIndex {
        match ask {
            Ask::Acquire { resource, .. } => resource,
            Ask::AcquireAll { .. } => ask.wanted()[0].0,
            Ask::Release { grant } | Ask::Convert { grant, .. } => self.grants[grant].resource,
            Ask::Cancel { target } => {
                let waiting = self.live_waits(|w| w.session == session && w.request == target);
                waiting.first().map_or(0, |&w| self.waits[w].resource)
            }
        }
    }

    fn acquire(&mut self, session: SessionSerial, request: u64, ask: Ask) {
        let Ask::Acquire { resource, mode, priority, owner, reentrant, wait, .. } = ask else {
            unreachable!()
        };
        let own = self.live_grants(|g| g.resource == resource && g.session == session && g.owner == owner);
        if let Some(&again) = own
            .iter()
            .filter(|&&g| self.grants[g].part_of.is_none() && self.grants[g].break_due.is_none())
            .find(|&&g| reentrant && self.grants[g].mode.covers(mode))
        {
            if self.grants[again].levels > self.bounds.reentry {
                self.answer(session, request, resource, Reply::Refused(Refusal::HoldLimit));
                return;
            }
            self.grants[again].levels += 1;
            let told = Told { reentered: true, ..self.told(again, 0, false) };
            self.answer(session, request, resource, Reply::Granted(told));
            return;
        }
        if own.iter().any(|&g| !self.grants[g].mode.compatible(mode)) {
            self.answer(session, request, resource, Reply::Refused(Refusal::AlreadyHeld));
            return;
        }
        let newcomer = Newcomer { session, owner, resource, mode, priority };
        if self.may_enter(newcomer, None) {
            self.pass_all(resource, mode);
            let died = mode != Mode::NL && core::mem::take(&mut self.resources[resource].holder_died);
            self.grant_new(session, request, ask, 0, died);
        } else {
            self.enqueue(Line::Waits, session, request, ask, wait, None);
        }
    }

    fn release(&mut self, session: SessionSerial, request: u64, grant: GrantSerial, resource: ResourceIndex) {
        let g = &mut self.grants[grant];
        if !g.live || g.session != session {
            self.answer(session, request, resource, Reply::Refused(Refusal::NotHeld));
            return;
        }
        let remaining = g.levels - 1;
        if remaining > 0 {
            g.levels = remaining;
        } else {
            self.end_grant(grant);
        }
        self.answer(session, request, resource, Reply::Released { remaining });
        self.serve_all();
    }

    fn cancel(&mut self, session: SessionSerial, request: u64, target: u64, resource: ResourceIndex) {
        let waiting = self.live_waits(|w| w.session == session && w.request == target);
        let was_waiting = !waiting.is_empty();
        for w in waiting {
            self.leave(w);
            if let Some(bundle) = self.waits[w].bundle {
                self.give_up(bundle);
            }
            self.answer(session, target, resource, Reply::Refused(Refusal::Cancelled));
        }
        self.answer(session, request, resource, Reply::Withdrawn { was_waiting });
        self.serve_all();
    }

    // ---- operators ----------------------------------------------------------------------------------------------

    pub fn break_lock(&mut self, resource: ResourceIndex, force: bool) {
        let held = self.live_grants(|g| g.resource == resource);
        for &grant in &held {
            if let Some(bundle) = self.grants[grant].part_of {
                // Nobody uses it, so nobody is asked.
                let Bundle { session, request, .. } = self.bundles[bundle];
                self.give_up(bundle);
                for w in self.live_waits(|w| w.bundle == Some(bundle)) {
                    self.leave(w);
                }
                self.answer(session, request, resource, Reply::Refused(Refusal::Cancelled));
                continue;
            }
            let session = self.grants[grant].session;
            self.say(Some(resource), Said::Broken { session, grant, forced: force });
            if !force && self.grants[grant].break_due.is_none() {
                self.grants[grant].break_due = Some(self.now.after(self.sessions[session].ttl / 5));
            }
        }
        self.say(None, Said::Broke { holders: u32::try_from(held.len()).unwrap() });
        for grant in held.into_iter().filter(|_| force) {
            if self.grants[grant].live {
                self.end_grant(grant);
            }
        }
        self.serve_all();
    }

    pub fn confirm(&mut self, session: SessionSerial, grant: GrantSerial) {
        let g = &self.grants[grant];
        if g.live && g.session == session && g.break_due.is_some() {
            let resource = g.resource;
            self.end_grant(grant);
            self.serve(resource);
        }
    }

    pub fn kill(&mut self, session: SessionSerial, force: bool) {
        if !self.sessions[session].live {
            return;
        }
        if force {
            self.end(session, Ended::Killed);
            return;
        }
        self.say(None, Said::Killed { session });
        if self.sessions[session].kill_due.is_none() {
            self.sessions[session].kill_due = Some(self.now.after(self.sessions[session].ttl / 5));
        }
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    pub fn due(&self) -> Vec<Due> {
        let over = |moment: Option<Tick>| moment.is_some_and(|moment| moment <= self.now);
        let mut due = Vec::new();
        due.extend(self.live_waits(|w| over(w.until)).into_iter().map(Due::WaitOver));
        due.extend(self.live_grants(|g| over(g.hold_until)).into_iter().map(Due::HoldOver));
        for (resource, r) in self.resources.iter().enumerate() {
            if over(r.delay.as_ref().map(|delay| delay.until)) {
                due.push(Due::DelayOver(resource));
            }
        }
        for session in self.live_sessions() {
            let s = &self.sessions[session];
            let broken = self.live_grants(|g| g.session == session && over(g.break_due));
            if !s.closed_to_renewal && (over(s.kill_due) || !broken.is_empty()) {
                due.push(Due::Doom(session));
            }
            if over(s.deadline) {
                due.push(Due::Expire(session));
            }
        }
        due
    }

    /// When something will be due next.
    pub fn earliest(&self) -> Option<Tick> {
        let waits = self.live_waits(|_| true).into_iter().filter_map(|w| self.waits[w].until);
        let holds = self.live_grants(|_| true).into_iter().filter_map(|g| self.grants[g].hold_until);
        let delays = self.resources.iter().filter_map(|r| Some(r.delay.as_ref()?.until));
        let leases = self.live_sessions().into_iter().filter_map(|s| self.sessions[s].deadline);
        waits.chain(holds).chain(delays).chain(leases).min()
    }

    pub fn carry_out(&mut self, due: Due) {
        match due {
            Due::WaitOver(w) if self.waits[w].live => {
                self.leave(w);
                let Waiting { session, request, resource, bundle, .. } = self.waits[w];
                if let Some(bundle) = bundle {
                    self.give_up(bundle);
                }
                self.answer(session, request, resource, Reply::Refused(Refusal::Timeout));
                self.serve_all();
            }
            Due::HoldOver(grant) if self.grants[grant].live => {
                let Grant { session, resource, .. } = self.grants[grant];
                self.say(Some(resource), Said::HoldOver { session, grant });
                self.end_grant(grant);
                self.serve(resource);
            }
            Due::DelayOver(resource) => {
                if self.resources[resource].delay.as_ref().is_some_and(|delay| delay.until <= self.now) {
                    self.resources[resource].delay = None;
                    self.serve(resource);
                }
            }
            Due::Doom(session) if self.sessions[session].live => {
                self.renew_no_more(session);
            }
            Due::Expire(session) => self.end(session, Ended::Expired),
            Due::WaitOver(_) | Due::HoldOver(_) | Due::Doom(_) => {}
        }
    }
}

//! Several locks in one request, as they are specified: taken in canonical order, all or none, nothing told before all
//! are held; whatever fails on the way gives everything back. Resources stand in canonical order here.

use super::disciplines::Newcomer;
use super::table::{Line, Model, Waiting};
use super::{Ask, GrantSerial, Mode, Refusal, Reply, ResourceIndex, SessionSerial, Tick, Wait};

pub type BundleSerial = usize;

/// A request for several locks. The serial is the order of asking.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub session: SessionSerial,
    pub request: u64,
    pub ask: Ask,
    pub since: Tick,
    pub until: Option<Tick>,
    /// What it holds, with the hint of a death that goes with it.
    pub taken: Vec<(GrantSerial, bool)>,
    /// All were held in the end, and one of them after a wait.
    pub waited: bool,
}

impl Ask {
    /// What is asked for, in canonical order.
    pub fn wanted(self) -> Vec<(ResourceIndex, Mode)> {
        let Ask::AcquireAll { modes, .. } = self else { return Vec::new() };
        (0..).zip(modes).filter_map(|(resource, mode)| Some((resource, mode?))).collect()
    }
}

impl Model {
    fn own_conflicts(&self, session: SessionSerial, owner: u64, resource: ResourceIndex, mode: Mode) -> bool {
        let own = self.live_grants(|g| g.resource == resource && g.session == session && g.owner == owner);
        own.into_iter().any(|g| !self.grants[g].mode.compatible(mode))
    }

    pub fn acquire_all(&mut self, session: SessionSerial, request: u64, ask: Ask) {
        let Ask::AcquireAll { wait, owner, .. } = ask else { unreachable!() };
        let wanted = ask.wanted();
        let first = wanted[0].0;
        if wanted.iter().any(|&(resource, mode)| self.own_conflicts(session, owner, resource, mode)) {
            self.answer(session, request, first, Reply::Refused(Refusal::AlreadyHeld));
            return;
        }
        let open = |&(resource, mode): &(ResourceIndex, Mode)| {
            self.may_enter(Newcomer { session, owner, resource, mode, priority: 0 }, None)
        };
        if wait == Wait::Try && !wanted.iter().all(open) {
            self.answer(session, request, first, Reply::Refused(Refusal::WouldBlock));
            return;
        }
        let until = match wait {
            Wait::Millis(ms) => Some(self.now.after_millis(ms)),
            Wait::Try | Wait::Forever => None,
        };
        let since = self.now;
        self.bundles.push(Bundle { session, request, ask, since, until, taken: Vec::new(), waited: false });
        self.climb(self.bundles.len() - 1);
    }

    /// Takes one after the other; waits for the first that it cannot have.
    fn climb(&mut self, bundle: BundleSerial) {
        let Bundle { session, request, ask, since, until, .. } = self.bundles[bundle];
        let Ask::AcquireAll { owner, .. } = ask else { unreachable!() };
        let wanted = ask.wanted();
        while let Some(&(resource, mode)) = wanted.get(self.bundles[bundle].taken.len()) {
            if self.own_conflicts(session, owner, resource, mode) {
                self.fail(bundle, Refusal::AlreadyHeld);
                return;
            }
            if self.may_enter(Newcomer { session, owner, resource, mode, priority: 0 }, None) {
                self.pass_all(resource, mode);
                let died = mode != Mode::NL && core::mem::take(&mut self.resources[resource].holder_died);
                self.take_for(bundle, resource, mode, died);
                continue;
            }
            if self.live_waits(|w| w.resource == resource).len() >= self.bounds.waiters as usize {
                self.fail(bundle, Refusal::QueueFull);
                return;
            }
            self.join(Waiting {
                live: true,
                line: Line::Waits,
                session,
                request,
                ask,
                resource,
                mode,
                owner,
                since: self.now,
                until,
                converts: None,
                bundle: Some(bundle),
                priority: 0,
                passed: 0,
            });
            return;
        }
        let waited_us = u64::try_from(self.now.since(since).as_micros()).unwrap();
        self.bundles[bundle].waited = waited_us > 0;
        for (grant, died) in self.bundles[bundle].taken.clone() {
            self.grants[grant].part_of = None;
            let told = self.told(grant, waited_us, died);
            self.answer(session, request, self.grants[grant].resource, Reply::Granted(told));
        }
    }

    /// One of its locks is held now.
    pub fn take_for(&mut self, bundle: BundleSerial, resource: ResourceIndex, mode: Mode, died: bool) {
        let Bundle { session, ask, .. } = self.bundles[bundle];
        let Ask::AcquireAll { owner, .. } = ask else { unreachable!() };
        let single = Ask::Acquire {
            resource,
            mode,
            priority: 0,
            wait: Wait::Forever,
            owner,
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
        };
        let grant = self.new_grant(session, single);
        self.grants[grant].part_of = Some(bundle);
        self.bundles[bundle].taken.push((grant, died));
    }

    /// Gives back what was taken; who is next is the caller's to ask.
    pub fn give_up(&mut self, bundle: BundleSerial) {
        for (grant, died) in core::mem::take(&mut self.bundles[bundle].taken) {
            self.resources[self.grants[grant].resource].holder_died |= died;
            self.drop_grant(grant);
        }
    }

    fn fail(&mut self, bundle: BundleSerial, refusal: Refusal) {
        let Bundle { session, request, ask, .. } = self.bundles[bundle];
        self.give_up(bundle);
        self.answer(session, request, ask.wanted()[0].0, Reply::Refused(refusal));
        self.serve_all();
    }

    /// Those that were let in somewhere go on, the oldest first, when everything else is granted.
    pub fn go_on(&mut self) {
        while let Some(at) = (0..self.let_in.len()).min_by_key(|&at| self.let_in[at]) {
            let bundle = self.let_in.remove(at);
            self.climb(bundle);
        }
    }
}

//! Who is granted and who is next: the strict queue discipline, the modes and the tokens
//! and fences, rule by rule.

use super::disciplines::{Newcomer, REMOVES};
use super::table::{Grant, Line, Model, Waiting};
use super::{
    Ask, GrantSerial, Mode, Refusal, Reply, ResourceIndex, Said, SessionSerial, TokenSerial, Told, Wait,
    WaitSerial,
};
use fairlock_protocol::Discipline;

impl Model {
    pub fn line(&self, resource: ResourceIndex, line: Line) -> Vec<WaitSerial> {
        self.live_waits(|w| w.resource == resource && w.line == line)
    }

    /// Compatible with all of G, without the grant that is to be converted.
    fn fits(&self, resource: ResourceIndex, mode: Mode, without: Option<GrantSerial>) -> bool {
        self.live_grants(|g| g.resource == resource)
            .into_iter()
            .all(|g| Some(g) == without || self.grants[g].mode.compatible(mode))
    }

    /// Whether a lock delay keeps this session out: everybody but whoever comes with the identity that it guards.
    fn kept_out(&self, session: SessionSerial, resource: ResourceIndex) -> bool {
        let s = &self.sessions[session];
        self.resources[resource]
            .delay
            .as_ref()
            .is_some_and(|delay| s.identity.is_empty() || delay.identity != s.identity || delay.key != s.key)
    }

    /// Granted at once iff C and W are empty (or may be passed) and it is compatible with all of G; NL always.
    pub fn may_enter(&self, newcomer: Newcomer, without: Option<GrantSerial>) -> bool {
        let Newcomer { session, resource, mode, .. } = newcomer;
        mode == Mode::NL
            || (self.way_is_free(newcomer)
                && self.fits(resource, mode, without)
                && !self.kept_out(session, resource))
    }

    pub fn told(&self, grant: GrantSerial, waited_us: u64, previous_owner_died: bool) -> Told {
        let g = &self.grants[grant];
        Told {
            grant,
            token: if g.mode == Mode::NL { None } else { g.token },
            fence: g.fence,
            mode: g.mode,
            waited_us,
            previous_owner_died,
            reentered: false,
        }
    }

    fn new_token(&mut self) -> TokenSerial {
        self.tokens += 1;
        self.tokens
    }

    /// Sets a grant's mode and what follows for token and fence: a new token for a new tenure, the old one where
    /// the mode only sank; the fence as the rule of runs has it.
    fn set_mode(&mut self, grant: GrantSerial, mode: Mode, new_tenure: bool) {
        if new_tenure && mode != Mode::NL {
            self.grants[grant].token = Some(self.new_token());
        } else if mode == Mode::NL {
            self.grants[grant].token = None;
        }
        let token = self.grants[grant].token;
        let resource = self.grants[grant].resource;
        let others = self.live_grants(|g| g.resource == resource && g.mode == Mode::PR);
        let fence = match mode {
            Mode::PR => {
                if others.into_iter().all(|other| other == grant) {
                    self.resources[resource].run_first = token;
                }
                self.resources[resource].run_first
            }
            Mode::PW | Mode::EX => token,
            Mode::NL | Mode::CR | Mode::CW => None,
        };
        self.grants[grant].mode = mode;
        self.grants[grant].fence = fence;
    }

    pub fn grant_new(
        &mut self,
        session: SessionSerial,
        request: u64,
        ask: Ask,
        waited_us: u64,
        previous_owner_died: bool,
    ) {
        let grant = self.new_grant(session, ask);
        let told = self.told(grant, waited_us, previous_owner_died);
        self.answer(session, request, self.grants[grant].resource, Reply::Granted(told));
    }

    pub fn new_grant(&mut self, session: SessionSerial, ask: Ask) -> GrantSerial {
        let Ask::Acquire { resource, mode, owner, notify, lock_delay_ms, max_hold_ms, .. } = ask else {
            unreachable!()
        };
        assert!(self.sessions[session].live, "a grant to an ended session cannot exist");
        let hold_until = (max_hold_ms > 0).then(|| self.now.after_millis(u64::from(max_hold_ms)));
        self.grants.push(Grant {
            live: true,
            session,
            resource,
            owner,
            mode: Mode::NL,
            levels: 1,
            token: None,
            fence: None,
            notify,
            lock_delay_ms,
            hold_until,
            max_hold_ms,
            break_due: None,
            blocking: false,
            part_of: None,
        });
        let grant = self.grants.len() - 1;
        self.set_mode(grant, mode, true);
        grant
    }

    pub fn enqueue(
        &mut self,
        line: Line,
        session: SessionSerial,
        request: u64,
        ask: Ask,
        wait: Wait,
        converts: Option<GrantSerial>,
    ) {
        let (resource, mode, owner, priority) = match ask {
            Ask::Acquire { resource, mode, owner, priority, .. } => (resource, mode, owner, priority),
            Ask::Convert { grant, mode, .. } => {
                (self.grants[grant].resource, mode, self.grants[grant].owner, 0)
            }
            Ask::AcquireAll { .. } | Ask::Release { .. } | Ask::Cancel { .. } => {
                unreachable!("only these two wait here")
            }
        };
        let until = match wait {
            Wait::Try => {
                self.answer(session, request, resource, Reply::Refused(Refusal::WouldBlock));
                return;
            }
            Wait::Millis(ms) => Some(self.now.after_millis(ms)),
            Wait::Forever => None,
        };
        if self.live_waits(|w| w.resource == resource).len() >= self.bounds.waiters as usize {
            self.answer(session, request, resource, Reply::Refused(Refusal::QueueFull));
            return;
        }
        let (live, since) = (true, self.now);
        let bundle = None;
        let waiting = Waiting {
            live,
            line,
            session,
            request,
            ask,
            resource,
            mode,
            owner,
            since,
            until,
            converts,
            bundle,
            priority,
            passed: 0,
        };
        self.join(waiting);
    }

    /// Another mode for a grant: down at once, up at once or at the end of C, refused where two would wait for each other.
    pub fn convert(
        &mut self,
        session: SessionSerial,
        request: u64,
        ask: Ask,
        (grant, mode, wait): (GrantSerial, Mode, Wait),
    ) {
        let g = &self.grants[grant];
        let (resource, held) = (g.resource, g.mode);
        if !g.live || g.session != session {
            self.answer(session, request, resource, Reply::Refused(Refusal::NotHeld));
            return;
        }
        if !self.live_waits(|w| w.converts == Some(grant)).is_empty() {
            self.answer(session, request, resource, Reply::Refused(Refusal::BadConversion));
            return;
        }
        if held.covers(mode) {
            if held != mode {
                self.set_mode(grant, mode, false);
            }
            let told = self.told(grant, 0, false);
            self.answer(session, request, resource, Reply::Converted(told));
            self.serve(resource);
            return;
        }
        if held == Mode::NL {
            let owner = self.grants[grant].owner;
            let newcomer = Newcomer { session, owner, resource, mode, priority: 0 };
            if self.may_enter(newcomer, Some(grant)) {
                self.pass_all(resource, mode);
                let died = core::mem::take(&mut self.resources[resource].holder_died);
                self.convert_now(request, grant, mode, 0, died);
                self.serve(resource);
            } else {
                self.enqueue(Line::Waits, session, request, ask, wait, Some(grant));
            }
            return;
        }
        let queue = self.line(resource, Line::Conversions);
        if queue.is_empty() && self.fits(resource, mode, Some(grant)) && !self.kept_out(session, resource) {
            let died = core::mem::take(&mut self.resources[resource].holder_died);
            self.convert_now(request, grant, mode, 0, died);
            // Between CW and PR, which do not compare, an up-conversion lets some in that it kept out before.
            self.serve(resource);
            return;
        }
        let crossing = queue.into_iter().find(|&w| !self.waits[w].mode.compatible(held));
        if let (Some(w), true) = (crossing, wait != Wait::Try) {
            let other = &self.waits[w];
            let reply = Reply::Deadlock { session: other.session, owner: other.owner, mode: other.mode };
            self.answer(session, request, resource, reply);
            return;
        }
        self.enqueue(Line::Conversions, session, request, ask, wait, Some(grant));
    }

    fn convert_now(&mut self, request: u64, grant: GrantSerial, mode: Mode, waited_us: u64, died: bool) {
        self.set_mode(grant, mode, true);
        let told = self.told(grant, waited_us, died);
        let Grant { session, resource, .. } = self.grants[grant];
        self.answer(session, request, resource, Reply::Converted(told));
    }

    /// C from the head while the head is compatible with the rest of G; only when C is empty W the same way.
    pub fn serve(&mut self, resource: ResourceIndex) {
        self.stirred.retain(|&stirred| stirred != resource);
        let died = self.resources[resource].holder_died;
        loop {
            let conversions = self.line(resource, Line::Conversions);
            let next = self.next_of_waits(resource, REMOVES);
            self.inherited += u64::from(next != self.next_of_waits(resource, 0));
            let Some(head) = conversions.first().copied().or(next) else { return };
            let Waiting { session, request, ask, mode, since, converts, bundle, .. } = self.waits[head];
            if !self.fits(resource, mode, converts) || self.kept_out(session, resource) {
                return;
            }
            self.waits[head].live = false;
            if conversions.is_empty() {
                let earlier = self.line(resource, Line::Waits).into_iter().filter(|&w| w < head);
                self.pass(&earlier.collect::<Vec<_>>(), resource);
            }
            let waited_us = u64::try_from(self.now.since(since).as_micros()).unwrap();
            self.resources[resource].holder_died = false;
            if let Some(bundle) = bundle {
                self.take_for(bundle, resource, mode, died);
                self.let_in.push(bundle);
                continue;
            }
            match converts {
                Some(grant) => self.convert_now(request, grant, mode, waited_us, died),
                None => self.grant_new(session, request, ask, waited_us, died),
            }
        }
    }

    /// Ends a grant; a conversion that waits on it is answered. Who is next is the caller's to ask.
    pub fn end_grant(&mut self, grant: GrantSerial) {
        self.drop_grant(grant);
        for w in self.live_waits(|w| w.converts == Some(grant)) {
            self.leave(w);
            let Waiting { session, request, resource, .. } = self.waits[w];
            self.answer(session, request, resource, Reply::Refused(Refusal::Cancelled));
        }
    }

    pub fn drop_grant(&mut self, grant: GrantSerial) {
        assert!(self.grants[grant].live, "a grant ends once");
        self.grants[grant].live = false;
        self.stir(self.grants[grant].resource);
    }

    /// At the end of its queue. Where classes rise with age it is looked at once more who is next.
    pub fn join(&mut self, waiting: Waiting) {
        let resource = waiting.resource;
        self.waits.push(waiting);
        if self.house[resource].discipline == Discipline::Priority {
            self.serve(resource);
        }
    }

    /// Grants that begin to block somebody and wanted to know. Called once after each command.
    pub fn notice_blocking(&mut self) {
        for grant in self.live_grants(|_| true) {
            let g = &self.grants[grant];
            let (session, resource) = (g.session, g.resource);
            let mut blocked = self.live_waits(|w| {
                w.resource == resource && w.converts != Some(grant) && !w.mode.compatible(g.mode)
            });
            blocked.sort_by_key(|&w| self.waits[w].line == Line::Waits);
            let nobody_waits = self.live_waits(|w| w.resource == resource).is_empty();
            let (was_blocking, notify) = (g.blocking, g.notify);
            // Coalesced: whoever was told need not be told again before the queues were empty once.
            self.grants[grant].blocking = !nobody_waits && (was_blocking || !blocked.is_empty());
            if let (Some(&first), true) = (blocked.first(), notify) {
                let wanted = self.waits[first].mode;
                let waiters = u32::try_from(blocked.len()).unwrap();
                let late =
                    |&&w: &&WaitSerial| self.waits[w].bundle.is_some() && self.waits[w].since == self.now;
                let late = u32::try_from(blocked.iter().filter(late).count()).unwrap();
                let begins = !was_blocking;
                self.say(Some(resource), Said::Blocking { session, grant, wanted, waiters, late, begins });
            }
        }
    }
}

//! Plays a history against the real table, a backup of it, the model and the witness, and stops at the first thing on
//! which they differ. The story so far is part of the complaint, command by command, so that a failure can be
//! written down as a test of its own.

use super::judge::Judge;
use super::story::{Step, Wish};
use super::subject::Subject;
use super::table::{Model, Opening};
use super::takeover::Joining;
use super::witness::Witness;
use super::{Ask, Bounds, Ended, House, Lease, Mode, STRICT, SessionSerial, Tick};
use core::time::Duration;
use fairlock_locktable::command::{Acquire, AcquireAll, Attributes, Command, Item, Open};
use fairlock_locktable::effect::{Answer, Effect};
use fairlock_protocol::{Digest, Epoch, OwnerId, Priority, RequestId, Resource, Secret, SessionId, ShardId};

/// How many resources a history speaks of.
pub const RESOURCES: usize = 3;
/// In canonical order.
const NAMES: [&[u8]; RESOURCES] = [b"a", b"b", b"c"];
/// More due commands than this at one moment are one that never goes away.
pub(super) const DUE_MAX: usize = 1000;

/// The digest of a resource.
pub fn digest_of(resource: usize) -> Digest {
    Digest([7 + resource as u64, 1_u64 << 63 | resource as u64])
}

/// The namespace of a resource: the default one in a strict house, else one of its own, in canonical order.
pub fn namespace_of(house: House, resource: usize) -> &'static [u8] {
    if house == STRICT { b"" } else { [b"n0", b"n1", b"n2"][resource] }
}

fn resource_at(house: House, resource: usize) -> Resource<'static> {
    Resource::new(namespace_of(house, resource), NAMES[resource]).unwrap()
}

/// The same request for another mode.
fn changed_mode(ask: Ask, other: Mode) -> Ask {
    match ask {
        Ask::Acquire {
            resource,
            priority,
            wait,
            owner,
            reentrant,
            notify,
            lock_delay_ms,
            max_hold_ms,
            ..
        } => {
            let mode = other;
            Ask::Acquire {
                resource,
                mode,
                priority,
                wait,
                owner,
                reentrant,
                notify,
                lock_delay_ms,
                max_hold_ms,
            }
        }
        ask => ask,
    }
}

/// Everybody who follows a history.
#[derive(Debug)]
pub struct Play {
    pub table: Subject,
    /// They get what the log says, and nothing else.
    pub(super) backups: Vec<Subject>,
    pub(super) joined: u64,
    pub(super) joining: Option<Joining>,
    pub model: Model,
    pub judge: Judge,
    pub witness: Witness,
    pub(super) now: Tick,
    /// The moment of the last command.
    pub(super) last_command: Tick,
    asked: Vec<(SessionSerial, u64, Ask)>,
    requests: u64,
    pub(super) late: Vec<Command<'static>>,
    epoch: Epoch,
    opened: u32,
    pub(super) tale: Vec<String>,
    /// Commands applied so far.
    pub commands: u64,
    /// The effects of the last command.
    pub effects: Vec<Effect>,
    /// The effects of all commands before it.
    pub past: Vec<Effect>,
}

impl Play {
    pub fn new(bounds: Bounds) -> Play {
        Play::at(STRICT, bounds)
    }

    /// Where queues go by these rules.
    pub fn at(house: House, bounds: Bounds) -> Play {
        let epoch = Epoch::new(5).unwrap();
        Play {
            table: Subject::new(epoch, house, bounds, 1),
            backups: vec![Subject::new(epoch, house, bounds, 0x9E37_79B9_7F4A_7C15)],
            joined: 0,
            joining: None,
            model: Model::new(house, bounds),
            judge: Judge::default(),
            witness: Witness::new(house),
            now: Tick::from_millis(1_000_000),
            last_command: Tick::from_millis(1_000_000),
            asked: Vec::new(),
            requests: 0,
            late: Vec::new(),
            epoch,
            opened: 0,
            tale: Vec::new(),
            commands: 0,
            effects: Vec::new(),
            past: Vec::new(),
        }
    }

    /// Some clients with leases of five seconds, and the real bounds.
    pub fn house(clients: usize) -> Play {
        let mut play = Play::new(Bounds::REAL);
        for _ in 0..clients {
            play.open(0, false, false, 5000, 0).unwrap();
        }
        play
    }

    /// What the last command answered to whom, in order.
    pub fn answers(&self) -> Vec<(u64, Answer, bool)> {
        let answered = |effect: &Effect| match *effect {
            Effect::Answered { request, answer, kept, .. } => Some((request.0, answer, kept)),
            _ => None,
        };
        self.effects.iter().filter_map(answered).collect()
    }

    /// The first answer of the last command; `None` when there is none because the request waits.
    pub fn answer(&self) -> Option<Answer> {
        self.answers().first().map(|&(_, answer, _)| answer)
    }

    /// Plays a whole history and its end, in which everybody goes.
    pub fn whole(house: House, bounds: Bounds, steps: &[Step]) -> Result<Play, String> {
        let mut play = Play::at(house, bounds);
        let outcome = steps.iter().try_for_each(|step| play.step(step)).and_then(|()| play.curtain());
        match outcome {
            Ok(()) => Ok(play),
            Err(complaint) => Err(format!("{complaint}\nthe story so far:\n  {}", play.tale.join("\n  "))),
        }
    }

    /// Time passes until all limited waits and holds are over, then everybody leaves; nothing may remain.
    fn curtain(&mut self) -> Result<(), String> {
        self.pass(10_000, 0xFF)?;
        for session in self.model.live_sessions() {
            self.end(session, Ended::Closed)?;
        }
        self.pass(100_000, 0)?;
        self.finish_joining()?;
        let remain = (self.witness.held(), self.witness.waiting(), self.table.counts());
        if remain != (0, 0, (0, 0, 0)) {
            return Err(format!("remain at the end: {remain:?}"));
        }
        match self.table.leftovers() {
            (0, 0) => Ok(()),
            leftovers => Err(format!("locks and timers left: {leftovers:?}")),
        }
    }

    /// One step of a history.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        if self.model.live_sessions().is_empty() && matches!(step, Step::Acquire(_)) {
            // Nothing is learned from an empty house.
            self.open(0, false, false, 5000, 0)?;
        }
        match *step {
            Step::Open { identity, other_key, gone, ttl_ms, lease } => {
                self.open(identity, other_key, gone, ttl_ms, lease)
            }
            Step::End { session, why } => self.pick_session(session).map_or(Ok(()), |s| self.end(s, why)),
            Step::Acquire(ref wish) => self.pick_session(wish.session).map_or(Ok(()), |s| self.wish(s, wish)),
            Step::AcquireAll { session, modes, wait, owner } => {
                let Some(session) = self.pick_session(session) else { return Ok(()) };
                if modes.iter().all(Option::is_none) {
                    return Ok(());
                }
                self.ask_new(session, Ask::AcquireAll { modes, wait, owner: u64::from(owner) })
            }
            Step::Release { grant, by_another } => {
                let Some(grant) = self.pick_grant(grant) else { return Ok(()) };
                let session = self.grants_session(grant, by_another);
                self.ask_new(session, Ask::Release { grant })
            }
            Step::Convert { grant, mode, wait } => {
                let Some(grant) = self.pick_grant(grant) else { return Ok(()) };
                let session = self.grants_session(grant, false);
                self.ask_new(session, Ask::Convert { grant, mode, wait })
            }
            Step::Cancel { wait, of_nothing } => self.cancel(wait, of_nothing),
            Step::Again { back, changed } => self.again(back, changed),
            Step::Break { resource, force } => {
                let resource = usize::from(resource) % RESOURCES;
                let command = Command::Break { digest: digest_of(resource), force };
                self.perform(&command, false, |model, _| model.break_lock(resource, force))
            }
            Step::Kill { session, force } => {
                let Some(session) = self.pick_session(session) else { return Ok(()) };
                let command = Command::Kill { session: self.judge.key(session), force };
                self.perform(&command, false, |model, _| model.kill(session, force))
            }
            Step::Confirm { grant } => {
                let Some(grant) = self.pick_grant(grant) else { return Ok(()) };
                let session = self.model.grants[grant].session;
                let Some(id) = self.judge.grants[grant] else {
                    return Err(format!("grant {grant} has no id"));
                };
                let command = Command::Confirm { session: self.judge.key(session), grant: id };
                self.perform(&command, false, |model, _| model.confirm(session, grant))
            }
            Step::Pass { ms, renewed } => self.pass(ms, renewed),
            Step::Decide { ms } => self.decide(ms),
            Step::Acknowledge { session, missing } => self.acknowledge(session, missing, false),
            Step::Resume { session, missing } => self.acknowledge(session, missing, true),
            Step::Epoch => {
                let epoch = self.next_epoch()?;
                self.perform(&Command::Epoch(epoch), false, |_, _| {})
            }
            Step::TakeOver { by } => self.take_over(by),
            Step::Join => self.join(),
        }
    }

    fn acknowledge(&mut self, pick: u8, missing: u8, resumes: bool) -> Result<(), String> {
        let Some(serial) = self.pick_session(pick) else { return Ok(()) };
        let session = self.judge.key(serial);
        let kept = self.model.sessions[serial].kept.len();
        let received = kept.saturating_sub(usize::from(missing)) as u64;
        let command = if resumes {
            Command::Resume { session, received }
        } else {
            Command::Acknowledge { session, received }
        };
        self.perform(&command, false, |model, _| {
            model.acknowledge(serial, received);
            if resumes {
                model.resume(serial);
            }
        })
    }

    pub(super) fn next_epoch(&mut self) -> Result<Epoch, String> {
        self.epoch = self.epoch.next().ok_or("epochs are used up")?;
        Ok(self.epoch)
    }

    // ---- whom a step means ----------------------------------------------------------------------------------------

    fn pick_session(&self, pick: u8) -> Option<SessionSerial> {
        let all: Vec<SessionSerial> = (0..self.model.sessions.len()).collect();
        choose(pick, &self.model.live_sessions(), &all)
    }

    fn pick_grant(&self, pick: u8) -> Option<usize> {
        // Nobody can name what nobody was told of.
        let told = |grant: &usize| self.judge.grants.get(*grant).is_some_and(Option::is_some);
        let all: Vec<usize> = (0..self.model.grants.len()).filter(told).collect();
        choose(pick, &self.model.live_grants(|g| g.part_of.is_none()), &all)
    }

    fn grants_session(&self, grant: usize, by_another: bool) -> SessionSerial {
        let own = self.model.grants[grant].session;
        let other = self.model.live_sessions().into_iter().find(|&s| s != own);
        if by_another { other.unwrap_or(own) } else { own }
    }

    // ---- what it does ---------------------------------------------------------------------------------------------

    pub fn open(
        &mut self,
        identity: u8,
        other_key: bool,
        gone: bool,
        ttl_ms: u32,
        lease: u8,
    ) -> Result<(), String> {
        let identity: &[u8] = match identity {
            0 => b"",
            1 => b"one",
            _ => b"two",
        };
        let reclaim_key: &[u8] = if other_key { b"wrong" } else { b"key" };
        let visiting = lease == 2;
        let lease = if lease == 0 { Lease::Heartbeat } else { Lease::Watched };
        self.opened += 1;
        let open = Open {
            id: SessionId::new(self.epoch, ShardId(0), self.opened).unwrap(),
            secret: Secret(u128::from(self.opened)),
            ttl_ms,
            lease,
            visiting,
            identity,
            reclaim_key,
            predecessor_gone: gone,
            attributes: Attributes::default(),
        };
        let opening = Opening {
            ttl: Duration::from_millis(u64::from(ttl_ms)),
            lease,
            visiting,
            identity: identity.to_vec(),
            key: reclaim_key.to_vec(),
            predecessor_gone: gone,
        };
        self.perform(&Command::Open(open), false, |model, _| model.open(&opening))
    }

    pub fn end(&mut self, session: SessionSerial, why: Ended) -> Result<(), String> {
        let command = Command::End { session: self.judge.key(session), why };
        self.perform(&command, false, |model, _| model.end(session, why))
    }

    fn wish(&mut self, session: SessionSerial, wish: &Wish) -> Result<(), String> {
        self.ask_new(
            session,
            Ask::Acquire {
                resource: usize::from(wish.resource) % RESOURCES,
                mode: wish.mode,
                priority: wish.priority,
                wait: wish.wait,
                owner: u64::from(wish.owner),
                reentrant: wish.reentrant,
                notify: wish.notify,
                lock_delay_ms: wish.lock_delay_ms,
                max_hold_ms: wish.max_hold_ms,
            },
        )
    }

    fn cancel(&mut self, pick: u8, of_nothing: bool) -> Result<(), String> {
        let waits = self.model.live_waits(|_| true);
        let (session, target) = match choose(pick, &waits, &waits) {
            Some(wait) if !of_nothing => (self.model.waits[wait].session, self.model.waits[wait].request),
            _ => match self.pick_session(pick) {
                Some(session) => (session, 1_000_000),
                None => return Ok(()),
            },
        };
        self.ask_new(session, Ask::Cancel { target })
    }

    fn again(&mut self, back: u8, changed: bool) -> Result<(), String> {
        let Some(at) = self.asked.len().checked_sub(1 + usize::from(back) % 12) else { return Ok(()) };
        let (session, request, ask) = self.asked[at];
        let other = |mode: Mode| if mode == Mode::EX { Mode::CR } else { Mode::EX };
        let ask = match ask {
            _ if !changed => ask,
            Ask::Acquire { mode, .. } => changed_mode(ask, other(mode)),
            Ask::AcquireAll { mut modes, wait, owner } => {
                if let Some(last) = modes.iter_mut().flatten().last() {
                    *last = other(*last);
                }
                Ask::AcquireAll { modes, wait, owner }
            }
            Ask::Convert { grant, mode, wait } => Ask::Convert { grant, mode: other(mode), wait },
            Ask::Release { .. } | Ask::Cancel { .. } => Ask::Cancel { target: 1_000_001 },
        };
        self.ask(session, request, ask)
    }

    /// A request under the next number.
    pub fn ask_new(&mut self, session: SessionSerial, ask: Ask) -> Result<(), String> {
        self.requests += 1;
        self.ask(session, self.requests, ask)
    }

    pub fn ask(&mut self, session: SessionSerial, request: u64, ask: Ask) -> Result<(), String> {
        self.asked.push((session, request, ask));
        let key = self.judge.key(session);
        let number = RequestId(request);
        let real = |judge: &Judge, grant: usize| {
            judge.grants[grant].ok_or_else(|| format!("grant {grant} has no id"))
        };
        let items: Vec<Item<'_>> = ask
            .wanted()
            .into_iter()
            .map(|(resource, mode)| Item {
                digest: digest_of(resource),
                resource: resource_at(self.model.house, resource),
                mode,
            })
            .collect();
        let command = match ask {
            Ask::AcquireAll { wait, owner, .. } => Command::AcquireAll(AcquireAll {
                session: key,
                request: number,
                items: &items,
                wait,
                owner: OwnerId(owner),
                label: b"",
            }),
            Ask::Acquire {
                resource,
                mode,
                priority,
                wait,
                owner,
                reentrant,
                notify,
                lock_delay_ms,
                max_hold_ms,
            } => Command::Acquire(Acquire {
                session: key,
                request: number,
                digest: digest_of(resource),
                resource: resource_at(self.model.house, resource),
                mode,
                priority: Priority::new(priority).unwrap(),
                wait,
                owner: OwnerId(owner),
                reentrant,
                notify,
                lock_delay_ms,
                max_hold_ms,
                label: b"",
            }),
            Ask::Release { grant } => {
                Command::Release { session: key, request: number, grant: real(&self.judge, grant)? }
            }
            Ask::Convert { grant, mode, wait } => Command::Convert {
                session: key,
                request: number,
                grant: real(&self.judge, grant)?,
                mode,
                wait,
            },
            Ask::Cancel { target } => {
                Command::Cancel { session: key, request: number, target: RequestId(target) }
            }
        };
        self.perform(&command, false, |model, _| model.request(session, request, ask))
    }

    /// One command to everybody.
    pub fn perform(
        &mut self,
        command: &Command<'_>,
        by_time: bool,
        follow: impl FnOnce(&mut Model, &[Effect]),
    ) -> Result<(), String> {
        self.commands += 1;
        self.last_command = self.now;
        let effects = self.table.apply(self.now, command);
        self.tale.push(format!("{:?} {command:?}\n     -> {effects:?}", self.now));
        self.follow(command, &effects)?;
        self.model.now = self.now;
        self.model.facts.clear();
        follow(&mut self.model, &effects);
        self.model.go_on();
        self.model.notice_blocking();
        self.judge.compare(&self.model.facts, &effects)?;
        self.adopt_order(&effects);
        self.witness.see(self.now, command, by_time, &effects)?;
        let sessions = self.model.live_sessions().len();
        let counts =
            (sessions, self.model.live_grants(|_| true).len(), self.model.live_waits(|_| true).len());
        if counts != self.table.counts() {
            return Err(format!("counts: model {counts:?}, table {:?}", self.table.counts()));
        }
        assert!(self.model.stirred.is_empty(), "the model left something undone");
        let passes = (self.table.overtakes_total(), self.table.bypasses_total());
        if passes != (0, self.model.bypasses) {
            return Err(format!("overtakes and bypasses: {passes:?}, model {}", self.model.bypasses));
        }
        self.table.audit();
        self.past.append(&mut self.effects);
        self.effects = effects;
        self.compare_views()
    }
}

impl Play {
    fn adopt_order(&mut self, effects: &[Effect]) {
        for session in self.model.live_sessions() {
            let key = self.judge.key(session);
            let told = |effect: &Effect| match *effect {
                Effect::Answered { session, request, kept: true, .. } if session == key => Some(request.0),
                _ => None,
            };
            let requests: Vec<u64> = effects.iter().filter_map(told).collect();
            self.model.adopt_order(session, &requests);
        }
    }
}

/// One of the living; of all that ever were with the highest picks, or when nobody lives.
fn choose(pick: u8, living: &[usize], all: &[usize]) -> Option<usize> {
    let from = if pick >= 246 || living.is_empty() { all } else { living };
    (!from.is_empty()).then(|| from[usize::from(pick) % from.len()])
}

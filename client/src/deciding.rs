//! The deciding half of a client: one session over all its shards, without sockets, threads and clocks. It is stepped with
//! the moment and what arrived, and says what is to be sent and what came of it, so that a simulator runs the very code that
//! a client runs. Who drives it connects, opens, and looks for the node that takes the session up.

use crate::error::LostCause;
use crate::session::{
    Answer, Ask, Beat, Bundle, Directions, Event as StreamEvent, Hold, Jitter, Lease, Passport, Pulse, Spec,
    Stream,
};
use fairlock_protocol::{
    FencingToken, Frame, GrantId, Mode, OwnerId, Refusal, RequestId, Secret, SessionId, ShardId, Tick, Wait,
    Welcome,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is asked of a lock.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name, in the default namespace.
    pub name: Box<[u8]>,
    /// For people, and for whoever checks.
    pub label: Box<str>,
    /// The mode.
    pub mode: Mode,
    /// How long to wait.
    pub wait: Wait,
    /// Which thread or task.
    pub owner: OwnerId,
    /// It may be entered again.
    pub reentrant: bool,
    /// How long others are kept out after an expiry.
    pub lock_delay_ms: u32,
    /// Longest hold; 0 for none.
    pub max_hold_ms: u32,
}

impl Wanted {
    fn spec(&self) -> Arc<Spec> {
        let mut spec = Spec::plain(&self.name);
        (spec.label, spec.mode, spec.wait) = (self.label.clone(), self.mode, self.wait);
        (spec.owner, spec.reentrant) = (self.owner, self.reentrant);
        (spec.lock_delay_ms, spec.max_hold_ms) = (self.lock_delay_ms, self.max_hold_ms);
        Arc::new(spec)
    }
}

/// What a guard stands for.
#[derive(Clone, Debug)]
pub struct Held {
    hold: Arc<Hold>,
    lease: Arc<Lease>,
}

impl Held {
    /// Until when it is certainly held.
    ///
    /// # Errors
    /// Why it is not held any more.
    pub fn check(&self, now: Tick) -> Result<Tick, LostCause> {
        self.hold.check(&self.lease, now)
    }

    /// The grant.
    pub fn grant(&self) -> GrantId {
        self.hold.grant()
    }

    /// The mode it is held in.
    pub fn mode(&self) -> Mode {
        self.hold.facts().mode
    }

    /// Its token; `None` for NL.
    pub fn token(&self) -> Option<FencingToken> {
        self.hold.facts().token
    }

    /// What is held.
    pub fn name(&self) -> &[u8] {
        &self.hold.spec.name
    }

    /// Who holds it.
    pub fn owner(&self) -> OwnerId {
        self.hold.spec.owner
    }

    /// Whether both are guards of one grant.
    pub fn is(&self, other: &Held) -> bool {
        Arc::ptr_eq(&self.hold, &other.hold)
    }
}

/// What came of something; the number is the one that was given with the question.
#[derive(Debug)]
pub enum Event {
    /// The lock is held.
    Granted(u64, Held),
    /// All of them are.
    GrantedAll(u64, Vec<Held>),
    /// The grant has the other mode.
    Converted(u64),
    /// The server refused.
    Refused(u64, Refusal),
    /// The session ended before there was an answer.
    Lost(u64, LostCause),
    /// The session is over.
    Over(LostCause),
    /// CLOSE was answered.
    Closed,
    /// The connection with this shard leads nowhere: break it, and try another node after so many milliseconds; the
    /// endpoints of the primary, when they were said.
    Elsewhere(ShardId, u32, Option<(u32, Box<str>)>),
    /// The epoch and the nodes, the primary first.
    Members(u32, Box<str>),
    /// Nothing was answered for too long: break every connection, and make others.
    Silent,
}

/// A server said what it must not say.
#[derive(Debug)]
pub struct Broken(pub String);

/// What OPENED and the WELCOME before it said.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The WELCOME.
    pub welcome: Welcome,
    /// The session.
    pub session: SessionId,
    /// Its secret.
    pub secret: Secret,
    /// Its lease.
    pub ttl: Duration,
    /// Its home.
    pub home: ShardId,
    /// When the OPEN was sent.
    pub sent: Tick,
}

/// One session over all its shards.
#[derive(Debug)]
pub struct Session {
    passport: Arc<Passport>,
    lease: Arc<Lease>,
    streams: Vec<Stream<u64>>,
    pulse: Pulse,
    ended: bool,
    events: Vec<Event>,
}

impl Session {
    /// The session that was opened; its home's stream goes on with the connection it was opened on. The seed decides small
    /// deviations of times.
    pub fn new(opened: &Opened, seed: u64) -> Session {
        let Opened { welcome, session, secret, ttl, home, sent } = *opened;
        let passport = Arc::new(Passport {
            identity: Mutex::new((session, secret)),
            home,
            shards: welcome.shards,
            digest_key: welcome.digest_key,
            cell: welcome.cell,
            epoch: AtomicU32::new(welcome.epoch),
        });
        let lease = Arc::new(Lease::new(sent, ttl));
        let streams = (0..welcome.shards).map(|index| {
            let (shard, jitter) = (ShardId(index), Jitter::new(seed.rotate_left(index.into())));
            let stream = Stream::new(shard, Arc::clone(&passport), Arc::clone(&lease), jitter);
            if shard == home { stream.opened(1, 0) } else { stream }
        });
        let streams = streams.collect();
        let pulse = Pulse::new(ttl, sent, Jitter::new(seed.rotate_left(17)));
        Session { passport, lease, streams, pulse, ended: false, events: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.passport.session()
    }

    /// Its home.
    pub fn home(&self) -> ShardId {
        self.passport.home
    }

    /// The highest epoch that was seen.
    pub fn epoch(&self) -> u32 {
        self.passport.epoch.load(Ordering::Relaxed)
    }

    /// Until when the lease is certain.
    ///
    /// # Errors
    /// Why it is over.
    pub fn lease(&self, now: Tick) -> Result<Tick, LostCause> {
        self.lease.check(now)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    /// The shard that owns a name.
    ///
    /// # Panics
    /// When it is no name.
    pub fn shard_of(&self, wanted: &Wanted) -> ShardId {
        let spec = wanted.spec();
        let resource = spec.resource().expect("whoever asks has checked the name");
        self.passport.digest_key.digest(resource).shard(self.passport.shards)
    }

    fn stream(&mut self, shard: ShardId) -> &mut Stream<u64> {
        &mut self.streams[usize::from(shard.0)]
    }

    /// Whether a connection with this shard is wanted.
    pub fn is_wanted(&self, shard: ShardId) -> bool {
        shard == self.home() || self.streams[usize::from(shard.0)].is_wanted()
    }

    /// Whether the shard has taken the session up on the present connection.
    pub fn is_live(&self, shard: ShardId) -> bool {
        self.streams[usize::from(shard.0)].is_live()
    }

    /// A connection stands: says HELLO, and RESUME after the WELCOME.
    pub fn connected(&mut self, shard: ShardId) {
        self.stream(shard).connected(0);
    }

    /// HELLO for a connection that stands by.
    pub fn greet(&self, shard: ShardId, features: u64, out: &mut Vec<u8>) {
        self.passport.hello(shard, features).encode(RequestId::NOTICE, 0, out);
    }

    /// Whether a node that says this belongs to the session's cell.
    pub fn fits(&self, shard: ShardId, welcome: &Welcome) -> bool {
        self.passport.fits(shard, welcome)
    }

    /// RESUME on a connection that stood by. Gives its number.
    pub fn ask_to_resume(&mut self, shard: ShardId, out: &mut Vec<u8>) -> RequestId {
        self.stream(shard).ask_to_resume(out)
    }

    /// That connection takes the stream; the RESUME was said at `sent`, and its answer is received next.
    pub fn resumes(&mut self, shard: ShardId, welcome: &Welcome, sent: Tick) {
        self.passport.epoch.fetch_max(welcome.epoch, Ordering::Relaxed);
        self.stream(shard).resumes(sent);
    }

    /// The connection with a shard is gone.
    pub fn disconnected(&mut self, shard: ShardId) {
        self.stream(shard).disconnected();
    }

    /// Takes one frame of a shard.
    ///
    /// # Errors
    /// [`Broken`]: the connection is to be broken.
    pub fn receive(&mut self, now: Tick, shard: ShardId, frame: &Frame<'_>) -> Result<(), Broken> {
        let result = self.stream(shard).receive(now, frame);
        self.follow(now, shard);
        result.map_err(|fault| Broken(format!("{fault:?}")))
    }

    /// The bytes that are to be sent to a shard, if there is a connection; the caller empties them.
    pub fn out(&mut self, shard: ShardId) -> &mut Vec<u8> {
        &mut self.stream(shard).out
    }

    /// What came of it since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Asks for a lock. `None` when the session is over.
    pub fn acquire(&mut self, now: Tick, wanted: &Wanted, ticket: u64) -> Option<(ShardId, RequestId)> {
        let shard = self.shard_of(wanted);
        let ask = Ask::Acquire(wanted.spec());
        Some((shard, self.submit(now, shard, ask, Some(ticket))?))
    }

    /// Asks for several locks of one shard. `None` when the session is over.
    pub fn acquire_all(
        &mut self,
        now: Tick,
        wanted: &[Wanted],
        wait: Wait,
        ticket: u64,
    ) -> Option<(ShardId, RequestId)> {
        let mut specs: Vec<Arc<Spec>> = wanted.iter().map(Wanted::spec).collect();
        specs.sort_by(|one, other| one.name.cmp(&other.name));
        let shard = self.shard_of(wanted.first()?);
        let ask = Ask::AcquireAll(Arc::new(Bundle { specs, wait }));
        Some((shard, self.submit(now, shard, ask, Some(ticket))?))
    }

    /// Asks for another mode. A weaker one is held from now on.
    pub fn convert(
        &mut self,
        now: Tick,
        held: &Held,
        mode: Mode,
        wait: Wait,
        ticket: u64,
    ) -> Option<(ShardId, RequestId)> {
        held.check(now).ok()?;
        let shard = self.shard_of_hold(held);
        let ask = Ask::Convert { grant: held.grant(), mode, wait };
        Some((shard, self.submit(now, shard, ask, Some(ticket))?))
    }

    fn submit(&mut self, now: Tick, shard: ShardId, ask: Ask, ticket: Option<u64>) -> Option<RequestId> {
        let id = self.stream(shard).submit(now, ask, ticket, true);
        self.follow(now, shard);
        id
    }

    fn shard_of_hold(&self, held: &Held) -> ShardId {
        let resource = held.hold.spec.resource().expect("it was granted");
        self.passport.digest_key.digest(resource).shard(self.passport.shards)
    }

    /// Gives a guard back.
    pub fn release(&mut self, now: Tick, held: &Held) {
        let shard = self.shard_of_hold(held);
        self.stream(shard).release(now, &held.hold);
        self.follow(now, shard);
    }

    /// Gives a request up.
    pub fn abandon(&mut self, now: Tick, (shard, request): (ShardId, RequestId)) {
        self.stream(shard).abandon(now, request);
        self.follow(now, shard);
    }

    /// Ends the session.
    pub fn close(&mut self, now: Tick) {
        self.end(now, LostCause::Closed);
    }

    /// Time went on: renewals, ends of leases and holds, requests that rested.
    pub fn tick(&mut self, now: Tick) {
        if let Err(cause) = self.lease.check(now) {
            self.end(now, cause);
        }
        for index in 0..self.passport.shards {
            self.stream(ShardId(index)).tick(now);
            self.follow(now, ShardId(index));
        }
        let home = self.home();
        let live = self.is_live(home);
        if let Some(confirmed) = self.lease.confirmed() {
            match self.pulse.beat(now, confirmed, live) {
                Beat::Wait(_) => {}
                Beat::Send(_) => {
                    self.submit(now, home, Ask::Keepalive, None);
                }
                Beat::Break => self.events.push(Event::Silent),
            }
        }
    }

    /// A moment at which [`Session::tick`] has something to do, or shortly before.
    pub fn next_due(&mut self, now: Tick) -> Tick {
        let mut due = self.streams.iter().filter_map(Stream::due).min().unwrap_or(Tick(u64::MAX));
        if let Ok(deadline) = self.lease.check(now) {
            due = due.min(deadline);
        }
        // A beat comes every fifth of the lease; looking four times as often is soon enough.
        due.min(now.after(self.lease.ttl() / 20))
    }

    fn end(&mut self, now: Tick, cause: LostCause) {
        self.lease.end(cause);
        let cause = self.lease.check(now).err().unwrap_or(cause);
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        for index in 0..self.passport.shards {
            self.stream(ShardId(index)).end(cause);
            self.follow(now, ShardId(index));
        }
        if !matches!(cause, LostCause::Session(_)) {
            let home = self.home();
            self.submit(now, home, Ask::Close, None);
        }
        self.events.push(Event::Over(cause));
    }

    /// Does what follows from what a stream learned.
    fn follow(&mut self, now: Tick, shard: ShardId) {
        for event in self.stream(shard).take_events() {
            let lease = Arc::clone(&self.lease);
            let held = |hold| Held { hold, lease: Arc::clone(&lease) };
            let news = match event {
                StreamEvent::Answered(ticket, Answer::Granted(hold)) => Event::Granted(ticket, held(hold)),
                StreamEvent::Answered(ticket, Answer::GrantedAll(holds)) => {
                    Event::GrantedAll(ticket, holds.into_iter().map(held).collect())
                }
                StreamEvent::Answered(ticket, Answer::Converted) => Event::Converted(ticket),
                StreamEvent::Answered(ticket, Answer::Refused(refusal, _)) => Event::Refused(ticket, refusal),
                StreamEvent::Answered(ticket, Answer::Lost(cause)) => Event::Lost(ticket, cause),
                StreamEvent::Over(cause) => {
                    self.end(now, cause);
                    continue;
                }
                StreamEvent::Closed => Event::Closed,
                StreamEvent::Elsewhere(ms, to) => Event::Elsewhere(shard, ms, to.map(plain)),
                StreamEvent::Members(said) => {
                    let (epoch, nodes) = plain(said);
                    Event::Members(epoch, nodes)
                }
                StreamEvent::HoldOver(_) | StreamEvent::Notice(_) | StreamEvent::Rearm => continue,
            };
            self.events.push(news);
        }
    }
}

fn plain(said: Directions) -> (u32, Box<str>) {
    (said.epoch, said.endpoints)
}

//! One lane's connections to the other nodes of its cell: they stand by while the lane talks, and when it has lost its own
//! connection they look for the node that takes the session up.
//!
//! All are made at once and say HELLO by themselves; which of them may say RESUME is decided here, one at a time, so that
//! no two connections to one node (under two names, say) take the session from each other. A node that refuses is asked
//! again after a moment, a node that does not answer is left for the next, if there is one that may be asked. The one that
//! is answered becomes the lane's connection, answer and all.

use super::core::Core;
use super::lane::Lane;
use super::nodes::Nodes;
use super::session::Session;
use super::tender::RESUME_TIME;
use crate::clock;
use crate::dial::Inbox;
use crate::session::{Directions, Jitter, Passport};
use crate::transport::{self, Link, Road, Target};
use fairlock_protocol::handshake::FEATURE_STANDBY;
use fairlock_protocol::{Class, Reply, RequestId, Role, ShardId, Tick, Welcome};
use rustix::event::PollFlags;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// First pause before a node that does not take the session is asked again; a takeover takes tens of milliseconds.
const ASK_PAUSE: Duration = Duration::from_millis(2);
/// Longest such pause.
const ASK_PAUSE_MAX: Duration = Duration::from_millis(20);
/// Longest pause before a node that cannot be reached is tried again, while the session has no home.
const SEEK_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Pause before a connection that only stands by is made again.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const STANDBY_PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long a node may take to answer RESUME before another one is asked; doubled for a node each time it took longer, so
/// that one who is slow, beside others who refuse at once, has its time in the end.
const PATIENCE: Duration = Duration::from_millis(50);
/// While no other may be asked, a node may take this part of the lease, doubled likewise: its connection may lead nowhere
/// unnoticed.
const PART_OF_LEASE: u32 = 8;

/// What a lane needs of its spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing: there is no other node.
    Nothing,
    /// To be there.
    Standby,
    /// A new connection for the session.
    Home,
}

/// Whose spares these are.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) core: &'a Core,
    pub(super) session: &'a Arc<Session>,
    pub(super) lane: &'a Lane,
}

/// The spares of one lane.
#[derive(Debug)]
pub(super) struct Spares {
    nodes: Vec<Spare>,
    revision: u64,
    /// Of the newest news.
    epoch: u32,
    /// The lane has no connection.
    seeks: bool,
    jitter: Jitter,
}

/// One node.
#[derive(Debug)]
struct Spare {
    places: Vec<Target>,
    line: Option<Line>,
    /// When to connect, or, once it stands, when to ask for the session.
    due: Tick,
    tries: u32,
    /// RESUMEs that it did not answer in time, since the lane lost its connection.
    unanswered: u32,
}

#[derive(Debug)]
struct Line {
    link: Arc<Link>,
    target: Target,
    inbox: Inbox,
    out: Vec<u8>,
    stage: Stage,
    /// When it is given up, unless it has come further.
    until: Tick,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Connecting,
    Greeting,
    Standing(Welcome),
    /// RESUME was said.
    Asking(Asked),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    welcome: Welcome,
    /// Its number, and when it was said.
    id: RequestId,
    sent: Tick,
    /// When another one is asked, if there is one who may be.
    patient_until: Tick,
}

/// What a message means.
enum Meaning {
    /// Nothing.
    None,
    Welcomed(Welcome),
    /// Ask again: now, or after so long.
    Again(Option<u32>),
    /// The connection leads nowhere, for so long.
    Nowhere(Duration),
    /// Whatever it is, it answers the RESUME.
    Answer,
}

impl Spares {
    pub(super) fn new(jitter: Jitter) -> Spares {
        Spares { nodes: Vec::new(), revision: 0, epoch: 0, seeks: false, jitter }
    }

    /// The session is another one: what was asked for the one before is not waited for.
    pub(super) fn forget_asked(&mut self) {
        for spare in &mut self.nodes {
            spare.line.take_if(|line| line.is_asking());
        }
    }

    /// Looks at everything; the earliest moment at which something is due.
    pub(super) fn pass(&mut self, owner: Owner<'_>, want: Want, now: Tick) -> Tick {
        if want == Want::Nothing {
            *self = Spares::new(self.jitter.clone());
            return Tick(u64::MAX);
        }
        self.follow_nodes(&owner.core.nodes);
        self.begin(want == Want::Home, now);
        let here = if self.seeks { None } else { owner.lane.at() };
        for index in 0..self.nodes.len() {
            self.look_after(owner, index, here.as_ref(), now);
        }
        if self.seeks {
            self.ask_one(owner, now);
        }
        self.due(here.as_ref())
    }

    /// Every node has its spare. News of the cell is a reason to try those again that were not to be had: a node that was
    /// started again may be the next primary.
    fn follow_nodes(&mut self, nodes: &Nodes) {
        let epoch = nodes.epoch();
        if std::mem::replace(&mut self.epoch, epoch) < epoch {
            for spare in self.nodes.iter_mut().filter(|spare| spare.line.is_none()) {
                (spare.due, spare.tries) = (Tick::ZERO, 0);
            }
        }
        if self.revision == nodes.revision() {
            return;
        }
        let (known, revision) = nodes.by_node();
        self.revision = revision;
        self.nodes.retain(|spare| known.iter().any(|places| places[0].is_same_node(&spare.places[0])));
        for places in known {
            match self.nodes.iter_mut().find(|spare| spare.places[0].is_same_node(&places[0])) {
                Some(spare) => spare.places = places,
                None => {
                    self.nodes.push(Spare { places, line: None, due: Tick::ZERO, tries: 0, unanswered: 0 });
                }
            }
        }
    }

    /// The lane has lost its connection: nothing that was put off waits any longer. Or it has one.
    fn begin(&mut self, seeks: bool, now: Tick) {
        if std::mem::replace(&mut self.seeks, seeks) == seeks {
            return;
        }
        for spare in &mut self.nodes {
            (spare.tries, spare.unanswered) = (0, 0);
            spare.due = if seeks || spare.line.is_some() { Tick::ZERO } else { now.after(STANDBY_PAUSE) };
        }
    }

    fn look_after(&mut self, owner: Owner<'_>, index: usize, here: Option<&Target>, now: Tick) {
        let spare = &self.nodes[index];
        if here.is_some_and(|here| here.is_same_node(&spare.places[0])) {
            self.nodes[index].line = None;
            return;
        }
        match &spare.line {
            None if spare.due <= now => self.dial(owner, index, now),
            Some(line) if self.until(line) <= now => {
                self.nodes[index].unanswered += u32::from(line.is_asking());
                self.lose(index, now, Duration::ZERO);
            }
            _ => {}
        }
    }

    /// When a connection that comes no further is given up: one that was asked for the session not before another may be.
    fn until(&self, line: &Line) -> Tick {
        let Stage::Asking(asked) = line.stage else { return line.until };
        let others = self.nodes.iter().filter(|spare| spare.stands()).map(|spare| spare.due);
        others.min().map_or(line.until, |due| asked.patient_until.max(due).min(line.until))
    }

    fn dial(&mut self, owner: Owner<'_>, index: usize, now: Tick) {
        let spare = &mut self.nodes[index];
        let target = spare.places[spare.tries as usize % spare.places.len()].clone();
        match transport::begin(&target) {
            Ok((socket, stands)) => {
                let (shard, number) = (owner.lane.shard, owner.lane.next_number());
                let link = Arc::new(Link::new(socket, Road::Stream, shard, &owner.core.mark, number));
                let until = now.after(RESUME_TIME.min(owner.core.config.deadline));
                let mut line = Line {
                    link,
                    target,
                    inbox: Inbox::default(),
                    out: Vec::new(),
                    stage: Stage::Connecting,
                    until,
                };
                if stands {
                    line.greet(&owner.session.passport, shard);
                }
                let sound = line.flush();
                spare.line = Some(line);
                if !sound {
                    self.lose(index, now, Duration::ZERO);
                }
            }
            Err(error) => {
                tracing::debug!(%error, %target, "no connection");
                self.lose(index, now, Duration::ZERO);
            }
        }
    }

    /// A connection is over, or was not to be had.
    fn lose(&mut self, index: usize, now: Tick, pause: Duration) {
        let (first, most) =
            if self.seeks { (ASK_PAUSE, SEEK_PAUSE_MAX) } else { (STANDBY_PAUSE, STANDBY_PAUSE_MAX) };
        let spare = &mut self.nodes[index];
        spare.line = None;
        spare.due = now.after(pause.max(self.jitter.backoff(spare.tries, first, most)));
        spare.tries += 1;
    }

    /// Has the likeliest node that is due asked for the session, unless one is being asked.
    fn ask_one(&mut self, owner: Owner<'_>, now: Tick) {
        if self.nodes.iter().any(Spare::asks) {
            return;
        }
        let home = owner.session.home();
        let followed = if home.shard == owner.lane.shard { None } else { home.at() };
        let unlikely = |line: &Line, welcome: &Welcome| {
            let follows = followed.as_ref().is_some_and(|at| at.is_same_node(&line.target));
            (!follows, !owner.core.nodes.is_primary(&line.target), welcome.role == Role::Backup)
        };
        let standing = self.nodes.iter().enumerate().filter(|(_, spare)| spare.due <= now);
        let ranked = standing.filter_map(|(index, spare)| {
            let line = spare.line.as_ref()?;
            let Stage::Standing(welcome) = &line.stage else { return None };
            Some((unlikely(line, welcome), index))
        });
        let Some((_, index)) = ranked.min() else { return };
        let spare = &mut self.nodes[index];
        let most = RESUME_TIME.min(owner.core.config.deadline);
        let doubled = |time: Duration| time.saturating_mul(1 << spare.unanswered.min(8)).min(most);
        let patience = doubled(PATIENCE);
        let longest = doubled(PATIENCE.max(owner.session.lease.ttl() / PART_OF_LEASE));
        let Some(line) = &mut spare.line else { return };
        let Stage::Standing(welcome) = line.stage else { return };
        // Read before the frame can be on its way: a confirmation counts from here.
        let sent = clock::now();
        let id = owner.lane.state().stream.ask_to_resume(&mut line.out);
        let patient_until = sent.after(patience);
        line.stage = Stage::Asking(Asked { welcome, id, sent, patient_until });
        line.until = sent.after(longest);
        if !line.flush() {
            self.lose(index, now, Duration::ZERO);
        }
    }

    fn due(&self, here: Option<&Target>) -> Tick {
        let is_here = |spare: &Spare| here.is_some_and(|here| here.is_same_node(&spare.places[0]));
        let of = |spare: &Spare| match &spare.line {
            None => spare.due,
            Some(line) if self.seeks && line.is_standing() => spare.due.min(line.until),
            Some(line) => self.until(line),
        };
        let asking = self.nodes.iter().any(Spare::asks);
        // While one is asked, the others wait for how that comes out.
        let waits = |spare: &Spare| asking && spare.stands();
        let due = self.nodes.iter().filter(|spare| !is_here(spare) && !waits(spare)).map(of);
        due.min().unwrap_or(Tick(u64::MAX))
    }

    /// The descriptors to poll, with the number of their spare.
    pub(super) fn watches(&self) -> impl Iterator<Item = (usize, Arc<Link>, PollFlags)> {
        self.nodes.iter().enumerate().filter_map(|(index, spare)| {
            let line = spare.line.as_ref()?;
            let connecting = matches!(line.stage, Stage::Connecting);
            let mut flags = if connecting { PollFlags::empty() } else { PollFlags::IN };
            if connecting || !line.out.is_empty() {
                flags |= PollFlags::OUT;
            }
            Some((index, Arc::clone(&line.link), flags))
        })
    }

    /// A watched descriptor is ready.
    pub(super) fn react(&mut self, owner: Owner<'_>, index: usize, link: &Arc<Link>) {
        let now = clock::now();
        let Some(line) = self.nodes.get_mut(index).and_then(|spare| spare.line.as_mut()) else { return };
        if line.link.number != link.number {
            return;
        }
        let mut sound = true;
        if matches!(line.stage, Stage::Connecting) {
            sound = transport::concluded(link.as_fd()).is_ok();
            if sound {
                line.greet(&owner.session.passport, owner.lane.shard);
            }
        }
        sound = sound && line.flush();
        if sound && !matches!(line.stage, Stage::Connecting) {
            let read = link.read(&mut line.inbox);
            sound = matches!(read, Ok(None | Some(1..)));
        }
        if sound {
            self.take_apart(owner, index, now);
        } else {
            self.lose(index, now, Duration::ZERO);
        }
    }

    /// Gives every whole frame its meaning.
    fn take_apart(&mut self, owner: Owner<'_>, index: usize, now: Tick) {
        loop {
            let Some(line) = &mut self.nodes[index].line else { return };
            let Some((meaning, length)) = line.meaning(owner) else { return };
            line.inbox.taken(length);
            match meaning {
                Meaning::None => {}
                Meaning::Welcomed(welcome) => {
                    line.stage = Stage::Standing(welcome);
                    line.until = Tick(u64::MAX);
                    // One that follows has to take over first.
                    let waits = self.seeks && welcome.role == Role::Backup;
                    let pause = if waits { self.pause(index) } else { Duration::ZERO };
                    self.nodes[index].due = now.after(pause);
                    if !self.seeks && welcome.features & FEATURE_STANDBY == 0 {
                        return self.lose(index, now, STANDBY_PAUSE_MAX);
                    }
                }
                Meaning::Again(after_ms) => {
                    if let Stage::Asking(asked) = line.stage {
                        line.stage = Stage::Standing(asked.welcome);
                        line.until = Tick(u64::MAX);
                    }
                    let pause = after_ms.map(|ms| Duration::from_millis(ms.into()).max(self.pause(index)));
                    self.nodes[index].due = now.after(pause.unwrap_or_default());
                }
                Meaning::Nowhere(pause) => return self.lose(index, now, pause),
                Meaning::Answer => return self.win(owner, index),
            }
        }
    }

    /// How long a node that does not take the session is left alone.
    fn pause(&mut self, index: usize) -> Duration {
        let spare = &mut self.nodes[index];
        spare.tries += 1;
        self.jitter.backoff(spare.tries - 1, ASK_PAUSE, ASK_PAUSE_MAX)
    }

    /// The answer to the RESUME is there: the connection is the lane's from here on.
    fn win(&mut self, owner: Owner<'_>, index: usize) {
        let Owner { core, session, lane } = owner;
        let Some(line) = self.nodes[index].line.take() else { return };
        let Stage::Asking(Asked { welcome, sent, .. }) = line.stage else { return };
        tracing::info!(node = %line.target, epoch = welcome.epoch, "the session goes on at another connection");
        session.passport.epoch.fetch_max(welcome.epoch, Ordering::Relaxed);
        lane.take_over(owner, line.link, line.inbox, &line.target, sent);
        if lane.shard == session.passport.home {
            // A node decides for all shards or for none.
            for other in session.lanes.iter().filter(|other| other.shard != lane.shard) {
                if other.state().link.is_some() && other.at().is_some_and(|at| !at.is_same_node(&line.target))
                {
                    other.break_now(core, Duration::ZERO, false);
                }
            }
        }
        core.ring();
    }
}

impl Spare {
    /// It can be asked for the session.
    fn stands(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_standing)
    }

    fn asks(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_asking)
    }
}

impl Line {
    fn is_standing(&self) -> bool {
        matches!(self.stage, Stage::Standing(_))
    }

    fn is_asking(&self) -> bool {
        matches!(self.stage, Stage::Asking(..))
    }

    fn greet(&mut self, passport: &Passport, shard: ShardId) {
        passport.hello(shard, FEATURE_STANDBY).encode(RequestId::NOTICE, 0, &mut self.out);
        self.stage = Stage::Greeting;
    }

    /// Writes what the socket takes; `false` when the connection is over.
    fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        let Ok(count) = self.link.write(&self.out) else { return false };
        self.out.drain(..count);
        true
    }

    /// What the next frame means, and its length, which the answer to a RESUME keeps.
    fn meaning(&self, owner: Owner<'_>) -> Option<(Meaning, usize)> {
        let nowhere = Meaning::Nowhere(STANDBY_PAUSE);
        let (frame, length) = match self.inbox.frame() {
            Ok(None) => return None,
            Ok(Some(found)) => found,
            Err(_) => return Some((nowhere, 0)),
        };
        let Ok(reply) = Reply::decode(&frame) else { return Some((nowhere, length)) };
        let (passport, nodes) = (&owner.session.passport, &owner.core.nodes);
        if let Reply::Members(said) = reply {
            nodes.learn(&Directions::from(said), true);
            // Said by a node that follows, it may be the news that it does so no more.
            let met = if self.is_asking() { Meaning::None } else { Meaning::Again(None) };
            return Some((
                if matches!(self.stage, Stage::Standing(_)) { met } else { Meaning::None },
                length,
            ));
        }
        if let Reply::Refused(refused) = reply
            && let Some(primary) = refused.primary
        {
            nodes.learn(&Directions::from(primary), false);
        }
        let meaning = match (self.stage, reply) {
            (Stage::Greeting, Reply::Welcome(welcome)) if passport.fits(owner.lane.shard, &welcome) => {
                Meaning::Welcomed(welcome)
            }
            (Stage::Greeting, Reply::Refused(refused)) => {
                Meaning::Nowhere(Duration::from_millis(refused.retry_after_ms.into()))
            }
            (Stage::Connecting | Stage::Greeting, _) => nowhere,
            (Stage::Standing(_), Reply::Refused(_)) => Meaning::Nowhere(Duration::ZERO),
            (Stage::Standing(_), _) | (Stage::Asking(..), Reply::Draining) => Meaning::None,
            (Stage::Asking(asked), Reply::Refused(refused)) => match refused.refusal.class() {
                Class::Retry if frame.request == asked.id => Meaning::Again(Some(refused.retry_after_ms)),
                Class::Retry => Meaning::Nowhere(Duration::ZERO),
                // Of a time before what is known: it has to show that it still belongs to the cell.
                _ if asked.welcome.role != Role::Standalone
                    && asked.welcome.epoch < passport.epoch.load(Ordering::Relaxed) =>
                {
                    Meaning::Nowhere(Duration::ZERO)
                }
                _ => return Some((Meaning::Answer, 0)),
            },
            (Stage::Asking(..), _) => return Some((Meaning::Answer, 0)),
        };
        Some((meaning, length))
    }
}

//! One shard's part in replication: its log, whom it follows or who follows it, and which rounds are committed.
//!
//! Sans-IO, and an operation is bytes to it. Whoever drives it (a shard's thread, or a simulator) hands in messages,
//! orders of the node and the moment, and then carries out: the bytes of [`Replica::take_out`], the [`Output`]s, the
//! committed operations of [`Replica::next_committed`]. The rules R1 to R9 are asserted where they are kept.
//!
//! Commits, reads and confirmed leases are one thing here, a *round* (docs/decisions/0008): [`Replica::end_pass`] gives the
//! number that a pass's outputs wait for, [`Replica::released`] says how far they may go.

use alloc::vec::Vec;
use core::mem;

use fairlock_protocol::{Epoch, Malformed, Tick};

use crate::log::{Log, Lsn};
use crate::message::{Message, Round};
use crate::profile::Profile;

mod follower;
mod handover;
mod link;
mod primary;
mod snapshot;
#[cfg(test)]
mod tests;
mod words;

pub use link::LinkKey;
use link::{Link, Stage};
pub use words::{Input, Order, Output, Part, Peer, Report, Setup};

/// Bytes of entries not known to be everywhere, beyond which nothing more is taken in.
pub const WINDOW_BYTES: usize = 4 << 20;
/// On-time turns of a replica's own loop before it trusts what it did not hear (R12).
const PUNCTUAL_TICKS: u32 = 2;

#[derive(Debug)]
enum Role {
    Idle,
    Primary,
    Yielding { setup: Setup, to: Peer, since: Tick },
}

/// One shard's replica.
#[derive(Debug)]
pub struct Replica {
    profile: Profile,
    role: Role,
    /// Epoch in which it works, and the lowest it still acknowledges.
    view: u32,
    promised: u32,
    /// Reign whose log this is, and those before it with the place up to which this log is theirs, too.
    reign: u32,
    before: Vec<(u32, Lsn)>,
    log: Log,
    /// How far the log is known to be committed.
    commit: Lsn,
    /// How far it was handed out to be applied.
    applied: Lsn,
    /// Log and table belong together: this node could go on with them.
    has_state: bool,
    links: Vec<Link>,
    /// Members but this node.
    others: Vec<Peer>,
    /// A joiner that counts like a member.
    pinned: Option<Peer>,
    configuration: Vec<u8>,
    round: Round,
    released: Round,
    /// The stream of the primary that is followed.
    leader: Option<LinkKey>,
    heard: Tick,
    /// When its silence was reported last.
    suspected: Tick,
    /// What is to be acknowledged at the end of the pass.
    ack_due: bool,
    seen_round: Round,
    pieces: u32,
    last_tick: Tick,
    punctual: u32,
    outputs: Vec<Output>,
}

impl Replica {
    /// A replica that has nothing.
    pub fn new(profile: Profile) -> Replica {
        Replica {
            profile,
            role: Role::Idle,
            view: 0,
            promised: 0,
            reign: 0,
            before: Vec::new(),
            log: Log::default(),
            commit: Lsn(0),
            applied: Lsn(0),
            has_state: false,
            links: Vec::new(),
            others: Vec::new(),
            pinned: None,
            configuration: Vec::new(),
            round: Round(0),
            released: Round(0),
            leader: None,
            heard: Tick::ZERO,
            suspected: Tick::ZERO,
            ack_due: false,
            seen_round: Round(0),
            pieces: 0,
            last_tick: Tick::ZERO,
            punctual: 0,
            outputs: Vec::new(),
        }
    }

    /// Takes one input in.
    pub fn step(&mut self, now: Tick, input: Input<'_>) {
        match input {
            Input::Linked { link, peer, dialed } => self.linked(now, link, peer, dialed),
            Input::Unlinked(link) => self.unlinked(now, link),
            Input::Received(link, message) => self.received(now, link, &message),
            Input::Order(order) => self.order(now, order),
            Input::Tick => self.tick(now),
        }
        self.check();
    }

    /// What it is to its shard.
    pub fn part(&self) -> Part {
        match self.role {
            Role::Primary => Part::Primary,
            Role::Yielding { .. } => Part::Yielding,
            Role::Idle if self.has_state => Part::Backup,
            Role::Idle => Part::Idle,
        }
    }

    /// Epoch in which it works; 0 before the first.
    pub const fn view(&self) -> u32 {
        self.view
    }

    /// Epoch in which its primary took office; 0 before the first.
    pub const fn reign(&self) -> u32 {
        self.reign
    }

    /// End of its log.
    pub fn received_lsn(&self) -> Lsn {
        self.log.end()
    }

    /// How far the table is: what is committed at a backup, everything at a primary, and at one who was.
    pub const fn applied_lsn(&self) -> Lsn {
        self.applied
    }

    /// How far the log is known to be committed.
    pub const fn commit_lsn(&self) -> Lsn {
        self.commit
    }

    /// The newest round that was begun.
    pub const fn round(&self) -> Round {
        self.round
    }

    /// How far outputs may go.
    pub const fn released(&self) -> Round {
        self.released
    }

    /// Bytes of the entries that somebody may lack.
    pub const fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Whether nothing more may be taken in until others have acknowledged what there is.
    pub const fn is_full(&self) -> bool {
        self.log.bytes() >= WINDOW_BYTES
    }

    /// What the peers but this node have of the log, and whether each is a member: for people.
    pub fn progress(&self) -> impl Iterator<Item = (&Peer, Lsn, bool)> {
        self.links.iter().filter_map(|link| {
            let progress = link.progress()?;
            Some((&link.peer, progress.acked, self.others.contains(&link.peer)))
        })
    }

    /// The next committed operation that was not handed out yet, on a node that applies what others decide. Whoever takes
    /// office is handed all that it inherits, as if it had appended it: nothing of it is exposed before it is committed.
    ///
    /// # Panics
    /// When a backup would be handed what is not committed: that is a mistake in here.
    pub fn next_committed(&mut self) -> Option<&[u8]> {
        let serves = matches!(self.role, Role::Primary) || mutant!(ApplyUncommitted);
        let end = if serves { self.log.end() } else { self.commit };
        if !self.has_state || self.applied >= end {
            return None;
        }
        self.applied = self.applied.plus(1);
        assert!(serves || self.applied <= self.commit, "R3: backups apply committed operations only");
        Some(self.log.get(self.applied).expect("what is not applied is kept"))
    }

    /// What is to be done outside; the caller empties it.
    pub fn outputs(&mut self) -> &mut Vec<Output> {
        &mut self.outputs
    }

    /// Hands out the bytes that are to be sent on each stream.
    pub fn take_out(&mut self, mut send: impl FnMut(LinkKey, &mut Vec<u8>)) {
        for link in &mut self.links {
            if !link.out.is_empty() {
                send(link.key, &mut link.out);
                link.out.clear();
            }
        }
    }

    /// Whether bytes are to be sent or outputs carried out.
    pub fn is_busy(&self) -> bool {
        !self.outputs.is_empty() || self.links.iter().any(|link| !link.out.is_empty())
    }

    /// When it has something to do without any input.
    pub fn next_due(&self) -> Option<Tick> {
        let awaited = !self.links.is_empty() || !self.others.is_empty();
        awaited.then_some(self.last_tick.after(self.profile.heartbeat))
    }

    fn report(&mut self, report: Report) {
        self.outputs.push(Output::Report(report));
    }

    fn linked(&mut self, now: Tick, key: LinkKey, peer: Peer, dialed: bool) {
        // The newer stream is the one that stands; a stream that comes in says nothing of one that went out.
        self.end_links(|link| link.peer == peer && link.dialed == dialed);
        let idle = matches!(self.role, Role::Idle);
        if dialed && !idle {
            // Dialled to follow, and meanwhile this node has an office.
            self.outputs.push(Output::HangUp(key));
            return;
        }
        self.links.push(Link::new(key, peer, dialed));
        if dialed {
            self.greet(now, key);
        }
    }

    /// Ends every stream with a peer, and nobody misses it.
    fn discard(&mut self, peer: &Peer) {
        self.end_links(|link| link.peer == *peer);
    }

    fn end_links(&mut self, which: impl Fn(&Link) -> bool) {
        for former in self.links.extract_if(.., |link| which(link)) {
            self.outputs.push(Output::HangUp(former.key));
            self.leader.take_if(|leader| *leader == former.key);
        }
    }

    /// Ends a stream from this side.
    fn hang_up(&mut self, now: Tick, key: LinkKey) {
        self.outputs.push(Output::HangUp(key));
        self.unlinked(now, key);
    }

    fn unlinked(&mut self, now: Tick, key: LinkKey) {
        let Some(at) = self.links.iter().position(|link| link.key == key) else { return };
        let link = self.links.remove(at);
        if self.leader == Some(key) {
            self.leader = None;
        }
        let peer = link.peer;
        self.report(Report::Lost(peer.clone()));
        if matches!(self.role, Role::Primary | Role::Yielding { .. }) {
            if mutant!(DropMemberWithoutSwap) {
                self.others.retain(|other| *other != peer);
            }
            self.advance(now);
        }
    }

    fn received(&mut self, now: Tick, key: LinkKey, message: &Message<'_>) {
        if self.link(key).is_none() {
            return;
        }
        let result = match *message {
            Message::Greet { .. } | Message::Ack { .. } | Message::Late { .. } => {
                self.hear_follower(now, key, message)
            }
            _ => self.hear_primary(now, key, message),
        };
        if result.is_err() {
            self.hang_up(now, key);
        }
    }

    fn order(&mut self, now: Tick, order: Order) {
        match order {
            Order::Promise(epoch) => self.promise(epoch),
            Order::Office { setup, fresh } => self.take_office(now, setup, fresh),
            Order::Configure(setup) => self.configure(now, setup),
            Order::Pin(peer) => self.pin(peer),
            Order::Unpin(peer) => {
                self.pinned.take_if(|pinned| *pinned == peer);
                self.advance(now);
            }
            Order::Yield { setup, to } => self.begin_to_yield(now, setup, to),
            Order::Drop(peer) => {
                self.discard(&peer);
                self.advance(now);
            }
            Order::StepDown => {
                self.step_down();
                self.report(Report::SteppedDown);
            }
            Order::Retire => {
                self.retire();
                self.report(Report::SteppedDown);
            }
        }
    }

    /// R4: a promise is not taken back. Who took over from this node's office before it began may have been here first.
    fn promise(&mut self, epoch: Epoch) {
        if epoch.get() < self.promised {
            return self.report(Report::Deposed(self.promised));
        }
        if !mutant!(TakeOverWithoutPromise) {
            self.promised = epoch.get();
        }
        self.report(Report::Promised(epoch));
    }

    /// Ends every role: what is here and not committed is void.
    fn step_down(&mut self) {
        for link in mem::take(&mut self.links) {
            self.outputs.push(Output::HangUp(link.key));
        }
        (self.role, self.leader, self.pinned) = (Role::Idle, None, None);
        self.others.clear();
        self.forget_state();
    }

    /// Ends every role, and keeps what is here.
    fn retire(&mut self) {
        self.end_links(|_| true);
        (self.role, self.leader, self.pinned) = (Role::Idle, None, None);
        self.others.clear();
    }

    fn forget_state(&mut self) {
        if mem::take(&mut self.has_state) {
            self.report(Report::StateLost);
        }
        self.log = Log::default();
        (self.commit, self.applied) = (Lsn(0), Lsn(0));
        self.before.clear();
        self.outputs.push(Output::Reset);
    }

    fn tick(&mut self, now: Tick) {
        let pause = now.since(self.last_tick);
        if pause < self.profile.heartbeat {
            return;
        }
        // One that was late itself has no opinion on others until it has caught up (R12).
        self.punctual = if pause > self.profile.heartbeat * 2 { 0 } else { self.punctual.saturating_add(1) };
        self.last_tick = now;
        match self.role {
            Role::Idle => self.watch_leader(now),
            Role::Primary | Role::Yielding { .. } => self.watch_followers(now),
        }
    }

    /// Whether this loop was in time often enough to judge others.
    const fn is_punctual(&self) -> bool {
        self.punctual >= PUNCTUAL_TICKS
    }

    fn link(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.key == key)
    }

    fn check(&self) {
        assert!(self.view <= self.promised || self.promised == 0, "R4: the view is promised");
        assert!(self.applied <= self.log.end(), "what is applied was received");
        assert!(self.released <= self.round || !matches!(self.role, Role::Primary), "rounds are begun first");
    }
}

/// What a peer said makes no sense where it was said.
struct Nonsense;

impl From<Malformed> for Nonsense {
    fn from(_: Malformed) -> Nonsense {
        Nonsense
    }
}

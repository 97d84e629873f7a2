//! The primary's half: appends, rounds, who has what, who joins, who is late, and handing over.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use fairlock_protocol::Tick;

use super::link::{Greeting, Joiner, Progress};
use super::{LinkKey, Nonsense, Output, Peer, Replica, Report, Role, Setup, Stage};
use crate::log::{Log, Lsn};
use crate::message::{APPEND_BYTES, Entries, Message, Round, Unwelcome};

/// Pieces of a snapshot under way to one joiner.
pub(super) const PIECES_UNDER_WAY: u32 = 8;
/// How long a joiner may be silent while it is sent the snapshot: it may be putting together a large one.
const JOINER_PATIENCE: Duration = Duration::from_secs(2);

impl Replica {
    /// Enters an operation that was just applied here. The primary alone numbers operations (R1).
    ///
    /// # Panics
    /// When this is not the primary: whoever takes requests in has asked.
    pub fn append(&mut self, operation: &[u8]) -> Lsn {
        assert!(matches!(self.role, Role::Primary), "R1: only a primary appends");
        assert_eq!(self.applied, self.log.end(), "what was inherited is applied before anything is added");
        if self.stands_alone() {
            self.log.skip();
            self.commit = self.log.end();
        } else {
            self.log.push(operation);
        }
        self.applied = self.log.end();
        self.log.end()
    }

    /// Whether operations need not even be encoded: nobody else wants them.
    pub fn stands_alone(&self) -> bool {
        self.log.base() == self.log.end()
            && self.others.is_empty()
            && self.pinned.is_none()
            && self.links.is_empty()
    }

    /// Ends a pass. `wants`: it wrote something that must wait for a round. Gives the round that what the pass wrote must
    /// wait for; `None` when it need not wait at all.
    pub fn end_pass(&mut self, now: Tick, wants: bool) -> Option<Round> {
        if !matches!(self.role, Role::Primary | Role::Yielding { .. }) {
            self.acknowledge();
            return None;
        }
        let end = self.log.end();
        let unsent = self.links.iter().filter_map(super::Link::progress).any(|progress| progress.sent < end);
        if wants || unsent {
            self.begin_round(now);
        }
        self.advance(now);
        (self.released < self.round).then_some(self.round)
    }

    /// Says a round to every follower, with whatever it lacks.
    pub(super) fn begin_round(&mut self, now: Tick) {
        self.round = Round(self.round.0 + 1);
        for at in 0..self.links.len() {
            self.send_log(now, at, self.round);
        }
    }

    /// Sends one follower what it lacks of the log, and the round behind it.
    fn send_log(&mut self, now: Tick, at: usize, round: Round) {
        let (view, commit, end) = (self.view, self.commit, self.log.end());
        let Replica { links, log, .. } = self;
        let link = &mut links[at];
        let Stage::Follows(progress) = &mut link.stage else { return };
        let mut entries = Vec::new();
        loop {
            let after = progress.sent;
            entries.clear();
            while progress.sent < end && entries.len() < APPEND_BYTES {
                progress.sent = progress.sent.plus(1);
                Entries::push(&mut entries, log.get(progress.sent).expect("what a follower lacks is kept"));
            }
            let round = if progress.sent == end { round } else { Round(0) };
            let entries = Entries::new(&entries).unwrap_or(Entries::NONE);
            Message::Append { epoch: view, round, commit, after, entries }.encode(&mut link.out);
            if round != Round(0) {
                break;
            }
        }
        progress.sent_round = round;
        progress.waiting_since = progress.waiting_since.or(Some(now));
        progress.awaited = progress.awaited.or(Some((round, now)));
    }

    /// Looks how far everybody who counts has come (R2), and what follows from it.
    pub(super) fn advance(&mut self, now: Tick) {
        if !matches!(self.role, Role::Primary | Role::Yielding { .. }) {
            return;
        }
        let (mut round, mut commit) = (self.round, self.log.end());
        let pinned = self.pinned.as_ref().filter(|_| !mutant!(PinnedNotCounted));
        for peer in self.others.iter().chain(pinned) {
            let mut links = self.links.iter().filter(|link| link.peer == *peer);
            match links.find_map(super::Link::progress) {
                Some(progress) if progress.acked_in == self.view => {
                    round = round.min(progress.acked_round);
                    commit = commit.min(progress.acked);
                }
                _ => (round, commit) = (Round(0), Lsn(0)),
            }
        }
        for progress in self.links.iter().filter_map(super::Link::progress).filter(|one| one.counts()) {
            if mutant!(JoinerDoesNotCount) {
                break;
            }
            if mutant!(PinnedNotCounted) {
                break;
            }
            if progress.acked_in == self.view {
                round = round.min(progress.acked_round);
                commit = commit.min(progress.acked);
            } else {
                (round, commit) = (Round(0), Lsn(0));
            }
        }
        if mutant!(CommitIsOwnEnd) {
            (round, commit) = (self.round, self.log.end());
        }
        self.released = self.released.max(round);
        self.commit = self.commit.max(commit);
        self.trim();
        self.look_at_joiners();
        self.try_to_yield(now);
    }

    /// Forgets what nobody can need any more.
    fn trim(&mut self) {
        let linked =
            |peer: &Peer| self.links.iter().any(|link| link.peer == *peer && link.progress().is_some());
        if !self.others.iter().chain(&self.pinned).all(linked) {
            return;
        }
        let least = self.links.iter().filter_map(super::Link::progress).map(|progress| progress.acked).min();
        self.log
            .drop_to(least.unwrap_or(self.commit).min(self.commit).min(self.applied).max(self.log.base()));
    }

    pub(super) fn hear_follower(
        &mut self,
        now: Tick,
        key: LinkKey,
        message: &Message<'_>,
    ) -> Result<(), Nonsense> {
        match *message {
            Message::Greet { reign, received, joins, .. } => {
                self.greeted(now, key, Greeting { reign, received, joins });
                Ok(())
            }
            Message::Ack { epoch, round, received, pieces } => {
                self.acked(now, key, (epoch, round, received, pieces))
            }
            Message::Late { promised } => {
                if promised > self.view && matches!(self.role, Role::Primary | Role::Yielding { .. }) {
                    self.report(Report::Deposed(promised));
                }
                Ok(())
            }
            _ => Err(Nonsense),
        }
    }

    fn greeted(&mut self, now: Tick, key: LinkKey, greeting: Greeting) {
        if !matches!(self.role, Role::Primary) {
            // Whoever greets us was told that we are primary: we shall hear of it.
            if let Some(link) = self.link(key) {
                link.stage = Stage::Waiting(greeting);
            }
            return;
        }
        let Some(peer) = self.link(key).map(|link| link.peer.clone()) else { return };
        if self.others.contains(&peer) {
            return self.welcome_member(now, key, peer, greeting);
        }
        let former = self.others.iter().find(|other| other.node == peer.node).cloned();
        match former {
            // The same node in another life: the one that is listed is over.
            Some(former) => {
                self.report(Report::Late(former));
                self.refuse(key, Unwelcome::NotYet);
            }
            None if self.pinned.is_some() => self.refuse(key, Unwelcome::NotYet),
            None if self.is_sent_to_another(now, &peer) => self.refuse(key, Unwelcome::NotYet),
            None => {
                self.end_links(|link| {
                    link.peer.node == peer.node && link.peer != peer && link.progress().is_some()
                });
                self.outputs.push(Output::SnapshotWanted(key));
            }
        }
    }

    /// Whether another life of a joiner is sent the snapshot, and says something. One that is over may not have been missed yet.
    fn is_sent_to_another(&self, now: Tick, peer: &Peer) -> bool {
        let silent = self.profile.heartbeat * 3;
        self.links.iter().filter(|link| link.peer.node == peer.node && link.peer != *peer).any(|link| {
            let since = link.progress().map(|progress| progress.waiting_since);
            since.is_some_and(|since| since.is_none_or(|since| now.since(since) <= silent))
        })
    }

    /// A member takes its stream up, where it left off or where this reign began.
    fn welcome_member(&mut self, now: Tick, key: LinkKey, peer: Peer, greeting: Greeting) {
        let common = if greeting.reign == self.reign {
            Some(self.log.end())
        } else {
            self.before.iter().find(|(reign, _)| *reign == greeting.reign).map(|(_, common)| *common)
        };
        let same = greeting.reign == self.reign || mutant!(KeepForeignSuffix);
        let from = common.map(|common| if same { greeting.received } else { greeting.received.min(common) });
        let kept = self.log.base()..=self.log.end();
        if let Some(from) = from.filter(|from| !greeting.joins && kept.contains(from)) {
            self.activate(now, key, from, None);
        } else {
            self.report(Report::Late(peer));
            self.refuse(key, Unwelcome::Stranger);
        }
    }

    pub(super) fn refuse(&mut self, key: LinkKey, why: Unwelcome) {
        let epoch = self.view;
        if let Some(link) = self.link(key) {
            link.stage = Stage::Quiet;
            Message::Refuse { epoch, why }.encode(&mut link.out);
        }
    }

    pub(super) fn activate(&mut self, now: Tick, key: LinkKey, from: Lsn, joiner: Option<Joiner>) {
        let (epoch, reign, snapshot) = (self.view, self.reign, joiner.is_some());
        let configuration = mem::take(&mut self.configuration);
        if let Some(at) = self.links.iter().position(|link| link.key == key) {
            let link = &mut self.links[at];
            let configuration = &configuration;
            Message::Activate { epoch, reign, from, snapshot, configuration }.encode(&mut link.out);
            link.stage = Stage::Follows(Progress::from(from, joiner));
            self.round = Round(self.round.0 + 1);
            self.send_log(now, at, self.round);
        }
        self.configuration = configuration;
        self.advance(now);
    }

    pub(super) fn send_pieces(&mut self, key: LinkKey) {
        let epoch = self.view;
        let Some(link) = self.link(key) else { return };
        let Stage::Follows(Progress { joiner: Some(joiner), .. }) = &mut link.stage else { return };
        while joiner.sent - joiner.acked < PIECES_UNDER_WAY
            && let Some(bytes) = joiner.pieces.pop_front()
        {
            let last = joiner.complete && joiner.pieces.is_empty();
            Message::Piece { epoch, number: joiner.sent, last, bytes: &bytes }.encode(&mut link.out);
            joiner.sent += 1;
        }
    }

    fn acked(
        &mut self,
        now: Tick,
        key: LinkKey,
        (epoch, round, received, pieces): (u32, Round, Lsn, u32),
    ) -> Result<(), Nonsense> {
        let (view, end) = (self.view, self.log.end());
        let Some(progress) = self.link(key).and_then(super::Link::progress_mut) else { return Ok(()) };
        if received > end || received > progress.sent || round > progress.sent_round || epoch > view {
            return Err(Nonsense);
        }
        progress.acked = progress.acked.max(received);
        progress.acked_in = epoch;
        if mutant!(AckMeansSent) {
            (progress.acked, progress.acked_round) = (progress.sent, progress.sent_round);
        }
        if epoch == view {
            progress.acked_round = progress.acked_round.max(round);
        }
        let all = progress.acked_round == progress.sent_round && progress.acked == progress.sent;
        progress.waiting_since = if all { None } else { Some(now) };
        if progress.awaited.is_some_and(|(round, _)| round <= progress.acked_round) {
            progress.awaited = (!all).then_some((progress.sent_round, now));
        }
        if let Some(joiner) = &mut progress.joiner {
            if pieces > joiner.sent {
                return Err(Nonsense);
            }
            joiner.acked = joiner.acked.max(pieces);
        }
        self.send_pieces(key);
        self.advance(now);
        Ok(())
    }

    /// Joiners that have the snapshot begin to count; those that have everything since are told to the node.
    fn look_at_joiners(&mut self) {
        let (end, view, commit) = (self.log.end(), self.view, self.commit);
        let mut joined = Vec::new();
        for link in &mut self.links {
            let peer = &link.peer;
            let Stage::Follows(progress) = &mut link.stage else { continue };
            let (acked, acked_in) = (progress.acked, progress.acked_in);
            let Some(joiner) = &mut progress.joiner else { continue };
            if !mutant!(JoinerToldAtOnce) && (!joiner.is_restored() || acked_in != view) {
                continue;
            }
            let from = *joiner.counts_from.get_or_insert(end);
            // What was in its snapshot must be everywhere before it may stand for it.
            if acked >= from && commit >= from && !mem::replace(&mut joiner.told, true) {
                joined.push(peer.clone());
            }
        }
        for peer in joined {
            self.report(Report::Joined(peer));
        }
    }

    pub(super) fn pin(&mut self, peer: Peer) {
        let counts = self
            .links
            .iter()
            .any(|link| link.peer == peer && link.progress().is_some_and(super::link::Progress::counts));
        if counts && matches!(self.role, Role::Primary) {
            self.pinned = Some(peer.clone());
            self.report(Report::Pinned(peer));
        } else {
            self.report(Report::NotPinned(peer));
        }
    }

    /// This node is primary from here on, with everything that is in its log.
    pub(super) fn take_office(&mut self, now: Tick, setup: Setup, fresh: bool) {
        if setup.epoch.get() < self.promised {
            // A later primary has activated its epoch here since.
            return self.report(Report::Deposed(self.promised));
        }
        assert!(fresh || self.has_state, "who takes over has something to go on with");
        if fresh {
            self.log = Log::behind(Lsn(0));
            (self.commit, self.applied) = (Lsn(0), Lsn(0));
            self.outputs.push(Output::Reset);
        }
        // R5: the whole log is kept, and with it what is not known to be committed: it is so when all members have it.
        if mutant!(TakeOverDropsSuffix) && !fresh {
            self.log.truncate(self.commit);
        }
        if mutant!(InheritedIsCommitted) {
            self.commit = self.log.end();
        }
        let reign = setup.reign.get();
        if fresh {
            self.before.clear();
            self.reign = reign;
        } else {
            self.begin_reign(reign, self.log.end());
        }
        self.has_state = true;
        self.report(Report::Restored);
        (self.role, self.leader) = (Role::Primary, None);
        (self.view, self.promised) = (setup.epoch.get(), setup.epoch.get());
        // Rounds of other reigns say nothing here.
        self.round = Round(self.round.0.max(self.seen_round.0) + 1);
        self.released = Round(0);
        (self.others, self.configuration, self.pinned) = (setup.others, setup.configuration, None);
        (self.last_tick, self.punctual, self.heard) = (now, 0, now);
        self.report(Report::InOffice(setup.epoch));
        let waiting: Vec<(LinkKey, Greeting)> = self
            .links
            .iter()
            .filter_map(|link| match link.stage {
                Stage::Waiting(greeting) => Some((link.key, greeting)),
                _ => None,
            })
            .collect();
        let idle: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|link| {
                matches!(link.stage, Stage::Greeted | Stage::Led)
                    || link.dialed && !matches!(link.stage, Stage::Waiting(_))
            })
            .map(|link| link.key)
            .collect();
        for key in idle {
            self.hang_up(now, key);
        }
        for (key, greeting) in waiting {
            self.greeted(now, key, greeting);
        }
        self.advance(now);
    }

    /// The members changed by this node's own doing; acknowledgements count anew, in the new epoch (R2, R6).
    pub(super) fn configure(&mut self, now: Tick, setup: Setup) {
        if !matches!(self.role, Role::Primary) {
            return;
        }
        assert_eq!(setup.reign.get(), self.reign, "a reign goes on with the same primary");
        assert!(setup.epoch.get() >= self.view, "epochs only rise");
        (self.view, self.promised) = (setup.epoch.get(), self.promised.max(setup.epoch.get()));
        (self.others, self.configuration) = (setup.others, setup.configuration);
        // R7: whoever is pinned counts until it is listed or let go, whatever else changes meanwhile.
        self.pinned.take_if(|pinned| mutant!(ConfigureForgetsPin) || self.others.contains(pinned));
        let mut gone = Vec::new();
        for at in 0..self.links.len() {
            let listed = self.others.contains(&self.links[at].peer);
            let Replica { links, configuration, view, reign, .. } = self;
            let link = &mut links[at];
            let key = link.key;
            let Stage::Follows(progress) = &mut link.stage else { continue };
            match (listed, &progress.joiner) {
                (true, _) => progress.joiner = None,
                (false, Some(_)) => {}
                (false, None) => {
                    gone.push(key);
                    continue;
                }
            }
            let (epoch, reign, from) = (*view, *reign, progress.sent);
            Message::Activate { epoch, reign, from, snapshot: false, configuration }.encode(&mut link.out);
        }
        for key in gone {
            self.hang_up(now, key);
        }
        self.begin_round(now);
        self.advance(now);
    }

    /// Who leaves something unacknowledged is told to the node; a joiner that does is let go.
    pub(super) fn watch_followers(&mut self, now: Tick) {
        if !self.links.is_empty() {
            self.begin_round(now);
        }
        self.advance(now);
        if let Role::Yielding { since, .. } = &self.role
            && now.since(*since) > self.profile.evict
        {
            return self.give_up_yielding();
        }
        if !self.is_punctual() {
            return;
        }
        let evict = self.profile.evict;
        // Nobody waits for a joiner that does not count, until nothing more can be kept for it.
        let patience = if self.is_full() { evict } else { JOINER_PATIENCE.max(evict) };
        let is_late = |progress: &Progress| {
            let waits = progress.joiner.is_none() || progress.counts();
            progress.is_late(now, if waits { evict } else { patience })
        };
        let late = self.links.iter().filter(|link| link.progress().is_some_and(is_late));
        let late: Vec<(LinkKey, Peer)> = late.map(|link| (link.key, link.peer.clone())).collect();
        for (key, peer) in late {
            if self.others.contains(&peer) || self.pinned.as_ref() == Some(&peer) {
                self.report(Report::Late(peer));
            } else {
                self.hang_up(now, key);
            }
        }
        // Members without a stream: since this office began, or since the stream ended.
        let missing: Vec<Peer> = self
            .others
            .iter()
            .filter(|peer| !self.links.iter().any(|link| link.peer == **peer && link.progress().is_some()))
            .cloned()
            .collect();
        if missing.is_empty() {
            self.heard = now;
        } else if now.since(self.heard) > evict {
            for peer in missing {
                self.report(Report::Late(peer));
            }
        }
    }
}

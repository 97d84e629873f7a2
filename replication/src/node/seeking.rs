//! Finding a place: making the cell, following its primary, taking over when that is gone, and the cold start of a cell
//! that nobody is left of (R13).

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use fairlock_protocol::Tick;

use super::{
    Configuration, Dialed, LOOK_AGAIN, Member, Node, NodeId, Order, Output, Peer, Phase, Profile, Purpose,
    Report, SETTLE_TIME, Stored, Stream, TRY_AGAIN, peer, successor, unpack,
};

impl Node {
    /// Nobody has made this cell yet.
    pub(super) fn begin_cell(&mut self) {
        let (me, fresh) = (self.settings.me.clone(), self.settings.fresh.clone());
        let new = Configuration {
            cell: fresh.cell,
            epoch: fresh.epoch,
            reign: fresh.epoch,
            primary: me.node.clone(),
            members: vec![me],
            feature_level: self.settings.feature_level,
            shards: self.settings.shards,
            digest_key: fresh.digest_key,
            mac_key: fresh.mac_key,
            ttl_horizon: Duration::ZERO,
            clean: true,
            state_lost: false,
        };
        self.swap(Purpose::Begin, Some(new));
    }

    /// Takes the place that the newest configuration gives to this node.
    pub(super) fn settle(&mut self, now: Tick) {
        let Some(known) = self.known.clone() else { return };
        let configuration = &known.configuration;
        if configuration.shards != self.settings.shards {
            let (theirs, ours) = (configuration.shards, self.settings.shards);
            return self.halt(
                "shards",
                alloc::format!(
                    "the cell has {theirs} shards, this node {ours}: start it with --shards {theirs}"
                ),
            );
        }
        if configuration.feature_level > self.settings.feature_level {
            let (level, ours) = (configuration.feature_level, self.settings.feature_level);
            return self.halt(
                "feature_level",
                alloc::format!(
                    "the cell works at feature level {level}, this version knows {ours}: update it"
                ),
            );
        }
        // A life holds its node's lock while it lasts: who took its place is another process, or runs on another machine.
        if self.was_listed
            && let Some(other) = configuration.member(&self.settings.me.node)
            && other.incarnation != self.settings.me.incarnation
        {
            return self.halt_as_second(other);
        }
        let primary = peer(configuration.primary_member());
        if self.lists_me(configuration) && primary == self.me() {
            return self.named_primary(&known);
        }
        let listed = self.is_member();
        match &mut self.phase {
            Phase::Primary | Phase::Entering { .. } => {
                self.wants = super::Wants::default();
                // Whoever is listed has everything that was ever exposed, and may be the last who has.
                if listed {
                    self.retire();
                } else {
                    self.step_down();
                }
                self.follow(now, primary);
            }
            // The reports of the replicas end this phase.
            Phase::Yielding { .. } | Phase::Halted => {}
            // What had handed over, and is primary again, has to be greeted again.
            Phase::Following { primary: followed, handed, .. }
                if *followed == primary && handed.is_empty() => {}
            // It hands over, and needs this node's acknowledgements until it has.
            Phase::Following { primary: followed, stream: Stream::Up, handed, .. }
                if handed.len() < usize::from(self.settings.shards)
                    && listed
                    && configuration.members.iter().any(|member| peer(member) == *followed) => {}
            Phase::Following { primary: followed, .. } => {
                let followed = followed.clone();
                self.order(Order::Drop(followed));
                self.follow(now, primary);
            }
            Phase::Seeking { .. } | Phase::Seizing => self.follow(now, primary),
        }
    }

    /// The register says that this node is primary, and it has not asked for it just now.
    fn named_primary(&mut self, known: &Stored) {
        let in_office = matches!(self.phase, Phase::Primary | Phase::Entering { .. });
        if in_office && self.reign != known.configuration.reign.get() && self.is_member() {
            // Its hand-over had happened after all, and its successor has handed back before this node heard of either.
            self.wants = super::Wants::default();
            self.retire();
            return self.enter(false, known);
        }
        // Its predecessor hands over when all is committed; without it this node goes on with what it has.
        let ready = match &self.phase {
            Phase::Following { handed, stream, .. } => handed.len() == self.shards() || *stream != Stream::Up,
            Phase::Seeking { .. } | Phase::Seizing => true,
            _ => false,
        };
        if ready && self.is_member() {
            self.enter(false, known);
        }
    }

    pub(super) fn follow(&mut self, now: Tick, primary: Peer) {
        self.busy_since = None;
        self.phase = Phase::Following {
            primary,
            stream: Stream::Down { dial_at: now },
            since: now,
            torn: false,
            shards: BTreeSet::new(),
            handed: BTreeSet::new(),
        };
    }

    /// What is to be done now that nothing new came.
    pub(super) fn go_on(&mut self, now: Tick) {
        self.check_again(now);
        let wants_look = self.forcing.is_some() || self.is_missed && !matches!(self.phase, Phase::Halted);
        if wants_look && self.asked.is_none() && now >= self.ask_at {
            self.look();
        }
        self.adopt_told(now);
        match &self.phase {
            Phase::Seeking { look_at } => {
                if now >= *look_at && self.asked.is_none() && now >= self.ask_at {
                    self.phase = Phase::Seeking { look_at: now.after(LOOK_AGAIN) };
                    self.look();
                }
            }
            Phase::Following { .. } => self.go_on_following(now),
            Phase::Seizing => {
                if self.asked.is_none() && now >= self.ask_at {
                    self.seize(now);
                }
            }
            Phase::Primary => self.go_on_serving(now),
            Phase::Entering { .. } | Phase::Yielding { .. } | Phase::Halted => {}
        }
    }

    fn go_on_following(&mut self, now: Tick) {
        // Listed, and with nothing left of what it knew, it is as good as one that is not.
        let listed = self.is_member();
        let ready = self.may_dial();
        let Phase::Following { primary, stream, since, torn, shards, .. } = &mut self.phase else { return };
        let settled = shards.len() == usize::from(self.settings.shards);
        let stuck = !settled && now.since(*since) > SETTLE_TIME;
        match stream {
            Stream::Down { dial_at } if now >= *dial_at && ready => {
                let member = self.known.as_ref().map(|known| known.configuration.primary_member().clone());
                let me = &self.settings.me.node;
                // Its own former life is not asked.
                if member.as_ref().is_some_and(|member| peer(member) != *primary) {
                    *stream = Stream::Down { dial_at: now.after(LOOK_AGAIN) };
                    self.settle(now);
                    return if listed { self.look() } else { self.seek_beginning(now) };
                }
                let there = member.filter(|member| member.node != *me);
                let Some(member) = there else {
                    *stream = Stream::Down { dial_at: now.after(LOOK_AGAIN) };
                    return if listed { self.look() } else { self.seek_beginning(now) };
                };
                *stream = Stream::Dialling;
                (*since, *torn) = (now, false);
                shards.clear();
                self.outputs.push(Output::Dial { member, probe: false });
            }
            Stream::Up if stuck => {
                *stream = Stream::Down { dial_at: now.after(TRY_AGAIN) };
                self.look();
            }
            _ => {}
        }
        if !listed {
            self.seek_beginning(now);
        }
    }

    /// Not listed: the cell may be one that nobody is left of. Asks everybody who is listed for a sign of life.
    fn seek_beginning(&mut self, now: Tick) {
        if now < self.probe_at || self.asked.is_some() {
            return;
        }
        let Some(known) = self.known.clone() else { return };
        let missing: Vec<Member> =
            known.configuration.members.iter().filter(|member| !self.is_gone(member)).cloned().collect();
        if missing.is_empty() {
            self.alarm("waiting", None);
            return self.begin_anew(&known.configuration);
        }
        // Whoever only joins is taken in after the first look, and waits for nobody.
        if self.probe_at != Tick::ZERO {
            self.say_waiting(&missing);
        }
        self.probe_at = now.after(LOOK_AGAIN);
        // A configuration that changed meanwhile is seen by the watch, or here.
        self.look();
        for member in missing {
            // One at a time: the answer to an older one says nothing of the life that is listed now.
            if !self.probing.contains_key(&member.node) {
                self.probing.insert(member.node.clone(), true);
                self.outputs.push(Output::Dial { member, probe: true });
            }
        }
    }

    /// Every listed life is over: the cell begins anew, without what they knew.
    fn begin_anew(&mut self, last: &Configuration) {
        let new = self.anew(last);
        self.swap(Purpose::Begin, new);
    }

    /// The configuration of a cell that begins anew with this node alone.
    pub(super) fn anew(&self, last: &Configuration) -> Option<Configuration> {
        let me = self.settings.me.clone();
        successor(last).map(|next| Configuration {
            reign: next.epoch,
            primary: me.node.clone(),
            members: vec![me],
            state_lost: !last.clean,
            ttl_horizon: if last.clean { Duration::ZERO } else { last.ttl_horizon },
            ..next
        })
    }

    /// What became of the streams to the primary.
    pub(super) fn dialed(&mut self, now: Tick, node: &NodeId, outcome: Dialed) {
        let Phase::Following { primary, stream, torn, .. } = &mut self.phase else { return };
        if primary.node != *node || *stream != Stream::Dialling {
            return;
        }
        let busy_since = self.busy_since.take().unwrap_or(now);
        match outcome {
            // It lives, and makes room again; or somebody else is there.
            Dialed::Busy(_) if now.since(busy_since) < SETTLE_TIME => {
                *stream = Stream::Down { dial_at: now.after(TRY_AGAIN) };
                self.busy_since = Some(busy_since);
            }
            Dialed::Up if *torn => *stream = Stream::Down { dial_at: now.after(TRY_AGAIN) },
            Dialed::Up => *stream = Stream::Up,
            Dialed::Other(_) | Dialed::Refused => self.primary_died(now),
            Dialed::Silent(_) | Dialed::Busy(_) | Dialed::Alive => {
                *stream = Stream::Down { dial_at: now.after(TRY_AGAIN) };
                self.primary_silent(now);
            }
            // Whoever has another secret is not the life that was followed: as good as silence.
            Dialed::Unproven(why) => {
                *stream = Stream::Down { dial_at: now.after(LOOK_AGAIN) };
                self.alarm("peer", Some(why));
                self.primary_silent(now);
            }
            Dialed::Rejected(why) => {
                *stream = Stream::Down { dial_at: now.after(LOOK_AGAIN) };
                self.alarm("peer", Some(why));
            }
        }
    }

    /// What became of a probe, if it began after the present configuration was read.
    pub(super) fn probed(&mut self, node: &NodeId, outcome: Dialed) {
        if self.probing.remove(node) != Some(true) {
            return;
        }
        if *node == self.settings.me.node
            && let Some(former) =
                self.known.as_ref().and_then(|known| known.configuration.member(node)).cloned()
        {
            match outcome {
                Dialed::Alive => return self.halt_as_second(&former),
                // It may stand still, or have another secret.
                Dialed::Silent(_) | Dialed::Busy(_) | Dialed::Unproven(_) | Dialed::Up => {}
                Dialed::Refused | Dialed::Other(_) | Dialed::Rejected(_) => {
                    if self.former_over.replace(former.incarnation) != Some(former.incarnation) {
                        self.probe_at = Tick::ZERO;
                    }
                }
            }
        }
        match outcome {
            Dialed::Other(member) => {
                self.answering.insert(node.clone(), member);
                self.probe_at = Tick::ZERO;
            }
            Dialed::Refused | Dialed::Silent(_) if mutant!(GoneBySilence) => {
                let listed = self.known.as_ref().and_then(|known| known.configuration.member(node)).cloned();
                let later = crate::Incarnation::new(u64::MAX);
                if let (Some(listed), Some(incarnation)) = (listed, later) {
                    self.answering.insert(node.clone(), Member { incarnation, ..listed });
                }
            }
            Dialed::Rejected(why) | Dialed::Unproven(why) => self.alarm("peer", Some(why)),
            Dialed::Up | Dialed::Alive | Dialed::Refused | Dialed::Silent(_) | Dialed::Busy(_) => {}
        }
    }

    fn halt_as_second(&mut self, first: &Member) {
        let Member { node, peer, .. } = first;
        let why =
            alloc::format!("node {node} runs already, at {peer}: give this one another name with --node");
        self.halt("name", why);
    }

    fn say_waiting(&mut self, missing: &[Member]) {
        let names: Vec<&str> = missing.iter().map(|member| member.node.as_str()).collect();
        let text = alloc::format!(
            "waits for {}: start them, or, when they are certainly off, `fairlock cluster force-new`",
            names.join(", ")
        );
        self.alarm("waiting", Some(text));
    }

    /// The primary is certainly gone: a member takes over at once.
    fn primary_died(&mut self, now: Tick) {
        let can = self.can_take_over();
        if let Phase::Following { stream, .. } = &mut self.phase {
            *stream = Stream::Down { dial_at: now.after(TRY_AGAIN) };
        }
        if can {
            self.phase = Phase::Seizing;
        } else {
            self.look();
        }
    }

    /// The primary does not answer: a member takes over, but not twice in a moment (R12).
    fn primary_silent(&mut self, now: Tick) {
        if !self.can_take_over() {
            return self.leave_silent(now);
        }
        // It is said again while the silence goes on.
        if now < self.gap_until {
            return;
        }
        let calm = now.since(self.gap_until) > Profile::GAP_MAX * 2;
        self.gap = if calm { self.settings.profile.gap } else { (self.gap * 2).min(Profile::GAP_MAX) };
        self.gap_until = now.after(self.gap);
        self.phase = Phase::Seizing;
    }

    /// Whoever is silent and primary no more has to hand nothing over any more.
    fn leave_silent(&mut self, now: Tick) {
        let named = self.known.as_ref().map(|known| peer(known.configuration.primary_member()));
        if let Phase::Following { primary, stream, .. } = &mut self.phase
            && named.as_ref() != Some(primary)
        {
            let primary = primary.clone();
            *stream = Stream::Down { dial_at: now.after(LOOK_AGAIN) };
            self.order(Order::Drop(primary));
            self.settle(now);
        }
    }

    /// What is here cannot go on as the primary does: it is dropped, and this node joins anew. Whoever is listed may be the
    /// last who has what was exposed, and waits until the primary has taken it out; it may yet have to take over.
    fn astray(&mut self, now: Tick, from: &Peer) {
        if !matches!(&self.phase, Phase::Following { primary, .. } if primary == from) {
            return;
        }
        let listed = self.is_member();
        if !listed {
            self.step_down();
        }
        if let Phase::Following { stream, .. } = &mut self.phase {
            *stream = Stream::Down { dial_at: if listed { now.after(TRY_AGAIN) } else { now } };
        }
    }

    /// Whether this node may take over from the primary it follows (R5).
    fn can_take_over(&self) -> bool {
        let Phase::Following { primary, .. } = &self.phase else { return false };
        let names = |known: &Stored| peer(known.configuration.primary_member()) == *primary;
        self.is_member() && self.known.as_ref().is_some_and(names)
    }

    /// Asks the register to make this node primary instead of the one that is.
    fn seize(&mut self, now: Tick) {
        let Some(known) = &self.known else { return };
        let (me, old) = (self.settings.me.node.clone(), known.configuration.primary.clone());
        let new = successor(&known.configuration).map(|next| Configuration {
            reign: next.epoch,
            primary: me,
            members: next.members.into_iter().filter(|member| member.node != old).collect(),
            state_lost: next.state_lost && now < self.quarantine_until,
            ..next
        });
        self.swap(Purpose::Seize, new);
    }

    /// This node is primary in the register: its replicas promise, and then go on with what they have.
    pub(super) fn enter(&mut self, fresh: bool, stored: &Stored) {
        let configuration = &stored.configuration;
        let named = self.lists_me(configuration) && configuration.primary == self.settings.me.node;
        assert!(named, "R5: only a member takes over");
        self.wants = super::Wants::default();
        self.reign = configuration.reign.get();
        self.outputs.push(Output::HorizonRaised(configuration.ttl_horizon));
        self.phase = Phase::Entering { fresh, promised: BTreeSet::new(), seated: BTreeSet::new() };
        self.order(Order::Promise(configuration.epoch));
    }

    pub(super) fn reported(&mut self, now: Tick, shard: u16, report: Report) {
        match report {
            Report::Follows { primary, configuration, .. } => {
                self.follows(now, shard, &primary, &configuration);
            }
            Report::Lost(lost) => self.lost(now, shard, lost),
            Report::Suspect(suspect) => {
                if matches!(&self.phase, Phase::Following { primary, .. } if *primary == suspect) {
                    self.primary_silent(now);
                }
            }
            Report::Astray(from) => self.astray(now, &from),
            Report::Restored => {
                if !self.stepping_down.contains_key(&shard) {
                    self.stateful.insert(shard);
                }
            }
            Report::SteppedDown => self.stepped_down(shard),
            Report::StateLost => {
                self.stateful.remove(&shard);
            }
            Report::Refused(_) | Report::Deposed(_) => self.look(),
            Report::HandedOver { configuration } => {
                if let Phase::Following { handed, .. } = &mut self.phase {
                    handed.insert(shard);
                }
                if let Some(stored) = unpack(&configuration) {
                    let known = self.known.as_ref().map(|known| known.revision);
                    if known == Some(stored.revision) {
                        self.settle(now);
                    } else {
                        self.told(now, stored);
                    }
                }
            }
            other => self.reported_in_office(now, shard, other),
        }
    }

    fn follows(&mut self, now: Tick, shard: u16, by: &Peer, configuration: &[u8]) {
        if let Some(stored) = unpack(configuration) {
            self.told(now, stored);
        }
        match &mut self.phase {
            Phase::Following { primary, shards, stream, .. } if primary == by => {
                shards.insert(shard);
                if shards.len() == usize::from(self.settings.shards) {
                    *stream = Stream::Up;
                }
            }
            // A shard that has handed over already.
            Phase::Yielding { shards, .. } => {
                shards.insert(shard);
            }
            _ => {}
        }
    }

    fn lost(&mut self, now: Tick, shard: u16, lost: Peer) {
        match &mut self.phase {
            Phase::Following { primary, stream, torn, shards, .. } if *primary == lost => {
                *torn = true;
                shards.remove(&shard);
                if *stream == Stream::Up {
                    // All shards are dialled anew; a stream that stands still goes on until the new one is there. An order
                    // to end it could end the new one.
                    *stream = Stream::Down { dial_at: now };
                    self.settle(now);
                }
            }
            Phase::Yielding { turned, .. } => *turned = false,
            _ => self.reported_in_office(now, 0, Report::Lost(lost)),
        }
    }
}

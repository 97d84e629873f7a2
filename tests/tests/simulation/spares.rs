//! A client's connections to the other nodes, as the library's engine keeps them: they stand by while the session has a home,
//! and when it has none one after another is asked for the session, the likeliest first.

use fairlock_protocol::handshake::FEATURE_STANDBY;
use fairlock_protocol::{Class, Frame, Reply, RequestId, Role, ShardId, Tick, Welcome};

use super::network::Parcel;
use super::{MS, World};

/// How long a connection may take.
const RESUME_TIME: u64 = 1000 * MS;
/// How long a node may take to answer RESUME before another one is asked, doubling while nobody answers.
const PATIENCE: u64 = 50 * MS;
/// Pause before a node that does not take the session is asked again, doubling.
const ASK_PAUSE: u64 = 2 * MS;
/// Longest such pause.
const ASK_PAUSE_MAX: u64 = 20 * MS;
/// Longest pause before a node that is not reached is tried again, while the session has no home.
const SEEK_PAUSE_MAX: u64 = 100 * MS;
/// The same while it has one.
const STANDBY_PAUSE: u64 = 1000 * MS;

/// How far a connection has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Greeting,
    Standing(Welcome),
    Asking(Welcome, RequestId, Tick),
}

/// One other node.
#[derive(Debug)]
pub(crate) struct Spare {
    host: usize,
    line: Option<(u64, Stage, u64)>,
    pub(crate) due: u64,
    tries: u32,
}

impl Spare {
    pub(crate) fn is_on(&self, line: u64) -> bool {
        self.line() == Some(line)
    }

    pub(crate) fn line(&self) -> Option<u64> {
        self.line.as_ref().map(|(line, ..)| *line)
    }

    /// When the connection is given up.
    pub(crate) fn until(&self) -> u64 {
        self.line.as_ref().map_or(u64::MAX, |(_, _, until)| *until)
    }

    fn is_asking(&self) -> bool {
        matches!(self.line, Some((_, Stage::Asking(..), _)))
    }
}

impl World {
    /// Every lane that is wanted has a connection, or looks for one.
    pub(super) fn look_after_lanes(&mut self, client: usize, local: Tick) {
        for lane in 0..self.clients[client].lanes.len() {
            let shard = ShardId(u16::try_from(lane).expect("few shards"));
            let c = &self.clients[client];
            let Some(session) = &c.session else { return };
            let (wanted, live) = (session.is_wanted(shard), session.is_live(shard));
            let home = usize::from(session.home().0);
            let home_stands = lane == home || session.is_live(session.home());
            let tried = c.lanes[lane].was_tried || !home_stands;
            match c.lanes[lane].line {
                Some(_) if live => self.keep_spares(client, local, lane, false),
                Some(_) if c.lanes[lane].resume_by <= self.now => self.break_lane(client, lane, 0),
                None if session.is_over() => {}
                None if wanted && tried => self.keep_spares(client, local, lane, true),
                None if wanted && c.lanes[lane].redial <= self.now => self.dial_home(client, lane, home),
                Some(_) | None => {}
            }
        }
    }

    /// The first connection of a lane goes where the home's leads.
    fn dial_home(&mut self, client: usize, lane: usize, home: usize) {
        let Some((_, host)) = self.clients[client].lanes[home].line else { return };
        let line = self.connect(client, host);
        let resume_by = self.now + RESUME_TIME;
        let c = &mut self.clients[client];
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        if let Some(session) = &mut c.session {
            session.connected(shard);
        }
        let lane = &mut c.lanes[lane];
        (lane.line, lane.was_tried, lane.resume_by) = (Some((line, host)), true, resume_by);
    }

    fn keep_spares(&mut self, client: usize, local: Tick, lane: usize, seeks: bool) {
        let (hosts, now) = (self.hosts.len(), self.now);
        let of = &mut self.clients[client].lanes[lane];
        if of.spares.is_empty() {
            of.spares = (0..hosts).map(|host| Spare { host, line: None, due: 0, tries: 0 }).collect();
        }
        if std::mem::replace(&mut of.seeks, seeks) != seeks {
            of.unanswered = 0;
            for spare in &mut of.spares {
                spare.tries = 0;
                let soon = seeks || spare.line.is_some();
                spare.due = if soon { 0 } else { now + STANDBY_PAUSE };
            }
        }
        let here = of.line.map(|(_, host)| host);
        for index in 0..hosts {
            let of = &mut self.clients[client].lanes[lane];
            let spare = &of.spares[index];
            if here == Some(spare.host) {
                if let Some((line, ..)) = of.spares[index].line.take() {
                    self.hang_up(client, line);
                }
                continue;
            }
            match spare.line {
                None if spare.due <= now => self.dial_spare(client, lane, index),
                Some((_, _, until)) if until <= now => {
                    of.unanswered += u32::from(spare.is_asking());
                    self.lose_spare(client, lane, index, 0);
                }
                _ => {}
            }
        }
        if seeks {
            self.ask_one(client, local, lane);
        }
    }

    fn dial_spare(&mut self, client: usize, lane: usize, index: usize) {
        let host = self.clients[client].lanes[lane].spares[index].host;
        self.clients[client].lanes[lane].was_tried = true;
        let line = self.connect(client, host);
        let mut out = Vec::new();
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        if let Some(session) = &self.clients[client].session {
            session.greet(shard, FEATURE_STANDBY, &mut out);
        }
        self.send(line, 0, Parcel::Bytes(out));
        let until = self.now + RESUME_TIME;
        self.clients[client].lanes[lane].spares[index].line = Some((line, Stage::Greeting, until));
    }

    /// A connection of a spare is over.
    pub(super) fn lose_spare(&mut self, client: usize, lane: usize, index: usize, pause: u64) {
        let jitter = self.random.below(MS);
        let of = &mut self.clients[client].lanes[lane];
        let (first, most) =
            if of.seeks { (ASK_PAUSE, SEEK_PAUSE_MAX) } else { (STANDBY_PAUSE, 60 * STANDBY_PAUSE) };
        let spare = &mut of.spares[index];
        let backoff = (first << spare.tries.min(16)).min(most) + jitter;
        spare.due = self.now + pause.max(backoff);
        spare.tries += 1;
        if let Some((line, ..)) = spare.line.take() {
            self.hang_up(client, line);
        }
    }

    /// The likeliest node that is due is asked for the session, unless one is being asked.
    fn ask_one(&mut self, client: usize, local: Tick, lane: usize) {
        let now = self.now;
        let c = &mut self.clients[client];
        let home = c.session.as_ref().map_or(0, |session| usize::from(session.home().0));
        let followed = if home == lane { None } else { c.lanes[home].line.map(|(_, host)| host) };
        let of = &mut c.lanes[lane];
        if of.spares.iter().any(Spare::is_asking) {
            return;
        }
        let standing = of.spares.iter().enumerate().filter(|(_, spare)| spare.due <= now);
        let ranked = standing.filter_map(|(index, spare)| {
            let Some((_, Stage::Standing(welcome), _)) = &spare.line else { return None };
            let unlikely =
                (followed != Some(spare.host), c.primary != spare.host, welcome.role == Role::Backup);
            Some((unlikely, index))
        });
        let Some((_, index)) = ranked.min() else { return };
        let Some((line, Stage::Standing(welcome), _)) = of.spares[index].line else { return };
        let patience = (PATIENCE << of.unanswered.min(8)).min(RESUME_TIME);
        let mut out = Vec::new();
        let Some(session) = &mut c.session else { return };
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        let id = session.ask_to_resume(shard, &mut out);
        of.spares[index].line = Some((line, Stage::Asking(welcome, id, local), now + patience));
        self.send(line, 0, Parcel::Bytes(out));
    }

    /// A frame on a spare's connection.
    pub(super) fn spare_said(
        &mut self,
        client: usize,
        local: Tick,
        (lane, index): (usize, usize),
        frame: &Frame<'_>,
    ) {
        let reply = Reply::decode(frame).expect("S13: a server says replies");
        if let Reply::Members(said) = reply {
            self.learn(client, said.epoch, said.endpoints);
        } else if let Reply::Refused(refused) = reply
            && let Some(primary) = refused.primary
        {
            self.learn(client, primary.epoch, primary.endpoints);
        }
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        let now = self.now;
        let c = &mut self.clients[client];
        let Some(session) = &mut c.session else { return };
        let (epoch, seeks) = (session.epoch(), c.lanes[lane].seeks);
        let spare = &mut c.lanes[lane].spares[index];
        let Some((line, stage, _)) = spare.line else { return };
        match (stage, reply) {
            (Stage::Greeting, Reply::Welcome(welcome)) if session.fits(shard, &welcome) => {
                spare.line = Some((line, Stage::Standing(welcome), u64::MAX));
                let waits = seeks && welcome.role == Role::Backup;
                spare.due = now + if waits { ASK_PAUSE } else { 0 };
            }
            (Stage::Standing(_), Reply::Members(_)) => spare.due = now,
            (Stage::Standing(_), Reply::Refused(_)) => self.lose_spare(client, lane, index, 0),
            (Stage::Standing(_), _) | (Stage::Asking(..), Reply::Draining | Reply::Members(_)) => {}
            (Stage::Greeting, _) => self.lose_spare(client, lane, index, STANDBY_PAUSE),
            (Stage::Asking(welcome, id, _), Reply::Refused(refused)) => match refused.refusal.class() {
                Class::Retry if frame.request == id => {
                    spare.line = Some((line, Stage::Standing(welcome), u64::MAX));
                    let wait = (ASK_PAUSE << spare.tries.min(4)).min(ASK_PAUSE_MAX);
                    spare.due = now + wait.max(u64::from(refused.retry_after_ms) * MS);
                    spare.tries += 1;
                    c.lanes[lane].unanswered = 0;
                }
                Class::Retry => self.lose_spare(client, lane, index, 0),
                _ if welcome.role != Role::Standalone && welcome.epoch < epoch => {
                    self.lose_spare(client, lane, index, 0);
                }
                _ => self.win(client, local, lane, index, frame),
            },
            (Stage::Asking(..), _) => self.win(client, local, lane, index, frame),
        }
    }

    /// The answer to the RESUME is there: the connection is the lane's from here on.
    fn win(&mut self, client: usize, local: Tick, lane: usize, index: usize, frame: &Frame<'_>) {
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        let resume_by = self.now + RESUME_TIME;
        let c = &mut self.clients[client];
        let spare = &mut c.lanes[lane].spares[index];
        let Some((line, Stage::Asking(welcome, _, sent), _)) = spare.line.take() else { return };
        let host = spare.host;
        (c.lanes[lane].line, c.lanes[lane].resume_by) = (Some((line, host)), resume_by);
        c.lanes[lane].was_tried = true;
        let Some(session) = &mut c.session else { return };
        session.resumes(shard, &welcome, sent);
        let is_home = shard == session.home();
        self.trace("resumed", client as u64, host as u64, lane as u64);
        self.lane_said(client, local, lane, frame);
        if !is_home {
            return;
        }
        // A node decides for all shards or for none.
        for other in 0..self.clients[client].lanes.len() {
            let at = self.clients[client].lanes[other].line;
            if other != lane && at.is_some_and(|(_, there)| there != host) {
                self.break_lane(client, other, 0);
            }
        }
    }
}

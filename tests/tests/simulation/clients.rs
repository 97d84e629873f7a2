//! A client: the deciding half of the library, and what its engine does with connections: it opens a session, keeps
//! connections to the other nodes standing by, and looks for the node that takes the session up when one is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fairlock::deciding::{Event as News, Opened, Session};
use fairlock_protocol::handshake::Hello;
use fairlock_protocol::request::Open;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Frame, Liveness, Reply, Request, RequestId, ShardId, Tick, Welcome};

use super::clock::Clock;
use super::host::host_at;
use super::network::{End, Parcel};
use super::program::{Asked, Program};
use super::spares::Spare;
use super::{MS, World};

/// How long a connection may take until the session is opened or resumed on it.
const RESUME_TIME: u64 = 1000 * MS;
/// How long a session that is over may take to say so.
const FAREWELL_TIME: u64 = 1000 * MS;
/// Beats of a client that has nothing else to do.
const LOOK_TIME: u64 = 50 * MS;

/// A connection on which a session is being opened.
#[derive(Debug)]
pub(crate) struct Opening {
    line: u64,
    welcome: Option<Welcome>,
    sent: Tick,
    until: u64,
}

/// The way to one shard.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// The present connection, and to which node.
    pub(crate) line: Option<(u64, usize)>,
    pub(crate) resume_by: u64,
    pub(crate) redial: u64,
    pub(crate) was_tried: bool,
    pub(crate) spares: Vec<Spare>,
    pub(crate) seeks: bool,
    pub(crate) unanswered: u32,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) clock: Clock,
    /// 0: it does not run.
    pub(crate) life: u64,
    pub(crate) stalled_until: u64,
    pub(crate) wakes_at: u64,
    pub(crate) inbox: VecDeque<(u64, Parcel)>,
    pub(crate) ttl_ms: u32,
    /// Which node is asked first, and the newest news of where the primary is.
    pub(crate) primary: usize,
    pub(crate) epoch: u32,
    opening: Option<Opening>,
    open_at: u64,
    tries: u32,
    pub(crate) session: Option<Session>,
    farewell: u64,
    pub(crate) lanes: Vec<Lane>,
    /// What came on each connection and is no whole frame yet.
    pub(crate) unread: BTreeMap<u64, Vec<u8>>,
    pub(crate) program: Program,
    /// When each request was first sent, in true time: R9.
    sent: BTreeMap<(u16, u64), u64>,
    /// What each kept answer was: S7.
    kept: BTreeMap<(u16, u64, u64), u64>,
}

impl Client {
    pub(crate) fn new(clock: Clock, ttl_ms: u32) -> Client {
        Client {
            clock,
            life: 0,
            stalled_until: 0,
            wakes_at: u64::MAX,
            inbox: VecDeque::new(),
            ttl_ms,
            primary: 0,
            epoch: 0,
            opening: None,
            open_at: 0,
            tries: 0,
            session: None,
            farewell: u64::MAX,
            lanes: Vec::new(),
            unread: BTreeMap::new(),
            program: Program::default(),
            sent: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn wake_client(&mut self, client: usize, at: u64) {
        let c = &mut self.clients[client];
        let at = at.max(c.stalled_until);
        if c.life != 0 && at < c.wakes_at {
            c.wakes_at = at;
            let life = c.life;
            self.put_at(at, super::Event::Client(client, life, at));
        }
    }

    pub(super) fn start_client(&mut self, client: usize) {
        if self.clients[client].life != 0 {
            return;
        }
        self.lives += 1;
        let (clock, ttl_ms) = (self.clients[client].clock, self.clients[client].ttl_ms);
        self.clients[client] = Client { life: self.lives, ..Client::new(clock, ttl_ms) };
        self.clients[client].primary = self.random.index(self.hosts.len());
        self.trace("client", client as u64, self.lives, 0);
        self.wake_client(client, self.now);
    }

    /// A client's process ends without a word; `off`: its machine, too.
    pub(super) fn crash_client(&mut self, client: usize, off: bool) {
        let life = std::mem::take(&mut self.clients[client].life);
        if life == 0 {
            return;
        }
        self.trace("client crash", client as u64, life, u64::from(off));
        self.guards.retain(|guard| guard.client != client);
        self.clients[client].session = None;
        self.hang_up_all(|end| end == End::Client(client, life), off);
    }

    /// A client runs: what came, what time has decided, what it wants.
    pub(super) fn run_client(&mut self, client: usize, life: u64, at: u64) {
        let c = &mut self.clients[client];
        if c.life != life || c.wakes_at != at {
            return;
        }
        c.wakes_at = u64::MAX;
        if c.stalled_until > self.now {
            return self.wake_client(client, self.now);
        }
        let local = c.clock.shows(self.now);
        while let Some((line, parcel)) = self.clients[client].inbox.pop_front() {
            match parcel {
                Parcel::Connect => {}
                Parcel::Bytes(bytes) => self.hear(client, local, line, &bytes),
                Parcel::Close => self.line_gone(client, line),
            }
        }
        if let Some(session) = &mut self.clients[client].session {
            session.tick(local);
        }
        self.follow_news(client, local);
        self.look_after_session(client);
        self.look_after_lanes(client, local);
        self.run_program(client, local);
        self.follow_news(client, local);
        self.flush(client);
        let c = &mut self.clients[client];
        let mut due = c.program.next.min(self.now + LOOK_TIME);
        if let Some(session) = &mut c.session {
            due = due.min(c.clock.truth(session.next_due(local)));
        } else if let Some(opening) = &c.opening {
            due = due.min(opening.until);
        } else {
            due = due.min(c.open_at);
        }
        for lane in &c.lanes {
            let spares = lane.spares.iter().map(|spare| spare.due.min(spare.until()));
            let soonest = spares.min().unwrap_or(u64::MAX);
            due = due.min(if lane.line.is_none() { lane.redial.min(soonest) } else { u64::MAX });
        }
        self.wake_client(client, due.max(self.now + MS / 10));
    }

    /// Bytes came on a connection.
    fn hear(&mut self, client: usize, local: Tick, line: u64, bytes: &[u8]) {
        let mut unread = self.clients[client].unread.remove(&line).unwrap_or_default();
        unread.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((frame, length)) = Frame::split(&unread[taken..]).expect("S13: a server says frames") {
            if self.place_of(client, line).is_none() {
                return;
            }
            self.take_frame(client, local, line, &frame);
            taken += length;
        }
        unread.drain(..taken);
        if !unread.is_empty() {
            self.clients[client].unread.insert(line, unread);
        }
    }

    /// What a connection is for: opening, a lane's own, or one of a lane's spares.
    fn place_of(&self, client: usize, line: u64) -> Option<Place> {
        let c = &self.clients[client];
        if c.opening.as_ref().is_some_and(|opening| opening.line == line) {
            return Some(Place::Opening);
        }
        for (index, lane) in c.lanes.iter().enumerate() {
            if lane.line.is_some_and(|(own, _)| own == line) {
                return Some(Place::Lane(index));
            }
            if let Some(spare) = lane.spares.iter().position(|spare| spare.is_on(line)) {
                return Some(Place::Spare(index, spare));
            }
        }
        None
    }

    fn take_frame(&mut self, client: usize, local: Tick, line: u64, frame: &Frame<'_>) {
        match self.place_of(client, line) {
            Some(Place::Opening) => self.opening_said(client, local, frame),
            Some(Place::Spare(lane, spare)) => self.spare_said(client, local, (lane, spare), frame),
            Some(Place::Lane(lane)) => self.lane_said(client, local, lane, frame),
            None => {}
        }
    }

    /// A frame on a lane's own connection.
    pub(super) fn lane_said(&mut self, client: usize, local: Tick, lane: usize, frame: &Frame<'_>) {
        if super::is_loud() {
            let reply = Reply::decode(frame);
            eprintln!("{:>12.3} client {client} hears {:?} {reply:?}", self.now as f64 / 1e6, frame.request);
        }
        self.judge_frame(client, lane, frame);
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        let Some(session) = &mut self.clients[client].session else { return };
        let received = session.receive(local, shard, frame);
        if let Err(broken) = received {
            panic!("S13: client {client} was told what it must not be told: {broken:?}");
        }
        self.follow_news(client, local);
    }

    /// S7 and R9 of one frame.
    fn judge_frame(&mut self, client: usize, lane: usize, frame: &Frame<'_>) {
        let shard = u16::try_from(lane).expect("few shards");
        let grant = match Reply::decode(frame) {
            Ok(Reply::Granted(grant) | Reply::Converted(grant)) => grant.grant.get(),
            _ => 0,
        };
        let c = &mut self.clients[client];
        if frame.flags & FLAG_KEPT != 0 {
            let said = super::stir(frame.body);
            let first = *c.kept.entry((shard, frame.request.0, grant)).or_insert(said);
            assert_eq!(first, said, "S7: request {} of client {client} came out twice", frame.request.0);
        }
        let sent = c.sent.get(&(shard, frame.request.0)).copied();
        let Some((line, _)) = c.lanes[lane].line else { return };
        if frame.flags & FLAG_RENEWED == 0 {
            return;
        }
        let by = self.network.streams.get(&line).map(|stream| stream.ends[1]);
        let (Some(sent), Some(End::Node(_, life, _))) = (sent, by) else { return };
        let offices = &self.judge.offices;
        let own = offices.iter().rev().find(|(_, office)| office.0 == life).map_or(0, |(epoch, _)| *epoch);
        let later = offices.iter().rev().find(|(_, office)| office.0 != life && office.1 < sent);
        let deposed = later.is_some_and(|(epoch, _)| *epoch > own);
        assert!(!deposed, "R9, S10: client {client} was renewed in {own} by who was deposed before");
    }

    fn opening_said(&mut self, client: usize, local: Tick, frame: &Frame<'_>) {
        let seed = self.random.next();
        let c = &mut self.clients[client];
        let Some(opening) = &mut c.opening else { return };
        match Reply::decode(frame).expect("S13: a server says replies") {
            Reply::Welcome(welcome) => {
                opening.welcome = Some(welcome);
                opening.sent = local;
                let open = Open {
                    ttl_ms: c.ttl_ms,
                    liveness: Liveness::Heartbeat,
                    predecessor_gone: false,
                    pid: 1,
                    identity: b"",
                    reclaim_key: b"",
                    host: b"h",
                    exe: b"/x",
                    label: b"simulated",
                };
                let mut out = Vec::new();
                Request::Open(open).encode(RequestId(1), 0, &mut out);
                let line = opening.line;
                self.send(line, 0, Parcel::Bytes(out));
            }
            Reply::Opened { session, secret, ttl_ms, home } => {
                let welcome = opening.welcome.expect("WELCOME comes first");
                let (line, sent) = (opening.line, opening.sent);
                let ttl = Duration::from_millis(ttl_ms.into());
                let opened = Opened { welcome, session, secret, ttl, home, sent };
                let at = self.network.streams.get(&line).map(|stream| stream.ends[1]);
                let Some(End::Node(host, ..)) = at else { return };
                c.session = Some(Session::new(&opened, seed));
                (c.opening, c.tries, c.farewell) = (None, 0, u64::MAX);
                c.lanes = (0..welcome.shards).map(|_| Lane::default()).collect();
                c.lanes[usize::from(home.0)].line = Some((line, host));
                c.lanes[usize::from(home.0)].was_tried = true;
                (c.sent, c.kept) = (BTreeMap::new(), BTreeMap::new());
                assert!(frame.flags & FLAG_KEPT == 0, "OPENED is not kept");
                self.trace("opened", client as u64, session.get(), host as u64);
            }
            Reply::Refused(refused) => {
                if super::is_loud() {
                    eprintln!("{} client {client} {refused:?}", self.now);
                }
                let to = refused.primary.map(|there| (there.epoch, there.endpoints.to_owned()));
                self.opening_failed(client);
                if let Some((epoch, endpoints)) = to {
                    self.learn(client, epoch, &endpoints);
                }
            }
            _ => {}
        }
    }

    /// Where the primary is said to be.
    pub(super) fn learn(&mut self, client: usize, epoch: u32, endpoints: &str) {
        let c = &mut self.clients[client];
        let Some(host) = endpoints.split(',').next().and_then(host_at) else { return };
        if epoch >= c.epoch {
            (c.epoch, c.primary) = (epoch, host);
        }
    }

    fn opening_failed(&mut self, client: usize) {
        let pause = 2 * MS + self.random.below(20 * MS);
        let hosts = self.hosts.len();
        let c = &mut self.clients[client];
        c.tries += 1;
        c.open_at = self.now + pause * u64::from(c.tries.min(5));
        c.primary = (c.primary + 1) % hosts;
        if let Some(opening) = c.opening.take() {
            self.hang_up(client, opening.line);
        }
    }

    /// This side ends a connection.
    pub(super) fn hang_up(&mut self, client: usize, line: u64) {
        self.clients[client].unread.remove(&line);
        self.send(line, 0, Parcel::Close);
    }

    /// A connection is gone.
    fn line_gone(&mut self, client: usize, line: u64) {
        self.send(line, 0, Parcel::Close);
        self.clients[client].unread.remove(&line);
        match self.place_of(client, line) {
            Some(Place::Opening) => self.opening_failed(client),
            Some(Place::Lane(lane)) => self.break_lane(client, lane, 0),
            Some(Place::Spare(lane, spare)) => self.lose_spare(client, lane, spare, 0),
            None => {}
        }
    }

    /// A lane has no connection any more.
    pub(super) fn break_lane(&mut self, client: usize, lane: usize, pause: u64) {
        let backoff = 5 * MS + self.random.below(5 * MS);
        let shard = ShardId(u16::try_from(lane).expect("few shards"));
        let c = &mut self.clients[client];
        let Some((line, _)) = c.lanes[lane].line.take() else { return };
        c.lanes[lane].redial = self.now + pause.max(backoff);
        if let Some(session) = &mut c.session {
            session.disconnected(shard);
        }
        self.hang_up(client, line);
    }

    /// Connects to a shard of a node.
    pub(super) fn connect(&mut self, client: usize, host: usize) -> u64 {
        let life = self.clients[client].life;
        let there = End::Node(host, self.hosts[host].life, 0);
        let line = self.network.open([End::Client(client, life), there], [false; 2]);
        self.send(line, 0, Parcel::Connect);
        line
    }

    /// Opens a session, ends one, or lets the last one go.
    fn look_after_session(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if c.session.as_ref().is_some_and(Session::is_over) && c.farewell <= self.now {
            c.session = None;
            let lanes = std::mem::take(&mut c.lanes);
            for lane in lanes {
                let own = lane.line.map(|(line, _)| line);
                for line in own.into_iter().chain(lane.spares.iter().filter_map(Spare::line)) {
                    self.hang_up(client, line);
                }
            }
            self.clients[client].unread.clear();
        }
        let c = &mut self.clients[client];
        if c.opening.as_ref().is_some_and(|opening| opening.until <= self.now) {
            return self.opening_failed(client);
        }
        let wanted = self.wants_session(client);
        let c = &mut self.clients[client];
        if c.session.is_none() && c.opening.is_none() && c.open_at <= self.now && wanted {
            let host = c.primary;
            let line = self.connect(client, host);
            let mut out = Vec::new();
            Request::Hello(Hello::to(ShardId::ANY)).encode(RequestId::NOTICE, 0, &mut out);
            self.send(line, 0, Parcel::Bytes(out));
            let until = self.now + RESUME_TIME;
            self.clients[client].opening = Some(Opening { line, welcome: None, sent: Tick(0), until });
        }
    }

    /// What came of what the client asked.
    pub(super) fn follow_news(&mut self, client: usize, local: Tick) {
        loop {
            let Some(session) = &mut self.clients[client].session else { return };
            let news = session.take_events();
            if news.is_empty() {
                return;
            }
            for one in news {
                self.follow_one(client, local, one);
            }
        }
    }

    fn follow_one(&mut self, client: usize, local: Tick, news: News) {
        match news {
            News::Granted(ticket, held) => self.granted(client, ticket, vec![held]),
            News::GrantedAll(ticket, held) => self.granted(client, ticket, held),
            News::Converted(ticket) => self.answered(client, ticket, &Asked::Converted),
            News::Refused(ticket, _) => self.answered(client, ticket, &Asked::Refused),
            News::Lost(ticket, _) => self.answered(client, ticket, &Asked::Lost),
            News::Over(cause) => {
                self.trace("over", client as u64, 0, 0);
                let said = matches!(cause, fairlock::LostCause::Session(_));
                self.guards.retain(|guard| guard.client != client);
                let c = &mut self.clients[client];
                c.farewell = if said { self.now } else { self.now + FAREWELL_TIME };
            }
            News::Closed => self.clients[client].farewell = self.now,
            News::Elsewhere(shard, ms, to) => {
                if let Some((epoch, endpoints)) = to {
                    self.learn(client, epoch, &endpoints);
                }
                self.break_lane(client, usize::from(shard.0), u64::from(ms) * MS);
            }
            News::Members(epoch, endpoints) => self.learn(client, epoch, &endpoints),
            News::Silent => {
                for lane in 0..self.clients[client].lanes.len() {
                    self.break_lane(client, lane, 0);
                }
            }
        }
        let _ = local;
    }

    /// Sends what there is to say.
    pub(super) fn flush(&mut self, client: usize) {
        for lane in 0..self.clients[client].lanes.len() {
            let shard = u16::try_from(lane).expect("few shards");
            let c = &mut self.clients[client];
            let (Some(session), Some((line, _))) = (&mut c.session, c.lanes[lane].line) else { continue };
            let out = std::mem::take(session.out(ShardId(shard)));
            if out.is_empty() {
                continue;
            }
            let mut at = 0;
            while let Ok(Some((frame, length))) = Frame::split(&out[at..]) {
                c.sent.entry((shard, frame.request.0)).or_insert(self.now);
                if super::is_loud() {
                    let request = Request::decode(&frame);
                    eprintln!(
                        "{:>12.3} client {client} says {:?} {request:?}",
                        self.now as f64 / 1e6,
                        frame.request
                    );
                }
                at += length;
            }
            self.send(line, 0, Parcel::Bytes(out));
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
enum Place {
    Opening,
    Lane(usize),
    Spare(usize, usize),
}

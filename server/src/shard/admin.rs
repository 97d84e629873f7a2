//! An operator's questions and orders. They need no session; lists are answered a page at a time, each page a moment of
//! this shard. The asker merges the shards.

use std::ops::ControlFlow;
use std::time::Duration;

use fairlock_locktable::{Command, Effect, EntryView, LockView, Role as Place, SessionView};
use fairlock_protocol::admin::{LockEntry, PageWriter, SessionEntry, ShowEntry, Standing, Status};
use fairlock_protocol::limits::LIST_VISITS_MAX;
use fairlock_protocol::reply::kind;
use fairlock_protocol::{
    Digest, Liveness, Malformed, Mode, Refusal, Reply, Request, RequestId, Resource, SessionId, Tick,
    Transport,
};

use super::Shard;
use crate::connection::{Connection, ConnectionKey, Connections};
use crate::stats::ShardStats;

/// Holders of one name of a list that are looked at for whether they are inside.
const CACHED_LOOKS_MAX: u32 = 64;

impl Shard {
    /// A question or an order of an operator.
    pub(super) fn operator_request(&mut self, key: ConnectionKey, request: RequestId, message: &Request<'_>) {
        match *message {
            Request::Status => self.status(key, request),
            Request::List { cursor, prefix } => self.list(key, request, cursor, prefix),
            Request::Sessions { cursor } => self.list_sessions(key, request, cursor),
            Request::Show { cursor, resource } => self.show(key, request, cursor, resource),
            Request::Validate { resource, token } => {
                if let Some(digest) = self.digest_here(key, request, resource) {
                    let current = self.table.is_current(digest, token);
                    self.reply(key, request, 0, &Reply::Validated { current });
                }
            }
            Request::Break { resource, force } => self.break_resource(key, request, resource, force),
            Request::Kill { session, force } => self.kill(key, request, session, force),
            ref other if self.cell_request(key, request, other) => {}
            _ => self.reject(key, request, Malformed::Illegal("kind")),
        }
    }

    fn list(&mut self, key: ConnectionKey, request: RequestId, cursor: u64, prefix: &[u8]) {
        let mut bytes = Vec::new();
        let mut page = PageWriter::begin(&mut bytes, kind::LISTED, request);
        let (mut left, mut full) = (LIST_VISITS_MAX, false);
        let next = self.table.locks(cursor, |lock: LockView<'_>| {
            if lock.resource.name.as_bytes().starts_with(prefix) {
                let LockView { resource, holders, mode, .. } = lock;
                let waiters = lock.waiters + lock.conversions;
                let cached = self.cached_among(lock.digest);
                full = !page.push(&LockEntry { resource, holders, cached, waiters, mode });
            }
            // Names that do not match cost time, too, and the whole shard waits meanwhile.
            left -= 1;
            fits(!full && left > 0)
        });
        page.finish(if full { refused_one(next) } else { next.unwrap_or(0) });
        self.send_page(key, &bytes);
    }

    fn show(&mut self, key: ConnectionKey, request: RequestId, cursor: u64, resource: Resource<'_>) {
        let Some(digest) = self.digest_here(key, request, resource) else { return };
        let mut bytes = Vec::new();
        let mut page = PageWriter::begin(&mut bytes, kind::SHOWN, request);
        let now = self.moment();
        let next = self.table.show(digest, cursor, |entry: EntryView<'_>| {
            let Some(session) = self.table.session_view(entry.session) else {
                return ControlFlow::Continue(());
            };
            let transport = self.transport_of(entry.session.slot);
            let mut shown = show_entry(now, &entry, &session, transport);
            if shown.standing == Standing::Held && self.is_idle(&entry) {
                shown.standing = Standing::Cached;
            }
            fits(page.push(&shown))
        });
        page.finish(refused_one(next));
        self.send_page(key, &bytes);
    }

    fn list_sessions(&mut self, key: ConnectionKey, request: RequestId, cursor: u64) {
        let mut bytes = Vec::new();
        let mut page = PageWriter::begin(&mut bytes, kind::SESSIONS, request);
        let now = self.moment();
        let next = self.table.sessions(cursor, |view: SessionView<'_>| {
            let slot = view.key.slot;
            let attributes = view.attributes;
            fits(page.push(&SessionEntry {
                session: view.id,
                transport: self.transport_of(slot),
                liveness: self.liveness_of(slot),
                pid: attributes.pid,
                ttl_ms: view.ttl_ms,
                expires_in_ms: view.expires_in(now).map(saturated_ms),
                grants: view.grants,
                waits: view.waits,
                host: attributes.host,
                exe: attributes.exe,
                label: attributes.label,
            }))
        });
        page.finish(refused_one(next));
        self.send_page(key, &bytes);
    }

    /// For how many of the first holders of a resource its grant only stays with the client.
    fn cached_among(&self, digest: Digest) -> u32 {
        if !self.keeps_words() {
            return 0;
        }
        let (mut cached, mut left) = (0, CACHED_LOOKS_MAX);
        self.table.show(digest, 0, |entry: EntryView<'_>| {
            cached += u32::from(entry.role == Place::Holder && self.is_idle(&entry));
            left -= 1;
            fits(left > 0 && entry.role == Place::Holder)
        });
        cached
    }

    /// Whether a holder's grant only stays with its client, and nobody is inside.
    fn is_idle(&self, entry: &EntryView<'_>) -> bool {
        let presence = self.presences.get(entry.session.slot as usize).and_then(Option::as_ref);
        let connection = presence.and_then(|presence| self.connections.at(presence.connection?));
        let words = connection.and_then(|connection| connection.words.as_ref());
        words.zip(entry.grant).is_some_and(|(words, grant)| words.is_idle(grant))
    }

    fn send_page(&mut self, key: ConnectionKey, bytes: &[u8]) {
        if let Some(out) = self.out(key) {
            out.extend_from_slice(bytes);
        }
    }

    /// How the session in this slot is connected to this shard.
    fn transport_of(&self, slot: u32) -> Transport {
        let presence = self.presences.get(slot as usize).and_then(Option::as_ref);
        let connection = presence.and_then(|presence| presence.connection);
        transport(&self.connections, connection)
    }

    fn liveness_of(&self, slot: u32) -> Liveness {
        let presence = self.presences.get(slot as usize).and_then(Option::as_ref);
        presence.map_or(Liveness::Heartbeat, |presence| presence.liveness)
    }

    fn status(&mut self, key: ConnectionKey, request: RequestId) {
        let counts = self.table.counts();
        let settings = &self.settings;
        let alarms = self.alarm_lines();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            io: settings.io,
            cell: settings.cell,
            epoch: settings.epoch.get(),
            role: self.role(),
            shards: settings.shards,
            pid: std::process::id(),
            uptime_ms: self.now.since(settings.started).as_millis().try_into().unwrap_or(u64::MAX),
            recovering_ms: self.recovering_ms(),
            locks: counts.locks.into(),
            grants: counts.grants.into(),
            waiters: u64::from(counts.waiters) + u64::from(counts.conversions),
            sessions: self.home_sessions(),
            connections: self.connections.len() as u64,
            grants_total: counts.grants_total,
            overtakes_total: counts.overtakes_total,
            bypasses_total: counts.bypasses_total,
            table_bytes: self.table.memory() as u64,
            alarms: &alarms,
        };
        self.reply(key, request, 0, &Reply::Status(status));
    }

    /// Conditions somebody should look at, one a line.
    fn alarm_lines(&self) -> String {
        let mut lines = self.alarms.texts();
        if self.table.counts().overtakes_total > 0 {
            lines.push(
                "somebody was served before one who came earlier, against the rules: please report this"
                    .into(),
            );
        }
        if !self.parked.is_empty() {
            lines.push("sessions wait for the state directory to be written".into());
        }
        lines.join("\n")
    }

    /// Sessions whose home this shard is.
    fn home_sessions(&self) -> u64 {
        u64::from(self.table.counts().sessions) - self.visiting
    }

    fn break_resource(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        resource: Resource<'_>,
        force: bool,
    ) {
        let Some(digest) = self.digest_here(key, request, resource) else { return };
        tracing::warn!(name = %resource.name, force, "an operator breaks a lock");
        let holders = self.apply_and_count(Command::Break { digest, force });
        if holders == 0 {
            self.refuse(key, request, Refusal::NotFound.into());
        } else {
            self.reply(key, request, 0, &Reply::Broke { holders });
        }
    }

    /// Applies a BREAK and says how many holders were told.
    fn apply_and_count(&mut self, command: Command<'_>) -> u32 {
        self.apply_one(command);
        let told = |effect: &Effect| match effect {
            Effect::Broke { holders } => Some(*holders),
            _ => None,
        };
        let holders = self.effects.iter().find_map(told).unwrap_or(0);
        self.apply_returned();
        holders
    }

    fn kill(&mut self, key: ConnectionKey, request: RequestId, id: SessionId, force: bool) {
        if id.home() != self.settings.me && id.home().0 < self.settings.shards {
            return self.reject(key, request, Malformed::Illegal("session: ask its home shard"));
        }
        let Some(session) = self.table.session(id) else {
            return self.refuse(key, request, Refusal::NotFound.into());
        };
        tracing::warn!(session = %id, force, "an operator ends a session");
        if force {
            self.end_session(session, fairlock_locktable::command::Ended::Killed);
        } else {
            self.apply(Command::Kill { session, force });
        }
        self.reply(key, request, 0, &Reply::Killed);
    }

    /// Publishes the shard's numbers. With `weigh` also what the table weighs, which is a walk over its sessions.
    pub(crate) fn publish(&self, weigh: bool) {
        let counts = self.table.counts();
        let stats = &self.stats;
        let set = ShardStats::set;
        set(&stats.locks, counts.locks.into());
        set(&stats.grants, counts.grants.into());
        set(&stats.waiters, u64::from(counts.waiters) + u64::from(counts.conversions));
        set(&stats.sessions, self.home_sessions());
        set(&stats.connections, self.connections.len() as u64);
        if weigh {
            set(&stats.table_bytes, self.table.memory() as u64);
        }
        set(&stats.recovering_ms, self.recovering_ms().into());
        set(&stats.grants_total, counts.grants_total);
        set(&stats.releases_total, counts.releases_total);
        set(&stats.timeouts_total, counts.timeouts_total);
        set(&stats.cancels_total, counts.cancels_total);
        set(&stats.expiries_total, counts.expiries_total);
        set(&stats.deadlocks_total, counts.deadlocks_total);
        set(&stats.overtakes_total, counts.overtakes_total);
        set(&stats.bypasses_total, counts.bypasses_total);
        self.publish_log();
    }
}

fn fits(pushed: bool) -> ControlFlow<()> {
    if pushed { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn transport(connections: &Connections, key: Option<ConnectionKey>) -> Transport {
    let connection = key.and_then(|key| connections.at(key));
    connection.map_or(Transport::Away, Connection::transport)
}

/// The cursor of a page's successor: the table counts the entry that did not fit as visited.
fn refused_one(next: Option<u64>) -> u64 {
    next.map_or(0, |next| next - 1)
}

fn saturated_ms(left: Duration) -> u32 {
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX - 1)
}

fn show_entry<'a>(
    now: Tick,
    entry: &EntryView<'a>,
    session: &SessionView<'a>,
    transport: Transport,
) -> ShowEntry<'a> {
    let (standing, mode, from) = match entry.role {
        Place::Holder => (Standing::Held, entry.mode, None),
        Place::Conversion => (Standing::Converting, entry.asked, entry.mode),
        Place::Waiter => (Standing::Waiting, entry.asked, entry.mode),
    };
    ShowEntry {
        standing,
        mode: mode.unwrap_or(Mode::NL),
        from,
        transport,
        session: session.id,
        owner: entry.owner,
        token: entry.token,
        age_ms: now.since(entry.since).as_millis().try_into().unwrap_or(u64::MAX),
        position: if standing == Standing::Held { 0 } else { entry.position },
        pid: session.attributes.pid,
        discipline: entry.discipline,
        priority: entry.priority,
        class: entry.class,
        passed: entry.passed,
        host: session.attributes.host,
        exe: session.attributes.exe,
        label: if entry.label.is_empty() { session.attributes.label } else { entry.label },
    }
}

//! What the answers say, owned: plain structures for people and scripts.

use fairlock_protocol::admin::{self, LockEntry, SessionEntry, ShowEntry, Standing};
use fairlock_protocol::handshake::Role;
use fairlock_protocol::{
    CellId, Discipline, FencingToken, Liveness, Mode, OwnerId, Priority, SessionId, Transport,
};

/// One name in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockLine {
    /// Which set of names.
    pub namespace: String,
    /// The name, any bytes.
    pub name: Vec<u8>,
    /// How many hold it.
    pub holders: u32,
    /// For how many of them (of the first 64) the grant only stays with the client, and nobody is inside.
    pub cached: u32,
    /// How many wait, conversions included.
    pub waiters: u32,
    /// The strongest mode held; `None` when nobody holds it (a lock delay).
    pub mode: Option<Mode>,
}

/// One holder, conversion or waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowLine {
    /// A holder whose client keeps the grant for later, without using it.
    pub cached: bool,
    /// The mode held or, of one that waits, asked for.
    pub mode: Mode,
    /// Of a conversion: the mode held meanwhile.
    pub from: Option<Mode>,
    /// How its client is connected.
    pub transport: Transport,
    /// Whose.
    pub session: SessionId,
    /// Which thread or task of it.
    pub owner: OwnerId,
    /// Of a holder that has one: the fencing token.
    pub token: Option<FencingToken>,
    /// How long it holds or waits, in milliseconds.
    pub age_ms: u64,
    /// Place in its queue, from 1; 0 for a holder.
    pub position: u32,
    /// Process id on its host.
    pub pid: u32,
    /// By what the wait queue goes.
    pub discipline: Discipline,
    /// Of one that waits: the class asked for.
    pub priority: Priority,
    /// Of one that waits where classes count: the class it has by now, by age and inheritance.
    pub class: Priority,
    /// Of one that waits: how often somebody who came later was let in before it.
    pub passed: u32,
    /// Its host.
    pub host: String,
    /// Its program.
    pub exe: String,
    /// The request's label, else the session's.
    pub label: String,
}

/// Everybody at one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Who holds it (a conversion stands here too, with the mode it holds, when the server says so).
    pub holders: Vec<ShowLine>,
    /// Who holds it and waits for another mode, first to be served first.
    pub conversions: Vec<ShowLine>,
    /// Who waits, in order of arrival, which is the order of service but under the discipline `priority`.
    pub waiters: Vec<ShowLine>,
    /// Times somebody was served before one who came earlier, against the rules, on the whole shard; must be 0.
    pub overtakes_total: u64,
    /// Times somebody was served before one who came earlier as a discipline allows, on the whole shard.
    pub bypasses_total: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLine {
    /// Which.
    pub session: SessionId,
    /// How its client is connected to its home shard.
    pub transport: Transport,
    /// What ends it.
    pub liveness: Liveness,
    /// Process id on its host.
    pub pid: u32,
    /// Length of its lease, in milliseconds.
    pub ttl_ms: u32,
    /// What is left of it, in milliseconds; `None` when time does not end it.
    pub expires_in_ms: Option<u32>,
    /// Grants on all shards.
    pub grants: u32,
    /// Waiting requests on all shards.
    pub waits: u32,
    /// Its host.
    pub host: String,
    /// Its program.
    pub exe: String,
    /// What it calls itself.
    pub label: String,
}

/// A server's state, summed over its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// Version of the server.
    pub version: String,
    /// Which driver moves its bytes: `uring` or `epoll`.
    pub io: String,
    /// Which cell.
    pub cell: CellId,
    /// Its epoch.
    pub epoch: u32,
    /// What the node is.
    pub role: Role,
    /// How many shards.
    pub shards: u16,
    /// Process id of the server.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// What is left of a quarantine, in milliseconds.
    pub recovering_ms: u32,
    /// Resources in use.
    pub locks: u64,
    /// Grants held.
    pub grants: u64,
    /// Requests that wait, conversions included.
    pub waiters: u64,
    /// Sessions alive.
    pub sessions: u64,
    /// Connections open.
    pub connections: u64,
    /// Grants since the start.
    pub grants_total: u64,
    /// Times somebody was served before one who came earlier, against the rules; must be 0.
    pub overtakes_total: u64,
    /// Times somebody was served before one who came earlier as a namespace's discipline allows.
    pub bypasses_total: u64,
    /// Bytes the lock table takes.
    pub table_bytes: u64,
    /// Conditions somebody should look at.
    pub alarms: Vec<String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl From<LockEntry<'_>> for LockLine {
    fn from(entry: LockEntry<'_>) -> LockLine {
        LockLine {
            namespace: entry.resource.namespace.as_str().to_owned(),
            name: entry.resource.name.as_bytes().to_vec(),
            holders: entry.holders,
            cached: entry.cached,
            waiters: entry.waiters,
            mode: entry.mode,
        }
    }
}

impl From<&ShowEntry<'_>> for ShowLine {
    fn from(entry: &ShowEntry<'_>) -> ShowLine {
        ShowLine {
            cached: entry.standing == Standing::Cached,
            mode: entry.mode,
            from: entry.from,
            transport: entry.transport,
            session: entry.session,
            owner: entry.owner,
            token: entry.token,
            age_ms: entry.age_ms,
            position: entry.position,
            pid: entry.pid,
            discipline: entry.discipline,
            priority: entry.priority,
            class: entry.class,
            passed: entry.passed,
            host: text(entry.host),
            exe: text(entry.exe),
            label: text(entry.label),
        }
    }
}

impl Show {
    /// By what the wait queue goes; a name that nobody holds or wants does not tell.
    pub fn discipline(&self) -> Discipline {
        let mut lines = self.holders.iter().chain(&self.conversions).chain(&self.waiters);
        lines.next().map_or(Discipline::Strict, |line| line.discipline)
    }

    /// Puts an entry into its list.
    pub(crate) fn take(&mut self, entry: &ShowEntry<'_>) {
        let list = match entry.standing {
            Standing::Held | Standing::Cached => &mut self.holders,
            Standing::Converting => &mut self.conversions,
            Standing::Waiting => &mut self.waiters,
        };
        list.push(entry.into());
    }
}

impl From<SessionEntry<'_>> for SessionLine {
    fn from(entry: SessionEntry<'_>) -> SessionLine {
        SessionLine {
            session: entry.session,
            transport: entry.transport,
            liveness: entry.liveness,
            pid: entry.pid,
            ttl_ms: entry.ttl_ms,
            expires_in_ms: entry.expires_in_ms,
            grants: entry.grants,
            waits: entry.waits,
            host: text(entry.host),
            exe: text(entry.exe),
            label: text(entry.label),
        }
    }
}

impl From<admin::Status<'_>> for StatusReport {
    fn from(status: admin::Status<'_>) -> StatusReport {
        StatusReport {
            version: status.version.to_owned(),
            io: status.io.to_owned(),
            cell: status.cell,
            epoch: status.epoch,
            role: status.role,
            shards: status.shards,
            pid: status.pid,
            uptime_ms: status.uptime_ms,
            recovering_ms: status.recovering_ms,
            locks: status.locks,
            grants: status.grants,
            waiters: status.waiters,
            sessions: status.sessions,
            connections: status.connections,
            grants_total: status.grants_total,
            overtakes_total: status.overtakes_total,
            bypasses_total: status.bypasses_total,
            table_bytes: status.table_bytes,
            alarms: status.alarms.lines().map(str::to_owned).collect(),
        }
    }
}

impl StatusReport {
    /// Adds what another shard of the same server counted.
    pub(crate) fn add(&mut self, other: &StatusReport) {
        self.uptime_ms = self.uptime_ms.max(other.uptime_ms);
        self.recovering_ms = self.recovering_ms.max(other.recovering_ms);
        self.locks += other.locks;
        self.grants += other.grants;
        self.waiters += other.waiters;
        self.sessions += other.sessions;
        self.connections += other.connections;
        self.grants_total += other.grants_total;
        self.overtakes_total += other.overtakes_total;
        self.bypasses_total += other.bypasses_total;
        self.table_bytes += other.table_bytes;
        for alarm in &other.alarms {
            if !self.alarms.contains(alarm) {
                self.alarms.push(alarm.clone());
            }
        }
    }
}

//! What an operator sees: pages of locks, of one lock's entries, of sessions, and a shard's state. Lists come in
//! pages that fit one frame; a page is a moment, the whole list is not.

use crate::handshake::Role;
use crate::ids::{CellId, FencingToken, OwnerId, RequestId, SessionId};
use crate::limits::FRAME_BYTES_MAX;
use crate::mode::Mode;
use crate::name::Resource;
use crate::priority::{Discipline, Priority};
use crate::reply::read_token;
use crate::request::Liveness;
use crate::wire::{HEADER_BYTES, Malformed, Reader, Writer};
use alloc::vec::Vec;
use core::marker::PhantomData;

/// One entry of a page.
pub trait Entry<'a>: Sized {
    /// Appends the entry.
    fn write(&self, w: &mut Writer<'_>);
    /// Takes one entry off a body.
    ///
    /// # Errors
    /// [`Malformed`], with the field.
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed>;
}

/// Some entries and where the next ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a, E> {
    /// Cursor of the next page; 0 when this is the last.
    pub next: u64,
    count: u16,
    entries: &'a [u8],
    of: PhantomData<E>,
}

impl<'a, E: Entry<'a>> Page<'a, E> {
    pub(crate) fn read(mut r: Reader<'a>) -> Result<Page<'a, E>, Malformed> {
        let (next, count) = (r.u64("next")?, r.u16("count")?);
        let entries = r.rest;
        for _ in 0..count {
            E::read(&mut r)?;
        }
        r.end()?;
        Ok(Page { next, count, entries, of: PhantomData })
    }

    /// The entries; all were checked when the page was decoded.
    pub fn entries(&self) -> impl Iterator<Item = E> + use<'a, E> {
        let mut reader = Reader::new(self.entries);
        (0..self.count).map_while(move |_| E::read(&mut reader).ok())
    }
}

/// Writes one page, entry by entry, as far as a frame reaches.
#[derive(Debug)]
pub struct PageWriter<'a> {
    w: Writer<'a>,
    count: u16,
}

impl<'a> PageWriter<'a> {
    /// Begins a page of this kind ([`crate::reply::kind`]).
    pub fn begin(out: &'a mut Vec<u8>, kind: u8, request: RequestId) -> PageWriter<'a> {
        let mut w = Writer::begin(out, kind, 0, 0, request);
        w.u64(0).u16(0);
        PageWriter { w, count: 0 }
    }

    /// Appends an entry, unless the frame is full; says whether it fitted.
    pub fn push<'e, E: Entry<'e>>(&mut self, entry: &E) -> bool {
        let before = self.w.len();
        entry.write(&mut self.w);
        let fits = self.w.len() <= FRAME_BYTES_MAX && self.count < u16::MAX;
        if fits {
            self.count += 1;
        } else {
            self.w.truncate(before);
        }
        fits
    }

    /// Ends the page; `next` is where the following one goes on, 0 for nowhere.
    pub fn finish(mut self, next: u64) {
        self.w.patch_u64(HEADER_BYTES, next);
        self.w.patch_u16(HEADER_BYTES + 8, self.count);
        self.w.finish();
    }
}

fn text16(w: &mut Writer<'_>, bytes: &[u8]) {
    w.u16(u16::try_from(bytes.len()).expect("names and texts have at most 1024 bytes")).bytes(bytes);
}

fn read16<'a>(r: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], Malformed> {
    let length = usize::from(r.u16(field)?);
    r.bytes(length, field)
}

/// One name in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockEntry<'a> {
    /// What.
    pub resource: Resource<'a>,
    /// How many hold it.
    pub holders: u32,
    /// For how many of them it only stays with the client, and nobody is inside. Of the first 64 holders.
    pub cached: u32,
    /// How many wait, conversions included.
    pub waiters: u32,
    /// The strongest mode held; `None` when nobody holds it (a lock delay).
    pub mode: Option<Mode>,
}

/// Stands for "no mode" on the wire.
const NO_MODE: u8 = 0xFF;

impl<'a> Entry<'a> for LockEntry<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.holders).u32(self.cached).u32(self.waiters);
        w.u8(self.mode.map_or(NO_MODE, Mode::wire));
        text16(w, self.resource.namespace.as_str().as_bytes());
        text16(w, self.resource.name.as_bytes());
    }

    fn read(r: &mut Reader<'a>) -> Result<LockEntry<'a>, Malformed> {
        let (holders, cached, waiters) = (r.u32("holders")?, r.u32("cached")?, r.u32("waiters")?);
        let mode = match r.u8("mode")? {
            NO_MODE => None,
            number => Some(Mode::from_wire(number).ok_or(Malformed::Illegal("mode"))?),
        };
        let (namespace, name) = (read16(r, "namespace")?, read16(r, "name")?);
        Ok(LockEntry { resource: Resource::new(namespace, name)?, holders, cached, waiters, mode })
    }
}

/// In which list of a resource an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It holds the lock.
    Held = 0,
    /// Its client keeps the grant for later, without using it.
    Cached = 1,
    /// It holds the lock and waits for another mode.
    Converting = 2,
    /// It waits.
    Waiting = 3,
}

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// No connection at the moment; the session lives on.
    Away = 0,
    /// TCP.
    Tcp = 1,
    /// A stream over the Unix socket.
    Unix = 2,
    /// Shared memory.
    Shm = 3,
}

impl Transport {
    /// The transport with this wire number.
    pub const fn from_wire(number: u8) -> Option<Transport> {
        match number {
            0 => Some(Transport::Away),
            1 => Some(Transport::Tcp),
            2 => Some(Transport::Unix),
            3 => Some(Transport::Shm),
            _ => None,
        }
    }

    /// The word that `sessions` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Away => "away",
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
            Transport::Shm => "shm",
        }
    }
}

/// One holder, conversion or waiter of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShowEntry<'a> {
    /// In which list.
    pub standing: Standing,
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
    /// Place in the queue, from 1; 0 for a holder.
    pub position: u32,
    /// Process id on its host.
    pub pid: u32,
    /// By what the resource's wait queue goes.
    pub discipline: Discipline,
    /// Of one that waits: the class asked for.
    pub priority: Priority,
    /// Of one that waits: the class it has by now, by age and inheritance.
    pub class: Priority,
    /// Of one that waits: how often somebody who came later was let in before it.
    pub passed: u32,
    /// Its host.
    pub host: &'a [u8],
    /// Its program.
    pub exe: &'a [u8],
    /// The request's label, else the session's.
    pub label: &'a [u8],
}

impl<'a> Entry<'a> for ShowEntry<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.standing as u8).u8(self.mode.wire());
        w.u8(self.from.map_or(NO_MODE, Mode::wire)).u8(self.transport as u8);
        w.u64(self.session.get()).u64(self.owner.0).u64(self.token.map_or(0, FencingToken::get));
        w.u64(self.age_ms).u32(self.position).u32(self.pid);
        w.u8(self.discipline.wire()).u8(self.priority.get()).u8(self.class.get()).u32(self.passed);
        text16(w, self.host);
        text16(w, self.exe);
        text16(w, self.label);
    }

    fn read(r: &mut Reader<'a>) -> Result<ShowEntry<'a>, Malformed> {
        let standing = match r.u8("standing")? {
            0 => Standing::Held,
            1 => Standing::Cached,
            2 => Standing::Converting,
            3 => Standing::Waiting,
            _ => return Err(Malformed::Illegal("standing")),
        };
        let mode = Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))?;
        let from = match r.u8("from")? {
            NO_MODE => None,
            number => Some(Mode::from_wire(number).ok_or(Malformed::Illegal("from"))?),
        };
        Ok(ShowEntry {
            standing,
            mode,
            from,
            transport: Transport::from_wire(r.u8("transport")?).ok_or(Malformed::Illegal("transport"))?,
            session: SessionId::from_raw(r.u64("session")?).ok_or(Malformed::Illegal("session"))?,
            owner: OwnerId(r.u64("owner")?),
            token: read_token(r)?,
            age_ms: r.u64("age")?,
            position: r.u32("position")?,
            pid: r.u32("pid")?,
            discipline: Discipline::from_wire(r.u8("discipline")?).ok_or(Malformed::Illegal("discipline"))?,
            priority: Priority::new(r.u8("priority")?).ok_or(Malformed::Illegal("priority"))?,
            class: Priority::new(r.u8("class")?).ok_or(Malformed::Illegal("class"))?,
            passed: r.u32("passed")?,
            host: read16(r, "host")?,
            exe: read16(r, "exe")?,
            label: read16(r, "label")?,
        })
    }
}

/// One session, as one shard sees it: grants and waits are those of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEntry<'a> {
    /// Which.
    pub session: SessionId,
    /// How its client is connected to this shard.
    pub transport: Transport,
    /// What ends it; only its home shard knows.
    pub liveness: Liveness,
    /// Process id on its host.
    pub pid: u32,
    /// Length of its lease, in milliseconds.
    pub ttl_ms: u32,
    /// What is left of it, in milliseconds; `None` when time does not end it (or this is not its home).
    pub expires_in_ms: Option<u32>,
    /// Grants on this shard.
    pub grants: u32,
    /// Waiting requests on this shard.
    pub waits: u32,
    /// Its host.
    pub host: &'a [u8],
    /// Its program.
    pub exe: &'a [u8],
    /// What it calls itself.
    pub label: &'a [u8],
}

impl<'a> Entry<'a> for SessionEntry<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.session.get()).u8(self.transport as u8).u8(self.liveness as u8);
        w.u32(self.pid).u32(self.ttl_ms).u32(self.expires_in_ms.unwrap_or(u32::MAX));
        w.u32(self.grants).u32(self.waits);
        text16(w, self.host);
        text16(w, self.exe);
        text16(w, self.label);
    }

    fn read(r: &mut Reader<'a>) -> Result<SessionEntry<'a>, Malformed> {
        Ok(SessionEntry {
            session: SessionId::from_raw(r.u64("session")?).ok_or(Malformed::Illegal("session"))?,
            transport: Transport::from_wire(r.u8("transport")?).ok_or(Malformed::Illegal("transport"))?,
            liveness: Liveness::from_wire(r.u8("liveness")?).ok_or(Malformed::Illegal("liveness"))?,
            pid: r.u32("pid")?,
            ttl_ms: r.u32("ttl")?,
            expires_in_ms: Some(r.u32("expires_in")?).filter(|&ms| ms != u32::MAX),
            grants: r.u32("grants")?,
            waits: r.u32("waits")?,
            host: read16(r, "host")?,
            exe: read16(r, "exe")?,
            label: read16(r, "label")?,
        })
    }
}

/// A shard's state and counters; a server's are the sums over its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// Version of the server.
    pub version: &'a str,
    /// Which driver moves its bytes: `uring` or `epoll`.
    pub io: &'a str,
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
    /// Sessions alive (on their home shard).
    pub sessions: u64,
    /// Connections open.
    pub connections: u64,
    /// Grants since the start.
    pub grants_total: u64,
    /// Times somebody was served before one who came earlier, against the discipline of the queue; must be 0.
    pub overtakes_total: u64,
    /// Times somebody was served before one who came earlier, as the discipline of the queue allows.
    pub bypasses_total: u64,
    /// Bytes the lock table takes.
    pub table_bytes: u64,
    /// Conditions somebody should look at, one a line.
    pub alarms: &'a str,
}

impl<'a> Status<'a> {
    pub(crate) fn write(&self, mut w: Writer<'_>) {
        text16(&mut w, self.version.as_bytes());
        text16(&mut w, self.io.as_bytes());
        w.u128(self.cell.0).u32(self.epoch).u8(self.role as u8).u16(self.shards).u32(self.pid);
        w.u64(self.uptime_ms).u32(self.recovering_ms);
        w.u64(self.locks).u64(self.grants).u64(self.waiters).u64(self.sessions).u64(self.connections);
        w.u64(self.grants_total).u64(self.overtakes_total).u64(self.bypasses_total).u64(self.table_bytes);
        text16(&mut w, self.alarms.as_bytes());
        w.finish();
    }

    pub(crate) fn read(mut r: Reader<'a>) -> Result<Status<'a>, Malformed> {
        let text = |bytes, field| core::str::from_utf8(bytes).map_err(|_| Malformed::Illegal(field));
        let status = Status {
            version: text(read16(&mut r, "version")?, "version")?,
            io: text(read16(&mut r, "io")?, "io")?,
            cell: CellId(r.u128("cell")?),
            epoch: r.u32("epoch")?,
            role: Role::from_wire(r.u8("role")?).ok_or(Malformed::Illegal("role"))?,
            shards: r.u16("shards")?,
            pid: r.u32("pid")?,
            uptime_ms: r.u64("uptime")?,
            recovering_ms: r.u32("recovering")?,
            locks: r.u64("locks")?,
            grants: r.u64("grants")?,
            waiters: r.u64("waiters")?,
            sessions: r.u64("sessions")?,
            connections: r.u64("connections")?,
            grants_total: r.u64("grants_total")?,
            overtakes_total: r.u64("overtakes_total")?,
            bypasses_total: r.u64("bypasses_total")?,
            table_bytes: r.u64("table_bytes")?,
            alarms: text(read16(&mut r, "alarms")?, "alarms")?,
        };
        r.end()?;
        Ok(status)
    }
}

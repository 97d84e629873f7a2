//! What a client can say after the handshake: sessions, locks, and the questions of an operator.

use crate::bundle::Items;
use crate::handshake::{HELLO, Hello};
use crate::ids::{FencingToken, GrantId, OwnerId, RequestId, Secret, SessionId};
use crate::limits::{LABEL_BYTES_MAX, NAME_BYTES_MAX, NODE_NAMES_BYTES_MAX};
use crate::mode::Mode;
use crate::name::Resource;
use crate::opening::{read_open, write_open};
use crate::priority::Priority;
use crate::proof::Proof;
use crate::refusal::Refusal;
use crate::wire::{Frame, Malformed, Reader, Writer};
use alloc::vec::Vec;

pub use crate::opening::{Liveness, Open};

/// Kind numbers of requests.
#[allow(missing_docs, reason = "each is the request of the same name")]
pub mod kind;

/// How long a request may wait at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: a try, which obeys the queue like everybody.
    Try,
    /// At most this many milliseconds (at least 1), counted at the server.
    Millis(u64),
    /// Until granted, cancelled or the session ends.
    Forever,
}

impl Wait {
    /// From a duration, rounded up to whole milliseconds; zero is a try.
    pub const fn up_to(duration: core::time::Duration) -> Wait {
        let part = duration.subsec_nanos().div_ceil(1_000_000) as u64;
        match duration.as_secs().saturating_mul(1000).saturating_add(part) {
            0 => Wait::Try,
            ms => Wait::Millis(ms),
        }
    }

    /// On the wire: 0 is a try, all ones for ever; what is longer than 49 days waits 49 days.
    fn wire(self) -> u32 {
        match self {
            Wait::Try => 0,
            Wait::Millis(ms) => u32::try_from(ms).unwrap_or(u32::MAX - 1).clamp(1, u32::MAX - 1),
            Wait::Forever => u32::MAX,
        }
    }

    const fn from_wire(ms: u32) -> Wait {
        match ms {
            0 => Wait::Try,
            u32::MAX => Wait::Forever,
            ms => Wait::Millis(ms as u64),
        }
    }
}

/// Asks for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquire<'a> {
    /// What.
    pub resource: Resource<'a>,
    /// In which mode.
    pub mode: Mode,
    /// How urgent it is, where that counts.
    pub priority: Priority,
    /// How long to wait.
    pub wait: Wait,
    /// Which thread or task.
    pub owner: OwnerId,
    /// The same owner may enter again.
    pub reentrant: bool,
    /// Wants a notice when the grant begins to block somebody.
    pub notify: bool,
    /// The grant may stay with the client in a word of its segment (only through shared memory).
    pub cacheable: bool,
    /// After expiry: keep others out this long, in milliseconds.
    pub lock_delay_ms: u32,
    /// End the grant by time after this many milliseconds; 0 for never.
    pub max_hold_ms: u32,
    /// For people.
    pub label: &'a [u8],
}

/// Asks for several locks of one shard, all or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireAll<'a> {
    /// How long to wait for all of them together.
    pub wait: Wait,
    /// Which thread or task.
    pub owner: OwnerId,
    /// What, in canonical order.
    pub items: Items<'a>,
    /// For people.
    pub label: &'a [u8],
}

/// One message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Introduces the connection.
    Hello(Hello<'a>),
    /// Opens a session.
    Open(Open<'a>),
    /// Takes up a session on this connection's shard.
    Resume {
        /// Which.
        session: SessionId,
        /// Its proof.
        secret: Secret,
        /// Kept replies received on this stream, in all.
        received: u64,
    },
    /// Ends the session; its grants count as released.
    Close,
    /// Renews the lease.
    Keepalive,
    /// Asks for a lock.
    Acquire(Acquire<'a>),
    /// Asks for several locks, all or none.
    AcquireAll(AcquireAll<'a>),
    /// Gives a grant back.
    Release(GrantId),
    /// Changes a grant's mode.
    Convert {
        /// Which grant.
        grant: GrantId,
        /// To which mode.
        mode: Mode,
        /// How long to wait for it.
        wait: Wait,
    },
    /// Withdraws a waiting request.
    Cancel(RequestId),
    /// Asks whether a token names the present tenure.
    Validate {
        /// Of which resource.
        resource: Resource<'a>,
        /// The token.
        token: FencingToken,
    },
    /// A broken grant is no longer used.
    Confirm(GrantId),
    /// A grant of a session before the server lost its memory is held on.
    Reassert(Reassert<'a>),
    /// Through shared memory: a word that somebody waits for was left; look at it. Nothing answers it.
    Look,
    /// Names in use whose name begins with `prefix`, a page at a time.
    List {
        /// 0, or `next` of the page before.
        cursor: u64,
        /// Beginning of the names; empty for all.
        prefix: &'a [u8],
    },
    /// Holders, conversions and waiters of a resource, a page at a time.
    Show {
        /// 0, or `next` of the page before.
        cursor: u64,
        /// Which resource.
        resource: Resource<'a>,
    },
    /// Sessions, a page at a time.
    Sessions {
        /// 0, or `next` of the page before.
        cursor: u64,
    },
    /// The shard's state and counters.
    Status,
    /// Takes a resource from its holders.
    Break {
        /// Which resource.
        resource: Resource<'a>,
        /// Let the next one in at once.
        force: bool,
    },
    /// Ends a session.
    Kill {
        /// Which.
        session: SessionId,
        /// At once.
        force: bool,
    },
    /// The cell, as this node knows it.
    Cluster,
    /// Another member takes over without a gap: the one with this name, or, when it is empty, any.
    Switchover(&'a str),
    /// A member is taken out.
    Evict(&'a str),
    /// The named nodes, separated by commas, are certainly off: the cell begins anew without what they know.
    ForceNew(&'a str),
}

/// What a client held when the server lost its memory, and what proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reassert<'a> {
    /// The session that held it.
    pub session: SessionId,
    /// Its token.
    pub token: FencingToken,
    /// What came with the grant.
    pub proof: Proof,
    /// What is held, and how it is to be held on: as it would be asked for now. It does not wait.
    pub acquire: Acquire<'a>,
}

const ACQUIRE_REENTRANT: u8 = 1;
const ACQUIRE_NOTIFY: u8 = 2;
const ACQUIRE_CACHEABLE: u8 = 4;

impl<'a> Request<'a> {
    /// Reads the message of a frame.
    ///
    /// # Errors
    /// [`Malformed`], with the field. [`Malformed::is_confined`] tells whether only this request is refused.
    #[inline]
    pub fn decode(frame: &Frame<'a>) -> Result<Request<'a>, Malformed> {
        if frame.flags != 0 {
            // A later version may give them a meaning, which must not be overlooked here.
            return Err(Malformed::Illegal("flags"));
        }
        let mut r = Reader::new(frame.body);
        let request = match frame.kind {
            HELLO => return Hello::read(r).map(Request::Hello),
            kind::ACQUIRE => return read_acquire(r).map(Request::Acquire),
            kind::RELEASE => Request::Release(read_grant(&mut r)?),
            kind::ACQUIRE_ALL => return read_acquire_all(r).map(Request::AcquireAll),
            kind::OPEN => return read_open(r).map(Request::Open),
            kind::RESUME => Request::Resume {
                session: read_session(&mut r)?,
                secret: Secret(r.u128("secret")?),
                received: r.u64("received")?,
            },
            kind::CLOSE => Request::Close,
            kind::KEEPALIVE => Request::Keepalive,
            kind::CONVERT => Request::Convert {
                grant: read_grant(&mut r)?,
                wait: Wait::from_wire(r.u32("wait")?),
                mode: read_mode(&mut r)?,
            },
            kind::CANCEL => Request::Cancel(RequestId(r.u64("target")?)),
            kind::VALIDATE => {
                let token = FencingToken::from_raw(r.u64("token")?).ok_or(Malformed::Illegal("token"))?;
                return read_resource(r).map(|resource| Request::Validate { resource, token });
            }
            kind::CONFIRM => Request::Confirm(read_grant(&mut r)?),
            kind::LOOK => Request::Look,
            kind::REASSERT => {
                let session = read_session(&mut r)?;
                let token = FencingToken::from_raw(r.u64("token")?).ok_or(Malformed::Illegal("token"))?;
                let proof = Proof(r.u128("proof")?);
                let acquire = read_acquire(r)?;
                return Ok(Request::Reassert(Reassert { session, token, proof, acquire }));
            }
            kind::LIST => Request::List { cursor: r.u64("cursor")?, prefix: r.remaining() },
            kind::SHOW => {
                let cursor = r.u64("cursor")?;
                return read_resource(r).map(|resource| Request::Show { cursor, resource });
            }
            kind::SESSIONS => Request::Sessions { cursor: r.u64("cursor")? },
            kind::STATUS => Request::Status,
            kind::BREAK => {
                let force = read_flag(&mut r, "force")?;
                return read_resource(r).map(|resource| Request::Break { resource, force });
            }
            kind::KILL => {
                Request::Kill { session: read_session(&mut r)?, force: read_flag(&mut r, "force")? }
            }
            kind::CLUSTER => Request::Cluster,
            kind::SWITCHOVER => return read_nodes(r).map(Request::Switchover),
            kind::EVICT => return read_nodes(r).map(Request::Evict),
            kind::FORCE_NEW => return read_nodes(r).map(Request::ForceNew),
            unknown => return Err(Malformed::UnknownKind(unknown)),
        };
        r.end()?;
        Ok(request)
    }

    /// Appends the message as one frame. `ack` is the low half of the number of kept replies received.
    ///
    /// # Panics
    /// When a text is longer than its limit: it is checked where it enters the program.
    pub fn encode(&self, request: RequestId, ack: u16, out: &mut Vec<u8>) {
        let begin = |out, kind| Writer::begin(out, kind, 0, ack, request);
        match *self {
            Request::Hello(hello) => hello.write(out),
            Request::Open(open) => write_open(&open, begin(out, kind::OPEN)),
            Request::Resume { session, secret, received } => {
                let mut w = begin(out, kind::RESUME);
                w.u64(session.get()).u128(secret.0).u64(received);
                w.finish();
            }
            Request::Close => begin(out, kind::CLOSE).finish(),
            Request::Keepalive => begin(out, kind::KEEPALIVE).finish(),
            Request::Acquire(acquire) => write_acquire(&acquire, begin(out, kind::ACQUIRE)),
            Request::AcquireAll(all) => write_acquire_all(&all, begin(out, kind::ACQUIRE_ALL)),
            Request::Release(grant) => write_number(begin(out, kind::RELEASE), grant.get()),
            Request::Convert { grant, mode, wait } => {
                let mut w = begin(out, kind::CONVERT);
                w.u64(grant.get()).u32(wait.wire()).u8(mode.wire());
                w.finish();
            }
            Request::Cancel(target) => write_number(begin(out, kind::CANCEL), target.0),
            Request::Validate { resource, token } => {
                let mut w = begin(out, kind::VALIDATE);
                w.u64(token.get());
                write_resource(resource, w);
            }
            Request::Confirm(grant) => write_number(begin(out, kind::CONFIRM), grant.get()),
            Request::Look => begin(out, kind::LOOK).finish(),
            Request::Reassert(reassert) => {
                let mut w = begin(out, kind::REASSERT);
                w.u64(reassert.session.get()).u64(reassert.token.get()).u128(reassert.proof.0);
                write_acquire(&reassert.acquire, w);
            }
            Request::List { cursor, prefix } => {
                assert!(prefix.len() <= NAME_BYTES_MAX, "a prefix is no longer than a name");
                let mut w = begin(out, kind::LIST);
                w.u64(cursor).bytes(prefix);
                w.finish();
            }
            Request::Show { cursor, resource } => {
                let mut w = begin(out, kind::SHOW);
                w.u64(cursor);
                write_resource(resource, w);
            }
            Request::Sessions { cursor } => write_number(begin(out, kind::SESSIONS), cursor),
            Request::Status => begin(out, kind::STATUS).finish(),
            Request::Break { resource, force } => {
                let mut w = begin(out, kind::BREAK);
                w.u8(u8::from(force));
                write_resource(resource, w);
            }
            Request::Kill { session, force } => {
                let mut w = begin(out, kind::KILL);
                w.u64(session.get()).u8(u8::from(force));
                w.finish();
            }
            Request::Cluster => begin(out, kind::CLUSTER).finish(),
            Request::Switchover(node) => write_nodes(begin(out, kind::SWITCHOVER), node),
            Request::Evict(node) => write_nodes(begin(out, kind::EVICT), node),
            Request::ForceNew(nodes) => write_nodes(begin(out, kind::FORCE_NEW), nodes),
        }
    }
}

/// Names of nodes, to the end of the body.
fn read_nodes(mut r: Reader<'_>) -> Result<&str, Malformed> {
    let names = r.remaining();
    if names.len() > NODE_NAMES_BYTES_MAX {
        return Err(Malformed::Refused(Refusal::TooLong));
    }
    core::str::from_utf8(names).map_err(|_| Malformed::Illegal("nodes"))
}

fn write_nodes(mut w: Writer<'_>, names: &str) {
    assert!(names.len() <= NODE_NAMES_BYTES_MAX, "names of nodes are bounded where they enter the program");
    w.bytes(names.as_bytes());
    w.finish();
}

fn write_number(mut w: Writer<'_>, number: u64) {
    w.u64(number);
    w.finish();
}

fn read_grant(r: &mut Reader<'_>) -> Result<GrantId, Malformed> {
    GrantId::from_raw(r.u64("grant")?).ok_or(Malformed::Illegal("grant"))
}

fn read_session(r: &mut Reader<'_>) -> Result<SessionId, Malformed> {
    SessionId::from_raw(r.u64("session")?).ok_or(Malformed::Illegal("session"))
}

fn read_mode(r: &mut Reader<'_>) -> Result<Mode, Malformed> {
    Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))
}

fn read_flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, Malformed> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Illegal(field)),
    }
}

/// Namespace length u8, name length u16, namespace, name; to the end of the body.
fn read_resource(mut r: Reader<'_>) -> Result<Resource<'_>, Malformed> {
    let (namespace_length, name_length) = (r.u8("namespace_length")?, r.u16("name_length")?);
    let namespace = r.bytes(usize::from(namespace_length), "namespace")?;
    let name = r.bytes(usize::from(name_length), "name")?;
    r.end()?;
    Ok(Resource::new(namespace, name)?)
}

/// The default namespace is written as an empty one.
fn namespace_bytes(resource: Resource<'_>) -> &[u8] {
    if resource.namespace.is_default() { &[] } else { resource.namespace.as_str().as_bytes() }
}

fn write_resource(resource: Resource<'_>, mut w: Writer<'_>) {
    let (namespace, name) = (namespace_bytes(resource), resource.name.as_bytes());
    w.u8(short(namespace)).u16(long(name)).bytes(namespace).bytes(name);
    w.finish();
}

fn short(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("a namespace has at most 64 bytes")
}

pub(crate) fn long(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("names and texts have at most 1024 bytes")
}

/// The resource an ACQUIRE names, without the rest of it; `None` for another frame or one that is not well-formed so far.
/// What it gives is what decoding gives.
#[inline]
pub fn resource_of_acquire<'a>(frame: &Frame<'a>) -> Option<Resource<'a>> {
    if frame.kind != kind::ACQUIRE {
        return None;
    }
    let mut r = Reader::new(frame.body);
    r.bytes(NAMES_AT, "head").ok()?;
    let (namespace_length, name_length) = (r.u8("namespace_length").ok()?, r.u16("name_length").ok()?);
    r.u16("label_length").ok()?;
    let namespace = r.bytes(usize::from(namespace_length), "namespace").ok()?;
    Resource::new(namespace, r.bytes(usize::from(name_length), "name").ok()?).ok()
}

/// Bytes of an ACQUIRE before the lengths of its names.
const NAMES_AT: usize = 23;

fn read_acquire(mut r: Reader<'_>) -> Result<Acquire<'_>, Malformed> {
    let owner = OwnerId(r.u64("owner")?);
    let wait = Wait::from_wire(r.u32("wait")?);
    let (lock_delay_ms, max_hold_ms) = (r.u32("lock_delay")?, r.u32("max_hold")?);
    let (mode, flags) = (read_mode(&mut r)?, r.u8("flags")?);
    let (priority, namespace_length) = (r.u8("priority")?, r.u8("namespace_length")?);
    let (name_length, label_length) = (r.u16("name_length")?, r.u16("label_length")?);
    let namespace = r.bytes(usize::from(namespace_length), "namespace")?;
    let name = r.bytes(usize::from(name_length), "name")?;
    let label = r.bytes(usize::from(label_length), "label")?;
    r.end()?;
    if flags & !(ACQUIRE_REENTRANT | ACQUIRE_NOTIFY | ACQUIRE_CACHEABLE) != 0 {
        return Err(Malformed::Illegal("flags"));
    }
    let priority = Priority::new(priority).ok_or(Malformed::Illegal("priority"))?;
    if label.len() > LABEL_BYTES_MAX {
        return Err(Malformed::Refused(Refusal::TooLong));
    }
    Ok(Acquire {
        resource: Resource::new(namespace, name)?,
        mode,
        priority,
        wait,
        owner,
        reentrant: flags & ACQUIRE_REENTRANT != 0,
        notify: flags & ACQUIRE_NOTIFY != 0,
        cacheable: flags & ACQUIRE_CACHEABLE != 0,
        lock_delay_ms,
        max_hold_ms,
        label,
    })
}

fn write_acquire(acquire: &Acquire<'_>, mut w: Writer<'_>) {
    let (namespace, name) = (namespace_bytes(acquire.resource), acquire.resource.name.as_bytes());
    let reentrant = if acquire.reentrant { ACQUIRE_REENTRANT } else { 0 };
    let notify = if acquire.notify { ACQUIRE_NOTIFY } else { 0 };
    let cacheable = if acquire.cacheable { ACQUIRE_CACHEABLE } else { 0 };
    w.u64(acquire.owner.0).u32(acquire.wait.wire()).u32(acquire.lock_delay_ms).u32(acquire.max_hold_ms);
    let flags = reentrant | notify | cacheable;
    w.u8(acquire.mode.wire()).u8(flags).u8(acquire.priority.get()).u8(short(namespace));
    w.u16(long(name)).u16(long(acquire.label)).bytes(namespace).bytes(name).bytes(acquire.label);
    w.finish();
}

fn read_acquire_all(mut r: Reader<'_>) -> Result<AcquireAll<'_>, Malformed> {
    let owner = OwnerId(r.u64("owner")?);
    let wait = Wait::from_wire(r.u32("wait")?);
    let (count, label_length) = (r.u16("item_count")?, usize::from(r.u16("label_length")?));
    let label = r.bytes(label_length, "label")?;
    if label.len() > LABEL_BYTES_MAX {
        return Err(Malformed::Refused(Refusal::TooLong));
    }
    Ok(AcquireAll { wait, owner, items: Items::read(count, r)?, label })
}

fn write_acquire_all(all: &AcquireAll<'_>, mut w: Writer<'_>) {
    w.u64(all.owner.0).u32(all.wait.wire()).u16(all.items.count()).u16(long(all.label)).bytes(all.label);
    all.items.write(&mut w);
    w.finish();
}

#[cfg(test)]
mod tests;

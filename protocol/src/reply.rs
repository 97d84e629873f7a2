//! What a server can say: answers to requests, and notices that nobody asked for.

use crate::admin::{LockEntry, Page, SessionEntry, ShowEntry, Status};
use crate::cluster::ClusterView;
use crate::handshake::{WELCOME, Welcome};
use crate::ids::{FencingToken, GrantId, OwnerId, RequestId, Secret, SessionId, ShardId};
use crate::mode::Mode;
use crate::proof::Proof;
use crate::refusal::Refusal;
use crate::whereabouts::Whereabouts;
use crate::wire::{Frame, Malformed, Reader, Writer};
use alloc::vec::Vec;

/// Kind numbers of replies and notices.
#[allow(missing_docs, reason = "each is the reply of the same name")]
pub mod kind {
    pub const OPENED: u8 = 0x82;
    pub const RESUMED: u8 = 0x83;
    pub const CLOSED: u8 = 0x84;
    pub const ALIVE: u8 = 0x85;
    pub const SEGMENT: u8 = 0x86;
    pub const GRANTED: u8 = 0x90;
    pub const RELEASED: u8 = 0x91;
    pub const CONVERTED: u8 = 0x92;
    pub const WITHDRAWN: u8 = 0x93;
    pub const VALIDATED: u8 = 0x94;
    pub const REFUSED: u8 = 0x9F;
    pub const LISTED: u8 = 0xA0;
    pub const SHOWN: u8 = 0xA1;
    pub const SESSIONS: u8 = 0xA2;
    pub const STATUS: u8 = 0xA3;
    pub const BROKE: u8 = 0xA4;
    pub const KILLED: u8 = 0xA5;
    pub const CLUSTER: u8 = 0xA6;
    pub const FULFILLED: u8 = 0xA7;
    pub const NOTE_BLOCKING: u8 = 0xC0;
    pub const NOTE_BROKEN: u8 = 0xC1;
    pub const NOTE_HOLD_OVER: u8 = 0xC2;
    pub const NOTE_KILLED: u8 = 0xC3;
    pub const NOTE_OVER: u8 = 0xC4;
    pub const NOTE_DRAINING: u8 = 0xC5;
    pub const NOTE_CACHED: u8 = 0xC6;
    pub const NOTE_MEMBERS: u8 = 0xC7;
}

/// What a holder learns about its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub grant: GrantId,
    /// Its fencing token; `None` for NL.
    pub token: Option<FencingToken>,
    /// What a fenced resource remembers with the token (PR, PW, EX); else 0.
    pub fence: u64,
    /// The mode held.
    pub mode: Mode,
    /// How long the request waited, in microseconds, never over-stated.
    pub waited_us: u64,
    /// A holder before this one died while it could write.
    pub previous_owner_died: bool,
    /// The same grant as before, one level deeper.
    pub reentered: bool,
    /// What the client may show to a server that has lost its memory; only where it asked for it, and never for NL.
    pub proof: Option<Proof>,
}

/// Whom a refused conversion would have waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CycleEdge<'a> {
    /// The other's session.
    pub session: SessionId,
    /// The other's owner.
    pub owner: OwnerId,
    /// The mode it asks for.
    pub mode: Mode,
    /// What its program calls itself.
    pub label: &'a [u8],
}

/// A request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub refusal: Refusal,
    /// When to try again, in milliseconds, for the codes that say so; else 0.
    pub retry_after_ms: u32,
    /// With DEADLOCK: the other one.
    pub cycle: Option<CycleEdge<'a>>,
    /// With NOT_PRIMARY: who is; never together with a cycle.
    pub primary: Option<Whereabouts<'a>>,
    /// Particulars for a person, UTF-8; may be empty.
    pub detail: &'a str,
}

impl From<Refusal> for Refused<'static> {
    fn from(refusal: Refusal) -> Refused<'static> {
        Refused { refusal, retry_after_ms: 0, cycle: None, primary: None, detail: "" }
    }
}

/// One message from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The connection is accepted.
    Welcome(Welcome),
    /// The session is open on every shard.
    Opened {
        /// Its id.
        session: SessionId,
        /// Its proof, for RESUME.
        secret: Secret,
        /// Lease granted, in milliseconds.
        ttl_ms: u32,
        /// The shard that decides its expiry, and takes its keepalives.
        home: ShardId,
    },
    /// The session is taken up; kept replies that were not acknowledged follow.
    Resumed {
        /// Lease, in milliseconds.
        ttl_ms: u32,
        /// Highest request number seen on this stream.
        seen: u64,
        /// How many kept replies follow.
        following: u32,
    },
    /// The session is over, as asked.
    Closed,
    /// The lease is renewed (when the frame carries the flag RENEWED).
    Alive,
    /// Before WELCOME, on the socket: the rest of the talk goes through the shared memory whose two descriptors (the
    /// segment, the beacon) come with this frame; or, with a reason and no descriptor, stays on the socket.
    Segment {
        /// The server's CLOCK_BOOTTIME in nanoseconds as it wrote this: a client whose clock did not pass it between its
        /// HELLO and this lives in another time namespace, and cannot use stamps.
        clock_ns: u64,
        /// Why there is no shared memory; empty when there is. UTF-8.
        reason: &'a str,
    },
    /// The lock is held.
    Granted(Grant),
    /// The grant has the mode asked for.
    Converted(Grant),
    /// The grant, or one level of it, was given back.
    Released {
        /// Levels that remain.
        remaining: u32,
    },
    /// Answers a CANCEL; the withdrawn request has its own answer.
    Withdrawn {
        /// It was still waiting.
        was_waiting: bool,
    },
    /// Answers a VALIDATE.
    Validated {
        /// The token names the present tenure.
        current: bool,
    },
    /// The request was refused.
    Refused(Refused<'a>),
    /// A page of names in use.
    Listed(Page<'a, LockEntry<'a>>),
    /// A page of one resource's entries.
    Shown(Page<'a, ShowEntry<'a>>),
    /// A page of sessions.
    Sessions(Page<'a, SessionEntry<'a>>),
    /// The shard's state.
    Status(Status<'a>),
    /// Holders were told to let go.
    Broke {
        /// How many.
        holders: u32,
    },
    /// The session was told to end, or ended.
    Killed,
    /// The cell, as the node that was asked knows it.
    Cluster(ClusterView<'a>),
    /// What was wished of the cell is done.
    Fulfilled {
        /// How long it took, in milliseconds.
        took_ms: u32,
        /// The primary's endpoints, of which epoch.
        primary: Whereabouts<'a>,
    },
    /// Notice: a grant begins to block others.
    Blocking {
        /// Which grant.
        grant: GrantId,
        /// What the first blocked one asks for.
        wanted: Mode,
        /// How many are blocked.
        waiters: u32,
    },
    /// Notice: an operator took the grant; stop using it and CONFIRM.
    Broken {
        /// Which grant.
        grant: GrantId,
        /// The next holder is in already.
        forced: bool,
    },
    /// Notice: the grant reached its longest hold and is over.
    HoldOver {
        /// Which grant.
        grant: GrantId,
    },
    /// Notice: an operator ends the session; stop using everything and CLOSE.
    KillAnnounced,
    /// Notice: the session is over.
    Over(Refusal),
    /// Notice: the server will stop; release what you can.
    Draining,
    /// Notice, through shared memory: the grant stays with the client, in a word of its segment. It is left and entered
    /// there, and released by no message.
    Cached {
        /// Which grant.
        grant: GrantId,
        /// Which word.
        word: u32,
        /// Which tenure of the word.
        generation: u32,
    },
    /// Notice: the nodes of the cell, the primary first. Sent after OPENED and RESUMED where there are several, and when
    /// they change.
    Members(Whereabouts<'a>),
}

/// What follows the detail of a refusal.
const MORE_CYCLE: u16 = 1;
const MORE_PRIMARY: u16 = 2;

const GRANT_OWNER_DIED: u8 = 1;
const GRANT_REENTERED: u8 = 2;
/// Sixteen bytes of a proof follow.
const GRANT_PROVEN: u8 = 4;

impl<'a> Reply<'a> {
    /// Reads the message of a frame.
    ///
    /// # Errors
    /// [`Malformed`], with the field.
    #[inline]
    pub fn decode(frame: &Frame<'a>) -> Result<Reply<'a>, Malformed> {
        let mut r = Reader::new(frame.body);
        let reply = match frame.kind {
            WELCOME => return Welcome::read(r).map(Reply::Welcome),
            kind::GRANTED => Reply::Granted(read_granted(&mut r)?),
            kind::RELEASED => Reply::Released { remaining: r.u32("remaining")? },
            kind::OPENED => Reply::Opened {
                session: read_session(&mut r)?,
                secret: Secret(r.u128("secret")?),
                ttl_ms: r.u32("ttl")?,
                home: ShardId(r.u16("home")?),
            },
            kind::RESUMED => {
                Reply::Resumed { ttl_ms: r.u32("ttl")?, seen: r.u64("seen")?, following: r.u32("following")? }
            }
            kind::CLOSED => Reply::Closed,
            kind::ALIVE => Reply::Alive,
            kind::CONVERTED => Reply::Converted(read_granted(&mut r)?),
            kind::WITHDRAWN => Reply::Withdrawn { was_waiting: r.u8("was_waiting")? != 0 },
            kind::VALIDATED => Reply::Validated { current: r.u8("current")? != 0 },
            kind::REFUSED => return read_refused(r).map(Reply::Refused),
            kind::LISTED => return Page::read(r).map(Reply::Listed),
            kind::SHOWN => return Page::read(r).map(Reply::Shown),
            kind::SESSIONS => return Page::read(r).map(Reply::Sessions),
            kind::STATUS => return Status::read(r).map(Reply::Status),
            kind::BROKE => Reply::Broke { holders: r.u32("holders")? },
            kind::KILLED => Reply::Killed,
            kind::CLUSTER => return ClusterView::read(r).map(Reply::Cluster),
            kind::FULFILLED => {
                Reply::Fulfilled { took_ms: r.u32("took")?, primary: Whereabouts::read(&mut r)? }
            }
            kind::NOTE_BLOCKING => Reply::Blocking {
                grant: read_grant_id(&mut r)?,
                waiters: r.u32("waiters")?,
                wanted: read_mode(&mut r)?,
            },
            kind::NOTE_BROKEN => {
                Reply::Broken { grant: read_grant_id(&mut r)?, forced: r.u8("forced")? != 0 }
            }
            kind::NOTE_HOLD_OVER => Reply::HoldOver { grant: read_grant_id(&mut r)? },
            kind::NOTE_KILLED => Reply::KillAnnounced,
            kind::NOTE_OVER => Reply::Over(read_code(&mut r)?),
            kind::NOTE_DRAINING => Reply::Draining,
            kind::NOTE_CACHED => Reply::Cached {
                grant: read_grant_id(&mut r)?,
                word: r.u32("word")?,
                generation: r.u32("generation")?,
            },
            kind::NOTE_MEMBERS => Reply::Members(Whereabouts::read(&mut r)?),
            kind::SEGMENT => {
                let clock_ns = r.u64("clock")?;
                let reason = core::str::from_utf8(r.remaining()).map_err(|_| Malformed::Illegal("reason"))?;
                return Ok(Reply::Segment { clock_ns, reason });
            }
            unknown => return Err(Malformed::UnknownKind(unknown)),
        };
        r.end()?;
        Ok(reply)
    }

    /// Appends the message as one frame.
    ///
    /// # Panics
    /// For pages: those are written by [`crate::admin::PageWriter`].
    pub fn encode(&self, request: RequestId, flags: u8, out: &mut Vec<u8>) {
        let begin = |out, kind| Writer::begin(out, kind, flags, 0, request);
        match *self {
            Reply::Welcome(welcome) => welcome.write(out),
            Reply::Granted(ref grant) => write_granted(grant, begin(out, kind::GRANTED)),
            Reply::Released { remaining } => write_count(begin(out, kind::RELEASED), remaining),
            Reply::Converted(ref grant) => write_granted(grant, begin(out, kind::CONVERTED)),
            Reply::Opened { session, secret, ttl_ms, home } => {
                let mut w = begin(out, kind::OPENED);
                w.u64(session.get()).u128(secret.0).u32(ttl_ms).u16(home.0);
                w.finish();
            }
            Reply::Resumed { ttl_ms, seen, following } => {
                let mut w = begin(out, kind::RESUMED);
                w.u32(ttl_ms).u64(seen).u32(following);
                w.finish();
            }
            Reply::Closed => begin(out, kind::CLOSED).finish(),
            Reply::Alive => begin(out, kind::ALIVE).finish(),
            Reply::Withdrawn { was_waiting } => write_byte(begin(out, kind::WITHDRAWN), was_waiting.into()),
            Reply::Validated { current } => write_byte(begin(out, kind::VALIDATED), current.into()),
            Reply::Refused(ref refused) => write_refused(refused, begin(out, kind::REFUSED)),
            Reply::Status(ref status) => status.write(begin(out, kind::STATUS)),
            Reply::Broke { holders } => write_count(begin(out, kind::BROKE), holders),
            Reply::Killed => begin(out, kind::KILLED).finish(),
            Reply::Cluster(ref view) => view.write(begin(out, kind::CLUSTER)),
            Reply::Fulfilled { took_ms, ref primary } => {
                let mut w = begin(out, kind::FULFILLED);
                w.u32(took_ms);
                primary.write(w);
            }
            Reply::Blocking { grant, wanted, waiters } => {
                let mut w = begin(out, kind::NOTE_BLOCKING);
                w.u64(grant.get()).u32(waiters).u8(wanted.wire());
                w.finish();
            }
            Reply::Broken { grant, forced } => {
                let mut w = begin(out, kind::NOTE_BROKEN);
                w.u64(grant.get()).u8(u8::from(forced));
                w.finish();
            }
            Reply::HoldOver { grant } => {
                let mut w = begin(out, kind::NOTE_HOLD_OVER);
                w.u64(grant.get());
                w.finish();
            }
            Reply::KillAnnounced => begin(out, kind::NOTE_KILLED).finish(),
            Reply::Over(refusal) => {
                let mut w = begin(out, kind::NOTE_OVER);
                w.u16(refusal.code());
                w.finish();
            }
            Reply::Draining => begin(out, kind::NOTE_DRAINING).finish(),
            Reply::Cached { grant, word, generation } => {
                let mut w = begin(out, kind::NOTE_CACHED);
                w.u64(grant.get()).u32(word).u32(generation);
                w.finish();
            }
            Reply::Members(ref nodes) => nodes.write(begin(out, kind::NOTE_MEMBERS)),
            Reply::Segment { clock_ns, reason } => {
                let mut w = begin(out, kind::SEGMENT);
                w.u64(clock_ns).bytes(reason.as_bytes());
                w.finish();
            }
            Reply::Listed(_) | Reply::Shown(_) | Reply::Sessions(_) => {
                unreachable!("pages are written entry by entry")
            }
        }
    }
}

fn write_count(mut w: Writer<'_>, count: u32) {
    w.u32(count);
    w.finish();
}

fn write_byte(mut w: Writer<'_>, value: u8) {
    w.u8(value);
    w.finish();
}

fn read_grant_id(r: &mut Reader<'_>) -> Result<GrantId, Malformed> {
    GrantId::from_raw(r.u64("grant")?).ok_or(Malformed::Illegal("grant"))
}

fn read_session(r: &mut Reader<'_>) -> Result<SessionId, Malformed> {
    SessionId::from_raw(r.u64("session")?).ok_or(Malformed::Illegal("session"))
}

fn read_mode(r: &mut Reader<'_>) -> Result<Mode, Malformed> {
    Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))
}

fn read_code(r: &mut Reader<'_>) -> Result<Refusal, Malformed> {
    Refusal::from_code(r.u16("code")?).ok_or(Malformed::Illegal("code"))
}

/// A token that may be absent: 0 stands for none.
pub(crate) fn read_token(r: &mut Reader<'_>) -> Result<Option<FencingToken>, Malformed> {
    match r.u64("token")? {
        0 => Ok(None),
        raw => FencingToken::from_raw(raw).map(Some).ok_or(Malformed::Illegal("token")),
    }
}

fn read_granted(r: &mut Reader<'_>) -> Result<Grant, Malformed> {
    let grant = read_grant_id(r)?;
    let token = read_token(r)?;
    let (fence, waited_us) = (r.u64("fence")?, r.u64("waited")?);
    let (mode, flags) = (read_mode(r)?, r.u8("flags")?);
    let proof = if flags & GRANT_PROVEN == 0 { None } else { Some(Proof(r.u128("proof")?)) };
    Ok(Grant {
        proof,
        grant,
        token,
        fence,
        mode,
        waited_us,
        previous_owner_died: flags & GRANT_OWNER_DIED != 0,
        reentered: flags & GRANT_REENTERED != 0,
    })
}

fn write_granted(grant: &Grant, mut w: Writer<'_>) {
    let died = if grant.previous_owner_died { GRANT_OWNER_DIED } else { 0 };
    let reentered = if grant.reentered { GRANT_REENTERED } else { 0 };
    w.u64(grant.grant.get()).u64(grant.token.map_or(0, FencingToken::get)).u64(grant.fence);
    let proven = if grant.proof.is_some() { GRANT_PROVEN } else { 0 };
    w.u64(grant.waited_us).u8(grant.mode.wire()).u8(died | reentered | proven);
    if let Some(proof) = grant.proof {
        w.u128(proof.0);
    }
    w.finish();
}

fn read_refused(mut r: Reader<'_>) -> Result<Refused<'_>, Malformed> {
    let refusal = read_code(&mut r)?;
    let (more, retry_after_ms) = (r.u16("more")?, r.u32("retry_after")?);
    let detail_length = usize::from(r.u16("detail_length")?);
    let detail = r.bytes(detail_length, "detail")?;
    let (mut cycle, mut primary) = (None, None);
    match more {
        0 => {}
        MORE_CYCLE => {
            let (session, owner) = (read_session(&mut r)?, OwnerId(r.u64("owner")?));
            let mode = read_mode(&mut r)?;
            let label_length = usize::from(r.u16("label_length")?);
            cycle = Some(CycleEdge { session, owner, mode, label: r.bytes(label_length, "label")? });
        }
        MORE_PRIMARY => primary = Some(Whereabouts::read(&mut r)?),
        _ => return Err(Malformed::Illegal("more")),
    }
    r.end()?;
    let detail = core::str::from_utf8(detail).map_err(|_| Malformed::Illegal("detail"))?;
    Ok(Refused { refusal, retry_after_ms, cycle, primary, detail })
}

fn write_refused(refused: &Refused<'_>, mut w: Writer<'_>) {
    let detail = refused.detail.as_bytes();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("texts of a refusal are short");
    let more = match (refused.cycle, refused.primary) {
        (None, None) => 0,
        (Some(_), None) => MORE_CYCLE,
        (None, Some(_)) => MORE_PRIMARY,
        (Some(_), Some(_)) => unreachable!("whoever looks for cycles is the primary"),
    };
    w.u16(refused.refusal.code()).u16(more).u32(refused.retry_after_ms);
    w.u16(length(detail)).bytes(detail);
    if let Some(edge) = refused.cycle {
        w.u64(edge.session.get()).u64(edge.owner.0).u8(edge.mode.wire());
        w.u16(length(edge.label)).bytes(edge.label);
    }
    match refused.primary {
        Some(primary) => primary.write(w),
        None => w.finish(),
    }
}

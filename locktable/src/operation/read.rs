//! Operations from bytes. What comes from another node of the cell is checked like anything that comes from outside:
//! what a table takes for granted (a mode is a mode, a label is short) is true of what leaves here.

use super::{REASONS, ask_flag, kind, open_flag, wait_kind};
use crate::command::{
    Acquire, AcquireAll, Attributes, Command, Item, Lease, Open, SessionKey, Wait, WaiterKey,
};
use alloc::vec::Vec;
use fairlock_protocol::limits::{ACQUIRE_ALL_MAX, ATTRIBUTE_BYTES_MAX, IDENTITY_BYTES_MAX, LABEL_BYTES_MAX};
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{
    Digest, Epoch, FencingToken, GrantId, Malformed, Mode, OwnerId, Priority, Refusal, RequestId, Resource,
    Secret, SessionId, Tick,
};

/// Decodes a whole operation and hands it on.
pub(super) fn operation<R>(bytes: &[u8], then: impl FnOnce(Tick, Command<'_>) -> R) -> Result<R, Malformed> {
    let mut r = Reader::new(bytes);
    let (kind, moment) = (r.u8("kind")?, Tick(r.u64("moment")?));
    if kind == kind::ACQUIRE_ALL {
        // The one command with a list, which needs a place for as long as it is carried out.
        let mut items = Vec::new();
        let ask = read_acquire_all(&mut r, &mut items)?;
        r.end()?;
        return Ok(then(moment, Command::AcquireAll(AcquireAll { items: &items, ..ask })));
    }
    let command = match kind {
        kind::OPEN => Command::Open(read_open(&mut r)?),
        kind::ACQUIRE => Command::Acquire(read_acquire(&mut r)?),
        kind::REASSERT => {
            let acquire = read_acquire(&mut r)?;
            let token = FencingToken::from_raw(r.u64("token")?).ok_or(Malformed::Illegal("token"))?;
            Command::Reassert { acquire, token }
        }
        kind::BREAK => Command::Break { digest: read_digest(&mut r)?, force: read_fact(&mut r, "force")? },
        kind::WAIT_OVER => {
            let waiter = WaiterKey { slot: r.u32("slot")?, generation: r.u32("generation")? };
            Command::WaitOver { waiter }
        }
        kind::HOLD_OVER => Command::HoldOver { grant: read_grant(&mut r)? },
        kind::DELAY_OVER => Command::DelayOver { digest: read_digest(&mut r)? },
        kind::EPOCH => Command::Epoch(read_epoch(&mut r)?),
        kind::TAKE_OVER => Command::TakeOver(read_epoch(&mut r)?),
        _ => read_of_session(kind, &mut r)?,
    };
    r.end()?;
    Ok(then(moment, command))
}

/// The kinds that begin with a session.
fn read_of_session(kind: u8, r: &mut Reader<'_>) -> Result<Command<'static>, Malformed> {
    if !(kind::RESUME..=kind::DOOM).contains(&kind) {
        return Err(Malformed::UnknownKind(kind));
    }
    let session = read_session(r)?;
    Ok(match kind {
        kind::RESUME => Command::Resume { session, received: r.u64("received")? },
        kind::ACKNOWLEDGE => Command::Acknowledge { session, received: r.u64("received")? },
        kind::END => {
            let number = usize::from(r.u8("why")?);
            let why = *REASONS.get(number).ok_or(Malformed::Illegal("why"))?;
            Command::End { session, why }
        }
        kind::RELEASE => Command::Release { session, request: read_request(r)?, grant: read_grant(r)? },
        kind::CONVERT => Command::Convert {
            session,
            request: read_request(r)?,
            grant: read_grant(r)?,
            mode: read_mode(r)?,
            wait: read_wait(r)?,
        },
        kind::CANCEL => Command::Cancel { session, request: read_request(r)?, target: read_request(r)? },
        kind::KILL => Command::Kill { session, force: read_fact(r, "force")? },
        kind::CONFIRM => Command::Confirm { session, grant: read_grant(r)? },
        kind::CACHE => Command::Cache { session, grant: read_grant(r)? },
        kind::GIVE_BACK => Command::GiveBack { session, grant: read_grant(r)? },
        kind::DOOM => Command::Doom { session },
        _ => return Err(Malformed::UnknownKind(kind)),
    })
}

fn read_open<'a>(r: &mut Reader<'a>) -> Result<Open<'a>, Malformed> {
    let id = SessionId::from_raw(r.u64("id")?).ok_or(Malformed::Illegal("id"))?;
    let secret = Secret(r.u128("secret")?);
    let (ttl_ms, flags, pid) = (r.u32("ttl")?, r.u8("flags")?, r.u32("pid")?);
    if flags & !(open_flag::WATCHED | open_flag::VISITING | open_flag::PREDECESSOR_GONE) != 0 {
        return Err(Malformed::Illegal("flags"));
    }
    let limits =
        [IDENTITY_BYTES_MAX, IDENTITY_BYTES_MAX, ATTRIBUTE_BYTES_MAX, ATTRIBUTE_BYTES_MAX, LABEL_BYTES_MAX];
    let mut lengths = [0; 5];
    for (length, limit) in lengths.iter_mut().zip(limits) {
        *length = read_length(r, limit)?;
    }
    let mut texts: [&[u8]; 5] = [&[]; 5];
    for (text, length) in texts.iter_mut().zip(lengths) {
        *text = r.bytes(length, "text")?;
    }
    let [identity, reclaim_key, host, exe, label] = texts;
    Ok(Open {
        id,
        secret,
        ttl_ms,
        lease: if flags & open_flag::WATCHED == 0 { Lease::Heartbeat } else { Lease::Watched },
        visiting: flags & open_flag::VISITING != 0,
        identity,
        reclaim_key,
        predecessor_gone: flags & open_flag::PREDECESSOR_GONE != 0,
        attributes: Attributes { pid, host, exe, label },
    })
}

fn read_acquire<'a>(r: &mut Reader<'a>) -> Result<Acquire<'a>, Malformed> {
    let (session, request, digest) = (read_session(r)?, read_request(r)?, read_digest(r)?);
    let (owner, mode) = (OwnerId(r.u64("owner")?), read_mode(r)?);
    let priority = Priority::new(r.u8("priority")?).ok_or(Malformed::Illegal("priority"))?;
    let flags = r.u8("flags")?;
    if flags & !(ask_flag::REENTRANT | ask_flag::NOTIFY | ask_flag::LOCK_DELAY | ask_flag::MAX_HOLD) != 0 {
        return Err(Malformed::Illegal("flags"));
    }
    let wait = read_wait(r)?;
    let lock_delay_ms = if flags & ask_flag::LOCK_DELAY == 0 { 0 } else { r.u32("lock_delay")? };
    let max_hold_ms = if flags & ask_flag::MAX_HOLD == 0 { 0 } else { r.u32("max_hold")? };
    let label_length = read_length(r, LABEL_BYTES_MAX)?;
    let resource = read_resource(r)?;
    Ok(Acquire {
        session,
        request,
        digest,
        resource,
        mode,
        priority,
        wait,
        owner,
        reentrant: flags & ask_flag::REENTRANT != 0,
        notify: flags & ask_flag::NOTIFY != 0,
        lock_delay_ms,
        max_hold_ms,
        label: r.bytes(label_length, "label")?,
    })
}

/// All but the items, which go into `items`.
fn read_acquire_all<'a>(r: &mut Reader<'a>, items: &mut Vec<Item<'a>>) -> Result<AcquireAll<'a>, Malformed> {
    let (session, request, owner) = (read_session(r)?, read_request(r)?, OwnerId(r.u64("owner")?));
    let wait = read_wait(r)?;
    let label_length = read_length(r, LABEL_BYTES_MAX)?;
    let label = r.bytes(label_length, "label")?;
    let count = usize::from(r.u16("item_count")?);
    if count > ACQUIRE_ALL_MAX {
        return Err(Malformed::Illegal("item_count"));
    }
    items.reserve_exact(count);
    for _ in 0..count {
        let (digest, mode) = (read_digest(r)?, read_mode(r)?);
        items.push(Item { digest, resource: read_resource(r)?, mode });
    }
    Ok(AcquireAll { session, request, items: &[], wait, owner, label })
}

fn read_session(r: &mut Reader<'_>) -> Result<SessionKey, Malformed> {
    Ok(SessionKey { slot: r.u32("session_slot")?, generation: r.u32("session_generation")? })
}

fn read_request(r: &mut Reader<'_>) -> Result<RequestId, Malformed> {
    Ok(RequestId(r.u64("request")?))
}

fn read_grant(r: &mut Reader<'_>) -> Result<GrantId, Malformed> {
    GrantId::from_raw(r.u64("grant")?).ok_or(Malformed::Illegal("grant"))
}

fn read_digest(r: &mut Reader<'_>) -> Result<Digest, Malformed> {
    Ok(Digest([r.u64("digest")?, r.u64("digest")?]))
}

fn read_epoch(r: &mut Reader<'_>) -> Result<Epoch, Malformed> {
    Epoch::new(r.u32("epoch")?).ok_or(Malformed::Illegal("epoch"))
}

fn read_mode(r: &mut Reader<'_>) -> Result<Mode, Malformed> {
    Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))
}

fn read_fact(r: &mut Reader<'_>, field: &'static str) -> Result<bool, Malformed> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Illegal(field)),
    }
}

fn read_wait(r: &mut Reader<'_>) -> Result<Wait, Malformed> {
    match r.u8("wait")? {
        wait_kind::TRY => Ok(Wait::Try),
        wait_kind::MILLIS => Ok(Wait::Millis(r.u64("wait")?)),
        wait_kind::FOREVER => Ok(Wait::Forever),
        _ => Err(Malformed::Illegal("wait")),
    }
}

fn read_length(r: &mut Reader<'_>, limit: usize) -> Result<usize, Malformed> {
    let length = usize::from(r.u16("text_length")?);
    if length <= limit { Ok(length) } else { Err(Malformed::Refused(Refusal::TooLong)) }
}

fn read_resource<'a>(r: &mut Reader<'a>) -> Result<Resource<'a>, Malformed> {
    let (namespace_length, name_length) = (r.u8("namespace_length")?, r.u16("name_length")?);
    let namespace = r.bytes(usize::from(namespace_length), "namespace")?;
    let name = r.bytes(usize::from(name_length), "name")?;
    Ok(Resource::new(namespace, name)?)
}

//! A session as bytes. Its lists are told as links; how much it has is counted by whoever reads.

use super::pieces::Pieces;
use super::restore::{read_ends, read_link, read_text};
use super::{BadSnapshot, answers, sound, tag};
use crate::command::Lease;
use crate::effect::Answer;
use crate::record::SESSION_SLOTS;
use crate::sessions::{About, Session};
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::limits::{ATTRIBUTE_BYTES_MAX, IDENTITY_BYTES_MAX, LABEL_BYTES_MAX};
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{Malformed, RequestId, Secret, SessionId, Tick};

/// Facts, one bit each.
mod fact {
    pub(super) const WATCHED: u8 = 1;
    pub(super) const VISITING: u8 = 2;
    pub(super) const RENEWABLE: u8 = 4;
    pub(super) const REPLACED: u8 = 8;
    pub(super) const KILLED: u8 = 16;
    pub(super) const FRESH: u8 = 32;
    pub(super) const ALIKE: u8 = 64;
    /// When its end should be confirmed follows.
    pub(super) const TO_CONFIRM: u8 = 128;
}

pub(super) fn write(table: &Table, session: &Session, out: &mut Pieces) {
    let confirm_ms = table.wheel.due_ms_as_it_was(session.confirm_timer);
    let facts = [
        (session.lease == Lease::Watched, fact::WATCHED),
        (session.visiting, fact::VISITING),
        (session.renewable, fact::RENEWABLE),
        (session.replaced, fact::REPLACED),
        (session.killed, fact::KILLED),
        (session.fresh, fact::FRESH),
        (session.alike, fact::ALIKE),
        (confirm_ms.is_some(), fact::TO_CONFIRM),
    ];
    let facts = facts.iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit);
    let mut w = out.record(tag::SESSION);
    w.u32(session.generation).ends(session.grants).ends(session.waits).link(session.twins);
    w.u64(session.seen.0).u64(session.kept_sent).u64(session.acknowledged);
    w.u64(session.id.get()).bytes(&session.secret.0.to_le_bytes()).u32(session.ttl_ms);
    w.u8(facts).u64(session.granted.0).u64(confirm_ms.unwrap_or(0));
    let About { identity, reclaim_key, pid, host, exe, label } = &session.about;
    w.u32(*pid).text(identity).text(reclaim_key).text(host).text(exe).text(label);
    for (request, answer) in &session.kept {
        let mut w = out.record(tag::KEPT);
        w.u64(request.0);
        answers::write(answer, &mut w);
    }
}

/// The session in `slot`, and how many kept answers follow.
pub(super) fn read(table: &mut Table, slot: u32, r: &mut Reader<'_>) -> Result<(Session, u64), BadSnapshot> {
    let generation = r.u32("generation")?;
    let (grants, waits, twins) = (read_ends(r)?, read_ends(r)?, read_link(r)?);
    let (seen, kept_sent, acknowledged) =
        (RequestId(r.u64("seen")?), r.u64("kept_sent")?, r.u64("acknowledged")?);
    let id = SessionId::from_raw(r.u64("id")?).ok_or(Malformed::Illegal("id"))?;
    let (secret, ttl_ms, facts) = (Secret(r.u128("secret")?), r.u32("ttl")?, r.u8("facts")?);
    let (granted, confirm_ms) = (Tick(r.u64("granted")?), r.u64("confirm")?);
    let kept = kept_sent.checked_sub(acknowledged).ok_or(Malformed::Illegal("acknowledged"))?;
    sound(slot < SESSION_SLOTS - 1 && generation > 0 && ttl_ms > 0, "a session is none")?;
    let has = |bit: u8| facts & bit != 0;
    let mut session = Session::new(generation, id, secret, ttl_ms);
    (session.grants, session.waits, session.twins) = (grants, waits, twins);
    (session.seen, session.kept_sent, session.acknowledged) = (seen, kept_sent, acknowledged);
    session.lease = if has(fact::WATCHED) { Lease::Watched } else { Lease::Heartbeat };
    (session.visiting, session.renewable) = (has(fact::VISITING), has(fact::RENEWABLE));
    (session.replaced, session.killed) = (has(fact::REPLACED), has(fact::KILLED));
    (session.fresh, session.alike) = (has(fact::FRESH), has(fact::ALIKE));
    (session.granted, session.deadline) = (granted, granted);
    session.about = read_about(r)?;
    sound(session.renewable || !session.fresh, "who is renewed no more is to get a full lease")?;
    if !session.visiting && (session.lease == Lease::Heartbeat || !session.renewable) {
        session.lease_timer = table.wheel.arm(granted, Alarm::Lease(slot));
    } else {
        sound(session.visiting || session.fresh, "an inherited session has no lease")?;
    }
    if has(fact::TO_CONFIRM) {
        sound(session.killed, "who was not killed is to confirm it")?;
        session.confirm_timer = table.wheel.arm(Tick::from_millis(confirm_ms), Alarm::Confirm(slot));
    }
    Ok((session, kept))
}

fn read_about(r: &mut Reader<'_>) -> Result<About, BadSnapshot> {
    Ok(About {
        pid: r.u32("pid")?,
        identity: read_text(r, IDENTITY_BYTES_MAX)?.into(),
        reclaim_key: read_text(r, IDENTITY_BYTES_MAX)?.into(),
        host: read_text(r, ATTRIBUTE_BYTES_MAX)?.into(),
        exe: read_text(r, ATTRIBUTE_BYTES_MAX)?.into(),
        label: read_text(r, LABEL_BYTES_MAX)?.into(),
    })
}

/// One kept answer.
pub(super) fn read_kept(r: &mut Reader<'_>) -> Result<(RequestId, Answer), BadSnapshot> {
    Ok((RequestId(r.u64("request")?), answers::read(r)?))
}

//! A waiting request as bytes, with its turn where the queue is not strict.

use super::answers::read_mode;
use super::pieces::Pieces;
use super::restore::{read_link, read_text};
use super::{BadSnapshot, sound, tag};
use crate::chunks::NONE;
use crate::list::Link;
use crate::record::{Lock, Waiter};
use crate::table::Table;
use crate::turns::Turn;
use crate::wheel::Alarm;
use fairlock_protocol::limits::LABEL_BYTES_MAX;
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{Malformed, OwnerId, Priority, RequestId, Tick};

/// Facts, one bit each.
mod fact {
    pub(super) const NOTIFY: u8 = 1;
    pub(super) const CONVERTS: u8 = 2;
    pub(super) const LIMITED: u8 = 4;
    /// It has a turn: its queue is W, and not strict.
    pub(super) const TURN: u8 = 8;
}

pub(super) fn write(table: &Table, waiter: &Waiter, out: &mut Pieces) {
    let due_ms = table.wheel.due_ms_as_it_was(waiter.timer);
    let disciplined = !waiter.converts && table.locks.as_it_was(waiter.lock).has(Lock::DISCIPLINED);
    let turn = disciplined.then(|| {
        let slot = u32::try_from(waiter.number).expect("under a discipline the number is a slot");
        table.turns.as_it_was(slot)
    });
    let facts = [
        (waiter.notify, fact::NOTIFY),
        (waiter.converts, fact::CONVERTS),
        (due_ms.is_some(), fact::LIMITED),
        (disciplined, fact::TURN),
    ];
    let facts = facts.iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit);
    let mut w = out.record(tag::WAITER);
    w.u32(waiter.generation).u32(waiter.lock).u32(waiter.session).u32(waiter.grant).u32(waiter.bundle);
    w.u64(waiter.request.0).u64(waiter.owner.0).u64(waiter.since.0);
    w.u64(turn.map_or(waiter.number, |turn| turn.number)).u32(turn.map_or(0, |turn| turn.behind));
    w.link(waiter.queue).link(waiter.sibling).u8(facts).u64(due_ms.unwrap_or(0));
    w.u32(waiter.lock_delay_ms).u32(waiter.max_hold_ms).u8(waiter.mode.wire()).u8(waiter.priority.get());
    w.text(table.names.bytes_as_they_were(waiter.label));
}

/// The waiter in `slot`.
pub(super) fn read(table: &mut Table, slot: u32, r: &mut Reader<'_>) -> Result<Waiter, BadSnapshot> {
    let blank = Table::blank_waiter();
    let mut waiter = Waiter {
        generation: r.u32("generation")?,
        lock: r.u32("lock")?,
        session: r.u32("session")?,
        grant: r.u32("grant")?,
        bundle: r.u32("bundle")?,
        request: RequestId(r.u64("request")?),
        owner: OwnerId(r.u64("owner")?),
        since: Tick(r.u64("since")?),
        ..blank
    };
    let (number, behind) = (r.u64("number")?, r.u32("behind")?);
    (waiter.queue, waiter.sibling) = (read_link(r)?, read_link(r)?);
    let (facts, due_ms) = (r.u8("facts")?, r.u64("due")?);
    (waiter.lock_delay_ms, waiter.max_hold_ms) = (r.u32("lock_delay")?, r.u32("max_hold")?);
    waiter.mode = read_mode(r)?;
    waiter.priority = Priority::new(r.u8("priority")?).ok_or(Malformed::Illegal("priority"))?;
    let label = read_text(r, LABEL_BYTES_MAX)?;
    sound(waiter.generation > 0 && slot != NONE, "a waiter is none")?;
    (waiter.notify, waiter.converts) = (facts & fact::NOTIFY != 0, facts & fact::CONVERTS != 0);
    if facts & fact::LIMITED != 0 {
        waiter.timer = table.wheel.arm(Tick::from_millis(due_ms), Alarm::Wait(slot));
    }
    waiter.number = if facts & fact::TURN == 0 {
        number
    } else {
        let (rank, heir) = (Link::NONE, Link::NONE);
        let turn = Turn { waiter: slot, behind, number, rank, heir, inherits: false };
        u64::from(table.turns.insert(turn))
    };
    waiter.label = table.names.insert(label);
    Ok(waiter)
}

//! A grant, with its side record, as bytes. Whose conversion and whose bundle it is, the waiter and the bundle say;
//! whether it wants notices, a list says whose order counts.

use super::pieces::Pieces;
use super::restore::{read_link, read_text};
use super::{BadSnapshot, sound, tag};
use crate::chunks::NONE;
use crate::list::Link;
use crate::record::{Extra, Grant, Notify};
use crate::table::Table;
use crate::wheel::Alarm;
use fairlock_protocol::limits::LABEL_BYTES_MAX;
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{FencingToken, Mode, Tick};

/// What a side record may have, one bit each.
mod fact {
    pub(super) const HOLD: u8 = 1;
    pub(super) const TO_CONFIRM: u8 = 2;
}

pub(super) fn write(table: &Table, grant: &Grant, out: &mut Pieces) {
    let extra = grant.has(Grant::EXTRA).then(|| {
        let slot = u32::try_from(grant.owner).expect("the owner field holds a slot");
        table.extras.as_it_was(slot)
    });
    let mut w = out.record(tag::GRANT);
    let mut fixed = [0; 48];
    fixed[..8].copy_from_slice(&grant.token.to_le_bytes());
    fixed[8..16].copy_from_slice(&extra.map_or(grant.owner, |extra| extra.owner).to_le_bytes());
    let Link { prev, next } = grant.beside;
    let sibling = grant.sibling;
    let words =
        [grant.lock, grant.who_word(), grant.generation, grant.since, prev, next, sibling.prev, sibling.next];
    for (place, word) in fixed[16..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    w.bytes(&fixed);
    if let Some(extra) = extra {
        let hold_ms = table.wheel.due_ms_as_it_was(extra.hold_timer);
        let confirm_ms = table.wheel.due_ms_as_it_was(extra.confirm_timer);
        let hold = if hold_ms.is_some() { fact::HOLD } else { 0 };
        let confirm = if confirm_ms.is_some() { fact::TO_CONFIRM } else { 0 };
        w.u8(hold | confirm).u64(hold_ms.unwrap_or(0)).u64(confirm_ms.unwrap_or(0));
        w.u32(extra.levels).u32(extra.max_hold_ms).u32(extra.lock_delay_ms);
        w.text(table.names.bytes_as_they_were(extra.label));
    }
}

/// The grant in `slot`.
pub(super) fn read(table: &mut Table, slot: u32, r: &mut Reader<'_>) -> Result<Grant, BadSnapshot> {
    let (token, owner) = (r.u64("token")?, r.u64("owner")?);
    let (lock, who, generation, since) =
        (r.u32("lock")?, r.u32("who")?, r.u32("generation")?, r.u32("since")?);
    let (beside, sibling) = (read_link(r)?, read_link(r)?);
    sound(Grant::is_who(who) && generation > 0, "a grant is none")?;
    let mut grant = Grant::new(token, owner, lock, who, generation, since);
    (grant.beside, grant.sibling) = (beside, sibling);
    let has_token = FencingToken::from_raw(token).is_some();
    sound(has_token == (grant.mode() != Mode::NL), "every grant but NL has a token")?;
    if grant.has(Grant::EXTRA) {
        grant.owner = u64::from(read_extra(table, slot, &grant, r)?);
    }
    Ok(grant)
}

fn read_extra(table: &mut Table, slot: u32, grant: &Grant, r: &mut Reader<'_>) -> Result<u32, BadSnapshot> {
    let (facts, hold_ms, confirm_ms) = (r.u8("facts")?, r.u64("hold")?, r.u64("confirm")?);
    let (levels, max_hold_ms, lock_delay_ms) = (r.u32("levels")?, r.u32("max_hold")?, r.u32("lock_delay")?);
    let label = read_text(r, LABEL_BYTES_MAX)?;
    let (has_hold, to_confirm) = (facts & fact::HOLD != 0, facts & fact::TO_CONFIRM != 0);
    sound(levels > 0, "a grant is not entered")?;
    sound(has_hold == (max_hold_ms > 0), "a longest hold has a length and an end")?;
    sound(!to_confirm || grant.has(Grant::BROKEN), "what was not broken is to be confirmed")?;
    let mut arm = |is: bool, due_ms: u64, alarm: Alarm| {
        if is { table.wheel.arm(Tick::from_millis(due_ms), alarm) } else { NONE }
    };
    let hold_timer = arm(has_hold, hold_ms, Alarm::Hold(slot));
    let confirm_timer = arm(to_confirm, confirm_ms, Alarm::Broken(slot));
    Ok(table.extras.insert(Extra {
        owner: grant.owner,
        levels,
        hold_timer,
        max_hold_ms,
        confirm_timer,
        lock_delay_ms,
        label: table.names.insert(label),
        conversion: NONE,
        bundle: NONE,
        grant: slot,
        notify: Notify::Off,
        notice: Link::NONE,
    }))
}

//! A lock, with its side record, as bytes. Who holds it in which mode is counted by whoever reads.

use super::pieces::Pieces;
use super::restore::{read_ends, read_text};
use super::{BadSnapshot, sound, tag};
use crate::chunks::NONE;
use crate::record::{Closed, Crowd, Lock};
use crate::table::Table;
use crate::wheel::Alarm;
use alloc::boxed::Box;
use fairlock_protocol::limits::{IDENTITY_BYTES_MAX, NAME_BYTES_MAX};
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{Digest, Name, Tick};

/// What follows the name.
const ALONE: u8 = 0;
const CROWD: u8 = 1;
/// A crowd, and what keeps others out.
const CLOSED: u8 = 2;

pub(super) fn write(table: &Table, lock: &Lock, out: &mut Pieces) {
    let crowd = (lock.crowd != NONE).then(|| table.crowds.as_it_was(lock.crowd));
    let closed = crowd.and_then(|crowd| crowd.closed.as_deref());
    let kind = match (crowd, closed) {
        (None, _) => ALONE,
        (Some(_), None) => CROWD,
        (Some(_), Some(_)) => CLOSED,
    };
    let name = table.names.bytes_as_they_were(lock.name);
    let mut w = out.record(tag::LOCK);
    let mut fixed = [0; 27];
    fixed[..8].copy_from_slice(&lock.digest.0[0].to_le_bytes());
    fixed[8..16].copy_from_slice(&lock.digest.0[1].to_le_bytes());
    fixed[16..20].copy_from_slice(&lock.head.to_le_bytes());
    fixed[20..22].copy_from_slice(&lock.namespace.to_le_bytes());
    fixed[22..24].copy_from_slice(&lock.flags.to_le_bytes());
    fixed[24] = kind;
    let length = u16::try_from(name.len()).expect("a name has at most 1024 bytes");
    fixed[25..].copy_from_slice(&length.to_le_bytes());
    w.bytes(&fixed).bytes(name);
    if let Some(crowd) = crowd {
        w.u32(crowd.tail).ends(crowd.conversions).ends(crowd.waits);
        w.u64(crowd.run_first).u64(crowd.enqueued).u64(crowd.served);
    }
    if let Some(closed) = closed {
        w.u64(closed.until.0).text(&closed.identity).text(&closed.reclaim_key);
    }
}

/// The lock in `slot`.
pub(super) fn read(table: &mut Table, slot: u32, r: &mut Reader<'_>) -> Result<Lock, BadSnapshot> {
    let digest = Digest([r.u64("digest")?, r.u64("digest")?]);
    let (head, namespace, flags) = (r.u32("head")?, r.u16("namespace")?, r.u16("flags")?);
    let kind = r.u8("kind")?;
    let name = Name::new(read_text(r, NAME_BYTES_MAX)?)?;
    sound(kind <= CLOSED, "a lock is of no kind")?;
    sound(flags & !(Lock::DIED | Lock::STAKED | Lock::DISCIPLINED) == 0, "a lock has flags it cannot have")?;
    let crowd = if kind == ALONE { NONE } else { read_crowd(table, slot, kind, r)? };
    let name = table.names.insert(name.as_bytes());
    Ok(Lock { digest, name, head, crowd, namespace, flags })
}

fn read_crowd(table: &mut Table, lock: u32, kind: u8, r: &mut Reader<'_>) -> Result<u32, BadSnapshot> {
    let mut crowd = Crowd::new(lock);
    crowd.tail = r.u32("tail")?;
    (crowd.conversions, crowd.waits) = (read_ends(r)?, read_ends(r)?);
    (crowd.run_first, crowd.enqueued, crowd.served) =
        (r.u64("run_first")?, r.u64("enqueued")?, r.u64("served")?);
    if kind == CLOSED {
        let until = Tick(r.u64("until")?);
        let identity = read_text(r, IDENTITY_BYTES_MAX)?.into();
        let reclaim_key = read_text(r, IDENTITY_BYTES_MAX)?.into();
        let timer = table.wheel.arm(until, Alarm::Delay(lock));
        crowd.closed = Some(Box::new(Closed { until, timer, identity, reclaim_key }));
    }
    Ok(table.crowds.insert(crowd))
}

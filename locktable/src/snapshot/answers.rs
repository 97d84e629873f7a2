//! Kept answers as bytes.

use super::{BadSnapshot, sound};
use crate::bytes::Writer;
use crate::command::Granted;
use crate::effect::Answer;
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{FencingToken, GrantId, Malformed, Mode, OwnerId, Refusal, SessionId};

const GRANTED: u8 = 1;
const CONVERTED: u8 = 2;
const RELEASED: u8 = 3;
const WITHDRAWN: u8 = 4;
const REFUSED: u8 = 5;
const DEADLOCK: u8 = 6;

const DIED: u8 = 1;
const REENTERED: u8 = 2;

pub(super) fn write(answer: &Answer, w: &mut Writer<'_>) {
    match *answer {
        Answer::Granted(ref granted) => write_granted(granted, w.u8(GRANTED)),
        Answer::Converted(ref granted) => write_granted(granted, w.u8(CONVERTED)),
        Answer::Released { remaining } => {
            w.u8(RELEASED).u32(remaining);
        }
        Answer::Withdrawn { was_waiting } => {
            w.u8(WITHDRAWN).u8(u8::from(was_waiting));
        }
        Answer::Refused(refusal) => {
            w.u8(REFUSED).u16(refusal.code());
        }
        Answer::Deadlock { session, owner, mode } => {
            w.u8(DEADLOCK).u64(session.get()).u64(owner.0).u8(mode.wire());
        }
    }
}

fn write_granted(granted: &Granted, w: &mut Writer<'_>) {
    let died = if granted.previous_owner_died { DIED } else { 0 };
    let reentered = if granted.reentered { REENTERED } else { 0 };
    w.u64(granted.grant.get()).u64(granted.token.map_or(0, FencingToken::get)).u64(granted.fence);
    w.u64(granted.waited_us).u8(granted.mode.wire()).u8(died | reentered);
}

/// An answer that is kept; others are not told.
pub(super) fn read(r: &mut Reader<'_>) -> Result<Answer, BadSnapshot> {
    let answer = match r.u8("answer")? {
        GRANTED => Answer::Granted(read_granted(r)?),
        CONVERTED => Answer::Converted(read_granted(r)?),
        RELEASED => Answer::Released { remaining: r.u32("remaining")? },
        WITHDRAWN => Answer::Withdrawn { was_waiting: r.u8("was_waiting")? != 0 },
        REFUSED => {
            let refusal = Refusal::from_code(r.u16("refusal")?).ok_or(Malformed::Illegal("refusal"))?;
            Answer::Refused(refusal)
        }
        DEADLOCK => {
            let session = SessionId::from_raw(r.u64("session")?).ok_or(Malformed::Illegal("session"))?;
            Answer::Deadlock { session, owner: OwnerId(r.u64("owner")?), mode: read_mode(r)? }
        }
        _ => return Err(Malformed::Illegal("answer").into()),
    };
    sound(answer.is_kept(), "an answer is kept that changed nothing")?;
    Ok(answer)
}

fn read_granted(r: &mut Reader<'_>) -> Result<Granted, BadSnapshot> {
    let grant = GrantId::from_raw(r.u64("grant")?).ok_or(Malformed::Illegal("grant"))?;
    let token = match r.u64("token")? {
        0 => None,
        raw => Some(FencingToken::from_raw(raw).ok_or(Malformed::Illegal("token"))?),
    };
    let (fence, waited_us, mode) = (r.u64("fence")?, r.u64("waited")?, read_mode(r)?);
    let facts = r.u8("facts")?;
    let (previous_owner_died, reentered) = (facts & DIED != 0, facts & REENTERED != 0);
    Ok(Granted { grant, token, fence, mode, waited_us, previous_owner_died, reentered })
}

pub(super) fn read_mode(r: &mut Reader<'_>) -> Result<Mode, BadSnapshot> {
    Ok(Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))?)
}

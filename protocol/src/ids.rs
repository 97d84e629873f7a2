//! Identities. Each number that names something has a type of its own, so that a grant can never be released
//! where a session was meant, and what was checked once at the door need not be checked again.
//!
//! The scale-out parts (epoch, shard) are inside the ids from the start: a [`SessionId`] says which shard is its
//! home and which epoch issued it, a [`FencingToken`] carries its epoch in front of its counter.

use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};

/// Bits of a token, and of its counter part; the epoch takes the rest below the sign bit of a SQL `BIGINT`.
const TOKEN_SEQ_BITS: u32 = 39;
/// First sequence number a token counter must not reach.
pub const TOKEN_SEQ_END: u64 = 1 << TOKEN_SEQ_BITS;
/// First epoch that does not fit into a token (24 bits).
pub const EPOCH_END: u32 = 1 << 24;
/// Seconds between 1970-01-01 and 2025-01-01 (UTC), where first epochs are counted from.
const EPOCH_ORIGIN_UNIX_S: u64 = 1_735_689_600;
/// One first epoch per this many seconds, so that 24 bits last 34 years.
const EPOCH_STEP_S: u64 = 64;

const _: () = assert!(TOKEN_SEQ_BITS + 24 == 63, "a token is a positive 63-bit integer");

/// Number of a configuration: rises by one at each change, durable, never reused. 1 ≤ epoch < 2²⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU32);

impl Epoch {
    /// The epoch with this number, or `None` outside 1 … 2²⁴ − 1.
    pub const fn new(number: u32) -> Option<Epoch> {
        if number >= EPOCH_END {
            return None;
        }
        match NonZeroU32::new(number) {
            Some(number) => Some(Epoch(number)),
            None => None,
        }
    }

    /// The first epoch of a new cell or state directory: one step every 64 s since 2025-01-01, so that tokens
    /// rise even when everything a node remembered is lost. A clock before 2025 gives epoch 1.
    pub fn first_at(unix_s: u64) -> Epoch {
        let steps = unix_s.saturating_sub(EPOCH_ORIGIN_UNIX_S) / EPOCH_STEP_S;
        let number = u32::try_from(steps).unwrap_or(EPOCH_END - 1).clamp(1, EPOCH_END - 1);
        Epoch(NonZeroU32::MIN.saturating_add(number - 1))
    }

    /// The epoch after this one; `None` after the last (in 34 years of one change a minute).
    pub const fn next(self) -> Option<Epoch> {
        Epoch::new(self.0.get() + 1)
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// A fencing token: epoch (24 bits) · 2³⁹ + sequence number (39 bits). Positive, fits a SQL `BIGINT`.
///
/// Strictly increasing per resource for ever; it names one uninterrupted tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The token with sequence number `seq` in `epoch`; `None` when the counter is used up.
    pub const fn new(epoch: Epoch, seq: u64) -> Option<FencingToken> {
        if seq >= TOKEN_SEQ_END {
            return None;
        }
        FencingToken::from_raw(((epoch.get() as u64) << TOKEN_SEQ_BITS) | seq)
    }

    /// A token from its number, as it stands in a frame or a database; `None` for 0 and above 2⁶³ − 1.
    pub const fn from_raw(raw: u64) -> Option<FencingToken> {
        if raw > i64::MAX as u64 {
            return None;
        }
        match NonZeroU64::new(raw) {
            Some(raw) => Some(FencingToken(raw)),
            None => None,
        }
    }

    /// The number to hand to the resource.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The epoch that issued it.
    pub const fn epoch_number(self) -> u32 {
        (self.0.get() >> TOKEN_SEQ_BITS) as u32
    }
}

/// One process's presence: its liveness carries all its grants. Never reused.
///
/// epoch (24 bits) · home shard (8 bits) · sequence number (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The session number `seq` that `home` opened in `epoch`; `None` when `home` does not fit 8 bits.
    pub const fn new(epoch: Epoch, home: ShardId, seq: u32) -> Option<SessionId> {
        if home.0 > 0xFF {
            return None;
        }
        SessionId::from_raw(((epoch.get() as u64) << 40) | ((home.0 as u64) << 32) | seq as u64)
    }

    /// A session id from its number; `None` for 0.
    pub const fn from_raw(raw: u64) -> Option<SessionId> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(SessionId(raw)),
            None => None,
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The shard that alone decides this session's expiry.
    pub const fn home(self) -> ShardId {
        ShardId(((self.0.get() >> 32) & 0xFF) as u16)
    }

    /// The epoch that opened it.
    pub const fn epoch_number(self) -> u32 {
        (self.0.get() >> 40) as u32
    }
}

impl fmt::Display for SessionId {
    /// Sixteen hexadecimal digits, the form the command line prints and takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl core::str::FromStr for SessionId {
    type Err = NotASession;

    fn from_str(text: &str) -> Result<SessionId, NotASession> {
        u64::from_str_radix(text, 16).ok().and_then(SessionId::from_raw).ok_or(NotASession)
    }
}

/// The text is not a session id (1 to 16 hexadecimal digits, not all zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASession;

impl fmt::Display for NotASession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id is up to 16 hexadecimal digits, as `fairlock sessions` prints it")
    }
}

impl core::error::Error for NotASession {}

/// One request's hold on one resource: slot (low 32 bits) and generation (high 32 bits) at its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(NonZeroU64);

impl GrantId {
    /// A grant id from its number; `None` for 0.
    pub const fn from_raw(raw: u64) -> Option<GrantId> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(GrantId(raw)),
            None => None,
        }
    }

    /// The grant in `slot`, of `generation`; a generation is never 0.
    pub const fn from_parts(slot: u32, generation: NonZeroU32) -> GrantId {
        let raw = ((generation.get() as u64) << 32) | slot as u64;
        match NonZeroU64::new(raw) {
            Some(raw) => GrantId(raw),
            None => unreachable!(),
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The slot part.
    pub const fn slot(self) -> u32 {
        (self.0.get() & 0xFFFF_FFFF) as u32
    }

    /// The generation part.
    pub const fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }
}

/// Number of a request on one stream (session and shard): chosen by the client, rising, never 0 for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// What stands in a frame that answers no request: a notice.
    pub const NOTICE: RequestId = RequestId(0);
}

/// A label inside a session, one per thread or task: decides re-entry and the edges of deadlock detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// One single-threaded state machine that owns a set of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// In a HELLO: whichever shard is nearest.
    pub const ANY: ShardId = ShardId(0xFFFF);
}

/// Which cell (or single node with its state directory) this is: random, made once, 0 for "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CellId(pub u128);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What proves to a server that a connection may act for a session. Its `Debug` form does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub u128);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_rise_with_the_sequence_and_then_with_the_epoch() {
        let (a, b) = (Epoch::new(1).unwrap(), Epoch::new(2).unwrap());
        let last = FencingToken::new(a, TOKEN_SEQ_END - 1).unwrap();
        assert!(FencingToken::new(a, 1).unwrap() < FencingToken::new(a, 2).unwrap());
        assert!(last < FencingToken::new(b, 0).unwrap());
        assert_eq!(FencingToken::new(a, TOKEN_SEQ_END), None);
        assert_eq!(last.epoch_number(), 1);
    }

    #[test]
    fn the_largest_token_fits_a_signed_64_bit_column() {
        let epoch = Epoch::new(EPOCH_END - 1).unwrap();
        let token = FencingToken::new(epoch, TOKEN_SEQ_END - 1).unwrap();
        assert_eq!(token.get(), i64::MAX as u64);
        assert_eq!(FencingToken::from_raw(1 << 63), None);
        assert_eq!(FencingToken::from_raw(0), None);
    }

    #[test]
    fn a_lost_directory_still_starts_with_a_higher_epoch() {
        let before = Epoch::first_at(EPOCH_ORIGIN_UNIX_S + 64 * 1000);
        let after = Epoch::first_at(EPOCH_ORIGIN_UNIX_S + 64 * 1001);
        assert_eq!((before.get(), after.get()), (1000, 1001));
        assert_eq!(Epoch::first_at(0).get(), 1);
        assert_eq!(Epoch::first_at(u64::MAX).get(), EPOCH_END - 1);
        assert_eq!(Epoch::new(EPOCH_END - 1).unwrap().next(), None);
    }

    #[test]
    fn a_session_id_tells_its_home_and_reads_back_from_its_text() {
        let id = SessionId::new(Epoch::new(7).unwrap(), ShardId(3), 41).unwrap();
        assert_eq!((id.home(), id.epoch_number()), (ShardId(3), 7));
        assert_eq!(std::format!("{id}").parse(), Ok(id));
        assert_eq!("0".parse::<SessionId>(), Err(NotASession));
        assert_eq!(SessionId::new(Epoch::new(7).unwrap(), ShardId(256), 1), None);
    }
}

//! Commands as bytes: what the log between the nodes of a cell carries.
//!
//! An operation is `kind u8 · moment u64 · fields`, little-endian, without a length of its own: the log frames it. Its
//! bytes say all that a table needs, digests included, so that whoever applies it computes nothing anew and decides
//! nothing. Decoding borrows, checks each length before it is used and allocates for an acquire-all alone; what is left
//! over is an error, so that a later version is never half understood.

mod read;
#[cfg(test)]
mod tests;

use crate::bytes::Writer;
use crate::command::{Acquire, AcquireAll, Command, Ended, Lease, Open, SessionKey, Wait};
use crate::effect::Effects;
use crate::table::Table;
use alloc::vec::Vec;
use fairlock_protocol::{GrantId, Malformed, Resource, Tick};

/// Which operations this version writes and understands. A cell raises its level when all its members can.
pub const OPERATIONS_LEVEL: u16 = 1;

/// Numbers of the kinds. A number is never used for another kind.
pub(crate) mod kind {
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const RESUME: u8 = 2;
    pub(crate) const ACKNOWLEDGE: u8 = 3;
    pub(crate) const END: u8 = 4;
    pub(crate) const ACQUIRE: u8 = 5;
    pub(crate) const ACQUIRE_ALL: u8 = 6;
    pub(crate) const RELEASE: u8 = 7;
    pub(crate) const CONVERT: u8 = 8;
    pub(crate) const CANCEL: u8 = 9;
    pub(crate) const BREAK: u8 = 10;
    pub(crate) const KILL: u8 = 11;
    pub(crate) const CONFIRM: u8 = 12;
    pub(crate) const CACHE: u8 = 13;
    pub(crate) const GIVE_BACK: u8 = 14;
    pub(crate) const WAIT_OVER: u8 = 15;
    pub(crate) const HOLD_OVER: u8 = 16;
    pub(crate) const DELAY_OVER: u8 = 17;
    pub(crate) const DOOM: u8 = 18;
    pub(crate) const EPOCH: u8 = 19;
    pub(crate) const TAKE_OVER: u8 = 20;
    pub(crate) const REASSERT: u8 = 21;
}

/// Facts about an OPEN, one bit each.
mod open_flag {
    pub(super) const WATCHED: u8 = 1;
    pub(super) const VISITING: u8 = 2;
    pub(super) const PREDECESSOR_GONE: u8 = 4;
}

/// Facts about a request, one bit each; those that say of a field whether it follows keep the common request short.
mod ask_flag {
    pub(super) const REENTRANT: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const LOCK_DELAY: u8 = 4;
    pub(super) const MAX_HOLD: u8 = 8;
}

/// How long a request waits: one byte, and for a limited wait its length.
mod wait_kind {
    pub(super) const TRY: u8 = 0;
    pub(super) const MILLIS: u8 = 1;
    pub(super) const FOREVER: u8 = 2;
}

/// Reasons for the end of a session, by the number that stands for each.
const REASONS: [Ended; 5] = [Ended::Closed, Ended::Expired, Ended::Died, Ended::Killed, Ended::Replaced];

/// Appends the operation that carries out `command` at `moment`.
///
/// # Panics
/// When a text of the command is longer than its limit: that is checked at the door.
pub fn encode(moment: Tick, command: &Command<'_>, out: &mut Vec<u8>) {
    let mut w = Writer(out);
    match command {
        Command::Open(open) => w.open(moment, open),
        Command::Resume { session, received } => {
            w.begin(kind::RESUME, moment).session(*session).u64(*received);
        }
        Command::Acknowledge { session, received } => {
            w.begin(kind::ACKNOWLEDGE, moment).session(*session).u64(*received);
        }
        Command::End { session, why } => {
            w.begin(kind::END, moment).session(*session).u8(number_of(*why));
        }
        Command::Acquire(ask) => w.acquire(kind::ACQUIRE, moment, ask),
        Command::Reassert { acquire, token } => {
            w.acquire(kind::REASSERT, moment, acquire);
            w.u64(token.get());
        }
        Command::AcquireAll(ask) => w.acquire_all(moment, ask),
        Command::Release { session, request, grant } => {
            w.begin(kind::RELEASE, moment).session(*session).u64(request.0).u64(grant.get());
        }
        Command::Convert { session, request, grant, mode, wait } => {
            w.begin(kind::CONVERT, moment).session(*session).u64(request.0).u64(grant.get());
            w.u8(mode.wire()).wait(*wait);
        }
        Command::Cancel { session, request, target } => {
            w.begin(kind::CANCEL, moment).session(*session).u64(request.0).u64(target.0);
        }
        Command::Break { digest, force } => {
            w.begin(kind::BREAK, moment).digest(*digest).u8(u8::from(*force));
        }
        Command::Kill { session, force } => {
            w.begin(kind::KILL, moment).session(*session).u8(u8::from(*force));
        }
        Command::Confirm { session, grant } => w.of_grant(kind::CONFIRM, moment, *session, *grant),
        Command::Cache { session, grant } => w.of_grant(kind::CACHE, moment, *session, *grant),
        Command::GiveBack { session, grant } => w.of_grant(kind::GIVE_BACK, moment, *session, *grant),
        Command::WaitOver { waiter } => {
            w.begin(kind::WAIT_OVER, moment).u32(waiter.slot).u32(waiter.generation);
        }
        Command::HoldOver { grant } => {
            w.begin(kind::HOLD_OVER, moment).u64(grant.get());
        }
        Command::DelayOver { digest } => {
            w.begin(kind::DELAY_OVER, moment).digest(*digest);
        }
        Command::Doom { session } => {
            w.begin(kind::DOOM, moment).session(*session);
        }
        Command::Epoch(epoch) => {
            w.begin(kind::EPOCH, moment).u32(epoch.get());
        }
        Command::TakeOver(epoch) => {
            w.begin(kind::TAKE_OVER, moment).u32(epoch.get());
        }
    }
}

/// Decodes one operation, whole, and hands it on; what `then` gives is given back.
///
/// # Errors
/// Says what was wrong with the bytes; `then` was not called.
pub fn decode<R>(bytes: &[u8], then: impl FnOnce(Tick, Command<'_>) -> R) -> Result<R, Malformed> {
    read::operation(bytes, then)
}

impl Table {
    /// Carries out one operation, as [`Table::apply`] carries out its command.
    ///
    /// # Errors
    /// Says what was wrong with the bytes; nothing changed.
    pub fn apply_operation(&mut self, bytes: &[u8], effects: &mut Effects) -> Result<(), Malformed> {
        decode(bytes, |moment, command| self.apply(moment, command, effects))
    }
}

fn number_of(why: Ended) -> u8 {
    match why {
        Ended::Closed => 0,
        Ended::Expired => 1,
        Ended::Died => 2,
        Ended::Killed => 3,
        Ended::Replaced => 4,
    }
}

impl Writer<'_> {
    fn begin(&mut self, kind: u8, moment: Tick) -> &mut Self {
        self.u8(kind).u64(moment.0)
    }

    fn wait(&mut self, wait: Wait) -> &mut Self {
        match wait {
            Wait::Try => self.u8(wait_kind::TRY),
            Wait::Millis(ms) => self.u8(wait_kind::MILLIS).u64(ms),
            Wait::Forever => self.u8(wait_kind::FOREVER),
        }
    }

    fn of_grant(&mut self, kind: u8, moment: Tick, session: SessionKey, grant: GrantId) {
        self.begin(kind, moment).session(session).u64(grant.get());
    }

    /// The default namespace is left out: its length is 0.
    fn resource(&mut self, resource: Resource<'_>) -> &mut Self {
        let Resource { namespace, name } = resource;
        let namespace = if namespace.is_default() { "" } else { namespace.as_str() };
        self.u8(u8::try_from(namespace.len()).expect("a namespace has at most 64 bytes"));
        self.length(name.as_bytes()).bytes(namespace.as_bytes()).bytes(name.as_bytes())
    }

    fn open(&mut self, moment: Tick, open: &Open<'_>) {
        let fact = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = fact(open.lease == Lease::Watched, open_flag::WATCHED)
            | fact(open.visiting, open_flag::VISITING)
            | fact(open.predecessor_gone, open_flag::PREDECESSOR_GONE);
        self.begin(kind::OPEN, moment).u64(open.id.get()).bytes(&open.secret.0.to_le_bytes());
        self.u32(open.ttl_ms).u8(flags).u32(open.attributes.pid);
        let about = &open.attributes;
        let texts = [open.identity, open.reclaim_key, about.host, about.exe, about.label];
        for text in texts {
            self.length(text);
        }
        for text in texts {
            self.bytes(text);
        }
    }

    fn acquire(&mut self, kind: u8, moment: Tick, ask: &Acquire<'_>) {
        let fact = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = fact(ask.reentrant, ask_flag::REENTRANT)
            | fact(ask.notify, ask_flag::NOTIFY)
            | fact(ask.lock_delay_ms > 0, ask_flag::LOCK_DELAY)
            | fact(ask.max_hold_ms > 0, ask_flag::MAX_HOLD);
        self.begin(kind, moment).session(ask.session).u64(ask.request.0).digest(ask.digest);
        self.u64(ask.owner.0).u8(ask.mode.wire()).u8(ask.priority.get()).u8(flags).wait(ask.wait);
        if ask.lock_delay_ms > 0 {
            self.u32(ask.lock_delay_ms);
        }
        if ask.max_hold_ms > 0 {
            self.u32(ask.max_hold_ms);
        }
        self.length(ask.label).resource(ask.resource).bytes(ask.label);
    }

    fn acquire_all(&mut self, moment: Tick, ask: &AcquireAll<'_>) {
        self.begin(kind::ACQUIRE_ALL, moment).session(ask.session).u64(ask.request.0);
        self.u64(ask.owner.0).wait(ask.wait).length(ask.label).bytes(ask.label);
        self.u16(u16::try_from(ask.items.len()).expect("a request names at most 256"));
        for item in ask.items {
            self.digest(item.digest).u8(item.mode.wire()).resource(item.resource);
        }
    }
}

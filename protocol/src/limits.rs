//! Every bound of the system, by name, with its unit and its reason. Reaching one is a counted refusal, never an
//! abort and never an allocation without end. Those a server may set lower (or, marked with *, higher) are the
//! defaults of its configuration.

use core::time::Duration;

/// Longest resource name in bytes; any bytes, compared as bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest namespace in bytes, of `[a-z0-9._-]`.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Longest label in bytes (a request's or a session's).
pub const LABEL_BYTES_MAX: usize = 256;
/// Longest host name or program path kept of a client, in bytes: what a person needs to find the process.
pub const ATTRIBUTE_BYTES_MAX: usize = 256;
/// Longest identity or reclaim key in bytes.
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Longest credential in a HELLO in bytes (a scoped token).
pub const AUTH_BYTES_MAX: usize = 4096;
/// Longest list of endpoints in bytes, as a server names the nodes of its cell: several for each of a few nodes.
pub const ENDPOINTS_BYTES_MAX: usize = 1024;
/// Nodes of a cell that are shown: members, of which there are at most 16, and who is on the way to become one.
pub const CELL_NODES_MAX: usize = 32;
/// Longest list of names of nodes in bytes: each has at most 64, and a comma.
pub const NODE_NAMES_BYTES_MAX: usize = CELL_NODES_MAX * 65;
/// Longest text that says where the register is, or why it does not answer, in bytes.
pub const PLACE_BYTES_MAX: usize = 1024;
/// Longest text of alarms in a view of a cell, in bytes; what is beyond is cut off.
pub const ALARMS_BYTES_MAX: usize = 4096;
/// Longest frame in bytes, header included; what a server must be able to buffer for one slow peer.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Longest value block in bytes*.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Waiters of one resource*; with a session's own limit this bounds a queue.
pub const WAITERS_PER_RESOURCE_MAX: u32 = 65_536;
/// Grants and waits of one session on one shard*.
pub const LOCKS_PER_SESSION_MAX: u32 = 1_000_000;
/// Sessions of one shard*.
pub const SESSIONS_MAX: u32 = 100_000;
/// Kept replies a session may leave unacknowledged on one stream; its next request is refused BUSY.
pub const UNACKNOWLEDGED_MAX: usize = 1024;
/// Grants of a time before a server lost its memory that one shard takes on: as many as it had locks in a large cell; 16 MiB.
pub const REASSERTS_MAX: usize = 1 << 20;
/// Requests of one session that may wait on one stream: all may be answered before the client says a word. Each item of
/// an acquire-all counts: it has an answer of its own.
pub const WAITS_PER_STREAM_MAX: u32 = 32_768;
/// Items of one acquire-all.
pub const ACQUIRE_ALL_MAX: usize = 256;
/// Times one grant can be re-entered.
pub const REENTRY_MAX: u32 = 65_535;
/// Deaths of holders remembered for the next holder after the lock itself was reclaimed; the oldest is forgotten.
pub const DEATH_MARKS_MAX: usize = 65_536;
/// Namespaces in use at one time on one shard.
pub const NAMESPACES_MAX: usize = 4096;

/// Classes of requests in a namespace with the discipline `priority`: what people tell apart, and few enough to look at
/// the first of each.
pub const PRIORITY_CLASSES: u8 = 8;
/// Times a waiter may be passed in a namespace with the discipline `phase` or `priority` that names no other number.
pub const BYPASS_BUDGET_DEFAULT: u32 = 16;
/// Most that may be named: as many as may wait. Beyond it nobody would call it a bound.
pub const BYPASS_BUDGET_MAX: u32 = 65_536;
/// How long a waiter of a `priority` namespace waits for each class it rises, unless told otherwise: the lowest is at the
/// top after 0.7 s.
pub const AGE_STEP_DEFAULT: Duration = Duration::from_millis(100);
/// Shortest such step.
pub const AGE_STEP_MIN: Duration = Duration::from_millis(1);
/// Longest such step.
pub const AGE_STEP_MAX: Duration = Duration::from_hours(1);
/// Removes over which a class is inherited: from who waits for what a waiter holds, from who waits for what that one
/// holds, and so on.
pub const INHERITANCE_DEPTH_MAX: usize = 8;
/// Locks looked at for what one waiter inherits, at all removes together.
pub const INHERITANCE_LOCKS_MAX: usize = 32;
/// Waiters of one lock that are looked at because they may have inherited a class: those that came to it first.
pub const INHERITANCE_HEIRS_MAX: usize = 32;
/// Grants, and waits, of one session that are looked at to find those of one owner.
pub const INHERITANCE_SEARCH_MAX: usize = 64;
/// Records looked at in all for the choice of one waiter (about 20 µs); what lies beyond is not inherited.
pub const INHERITANCE_STEPS_MAX: u32 = 4096;

/// Lease of a session that asks for none.
pub const TTL_DEFAULT: Duration = Duration::from_secs(5);
/// Shortest lease: below this, scheduling noise ends sessions.
pub const TTL_MIN: Duration = Duration::from_millis(200);
/// Longest lease the protocol knows.
pub const TTL_MAX: Duration = Duration::from_hours(1);
/// Longest lease a server grants by default*: an unclean restart waits as long as the longest one granted.
pub const TTL_CELL_MAX: Duration = Duration::from_mins(1);
/// Longest lock delay.
pub const LOCK_DELAY_MAX: Duration = Duration::from_mins(1);
/// A client renews when this fraction of its lease is over (with jitter): four tries fit before the deadline.
pub const KEEPALIVE_DIVISOR: u32 = 5;

/// Requests taken from one source in one pass, so that no client starves another; each lock of an acquire-all is one.
pub const REQUESTS_PER_PASS: usize = 64;
/// Names looked at for one page of a list, matching or not: a shard does nothing else meanwhile (0.2 ms).
pub const LIST_VISITS_MAX: u32 = 4096;
/// Operators' questions answered in one pass, whoever asks: each may walk over thousands of records.
pub const PAGES_PER_PASS: usize = 8;
/// Handshake, from accept to WELCOME.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// First frame after WELCOME.
pub const FIRST_FRAME_TIME: Duration = Duration::from_secs(2);
/// Rest of a frame that has begun to arrive.
pub const PARTIAL_FRAME_TIME: Duration = Duration::from_secs(1);
/// Connections that have shown no session yet, in all*; the oldest silent one goes first.
pub const UNBOUND_CONNECTIONS_MAX: usize = 4096;
/// The same from one address*.
pub const UNBOUND_CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;
/// Bytes waiting to be written to one connection; beyond it the connection is dropped, never its locks.
pub const WRITE_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes waiting to be written to one connection beyond which its requests wait too, until half of them are gone: who does
/// not read its answers is asked for no more of them.
pub const WRITE_PAUSE_BYTES: usize = 256 * 1024;
/// Bytes received from one connection and not yet taken by a pass; beyond it reading pauses.
pub const READ_BACKLOG_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(NAME_BYTES_MAX + NAMESPACE_BYTES_MAX + LABEL_BYTES_MAX + 256 < FRAME_BYTES_MAX);
const _: () = assert!(BYPASS_BUDGET_DEFAULT <= BYPASS_BUDGET_MAX);
const _: () = assert!(READ_BACKLOG_BYTES_MAX >= 2 * FRAME_BYTES_MAX);
const _: () = assert!(WRITE_PAUSE_BYTES + 2 * FRAME_BYTES_MAX < WRITE_BACKLOG_BYTES_MAX);
const _: () = assert!(
    UNACKNOWLEDGED_MAX + WAITS_PER_STREAM_MAX as usize + ACQUIRE_ALL_MAX < u16::MAX as usize,
    "an acknowledgement is told apart modulo 2^16"
);

//! Everything a request can be refused for: a closed list with stable codes, each saying what the caller should do.

use core::fmt;

/// What a refused caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Final: the request had no effect and repeating it changes nothing by itself.
    Final,
    /// Nothing was done; the library sends the same request again, after resuming where the code says so.
    Retry,
    /// The session is over, and with it everything it held.
    SessionOver,
    /// Raised in the client itself, without a message.
    Local,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $class:ident, $advice:literal;)*) => {
        /// Why a request was refused. The numbers are the codes on the wire and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Refusal { $($(#[$doc])* $name = $code,)* }

        impl Refusal {
            /// Every refusal, in the order of the codes.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The refusal with this code.
            pub const fn from_code(code: u16) -> Option<Refusal> {
                match code { $($code => Some(Refusal::$name),)* _ => None }
            }

            /// The stable name, as scripts and logs see it.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$name => $text,)* }
            }

            /// What the caller should do, by kind.
            pub const fn class(self) -> Class {
                match self { $(Refusal::$name => Class::$class,)* }
            }

            /// What happened and what to do, for a person.
            pub const fn advice(self) -> &'static str {
                match self { $(Refusal::$name => $advice,)* }
            }
        }
    };
}

refusals! {
    /// A try that would have had to wait.
    WouldBlock = 1, "WOULD_BLOCK", Final, "the lock is taken or others wait for it; wait for it or try later";
    /// The wait ended without a grant.
    Timeout = 2, "TIMEOUT", Final, "the wait ended before the lock was free; `fairlock why NAME` shows who holds it";
    /// The caller withdrew the request.
    Cancelled = 3, "CANCELLED", Final, "the request was withdrawn while it waited";
    /// The request closes a cycle of waits.
    Deadlock = 4, "DEADLOCK", Final, "each would wait for the other; release what you hold and start again";
    /// The grant is not, or no longer, the caller's.
    NotHeld = 5, "NOT_HELD", Final, "this session does not hold that grant";
    /// The same owner already holds the lock in a way that this request could never be granted beside.
    AlreadyHeld = 6, "ALREADY_HELD", Final, "the same owner holds it; ask for re-entry or convert the grant";
    /// The conversion asked for is not one.
    BadConversion = 7, "BAD_CONVERSION", Final, "a conversion of this grant is already waiting";
    /// The name is used for another kind of object.
    KindMismatch = 8, "KIND_MISMATCH", Final, "the name belongs to another kind of object";
    /// The semaphore was created with another limit.
    LimitMismatch = 9, "LIMIT_MISMATCH", Final, "the semaphore exists with another limit";
    /// Nothing of that name or number.
    NotFound = 10, "NOT_FOUND", Final, "there is nothing of that name or number";
    /// It exists already.
    Exists = 11, "EXISTS", Final, "it exists already";
    /// It still has members.
    NotEmpty = 12, "NOT_EMPTY", Final, "it is still in use";
    /// A compare-and-set met another version.
    VersionMismatch = 13, "VERSION_MISMATCH", Final, "the value changed meanwhile; read it again";
    /// The token is older than one already seen.
    StaleToken = 14, "STALE_TOKEN", Final, "a newer tenure exists; stop using this token";
    /// The grant cannot be held or re-entered so often or so long.
    HoldLimit = 15, "HOLD_LIMIT", Final, "the grant was re-entered or would be held beyond its limit";
    /// Nobody receives messages there.
    NoReceiver = 16, "NO_RECEIVER", Final, "nobody is registered to receive this";
    /// The mode held does not allow the operation.
    ModeForbids = 17, "MODE_FORBIDS", Final, "the mode held does not allow this; hold PW or EX";
    /// The session's lease ended.
    SessionExpired = 20, "SESSION_EXPIRED", SessionOver, "the lease ended; everything the session held has passed on";
    /// No such session, or not its secret.
    SessionUnknown = 21, "SESSION_UNKNOWN", SessionOver, "the server knows no such session; open a new one";
    /// A new session took this one's identity.
    SessionReplaced = 22, "SESSION_REPLACED", SessionOver, "another process opened a session with this identity";
    /// This node does not decide.
    NotPrimary = 30, "NOT_PRIMARY", Retry, "this node does not serve; ask the one it names, or `fairlock cluster status` why it names none";
    /// Not enough members, or no register.
    Unavailable = 31, "UNAVAILABLE", Retry, "the cell cannot commit at the moment; nothing was done";
    /// The configuration changed.
    EpochChanged = 32, "EPOCH_CHANGED", Retry, "the primary changed; resume the session and send again";
    /// Old leases may still be alive after a loss of memory.
    Recovering = 33, "RECOVERING", Retry, "the server restarted without its memory and waits until old leases are over";
    /// A planned hand-over or stop is under way.
    Draining = 34, "DRAINING", Retry, "the server is stopping; nothing new is granted here";
    /// The name is empty or the namespace malformed.
    BadName = 40, "BAD_NAME", Final, "a name has 1 to 1024 bytes, a namespace 1 to 64 of a-z 0-9 . _ -";
    /// A name, label or attribute is too long.
    TooLong = 41, "TOO_LONG", Final, "a name has at most 1024 bytes, a label 256";
    /// The value block is too large.
    ValueTooLarge = 42, "VALUE_TOO_LARGE", Final, "a value block has at most 4096 bytes";
    /// The queue of this resource is full.
    QueueFull = 43, "QUEUE_FULL", Final, "as many wait for this lock as the server allows";
    /// A quota is used up.
    Quota = 44, "QUOTA", Final, "this session or the server holds as much as it may";
    /// Too much at once.
    Busy = 45, "BUSY", Retry, "the server takes no more at the moment; send again later";
    /// Who the caller is was not shown.
    Unauthenticated = 50, "UNAUTHENTICATED", Final, "the server wants a credential";
    /// The caller may not do this.
    Denied = 51, "DENIED", Final, "the rules of the server do not allow this";
    /// The namespace does not exist.
    NoNamespace = 52, "NO_NAMESPACE", Final, "there is no such namespace";
    /// The frame or its content is malformed.
    BadRequest = 60, "BAD_REQUEST", Final, "the request is malformed";
    /// No protocol version in common.
    Version = 61, "VERSION", Final, "client and server have no protocol version in common; upgrade the older one";
    /// The operation exists but not here.
    Unsupported = 62, "UNSUPPORTED", Final, "this server does not offer that";
    /// The frame is longer than allowed.
    FrameTooLarge = 63, "FRAME_TOO_LARGE", Final, "a frame has at most 65536 bytes";
    /// The request id was used for another request.
    ReplayMismatch = 64, "REPLAY_MISMATCH", Final, "this request number was used for another request";
    /// Events were lost; a snapshot follows.
    Resync = 70, "RESYNC", Final, "events were missed; read the state again";
    /// The guard is lost or too near its end.
    LeaseGuard = 80, "LEASE_GUARD", Local, "the guard is lost: its lease is over or was ended";
    /// Nobody can tell whether the request was carried out; the guard is lost.
    OutcomeUnknown = 81, "OUTCOME_UNKNOWN", Local, "the connection ended before the answer, and the lease with it";
    /// The client was closed.
    Closed = 82, "CLOSED", Local, "the client was closed, or the process forked after it was made";
    /// The shared segment holds what it must not.
    ShmPeer = 83, "SHM_PEER", Local, "the shared segment was corrupted";
    /// A fault of the server.
    Internal = 90, "INTERNAL", Retry, "the server failed on this request; its log says why";
}

impl Refusal {
    /// The code on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.advice())
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_none_is_zero() {
        for &refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        }
        assert_eq!(Refusal::from_code(0), None, "0 means granted");
        assert_eq!(Refusal::from_code(19), None);
        assert!(Refusal::ALL.is_sorted_by_key(|refusal| refusal.code()));
    }
}

//! What can go wrong between us and an etcd: what it means for the ask, whether another endpoint may do better, and
//! what an operator should do. Every trouble is one of these; none is only logged.

use std::fmt;
use std::io;

use fairlock_replication::NotARecord;

/// Whether the ask may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Certainly none, now or later.
    None,
    /// Nobody knows.
    Possible,
}

/// The kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No connection was made.
    Unreachable(String),
    /// TLS failed.
    Tls(String),
    /// Nothing, or nothing whole, was answered in time.
    Silent(String),
    /// A member without a leader.
    NoLeader,
    /// The alarm NOSPACE.
    Full,
    /// Name or password is wrong.
    Credentials,
    /// A user is needed and none is configured.
    UserNeeded,
    /// The token is over; a new one helps.
    TokenOver,
    /// The user may not use the key.
    Denied,
    /// Whoever answered is no etcd, or not one with this interface.
    NotEtcd(String),
    /// An etcd before 3.4.
    TooOld(String),
    /// What stands at the key is not ours to read.
    NotOurs(NotARecord),
    /// Anything else etcd said.
    Said(String),
}

/// A trouble at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What it is.
    pub(super) kind: Kind,
    /// Whether the ask may have had an effect.
    pub(super) effect: Effect,
    /// At which endpoint.
    pub(super) endpoint: String,
}

impl Trouble {
    /// A trouble before anything was asked.
    pub(super) fn unreachable(endpoint: &str, error: &io::Error) -> Trouble {
        let kind = match error.kind() {
            _ if of_tls(error) => Kind::Tls(error.to_string()),
            io::ErrorKind::TimedOut => Kind::Unreachable("no connection in time".to_owned()),
            _ => Kind::Unreachable(error.to_string()),
        };
        Trouble { kind, effect: Effect::None, endpoint: endpoint.to_owned() }
    }

    /// A trouble after something was asked.
    pub(super) fn silent(endpoint: &str, error: &io::Error) -> Trouble {
        let kind = match error.kind() {
            _ if of_tls(error) => Kind::Tls(error.to_string()),
            io::ErrorKind::InvalidData => Kind::NotEtcd(error.to_string()),
            io::ErrorKind::TimedOut => Kind::Silent("it did not answer in time".to_owned()),
            // What a plain request meets where TLS is spoken.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                Kind::Silent("it ended without an answer; one that speaks TLS needs `etcds://`".to_owned())
            }
            _ => Kind::Silent(error.to_string()),
        };
        Trouble { kind, effect: Effect::Possible, endpoint: endpoint.to_owned() }
    }

    /// What an answer with an error says. `code` is gRPC's.
    pub(super) fn said(endpoint: &str, code: u64, message: &str) -> Trouble {
        let has = |part: &str| message.contains(part);
        let kind = match code {
            _ if has("no leader") => Kind::NoLeader,
            _ if has("space exceeded") => Kind::Full,
            _ if has("invalid user ID or password") => Kind::Credentials,
            _ if has("user name is empty") => Kind::UserNeeded,
            _ if has("invalid auth token") || has("auth store is old") || code == UNAUTHENTICATED => {
                Kind::TokenOver
            }
            _ if has("permission denied") || code == PERMISSION_DENIED => Kind::Denied,
            UNIMPLEMENTED => Kind::NotEtcd(message.to_owned()),
            _ => Kind::Said(message.to_owned()),
        };
        let certain = match kind {
            Kind::Said(_) => [INVALID, NOT_FOUND, EXHAUSTED, PRECONDITION].contains(&code),
            _ => true,
        };
        let effect = if certain { Effect::None } else { Effect::Possible };
        Trouble { kind, effect, endpoint: endpoint.to_owned() }
    }

    /// Whether another member of the cluster may do what this one cannot.
    pub(super) const fn elsewhere(&self) -> bool {
        // What the whole cluster would say alike.
        !matches!(
            self.kind,
            Kind::Full | Kind::Credentials | Kind::UserNeeded | Kind::Denied | Kind::NotOurs(_)
        )
    }
}

/// Whether TLS itself failed, and not what carries it.
fn of_tls(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// gRPC's codes whose answers come before any effect: the request was looked at and refused.
const INVALID: u64 = 3;
const NOT_FOUND: u64 = 5;
const PERMISSION_DENIED: u64 = 7;
const EXHAUSTED: u64 = 8;
const PRECONDITION: u64 = 9;
const UNIMPLEMENTED: u64 = 12;
const UNAUTHENTICATED: u64 = 16;

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = &self.endpoint;
        match &self.kind {
            Kind::Unreachable(why) => {
                write!(f, "no etcd can be reached at {at} ({why}): start it, or correct `register.url`")
            }
            Kind::Tls(why) => write!(
                f,
                "TLS with etcd at {at} fails ({why}): correct `register.ca`, `register.cert` and `register.key`, or \
                the certificate of etcd"
            ),
            Kind::Silent(why) => write!(
                f,
                "no answer from etcd at {at} ({why}): look at its log, disk and load, or raise `register.timeout`"
            ),
            Kind::NoLeader => write!(
                f,
                "etcd at {at} has no leader: start more of its members, or mend the network between them"
            ),
            Kind::Full => write!(
                f,
                "etcd at {at} is full: compact and defragment it, then clear it with `etcdctl alarm disarm`"
            ),
            Kind::Credentials => write!(
                f,
                "etcd at {at} refuses user or password: correct `register.user` and `register.password_file`"
            ),
            Kind::UserNeeded => {
                write!(f, "etcd at {at} wants a user: set `register.user` and `register.password_file`")
            }
            Kind::TokenOver => {
                write!(f, "etcd at {at} takes back its own token: look at `etcdctl auth status`")
            }
            Kind::Denied => write!(
                f,
                "etcd at {at} does not let this user at the key: `etcdctl role grant-permission ROLE readwrite KEY`"
            ),
            Kind::NotEtcd(what) => write!(
                f,
                "what answers at {at} is no etcd with a JSON gateway ({what}): correct `register.url`, or give etcd \
                back its --enable-grpc-gateway"
            ),
            Kind::TooOld(version) => {
                write!(f, "etcd {version} at {at} is too old: 3.4 is the first that will do")
            }
            Kind::NotOurs(NotARecord::Newer { format, known }) => write!(
                f,
                "a newer version wrote the configuration at {at} (format {format}, this one knows {known}): start \
                that version here"
            ),
            Kind::NotOurs(NotARecord::Corrupt(what)) => write!(
                f,
                "what stands at {at} is no configuration of Fairlock ({what}): put back what was there, or delete \
                the key once it is certain that no server of the cell runs"
            ),
            Kind::Said(message) => write!(f, "etcd at {at} refuses: {message}"),
        }
    }
}

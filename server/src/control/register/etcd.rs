//! The register in an etcd cluster, asked through its JSON gateway.
//!
//! Each ask has one limit for all it does. A read tries every endpoint within it. A swap goes to another endpoint only
//! while it is certain that no one has seen it: once its bytes have left, no answer means [`Answer::Unknown`], and
//! asking again would only make two swaps of one. A connection carries one request, because asks are rare and a kept
//! connection that has died in the meantime would turn a refused swap into an unknown one.

use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlock_replication::{Answer, Configuration, Register, Revision};
use rustls::ClientConfig;
use serde_json::Value;

use super::dial::{Dialer, Stream};
use super::gateway::{self, Found, Unusable};
use super::http::{self, Response};
use super::place::Endpoint;
use super::trouble::{Effect, Kind, Trouble};

/// Who we are to an etcd with users.
#[derive(Clone)]
pub(super) struct Credentials {
    /// The user.
    pub(super) user: String,
    /// The password.
    pub(super) password: String,
}

/// What every connection needs to know.
#[derive(Clone)]
pub(super) struct Settings {
    /// Members of the cluster.
    pub(super) endpoints: Vec<Endpoint>,
    /// How to speak TLS, if so.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Who we are.
    pub(super) credentials: Option<Credentials>,
    /// The key.
    pub(super) key: String,
    /// Limit of one ask.
    pub(super) timeout: Duration,
}

/// A register in etcd.
pub(super) struct Etcd {
    dialers: Vec<Dialer>,
    /// The endpoint that worked last.
    first: usize,
    credentials: Option<Credentials>,
    token: Option<String>,
    key: String,
    timeout: Duration,
}

/// What is asked at one endpoint.
#[derive(Clone, Copy)]
struct Request<'a> {
    path: &'static str,
    body: &'a str,
    /// Asking twice is not the same as asking once.
    once: bool,
}

impl Etcd {
    /// For these settings; connects to nobody yet.
    pub(super) fn new(settings: &Settings) -> Etcd {
        assert!(!settings.endpoints.is_empty(), "a place has at least one endpoint");
        let dialer = |endpoint: &Endpoint| Dialer::new(endpoint.clone(), settings.tls.clone());
        Etcd {
            dialers: settings.endpoints.iter().map(dialer).collect(),
            first: 0,
            credentials: settings.credentials.clone(),
            token: None,
            key: settings.key.clone(),
            timeout: settings.timeout,
        }
    }

    /// What stands there, and where a watch would go on.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn find(&mut self) -> Result<Found, Trouble> {
        let body = gateway::range(&self.key);
        let answer = self.ask(Request { path: gateway::RANGE, body: &body, once: false })?;
        gateway::found(&answer).map_err(|unusable| self.unusable(&unusable))
    }

    /// The stream of changes from this revision on; every wait on it ends at `deadline`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn watch(&mut self, from: Revision, deadline: Instant) -> Result<Watching, Trouble> {
        let body = gateway::watch(&self.key, from);
        let request = Request { path: gateway::WATCH, body: &body, once: false };
        let at = self.first;
        let mut stream = self.send(at, request, Instant::now() + self.timeout)?;
        stream.set_deadline(deadline);
        Ok(Watching { endpoint: self.name(at), stream })
    }

    /// The answer of the first endpoint that gives one.
    fn ask(&mut self, request: Request<'_>) -> Result<Value, Trouble> {
        let deadline = Instant::now() + self.timeout;
        let count = self.dialers.len();
        let mut troubles: Vec<Trouble> = Vec::new();
        for attempt in 0..count {
            let at = (self.first + attempt) % count;
            let left = deadline.saturating_duration_since(Instant::now());
            // Each endpoint has its part of what is left, so that one that hangs does not use it all up.
            let part = Instant::now() + left / u32::try_from(count - attempt).unwrap_or(u32::MAX);
            let trouble = match self.ask_as_user(at, request, part, deadline) {
                Ok(answer) => {
                    self.first = at;
                    return Ok(answer);
                }
                Err(trouble) => trouble,
            };
            // The swap that fills an etcd up is carried out: what stands there is read, whatever others say.
            let is_undecided = trouble.effect == Effect::Possible || matches!(trouble.kind, Kind::Full);
            if request.once && is_undecided {
                self.first = (at + 1) % count;
                return Err(trouble);
            }
            let hopeless = !trouble.elsewhere();
            troubles.push(trouble);
            if hopeless {
                break;
            }
        }
        Err(sum(troubles))
    }

    /// The answer of one endpoint; logs in first, where that is needed.
    fn ask_as_user(
        &mut self,
        at: usize,
        request: Request<'_>,
        part: Instant,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        if self.token.is_none() {
            self.log_in(at, part)?;
        }
        let limit = if request.once { deadline } else { part };
        match self.exchange(at, request, part, limit) {
            // Over, or etcd got users since the last time.
            Err(Trouble { kind: Kind::TokenOver | Kind::UserNeeded, effect: Effect::None, .. })
                if self.credentials.is_some() =>
            {
                self.log_in(at, part)?;
                self.exchange(at, request, part, limit)
            }
            other => other,
        }
    }

    /// Gets a token, where we have a user and etcd has users.
    fn log_in(&mut self, at: usize, limit: Instant) -> Result<(), Trouble> {
        self.token = None;
        let Some(Credentials { user, password }) = self.credentials.clone() else { return Ok(()) };
        let body = gateway::authenticate(&user, &password);
        let request = Request { path: gateway::AUTHENTICATE, body: &body, once: false };
        let certain = |trouble: Trouble| Trouble { effect: Effect::None, ..trouble };
        match self.exchange(at, request, limit, limit).map_err(certain) {
            Ok(answer) => {
                let token =
                    gateway::token(&answer).ok_or_else(|| self.not_etcd(at, "a login without a token"))?;
                self.token = Some(token.to_owned());
                Ok(())
            }
            Err(Trouble { kind: Kind::Said(message), .. }) if message.contains("not enabled") => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Connects and sends.
    fn send(&mut self, at: usize, request: Request<'_>, limit: Instant) -> Result<Stream, Trouble> {
        let name = self.name(at);
        let mut stream =
            self.dialers[at].connect(limit).map_err(|error| Trouble::unreachable(&name, &error))?;
        let bytes = http::request("POST", &name, request.path, self.token.as_deref(), request.body);
        stream
            .write_all(&bytes)
            .and_then(|()| stream.flush())
            .map_err(|error| Trouble::silent(&name, &error))?;
        Ok(stream)
    }

    /// One request, one answer.
    fn exchange(
        &mut self,
        at: usize,
        request: Request<'_>,
        connect_by: Instant,
        answer_by: Instant,
    ) -> Result<Value, Trouble> {
        let mut stream = self.send(at, request, connect_by)?;
        stream.set_deadline(answer_by);
        let name = self.name(at);
        let silent = |error| Trouble::silent(&name, &error);
        let response = Response::read(BufReader::new(stream)).map_err(silent)?;
        let status = response.status;
        let body = response.body().map_err(silent)?;
        if status == 404 {
            return Err(self.without_gateway(at, answer_by));
        }
        // A page of a proxy or another server. Where one stands in between, a request may have gone through.
        let answer: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        let Some(answer) = answer else {
            let mut trouble = self.not_etcd(at, &format!("status {status}, {:?}", beginning(&body)));
            trouble.effect = if (400..500).contains(&status) { Effect::None } else { Effect::Possible };
            return Err(trouble);
        };
        if status == 200 {
            return Ok(answer);
        }
        match gateway::error(&answer) {
            Some((code, message)) => Err(Trouble::said(&name, code, message)),
            None => {
                Err(Trouble { effect: Effect::Possible, ..self.not_etcd(at, "an error without a message") })
            }
        }
    }

    /// Why there is no gateway: an old etcd, or none at all.
    fn without_gateway(&mut self, at: usize, limit: Instant) -> Trouble {
        let version = self.version(at, limit);
        match version {
            Some(version) => {
                Trouble { kind: Kind::TooOld(version), effect: Effect::None, endpoint: self.name(at) }
            }
            None => self.not_etcd(at, "status 404"),
        }
    }

    /// The version of an etcd that is older than the gateway.
    fn version(&mut self, at: usize, limit: Instant) -> Option<String> {
        let mut stream = self.dialers[at].connect(limit).ok()?;
        stream.write_all(&http::request("GET", &self.name(at), gateway::VERSION, None, "")).ok()?;
        let body = Response::read(BufReader::new(stream)).ok()?.body().ok()?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        let version = answer.get("etcdserver")?.as_str()?;
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next()?, numbers.next()?);
        ((major, minor) < (3, 4)).then(|| version.to_owned())
    }

    fn name(&self, at: usize) -> String {
        self.dialers[at].endpoint().to_string()
    }

    fn not_etcd(&self, at: usize, what: &str) -> Trouble {
        Trouble { kind: Kind::NotEtcd(what.to_owned()), effect: Effect::None, endpoint: self.name(at) }
    }

    /// A trouble with what the endpoint that works has answered.
    pub(super) fn unusable(&self, unusable: &Unusable) -> Trouble {
        match unusable {
            Unusable::Shape(what) => self.not_etcd(self.first, what),
            Unusable::NotOurs(why) => {
                let endpoint = format!("{} of etcd at {}", self.key, self.name(self.first));
                Trouble { kind: Kind::NotOurs(*why), effect: Effect::None, endpoint }
            }
        }
    }
}

/// The first words of a page, for people.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body));
    text.lines().next().unwrap_or_default().chars().take(60).collect()
}

/// A watch that was asked for.
pub(super) struct Watching {
    /// Where.
    pub(super) endpoint: String,
    /// What comes.
    pub(super) stream: Stream,
}

/// One trouble for many: of one kind, with all endpoints; of several, the first that is not a missing connection.
fn sum(mut troubles: Vec<Trouble>) -> Trouble {
    let all_away = troubles.iter().all(|trouble| matches!(trouble.kind, Kind::Unreachable(_)));
    if all_away && troubles.len() > 1 {
        let why = |trouble: &Trouble| match &trouble.kind {
            Kind::Unreachable(why) => format!("{}: {why}", trouble.endpoint),
            _ => trouble.endpoint.clone(),
        };
        let whys: Vec<String> = troubles.iter().map(why).collect();
        let endpoint =
            troubles.iter().map(|trouble| trouble.endpoint.as_str()).collect::<Vec<_>>().join(", ");
        return Trouble { kind: Kind::Unreachable(whys.join("; ")), effect: Effect::None, endpoint };
    }
    let telling = troubles.iter().position(|trouble| !matches!(trouble.kind, Kind::Unreachable(_)));
    troubles.swap_remove(telling.unwrap_or(0))
}

impl Etcd {
    /// The write that fills an etcd up is carried out and answered like those after it, which are not; none comes later. What
    /// stands there tells which it was.
    fn filled_up(&mut self, expected: Option<Revision>, new: &Configuration, trouble: &Trouble) -> Answer {
        let Ok(found) = self.find() else { return Answer::Unknown(trouble.to_string()) };
        match found.stored {
            Some(stored) if stored.configuration == *new => Answer::Written(stored.revision),
            stored if stored.as_ref().map(|stored| stored.revision) == expected => {
                Answer::Failed(trouble.to_string())
            }
            stored => Answer::Conflict(stored),
        }
    }
}

impl Register for Etcd {
    fn read(&mut self) -> Answer {
        match self.find() {
            Ok(found) => Answer::Value(found.stored),
            Err(trouble) => Answer::Failed(trouble.to_string()),
        }
    }

    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer {
        let body = gateway::swap(&self.key, expected, new);
        let answer = match self.ask(Request { path: gateway::TXN, body: &body, once: true }) {
            Ok(answer) => answer,
            Err(trouble) if matches!(trouble.kind, Kind::Full) => {
                return self.filled_up(expected, new, &trouble);
            }
            Err(trouble) if trouble.effect == Effect::Possible => {
                return Answer::Unknown(trouble.to_string());
            }
            Err(trouble) => return Answer::Failed(trouble.to_string()),
        };
        match gateway::swapped(&answer) {
            Ok(Ok(revision)) => Answer::Written(revision),
            Ok(Err(there)) => Answer::Conflict(there),
            // An answer we cannot read proves nothing, unless it shows that something else stands there.
            Err(unusable @ Unusable::Shape(_)) => Answer::Unknown(self.unusable(&unusable).to_string()),
            Err(unusable) => Answer::Failed(self.unusable(&unusable).to_string()),
        }
    }
}

//! The JSON documents: a contract that scripts depend on, so each has a type of its own here and nothing else decides
//! a field's name. Session ids are sixteen hexadecimal digits and tokens decimal strings, because neither fits the
//! numbers of JavaScript.

use fairlock::admin::{LockLine, SessionLine, Show, ShowLine, StatusReport};
use fairlock::{Discipline, Mode};
use fairlock_cli::history::{Place, Report, Rule, Violation};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A name: exact when it is UTF-8, else escaped with its bytes beside it.
#[derive(Debug, Serialize)]
struct Named {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
}

impl Named {
    fn new(bytes: &[u8]) -> Named {
        match std::str::from_utf8(bytes) {
            Ok(name) => Named { name: name.to_owned(), name_hex: None },
            Err(_) => Named { name: super::text::printable(bytes), name_hex: Some(hex(bytes)) },
        }
    }
}

/// Two digits a byte.
fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect()
}

/// What every entry of a queue has.
#[derive(Debug, Serialize)]
struct Who {
    session: String,
    pid: u32,
    host: String,
    exe: String,
    label: String,
    mode: &'static str,
    transport: &'static str,
}

impl From<&ShowLine> for Who {
    fn from(line: &ShowLine) -> Who {
        Who {
            session: line.session.to_string(),
            pid: line.pid,
            host: line.host.clone(),
            exe: line.exe.clone(),
            label: line.label.clone(),
            mode: line.mode.name(),
            transport: line.transport.name(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Holder {
    #[serde(flatten)]
    who: Who,
    token: Option<String>,
    since_ms: u64,
    state: &'static str,
}

impl From<&ShowLine> for Holder {
    fn from(line: &ShowLine) -> Holder {
        Holder {
            who: line.into(),
            token: line.token.map(|token| token.get().to_string()),
            since_ms: line.age_ms,
            state: if line.cached { "cached" } else { "held" },
        }
    }
}

#[derive(Debug, Serialize)]
struct Waiter {
    #[serde(flatten)]
    who: Who,
    /// Of a conversion: the mode it holds meanwhile; `mode` is the one it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    position: u32,
    waited_ms: u64,
    /// Where queues go by class: the one asked for, and the one it has by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u8>,
    /// Where a queue is not strict: how often somebody who came later was let in before.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<u32>,
}

impl From<&ShowLine> for Waiter {
    fn from(line: &ShowLine) -> Waiter {
        // A conversion holds its lock, has no class and is never passed.
        let waits = line.from.is_none_or(|from| from == Mode::NL);
        let has_class = waits && line.discipline == Discipline::Priority;
        let may_be_passed = waits && line.discipline != Discipline::Strict;
        Waiter {
            who: line.into(),
            from: line.from.map(Mode::name),
            position: line.position,
            waited_ms: line.age_ms,
            priority: has_class.then_some(line.priority.get()),
            class: has_class.then_some(line.class.get()),
            passed: may_be_passed.then_some(line.passed),
        }
    }
}

/// `show` and `why`.
#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    #[serde(flatten)]
    name: Named,
    namespace: String,
    holders: Vec<Holder>,
    conversions: Vec<Waiter>,
    waiters: Vec<Waiter>,
    overtakes_total: u64,
    /// Both only where the queue is not strict.
    #[serde(skip_serializing_if = "Option::is_none")]
    discipline: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bypasses_total: Option<u64>,
}

impl Queue {
    /// The document of one name.
    pub(crate) fn new(namespace: &str, name: &[u8], show: &Show) -> Queue {
        let is_strict = show.discipline() == Discipline::Strict;
        Queue {
            name: Named::new(name),
            namespace: namespace.to_owned(),
            holders: show.holders.iter().map(Into::into).collect(),
            conversions: show.conversions.iter().map(Into::into).collect(),
            waiters: show.waiters.iter().map(Into::into).collect(),
            overtakes_total: show.overtakes_total,
            discipline: (!is_strict).then(|| show.discipline().name()),
            bypasses_total: (!is_strict).then_some(show.bypasses_total),
        }
    }
}

/// One entry of `ls`.
#[derive(Debug, Serialize)]
pub(crate) struct Lock {
    #[serde(flatten)]
    name: Named,
    namespace: String,
    holders: u32,
    cached: u32,
    waiters: u32,
    mode: Option<&'static str>,
}

impl From<&LockLine> for Lock {
    fn from(line: &LockLine) -> Lock {
        Lock {
            name: Named::new(&line.name),
            namespace: line.namespace.clone(),
            holders: line.holders,
            cached: line.cached,
            waiters: line.waiters,
            mode: line.mode.map(Mode::name),
        }
    }
}

/// One entry of `sessions`.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are named by the contract")]
pub(crate) struct Session {
    session: String,
    pid: u32,
    host: String,
    exe: String,
    label: String,
    transport: &'static str,
    ttl_ms: u32,
    expires_in_ms: Option<u32>,
    grants: u32,
    waits: u32,
}

impl From<&SessionLine> for Session {
    fn from(line: &SessionLine) -> Session {
        Session {
            session: line.session.to_string(),
            pid: line.pid,
            host: line.host.clone(),
            exe: line.exe.clone(),
            label: line.label.clone(),
            transport: line.transport.name(),
            ttl_ms: line.ttl_ms,
            expires_in_ms: line.expires_in_ms,
            grants: line.grants,
            waits: line.waits,
        }
    }
}

#[derive(Debug, Serialize)]
struct Counts {
    locks: u64,
    grants: u64,
    waiters: u64,
    sessions: u64,
    connections: u64,
    grants_total: u64,
    overtakes_total: u64,
    bypasses_total: u64,
    table_bytes: u64,
}

/// `status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    version: String,
    cell: String,
    epoch: u32,
    role: &'static str,
    shards: u16,
    io: String,
    pid: u32,
    uptime_ms: u64,
    recovering_ms: u32,
    counts: Counts,
    /// How many sessions come which way.
    transports: BTreeMap<&'static str, u64>,
    alarms: Vec<String>,
}

impl Status {
    pub(crate) fn of(report: &StatusReport, transports: BTreeMap<&'static str, u64>) -> Status {
        Status {
            version: report.version.clone(),
            cell: format!("{:032x}", report.cell.0),
            epoch: report.epoch,
            role: report.role.name(),
            shards: report.shards,
            io: report.io.clone(),
            pid: report.pid,
            uptime_ms: report.uptime_ms,
            recovering_ms: report.recovering_ms,
            counts: Counts {
                locks: report.locks,
                grants: report.grants,
                waiters: report.waiters,
                sessions: report.sessions,
                connections: report.connections,
                grants_total: report.grants_total,
                overtakes_total: report.overtakes_total,
                bypasses_total: report.bypasses_total,
                table_bytes: report.table_bytes,
            },
            transports,
            alarms: report.alarms.clone(),
        }
    }
}

/// `verify`.
#[derive(Debug, Serialize)]
pub(crate) struct Judgement {
    clean: bool,
    files: usize,
    lines: u64,
    cut: u64,
    other: u64,
    clients: u64,
    killed: u64,
    locks: u64,
    requests: u64,
    granted: u64,
    refused: u64,
    in_doubt: u64,
    tenures: u64,
    certain_holds: u64,
    overtaken_pairs: u64,
    violations_total: u64,
    /// How often each rule was broken.
    broken: BTreeMap<&'static str, u64>,
    /// The first of them.
    violations: Vec<Broken>,
}

#[derive(Debug, Serialize)]
struct Broken {
    rule: &'static str,
    #[serde(flatten)]
    name: Named,
    namespace: String,
    text: String,
    events: Vec<EventPlace>,
}

#[derive(Debug, Serialize)]
struct EventPlace {
    file: String,
    line: u32,
}

impl Judgement {
    /// The document of a report on these files, with at most so many violations.
    pub(crate) fn new(report: &Report, files: &[PathBuf], shown_max: usize) -> Judgement {
        let counts = report.counts;
        let event = |place: &Place| EventPlace {
            file: files.get(place.file as usize).map(|path| path.display().to_string()).unwrap_or_default(),
            line: place.line,
        };
        let broken = |violation: &Violation| Broken {
            rule: violation.rule.name(),
            name: Named::new(&violation.name),
            namespace: violation.namespace.clone(),
            text: violation.text.clone(),
            events: violation.places.iter().map(event).collect(),
        };
        Judgement {
            clean: report.is_clean(),
            files: files.len(),
            lines: counts.lines,
            cut: counts.cut,
            other: counts.other,
            clients: counts.clients,
            killed: counts.killed,
            locks: counts.resources,
            requests: counts.requests,
            granted: counts.granted,
            refused: counts.refused,
            in_doubt: counts.in_doubt,
            tenures: counts.tenures,
            certain_holds: counts.certain_holds,
            overtaken_pairs: counts.overtaken_pairs,
            violations_total: report.total(),
            broken: Rule::ALL.into_iter().map(|rule| (rule.name(), report.broken(rule))).collect(),
            violations: report.violations.iter().take(shown_max).map(broken).collect(),
        }
    }
}

/// The line `hold` prints when the lock is granted.
#[derive(Debug, Serialize)]
pub(crate) struct Held {
    #[serde(flatten)]
    name: Named,
    namespace: String,
    token: Option<String>,
    fence: String,
    mode: &'static str,
    session: String,
    waited_ms: u128,
}

impl Held {
    /// What was granted.
    pub(crate) fn new(client: &fairlock::Client, guard: &fairlock::Guard) -> Held {
        Held {
            name: Named::new(guard.name()),
            namespace: guard.namespace().to_owned(),
            token: guard.try_token().map(|token| token.get().to_string()),
            fence: guard.fence().to_string(),
            mode: guard.mode().name(),
            session: client.session().to_string(),
            waited_ms: guard.waited().as_millis(),
        }
    }
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;

//! The sentences of etcd's v3 JSON gateway that a register needs: what is asked, and what the answers mean.
//!
//! 64-bit numbers are texts in this JSON, fields with their default value are left out, bytes are base64, and an error
//! looks different in each version (`error` and `message`, `code` and `grpc_code`). Nothing here does I/O.

use fairlock_replication::{Configuration, NotARecord, Revision, Stored};
use serde_json::{Value, json};

use super::base64;

/// Path of a read.
pub(super) const RANGE: &str = "/v3/kv/range";
/// Path of a swap.
pub(super) const TXN: &str = "/v3/kv/txn";
/// Path of a watch.
pub(super) const WATCH: &str = "/v3/watch";
/// Path of a login.
pub(super) const AUTHENTICATE: &str = "/v3/auth/authenticate";
/// Path that tells the version of every etcd there is.
pub(super) const VERSION: &str = "/version";

/// The key of a cell.
pub(super) fn key_of(cell: &str) -> String {
    format!("/fairlock/{cell}/configuration")
}

/// A read; linearizable, which is etcd's default.
pub(super) fn range(key: &str) -> String {
    json!({ "key": base64::encode(key.as_bytes()) }).to_string()
}

/// A swap: writes `new` if the newest write of the key is `expected`, and else reads.
pub(super) fn swap(key: &str, expected: Option<Revision>, new: &Configuration) -> String {
    let key = base64::encode(key.as_bytes());
    let compare = match expected {
        None => json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
        Some(Revision(revision)) => {
            json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
        }
    };
    let value = base64::encode(new.to_text().as_bytes());
    json!({
        "compare": [compare],
        "success": [{ "request_put": { "key": key, "value": value } }],
        "failure": [{ "request_range": { "key": key } }],
    })
    .to_string()
}

/// A watch of everything from this revision on.
pub(super) fn watch(key: &str, from: Revision) -> String {
    let key = base64::encode(key.as_bytes());
    json!({ "create_request": { "key": key, "start_revision": from.0.to_string() } }).to_string()
}

/// A login.
pub(super) fn authenticate(user: &str, password: &str) -> String {
    json!({ "name": user, "password": password }).to_string()
}

/// Why an answer cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It lacks something every etcd says.
    Shape(&'static str),
    /// The value is not one of ours.
    NotOurs(NotARecord),
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What stands at the key.
    pub(super) stored: Option<Stored>,
    /// The newest write of the whole etcd: a watch goes on behind it.
    pub(super) revision: Revision,
}

/// What a read was answered.
///
/// # Errors
/// [`Unusable`].
pub(super) fn found(answer: &Value) -> Result<Found, Unusable> {
    let revision = revision(answer.pointer("/header/revision")).ok_or(Unusable::Shape("no revision"))?;
    Ok(Found { stored: first_kv(answer)?, revision })
}

/// What a swap was answered: by which write it happened, or what stands there instead.
///
/// # Errors
/// [`Unusable`]; nothing was written then, except where [`happened`] says otherwise.
pub(super) fn swapped(answer: &Value) -> Result<Result<Revision, Option<Stored>>, Unusable> {
    if happened(answer) {
        let revision = revision(answer.pointer("/header/revision"));
        return revision.map(Ok).ok_or(Unusable::Shape("no revision"));
    }
    let found = answer.pointer("/responses/0/response_range").ok_or(Unusable::Shape("no reason"))?;
    Ok(Err(first_kv(found)?))
}

/// Whether a swap happened, as far as its answer tells.
pub(super) fn happened(answer: &Value) -> bool {
    answer.get("succeeded") == Some(&Value::Bool(true))
}

/// The token a login was answered.
pub(super) fn token(answer: &Value) -> Option<&str> {
    // It goes into a header line.
    answer.get("token")?.as_str().filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Code and message of an answer that is an error, in any version's form.
pub(super) fn error(answer: &Value) -> Option<(u64, &str)> {
    let inner = answer.get("error").filter(|error| error.is_object()).unwrap_or(answer);
    let message = inner.get("message").or_else(|| inner.get("error"))?.as_str()?;
    let code = inner.get("code").or_else(|| inner.get("grpc_code")).and_then(Value::as_u64);
    Some((code.unwrap_or(2), message))
}

/// What one line of a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing about the key.
    Nothing,
    /// The key has changed to this.
    Changed(Option<Stored>),
    /// What was asked for is compacted away: read again.
    Compacted,
    /// The watch has ended; code and why.
    Ended(u64, String),
}

/// What one line of a watch says.
///
/// # Errors
/// [`Unusable`].
pub(super) fn news(line: &Value) -> Result<News, Unusable> {
    let Some(result) = line.get("result") else {
        let (code, message) = error(line).ok_or(Unusable::Shape("neither a result nor an error"))?;
        return Ok(News::Ended(code, message.to_owned()));
    };
    if result.get("canceled") == Some(&Value::Bool(true)) {
        if revision(result.get("compact_revision")).is_some_and(|compacted| compacted.0 > 0) {
            return Ok(News::Compacted);
        }
        let why = result.get("cancel_reason").and_then(Value::as_str).unwrap_or("it said no reason");
        return Ok(News::Ended(2, why.to_owned()));
    }
    let Some(last) = result.get("events").and_then(Value::as_array).and_then(|events| events.last()) else {
        return Ok(News::Nothing);
    };
    // A put has no type in this JSON, because it is the default.
    if last.get("type").and_then(Value::as_str) == Some("DELETE") {
        return Ok(News::Changed(None));
    }
    let kv = last.get("kv").ok_or(Unusable::Shape("an event without a key"))?;
    Ok(News::Changed(Some(stored(kv)?)))
}

fn first_kv(answer: &Value) -> Result<Option<Stored>, Unusable> {
    answer.pointer("/kvs/0").map(stored).transpose()
}

fn stored(kv: &Value) -> Result<Stored, Unusable> {
    let value = kv.get("value").and_then(Value::as_str).unwrap_or_default();
    let bytes = base64::decode(value).ok_or(Unusable::Shape("a value that is not base64"))?;
    let revision = revision(kv.get("mod_revision")).ok_or(Unusable::Shape("a value without a revision"))?;
    let configuration = Configuration::from_text(&bytes).map_err(Unusable::NotOurs)?;
    Ok(Stored { configuration, revision })
}

/// A 64-bit number, which may be a text.
fn revision(value: Option<&Value>) -> Option<Revision> {
    let value = value?;
    let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    number.map(Revision)
}

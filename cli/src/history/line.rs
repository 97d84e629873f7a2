//! The JSON of a line, both ways. Flat, with every key optional: a tagged enum would be read through a buffer, at several
//! times the price, and a history has many lines.

use super::event::{Event, What};
use fairlock_protocol::Mode;
use fairlock_protocol::name::DEFAULT_NAMESPACE;
use serde::{Deserialize, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;

/// Why a line is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError(String);

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EventError {}

impl EventError {
    fn new(text: impl Into<String>) -> EventError {
        EventError(text.into())
    }
}

/// A text that is borrowed from the line where it has no escapes.
#[derive(Debug, Serialize, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number too large for JavaScript: written as a decimal string, read from a number as well.
#[derive(Clone, Copy, Debug)]
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a string of its digits")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Decimal, E> {
                Ok(Decimal(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map(Decimal).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One line as JSON has it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    at: u64,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    client: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    namespace: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name_hex: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    mode: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    session: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    code: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    cause: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    liveness: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    discipline: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    node: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    what: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_lost: Option<bool>,
}

impl Default for Text<'_> {
    fn default() -> Self {
        Text(Cow::Borrowed(""))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

fn or_empty(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.unwrap_or_default().0
}

// --- from JSON ------------------------------------------------------------------------------------------------------

impl<'a> Line<'a> {
    /// A line from its bytes.
    pub(super) fn read(line: &'a [u8]) -> Result<Line<'a>, EventError> {
        serde_json::from_slice(line).map_err(|error| EventError::new(error.to_string()))
    }

    fn needs<T>(&self, value: Option<T>, key: &str) -> Result<T, EventError> {
        value.ok_or_else(|| EventError::new(format!("event `{}` without `{key}`", self.event.0)))
    }

    fn mode(&self) -> Result<Mode, EventError> {
        let mode = self.needs(self.mode.as_ref(), "mode")?;
        mode.0.parse().map_err(|error| EventError::new(format!("mode `{}`: {error}", mode.0)))
    }

    fn name(&mut self) -> Result<Cow<'a, [u8]>, EventError> {
        if let Some(hex) = self.name_hex.take() {
            return bytes(&hex.0).map(Cow::Owned);
        }
        let name = self.name.take();
        Ok(match self.needs(name, "name")?.0 {
            Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
            Cow::Owned(name) => Cow::Owned(name.into_bytes()),
        })
    }

    fn is(text: Option<&Text<'_>>, word: &str) -> bool {
        text.is_some_and(|text| text.0 == word)
    }

    /// What it tells.
    pub(super) fn event(mut self) -> Result<Event<'a>, EventError> {
        let what = match &*self.event.0 {
            "open" => What::Open { heartbeat: Line::is(self.liveness.as_ref(), "heartbeat") },
            "closed" => What::Closed,
            "killed" => What::Killed,
            "server" => What::Server {
                node: or_empty(self.node.take()),
                what: or_empty(self.what.take()),
                memory_lost: self.memory_lost.unwrap_or(false),
            },
            "namespace" => {
                let discipline = self.needs(self.discipline.as_ref(), "discipline")?;
                let strict = discipline.0 == "strict";
                let namespace = self.namespace.take();
                What::Namespace { namespace: self.needs(namespace, "namespace")?.0, strict }
            }
            _ => self.about_a_request()?,
        };
        let client = self.client.take();
        let is_nobodys = matches!(what, What::Server { .. } | What::Namespace { .. } | What::Other);
        let client = if is_nobodys { or_empty(client) } else { self.needs(client, "client")?.0 };
        Ok(Event { at_ns: self.at, client, what })
    }

    fn about_a_request(&mut self) -> Result<What<'a>, EventError> {
        let request = self.needs(self.request, "request");
        Ok(match &*self.event.0 {
            "acquire" => What::Acquire {
                request: request?,
                mode: self.mode()?,
                namespace: self.namespace.take().map_or(Cow::Borrowed(DEFAULT_NAMESPACE), |text| text.0),
                name: self.name()?,
                owner: self.owner.unwrap_or(0),
                wait_ms: self.wait_ms,
            },
            "queued" => What::Queued { request: request? },
            "granted" => What::Granted {
                request: request?,
                token: self.token.map(|token| token.0),
                fence: self.fence.map(|fence| fence.0),
                waited_ns: self.waited.unwrap_or(0),
                until_ns: self.needs(self.until, "until")?,
                session: or_empty(self.session.take()),
            },
            "refused" => What::Refused { request: request?, code: or_empty(self.code.take()) },
            "unknown" => What::Unknown { request: request?, code: or_empty(self.code.take()) },
            "valid" => What::Valid { request: request?, until_ns: self.needs(self.until, "until")? },
            "convert" => What::Convert { request: request?, mode: self.mode()? },
            "converted" => What::Converted {
                request: request?,
                mode: self.mode()?,
                token: self.token.map(|token| token.0),
                fence: self.fence.map(|fence| fence.0),
            },
            "release" => What::Release { request: request? },
            "lost" => What::Lost { request: request?, lease: Line::is(self.cause.as_ref(), "lease") },
            _ => What::Other,
        })
    }
}

/// The bytes of a text of two digits each.
fn bytes(hex: &str) -> Result<Vec<u8>, EventError> {
    let wrong = || EventError::new(format!("name_hex `{hex}` is not two digits a byte"));
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return Err(wrong());
    }
    let pair = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..hex.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().ok_or_else(wrong)
}

// --- to JSON --------------------------------------------------------------------------------------------------------

impl<'a> Line<'a> {
    /// The line of an event.
    pub(super) fn of(event: &'a Event<'_>) -> Line<'a> {
        let mut line = Line { at: event.at_ns, ..Line::default() };
        if !event.client.is_empty() {
            line.client = Some((&*event.client).into());
        }
        line.event = line.tell(&event.what).into();
        line
    }

    /// Its text, with the line's end.
    pub(super) fn write(&self) -> String {
        let mut text = serde_json::to_string(self).expect("texts and numbers are JSON");
        text.push('\n');
        text
    }

    /// Writes down what belongs to the event; gives its word.
    fn tell(&mut self, what: &'a What<'_>) -> &'static str {
        match what {
            What::Open { heartbeat } => {
                self.liveness = Some(if *heartbeat { "heartbeat" } else { "process" }.into());
                "open"
            }
            What::Closed => "closed",
            What::Killed => "killed",
            What::Server { node, what, memory_lost } => {
                (self.node, self.what) = (Some((&**node).into()), Some((&**what).into()));
                self.memory_lost = memory_lost.then_some(true);
                "server"
            }
            What::Namespace { namespace, strict } => {
                self.namespace = Some((&**namespace).into());
                self.discipline = Some(if *strict { "strict" } else { "other" }.into());
                "namespace"
            }
            What::Other => "other",
            _ => self.tell_of_a_request(what),
        }
    }

    fn tell_of_a_request(&mut self, what: &'a What<'_>) -> &'static str {
        match what {
            What::Acquire { request, namespace, name, mode, owner, wait_ms } => {
                self.request = Some(*request);
                self.namespace = (namespace != DEFAULT_NAMESPACE).then(|| (&**namespace).into());
                self.tell_name(name);
                self.mode = Some(mode.name().into());
                self.owner = (*owner != 0).then_some(*owner);
                self.wait_ms = *wait_ms;
                "acquire"
            }
            What::Granted { request, token, fence, waited_ns, until_ns, session } => {
                self.request = Some(*request);
                (self.token, self.fence) = (token.map(Decimal), fence.map(Decimal));
                (self.waited, self.until) = (Some(*waited_ns), Some(*until_ns));
                self.session = (!session.is_empty()).then(|| (&**session).into());
                "granted"
            }
            What::Refused { request, code } | What::Unknown { request, code } => {
                (self.request, self.code) = (Some(*request), Some((&**code).into()));
                if matches!(what, What::Refused { .. }) { "refused" } else { "unknown" }
            }
            What::Convert { request, mode } => {
                (self.request, self.mode) = (Some(*request), Some(mode.name().into()));
                "convert"
            }
            What::Converted { request, mode, token, fence } => {
                (self.request, self.mode) = (Some(*request), Some(mode.name().into()));
                (self.token, self.fence) = (token.map(Decimal), fence.map(Decimal));
                "converted"
            }
            _ => self.tell_of_a_guard(what),
        }
    }

    fn tell_of_a_guard(&mut self, what: &'a What<'_>) -> &'static str {
        match what {
            What::Queued { request } => {
                self.request = Some(*request);
                "queued"
            }
            What::Valid { request, until_ns } => {
                (self.request, self.until) = (Some(*request), Some(*until_ns));
                "valid"
            }
            What::Release { request } => {
                self.request = Some(*request);
                "release"
            }
            What::Lost { request, lease } => {
                self.request = Some(*request);
                self.cause = Some(if *lease { "lease" } else { "other" }.into());
                "lost"
            }
            _ => unreachable!("the others were told before"),
        }
    }

    fn tell_name(&mut self, name: &'a [u8]) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.name = Some(name.into());
        } else {
            let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('?');
            let digits = name.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect();
            self.name_hex = Some(Text(Cow::Owned(digits)));
        }
    }
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;

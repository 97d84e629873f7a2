//! Events become requests, and requests spans. Events of one request come in the order in which they happened; those of
//! different clients in any order.

use super::check;
use super::event::{Event, What};
use super::report::{Counts, Place, Report, Rule, Violation};
use super::span::{End, Span};
use fairlock_protocol::Mode;
use std::collections::HashMap;

/// What the events told so far.
#[derive(Debug, Default)]
pub struct Story {
    clients: Vec<Client>,
    client_of: HashMap<String, u32>,
    resources: Vec<(String, Vec<u8>)>,
    resource_of: HashMap<Vec<u8>, u32>,
    requests: Vec<Request>,
    request_of: HashMap<(u32, u64), u32>,
    pub(super) spans: Vec<Span>,
    /// Moments at which every queue was lost.
    losses: Vec<u64>,
    /// Namespaces whose queues go another way than first come, first served.
    lenient: HashMap<String, bool>,
    pub(super) report: Report,
}

#[derive(Debug, Default)]
struct Client {
    /// Only silence ends its session.
    heartbeat: bool,
    closed: bool,
    killed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Granted,
    Refused,
    InDoubt,
}

#[derive(Debug)]
struct Request {
    client: u32,
    resource: u32,
    owner: u64,
    mode: Mode,
    asked_ns: u64,
    queued_ns: Option<u64>,
    outcome: Outcome,
    /// Index of its latest span, once it is granted.
    span: Option<u32>,
    /// When it asked for another mode, while that has no outcome.
    converting_ns: Option<u64>,
    place: Place,
}

/// An index into a list that no history is long enough to overflow.
fn index(length: usize) -> u32 {
    u32::try_from(length).expect("a history has fewer than 2^32 of anything")
}

/// The strongest mode that both modes cover.
fn common(one: Mode, other: Mode) -> Mode {
    if one.covers(other) {
        other
    } else if other.covers(one) {
        one
    } else {
        Mode::CR
    }
}

impl Story {
    /// Hears one event.
    pub fn add(&mut self, place: Place, event: &Event<'_>) {
        self.report.counts.lines += 1;
        match &event.what {
            What::Server { memory_lost, .. } => self.losses.extend(memory_lost.then_some(event.at_ns)),
            What::Namespace { namespace, strict } => {
                self.lenient.insert(namespace.clone().into_owned(), !strict);
            }
            What::Other => self.report.counts.other += 1,
            What::Open { heartbeat } => self.client(&event.client).heartbeat = *heartbeat,
            What::Closed => self.client(&event.client).closed = true,
            What::Killed => self.client(&event.client).killed = true,
            _ => self.hear_of_a_request(place, event),
        }
    }

    pub(super) fn counts(&mut self) -> &mut Counts {
        &mut self.report.counts
    }

    fn client_index(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.client_of.get(name) {
            return known;
        }
        let new = index(self.clients.len());
        self.clients.push(Client::default());
        self.client_of.insert(name.to_owned(), new);
        new
    }

    fn client(&mut self, name: &str) -> &mut Client {
        let at = self.client_index(name);
        &mut self.clients[at as usize]
    }

    fn resource_index(&mut self, namespace: &str, name: &[u8]) -> u32 {
        // A namespace has no zero byte.
        let key = [namespace.as_bytes(), b"\0", name].concat();
        if let Some(&known) = self.resource_of.get(&key) {
            return known;
        }
        let new = index(self.resources.len());
        self.resources.push((namespace.to_owned(), name.to_owned()));
        self.resource_of.insert(key, new);
        new
    }

    fn hear_of_a_request(&mut self, place: Place, event: &Event<'_>) {
        let client = self.client_index(&event.client);
        let at_ns = event.at_ns;
        match &event.what {
            What::Acquire { request, namespace, name, mode, owner, .. } => {
                let resource = self.resource_index(namespace, name);
                let new = Request {
                    client,
                    resource,
                    owner: *owner,
                    mode: *mode,
                    asked_ns: at_ns,
                    queued_ns: None,
                    outcome: Outcome::Open,
                    span: None,
                    converting_ns: None,
                    place,
                };
                self.ask(*request, new);
            }
            What::Queued { request } => {
                if let Some(at) = self.request(client, *request, place) {
                    let queued = &mut self.requests[at as usize].queued_ns;
                    *queued = Some(queued.map_or(at_ns, |before| before.min(at_ns)));
                }
            }
            What::Granted { request, token, fence, waited_ns, until_ns, .. } => {
                if let Some(at) = self.settle(client, *request, Outcome::Granted, (place, at_ns)) {
                    let span = self.granted(at, (*token, *fence), (at_ns, *waited_ns, *until_ns), place);
                    self.begin(span);
                }
            }
            What::Refused { request, .. } => {
                self.settle(client, *request, Outcome::Refused, (place, at_ns));
            }
            What::Unknown { request, .. } => {
                self.settle(client, *request, Outcome::InDoubt, (place, at_ns));
            }
            What::Valid { request, .. }
            | What::Convert { request, .. }
            | What::Converted { request, .. }
            | What::Release { request }
            | What::Lost { request, .. } => {
                let Some(at) = self.request(client, *request, place) else { return };
                match self.requests[at as usize].span {
                    Some(span) => self.hear_of_a_guard(span, place, event),
                    None => self.wrong_about(at, place, "is used but was not granted"),
                }
            }
            _ => unreachable!("the others are about no request"),
        }
    }

    fn ask(&mut self, number: u64, request: Request) {
        let new = index(self.requests.len());
        if let Some(&before) = self.request_of.get(&(request.client, number)) {
            return self.wrong_about(before, request.place, "is asked a second time under its number");
        }
        self.request_of.insert((request.client, number), new);
        self.requests.push(request);
    }

    /// The request of that number; one that was never asked is a violation.
    fn request(&mut self, client: u32, number: u64, place: Place) -> Option<u32> {
        let found = self.request_of.get(&(client, number)).copied();
        if found.is_none() {
            let text = format!("request {number} has an event but was never asked");
            let (namespace, name) = (String::new(), Vec::new());
            self.report.add(Violation { rule: Rule::Outcome, namespace, name, text, places: vec![place] });
        }
        found
    }

    fn wrong_about(&mut self, request: u32, place: Place, what: &str) {
        let Request { resource, place: asked, .. } = self.requests[request as usize];
        self.violation(Rule::Outcome, resource, format!("the request {what}"), vec![asked, place]);
    }

    /// A request gets its outcome; not a second one, and none before it was asked.
    fn settle(&mut self, client: u32, number: u64, outcome: Outcome, event: (Place, u64)) -> Option<u32> {
        let (place, at_ns) = event;
        let at = self.request(client, number, place)?;
        let request = &mut self.requests[at as usize];
        if request.outcome != Outcome::Open {
            self.wrong_about(at, place, "has a second outcome");
            return None;
        }
        request.outcome = outcome;
        if at_ns < request.asked_ns {
            self.wrong_about(at, place, "has an outcome from before it was asked");
        }
        Some(at)
    }

    fn granted(
        &self,
        at: u32,
        (token, fence): (Option<u64>, Option<u64>),
        (at_ns, waited_ns, until_ns): (u64, u64, u64),
        place: Place,
    ) -> Span {
        let request = &self.requests[at as usize];
        let waited_from_ns = at_ns.saturating_sub(waited_ns);
        Span {
            request: at,
            resource: request.resource,
            client: request.client,
            owner: request.owner,
            mode: request.mode,
            token: token.unwrap_or(0),
            fence,
            asked_ns: request.asked_ns,
            queued_ns: Some(request.queued_ns.map_or(waited_from_ns, |queued| queued.min(waited_from_ns))),
            from_ns: at_ns,
            valid_ns: at_ns,
            until_ns,
            end: End::Open,
            place,
        }
    }

    fn begin(&mut self, span: Span) {
        if span.mode != Mode::NL && span.token == 0 {
            let text = format!("a grant in mode {} without a token", span.mode);
            self.violation(Rule::Token, span.resource, text, vec![span.place]);
        }
        self.requests[span.request as usize].span = Some(index(self.spans.len()));
        self.spans.push(span);
    }

    fn hear_of_a_guard(&mut self, at: u32, place: Place, event: &Event<'_>) {
        let at_ns = event.at_ns;
        let span = &mut self.spans[at as usize];
        let request = span.request;
        match &event.what {
            What::Valid { until_ns, .. } => {
                span.until_ns = span.until_ns.max(*until_ns);
                span.valid_ns = span.valid_ns.max(at_ns);
            }
            What::Convert { mode, .. } => {
                self.requests[request as usize].converting_ns = Some(at_ns);
                // What is given up may be somebody else's from now on; what is asked for is held when it is granted.
                let kept = common(span.mode, *mode);
                if kept != span.mode {
                    let (token, fence) = (Some(span.token), span.fence);
                    self.change(at, kept, (token, fence), (at_ns, place));
                }
            }
            What::Converted { mode, token, fence, .. } => {
                let is_new = span.mode != *mode || span.token != token.unwrap_or(0);
                if is_new {
                    let fence = fence.or(if *token == Some(span.token) { span.fence } else { None });
                    self.change(at, *mode, (*token, fence), (at_ns, place));
                }
                self.requests[request as usize].converting_ns = None;
            }
            What::Release { .. } => {
                if span.end == End::Open {
                    span.end = End::Given(at_ns);
                }
            }
            What::Lost { lease, .. } => match span.end {
                End::Open if *lease => span.end = End::Elapsed(at_ns),
                // Found out by the release itself: nobody knows since when.
                End::Open | End::Given(_) if !lease => span.end = End::Taken,
                _ => {}
            },
            _ => unreachable!("the others are about no guard"),
        }
    }

    /// The span ends and goes on in another mode.
    fn change(
        &mut self,
        at: u32,
        mode: Mode,
        (token, fence): (Option<u64>, Option<u64>),
        (at_ns, place): (u64, Place),
    ) {
        let old = &mut self.spans[at as usize];
        if old.end != End::Open {
            return;
        }
        old.end = End::Given(at_ns);
        let token = token.unwrap_or(0);
        let asked_ns = if token == old.token {
            old.asked_ns
        } else {
            self.requests[old.request as usize].converting_ns.unwrap_or(old.asked_ns)
        };
        let new = Span {
            mode,
            token,
            fence,
            asked_ns,
            queued_ns: None,
            from_ns: at_ns,
            valid_ns: at_ns,
            end: End::Open,
            place,
            ..old.clone()
        };
        self.begin(new);
    }

    pub(super) fn violation(&mut self, rule: Rule, resource: u32, text: String, places: Vec<Place>) {
        let (namespace, name) = self.resources[resource as usize].clone();
        self.report.add(Violation { rule, namespace, name, text, places });
    }

    /// Whether queues of this lock are first come, first served.
    pub(super) fn is_strict(&self, resource: u32) -> bool {
        let (namespace, _) = &self.resources[resource as usize];
        !self.lenient.get(namespace).copied().unwrap_or(false)
    }

    /// Before which moment nobody may be let in although nothing was heard of the holder.
    pub(super) fn reserved_end(&self, span: &Span) -> Option<u64> {
        let client = &self.clients[span.client as usize];
        let request = &self.requests[span.request as usize];
        // A conversion under way may have made it weaker than it seems.
        let may_wait = client.heartbeat && !client.closed && request.converting_ns.is_none();
        if may_wait { span.reserved_end() } else { None }
    }

    /// The judgement of everything heard.
    pub fn judge(mut self) -> Report {
        self.losses.sort_unstable();
        self.forget_lost_places();
        self.find_the_unresolved();
        self.count();
        check::all(&mut self);
        self.report.arrange();
        self.report
    }

    /// A place that was seen before every queue was lost says nothing of a grant after that.
    fn forget_lost_places(&mut self) {
        for span in &mut self.spans {
            let Some(queued_ns) = span.queued_ns else { continue };
            let lost = self.losses.partition_point(|&loss_ns| loss_ns < queued_ns);
            if self.losses.get(lost).is_some_and(|&loss_ns| loss_ns <= span.from_ns) {
                span.queued_ns = Some(span.from_ns);
            }
        }
    }

    fn find_the_unresolved(&mut self) {
        for at in 0..self.requests.len() {
            let request = &self.requests[at];
            let Client { closed, killed, .. } = self.clients[request.client as usize];
            let holds = request.span.is_some_and(|span| self.spans[span as usize].end == End::Open);
            let is_open = request.outcome == Outcome::Open || request.converting_ns.is_some() && holds;
            if is_open && !closed && !killed {
                let (resource, place) = (request.resource, request.place);
                let text = "a request without an outcome, of a client that was not seen to end".to_owned();
                self.violation(Rule::Outcome, resource, text, vec![place]);
            }
        }
    }

    fn count(&mut self) {
        let of = |outcome| self.requests.iter().filter(|request| request.outcome == outcome).count() as u64;
        let (granted, refused) = (of(Outcome::Granted), of(Outcome::Refused));
        let in_doubt = of(Outcome::InDoubt) + of(Outcome::Open);
        let killed = self.clients.iter().filter(|client| client.killed).count() as u64;
        let certain_holds = self.spans.iter().filter(|span| span.certain_end().is_some()).count() as u64;
        self.report.counts = Counts {
            clients: self.clients.len() as u64,
            killed,
            resources: self.resources.len() as u64,
            requests: self.requests.len() as u64,
            granted,
            refused,
            in_doubt,
            certain_holds,
            ..self.report.counts
        };
    }
}

#[cfg(test)]
#[path = "story/tests.rs"]
mod tests;

//! Scenarios: each rule of the semantics in the smallest story that shows it. Every story ends with an audit.

use crate::command::{Acquire, Attributes, Command, Ended, Granted, Lease, Open, SessionKey, Wait};
use crate::effect::{Answer, Effect, Effects, Notice};
use crate::rules::NamespaceRules;
use crate::table::{Limits, Settings, Table};
use fairlock_protocol::{
    Digest, Epoch, GrantId, Mode, OwnerId, Priority, Refusal, RequestId, Resource, Secret, SessionId,
    ShardId, Tick,
};
use std::vec::Vec;

mod bundles;
mod cached;
mod disciplines;
mod fairness;
mod lifetimes;
mod memory;
mod replays;
mod takeovers;
mod tokens;

/// A table with a clock, and a request counter a session.
pub(crate) struct Story {
    pub(crate) table: Table,
    pub(crate) now: Tick,
    effects: Effects,
    requests: u64,
    sessions: u32,
}

/// The one lock most stories are about.
pub(crate) const LOCK: &str = "lock";

impl Story {
    pub(crate) fn new() -> Story {
        Story::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Story {
        let epoch = Epoch::new(7).unwrap();
        let rules = NamespaceRules::new();
        Story::told(Settings { epoch, shard: ShardId(0), index_key: 0x5EED, limits, rules })
    }

    pub(crate) fn told(settings: Settings) -> Story {
        let table = Table::new(settings);
        Story { table, now: Tick::from_millis(1000), effects: Effects::new(), requests: 0, sessions: 0 }
    }

    pub(crate) fn apply(&mut self, command: Command<'_>) -> Vec<Effect> {
        self.effects.clear();
        self.table.apply(self.now, command, &mut self.effects);
        self.table.audit();
        self.effects.to_vec()
    }

    /// Lets time pass, and applies what it decides.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now.after_millis(ms);
        let mut all = Vec::new();
        while let Some(command) = self.table.due(self.now) {
            all.extend(self.apply(command));
        }
        all
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    pub(crate) fn opening(&mut self) -> Open<'static> {
        self.sessions += 1;
        Open {
            id: SessionId::new(self.table.epoch(), ShardId(0), self.sessions).unwrap(),
            secret: Secret(u128::from(self.sessions)),
            ttl_ms: 5000,
            lease: Lease::Heartbeat,
            visiting: false,
            identity: b"",
            reclaim_key: b"",
            predecessor_gone: false,
            attributes: Attributes::default(),
        }
    }

    pub(crate) fn open_as(&mut self, open: Open<'_>) -> SessionKey {
        match self.apply(Command::Open(open)).last() {
            Some(&Effect::Opened { session, id }) if id == open.id => session,
            other => panic!("{other:?}"),
        }
    }

    /// A session without a lease of its own.
    pub(crate) fn open(&mut self) -> SessionKey {
        let open = self.opening();
        self.open_as(Open { lease: Lease::Watched, ..open })
    }

    pub(crate) fn asking(&mut self, session: SessionKey, mode: Mode, wait: Wait) -> Acquire<'static> {
        named(Acquire {
            session,
            request: self.request(),
            digest: Digest([0; 2]),
            resource: Resource::new(b"", LOCK.as_bytes()).unwrap(),
            mode,
            priority: Priority::LOWEST,
            wait,
            owner: OwnerId(0),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        })
    }

    pub(crate) fn ask(&mut self, acquire: Acquire<'_>) -> Vec<Effect> {
        self.apply(Command::Acquire(acquire))
    }

    /// Acquires at once.
    pub(crate) fn hold(&mut self, session: SessionKey, mode: Mode) -> Granted {
        let asking = self.asking(session, mode, Wait::Forever);
        granted(&self.ask(asking), asking.request)
    }

    /// Begins to wait.
    pub(crate) fn queue(&mut self, session: SessionKey, mode: Mode) -> RequestId {
        let asking = self.asking(session, mode, Wait::Forever);
        let effects = self.ask(asking);
        assert_eq!(answer_to(&effects, asking.request), None, "it waits");
        asking.request
    }

    /// What a try is answered.
    pub(crate) fn attempt(&mut self, session: SessionKey, mode: Mode) -> Answer {
        let asking = self.asking(session, mode, Wait::Try);
        answer_to(&self.ask(asking), asking.request).unwrap()
    }

    pub(crate) fn release(&mut self, session: SessionKey, grant: GrantId) -> Vec<Effect> {
        let request = self.request();
        self.apply(Command::Release { session, request, grant })
    }

    /// Asks for a conversion; the answer, if there is one at once, and everything else.
    pub(crate) fn convert(
        &mut self,
        session: SessionKey,
        grant: GrantId,
        mode: Mode,
    ) -> (RequestId, Vec<Effect>) {
        let request = self.request();
        (request, self.apply(Command::Convert { session, request, grant, mode, wait: Wait::Forever }))
    }

    pub(crate) fn converted(&mut self, session: SessionKey, grant: GrantId, mode: Mode) -> Granted {
        let (request, effects) = self.convert(session, grant, mode);
        match answer_to(&effects, request) {
            Some(Answer::Converted(granted)) => granted,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(&mut self, session: SessionKey, why: Ended) -> Vec<Effect> {
        self.apply(Command::End { session, why })
    }
}

/// The request with the digest its resource has in these stories.
pub(crate) fn named(mut acquire: Acquire<'_>) -> Acquire<'_> {
    acquire.digest = fairlock_protocol::DigestKey([1, 2]).digest(acquire.resource);
    acquire
}

pub(crate) fn answer_to(effects: &[Effect], wanted: RequestId) -> Option<Answer> {
    effects.iter().find_map(|effect| match *effect {
        Effect::Answered { request, answer, .. } if request == wanted => Some(answer),
        _ => None,
    })
}

pub(crate) fn granted(effects: &[Effect], request: RequestId) -> Granted {
    match answer_to(effects, request) {
        Some(Answer::Granted(granted) | Answer::Converted(granted)) => granted,
        other => panic!("{request:?}: {other:?} in {effects:?}"),
    }
}

/// The requests granted by these effects, in order.
pub(crate) fn grants(effects: &[Effect]) -> Vec<RequestId> {
    let granted = |effect: &Effect| match *effect {
        Effect::Answered { request, answer: Answer::Granted(_) | Answer::Converted(_), .. } => Some(request),
        _ => None,
    };
    effects.iter().filter_map(granted).collect()
}

pub(crate) fn notices(effects: &[Effect]) -> Vec<(SessionKey, Notice)> {
    let told = |effect: &Effect| match *effect {
        Effect::Told { session, notice } => Some((session, notice)),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

pub(crate) const fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

//! Requests as the client keeps them: owned, so that they can be said again on another connection under the same number.

use fairlock_protocol::bundle::ItemsBuffer;
use fairlock_protocol::request::{Acquire, AcquireAll};
use fairlock_protocol::{
    GrantId, Mode, OwnerId, Priority, Refusal, Request, RequestId, Resource, Tick, Wait,
};
use std::sync::Arc;
use std::time::Duration;

/// What an acquire asks for. The guard keeps it, for its name.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Empty for the default one.
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<[u8]>,
    pub(crate) label: Box<str>,
    pub(crate) mode: Mode,
    pub(crate) priority: Priority,
    pub(crate) wait: Wait,
    pub(crate) owner: OwnerId,
    pub(crate) reentrant: bool,
    pub(crate) notify: bool,
    pub(crate) lock_delay_ms: u32,
    pub(crate) max_hold_ms: u32,
    /// Its grant may stay with the client.
    pub(crate) cacheable: bool,
}

/// One shard's share of several locks that are asked for together.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// In canonical order; at least one. Their own `wait` does not count.
    pub(crate) specs: Vec<Arc<Spec>>,
    pub(crate) wait: Wait,
}

impl Spec {
    /// Exclusive, and waiting for ever.
    pub(crate) fn plain(name: &[u8]) -> Spec {
        Spec {
            namespace: "".into(),
            name: name.into(),
            label: "".into(),
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait: Wait::Forever,
            owner: OwnerId::default(),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            cacheable: false,
        }
    }

    /// What the canonical order goes by.
    pub(crate) fn place(&self) -> Option<Resource<'_>> {
        self.resource().ok()
    }

    /// What is locked. Checked here once more, because it borrows.
    pub(crate) fn resource(&self) -> Result<Resource<'_>, Refusal> {
        Resource::new(self.namespace.as_bytes(), &self.name)
    }
}

/// One request that the client may have to say again.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Acquire(Arc<Spec>),
    AcquireAll(Arc<Bundle>),
    Convert {
        grant: GrantId,
        mode: Mode,
        wait: Wait,
    },
    /// And when the grant would have ended by time of its own: who enters it again meanwhile has no more.
    Release(GrantId, Tick),
    Cancel(RequestId),
    Keepalive,
    Close,
}

impl Ask {
    /// The grant whose mode it changes.
    pub(crate) fn converts(&self) -> Option<GrantId> {
        match self {
            Ask::Convert { grant, .. } => Some(*grant),
            _ => None,
        }
    }

    /// How long it may wait at the server; `None` for what never waits.
    pub(crate) fn wait(&self) -> Option<Wait> {
        match self {
            Ask::Acquire(spec) => Some(spec.wait),
            Ask::AcquireAll(bundle) => Some(bundle.wait),
            Ask::Convert { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// Appends its frame. `passed` is how long ago it was asked for: a wait is shortened by it, but never to a try,
    /// because a request that may already stand in the queue must not lose its place to arithmetic. `through_memory`: the
    /// grant can stay with the client.
    pub(crate) fn encode(
        &self,
        id: RequestId,
        ack: u16,
        (passed, through_memory): (Duration, bool),
        out: &mut Vec<u8>,
    ) {
        let items;
        let request = match *self {
            Ask::AcquireAll(ref bundle) => {
                let specs = bundle.specs.iter().map(|spec| Ok((spec.resource()?, spec.mode)));
                let specs = specs.collect::<Result<Vec<_>, Refusal>>();
                items = ItemsBuffer::new(specs.expect("names are checked before a request is made"))
                    .expect("what is asked together is checked as a whole");
                let (wait, owner) = (left(bundle.wait, passed), bundle.specs[0].owner);
                let label = bundle.specs[0].label.as_bytes();
                Request::AcquireAll(AcquireAll { wait, owner, items: items.items(), label })
            }
            Ask::Acquire(ref spec) => {
                let resource = spec.resource().expect("names are checked before a request is made");
                Request::Acquire(Acquire {
                    resource,
                    mode: spec.mode,
                    priority: spec.priority,
                    wait: left(spec.wait, passed),
                    owner: spec.owner,
                    reentrant: spec.reentrant,
                    notify: spec.notify,
                    cacheable: spec.cacheable && through_memory,
                    lock_delay_ms: spec.lock_delay_ms,
                    max_hold_ms: spec.max_hold_ms,
                    label: spec.label.as_bytes(),
                })
            }
            Ask::Convert { grant, mode, wait } => Request::Convert { grant, mode, wait: left(wait, passed) },
            Ask::Release(grant, _) => Request::Release(grant),
            Ask::Cancel(target) => Request::Cancel(target),
            Ask::Keepalive => Request::Keepalive,
            Ask::Close => Request::Close,
        };
        request.encode(id, ack, out);
    }
}

/// What is left of a wait.
fn left(wait: Wait, passed: Duration) -> Wait {
    match wait {
        Wait::Millis(ms) => {
            let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            Wait::Millis(ms.saturating_sub(passed_ms).max(1))
        }
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_said_again_is_shorter_but_never_becomes_a_try() {
        assert_eq!(left(Wait::Millis(1000), Duration::from_millis(400)), Wait::Millis(600));
        assert_eq!(left(Wait::Millis(1000), Duration::from_secs(5)), Wait::Millis(1));
        assert_eq!(left(Wait::Forever, Duration::from_secs(5)), Wait::Forever);
        assert_eq!(left(Wait::Try, Duration::from_secs(5)), Wait::Try);
    }
}

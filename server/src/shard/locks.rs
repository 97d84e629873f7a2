//! Requests for locks: what the door checks before the table decides.

use std::time::Duration;

use fairlock_locktable::command::{
    Acquire as AcquireCommand, AcquireAll as AcquireAllCommand, Command, Item, SessionKey,
};
use fairlock_protocol::limits::LOCK_DELAY_MAX;
use fairlock_protocol::reply::Refused;
use fairlock_protocol::request::{Acquire, AcquireAll};
use fairlock_protocol::{Digest, GrantId, Mode, Refusal, RequestId, Resource, Wait};

use super::Shard;
use crate::connection::ConnectionKey;

impl Shard {
    /// An ACQUIRE.
    pub(super) fn acquire(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        request: RequestId,
        acquire: &Acquire<'_>,
    ) {
        let ahead = self.digest_ahead();
        let Some(digest) = self.digest_owned(key, request, acquire.resource, ahead) else { return };
        if !self.grants_now(key, (session, request)) {
            return;
        }
        let Some(command) = self.asked_of_table(key, (session, request), digest, acquire) else { return };
        self.apply(Command::Acquire(command));
        // Only plain ones: a grant with an end of its own, or that leaves a delay, is nothing to keep.
        if acquire.cacheable && acquire.max_hold_ms == 0 && acquire.lock_delay_ms == 0 {
            self.consider_caching(key, (session, request), digest, acquire.mode);
        }
    }

    /// What an ACQUIRE, or a claim that is made like one, asks of the table; `None` when it was refused.
    pub(super) fn asked_of_table<'a>(
        &mut self,
        key: ConnectionKey,
        (session, request): (SessionKey, RequestId),
        digest: Digest,
        acquire: &Acquire<'a>,
    ) -> Option<AcquireCommand<'a>> {
        if Duration::from_millis(acquire.lock_delay_ms.into()) > LOCK_DELAY_MAX {
            let detail = "a lock delay is at most 60 s";
            self.refuse(key, request, Refused { detail, ..Refusal::BadRequest.into() });
            return None;
        }
        Some(AcquireCommand {
            session,
            request,
            digest,
            resource: acquire.resource,
            mode: acquire.mode,
            priority: acquire.priority,
            wait: acquire.wait,
            owner: acquire.owner,
            reentrant: acquire.reentrant,
            notify: acquire.notify,
            lock_delay_ms: acquire.lock_delay_ms,
            max_hold_ms: acquire.max_hold_ms,
            label: acquire.label,
        })
    }

    /// An ACQUIRE_ALL. All its names belong to this shard, or nothing is done.
    pub(super) fn acquire_all(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        request: RequestId,
        all: &AcquireAll<'_>,
    ) {
        let mut items = Vec::with_capacity(usize::from(all.items.count()));
        for (resource, mode) in all.items.iter() {
            let Some(digest) = self.digest_here(key, request, resource) else { return };
            items.push(Item { digest, resource, mode });
        }
        assert!(!items.is_empty(), "the codec refuses a list of none");
        if self.grants_now(key, (session, request)) {
            let (wait, owner, label) = (all.wait, all.owner, all.label);
            let items = &items;
            let command = AcquireAllCommand { session, request, items, wait, owner, label };
            self.apply(Command::AcquireAll(command));
        }
    }

    /// A CONVERT. While the server drains nobody gets more than he has; whoever gives something up may.
    pub(super) fn convert(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        request: RequestId,
        (grant, mode, wait): (GrantId, Mode, Wait),
    ) {
        let recovers = self.now < self.settings.quarantine_until;
        let is_more = || self.table.held_mode(session, grant).is_some_and(|held| !held.covers(mode));
        if (self.draining || recovers) && is_more() && !self.table.knows(session, request) {
            if self.draining {
                return self.refuse(key, request, Refusal::Draining.into());
            }
            // Others may hold it who have not said so yet.
            return self.refuse_recovering(key, request);
        }
        self.apply(Command::Convert { session, request, grant, mode, wait });
    }

    /// Whether anything is granted at present; else the request is refused. One that is said again, and has its place or its
    /// answer, has them still: whoever is refused for the moment is told that nothing was done.
    fn grants_now(&mut self, key: ConnectionKey, (session, request): (SessionKey, RequestId)) -> bool {
        let grants = !self.draining && !self.lacks_copies() && self.now >= self.settings.quarantine_until;
        if grants || self.table.knows(session, request) {
            return true;
        }
        if self.draining {
            self.refuse(key, request, Refusal::Draining.into());
            return false;
        }
        if self.lacks_copies() {
            let detail = "too few nodes have a copy (min_copies); see `fairlock cluster status`";
            self.refuse(key, request, Refused { detail, ..Refusal::Unavailable.into() });
            return false;
        }
        self.refuse_recovering(key, request);
        false
    }

    /// The server's own digest of a name, when the name belongs to this shard; else the request is refused.
    pub(super) fn digest_here(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        resource: Resource<'_>,
    ) -> Option<Digest> {
        self.digest_owned(key, request, resource, None)
    }

    /// The same, when it may have been computed already.
    fn digest_owned(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        resource: Resource<'_>,
        known: Option<Digest>,
    ) -> Option<Digest> {
        let digest = known.unwrap_or_else(|| self.settings.digest_key.digest(resource));
        debug_assert_eq!(digest, self.settings.digest_key.digest(resource), "a frame's own digest");
        let owner = digest.shard(self.settings.shards);
        if owner == self.settings.me {
            return Some(digest);
        }
        let detail =
            format!("this name belongs to shard {}, the connection to {}", owner.0, self.settings.me.0);
        self.refuse(key, request, Refused { detail: &detail, ..Refusal::BadRequest.into() });
        None
    }
}

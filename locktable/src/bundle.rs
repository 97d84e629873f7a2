//! Several locks in one request, all or none.
//!
//! A bundle takes its locks one after the other, in canonical order, and waits in the ordinary queue of the first that
//! it cannot have; what it took so far it holds, but nobody is told before it has everything. Because all bundles
//! climb in the same order, two of them never wait for each other. When it fails, for whatever reason, everything taken
//! passes on in the same command. Ordinary requests pay one comparison for it.
//!
//! A bundle that was let in somewhere goes on when everything else that the command freed is granted, the oldest
//! first: no recursion, and an order that does not depend on which lock was looked at first.

use crate::chunks::NONE;
use crate::command::{AcquireAll, Item, Wait};
use crate::effect::{Answer, Effects};
use crate::names::NameRef;
use crate::record::{Grant, Lock, Waiter};
use crate::seat::Seat;
use crate::slab::Record;
use crate::table::Table;
use crate::turns::Newcomer;
use alloc::boxed::Box;
use alloc::vec::Vec;
use fairlock_protocol::limits::ACQUIRE_ALL_MAX;
use fairlock_protocol::{
    Digest, Mode, OwnerId, Priority, Refusal, RequestId, Resource, Tick, ids::TOKEN_SEQ_END,
};

/// A request for several locks that has not got all of them.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// Order of asking; 0 for a vacant record.
    pub(crate) number: u64,
    pub(crate) session: u32,
    pub(crate) request: RequestId,
    pub(crate) owner: OwnerId,
    pub(crate) label: Box<[u8]>,
    pub(crate) since: Tick,
    /// When the wait for all of them together ends.
    pub(crate) until: Option<Tick>,
    pub(crate) wanted: Wanted,
    /// The grants of the first of `wanted`.
    pub(crate) taken: Vec<u32>,
    /// How many of them are marked as not told; all of them, between commands.
    pub(crate) concealed: usize,
}

/// What a bundle asks for, owned: in canonical order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Namespaces and names, one behind the other.
    texts: Box<[u8]>,
    items: Box<[WantedItem]>,
}

#[derive(Clone, Copy, Debug)]
struct WantedItem {
    digest: Digest,
    /// Where its namespace, its name, and the name's end are in the texts.
    namespace: u32,
    name: u32,
    end: u32,
    mode: Mode,
}

impl Wanted {
    fn new(items: &[Item<'_>]) -> Wanted {
        let mut gathered = Gathered::default();
        for item in items {
            gathered.push(item);
        }
        gathered.done()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The digest and the mode of each.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Digest, Mode)> + '_ {
        self.items.iter().map(|item| (item.digest, item.mode))
    }

    pub(crate) fn item(&self, at: usize) -> Item<'_> {
        let item = &self.items[at];
        let text = |from: u32, to: u32| &self.texts[from as usize..to as usize];
        let resource = Resource::new(text(item.namespace, item.name), text(item.name, item.end))
            .expect("checked before it was kept");
        Item { digest: item.digest, resource, mode: item.mode }
    }
}

/// Items on their way to a [`Wanted`].
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    texts: Vec<u8>,
    items: Vec<WantedItem>,
}

impl Gathered {
    fn place(&self) -> u32 {
        u32::try_from(self.texts.len()).expect("256 names are below 4 GiB")
    }

    pub(crate) fn push(&mut self, item: &Item<'_>) {
        let namespace = self.place();
        self.texts.extend_from_slice(item.resource.namespace.as_str().as_bytes());
        let name = self.place();
        self.texts.extend_from_slice(item.resource.name.as_bytes());
        let end = self.place();
        self.items.push(WantedItem { digest: item.digest, namespace, name, end, mode: item.mode });
    }

    pub(crate) const fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn done(self) -> Wanted {
        Wanted { texts: self.texts.into_boxed_slice(), items: self.items.into_boxed_slice() }
    }
}

impl Record for Bundle {
    fn vacant(next: u32) -> Bundle {
        Bundle {
            number: 0,
            session: next,
            request: RequestId::NOTICE,
            owner: OwnerId(0),
            label: Box::default(),
            since: Tick::ZERO,
            until: None,
            wanted: Wanted::default(),
            taken: Vec::new(),
            concealed: 0,
        }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.number == 0).then_some(self.session)
    }
}

impl Bundle {
    /// Bytes of what the record owns beyond itself.
    pub(crate) fn memory(&self) -> usize {
        self.label.len()
            + self.wanted.texts.len()
            + size_of_val(&*self.wanted.items)
            + self.taken.capacity() * size_of::<u32>()
    }
}

impl Table {
    pub(crate) fn acquire_all(&mut self, now: Tick, ask: &AcquireAll<'_>, effects: &mut Effects) {
        let same = |table: &Table, waiter: u32| {
            let bundle = table.waiters[waiter].bundle;
            bundle != NONE
                && table.bundles[bundle]
                    .wanted
                    .keys()
                    .eq(ask.items.iter().map(|item| (item.digest, item.mode)))
        };
        let Some(session) = self.admit(ask.session, ask.request, same, effects) else { return };
        if let Err(refusal) = self.may_take_all(now, session, ask) {
            return self.answer(session, ask.request, Answer::Refused(refusal), effects);
        }
        self.bundles_begun += 1;
        self.sessions[session].wait_answers += Table::answers_beyond_one(ask.items.len());
        let slot = self.bundles.insert(Bundle {
            number: self.bundles_begun,
            session,
            request: ask.request,
            owner: ask.owner,
            label: ask.label.into(),
            since: now,
            until: Table::end_of_wait(now, ask.wait),
            wanted: Wanted::new(ask.items),
            taken: Vec::with_capacity(ask.items.len()),
            concealed: 0,
        });
        self.advance(now, slot, effects);
    }

    pub(crate) fn answers_beyond_one(items: usize) -> u32 {
        u32::try_from(items).expect("at most 256") - 1
    }

    /// Takes a bundle's own record out; what it has taken is the caller's.
    pub(crate) fn take_bundle(&mut self, slot: u32) -> Bundle {
        let bundle = self.bundles.remove(slot);
        self.sessions[bundle.session].wait_answers -= Table::answers_beyond_one(bundle.wanted.len());
        bundle
    }

    /// What refuses a bundle before anything of it is taken.
    fn may_take_all(&self, now: Tick, session: u32, ask: &AcquireAll<'_>) -> Result<(), Refusal> {
        let rising = ask.items.windows(2).all(|pair| pair[0].resource < pair[1].resource);
        if !rising || ask.items.is_empty() || ask.items.len() > ACQUIRE_ALL_MAX {
            return Err(Refusal::BadRequest);
        }
        let count = u32::try_from(ask.items.len()).expect("at most 256");
        let used = self.sessions[session].grant_count + self.sessions[session].wait_count;
        if used + count > self.limits.locks_per_session {
            return Err(Refusal::Quota);
        }
        let mut known = ask.items.iter().filter_map(|item| Some((self.lock_slot(item.digest)?, item.mode)));
        if known.clone().any(|(lock, mode)| self.own_conflict(lock, session, ask.owner.0, mode)) {
            return Err(Refusal::AlreadyHeld);
        }
        if ask.wait != Wait::Try {
            return self.may_wait(session, count);
        }
        let newcomer = |mode| Newcomer { session, owner: ask.owner.0, mode, priority: Priority::LOWEST };
        if !known.all(|(lock, mode)| mode == Mode::NL || self.is_open_to(now, lock, &newcomer(mode))) {
            return Err(Refusal::WouldBlock);
        }
        if TOKEN_SEQ_END - self.seq < u64::from(count) {
            return Err(Refusal::Internal);
        }
        Ok(())
    }

    /// Carries on with what a command left to be done: locks to scan, and bundles that were let in somewhere.
    pub(crate) fn finish(&mut self, now: Tick, effects: &mut Effects) {
        loop {
            self.settle_touched(now, effects);
            let Some((_, bundle)) = self.advancing.pop_first() else { break };
            self.advance(now, bundle, effects);
        }
    }

    /// Takes one lock after the other, until all are held, one must be waited for, or one cannot be had.
    fn advance(&mut self, now: Tick, slot: u32, effects: &mut Effects) {
        let wanted = core::mem::take(&mut self.bundles[slot].wanted);
        let outcome = loop {
            let at = self.bundles[slot].taken.len();
            if at == wanted.len() {
                break Ok(None);
            }
            match self.take_next(now, slot, &wanted.item(at)) {
                Ok(Next::Taken(grant)) => self.bundles[slot].taken.push(grant),
                Ok(Next::Waits(lock)) => break Ok(Some(lock)),
                Err(refusal) => break Err(refusal),
            }
        };
        self.bundles[slot].wanted = wanted;
        match outcome {
            Ok(None) => self.complete(now, slot, effects),
            Ok(Some(lock)) => {
                self.conceal(slot);
                self.attend(now, lock, effects);
            }
            Err(refusal) => {
                let (session, request) = self.give_up(slot);
                self.answer(session, request, Answer::Refused(refusal), effects);
            }
        }
    }

    /// The next lock of a bundle: taken, or waited for.
    fn take_next(&mut self, now: Tick, slot: u32, item: &Item<'_>) -> Result<Next, Refusal> {
        let Bundle { session, owner, until, request, .. } = self.bundles[slot];
        self.may_hold_more(session)?;
        let mode = item.mode;
        let lock = match self.lock_slot(item.digest) {
            Some(lock) => {
                debug_assert_eq!(self.resource(lock), item.resource, "one digest is one resource");
                if self.own_conflict(lock, session, owner.0, mode) {
                    return Err(Refusal::AlreadyHeld);
                }
                let newcomer = Newcomer { session, owner: owner.0, mode, priority: Priority::LOWEST };
                if mode != Mode::NL && !self.is_open_to(now, lock, &newcomer) {
                    self.may_queue(lock)?;
                    let label = self.bundle_label(slot);
                    let blank = Table::blank_waiter();
                    let waiter = Waiter { lock, session, request, owner, label, mode, bundle: slot, ..blank };
                    self.enqueue(now, waiter, until);
                    return Ok(Next::Waits(lock));
                }
                if mode != Mode::NL && !self.has_tokens() {
                    return Err(Refusal::Internal);
                }
                lock
            }
            None if mode != Mode::NL && !self.has_tokens() => return Err(Refusal::Internal),
            None => self.create_lock(item.digest, item.resource).ok_or(Refusal::Quota)?,
        };
        let seat = Seat {
            lock,
            session,
            owner: owner.0,
            mode,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: self.bundle_label(slot),
        };
        let (grant, died) = self.seat_at_once(now, &seat);
        self.grants[grant].assign(Grant::HEIR, died);
        Ok(Next::Taken(grant))
    }

    fn bundle_label(&mut self, slot: u32) -> NameRef {
        self.names.insert(&self.bundles[slot].label)
    }

    /// A bundle has got the lock that it waited for; it goes on at the end of the command.
    pub(crate) fn let_bundle_in(&mut self, slot: u32, grant: u32, died: bool) {
        self.grants[grant].assign(Grant::HEIR, died);
        let bundle = &mut self.bundles[slot];
        bundle.taken.push(grant);
        assert!(bundle.taken.len() <= bundle.wanted.len(), "a bundle holds no more than it wants");
        self.advancing.insert((bundle.number, slot));
    }

    /// Marks what a bundle that waits has taken: its client does not know of it.
    fn conceal(&mut self, slot: u32) {
        let bundle = &mut self.bundles[slot];
        let from = core::mem::replace(&mut bundle.concealed, bundle.taken.len());
        for at in from..self.bundles[slot].taken.len() {
            let grant = self.bundles[slot].taken[at];
            let extra = self.ensure_extra(grant);
            self.extras[extra].bundle = slot;
            self.grants[grant].set(Grant::PARTIAL);
        }
    }

    /// All are held: now the client is told, one answer for each, in the order of the items.
    fn complete(&mut self, now: Tick, slot: u32, effects: &mut Effects) {
        let bundle = self.take_bundle(slot);
        assert_eq!(bundle.taken.len(), bundle.wanted.len(), "all or none");
        let waited_us = u64::try_from(now.since(bundle.since).as_micros()).unwrap_or(u64::MAX);
        for &grant in &bundle.taken {
            if self.grants[grant].has(Grant::PARTIAL) {
                self.reveal(grant);
            }
            let died = self.grants[grant].has(Grant::HEIR);
            self.grants[grant].assign(Grant::HEIR, false);
            let answer = Answer::Granted(self.granted(grant, waited_us, died));
            self.answer(bundle.session, bundle.request, answer, effects);
        }
    }

    /// A grant of a bundle becomes one like any other, and keeps its side record only if that says more.
    fn reveal(&mut self, grant: u32) {
        self.grants[grant].assign(Grant::PARTIAL, false);
        let extra = self.extra_slot(grant);
        self.extras[extra].bundle = NONE;
        if self.extras[extra].label.is_empty() {
            let extra = self.extras.remove(extra);
            assert!(extra.levels == 1 && extra.conversion == NONE, "nobody knew of it");
            self.grants[grant].owner = extra.owner;
            self.grants[grant].assign(Grant::EXTRA, false);
        }
    }

    /// Ends a bundle, which waits nowhere any more, and what it has taken. The locks are noted for a scan. Says whose
    /// it was, for the one answer.
    pub(crate) fn give_up(&mut self, slot: u32) -> (u32, RequestId) {
        let bundle = self.take_bundle(slot);
        for &grant in &bundle.taken {
            let lock = self.grants[grant].lock;
            self.pass_hint_on(grant);
            self.unseat(grant);
            self.touch(lock);
        }
        (bundle.session, bundle.request)
    }

    /// The hint that a holder died goes to the next one: whoever had it here was never told.
    pub(crate) fn pass_hint_on(&mut self, grant: u32) {
        let grant = &self.grants[grant];
        if grant.has(Grant::HEIR) {
            self.locks[grant.lock].flags |= Lock::DIED;
        }
    }

    /// An operator takes a lock that a bundle holds: it fails as a whole, at once, because nobody uses it.
    pub(crate) fn call_off(&mut self, grant: u32, effects: &mut Effects) {
        let bundle = &self.bundles[self.extra(grant).bundle];
        let waiter = self.pending_slot(bundle.session, bundle.request);
        self.counts.cancels_total += 1;
        let waiter = waiter.expect("a bundle that has not got everything waits");
        let lock = self.turn_away(waiter, Answer::Refused(Refusal::Cancelled), effects);
        self.touch(lock);
    }

    /// Asserts what a bundle's records say; gives how much it has taken.
    pub(crate) fn audit_bundle(&self, slot: u32) -> usize {
        let bundle = &self.bundles[slot];
        let waiter = self.pending_slot(bundle.session, bundle.request).expect("a bundle waits");
        let waiter = &self.waiters[waiter];
        assert_eq!((waiter.bundle, waiter.grant), (slot, NONE), "a bundle's waiter knows it");
        assert_eq!(waiter.timer != NONE, bundle.until.is_some(), "the wait for all ends");
        assert_eq!(bundle.concealed, bundle.taken.len(), "what is taken is not told");
        let mut keys = bundle.wanted.keys();
        for (&grant, key) in bundle.taken.iter().zip(&mut keys) {
            let record = &self.grants[grant];
            assert_eq!((self.locks[record.lock].digest, record.mode()), key, "taken as wanted");
            assert!(record.has(Grant::PARTIAL) && !record.has(Grant::BROKEN), "a partial holder");
            assert_eq!((record.session(), self.extra(grant).bundle), (bundle.session, slot), "whose it is");
        }
        let next = (self.locks[waiter.lock].digest, waiter.mode);
        assert_eq!(keys.next(), Some(next), "it waits for the next one");
        bundle.taken.len()
    }
}

/// What became of the next lock of a bundle.
enum Next {
    Taken(u32),
    /// In the queue of this lock.
    Waits(u32),
}

//! What a client shares with one shard instead of sending it through a socket: the two rings, the word that says how the
//! client waits, what the server says of the session, and the grant words.
//!
//! Each ring end stands behind a lock of its own, which its one user at a time takes uncontended; the engine's locks
//! keep the order of bytes as they do for sockets. In a forked child nothing here may be touched: the mapping is not
//! there. The owner of a [`Memory`] reads the fork mark first, and the drop leaves everything to the child's end.

use crate::dial::Inbox;
use fairlock_protocol::{ShardId, Tick};
use fairlock_shm::beacon::Sight;
use fairlock_shm::bell::Waiting;
use fairlock_shm::fork::ForkMark;
use fairlock_shm::ring::{Corrupt, Receiver, Sender};
use fairlock_shm::segment::{RING_SLOTS, Segment};
use fairlock_shm::wait;
use fairlock_shm::word::{Leaving, Word};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A server's two stamps are read and written one after the other, within so much.
const CLOCKS_APART_MAX: Duration = Duration::from_millis(100);
/// The edition of a memory whose connection is gone.
const CLOSED: u32 = 0;

/// A segment and its shard's line of the beacon.
pub(crate) struct Memory {
    mark: Arc<ForkMark>,
    /// Shared only so that a child can keep it from being unmapped.
    segment: Arc<Segment>,
    sight: Sight,
    leaving: Leaving,
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
    /// Raised whenever a tenure of one of the words was taken away, [`CLOSED`] once the connection is gone. Release
    /// stores before the server is told; Acquire load of everyone who enters a word without a message, after that.
    edition: AtomicU32,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("leaving", &self.leaving).finish_non_exhaustive()
    }
}

fn broken(corrupt: Corrupt) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, corrupt)
}

impl Memory {
    /// Maps what a server passed: the segment and the beacon.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub(super) fn map(files: [OwnedFd; 2], mark: &Arc<ForkMark>) -> Result<Memory, String> {
        let [segment, beacon] = files;
        let segment = Segment::open(&segment).map_err(|unfit| match std::error::Error::source(&unfit) {
            Some(source) => format!("{unfit}: {source}"),
            None => unfit.to_string(),
        })?;
        let sight =
            Sight::open(&beacon, 0).map_err(|error| format!("the beacon cannot be mapped: {error}"))?;
        // Asked at every attachment, because a forked child may attach too; costs nothing once it was granted.
        let barriers = sight.leaving() == Leaving::Barrier && wait::accept_barriers();
        let leaving = if barriers { Leaving::Barrier } else { Leaving::Exchange };
        segment.set_leaving(leaving);
        Ok(Memory {
            mark: Arc::clone(mark),
            segment: Arc::new(segment),
            sight,
            leaving,
            sender: Mutex::default(),
            receiver: Mutex::default(),
            edition: AtomicU32::new(1),
        })
    }

    /// The same, for the shard that turned out to be at the other end.
    pub(crate) fn aimed_at(mut self, shard: ShardId) -> Option<Memory> {
        self.sight = self.sight.aimed_at(shard.0)?;
        Some(self)
    }

    /// Publishes as much as there is room for. How much, and whether the server must be rung.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = sender.send(self.segment.requests(), bytes).map_err(broken)?;
        Ok((sent, self.segment.attention().must_ring()))
    }

    /// Takes what is there, at most one ring's worth.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.segment.replies();
        let mut count = 0;
        for _ in 0..RING_SLOTS {
            let Some(piece) = receiver.receive(ring).map_err(broken)? else { break };
            count += piece.bytes().len();
            inbox.put(piece.bytes());
        }
        receiver.give_back(ring);
        Ok(count)
    }

    /// Whether something is there to be taken.
    pub(crate) fn is_ready(&self) -> bool {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.is_ready(self.segment.replies())
    }

    /// Tells the server how the client waits from now on. Unless it looks by itself, it looks once more after this.
    pub(crate) fn announce(&self, waiting: Waiting) {
        self.segment.parking().announce(waiting);
    }

    /// Sleeps as announced, at most this long.
    pub(crate) fn park(&self, timeout: Option<Duration>) {
        wait::park(self.segment.parking(), timeout);
    }

    /// Wakes the one who sleeps, or is about to.
    pub(crate) fn rouse(&self) {
        self.announce(Waiting::Looking);
        wait::unpark(self.segment.parking());
    }

    /// The connection is gone: no word is entered from now on.
    pub(crate) fn close(&self) {
        self.edition.store(CLOSED, Ordering::Release);
    }

    /// A tenure was taken away: whoever remembers one looks whether it was his.
    pub(crate) fn revise(&self) {
        let next = |edition: u32| (edition != CLOSED).then(|| edition.wrapping_add(1).max(CLOSED + 1));
        // AcqRel: pairs with the loads in `edition`. Refused when it is closed, which says more.
        let _ = self.edition.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
    }

    /// What has to be the same for a remembered tenure to be entered; `None` when none is.
    #[inline]
    pub(crate) fn edition(&self) -> Option<u32> {
        match self.edition.load(Ordering::Acquire) {
            CLOSED => None,
            edition => Some(edition),
        }
    }

    /// The segment, for those who cannot afford the way through here. They hold the memory as well, which sees to it that
    /// a child unmaps nothing.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The shard's line of the beacon.
    pub(crate) fn sight(&self) -> &Sight {
        &self.sight
    }

    /// A grant word.
    #[inline]
    pub(crate) fn word(&self, index: u32) -> Option<&Word> {
        self.segment.word(index)
    }

    /// How words are left.
    #[inline]
    pub(crate) fn leaving(&self) -> Leaving {
        self.leaving
    }

    /// The server has ended the session.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.segment.status().has_ended()
    }

    /// Whether the shard's thread lives.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.sight.is_alive()
    }

    /// Whether the server's two clocks stand as far apart as ours do at this moment. Where it cannot be told, because the host
    /// slept a moment ago, they do not.
    pub(crate) fn reads_our_clocks(&self, now: Tick, steady_ns: u64) -> bool {
        let theirs = i128::from(self.sight.stamp()) - i128::from(self.sight.steady());
        let ours = i128::from(now.0) - i128::from(steady_ns);
        theirs.abs_diff(ours) <= CLOCKS_APART_MAX.as_nanos()
    }

    /// When the shard was last known to serve this session.
    #[inline]
    pub(crate) fn stamp(&self) -> Tick {
        let stamp = self.sight.stamp();
        Tick(self.segment.status().renewed_until().map_or(stamp, |until| until.min(stamp)))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mark.is_child() {
            // Not mapped here; its addresses may be somebody else's by now.
            std::mem::forget((Arc::clone(&self.segment), self.sight.clone()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fairlock_shm::beacon::Beacon;
    use fairlock_shm::robust::LastWord;

    /// Both ends in one process.
    pub(crate) struct Shown {
        pub(crate) segment: Segment,
        pub(crate) memory: Arc<Memory>,
        beacon: Arc<Beacon>,
        _alive: LastWord,
    }

    impl Shown {
        pub(crate) fn new() -> Shown {
            let (segment, file) = Segment::create().unwrap();
            let beacon = Arc::new(Beacon::create(Leaving::Barrier).unwrap());
            let alive = LastWord::new(Arc::clone(&beacon), 0).unwrap();
            let mark = Arc::new(ForkMark::new().unwrap());
            let memory = Memory::map([file, beacon.file().try_clone().unwrap()], &mark).unwrap();
            Shown { segment, memory: Arc::new(memory), beacon, _alive: alive }
        }

        pub(crate) fn stamp(&self, now: Tick) {
            self.beacon.stamp(0, now.0, now.0);
        }

        pub(crate) fn stamp_both(&self, boottime_ns: u64, monotonic_ns: u64) {
            self.beacon.stamp(0, boottime_ns, monotonic_ns);
        }
    }

    #[test]
    fn what_does_not_fit_the_ring_waits_and_what_does_arrives_in_order() {
        let shown = Shown::new();
        let bytes: Vec<u8> = (0..20_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (sent, must_ring) = shown.memory.send(&bytes).unwrap();
        assert!(sent < bytes.len() && sent > 0 && must_ring, "{sent}");
        let mut receiver = Receiver::default();
        let mut received = Vec::new();
        while let Some(piece) = receiver.receive(shown.segment.requests()).unwrap() {
            received.extend_from_slice(piece.bytes());
        }
        receiver.give_back(shown.segment.requests());
        assert_eq!(received, bytes[..sent]);
        shown.segment.attention().listen();
        assert_eq!(shown.memory.send(&bytes[sent..]).unwrap(), (bytes.len() - sent, false));
    }

    #[test]
    fn replies_are_taken_into_an_inbox_however_they_are_cut() {
        let shown = Shown::new();
        let (mut sender, mut inbox) = (Sender::default(), Inbox::default());
        assert!(!shown.memory.is_ready());
        assert_eq!(shown.memory.receive(&mut inbox).unwrap(), 0);
        for _ in 0..10 {
            let sent = sender.send(shown.segment.replies(), &[7; 15_000]).unwrap();
            assert_eq!(sent, 15_000);
            assert!(shown.memory.is_ready());
            // Frames that long do not exist; all that is looked at is that every byte finds its place.
            assert_eq!(shown.memory.receive(&mut inbox).unwrap(), sent);
            inbox.clear();
        }
    }

    #[test]
    fn words_are_left_by_plain_stores_only_where_the_server_has_a_barrier() {
        for allowed in [Leaving::Barrier, Leaving::Exchange] {
            let (segment, file) = Segment::create().unwrap();
            let beacon = Beacon::create(allowed).unwrap();
            let mark = Arc::new(ForkMark::new().unwrap());
            let memory = Memory::map([file, beacon.file().try_clone().unwrap()], &mark).unwrap();
            assert_eq!(memory.leaving(), segment.leaving());
            assert!(allowed == Leaving::Barrier || memory.leaving() == Leaving::Exchange);
        }
    }

    #[test]
    fn a_remembered_edition_is_over_after_a_break_and_none_is_left_after_the_end() {
        let shown = Shown::new();
        let first = shown.memory.edition();
        shown.memory.revise();
        assert!(first.is_some() && shown.memory.edition().is_some() && shown.memory.edition() != first);
        shown.memory.close();
        shown.memory.revise();
        assert_eq!(shown.memory.edition(), None);
    }
}

//! The door of shared memory: rings that bytes come out of and go into, beside the sockets of the driver.
//!
//! A connection with a ring has a socket, too, over which it was made; on it a byte means "look at the ring", in either
//! direction, and its end is the end of the connection. So everything that wakes a sleeping shard wakes it for rings as
//! well, under either driver, and what moves here otherwise needs no system call.
//!
//! Rings that were used lately are *heard*: each pass looks at them, and their clients need not ring. Before the shard
//! sleeps it says on each of them that it does, and looks once more; from then on a ring is heard again when its client
//! rings. A ring that nobody uses costs nothing.

use std::sync::Arc;

use fairlock_protocol::Tick;
use fairlock_protocol::limits::REQUESTS_PER_PASS;
use fairlock_shm::bell::{Waiting, publish_fence};
use fairlock_shm::ring::{Corrupt, Receiver, Sender};
use fairlock_shm::segment::Segment;
use fairlock_shm::wait;

use crate::connection::ConnectionKey;
use crate::driver::LinkId;

/// Clients woken in one pass; each costs microseconds, and the others wait for the next.
const WAKES_PER_PASS: usize = 8;
/// A ring that was silent for so many passes is looked at only by those that follow a ring of its bell.
const SILENT_PASSES_MAX: u32 = 20_000;

/// One client's rings.
#[derive(Debug)]
struct Ring {
    connection: ConnectionKey,
    link: LinkId,
    segment: Arc<Segment>,
    requests: Receiver,
    replies: Sender,
    /// Replies that found no slot free.
    backlog: Vec<u8>,
    /// Each pass looks at it.
    heard: bool,
    /// Nothing is read: too much of it waits already.
    paused: bool,
    /// Replies were published since its client was last looked after.
    spoken: bool,
    /// Passes since it last said something.
    silent: u32,
}

/// All rings of a shard, by the slot of their connection.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    by_slot: Vec<Option<Ring>>,
    /// Those that are heard. Rotated, so that nobody is first every time.
    heard: Vec<u32>,
    /// Those that were spoken to and whose clients may have to be woken, oldest first.
    spoken: Vec<u32>,
    /// Those with a backlog.
    full: Vec<u32>,
    /// How many there are.
    attached: usize,
}

/// What a look at the rings found.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Something was said.
    pub(crate) any: bool,
    /// Rings that are not what they should be: their connections end.
    pub(crate) corrupt: Vec<(ConnectionKey, Corrupt)>,
}

impl Rings {
    /// A connection goes on through shared memory.
    pub(crate) fn attach(&mut self, connection: ConnectionKey, link: LinkId, segment: Arc<Segment>) {
        let slot = connection.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        let ring = Ring {
            connection,
            link,
            segment,
            requests: Receiver::default(),
            replies: Sender::default(),
            backlog: Vec::new(),
            heard: false,
            paused: false,
            spoken: false,
            silent: 0,
        };
        self.attached += 1;
        self.by_slot[slot] = Some(ring);
        self.hear(connection);
    }

    /// A connection is gone. Nothing it still says is heard; a client that sleeps on its memory looks up once more, to see
    /// the last that was said and then the end of its socket.
    pub(crate) fn detach(&mut self, connection: ConnectionKey) {
        if let Some(ring) = self.at(connection) {
            publish_fence();
            if ring.segment.parking().to_wake() == Waiting::Futex {
                wait::unpark(ring.segment.parking());
            }
            self.by_slot[connection.slot as usize] = None;
            self.attached -= 1;
            for list in [&mut self.heard, &mut self.spoken, &mut self.full] {
                list.retain(|slot| *slot != connection.slot);
            }
        }
    }

    /// Whether a connection's bytes travel here.
    pub(crate) fn has(&self, connection: ConnectionKey) -> bool {
        self.by_slot
            .get(connection.slot as usize)
            .is_some_and(|ring| ring.as_ref().is_some_and(|ring| ring.connection == connection))
    }

    fn at(&mut self, connection: ConnectionKey) -> Option<&mut Ring> {
        let ring = self.by_slot.get_mut(connection.slot as usize)?.as_mut()?;
        (ring.connection == connection).then_some(ring)
    }

    /// Whether any client shares memory with this shard.
    pub(crate) fn are_attached(&self) -> bool {
        self.attached > 0
    }

    /// Whether any pass has rings to look at.
    pub(crate) fn are_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Looks at the rings that are heard, this often if there is one and less often if there are many, until one of them
    /// has something to say.
    pub(crate) fn look(&self, times: u32) -> bool {
        let heard = u32::try_from(self.heard.len()).unwrap_or(u32::MAX).max(1);
        let says_something = |slot: &u32| {
            let ring = self.by_slot.get(*slot as usize).and_then(Option::as_ref);
            ring.is_some_and(|ring| !ring.paused && ring.requests.is_ready(ring.segment.requests()))
        };
        for _ in 0..(times / heard).max(1) {
            if self.heard.iter().any(says_something) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// The client rang: each pass looks at its ring from now on.
    pub(crate) fn hear(&mut self, connection: ConnectionKey) {
        let Some(ring) = self.at(connection) else { return };
        ring.silent = 0;
        if !ring.heard {
            ring.heard = true;
            ring.segment.attention().listen();
            self.heard.push(connection.slot);
        }
    }

    /// Nothing more is read of this connection for now, or again.
    pub(crate) fn pause(&mut self, connection: ConnectionKey, paused: bool) {
        if let Some(ring) = self.at(connection) {
            ring.paused = paused;
        }
        if !paused {
            // What was said meanwhile rang a bell that nobody followed.
            self.hear(connection);
        }
    }

    /// Takes what the heard rings say, from each its share, and gives it to `take`.
    pub(crate) fn gather(&mut self, mut take: impl FnMut(ConnectionKey, &[u8])) -> Gathered {
        let mut gathered = Gathered::default();
        if self.heard.len() > 1 {
            self.heard.rotate_left(1);
        }
        for index in 0..self.heard.len() {
            let slot = self.heard[index] as usize;
            let Some(ring) = self.by_slot.get_mut(slot).and_then(Option::as_mut) else { continue };
            if ring.paused || !ring.requests.is_ready(ring.segment.requests()) {
                ring.silent = ring.silent.saturating_add(1);
                continue;
            }
            gathered.any = true;
            ring.silent = 0;
            if let Err(corrupt) = ring.receive(REQUESTS_PER_PASS, &mut take) {
                gathered.corrupt.push((ring.connection, corrupt));
            }
        }
        gathered
    }

    /// Takes everything one ring still says, because its client says no more.
    pub(crate) fn drain(&mut self, connection: ConnectionKey, mut take: impl FnMut(ConnectionKey, &[u8])) {
        if let Some(ring) = self.at(connection) {
            // A corrupt one has said its last word; its connection ends anyway.
            let _ = ring.receive(fairlock_shm::segment::RING_SLOTS, &mut take);
        }
    }

    /// Publishes replies; what finds no slot waits. Leaves `out` empty.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub(crate) fn send(&mut self, connection: ConnectionKey, out: &mut Vec<u8>) -> Result<(), Corrupt> {
        let Some(ring) = self.at(connection) else {
            out.clear();
            return Ok(());
        };
        if ring.backlog.is_empty() {
            let sent = ring.replies.send(ring.segment.replies(), out)?;
            ring.backlog.extend_from_slice(&out[sent..]);
            if !ring.backlog.is_empty() {
                self.full.push(connection.slot);
            }
        } else {
            ring.backlog.append(out);
        }
        out.clear();
        self.note_spoken(connection);
        Ok(())
    }

    fn note_spoken(&mut self, connection: ConnectionKey) {
        if let Some(ring) = self.at(connection)
            && !std::mem::replace(&mut ring.spoken, true)
        {
            self.spoken.push(connection.slot);
        }
    }

    /// Bytes that wait for slots.
    pub(crate) fn backlog(&mut self, connection: ConnectionKey) -> usize {
        self.at(connection).map_or(0, |ring| ring.backlog.len())
    }

    /// Publishes what found no slot before. Gives the connections whose backlog is gone, and corrupt ones.
    pub(crate) fn retry(&mut self, drained: &mut Vec<ConnectionKey>) -> Vec<(ConnectionKey, Corrupt)> {
        let mut corrupt = Vec::new();
        for slot in std::mem::take(&mut self.full) {
            let Some(ring) = self.by_slot.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            let connection = ring.connection;
            match ring.replies.send(ring.segment.replies(), &ring.backlog) {
                Ok(0) => self.full.push(slot),
                Ok(sent) => {
                    ring.backlog.drain(..sent);
                    if ring.backlog.is_empty() {
                        // What a slow reader once needed is not kept for it.
                        ring.backlog = Vec::new();
                        drained.push(connection);
                    } else {
                        self.full.push(slot);
                    }
                    self.note_spoken(connection);
                }
                Err(error) => corrupt.push((connection, error)),
            }
        }
        corrupt
    }

    /// Whether something waits for slots.
    pub(crate) fn are_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Wakes clients that sleep and were spoken to, a few a pass. Those that poll their socket are named, to be rung.
    pub(crate) fn wake(&mut self, ring_sockets: &mut Vec<LinkId>) {
        if self.spoken.is_empty() {
            return;
        }
        publish_fence();
        let mut woken = 0;
        let mut done = 0;
        while done < self.spoken.len() && woken < WAKES_PER_PASS {
            let slot = self.spoken[done] as usize;
            done += 1;
            let Some(ring) = self.by_slot.get_mut(slot).and_then(Option::as_mut) else { continue };
            ring.spoken = false;
            match ring.segment.parking().to_wake() {
                Waiting::Looking => {}
                Waiting::Futex => {
                    wait::unpark(ring.segment.parking());
                    woken += 1;
                }
                Waiting::Socket => {
                    ring_sockets.push(ring.link);
                    woken += 1;
                }
            }
        }
        self.spoken.drain(..done);
    }

    /// Whether clients are still to be woken.
    pub(crate) fn has_sleepers(&self) -> bool {
        !self.spoken.is_empty()
    }

    /// Rings that have been silent for long are heard no more. Says on each that the shard looks no more by itself, and
    /// looks once more.
    pub(crate) fn hush_silent(&mut self) {
        self.hush(|ring| ring.silent >= SILENT_PASSES_MAX);
    }

    /// The shard is about to sleep: says so on every ring that is heard. `false`: one of them has something to say, and it
    /// must not sleep.
    pub(crate) fn doze(&mut self) -> bool {
        self.hush(|_| true);
        self.heard.is_empty()
    }

    fn hush(&mut self, which: impl Fn(&Ring) -> bool) {
        let by_slot = &mut self.by_slot;
        self.heard.retain(|&slot| {
            let Some(ring) = by_slot.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
            if !which(ring) {
                return true;
            }
            let attention = ring.segment.attention();
            attention.doze();
            if ring.requests.is_ready(ring.segment.requests()) && !ring.paused {
                attention.listen();
                ring.silent = 0;
                return true;
            }
            ring.heard = false;
            false
        });
    }
}

impl Ring {
    /// Gives at most so many pieces to `take`, several at a time.
    fn receive(&mut self, pieces: usize, take: &mut impl FnMut(ConnectionKey, &[u8])) -> Result<(), Corrupt> {
        let ring = self.segment.requests();
        let mut outcome = Ok(());
        for _ in 0..pieces {
            match self.requests.receive(ring) {
                Ok(Some(piece)) => take(self.connection, piece.bytes()),
                Ok(None) => break,
                Err(corrupt) => {
                    outcome = Err(corrupt);
                    break;
                }
            }
        }
        self.requests.give_back(ring);
        outcome
    }
}

/// When stamps are refreshed: often enough that a client's deadline, which counts from the newest one, loses little, and
/// seldom enough that a server whose clients are idle sleeps (docs/decisions).
#[derive(Debug)]
pub(crate) struct Stamps {
    due: Tick,
}

/// How often the shard's line of the beacon is stamped while any client shares memory with it.
const STAMP_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

impl Stamps {
    /// Due at once.
    pub(crate) fn new() -> Stamps {
        Stamps { due: Tick::ZERO }
    }

    /// Whether it is time; then the next time is later.
    pub(crate) fn take(&mut self, now: Tick) -> bool {
        let due = now >= self.due;
        if due {
            self.due = now.after(STAMP_EVERY);
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Tick {
        self.due
    }
}

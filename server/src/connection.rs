//! One connection as a shard sees it: what it has said so far, which session it acts for, and what waits to be sent.
//! No socket is here; whoever owns it appends what arrived and takes away what is to be written.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use fairlock_locktable::command::SessionKey;
use fairlock_protocol::limits::READ_BACKLOG_BYTES_MAX;
use fairlock_protocol::{Frame, Malformed, Tick, Transport};

use crate::driver::peer::PeerCredentials;
use crate::shard::words::Words;

/// An empty buffer larger than this is given back to the allocator.
const KEEP_BYTES: usize = 64 * 1024;

/// Who is at the other end.
#[derive(Debug)]
pub(crate) enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this host.
    Unix(Box<UnixPeer>),
}

/// A process on this host, as the kernel names it.
#[derive(Debug)]
pub(crate) struct UnixPeer {
    /// Who connected.
    pub(crate) credentials: PeerCredentials,
    /// Becomes readable when that process ends.
    pub(crate) pidfd: OwnedFd,
    /// Read end of a pipe that came with the HELLO: hangs up when the last of its descendants is gone.
    pub(crate) pipe: Option<OwnedFd>,
}

impl Peer {
    /// The address that counts against the cap of one host; processes on this host have none.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix(_) => None,
        }
    }
}

/// One connection of a shard: slot and generation, so that a late event reaches nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its HELLO has not arrived whole.
    Greeting,
    /// Its HELLO names another shard: it leaves at the end of the pass, and nothing reads or writes it until then.
    Moving,
    /// It was welcomed and has said nothing since.
    Welcomed,
    /// It talks, for no session.
    Talking,
    /// Its OPEN waits until the lease is on disk; it may not open or take up another session meanwhile.
    Opening,
    /// It acts for a session.
    Bound(SessionKey),
    /// It was told its last word; nothing it says is read.
    Ending,
}

/// The state of one connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts, none a state of another")]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
    /// Its turn among those without a session, while it counts against the caps.
    pub(crate) unbound: Option<u64>,
    /// When the HELLO, or the first frame after it, must be there.
    pub(crate) greeting_due: Tick,
    /// Since when the beginning of a frame waits for its end.
    pub(crate) partial_since: Option<Tick>,
    /// What is to be written.
    pub(crate) out: Vec<u8>,
    /// `out` is on the list of this pass.
    pub(crate) dirty: bool,
    /// What is to be written when its round has come back.
    pub(crate) held: Vec<u8>,
    /// So much of it waits for the rounds of earlier passes.
    assigned: usize,
    /// Something was added to it in this pass.
    pub(crate) is_holding: bool,
    /// Its client wants proofs of its grants.
    pub(crate) proves: bool,
    /// It has a whole frame that no pass has taken yet, and stands on the list of those.
    pub(crate) ready: bool,
    /// Reading was stopped because too much is waiting here.
    pub(crate) paused: bool,
    /// Too many of its answers are not written yet: its requests wait for them.
    pub(crate) stalled: bool,
    /// The peer is gone; what it said before is still served, and nothing is answered.
    pub(crate) hung_up: bool,
    /// It was this side that ended it.
    pub(crate) dropped: bool,
    /// Of a connection through shared memory: the grants that stay with its client.
    pub(crate) words: Option<Words>,
    inbound: Vec<u8>,
    taken: usize,
}

impl Connection {
    pub(crate) fn new(peer: Peer, words: Option<Words>, greeting_due: Tick) -> Connection {
        Connection {
            peer,
            words,
            phase: Phase::Greeting,
            unbound: None,
            greeting_due,
            partial_since: None,
            out: Vec::new(),
            dirty: false,
            held: Vec::new(),
            assigned: 0,
            is_holding: false,
            proves: false,
            ready: false,
            paused: false,
            stalled: false,
            hung_up: false,
            dropped: false,
            inbound: Vec::new(),
            taken: 0,
        }
    }

    /// How the client reaches us.
    pub(crate) fn transport(&self) -> Transport {
        match (&self.words, &self.peer) {
            (Some(_), _) => Transport::Shm,
            (None, Peer::Tcp(_)) => Transport::Tcp,
            (None, Peer::Unix(_)) => Transport::Unix,
        }
    }

    /// Ends a pass: gives how many bytes of it wait for its round.
    pub(crate) fn hold(&mut self) -> usize {
        self.is_holding = false;
        let added = self.held.len() - self.assigned;
        self.assigned = self.held.len();
        added
    }

    /// So many bytes have waited long enough.
    pub(crate) fn let_go(&mut self, bytes: usize) {
        let bytes = bytes.min(self.assigned);
        self.assigned -= bytes;
        self.out.extend(self.held.drain(..bytes));
    }

    /// What waits will never be said; whether anything did.
    pub(crate) fn forget_held(&mut self) -> bool {
        let was_owed = !self.held.is_empty();
        self.held.clear();
        (self.assigned, self.is_holding) = (0, false);
        was_owed
    }

    /// Appends what arrived.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        if self.taken == self.inbound.len() {
            self.inbound.clear();
            self.taken = 0;
        } else if self.taken > READ_BACKLOG_BYTES_MAX / 2 {
            self.inbound.drain(..self.taken);
            self.taken = 0;
        }
        self.inbound.extend_from_slice(bytes);
    }

    /// Bytes that no pass has taken yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.inbound[self.taken..]
    }

    /// Whether a whole frame (or one that cannot be right) is waiting.
    pub(crate) fn has_frame(&self) -> bool {
        !matches!(Frame::split(self.unread()), Ok(None))
    }

    /// Takes the input away for the time of a pass, so that its frames can be read while the shard changes.
    pub(crate) fn take_inbound(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.inbound), self.taken)
    }

    /// Gives the input back, read as far as `taken`.
    pub(crate) fn give_inbound(&mut self, inbound: Vec<u8>, taken: usize) {
        assert!(taken <= inbound.len(), "no more is taken than was there");
        assert!(self.inbound.is_empty(), "nothing arrives in the middle of a pass");
        if taken == inbound.len() && inbound.capacity() > KEEP_BYTES {
            // A burst that was served must not cost its memory for as long as the connection lives.
            self.taken = 0;
            return;
        }
        self.inbound = inbound;
        self.taken = taken;
    }

    /// The next whole frame at `at`, and where the one after it begins.
    pub(crate) fn frame_at(inbound: &[u8], at: usize) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
        Ok(Frame::split(&inbound[at..])?.map(|(frame, length)| (frame, at + length)))
    }

    /// The session it acts for.
    pub(crate) fn session(&self) -> Option<SessionKey> {
        match self.phase {
            Phase::Bound(session) => Some(session),
            _ => None,
        }
    }

    /// Whether it acts for no session and so counts against the caps.
    pub(crate) fn is_unbound(&self) -> bool {
        !matches!(self.phase, Phase::Bound(_) | Phase::Ending)
    }
}

/// All connections of a shard, by key.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<(u32, Option<Connection>)>,
    free: Vec<u32>,
    live: usize,
}

impl Connections {
    /// Takes a connection in.
    pub(crate) fn insert(&mut self, connection: Connection) -> ConnectionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("descriptors run out long before 2^32 connections")
        });
        let (generation, place) = &mut self.slots[slot as usize];
        assert!(place.is_none(), "a free slot is empty");
        *generation = generation.wrapping_add(1);
        *place = Some(connection);
        self.live += 1;
        ConnectionKey { slot, generation: *generation }
    }

    /// Lets a connection go.
    pub(crate) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        let (generation, place) = self.slots.get_mut(key.slot as usize)?;
        if *generation != key.generation {
            return None;
        }
        let connection = place.take()?;
        self.free.push(key.slot);
        self.live -= 1;
        Some(connection)
    }

    /// A connection, if it is still there.
    pub(crate) fn at(&self, key: ConnectionKey) -> Option<&Connection> {
        let (generation, place) = self.slots.get(key.slot as usize)?;
        if *generation == key.generation { place.as_ref() } else { None }
    }

    /// A connection to change, if it is still there.
    pub(crate) fn at_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let (generation, place) = self.slots.get_mut(key.slot as usize)?;
        if *generation == key.generation { place.as_mut() } else { None }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The keys of all, in slot order.
    pub(crate) fn keys(&self) -> Vec<ConnectionKey> {
        let live = self.slots.iter().zip(0_u32..).filter(|((_, place), _)| place.is_some());
        live.map(|((generation, _), slot)| ConnectionKey { slot, generation: *generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let peer = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 9)));
        Connection::new(peer, None, Tick::ZERO)
    }

    #[test]
    fn a_late_event_of_a_gone_connection_reaches_nobody() {
        let mut connections = Connections::default();
        let first = connections.insert(connection());
        assert!(connections.remove(first).is_some());
        let second = connections.insert(connection());
        assert_eq!(first.slot, second.slot);
        assert!(connections.at(first).is_none() && connections.at(second).is_some());
        assert!(connections.remove(first).is_none());
        assert_eq!((connections.len(), connections.keys()), (1, vec![second]));
    }

    #[test]
    fn input_is_kept_in_order_across_passes_and_does_not_grow_without_end() {
        let mut connection = connection();
        for round in 0..200_u32 {
            connection.receive(&[u8::try_from(round % 251).unwrap(); 4096]);
            let (inbound, taken) = connection.take_inbound();
            let upto = (taken + 4000).min(inbound.len());
            connection.give_inbound(inbound, upto);
        }
        assert_eq!(connection.unread().len(), 200 * 96);
        assert!(connection.inbound.capacity() <= 4 * READ_BACKLOG_BYTES_MAX);
    }
}

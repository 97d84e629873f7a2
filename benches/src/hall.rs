//! A lock table with sessions in it, driven the way a shard drives it: every request acknowledges first, then asks.
//! Names are numbers; their digests are mixed from the number, so that the table is measured and not the digest.

use fairlock_locktable::command::{Acquire, Attributes, Command, Ended, Lease, Open, SessionKey, Wait};
use fairlock_locktable::effect::{Answer, Effect, Effects};
use fairlock_locktable::{Limits, NamespaceRules, Settings, Table};
use fairlock_protocol::{
    Digest, Epoch, GrantId, Mode, Name, Namespace, OwnerId, Priority, RequestId, Resource, Secret, SessionId,
    ShardId, Tick,
};

/// One session's place.
#[derive(Clone, Copy, Debug)]
struct Seat {
    key: SessionKey,
    requests: u64,
    received: u64,
}

/// A table and its sessions.
#[derive(Debug)]
pub struct Hall {
    /// The table.
    pub table: Table,
    effects: Effects,
    seats: Vec<Seat>,
    now: Tick,
    opened: u32,
}

/// A bijective mix of 64 bits (the finaliser of `splitmix64`).
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The digest of the name with this number.
pub const fn digest(number: u64) -> Digest {
    Digest([mix(number), mix(!number)])
}

impl Hall {
    /// A table with this many sessions, whose leases never run out by themselves.
    pub fn with_sessions(sessions: usize) -> Hall {
        let everything = u32::MAX / 4;
        let mut limits = Limits::default();
        (limits.locks_per_session, limits.waiters_per_resource) = (everything, everything);
        let table = Table::new(Settings {
            epoch: Epoch::new(1).expect("one is an epoch"),
            shard: ShardId(0),
            index_key: 0x5EED,
            limits,
            rules: NamespaceRules::new(),
        });
        let now = Tick::from_millis(1_000_000);
        let mut hall = Hall { table, effects: Effects::new(), seats: Vec::new(), now, opened: 0 };
        for _ in 0..sessions {
            let seat = hall.enter();
            hall.seats.push(seat);
        }
        hall
    }

    fn enter(&mut self) -> Seat {
        self.opened += 1;
        let epoch = Epoch::new(1).expect("one is an epoch");
        let open = Open {
            id: SessionId::new(epoch, ShardId(0), self.opened).expect("shard 0 fits"),
            secret: Secret(u128::from(self.opened)),
            ttl_ms: 60_000,
            lease: Lease::Watched,
            visiting: false,
            identity: b"",
            reclaim_key: b"",
            predecessor_gone: false,
            attributes: Attributes::default(),
        };
        self.apply(Command::Open(open));
        match self.effects.last() {
            Some(&Effect::Opened { session, .. }) => Seat { key: session, requests: 0, received: 0 },
            other => panic!("a session was refused: {other:?}"),
        }
    }

    fn apply(&mut self, command: Command<'_>) {
        self.effects.clear();
        self.table.apply(self.now, command, &mut self.effects);
        for effect in &self.effects {
            // A seat's number is its slot: sessions here enter in order, and who leaves comes back to the same slot.
            if let Effect::Answered { session, kept: true, .. } = *effect
                && let Some(seat) = self.seats.get_mut(session.slot as usize)
            {
                seat.received += 1;
            }
        }
    }

    /// The next request number of a session, after its acknowledgement.
    fn next_request(&mut self, seat: usize) -> (SessionKey, RequestId) {
        let place = &mut self.seats[seat];
        place.requests += 1;
        let (session, request, received) = (place.key, RequestId(place.requests), place.received);
        self.effects.clear();
        self.table.apply(self.now, Command::Acknowledge { session, received }, &mut self.effects);
        (session, request)
    }

    /// Asks for a lock, exclusively; gives the grant.
    ///
    /// # Errors
    /// The number of the request, which waits.
    pub fn acquire(&mut self, seat: usize, number: u64, wait: Wait) -> Result<GrantId, RequestId> {
        let (session, request) = self.next_request(seat);
        let name = crate::raw::name(number);
        let resource =
            Resource { namespace: Namespace::DEFAULT, name: Name::new(&name).expect("16 bytes are a name") };
        self.apply(Command::Acquire(Acquire {
            session,
            request,
            digest: digest(number),
            resource,
            mode: Mode::EX,
            priority: Priority::LOWEST,
            wait,
            owner: OwnerId(request.0),
            reentrant: false,
            notify: false,
            lock_delay_ms: 0,
            max_hold_ms: 0,
            label: b"",
        }));
        self.granted().map_or(Err(request), |(_, grant)| Ok(grant))
    }

    /// Gives a grant back.
    pub fn release(&mut self, seat: usize, grant: GrantId) {
        let (session, request) = self.next_request(seat);
        self.apply(Command::Release { session, request, grant });
    }

    /// Withdraws a waiting request.
    pub fn cancel(&mut self, seat: usize, target: RequestId) {
        let (session, request) = self.next_request(seat);
        self.apply(Command::Cancel { session, request, target });
    }

    /// A session expires, with everything it has, and another one takes its seat.
    pub fn replace(&mut self, seat: usize) {
        let session = self.seats[seat].key;
        self.apply(Command::End { session, why: Ended::Expired });
        let fresh = self.enter();
        assert_eq!(fresh.key.slot as usize, seat, "the slot that came free is used first");
        self.seats[seat] = fresh;
    }

    /// Goes to the next moment at which time decides something and applies it; the seat whose wait ended.
    pub fn time_passes(&mut self) -> Option<usize> {
        // Not every moment the table names decides something: at some of them timers only move nearer.
        let command = loop {
            self.now = self.now.max(self.table.next_due()?);
            if let Some(command) = self.table.due(self.now) {
                break command;
            }
        };
        self.apply(command);
        self.effects.iter().find_map(|effect| match *effect {
            Effect::Answered { session, .. } => Some(session.slot as usize),
            _ => None,
        })
    }

    /// Who was granted a lock by the last command, and which.
    pub fn granted(&self) -> Option<(usize, GrantId)> {
        self.effects.iter().find_map(|effect| match *effect {
            Effect::Answered { session, answer: Answer::Granted(granted), .. } => {
                Some((session.slot as usize, granted.grant))
            }
            _ => None,
        })
    }

    /// Takes the locks of these numbers, the sessions in turn.
    pub fn hold(&mut self, numbers: std::ops::Range<u64>) -> Vec<GrantId> {
        let seats = self.seats.len();
        let mut grants = Vec::with_capacity(usize::try_from(numbers.end - numbers.start).unwrap_or(0));
        for (number, turn) in numbers.zip((0..seats).cycle()) {
            grants.push(self.acquire(turn, number, Wait::Try).expect("nobody holds it"));
        }
        grants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_lets_the_next_one_in() {
        let mut hall = Hall::with_sessions(2);
        let grant = hall.acquire(0, 7, Wait::Forever).unwrap();
        assert!(hall.acquire(1, 7, Wait::Forever).is_err());
        hall.release(0, grant);
        assert_eq!(hall.granted().map(|(seat, _)| seat), Some(1));
    }

    #[test]
    fn a_wait_ends_when_time_passes_and_a_seat_is_taken_again() {
        let mut hall = Hall::with_sessions(2);
        hall.acquire(0, 7, Wait::Forever).unwrap();
        assert!(hall.acquire(1, 7, Wait::Millis(5)).is_err());
        assert_eq!(hall.time_passes(), Some(1));
        hall.replace(0);
        assert!(hall.acquire(1, 7, Wait::Try).is_ok());
    }
}

//! The side that calls: one stream for each shard, side by side, or one alone to learn who lives there.
//!
//! What comes of it decides about takeovers, so nothing is called a death that need not be one. `Other` was proven.
//! `Refused` is said only when the kernel there answered for a process that does not listen, on every address and every
//! stream; whatever else goes wrong is silence.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::Builder;
use std::time::Duration;

use fairlock_replication::Member;
use fairlock_replication::node::Dialed;

use super::introduction::{Presentation, Purpose, Request, Unsuited, judge};
use super::resolve::addresses;
use super::secret::Role;
use super::wire::{Limit, Wire};
use super::words::Reply;
use super::{Introduction, Trouble};

/// How long a dial may take, if nobody says otherwise.
pub(crate) const DIAL_TIME: Duration = Duration::from_secs(1);
/// Streams that are made at the same time; far fewer than a node answers at once ([`super::listen`]), so that some
/// followers can dial together.
const STREAMS_AT_ONCE: u16 = 16;
/// Room of a thread that makes streams, in bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Dials the listed member, for every shard or to probe it. Takes `limit` at most. The streams are in the order of their
/// shards, and there only with [`Dialed::Up`].
pub(crate) fn dial(
    me: &Introduction,
    wanted: &Member,
    probe: bool,
    limit: Duration,
) -> (Dialed, Vec<OwnedFd>) {
    let limit = Limit::of(limit);
    let addresses = match addresses(&wanted.peer, limit) {
        Ok(addresses) => addresses,
        Err(why) => return (Dialed::Silent(why), Vec::new()),
    };
    let dialling = Dialling { me, wanted, addresses, limit };
    if probe {
        return (dialling.stream(Purpose::Probe).err().unwrap_or(Dialed::Alive), Vec::new());
    }
    outcome_of(dialling.streams(), me.shards)
}

/// All streams, or the weightiest reason why not.
fn outcome_of(mut made: Vec<(u16, Result<OwnedFd, Dialed>)>, shards: u16) -> (Dialed, Vec<OwnedFd>) {
    made.sort_unstable_by_key(|(shard, _)| *shard);
    let (mut streams, mut failed) = (Vec::new(), Vec::new());
    for (_, result) in made {
        match result {
            Ok(stream) => streams.push(stream),
            Err(outcome) => failed.push(outcome),
        }
    }
    match failed.into_iter().max_by_key(weight) {
        None => {
            assert_eq!(streams.len(), usize::from(shards), "nothing failed, so every shard has its stream");
            (Dialed::Up, streams)
        }
        // It answered a moment ago: it may be ending, which the next dial will show.
        Some(Dialed::Refused) if !streams.is_empty() => {
            (Dialed::Silent("some streams were refused".to_owned()), Vec::new())
        }
        Some(outcome) => (outcome, Vec::new()),
    }
}

/// What is known for certain outweighs what may pass.
fn weight(outcome: &Dialed) -> u8 {
    match outcome {
        Dialed::Up | Dialed::Alive => 0,
        Dialed::Refused => 1,
        Dialed::Silent(_) => 2,
        Dialed::Busy(_) => 3,
        Dialed::Unproven(_) => 4,
        Dialed::Rejected(_) => 5,
        Dialed::Other(_) => 6,
    }
}

/// A dial under way.
struct Dialling<'a> {
    me: &'a Introduction,
    wanted: &'a Member,
    addresses: Vec<SocketAddr>,
    limit: Limit,
}

impl Dialling<'_> {
    /// What became of every shard's stream; with the first that fails, the rest is not begun.
    fn streams(&self) -> Vec<(u16, Result<OwnedFd, Dialed>)> {
        let (next, over) = (AtomicU16::new(0), AtomicBool::new(false));
        let work = || {
            let mut made = Vec::new();
            // Relaxed: each number is handed out once, and a late look at `over` costs one stream more.
            while !over.load(Ordering::Relaxed) {
                let shard = next.fetch_add(1, Ordering::Relaxed);
                if shard >= self.me.shards {
                    break;
                }
                let stream = self.stream(Purpose::Follow { shard });
                over.fetch_or(stream.is_err(), Ordering::Relaxed);
                made.push((shard, stream));
            }
            made
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.me.shards.min(STREAMS_AT_ONCE))
                .map(|_| Builder::new().name("fairlock-dial".into()).stack_size(STACK_BYTES))
                // Without a thread the others do its work.
                .filter_map(|builder| builder.spawn_scoped(scope, work).ok())
                .collect();
            let mut made = work();
            for thread in others {
                made.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            made
        })
    }

    /// One stream to the life that is wanted, over whichever address leads there.
    fn stream(&self, purpose: Purpose) -> Result<OwnedFd, Dialed> {
        let mut worst = Dialed::Refused;
        for (index, address) in self.addresses.iter().enumerate() {
            let limit = self.limit.share(self.addresses.len() - index);
            let outcome = match self.stream_to(address, purpose, limit) {
                Ok(stream) => return Ok(stream),
                Err(outcome) => outcome,
            };
            match outcome {
                Dialed::Refused | Dialed::Silent(_) | Dialed::Busy(_) => {
                    if weight(&outcome) > weight(&worst) {
                        worst = outcome;
                    }
                }
                known => return Err(known),
            }
        }
        Err(worst)
    }

    fn stream_to(&self, address: &SocketAddr, purpose: Purpose, limit: Limit) -> Result<OwnedFd, Dialed> {
        let silent = |why: &dyn std::fmt::Display| Dialed::Silent(format!("{address}: {why}"));
        let left = limit.left().map_err(|late| silent(&late))?;
        let socket = TcpStream::connect_timeout(address, left).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Dialed::Refused,
            _ => silent(&error),
        })?;
        // Where nobody listens on a port that is free for everybody, a connection can meet itself.
        if socket.local_addr().is_ok_and(|own| own == *address) {
            return Err(Dialed::Refused);
        }
        let request = self.request(purpose);
        let met = self.introduce(socket, &request, limit);
        let (stream, answerer) = met.map_err(|trouble| outcome(address, &trouble))?;
        match judge(&request, &answerer) {
            Ok(()) => Ok(stream),
            Err(Unsuited::OtherLife { .. }) => Err(Dialed::Other(answerer.member)),
            Err(unsuited) => Err(outcome(address, &unsuited.into())),
        }
    }

    fn request(&self, purpose: Purpose) -> Request {
        Request {
            caller: self.me.presentation(),
            purpose,
            wanted: self.wanted.node.clone(),
            wanted_life: self.wanted.incarnation,
        }
    }

    fn introduce(
        &self,
        socket: TcpStream,
        request: &Request,
        limit: Limit,
    ) -> Result<(OwnedFd, Presentation), Trouble> {
        let mut wire = Wire::new(socket, limit)?;
        let ours = wire.say_opening(self.me)?;
        let theirs = wire.hear_opening()?;
        if theirs.busy {
            return Err(Trouble::Busy);
        }
        if theirs.nonce == ours.nonce {
            return Err(Trouble::Echo);
        }
        if ours.secret != theirs.secret {
            return Err(Trouble::OneSecret { ours: ours.secret });
        }
        wire.say_sentence(self.me, Role::Caller, &request.encode())?;
        let (fields, is_proven) = wire.hear_sentence(self.me, Role::Answerer)?;
        // Whoever is there could say this of our proof, or fail to prove its own: the secrets differ either way.
        if !is_proven {
            return Err(Trouble::WrongProof);
        }
        match Reply::decode(&fields)? {
            Reply::WrongProof => Err(Trouble::WrongProof),
            Reply::Present(answerer) => Ok((wire.into_socket()?, answerer)),
        }
    }
}

/// What a failed introduction says about who is there.
fn outcome(address: &SocketAddr, trouble: &Trouble) -> Dialed {
    let text = format!("{address}: {trouble}");
    match trouble {
        Trouble::Reset => Dialed::Refused,
        Trouble::Busy => Dialed::Busy(text),
        Trouble::Version { .. } | Trouble::OneSecret { .. } | Trouble::WrongProof => Dialed::Unproven(text),
        Trouble::Unsuited(
            Unsuited::OtherCell { .. }
            | Unsuited::Myself { .. }
            | Unsuited::Namesake { .. }
            | Unsuited::OtherShards { .. },
        ) => Dialed::Rejected(text),
        // Who has taken the address over says nothing about the member that had it: it may be dead or alive.
        Trouble::Unsuited(Unsuited::OtherNode { .. } | Unsuited::OtherLife { .. })
        | Trouble::Late { .. }
        | Trouble::Ended
        | Trouble::NotAPeer
        | Trouble::Echo
        | Trouble::TooLong { .. }
        | Trouble::Malformed(_)
        | Trouble::Io { .. } => Dialed::Silent(text),
    }
}

#[cfg(test)]
mod tests;

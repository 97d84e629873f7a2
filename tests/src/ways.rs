//! The ways to reach a server that must not make a difference: either driver, either kind of socket or shared memory, one
//! shard or two.

use crate::server::{Io, Plan, Server};
use fairlock::Transport;
use std::sync::OnceLock;

/// What the bytes travel through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TCP on loopback.
    Tcp,
    /// The Unix socket.
    Unix,
    /// Memory that was passed over the Unix socket.
    Shm,
}

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which driver moves the server's bytes.
    pub io: Io,
    /// What the clients use.
    pub door: Door,
    /// How many shards there are.
    pub shards: u16,
}

/// The drivers this machine has: epoll always, `io_uring` where the kernel lets us. `FAIRLOCK_IO` picks one.
pub fn drivers() -> &'static [Io] {
    static URING: OnceLock<bool> = OnceLock::new();
    match std::env::var("FAIRLOCK_IO").as_deref() {
        Ok("uring") => return &[Io::Uring],
        Ok("epoll") => return &[Io::Epoll],
        _ => {}
    }
    let uring = URING.get_or_init(|| {
        let works = Plan::new(Io::Uring).try_start().is_ok();
        if !works {
            eprintln!("io_uring is blocked on this machine: only epoll is tested");
        }
        works
    });
    if *uring { &[Io::Uring, Io::Epoll] } else { &[Io::Epoll] }
}

/// Every way over a socket; a client of the library that is not told otherwise goes through memory where it can.
pub fn all() -> Vec<Way> {
    ways(&[Door::Tcp, Door::Unix], &[1, 2])
}

/// Every way over a socket with one shard.
pub fn single() -> Vec<Way> {
    ways(&[Door::Tcp, Door::Unix], &[1])
}

/// Every way of a client of the library.
pub fn of_clients() -> Vec<Way> {
    ways(&[Door::Tcp, Door::Unix, Door::Shm], &[1, 2])
}

fn ways(doors: &[Door], shards: &[u16]) -> Vec<Way> {
    let mut ways = Vec::new();
    for &io in drivers() {
        for &door in doors {
            ways.extend(shards.iter().map(|&shards| Way { io, door, shards }));
        }
    }
    ways
}

impl Way {
    /// How a server is started for it. Prints the way, so that a failure says which it was.
    pub fn plan(self) -> Plan {
        eprintln!("--- {self:?}");
        Plan::new(self.io).shards(self.shards)
    }

    /// Where its clients find the server.
    pub fn endpoint(self, server: &Server) -> String {
        match self.door {
            Door::Tcp => server.tcp(),
            Door::Unix | Door::Shm => server.unix(),
        }
    }

    /// What its clients are told to use.
    pub fn transport(self) -> Transport {
        match self.door {
            Door::Tcp => Transport::Tcp,
            Door::Unix => Transport::Unix,
            Door::Shm => Transport::Shm,
        }
    }
}

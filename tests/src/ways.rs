//! The ways to reach a server that must not make a difference: either driver, either kind of socket, one shard or two.

use crate::server::{Io, Plan, Server};
use std::sync::OnceLock;

/// Which kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TCP on loopback.
    Tcp,
    /// The Unix socket.
    Unix,
}

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which driver moves the server's bytes.
    pub io: Io,
    /// Which socket the clients use.
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

/// Every way.
pub fn all() -> Vec<Way> {
    ways(&[1, 2])
}

/// Every way with one shard.
pub fn single() -> Vec<Way> {
    ways(&[1])
}

fn ways(shards: &[u16]) -> Vec<Way> {
    let mut ways = Vec::new();
    for &io in drivers() {
        for door in [Door::Tcp, Door::Unix] {
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
            Door::Unix => server.unix(),
        }
    }
}

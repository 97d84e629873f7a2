//! Streams between nodes: in order, or dead. A cut direction holds what is sent until it heals.

use std::collections::BTreeMap;

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub host: usize,
    pub life: u64,
}

/// What goes along a stream; `None`: it ends.
pub type Parcel = Option<Vec<u8>>;

/// A stream of one shard.
#[derive(Debug)]
pub struct Stream {
    pub shard: u16,
    /// Who dialed, and who was.
    pub ends: [End; 2],
    /// When each end has it.
    pub born: [u64; 2],
    /// When what was sent last from this end arrives.
    pub last: [u64; 2],
    /// Sent from this end into a cut.
    pub held: [Vec<Parcel>; 2],
    /// This end sends no more.
    pub closed: [bool; 2],
}

/// All of them, and the state of the wires.
#[derive(Debug)]
pub struct Network {
    pub streams: BTreeMap<u64, Stream>,
    pub next: u64,
    /// From host to host nothing arrives.
    pub cut: Vec<Vec<bool>>,
    /// Between a host and the register nothing arrives: questions, answers.
    pub register_cut: Vec<[bool; 2]>,
    /// Longest time on the way from a host, ns.
    pub slow: Vec<u64>,
}

impl Network {
    pub fn new(hosts: usize) -> Network {
        Network {
            streams: BTreeMap::new(),
            next: 1,
            cut: vec![vec![false; hosts]; hosts],
            register_cut: vec![[false; 2]; hosts],
            slow: vec![0; hosts],
        }
    }

    pub fn is_whole(&self, one: usize, other: usize) -> bool {
        !self.cut[one][other] && !self.cut[other][one]
    }
}

//! A pass of a shard's thread: everything that has arrived is handed in, then the shard steps, then what it wants done is done.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlock_protocol::Tick;
use fairlock_replication::replica::LinkKey;
use fairlock_server::deciding::{Doings, Line, Told};

use super::host::{CONTROL, Errand, Task};
use super::network::{End, Network, Parcel};
use super::{Event, US, World};

impl World {
    /// A shard's thread makes a pass.
    pub(super) fn run_shard(&mut self, host: usize, life: u64, shard: u16, at: u64) {
        let clock = self.hosts[host].clock;
        if self.hosts[host].life != life {
            return;
        }
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        if desk.wakes_at != at {
            return;
        }
        desk.wakes_at = u64::MAX;
        if desk.stalled_until > self.now {
            return self.wake_shard(host, shard, self.now);
        }
        let now = clock.shows(self.now);
        let inbox = std::mem::take(&mut desk.inbox);
        // What streams brought comes before what other threads said, as in a server's pass.
        let (parcels, letters): (Vec<_>, Vec<_>) =
            inbox.into_iter().partition(|task| matches!(task, Task::Parcel(..)));
        let mut known = Vec::new();
        for task in parcels.into_iter().chain(letters) {
            if let Some(stream) = self.take_task(host, shard, now, task) {
                known.push(stream);
            }
        }
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        let doings = desk.shard.step(now);
        self.passes += 1;
        self.carry_out(host, life, shard, doings);
        for (stream, side) in known {
            self.known_now(stream, side);
        }
        self.look_at_table(host, shard);
        let Some(desk) = self.hosts[host].desk(shard) else { return };
        if desk.shard.is_busy() {
            return self.wake_shard(host, shard, self.now + 2 * US);
        }
        if let Some(due) = desk.shard.next_due() {
            let due = clock.truth(due).max(self.now + 2 * US);
            self.wake_shard(host, shard, due);
        }
    }

    /// Hands one thing to a shard. Gives the stream that is known from now on.
    fn take_task(&mut self, host: usize, shard: u16, now: Tick, task: Task) -> Option<(u64, usize)> {
        let there = match &task {
            Task::Peer(number, ..) | Task::Adopt(number, _) => self.network.streams.contains_key(number),
            _ => true,
        };
        let desk = self.hosts[host].desk(shard)?;
        match task {
            Task::Letter(letter) => desk.shard.letter(now, letter),
            Task::Peer(number, side, peer) => {
                desk.shard.peer_linked(now, LinkKey(number), peer, side == 0);
                if !there {
                    desk.shard.peer_unlinked(now, LinkKey(number));
                    return None;
                }
                desk.peers.insert(number, side);
                return Some((number, side));
            }
            Task::Adopt(number, bytes) => {
                if there {
                    let line = desk.shard.connected(now, address(number));
                    desk.shard.received(line, &bytes);
                    desk.lines.insert(number, line);
                    return Some((number, 1));
                }
            }
            Task::Parcel(number, parcel) => match (desk.peers.contains_key(&number), parcel) {
                (true, Parcel::Bytes(bytes)) => desk.shard.peer_received(LinkKey(number), &bytes),
                (true, _) => {
                    desk.peers.remove(&number);
                    desk.shard.peer_unlinked(now, LinkKey(number));
                    self.send(number, usize::from(desk_side(&self.network, number, host)), Parcel::Close);
                }
                (false, Parcel::Connect) => {
                    let line = desk.shard.connected(now, address(number));
                    desk.lines.insert(number, line);
                }
                (false, Parcel::Bytes(bytes)) => {
                    if let Some(&line) = desk.lines.get(&number) {
                        desk.shard.received(line, &bytes);
                    }
                }
                (false, Parcel::Close) => {
                    if let Some(line) = desk.lines.remove(&number) {
                        desk.shard.disconnected(line);
                        self.send(number, 1, Parcel::Close);
                    }
                }
            },
        }
        None
    }

    fn carry_out(&mut self, host: usize, life: u64, shard: u16, doings: Doings) {
        for (key, bytes) in doings.streams {
            let side = self.hosts[host].desk(shard).and_then(|desk| desk.peers.get(&key.0).copied());
            if let Some(side) = side {
                self.send(key.0, side, Parcel::Bytes(bytes));
            }
        }
        for key in doings.hang_ups {
            let side = self.hosts[host].desk(shard).and_then(|desk| desk.peers.remove(&key.0));
            if let Some(side) = side {
                self.send(key.0, side, Parcel::Close);
            }
        }
        for (line, bytes) in doings.writes {
            if let Some(number) = self.number_of(host, shard, line) {
                self.send(number, 1, Parcel::Bytes(bytes));
            }
        }
        for line in doings.closes {
            if let Some(number) = self.number_of(host, shard, line) {
                if let Some(desk) = self.hosts[host].desk(shard) {
                    desk.lines.remove(&number);
                }
                self.send(number, 1, Parcel::Close);
            }
        }
        for (line, to, received) in doings.moves {
            if let Some(number) = self.number_of(host, shard, line) {
                if let Some(desk) = self.hosts[host].desk(shard) {
                    desk.lines.remove(&number);
                }
                if let Some(stream) = self.network.streams.get_mut(&number) {
                    stream.ends[1] = End::Node(host, life, to);
                    stream.early[1] = Some(Vec::new());
                }
                self.tell_shard(host, shard, to, Task::Adopt(number, received));
            }
        }
        for (to, letter) in doings.letters {
            self.tell_shard(host, shard, to, Task::Letter(letter));
        }
        for note in doings.notes {
            let at = self.lane(host, shard, CONTROL);
            self.put_at(at, Event::Errand(host, life, Box::new(Errand::Told(Told::Note(note)))));
        }
    }

    fn number_of(&mut self, host: usize, shard: u16, line: Line) -> Option<u64> {
        let desk = self.hosts[host].desk(shard)?;
        desk.lines.iter().find(|(_, known)| **known == line).map(|(number, _)| *number)
    }
}

/// Which side of a stream a node is.
fn desk_side(network: &Network, number: u64, host: usize) -> bool {
    let ends = network.streams.get(&number).map(|stream| stream.ends);
    !matches!(ends, Some([End::Node(maker, ..), _]) if maker == host)
}

/// Every client has an address of its own.
fn address(number: u64) -> SocketAddr {
    let low = u32::try_from(number & 0xFF_FFFF).expect("masked to 24 bits");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0A00_0000 | low)), 1000)
}

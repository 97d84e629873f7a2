//! A cell with somebody who holds locks for the whole time, and somebody who pings one: what a fault did to either is known
//! afterwards.

use crate::depth_one::connect;
use crate::ground::{Ground, Manner};
use fairlock::{Client, Guard, Refusal};
use fairlock_benches::cell::Cell;
use fairlock_benches::pinger::{Pinger, Window};
use std::io;
use std::time::Duration;

/// What a client gets that asks for nothing else.
const TTL: Duration = fairlock_protocol::limits::TTL_DEFAULT;
/// Pause of the pinging client. Without one it would take the time of those who take over.
const PAUSE: Duration = Duration::from_millis(1);
/// Locks that are held.
const HELD: usize = 100;
/// Answers after which the pinging client is served again, or calm.
const SERVED: u64 = 10;

/// See the module.
pub(crate) struct Scene {
    /// Somebody who pings.
    pub(crate) pinger: Pinger,
    guards: Vec<(Guard, u64)>,
    rival: Client,
    /// Held locks that were looked after, and those found lost.
    looked: usize,
    lost: usize,
    /// Pings that failed.
    faults: u64,
    nodes: usize,
    /// Last, so that clients can say goodbye.
    pub(crate) cell: Cell,
}

/// What is done to the primary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// `kill -9`.
    Killed,
    /// SIGSTOP; it goes on when another serves.
    Frozen,
}

impl Scene {
    /// Starts a cell of so many nodes, and both clients.
    pub(crate) fn start(ground: &Ground<'_>, nodes: usize) -> io::Result<Scene> {
        let cell = ground.cell(nodes, Manner::USUAL)?;
        let (client, holder, rival) = (connect(&cell, TTL)?, connect(&cell, TTL)?, connect(&cell, TTL)?);
        let hold = |number| {
            let guard = holder.lock(held_name(number)).acquire().map_err(io::Error::other)?;
            let token = guard.token().get();
            Ok((guard, token))
        };
        let guards: io::Result<Vec<_>> = (0..HELD).map(hold).collect();
        let pinger = Pinger::start(PAUSE, move || {
            let guard = client.lock("ping").acquire().map_err(io::Error::other)?;
            guard.release().map_err(io::Error::other)
        });
        let (guards, looked, lost, faults) = (guards?, 0, 0, 0);
        Ok(Scene { pinger, guards, rival, looked, lost, faults, nodes, cell })
    }

    /// Locks this scene itself holds.
    pub(crate) fn held(&self) -> u64 {
        self.guards.len() as u64
    }

    /// Waits until every node is a member and the pinging client is calm; who serves.
    pub(crate) fn calm(&self) -> io::Result<usize> {
        let primary = self.cell.settled(self.nodes)?;
        self.pinger.more(SERVED)?;
        Ok(primary)
    }

    /// Does it to the primary; what the pinging client noticed until another one served it. The primary of before and what
    /// has to be done to it then are [`Scene::mend`]'s.
    pub(crate) fn suffer(&mut self, fault: Fault) -> io::Result<(usize, Window)> {
        let primary = self.calm()?;
        self.pinger.begin();
        match fault {
            Fault::Killed => self.cell.nodes[primary].kill(),
            Fault::Frozen => self.cell.nodes[primary].freeze(),
        }
        self.pinger.more(SERVED)?;
        let window = self.pinger.window();
        self.faults += window.faults;
        self.look();
        Ok((primary, window))
    }

    /// Makes a node that suffered a member again.
    pub(crate) fn mend(&mut self, node: usize) -> io::Result<()> {
        self.cell.nodes[node].thaw();
        self.cell.nodes[node].start()?;
        self.cell.settled(self.nodes).map(drop)
    }

    /// Another primary takes over while `what` is done; what the pinging client noticed. `None`: it was not done.
    pub(crate) fn during(
        &mut self,
        what: impl FnOnce(&Cell, usize) -> io::Result<bool>,
    ) -> io::Result<Option<Window>> {
        let primary = self.calm()?;
        self.pinger.begin();
        if !what(&self.cell, primary)? {
            return Ok(None);
        }
        self.cell.primary_but(primary)?;
        self.pinger.more(SERVED)?;
        let window = self.pinger.window();
        self.faults += window.faults;
        self.look();
        Ok(Some(window))
    }

    /// Looks after everything that is held: its holder has it, under the same token, and nobody else gets it.
    fn look(&mut self) {
        self.looked += self.guards.len();
        let is_held = |(guard, token): &(Guard, u64)| guard.check().is_ok() && guard.token().get() == *token;
        self.lost += self.guards.iter().filter(|held| !is_held(held)).count();
        // One of them, in turn: a server that forgot them would give it away.
        let number = self.looked / HELD % HELD;
        let tried = self.rival.lock(held_name(number)).try_acquire();
        let is_refused = tried.is_err_and(|error| error.refusal() == Refusal::WouldBlock);
        self.lost += usize::from(!is_refused);
    }

    /// What became of the held locks and of the pings, in a line.
    pub(crate) fn verdict(&self) -> String {
        format!(
            "held locks looked after: {}, lost: {} (target 0); pings that failed: {}",
            self.looked, self.lost, self.faults
        )
    }
}

fn held_name(number: usize) -> String {
    format!("held/{number}")
}

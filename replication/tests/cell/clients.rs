//! Clients: each asks for one thing at a time, of whoever it thinks is primary, until it is answered.

use super::{Event, MS, Request, Task, World};

/// How long a client waits for an answer before it asks elsewhere.
const PATIENCE: u64 = 60 * MS;

#[derive(Debug)]
pub struct Client {
    target: usize,
    /// Newest number on each shard.
    numbers: Vec<u64>,
    pub asks: Option<Request>,
    /// Nothing new is asked.
    finished: bool,
    attempt: u64,
    pub answered: u64,
}

impl Client {
    pub fn new(shards: u16) -> Client {
        let numbers = vec![0; usize::from(shards)];
        Client { target: 0, numbers, asks: None, finished: false, attempt: 0, answered: 0 }
    }
}

impl World {
    /// A client's clock rings: ask, or ask again elsewhere.
    pub(super) fn client(&mut self, client: usize, attempt: u64) {
        if self.clients[client].attempt != attempt {
            return;
        }
        if self.clients[client].asks.is_none() {
            if self.clients[client].finished {
                return;
            }
            let shard = u16::try_from(self.random.below(u64::from(self.shards))).unwrap();
            let read = self.random.chance(400);
            let floor = self.checks.newest_seen(shard);
            let one = &mut self.clients[client];
            let number = &mut one.numbers[usize::from(shard)];
            *number += u64::from(!read);
            one.asks = Some(Request { client, shard, number: *number, read, floor, attempt });
        } else {
            self.clients[client].target = self.random.index(self.hosts.len());
        }
        self.ask(client);
    }

    fn ask(&mut self, client: usize) {
        let floor = self.clients[client].asks.map(|request| self.checks.newest_seen(request.shard));
        let one = &mut self.clients[client];
        one.attempt += 1;
        let (attempt, target) = (one.attempt, one.target);
        let Some(request) = &mut one.asks else { return };
        request.attempt = attempt;
        // A read asked again is another read.
        if request.read {
            request.floor = floor.unwrap_or(0);
        }
        let request = *request;
        let (life, delay) = (self.hosts[target].life, MS / 20 + self.random.below(MS / 2));
        if life != 0 {
            self.put(delay, Event::Shard(target, life, request.shard, Task::Request(request)));
        }
        self.put(PATIENCE, Event::Client(client, attempt));
    }

    pub(super) fn reply(&mut self, client: usize, attempt: u64, answer: Option<u64>) {
        if self.clients[client].attempt != attempt {
            return;
        }
        if answer.is_some() {
            let pause = self.random.between(MS, 12 * MS);
            self.clients[client].asks = None;
            self.clients[client].answered += 1;
            self.put(pause, Event::Client(client, attempt));
        } else {
            let pause = self.random.between(2 * MS, 10 * MS);
            let known = self.memory.value.as_ref().map_or(0, |stored| super::primary_of(stored).0);
            self.clients[client].target =
                if self.random.chance(700) { known } else { self.random.index(self.hosts.len()) };
            self.put(pause, Event::Client(client, attempt));
        }
    }

    /// What was answered so far counts no more.
    pub(super) fn clients_begin_anew(&mut self) {
        for client in &mut self.clients {
            client.answered = 0;
        }
    }

    pub(super) fn clients_finish(&mut self) {
        for client in &mut self.clients {
            client.finished = true;
        }
    }
}

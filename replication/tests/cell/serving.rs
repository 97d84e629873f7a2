//! Shards' threads: one pass for each thing that arrives, as the server makes them.

use fairlock_replication::message::{Message, Round};
use fairlock_replication::replica::{Input, LinkKey, Order, Output, Part, Report};

use super::host::Held;
use super::mistakes;
use super::table::{Operation, Table};
use super::{Event, Request, Task, World};

impl World {
    pub(super) fn shard(&mut self, host: usize, life: u64, shard: u16, task: Task) {
        if self.hosts[host].life != life {
            return;
        }
        let at = usize::from(shard);
        let now = self.hosts[host].clock.local(self.now);
        let here = &mut self.hosts[host].shards[at];
        let mut wants = false;
        match task {
            Task::Linked(key, peer, dialed) => {
                here.replica.step(now, Input::Linked { link: LinkKey(key), peer, dialed });
            }
            Task::Unlinked(key) => {
                here.replica.step(now, Input::Unlinked(LinkKey(key)));
                self.network.streams.remove(&key);
            }
            Task::Bytes(key, bytes) => self.hear((host, life, shard), key, &bytes),
            Task::Order(order) => {
                here.stepping_down -= u32::from(matches!(order, Order::StepDown | Order::Retire));
                here.replica.step(now, Input::Order(order));
            }
            Task::Tick(when) => {
                if here.tick_at != when {
                    return;
                }
                here.tick_at = u64::MAX;
                here.replica.step(now, Input::Tick);
            }
            Task::Request(request) => wants = self.take_in(host, shard, request),
        }
        self.end_pass(host, life, shard, wants);
    }

    /// Everything that came at once on a stream. Between two messages a shard may look at the outputs, or not.
    fn hear(&mut self, (host, life, shard): (usize, u64, u16), key: u64, bytes: &[u8]) {
        let now = self.hosts[host].clock.local(self.now);
        let mut rest = bytes;
        while let Some((message, length)) = Message::split(rest).expect("nobody sends nonsense") {
            let here = &mut self.hosts[host].shards[usize::from(shard)];
            here.replica.step(now, Input::Received(LinkKey(key), message));
            rest = &rest[length..];
            if self.random.chance(500) {
                self.outputs(host, life, shard);
            }
        }
    }

    fn end_pass(&mut self, host: usize, life: u64, shard: u16, wants: bool) {
        let at = usize::from(shard);
        let now = self.hosts[host].clock.local(self.now);
        self.outputs(host, life, shard);
        self.apply_committed(host, shard);
        let wants = wants | self.begin_office(host, shard);
        let here = &mut self.hosts[host].shards[at];
        let round = here.replica.end_pass(now, wants);
        let gate = if mistakes::expose_early() { 0 } else { round.map_or(0, |Round(round)| round) };
        for held in here.held.iter_mut().filter(|held| held.round == u64::MAX) {
            held.round = gate;
        }
        self.outputs(host, life, shard);
        self.apply_committed(host, shard);
        self.send_out(host, shard);
        self.note_commits(host, shard);
        self.release(host, shard);
        let here = &mut self.hosts[host].shards[at];
        if let Some(due) = here.replica.next_due() {
            let at = self.hosts[host].clock.world(due).max(self.now + super::MS / 20);
            let here = &mut self.hosts[host].shards[usize::from(shard)];
            if at < here.tick_at {
                here.tick_at = at;
                self.put_at(at, Event::Shard(host, life, shard, Task::Tick(at)));
            }
        }
    }

    /// A client's request: applied at once, answered when its round is over.
    fn take_in(&mut self, host: usize, shard: u16, request: Request) -> bool {
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        let serves = here.serves.is_some() && here.replica.part() == Part::Primary;
        if !serves || here.replica.is_full() {
            self.answer(request, None);
            return false;
        }
        let (number, answer) = here.table.newest[request.client];
        let (answer, lsn) = if request.read {
            (here.table.token, 0)
        } else if request.number <= number {
            // Asked before (R11); an older number is one whose answer the client has.
            if request.number < number {
                return false;
            }
            (answer, here.table.lsn)
        } else {
            let operation = Operation::Do(request.client, request.number);
            here.before = here.table.clone();
            let answer = here.table.apply(operation);
            let lsn = here.replica.append(&operation.encode());
            assert_eq!(lsn.0, here.table.lsn, "the table and its log go together");
            here.digests.push_back((here.table.lsn, here.table.digest));
            (answer, here.table.lsn)
        };
        let (view, arrived, origin) = (here.replica.view(), self.now, here.table.origin);
        let round = if request.read && mistakes::read_without_round() { 0 } else { u64::MAX };
        here.held.push_back(Held { round, request, arrived, answer, lsn, view, origin });
        true
    }

    fn outputs(&mut self, host: usize, life: u64, shard: u16) {
        let at = usize::from(shard);
        let now = self.hosts[host].clock.local(self.now);
        loop {
            let outputs = std::mem::take(self.hosts[host].shards[at].replica.outputs());
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                let here = &mut self.hosts[host].shards[at];
                match output {
                    Output::Report(report) => {
                        self.note_report(host, shard, &report);
                        self.report(host, life, shard, report);
                    }
                    Output::HangUp(LinkKey(key)) => self.close(key, host),
                    Output::Reset => here.reset(),
                    Output::SnapshotWanted(link) => {
                        self.apply_committed(host, shard);
                        let piece_bytes = if self.random.chance(500) { 6 } else { 40 };
                        let here = &mut self.hosts[host].shards[at];
                        let table = if mistakes::snapshot_is_stale() { &here.before } else { &here.table };
                        let pieces = table.pieces(piece_bytes);
                        let last = pieces.len() - 1;
                        here.replica.begin_snapshot(now, link);
                        for (at, piece) in pieces.into_iter().enumerate() {
                            here.replica.offer_piece(link, piece, at == last);
                        }
                    }
                    Output::Piece { bytes, last } => {
                        here.pieces.extend(bytes);
                        if last {
                            here.table = Table::from_bytes(&std::mem::take(&mut here.pieces));
                            here.replica.restored();
                        }
                    }
                }
            }
        }
    }

    fn note_report(&mut self, host: usize, shard: u16, report: &Report) {
        if self.loud {
            eprintln!("{:>10.3}   n{host}/{shard} {:.300}", self.now as f64 / 1e6, format!("{report:?}"));
        }
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        match report {
            Report::InOffice(epoch) => {
                here.entering = Some(epoch.get());
                here.serves = None;
            }
            Report::Promised(epoch) => {
                here.promised = here.promised.max(epoch.get());
                self.check_promise(host, shard, epoch.get());
            }
            Report::Yielded { complete } => {
                if *complete && !mistakes::keep_parked() {
                    self.note_commits(host, shard);
                    self.release(host, shard);
                    let rest = &self.hosts[host].shards[usize::from(shard)].held;
                    assert!(
                        rest.is_empty(),
                        "R3: n{host}/{shard} hands over, and owes {} answers",
                        rest.len()
                    );
                }
                self.hosts[host].shards[usize::from(shard)].end_office();
            }
            _ => {}
        }
    }

    pub(super) fn apply_committed(&mut self, host: usize, shard: u16) {
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        while let Some(bytes) = here.replica.next_committed() {
            let bytes = bytes.to_vec();
            let (part, commit) = (here.replica.part(), here.replica.commit_lsn().0);
            assert!(
                part == Part::Primary || here.table.lsn < commit,
                "R3: n{host}/{shard} applies what is not committed"
            );
            here.table.apply(Operation::decode(&bytes));
            here.digests.push_back((here.table.lsn, here.table.digest));
        }
    }

    /// A new office: what was inherited is applied, then its first operation.
    fn begin_office(&mut self, host: usize, shard: u16) -> bool {
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        let Some(epoch) = here.entering.take() else { return false };
        if here.replica.part() != Part::Primary {
            return false;
        }
        self.check_office(host, shard, epoch);
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        let operation = Operation::TakeOver(epoch);
        here.table.apply(operation);
        here.replica.append(&operation.encode());
        here.digests.push_back((here.table.lsn, here.table.digest));
        here.serves = Some(epoch);
        true
    }

    fn send_out(&mut self, host: usize, shard: u16) {
        let here = &mut self.hosts[host].shards[usize::from(shard)];
        let mut parcels = vec![];
        here.replica.take_out(|LinkKey(key), bytes| parcels.push((key, std::mem::take(bytes))));
        for (key, bytes) in parcels {
            self.check_acks(host, shard, &bytes);
            let Some(stream) = self.network.streams.get(&key) else { continue };
            let side = usize::from(stream.ends[0].host != host);
            self.send(key, side, Some(bytes));
        }
    }

    /// Lets out what its round has been answered for.
    fn release(&mut self, host: usize, shard: u16) {
        loop {
            let here = &mut self.hosts[host].shards[usize::from(shard)];
            let Round(released) = here.replica.released();
            match here.held.front() {
                Some(held) if held.round <= released => {}
                _ => return,
            }
            let Some(held) = here.held.pop_front() else { return };
            self.check_exposed(host, shard, &held);
            self.answer(held.request, Some(held.answer));
        }
    }

    fn answer(&mut self, request: Request, answer: Option<u64>) {
        let delay = super::MS / 20 + self.random.below(super::MS / 2);
        self.put(delay, Event::Reply(request.client, request.attempt, answer));
    }
}

impl super::host::Shard {
    /// What was here is void.
    fn reset(&mut self) {
        self.table = Table::default();
        self.pieces.clear();
        self.digests.clear();
        self.end_office();
    }

    fn end_office(&mut self) {
        if !mistakes::keep_parked() {
            self.held.clear();
        }
        (self.serves, self.entering) = (None, None);
    }
}

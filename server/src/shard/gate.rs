//! What a pass wrote waits for its round, in order: bytes for clients, ends of connections, messages to other shards (R3, R9).

use super::Shard;
use super::replicated::Batch;
use super::words::Words;
use crate::connection::ConnectionKey;
use fairlock_replication::replica::Part;

impl Shard {
    /// Where bytes for a connection wait for their round; `None` when they need not wait.
    pub(super) fn held_out(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        let replicated = self.replicated.as_mut().filter(|_| self.holds_back)?;
        let connection = self.connections.at_mut(key)?;
        if !std::mem::replace(&mut connection.is_holding, true) {
            replicated.written.push(key);
        }
        Some(&mut connection.held)
    }

    /// Lets go what everybody has acknowledged.
    pub(super) fn release(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let released = replicated.replica.released();
        while let Some(&(round, begun)) = replicated.begun.front()
            && round <= released
        {
            replicated.begun.pop_front();
            replicated.confirmed = begun;
        }
        while replicated.batches.front().is_some_and(|batch| batch.round <= released) {
            let Some(mut batch) = replicated.batches.pop_front() else { return };
            batch.ended.iter_mut().for_each(Words::end);
            for (key, bytes) in batch.writes {
                let Some(connection) = self.connections.at_mut(key) else { continue };
                connection.let_go(bytes);
                if !std::mem::replace(&mut connection.dirty, true) {
                    self.output.dirty.push(key);
                }
            }
            replicated.free.closes.extend(batch.closes);
            replicated.free.to_shards.extend(batch.to_shards);
        }
    }

    /// Nobody else has to acknowledge anything any more: what this pass has written so far need not wait for its round, and
    /// leaves before what it writes from here on. What earlier passes wrote has left already.
    pub(super) fn let_go_written(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        replicated.ended.drain(..).for_each(|mut words| words.end());
        for key in replicated.written.drain(..) {
            let Some(connection) = self.connections.at_mut(key) else { continue };
            let bytes = connection.hold();
            connection.let_go(bytes);
            if !std::mem::replace(&mut connection.dirty, true) {
                self.output.dirty.push(key);
            }
        }
    }

    /// Everything that has waited long enough leaves, before what need not wait since this node stands alone.
    fn set_free(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        self.output.close.splice(0..0, replicated.free.closes.drain(..));
        self.output.to_shards.splice(0..0, replicated.free.to_shards.drain(..));
    }

    /// Ends the pass towards other nodes: what was written waits for this pass's round.
    pub(super) fn end_replicated_pass(&mut self) {
        self.tell_joiner();
        let Some(replicated) = &mut self.replicated else { return };
        if !self.holds_back {
            assert!(replicated.written.is_empty(), "R3: what was written is in a batch, or was let go");
            replicated.replica.end_pass(self.now, false);
            if replicated.replica.part() == Part::Primary && replicated.replica.stands_alone() {
                replicated.confirmed = self.now;
            }
            return self.set_free();
        }
        let closes = std::mem::take(&mut self.output.close);
        let to_shards = std::mem::take(&mut self.output.to_shards);
        let ended = std::mem::take(&mut replicated.ended);
        let is_said = !replicated.written.is_empty() || !closes.is_empty() || !to_shards.is_empty();
        let wants = is_said || !ended.is_empty();
        let round = replicated.replica.end_pass(self.now, wants);
        if wants {
            let connections = &mut self.connections;
            let held = |key| Some((key, connections.at_mut(key)?.hold()));
            let writes = replicated.written.drain(..).filter_map(held).collect();
            let round = round.unwrap_or_default();
            replicated.batches.push_back(Batch { round, ended, writes, closes, to_shards });
        }
        // One that was begun earlier says nothing of now, also when it has come back since.
        let newest = replicated.replica.round();
        if std::mem::replace(&mut replicated.begun_newest, newest) < newest {
            replicated.begun.push_back((newest, self.now));
        }
        self.release();
        self.set_free();
    }
}

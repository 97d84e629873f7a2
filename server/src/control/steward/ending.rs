//! The end of a server: shards drain, shards stop, their threads are joined, and only then it is known whether the stop
//! was clean.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use fairlock_protocol::Tick;

use super::super::ExitReport;
use super::super::keeping::Keeping;
use super::super::stopping::{Phase, StopReason};
use super::Steward;
use crate::clock;
use crate::lanes::{Left, ToShard};
use crate::state::Leftovers;

/// How long shards that were told to stop are waited for: they close their sockets and write down what is held, at
/// hundreds of thousands of locks a second.
const STOP_TIME: Duration = Duration::from_mins(1);
/// How often it is checked meanwhile whether a shard's thread ended without a word.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is known of the shards' threads.
#[derive(Debug)]
pub(super) struct Shards {
    all: Vec<ShardThread>,
    /// The first reason to stop is the one that is told.
    reason: Option<StopReason>,
}

#[derive(Debug)]
struct ShardThread {
    thread: Option<JoinHandle<()>>,
    idle: bool,
    /// What it left, once it has stopped and said so.
    left: Option<Left>,
}

impl Shards {
    pub(super) fn new(threads: Vec<JoinHandle<()>>) -> Shards {
        let known = |thread| ShardThread { thread: Some(thread), idle: false, left: None };
        Shards { all: threads.into_iter().map(known).collect(), reason: None }
    }

    pub(super) fn is_idle(&mut self, shard: u16) {
        self.all.get_mut(usize::from(shard)).into_iter().for_each(|shard| shard.idle = true);
    }

    pub(super) fn has_stopped(&mut self, shard: u16, left: Left) {
        self.all.get_mut(usize::from(shard)).into_iter().for_each(|shard| shard.left = Some(left));
    }

    pub(super) fn are_idle(&self) -> bool {
        self.all.iter().all(|shard| shard.idle || shard.left.is_some())
    }

    /// Every shard has stopped, or its thread is gone, or they had their time.
    pub(super) fn are_over(&self, phase: Phase, now: Tick) -> bool {
        let gone = |shard: &ShardThread| {
            shard.left.is_some() || shard.thread.as_ref().is_none_or(JoinHandle::is_finished)
        };
        matches!(phase, Phase::Stopping { until } if now >= until || self.all.iter().all(gone))
    }

    /// Joins the threads that are over; what all of them left, by number, or `None` when one did not say.
    fn join(&mut self) -> Option<Vec<Left>> {
        for (number, shard) in self.all.iter_mut().enumerate() {
            // What said its last word ends by itself; what did not may hang for ever.
            let over = shard.left.is_some() || shard.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if !over {
                tracing::error!(shard = number, "a shard did not stop in time");
            } else if shard.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(shard = number, "a shard's thread panicked");
                shard.left = None;
            }
        }
        self.all.iter().map(|shard| shard.left).collect()
    }
}

/// What a server leaves, from what its shards left.
fn leftovers(shards: &[Left], in_order: bool) -> Leftovers {
    let sum = |count: fn(&Left) -> u32| shards.iter().map(count).fold(0, u32::saturating_add);
    let files = || shards.iter().map(|left| left.file).collect();
    Leftovers {
        sessions: sum(|left| left.sessions),
        holders: sum(|left| left.holders),
        recovering: shards.iter().any(|left| left.recovering),
        files: if in_order { files() } else { None },
    }
}

impl Steward {
    /// When the end needs looking after although nothing happens.
    pub(super) fn next_look(&self) -> Option<Tick> {
        match self.phase {
            Phase::Serving => None,
            Phase::Draining { until } => Some(until),
            Phase::Stopping { until } => Some(until.min(clock::now().after(LOOK_EVERY))),
        }
    }

    /// Somebody wants the server to end; `at_once` without waiting for holders.
    pub(super) fn asked_to_stop(&mut self, reason: StopReason, at_once: bool, now: Tick) {
        match self.phase {
            Phase::Stopping { .. } => return,
            Phase::Draining { .. } if !at_once => return,
            Phase::Serving | Phase::Draining { .. } => {}
        }
        tracing::info!(?reason, at_once, drain = ?self.drain, "stopping");
        self.shards.reason.get_or_insert(reason);
        if at_once || self.drain.is_zero() {
            return self.stop_shards(now);
        }
        if self.leave_cell(now) {
            return;
        }
        self.phase = Phase::Draining { until: now.after(self.drain) };
        self.lanes.iter_mut().for_each(|lane| lane.send(ToShard::Drain));
    }

    /// A shard ended unasked: a server that has lost part of its names must not go on with the rest.
    pub(super) fn shard_failed(&mut self, shard: u16, error: Option<io::Error>, now: Tick) {
        tracing::error!(shard, ?error, "a shard failed");
        self.shards.reason.get_or_insert(StopReason::ShardFailed { shard, error });
        self.stop_shards(now);
    }

    pub(super) fn stop_shards(&mut self, now: Tick) {
        if matches!(self.phase, Phase::Stopping { .. }) {
            return;
        }
        self.phase = Phase::Stopping { until: now.after(STOP_TIME) };
        self.lanes.iter_mut().for_each(|lane| lane.send(ToShard::Stop));
        if let Some(door) = &mut self.door {
            door.greetings.clear();
        }
    }

    /// Every shard is over: writes down how, and removes the socket's file.
    pub(super) fn end(&mut self) -> ExitReport {
        let told = self.shards.join();
        let reason = self.shards.reason.take().unwrap_or(StopReason::Asked);
        let in_order = !matches!(reason, StopReason::ShardFailed { .. });
        let left = told.map(|shards| leftovers(&shards, in_order));
        // A shard that ended without a word may have left leases: what is on disk says so already.
        let clean = left.as_ref().is_some_and(|left| {
            let Keeping::Alone(state) = &mut self.keeping else { return self.end_cell(left.holders) };
            state.stopped(left).unwrap_or_else(|error| {
                tracing::error!(%error, "the stop cannot be written down and will not count as clean");
                false
            })
        });
        self.door = None;
        self.admin = None;
        self.signals = None;
        let live_sessions = left.map_or(0, |left| left.holders);
        tracing::info!(clean, live_sessions, ?reason, "stopped");
        ExitReport { clean, live_sessions, reason }
    }
}

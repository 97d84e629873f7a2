//! Mistakes that a server around the core can make, for the program that makes them (`mutants.rs`).

#[cfg(mutants)]
use fairlock_replication::mutants::{Mutant, is as made};

#[cfg(not(mutants))]
#[derive(Clone, Copy)]
enum Mutant {
    ExposeBeforeAck,
    ReadWithoutRound,
    KeepParkedReplies,
    RestartKeepsIncarnation,
    TokenWithoutEpoch,
    SnapshotIsStale,
}

/// Nobody makes one here.
#[cfg(not(mutants))]
fn made(_: Mutant) -> bool {
    false
}

pub fn expose_early() -> bool {
    made(Mutant::ExposeBeforeAck)
}

pub fn read_without_round() -> bool {
    made(Mutant::ReadWithoutRound)
}

pub fn keep_parked() -> bool {
    made(Mutant::KeepParkedReplies)
}

pub fn restart_keeps_life() -> bool {
    made(Mutant::RestartKeepsIncarnation)
}

pub fn token_without_epoch() -> bool {
    made(Mutant::TokenWithoutEpoch)
}

pub fn snapshot_is_stale() -> bool {
    made(Mutant::SnapshotIsStale)
}

//! Mistakes to be made on purpose, one at a time: whatever tests the protocol has to notice each. They exist in builds with
//! `--cfg mutants` only; `tests/mutants.rs` makes them, docs/reliability.md lists what caught each.

use core::sync::atomic::{AtomicU8, Ordering};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An answer leaves before its round is over (R3).
    ExposeBeforeAck,
    /// A query is answered without a round (R9).
    ReadWithoutRound,
    /// Answers that wait are kept when an office ends.
    KeepParkedReplies,
    /// A new process takes its predecessor's incarnation (R8).
    RestartKeepsIncarnation,
    /// Tokens do not rise with the epoch (R10).
    TokenWithoutEpoch,
    /// A snapshot lacks the newest operation.
    SnapshotIsStale,
    /// A replica acknowledges below its promise (R4).
    AckOldEpoch,
    /// A take-over does not promise (R4).
    TakeOverWithoutPromise,
    /// An epoch below the promise is activated (R4).
    AcceptOldActivation,
    /// A follower keeps what another reign had behind the place where this one began (R5).
    KeepForeignSuffix,
    /// A new primary drops what it does not know to be committed (R5).
    TakeOverDropsSuffix,
    /// A new primary says at once that all it inherits is committed (R2).
    InheritedIsCommitted,
    /// A backup applies what is not committed (R3).
    ApplyUncommitted,
    /// The primary's own log alone makes a commit (R2).
    CommitIsOwnEnd,
    /// An acknowledgement counts for all that was sent (R2).
    AckMeansSent,
    /// A swap of unknown outcome counts as one that failed (R5, R7).
    UnknownIsFailure,
    /// A swap of unknown outcome counts as done (R5, R6).
    UnknownIsSuccess,
    /// A swap of unknown outcome counts as failed when its repetition fails (R7).
    FailedRepeatIsFailure,
    /// The smaller set counts before the register has it (R6).
    EvictBeforeSwap,
    /// A member whose stream ended does not count any more (R6).
    DropMemberWithoutSwap,
    /// A joiner is listed before it has everything (R7).
    JoinerToldAtOnce,
    /// A joiner with everything does not count until it is pinned (R7).
    JoinerDoesNotCount,
    /// A joiner does not count while it is being listed (R7).
    PinnedNotCounted,
    /// A joiner is let go when another change is listed (R7).
    ConfigureForgetsPin,
    /// A primary hands over before all is committed.
    HandOverUncommitted,
    /// Who does not answer a probe is gone (R13).
    GoneBySilence,
    /// Silence is never suspected (L1).
    NeverSuspect,
    /// A node does not wait until its replicas have stepped down.
    StepDownUnheard,
}

impl Mutant {
    /// All of them.
    pub const ALL: &'static [Mutant] = &[
        Mutant::ExposeBeforeAck,
        Mutant::ReadWithoutRound,
        Mutant::KeepParkedReplies,
        Mutant::RestartKeepsIncarnation,
        Mutant::TokenWithoutEpoch,
        Mutant::SnapshotIsStale,
        Mutant::AckOldEpoch,
        Mutant::TakeOverWithoutPromise,
        Mutant::AcceptOldActivation,
        Mutant::KeepForeignSuffix,
        Mutant::TakeOverDropsSuffix,
        Mutant::InheritedIsCommitted,
        Mutant::ApplyUncommitted,
        Mutant::CommitIsOwnEnd,
        Mutant::AckMeansSent,
        Mutant::UnknownIsFailure,
        Mutant::UnknownIsSuccess,
        Mutant::FailedRepeatIsFailure,
        Mutant::EvictBeforeSwap,
        Mutant::DropMemberWithoutSwap,
        Mutant::JoinerToldAtOnce,
        Mutant::JoinerDoesNotCount,
        Mutant::PinnedNotCounted,
        Mutant::ConfigureForgetsPin,
        Mutant::HandOverUncommitted,
        Mutant::GoneBySilence,
        Mutant::NeverSuspect,
        Mutant::StepDownUnheard,
    ];
}

/// The one that is made, counted from 1; 0 for none.
static SELECTED: AtomicU8 = AtomicU8::new(0);

/// From here on this mistake is made, and no other.
pub fn select(mutant: Option<Mutant>) {
    SELECTED.store(mutant.map_or(0, |mutant| mutant as u8 + 1), Ordering::Relaxed);
}

/// Whether this mistake is to be made.
pub fn is(mutant: Mutant) -> bool {
    SELECTED.load(Ordering::Relaxed) == mutant as u8 + 1
}

//! Which protocol is searched, and how far: the rules as they are meant in their two modes, every single way of weakening
//! them that a test names, and the bounds that keep the graph of states finite.

use Nap::{Check, Drain, Fence, NoteBell, SayAsleep, Scan};

/// How the server finds out about a plain store that has not left a client's store buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Clients release by a plain store; the server drains every buffer by membarrier before it sleeps on a revocation.
    Membarrier,
    /// Where membarrier is not to be had: clients release by xchg.
    Xchg,
}

/// One departure from the protocol. Each has a test that shows what it costs, or that it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakening {
    // The client.
    /// `wanted` is not looked at before the word is taken.
    NoGlance,
    /// `wanted` is not looked at after the word was taken.
    NoLook,
    /// The generation is read from the word instead of remembered from the reply.
    GenerationFromWord,
    /// A try that undoes its acquisition sends no message.
    SilentUndo,
    /// No fence between publishing a message and loading `listen`.
    UnfencedPublish,
    /// A release by plain store in the mode without membarrier.
    PlainRelease,
    /// The guard reads that the server is alive and nothing else.
    GuardReadsAlive,
    /// The guard reads alive and looks for VOID in `wanted`, not at the word. By itself this is sound.
    GuardReadsVoid,
    /// The guard reads the word only.
    GuardReadsWord,
    /// The flag of a grant without a word is not read.
    GuardReadsNoFlag,

    // The server and the messages.
    /// RELEASE is the return of the grant, of whatever generation.
    ReleaseReturnsAny,
    /// RELEASE of the generation is the return of the grant and of the word.
    ReleaseReturns,
    /// RELEASE of the generation is the return of the grant; the word is retired.
    ReleaseReturnsAndRetires,
    /// RELEASE acknowledges a retired word.
    ReleaseAcknowledges,
    /// A retired word is used again at once.
    NoAcknowledgement,
    /// The acknowledgement of a retired word is taken for the release of the lock.
    AcknowledgementReleases,
    /// A word is granted again with the generation it had.
    SameGeneration,
    /// The server takes words by swap, whatever stands in them.
    TakesHeld,
    /// A grant into a word does not announce the next waiter.
    NextNotAnnounced,
    /// A grant clears `wanted` after it published the word.
    WantedClearedLate,
    /// A waiter's cancel clears `wanted` and ends the revocation.
    CancelClears,
    /// Messages of a dead client are served.
    DeadRingServed,

    // Forced ends.
    /// `wanted` is cleared once the word is swapped.
    ForcedEndClears,
    /// `wanted` says "somebody waits" where it should say VOID.
    ForcedEndSaysWaiter,
    /// `wanted` is stored and the next one granted at once: no swap, no fence.
    ForcedEndUnfenced,
    /// A fence stands for the swap.
    ForcedEndFencedOnly,
    /// The flag of a grant without a word is stored and the next one granted at once.
    FlagUnfenced,

    // Going to sleep.
    NoMembarrier,
    NoCheck,
    CheckBeforeMembarrier,
    /// By itself this is sound.
    MembarrierBeforeAsleep,
    /// Before the scan, and without a word on the list too. By itself this is sound, and spares the fence of a publish.
    MembarrierAlways,
    /// Once for each word on the list, however often the server sleeps on it. By itself this is sound.
    MembarrierOnce,
    AsleepAfterScan,
    AsleepUnfenced,
    BellNotedAfterScan,
}

/// One step of the server on its way to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Nap {
    /// Note the bell's value: a ring from here on ends the sleep.
    NoteBell,
    SayAsleep,
    Fence,
    Scan,
    /// One processor's share of membarrier, if a word is on the revoking list.
    Drain(crate::memory::Processor),
    /// Try to take the word on the revoking list, if there is one.
    Check,
}

/// A mode with its weakenings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) mode: Mode,
    weakened: u64,
    pub(crate) falling_asleep: &'static [Nap],
}

impl Rules {
    pub(crate) const MEMBARRIER: Self =
        Self { mode: Mode::Membarrier, weakened: 0, falling_asleep: FALLING_ASLEEP };
    pub(crate) const XCHG: Self = Self { mode: Mode::Xchg, weakened: 0, falling_asleep: FALLING_ASLEEP_XCHG };

    pub(crate) fn but(mut self, weakening: Weakening) -> Self {
        self.weakened |= 1 << weakening as u32;
        self.falling_asleep = match (self.mode, weakening) {
            (_, Weakening::NoMembarrier) => FALLING_ASLEEP_XCHG,
            (Mode::Membarrier, Weakening::NoCheck) => &[NoteBell, SayAsleep, Fence, Scan, FIRST, SECOND],
            (Mode::Xchg, Weakening::NoCheck) => &[NoteBell, SayAsleep, Fence, Scan],
            (_, Weakening::CheckBeforeMembarrier) => {
                &[NoteBell, SayAsleep, Fence, Scan, Check, FIRST, SECOND]
            }
            (_, Weakening::MembarrierBeforeAsleep) => {
                &[NoteBell, FIRST, SECOND, SayAsleep, Fence, Scan, Check]
            }
            (_, Weakening::MembarrierAlways) => &[NoteBell, SayAsleep, Fence, FIRST, SECOND, Scan, Check],
            (_, Weakening::AsleepAfterScan) => &[NoteBell, Scan, SayAsleep, Fence, FIRST, SECOND, Check],
            (_, Weakening::AsleepUnfenced) => &[NoteBell, SayAsleep, Scan, FIRST, SECOND, Check],
            (_, Weakening::BellNotedAfterScan) => &[SayAsleep, Fence, Scan, NoteBell, FIRST, SECOND, Check],
            _ => self.falling_asleep,
        };
        self
    }

    pub(crate) fn has(&self, weakening: Weakening) -> bool {
        self.weakened & (1 << weakening as u32) != 0
    }

    /// Is a release an xchg?
    pub(crate) fn releases_by_xchg(&self) -> bool {
        self.mode == Mode::Xchg && !self.has(Weakening::PlainRelease)
    }
}

const FIRST: Nap = Drain(crate::memory::Processor::First);
const SECOND: Nap = Drain(crate::memory::Processor::Second);
const FALLING_ASLEEP: &[Nap] = &[NoteBell, SayAsleep, Fence, Scan, FIRST, SECOND, Check];
const FALLING_ASLEEP_XCHG: &[Nap] = &[NoteBell, SayAsleep, Fence, Scan, Check];

/// Whether the threads' acquisitions may be tries, which fail instead of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tries {
    None,
    Some,
    /// Tries cost nothing of the budget; how often one hides the word from the server is counted.
    Endless,
}

/// How far one run goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Acquisitions each thread may begin.
    pub(crate) acquisitions: [u8; 2],
    /// How often the remote session may ask.
    pub(crate) visits: u8,
    /// Grants into the word by the server, the one at the start not counted.
    pub(crate) grants: u8,
    pub(crate) forced_ends: u8,
    pub(crate) cancels: u8,
    pub(crate) crashes: u8,
    pub(crate) deaths: u8,
    /// How often the word may go to another lock of the same client.
    pub(crate) reuses: u8,
    pub(crate) tries: Tries,
    /// Processors of the client: 2, or 1 for both threads.
    pub(crate) processors: u8,
    /// Does the client own the word, free, at the start?
    pub(crate) cached: bool,
}

impl Bounds {
    /// The smallest history with every part in it: one remote waiter, one re-grant.
    pub(crate) const SMALL: Self = Self {
        acquisitions: [2, 1],
        visits: 1,
        grants: 1,
        forced_ends: 0,
        cancels: 0,
        crashes: 0,
        deaths: 0,
        reuses: 0,
        tries: Tries::None,
        processors: 2,
        cached: true,
    };
}

//! Histories at random: steps made of small numbers, which `play.rs` reads against whoever is alive at that moment,
//! so that a history that lost some of its steps in shrinking still means something.

use super::play::RESOURCES;
use super::{Ended, House, Mode, Rules, STRICT, Wait};
use core::time::Duration;
use fairlock_protocol::Discipline;
use proptest::prelude::*;

/// One thing that happens. Picks are indices modulo what there is to pick from.
#[derive(Clone, Debug)]
pub enum Step {
    /// `lease`: 0 ended by silence, 1 watched, 2 visiting from another shard.
    Open {
        identity: u8,
        other_key: bool,
        gone: bool,
        ttl_ms: u32,
        lease: u8,
    },
    End {
        session: u8,
        why: Ended,
    },
    Acquire(Wish),
    AcquireAll {
        session: u8,
        modes: [Option<Mode>; RESOURCES],
        wait: Wait,
        owner: u8,
    },
    Release {
        grant: u8,
        by_another: bool,
    },
    Convert {
        grant: u8,
        mode: Mode,
        wait: Wait,
    },
    Cancel {
        wait: u8,
        of_nothing: bool,
    },
    /// An earlier request comes again, the same or another one under its number.
    Again {
        back: u8,
        changed: bool,
    },
    Break {
        resource: u8,
        force: bool,
    },
    Kill {
        session: u8,
        force: bool,
    },
    Confirm {
        grant: u8,
    },
    /// Time passes; those in the mask are renewed before, then what is due is carried out.
    Pass {
        ms: u64,
        renewed: u8,
    },
    /// What will be due after `ms` is decided now and carried out with later steps, perhaps too late to matter.
    Decide {
        ms: u64,
    },
    Acknowledge {
        session: u8,
        missing: u8,
    },
    Resume {
        session: u8,
        missing: u8,
    },
    Epoch,
    /// A new primary takes office: one that was a backup so far, or the same again.
    TakeOver {
        by: u8,
    },
    /// One more node gets a snapshot and follows from there.
    Join,
}

/// A request for a lock.
#[derive(Clone, Debug)]
pub struct Wish {
    pub session: u8,
    pub resource: u8,
    pub mode: Mode,
    pub priority: u8,
    pub wait: Wait,
    pub owner: u8,
    pub reentrant: bool,
    pub notify: bool,
    pub lock_delay_ms: u32,
    pub max_hold_ms: u32,
}

pub fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        1 => Just(Mode::NL), 2 => Just(Mode::CR), 2 => Just(Mode::CW),
        4 => Just(Mode::PR), 2 => Just(Mode::PW), 5 => Just(Mode::EX),
    ]
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![
        2 => Just(Wait::Try),
        3 => prop::sample::select(vec![1_u64, 30, 150, 900]).prop_map(Wait::Millis),
        5 => Just(Wait::Forever),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let delay = prop_oneof![5 => Just(0_u32), 1 => Just(120_u32), 1 => Just(2500)];
    let hold = prop_oneof![6 => Just(0_u32), 1 => Just(60_u32), 1 => Just(400)];
    (any::<u8>(), 0..5_u8, mode(), wait(), 0..3_u8, (any::<bool>(), any::<bool>()), delay, hold).prop_map(
        |(session, resource, mode, wait, owner, (reentrant, notify), lock_delay_ms, max_hold_ms)| Wish {
            session,
            resource: resource / 2,
            mode,
            priority: session / 16 % 8,
            wait,
            owner,
            reentrant,
            notify,
            lock_delay_ms,
            max_hold_ms,
        },
    )
}

fn bundle() -> impl Strategy<Value = Step> {
    let modes = [0; RESOURCES].map(|_| prop::option::weighted(0.7, mode()));
    (any::<u8>(), modes, wait(), 0..3_u8).prop_map(|(session, modes, wait, owner)| Step::AcquireAll {
        session,
        modes,
        wait,
        owner,
    })
}

fn why() -> impl Strategy<Value = Ended> {
    prop::sample::select(vec![Ended::Closed, Ended::Expired, Ended::Died, Ended::Killed, Ended::Replaced])
}

fn open() -> impl Strategy<Value = Step> {
    let ttl = prop::sample::select(vec![200_u32, 1000, 5000, 5000, 30_000]);
    (0..5_u8, prop::bool::weighted(0.15), any::<bool>(), ttl, 0..7_u8).prop_map(
        |(identity, other_key, gone, ttl_ms, lease)| {
            let (identity, lease) = (identity.saturating_sub(2), lease.saturating_sub(4));
            // Whether a key fits is decided where a session is at home; two shards that disagree are not our story.
            let other_key = other_key && identity == 2;
            let lease = if identity == 2 { lease % 2 } else { lease };
            Step::Open { identity, other_key, gone, ttl_ms, lease }
        },
    )
}

fn pass() -> impl Strategy<Value = Step> {
    let ms = prop::sample::select(vec![1_u64, 1, 5, 20, 40, 40, 100, 100, 200, 1000, 3000]);
    prop_oneof![
        5 => (ms.clone(), any::<u8>()).prop_map(|(ms, renewed)| Step::Pass { ms, renewed: renewed | 0x15 }),
        1 => (ms.clone(), any::<u8>()).prop_map(|(ms, renewed)| Step::Pass { ms, renewed }),
        1 => ms.prop_map(|ms| Step::Decide { ms }),
    ]
}

/// A step of a general history.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => open(),
        2 => (any::<u8>(), why()).prop_map(|(session, why)| Step::End { session, why }),
        16 => wish().prop_map(Step::Acquire),
        6 => bundle(),
        8 => (any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(grant, by_another)| Step::Release { grant, by_another }),
        7 => (any::<u8>(), mode(), wait()).prop_map(|(grant, mode, wait)| Step::Convert { grant, mode, wait }),
        3 => (any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(wait, of_nothing)| Step::Cancel { wait, of_nothing }),
        3 => (any::<u8>(), prop::bool::weighted(0.3)).prop_map(|(back, changed)| Step::Again { back, changed }),
        1 => (any::<u8>(), prop::bool::weighted(0.3)).prop_map(|(resource, force)| Step::Break { resource, force }),
        1 => (any::<u8>(), prop::bool::weighted(0.3)).prop_map(|(session, force)| Step::Kill { session, force }),
        1 => any::<u8>().prop_map(|grant| Step::Confirm { grant }),
        8 => pass(),
        3 => (any::<u8>(), 0..3_u8).prop_map(|(session, missing)| Step::Acknowledge { session, missing }),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(session, missing)| Step::Resume { session, missing }),
        1 => Just(Step::Epoch),
        1 => any::<u8>().prop_map(|by| Step::TakeOver { by }),
        1 => Just(Step::Join),
    ]
}

/// A step of a storm: many short waits on one resource that time out, are withdrawn, and lose their sessions.
pub fn storm_step() -> impl Strategy<Value = Step> {
    let short = prop_oneof![4 => (1..40_u64).prop_map(Wait::Millis), 1 => Just(Wait::Forever)];
    let rush = (wish(), short).prop_map(|(wish, wait)| {
        Step::Acquire(Wish {
            resource: 0,
            wait,
            owner: wish.session,
            max_hold_ms: wish.max_hold_ms / 4,
            ..wish
        })
    });
    prop_oneof![
        20 => rush,
        5 => bundle(),
        6 => (any::<u8>(), Just(false)).prop_map(|(wait, of_nothing)| Step::Cancel { wait, of_nothing }),
        4 => (any::<u8>(), Just(false)).prop_map(|(grant, by_another)| Step::Release { grant, by_another }),
        4 => (any::<u8>(), mode()).prop_map(|(grant, mode)| Step::Convert { grant, mode, wait: Wait::Millis(7) }),
        2 => (any::<u8>(), why()).prop_map(|(session, why)| Step::End { session, why }),
        2 => (any::<u8>(), Just(false)).prop_map(|(back, changed)| Step::Again { back, changed }),
        6 => (1..30_u64, any::<u8>()).prop_map(|(ms, renewed)| Step::Pass { ms, renewed }),
        1 => Just(Step::Join),
        3 => (1..30_u64).prop_map(|ms| Step::Decide { ms }),
        2 => open(),
    ]
}

/// A step of a crush: readers and writers who hold, wait and hold on while they wait, so that queues are long and owners
/// stand in several.
pub fn crush_step() -> impl Strategy<Value = Step> {
    let asked =
        prop::sample::select(vec![Mode::PR, Mode::PR, Mode::CR, Mode::CW, Mode::EX, Mode::EX, Mode::EX]);
    let patience = prop_oneof![
        1 => Just(Wait::Try), 1 => prop::sample::select(vec![30_u64, 900]).prop_map(Wait::Millis),
        8 => Just(Wait::Forever),
    ];
    let rush = (wish(), asked, patience, 0..9_u8).prop_map(|(wish, mode, wait, owner)| {
        let wish = Wish { mode, wait, owner, lock_delay_ms: 0, max_hold_ms: 0, ..wish };
        Step::Acquire(wish)
    });
    prop_oneof![
        24 => rush,
        3 => bundle(),
        12 => (any::<u8>(), Just(false)).prop_map(|(grant, by_another)| Step::Release { grant, by_another }),
        2 => (any::<u8>(), mode(), wait()).prop_map(|(grant, mode, wait)| Step::Convert { grant, mode, wait }),
        3 => (any::<u8>(), Just(false)).prop_map(|(wait, of_nothing)| Step::Cancel { wait, of_nothing }),
        1 => (any::<u8>(), why()).prop_map(|(session, why)| Step::End { session, why }),
        6 => (1..120_u64).prop_map(|ms| Step::Pass { ms, renewed: 0xFF }),
        1 => Just(Step::Join),
        1 => any::<u8>().prop_map(|by| Step::TakeOver { by }),
        2 => open(),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let discipline = prop_oneof![
        1 => Just(Discipline::Strict), 3 => Just(Discipline::Phase), 6 => Just(Discipline::Priority),
    ];
    let budget = prop::sample::select(vec![1_u32, 1, 2, 3, 16]);
    let step = prop::sample::select(vec![1_u64, 30, 100, 10_000]).prop_map(Duration::from_millis);
    (discipline, budget, step).prop_map(|(discipline, bypass_budget, age_step)| match discipline {
        Discipline::Strict => Rules::STRICT,
        _ => Rules { discipline, bypass_budget, age_step },
    })
}

/// Resources of which at least one has a queue that is not strict.
pub fn disciplined() -> impl Strategy<Value = House> {
    let mixed = [0; RESOURCES].map(|_| rules());
    mixed.prop_map(|mut house| {
        if house == STRICT {
            house[0] = Rules::new(Discipline::Phase);
        }
        house
    })
}

/// A history: it begins with a few sessions, so that nothing is spent on an empty house.
pub fn history(
    step: impl Strategy<Value = Step>,
    length: core::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Step>> {
    (prop::collection::vec(open(), 2..4), prop::collection::vec(step, length)).prop_map(
        |(mut opens, steps)| {
            opens.extend(steps);
            opens
        },
    )
}

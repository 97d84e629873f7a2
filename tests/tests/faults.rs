//! Real processes under real faults: cells of one to three nodes with one etcd or three, in networks of their own, while
//! clients fight for few locks. Faults are drawn from a seed; after each one everything is made whole, and the cell must
//! serve and be complete again. In the end `fairlock verify` judges what all clients saw.
//!
//! A short run by default. `FAIRLOCK_FAULTS=200 cargo test -p fairlock-tests --test faults -- --nocapture` is a long one; its
//! last line is what docs/reliability.md records. `FAIRLOCK_SEED` draws the same faults again (their effects differ: they are
//! real). Times are measured and printed; no test hangs on them.

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/fault.rs"]
mod fault;
#[path = "faults/tally.rs"]
mod tally;

use crowd::Crowd;
use fairlock_tests::boottime_ns;
use fairlock_tests::cell::{Cell, CellPlan};
use fairlock_tests::eventually;
use fairlock_tests::history::judge_clean;
use fairlock_tests::network::Network;
use fairlock_tests::random::{Random, fresh_seed};
use fairlock_tests::ways;
use fault::{Fault, heal};
use std::time::{Duration, SystemTime};
use tally::Tally;

/// Faults of a short run, and of one cell of a long one.
const FAULTS: u32 = 16;
const FAULTS_OF_A_CELL: u32 = 8;
/// Once in so many times two things happen together.
const TWO_AT_ONCE: u64 = 4;
/// The cell is left alone so long between two faults.
const REST: Duration = Duration::from_millis(400);

/// A cell that is not like the one before.
fn draw_plan(random: &mut Random, with_network: bool) -> CellPlan {
    let drivers = ways::drivers();
    CellPlan {
        nodes: 2 + random.index(2),
        shards: if random.once_in(2) { 2 } else { 1 },
        io: drivers[random.index(drivers.len())],
        etcds: if random.once_in(2) { 3 } else { 1 },
        places: with_network.then_some(2),
        lines: with_network && random.once_in(3),
        profile: "lan",
        ..CellPlan::new(2)
    }
}

/// Moments at which the cell lost its memory, and with it every queue, as its nodes logged it.
fn memory_losses(cell: &Cell, log: &str) -> Vec<u64> {
    let (wall, boot) = (SystemTime::now(), boottime_ns());
    let stamps = log.lines().filter(|line| line.contains("the cell lost its memory"));
    let moment = |line: &str| {
        let stamp = line.split_whitespace().next()?;
        let at = SystemTime::UNIX_EPOCH + since_epoch(stamp)?;
        boot.checked_sub(u64::try_from(wall.duration_since(at).ok()?.as_nanos()).ok()?)
    };
    stamps
        .map(|line| moment(line).unwrap_or_else(|| panic!("no moment in {line:?}\n{}", cell.logs())))
        .collect()
}

/// `2026-11-26T00:54:24.757115Z` as a time since 1970.
fn since_epoch(stamp: &str) -> Option<Duration> {
    let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    // Days of the proleptic calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let mut clock = time.split(':');
    let (hours, minutes) = (clock.next()?.parse::<u64>().ok()?, clock.next()?.parse::<u64>().ok()?);
    let seconds: f64 = clock.next()?.parse().ok()?;
    let whole = u64::try_from(days).ok()? * 86_400 + hours * 3600 + minutes * 60;
    Some(Duration::from_secs(whole) + Duration::from_secs_f64(seconds))
}

/// One cell and what befalls it.
fn suffer(plan: &CellPlan, faults: u32, random: &mut Random, tally: &mut Tally) {
    let mut cell = plan.start();
    let mut crowd = Crowd::start(&cell, random);
    let begun = boottime_ns();
    crowd.served_after(begun);
    for _ in 0..faults {
        let fault = Fault::draw(random, &cell);
        let second = random.once_in(TWO_AT_ONCE).then(|| Fault::draw(random, &cell));
        let state = fault.state(&cell);
        eprintln!("{} of {} {:?}", fault.described(), state, second.map(|it| it.described().to_string()));
        let struck = boottime_ns();
        for fault in [Some(fault), second].into_iter().flatten() {
            fault.strike(&mut cell);
            crowd.watcher.server(&format!("{:?}", fault.kind), false);
        }
        std::thread::sleep(fault.length);
        if random.once_in(3) {
            crowd.kill_one(random);
        }
        heal(&mut cell);
        let healed = boottime_ns();
        let mut served = crowd.served_after(healed);
        let again = boottime_ns();
        cell.settled(plan.nodes);
        let whole = boottime_ns();
        std::thread::sleep(REST);
        served.extend(crowd.served());
        crowd.replace_the_dead(random);
        still_runs(&mut cell);
        let kind =
            if second.is_some() { "two at once".to_owned() } else { format!("{:?}/{state}", fault.kind) };
        tally.note(kind, &tally::Course { struck, healed, again, whole, served });
    }
    crowd.end();
    nothing_is_left(&cell);
    let log = cell.logs();
    assert!(!log.contains("panicked"), "a node panicked:\n{log}");
    for at in memory_losses(&cell, &log) {
        let what = fairlock_cli::history::What::Server {
            node: "cell".into(),
            what: "state lost".into(),
            memory_lost: true,
        };
        crowd.watcher.note(at, what);
    }
    assert!(!crowd.errors().contains("panicked"), "a client panicked: {}", crowd.errors());
    let report = judge_clean(&crowd.files(), &format!("{plan:?}\n{log}"));
    tally.judged(&report);
}

/// Nobody ended by himself: what befell them was none of it a reason.
fn still_runs(cell: &mut Cell) {
    for at in 0..cell.nodes.len() {
        let ended = cell.nodes[at].ended();
        assert!(ended.is_none(), "{} ended by itself: {ended:?}", cell.nodes[at].name);
    }
}

/// L3, L5: everybody is gone, and everything comes free.
fn nothing_is_left(cell: &Cell) {
    eventually("everything comes free", || {
        let counts = cell.nodes[cell.primary_now()?].status()?;
        assert_eq!(counts.overtakes, 0);
        (counts.sessions == 0 && counts.grants == 0 && counts.waiters == 0).then_some(())
    });
}

/// G1, G2, G5, G8, G48, G49: judged from what the clients wrote.
#[test]
fn whatever_befalls_a_cell_nothing_that_clients_saw_breaks_a_promise() {
    let wanted = std::env::var("FAIRLOCK_FAULTS").ok();
    let mut left = wanted.map_or(FAULTS, |text| text.parse().expect("FAIRLOCK_FAULTS is a number"));
    let impossible = Network::is_impossible_because();
    if let Some(why) = &impossible {
        eprintln!("no networks can be broken here ({why}): processes alone are");
    }
    let seed = fresh_seed("faults");
    let mut random = Random::from_seed(seed);
    let mut tally = Tally::new(seed);
    while left > 0 {
        let faults = left.min(FAULTS_OF_A_CELL);
        left -= faults;
        let plan = draw_plan(&mut random, impossible.is_none());
        eprintln!(
            "a cell: {} nodes, {} shards, {:?}, {} etcds, lines {}",
            plan.nodes, plan.shards, plan.io, plan.etcds, plan.lines
        );
        suffer(&plan, faults, &mut random, &mut tally);
    }
    println!("{}", tally.report());
}

#[test]
fn stamps_of_logs_are_read() {
    assert_eq!(since_epoch("1970-01-02T00:00:01.500000Z"), Some(Duration::from_millis(86_401_500)));
    assert_eq!(since_epoch("2024-03-01T00:00:01Z"), Some(Duration::from_secs(1_709_251_201)));
    assert_eq!(since_epoch("nothing"), None);
}

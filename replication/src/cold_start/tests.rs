//! Single rules by example, then a model: a disk, a world of leases, and random starts, grants, failing writes, crashes
//! and stops.

use super::*;
use std::vec::Vec;

const UNIX_S: u64 = 1_735_689_600 + 64 * 500_000;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn stored(epoch: u32, horizon: Duration, clean: bool) -> Record {
    let (cell, epoch) = (CellId(9), Epoch::new(epoch).unwrap());
    Record {
        cell,
        epoch,
        ttl_horizon: horizon,
        clean,
        snapshot: None,
        mac_key: Some(MacKey([9; 16])),
        digest_key: None,
    }
}

fn fresh() -> Fresh {
    Fresh { cell: CellId(5), mac_key: MacKey([5; 16]), digest_key: DigestKey([5, 6]) }
}

#[test]
fn a_new_directory_starts_a_new_cell_at_an_epoch_of_the_calendar_and_waits_for_nothing() {
    let start = ColdStart::decide(None, false, UNIX_S, fresh()).unwrap();
    assert!(start.new_cell);
    assert_eq!(start.quarantine, Duration::ZERO);
    assert_eq!((start.record.cell, start.record.epoch.get()), (CellId(5), 500_000));
    assert!(!start.record.clean, "a crash right after the start counts as unclean");
}

#[test]
fn a_restart_takes_the_next_epoch_and_keeps_its_cell() {
    let start = ColdStart::decide(Some(stored(7, seconds(5), false)), false, UNIX_S, fresh()).unwrap();
    assert_eq!((start.record.cell, start.record.epoch.get(), start.new_cell), (CellId(9), 8, false));
    assert_eq!(start.quarantine, quarantine(seconds(5)));
    assert_eq!(start.record.ttl_horizon, seconds(5), "a crash in the quarantine begins it again");
}

#[test]
fn a_clean_stop_and_a_run_without_leases_cost_no_wait() {
    for before in [stored(7, seconds(5), true), stored(7, Duration::ZERO, false)] {
        let start = ColdStart::decide(Some(before), false, UNIX_S, fresh()).unwrap();
        assert_eq!((start.quarantine, start.record.ttl_horizon), (Duration::ZERO, Duration::ZERO));
    }
}

#[test]
fn a_snapshot_that_was_read_costs_no_wait_and_one_that_was_not_costs_the_horizon() {
    let before = Record { snapshot: Some(7), ..stored(7, seconds(5), true) };
    let start = ColdStart::decide(Some(before), true, UNIX_S, fresh()).unwrap();
    assert!(start.goes_on && start.quarantine.is_zero() && !start.record.clean);
    assert_eq!((start.record.snapshot, start.record.ttl_horizon), (None, seconds(5)), "it is used once");
    assert_eq!(Run::begun(&start).granted(), seconds(5), "its leases are this run's");
    let crashed = ColdStart::decide(Some(start.record), true, UNIX_S, fresh()).unwrap();
    assert_eq!((crashed.goes_on, crashed.quarantine), (false, quarantine(seconds(5))));
    let unread = ColdStart::decide(Some(before), false, UNIX_S, fresh()).unwrap();
    assert_eq!((unread.goes_on, unread.quarantine), (false, quarantine(seconds(5))));
}

#[test]
fn a_key_is_made_once() {
    let start = ColdStart::decide(Some(stored(7, seconds(5), false)), false, UNIX_S, fresh()).unwrap();
    assert_eq!(start.record.mac_key, Some(MacKey([9; 16])));
    let old = Record { mac_key: None, ..stored(7, seconds(5), false) };
    let start = ColdStart::decide(Some(old), false, UNIX_S, fresh()).unwrap();
    assert_eq!(start.record.mac_key, Some(MacKey([5; 16])), "an earlier format had none");
}

#[test]
fn the_last_epoch_is_not_followed_by_a_smaller_one() {
    let last = stored(fairlock_protocol::ids::EPOCH_END - 1, Duration::ZERO, true);
    assert_eq!(ColdStart::decide(Some(last), false, UNIX_S, fresh()), Err(EpochsExhausted));
}

#[test]
fn the_horizon_falls_back_to_what_this_run_granted() {
    let start = ColdStart::decide(Some(stored(7, seconds(60), false)), false, UNIX_S, fresh()).unwrap();
    let mut run = Run::begun(&start);
    assert_eq!(run.to_cover(seconds(5)), None, "the old horizon covers it");
    run.allow(seconds(5));
    let fallen = run.quarantine_over().unwrap();
    assert_eq!(fallen.ttl_horizon, seconds(5));
    run.stored(fallen);
    assert_eq!(run.quarantine_over(), None);
    assert_eq!(run.to_cover(seconds(6)).unwrap().ttl_horizon, seconds(6));
}

#[test]
fn a_failed_fall_back_covers_nothing_beyond_what_was_granted() {
    let start = ColdStart::decide(Some(stored(7, seconds(60), false)), false, UNIX_S, fresh()).unwrap();
    let mut run = Run::begun(&start);
    let fallen = run.quarantine_over().unwrap();
    run.not_stored(fallen);
    let raised = run.to_cover(seconds(5)).expect("the disk may hold the lower horizon");
    assert!(raised.ttl_horizon >= seconds(5));
}

#[test]
fn a_fraction_of_a_millisecond_is_rounded_up() {
    let start = ColdStart::decide(None, false, UNIX_S, fresh()).unwrap();
    let run = Run::begun(&start);
    let record = run.to_cover(Duration::from_micros(1500)).unwrap();
    assert_eq!(record.ttl_horizon, Duration::from_millis(2));
}

#[test]
fn a_stop_is_clean_only_without_leases_of_this_run_and_of_the_one_before() {
    let calm = Run::begun(&ColdStart::decide(None, false, UNIX_S, fresh()).unwrap());
    assert!(calm.stopped(0, None).clean);
    assert!(!calm.stopped(1, None).clean);
    let start = ColdStart::decide(Some(stored(7, seconds(60), false)), false, UNIX_S, fresh()).unwrap();
    let mut run = Run::begun(&start);
    assert!(!run.stopped(0, None).clean, "leases of the run before may be alive");
    assert_eq!(run.stopped(0, None).ttl_horizon, seconds(60));
    assert!(!run.stopped(1, Some(7)).clean, "nor does a snapshot know of them");
    run.quarantine_over();
    assert!(run.stopped(0, None).clean);
    let kept = run.stopped(1, Some(7));
    assert_eq!((kept.clean, kept.snapshot), (true, Some(7)), "all that remained is in the snapshot");
}

/// Numbers for the model; any sequence will do, as long as it is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The world outside the server: a disk, real time in milliseconds, and leases with the moment each ends at the latest.
struct World {
    dice: Dice,
    disk: Option<Record>,
    now_ms: u64,
    /// (end, of which epoch, length).
    leases: Vec<(u64, u32, u64)>,
    highest_epoch: u32,
    runs: u32,
    went_on: u32,
}

impl World {
    /// A write that succeeds, or fails with the disk in either state.
    fn write(&mut self, record: Record) -> bool {
        match self.dice.roll(5) {
            0 => false,
            1 => {
                self.disk = Some(record);
                false
            }
            _ => {
                self.disk = Some(record);
                true
            }
        }
    }

    fn settle(&mut self, run: &mut Run, record: Record) -> bool {
        let written = self.write(record);
        if written {
            run.stored(record);
        } else {
            run.not_stored(record);
        }
        written
    }

    /// One life of the server.
    fn run_once(&mut self) {
        let was_read = self.dice.roll(4) > 0;
        let start = ColdStart::decide(self.disk, was_read, UNIX_S, fresh()).unwrap();
        let epoch = start.record.epoch.get();
        if !self.write(start.record) {
            return; // It refuses to start.
        }
        assert!(epoch > self.highest_epoch, "tokens never go back");
        (self.highest_epoch, self.runs) = (epoch, self.runs + 1);
        let mut run = Run::begun(&start);
        if start.goes_on {
            // Whoever was in the snapshot is renewed once, and this run's from here on.
            self.went_on += 1;
            self.leases.retain(|lease| lease.0 > self.now_ms);
            for (end, of, ttl_ms) in &mut self.leases {
                (*end, *of) = (self.now_ms + *ttl_ms, epoch);
            }
        }
        let quarantine_ends = self.now_ms + u64::try_from(start.quarantine.as_millis()).unwrap();
        let mut recovering = true;
        for _ in 0..self.dice.roll(30) {
            self.now_ms += self.dice.roll(3000);
            if recovering && self.now_ms >= quarantine_ends {
                recovering = false;
                let alive = self.leases.iter().any(|lease| lease.0 > self.now_ms && lease.1 < epoch);
                assert!(!alive, "the quarantine covers every lease that may be alive");
                if let Some(record) = run.quarantine_over() {
                    self.settle(&mut run, record);
                }
            }
            self.open_session(&mut run, epoch);
        }
        if self.dice.roll(2) == 0 {
            let live = self.leases.iter().filter(|lease| lease.0 > self.now_ms && lease.1 == epoch).count();
            let snapshot = (self.dice.roll(2) == 0).then_some(7);
            let record = run.stopped(u32::try_from(live).unwrap(), snapshot);
            self.settle(&mut run, record);
        }
    }

    /// A client asks for a lease; it gets one only when the disk knows. Renewals of older ones extend them.
    fn open_session(&mut self, run: &mut Run, epoch: u32) {
        let ttl_ms = 200 + self.dice.roll(10_000);
        let ttl = Duration::from_millis(ttl_ms);
        if let Some(record) = run.to_cover(ttl)
            && !self.settle(run, record)
        {
            return;
        }
        run.allow(ttl);
        self.leases.push((self.now_ms + ttl_ms, epoch, ttl_ms));
    }
}

#[test]
fn over_many_lives_tokens_only_rise_and_no_lease_outlives_a_quarantine() {
    let (mut runs, mut went_on) = (0, 0);
    for seed in 1..400_u64 {
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (disk, leases) = (None, Vec::new());
        let mut world = World { dice, disk, now_ms: 0, leases, highest_epoch: 0, runs: 0, went_on: 0 };
        for _ in 0..60 {
            world.run_once();
            world.now_ms += world.dice.roll(2000);
        }
        runs += world.runs;
        went_on += world.went_on;
    }
    assert!(runs > 10_000, "most starts succeed: {runs}");
    assert!(went_on > 1_000, "some go on with a snapshot: {went_on}");
}

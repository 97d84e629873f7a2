//! Leases made durable, quarantines, and every way a server can end.

use rustix::process::{Signal, getpid, kill_process};

use super::*;

fn horizon(stage: &mut Stage, shard: usize) -> u32 {
    match stage.told(shard) {
        ToShard::HorizonRaised { ttl_ms } => ttl_ms,
        other => panic!("{other:?}"),
    }
}

fn record(stage: &Stage) -> String {
    std::fs::read_to_string(stage.room.path().join("state/state")).unwrap()
}

#[test]
fn a_longer_lease_is_on_disk_before_any_shard_may_grant_it() {
    let mut stage = Stage::new(2);
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 5000 });
    assert_eq!(horizon(&mut stage, 1), 5000);
    assert!(record(&stage).contains("ttl_horizon_ms=5000\n"));
    assert_eq!(horizon(&mut stage, 0), 5000);
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 1000 });
    assert_eq!(horizon(&mut stage, 0), 1000);
    assert!(record(&stage).contains("ttl_horizon_ms=5000\n"), "it is covered already");
}

#[test]
fn what_does_not_fit_into_a_lane_waits_and_arrives() {
    let mut stage = Stage::new(1);
    let lane_messages = 1024;
    for sent in 1..=lane_messages {
        stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 1000 });
        let given_up = Instant::now() + PATIENCE;
        while stage.inboxes[0].slots() < sent {
            assert!(Instant::now() < given_up, "{sent} messages were sent");
            std::thread::yield_now();
        }
    }
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 2000 });
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..lane_messages {
        assert_eq!(horizon(&mut stage, 0), 1000);
    }
    assert_eq!(horizon(&mut stage, 0), 2000, "it came last");
}

#[test]
fn while_the_disk_takes_no_writes_nobody_is_told_and_an_alarm_stands() {
    let mut stage = Stage::new(1);
    let obstacle = stage.room.path().join("state/state.new");
    std::fs::create_dir(&obstacle).unwrap();
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 5000 });
    stage.is_told_nothing(0);
    assert!(stage.alarms.texts()[0].starts_with("state directory: "), "{:?}", stage.alarms.texts());
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(horizon(&mut stage, 0), 5000);
    assert!(stage.alarms.texts().is_empty(), "it heals by itself");
}

#[test]
fn asking_again_does_not_make_a_failing_disk_be_tried_at_once() {
    let mut stage = Stage::new(1);
    let obstacle = stage.room.path().join("state/state.new");
    std::fs::create_dir(&obstacle).unwrap();
    let failed = Instant::now();
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 5000 });
    while stage.alarms.texts().is_empty() {
        assert!(failed.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_dir(&obstacle).unwrap();
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 7000 });
    while horizon(&mut stage, 0) != 7000 {}
    assert!(failed.elapsed() >= Duration::from_secs(1), "and not before the pause is over");
    assert!(stage.alarms.texts().is_empty());
}

#[test]
fn a_crash_costs_a_quarantine_after_which_the_horizon_falls_back() {
    let mut stage = Stage::new(1);
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 300 });
    horizon(&mut stage, 0);
    let (report, room) = stage.finish(1);
    assert_eq!((report.clean, report.live_sessions), (false, 1));

    let mut stage = Stage::with(1, room, |_| {});
    stage.lane.send(ToControl::RaiseHorizon { ttl_ms: 200 });
    assert_eq!(horizon(&mut stage, 0), 200);
    assert!(record(&stage).contains("ttl_horizon_ms=300\n"));
    let given_up = Instant::now() + PATIENCE;
    while !record(&stage).contains("ttl_horizon_ms=200\n") {
        assert!(Instant::now() < given_up);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (report, room) = stage.finish(0);
    assert!(report.clean);
    let directory = StateDirectory::open(&room.path().join("state")).unwrap();
    let beginning = begin(directory, 9).beginning;
    assert_eq!((beginning.recovering_until, beginning.cell), (Tick::ZERO, CellId(5)));
}

#[test]
fn a_drain_waits_for_every_shard_and_ends_clean() {
    let mut stage = Stage::new(2);
    stage.stopper().drain();
    stage.stopper().drain();
    for shard in [0, 1] {
        assert!(matches!(stage.told(shard), ToShard::Drain));
    }
    stage.lane.send(ToControl::Idle { shard: 0 });
    stage.lane.send(ToControl::Idle { shard: 0 });
    stage.is_told_nothing(0);
    assert!(stage.socket.exists(), "clients may still come to release");
    stage.lane.send(ToControl::Idle { shard: 1 });
    for shard in [0, 1] {
        assert!(matches!(stage.told(shard), ToShard::Stop));
        stage.stop_shard(u16::try_from(shard).unwrap(), 0);
    }
    let report = stage.wait();
    assert!(report.clean && matches!(report.reason, StopReason::Asked));
    assert_eq!((report.live_sessions, report.exit_code()), (0, 0));
    assert!(!stage.socket.exists());
    assert!(record(&stage).contains("clean=true\n"));
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let mut stage = Stage::with(1, TempDir::new(), |config| config.drain = Duration::from_millis(30));
    stage.stopper().drain();
    assert!(matches!(stage.told(0), ToShard::Drain));
    assert!(matches!(stage.told(0), ToShard::Stop));
    stage.stop_shard(0, 3);
    let report = stage.wait();
    assert_eq!((report.clean, report.live_sessions), (false, 3));
    assert!(record(&stage).contains("clean=false\n"));
}

#[test]
fn a_signal_drains_and_a_second_one_ends_the_wait() {
    let mut stage = Stage::with(1, TempDir::new(), |config| config.signals = true);
    kill_process(getpid(), Signal::TERM).unwrap();
    assert!(matches!(stage.told(0), ToShard::Drain));
    stage.is_told_nothing(0);
    kill_process(getpid(), Signal::INT).unwrap();
    assert!(matches!(stage.told(0), ToShard::Stop));
    stage.stop_shard(0, 0);
    let report = stage.wait();
    assert!(report.clean && matches!(report.reason, StopReason::Signal));
}

#[test]
fn a_shard_that_fails_stops_the_others() {
    let mut stage = Stage::new(2);
    let error = Some(std::io::Error::other("the ring is gone"));
    let left = Left { sessions: 2, holders: 2, recovering: false, file: None };
    stage.lane.send(ToControl::Stopped { shard: 1, left, error });
    stage.lives[1] = None;
    assert!(matches!(stage.told(0), ToShard::Stop));
    stage.stop_shard(0, 1);
    let report = stage.wait();
    assert_eq!((report.clean, report.live_sessions, report.exit_code()), (false, 3, 70));
    assert!(matches!(report.reason, StopReason::ShardFailed { shard: 1, error: Some(_) }));
}

#[test]
fn a_shard_that_ends_without_a_word_is_not_waited_for_and_not_clean() {
    let mut stage = Stage::new(2);
    stage.stopper().stop();
    assert!(matches!(stage.told(0), ToShard::Stop));
    stage.lives[1] = None;
    stage.stop_shard(0, 0);
    let report = stage.wait();
    assert!(!report.clean);
    assert!(!stage.socket.exists());
}

#[test]
fn a_stop_that_cannot_be_written_down_is_not_clean() {
    let mut stage = Stage::new(1);
    std::fs::create_dir(stage.room.path().join("state/state.new")).unwrap();
    stage.stopper().stop();
    assert!(matches!(stage.told(0), ToShard::Stop));
    stage.stop_shard(0, 0);
    assert!(!stage.wait().clean);
}

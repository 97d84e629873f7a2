//! The directory on a real file system: what is made, what is refused and how, and runs that follow each other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch, MacKey, Tick};
use fairlock_replication::Fresh;

use super::*;
use crate::control::test_room::TempDir;

fn record(epoch: u32) -> Record {
    Record {
        cell: CellId(3),
        epoch: Epoch::new(epoch).unwrap(),
        ttl_horizon: Duration::from_secs(5),
        clean: false,
        snapshot: None,
        mac_key: None,
        digest_key: None,
    }
}

fn begin(path: &Path) -> Result<(NodeState, Beginning), StateError> {
    let fresh = Fresh { cell: CellId(77), mac_key: MacKey([7; 16]), digest_key: DigestKey([7, 7]) };
    let none = |_: &StateDirectory, _: &Record| unreachable!("there is no snapshot");
    let directory = StateDirectory::open(path)?;
    let begun = NodeState::begin(directory, 1_800_000_000, fresh, none, || Tick::from_millis(1000))?;
    Ok((begun.state, begun.beginning))
}

fn holders(holders: u32) -> Leftovers {
    Leftovers { sessions: holders, holders, ..Leftovers::default() }
}

#[test]
fn the_default_directory_depends_on_who_asks() {
    let none = |_: &str| None;
    let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/ada"));
    let xdg = |name: &str| Some(OsString::from(if name == "HOME" { "/home/ada" } else { "/x" }));
    let relative = |_: &str| Some(OsString::from("somewhere"));
    assert_eq!(default_for(true, none).unwrap(), Path::new("/var/lib/fairlock"));
    assert_eq!(default_for(false, home).unwrap(), Path::new("/home/ada/.local/state/fairlock"));
    assert_eq!(default_for(false, xdg).unwrap(), Path::new("/x/fairlock"));
    assert!(matches!(default_for(false, relative), Err(StateError::NoDefault)));
    assert!(default_for(false, none).unwrap_err().to_string().contains("--state-dir"));
}

#[test]
fn a_missing_directory_is_made_for_its_owner_and_group_only() {
    let room = TempDir::new();
    let path = room.path().join("a/b");
    let directory = StateDirectory::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777 & !0o750, 0);
    assert_eq!(directory.read().unwrap(), None);
    assert_eq!(directory.path(), path);
}

#[test]
fn a_record_is_replaced_whole_and_leaves_nothing_beside_it() {
    let room = TempDir::new();
    let directory = StateDirectory::open(room.path()).unwrap();
    for epoch in [1, 2, 3] {
        directory.write(&record(epoch)).unwrap();
        assert_eq!(directory.read().unwrap(), Some(record(epoch)));
    }
    let mut names: Vec<_> =
        fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", "state"]);
}

#[test]
fn a_half_written_new_record_is_not_read() {
    let room = TempDir::new();
    let directory = StateDirectory::open(room.path()).unwrap();
    directory.write(&record(1)).unwrap();
    fs::write(room.path().join(RECORD_NEW), "fairlock-state 1\ncell=").unwrap();
    assert_eq!(directory.read().unwrap(), Some(record(1)));
    directory.write(&record(2)).unwrap();
    assert_eq!(directory.read().unwrap(), Some(record(2)));
}

#[test]
fn a_second_server_is_refused_and_told_by_whom() {
    let room = TempDir::new();
    let first = StateDirectory::open(room.path()).unwrap();
    let error = StateDirectory::open(room.path()).unwrap_err();
    assert!(matches!(error, StateError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert_eq!(error.exit_code(), 78);
    drop(first);
    StateDirectory::open(room.path()).unwrap();
}

#[test]
fn what_is_no_directory_is_named_as_such() {
    let room = TempDir::new();
    let file = room.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = StateDirectory::open(&path).unwrap_err();
        assert!(matches!(error, StateError::NotADirectory { .. }), "{error:?}");
    }
}

#[test]
fn a_newer_and_a_damaged_record_stop_a_start_and_are_left_alone() {
    let table = [
        ("fairlock-state 9\nfuture=1\n".as_bytes(), "newer version (format 9)"),
        (b"", "damaged"),
        (b"fairlock-state 1\ncell=zz\n", "damaged"),
        (&[0; 5000], "damaged"),
    ];
    for (bytes, expected) in table {
        let room = TempDir::new();
        fs::write(room.path().join(RECORD), bytes).unwrap();
        let error = begin(room.path()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read(room.path().join(RECORD)).unwrap(), bytes);
    }
}

#[test]
fn a_failed_call_says_what_to_do() {
    let of = |errno: Errno| StateError::of(Path::new("/d"), "write to", &errno.into()).to_string();
    assert!(of(Errno::ROFS).contains("read-only"));
    assert!(of(Errno::ACCESS).contains("no permission to write to the state"));
    assert!(of(Errno::NOSPC).contains("no space"));
    assert!(of(Errno::DQUOT).contains("no space"));
    assert!(of(Errno::IO).contains("cannot write to the state"));
    for errno in [Errno::ROFS, Errno::ACCESS, Errno::NOSPC, Errno::IO] {
        assert!(of(errno).contains("/d"), "the path is named");
    }
}

#[test]
fn a_directory_nobody_may_write_to_is_refused() {
    // A place where not even root may make a directory.
    let error = StateDirectory::open(Path::new("/proc/sys/fairlock")).unwrap_err();
    assert!(!matches!(error, StateError::Locked { .. } | StateError::NotADirectory { .. }), "{error:?}");
    assert!(error.to_string().contains("/proc/sys/fairlock"), "{error}");
}

#[test]
fn runs_follow_each_other_and_only_a_crash_costs_a_quarantine() {
    let room = TempDir::new();
    let (mut node, first) = begin(room.path()).unwrap();
    assert_eq!((first.cell, first.recovering_until), (CellId(77), Tick::ZERO));
    node.raise(Duration::from_secs(5)).unwrap();
    assert!(node.stopped(&holders(0)).unwrap());
    drop(node);

    let (mut node, second) = begin(room.path()).unwrap();
    assert_eq!((second.cell, second.recovering_until), (CellId(77), Tick::ZERO));
    assert_eq!(second.epoch, first.epoch.next().unwrap());
    node.raise(Duration::from_secs(10)).unwrap();
    drop(node);

    let (mut node, third) = begin(room.path()).unwrap();
    assert_eq!(third.epoch, second.epoch.next().unwrap());
    assert_eq!(third.recovering_until, Tick::from_millis(1000 + 10_000 + 40 + 10));
    assert!(!node.stopped(&holders(0)).unwrap(), "the quarantine was not over");
    drop(node);

    let (mut node, fourth) = begin(room.path()).unwrap();
    assert_eq!(fourth.recovering_until, third.recovering_until, "it waits as long again");
    node.quarantine_over().unwrap();
    assert!(!node.stopped(&holders(2)).unwrap(), "two sessions were alive");
}

#[test]
fn a_write_that_fails_raises_nothing() {
    let room = TempDir::new();
    let (mut node, _) = begin(room.path()).unwrap();
    // A directory at the place of the new record makes every write fail, for root too.
    fs::create_dir(room.path().join(RECORD_NEW)).unwrap();
    assert!(node.raise(Duration::from_secs(5)).is_err());
    assert!(node.raise(Duration::from_secs(5)).is_err());
    fs::remove_dir(room.path().join(RECORD_NEW)).unwrap();
    node.raise(Duration::from_secs(5)).unwrap();
    drop(node);
    assert!(begin(room.path()).unwrap().1.recovering_until > Tick::ZERO);
}

//! The house keeps its order: imports go strictly down, unsafe code stays in two rooms, files say what they decide and
//! stay short, nothing is named for what it is not, and what a visitor expects at the door is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_tests::workspace::{read, root, rust_files};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// On which floor each room stands; rooms of one floor do not know each other.
const FLOORS: [(&str, u8); 9] = [
    ("fairlock-protocol", 0),
    ("fairlock-locktable", 1),
    ("fairlock-shm", 2),
    ("fairlock-replication", 2),
    ("fairlock-server", 3),
    ("fairlock", 3),
    ("fairlock-cli", 4),
    ("fairlock-benches", 5),
    ("fairlock-tests", 5),
];
/// What a client may know: the words both sides speak, and the shared segment.
const CLIENT_MAY: [&str; 2] = ["fairlock-protocol", "fairlock-shm"];
/// Most lines of production code in a file.
const LINES_MAX: usize = 500;
/// Rooms with unsafe code.
const UNSAFE_ROOMS: [&str; 2] = ["shm/", "server/src/driver/"];
/// Names of rooms for what they are not.
const BUCKETS: [&str; 9] =
    ["util", "utils", "common", "misc", "helper", "helpers", "manager", "managers", "stuff"];

fn metadata() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Every (package, what it depends on, kind) inside the house.
fn inner_edges() -> Vec<(String, String, String)> {
    let floors: BTreeMap<_, _> = FLOORS.into();
    let mut edges = Vec::new();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name").to_owned();
        assert!(
            floors.contains_key(name.as_str()),
            "{name} stands on no floor: give it one in FLOORS and DESIGN"
        );
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name").to_owned();
            let kind = dependency["kind"].as_str().unwrap_or("normal").to_owned();
            if floors.contains_key(to.as_str()) {
                edges.push((name.clone(), to, kind));
            }
        }
    }
    edges
}

#[test]
fn imports_go_strictly_down() {
    let floors: BTreeMap<_, _> = FLOORS.into();
    let edges = inner_edges();
    assert!(edges.len() >= 8, "the edges were not found");
    for (from, to, kind) in edges {
        let (above, below) = (floors[from.as_str()], floors[to.as_str()]);
        if kind == "dev" {
            // A test may start a server beside its client, or look at a neighbour; it needs no program and no test of the top floors.
            assert!(below <= 3 || above > below, "tests of {from} use {to}, which stands above everything");
        } else {
            assert!(above > below, "{from} (floor {above}) imports {to} (floor {below})");
            assert!(from != "fairlock" || CLIENT_MAY.contains(&to.as_str()), "the client imports {to}");
        }
    }
}

#[test]
fn the_deciding_floors_have_no_std_and_no_unsafe() {
    for room in ["protocol", "locktable", "replication"] {
        let lib = read(format!("{room}/src/lib.rs"));
        assert!(lib.contains("#![no_std]"), "{room} uses std");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{room} may have unsafe code");
    }
    for room in ["client", "tests"] {
        assert!(
            read(format!("{room}/src/lib.rs")).contains("#![forbid(unsafe_code)]"),
            "{room} may have unsafe code"
        );
    }
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

fn in_room(file: &Path, rooms: &[&str]) -> bool {
    let file = file.to_string_lossy();
    rooms.iter().any(|room| file.starts_with(room))
}

#[test]
fn unsafe_code_stays_in_two_rooms() {
    let word = "unsafe";
    let forms = [" {", " fn", " impl", " trait", " extern"].map(|after| format!("{word}{after}"));
    let permits = ["allow", "expect", "warn"].map(|lint| format!("{lint}({word}_code"));
    for file in rust_files().iter().filter(|file| !in_room(file, &UNSAFE_ROOMS)) {
        for (number, line) in read(file).lines().enumerate() {
            let found = forms.iter().chain(&permits).find(|form| code(line).contains(*form));
            assert!(found.is_none(), "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

/// Whether a file is test code as a whole.
fn is_test_code(file: &Path) -> bool {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    file.ends_with("tests.rs")
        || parts.iter().take(parts.len() - 1).skip(1).any(|part| part == "tests" || part == "benches")
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in rust_files().iter().filter(|file| !is_test_code(file)) {
        let text = read(file);
        let production = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or("");
        if production.lines().count() > LINES_MAX {
            long.push(format!("{} has {} lines", file.display(), production.lines().count()));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_file_opens_with_what_it_decides() {
    let bare: Vec<_> = rust_files().into_iter().filter(|file| !read(file).starts_with("//! ")).collect();
    assert!(bare.is_empty(), "no header: {bare:#?}");
}

#[test]
fn no_room_is_named_for_what_it_is_not() {
    let is_bucket = |file: &&std::path::PathBuf| {
        file.iter().any(|part| {
            let name = part.to_string_lossy();
            let stem = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
            stem.split(['_', '-']).any(|word| BUCKETS.contains(&word))
        })
    };
    let files = rust_files();
    let buckets: Vec<_> = files.iter().filter(is_bucket).collect();
    assert!(buckets.is_empty(), "{buckets:#?}");
}

#[test]
fn a_visitor_finds_what_belongs_at_the_door() {
    for file in [
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "Cargo.lock",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/guarantees.md",
        "docs/wire-format.md",
        "rustfmt.toml",
        "clippy.toml",
    ] {
        assert!(root().join(file).is_file(), "{file} is missing");
    }
    assert!(read("LICENSE-MIT").contains("Permission is hereby granted"));
    assert!(read("LICENSE-APACHE").contains("Apache License"));
    assert!(!read(".gitignore").contains("Cargo.lock"), "builds are repeated from the committed versions");
}

#[test]
fn the_lock_file_is_committed() {
    if !root().join(".git").exists() {
        return;
    }
    let mut git = Command::new("git");
    git.args(["ls-files", "--error-unmatch", "Cargo.lock"]).current_dir(root());
    let Ok(output) = git.output() else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || said.contains("dubious ownership"),
        "Cargo.lock is not committed: {said}"
    );
}

#[test]
fn every_package_takes_its_version_and_lints_from_the_house() {
    for (package, _) in FLOORS {
        let room = match package {
            "fairlock" => "client",
            other => other.strip_prefix("fairlock-").expect("a room of the house"),
        };
        let manifest = read(format!("{room}/Cargo.toml"));
        for line in ["version.workspace = true", "license.workspace = true", "[lints]\nworkspace = true"] {
            assert!(manifest.contains(line), "{room}/Cargo.toml lacks {line:?}");
        }
    }
}

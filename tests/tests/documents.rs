//! The documents say what the code does: the examples, tables and numbers of docs/wire-format.md are compared with
//! `protocol`, and docs/guarantees.md with the tests that cite it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "documents/guarantees.rs"]
mod guarantees;
#[path = "documents/vectors.rs"]
mod vectors;

use fairlock_protocol::{DigestKey, Refusal, Resource, limits};
use fairlock_tests::bytes::from_hex;
use fairlock_tests::workspace::{read, root};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// The cells of each table row of a document.
fn rows(document: &str) -> Vec<Vec<String>> {
    let lines = read(document);
    let table = lines.lines().filter(|line| line.starts_with('|'));
    table.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn wire() -> String {
    read("docs/wire-format.md")
}

/// The fenced examples of the wire document, by name.
fn documented_vectors() -> BTreeMap<String, Vec<u8>> {
    let text = wire();
    let blocks = text.split("```vector ").skip(1);
    let named = blocks.map(|block| block.split_once('\n').expect("a block has a first line"));
    named.map(|(name, rest)| (name.to_owned(), from_hex(rest.split("```").next().unwrap()))).collect()
}

/// G33: the examples are what the code writes, and what it reads.
#[test]
fn every_example_of_the_wire_document_is_what_the_code_writes() {
    let documented = documented_vectors();
    let coded = vectors::all();
    let mut wrong = String::new();
    for (name, bytes) in &coded {
        if documented.get(*name) != Some(bytes) {
            wrong.push_str(&vectors::block(name, bytes));
        }
    }
    assert!(wrong.is_empty(), "docs/wire-format.md should have\n{wrong}");
    assert_eq!(documented.len(), coded.len(), "an example that the code does not know");
}

#[test]
fn the_documented_digests_and_shards_are_computed_so() {
    let key = DigestKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    let mut compared = 0;
    for row in rows("docs/wire-format.md").iter().filter(|row| row.len() == 8 && row[2].len() == 16) {
        let name = from_hex(&row[1]);
        let digest = key.digest(Resource::new(row[0].as_bytes(), &name).unwrap());
        let words: Vec<String> = digest.0.iter().map(|word| format!("{word:016x}")).collect();
        assert_eq!(words, row[2..4], "{row:?}");
        for (shards, cell) in [1, 2, 3, 8].into_iter().zip(&row[4..]) {
            assert_eq!(digest.shard(shards).0.to_string(), *cell, "{row:?}, {shards} shards");
        }
        compared += 1;
    }
    assert!(compared >= 3, "the worked example has three names");
}

/// G33: another language computes the same digest.
#[test]
fn a_client_in_another_language_finds_the_same_shard() {
    let key = DigestKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    for name in ["demo", "orders/42", "x", "seventeen letters"] {
        let mut python = Command::new("python3");
        python.arg(root().join("tests/python_client.py"));
        python.args(["--digest", "000102030405060708090a0b0c0d0e0f", "default", name, "3"]);
        let output = python.output().expect("python3 is installed");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let digest = key.digest(Resource::new(b"", name.as_bytes()).unwrap());
        assert_eq!(said["shard"], digest.shard(3).0);
        assert_eq!(said["digest"][0], format!("{:016x}", digest.0[0]));
        assert_eq!(said["digest"][1], format!("{:016x}", digest.0[1]));
    }
}

#[test]
fn every_code_of_the_closed_list_is_documented_with_its_class() {
    let rows = rows("docs/wire-format.md");
    for refusal in Refusal::ALL {
        let row =
            vec![refusal.code().to_string(), refusal.name().to_owned(), format!("{:?}", refusal.class())];
        assert!(rows.contains(&row), "{row:?} is missing");
    }
    let is_code = |row: &&Vec<String>| {
        row.len() == 3 && row[0].parse::<u16>().is_ok() && row[1].contains(char::is_uppercase)
    };
    let documented = rows.iter().filter(is_code).filter(|row| row[1] == row[1].to_uppercase()).count();
    assert_eq!(documented, Refusal::ALL.len(), "a code that the protocol does not have");
}

#[test]
fn every_kind_number_is_documented() {
    let text = wire();
    for (number, name) in vectors::kinds() {
        let stands = format!("0x{number:02X} {name}");
        let in_table = format!("| 0x{number:02X} | {name} |");
        let in_answer = format!(" 0x{number:02X} {name} |");
        assert!(
            text.contains(&stands) || text.contains(&in_table) || text.contains(&in_answer),
            "{stands} is missing"
        );
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

#[test]
fn the_documented_limits_are_those_of_the_code() {
    let rows = rows("docs/wire-format.md");
    let limits = [
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX as u64),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
        ("NAMESPACE_BYTES_MAX", limits::NAMESPACE_BYTES_MAX as u64),
        ("LABEL_BYTES_MAX", limits::LABEL_BYTES_MAX as u64),
        ("ATTRIBUTE_BYTES_MAX", limits::ATTRIBUTE_BYTES_MAX as u64),
        ("IDENTITY_BYTES_MAX", limits::IDENTITY_BYTES_MAX as u64),
        ("AUTH_BYTES_MAX", limits::AUTH_BYTES_MAX as u64),
        ("ENDPOINTS_BYTES_MAX", limits::ENDPOINTS_BYTES_MAX as u64),
        ("CELL_NODES_MAX", limits::CELL_NODES_MAX as u64),
        ("NODE_NAMES_BYTES_MAX", limits::NODE_NAMES_BYTES_MAX as u64),
        ("WAITERS_PER_RESOURCE_MAX", limits::WAITERS_PER_RESOURCE_MAX.into()),
        ("LOCKS_PER_SESSION_MAX", limits::LOCKS_PER_SESSION_MAX.into()),
        ("SESSIONS_MAX", limits::SESSIONS_MAX.into()),
        ("UNACKNOWLEDGED_MAX", limits::UNACKNOWLEDGED_MAX as u64),
        ("WAITS_PER_STREAM_MAX", limits::WAITS_PER_STREAM_MAX.into()),
        ("LIST_VISITS_MAX", limits::LIST_VISITS_MAX.into()),
        ("REENTRY_MAX", limits::REENTRY_MAX.into()),
        ("UNBOUND_CONNECTIONS_MAX", limits::UNBOUND_CONNECTIONS_MAX as u64),
        ("UNBOUND_CONNECTIONS_PER_ADDRESS_MAX", limits::UNBOUND_CONNECTIONS_PER_ADDRESS_MAX as u64),
        ("WRITE_BACKLOG_BYTES_MAX", limits::WRITE_BACKLOG_BYTES_MAX as u64),
        ("WRITE_PAUSE_BYTES", limits::WRITE_PAUSE_BYTES as u64),
        ("BYPASS_BUDGET_MAX", limits::BYPASS_BUDGET_MAX.into()),
        ("READ_BACKLOG_BYTES_MAX", limits::READ_BACKLOG_BYTES_MAX as u64),
        ("TTL_DEFAULT", ms(limits::TTL_DEFAULT)),
        ("TTL_MIN", ms(limits::TTL_MIN)),
        ("TTL_MAX", ms(limits::TTL_MAX)),
        ("TTL_CELL_MAX", ms(limits::TTL_CELL_MAX)),
        ("LOCK_DELAY_MAX", ms(limits::LOCK_DELAY_MAX)),
        ("HANDSHAKE_TIME", ms(limits::HANDSHAKE_TIME)),
        ("FIRST_FRAME_TIME", ms(limits::FIRST_FRAME_TIME)),
        ("PARTIAL_FRAME_TIME", ms(limits::PARTIAL_FRAME_TIME)),
    ];
    for (name, value) in limits {
        let found = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found[1], value.to_string(), "{name}");
    }
    let documented = rows.iter().filter(|row| row[0].ends_with("_MAX") || row[0].ends_with("_TIME"));
    assert!(documented.count() <= limits.len(), "a limit that is not compared");
}

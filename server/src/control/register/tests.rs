//! A register against an etcd that is played by a few lines of test: every trouble has its effect and says what to do.
//! Real etcds are met in the end-to-end tests.

mod answers;
mod fake;
mod local;
mod watching;

use std::time::Duration;

use fairlock_protocol::{CellId, DigestKey, Epoch};
use fairlock_replication::{Configuration, Incarnation, MacKey, Member, NodeId, Register};
use serde_json::{Value, json};

use super::base64;
use crate::config::RegisterConfig;
use fake::Fake;

/// A configuration of one node, told apart by its epoch.
fn configuration(epoch: u32) -> Configuration {
    let node = NodeId::new("a").unwrap();
    let member = Member {
        node: node.clone(),
        machine: "00ff".to_owned(),
        incarnation: Incarnation::new(7).unwrap(),
        peer: "10.0.0.1:7412".to_owned(),
        clients: "tcp://10.0.0.1:7411".to_owned(),
    };
    Configuration {
        cell: CellId(9),
        epoch: Epoch::new(epoch).unwrap(),
        primary: node,
        members: vec![member],
        reign: Epoch::new(1).unwrap(),
        feature_level: 1,
        shards: 2,
        digest_key: DigestKey([1, 2]),
        mac_key: MacKey([3; 16]),
        ttl_horizon: Duration::from_secs(5),
        clean: false,
        state_lost: false,
    }
}

/// How to reach these, with a limit that only a hang reaches.
fn reaching(fakes: &[&Fake]) -> RegisterConfig {
    let list: Vec<String> = fakes.iter().map(|fake| fake.address().to_string()).collect();
    let url = Some(format!("etcd://{}", list.join(",")));
    RegisterConfig { url, timeout: Duration::from_secs(10), ..RegisterConfig::default() }
}

/// A register at these.
fn register(fakes: &[&Fake]) -> Box<dyn Register> {
    super::open(&reaching(fakes), "test").unwrap().register
}

/// The same with a limit that a test can wait for.
fn hasty(config: RegisterConfig) -> Box<dyn Register> {
    let config = RegisterConfig { timeout: Duration::from_secs(2), ..config };
    super::open(&config, "test").unwrap().register
}

/// A key and its value, as etcd says them.
fn kv(epoch: u32, revision: u64) -> Value {
    let text = configuration(epoch).to_text();
    json!({
        "key": base64::encode(b"/fairlock/test/configuration"),
        "mod_revision": revision.to_string(),
        "value": base64::encode(text.as_bytes()),
    })
}

/// The answer to a read that finds this.
fn found(epoch: u32, revision: u64) -> Value {
    json!({ "header": { "revision": revision.to_string() }, "kvs": [kv(epoch, revision)], "count": "1" })
}

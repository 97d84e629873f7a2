//! What makes a cell, what is refused and with which words, and what others are told to dial.

use std::path::Path;

use super::*;
use crate::config::Config;

const WHOLE: &str = "register.url = \"etcd://r:2379\"\n[cell]\nname = \"prod\"\nnode = \"a\"\npeer_listen = \"127.0.0.1:7413\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/fairlock.toml"), text)
}

fn refusal(text: &str) -> String {
    let error = parse(text).and_then(|config| config.check()).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    error.to_string()
}

#[test]
fn a_cell_is_whole_or_refused_with_what_is_missing() {
    parse(WHOLE).unwrap().check().unwrap();
    let keys = ["cell.name", "cell.node", "register.url", "cell.peer_listen"];
    let flags = ["--cell", "--node", "--register", "--peer-listen"];
    for (missing, flag) in keys.into_iter().zip(flags) {
        let lines = WHOLE.lines().filter(|line| !line.starts_with(missing.trim_start_matches("cell.")));
        let text = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(refusal(&text), format!("a cell needs {flag} (`{missing}`) as well"));
    }
    for lonely in ["peer_address = \"h:1\"", "profile = \"cloud\"", "min_copies = 1", "peer_secret = \"/s\""]
    {
        let message = refusal(&format!("[cell]\n{lonely}"));
        assert!(keys.iter().all(|key| message.contains(&format!("`{key}`"))), "{lonely}: {message}");
    }
    assert!(!parse("[cell]\n").unwrap().cell.is_told());
    let silent = parse(WHOLE).unwrap().cell;
    assert_eq!((silent.timing(), silent.copies()), (Profile::CLOUD, 1));
    let told = parse(&format!("{WHOLE}profile = \"lan\"\nmin_copies = 3")).unwrap().cell;
    assert_eq!((told.timing(), told.copies()), (Profile::LAN, 3));
}

#[test]
fn what_a_cell_cannot_be_told_is_refused_by_key_and_with_advice() {
    let more = |line: &str| format!("{WHOLE}{line}");
    let other = |from: &str, to: &str| WHOLE.replace(from, to);
    let table = [
        (other("\"prod\"", "\"Prod\""), "cell.name", "a-z"),
        (other("\"a\"", "\"\""), "cell.node", "1 to 64"),
        (more("min_copies = 0"), "cell.min_copies", "1 to 8"),
        (more("min_copies = 9"), "cell.min_copies", "1 to 8"),
        (more("peer_address = \"host\""), "cell.peer_address", "host:port"),
        (more("peer_address = \"host:0\""), "cell.peer_address", "65535"),
        (more("peer_address = \"::1:7413\""), "cell.peer_address", "host:port"),
        (more("peer_address = \"a:1,b:2\""), "cell.peer_address", "host:port"),
        (
            more(&format!("peer_address = \"{}:1\"", "h".repeat(PEER_BYTES_MAX))),
            "cell.peer_address",
            "host:port",
        ),
        (more("client_address = \"a:1,,b:2\""), "cell.client_address", "commas"),
        (more("client_address = \"unix:/run/x\""), "cell.client_address", "tcp://"),
        (
            format!("insecure = true\n{}", other("127.0.0.1:7413", "0.0.0.0:7413")),
            "cell.peer_address",
            "every address",
        ),
        (format!("insecure = true\nlisten = [\"[::]:1\"]\n{WHOLE}"), "cell.client_address", "every address"),
        (other("127.0.0.1:7413", "192.0.2.1:7413"), "cell.peer_listen", "--peer-secret"),
    ];
    for (text, key, words) in table {
        let message = refusal(&text);
        assert!(message.starts_with(&format!("`{key}`")) && message.contains(words), "{text}: {message}");
    }
    for (line, key) in [("profile = \"moon\"", "profile"), ("peer_listen = \"h:1\"", "peer_listen")] {
        let message = refusal(&format!("[cell]\n{line}"));
        assert!(message.starts_with("/etc/fairlock.toml:2: ") && message.contains(key), "{message}");
    }
}

#[test]
fn other_hosts_reach_a_node_with_a_secret_or_by_an_explicit_word() {
    let open = WHOLE.replace("127.0.0.1:7413", "192.0.2.1:7413");
    let secret = parse(&format!("{open}peer_secret = \"/etc/secret\"")).unwrap();
    secret.check().unwrap();
    assert!(!secret.is_exposed());
    let insecure = parse(&format!("insecure = true\n{open}")).unwrap();
    insecure.check().unwrap();
    assert!(insecure.is_exposed());
}

#[test]
fn what_others_dial_is_what_was_told_or_where_it_listens() {
    let bound = ["127.0.0.1:40001".parse().unwrap(), "[::1]:40002".parse().unwrap()];
    let silent = parse(WHOLE).unwrap().cell;
    assert_eq!(silent.peer(bound[0]), "127.0.0.1:40001");
    assert_eq!(silent.clients(&bound), "tcp://127.0.0.1:40001,tcp://[::1]:40002");
    assert_eq!(silent.clients(&[]), "");
    let told = "peer_address = \"a.example:9\"\nclient_address = \"a.example:7,tcp://[2001:db8::1]:8\"";
    let told = parse(&format!("{WHOLE}{told}")).unwrap();
    told.check().unwrap();
    assert_eq!(told.cell.peer(bound[0]), "a.example:9");
    assert_eq!(told.cell.clients(&bound), "tcp://a.example:7,tcp://[2001:db8::1]:8");
}

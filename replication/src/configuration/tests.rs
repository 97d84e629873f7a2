//! Texts read back, nothing damaged passes, and keys stay out of logs.

use super::*;
use std::format;
use std::string::ToString;
use std::vec;

use crate::member::BadNode;
use crate::text::checksum;

fn member_of(name: &str, incarnation: u64) -> Member {
    Member {
        node: NodeId::new(name).unwrap(),
        machine: "00ff".into(),
        incarnation: Incarnation::new(incarnation).unwrap(),
        peer: format!("{name}.example:7412"),
        clients: "tcp://10.0.0.1:7411,tcp://[fd00::1]:7411".into(),
    }
}

pub(crate) fn configuration() -> Configuration {
    Configuration {
        cell: CellId(0xFEED),
        epoch: Epoch::new(941_002).unwrap(),
        primary: NodeId::new("b").unwrap(),
        members: vec![Member { clients: String::new(), ..member_of("a", 7) }, member_of("b", u64::MAX)],
        reign: Epoch::new(941_000).unwrap(),
        feature_level: 1,
        shards: 4,
        digest_key: DigestKey([0x1111_2222_3333_4444, 0x5555_6666_7777_8888]),
        mac_key: MacKey(*b"sixteen bytes ok"),
        ttl_horizon: Duration::from_secs(5),
        clean: false,
        state_lost: true,
    }
}

/// A text with this body and a right checksum.
fn sealed(body: &str) -> String {
    format!("{body}check={:016x}\n", checksum(body.as_bytes()))
}

/// The text without its last line.
fn body(text: &str) -> &str {
    text.split_once("check=").unwrap().0
}

#[test]
fn a_configuration_reads_back_from_its_text() {
    let configuration = configuration();
    let text = configuration.to_text();
    assert_eq!(Configuration::from_text(text.as_bytes()), Ok(configuration.clone()), "{text}");
    let alone = Configuration { members: vec![member_of("b", 1)], ..configuration };
    assert_eq!(Configuration::from_text(alone.to_text().as_bytes()), Ok(alone));
}

#[test]
fn an_operator_reads_who_is_in_it() {
    let text = configuration().to_text();
    let expected = "fairlock-configuration 1\ncell=0000000000000000000000000000feed\nepoch=941002\nprimary=b\nreign=941000\n";
    assert!(text.starts_with(expected), "{text}");
    let line = "member=a machine=00ff incarnation=0000000000000007 peer=a.example:7412 clients=\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn the_longest_configuration_there_can_be_fits() {
    let longest = |at: usize| Member {
        node: NodeId::new(&format!("{at:x>64}")).unwrap(),
        machine: "f".repeat(64),
        peer: format!("{}:65535", "h".repeat(254)),
        clients: "c".repeat(1024),
        ..member_of("a", 1)
    };
    let mut members: Vec<Member> = (0..MEMBERS_MAX).map(longest).collect();
    members.sort_by(|one, other| one.node.cmp(&other.node));
    let full = Configuration { primary: members[0].node.clone(), members, ..configuration() };
    assert_eq!(Configuration::from_text(full.to_text().as_bytes()), Ok(full));
}

#[test]
fn keys_stay_out_of_what_is_printed_for_debugging() {
    let printed = format!("{:?} {:?}", configuration(), configuration().mac_key);
    for secret in ["1111", &0x1111_2222_3333_4444_u64.to_string(), "sixteen", "115, 105", "_key"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("941002") && printed.contains("a.example:7412"), "{printed}");
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unnoticed() {
    let text = configuration().to_text();
    for cut in 0..text.len() {
        assert!(Configuration::from_text(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let read = Configuration::from_text(&bytes);
            // A changed letter case in a digit of the checksum is the same number.
            assert!(read.is_err() || read == Ok(configuration()), "byte {at} bit {bit}: {read:?}");
        }
    }
}

#[test]
fn a_configuration_of_a_newer_server_is_told_from_a_damaged_one() {
    let newer = Configuration::from_text(b"fairlock-configuration 2\n\xFF");
    assert_eq!(newer, Err(NotARecord::Newer { format: 2, known: 1 }));
    let other = Configuration::from_text(b"fairlock-state 1\n");
    assert!(matches!(other, Err(NotARecord::Corrupt(what)) if what.contains("fairlock-configuration")));
}

#[test]
fn what_cannot_be_is_corrupt_even_with_a_right_checksum() {
    let text = configuration().to_text();
    let good = body(&text);
    assert!(Configuration::from_text(sealed(good).as_bytes()).is_ok());
    let (a, b) = ("member=a ", "member=b ");
    for (from, to) in [
        ("feed", "FEEX"),
        ("0000000000000000feed", "00000000000000000000"),
        ("epoch=941002", "epoch=940999"),
        ("epoch=941002", "epoch=0"),
        ("reign=941000", "reign="),
        ("primary=b", "primary=c"),
        ("primary=b", "primary=B"),
        ("shards=4", "shards=0"),
        ("shards=4", "shards=257"),
        ("shards=4", "shards=70000"),
        ("mac_key=", "mac_key=0"),
        ("digest_key=1", "digest_key=+"),
        ("ttl_horizon_ms=5000", "ttl_horizon_ms=3600001"),
        ("clean=false", "clean=no"),
        (a, "member=z "),
        (a, b),
        (a, "member= "),
        ("machine=00ff", "machine="),
        ("machine=00ff", "machine=00FF"),
        ("incarnation=0000000000000007", "incarnation=0000000000000000"),
        ("incarnation=0000000000000007", "incarnation=7"),
        ("peer=a.example:7412", "peer=a.example"),
        ("peer=a.example:7412", "peer=:7412"),
        ("peer=a.example:7412", "peer=a.example:+1"),
        (" clients=", ""),
        ("clients=tcp", "clients=tcp tcp"),
        ("state_lost=true\n", ""),
        ("state_lost=true\n", "state_lost=true\nmore=1\n"),
    ] {
        assert!(good.contains(from), "{from}");
        let text = sealed(&good.replacen(from, to, 1));
        let read = Configuration::from_text(text.as_bytes());
        assert!(matches!(read, Err(NotARecord::Corrupt(_))), "{from} → {to}: {read:?}");
    }
    let mut crowd = String::new();
    for at in 10..27 {
        let _ = writeln!(crowd, "member=n{at} machine=0 incarnation=0000000000000001 peer=a:1 clients=");
    }
    let text = sealed(&good.replace("member=b ", &format!("{crowd}member=b ")));
    assert_eq!(Configuration::from_text(text.as_bytes()), Err(NotARecord::Corrupt("more than 16 members")));
}

#[test]
fn names_of_nodes_are_checked_at_the_door() {
    for good in ["a", "node-1.example_2", &"x".repeat(64)] {
        assert_eq!(NodeId::new(good).unwrap().to_string(), good);
    }
    for bad in ["", "A", "a b", "a/b", "ä", &"x".repeat(65)] {
        assert_eq!(NodeId::new(bad), Err(BadNode), "{bad}");
    }
    assert_eq!(Incarnation::new(0), None);
    assert_eq!(Incarnation::new(255).unwrap().to_string(), "00000000000000ff");
}

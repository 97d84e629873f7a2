//! Every message comes back as it was, and nothing that is broken is taken for one.

use super::*;
use std::vec;

fn samples(entries: &[u8]) -> Vec<Message<'_>> {
    vec![
        Message::Greet { view: 7, reign: 5, received: Lsn(99), joins: true },
        Message::Ack { epoch: 7, round: Round(12), received: Lsn(100), pieces: 3 },
        Message::Late { promised: 8 },
        Message::Activate { epoch: 8, reign: 8, from: Lsn(98), snapshot: false, configuration: b"text" },
        Message::Append {
            epoch: 8,
            round: Round(13),
            commit: Lsn(99),
            after: Lsn(100),
            entries: Entries::new(entries).unwrap(),
        },
        Message::Piece { epoch: 8, number: 2, last: true, bytes: b"piece" },
        Message::Yield { epoch: 9, configuration: b"next" },
        Message::Refuse { epoch: 9, why: Unwelcome::Stranger },
    ]
}

fn entries() -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in [b"one".as_slice(), b"", b"three"] {
        Entries::push(&mut bytes, entry);
    }
    bytes
}

#[test]
fn messages_read_back() {
    let entries = entries();
    let mut bytes = Vec::new();
    for message in samples(&entries) {
        message.encode(&mut bytes);
    }
    let mut rest = bytes.as_slice();
    for message in samples(&entries) {
        let (read, length) = Message::split(rest).unwrap().unwrap();
        assert_eq!(read, message);
        rest = &rest[length..];
    }
    assert!(Message::split(rest).unwrap().is_none());
    let read: Vec<&[u8]> = Entries::new(&entries).unwrap().iter().collect();
    assert_eq!(read, [b"one".as_slice(), b"", b"three"]);
}

#[test]
fn half_messages_wait_and_broken_ones_do_no_harm() {
    let entries = entries();
    for message in samples(&entries) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Message::split(&bytes[..end]), Ok(None));
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut broken = bytes.clone();
                broken[at] = value;
                if let Ok(Some((_, length))) = Message::split(&broken) {
                    assert!(length <= broken.len(), "what was read was there");
                }
            }
        }
    }
    assert!(matches!(Message::split(&[0xFF; 8]), Err(Malformed::TooLarge { .. })));
    assert!(Entries::new(&[5, 0, 0, 0, 1]).is_err());
}

//! Every command reads back as it was written; other bytes are refused and nothing breaks.

use super::*;
use crate::command::{Attributes, Item, WaiterKey};
use fairlock_protocol::{Digest, Epoch, Mode, OwnerId, Priority, RequestId, Secret, SessionId};
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec;

const SESSION: SessionKey = SessionKey { slot: 3, generation: 9 };
const MOMENT: Tick = Tick(0x0102_0304_0506_0708);

fn plain(name: &[u8]) -> Acquire<'_> {
    Acquire {
        session: SESSION,
        request: RequestId(77),
        digest: Digest([5, u64::MAX]),
        resource: Resource::new(b"", name).unwrap(),
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait: Wait::Forever,
        owner: OwnerId(u64::MAX),
        reentrant: false,
        notify: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    }
}

fn opening() -> Open<'static> {
    Open {
        id: SessionId::from_raw(99).unwrap(),
        secret: Secret(0x1234_5678 << 90),
        ttl_ms: 5000,
        lease: Lease::Watched,
        visiting: true,
        identity: b"who",
        reclaim_key: b"key",
        predecessor_gone: true,
        attributes: Attributes { pid: 4711, host: b"host", exe: b"/bin/exe", label: &[0xFF; 256] },
    }
}

fn item(name: &[u8]) -> Item<'_> {
    let digest = Digest([u64::from(name[0]), 8]);
    Item { digest, resource: Resource::new(b"stock", name).unwrap(), mode: Mode::PR }
}

/// One or more of each kind.
fn each_command<'a>(items: &'a [Item<'a>]) -> Vec<Command<'a>> {
    let (session, request, digest) = (SESSION, RequestId(77), Digest([1, 2]));
    let grant = GrantId::from_raw(7 << 32 | 1).unwrap();
    let opens = [opening(), Open { lease: Lease::Heartbeat, visiting: false, identity: b"", ..opening() }];
    let rich = Acquire {
        resource: Resource::new(b"stock", &[0xFF; 1024]).unwrap(),
        mode: Mode::CR,
        priority: Priority::HIGHEST,
        wait: Wait::Millis(u64::MAX),
        reentrant: true,
        notify: true,
        lock_delay_ms: 60_000,
        max_hold_ms: u32::MAX,
        label: &[b'l'; 256],
        ..plain(b"x")
    };
    let all = AcquireAll { session, request, items, wait: Wait::Millis(0), owner: OwnerId(1), label: b"all" };
    let mut commands = vec![
        Command::Resume { session, received: u64::MAX },
        Command::Acknowledge { session, received: 5 },
        Command::Acquire(plain(b"orders/42")),
        Command::Acquire(Acquire { wait: Wait::Try, ..rich }),
        Command::Acquire(rich),
        Command::AcquireAll(all),
        Command::AcquireAll(AcquireAll { items: &[], ..all }),
        Command::Release { session, request, grant },
        Command::Convert { session, request, grant, mode: Mode::PW, wait: Wait::Forever },
        Command::Cancel { session, request, target: RequestId(3) },
        Command::Break { digest, force: true },
        Command::Break { digest, force: false },
        Command::Kill { session, force: true },
        Command::Confirm { session, grant },
        Command::Cache { session, grant },
        Command::GiveBack { session, grant },
        Command::WaitOver { waiter: WaiterKey { slot: 1, generation: 2 } },
        Command::HoldOver { grant },
        Command::DelayOver { digest },
        Command::Doom { session },
        Command::Epoch(Epoch::new(0x00AB_CDEF).unwrap()),
        Command::TakeOver(Epoch::new(7).unwrap()),
    ];
    commands.extend(opens.map(Command::Open));
    commands.extend(REASONS.map(|why| Command::End { session, why }));
    commands
}

/// What a command says, and what its text form hides.
fn shown(moment: Tick, command: &Command<'_>) -> String {
    let secret = if let Command::Open(open) = command { open.secret.0 } else { 0 };
    format!("{moment:?} {command:?} {secret}")
}

fn written(command: &Command<'_>) -> Vec<u8> {
    let mut out = vec![];
    encode(MOMENT, command, &mut out);
    out
}

fn read(bytes: &[u8]) -> Result<String, Malformed> {
    decode(bytes, |moment, command| shown(moment, &command))
}

#[test]
fn every_command_reads_back_as_it_was_written() {
    let items = [item(b"ab"), item(b"b")];
    for command in each_command(&items) {
        assert_eq!(read(&written(&command)), Ok(shown(MOMENT, &command)));
    }
}

#[test]
fn an_operation_ends_where_it_ends() {
    let items = [item(b"ab"), item(b"b")];
    for command in each_command(&items) {
        let mut bytes = written(&command);
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut} bytes of {command:?}");
        }
        bytes.push(0);
        assert_eq!(read(&bytes), Err(Malformed::Surplus { bytes: 1 }), "{command:?}");
    }
}

#[test]
fn a_plain_request_for_a_name_of_sixteen_bytes_takes_seventy_four() {
    assert_eq!(written(&Command::Acquire(plain(b"lock/0000000000/"))).len(), 74);
}

#[test]
fn what_a_table_takes_for_granted_is_checked() {
    let mut label = written(&Command::Acquire(plain(b"x")));
    let at = label.len() - 1 - 1 - 2 - 2;
    label[at..at + 2].copy_from_slice(&257_u16.to_le_bytes());
    assert_eq!(read(&label), Err(Malformed::Refused(fairlock_protocol::Refusal::TooLong)));
    let mut why = written(&Command::End { session: SESSION, why: Ended::Died });
    *why.last_mut().unwrap() = 5;
    assert_eq!(read(&why), Err(Malformed::Illegal("why")));
    let mut kind = written(&Command::Doom { session: SESSION });
    for unknown in [0, 200] {
        kind[0] = unknown;
        assert_eq!(read(&kind), Err(Malformed::UnknownKind(unknown)));
    }
}

proptest! {
    #[test]
    fn bytes_at_random_are_an_error_or_an_operation(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..24_u8,
    ) {
        let _ = read(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = kind;
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_changed_operation_is_an_error_or_another_operation(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let items = [item(b"ab"), item(b"b")];
        let commands = each_command(&items);
        let mut bytes = written(pick.get(&commands));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // What can be read can be written, and reads back.
        let again = decode(&bytes, |moment, command| {
            let mut out = vec![];
            encode(moment, &command, &mut out);
            (out, shown(moment, &command))
        });
        if let Ok((out, shown)) = again {
            prop_assert_eq!(read(&out), Ok(shown));
        }
    }
}

//! Every message reads back as it was written, from exactly its own bytes: no shorter body is taken for it, and
//! nothing may follow it.

use super::*;
use crate::handshake::{Role, Welcome};
use crate::ids::{CellId, Epoch, ShardId};
use crate::reply::{CycleEdge, Grant, Refused, Reply};
use crate::wire::FLAG_RENEWED;
use crate::{DigestKey, Whereabouts, admin};
use std::vec;

fn grant_id() -> GrantId {
    GrantId::from_raw(0x0001_0000_0002).unwrap()
}

fn resource() -> Resource<'static> {
    Resource::new(b"vm", b"disk\0\xFF").unwrap()
}

fn requests() -> Vec<Request<'static>> {
    let acquire = Acquire {
        resource: Resource::new(b"", b"demo").unwrap(),
        mode: Mode::PR,
        priority: Priority::HIGHEST,
        wait: Wait::Millis(1500),
        owner: OwnerId(77),
        reentrant: true,
        notify: true,
        cacheable: true,
        lock_delay_ms: 3,
        max_hold_ms: 4,
        label: b"nightly",
    };
    let open = Open {
        ttl_ms: 5000,
        liveness: Liveness::Process,
        predecessor_gone: true,
        pid: 42,
        identity: b"ms-3",
        reclaim_key: b"key",
        host: b"h1",
        exe: b"/bin/true",
        label: b"",
    };
    let session = SessionId::new(Epoch::new(3).unwrap(), ShardId(1), 9).unwrap();
    let token = FencingToken::new(Epoch::new(3).unwrap(), 5).unwrap();
    let (grant, resource) = (grant_id(), resource());
    vec![
        Request::Hello(Hello { auth: b"token", ..Hello::to(ShardId(2)) }),
        Request::Open(open),
        Request::Resume { session, secret: Secret(1 << 100), received: 8 },
        Request::Close,
        Request::Keepalive,
        Request::Acquire(acquire),
        Request::Acquire(Acquire { wait: Wait::Try, reentrant: false, notify: false, label: b"", ..acquire }),
        Request::Release(grant),
        Request::Convert { grant, mode: Mode::EX, wait: Wait::Forever },
        Request::Cancel(RequestId(4)),
        Request::Validate { resource, token },
        Request::Confirm(grant),
        Request::Show { cursor: 2, resource },
        Request::Sessions { cursor: 3 },
        Request::Status,
        Request::Break { resource, force: true },
        Request::Kill { session, force: false },
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let session = SessionId::new(Epoch::new(3).unwrap(), ShardId(1), 9).unwrap();
    let welcome = Welcome {
        version: 1,
        shard: ShardId(1),
        shards: 2,
        role: Role::Standalone,
        features: 1,
        cell: CellId(5),
        epoch: 3,
        ttl_max_ms: 60_000,
        recovering_ms: 9,
        digest_key: DigestKey([1, 2]),
    };
    let grant = Grant {
        grant: grant_id(),
        token: FencingToken::from_raw(99),
        fence: 98,
        mode: Mode::EX,
        waited_us: 1234,
        previous_owner_died: true,
        reentered: false,
        proof: None,
    };
    let edge = CycleEdge { session, owner: OwnerId(1), mode: Mode::EX, label: b"other" };
    vec![
        Reply::Welcome(welcome),
        Reply::Opened { session, secret: Secret(7), ttl_ms: 1, home: ShardId(1) },
        Reply::Resumed { ttl_ms: 1, seen: 2, following: 3 },
        Reply::Closed,
        Reply::Alive,
        Reply::Granted(grant),
        Reply::Converted(Grant { token: None, mode: Mode::NL, ..grant }),
        Reply::Released { remaining: 2 },
        Reply::Withdrawn { was_waiting: true },
        Reply::Validated { current: false },
        Reply::Refused(Refusal::WouldBlock.into()),
        Reply::Refused(Refused {
            refusal: Refusal::Deadlock,
            retry_after_ms: 0,
            cycle: Some(edge),
            primary: None,
            detail: "x",
        }),
        Reply::Refused(Refused {
            primary: Some(Whereabouts { epoch: 4, endpoints: "tcp://b:7411" }),
            detail: "a backup",
            ..Refusal::NotPrimary.into()
        }),
        Reply::Broke { holders: 3 },
        Reply::Killed,
        Reply::Blocking { grant: grant_id(), wanted: Mode::PW, waiters: 3 },
        Reply::Broken { grant: grant_id(), forced: true },
        Reply::HoldOver { grant: grant_id() },
        Reply::KillAnnounced,
        Reply::Over(Refusal::SessionExpired),
        Reply::Draining,
        Reply::Members(Whereabouts { epoch: 4, endpoints: "tcp://b:7411,tcp://a:7411" }),
        Reply::Members(Whereabouts { epoch: 4, endpoints: "" }),
    ]
}

/// Every proper prefix of the body must be refused, and so must one byte more.
fn only_whole<'a, T: core::fmt::Debug>(frame: Frame<'a>, decode: impl Fn(Frame<'a>) -> Result<T, Malformed>) {
    for cut in 0..frame.body.len() {
        let cut_short = Frame { body: &frame.body[..cut], ..frame };
        assert!(decode(cut_short).is_err(), "kind {:#x} decoded from {cut} bytes", frame.kind);
    }
}

#[test]
fn every_request_reads_back_and_only_whole() {
    for request in requests() {
        let mut out = vec![];
        request.encode(RequestId(11), 12, &mut out);
        let (frame, used) = Frame::split(&out).unwrap().unwrap();
        assert_eq!((used, Request::decode(&frame)), (out.len(), Ok(request)));
        only_whole(frame, |frame| Request::decode(&frame));
    }
}

#[test]
fn every_reply_reads_back_and_only_whole() {
    for reply in replies() {
        let mut out = vec![];
        reply.encode(RequestId(11), FLAG_RENEWED, &mut out);
        let (frame, used) = Frame::split(&out).unwrap().unwrap();
        assert_eq!((used, Reply::decode(&frame)), (out.len(), Ok(reply)));
        only_whole(frame, |frame| Reply::decode(&frame));
    }
}

#[test]
fn surplus_bytes_are_refused() {
    for request in requests() {
        let mut out = vec![];
        request.encode(RequestId(1), 0, &mut out);
        out.push(0);
        let length = u32::try_from(out.len()).unwrap();
        out[..4].copy_from_slice(&length.to_le_bytes());
        let (frame, _) = Frame::split(&out).unwrap().unwrap();
        assert!(Request::decode(&frame).is_err(), "{request:?}");
    }
}

#[test]
fn names_that_are_not_names_refuse_one_request_and_not_the_connection() {
    let mut out = vec![];
    requests()[5].encode(RequestId(1), 0, &mut out);
    out[16 + 24..16 + 26].copy_from_slice(&0_u16.to_le_bytes());
    let (frame, _) = Frame::split(&out).unwrap().unwrap();
    let malformed = Request::decode(&frame).unwrap_err();
    assert_eq!(malformed, Malformed::Surplus { bytes: 4 });
    assert!(!malformed.is_confined(), "lengths that contradict each other end the connection");
    assert!(Malformed::Refused(Refusal::BadName).is_confined());
}

#[test]
fn a_class_that_does_not_exist_ends_the_connection() {
    let mut out = vec![];
    requests()[5].encode(RequestId(1), 0, &mut out);
    assert_eq!(out[16 + 22], 7, "the priority stands behind the flags");
    out[16 + 22] = 8;
    let (frame, _) = Frame::split(&out).unwrap().unwrap();
    let malformed = Request::decode(&frame).unwrap_err();
    assert_eq!(malformed, Malformed::Illegal("priority"));
    assert!(!malformed.is_confined());
}

#[test]
fn waits_keep_their_meaning_on_the_wire() {
    assert_eq!(Wait::from_wire(Wait::Forever.wire()), Wait::Forever);
    assert_eq!(Wait::from_wire(Wait::Millis(u64::MAX).wire()), Wait::Millis(u64::from(u32::MAX) - 1));
    assert_eq!(Wait::up_to(core::time::Duration::from_nanos(1)), Wait::Millis(1));
    assert_eq!(Wait::up_to(core::time::Duration::ZERO), Wait::Try);
}

#[test]
fn a_page_takes_what_fits_a_frame_and_says_where_to_go_on() {
    let name = vec![b'n'; 1024];
    let resource = Resource::new(b"", &name).unwrap();
    let entry = admin::LockEntry { resource, holders: 1, cached: 1, waiters: 2, mode: Some(Mode::EX) };
    let mut out = vec![];
    let mut page = admin::PageWriter::begin(&mut out, crate::reply::kind::LISTED, RequestId(3));
    let mut pushed = 0;
    while page.push(&entry) {
        pushed += 1;
    }
    page.finish(17);
    let (frame, _) = Frame::split(&out).unwrap().unwrap();
    let Ok(Reply::Listed(page)) = Reply::decode(&frame) else { panic!("not a page") };
    assert_eq!((page.next, page.entries().count()), (17, pushed));
    assert!(page.entries().all(|read| read == entry) && pushed > 50);
}

#[test]
fn the_resource_of_an_acquire_is_read_alone_as_with_the_rest() {
    let resource = Resource::new(b"vm", b"disk\x00\xff").unwrap();
    let acquire = Acquire {
        resource,
        mode: Mode::EX,
        wait: Wait::Try,
        owner: OwnerId(7),
        reentrant: false,
        notify: false,
        cacheable: false,
        priority: Priority::default(),
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"label",
    };
    let mut bytes = Vec::new();
    Request::Acquire(acquire).encode(RequestId(1), 0, &mut bytes);
    let (frame, _) = Frame::split(&bytes).unwrap().unwrap();
    assert_eq!(resource_of_acquire(&frame), Some(resource));
    for length in 0..frame.body.len() {
        let cut = Frame { body: &frame.body[..length], ..frame };
        if let Ok(Request::Acquire(whole)) = Request::decode(&cut) {
            assert_eq!(resource_of_acquire(&cut), Some(whole.resource));
        }
    }
    let other = Frame { kind: kind::RELEASE, ..frame };
    assert_eq!(resource_of_acquire(&other), None);
}

//! The talk of one stream, spoken by hand: what the client says is decoded again, what the server says is encoded here.

mod cached;
mod entered;

use super::*;
use crate::session::Spec;
use crate::session::hold::tests::spec;
use fairlock_protocol::reply::{self, Refused};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    CellId, DigestKey, Epoch, FencingToken, Frame, Reply, Request, Role, Secret, SessionId, Welcome,
};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(5);
const KEY: DigestKey = DigestKey([1, 2]);

fn at(ms: u64) -> Tick {
    Tick::from_millis(ms)
}

/// A stream and its server's pen. Askers are named by numbers.
struct Talk {
    stream: Stream<u32>,
    lease: Arc<Lease>,
}

impl Talk {
    /// A session opened on this stream at 1 s.
    fn opened() -> Talk {
        let session = SessionId::new(Epoch::new(1).unwrap(), ShardId(0), 7).unwrap();
        let passport = Arc::new(Passport {
            identity: std::sync::Mutex::new((session, Secret(42))),
            home: ShardId(0),
            shards: 1,
            digest_key: KEY,
            cell: CellId(9),
            epoch: AtomicU32::new(1),
        });
        let lease = Arc::new(Lease::new(at(1000), TTL));
        let stream = Stream::new(ShardId(0), passport, Arc::clone(&lease), Jitter::new(5)).opened(1, 0);
        Talk { stream, lease }
    }

    fn acquire(&mut self, ms: u64, who: u32) -> RequestId {
        self.acquire_as(ms, who, spec(0))
    }

    fn acquire_as(&mut self, ms: u64, who: u32, spec: Arc<Spec>) -> RequestId {
        self.stream.submit(at(ms), Ask::Acquire(spec), Some(who), false).unwrap()
    }

    /// Asks for so many locks at once.
    fn acquire_all(&mut self, ms: u64, who: u32, count: u8) -> RequestId {
        let named = |number: u8| Arc::new(Spec { name: [number].into(), ..(*spec(0)).clone() });
        let bundle = Arc::new(Bundle { specs: (0..count).map(named).collect(), wait: Wait::Forever });
        self.stream.submit(at(ms), Ask::AcquireAll(bundle), Some(who), false).unwrap()
    }

    /// What the client said since the last look: kind of request and number.
    fn said(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.stream.out);
        let mut rest = bytes.as_slice();
        let mut said = Vec::new();
        while let Some((frame, length)) = Frame::split(rest).unwrap() {
            let text = match Request::decode(&frame).unwrap() {
                Request::Acquire(acquire) => format!("acquire {:?}", acquire.wait),
                Request::AcquireAll(all) => format!("acquire {} {:?}", all.items.count(), all.wait),
                Request::Resume { received, .. } => format!("resume {received}"),
                Request::Hello(hello) => format!("hello {}", hello.shard.0),
                Request::Release(grant) => format!("release {}", grant.slot()),
                Request::Confirm(grant) => format!("confirm {}", grant.slot()),
                Request::Cancel(target) => format!("cancel {}", target.0),
                other => format!("{other:?}").to_lowercase(),
            };
            said.push(format!("{}: {text} ack {}", frame.request.0, frame.ack));
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "whole frames only");
        said
    }

    fn hear(&mut self, ms: u64, id: RequestId, flags: u8, reply: &Reply<'_>) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        reply.encode(id, flags, &mut bytes);
        let (frame, _) = Frame::split(&bytes).unwrap().unwrap();
        self.stream.receive(at(ms), &frame)
    }

    fn hear_ok(&mut self, ms: u64, id: RequestId, flags: u8, reply: &Reply<'_>) {
        self.hear(ms, id, flags, reply).unwrap();
    }

    /// What those who asked are told, and the other events, in words.
    fn told(&mut self) -> Vec<String> {
        let word = |event: Event<u32>| match event {
            Event::Answered(who, Answer::Granted(hold)) => format!("{who} granted {}", hold.grant().slot()),
            Event::Answered(who, Answer::GrantedAll(holds)) => {
                let slots: Vec<_> = holds.iter().map(|hold| hold.grant().slot()).collect();
                format!("{who} granted all {slots:?}")
            }
            Event::Answered(who, Answer::Converted) => format!("{who} converted"),
            Event::Answered(who, Answer::Refused(refusal, _)) => format!("{who} {}", refusal.name()),
            Event::Answered(who, Answer::Lost(cause)) => format!("{who} lost {cause:?}"),
            Event::HoldOver(hold) => format!("over {}", hold.grant().slot()),
            Event::Over(cause) => format!("session over {cause:?}"),
            other => format!("{other:?}"),
        };
        self.stream
            .take_events()
            .into_iter()
            .filter(|event| !matches!(event, Event::Rearm))
            .map(word)
            .collect()
    }

    /// Breaks the connection and resumes on another.
    fn resume(&mut self, ms: u64, following: u32) {
        self.stream.disconnected();
        self.stream.connected(0);
        self.hear_ok(ms, RequestId::NOTICE, 0, &Reply::Welcome(welcome(1)));
        let resumed = Reply::Resumed { ttl_ms: 5000, seen: 0, following };
        self.hear_ok(ms, RequestId(0), FLAG_RENEWED, &resumed);
    }
}

fn welcome(shards: u16) -> Welcome {
    Welcome {
        version: 1,
        shard: ShardId(0),
        shards,
        role: Role::Standalone,
        features: 0,
        cell: CellId(9),
        epoch: 3,
        ttl_max_ms: 60_000,
        recovering_ms: 0,
        digest_key: KEY,
    }
}

fn grant(slot: u32) -> reply::Grant {
    reply::Grant {
        grant: GrantId::from_parts(slot, std::num::NonZeroU32::MIN),
        token: FencingToken::from_raw(100 + u64::from(slot)),
        fence: 99,
        mode: fairlock_protocol::Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered: false,
        proof: None,
    }
}

fn granted(slot: u32) -> Reply<'static> {
    Reply::Granted(grant(slot))
}

fn refused(refusal: Refusal, retry_after_ms: u32) -> Reply<'static> {
    Reply::Refused(Refused { retry_after_ms, ..refusal.into() })
}

#[test]
fn a_lock_is_asked_for_granted_and_given_back() {
    let mut talk = Talk::opened();
    let id = talk.acquire(1100, 1);
    assert_eq!(talk.said(), ["2: acquire Forever ack 0"]);
    talk.hear_ok(1200, id, FLAG_KEPT | FLAG_RENEWED, &granted(5));
    let events = talk.stream.take_events();
    let [Event::Answered(1, Answer::Granted(hold))] = &events[..] else { panic!("{events:?}") };
    assert!(hold.check(&talk.lease, at(1300)).is_ok());
    talk.stream.release(at(1300), hold);
    assert_eq!(talk.said(), ["3: release 5 ack 1"]);
    assert_eq!(hold.check(&talk.lease, at(1300)), Err(LostCause::Released));
}

#[test]
fn only_a_flagged_reply_moves_the_deadline_and_it_counts_from_the_first_sending() {
    let mut talk = Talk::opened();
    let before = talk.lease.check(at(1100)).unwrap();
    let id = talk.acquire(2000, 1);
    talk.hear_ok(2100, id, 0, &refused(Refusal::WouldBlock, 0));
    assert_eq!(talk.lease.check(at(2100)), Ok(before), "a refusal confirms nothing");
    let id = talk.stream.submit(at(2200), Ask::Keepalive, None, false).unwrap();
    talk.resume(3000, 0);
    let resumed = talk.lease.check(at(3000)).unwrap();
    assert_eq!(resumed, at(3000 + 5000 - 50 - 10));
    talk.hear_ok(3500, id, FLAG_RENEWED, &Reply::Alive);
    assert_eq!(talk.lease.check(at(3500)), Ok(resumed), "sent first at 2200, whatever was sent again later");
}

#[test]
fn a_grant_after_the_deadline_goes_back_even_with_the_flag() {
    let mut talk = Talk::opened();
    let id = talk.acquire(5000, 1);
    talk.said();
    talk.hear_ok(5940, id, FLAG_KEPT | FLAG_RENEWED, &granted(5));
    assert_eq!(talk.told(), ["1 lost Lease"]);
    assert_eq!(talk.said(), ["3: release 5 ack 1"]);
    assert!(talk.lease.check(at(5941)).is_err());
}

#[test]
fn after_a_broken_connection_what_is_unanswered_is_said_again_once_in_order_under_its_number() {
    let mut talk = Talk::opened();
    let (first, second) = (talk.acquire(1100, 1), talk.acquire(1101, 2));
    talk.hear_ok(1200, first, FLAG_KEPT, &granted(5));
    let third = talk.acquire(1201, 3);
    talk.said();
    talk.stream.disconnected();
    let fourth = talk.acquire(1300, 4);
    assert_eq!(talk.said(), [""; 0], "nothing is said without a connection");
    talk.stream.connected(0);
    assert_eq!(talk.said(), ["0: hello 0 ack 0"]);
    talk.hear_ok(1400, RequestId::NOTICE, 0, &Reply::Welcome(welcome(1)));
    assert_eq!(talk.said(), ["6: resume 1 ack 1"]);
    let resumed = Reply::Resumed { ttl_ms: 5000, seen: 4, following: 1 };
    talk.hear_ok(1500, RequestId(6), 0, &resumed);
    assert_eq!(talk.said(), [""; 0], "what was kept comes first");
    talk.hear_ok(1501, third, FLAG_KEPT, &refused(Refusal::WouldBlock, 0));
    assert_eq!(talk.said(), ["3: acquire Forever ack 2", "5: acquire Forever ack 2"]);
    assert_eq!((second, fourth), (RequestId(3), RequestId(5)));
    assert_eq!(talk.told(), ["1 granted 5", "3 WOULD_BLOCK"]);
}

#[test]
fn a_reply_that_comes_twice_is_told_once() {
    let mut talk = Talk::opened();
    let id = talk.acquire(1100, 1);
    talk.hear_ok(1200, id, FLAG_KEPT, &granted(5));
    talk.said();
    talk.hear_ok(1201, id, 0, &granted(5));
    assert_eq!(talk.told(), ["1 granted 5"]);
    assert_eq!(talk.said(), [""; 0], "and what is held is not given back");
}

#[test]
fn busy_rests_and_is_sent_again_under_the_same_number_with_what_is_left_of_the_wait() {
    let mut talk = Talk::opened();
    let timed = Arc::new(Spec { wait: Wait::Millis(1000), ..(*spec(0)).clone() });
    let id = talk.acquire_as(1100, 1, timed);
    talk.said();
    talk.hear_ok(1200, id, 0, &refused(Refusal::Busy, 300));
    assert_eq!(talk.stream.due(), Some(at(1500)));
    talk.stream.tick(at(1499));
    assert_eq!(talk.said(), [""; 0]);
    talk.stream.tick(at(1500));
    assert_eq!(talk.said(), ["2: acquire Millis(600) ack 0"]);
    talk.hear_ok(2150, id, 0, &refused(Refusal::Busy, 300));
    assert_eq!(talk.told(), ["1 TIMEOUT"], "its time ran out while it rested");
}

#[test]
fn a_try_waits_neither_for_a_quarantine_to_end_nor_for_another_node_to_join() {
    for refusal in [Refusal::Recovering, Refusal::Draining, Refusal::Unavailable] {
        let mut talk = Talk::opened();
        let id = talk.acquire_as(1100, 1, Arc::new(Spec { wait: Wait::Try, ..(*spec(0)).clone() }));
        talk.hear_ok(1200, id, 0, &refused(refusal, 300));
        assert_eq!(talk.told(), [format!("1 {}", refusal.name())]);
    }
}

#[test]
fn a_broken_grant_is_void_before_its_confirmation_is_written_and_is_confirmed_until_the_server_knows() {
    let mut talk = Talk::opened();
    let id = talk.acquire(1100, 1);
    talk.hear_ok(1200, id, 0, &granted(5));
    let events = talk.stream.take_events();
    let [Event::Answered(_, Answer::Granted(hold))] = &events[..] else { panic!("{events:?}") };
    talk.said();
    let broken = Reply::Broken { grant: hold.grant(), forced: false };
    talk.hear_ok(1300, RequestId::NOTICE, FLAG_KEPT, &broken);
    assert_eq!(hold.check(&talk.lease, at(1300)), Err(LostCause::Broken));
    assert_eq!(talk.said(), ["3: confirm 5 ack 1"]);
    talk.resume(1400, 0);
    assert_eq!(talk.said().last().unwrap(), "3: confirm 5 ack 1", "the server may not have it");
    let later = talk.acquire(1500, 2);
    talk.hear_ok(1600, later, 0, &refused(Refusal::WouldBlock, 0));
    talk.said();
    talk.resume(1700, 0);
    assert!(!talk.said().iter().any(|said| said.contains("confirm")), "an answer to something later: it has");
    talk.stream.release(at(1800), hold);
    assert_eq!(talk.said(), [""; 0], "what is broken is not released");
}

#[test]
fn a_broken_grant_that_is_still_in_use_is_confirmed_when_its_guard_is_given_back() {
    let mut talk = Talk::opened();
    talk.stream.confirm_when_released();
    let id = talk.acquire(1100, 1);
    talk.hear_ok(1200, id, 0, &granted(5));
    let events = talk.stream.take_events();
    let [Event::Answered(_, Answer::Granted(hold))] = &events[..] else { panic!("{events:?}") };
    talk.said();
    let broken = Reply::Broken { grant: hold.grant(), forced: false };
    talk.hear_ok(1300, RequestId::NOTICE, FLAG_KEPT, &broken);
    assert_eq!(hold.check(&talk.lease, at(1300)), Err(LostCause::Broken), "lost at once");
    assert_eq!(talk.said(), [""; 0], "but the next holder has to wait");
    talk.stream.release(at(1800), hold);
    assert_eq!(talk.said(), ["3: confirm 5 ack 1"]);
}

#[test]
fn what_is_abandoned_is_withdrawn_and_a_grant_that_raced_goes_back() {
    let mut talk = Talk::opened();
    let id = talk.acquire(1100, 1);
    talk.said();
    talk.stream.abandon(at(1200), id);
    talk.stream.abandon(at(1201), id);
    assert_eq!(talk.said(), ["3: cancel 2 ack 0"]);
    talk.hear_ok(1300, id, FLAG_KEPT, &granted(5));
    talk.hear_ok(1301, RequestId(3), FLAG_KEPT, &Reply::Withdrawn { was_waiting: false });
    assert_eq!(talk.said(), ["4: release 5 ack 1"]);
    assert_eq!(talk.told(), [""; 0], "nobody is told");
}

#[test]
fn what_was_never_sent_is_abandoned_without_a_word() {
    let mut talk = Talk::opened();
    talk.stream.disconnected();
    let id = talk.acquire(1100, 1);
    talk.stream.abandon(at(1200), id);
    talk.resume(1300, 0);
    assert_eq!(talk.said(), ["0: hello 0 ack 0", "3: resume 0 ack 0"]);
}

#[test]
fn a_server_that_does_not_know_the_session_ends_it() {
    let mut talk = Talk::opened();
    talk.stream.disconnected();
    talk.stream.connected(0);
    talk.hear_ok(1400, RequestId::NOTICE, 0, &Reply::Welcome(welcome(1)));
    talk.hear_ok(1500, RequestId(2), 0, &refused(Refusal::SessionUnknown, 0));
    assert_eq!(talk.told(), ["session over Session(SessionUnknown)"]);
}

#[test]
fn another_number_of_shards_cannot_be_our_session_and_another_primary_is_asked_elsewhere() {
    let mut talk = Talk::opened();
    talk.stream.disconnected();
    talk.stream.connected(0);
    talk.hear_ok(1400, RequestId::NOTICE, 0, &Reply::Welcome(welcome(2)));
    assert_eq!(talk.told(), ["session over Session(SessionUnknown)"]);
    let mut talk = Talk::opened();
    talk.stream.disconnected();
    talk.stream.connected(0);
    talk.hear_ok(1400, RequestId::NOTICE, 0, &refused(Refusal::NotPrimary, 20));
    assert_eq!(talk.told(), ["Elsewhere(20, None)"]);
}

#[test]
fn the_end_of_a_session_fails_what_waits_and_voids_what_is_held() {
    let mut talk = Talk::opened();
    let (held, _) = (talk.acquire(1100, 1), talk.acquire(1101, 2));
    talk.hear_ok(1200, held, 0, &granted(5));
    talk.hear_ok(1300, RequestId::NOTICE, 0, &Reply::KillAnnounced);
    assert_eq!(talk.told(), ["1 granted 5", "session over Killed"]);
    talk.stream.end(LostCause::Killed);
    assert_eq!(talk.told(), ["2 lost Killed", "over 5"]);
    talk.said();
    assert_eq!(talk.stream.submit(at(1400), Ask::Keepalive, None, false), None);
    let close = talk.stream.submit(at(1400), Ask::Close, None, true).unwrap();
    talk.hear_ok(1500, close, 0, &Reply::Closed);
    assert_eq!(talk.told(), ["Closed"]);
}

#[test]
fn re_entry_shares_one_hold_and_leaves_with_the_last_guard() {
    let mut talk = Talk::opened();
    let (first, second) = (talk.acquire(1100, 1), talk.acquire(1101, 2));
    talk.hear_ok(1200, first, 0, &granted(5));
    talk.hear_ok(1201, second, 0, &Reply::Granted(reply::Grant { reentered: true, ..grant(5) }));
    let events = talk.stream.take_events();
    let [Event::Answered(1, Answer::Granted(a)), Event::Answered(2, Answer::Granted(b))] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(Arc::ptr_eq(a, b));
    talk.stream.release(at(1300), a);
    assert!(b.check(&talk.lease, at(1300)).is_ok());
    talk.stream.release(at(1301), b);
    assert!(b.check(&talk.lease, at(1301)).is_err());
    assert_eq!(talk.said()[2..], ["4: release 5 ack 0", "5: release 5 ack 0"]);
}

#[test]
fn kept_replies_are_acknowledged_even_in_silence() {
    let mut talk = Talk::opened();
    let ids: Vec<_> = (0..256).map(|who| talk.acquire(1100, who)).collect();
    talk.said();
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(talk.said(), [""; 0], "after {index}");
        talk.hear_ok(1200, *id, FLAG_KEPT, &refused(Refusal::Timeout, 0));
    }
    assert_eq!(talk.said(), ["258: keepalive ack 256"]);
}

#[test]
fn a_longest_hold_ends_by_the_local_clock() {
    let mut talk = Talk::opened();
    let id = talk.acquire_as(1100, 1, spec(1000));
    talk.hear_ok(1200, id, 0, &granted(5));
    assert_eq!(talk.told(), ["1 granted 5"]);
    assert_eq!(talk.stream.due(), Some(at(1100 + 1000 - 10 - 10)));
    talk.stream.tick(at(2090));
    assert_eq!(talk.told(), ["over 5"]);
}

#[test]
fn answers_that_do_not_fit_their_requests_break_the_connection() {
    let mut talk = Talk::opened();
    let id = talk.acquire(1100, 1);
    assert!(matches!(talk.hear(1200, id, 0, &Reply::Alive), Err(Fault::OutOfTurn(_))));
    assert!(matches!(talk.hear(1200, RequestId::NOTICE, 0, &Reply::Alive), Err(Fault::OutOfTurn(_))));
    let frame = Frame { kind: 0x77, flags: 0, ack: 0, request: RequestId(1), body: &[] };
    assert!(matches!(talk.stream.receive(at(1200), &frame), Err(Fault::Malformed(_))));
    talk.hear_ok(1300, id, 0, &granted(5));
    assert_eq!(talk.told(), ["1 granted 5"], "the request is still there for the next connection");
}

#[test]
fn several_locks_are_told_when_all_are_granted_also_over_a_broken_connection() {
    let mut talk = Talk::opened();
    let id = talk.acquire_all(1100, 1, 3);
    assert_eq!(talk.said(), ["2: acquire 3 Forever ack 0"]);
    talk.hear_ok(1200, id, FLAG_KEPT, &granted(5));
    assert_eq!(talk.told(), [""; 0], "a part is not told");
    talk.resume(1300, 2);
    assert_eq!(talk.said()[1], "3: resume 1 ack 1");
    talk.hear_ok(1301, id, FLAG_KEPT, &granted(6));
    talk.hear_ok(1302, id, FLAG_KEPT, &granted(7));
    assert_eq!(talk.told(), ["1 granted all [5, 6, 7]"]);
    assert_eq!(talk.said(), [""; 0], "it is not asked for again");
}

#[test]
fn one_of_several_that_is_broken_before_the_rest_arrives_is_lost_when_it_is_told() {
    let mut talk = Talk::opened();
    let id = talk.acquire_all(1100, 1, 2);
    talk.hear_ok(1200, id, FLAG_KEPT, &granted(5));
    let grant = grant(5).grant;
    talk.hear_ok(1201, RequestId::NOTICE, 0, &Reply::Broken { grant, forced: false });
    talk.hear_ok(1202, id, FLAG_KEPT, &granted(6));
    let events = talk.stream.take_events();
    let Some(Event::Answered(1, Answer::GrantedAll(holds))) = events.last() else { panic!("{events:?}") };
    assert_eq!(holds[0].check(&talk.lease, at(1300)), Err(LostCause::Broken));
    assert!(holds[1].check(&talk.lease, at(1300)).is_ok());
}

#[test]
fn several_that_are_abandoned_or_late_go_back_one_by_one() {
    let mut talk = Talk::opened();
    let id = talk.acquire_all(1100, 1, 2);
    talk.said();
    talk.stream.abandon(at(1150), id);
    talk.hear_ok(1200, id, FLAG_KEPT, &granted(5));
    talk.hear_ok(1201, id, FLAG_KEPT, &granted(6));
    assert_eq!(talk.said(), ["3: cancel 2 ack 0", "4: release 5 ack 2", "5: release 6 ack 2"]);
    let late = talk.acquire_all(5000, 2, 2);
    talk.said();
    talk.hear_ok(5900, late, FLAG_KEPT | FLAG_RENEWED, &granted(7));
    talk.hear_ok(5960, late, FLAG_KEPT | FLAG_RENEWED, &granted(8));
    assert!(talk.told().contains(&"2 granted all [7, 8]".to_owned()), "the first renewed the lease in time");
}

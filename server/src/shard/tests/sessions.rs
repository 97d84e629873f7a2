//! Sessions at the doors: opened on every shard, resumed, renewed by what is confirmed, ended everywhere.

use fairlock_protocol::handshake::Hello;
use fairlock_protocol::request::Open;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    CellId, GrantId, Liveness, Mode, Refusal, Reply, Request, Resource, ShardId, Tick, Wait,
};

use super::world::{Line, World, acquire, name_on, open};
use crate::lanes::{ToControl, ToShard};

fn granted(world: &mut World, line: Line) -> GrantId {
    let heard = world.only(line);
    match heard.reply() {
        Reply::Granted(grant) => grant.grant,
        other => panic!("not granted: {other:?}"),
    }
}

fn refusal(world: &mut World, line: Line) -> Refusal {
    let heard = world.only(line);
    match heard.reply() {
        Reply::Refused(refused) => refused.refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn open_is_answered_when_every_shard_knows_the_session() {
    let mut world = World::new(3);
    let line = world.greet(1);
    world.lanes_open = false;
    world.send(line, 1, 0, &Request::Open(open(1000)));
    assert!(world.heard(line).is_empty(), "two shards have not heard of it");
    world.lanes_open = true;
    world.turn();
    let heard = world.only(line);
    let Reply::Opened { session, ttl_ms, home, .. } = heard.reply() else { panic!("{heard:?}") };
    assert_eq!((ttl_ms, home.0, session.home().0), (1000, 1, 1));
    assert_eq!(heard.flags & FLAG_RENEWED, FLAG_RENEWED);
    assert!(world.shards.iter().all(|shard| shard.table().counts().sessions == 1));
}

#[test]
fn expiry_at_the_home_frees_the_locks_of_every_shard() {
    let mut world = World::new(2);
    let (_, session, secret) = world.open(0, 1000);
    let other = world.greet(1);
    world.send(other, 0, 0, &Request::Resume { session, secret, received: 0 });
    world.heard(other);
    world.send(other, 1, 0, &acquire(&name_on(1, 2), Wait::Try));
    granted(&mut world, other);
    world.pass_ms(900);
    world.send(other, 2, 1, &Request::Keepalive);
    assert_eq!(world.only(other).flags & FLAG_RENEWED, 0, "only the home renews");
    world.pass_ms(102);
    assert_eq!(world.shards[1].table().counts().grants, 0);
    assert!(matches!(world.only(other).reply(), Reply::Over(Refusal::SessionExpired)));
    assert!(world.shards.iter().all(|shard| shard.table().counts().sessions == 0));
}

#[test]
fn any_frame_at_the_home_renews_but_only_confirmations_say_so() {
    let mut world = World::new(1);
    let (holder, ..) = world.open(0, 60_000);
    world.send(holder, 1, 0, &acquire("x", Wait::Try));
    granted(&mut world, holder);
    let (line, ..) = world.open(0, 1000);
    for round in 1..=5 {
        world.pass_ms(800);
        world.send(line, round, 0, &acquire("x", Wait::Try));
        let heard = world.only(line);
        assert!(matches!(heard.reply(), Reply::Refused(refused) if refused.refusal == Refusal::WouldBlock));
        assert_eq!(heard.flags, 0, "a failed try confirms nothing");
    }
    world.pass_ms(800);
    world.send(line, 9, 0, &Request::Keepalive);
    assert_eq!(world.only(line).flags, FLAG_RENEWED);
    world.pass_ms(1001);
    assert!(matches!(world.only(line).reply(), Reply::Over(Refusal::SessionExpired)));
}

#[test]
fn what_arrived_before_the_lease_ran_out_is_served_first() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 1000);
    world.now = world.now.after_millis(2000);
    world.send(line, 1, 0, &Request::Keepalive);
    assert_eq!(world.only(line).flags, FLAG_RENEWED, "the server slept, not the client");
}

#[test]
fn a_broken_connection_loses_nothing() {
    let mut world = World::new(1);
    let (line, session, secret) = world.open(0, 5000);
    let (rival, ..) = world.open(0, 5000);
    world.send(rival, 1, 0, &acquire("contended", Wait::Try));
    let rivals = granted(&mut world, rival);
    world.send(line, 1, 0, &acquire("mine", Wait::Try));
    granted(&mut world, line);
    world.send(line, 2, 0, &acquire("contended", Wait::Forever));
    world.hang_up(line);
    world.send(rival, 2, 1, &Request::Release(rivals));
    let back = world.greet(0);
    world.send(back, 3, 0, &Request::Resume { session, secret, received: 0 });
    let heard = world.heard(back);
    assert!(
        matches!(heard[0].reply(), Reply::Resumed { seen: 2, following: 2, .. }),
        "{:?}",
        heard[0].reply()
    );
    let kept: Vec<_> = heard[1..].iter().map(|heard| (heard.request, heard.flags & FLAG_KEPT)).collect();
    assert_eq!(kept, [(1, FLAG_KEPT), (2, FLAG_KEPT)], "both answers, in order, each with its request");
    // What was answered and acknowledged is not sent a third time.
    world.send(back, 4, 2, &Request::Keepalive);
    world.heard(back);
    world.hang_up(back);
    let again = world.greet(0);
    world.send(again, 5, 0, &Request::Resume { session, secret, received: 2 });
    assert!(matches!(world.only(again).reply(), Reply::Resumed { following: 0, .. }));
}

#[test]
fn an_operators_orders_are_said_again_to_who_was_away() {
    let mut world = World::new(1);
    let (line, session, secret) = world.open(0, 60_000);
    let operator = world.greet(0);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    world.send(line, 2, 0, &acquire("y", Wait::Try));
    world.hang_up(line);
    let heard = world.heard(line);
    let Reply::Granted(first) = heard[0].reply() else { panic!("{heard:?}") };
    let resource = Resource::new(b"", b"x").unwrap();
    world.send(operator, 1, 0, &Request::Break { resource, force: false });
    world.send(operator, 2, 0, &Request::Kill { session, force: false });
    let back = world.greet(0);
    world.send(back, 3, 0, &Request::Resume { session, secret, received: 1 });
    let heard = world.heard(back);
    let kinds: Vec<_> = heard.iter().map(super::world::Heard::reply).collect();
    assert!(
        matches!(
            kinds[..],
            [
                Reply::Resumed { following: 1, .. },
                Reply::Granted(_),
                Reply::KillAnnounced,
                Reply::Broken { grant, forced: false },
            ] if grant == first.grant
        ),
        "the kept answer, then the orders: {kinds:?}"
    );
    assert_eq!(heard[2].flags | heard[3].flags, 0, "a notice is not counted");
    world.send(back, 0, 2, &Request::Confirm(first.grant));
    assert_eq!(world.shards[0].table().counts().grants, 1, "it can confirm in time");
    world.hang_up(back);
    let again = world.greet(0);
    world.send(again, 4, 0, &Request::Resume { session, secret, received: 2 });
    let heard = world.heard(again);
    assert!(matches!(heard[1].reply(), Reply::KillAnnounced) && heard.len() == 2, "{heard:?}");
}

#[test]
fn a_repeated_request_is_carried_out_once() {
    let mut world = World::new(1);
    let (line, session, secret) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let first = granted(&mut world, line);
    world.hang_up(line);
    let back = world.greet(0);
    world.send(back, 2, 0, &Request::Resume { session, secret, received: 0 });
    world.heard(back);
    world.send(back, 1, 0, &acquire("x", Wait::Try));
    assert_eq!(granted(&mut world, back), first);
    assert_eq!(world.shards[0].table().counts().grants_total, 1);
}

#[test]
fn a_second_connection_takes_the_session_from_the_first() {
    let mut world = World::new(1);
    let (first, session, secret) = world.open(0, 5000);
    let second = world.greet(0);
    world.send(second, 1, 0, &Request::Resume { session, secret, received: 0 });
    assert!(!world.is_open(first) && world.is_open(second));
}

#[test]
fn a_wrong_secret_or_count_takes_nothing() {
    let mut world = World::new(1);
    let (line, session, secret) = world.open(0, 5000);
    let thief = world.greet(0);
    let wrong = fairlock_protocol::Secret(secret.0 ^ 1);
    world.send(thief, 1, 0, &Request::Resume { session, secret: wrong, received: 0 });
    assert_eq!(refusal(&mut world, thief), Refusal::SessionUnknown);
    world.send(thief, 2, 0, &Request::Resume { session, secret, received: 7 });
    assert_eq!(refusal(&mut world, thief), Refusal::BadRequest);
    assert!(!world.is_open(thief) && world.is_open(line));
    world.send(line, 1, 3, &Request::Keepalive);
    assert_eq!(
        refusal(&mut world, line),
        Refusal::BadRequest,
        "nothing was kept, so nothing can be acknowledged"
    );
}

#[test]
fn closing_on_any_shard_ends_the_session_everywhere() {
    let mut world = World::new(2);
    let (home, session, secret) = world.open(0, 5000);
    world.send(home, 1, 0, &acquire(&name_on(0, 2), Wait::Try));
    granted(&mut world, home);
    let other = world.greet(1);
    world.send(other, 0, 0, &Request::Resume { session, secret, received: 0 });
    world.heard(other);
    world.send(other, 1, 0, &Request::Close);
    assert!(matches!(world.only(other).reply(), Reply::Closed));
    assert!(world.shards.iter().all(|shard| shard.table().counts().sessions == 0));
    assert_eq!(world.shards[0].table().counts().grants, 0);
}

#[test]
fn a_lease_longer_than_the_disk_knows_waits_for_the_disk() {
    let mut world = World::with(1, |settings| settings.horizon_ms = 1000);
    world.open(0, 1000);
    let line = world.greet(0);
    world.send(line, 1, 0, &Request::Open(open(5000)));
    assert!(world.heard(line).is_empty());
    assert!(matches!(world.to_control[..], [ToControl::RaiseHorizon { ttl_ms: 5000 }]));
    let now = world.now;
    world.shards[0].message(now, ToShard::HorizonRaised { ttl_ms: 5000 });
    world.turn();
    assert!(matches!(world.only(line).reply(), Reply::Opened { ttl_ms: 5000, .. }));
    let line = world.greet(0);
    world.send(line, 1, 0, &Request::Open(open(6000)));
    world.pass_ms(2001);
    assert_eq!(
        refusal(&mut world, line),
        Refusal::Unavailable,
        "a disk that does not answer refuses the lease"
    );
}

#[test]
fn a_refused_open_uses_up_no_number() {
    let mut world = World::with(1, |settings| settings.horizon_ms = 1000);
    let named = |reclaim_key| Open { identity: b"ms-1", reclaim_key, ..open(1000) };
    let line = world.greet(0);
    world.send(line, 1, 0, &Request::Open(named(b"k")));
    let heard = world.only(line);
    let Reply::Opened { session: first, .. } = heard.reply() else { panic!("{heard:?}") };
    let line = world.greet(0);
    for request in 1..=50 {
        world.send(line, request, 0, &Request::Open(named(b"guess")));
        assert_eq!(refusal(&mut world, line), Refusal::Denied);
    }
    // Two wait for the disk, and one of them is refused when it is their turn.
    let late = world.greet(0);
    world.send(line, 51, 0, &Request::Open(Open { ttl_ms: 5000, ..named(b"guess") }));
    world.send(late, 1, 0, &Request::Open(open(5000)));
    let (_, second, _) = world.open(0, 1000);
    let now = world.now;
    world.shards[0].message(now, ToShard::HorizonRaised { ttl_ms: 5000 });
    world.turn();
    assert_eq!(refusal(&mut world, line), Refusal::Denied);
    let heard = world.only(late);
    let Reply::Opened { session: third, .. } = heard.reply() else { panic!("{heard:?}") };
    assert_eq!([second.get() - first.get(), third.get() - first.get()], [1, 2]);
}

#[test]
fn nothing_is_granted_in_a_quarantine_and_the_answer_says_how_long() {
    let mut world = World::with(1, |settings| settings.quarantine_until = Tick::from_millis(1500));
    let (line, ..) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("x", Wait::Forever));
    let heard = world.only(line);
    let Reply::Refused(refused) = heard.reply() else { panic!("{heard:?}") };
    assert_eq!((refused.refusal, refused.retry_after_ms), (Refusal::Recovering, 500));
    world.pass_ms(500);
    world.send(line, 1, 0, &acquire("x", Wait::Forever));
    granted(&mut world, line);
}

#[test]
fn a_session_of_a_later_epoch_shows_that_the_server_forgot() {
    let mut world = World::new(1);
    let line = world.greet(0);
    let later = fairlock_protocol::Epoch::new(9).unwrap();
    let session = fairlock_protocol::SessionId::new(later, fairlock_protocol::ShardId(0), 1).unwrap();
    let secret = fairlock_protocol::Secret(1);
    world.send(line, 1, 0, &Request::Resume { session, secret, received: 0 });
    assert_eq!(refusal(&mut world, line), Refusal::SessionUnknown);
    let (line, ..) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    assert_eq!(refusal(&mut world, line), Refusal::Recovering);
}

#[test]
fn what_one_shard_learns_of_forgotten_leases_keeps_every_shard_from_granting() {
    let mut world = World::new(2);
    let (line, ..) = world.open(1, 5000);
    let witness = world.connect();
    let hello = Hello { cell: CellId(99), epoch: 9, ..Hello::to(ShardId(0)) };
    world.send(witness, 0, 0, &Request::Hello(hello));
    world.send(line, 1, 0, &acquire(&name_on(1, 2), Wait::Try));
    assert_eq!(refusal(&mut world, line), Refusal::Recovering, "its locks may lie on the other shard");
}

#[test]
fn while_draining_nothing_new_is_granted_and_the_last_release_is_reported() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let grant = granted(&mut world, line);
    world.drain();
    assert!(matches!(world.only(line).reply(), Reply::Draining));
    world.send(line, 2, 1, &acquire("y", Wait::Try));
    assert_eq!(refusal(&mut world, line), Refusal::Draining);
    assert!(world.to_control.is_empty());
    assert_eq!(world.shards[0].left(None).holders, 1);
    world.send(line, 3, 1, &Request::Release(grant));
    assert!(matches!(world.only(line).reply(), Reply::Released { remaining: 0 }));
    assert!(matches!(world.to_control[..], [ToControl::Idle { shard: 0 }]));
    assert_eq!(world.shards[0].left(None).holders, 0);
}

#[test]
fn while_draining_a_mode_may_be_given_up_and_not_be_raised() {
    let mut world = World::new(1);
    let (line, ..) = world.open(0, 5000);
    world.send(line, 1, 0, &acquire("x", Wait::Try));
    let grant = granted(&mut world, line);
    world.drain();
    world.heard(line);
    let mut ask = |request, mode| {
        world.send(line, request, 1, &Request::Convert { grant, mode, wait: Wait::Forever });
        let heard = world.only(line);
        match heard.reply() {
            Reply::Converted(now) => Ok(now.mode),
            Reply::Refused(refused) => Err(refused.refusal),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(2, Mode::EX), Ok(Mode::EX), "the same again");
    assert_eq!(ask(3, Mode::CR), Ok(Mode::CR));
    assert_eq!(ask(4, Mode::EX), Err(Refusal::Draining));
    assert_eq!(ask(5, Mode::NL), Ok(Mode::NL));
    assert_eq!(ask(6, Mode::CR), Err(Refusal::Draining));
    world.send(line, 7, 4, &Request::Release(grant));
    world.send(line, 8, 4, &Request::Convert { grant, mode: Mode::EX, wait: Wait::Forever });
    let heard = world.heard(line);
    assert!(
        matches!(heard[1].reply(), Reply::Refused(refused) if refused.refusal == Refusal::NotHeld),
        "{heard:?}"
    );
}

#[test]
fn a_successor_stops_the_renewals_of_its_predecessor() {
    let mut world = World::new(2);
    let twin = Open { identity: b"ms-1", reclaim_key: b"k", ..open(1000) };
    let old = world.greet(0);
    world.send(old, 1, 0, &Request::Open(twin));
    world.heard(old);
    world.send(old, 2, 0, &acquire(&name_on(0, 2), Wait::Try));
    granted(&mut world, old);
    let new = world.greet(1);
    world.send(new, 1, 0, &Request::Open(twin));
    assert!(matches!(world.only(new).reply(), Reply::Opened { .. }));
    world.send(old, 3, 1, &Request::Keepalive);
    assert_eq!(refusal(&mut world, old), Refusal::SessionReplaced);
    world.pass_ms(1001);
    assert_eq!(world.shards[0].table().counts().grants, 0);
}

#[test]
fn liveness_by_process_needs_a_process_on_this_host() {
    let mut world = World::new(1);
    let line = world.greet(0);
    world.send(line, 1, 0, &Request::Open(Open { liveness: Liveness::Process, ..open(1000) }));
    assert_eq!(refusal(&mut world, line), Refusal::Unsupported);
}

/// G9: who waits is told nothing else when he says it again while nothing new is granted; else he would take his place for
/// given up.
#[test]
fn while_draining_who_waits_keeps_his_place_when_he_says_so_again() {
    let mut world = World::new(1);
    let (holder, ..) = world.open(0, 5000);
    world.send(holder, 1, 0, &acquire("x", Wait::Try));
    let grant = granted(&mut world, holder);
    let (line, session, secret) = world.open(0, 5000);
    world.send(line, 2, 0, &acquire("x", Wait::Forever));
    world.hang_up(line);
    world.drain();
    let again = world.greet(0);
    world.send(again, 3, 0, &Request::Resume { session, secret, received: 0 });
    world.heard(again);
    world.send(again, 2, 0, &acquire("x", Wait::Forever));
    assert!(world.heard(again).is_empty(), "he waits");
    world.send(holder, 3, 1, &Request::Release(grant));
    granted(&mut world, again);
}

//! Cells of real processes, broken on purpose: what holders hold, who waits and what was asked survive whatever one node, or
//! all of them, can suffer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock::{Client, Guard, Liveness, Refusal};
use fairlock_protocol::request::Acquire;
use fairlock_protocol::{Reply, Request, ShardId, Wait};
use fairlock_tests::cell::{Cell, CellPlan};
use fairlock_tests::command::finish;
use fairlock_tests::raw::{Raw, exclusive};
use fairlock_tests::{Over, eventually, ways};
use std::sync::Mutex;
use std::time::Duration;

/// A lease that no fault of these tests outlasts.
const TTL: Duration = Duration::from_secs(10);

/// Either driver, with one shard and with two.
fn plans(nodes: usize) -> Vec<CellPlan> {
    let drivers = ways::drivers();
    let plan =
        |(at, &io): (usize, &_)| CellPlan { io, shards: if at == 0 { 2 } else { 1 }, ..CellPlan::new(nodes) };
    drivers.iter().enumerate().map(plan).collect()
}

fn connect(cell: &Cell) -> Client {
    Client::builder().ttl(TTL).connect(cell.endpoint().as_str()).unwrap()
}

/// A guard is as it was: valid, with this token.
fn is_still(guard: &Guard, token: u64) {
    guard.check().unwrap();
    assert_eq!(guard.token().get(), token);
}

/// Somebody waits for the lock, and puts his name down when he has it.
fn wait_in_line<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    client: Client,
    name: &'static str,
    order: &'scope Mutex<Vec<&'static str>>,
    who: &'static str,
) {
    scope.spawn(move || {
        let guard = client.lock(name).acquire().unwrap();
        order.lock().unwrap().push(who);
        guard.release().unwrap();
    });
}

/// Waits until so many wait in the whole cell.
fn waiting(cell: &Cell, at: usize, waiters: u64) {
    eventually("the queue", || (cell.nodes[at].status()?.waiters == waiters).then_some(()));
}

/// G7, G48, G49: nobody loses a lock or a place.
#[test]
fn a_killed_primary_is_followed_by_one_that_knows_every_holder_and_every_place() {
    for plan in plans(2) {
        let mut cell = CellPlan { shards: 1, ..plan }.start();
        let primary = cell.primary();
        let (holder, order) = (connect(&cell), Mutex::new(Vec::new()));
        let guard = holder.lock("x").acquire().unwrap();
        let token = guard.token().get();
        std::thread::scope(|scope| {
            for (number, who) in ["first", "second", "third"].into_iter().enumerate() {
                wait_in_line(scope, connect(&cell), "x", &order, who);
                waiting(&cell, primary, number as u64 + 1);
            }
            cell.nodes[primary].kill();
            is_still(&guard, token);
            let next = cell.primary_but(primary);
            waiting(&cell, next, 3);
            is_still(&guard, token);
            let other = connect(&cell);
            let refused = other.lock("x").try_acquire().unwrap_err();
            assert_eq!(refused.refusal(), Refusal::WouldBlock);
            guard.release().unwrap();
        });
        assert_eq!(*order.lock().unwrap(), ["first", "second", "third"]);
        let later = holder.lock("x").acquire().unwrap();
        assert!(later.token().get() > token);
        assert_ne!(u64::from(later.token().epoch_number()), token >> 39, "it is of the new epoch");
    }
}

/// G8, G48: whatever is asked while the primary dies is answered once: what a client did not learn it does not hold.
#[test]
fn what_was_under_way_when_the_primary_died_is_answered_once() {
    for plan in plans(3) {
        let mut cell = plan.start();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let inside: Vec<_> = (0..4).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            let _over = Over(&stop);
            for worker in 0..6_u64 {
                let (client, inside, stop) = (connect(&cell), &inside, &stop);
                scope.spawn(move || {
                    let mut turns = worker;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        turns += 1;
                        let at = usize::try_from(turns % 4).unwrap();
                        let guard = client.lock(format!("x/{at}")).acquire().unwrap();
                        let before = inside[at].swap(worker + 1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two are inside");
                        inside[at].store(0, std::sync::atomic::Ordering::SeqCst);
                        guard.release().unwrap();
                    }
                });
            }
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(300));
                let primary = cell.settled(3);
                cell.nodes[primary].kill();
                cell.primary_but(primary);
                std::thread::sleep(Duration::from_millis(300));
                cell.nodes[primary].start();
                cell.settled(3);
            }
        });
        // No orphan of a grant that nobody learned of, no waiter that nobody asked for.
        eventually("everything came free", || {
            let counts = cell.nodes[cell.primary_now()?].status()?;
            assert_eq!(counts.overtakes, 0);
            (counts.grants == 0 && counts.waiters == 0).then_some(())
        });
    }
}

/// G49: a node that was frozen while it served wakes up as nobody: what it was asked meanwhile it does not grant.
#[test]
fn a_primary_that_was_frozen_exposes_nothing_when_it_wakes() {
    for plan in plans(2) {
        let cell = plan.start();
        let primary = cell.primary();
        let client = connect(&cell);
        let guard = client.lock("x").acquire().unwrap();
        let mut raw = Raw::greeted(&cell.nodes[primary].tcp(), ShardId(0));
        raw.open(10_000, fairlock_protocol::Liveness::Heartbeat);
        cell.nodes[primary].freeze();
        // In its socket before it wakes: names of either shard, if there are two.
        for name in [b"a", b"b", b"c", b"d"] {
            raw.send(&Request::Acquire(Acquire { wait: Wait::Try, ..exclusive(name) }));
        }
        raw.send(&Request::Keepalive);
        let next = cell.primary_but(primary);
        is_still(&guard, guard.token().get());
        let others = connect(&cell);
        let taken: Vec<_> = ["a", "b", "c", "d"].map(|name| others.lock(name).acquire().unwrap()).into();
        cell.nodes[primary].thaw();
        for arrived in raw.until_closed() {
            let reply = arrived.reply();
            assert!(matches!(reply, Reply::Refused(_) | Reply::Draining | Reply::Members(_)), "{reply:?}");
        }
        assert_eq!(cell.settled(2), next, "it joins as a follower");
        for held in &taken {
            held.check().unwrap();
        }
        guard.release().unwrap();
    }
}

/// G48: a primary that stands still is left when another serves, not when the lease runs out; also by a client whose other
/// node was started just now, and by one whose other node follows.
#[test]
fn a_frozen_primary_is_left_as_soon_as_another_serves() {
    for nodes in [2, 3] {
        let mut cell = CellPlan::new(nodes).start();
        let client =
            Client::builder().ttl(Duration::from_mins(10)).connect(cell.endpoint().as_str()).unwrap();
        let guard = client.lock("x").acquire().unwrap();
        let primary = cell.primary();
        let backup = (primary + 1) % nodes;
        cell.nodes[backup].kill();
        cell.settled(nodes - 1);
        cell.nodes[backup].start();
        cell.settled(nodes);
        cell.nodes[primary].freeze();
        // Who waits for two fifths of the lease waits longer than this.
        client.lock("y").wait(Duration::from_secs(15)).acquire().unwrap().release().unwrap();
        guard.check().unwrap();
        cell.nodes[primary].thaw();
        cell.settled(nodes);
        guard.release().unwrap();
    }
}

/// G49: it is missed, and what was granted meanwhile it knows when it is back.
#[test]
fn a_killed_follower_is_missed_and_comes_back_as_a_full_member() {
    for plan in plans(2) {
        let mut cell = plan.start();
        let primary = cell.primary();
        let backup = 1 - primary;
        let client = connect(&cell);
        let guard = client.lock("x").acquire().unwrap();
        cell.nodes[backup].kill();
        eventually("the alarm", || {
            let alarms = cell.nodes[primary].status()?.alarms;
            alarms.iter().any(|alarm| alarm.contains("copies=1")).then_some(())
        });
        let meanwhile = client.lock("y").acquire().unwrap();
        cell.nodes[backup].start();
        cell.settled(2);
        eventually("the alarm is over", || cell.nodes[primary].status()?.alarms.is_empty().then_some(()));
        cell.nodes[primary].kill();
        assert_eq!(cell.primary_but(primary), backup);
        for held in [&guard, &meanwhile] {
            held.check().unwrap();
        }
        let other = connect(&cell);
        for name in ["x", "y"] {
            assert_eq!(other.lock(name).try_acquire().unwrap_err().refusal(), Refusal::WouldBlock);
        }
        drop((guard, meanwhile));
        other.lock("x").acquire().unwrap().release().unwrap();
    }
}

/// G2, G50, G56: nobody is left who knows: nothing is granted until the old leases are certainly over, but to who shows what he holds;
/// tokens rise.
#[test]
fn a_cell_that_lost_its_memory_waits_for_every_lease_it_ever_granted() {
    for plan in plans(2) {
        let mut cell = plan.start();
        // Long enough for a busy machine to start the nodes in.
        let ttl = Duration::from_secs(6);
        let client = Client::builder().ttl(ttl).connect(cell.endpoint().as_str()).unwrap();
        let guard = client.lock("x").acquire().unwrap();
        let token = guard.token();
        cell.nodes.iter_mut().for_each(fairlock_tests::cell::CellNode::kill);
        cell.start_all();
        let primary = cell.settled(2);
        let left = eventually("it answers", || cell.nodes[primary].welcome()).recovering_ms;
        assert!(left > 0, "it waits");
        let mut raw = Raw::greeted(&cell.nodes[primary].tcp(), ShardId(0));
        raw.open(5000, fairlock_protocol::Liveness::Heartbeat);
        let attempt = Acquire { wait: Wait::Try, ..exclusive(b"x") };
        let refused = raw.call(&Request::Acquire(attempt));
        // Of another shard, it is sent on; else it is told to wait.
        assert!(refused.refusal().is_some(), "{refused:?}");
        // The first holder shows the new primary what he holds, long before his lease is over.
        eventually("the first holder is known again", || (guard.token() > token).then_some(()));
        guard.check().unwrap();
        let (shown, others) = (guard.token(), connect(&cell));
        let refusal = || others.lock("x").try_acquire().unwrap_err().refusal();
        eventually("the quarantine is over", || (refusal() != Refusal::Recovering).then_some(()));
        assert_eq!(refusal(), Refusal::WouldBlock);
        guard.check().unwrap();
        guard.release().unwrap();
        let next = others.lock("x").acquire().unwrap();
        assert!(next.token() > shown);
    }
}

/// G50: silence proves nothing.
#[test]
fn a_node_that_starts_alone_waits_for_the_member_that_may_be_alive() {
    let mut cell = CellPlan::new(2).start();
    let client = Client::builder().ttl(Duration::from_secs(1)).connect(cell.endpoint().as_str()).unwrap();
    let token = client.lock("x").acquire().unwrap().token();
    drop(client);
    cell.nodes.iter_mut().for_each(fairlock_tests::cell::CellNode::kill);
    cell.nodes[0].start();
    eventually("it says for whom", || cell.nodes[0].plan.log().contains("waits for n2").then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cell.primary_now(), None, "silence proves nothing");
    cell.nodes[1].start();
    cell.settled(2);
    assert!(connect(&cell).lock("x").acquire().unwrap().token() > token);
}

/// G51: without its register a cell serves, and cannot change its members.
#[test]
fn a_cell_without_its_register_blocks_when_a_member_is_lost_and_goes_on_when_it_is_back() {
    for plan in plans(2) {
        let mut cell = plan.start();
        let primary = cell.primary();
        let client = connect(&cell);
        let guard = client.lock("x").acquire().unwrap();
        cell.etcds[0].freeze();
        client.lock("y").acquire().unwrap().release().unwrap();
        cell.nodes[1 - primary].kill();
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| client.lock("z").acquire().unwrap());
            // Longer than a primary waits before it goes on without a member.
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!blocked.is_finished(), "granted with one copy that nobody agreed to");
            guard.check().unwrap();
            cell.etcds[0].thaw();
            blocked.join().unwrap().release().unwrap();
        });
        guard.release().unwrap();
    }
}

/// G51: too few copies, no grant; what was granted before stays.
#[test]
fn with_too_few_copies_nothing_is_granted() {
    let plan = CellPlan { cell: "min_copies = 2\n".to_owned(), ..CellPlan::new(2) };
    let mut cell = plan.start();
    let primary = cell.primary();
    let client = connect(&cell);
    let guard = client.lock("x").acquire().unwrap();
    cell.nodes[1 - primary].kill();
    eventually("the alarm", || {
        let alarms = cell.nodes[primary].status()?.alarms;
        alarms.iter().any(|alarm| alarm.contains("min_copies=2")).then_some(())
    });
    guard.check().unwrap();
    let refused = client.lock("y").try_acquire().unwrap_err();
    assert!(matches!(refused, fairlock::AcquireError::Refused(Refusal::Unavailable)), "{refused:?}");
    let why = finish(&cell.nodes[primary].tcp(), ["why", "y"]);
    assert!(why.stdout.contains("is free") && why.stdout.contains("min_copies=2"), "{}", why.stdout);
    guard.release().unwrap();
    cell.nodes[1 - primary].start();
    cell.settled(2);
    drop(eventually("granted again", || client.lock("y").try_acquire().ok()));
}

/// G43, G48: a client on the primary's host goes on at another node, over TCP, with what it holds: cached or not.
#[test]
fn clients_that_share_memory_with_a_primary_go_on_without_it() {
    for plan in plans(2) {
        let mut cell = plan.start();
        let primary = cell.primary();
        let near = format!("{},{}", cell.nodes[primary].unix(), cell.nodes[1 - primary].tcp());
        let keeper = Client::builder().ttl(TTL).connect(near.as_str()).unwrap();
        let inside = keeper.lock("held").acquire().unwrap();
        let token = inside.token().get();
        let kept = until_it_stays(&keeper, "kept");
        until_it_stays(&keeper, "entered");
        let entered = keeper.lock("entered").acquire().unwrap();
        cell.nodes[primary].kill();
        cell.primary_but(primary);
        is_still(&inside, token);
        let other = connect(&cell);
        assert_eq!(other.lock("held").try_acquire().unwrap_err().refusal(), Refusal::WouldBlock);
        // What was only kept is given back by the keeper, who enters no word of before.
        let taken = other.lock("kept").acquire().unwrap();
        assert!(taken.token().get() > kept);
        assert_eq!(keeper.lock("kept").try_acquire().unwrap_err().refusal(), Refusal::WouldBlock);
        taken.release().unwrap();
        // Whose it is that a word was entered for only the client knows.
        keeper.lock("entered").reentrant(true).acquire().unwrap().release().unwrap();
        assert_eq!(keeper.lock("entered").acquire().unwrap_err().refusal(), Refusal::AlreadyHeld);
        assert_eq!(other.lock("entered").try_acquire().unwrap_err().refusal(), Refusal::WouldBlock);
        entered.release().unwrap();
        other.lock("entered").acquire().unwrap().release().unwrap();
        inside.release().unwrap();
        other.lock("held").acquire().unwrap().release().unwrap();
    }
}

/// Takes and leaves the lock until it stays with the client: the token is the same as before.
fn until_it_stays(client: &Client, name: &str) -> u64 {
    let mut last = 0;
    eventually("the lock stays", || {
        let guard = client.lock(name).acquire().unwrap();
        let token = guard.token().get();
        guard.release().unwrap();
        (std::mem::replace(&mut last, token) == token).then_some(token)
    })
}

/// G48: nobody watches a process of another host: after a failover the lease decides.
#[test]
fn a_session_that_lived_by_its_process_lives_by_its_lease_after_a_failover() {
    let mut cell = CellPlan::new(2).start();
    let primary = cell.primary();
    let sockets = format!("{},{}", cell.nodes[primary].unix(), cell.nodes[1 - primary].unix());
    let builder = Client::builder().ttl(Duration::from_secs(5)).liveness(Liveness::Process);
    let client = builder.connect(sockets.as_str()).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let token = guard.token().get();
    cell.nodes[primary].kill();
    cell.primary_but(primary);
    std::thread::sleep(Duration::from_secs(7));
    is_still(&guard, token);
    // Somebody whose process lives, and who says nothing more: his lease ends by itself.
    let next = 1 - primary;
    let mut raw = Raw::greeted(&cell.nodes[next].tcp(), ShardId(0));
    raw.open(2000, fairlock_protocol::Liveness::Heartbeat);
    raw.acquire(b"y");
    drop(raw);
    connect(&cell).lock("y").acquire().unwrap().release().unwrap();
    guard.release().unwrap();
}

/// G12: a program that knows the node of its own host alone is served by the primary on another one, where its lease decides.
#[test]
fn a_program_on_the_host_of_a_backup_is_served_by_the_primary_elsewhere() {
    let cell = CellPlan::new(2).start();
    let backup = 1 - cell.settled(2);
    let near = cell.nodes[backup].unix();
    let client = Client::builder().ttl(Duration::from_secs(3)).connect(near.as_str()).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    let token = guard.token().get();
    std::thread::sleep(Duration::from_secs(4));
    is_still(&guard, token);
    assert_eq!(connect(&cell).lock("x").try_acquire().unwrap_err().refusal(), Refusal::WouldBlock);
    guard.release().unwrap();
}

/// Who was left while it stood still watches nobody's process for a session that is another node's now.
#[test]
fn a_node_that_serves_no_more_watches_no_process() {
    for plan in plans(2) {
        let cell = plan.start();
        let primary = cell.primary();
        let mut raw = Raw::greeted(&cell.nodes[primary].unix(), ShardId(0));
        raw.open(60_000, Liveness::Process);
        assert_eq!(processes_watched(&cell, primary), 2, "one for the connection, one for the session");
        cell.nodes[primary].freeze();
        cell.primary_but(primary);
        cell.nodes[primary].thaw();
        raw.until_closed();
        eventually("nobody is watched", || (processes_watched(&cell, primary) == 0).then_some(()));
    }
}

/// Descriptors of processes that a node has.
fn processes_watched(cell: &Cell, at: usize) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", cell.nodes[at].pid().as_raw_nonzero())).unwrap();
    let names = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("pidfd")).count()
}

/// A node joins a cell that holds very much and goes on serving meanwhile.
#[test]
fn a_node_joins_under_load_when_very_many_locks_are_held() {
    const LOCKS: usize = 100_000;
    let mut cell = CellPlan { nodes: 2, ..CellPlan::new(2) }.prepare();
    cell.nodes[0].start();
    cell.primary();
    let mut hoarder = Raw::greeted(&cell.nodes[0].tcp(), ShardId(0));
    hoarder.open(60_000, fairlock_protocol::Liveness::Heartbeat);
    for first in (0..LOCKS).step_by(500) {
        let asked: Vec<u64> = (first..first + 500)
            .map(|number| hoarder.send(&Request::Acquire(exclusive(format!("many/{number}").as_bytes()))))
            .collect();
        for number in asked {
            hoarder.answer(number).grant();
        }
    }
    let client = Client::builder().ttl(TTL).connect(cell.endpoint().as_str()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                client.lock("busy").acquire().unwrap().release().unwrap();
            }
        });
        let _over = Over(&stop);
        cell.nodes[1].start();
        cell.settled(2);
    });
    cell.nodes[0].kill();
    assert_eq!(cell.primary_but(0), 1);
    eventually("it has all of them", || (cell.nodes[1].status()?.grants == LOCKS as u64).then_some(()));
    let refused = client.lock("many/77777").try_acquire().unwrap_err();
    assert_eq!(refused.refusal(), Refusal::WouldBlock);
}

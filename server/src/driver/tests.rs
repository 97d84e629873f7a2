//! One conformance suite for both drivers: every promise of the trait is a test that runs against `io_uring` and epoll.
//! What concerns a whole process (descriptor limits and counts) runs in a process of its own, this executable again.

mod endings;
mod opening;
mod shortage;
mod streams;
mod waking;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use super::*;

/// Tells a copy of this executable that it was started for one test.
const ALONE: &str = "FAIRLOCK_TEST_ALONE";
/// Long enough for whatever is on its way over loopback to arrive. Too short could only hide a failure.
const MOMENT: Duration = Duration::from_millis(30);

macro_rules! conformance {
    ($($room:ident :: $name:ident,)*) => {
        mod uring { $(#[test] fn $name() { super::on(super::IoChoice::Uring, super::$room::$name); })* }
        mod epoll { $(#[test] fn $name() { super::on(super::IoChoice::Epoll, super::$room::$name); })* }
    };
}

conformance! {
    streams::a_tcp_connection_is_accepted_and_answered,
    streams::a_unix_stream_is_answered,
    streams::many_small_sends_arrive_in_order,
    streams::a_slow_reader_gets_everything_in_order,
    streams::a_backlog_that_drains_is_told_once,
    streams::attaching_reads_once,
    streams::a_socket_moves_between_drivers_and_nothing_is_lost,
    streams::a_paused_link_is_silent_and_resumes_where_it_stopped,
    streams::reading_once_ends_reading_on,
    streams::a_flood_on_one_link_does_not_silence_the_others,
    streams::several_listeners_accept_until_they_are_stopped,
    endings::the_end_of_a_stream_comes_after_its_last_bytes,
    endings::an_end_together_with_the_last_bytes_is_seen,
    endings::an_end_after_a_flood_is_seen,
    endings::a_reset_is_an_error,
    endings::a_failed_write_ends_the_link_after_what_the_peer_sent,
    endings::a_failed_write_ends_a_link_nobody_reads,
    endings::closing_with_flush_delivers_everything,
    endings::closing_with_flush_serves_a_peer_that_has_stopped_sending,
    endings::closing_with_flush_gives_up_on_a_peer_that_does_not_read,
    endings::closing_with_discard_ends_the_stream_at_once,
    endings::a_closed_link_has_no_events_and_its_id_is_dead,
    endings::closing_with_operations_in_flight_leaks_no_descriptor,
    endings::dropping_a_driver_ends_its_streams,
    shortage::more_senders_than_buffers_lose_nothing,
    shortage::a_starved_link_that_is_closed_is_forgotten,
    shortage::without_descriptors_peers_see_an_end_and_later_ones_are_served,
    waking::the_death_of_a_child_is_seen_once,
    waking::a_pipe_is_watched_until_it_hangs_up,
    waking::bytes_in_a_watched_pipe_do_not_end_the_watch,
    waking::an_ended_watch_is_silent,
    waking::every_one_of_ten_thousand_wakes_is_seen,
    waking::a_burst_of_wakes_from_many_threads_is_seen_to_its_end,
    waking::a_sleep_ends_with_its_time,
    waking::what_nobody_wants_does_not_end_a_sleep,
}

/// A driver and the events not looked at yet.
struct Rig {
    driver: Box<dyn Driver>,
    choice: IoChoice,
    events: std::collections::VecDeque<Event>,
}

/// Runs a test against one driver, in a thread of its own; where the kernel denies `io_uring` there is nothing to test.
fn on(choice: IoChoice, test: fn(&mut Rig)) {
    match open(choice) {
        Ok(driver) => test(&mut Rig { driver, choice, events: std::collections::VecDeque::new() }),
        Err(error)
            if choice == IoChoice::Uring
                && matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) =>
        {
            eprintln!("skipped: {}", why_not_uring(&error));
        }
        Err(error) => panic!("{choice:?}: {error}"),
    }
}

/// `true` in a process that runs this test alone; else starts one and sees it succeed.
fn is_alone(test: &str, rig: &Rig) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let driver = rig.driver.name();
    let name = format!("driver::tests::{driver}::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let outcome =
        command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success(), "{said}\n{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(said.contains("1 passed"), "the test was found: {said}");
    false
}

impl Rig {
    fn another(&self) -> Rig {
        Rig {
            driver: open(self.choice).unwrap(),
            choice: self.choice,
            events: std::collections::VecDeque::new(),
        }
    }

    /// One pass; keeps its events.
    fn pass(&mut self, patience: Patience) {
        let mut events = Vec::new();
        self.driver.wait(patience, &mut events).unwrap();
        self.events.extend(events);
    }

    /// The next event, waiting for it in all three ways.
    fn next(&mut self) -> Event {
        let mut turn = 0;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            turn += 1;
            let patience = match turn % 3 {
                0 => Patience::Poll,
                1 => Patience::Yield,
                _ => Patience::Sleep(Some(Duration::from_millis(200))),
            };
            self.pass(patience);
        }
    }

    /// Sees that nothing happens for a moment.
    fn silent(&mut self) {
        let until = std::time::Instant::now() + MOMENT;
        while std::time::Instant::now() < until {
            self.pass(Patience::Sleep(Some(MOMENT / 4)));
        }
        assert!(self.events.is_empty(), "nothing should have happened: {:?}", self.events);
    }

    /// Passes until nothing more comes; what came is kept.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.pass(Patience::Sleep(Some(Duration::from_millis(3))));
        }
    }

    /// The next event as a chunk's bytes, recycled.
    fn received(&mut self) -> (LinkId, Vec<u8>) {
        match self.next() {
            Event::Received { link, chunk } => {
                let bytes = self.driver.bytes(&chunk).to_vec();
                assert!(!bytes.is_empty(), "an empty chunk says nothing");
                self.driver.recycle(chunk);
                (link, bytes)
            }
            other => panic!("bytes expected, not {other:?}"),
        }
    }

    /// So many bytes of one link, and nothing else.
    fn receive(&mut self, link: LinkId, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            let (from, bytes) = self.received();
            assert_eq!(from, link);
            all.extend(bytes);
        }
        assert_eq!(all.len(), len);
        all
    }

    fn closed(&mut self) -> (LinkId, Option<io::Error>) {
        match self.next() {
            Event::Closed { link, error } => (link, error),
            other => panic!("an end expected, not {other:?}"),
        }
    }

    /// A Unix stream whose one end is attached and read on.
    fn unix(&mut self) -> (LinkId, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let link = self.driver.attach(near.into()).unwrap();
        self.driver.read_on(link);
        (link, far)
    }

    /// A TCP stream over loopback whose accepted end is attached and read on.
    fn tcp(&mut self) -> (LinkId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = self.driver.attach(listener.accept().unwrap().0.into()).unwrap();
        self.driver.read_on(link);
        (link, far)
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        let mut out = bytes.to_vec();
        self.driver.send(link, &mut out);
        assert!(out.is_empty());
    }

    /// Drives until a thread has ended, and gives its result.
    fn join<T>(&mut self, thread: std::thread::JoinHandle<T>) -> T {
        while !thread.is_finished() {
            self.pass(Patience::Sleep(Some(Duration::from_millis(2))));
        }
        thread.join().unwrap()
    }
}

/// Consecutive numbers as bytes: any loss, doubling or exchange shows.
fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset after the last byte is an end, too.
    let _ = stream.read_to_end(&mut all);
    all
}

fn write_all(mut stream: impl Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}

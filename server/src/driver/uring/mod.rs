//! The `io_uring` driver: multishot accept and receive, buffers of the kernel's choice, one wait for everything.
//!
//! Requests are queued in user memory and go to the kernel with the next `wait`, one system call for all. Descriptors
//! and buffers a request uses stay until its completion was seen, however the link ended meanwhile; that rule is what
//! makes closing with operations in flight safe. When no receive buffer is left, receives end with ENOBUFS, the bytes
//! stay in the socket, and the links queue up until chunks come back.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes our memory on its own; io-uring offers no safe interface"
)]

mod buffers;
mod completions;
mod links;
mod ring;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use io_uring::{opcode, types::CancelBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;

use super::farewell::{Farewells, sleep_time};
use super::listening::{Reserve, prepare, shut_down};
use super::slots::{Key, Slots};
use super::token::{Purpose, Token};
use super::waker::Sleeper;
use super::{Chunk, Driver, Event, Flush, LinkId, Patience, Reading, Waker, WatchId, Watched};
use buffers::Buffers;
use links::{Ending, Hangup, Link, Receive};
use ring::{PlainEntry, Ring};

/// Times one `wait` asks the kernel for more completions; bounds a pass under a flood.
const ROUNDS_MAX: usize = 64;
/// Patience of a driver that is dropped: entries that wait for the last completions, 10 ms each.
const DROP_ROUNDS_MAX: usize = 100;

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// An accept is in flight.
    accepting: bool,
    /// Not wanted any more.
    stopped: bool,
    /// No accept until then, because nothing could be done about its connections.
    resting_until: Option<Instant>,
}

/// A watched descriptor; its poll is in flight for as long as it lives here.
#[derive(Debug)]
struct Watching {
    fd: OwnedFd,
    watched: Watched,
    wanted: bool,
}

impl Watching {
    /// What the kernel is asked for; a hang-up it tells always.
    fn flags(&self) -> PollFlags {
        match self.watched {
            Watched::Process => PollFlags::IN | PollFlags::HUP,
            Watched::Pipe => PollFlags::HUP,
        }
    }

    fn is_ready(&self) -> bool {
        let mut observed = [PollFd::new(&self.fd, self.flags())];
        matches!(poll(&mut observed, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

/// See the module. The order of the fields matters: the ring goes before the memory it uses.
pub(super) struct UringDriver {
    ring: Ring,
    buffers: Buffers,
    sleeper: Sleeper,
    listeners: Slots<Listener>,
    links: Slots<Link>,
    watches: Slots<Watching>,
    reserve: Reserve,
    farewells: Farewells,
    /// Links whose receive found no buffer, in the order they did.
    starved: VecDeque<Key>,
    /// Links whose state changed between two waits so that an event may be due.
    unsettled: Vec<Key>,
}

impl UringDriver {
    pub(super) fn open() -> io::Result<UringDriver> {
        let ring = Ring::open()?;
        let buffers = Buffers::register(&ring)?;
        let mut driver = UringDriver {
            ring,
            buffers,
            sleeper: Sleeper::new()?,
            listeners: Slots::default(),
            links: Slots::default(),
            watches: Slots::default(),
            reserve: Reserve::new()?,
            farewells: Farewells::default(),
            starved: VecDeque::new(),
            unsettled: Vec::new(),
        };
        driver.observe_wake();
        Ok(driver)
    }

    /// The earliest time at which this driver has something to do by itself.
    fn deadline(&mut self) -> Option<Instant> {
        let links = &self.links;
        let farewell = self.farewells.next(|key| links.get(key).is_some());
        self.listeners.values().filter_map(|listener| listener.resting_until).chain(farewell).min()
    }

    /// What can go on since the last pass: starved links as far as there are buffers, listeners that rested, farewells
    /// that took too long.
    fn resume(&mut self, events: &mut Vec<Event>) {
        for _ in 0..self.buffers.left().min(self.starved.len()) {
            let Some(key) = self.starved.pop_front() else { break };
            if let Some(link) = self.links.get_mut(key)
                && link.receive == Receive::Starved
            {
                link.receive = Receive::Idle;
                self.settle(key, events);
            }
        }
        while let Some(key) = self.unsettled.pop() {
            self.settle(key, events);
        }
        if self.listeners.values().any(|listener| listener.resting_until.is_some()) {
            self.end_rests(Instant::now());
        }
        if !self.farewells.is_empty() {
            let now = Instant::now();
            while let Some(key) = self.farewells.expired(now) {
                self.discard(key);
                self.settle(key, events);
            }
        }
    }

    fn end_rests(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(key) = self.listeners.next_from(from) {
            from = key.slot() + 1;
            if let Some(listener) = self.listeners.get_mut(key)
                && listener.resting_until.is_some_and(|until| until <= now)
            {
                listener.resting_until = None;
                self.start_accept(key);
            }
        }
    }

    /// Enters the kernel as the caller's patience demands, not at all when there is nothing to do there, and says
    /// whether the token of the waker was taken.
    fn ask(&mut self, patience: Patience, is_news: bool) -> io::Result<bool> {
        let outcome = match patience {
            Patience::Sleep(allowed)
                if !is_news && !self.ring.has_completion() && self.sleeper.fall_asleep() =>
            {
                let time = sleep_time(allowed, self.deadline());
                self.ring.enter(1, time)
            }
            patience => {
                if patience == Patience::Yield {
                    rustix::thread::sched_yield();
                }
                if self.ring.has_business() { self.ring.enter(0, None) } else { Ok(()) }
            }
        };
        let woken = self.sleeper.take_token();
        outcome.map(|()| woken)
    }

    /// Acts on every completion there is, and says how many there were.
    fn take_completions(&mut self, events: &mut Vec<Event>) -> io::Result<usize> {
        let mut completed = 0;
        for _ in 0..ROUNDS_MAX {
            while let Some(completion) = self.ring.completion() {
                self.complete(&completion, events);
                completed += 1;
            }
            // One entry runs about 20 pieces of deferred work; the flag says whether there is more.
            if !self.ring.has_more() {
                break;
            }
            self.ring.enter(0, None)?;
        }
        Ok(completed)
    }

    fn read(&mut self, link: LinkId, reading: Reading) {
        let Some(entry) = self.links.get_mut(link.0) else { return };
        if !entry.is_owned() {
            return;
        }
        entry.reading = reading;
        if reading == Reading::Off {
            if matches!(entry.ending, Ending::WriteFailed(_)) {
                // Nobody reads any more, so no receive will find the end: it is due.
                self.unsettled.push(link.0);
            }
            self.cancel_receive(link.0);
        } else if entry.receive == Receive::Idle {
            self.start_receive(link.0);
        }
    }

    fn begin_farewell(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.ending = Ending::Flushing;
        self.farewells.begin(key);
        self.unsettled.push(key);
    }
}

impl Driver for UringDriver {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        // For turning peers away, which accepts without the ring.
        rustix::io::ioctl_fionbio(&listener, true)?;
        let entry = Listener { socket: listener, accepting: false, stopped: false, resting_until: None };
        let key = self.listeners.insert(entry).map_err(|_| table_full())?;
        self.start_accept(key);
        Ok(())
    }

    fn stop_listening(&mut self) {
        let mut from = 0;
        while let Some(key) = self.listeners.next_from(from) {
            from = key.slot() + 1;
            let Some(listener) = self.listeners.get_mut(key) else { continue };
            if listener.accepting {
                if !mem::replace(&mut listener.stopped, true) {
                    self.cancel(Token::new(Purpose::Accept, key));
                }
            } else {
                self.listeners.remove(key);
            }
        }
    }

    fn attach(&mut self, socket: OwnedFd) -> io::Result<LinkId> {
        prepare(&socket)?;
        let key = self.links.insert(Link::new(socket)).map_err(|_| table_full())?;
        self.start_receive(key);
        Ok(LinkId(key))
    }

    fn read_once(&mut self, link: LinkId) {
        self.read(link, Reading::Once);
    }

    fn read_on(&mut self, link: LinkId) {
        self.read(link, Reading::On);
    }

    fn pause(&mut self, link: LinkId) {
        self.read(link, Reading::Off);
    }

    fn detach(&mut self, link: LinkId) -> Option<OwnedFd> {
        let entry = self.links.get(link.0)?;
        if !matches!(entry.ending, Ending::Open) {
            return None;
        }
        assert!(
            !matches!(entry.receive, Receive::Flying { .. }),
            "a link is detached while nothing reads it"
        );
        assert!(entry.outgoing.is_empty() && !entry.sending, "a link is detached when its bytes are written");
        assert!(entry.hangup != Hangup::Asked, "a link is detached before everything of it is read");
        self.links.remove(link.0).map(|link| link.socket)
    }

    fn send(&mut self, link: LinkId, out: &mut Vec<u8>) {
        match self.links.get_mut(link.0) {
            Some(entry) if matches!(entry.ending, Ending::Open) && !out.is_empty() => {
                entry.outgoing.push(out);
                if !entry.sending {
                    self.start_send(link.0);
                }
            }
            _ => out.clear(),
        }
    }

    fn backlog(&self, link: LinkId) -> usize {
        self.links.get(link.0).map_or(0, |link| link.outgoing.len())
    }

    fn tell_drained(&mut self, link: LinkId, bytes: usize) {
        if let Some(entry) = self.links.get_mut(link.0).filter(|entry| matches!(entry.ending, Ending::Open)) {
            entry.outgoing.await_drain(bytes);
        }
    }

    fn close(&mut self, link: LinkId, flush: Flush) {
        let Some(entry) = self.links.get_mut(link.0) else { return };
        match (&entry.ending, flush) {
            (Ending::Discarded, _) | (Ending::Flushing | Ending::HalfClosed, Flush::Queued) => {}
            (Ending::Open, Flush::Queued) => self.begin_farewell(link.0),
            _ => {
                self.discard(link.0);
                self.unsettled.push(link.0);
            }
        }
    }

    fn watch(&mut self, fd: OwnedFd, watched: Watched) -> io::Result<WatchId> {
        let key = self.watches.insert(Watching { fd, watched, wanted: true }).map_err(|_| table_full())?;
        self.observe_watch(key);
        Ok(WatchId(key))
    }

    fn unwatch(&mut self, watch: WatchId) {
        if let Some(entry) = self.watches.get_mut(watch.0)
            && mem::replace(&mut entry.wanted, false)
        {
            self.cancel(Token::new(Purpose::Watch, watch.0));
        }
    }

    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    fn recycle(&mut self, chunk: Chunk) {
        self.buffers.give_back(chunk);
    }

    fn wait(&mut self, patience: Patience, events: &mut Vec<Event>) -> io::Result<()> {
        let before = events.len();
        let until = match patience {
            Patience::Sleep(Some(time)) => Instant::now().checked_add(time),
            _ => None,
        };
        let mut patience = patience;
        loop {
            self.resume(events);
            if self.ask(patience, events.len() > before)? {
                events.push(Event::Woken);
            }
            let completed = self.take_completions(events)?;
            // A send that completed ends the kernel's wait but is no news to the caller, who wanted to sleep.
            let goes_on = completed > 0 && events.len() == before && matches!(patience, Patience::Sleep(_));
            if !goes_on {
                return Ok(());
            }
            patience = Patience::Sleep(until.map(|until| until.saturating_duration_since(Instant::now())));
        }
    }

    fn waker(&self) -> Waker {
        self.sleeper.waker()
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        self.links.values().for_each(|link| shut_down(&link.socket, Shutdown::Both));
        let all = PlainEntry::cancel_all(opcode::AsyncCancel2::new(CancelBuilder::any()));
        self.ring.push_plain(all.user_data(Token::plain(Purpose::Cancel).bits()));
        for _ in 0..DROP_ROUNDS_MAX {
            while let Some(completion) = self.ring.completion() {
                let (purpose, _) = Token::split(completion.user_data());
                if let (Purpose::Accept, Ok(fd)) = (purpose, completions::outcome_of(&completion)) {
                    shut_down(completions::adopt(fd), Shutdown::Both);
                }
            }
            if self.ring.in_flight() == 0 {
                return;
            }
            if self.ring.enter(1, Some(Duration::from_millis(10))).is_err() {
                break;
            }
        }
        // The kernel may still use our memory: leaking it is sound, freeing it is not.
        tracing::error!(
            in_flight = self.ring.in_flight(),
            "requests outlive their ring; their memory is kept"
        );
        mem::forget(mem::take(&mut self.links));
        self.buffers.keep_mapped();
    }
}

fn table_full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENFILE)
}

//! The epoll driver: level-triggered, nonblocking sockets, bytes written at once as far as the socket takes them.
//!
//! Interest is widened at once and narrowed lazily, when an event nobody wants turns up: a link that is read once and
//! then read on (every connection's first two steps) costs one `epoll_ctl`, not three. Fairness: a pass gives every
//! ready link the same share of the free chunks, four at most, and starts where the last pass ran out.

mod links;
mod readiness;

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::chunks::Pool;
use super::farewell::{Farewells, sleep_time};
use super::listening::{Reserve, prepare, shut_down};
use super::slots::{Key, Slots};
use super::token::{Purpose, Token};
use super::waker::Sleeper;
use super::{Chunk, Driver, Event, Flush, LinkId, Patience, Reading, Waker, WatchId, Watched};
use links::{Ending, Link};

/// Descriptors one `epoll_wait` reports at most; the kernel rotates among more.
const READY_MAX: usize = 256;

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Not observed until then, because nothing could be done about its connections.
    resting_until: Option<Instant>,
}

/// See the module.
pub(super) struct EpollDriver {
    epoll: OwnedFd,
    sleeper: Sleeper,
    listeners: Slots<Listener>,
    links: Slots<Link>,
    watches: Slots<OwnedFd>,
    pool: Pool,
    reserve: Reserve,
    farewells: Farewells,
    /// Links whose read found no chunk while the caller had them all; observed again when one comes back.
    starved: Vec<Key>,
    /// Links that failed while nobody read them: their `Closed` is due.
    failed: Vec<Key>,
    ready: Vec<epoll::Event>,
    /// Where in the list of ready descriptors the next pass begins.
    turn: usize,
    /// Where input of closing links goes.
    scratch: Vec<u8>,
}

impl EpollDriver {
    pub(super) fn open() -> io::Result<EpollDriver> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let sleeper = Sleeper::new()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, sleeper.eventfd(), data(Token::plain(Purpose::Wake)), flags)?;
        Ok(EpollDriver {
            epoll,
            sleeper,
            listeners: Slots::default(),
            links: Slots::default(),
            watches: Slots::default(),
            pool: Pool::new(),
            reserve: Reserve::new()?,
            farewells: Farewells::default(),
            starved: Vec::new(),
            failed: Vec::new(),
            ready: Vec::with_capacity(READY_MAX),
            turn: 0,
            scratch: vec![0; super::CHUNK_BYTES],
        })
    }

    /// The earliest time at which this driver has something to do by itself.
    fn deadline(&mut self) -> Option<Instant> {
        let links = &self.links;
        let farewell = self.farewells.next(|key| links.get(key).is_some());
        self.listeners.values().filter_map(|listener| listener.resting_until).chain(farewell).min()
    }

    /// What can go on since the last pass: starved links when chunks came back, listeners that rested, and farewells
    /// that took too long.
    fn resume(&mut self) {
        if !self.starved.is_empty() && self.pool.left() > 0 {
            for key in std::mem::take(&mut self.starved) {
                if let Some(link) = self.links.get_mut(key) {
                    link.starved = false;
                    self.observe(key);
                }
            }
        }
        if self.listeners.values().any(|listener| listener.resting_until.is_some()) {
            self.end_rests(Instant::now());
        }
        if !self.farewells.is_empty() {
            let now = Instant::now();
            while let Some(key) = self.farewells.expired(now) {
                self.drop_link(key);
            }
        }
    }

    fn end_rests(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(key) = self.listeners.next_from(from) {
            from = key.slot() + 1;
            let Some(listener) = self.listeners.get_mut(key) else { continue };
            if listener.resting_until.is_some_and(|until| until <= now) {
                let added = epoll::add(
                    &self.epoll,
                    &listener.socket,
                    data(Token::new(Purpose::Accept, key)),
                    epoll::EventFlags::IN,
                );
                listener.resting_until = added.err().map(|_| now + super::listening::REST_TIME);
            }
        }
    }

    /// Waits in the kernel and says whether the token of the waker was taken.
    fn ask(&mut self, patience: Patience) -> io::Result<bool> {
        let mut timeout = Some(Duration::ZERO);
        match patience {
            Patience::Poll => {}
            Patience::Yield => rustix::thread::sched_yield(),
            Patience::Sleep(allowed) => {
                if self.failed.is_empty() && self.sleeper.fall_asleep() {
                    timeout = sleep_time(allowed, self.deadline());
                }
            }
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        self.ready.clear();
        let outcome = epoll::wait(&self.epoll, spare_capacity(&mut self.ready), timeout.as_ref());
        let woken = self.sleeper.take_token();
        match outcome {
            Ok(_) | Err(Errno::INTR) => Ok(woken),
            Err(error) => Err(error.into()),
        }
    }

    fn with_link(&mut self, link: LinkId, change: impl FnOnce(&mut Link)) {
        if let Some(entry) = self.links.get_mut(link.0) {
            change(entry);
            if entry.is_over_unread() {
                self.failed.push(link.0);
            }
            self.observe(link.0);
        }
    }
}

impl Driver for EpollDriver {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let entry = Listener { socket: listener, resting_until: None };
        let key = self.listeners.insert(entry).map_err(|_| table_full())?;
        let listener = self.listeners.get(key).expect("inserted above");
        let token = Token::new(Purpose::Accept, key);
        let added = epoll::add(&self.epoll, &listener.socket, data(token), epoll::EventFlags::IN);
        if added.is_err() {
            self.listeners.remove(key);
        }
        Ok(added?)
    }

    fn stop_listening(&mut self) {
        while let Some(key) = self.listeners.next_from(0) {
            if let Some(listener) = self.listeners.remove(key) {
                // Explicitly, because a descriptor inherited elsewhere would keep the registration alive. Fails
                // harmlessly for a listener that rests.
                let _ = epoll::delete(&self.epoll, &listener.socket);
            }
        }
    }

    fn attach(&mut self, socket: OwnedFd) -> io::Result<LinkId> {
        prepare(&socket)?;
        let key = self.links.insert(Link::new(socket)).map_err(|_| table_full())?;
        match self.try_observe(key) {
            Ok(()) => Ok(LinkId(key)),
            Err(error) => {
                self.links.remove(key);
                Err(error.into())
            }
        }
    }

    fn read_once(&mut self, link: LinkId) {
        self.with_link(link, |link| link.read(Reading::Once));
    }

    fn read_on(&mut self, link: LinkId) {
        self.with_link(link, |link| link.read(Reading::On));
    }

    fn pause(&mut self, link: LinkId) {
        self.with_link(link, |link| link.read(Reading::Off));
    }

    fn detach(&mut self, link: LinkId) -> Option<OwnedFd> {
        let entry = self.links.get(link.0)?;
        if !matches!(entry.ending, Ending::Open) {
            return None;
        }
        assert!(entry.reading == Reading::Off, "a link is detached while nothing reads it");
        assert!(entry.outgoing.is_empty(), "a link is detached when its bytes are written");
        let entry = self.links.remove(link.0)?;
        if entry.observed.is_some() {
            let _ = epoll::delete(&self.epoll, &entry.socket);
        }
        Some(entry.socket)
    }

    fn send(&mut self, link: LinkId, out: &mut Vec<u8>) {
        match self.links.get_mut(link.0) {
            Some(entry) if matches!(entry.ending, Ending::Open) => {
                let was_empty = entry.outgoing.is_empty();
                let outcome = if was_empty { entry.write_first(out) } else { Ok(()) };
                if !out.is_empty() {
                    entry.outgoing.push(out);
                }
                match outcome {
                    Ok(()) if was_empty && !entry.outgoing.is_empty() => self.observe(link.0),
                    Ok(()) => {}
                    Err(error) => self.write_failed(link.0, error),
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
            (Ending::Flushing | Ending::HalfClosed, Flush::Queued) => {}
            (Ending::Open, Flush::Queued) => {
                entry.ending = Ending::Flushing;
                self.farewells.begin(link.0);
                self.finish_flushing(link.0);
            }
            _ => self.drop_link(link.0),
        }
    }

    fn watch(&mut self, fd: OwnedFd, watched: Watched) -> io::Result<WatchId> {
        let key = self.watches.insert(fd).map_err(|_| table_full())?;
        let fd = self.watches.get(key).expect("inserted above");
        let mut flags = epoll::EventFlags::HUP | epoll::EventFlags::ONESHOT;
        flags.set(epoll::EventFlags::IN, watched == Watched::Process);
        let added = epoll::add(&self.epoll, fd, data(Token::new(Purpose::Watch, key)), flags);
        if added.is_err() {
            self.watches.remove(key);
        }
        added?;
        Ok(WatchId(key))
    }

    fn unwatch(&mut self, watch: WatchId) {
        if let Some(fd) = self.watches.remove(watch.0) {
            let _ = epoll::delete(&self.epoll, &fd);
        }
    }

    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.pool.bytes(chunk)
    }

    fn recycle(&mut self, chunk: Chunk) {
        self.pool.give_back(chunk);
    }

    fn wait(&mut self, patience: Patience, events: &mut Vec<Event>) -> io::Result<()> {
        self.resume();
        if self.ask(patience)? {
            events.push(Event::Woken);
        }
        self.take_ready(events);
        while let Some(key) = self.failed.pop() {
            self.end(key, None, events);
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.sleeper.waker()
    }
}

impl Drop for EpollDriver {
    fn drop(&mut self) {
        self.links.values().for_each(|link| shut_down(&link.socket, Shutdown::Both));
    }
}

fn data(token: Token) -> epoll::EventData {
    epoll::EventData::new_u64(token.bits())
}

fn table_full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENFILE)
}

//! A server's end of shared memory, spoken by hand: it attaches a client that asks for it, and is a stream of bytes like a
//! socket from there on.

use super::{PATIENCE, Peer, Said, await_caller, granted};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Reply, RequestId};
use fairlock_shm::beacon::Beacon;
use fairlock_shm::bell::{Waiting, publish_fence};
use fairlock_shm::ring::{Receiver, SLOT_BYTES, Sender};
use fairlock_shm::robust::LastWord;
use fairlock_shm::segment::Segment;
use fairlock_shm::wait;
use fairlock_shm::word::Generation;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The listening side, whose thread lives in its beacon, and is stamped by another.
pub(crate) struct MemoryServer {
    listener: UnixListener,
    beacon: Arc<Beacon>,
    _alive: LastWord,
    /// Stamps are written.
    pub(crate) runs: Arc<AtomicBool>,
}

/// Bytes through two rings.
pub(crate) struct Rings {
    pub(crate) segment: Arc<Segment>,
    socket: UnixStream,
    sender: Sender,
    receiver: Receiver,
}

pub(crate) fn now_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// Starts a server that follows the script on a thread of its own.
pub(crate) fn serve_memory(script: impl FnOnce(MemoryServer) + Send + 'static) -> (String, JoinHandle<()>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("fairlock-fake-{}-{number}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let endpoint = format!("unix:{}", path.display());
    let thread = std::thread::spawn(move || {
        let beacon = Arc::new(Beacon::create(fairlock_shm::word::Leaving::Barrier).unwrap());
        let alive = LastWord::new(Arc::clone(&beacon), 0).unwrap();
        beacon.stamp(0, now_ns(ClockId::Boottime), now_ns(ClockId::Monotonic));
        let (runs, ends) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let stamper = {
            let (beacon, runs, ends) = (Arc::clone(&beacon), Arc::clone(&runs), Arc::clone(&ends));
            std::thread::spawn(move || {
                while !ends.load(Ordering::Acquire) {
                    if runs.load(Ordering::Acquire) {
                        beacon.stamp(0, now_ns(ClockId::Boottime), now_ns(ClockId::Monotonic));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        };
        script(MemoryServer { listener, beacon, _alive: alive, runs });
        ends.store(true, Ordering::Release);
        stamper.join().unwrap();
        std::fs::remove_file(path).unwrap();
    });
    (endpoint, thread)
}

impl MemoryServer {
    pub(crate) fn accept(&self) -> Peer<UnixStream> {
        await_caller(&self.listener);
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer::new(stream)
    }

    /// Accepts a connection and hears its HELLO, which asks for memory or not.
    pub(crate) fn greeted(&self, asks: bool) -> Peer<UnixStream> {
        let mut peer = self.accept();
        let hello = peer.hear().unwrap();
        assert!(matches!(hello.said, Said::Hello { .. }), "{hello:?}");
        assert_eq!(peer.asked, asks, "whether the client asks for memory");
        peer
    }

    /// Accepts a connection, and passes it memory.
    pub(crate) fn attached(&self) -> Peer<Rings> {
        let peer = self.greeted(true);
        let (segment, file) = Segment::create().unwrap();
        let segment = Arc::new(segment);
        pass(&peer.stream, now_ns(ClockId::Boottime), &[&file, self.beacon.file()]);
        let rings =
            Rings { segment, socket: peer.stream, sender: Sender::default(), receiver: Receiver::default() };
        Peer::new(rings)
    }

    /// Accepts a connection that opens a session through memory.
    pub(crate) fn opened(&self, ttl_ms: u32) -> Peer<Rings> {
        let mut peer = self.attached();
        peer.welcome_and_open(ttl_ms, 1);
        peer
    }

    pub(crate) fn beacon(&self) -> &Beacon {
        &self.beacon
    }
}

/// Says SEGMENT with these descriptors.
pub(crate) fn pass(socket: &UnixStream, clock_ns: u64, files: &[&OwnedFd]) {
    let mut bytes = Vec::new();
    Reply::Segment { clock_ns, reason: "" }.encode(RequestId::NOTICE, 0, &mut bytes);
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

impl Read for Rings {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(room.len() >= SLOT_BYTES);
        let mut ended = false;
        loop {
            let piece = self.receiver.receive(self.segment.requests()).unwrap();
            if let Some(piece) = piece {
                self.receiver.give_back(self.segment.requests());
                let bytes = piece.bytes();
                room[..bytes.len()].copy_from_slice(bytes);
                return Ok(bytes.len());
            }
            if ended {
                return Ok(0);
            }
            self.segment.attention().doze();
            if self.receiver.is_ready(self.segment.requests()) {
                continue;
            }
            ended = self.socket.read(&mut [0; 256])? == 0;
        }
    }
}

impl Write for Rings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.send(self.segment.replies(), bytes).unwrap();
        publish_fence();
        match self.segment.parking().to_wake() {
            Waiting::Looking => {}
            Waiting::Futex => wait::unpark(self.segment.parking()),
            Waiting::Socket => self.socket.write_all(&[1])?,
        }
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Peer<Rings> {
    /// Grants what was asked for as `slot`, and leaves it with the client in the word of that number.
    pub(crate) fn leave_with(&mut self, id: u64, slot: u32, generation: u32) {
        self.stream.segment.word(slot).unwrap().grant(Generation(generation), false);
        let Reply::Granted(grant) = granted(slot) else { unreachable!() };
        let note = Reply::Cached { grant: grant.grant, word: slot, generation };
        // In one breath, so that the note is there when the guard is.
        let mut bytes = Vec::new();
        granted(slot).encode(RequestId(id), FLAG_KEPT | FLAG_RENEWED, &mut bytes);
        note.encode(RequestId::NOTICE, 0, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Wants the word back, and waits until its holder has left it. One that was released by a message, because the note
    /// came too late for that, is in use no more.
    pub(crate) fn take_back(&mut self, slot: u32, generation: u32) {
        let segment = Arc::clone(&self.stream.segment);
        let word = segment.word(slot).unwrap();
        word.want();
        let begun = std::time::Instant::now();
        while !word.take(Generation(generation)) {
            assert!(begun.elapsed() < PATIENCE, "the holder never left");
            if self.stream.receiver.is_ready(segment.requests()) {
                let heard = self.hear_next().unwrap();
                let released = heard.said == Said::Release(slot);
                self.early.push(heard);
                if released {
                    let _ = word.void(Generation(generation));
                    return;
                }
            }
            std::thread::yield_now();
        }
    }
}

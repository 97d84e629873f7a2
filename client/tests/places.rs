//! Where a client connects to: a Unix socket with a descriptor sent along, and a server of several shards.

#![allow(clippy::unwrap_used, reason = "a surprise fails the test")]

mod fake;

use fairlock::{Client, ConnectError, Liveness, Transport};
use fairlock_protocol::wire::FLAG_RENEWED;
use fairlock_protocol::{Reply, Resource};
use fake::{KEY, Peer, Said, serve, welcome};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::IoSliceMut;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("fairlock-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind is a nuisance, not a failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Takes the first bytes of a connection and the descriptor beside them.
fn first_words(stream: &UnixStream) -> (Vec<u8>, Option<OwnedFd>) {
    let mut room = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut room)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut passed = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            passed = descriptors.into_iter().next().or(passed);
        }
    }
    (room[..received.bytes].to_vec(), passed)
}

/// Some bytes that were read already, then a stream.
struct Ahead(std::io::Cursor<Vec<u8>>, UnixStream);

impl Read for Ahead {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(room)? {
            0 => self.1.read(room),
            count => Ok(count),
        }
    }
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.1.flush()
    }
}

#[test]
fn the_read_end_of_a_pipe_travels_beside_the_hello() {
    let folder = Folder::new("inherit");
    let path = folder.0.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (bytes, passed) = first_words(&stream);
        let mut pipe = std::fs::File::from(passed.expect("a descriptor came along"));
        let mut peer = Peer::new(Ahead(std::io::Cursor::new(bytes), stream));
        peer.open(5000, 1);
        let mut told = String::new();
        pipe.read_to_string(&mut told).unwrap();
        assert_eq!(told, "still here");
        peer.oblige_all();
    });
    let (read_end, mut write_end) = std::io::pipe().unwrap();
    let endpoint = format!("unix:{}", path.display());
    let client = Client::builder().inherit(read_end.into()).connect(&endpoint).unwrap();
    write_end.write_all(b"still here").unwrap();
    drop(write_end);
    drop(client.lock("x").acquire().unwrap());
    client.close();
    server.join().unwrap();
}

/// A name that belongs to this shard of two.
fn name_of_shard(shard: u16) -> String {
    let mut names = (0..).map(|number| format!("name/{number}"));
    let belongs =
        |name: &String| KEY.digest(Resource::new(b"", name.as_bytes()).unwrap()).shard(2).0 == shard;
    names.find(belongs).unwrap()
}

#[test]
fn a_name_of_another_shard_is_asked_for_there_on_a_connection_of_its_own() {
    let (endpoint, server) = serve(|server| {
        let mut home = server.accept();
        home.open(5000, 2);
        let mut other = server.accept();
        let hello = other.hear().unwrap();
        assert_eq!(hello.said, Said::Hello { shard: 1, epoch: 5 });
        other.say(0, 0, &Reply::Welcome(welcome(1, 2)));
        let resume = other.hear().unwrap();
        assert_eq!(resume.said, Said::Resume { received: 0 });
        other.say(resume.id, 0, &Reply::Resumed { ttl_ms: 5000, seen: 0, following: 0 });
        let far = other.listen().unwrap();
        assert!(matches!(far.said, Said::Acquire { .. }));
        other.oblige(&far);
        let near = home.listen().unwrap();
        assert!(matches!(near.said, Said::Acquire { .. }));
        home.oblige(&near);
        let release = other.listen().unwrap();
        assert_eq!(release.said, Said::Release(1));
        other.oblige(&release);
        home.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let far = client.lock(name_of_shard(1)).acquire().unwrap();
    let near = client.lock(name_of_shard(0)).acquire().unwrap();
    near.check().unwrap();
    far.release().unwrap();
    drop(near);
    client.close();
    server.join().unwrap();
}

#[test]
fn only_a_renewal_at_home_counts() {
    let (endpoint, server) = serve(|server| {
        let mut peer = server.opened(20_000);
        while let Some(heard) = peer.hear() {
            match heard.said {
                // Without the flag, whatever else the reply says.
                Said::Acquire { .. } => peer.say(heard.id, 0, &fake::granted(1)),
                Said::Keepalive => peer.say(heard.id, FLAG_RENEWED, &Reply::Alive),
                _ => peer.oblige(&heard),
            }
        }
    });
    let client = Client::connect(&endpoint).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let guard = client.lock("x").acquire().unwrap();
    let certain = fairlock_protocol::tick::certain(client.ttl());
    let left = guard.valid_until().unwrap();
    assert!(left + std::time::Duration::from_millis(20) <= certain, "{left:?} of {certain:?}");
    drop(guard);
    client.close();
    server.join().unwrap();
}

#[test]
fn transports_that_do_not_fit_are_refused_before_anything_is_sent() {
    let unsupported = |error: ConnectError| matches!(error, ConnectError::Unsupported(_));
    let refused = |transport, endpoint: &str| {
        Client::builder().transport(transport).connect(endpoint).map(drop).unwrap_err()
    };
    assert!(unsupported(refused(Transport::Shm, "tcp://127.0.0.1:1")));
    assert!(unsupported(refused(Transport::Tcp, "unix:/nowhere")));
    assert!(unsupported(refused(Transport::Unix, "tcp://127.0.0.1:1")));
    let process = Client::builder().liveness(Liveness::Process).connect("tcp://127.0.0.1:1");
    assert!(unsupported(process.map(drop).unwrap_err()));
    let inherit = Client::builder().liveness(Liveness::Inherit).connect("unix:/nowhere");
    assert!(unsupported(inherit.map(drop).unwrap_err()));
    let nobody = Client::connect("unix:/nowhere").unwrap_err();
    assert!(nobody.is_no_server(), "{nobody:?}");
}

//! The Unix socket: who gets to a shard, with what, and who is refused.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fairlock_protocol::limits::FRAME_BYTES_MAX;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;
use crate::connection::{Peer, UnixPeer};
use crate::lanes::Adoption;

fn adopted(stage: &mut Stage, shard: usize) -> (OwnedFd, Vec<u8>, UnixPeer) {
    let ToShard::Adopt(adoption) = stage.told(shard) else { panic!("something else") };
    let Adoption { socket, received, peer, .. } = *adoption;
    let Peer::Unix(peer) = peer else { panic!("not of this host") };
    (socket, received, *peer)
}

fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
}

#[test]
fn a_connection_goes_to_the_shard_it_names_with_everything_it_said() {
    let mut stage = Stage::new(2);
    let mut client = UnixStream::connect(&stage.socket).unwrap();
    let mut bytes = hello(Hello::to(ShardId(1)));
    bytes.extend_from_slice(b"the beginning of something");
    // In pieces: the HELLO is whole only with the second one.
    client.write_all(&bytes[..10]).unwrap();
    stage.is_told_nothing(1);
    client.write_all(&bytes[10..]).unwrap();
    let (socket, received, peer) = adopted(&mut stage, 1);
    assert_eq!(received, bytes);
    assert_eq!(peer.credentials.pid, std::process::id());
    assert_eq!(peer.credentials.uid, rustix::process::geteuid().as_raw());
    assert!(peer.pipe.is_none());
    UnixStream::from(socket).write_all(b"welcome").unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"welcome");
}

#[test]
fn a_connection_without_a_wish_goes_to_the_shards_in_turn() {
    let mut stage = Stage::new(2);
    let mut clients = vec![];
    for turn in 0..4 {
        let mut client = UnixStream::connect(&stage.socket).unwrap();
        client.write_all(&hello(Hello::to(ShardId::ANY))).unwrap();
        adopted(&mut stage, turn % 2);
        clients.push(client);
    }
}

#[test]
fn the_read_end_of_a_pipe_travels_with_the_connection() {
    let mut stage = Stage::new(1);
    let client = UnixStream::connect(&stage.socket).unwrap();
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    send_with(&client, &hello(Hello::to(ShardId(0))), &[read_end.as_fd()]);
    drop(read_end);
    let pipe = adopted(&mut stage, 0).2.pipe.expect("it came along");
    rustix::io::write(&write_end, b"x").unwrap();
    rustix::io::read(&pipe, &mut [0_u8; 1]).unwrap();
    drop(write_end);
    assert_eq!(rustix::io::read(&pipe, &mut [0_u8; 1]).unwrap(), 0, "nobody else has the write end");
}

#[test]
fn other_descriptors_are_refused_and_closed() {
    let stage = Stage::new(1);
    let bytes = hello(Hello::to(ShardId(0)));
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    let end = read_end.as_fd();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    for descriptors in [vec![end, end], vec![end; 6], vec![write_end.as_fd()], vec![file.as_fd()]] {
        let mut client = UnixStream::connect(&stage.socket).unwrap();
        send_with(&client, &bytes, &descriptors);
        let (refused, detail) = refusal(&mut client);
        assert_eq!(refused, Refusal::BadRequest);
        assert!(detail.contains("descriptor"), "{detail}");
    }
    drop(read_end);
    // Every copy is closed: nobody can read any more.
    assert_eq!(rustix::io::write(&write_end, b"x").unwrap_err(), rustix::io::Errno::PIPE);
}

#[test]
fn what_is_no_hello_is_refused_in_a_frame() {
    let stage = Stage::new(1);
    let newer = hello(Hello { version_min: 2, version_max: 3, ..Hello::to(ShardId(0)) });
    let mut keepalive = vec![];
    Request::Keepalive.encode(RequestId(1), 0, &mut keepalive);
    let mut wrong_magic = hello(Hello::to(ShardId(0)));
    wrong_magic[16] ^= 1;
    let mut endless = u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes().to_vec();
    endless.resize(6000, 0);
    let table = [
        (newer, Refusal::Version, "the client 2 to 3"),
        (keepalive, Refusal::BadRequest, "not a HELLO"),
        (wrong_magic, Refusal::BadRequest, "magic"),
        (endless, Refusal::BadRequest, "longer than a HELLO"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refusal::FrameTooLarge, ""),
        (hello(Hello::to(ShardId(1))), Refusal::BadRequest, "no shard 1"),
    ];
    for (bytes, expected, words) in table {
        let mut client = UnixStream::connect(&stage.socket).unwrap();
        client.write_all(&bytes).unwrap();
        let (refused, detail) = refusal(&mut client);
        assert_eq!(refused, expected, "{detail}");
        assert!(detail.contains(words), "{detail}");
    }
}

#[test]
fn the_oldest_silent_connection_makes_room_and_the_others_stay() {
    let room = TempDir::new();
    let mut stage = Stage::with(1, room, |config| config.limits.unbound_connections = 3);
    let bytes = hello(Hello::to(ShardId(0)));
    let mut half = UnixStream::connect(&stage.socket).unwrap();
    half.write_all(&bytes[..20]).unwrap();
    stage.is_told_nothing(0);
    let mut silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&stage.socket).unwrap()).collect();
    silent[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap(), 0, "the oldest silent one had to go");
    half.write_all(&bytes[20..]).unwrap();
    silent[2].write_all(&bytes).unwrap();
    assert_eq!(adopted(&mut stage, 0).1, bytes);
    assert_eq!(adopted(&mut stage, 0).1, bytes);
}

#[test]
fn silence_is_ended_and_costs_nobody_else_anything() {
    let mut stage = Stage::new(1);
    let mut silent = UnixStream::connect(&stage.socket).unwrap();
    let mut half = UnixStream::connect(&stage.socket).unwrap();
    half.write_all(b"\x40\x00\x00\x00").unwrap();
    for stream in [&mut silent, &mut half] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    let mut client = UnixStream::connect(&stage.socket).unwrap();
    client.write_all(&hello(Hello::to(ShardId(0)))).unwrap();
    adopted(&mut stage, 0);
}

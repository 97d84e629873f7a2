//! Two nodes over loopback: what becomes of a dial, and who is let in.

mod attacks;
mod door;
mod outcomes;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fairlock_replication::{Incarnation, Member, NodeId};

use super::*;

/// More than anything here takes.
const PLENTY: Duration = Duration::from_secs(20);
/// Enough where time is to run out.
const LITTLE: Duration = Duration::from_millis(200);
const SECRET: &[u8] = b"correct horse battery staple";

fn secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes).unwrap()
}

/// A node of the cell `prod` with two shards and the secret.
fn node(name: &str, life: u64) -> Introduction {
    let me = Member {
        node: NodeId::new(name).unwrap(),
        machine: "0123456789abcdef".to_owned(),
        incarnation: Incarnation::new(life).unwrap(),
        peer: format!("{name}.example:7413"),
        clients: format!("tcp://{name}.example:7411"),
    };
    Introduction {
        cell: "prod".to_owned(),
        me,
        shards: 2,
        secret: Some(secret(SECRET)),
        epoch: AtomicU32::new(9),
    }
}

/// The member as it is listed, at this address.
fn listed(name: &str, life: u64, address: SocketAddr) -> Member {
    Member { peer: address.to_string(), ..node(name, life).me }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connected pair: who called, who accepted.
fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let caller = TcpStream::connect(address).unwrap();
    // A test that waits for ever would say nothing.
    caller.set_read_timeout(Some(PLENTY)).unwrap();
    (caller, listener.accept().unwrap().0)
}

/// An open door, and whom it met.
fn door(me: Introduction, limit: Duration) -> (PeerDoor, mpsc::Receiver<Caller>) {
    let (meet, met) = mpsc::channel();
    let meet = Box::new(move |caller| meet.send(caller).unwrap_or_default());
    (PeerDoor::open(listener().0, Arc::new(me), limit, meet).unwrap(), met)
}

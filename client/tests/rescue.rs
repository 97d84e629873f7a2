//! A cell that has lost its memory, and a session that goes on there as another one by showing what it held.
//! Order and state are asserted, never how long anything took.
#![allow(clippy::unwrap_used, reason = "a surprise fails the test")]

mod fake;

use fairlock::Client;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    FencingToken, GrantId, Mode, Proof, Refusal, Reply, Role, Secret, SessionId, ShardId, Welcome,
};
use fake::{PATIENCE, Peer, Said, Server, eventually, not_primary, refused, serve, welcome_as};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::mpsc;

const TTL_MS: u32 = 60_000;

/// A grant that can be shown to a later life of the cell.
fn provable(slot: u32, token: u64) -> Reply<'static> {
    Reply::Granted(Grant {
        grant: GrantId::from_parts(slot, NonZeroU32::MIN),
        token: FencingToken::from_raw(token),
        fence: token,
        mode: Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered: false,
        proof: Some(Proof(token.into())),
    })
}

/// The next connection, welcomed by a node that has lost its memory and is primary.
fn forgetful(server: &Server) -> Peer<TcpStream> {
    let mut peer = server.accept();
    let hello = peer.hear().unwrap();
    assert!(matches!(hello.said, Said::Hello { .. }), "{hello:?}");
    let welcome = Welcome { recovering_ms: 5000, ..welcome_as(Role::Primary, 6, peer.stands_by) };
    peer.say(0, 0, &Reply::Welcome(welcome));
    peer
}

/// Opens it on this connection as the first session of the new life.
fn opened_anew(peer: &mut Peer<TcpStream>) {
    let open = peer.hear().unwrap();
    assert!(matches!(open.said, Said::Open { .. }), "{open:?}");
    let session = SessionId::from_raw(0x0600_0000_0001).unwrap();
    let opened = Reply::Opened { session, secret: Secret(99), ttl_ms: TTL_MS, home: ShardId(0) };
    peer.say(open.id, FLAG_RENEWED, &opened);
}

/// G56: the node that was to take the guards on hands over in the moment between its welcome and OPEN. The guards are shown
/// to whoever serves then.
#[test]
fn a_node_that_hands_over_before_the_session_is_open_ends_no_rescue() {
    let (told, heard) = mpsc::channel();
    let (endpoint, server) = serve(move |server| {
        let mut first = server.opened_as_primary(TTL_MS);
        let asked = first.listen().unwrap();
        assert!(matches!(asked.said, Said::Acquire { .. }), "{asked:?}");
        first.say(asked.id, FLAG_KEPT | FLAG_RENEWED, &provable(1, 1001));
        drop(first);
        let mut unknown = forgetful(&server);
        let resume = unknown.hear().unwrap();
        assert!(matches!(resume.said, Said::Resume { .. }), "{resume:?}");
        unknown.say(resume.id, 0, &refused(Refusal::SessionUnknown));
        let mut hands_over = forgetful(&server);
        let open = hands_over.hear().unwrap();
        assert!(matches!(open.said, Said::Open { .. }), "{open:?}");
        hands_over.say(open.id, 0, &not_primary(6, ""));
        let mut serves = forgetful(&server);
        opened_anew(&mut serves);
        let claim = serves.listen().unwrap();
        assert_eq!(claim.said, Said::Else, "REASSERT");
        serves.say(claim.id, FLAG_KEPT | FLAG_RENEWED, &provable(1, 2001));
        let mut after = forgetful(&server);
        let resume = after.hear().unwrap();
        assert_eq!(resume.said, Said::Resume { received: 1 });
        after.say(resume.id, FLAG_RENEWED, &Reply::Resumed { ttl_ms: TTL_MS, seen: claim.id, following: 0 });
        let given_back = after.listen().unwrap();
        assert_eq!(given_back.said, Said::Release(1));
        after.oblige(&given_back);
        told.send(()).unwrap();
        after.oblige_all();
    });
    let client = Client::connect(&endpoint).unwrap();
    let guard = client.lock("x").acquire().unwrap();
    eventually(|| {
        guard.check().unwrap();
        guard.token().get() == 2001
    });
    guard.release().unwrap();
    // Who closes before the session is resumed says CLOSE alone, which gives everything back.
    heard.recv_timeout(PATIENCE).unwrap();
    drop(client);
    server.join().unwrap();
}

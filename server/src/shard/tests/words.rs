//! Clients that share memory, as a shard sees them: what becomes of their sessions and words when they end, move, stop in
//! the middle or mean no good.

use fairlock_protocol::{Reply, Request, RequestId};

use super::world::{World, open};

#[test]
fn a_connection_that_is_rejected_opens_no_other_session_on_its_way_out() {
    let mut world = World::new(1);
    let (line, _segment) = world.share(0);
    world.open_on(line, 60_000);
    let mut bytes = vec![];
    // Another OPEN is a mistake that ends the connection, and with it the session.
    for request in 1..=3 {
        Request::Open(open(60_000)).encode(RequestId(request), 0, &mut bytes);
    }
    world.send_bytes(line, &bytes);
    assert!(!world.is_open(line));
    let refused = world.heard(line).iter().filter(|heard| matches!(heard.reply(), Reply::Refused(_))).count();
    assert_eq!(refused, 1, "nothing is read after that");
    assert_eq!(world.shards[0].table().counts().sessions, 0, "nobody would ever end it");
    assert_eq!(world.shards[0].timeouts.unbound_count(), 0);
}

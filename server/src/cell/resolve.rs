//! Where a peer address leads. Addresses are taken as they are; a name is looked up on a thread of its own, because the
//! system's resolver knows no time limit of ours.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::wire::Limit;

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Look-ups that may be under way: those that were given up go on until the resolver gives up, too.
const LOOKUPS_MAX: usize = 16;

/// Look-ups under way.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Counts one look-up as long as it lives.
struct Lookup;

impl Lookup {
    fn begin() -> Option<Lookup> {
        // Relaxed: a count, which orders nothing else.
        let under_way = LOOKUPS.fetch_add(1, Ordering::Relaxed);
        let lookup = Lookup;
        (under_way < LOOKUPS_MAX).then_some(lookup)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The addresses of `host:port`, one at least.
///
/// # Errors
/// What to tell: the name is unknown, or it took too long.
pub(super) fn addresses(peer: &str, limit: Limit) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = peer.parse() {
        return Ok(vec![address]);
    }
    let lookup = Lookup::begin().ok_or_else(|| format!("the name in {peer} is still being looked up"))?;
    let (tell, told) = mpsc::sync_channel(1);
    let name = peer.to_owned();
    let look_up = move || {
        let _lookup = lookup;
        let found = name.to_socket_addrs().map(|all| all.take(ADDRESSES_MAX).collect::<Vec<_>>());
        // Nobody may be waiting any more.
        let _ = tell.send(found);
    };
    let thread = std::thread::Builder::new().name("fairlock-name".into()).spawn(look_up);
    thread.map_err(|error| format!("no thread to look up {peer}: {error}"))?;
    let left = limit.left().map_err(|late| late.to_string())?;
    match told.recv_timeout(left) {
        Ok(Ok(found)) if !found.is_empty() => Ok(found),
        Ok(Ok(_)) => Err(format!("{peer} has no address; correct --peer-address of that node")),
        Ok(Err(error)) => Err(format!("{peer} cannot be looked up: {error}")),
        Err(_) => {
            Err(format!("{peer} was not looked up in time; an address instead of a name needs no look-up"))
        }
    }
}

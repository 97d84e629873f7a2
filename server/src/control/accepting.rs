//! A listener of the control thread. It never spins: when descriptors run out, one kept aside is given up to accept a
//! peer, who then sees an end instead of silence, and when even that fails the listener rests for a moment.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use fairlock_protocol::Tick;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::SocketFlags;

/// How long a listener rests when it can neither accept nor turn away.
const REST_TIME: Duration = Duration::from_millis(10);
/// Connections accepted in one pass, so that other sources are served in between.
const ACCEPTS_PER_PASS: usize = 64;
/// How often trouble with accepting is logged.
const LOG_EVERY: Duration = Duration::from_secs(1);
const ACCEPT_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A listening socket and what it needs to survive a lack of descriptors.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: OwnedFd,
    spare: Option<OwnedFd>,
    resting_until: Option<Tick>,
    silent_until: Tick,
    /// Connections ended unheard for want of a descriptor.
    turned_away: u64,
}

impl Acceptor {
    /// Takes a bound, listening socket.
    ///
    /// # Errors
    /// No descriptor is left, or the socket cannot be made nonblocking.
    pub(super) fn new(listener: OwnedFd) -> io::Result<Acceptor> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let spare = Some(spare()?);
        Ok(Acceptor { listener, spare, resting_until: None, silent_until: Tick::ZERO, turned_away: 0 })
    }

    /// What to wait on; `None` while it rests.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.resting_until.is_none().then(|| self.listener.as_fd())
    }

    /// When to call [`Acceptor::rested`].
    pub(super) fn resting_until(&self) -> Option<Tick> {
        self.resting_until
    }

    /// Ends a rest that is over.
    pub(super) fn rested(&mut self, now: Tick) {
        self.resting_until = self.resting_until.filter(|until| now < *until);
    }

    /// Connections that wait, a pass's worth.
    pub(super) fn accept(&mut self, now: Tick) -> Vec<OwnedFd> {
        let mut accepted = Vec::new();
        for _ in 0..ACCEPTS_PER_PASS {
            match rustix::net::accept_with(&self.listener, ACCEPT_FLAGS) {
                Ok(socket) => accepted.push(socket),
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
                    self.log(now, errno);
                    if !self.turn_away() {
                        self.resting_until = Some(now.after(REST_TIME));
                        break;
                    }
                }
                Err(errno) => {
                    self.log(now, errno);
                    self.resting_until = Some(now.after(REST_TIME));
                    break;
                }
            }
        }
        accepted
    }

    /// Ends one waiting connection with the reserve. `false`: another thread took the descriptor meanwhile.
    fn turn_away(&mut self) -> bool {
        self.spare = None;
        let outcome = rustix::net::accept_with(&self.listener, ACCEPT_FLAGS);
        self.turned_away += u64::from(outcome.is_ok());
        let served = !matches!(outcome, Err(Errno::MFILE | Errno::NFILE));
        drop(outcome);
        self.spare = spare().ok();
        served && self.spare.is_some()
    }

    fn log(&mut self, now: Tick, errno: Errno) {
        if now >= self.silent_until {
            self.silent_until = now.after(LOG_EVERY);
            let (error, turned_away) = (io::Error::from(errno), self.turned_away);
            tracing::warn!(%error, turned_away, "cannot accept connections; raise the descriptor limit");
        }
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn without_descriptors_a_peer_sees_an_end_and_the_reserve_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new(listener.into()).unwrap();
        let mut peers: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(acceptor.turn_away());
        assert_eq!(peers[0].read(&mut [0; 1]).unwrap(), 0);
        assert!(acceptor.spare.is_some() && acceptor.turned_away == 1);
        assert_eq!(acceptor.accept(Tick::ZERO).len(), 1, "the second one is served");
        assert!(acceptor.turn_away(), "nobody waits: nothing to do");
        assert!(acceptor.accept(Tick::ZERO).is_empty());
    }

    #[test]
    fn a_rest_ends_by_time_and_is_not_waited_on_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut acceptor = Acceptor::new(listener.into()).unwrap();
        assert!(acceptor.listener().is_some());
        acceptor.resting_until = Some(Tick(10));
        acceptor.rested(Tick(9));
        assert!(acceptor.listener().is_none());
        assert_eq!(acceptor.resting_until(), Some(Tick(10)));
        acceptor.rested(Tick(10));
        assert!(acceptor.listener().is_some());
    }
}

//! Who is at the other end of a Unix socket, as the kernel recorded it when the connection was made. A pid is never an
//! identity (it is re-used); the pidfd is, and it becomes readable when that process ends.
#![expect(
    unsafe_code,
    reason = "SO_PEERPIDFD has no safe wrapper yet, and that of SO_PEERCRED excludes pid 0"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `SO_PEERPIDFD` of `asm-generic/socket.h`, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// Process, user and group of a peer at the time it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerCredentials {
    /// For people to read, not to act on; 0 when the process is not visible from this pid namespace.
    pub(crate) pid: u32,
    /// Effective user id.
    pub(crate) uid: u32,
    /// Effective group id.
    pub(crate) gid: u32,
}

/// The credentials of a Unix socket's peer.
///
/// # Errors
/// `InvalidInput` for a socket of another family, whose "credentials" would be those of nobody.
pub(crate) fn peer_credentials(socket: &impl AsFd) -> io::Result<PeerCredentials> {
    require_unix(socket)?;
    // SAFETY: `ucred` consists of three integers; every bit pattern the kernel may write is a value of it.
    let ucred: libc::ucred = unsafe { socket_option(socket, libc::SO_PEERCRED) }?;
    let pid = u32::try_from(ucred.pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(PeerCredentials { pid, uid: ucred.uid, gid: ucred.gid })
}

/// A pidfd of the process that connected. Kernels before 6.5 do not keep one: there it is opened by pid, which names
/// another process if the peer ended and its pid was re-used meanwhile; ask right after accepting, and still expect
/// the end of the stream.
///
/// # Errors
/// `InvalidInput` for a socket of another family; that of the kernel when the peer has ended already.
pub(crate) fn peer_pidfd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    require_unix(socket)?;
    // SAFETY: the option's value is one integer.
    match unsafe { socket_option::<libc::c_int>(socket, SO_PEERPIDFD) } {
        Ok(fd) => {
            assert!(fd >= 0, "a descriptor is not negative");
            // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let pid = i32::try_from(peer_credentials(socket)?.pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        }
        Err(error) => Err(error),
    }
}

fn require_unix(socket: &impl AsFd) -> io::Result<()> {
    let family = rustix::net::getsockname(socket)?.address_family();
    if family == rustix::net::AddressFamily::UNIX { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Reads a fixed-size option of level `SOL_SOCKET`.
///
/// # Safety
/// Every bit pattern the kernel may write for `option` is a value of `T`.
unsafe fn socket_option<T: Copy>(socket: &impl AsFd, option: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let size = libc::socklen_t::try_from(mem::size_of::<T>()).expect("an option is a few bytes");
    let mut length = size;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, `value` has room for `length` bytes, and the kernel writes no more.
    let outcome =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, value.as_mut_ptr().cast(), &raw mut length) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if length != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: all bytes are initialised (zeroed, then written by the kernel), and by this function's contract a value.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_unix_peer_is_known_by_pid_user_and_group() {
        let (here, _there) = UnixStream::pair().unwrap();
        let credentials = peer_credentials(&here).unwrap();
        assert_eq!(credentials.pid, std::process::id());
        assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
        assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn the_pidfd_of_a_living_peer_is_not_readable() {
        let (here, _there) = UnixStream::pair().unwrap();
        let pidfd = peer_pidfd(&here).unwrap();
        let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut watched, Some(&now)).unwrap(), 0);
    }

    #[test]
    fn a_tcp_peer_has_no_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(peer_credentials(&stream).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(peer_pidfd(&stream).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

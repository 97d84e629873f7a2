//! Places to listen on: TCP addresses, and the Unix socket with its file. A file a dead server left is replaced; a live
//! server's socket, and whatever is not a socket, is refused. Nobody can connect before mode and group are set, because
//! the socket listens only after that.

use std::fs::DirBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Gid;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use thiserror::Error;

/// Connections the kernel keeps waiting for us; it takes less where `net.core.somaxconn` is lower.
const BACKLOG: i32 = 4096;
/// How long an address may still be in use by a server that was killed: the kernel takes an `io_uring` apart after its
/// process is gone, and the listener with it (50 to 250 ms were seen).
const RELEASE_TIME: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const RELEASE_LOOK: Duration = Duration::from_millis(20);
/// A directory made for the socket is closed to others.
const DIRECTORY_MODE: u32 = 0o750;
/// Longest path of a Unix socket in bytes: `sun_path` and its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// The server cannot listen there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody answers at this path.
    #[error("another server answers at {}; stop it or set another --socket", path.display())]
    Live {
        /// Which path.
        path: PathBuf,
    },
    /// There is something else at this path.
    #[error("{} is not a socket; move it away or set another --socket", path.display())]
    NotASocket {
        /// Which path.
        path: PathBuf,
    },
    /// The path does not fit a socket address.
    #[error("the socket path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes; set another --socket", path.display())]
    TooLong {
        /// Which path.
        path: PathBuf,
    },
    /// There is no such group.
    #[error("there is no group `{group}`; set another --socket-group, by name or number")]
    NoGroup {
        /// As it was given.
        group: String,
    },
    /// The address is taken.
    #[error(
        "{address} is in use; stop who listens there (`ss -ltnp`) or set another --listen, --peer-listen or --admin"
    )]
    InUse {
        /// Which address.
        address: SocketAddr,
    },
    /// The process may not.
    #[error("no permission to {doing} at {place}; change who may, or set another place")]
    NoPermission {
        /// Path or address.
        place: String,
        /// What was tried.
        doing: &'static str,
    },
    /// Anything else.
    #[error("cannot {doing} at {place}")]
    Other {
        /// Path or address.
        place: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    /// The exit code of a server that cannot start because of this: `EX_UNAVAILABLE`, and `EX_CONFIG` for a group that
    /// does not exist.
    pub const fn exit_code(&self) -> u8 {
        match self {
            BindError::NoGroup { .. } => 78,
            _ => 69,
        }
    }

    fn of(place: &dyn std::fmt::Display, doing: &'static str, error: &io::Error) -> BindError {
        let place = place.to_string();
        match Errno::from_io_error(error) {
            Some(Errno::ACCESS | Errno::PERM) => BindError::NoPermission { place, doing },
            Some(errno) => BindError::Other { place, doing, source: errno.into() },
            None => {
                BindError::Other { place, doing, source: io::Error::new(error.kind(), error.to_string()) }
            }
        }
    }
}

/// A listening Unix socket. Dropping it removes its file, if the file is still its own.
#[derive(Debug)]
pub(crate) struct UnixDoor {
    listener: OwnedFd,
    file: SocketFile,
}

impl UnixDoor {
    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The socket, and the file that goes away when it is dropped.
    pub(super) fn into_parts(self) -> (OwnedFd, SocketFile) {
        (self.listener, self.file)
    }
}

/// The file of a Unix socket, known by device and inode, because another server may have put its own in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode)) {
            // Should it fail, the next server finds a stale socket, which it replaces.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`: makes the directory if it is missing, replaces a socket nobody answers at, and sets permission
/// bits and group before anybody can connect.
///
/// # Errors
/// [`BindError`].
pub(crate) fn bind_unix(path: &Path, mode: u32, group: Option<&str>) -> Result<UnixDoor, BindError> {
    let fault = |doing| move |error: io::Error| BindError::of(&path.display(), doing, &error);
    let too_long = path.as_os_str().len() > SOCKET_PATH_BYTES_MAX;
    let address = (!too_long).then(|| SocketAddrUnix::new(path).ok()).flatten();
    let address = address.ok_or_else(|| BindError::TooLong { path: path.into() })?;
    let group = group.map(gid_of).transpose()?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let created = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(parent);
        created.map_err(fault("make the directory of the socket"))?;
    }
    clear_the_way(path, &address)?;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SOCKET_FLAGS, None)
        .map_err(|errno| fault("make a socket")(errno.into()))?;
    match rustix::net::bind(&listener, &address) {
        Ok(()) => {}
        // Another server was faster.
        Err(Errno::ADDRINUSE) => return Err(BindError::Live { path: path.into() }),
        Err(errno) => return Err(fault("make the socket")(errno.into())),
    }
    let found = std::fs::symlink_metadata(path).map_err(fault("find the socket"))?;
    let file = SocketFile { path: path.into(), device: found.dev(), inode: found.ino() };
    if group.is_some() {
        let owned = rustix::fs::chown(path, None, group);
        owned.map_err(|errno| fault("set the group of the socket")(errno.into()))?;
    }
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(fault("set the mode of the socket"))?;
    rustix::net::listen(&listener, BACKLOG).map_err(|errno| fault("listen")(errno.into()))?;
    Ok(UnixDoor { listener, file })
}

/// Removes the socket of a dead server; refuses everything else that is in the way.
fn clear_the_way(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let fault = |doing| move |error: io::Error| BindError::of(&path.display(), doing, &error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault("look")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    // Nonblocking: a live server that is too busy to accept must not hang us.
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SOCKET_FLAGS, None)
        .map_err(|errno| fault("make a socket")(errno.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "a socket nobody answers at is replaced");
            std::fs::remove_file(path).map_err(fault("remove the stale socket"))
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => Err(fault("ask who answers")(errno.into())),
        // AGAIN: its queue is full. PROTOTYPE: a socket of another type, which somebody holds.
        Ok(()) | Err(_) => Err(BindError::Live { path: path.into() }),
    }
}

/// The number of a group given by number, or by its name in `/etc/group`: the binary is static, so there is no name
/// service to ask.
fn gid_of(group: &str) -> Result<Gid, BindError> {
    if let Ok(number) = group.parse::<u32>() {
        // The kernel reads this one as "leave it".
        return if number == u32::MAX { Err(no_group(group)) } else { Ok(Gid::from_raw(number)) };
    }
    let listed = std::fs::read_to_string("/etc/group").unwrap_or_default();
    gid_in(&listed, group).ok_or_else(|| no_group(group))
}

fn no_group(group: &str) -> BindError {
    BindError::NoGroup { group: group.to_string() }
}

fn gid_in(listed: &str, group: &str) -> Option<Gid> {
    let mut entries = listed.lines().map(|line| line.split(':'));
    let mut fields = entries.find_map(|mut fields| (fields.next() == Some(group)).then_some(fields))?;
    Some(Gid::from_raw(fields.nth(1)?.parse().ok()?))
}

/// Listens at a TCP address; port 0 picks one.
///
/// # Errors
/// [`BindError`].
pub(crate) fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let begun = Instant::now();
    loop {
        match bind_tcp_once(address) {
            Ok(listener) => return Ok(listener),
            Err(Errno::ADDRINUSE) if begun.elapsed() < RELEASE_TIME => std::thread::sleep(RELEASE_LOOK),
            Err(Errno::ADDRINUSE) => return Err(BindError::InUse { address }),
            Err(errno) => return Err(BindError::of(&address, "listen", &errno.into())),
        }
    }
}

fn bind_tcp_once(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SOCKET_FLAGS, None)?;
    // A restart must not wait for the connections of the run before to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests;

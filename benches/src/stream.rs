//! A stream to a server, over TCP or a Unix socket, that waits either asleep or spinning. Both the bare echo and the
//! protocol run over it, so that they differ in nothing else.

use crate::memory::Memory;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// Shared memory, reached through a Unix socket.
    Memory(PathBuf),
}

/// How a party waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In the kernel, asleep.
    Sleeping,
    /// Asking again and again.
    Spinning,
}

impl Manner {
    /// The word in a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Manner::Sleeping => "sleeping",
            Manner::Spinning => "spinning",
        }
    }
}

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, without delay.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Through shared memory.
    Memory(Box<Memory>),
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(door: &Door, manner: Manner) -> io::Result<Stream> {
        let stream = match door {
            Door::Tcp(address) => Stream::Tcp(TcpStream::connect(address)?),
            Door::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Door::Memory(path) => return Ok(Stream::Memory(Box::new(Memory::connect(path, manner)?))),
        };
        stream.waits(manner)?;
        Ok(stream)
    }

    /// Sets how it waits.
    ///
    /// # Errors
    /// What the system says.
    pub fn waits(&self, manner: Manner) -> io::Result<()> {
        let spinning = manner == Manner::Spinning;
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(spinning)),
            Stream::Unix(stream) => stream.set_nonblocking(spinning),
            // It was told when it was made.
            Stream::Memory(_) => Ok(()),
        }
    }

    /// Whatever has arrived, at least a byte; 0 at the end of the stream.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let taken = match self {
                Stream::Tcp(stream) => stream.read(into),
                Stream::Unix(stream) => stream.read(into),
                Stream::Memory(stream) => return stream.take(into),
            };
            match taken {
                Err(error) if is_passing(&error) => std::hint::spin_loop(),
                other => return other,
            }
        }
    }

    /// Writes everything.
    ///
    /// # Errors
    /// What the system says.
    pub fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let put = match self {
                Stream::Tcp(stream) => stream.write(bytes),
                Stream::Unix(stream) => stream.write(bytes),
                Stream::Memory(stream) => return stream.put(bytes),
            };
            match put {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if is_passing(&error) => std::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

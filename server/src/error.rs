//! Why a server did not start, each with what to do about it.

use std::io;

use crate::config::ConfigError;
use crate::control::BindError;
use crate::control::register::OpenError;
use crate::state::StateError;

/// A server did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] StateError),
    /// A TCP address, the Unix socket or the admin address cannot be had.
    #[error("{0}")]
    Door(#[from] BindError),
    /// The io driver cannot be opened.
    #[error("cannot open the io driver: {0}; `--io auto` takes epoll where io_uring is blocked")]
    Driver(#[source] io::Error),
    /// Threads, descriptors or randomness ran out.
    #[error("the system is out of a resource: {0}; raise the limits of processes or descriptors")]
    Resources(#[source] io::Error),
    /// The register of the cell cannot be used as it is configured.
    #[error("{0}")]
    Register(#[source] OpenError),
    /// It was stopped before it found its place in the cell.
    #[error("stopped before this node found its place in the cell; its log lines say what it waited for")]
    NoPlace,
    /// This node cannot be a part of its cell as it is configured.
    #[error("this node has no place in its cell: {0}")]
    Misfit(String),
    /// A thread ended before it served.
    #[error("a shard's thread ended before it served; its log lines say why")]
    ThreadDied,
}

impl StartError {
    /// The exit code of `fairlock serve`: 69 when it cannot listen, 78 for a bad configuration or state directory, 0 when
    /// it was stopped while it waited.
    pub const fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_) | StartError::State(_) | StartError::Misfit(_) => 78,
            // It was asked to, and has done so.
            StartError::NoPlace => 0,
            StartError::Register(error) => error.exit_code(),
            StartError::Door(error) => error.exit_code(),
            StartError::Driver(_) | StartError::Resources(_) | StartError::ThreadDied => 69,
        }
    }
}

//! The Fairlock lock server as a library: [`Server::start`] with a [`Config`], and a program or a test has a server
//! inside itself.
//!
//! A *shard* is a thread that owns a set of names and everything about them. What decides is sans-IO (`shard`), what
//! moves bytes decides nothing (`driver`, `pass`), and what may block lives on a thread of its own (`control`).
//!
//! ```no_run
//! let mut config = fairlock_server::Config::default();
//! config.listen = vec!["127.0.0.1:0".parse()?];
//! let server = fairlock_server::Server::start(config)?;
//! println!("listening on {:?}", server.ready().tcp);
//! server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod cell;
mod clock;
pub mod config;
mod connection;
mod control;
pub mod deciding;
mod driver;
mod error;
mod host;
mod lanes;
mod metrics;
mod pass;
mod patience;
mod rings;
mod server;
mod shard;
mod state;
mod stats;

pub use config::{
    CellConfig, Config, ConfigError, IoChoice, NamespaceConfig, Poll, ProfileChoice, RegisterConfig,
};
pub use control::register;
pub use control::{BindError, ExitReport, StopReason, Stopper};
pub use error::StartError;
pub use server::{Ready, Server};
pub use state::{StateError, default_directory};

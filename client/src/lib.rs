//! Client of the Fairlock lock server: fair, fenced, crash-safe locks between processes and machines.
#![forbid(unsafe_code)]

pub mod admin;
mod builder;
mod client;
mod clock;
mod dial;
mod endpoint;
mod engine;
mod error;
mod guard;
mod lock;
mod session;
mod transport;

pub use builder::{Builder, Notice, Transport};
pub use client::{Client, ClientState};
pub use endpoint::{Address, Endpoint, EndpointError};
pub use error::{
    AcquireError, AdminError, ConnectError, ConvertError, Cycle, GuardError, LostCause, ReleaseError,
};
pub use fairlock_protocol::{FencingToken, GrantId, Liveness, Mode, OwnerId, Refusal, SessionId};
pub use guard::{Guard, GuardState, Lost};
pub use lock::{Acquiring, Canceller, LockRequest};

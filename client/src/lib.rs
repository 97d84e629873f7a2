//! Client of the Fairlock lock server: fair, fenced, crash-safe locks between processes and machines.
//!
//! A [`Client`] is one process's presence at a server. [`Client::lock`] asks for a lock by name; the [`Guard`] it
//! becomes *is* the ownership: it can be checked without I/O, it knows by the local clock when it ends, and dropping
//! it gives the lock back.
//!
//! ```no_run
//! use fairlock::{AcquireError, Client, Mode, Refusal};
//! use std::time::Duration;
//!
//! let client = Client::connect("tcp://127.0.0.1:7411")?;
//! let guard = client.lock("orders/42").acquire()?;               // exclusive, waits for ever
//! let token = guard.token().get();                               // hand it to the resource
//! guard.check()?;                                                // still ours? tens of nanoseconds
//! guard.valid_for(Duration::from_millis(50))?;                   // and for this step?
//! guard.release()?;                                              // or drop(guard)
//!
//! let readers = client.lock("orders/42").mode(Mode::PR).wait(Duration::from_secs(1)).acquire()?;
//! match client.lock("orders/42").try_acquire() {
//!     Err(AcquireError::Refused(Refusal::WouldBlock)) => println!("taken, or others wait for it"),
//!     other => drop(other?),
//! }
//! # drop((token, readers));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On any async runtime:
//!
//! ```no_run
//! # async fn work(client: fairlock::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let guard = client.lock("orders/42").acquire_async().await?;   // dropping the future withdraws the request
//! guard.release()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a guard promises
//! A session has a lease. The library renews it in the background, once per process, not per lock; each confirmed
//! renewal moves a deadline on the local clock that ends before the server would let anybody else in. Until that
//! deadline no two guards on one name with incompatible modes are valid, anywhere. When no renewal comes through, the
//! guard is first [`GuardState::Suspended`] and, at the deadline, [`GuardState::Lost`]: finally, without asking anybody,
//! and it is never re-acquired behind the program's back. [`Guard::lost`] and [`Guard::wait_lost`] tell.
//!
//! A program can be stopped between a check and the step it protects, for longer than any lease. Where that matters,
//! hand [`Guard::token`] to the resource and let it refuse older ones (the example `fencing_sql`).
//!
//! # What costs what
//! An acquire is one round trip: the calling thread writes the request and reads the answer itself. A release is one
//! write; nobody waits for its answer. A check reads a clock and two words.
//!
//! On one host (a `unix:` endpoint) the round trip goes through memory that the client and the server share, with no system
//! call while both are awake; [`Client::transport`] tells. There a lock that nobody else asks for soon *stays* with the
//! client between two holds: it is taken and given back without a message, under the same token, until somebody waits for
//! it. A lock that is taken again and again is best prepared once, with [`LockRequest::prepare`]:
//!
//! ```no_run
//! # let client = fairlock::Client::connect("unix:/run/fairlock.sock")?;
//! let lock = client.lock("orders/42").prepare()?;
//! let held = lock.acquire()?;                                    // some nanoseconds while it stays
//! held.check()?;
//! held.release()?;                                               // or drop(held)
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Fork
//! After `fork` the child's copies of clients and guards are closed: they touch neither socket nor shared memory and
//! release nothing. Connect again in the child. Programs started by `exec` inherit none of the descriptors.
#![forbid(unsafe_code)]

pub mod admin;
mod builder;
mod client;
mod clock;
pub mod deciding;
mod dial;
mod endpoint;
mod engine;
mod error;
mod guard;
mod lock;
mod lock_all;
mod owner;
mod prepared;
mod session;
mod transport;

pub use builder::{Builder, Notice, Transport};
pub use client::{Client, ClientState};
pub use endpoint::{Address, Endpoint, EndpointError};
pub use error::{
    AcquireError, AdminError, ConnectError, ConvertError, Cycle, GuardError, LostCause, ReleaseError,
};
pub use fairlock_protocol::{
    Discipline, FencingToken, GrantId, Liveness, Mode, OwnerId, Priority, Refusal, SessionId,
};
pub use guard::{Guard, GuardState, Lost};
pub use lock::{Acquiring, Canceller, LockRequest};
pub use lock_all::{AcquiringAll, LockAllRequest};
pub use prepared::{Held, Lock};

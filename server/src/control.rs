//! The control thread: everything of a server that is rare or may block, so that no shard ever does.
//!
//! It accepts on the Unix socket and hands each connection to the shard it names, makes longer leases durable before
//! they are granted, answers /metrics and /healthz, and brings the server to its end. One thread, one `poll`, asleep
//! when nothing happens.

mod accepting;
mod admin;
mod alarms;
mod binding;
mod greeting;
pub(crate) mod keeping;
pub mod register;
mod sharing;
mod steward;
mod stopping;
#[cfg(test)]
pub(crate) mod test_room;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use fairlock_shm::beacon::Beacon;

use crate::config::Config;
use crate::error::StartError;
use crate::lanes::{ControlLane, ShardLane, ToControl};
use crate::server::Ready;
use crate::stats::ShardStats;

pub(crate) use alarms::Alarms;
pub use binding::BindError;
pub(crate) use binding::{UnixDoor, bind_tcp, bind_unix};
pub(crate) use greeting::DoorCounts;
pub(crate) use keeping::Keeping;
pub(crate) use steward::Settled;
use steward::Steward;
pub use stopping::{ExitReport, StopReason, Stopper};

/// What the control thread listens on.
#[derive(Debug)]
pub(crate) struct Doors {
    unix: Option<UnixDoor>,
    admin: Option<TcpListener>,
}

impl Doors {
    /// Opens what the configuration names. The Unix socket's file goes away with this, or with the control thread.
    ///
    /// # Errors
    /// [`BindError`].
    pub(crate) fn open(config: &Config) -> Result<Doors, BindError> {
        let group = config.socket_group.as_deref();
        let unix =
            config.socket.as_ref().map(|path| bind_unix(path, config.socket_mode, group)).transpose()?;
        let admin = config.admin.map(bind_tcp).transpose()?;
        Ok(Doors { unix, admin })
    }

    /// Where the Unix socket is.
    pub(crate) fn socket_path(&self) -> Option<PathBuf> {
        self.unix.as_ref().map(|door| door.path().to_path_buf())
    }

    /// Where /metrics and /healthz are, with the real port.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// The shards, as the control thread knows them: one entry each, in the order of their numbers.
#[derive(Debug)]
pub(crate) struct ControlParts {
    /// Ways to them.
    pub(crate) lanes: Vec<ShardLane>,
    /// What they publish.
    pub(crate) stats: Vec<Arc<ShardStats>>,
    /// Their threads, joined at the end.
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// What they say.
    pub(crate) from_shards: mpsc::Receiver<ToControl>,
    /// Becomes readable when they said something.
    pub(crate) doorbell: Arc<OwnedFd>,
    /// The board `status` shows, shared with them.
    pub(crate) alarms: Alarms,
    /// What clients on this host see of the shards' threads; without it no memory is shared.
    pub(crate) beacon: Option<Arc<Beacon>>,
    /// The way to the control thread, for threads beside the shards.
    pub(crate) control: ControlLane,
}

/// The running control thread. Dropping it does not stop the server.
#[derive(Debug)]
pub(crate) struct Control {
    stopper: Stopper,
    thread: JoinHandle<ExitReport>,
}

impl Control {
    /// Starts the thread. With `config.signals` it answers to SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// [`StartError::Resources`]: no descriptor or thread is left. The shards must then be ended by dropping what feeds
    /// them.
    pub(crate) fn start(
        config: &Config,
        ready: &Ready,
        doors: Doors,
        keeping: Keeping,
        parts: ControlParts,
        settled: Option<mpsc::Sender<Settled>>,
    ) -> Result<Control, StartError> {
        assert_eq!(parts.lanes.len(), parts.threads.len(), "every shard has a lane and a thread");
        assert_eq!(parts.lanes.len(), parts.stats.len(), "every shard publishes");
        let stopper = Stopper::new().map_err(StartError::Resources)?;
        let steward = Steward::new(config, ready, doors, keeping, parts, stopper.clone(), settled);
        let mut steward = steward.map_err(StartError::Resources)?;
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || steward.run());
        Ok(Control { stopper, thread: thread.map_err(StartError::Resources)? })
    }

    /// A handle that stops the server from any thread.
    pub(crate) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until the server has stopped.
    ///
    /// # Panics
    /// When the control thread panicked.
    pub(crate) fn wait(self) -> ExitReport {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

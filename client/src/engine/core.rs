//! What one client shares among its handles, guards and its tender thread.

use super::foreground::Wish;
use super::nodes::Nodes;
use super::opening;
use super::session::Session;
use super::slot::{Outcome, Slot};
use super::tender::Tender;
use crate::builder::{Builder, Notice, NoticeCallback, Transport};
use crate::clock;
use crate::endpoint::{Address, Endpoint};
use crate::error::{AcquireError, ConnectError, LostCause};
use crate::transport::{self, Bell};
use fairlock_protocol::Liveness;
use fairlock_protocol::limits::{IDENTITY_BYTES_MAX, LABEL_BYTES_MAX, TTL_MAX};
use fairlock_shm::fork::ForkMark;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bound on a client's own talk, when the program names none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Notices that wait for a slow callback; beyond it they are dropped, which costs nothing but the hint.
const NOTICES_QUEUED_MAX: usize = 1024;

/// What the program said about itself.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Transport,
    pub(crate) ttl_ms: u32,
    pub(crate) label: String,
    pub(crate) identity: Vec<u8>,
    pub(crate) reclaim_key: Vec<u8>,
    pub(crate) predecessor_gone: bool,
    pub(crate) liveness: Liveness,
    pub(crate) inherit: Option<OwnedFd>,
    pub(crate) deadline: Duration,
    /// Whether locks taken away by an operator are confirmed only when their guards are released.
    pub(crate) confirm_when_released: bool,
}

/// A request that waits for a session to be opened.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) wish: Wish,
    pub(crate) slot: Arc<Slot>,
    pub(crate) tended: bool,
}

/// One client.
pub(crate) struct Core {
    pub(crate) mark: Arc<ForkMark>,
    pub(crate) config: Config,
    current: Mutex<Arc<Session>>,
    /// `None` once no session will be opened any more.
    orphans: Mutex<Option<Vec<Orphan>>>,
    /// Where the nodes are, as far as it is known.
    pub(crate) nodes: Arc<Nodes>,
    bell: Arc<Bell>,
    /// Release store in `close`, Acquire loads in the tender and on every path in.
    closing: AtomicBool,
    done: Mutex<bool>,
    is_done: Condvar,
    notices: Option<SyncSender<Notice>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("endpoint", &self.config.endpoint).finish_non_exhaustive()
    }
}

/// What handles and guards hold: when the last of them goes, the client closes in the background.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) core: Arc<Core>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if !self.core.mark.is_child() {
            self.core.begin_close();
        }
    }
}

/// Checks what the program said.
fn config(builder: Builder, endpoint: &Endpoint) -> Result<(Config, Option<NoticeCallback>), ConnectError> {
    let local = endpoint.addresses().iter().all(|address| matches!(address, Address::Unix(_)));
    let liveness = builder.liveness.unwrap_or(if local { Liveness::Process } else { Liveness::Heartbeat });
    if !local && liveness != Liveness::Heartbeat {
        return Err(ConnectError::Unsupported("over tcp: only the liveness heartbeat can be seen"));
    }
    if liveness == Liveness::Inherit && builder.inherit.is_none() {
        return Err(ConnectError::Unsupported("the liveness inherit needs the read end of a pipe"));
    }
    if builder.label.len() > LABEL_BYTES_MAX {
        return Err(ConnectError::Unsupported("a label has at most 256 bytes"));
    }
    if builder.identity.len().max(builder.reclaim_key.len()) > IDENTITY_BYTES_MAX {
        return Err(ConnectError::Unsupported("an identity and its key have at most 256 bytes"));
    }
    let ttl = builder.ttl.unwrap_or_default().min(TTL_MAX);
    let config = Config {
        endpoint: endpoint.clone(),
        transport: builder.transport,
        ttl_ms: u32::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX),
        label: builder.label,
        identity: builder.identity,
        reclaim_key: builder.reclaim_key,
        predecessor_gone: builder.predecessor_gone,
        liveness,
        inherit: builder.inherit,
        deadline: builder.deadline.unwrap_or(DEADLINE_DEFAULT),
        confirm_when_released: builder.confirm_when_released,
    };
    Ok((config, builder.on_notice))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ConnectError {
    move |source| ConnectError::System { what, source: Arc::new(source) }
}

impl Core {
    /// Connects, opens a session on the calling thread, and starts the tender.
    pub(crate) fn start(builder: Builder, endpoint: &Endpoint) -> Result<Arc<Anchor>, ConnectError> {
        let (config, callback) = config(builder, endpoint)?;
        let mark = Arc::new(ForkMark::new().map_err(system("a page for the fork mark"))?);
        let bell = Arc::new(Bell::new().map_err(system("a descriptor"))?);
        let listens = matches!(config.transport, Transport::Auto | Transport::Tcp);
        let nodes = Nodes::new(transport::resolve(endpoint, config.transport)?, listens, &bell);
        let opened = opening::open(&config, &nodes, &mark, &|| true)?;
        let notices = callback.map(start_notices).transpose()?;
        let core = Arc::new(Core {
            mark,
            config,
            current: Mutex::new(Arc::clone(&opened)),
            orphans: Mutex::new(Some(Vec::new())),
            nodes,
            bell,
            closing: AtomicBool::new(false),
            done: Mutex::new(false),
            is_done: Condvar::new(),
            notices,
        });
        opened.home().take_first(&opened, &core);
        let tender = Tender::new(Arc::clone(&core), opened);
        std::thread::Builder::new()
            .name("fairlock".to_owned())
            .spawn(move || tender.run())
            .map_err(system("a thread"))?;
        Ok(Arc::new(Anchor { core }))
    }

    /// The present session, which may be over.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_session(&self, session: &Arc<Session>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(session);
    }

    /// Wakes the tender.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Hands a notice to the program's callback.
    pub(super) fn tell(&self, notice: Notice) {
        if let Some(notices) = &self.notices
            && notices.try_send(notice).is_err()
        {
            tracing::debug!(?notice, "the notice callback is too slow; a notice is dropped");
        }
    }

    /// Leaves a request for the tender, which opens a session for it.
    pub(super) fn leave(&self, orphan: Orphan) {
        let refused = {
            let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *orphans {
                Some(orphans) => {
                    orphans.push(orphan);
                    None
                }
                None => Some(orphan),
            }
        };
        match refused {
            // Whoever asked was settled before only if he withdrew; then nothing is owed to him.
            Some(orphan) => drop(orphan.slot.settle(Outcome::Failed(AcquireError::Closed))),
            None => self.ring(),
        }
    }

    pub(super) fn has_orphans(&self) -> bool {
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.as_ref().is_some_and(|orphans| !orphans.is_empty())
    }

    /// Takes the requests that wait for a session away; `last`: nobody may wait any more.
    pub(super) fn take_orphans(&self, last: bool) -> Vec<Orphan> {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if last { None } else { Some(Vec::new()) };
        std::mem::replace(&mut *orphans, next).unwrap_or_default()
    }

    /// Ends the session and lets the tender say good-bye.
    pub(crate) fn begin_close(&self) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.session().end(self, LostCause::Closed);
        for orphan in self.take_orphans(true) {
            drop(orphan.slot.settle(Outcome::Failed(AcquireError::Closed)));
        }
        self.ring();
    }

    /// Closes, and waits until the server knows or the deadline is over.
    pub(crate) fn close(&self) {
        self.begin_close();
        let until = clock::now().after(self.config.deadline);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            let left = until.since(clock::now());
            if left.is_zero() {
                return;
            }
            done = self.is_done.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The tender is through.
    pub(super) fn finish(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.is_done.notify_all();
    }
}

/// A thread of its own for the program's callback: however slow it is, no lease suffers.
fn start_notices(callback: NoticeCallback) -> Result<SyncSender<Notice>, ConnectError> {
    let (sender, receiver) = sync_channel(NOTICES_QUEUED_MAX);
    std::thread::Builder::new()
        .name("fairlock-notices".to_owned())
        .spawn(move || {
            for notice in receiver {
                callback(notice);
            }
        })
        .map_err(system("a thread"))?;
    Ok(sender)
}

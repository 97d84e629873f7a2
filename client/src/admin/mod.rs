//! The questions of an operator. A connection of this kind opens no session and holds nothing; it asks every shard
//! of the server and puts the answers together.
//!
//! ```no_run
//! let mut admin = fairlock::admin::Admin::connect("tcp://127.0.0.1:7411", std::time::Duration::from_secs(5))?;
//! for lock in admin.list(b"orders/")? {
//!     println!("{} holders, {} waiters: {:?}", lock.holders, lock.waiters, lock.name);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell;
mod entries;

use crate::dial::{self, Wire};
use crate::endpoint::Endpoint;
use crate::error::{AdminError, ConnectError};
use crate::session::Fault;
use crate::transport::Target;
use fairlock_protocol::limits::NAME_BYTES_MAX;
use fairlock_protocol::{DigestKey, Hello, Refusal, Reply, Request, Resource, SessionId, ShardId};
use std::collections::BTreeMap;
use std::time::Duration;

pub use cell::{ClusterReport, Fulfilled, NodeLine, NodePart};
pub use entries::{LockLine, SessionLine, Show, ShowLine, StatusReport};
pub use fairlock_protocol::handshake::Role;
pub use fairlock_protocol::{CellId, Transport};

/// Connections to every shard of one server, for questions. Questions about locks and sessions go on to the primary of
/// its cell; those about the server itself do not.
#[derive(Debug)]
pub struct Admin {
    wires: Vec<Wire>,
    digest_key: DigestKey,
    deadline: Duration,
    /// What this server is, and of which cell.
    role: Role,
    cell: CellId,
    /// Every place that was named.
    named: Vec<Target>,
    /// Where the primary is, as a server that is not one has just said.
    hint: Option<String>,
}

/// What an answer was, beside those a question looks for.
type Looked<R> = Result<R, AdminError>;

fn always() -> bool {
    true
}

impl Admin {
    /// Connects to every shard; `deadline` bounds this and, afresh, each later question. Of several places it takes the
    /// primary of the cell if it can be found, else the first that answers; of one, that.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect<E>(endpoint: E, deadline: Duration) -> Result<Admin, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let endpoint: Endpoint = endpoint.try_into()?;
        cell::reach(cell::targets(&endpoint)?, deadline)
    }

    fn connect_to(target: &Target, allowed: Duration, deadline: Duration) -> Result<Admin, ConnectError> {
        let mut first = Wire::connect(target, allowed, &always)?;
        let (welcome, _) = first.greet(Hello::to(ShardId::ANY), None, None, &always)?;
        let reached = dial::shard_of(&welcome).map_err(|fault| first.fault(fault, "WELCOME"))?;
        let mut wires = BTreeMap::from([(reached, first)]);
        for shard in (0..welcome.shards).map(ShardId).filter(|shard| *shard != reached) {
            let mut wire = Wire::connect(target, allowed, &always)?;
            let (other, _) = wire.greet(Hello::to(shard), None, None, &always)?;
            if other.shard != shard || other.shards != welcome.shards {
                return Err(
                    wire.fault(Fault::OutOfTurn("another shard than the one that was asked"), "WELCOME")
                );
            }
            wires.insert(shard, wire);
        }
        let (role, cell) = (welcome.role, welcome.cell);
        let wires = wires.into_values().collect();
        Ok(Admin {
            wires,
            digest_key: welcome.digest_key,
            deadline,
            role,
            cell,
            named: vec![target.clone()],
            hint: None,
        })
    }

    /// Asks one shard one question. `look` gives `None` for an answer that does not belong to it.
    fn ask<R>(
        &mut self,
        shard: usize,
        request: &Request<'_>,
        look: impl FnOnce(&Reply<'_>) -> Option<R>,
    ) -> Looked<R> {
        let wire = &mut self.wires[shard];
        wire.allow(self.deadline);
        let id = wire.ask(request, &always)?;
        let mut hint = None;
        let looked = wire.answer(&always, |reply, _, request| match reply {
            Reply::Refused(refused) => {
                hint = refused.primary.map(|primary| primary.endpoints.to_owned());
                Err(Some((refused.refusal, refused.detail.to_owned())))
            }
            _ if request != id => Err(None),
            reply => look(reply).ok_or(None),
        })?;
        let looked = looked.map_err(|refused| match refused {
            Some((refusal, detail)) if detail.is_empty() => AdminError::Refused(refusal),
            Some((refusal, detail)) => AdminError::Explained { refusal, detail },
            None => wire.fault(Fault::OutOfTurn("something else"), "the answer to the question").into(),
        });
        self.hint = hint;
        looked
    }

    /// Asks one shard for all pages of a list.
    fn pages(
        &mut self,
        shard: usize,
        request: impl Fn(u64) -> Request<'static>,
        mut look: impl FnMut(&Reply<'_>) -> Option<u64>,
    ) -> Looked<()> {
        let mut cursor = 0;
        loop {
            let next = self.ask(shard, &request(cursor), &mut look)?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn shard_of(&self, resource: Resource<'_>) -> usize {
        let shards = u16::try_from(self.wires.len()).expect("a server counts its shards in 16 bits");
        usize::from(self.digest_key.digest(resource).shard(shards).0)
    }

    /// Names in use that begin with `prefix`, of all namespaces, sorted by namespace and name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn list(&mut self, prefix: &[u8]) -> Result<Vec<LockLine>, AdminError> {
        if prefix.len() > NAME_BYTES_MAX {
            return Err(AdminError::Refused(Refusal::TooLong));
        }
        self.at_primary(|admin| admin.list_here(prefix))
    }

    fn list_here(&mut self, prefix: &[u8]) -> Looked<Vec<LockLine>> {
        let mut lines: Vec<LockLine> = Vec::new();
        for shard in 0..self.wires.len() {
            let mut cursor = 0;
            loop {
                let next = self.ask(shard, &Request::List { cursor, prefix }, |reply| match reply {
                    Reply::Listed(page) => {
                        lines.extend(page.entries().map(LockLine::from));
                        Some(page.next)
                    }
                    _ => None,
                })?;
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        lines.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(lines)
    }

    /// Holders, conversions and waiters of one name; a free name has none. An empty namespace is the default one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn show(&mut self, namespace: &str, name: &[u8]) -> Result<Show, AdminError> {
        let resource = Resource::new(namespace.as_bytes(), name).map_err(AdminError::Refused)?;
        self.at_primary(|admin| admin.show_here(resource))
    }

    fn show_here(&mut self, resource: Resource<'_>) -> Looked<Show> {
        let shard = self.shard_of(resource);
        let mut show = Show::default();
        let mut cursor = 0;
        loop {
            let next = self.ask(shard, &Request::Show { cursor, resource }, |reply| match reply {
                Reply::Shown(page) => {
                    page.entries().for_each(|entry| show.take(&entry));
                    Some(page.next)
                }
                _ => None,
            });
            match next {
                Ok(0) | Err(AdminError::Refused(Refusal::NotFound)) => break,
                Ok(next) => cursor = next,
                Err(error) => return Err(error),
            }
        }
        let status = self.status_of(shard)?;
        (show.overtakes_total, show.bypasses_total) = (status.overtakes_total, status.bypasses_total);
        Ok(show)
    }

    /// Sessions, grants and waits summed over the shards, sorted by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn sessions(&mut self) -> Result<Vec<SessionLine>, AdminError> {
        self.at_primary(Admin::sessions_here)
    }

    fn sessions_here(&mut self) -> Looked<Vec<SessionLine>> {
        let mut lines: BTreeMap<SessionId, SessionLine> = BTreeMap::new();
        for shard in 0..self.wires.len() {
            self.pages(
                shard,
                |cursor| Request::Sessions { cursor },
                |reply| match reply {
                    Reply::Sessions(page) => {
                        for entry in page.entries() {
                            merge(&mut lines, shard, SessionLine::from(entry));
                        }
                        Some(page.next)
                    }
                    _ => None,
                },
            )?;
        }
        Ok(lines.into_values().collect())
    }

    fn status_of(&mut self, shard: usize) -> Looked<StatusReport> {
        self.ask(shard, &Request::Status, |reply| match reply {
            Reply::Status(status) => Some(StatusReport::from(*status)),
            _ => None,
        })
    }

    /// The server's state, summed over the shards.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn status(&mut self) -> Result<StatusReport, AdminError> {
        let mut whole = self.status_of(0)?;
        for shard in 1..self.wires.len() {
            let part = self.status_of(shard)?;
            whole.add(&part);
        }
        Ok(whole)
    }

    /// Takes a lock from its holders; says how many were told. The next one is let in when they have confirmed, or at
    /// the end of their leases; with `force` at once, which only fencing tokens then make safe.
    ///
    /// # Errors
    /// [`AdminError`]; [`Refusal::NotFound`] when nobody holds it.
    pub fn break_lock(&mut self, namespace: &str, name: &[u8], force: bool) -> Result<u32, AdminError> {
        let resource = Resource::new(namespace.as_bytes(), name).map_err(AdminError::Refused)?;
        self.at_primary(|admin| {
            let shard = admin.shard_of(resource);
            admin.ask(shard, &Request::Break { resource, force }, |reply| match reply {
                Reply::Broke { holders } => Some(*holders),
                _ => None,
            })
        })
    }

    /// Ends a session: its client is told, and its locks pass on when it has closed, or at the end of its lease; with
    /// `force` at once.
    ///
    /// # Errors
    /// [`AdminError`]; [`Refusal::NotFound`] when there is none.
    pub fn kill(&mut self, session: SessionId, force: bool) -> Result<(), AdminError> {
        let home = usize::from(session.home().0);
        if home >= self.wires.len() {
            return Err(AdminError::Refused(Refusal::NotFound));
        }
        self.at_primary(|admin| {
            admin.ask(home, &Request::Kill { session, force }, |reply| {
                matches!(reply, Reply::Killed).then_some(())
            })
        })
    }
}

/// A session stands on every shard; only its home knows how its client is connected and what is left of its lease.
fn merge(lines: &mut BTreeMap<SessionId, SessionLine>, shard: usize, line: SessionLine) {
    let at_home = usize::from(line.session.home().0) == shard;
    match lines.remove(&line.session) {
        None => {
            lines.insert(line.session, line);
        }
        Some(known) => {
            let (grants, waits) = (known.grants + line.grants, known.waits + line.waits);
            let kept = if at_home { line } else { known };
            lines.insert(kept.session, SessionLine { grants, waits, ..kept });
        }
    }
}

//! The start of a node: its identity in this life, its register, and the door for other nodes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlock_locktable::operation::OPERATIONS_LEVEL;
use fairlock_protocol::{CellId, DigestKey, Epoch};
use fairlock_replication::node::{Fresh, NodeSettings};
use fairlock_replication::profile::Profile;
use fairlock_replication::{Incarnation, MacKey, Member, NodeId};

use super::desk::{CellEvent, Desk, DeskParts};
use super::{DIAL_TIME, Introduction, PeerDoor, Secret};
use crate::config::Config;
use crate::control::bind_tcp;
use crate::control::register::{self, Opened, RegisterThread};
use crate::error::StartError;
use crate::lanes::{ControlLane, ToControl};
use crate::state::{StateDirectory, epoch_alone};

/// Where the machine's id is kept, in the order in which it is looked for.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A node that is ready to begin: everything that can fail has not.
pub(crate) struct Founding {
    settings: NodeSettings,
    introduction: Introduction,
    opened: Opened,
    door: TcpListener,
    copies_min: usize,
    place: String,
    /// Times of the cell.
    pub(crate) profile: Profile,
}

/// Prepares this node's life. A server alone may have used its directory: the cell's tokens have to be above that one's.
///
/// # Errors
/// [`StartError`].
///
/// # Panics
/// When the configuration was not checked.
pub(crate) fn found(
    config: &Config,
    tcp: &[SocketAddr],
    shards: u16,
    state: &StateDirectory,
) -> Result<Founding, StartError> {
    let before = epoch_alone(state)?;
    let cell = &config.cell;
    let told = "a checked configuration names the cell, the node and its address";
    let name = cell.name.clone().expect(told);
    let node = NodeId::new(cell.node.as_deref().expect(told)).expect(told);
    let opened = register::open(&config.register, &name).map_err(StartError::Register)?;
    let door = bind_tcp(cell.peer_listen.expect(told))?;
    let bound = door.local_addr().map_err(StartError::Resources)?;
    let (peer, clients) = (cell.peer(bound), cell.clients(tcp));
    let me = Member { node, machine: machine_id(state.path())?, incarnation: incarnation()?, peer, clients };
    let (cell_id, keys) = (random()?, random()?);
    let half =
        |number: u128, shift: u32| u64::try_from((number >> shift) & u128::from(u64::MAX)).unwrap_or(0);
    let by_clock = Epoch::first_at(unix_seconds());
    let fresh = Fresh {
        cell: CellId(cell_id),
        epoch: before.and_then(Epoch::next).map_or(by_clock, |next| next.max(by_clock)),
        digest_key: DigestKey([half(keys, 0), half(keys, 64)]),
        mac_key: MacKey(random()?.to_le_bytes()),
    };
    let settings = NodeSettings {
        me: me.clone(),
        shards,
        profile: cell.timing(),
        feature_level: OPERATIONS_LEVEL,
        fresh,
        ttl_max: config.ttl_max,
    };
    let secret = cell.peer_secret.as_deref().map(Secret::read).transpose()?;
    let introduction = Introduction { cell: name, me, shards, secret, epoch: AtomicU32::new(0) };
    let (copies_min, profile) = (usize::from(cell.copies()), cell.timing());
    let place = config.register.url.clone().unwrap_or_default();
    Ok(Founding { settings, introduction, opened, door, copies_min, place, profile })
}

impl Founding {
    /// Begins: the register is asked and other nodes are answered from now on.
    ///
    /// # Errors
    /// No thread is left.
    pub(crate) fn begin(self, control: &ControlLane) -> Result<Desk, StartError> {
        let Founding { settings, introduction, opened, door, copies_min, place, .. } = self;
        let introduction = Arc::new(introduction);
        let (answered, watched, called) = (control.clone(), control.clone(), control.clone());
        let register = RegisterThread::start(opened.register, move |answer| {
            answered.send(ToControl::Cell(CellEvent::Register(answer)));
        });
        let watch = opened.watcher.start(move |seen| watched.send(ToControl::Cell(CellEvent::Watched(seen))));
        let meet = Box::new(move |caller| {
            called.send(ToControl::Cell(CellEvent::Called(Box::new(caller))));
        });
        let door = PeerDoor::open(door, introduction.clone(), DIAL_TIME, meet);
        let parts = DeskParts {
            settings,
            introduction,
            register: register.map_err(StartError::Resources)?,
            watch: watch.map_err(StartError::Resources)?,
            door: door.map_err(StartError::Resources)?,
            control: control.clone(),
            copies_min,
            place,
        };
        Ok(Desk::new(parts))
    }
}

/// The id of this machine: that of the system, or one of the state directory's own where there is none (a container). It
/// must stay the same as long as the node's lock does.
fn machine_id(state: &Path) -> Result<String, StartError> {
    let own = state.join("machine-id");
    let files = MACHINE_ID_FILES.iter().map(Path::new).chain([own.as_path()]);
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        let text = text.trim();
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(text.to_ascii_lowercase());
        }
    }
    let id = format!("{:032x}", random()?);
    fs::write(&own, &id).map_err(StartError::Resources)?;
    Ok(id)
}

fn incarnation() -> Result<Incarnation, StartError> {
    loop {
        let number = u64::try_from(random()? & u128::from(u64::MAX)).unwrap_or(0);
        if let Some(incarnation) = Incarnation::new(number) {
            return Ok(incarnation);
        }
    }
}

fn random() -> Result<u128, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Resources(std::io::Error::other(error)))?;
    Ok(u128::from_le_bytes(bytes))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

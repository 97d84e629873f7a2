//! The start of a node: its identity in this life, its register, and the door for other nodes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlock_locktable::operation::OPERATIONS_LEVEL;
use fairlock_protocol::{CellId, DigestKey, Epoch};
use fairlock_replication::node::{Fresh, NodeSettings};
use fairlock_replication::profile::Profile;
use fairlock_replication::{Incarnation, MacKey, Member};

use super::desk::{CellEvent, Desk, DeskParts};
use super::introduction::Introduction;
use super::listen::Listener;
use crate::config::{CellConfig, Config};
use crate::control::bind_tcp;
use crate::control::register::{self, Opened, RegisterThread};
use crate::error::StartError;
use crate::lanes::{ControlLane, ToControl};

/// Where the machine's id is kept, in the order in which it is looked for.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A node that is ready to begin: everything that can fail has not.
pub(crate) struct Founding {
    settings: NodeSettings,
    introduction: Introduction,
    opened: Opened,
    door: TcpListener,
    copies_min: usize,
    /// Times of the cell.
    pub(crate) profile: Profile,
}

/// Prepares this node's life.
///
/// # Errors
/// [`StartError`].
pub(crate) fn found(
    config: &Config,
    cell: &CellConfig,
    tcp: &[SocketAddr],
    shards: u16,
    state: &Path,
) -> Result<Founding, StartError> {
    let opened = register::open(&config.register, cell.name.as_str()).map_err(StartError::Register)?;
    let door = bind_tcp(cell.peer_listen)?;
    let port = door.local_addr().map_err(StartError::Resources)?.port();
    let peer = match &cell.peer_address {
        Some(address) => address.clone(),
        None => SocketAddr::new(cell.peer_listen.ip(), port).to_string(),
    };
    let clients = match &cell.client_address {
        Some(address) => address.clone(),
        None => tcp.iter().map(|address| format!("tcp://{address}")).collect::<Vec<_>>().join(","),
    };
    let me = Member {
        node: cell.node.clone(),
        machine: machine_id(state)?,
        incarnation: incarnation()?,
        peer,
        clients,
    };
    let (cell_id, keys) = (random()?, random()?);
    let half = |number: u128, shift: u32| u64::try_from((number >> shift) & u128::from(u64::MAX)).unwrap_or(0);
    let fresh = Fresh {
        cell: CellId(cell_id),
        epoch: Epoch::first_at(unix_seconds()),
        digest_key: DigestKey([half(keys, 0), half(keys, 64)]),
        mac_key: MacKey(random()?.to_le_bytes()),
    };
    let settings = NodeSettings {
        me: me.clone(),
        shards,
        profile: cell.profile,
        feature_level: OPERATIONS_LEVEL,
        fresh,
        ttl_max: config.ttl_max,
    };
    let introduction =
        Introduction { cell: cell.name.to_string(), me, shards, secret: cell.secret().map_err(StartError::Config)? };
    Ok(Founding { settings, introduction, opened, door, copies_min: cell.min_copies, profile: cell.profile })
}

impl Founding {
    /// Begins: the register is asked and other nodes are answered from now on.
    ///
    /// # Errors
    /// No thread is left.
    pub(crate) fn begin(self, control: &ControlLane) -> Result<Desk, StartError> {
        let Founding { settings, introduction, opened, door, copies_min, .. } = self;
        let introduction = Arc::new(introduction);
        let (answered, watched, called) = (control.clone(), control.clone(), control.clone());
        let register = RegisterThread::start(opened.register, move |answer| {
            answered.send(ToControl::Cell(CellEvent::Register(answer)));
        });
        let watch = opened.watcher.start(move |seen| watched.send(ToControl::Cell(CellEvent::Watched(seen))));
        let listener = Listener::start(door, introduction.clone(), move |caller| {
            called.send(ToControl::Cell(CellEvent::Called(Box::new(caller))));
        });
        let parts = DeskParts {
            settings,
            introduction,
            register: register.map_err(StartError::Resources)?,
            watch: watch.map_err(StartError::Resources)?,
            listener: listener.map_err(StartError::Resources)?,
            control: control.clone(),
            copies_min,
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

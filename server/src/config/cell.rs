//! What a node is told of its cell: its name there, where the nodes agree on who is in it, and how others reach this one.
//! A cell that is told in part is refused: a node that serves alone because a line is missing would be two servers' worth
//! of grants.

use std::net::SocketAddr;
use std::path::PathBuf;

use fairlock_replication::NodeId;
use fairlock_replication::member::{CLIENTS_BYTES_MAX, PEER_BYTES_MAX};
use fairlock_replication::profile::Profile;
use serde::Deserialize;

use super::describe::{Page, quoted};
use super::{ConfigError, values};

/// Most copies that can be asked for: a member can be missing then.
const COPIES_MAX: u16 = 8;
/// What clients' endpoints over TCP begin with.
const TCP: &str = "tcp://";

/// The section `[cell]`. Without it a server runs alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CellConfig {
    /// Name of the cell, the same on all its nodes.
    pub name: Option<String>,
    /// Name of this node, different on each.
    pub node: Option<String>,
    /// Address for the other nodes; port 0 picks one.
    pub peer_listen: Option<SocketAddr>,
    /// `host:port` that the other nodes dial; `None`: `peer_listen`.
    pub peer_address: Option<String>,
    /// `host:port` that clients dial, several separated by commas; `None`: `listen`.
    pub client_address: Option<String>,
    /// How long silence may last; `None`: `cloud`.
    pub profile: Option<ProfileChoice>,
    /// Copies without which nothing is granted; `None`: 1.
    pub min_copies: Option<u16>,
    /// File with what all nodes of the cell know and nobody else; `None`: nobody has to prove anything.
    #[serde(deserialize_with = "values::path_or_none")]
    pub peer_secret: Option<PathBuf>,
}

/// How long silence may last between the nodes of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileChoice {
    /// Machines of one rack, with nothing between them that stalls.
    Lan,
    /// Virtual machines that may stand still for a while.
    #[default]
    Cloud,
}

impl ProfileChoice {
    /// The word of the configuration and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            ProfileChoice::Lan => "lan",
            ProfileChoice::Cloud => "cloud",
        }
    }
}

impl From<ProfileChoice> for Profile {
    fn from(choice: ProfileChoice) -> Profile {
        match choice {
            ProfileChoice::Lan => Profile::LAN,
            ProfileChoice::Cloud => Profile::CLOUD,
        }
    }
}

impl CellConfig {
    /// Whether there is a cell: anything of it was told.
    pub fn is_told(&self) -> bool {
        *self != CellConfig::default()
    }

    /// Times between nodes.
    pub fn timing(&self) -> Profile {
        self.profile.unwrap_or_default().into()
    }

    /// Copies without which nothing is granted.
    pub fn copies(&self) -> u16 {
        self.min_copies.unwrap_or(1)
    }

    /// Whether a node may be told so, with these addresses for clients.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key and what to do.
    pub(super) fn check(
        &self,
        listen: &[SocketAddr],
        has_register: bool,
        insecure: bool,
    ) -> Result<(), ConfigError> {
        if !self.is_told() && !has_register {
            return Ok(());
        }
        let (Some(name), Some(node), true, Some(peer_listen)) =
            (&self.name, &self.node, has_register, self.peer_listen)
        else {
            return Err(ConfigError::Partial { missing: self.missing(has_register) });
        };
        for (key, text) in [("cell.name", name), ("cell.node", node)] {
            if NodeId::new(text).is_err() {
                return Err(ConfigError::value(key, "a name here is 1 to 64 of a-z 0-9 . _ -"));
            }
        }
        if !(1..=COPIES_MAX).contains(&self.copies()) {
            return Err(ConfigError::value("cell.min_copies", "1 to 8 copies are possible"));
        }
        self.check_addresses(peer_listen, listen)?;
        if !insecure && self.peer_secret.is_none() && !peer_listen.ip().is_loopback() {
            return Err(ConfigError::ExposedPeer { address: peer_listen });
        }
        Ok(())
    }

    fn missing(&self, has_register: bool) -> Vec<&'static str> {
        let needed = [
            ("--cell (`cell.name`)", self.name.is_none()),
            ("--node (`cell.node`)", self.node.is_none()),
            ("--register (`register.url`)", !has_register),
            ("--peer-listen (`cell.peer_listen`)", self.peer_listen.is_none()),
        ];
        needed.into_iter().filter_map(|(told, is_missing)| is_missing.then_some(told)).collect()
    }

    fn check_addresses(&self, peer_listen: SocketAddr, listen: &[SocketAddr]) -> Result<(), ConfigError> {
        let nowhere = |key, message| Err(ConfigError::value(key, message));
        match &self.peer_address {
            Some(address) if address.len() > PEER_BYTES_MAX || !is_address(address) => {
                return nowhere(
                    "cell.peer_address",
                    "other nodes dial `host:port`, with a port from 1 to 65535",
                );
            }
            None if peer_listen.ip().is_unspecified() => {
                return nowhere(
                    "cell.peer_address",
                    "`cell.peer_listen` is every address of this host; say which `host:port` the other nodes dial",
                );
            }
            _ => {}
        }
        match &self.client_address {
            Some(list)
                if self.clients(&[]).len() > CLIENTS_BYTES_MAX || !list.split(',').all(is_endpoint) =>
            {
                nowhere(
                    "cell.client_address",
                    "clients dial `host:port` or `tcp://host:port`, several separated by commas",
                )
            }
            None if listen.iter().any(|address| address.ip().is_unspecified()) => nowhere(
                "cell.client_address",
                "`listen` has every address of this host; say which `host:port` clients dial",
            ),
            _ => Ok(()),
        }
    }

    /// What other nodes dial, once it is known where this one listens for them.
    pub(crate) fn peer(&self, bound: SocketAddr) -> String {
        self.peer_address.clone().unwrap_or_else(|| bound.to_string())
    }

    /// Endpoints that clients dial, once it is known where this node listens for them; empty when it has no TCP.
    pub(crate) fn clients(&self, bound: &[SocketAddr]) -> String {
        let endpoint = |address: &str| format!("{TCP}{}", address.strip_prefix(TCP).unwrap_or(address));
        let endpoints: Vec<String> = match &self.client_address {
            Some(list) => list.split(',').map(endpoint).collect(),
            None => bound.iter().map(|address| endpoint(&address.to_string())).collect(),
        };
        endpoints.join(",")
    }

    pub(super) fn describe(&self, page: &mut Page) {
        page.line("\n# The cell this node shares its locks with; without it the server runs alone.");
        page.line(if self.is_told() { "[cell]" } else { "# [cell]" });
        let text = |value: &Option<String>| value.as_ref().map(quoted);
        page.optional(
            "name",
            "name of the cell, the same on all its nodes",
            "no cell",
            text(&self.name),
            "\"prod\"",
        );
        page.optional("node", "name of this node, different on each", "no cell", text(&self.node), "\"a\"");
        let (listen, meaning) =
            (self.peer_listen.map(quoted), "address for the other nodes, \"address:port\"");
        page.optional("peer_listen", meaning, "no cell", listen, "\"10.0.0.1:7413\"");
        let meaning = "what the other nodes dial, \"host:port\"";
        page.optional("peer_address", meaning, "peer_listen", text(&self.peer_address), "\"a.example:7413\"");
        let meaning = "what clients dial, \"host:port\", several separated by commas";
        page.optional("client_address", meaning, "listen", text(&self.client_address), "\"a.example:7411\"");
        let profile = self.profile.map(|profile| quoted(profile.name()));
        let meaning =
            "how long silence may last: \"lan\" (50ms; one rack) or \"cloud\" (500ms; virtual machines)";
        page.optional("profile", meaning, "\"cloud\"", profile, "\"lan\"");
        page.optional(
            "min_copies",
            "copies without which nothing is granted, 1 to 8",
            "1",
            self.min_copies,
            "2",
        );
        let path = self.peer_secret.as_ref().map(|path| quoted(path.display()));
        let meaning =
            "file with the secret that all nodes of the cell know, 16 bytes or more, not for others to read";
        page.optional("peer_secret", meaning, "none", path, "\"/etc/fairlock/cell.secret\"");
    }
}

/// Whether a text can stand in a line of the register.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether this is `host:port`, with a port that can be dialled.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    // An address of IPv6 without brackets would lose its last part to the port.
    let is_host = !host.is_empty() && (!host.contains(':') || text.parse::<SocketAddr>().is_ok());
    is_plain(text) && !text.contains(',') && is_host && is_port
}

fn is_endpoint(text: &str) -> bool {
    is_address(text.strip_prefix(TCP).unwrap_or(text))
}

#[cfg(test)]
mod tests;

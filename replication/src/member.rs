//! Who is in a configuration: a node by its name, and by the incarnation of its process.
//!
//! A process restarts without memory, so a name alone says nothing: what was acknowledged by one incarnation is not
//! known to the next. Everything that counts a member counts (name, incarnation).

use core::fmt;
use core::num::NonZeroU64;

use alloc::borrow::ToOwned;
use alloc::string::String;

/// Longest name of a node, in bytes.
pub const NODE_BYTES_MAX: usize = 64;
/// Longest machine id, in hexadecimal digits; systemd's has 32.
pub const MACHINE_BYTES_MAX: usize = 64;
/// Longest address for other nodes, in bytes: a host name has at most 253, and a port follows.
pub const PEER_BYTES_MAX: usize = 260;
/// Longest list of endpoints for clients, in bytes.
pub const CLIENTS_BYTES_MAX: usize = 1024;

/// Name of a node in its cell: 1 to 64 of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// The node of this name.
    ///
    /// # Errors
    /// [`BadNode`].
    pub fn new(name: &str) -> Result<NodeId, BadNode> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let good = (1..=NODE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        if good { Ok(NodeId(name.to_owned())) } else { Err(BadNode) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot name a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNode;

impl fmt::Display for BadNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node is named with 1 to 64 of a-z 0-9 . _ -")
    }
}

impl core::error::Error for BadNode {}

/// One process of a node: random at its start, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(NonZeroU64);

impl Incarnation {
    /// The incarnation with this number; `None` for 0.
    pub const fn new(number: u64) -> Option<Incarnation> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Incarnation(number)),
            None => None,
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Incarnation {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub node: NodeId,
    /// Id of the machine it runs on: 1 to 64 hexadecimal digits, in lower case.
    pub machine: String,
    /// The process that was listed.
    pub incarnation: Incarnation,
    /// Where other nodes reach it: `host:port`.
    pub peer: String,
    /// Where clients reach it: `tcp://host:port`, several separated by commas; may be empty.
    pub clients: String,
}

impl Member {
    /// What is wrong with it, if anything is: whoever takes a member from outside asks first.
    pub fn fault(&self) -> Option<&'static str> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if !(1..=MACHINE_BYTES_MAX).contains(&self.machine.len()) || !self.machine.bytes().all(hex) {
            return Some("a machine id is 1 to 64 hexadecimal digits");
        }
        // A blank would end the value where it stands in a line.
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.peer.len() > PEER_BYTES_MAX || !plain(&self.peer) || !has_port(&self.peer) {
            return Some("a peer address is `host:port`");
        }
        if self.clients.len() > CLIENTS_BYTES_MAX || !plain(&self.clients) {
            return Some("client endpoints are at most 1024 printable characters without blanks");
        }
        None
    }
}

/// Whether the text ends in a port, behind something.
fn has_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

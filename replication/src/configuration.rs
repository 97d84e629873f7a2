//! What a cell's nodes agree on: who is in it, who is primary, in which epoch, and what must survive all of them. It
//! lives in the register, and each change of it is one compare-and-swap.
//!
//! Its text (`text.rs`) is what `etcdctl get` shows: one line a field, one line a member, a checksum last. Keys are in it
//! because every node needs them; whoever may read the register could take over the cell anyhow. They stay out of logs.

use core::fmt::{self, Write};
use core::time::Duration;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use fairlock_protocol::limits::TTL_MAX;
use fairlock_protocol::{CellId, DigestKey, Epoch};

use crate::member::{Incarnation, Member, NodeId};
use crate::text::{Fields, Format, NotARecord};

/// The format this library writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Longest text that is looked at, in bytes: sixteen members of the longest kind have 24 000.
pub const CONFIGURATION_BYTES_MAX: usize = 32 * 1024;
/// Most members of a configuration: each write waits for all of them, so more than a few are a mistake.
pub const MEMBERS_MAX: usize = 16;
/// Most shards: a session id has eight bits for its home.
pub const SHARDS_MAX: u16 = 256;
/// How every text begins, before the number of its format.
const OPENING: &str = "fairlock-configuration ";
/// The kind of text it is.
const TEXT: Format = Format {
    opening: OPENING,
    not_opened: "it does not begin with `fairlock-configuration` and a format number",
    newest: FORMAT,
    bytes_max: CONFIGURATION_BYTES_MAX,
};

pub use fairlock_protocol::MacKey;

/// One agreed state of a cell.
#[derive(Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The cell; never 0.
    pub cell: CellId,
    /// Rises with every change of members or primary.
    pub epoch: Epoch,
    /// Who alone appends; one of `members`.
    pub primary: NodeId,
    /// Everybody whose acknowledgement counts: sorted by name, each name once.
    pub members: Vec<Member>,
    /// The epoch in which the present primary took office; at most `epoch`.
    pub reign: Epoch,
    /// Which operations may be appended.
    pub feature_level: u16,
    /// Number of shards of every node.
    pub shards: u16,
    /// Key of the cell's digests.
    pub digest_key: DigestKey,
    /// Key of the cell's proofs.
    pub mac_key: MacKey,
    /// The longest lease that may be alive; whole milliseconds.
    pub ttl_horizon: Duration,
    /// The cell ended and left no lease alive.
    pub clean: bool,
    /// The present reign began without the state of the one before.
    pub state_lost: bool,
}

/// What a configuration cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconsistent(pub &'static str);

impl fmt::Display for Inconsistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Inconsistent {}

impl fmt::Debug for Configuration {
    /// All but the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration")
            .field("cell", &self.cell)
            .field("epoch", &self.epoch.get())
            .field("primary", &self.primary)
            .field("members", &self.members)
            .field("reign", &self.reign.get())
            .field("feature_level", &self.feature_level)
            .field("shards", &self.shards)
            .field("ttl_horizon", &self.ttl_horizon)
            .field("clean", &self.clean)
            .field("state_lost", &self.state_lost)
            .finish_non_exhaustive()
    }
}

impl Configuration {
    /// The member of this name.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == *node)
    }

    /// The member that is primary.
    ///
    /// # Panics
    /// When the primary is no member: such a configuration was never checked.
    pub fn primary_member(&self) -> &Member {
        self.member(&self.primary).expect("the primary is a member of a checked configuration")
    }

    /// Whether it can be one at all.
    ///
    /// # Errors
    /// [`Inconsistent`].
    pub fn check(&self) -> Result<(), Inconsistent> {
        let ordered = self.members.is_sorted_by(|one, next| one.node < next.node);
        let rules = [
            (self.cell != CellId(0), "`cell` is zero"),
            (self.members.len() <= MEMBERS_MAX, "more than 16 members"),
            (ordered, "members are not sorted by name, or one is there twice"),
            (self.member(&self.primary).is_some(), "the primary is no member"),
            (self.reign <= self.epoch, "`reign` is later than `epoch`"),
            ((1..=SHARDS_MAX).contains(&self.shards), "`shards` is not 1 to 256"),
            (self.ttl_horizon <= TTL_MAX, "`ttl_horizon_ms` is not the length of a lease"),
            (
                self.ttl_horizon.subsec_nanos().is_multiple_of(1_000_000),
                "`ttl_horizon` is not whole milliseconds",
            ),
        ];
        let broken = rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule));
        match broken.or_else(|| self.members.iter().find_map(Member::fault)) {
            Some(rule) => Err(Inconsistent(rule)),
            None => Ok(()),
        }
    }

    /// The text to store.
    ///
    /// # Panics
    /// When it does not pass [`Configuration::check`]: whoever makes one knows the rules.
    pub fn to_text(&self) -> String {
        assert_eq!(self.check(), Ok(()), "only a consistent configuration is stored");
        let mut text = String::with_capacity(1024);
        self.write(&mut text).expect("a string takes whatever is written to it");
        TEXT.seal(text)
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let DigestKey([digest_low, digest_high]) = self.digest_key;
        let mac_key = u128::from_be_bytes(self.mac_key.0);
        writeln!(text, "{OPENING}{FORMAT}\ncell={}\nepoch={}", self.cell, self.epoch.get())?;
        writeln!(text, "primary={}\nreign={}", self.primary, self.reign.get())?;
        writeln!(text, "feature_level={}\nshards={}", self.feature_level, self.shards)?;
        writeln!(text, "digest_key={digest_low:016x}{digest_high:016x}\nmac_key={mac_key:032x}")?;
        writeln!(text, "ttl_horizon_ms={}", self.ttl_horizon.as_millis())?;
        writeln!(text, "clean={}\nstate_lost={}", self.clean, self.state_lost)?;
        self.members.iter().try_for_each(|member| {
            let Member { node, machine, incarnation, peer, clients } = member;
            writeln!(
                text,
                "member={node} machine={machine} incarnation={incarnation} peer={peer} clients={clients}"
            )
        })
    }

    /// The configuration in these bytes.
    ///
    /// # Errors
    /// [`NotARecord`]; a newer format is recognised by the first line alone.
    pub fn from_text(bytes: &[u8]) -> Result<Configuration, NotARecord> {
        let mut fields = TEXT.open(bytes)?;
        // Fields are evaluated as they stand here, which is the order of the lines.
        let read = Configuration {
            cell: CellId(hex128(fields.next("cell=", "cell")?, "`cell` is not a cell id")?),
            epoch: epoch(fields.next("epoch=", "epoch")?, "`epoch` is not an epoch")?,
            primary: node(fields.next("primary=", "primary")?, "`primary` is not a node")?,
            reign: epoch(fields.next("reign=", "reign")?, "`reign` is not an epoch")?,
            feature_level: plain(fields.next("feature_level=", "feature_level")?, "feature_level")?,
            shards: plain(fields.next("shards=", "shards")?, "shards")?,
            digest_key: digest_key(fields.next("digest_key=", "digest_key")?)?,
            mac_key: mac_key(fields.next("mac_key=", "mac_key")?)?,
            ttl_horizon: plain(fields.next("ttl_horizon_ms=", "ttl_horizon_ms")?, "ttl_horizon_ms")
                .map(Duration::from_millis)?,
            clean: plain(fields.next("clean=", "clean")?, "clean")?,
            state_lost: plain(fields.next("state_lost=", "state_lost")?, "state_lost")?,
            members: members(&mut fields)?,
        };
        fields.check()?;
        read.check().map_err(|Inconsistent(rule)| NotARecord::Corrupt(rule))?;
        Ok(read)
    }
}

/// All lines of members.
fn members(fields: &mut Fields<'_>) -> Result<Vec<Member>, NotARecord> {
    let mut members = Vec::new();
    while let Some(line) = fields.next_if("member=") {
        if members.len() == MEMBERS_MAX {
            return Err(NotARecord::Corrupt("more than 16 members"));
        }
        members.push(member(line).ok_or(NotARecord::Corrupt("`member` does not say who and where"))?);
    }
    Ok(members)
}

/// One member from its line.
fn member(line: &str) -> Option<Member> {
    let (name, line) = line.split_once(" machine=")?;
    let (machine, line) = line.split_once(" incarnation=")?;
    let (incarnation, line) = line.split_once(" peer=")?;
    let (peer, clients) = line.split_once(" clients=")?;
    let incarnation =
        (incarnation.len() == 16).then(|| u64::from_str_radix(incarnation, 16).ok()).flatten()?;
    Some(Member {
        node: NodeId::new(name).ok()?,
        machine: machine.to_owned(),
        incarnation: Incarnation::new(incarnation)?,
        peer: peer.to_owned(),
        clients: clients.to_owned(),
    })
}

fn node(text: &str, fault: &'static str) -> Result<NodeId, NotARecord> {
    NodeId::new(text).map_err(|_| NotARecord::Corrupt(fault))
}

fn epoch(text: &str, fault: &'static str) -> Result<Epoch, NotARecord> {
    text.parse().ok().and_then(Epoch::new).ok_or(NotARecord::Corrupt(fault))
}

fn hex128(text: &str, fault: &'static str) -> Result<u128, NotARecord> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
    number.ok_or(NotARecord::Corrupt(fault))
}

fn digest_key(text: &str) -> Result<DigestKey, NotARecord> {
    let both = hex128(text, "`digest_key` is not a key")?;
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    Ok(DigestKey([(both >> 64) as u64, both as u64]))
}

fn mac_key(text: &str) -> Result<MacKey, NotARecord> {
    hex128(text, "`mac_key` is not a key").map(|key| MacKey(key.to_be_bytes()))
}

/// A number or a truth value, whichever the field is.
fn plain<T: core::str::FromStr>(text: &str, fault: &'static str) -> Result<T, NotARecord> {
    text.parse().map_err(|_| NotARecord::Corrupt(fault))
}

#[cfg(test)]
pub(crate) mod tests;

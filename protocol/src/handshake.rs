//! The first words on a connection: HELLO and WELCOME. They fix the protocol version, the features both know, the
//! shard the connection speaks to, and who the cell is; only then anything else may be said.
//!
//! The place of credentials (`auth`) is kept in the HELLO, so that adding them changes no layout.

use crate::digest::DigestKey;
use crate::ids::{CellId, RequestId, ShardId};
use crate::limits::AUTH_BYTES_MAX;
use crate::refusal::Refusal;
use crate::wire::{Malformed, Reader, Writer};
use alloc::vec::Vec;

/// What every HELLO begins with: a connection that starts otherwise is not a client of ours.
pub const MAGIC: [u8; 8] = *b"FAIRLOCK";
/// The protocol version of this library, and the only one it speaks.
pub const VERSION: u16 = 1;
/// Kind number of a HELLO.
pub const HELLO: u8 = 0x01;
/// Kind number of a WELCOME.
pub const WELCOME: u8 = 0x81;

/// Feature bit: the server can name the waiting requests of a queue page by page (`SHOW`).
pub const FEATURE_ADMIN: u64 = 1;
/// Feature bit: the connection may go on through shared memory. Only on a Unix socket; see SEGMENT.
pub const FEATURE_SHM: u64 = 2;
/// Feature bit: the connection stands by for a session that lives at another node, and may say its first frame at any
/// time. A server that does not return it expects that frame as soon as of everybody.
pub const FEATURE_STANDBY: u64 = 4;

/// Feature bit: grants come with a proof, to be shown to a server that has lost its memory (REASSERT).
pub const FEATURE_PROOF: u64 = 8;

/// A client introduces its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Oldest protocol version the client speaks.
    pub version_min: u16,
    /// Newest protocol version the client speaks.
    pub version_max: u16,
    /// The shard this connection wants to speak to; [`ShardId::ANY`] for the nearest.
    pub shard: ShardId,
    /// Feature bits the client knows.
    pub features: u64,
    /// The cell the client expects; 0 for any.
    pub cell: CellId,
    /// Highest epoch the client has seen of that cell; 0 for none.
    pub epoch: u32,
    /// Credential; empty for none.
    pub auth: &'a [u8],
}

impl Hello<'_> {
    /// A HELLO of this library for one shard, expecting nothing.
    pub const fn to(shard: ShardId) -> Hello<'static> {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            shard,
            features: FEATURE_ADMIN,
            cell: CellId(0),
            epoch: 0,
            auth: &[],
        }
    }
}

impl<'a> Hello<'a> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        assert!(self.auth.len() <= AUTH_BYTES_MAX, "a credential is checked where it is read");
        let auth_length = u16::try_from(self.auth.len()).expect("checked against 4 KiB");
        let mut w = Writer::begin(out, HELLO, 0, 0, RequestId::NOTICE);
        w.bytes(&MAGIC).u16(self.version_min).u16(self.version_max).u16(self.shard.0).u16(auth_length);
        w.u64(self.features).u128(self.cell.0).u32(self.epoch).bytes(self.auth);
        w.finish();
    }

    pub(crate) fn read(mut r: Reader<'a>) -> Result<Hello<'a>, Malformed> {
        if r.bytes(MAGIC.len(), "magic")? != MAGIC {
            return Err(Malformed::Illegal("magic"));
        }
        let (version_min, version_max) = (r.u16("version_min")?, r.u16("version_max")?);
        let shard = ShardId(r.u16("shard")?);
        let auth_length = usize::from(r.u16("auth_length")?);
        let (features, cell, epoch) = (r.u64("features")?, r.u128("cell")?, r.u32("epoch")?);
        if auth_length > AUTH_BYTES_MAX {
            return Err(Malformed::Refused(Refusal::TooLong));
        }
        let auth = r.bytes(auth_length, "auth")?;
        r.end()?;
        Ok(Hello { version_min, version_max, shard, features, cell: CellId(cell), epoch, auth })
    }

    /// The version to speak, when the client knows it.
    ///
    /// # Errors
    /// [`Refusal::Version`] when there is none in common.
    pub fn agree(&self) -> Result<u16, Refusal> {
        if self.version_min <= VERSION && VERSION <= self.version_max {
            Ok(VERSION)
        } else {
            Err(Refusal::Version)
        }
    }
}

/// What a server is to its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// A single node that answers to nobody.
    Standalone = 0,
    /// The node that decides.
    Primary = 1,
    /// A node that follows.
    Backup = 2,
}

impl Role {
    /// The role with this wire number.
    pub const fn from_wire(number: u8) -> Option<Role> {
        match number {
            0 => Some(Role::Standalone),
            1 => Some(Role::Primary),
            2 => Some(Role::Backup),
            _ => None,
        }
    }

    /// The word the ready line and `status` print.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Standalone => "standalone",
            Role::Primary => "primary",
            Role::Backup => "backup",
        }
    }
}

/// A server accepts a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version from here on.
    pub version: u16,
    /// The shard at the other end.
    pub shard: ShardId,
    /// How many shards there are: names belong to them by digest.
    pub shards: u16,
    /// What the node is.
    pub role: Role,
    /// Feature bits both may use.
    pub features: u64,
    /// Which cell this is.
    pub cell: CellId,
    /// Its epoch.
    pub epoch: u32,
    /// Longest lease it grants, in milliseconds.
    pub ttl_max_ms: u32,
    /// What is left of a quarantine, in milliseconds.
    pub recovering_ms: u32,
    /// Key of the digests that choose a shard.
    pub digest_key: DigestKey,
}

impl Welcome {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut w = Writer::begin(out, WELCOME, 0, 0, RequestId::NOTICE);
        w.u16(self.version).u16(self.shard.0).u16(self.shards).u8(self.role as u8).u8(0);
        w.u64(self.features).u128(self.cell.0);
        w.u32(self.epoch).u32(self.ttl_max_ms).u32(self.recovering_ms).u32(0);
        w.u64(self.digest_key.0[0]).u64(self.digest_key.0[1]);
        w.finish();
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Welcome, Malformed> {
        let (version, shard, shards) = (r.u16("version")?, ShardId(r.u16("shard")?), r.u16("shards")?);
        let role = Role::from_wire(r.u8("role")?).ok_or(Malformed::Illegal("role"))?;
        r.u8("reserved")?;
        let (features, cell) = (r.u64("features")?, CellId(r.u128("cell")?));
        let (epoch, ttl_max_ms) = (r.u32("epoch")?, r.u32("ttl_max_ms")?);
        let recovering_ms = r.u32("recovering_ms")?;
        r.u32("reserved")?;
        let digest_key = DigestKey([r.u64("digest_key")?, r.u64("digest_key")?]);
        r.end()?;
        if shards == 0 {
            return Err(Malformed::Illegal("shards"));
        }
        Ok(Welcome {
            version,
            shard,
            shards,
            role,
            features,
            cell,
            epoch,
            ttl_max_ms,
            recovering_ms,
            digest_key,
        })
    }
}

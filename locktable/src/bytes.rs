//! Fields appended to bytes: what the operations and the snapshots of a table are written with. They are read with the
//! [`Reader`](fairlock_protocol::wire::Reader) that frames are read with.

use crate::command::SessionKey;
use crate::list::{Ends, Link};
use alloc::vec::Vec;
use fairlock_protocol::Digest;

/// Appends fields, little-endian.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn length(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).expect("names and texts are checked at the door"))
    }

    /// Bytes behind their length.
    pub(crate) fn text(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes).bytes(bytes)
    }

    pub(crate) fn session(&mut self, key: SessionKey) -> &mut Self {
        self.u32(key.slot).u32(key.generation)
    }

    pub(crate) fn digest(&mut self, digest: Digest) -> &mut Self {
        self.u64(digest.0[0]).u64(digest.0[1])
    }

    pub(crate) fn ends(&mut self, ends: Ends) -> &mut Self {
        self.u32(ends.head).u32(ends.tail)
    }

    pub(crate) fn link(&mut self, link: Link) -> &mut Self {
        self.u32(link.prev).u32(link.next)
    }
}

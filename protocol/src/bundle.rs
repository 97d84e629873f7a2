//! Several locks in one request, all or none: the items of an ACQUIRE_ALL.
//!
//! It is answered with one GRANTED for each item, in the order of the items and all at once, or with one REFUSED. The
//! items stand in canonical order (namespace, then name, as bytes), so that two such requests never wait for each other.

use crate::limits::{ACQUIRE_ALL_MAX, FRAME_BYTES_MAX, LABEL_BYTES_MAX};
use crate::mode::Mode;
use crate::name::Resource;
use crate::refusal::Refusal;
use crate::wire::{Malformed, Reader, Writer};

/// Bytes that all items of one request may take, so that it fits a frame with its other fields and its label.
const ITEMS_BYTES_MAX: usize = FRAME_BYTES_MAX - LABEL_BYTES_MAX - 64;

/// The items of one request, in canonical order and without a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Items<'a> {
    /// Checks the items of a body: at least one, at most 256, each well-formed, strictly rising.
    pub(crate) fn read(count: u16, mut r: Reader<'a>) -> Result<Items<'a>, Malformed> {
        if count == 0 || usize::from(count) > ACQUIRE_ALL_MAX {
            return Err(Malformed::Illegal("item_count"));
        }
        let bytes = r.rest;
        let mut before: Option<Resource<'a>> = None;
        for _ in 0..count {
            let (resource, _) = read_item(&mut r)?;
            if before.is_some_and(|before| before >= resource) {
                return Err(Malformed::Illegal("items: not in canonical order"));
            }
            before = Some(resource);
        }
        r.end()?;
        Ok(Items { count, bytes })
    }

    /// How many there are.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// What is asked for, and in which mode; all were checked when the request was decoded.
    pub fn iter(&self) -> impl Iterator<Item = (Resource<'a>, Mode)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| read_item(&mut reader).ok())
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self.bytes);
    }
}

/// Collects items; the buffer is the caller's.
#[derive(Debug, Default)]
pub struct ItemsBuffer {
    bytes: alloc::vec::Vec<u8>,
    count: u16,
}

impl ItemsBuffer {
    /// Puts the items into canonical order.
    ///
    /// # Errors
    /// [`Malformed::Illegal`] when there is none, when there are more than 256, or when one is named twice;
    /// [`Refusal::TooLong`] when their names do not fit one frame.
    ///
    /// # Panics
    /// Never: a [`Resource`] is within its limits.
    pub fn new(mut items: alloc::vec::Vec<(Resource<'_>, Mode)>) -> Result<ItemsBuffer, Malformed> {
        items.sort_by_key(|&(resource, _)| resource);
        if items.is_empty() || items.len() > ACQUIRE_ALL_MAX {
            return Err(Malformed::Illegal("item_count"));
        }
        if items.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Malformed::Illegal("items: one is named twice"));
        }
        let mut buffer = ItemsBuffer::default();
        for (resource, mode) in items {
            let namespace = resource.namespace.as_str().as_bytes();
            let name = resource.name.as_bytes();
            let name_length = u16::try_from(name.len()).expect("a name has at most 1024 bytes");
            buffer.bytes.push(mode.wire());
            buffer.bytes.push(u8::try_from(namespace.len()).expect("a namespace has at most 64 bytes"));
            buffer.bytes.extend_from_slice(&name_length.to_le_bytes());
            buffer.bytes.extend_from_slice(namespace);
            buffer.bytes.extend_from_slice(name);
            buffer.count += 1;
        }
        if buffer.bytes.len() > ITEMS_BYTES_MAX {
            return Err(Malformed::Refused(Refusal::TooLong));
        }
        Ok(buffer)
    }

    /// The items, to be put into a request.
    pub fn items(&self) -> Items<'_> {
        Items { count: self.count, bytes: &self.bytes }
    }
}

/// Where the number of items stands in the body: behind owner and wait.
const COUNT_AT: usize = 12;

/// How many locks the body of an ACQUIRE_ALL asks for, as it says itself, before it is decoded; at least 1.
pub fn locks_asked(body: &[u8]) -> usize {
    let count = body.get(COUNT_AT..).and_then(|rest| rest.first_chunk());
    count.map_or(1, |&count| usize::from(u16::from_le_bytes(count))).clamp(1, ACQUIRE_ALL_MAX)
}

/// mode u8 · namespace length u8 · name length u16 · namespace · name. The namespace is always written out.
fn read_item<'a>(r: &mut Reader<'a>) -> Result<(Resource<'a>, Mode), Malformed> {
    let mode = Mode::from_wire(r.u8("mode")?).ok_or(Malformed::Illegal("mode"))?;
    let (namespace_length, name_length) = (r.u8("namespace_length")?, r.u16("name_length")?);
    let namespace = r.bytes(usize::from(namespace_length), "namespace")?;
    let name = r.bytes(usize::from(name_length), "name")?;
    Ok((Resource::new(namespace, name)?, mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn resource(name: &str) -> Resource<'_> {
        Resource::new(b"", name.as_bytes()).unwrap()
    }

    #[test]
    fn items_are_sorted_and_read_back() {
        let buffer = ItemsBuffer::new(vec![(resource("b"), Mode::EX), (resource("a"), Mode::PR)]).unwrap();
        let items = Items::read(2, Reader::new(buffer.items().bytes)).unwrap();
        assert!(items.iter().eq([(resource("a"), Mode::PR), (resource("b"), Mode::EX)]));
    }

    #[test]
    fn the_number_of_locks_is_known_before_decoding() {
        let buffer = ItemsBuffer::new(vec![(resource("b"), Mode::EX), (resource("a"), Mode::PR)]).unwrap();
        let (wait, owner) = (crate::Wait::Forever, crate::OwnerId(7));
        let all = crate::request::AcquireAll { wait, owner, items: buffer.items(), label: b"label" };
        let mut bytes = vec![];
        crate::Request::AcquireAll(all).encode(crate::RequestId(1), 0, &mut bytes);
        let (frame, _) = crate::Frame::split(&bytes).unwrap().unwrap();
        assert_eq!(locks_asked(frame.body), 2);
        assert_eq!((locks_asked(&[0; 13]), locks_asked(&[0xFF; 14])), (1, 256));
    }

    #[test]
    fn repetitions_disorder_and_empty_lists_are_refused() {
        assert!(ItemsBuffer::new(vec![]).is_err());
        assert!(ItemsBuffer::new(vec![(resource("a"), Mode::EX); 2]).is_err());
        let one = |name| ItemsBuffer::new(vec![(resource(name), Mode::EX)]).unwrap().bytes;
        let swapped = [one("b"), one("a")].concat();
        assert!(Items::read(2, Reader::new(&swapped)).is_err());
        assert!(Items::read(0, Reader::new(&[])).is_err());
        assert!(Items::read(257, Reader::new(&swapped)).is_err());
    }
}

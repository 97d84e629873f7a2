//! A request for several locks as bytes, what it asks for one by one.

use super::answers::read_mode;
use super::pieces::Pieces;
use super::restore::read_text;
use super::{BadSnapshot, sound, tag};
use crate::bundle::{Bundle, Gathered};
use crate::chunks::NONE;
use crate::command::Item;
use crate::slab::Record;
use alloc::vec::Vec;
use fairlock_protocol::limits::{ACQUIRE_ALL_MAX, LABEL_BYTES_MAX, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX};
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{Digest, OwnerId, RequestId, Resource, Tick};

pub(super) fn write(bundle: &Bundle, out: &mut Pieces) {
    let count = u16::try_from(bundle.wanted.len()).expect("at most 256");
    let mut w = out.record(tag::BUNDLE);
    w.u64(bundle.number).u32(bundle.session).u64(bundle.request.0).u64(bundle.owner.0).u64(bundle.since.0);
    w.u8(u8::from(bundle.until.is_some())).u64(bundle.until.map_or(0, |until| until.0));
    w.u16(count).text(&bundle.label);
    for at in 0..bundle.wanted.len() {
        let Item { digest, resource, mode } = bundle.wanted.item(at);
        let mut w = out.record(tag::ITEM);
        w.digest(digest).u8(mode.wire()).u32(bundle.taken.get(at).copied().unwrap_or(NONE));
        w.text(resource.namespace.as_str().as_bytes()).text(resource.name.as_bytes());
    }
}

/// A bundle whose items are still to come.
#[derive(Debug)]
pub(super) struct Incomplete {
    bundle: Bundle,
    gathered: Gathered,
    left: u16,
    pub(super) slot: u32,
}

impl Incomplete {
    pub(super) fn read(slot: u32, r: &mut Reader<'_>) -> Result<Incomplete, BadSnapshot> {
        let mut bundle = Bundle::vacant(NONE);
        bundle.number = r.u64("number")?;
        bundle.session = r.u32("session")?;
        (bundle.request, bundle.owner) = (RequestId(r.u64("request")?), OwnerId(r.u64("owner")?));
        bundle.since = Tick(r.u64("since")?);
        let (limited, until) = (r.u8("limited")?, Tick(r.u64("until")?));
        bundle.until = (limited != 0).then_some(until);
        let left = r.u16("item_count")?;
        bundle.label = read_text(r, LABEL_BYTES_MAX)?.into();
        let count = usize::from(left);
        sound(bundle.number > 0 && (1..=ACQUIRE_ALL_MAX).contains(&count), "a bundle is none")?;
        bundle.taken = Vec::with_capacity(count);
        Ok(Incomplete { bundle, gathered: Gathered::default(), left, slot })
    }

    /// Takes one item in. Those that are taken come before those that are not.
    pub(super) fn item(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let digest = Digest([r.u64("digest")?, r.u64("digest")?]);
        let (mode, grant) = (read_mode(r)?, r.u32("grant")?);
        let namespace = read_text(r, NAMESPACE_BYTES_MAX)?;
        let resource = Resource::new(namespace, read_text(r, NAME_BYTES_MAX)?)?;
        self.gathered.push(&Item { digest, resource, mode });
        if grant != NONE {
            sound(self.bundle.taken.len() + 1 == self.gathered.len(), "a bundle takes in order")?;
            self.bundle.taken.push(grant);
        }
        self.left -= 1;
        Ok(())
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.left == 0
    }

    pub(super) fn done(self) -> Bundle {
        let mut bundle = self.bundle;
        (bundle.wanted, bundle.concealed) = (self.gathered.done(), bundle.taken.len());
        bundle
    }
}

//! A segment as two mappings of it see it.

use super::*;
use crate::ring::{Receiver, Sender};

#[test]
fn what_one_side_writes_the_other_reads() {
    let (server, file) = Segment::create().unwrap();
    let client = Segment::open(&file).unwrap();
    let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
    assert_eq!(sender.send(client.requests(), b"ACQUIRE"), Ok(7));
    assert_eq!(receiver.receive(server.requests()).unwrap().unwrap().bytes(), b"ACQUIRE");
    assert!(client.attention().must_ring(), "a server listens when it says so");
    server.attention().listen();
    assert!(!client.attention().must_ring());
    assert!(!client.status().has_ended());
    server.status().end();
    assert!(client.status().has_ended());
    server.status().stop_renewing(5);
    server.status().stop_renewing(9);
    assert_eq!(client.status().renewed_until(), Some(5), "the first moment stays");
    client.set_leaving(Leaving::Barrier);
    assert_eq!(server.leaving(), Leaving::Barrier);
    assert!(client.word(4095).is_some() && client.word(4096).is_none());
}

#[test]
fn a_file_that_may_shrink_or_has_another_size_is_refused() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, Segment::BYTES as u64).unwrap();
    assert!(matches!(Segment::open(&file), Err(Unfit::Map(_))), "not sealed");
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    assert!(matches!(Segment::open(&file), Err(Unfit::Layout)), "nobody wrote a preface");
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, 4096).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    assert!(matches!(Segment::open(&file), Err(Unfit::Map(_))), "too small");
}

/// docs/wire-format.md §12 has these numbers, for clients in other languages.
#[test]
fn everything_lies_where_the_documentation_says() {
    use core::mem::offset_of;
    assert_eq!(offset_of!(Layout, status) + offset_of!(Status, ended), 64);
    assert_eq!(offset_of!(Layout, status) + offset_of!(Status, renewed_until), 72);
    assert_eq!(offset_of!(Layout, attention), 128);
    assert_eq!(offset_of!(Layout, parking), 192);
    assert_eq!(offset_of!(Layout, manners), 256);
    assert_eq!((offset_of!(Layout, requests), offset_of!(Layout, replies)), (4096, 24_576));
    assert_eq!(offset_of!(Layout, words), 45_056);
    assert_eq!(size_of::<SegmentRing>(), 64 + 256 * 64);
    assert_eq!(Segment::BYTES, 45_056 + 4096 * 64);
}

#[test]
fn a_client_cannot_change_the_size_or_the_seals() {
    let (_server, file) = Segment::create().unwrap();
    assert!(rustix::fs::ftruncate(&file, 0).is_err());
    assert!(rustix::fs::ftruncate(&file, 1 << 30).is_err());
    assert!(rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).is_err());
}

#[test]
#[expect(unsafe_code, reason = "asking the kernel whether an address is mapped")]
fn a_forked_child_has_no_segment_to_touch() {
    let (segment, _file) = Segment::create().unwrap();
    let address = std::ptr::from_ref(segment.status()).addr() & !4095;
    let is_mapped = || {
        let mut resident = 0_u8;
        // SAFETY: mincore takes an address for a number and writes one byte for one page, to a place that outlives it.
        unsafe { libc::mincore(std::ptr::without_provenance_mut(address), 4096, &raw mut resident) == 0 }
    };
    assert!(is_mapped());
    assert_eq!(crate::fork::tests::exit_code_of_child(|| i32::from(is_mapped())), 0);
}

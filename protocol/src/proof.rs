//! What lets a client show, to a server that has lost its memory, what it held: a proof over the grant that came with it.
//!
//! The proof is SipHash-2-4-128 under a key that never leaves the server and outlives its memory. A client cannot make one
//! and need not look at it: sixteen bytes that it gives back as they came.

use crate::ids::{CellId, FencingToken, SessionId};
use crate::mode::Mode;
use crate::name::Resource;
use core::fmt;
use core::hash::Hasher;
use siphasher::sip128::{Hasher128, SipHasher24};

/// The key that proves what a client says it holds; every node of a cell has it, nobody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey(pub [u8; 16]);

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// Proves that a server gave a session this token for this mode of this resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof(pub u128);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// What a proof is over.
#[derive(Clone, Copy, Debug)]
pub struct Proven<'a> {
    /// The cell.
    pub cell: CellId,
    /// The session that held the grant.
    pub session: SessionId,
    /// What was held.
    pub resource: Resource<'a>,
    /// In which mode.
    pub mode: Mode,
    /// With which token.
    pub token: FencingToken,
}

impl MacKey {
    /// The proof of one grant. Every part but the last has a length of its own, so no two grants read alike.
    pub fn prove(&self, it: &Proven<'_>) -> Proof {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&it.cell.0.to_le_bytes());
        hasher.write(&it.session.get().to_le_bytes());
        hasher.write(&it.token.get().to_le_bytes());
        hasher.write(&[it.mode.wire()]);
        // A namespace has no zero byte.
        hasher.write(it.resource.namespace.as_str().as_bytes());
        hasher.write(&[0]);
        hasher.write(it.resource.name.as_bytes());
        let hash = hasher.finish128();
        Proof(u128::from(hash.h1) | u128::from(hash.h2) << 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec;

    #[test]
    fn a_proof_fits_one_grant_of_one_session_under_one_key() {
        let resource = |name| Resource::new(b"ns", name).unwrap();
        let it = Proven {
            cell: CellId(7),
            session: SessionId::from_raw(9).unwrap(),
            resource: resource(b"x"),
            mode: Mode::EX,
            token: FencingToken::from_raw(11).unwrap(),
        };
        let key = MacKey(*b"sixteen bytes ok");
        let others = vec![
            MacKey(*b"sixteen bytes no").prove(&it),
            key.prove(&Proven { cell: CellId(8), ..it }),
            key.prove(&Proven { session: SessionId::from_raw(8).unwrap(), ..it }),
            key.prove(&Proven { resource: resource(b"y"), ..it }),
            key.prove(&Proven { resource: Resource::new(b"n", b"sx").unwrap(), ..it }),
            key.prove(&Proven { mode: Mode::PW, ..it }),
            key.prove(&Proven { token: FencingToken::from_raw(12).unwrap(), ..it }),
        ];
        assert_eq!(key.prove(&it), key.prove(&it));
        assert!(others.iter().all(|other| *other != key.prove(&it)), "{others:?}");
    }

    #[test]
    fn neither_key_nor_proof_is_printed() {
        let printed = format!("{:?} {:?}", MacKey([0x41; 16]), Proof(0x42));
        assert_eq!(printed, "MacKey(..) Proof(..)");
    }
}

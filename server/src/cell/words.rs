//! The bytes of an introduction (docs/wire-format.md §13). Two openings of fixed length come first, one from each side;
//! then a sentence from each, which carries its length and ends in the proof. Decoding checks every length before it is used
//! and takes nothing that a configuration could not hold.

use fairlock_protocol::wire::{Malformed, Reader};
use fairlock_replication::member::{CLIENTS_BYTES_MAX, MACHINE_BYTES_MAX, NODE_BYTES_MAX, PEER_BYTES_MAX};
use fairlock_replication::{Incarnation, Member, NodeId};

use super::introduction::{Presentation, Purpose, Request};
use super::secret::PROOF_BYTES;

/// What both sides begin with.
const MAGIC: [u8; 8] = *b"FAIRPEER";
/// The version that is spoken here.
pub(super) const VERSION: u16 = 1;
/// Bytes of an opening that every version has.
pub(super) const HEAD_BYTES: usize = 12;
/// Bytes of an opening of this version.
pub(super) const OPENING_BYTES: usize = HEAD_BYTES + NONCE_BYTES;
/// Random bytes of each side: never the same twice, so that nothing said before fits again.
pub(super) const NONCE_BYTES: usize = 32;
/// Longest sentence, without the two bytes of its length.
pub(super) const SENTENCE_BYTES_MAX: usize = 4096;
/// Longest name of a cell, in bytes; the same as of a node.
pub(super) const CELL_BYTES_MAX: usize = NODE_BYTES_MAX;

const _: () = assert!(
    CELL_BYTES_MAX
        + 2 * NODE_BYTES_MAX
        + MACHINE_BYTES_MAX
        + PEER_BYTES_MAX
        + CLIENTS_BYTES_MAX
        + PROOF_BYTES
        + 64
        < SENTENCE_BYTES_MAX,
    "every introduction fits"
);

const FLAG_SECRET: u8 = 1;
const FLAG_BUSY: u8 = 2;

/// The answering node says who it is.
const PRESENT: u8 = 1;
/// The caller's proof is wrong, and nothing follows.
const WRONG_PROOF: u8 = 0;

/// The first words of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// It has a secret.
    pub(super) secret: bool,
    /// It has no time, and ends the stream.
    pub(super) busy: bool,
    /// Its random bytes.
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl Opening {
    /// As it is sent.
    pub(super) fn encode(self) -> [u8; OPENING_BYTES] {
        let mut bytes = [0; OPENING_BYTES];
        let (head, nonce) = bytes.split_at_mut(HEAD_BYTES);
        head[..8].copy_from_slice(&MAGIC);
        head[8..10].copy_from_slice(&VERSION.to_le_bytes());
        head[10] = if self.secret { FLAG_SECRET } else { 0 } | if self.busy { FLAG_BUSY } else { 0 };
        nonce.copy_from_slice(&self.nonce);
        bytes
    }

    /// The rest of an opening whose head said this version.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(bytes: &[u8; OPENING_BYTES]) -> Result<Opening, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.bytes(MAGIC.len(), "magic")?;
        reader.u16("version")?;
        let (flags, reserved) = (reader.u8("flags")?, reader.u8("reserved")?);
        if flags & !(FLAG_SECRET | FLAG_BUSY) != 0 || reserved != 0 {
            return Err(Malformed::Illegal("flags"));
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(reader.bytes(NONCE_BYTES, "nonce")?);
        Ok(Opening { secret: flags & FLAG_SECRET != 0, busy: flags & FLAG_BUSY != 0, nonce })
    }
}

/// The version an opening of any version names; `None`: it is none.
pub(super) fn version_of(head: [u8; HEAD_BYTES]) -> Option<u16> {
    (head[..8] == MAGIC).then_some(u16::from_le_bytes([head[8], head[9]]))
}

/// What the answering node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The caller's proof is wrong.
    WrongProof,
    /// Who it is.
    Present(Presentation),
}

impl Request {
    /// Its fields, without length and proof.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        put_presentation(&mut out, &self.caller);
        let (kind, shard) = match self.purpose {
            Purpose::Probe => (0, 0),
            Purpose::Follow { shard } => (1, shard),
        };
        out.push(kind);
        out.extend_from_slice(&shard.to_le_bytes());
        put_text(&mut out, self.wanted.as_str());
        out.extend_from_slice(&self.wanted_life.get().to_le_bytes());
        out
    }

    /// From its fields.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut reader = Reader::new(bytes);
        let caller = presentation(&mut reader)?;
        let (kind, shard) = (reader.u8("purpose")?, reader.u16("shard")?);
        let purpose = match kind {
            0 if shard == 0 => Purpose::Probe,
            1 if shard < caller.shards => Purpose::Follow { shard },
            _ => return Err(Malformed::Illegal("purpose")),
        };
        let wanted = node(&mut reader)?;
        let wanted_life = life(&mut reader)?;
        reader.end()?;
        Ok(Request { caller, purpose, wanted, wanted_life })
    }
}

impl Reply {
    /// Its fields, without length and proof.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self {
            Reply::WrongProof => out.push(WRONG_PROOF),
            Reply::Present(answerer) => {
                out.push(PRESENT);
                put_presentation(&mut out, answerer);
            }
        }
        out
    }

    /// From its fields.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Reply, Malformed> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8("reply")? {
            WRONG_PROOF => Reply::WrongProof,
            PRESENT => Reply::Present(presentation(&mut reader)?),
            _ => return Err(Malformed::Illegal("reply")),
        };
        reader.end()?;
        Ok(reply)
    }
}

fn put_presentation(out: &mut Vec<u8>, says: &Presentation) {
    let Presentation { cell, member, shards, epoch } = says;
    for text in [cell.as_str(), member.node.as_str(), &member.machine, &member.peer, &member.clients] {
        put_text(out, text);
    }
    out.extend_from_slice(&member.incarnation.get().to_le_bytes());
    out.extend_from_slice(&shards.to_le_bytes());
    out.extend_from_slice(&epoch.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names and addresses are bounded where they are made");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn presentation(reader: &mut Reader<'_>) -> Result<Presentation, Malformed> {
    let cell = text(reader, CELL_BYTES_MAX, "cell")?;
    let node = node(reader)?;
    let machine = text(reader, MACHINE_BYTES_MAX, "machine")?;
    let peer = text(reader, PEER_BYTES_MAX, "peer")?;
    let clients = text(reader, CLIENTS_BYTES_MAX, "clients")?;
    let member = Member { node, machine, incarnation: life(reader)?, peer, clients };
    let (shards, epoch) = (reader.u16("shards")?, reader.u32("epoch")?);
    if member.fault().is_some() {
        return Err(Malformed::Illegal("member"));
    }
    // A cell is named like a node.
    if NodeId::new(&cell).is_err() {
        return Err(Malformed::Illegal("cell"));
    }
    if shards == 0 {
        return Err(Malformed::Illegal("shards"));
    }
    Ok(Presentation { cell, member, shards, epoch })
}

fn text(reader: &mut Reader<'_>, bytes_max: usize, field: &'static str) -> Result<String, Malformed> {
    let length = usize::from(reader.u16(field)?);
    if length > bytes_max {
        return Err(Malformed::Illegal(field));
    }
    let bytes = reader.bytes(length, field)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Illegal(field))
}

fn node(reader: &mut Reader<'_>) -> Result<NodeId, Malformed> {
    let name = text(reader, NODE_BYTES_MAX, "node")?;
    NodeId::new(&name).map_err(|_| Malformed::Illegal("node"))
}

fn life(reader: &mut Reader<'_>) -> Result<Incarnation, Malformed> {
    Incarnation::new(reader.u64("incarnation")?).ok_or(Malformed::Illegal("incarnation"))
}

//! What replicas of one shard say to each other, on one ordered stream a pair: `length u32 · kind u8 · fields`, the
//! length counting kind and fields. Who is at the other end, and that it may speak, was settled before the first of them.
//!
//! Decoding borrows and checks every length first: a peer of another version is told apart from a broken stream, and
//! neither makes this node panic.

use alloc::vec::Vec;
use fairlock_protocol::Malformed;
use fairlock_protocol::wire::Reader;

use crate::log::Lsn;

/// Longest message; an operation is as long as a client's frame and a little more.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries after which an APPEND is sent and another begun.
pub const APPEND_BYTES: usize = 128 * 1024;

/// Number of an output gate: counted up by the primary of a reign, never down on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

/// Why a greeting is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// This node is not the primary.
    NotPrimary,
    /// What the follower has does not go on in this reign: it must drop it and join.
    Stranger,
    /// It is listed with another incarnation, or its place is not free yet: try again.
    NotYet,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A follower's first word on a stream.
    Greet {
        /// Epoch in which it works; 0 for none.
        view: u32,
        /// Reign whose log it has; 0 for none.
        reign: u32,
        /// How much of it.
        received: Lsn,
        /// It has nothing that could go on, and wants a snapshot.
        joins: bool,
    },
    /// A follower has everything that was sent up to `round`.
    Ack {
        /// Epoch in which it works.
        epoch: u32,
        /// Newest round it has seen.
        round: Round,
        /// How much of the log it has.
        received: Lsn,
        /// Pieces of the snapshot it has.
        pieces: u32,
    },
    /// A follower has promised a later epoch: the primary's time is over.
    Late {
        /// The epoch promised.
        promised: u32,
    },
    /// An epoch begins for the follower: in it, the log goes on behind `from`.
    Activate {
        /// The epoch.
        epoch: u32,
        /// The reign.
        reign: u32,
        /// What the follower has beyond this is to be dropped; a snapshot that follows is of this moment.
        from: Lsn,
        /// A snapshot follows.
        snapshot: bool,
        /// The configuration, as it stands in the register, for the follower's node.
        configuration: &'a [u8],
    },
    /// Entries, and how far the log is committed.
    Append {
        /// The epoch.
        epoch: u32,
        /// The round; 0 when more of it follows.
        round: Round,
        /// How far the log is committed.
        commit: Lsn,
        /// Position before the first entry.
        after: Lsn,
        /// The entries.
        entries: Entries<'a>,
    },
    /// A piece of a snapshot.
    Piece {
        /// The epoch.
        epoch: u32,
        /// Its number, from 0.
        number: u32,
        /// No more follow.
        last: bool,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// The sender was primary and is no more: everything it ever exposed is in the log that was sent.
    Yield {
        /// The epoch that begins.
        epoch: u32,
        /// Its configuration.
        configuration: &'a [u8],
    },
    /// The greeting is refused.
    Refuse {
        /// The newest epoch the sender knows.
        epoch: u32,
        /// Why.
        why: Unwelcome,
    },
}

/// Entries as they lie in a message: each `length u32 · bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// No entries.
    pub const NONE: Entries<'static> = Entries(&[]);

    /// Entries that were encoded with [`Entries::push`].
    ///
    /// # Errors
    /// When the lengths do not add up.
    pub fn new(bytes: &'a [u8]) -> Result<Entries<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut left = bytes.len();
        while left > 0 {
            let length = reader.u32("entry")? as usize;
            reader.bytes(length, "entry")?;
            left -= 4 + length;
        }
        Ok(Entries(bytes))
    }

    /// Appends one entry to bytes that become [`Entries`].
    ///
    /// # Panics
    /// When the entry is longer than a message can be.
    pub fn push(out: &mut Vec<u8>, entry: &[u8]) {
        let length = u32::try_from(entry.len()).expect("an operation is shorter than a message");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(entry);
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (entry, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = tail;
            Some(entry)
        })
    }
}

mod kind {
    pub(super) const GREET: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const LATE: u8 = 3;
    pub(super) const ACTIVATE: u8 = 4;
    pub(super) const APPEND: u8 = 5;
    pub(super) const PIECE: u8 = 6;
    pub(super) const YIELD: u8 = 7;
    pub(super) const REFUSE: u8 = 8;
}

impl<'a> Message<'a> {
    /// The first message of `bytes` and how many bytes it takes; `None` while it has not arrived whole.
    ///
    /// # Errors
    /// [`Malformed`]: the stream is of no more use.
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Message<'a>, usize)>, Malformed> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let claimed = u32::from_le_bytes(*length);
        let length = claimed as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLarge { claimed });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        Ok(Some((Message::decode(body)?, 4 + length)))
    }

    fn decode(body: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let message = match reader.u8("kind")? {
            kind::GREET => Message::Greet {
                view: reader.u32("view")?,
                reign: reader.u32("reign")?,
                received: Lsn(reader.u64("received")?),
                joins: flag(&mut reader, "joins")?,
            },
            kind::ACK => Message::Ack {
                epoch: reader.u32("epoch")?,
                round: Round(reader.u64("round")?),
                received: Lsn(reader.u64("received")?),
                pieces: reader.u32("pieces")?,
            },
            kind::LATE => Message::Late { promised: reader.u32("promised")? },
            kind::ACTIVATE => Message::Activate {
                epoch: reader.u32("epoch")?,
                reign: reader.u32("reign")?,
                from: Lsn(reader.u64("from")?),
                snapshot: flag(&mut reader, "snapshot")?,
                configuration: reader.remaining(),
            },
            kind::APPEND => Message::Append {
                epoch: reader.u32("epoch")?,
                round: Round(reader.u64("round")?),
                commit: Lsn(reader.u64("commit")?),
                after: Lsn(reader.u64("after")?),
                entries: Entries::new(reader.remaining())?,
            },
            kind::PIECE => Message::Piece {
                epoch: reader.u32("epoch")?,
                number: reader.u32("number")?,
                last: flag(&mut reader, "last")?,
                bytes: reader.remaining(),
            },
            kind::YIELD => Message::Yield { epoch: reader.u32("epoch")?, configuration: reader.remaining() },
            kind::REFUSE => Message::Refuse {
                epoch: reader.u32("epoch")?,
                why: match reader.u8("why")? {
                    0 => Unwelcome::NotPrimary,
                    1 => Unwelcome::Stranger,
                    2 => Unwelcome::NotYet,
                    _ => return Err(Malformed::Illegal("why")),
                },
            },
            unknown => return Err(Malformed::UnknownKind(unknown)),
        };
        reader.end()?;
        Ok(message)
    }

    /// Appends the message.
    ///
    /// # Panics
    /// When it is longer than [`MESSAGE_BYTES_MAX`]: whoever writes one bounds its parts.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.encode_fields(out);
        let length = out.len() - start - 4;
        assert!(length <= MESSAGE_BYTES_MAX, "whoever writes a message bounds its parts");
        let length = u32::try_from(length).expect("bounded above");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        match *self {
            Message::Greet { view, reign, received, joins } => {
                put(out, kind::GREET, &[view, reign], &[received.0]);
                out.push(u8::from(joins));
            }
            Message::Ack { epoch, round, received, pieces } => {
                put(out, kind::ACK, &[epoch], &[round.0, received.0]);
                out.extend_from_slice(&pieces.to_le_bytes());
            }
            Message::Late { promised } => put(out, kind::LATE, &[promised], &[]),
            Message::Activate { epoch, reign, from, snapshot, configuration } => {
                put(out, kind::ACTIVATE, &[epoch, reign], &[from.0]);
                out.push(u8::from(snapshot));
                out.extend_from_slice(configuration);
            }
            Message::Append { epoch, round, commit, after, entries } => {
                put(out, kind::APPEND, &[epoch], &[round.0, commit.0, after.0]);
                out.extend_from_slice(entries.0);
            }
            Message::Piece { epoch, number, last, bytes } => {
                put(out, kind::PIECE, &[epoch, number], &[]);
                out.push(u8::from(last));
                out.extend_from_slice(bytes);
            }
            Message::Yield { epoch, configuration } => {
                put(out, kind::YIELD, &[epoch], &[]);
                out.extend_from_slice(configuration);
            }
            Message::Refuse { epoch, why } => {
                put(out, kind::REFUSE, &[epoch], &[]);
                out.push(match why {
                    Unwelcome::NotPrimary => 0,
                    Unwelcome::Stranger => 1,
                    Unwelcome::NotYet => 2,
                });
            }
        }
    }
}

fn flag(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, Malformed> {
    match reader.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Illegal(field)),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, small: &[u32], large: &[u64]) {
    out.push(kind);
    for number in small {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in large {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;

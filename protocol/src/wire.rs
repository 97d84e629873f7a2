//! Bytes: little-endian numbers, length-counted strings, and frames that carry their own length.
//!
//! A frame is `length u32 · kind u8 · flags u8 · ack u16 · request u64 · body`, the length counting everything from
//! its own first byte. Decoding borrows, checks every length before it is used, and never recurses; what is left
//! over in a body is an error, so that a later version cannot be half understood.

use crate::ids::RequestId;
use crate::limits::FRAME_BYTES_MAX;
use crate::refusal::Refusal;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 16;

/// A frame's reply moves the client's deadline: it was confirmed after the request was received.
pub const FLAG_RENEWED: u8 = 1;
/// The server keeps this reply until the client acknowledges it, and counts it.
pub const FLAG_KEPT: u8 = 2;

/// What was wrong with bytes from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The frame says it is longer than a frame may be.
    TooLarge {
        /// The length it claims, in bytes.
        claimed: u32,
    },
    /// The frame says it is shorter than its header.
    TooShort {
        /// The length it claims, in bytes.
        claimed: u32,
    },
    /// No message of this kind goes in this direction.
    UnknownKind(u8),
    /// The body ends inside this field.
    Truncated(&'static str),
    /// This field has a value it cannot have.
    Illegal(&'static str),
    /// Bytes follow after the last field.
    Surplus {
        /// How many.
        bytes: usize,
    },
    /// A name, namespace or text is not well-formed.
    Refused(Refusal),
}

impl Malformed {
    /// The code the peer is told before its connection closes, or with which one request is refused.
    pub const fn refusal(self) -> Refusal {
        match self {
            Malformed::TooLarge { .. } => Refusal::FrameTooLarge,
            Malformed::Refused(refusal) => refusal,
            _ => Refusal::BadRequest,
        }
    }

    /// Whether the stream may go on after this frame: its bounds were sound and only its content was refused.
    pub const fn is_confined(self) -> bool {
        matches!(self, Malformed::Refused(_))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Malformed::TooLarge { claimed } => {
                write!(f, "frame of {claimed} bytes, at most {FRAME_BYTES_MAX} are allowed")
            }
            Malformed::TooShort { claimed } => write!(f, "frame of {claimed} bytes, its header alone has 16"),
            Malformed::UnknownKind(kind) => write!(f, "no message of kind {kind:#04x} is expected here"),
            Malformed::Truncated(field) => write!(f, "the frame ends inside `{field}`"),
            Malformed::Illegal(field) => write!(f, "`{field}` has a value it cannot have"),
            Malformed::Surplus { bytes } => write!(f, "{bytes} bytes follow the last field"),
            Malformed::Refused(refusal) => write!(f, "{refusal}"),
        }
    }
}

impl core::error::Error for Malformed {}

impl From<Refusal> for Malformed {
    fn from(refusal: Refusal) -> Malformed {
        Malformed::Refused(refusal)
    }
}

/// One whole frame, its body not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message.
    pub kind: u8,
    /// [`FLAG_RENEWED`], [`FLAG_KEPT`]; 0 in requests.
    pub flags: u8,
    /// Requests: low 16 bits of the number of kept replies received on this stream. Replies: 0.
    pub ack: u16,
    /// The request, or the request answered; 0 in a notice.
    pub request: RequestId,
    /// The rest.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of `bytes` and how many bytes it takes; `None` while it has not arrived whole.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`] and [`Malformed::TooShort`], as soon as the length is there: nothing is buffered
    /// for a frame that cannot be right.
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Malformed> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let claimed = u32::from_le_bytes(*length);
        let length = claimed as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Malformed::TooLarge { claimed });
        }
        if length < HEADER_BYTES {
            return Err(Malformed::TooShort { claimed });
        }
        let Some(rest) = rest.get(..length - 4) else { return Ok(None) };
        let mut reader = Reader { rest };
        let frame = Frame {
            kind: reader.u8("kind")?,
            flags: reader.u8("flags")?,
            ack: reader.u16("ack")?,
            request: RequestId(reader.u64("request")?),
            body: reader.rest,
        };
        Ok(Some((frame, length)))
    }
}

/// Takes fields off the front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

macro_rules! numbers {
    ($($name:ident: $type:ty;)*) => {
        impl Reader<'_> {
            $(
                /// The next little-endian number; `field` names it in the error.
                ///
                /// # Errors
                /// [`Malformed::Truncated`].
                #[inline]
                pub fn $name(&mut self, field: &'static str) -> Result<$type, Malformed> {
                    let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated(field))?;
                    self.rest = rest;
                    Ok(<$type>::from_le_bytes(*bytes))
                }
            )*
        }

        impl Writer<'_> {
            $(
                /// Appends a little-endian number.
                #[inline]
                pub fn $name(&mut self, value: $type) -> &mut Self {
                    self.out.extend_from_slice(&value.to_le_bytes());
                    self
                }
            )*
        }
    };
}

numbers! { u8: u8; u16: u16; u32: u32; u64: u64; u128: u128; }

impl<'a> Reader<'a> {
    /// Reads the fields of a body.
    pub const fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Whatever is left.
    pub fn remaining(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Everything was read.
    ///
    /// # Errors
    /// [`Malformed::Surplus`].
    #[inline]
    pub fn end(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(Malformed::Surplus { bytes }),
        }
    }
}

/// Writes one frame at the end of a buffer; the length is filled in by [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a frame of this kind.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, kind: u8, flags: u8, ack: u16, request: RequestId) -> Writer<'a> {
        let start = out.len();
        let mut head = [0_u8; HEADER_BYTES];
        head[4] = kind;
        head[5] = flags;
        head[6..8].copy_from_slice(&ack.to_le_bytes());
        head[8..16].copy_from_slice(&request.0.to_le_bytes());
        out.extend_from_slice(&head);
        Writer { out, start }
    }

    /// Goes on behind what a buffer has, without a frame around it: for parts that a frame will take.
    pub(crate) fn behind(out: &'a mut Vec<u8>) -> Writer<'a> {
        let start = out.len();
        Writer { out, start }
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Bytes of the frame so far, header included.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Never: a frame has its header from the start.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Overwrites the two bytes at `offset` of the frame, which were written before.
    pub(crate) fn patch_u16(&mut self, offset: usize, value: u16) {
        let at = self.start + offset;
        assert!(at + 2 <= self.out.len(), "only what was written can be overwritten");
        self.out[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Overwrites the eight bytes at `offset` of the frame, which were written before.
    pub(crate) fn patch_u64(&mut self, offset: usize, value: u64) {
        let at = self.start + offset;
        assert!(at + 8 <= self.out.len(), "only what was written can be overwritten");
        self.out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Forgets what was written after the first `length` bytes of the frame.
    pub(crate) fn truncate(&mut self, length: usize) {
        assert!(length >= HEADER_BYTES, "a frame keeps its header");
        self.out.truncate(self.start + length);
    }

    /// Fills in the length.
    ///
    /// # Panics
    /// When the frame is longer than a frame may be: whoever writes one has checked its parts.
    #[inline]
    pub fn finish(self) {
        let length = self.out.len() - self.start;
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes was built");
        let claimed = u32::try_from(length).expect("checked against 64 KiB");
        self.out[self.start..self.start + 4].copy_from_slice(&claimed.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn a_frame_comes_whole_or_not_yet() {
        let mut out = vec![];
        let mut writer = Writer::begin(&mut out, 0x10, FLAG_KEPT, 7, RequestId(9));
        writer.u16(0x0102).bytes(b"xy");
        writer.finish();
        out.push(0xEE);
        for cut in 0..20 {
            assert_eq!(Frame::split(&out[..cut]), Ok(None), "{cut} bytes");
        }
        let (frame, used) = Frame::split(&out).unwrap().unwrap();
        assert_eq!(used, 20);
        assert_eq!((frame.kind, frame.flags, frame.ack, frame.request), (0x10, FLAG_KEPT, 7, RequestId(9)));
        assert_eq!(frame.body, [2, 1, b'x', b'y']);
    }

    #[test]
    fn a_length_that_cannot_be_right_is_refused_before_anything_is_buffered() {
        let claim = |length: u32| Frame::split(&length.to_le_bytes()).map(|_| ());
        assert_eq!(claim(65_536), Ok(()));
        assert_eq!(claim(65_537), Err(Malformed::TooLarge { claimed: 65_537 }));
        assert_eq!(claim(u32::MAX).unwrap_err().refusal(), Refusal::FrameTooLarge);
        assert_eq!(claim(15), Err(Malformed::TooShort { claimed: 15 }));
        assert_eq!(claim(0).unwrap_err().refusal(), Refusal::BadRequest);
    }

    #[test]
    fn a_reader_stops_at_the_end_and_says_where() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16("a"), Ok(0x0201));
        assert_eq!(reader.u16("b"), Err(Malformed::Truncated("b")));
        assert_eq!(reader.bytes(2, "c"), Err(Malformed::Truncated("c")));
        assert_eq!(reader.end(), Err(Malformed::Surplus { bytes: 1 }));
    }
}

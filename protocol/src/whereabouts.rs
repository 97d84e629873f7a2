//! Where a cell can be reached: what a node that decides nothing says of the one that does, and what that one says of all.
//!
//! Endpoints are one text, as a person would write them (`tcp://a:7411,tcp://b:7411`). Whoever reads them has to look at
//! them like at anything a person wrote; here they are only bounded.

use crate::limits::ENDPOINTS_BYTES_MAX;
use crate::wire::{Malformed, Reader, Writer};

/// Where nodes of a cell can be reached, as far as the one that says it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts<'a> {
    /// The epoch of what it knows.
    pub epoch: u32,
    /// Endpoints for clients, separated by commas; empty: not known.
    pub endpoints: &'a str,
}

impl<'a> Whereabouts<'a> {
    /// The end of a frame.
    pub(crate) fn write(&self, mut w: Writer<'_>) {
        assert!(
            self.endpoints.len() <= ENDPOINTS_BYTES_MAX,
            "endpoints are bounded where they are configured"
        );
        let length = u16::try_from(self.endpoints.len()).expect("at most 1024 bytes");
        w.u32(self.epoch).u16(length).bytes(self.endpoints.as_bytes());
        w.finish();
    }

    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Whereabouts<'a>, Malformed> {
        let epoch = r.u32("epoch")?;
        let length = usize::from(r.u16("endpoints_length")?);
        if length > ENDPOINTS_BYTES_MAX {
            return Err(Malformed::Illegal("endpoints_length"));
        }
        let endpoints = r.bytes(length, "endpoints")?;
        let endpoints = core::str::from_utf8(endpoints).map_err(|_| Malformed::Illegal("endpoints"))?;
        Ok(Whereabouts { epoch, endpoints })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Refusal, Reply, RequestId, reply::Refused};
    use std::string::String;
    use std::vec;

    #[test]
    fn endpoints_without_end_are_not_believed() {
        let endpoints: String = core::iter::repeat_n('x', ENDPOINTS_BYTES_MAX).collect();
        let primary = Some(Whereabouts { epoch: 1, endpoints: &endpoints });
        let refused = Reply::Refused(Refused { primary, ..Refusal::NotPrimary.into() });
        let mut out = vec![];
        refused.encode(RequestId(1), 0, &mut out);
        let (frame, _) = Frame::split(&out).unwrap().unwrap();
        assert_eq!(Reply::decode(&frame), Ok(refused));
        out.push(b'x');
        let length = u32::try_from(out.len()).unwrap();
        out[..4].copy_from_slice(&length.to_le_bytes());
        let at = out.len() - ENDPOINTS_BYTES_MAX - 3;
        out[at..at + 2].copy_from_slice(&1025_u16.to_le_bytes());
        let (frame, _) = Frame::split(&out).unwrap().unwrap();
        assert_eq!(Reply::decode(&frame), Err(Malformed::Illegal("endpoints_length")));
    }

    #[test]
    fn endpoints_are_text() {
        let mut out = vec![];
        Reply::Members(Whereabouts { epoch: 1, endpoints: "x" }).encode(RequestId::NOTICE, 0, &mut out);
        *out.last_mut().unwrap() = 0xFF;
        let (frame, _) = Frame::split(&out).unwrap().unwrap();
        assert_eq!(Reply::decode(&frame), Err(Malformed::Illegal("endpoints")));
    }
}

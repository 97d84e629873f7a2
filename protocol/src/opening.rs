//! How a session begins: what a process says of itself when it opens one, and what shall end it.

use crate::limits::{ATTRIBUTE_BYTES_MAX, IDENTITY_BYTES_MAX, LABEL_BYTES_MAX};
use crate::refusal::Refusal;
use crate::request::long;
use crate::wire::{Malformed, Reader, Writer};

const OPEN_PREDECESSOR_GONE: u8 = 1;

/// What ends a session whose client says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Liveness {
    /// Silence for one ttl. The only one over TCP.
    Heartbeat = 0,
    /// The end of the process, seen by the server on the same host; silence alone never.
    Process = 1,
    /// The last holder of a pipe's write end closing it; its read end came with the HELLO.
    Inherit = 2,
}

impl Liveness {
    /// The liveness with this wire number.
    pub const fn from_wire(number: u8) -> Option<Liveness> {
        match number {
            0 => Some(Liveness::Heartbeat),
            1 => Some(Liveness::Process),
            2 => Some(Liveness::Inherit),
            _ => None,
        }
    }

    /// The word the command line takes.
    pub const fn name(self) -> &'static str {
        match self {
            Liveness::Heartbeat => "heartbeat",
            Liveness::Process => "process",
            Liveness::Inherit => "inherit",
        }
    }
}

/// Opens a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Lease asked for, in milliseconds; 0 for the default. The server may grant less.
    pub ttl_ms: u32,
    /// What ends it.
    pub liveness: Liveness,
    /// The program asserts that the session with the same identity cannot run any more.
    pub predecessor_gone: bool,
    /// Process id on its host, for people.
    pub pid: u32,
    /// Who it is across restarts; empty for nobody in particular.
    pub identity: &'a [u8],
    /// What lets a successor take its place.
    pub reclaim_key: &'a [u8],
    /// Host name.
    pub host: &'a [u8],
    /// Path of the program.
    pub exe: &'a [u8],
    /// What the program calls itself.
    pub label: &'a [u8],
}

pub(crate) fn read_open(mut r: Reader<'_>) -> Result<Open<'_>, Malformed> {
    let ttl_ms = r.u32("ttl")?;
    let liveness = Liveness::from_wire(r.u8("liveness")?).ok_or(Malformed::Illegal("liveness"))?;
    let flags = r.u8("flags")?;
    let pid = r.u32("pid")?;
    let mut lengths = [0_usize; 5];
    for length in &mut lengths {
        *length = usize::from(r.u16("text_length")?);
    }
    let limits =
        [IDENTITY_BYTES_MAX, IDENTITY_BYTES_MAX, ATTRIBUTE_BYTES_MAX, ATTRIBUTE_BYTES_MAX, LABEL_BYTES_MAX];
    if flags & !OPEN_PREDECESSOR_GONE != 0 {
        return Err(Malformed::Illegal("flags"));
    }
    if lengths.iter().zip(limits).any(|(&length, limit)| length > limit) {
        return Err(Malformed::Refused(Refusal::TooLong));
    }
    let open = Open {
        ttl_ms,
        liveness,
        predecessor_gone: flags & OPEN_PREDECESSOR_GONE != 0,
        pid,
        identity: r.bytes(lengths[0], "identity")?,
        reclaim_key: r.bytes(lengths[1], "reclaim_key")?,
        host: r.bytes(lengths[2], "host")?,
        exe: r.bytes(lengths[3], "exe")?,
        label: r.bytes(lengths[4], "label")?,
    };
    r.end()?;
    Ok(open)
}

pub(crate) fn write_open(open: &Open<'_>, mut w: Writer<'_>) {
    let flags = if open.predecessor_gone { OPEN_PREDECESSOR_GONE } else { 0 };
    w.u32(open.ttl_ms).u8(open.liveness as u8).u8(flags).u32(open.pid);
    let texts = [open.identity, open.reclaim_key, open.host, open.exe, open.label];
    for text in texts {
        w.u16(long(text));
    }
    for text in texts {
        w.bytes(text);
    }
    w.finish();
}

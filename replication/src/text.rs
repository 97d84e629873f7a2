//! How what must be remembered is written: a first line that names the format and its number, then `key=value` lines in
//! one order, the last of them a checksum over all before it.
//!
//! Text, because an operator in trouble opens it; no serialisation library, because a dozen fields need none. The number
//! in the first line is looked at before anything else, so that a text of a newer server is told from a damaged one.

use core::fmt::{self, Write};

use alloc::string::String;

/// Why a text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotARecord {
    /// A newer server wrote it.
    Newer {
        /// The format it names.
        format: u32,
        /// The newest format this server reads.
        known: u32,
    },
    /// It is damaged, or was never one.
    Corrupt(&'static str),
}

impl fmt::Display for NotARecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NotARecord::Newer { format, known } => {
                write!(f, "written by a newer version (format {format}, this one knows {known})")
            }
            NotARecord::Corrupt(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl core::error::Error for NotARecord {}

/// One kind of text.
pub(crate) struct Format {
    /// How every text begins, before the number of its format.
    pub(crate) opening: &'static str,
    /// What is said about a text that begins otherwise.
    pub(crate) not_opened: &'static str,
    /// The format that is written, and the newest that is read.
    pub(crate) newest: u32,
    /// Longest text that is looked at, in bytes.
    pub(crate) bytes_max: usize,
}

impl Format {
    /// Adds the checksum to a text that was begun with `opening` and `newest`.
    pub(crate) fn seal(&self, mut text: String) -> String {
        assert!(text.starts_with(self.opening) && text.ends_with('\n'), "whole lines of this kind of text");
        let check = checksum(text.as_bytes());
        writeln!(text, "check={check:016x}").expect("a string takes whatever is written to it");
        assert!(text.len() < self.bytes_max, "what is written can be read back");
        text
    }

    /// The lines behind the first one, which is checked.
    ///
    /// # Errors
    /// [`NotARecord`]; a newer format is recognised by the first line alone.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Result<Fields<'a>, NotARecord> {
        use NotARecord::Corrupt;
        if bytes.is_empty() {
            return Err(Corrupt("it is empty"));
        }
        let head = bytes.get(..self.bytes_max).unwrap_or(bytes);
        let (opening, rest) = split_line(head).ok_or(Corrupt("the first line has no end"))?;
        let format = opening.strip_prefix(self.opening).and_then(|number| number.parse::<u32>().ok());
        match format {
            None | Some(0) => return Err(Corrupt(self.not_opened)),
            Some(format) if format > self.newest => {
                return Err(NotARecord::Newer { format, known: self.newest });
            }
            Some(_) => {}
        }
        if bytes.len() > self.bytes_max {
            return Err(Corrupt("it is longer than it can be"));
        }
        Ok(Fields { bytes, rest })
    }
}

/// The first line without its end, and what follows it. `None` when there is no whole line of UTF-8.
fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((core::str::from_utf8(line).ok()?, rest.get(1..)?))
}

/// Takes lines off the front of a text, in their one order.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The value of the next line, whose key must be this one.
    pub(crate) fn next(&mut self, key: &'static str, name: &'static str) -> Result<&'a str, NotARecord> {
        let (line, rest) = split_line(self.rest).ok_or(NotARecord::Corrupt(name))?;
        self.rest = rest;
        line.strip_prefix(key).ok_or(NotARecord::Corrupt(name))
    }

    /// The value of the next line, if its key is this one.
    pub(crate) fn next_if(&mut self, key: &'static str) -> Option<&'a str> {
        let (line, rest) = split_line(self.rest)?;
        let value = line.strip_prefix(key)?;
        self.rest = rest;
        Some(value)
    }

    /// The last line is the checksum of all before it, and nothing follows.
    pub(crate) fn check(mut self) -> Result<(), NotARecord> {
        let covered = self.bytes.len() - self.rest.len();
        let expected = checksum(self.bytes.get(..covered).unwrap_or_default());
        let found = u64::from_str_radix(self.next("check=", "check")?, 16);
        if found != Ok(expected) || !self.rest.is_empty() {
            return Err(NotARecord::Corrupt("its checksum is wrong"));
        }
        Ok(())
    }
}

/// FNV-1a, 64 bits: tells a torn or edited text, not an attacker, who would own its place anyhow.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

//! What is locked: a namespace and a name. Both are checked here, once; a [`Resource`] is always well-formed.

use crate::limits::{NAME_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::refusal::Refusal;
use core::fmt;

/// The namespace of requests that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A namespace: 1 to 64 of `[a-z0-9._-]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace<'a>(&'a str);

impl Namespace<'static> {
    /// The namespace of requests that name none.
    pub const DEFAULT: Namespace<'static> = Namespace(DEFAULT_NAMESPACE);
}

impl<'a> Namespace<'a> {
    /// Checks a namespace; empty means the default one.
    ///
    /// # Errors
    /// [`Refusal::BadName`] for another character, [`Refusal::TooLong`] beyond 64 bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Namespace<'a>, Refusal> {
        if bytes.is_empty() {
            return Ok(Namespace::DEFAULT);
        }
        if bytes.len() > NAMESPACE_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let legal = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        match core::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(legal) => Ok(Namespace(text)),
            _ => Err(Refusal::BadName),
        }
    }

    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether this is the namespace of requests that name none.
    pub fn is_default(self) -> bool {
        self.0 == DEFAULT_NAMESPACE
    }
}

/// A name: 1 to 1024 bytes, any bytes, compared as bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Refusal::BadName`] when empty, [`Refusal::TooLong`] beyond 1024 bytes.
    pub const fn new(bytes: &'a [u8]) -> Result<Name<'a>, Refusal> {
        match bytes.len() {
            0 => Err(Refusal::BadName),
            1..=NAME_BYTES_MAX => Ok(Name(bytes)),
            _ => Err(Refusal::TooLong),
        }
    }

    /// The bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for Name<'_> {
    /// Text as it is; control characters, backslashes and bytes that are not UTF-8 escaped (`\x00`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.utf8_chunks() {
            for c in piece.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if (c as u32) < 0x20 || c as u32 == 0x7F => write!(f, "\\x{:02x}", c as u32)?,
                    c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                    c => fmt::Write::write_char(f, c)?,
                }
            }
            for byte in piece.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// One lockable thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource<'a> {
    /// Which set of names.
    pub namespace: Namespace<'a>,
    /// The name in it.
    pub name: Name<'a>,
}

impl<'a> Resource<'a> {
    /// Checks both parts; an empty namespace is the default one.
    ///
    /// # Errors
    /// As [`Namespace::new`] and [`Name::new`].
    pub fn new(namespace: &'a [u8], name: &'a [u8]) -> Result<Resource<'a>, Refusal> {
        Ok(Resource { namespace: Namespace::new(namespace)?, name: Name::new(name)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn names_are_any_bytes_from_one_to_a_thousand_and_twenty_four() {
        assert_eq!(Name::new(b""), Err(Refusal::BadName));
        assert!(Name::new(&[0xFF; 1024]).is_ok());
        assert_eq!(Name::new(&[b'a'; 1025]), Err(Refusal::TooLong));
    }

    #[test]
    fn what_is_not_text_is_shown_escaped_and_unambiguously() {
        let shown = |bytes: &[u8]| format!("{}", Name::new(bytes).unwrap());
        assert_eq!(shown(b"orders/42"), "orders/42");
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b"a\0b\xFFc\\x\n"), "a\\x00b\\xffc\\\\x\\x0a");
    }

    #[test]
    fn a_namespace_is_lower_case_and_short() {
        assert_eq!(Namespace::new(b""), Ok(Namespace::DEFAULT));
        assert_eq!(Namespace::new(b"vm.net-1_a").unwrap().as_str(), "vm.net-1_a");
        assert_eq!(Namespace::new(b"Upper"), Err(Refusal::BadName));
        assert_eq!(Namespace::new(&[b'a'; 65]), Err(Refusal::TooLong));
    }
}

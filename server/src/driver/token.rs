//! The 64 bits the kernel carries for us from a request to its completion: what was asked, and for which entry. Both
//! drivers use the same layout: purpose in the top byte, slot in 24 bits, generation in the low 32.

use super::slots::{Key, SLOTS_MAX};

const _: () = assert!(SLOTS_MAX <= 1 << 24, "a slot has 24 bits");

/// What a completion is about; which table its key belongs to follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Accept,
    Receive,
    Send,
    Watch,
    Wake,
    Cancel,
    Hangup,
}

impl Purpose {
    const ALL: [Purpose; 7] = [
        Purpose::Accept,
        Purpose::Receive,
        Purpose::Send,
        Purpose::Watch,
        Purpose::Wake,
        Purpose::Cancel,
        Purpose::Hangup,
    ];
}

/// A purpose and a key as one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token(u64);

impl Token {
    /// Where no entry is meant.
    pub(super) fn plain(purpose: Purpose) -> Token {
        Token::new(purpose, Key::new(0, 0))
    }

    pub(super) fn new(purpose: Purpose, key: Key) -> Token {
        Token((purpose as u64) << 56 | u64::from(key.slot()) << 32 | u64::from(key.generation()))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Splits what came back. The kernel returns what it was given, so an unknown purpose is our own mistake.
    #[expect(clippy::cast_possible_truncation, reason = "the fields are cut out of the 64 bits on purpose")]
    pub(super) fn split(bits: u64) -> (Purpose, Key) {
        let purpose = Purpose::ALL[(bits >> 56) as usize];
        (purpose, Key::new((bits >> 32) as u32 & 0x00ff_ffff, bits as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_and_key_comes_back_as_it_went() {
        for purpose in Purpose::ALL {
            for key in [Key::new(0, 0), Key::new(7, u32::MAX), Key::new((1 << 24) - 1, 1)] {
                assert_eq!(Token::split(Token::new(purpose, key).bits()), (purpose, key));
            }
        }
    }
}

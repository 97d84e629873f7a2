//! The six lock modes and which of them go together. The table is the specification; everything else here is
//! computed from it.

use core::fmt;

/// A lock mode, weakest first. Intention locking uses the same table: IS = CR, IX = CW, S = PR, SIX = PW, X = EX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Null: holds a place and the value block, keeps nobody out.
    NL = 0,
    /// Concurrent read.
    CR = 1,
    /// Concurrent write.
    CW = 2,
    /// Protected read: shared.
    PR = 3,
    /// Protected write: update; one of them, with concurrent readers.
    PW = 4,
    /// Exclusive.
    EX = 5,
}

/// A set of modes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeSet(u8);

/// `COMPATIBLE[held][asked]`: whether a request for `asked` may be granted beside a holder of `held`.
pub const COMPATIBLE: [[bool; 6]; 6] = {
    const O: bool = true;
    const X: bool = false;
    [
        // asked: NL CR CW PR PW EX
        /* NL */ [O, O, O, O, O, O],
        /* CR */ [O, O, O, O, O, X],
        /* CW */ [O, O, O, X, X, X],
        /* PR */ [O, O, X, O, X, X],
        /* PW */ [O, O, X, X, X, X],
        /* EX */ [O, X, X, X, X, X],
    ]
};

/// For each mode the set of modes it cannot stand beside: [`COMPATIBLE`] as bits, for one `and` a check.
const CONFLICTS: [ModeSet; 6] = {
    let mut sets = [ModeSet(0); 6];
    let mut asked = 0;
    while asked < 6 {
        let mut held = 0;
        while held < 6 {
            assert!(COMPATIBLE[held][asked] == COMPATIBLE[asked][held], "the table is symmetric");
            if !COMPATIBLE[held][asked] {
                sets[asked].0 |= 1 << held;
            }
            held += 1;
        }
        asked += 1;
    }
    sets
};

impl Mode {
    /// Every mode, weakest first.
    pub const ALL: [Mode; 6] = [Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX];
    /// Alias of [`Mode::PR`].
    pub const SHARED: Mode = Mode::PR;
    /// Alias of [`Mode::PW`].
    pub const UPDATE: Mode = Mode::PW;
    /// Alias of [`Mode::EX`].
    pub const EXCLUSIVE: Mode = Mode::EX;

    /// The mode with this wire number.
    pub const fn from_wire(number: u8) -> Option<Mode> {
        if (number as usize) < Mode::ALL.len() { Some(Mode::ALL[number as usize]) } else { None }
    }

    /// The wire number.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// Whether a holder of `self` and a holder of `other` may stand beside each other.
    pub const fn compatible(self, other: Mode) -> bool {
        CONFLICTS[self as usize].0 & (1 << other as u8) == 0
    }

    /// The modes that exclude this one.
    pub const fn conflicts(self) -> ModeSet {
        CONFLICTS[self as usize]
    }

    /// Whether a holder of `self` has every right that `other` gives: NL < CR < {CW, PR} < PW < EX.
    /// CW and PR are not comparable.
    pub const fn covers(self, other: Mode) -> bool {
        self as u8 >= other as u8 && !matches!((self, other), (Mode::PR, Mode::CW))
    }

    /// Whether grants of this mode carry a fencing token that a resource can order (PR, PW, EX).
    pub const fn is_fenced(self) -> bool {
        matches!(self, Mode::PR | Mode::PW | Mode::EX)
    }

    /// Whether a holder may change what the lock protects (CW, PW, EX).
    pub const fn writes(self) -> bool {
        matches!(self, Mode::CW | Mode::PW | Mode::EX)
    }

    /// Two letters, as the command line prints and takes them.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::NL => "NL",
            Mode::CR => "CR",
            Mode::CW => "CW",
            Mode::PR => "PR",
            Mode::PW => "PW",
            Mode::EX => "EX",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMode;

impl fmt::Display for NotAMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mode is one of NL, CR, CW, PR, PW, EX")
    }
}

impl core::error::Error for NotAMode {}

impl core::str::FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Mode, NotAMode> {
        Mode::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(text)).ok_or(NotAMode)
    }
}

impl ModeSet {
    /// No mode at all.
    pub const EMPTY: ModeSet = ModeSet(0);

    /// This set and `mode`.
    #[must_use]
    pub const fn with(self, mode: Mode) -> ModeSet {
        ModeSet(self.0 | 1 << mode as u8)
    }

    /// This set without `mode`.
    #[must_use]
    pub const fn without(self, mode: Mode) -> ModeSet {
        ModeSet(self.0 & !(1 << mode as u8))
    }

    /// Whether `mode` is in the set.
    pub const fn has(self, mode: Mode) -> bool {
        self.0 & (1 << mode as u8) != 0
    }

    /// Whether no mode is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `mode` may be granted beside holders of every mode in the set.
    pub const fn admits(self, mode: Mode) -> bool {
        self.0 & mode.conflicts().0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_36_cells_are_those_of_the_published_table() {
        let rows = ["yyyyyy", "yyyyy-", "yyy---", "yy-y--", "yy----", "y-----"];
        for (held, row) in Mode::ALL.into_iter().zip(rows) {
            for (asked, cell) in Mode::ALL.into_iter().zip(row.chars()) {
                assert_eq!(held.compatible(asked), cell == 'y', "held {held}, asked {asked}");
                assert_eq!(ModeSet::EMPTY.with(held).admits(asked), cell == 'y');
            }
        }
    }

    #[test]
    fn a_mode_that_covers_another_excludes_at_least_as_much() {
        for strong in Mode::ALL {
            for weak in Mode::ALL.into_iter().filter(|&weak| strong.covers(weak)) {
                for other in Mode::ALL {
                    assert!(!strong.compatible(other) || weak.compatible(other), "{strong} {weak} {other}");
                }
            }
        }
    }

    #[test]
    fn concurrent_write_and_protected_read_are_not_comparable() {
        assert!(!Mode::CW.covers(Mode::PR) && !Mode::PR.covers(Mode::CW));
        assert!(Mode::PW.covers(Mode::PR) && Mode::PW.covers(Mode::CW) && Mode::EX.covers(Mode::PW));
    }

    #[test]
    fn names_and_wire_numbers_read_back() {
        for mode in Mode::ALL {
            assert_eq!(mode.name().to_lowercase().parse(), Ok(mode));
            assert_eq!(Mode::from_wire(mode.wire()), Some(mode));
        }
        assert_eq!(Mode::from_wire(6), None);
        assert_eq!("X".parse::<Mode>(), Err(NotAMode));
    }
}

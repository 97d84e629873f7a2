//! How urgent a request is, and by what a queue goes: the classes and the disciplines that a namespace may be given.
//! What they mean for a queue is decided in the lock table; here they are words and numbers.

use crate::limits::PRIORITY_CLASSES;
use core::fmt;
use core::str::FromStr;

/// The class of a request: 0 (the default, the lowest) to 7. It counts in namespaces with the discipline `priority`
/// and means nothing elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Who says nothing asks in this class.
    pub const LOWEST: Priority = Priority(0);
    /// Nothing is more urgent.
    pub const HIGHEST: Priority = Priority(PRIORITY_CLASSES - 1);

    /// The class of this number; `None` above 7.
    pub const fn new(class: u8) -> Option<Priority> {
        if class < PRIORITY_CLASSES { Some(Priority(class)) } else { None }
    }

    /// Its number, 0 to 7.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The class `steps` above this one; never above the highest.
    #[must_use]
    pub fn raised(self, steps: u64) -> Priority {
        let room = PRIORITY_CLASSES - 1 - self.0;
        Priority(self.0 + u8::try_from(steps).unwrap_or(u8::MAX).min(room))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// By what a wait queue goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Discipline {
    /// First come, first served.
    #[default]
    Strict = 0,
    /// As strict, but readers may join readers who hold, a bounded number of times past each waiter.
    Phase = 1,
    /// By class, which rises with age; nobody is passed more than a bounded number of times.
    Priority = 2,
}

impl Discipline {
    /// All of them.
    pub const ALL: [Discipline; 3] = [Discipline::Strict, Discipline::Phase, Discipline::Priority];

    /// The discipline with this number on the wire.
    pub fn from_wire(number: u8) -> Option<Discipline> {
        Discipline::ALL.into_iter().find(|discipline| discipline.wire() == number)
    }

    /// Its number on the wire.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The word of the configuration and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Discipline::Strict => "strict",
            Discipline::Phase => "phase",
            Discipline::Priority => "priority",
        }
    }
}

/// The text names no discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADiscipline;

impl fmt::Display for NotADiscipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a discipline is \"strict\", \"phase\" or \"priority\"")
    }
}

impl core::error::Error for NotADiscipline {}

impl FromStr for Discipline {
    type Err = NotADiscipline;

    fn from_str(text: &str) -> Result<Discipline, NotADiscipline> {
        Discipline::ALL.into_iter().find(|discipline| discipline.name() == text).ok_or(NotADiscipline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eight_classes_and_none_above_the_highest() {
        assert_eq!((Priority::new(7), Priority::new(8)), (Some(Priority::HIGHEST), None));
        let three = Priority::new(3).unwrap();
        assert_eq!((three.raised(0), three.raised(4)), (three, Priority::HIGHEST));
        assert_eq!(three.raised(u64::MAX), Priority::HIGHEST);
    }

    #[test]
    fn a_discipline_reads_back_from_its_word_and_its_number() {
        for discipline in Discipline::ALL {
            assert_eq!(discipline.name().parse(), Ok(discipline));
            assert_eq!(Discipline::from_wire(discipline.wire()), Some(discipline));
        }
        assert_eq!("fair".parse::<Discipline>(), Err(NotADiscipline));
        assert_eq!(Discipline::from_wire(3), None);
    }
}

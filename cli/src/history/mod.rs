//! Histories: what clients saw of their locks, as lines of JSON, and whether it can be true of a fair, fenced lock.
//!
//! docs/histories.md is the format. [`Event`] is one line, [`Story`] what many lines tell, [`Report`] the judgement.
//! Nothing here knows a server: what is judged are the promises as a client could see them broken, from moments on one
//! clock. What is in doubt counts in favour of the lock, so that a violation is always a real one.

mod check;
mod event;
mod line;
mod read;
mod report;
mod span;
mod story;

pub use event::{Event, What};
pub use line::EventError;
pub use read::{ReadError, read};
pub use report::{Counts, Place, Report, Rule, Violation};
pub use story::Story;

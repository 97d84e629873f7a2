//! The Fairlock lock server as a library.

mod driver;

//! What of the program others can use: histories of what clients saw, and their judge.
//!
//! `fairlock verify` and the tests of the whole house must judge by the same rules, and whoever records must write what is
//! read here. So this is the binary's own library and no room of its own: it has no other rights than the program, sits on
//! the same floor, and needs nothing below it but the table of modes. Calling the binary instead would have kept the
//! format in two places, its writer among the tests and its reader here.
#![forbid(unsafe_code)]

pub mod history;

//! Functions that must survive any bytes, for a fuzzer to find the bytes.
//!
//! `cargo test -p fairlock-tests --test fuzz` feeds them mutated corpora for a bounded number of cases, from a printed
//! seed. They take `&[u8]`, so that a coverage-guided fuzzer needs one line each. With cargo-fuzz: `cargo fuzz init`,
//! `fairlock-tests` as a path dependency, and
//! `fuzz_target!(|bytes: &[u8]| fairlock_tests::fuzz::frames::any_bytes(bytes));`

pub mod corpus;
pub mod frames;
pub mod histories;
pub mod segments;

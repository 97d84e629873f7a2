//! The one place where the atomics of shared memory come from, so that loom can put its own in their place and try
//! every order in which they may be seen.

#[cfg(loom)]
mod model;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub(crate) use model::{AtomicU32, AtomicU64};

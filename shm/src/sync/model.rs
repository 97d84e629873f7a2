//! Loom's atomics, with sequentially consistent accesses put back.
//!
//! Loom 0.7 takes a SeqCst access for AcqRel, and only a SeqCst fence for what it is; the grant word, whose argument is
//! about SeqCst accesses, would fail there though it is right. So each such store and exchange is followed by a fence,
//! as it is on x86. A load is not, so that a plain store before a SeqCst load may still be seen after it: the race of
//! leaving a word. What this does not show is a SeqCst load after an exchange that is one for no reason.

use loom::sync::atomic::{self, Ordering, fence};

fn fence_after<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    let outcome = access();
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
    outcome
}

macro_rules! atomic {
    ($name:ident, $of:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code, reason = "both types have what one of them needs")]
        impl $name {
            pub(crate) fn new(value: $of) -> $name {
                $name(atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $of {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $of, order: Ordering) {
                fence_after(order, || self.0.store(value, order));
            }

            pub(crate) fn swap(&self, value: $of, order: Ordering) -> $of {
                fence_after(order, || self.0.swap(value, order))
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $of,
                to: $of,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$of, $of> {
                let outcome = self.0.compare_exchange(from, to, success, failure);
                fence_after(if outcome.is_ok() { success } else { failure }, || outcome)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

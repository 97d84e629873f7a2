//! Loom's atomics, with sequentially consistent accesses put back.
//!
//! Loom 0.7 takes a SeqCst access for AcqRel, and only a SeqCst fence for what it is; the grant word, whose argument is
//! about SeqCst accesses, would fail there though it is right. So each such access is preceded by a fence. That is how
//! compilers make them on machines that have fences alone, and it promises no more than the language does: nothing
//! keeps a Relaxed load behind a SeqCst exchange, as on x86 the lock prefix would.

use loom::sync::atomic::{self, Ordering, fence};

fn fence_before(order: Ordering) {
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
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
                fence_before(order);
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $of, order: Ordering) {
                fence_before(order);
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $of, order: Ordering) -> $of {
                fence_before(order);
                self.0.swap(value, order)
            }

            // The fence comes before it is known whether the exchange fails; failing is ordered like succeeding here.
            pub(crate) fn compare_exchange(
                &self,
                from: $of,
                to: $of,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$of, $of> {
                fence_before(success);
                self.0.compare_exchange(from, to, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

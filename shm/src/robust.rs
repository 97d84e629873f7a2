//! A thread's last word, said by the kernel: when a thread ends, however it ends, the kernel walks its robust list and
//! marks every futex word in it that carries the thread's id. A shard's thread puts its line of the [`Beacon`] there.
//!
//! A thread has one such list. The C library registers one for its robust mutexes; the thread that calls this uses
//! none, so replacing it takes nothing away.

use crate::beacon::Beacon;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

/// `struct robust_list` of `linux/futex.h`: a circular list through the head.
#[repr(C)]
struct Node {
    next: *const Node,
}

/// `struct robust_list_head`.
#[repr(C)]
struct Head {
    list: Node,
    /// Where the futex word lies, seen from a node.
    offset: libc::c_long,
    pending: *const Node,
}

/// While it lives, the death of the thread that made it is shown by its shard's line of the beacon. Dropping it, which
/// only that thread can do, says that the thread ends in order.
pub struct LastWord {
    /// Keeps the word mapped.
    beacon: Arc<Beacon>,
    shard: u16,
    /// The list, which the kernel reads when the thread ends; boxed, so that it does not move. `None` never, but while
    /// dropping.
    list: Option<Box<(Head, Node)>>,
    /// Not Send: the list is this thread's.
    thread: PhantomData<*const ()>,
}

impl fmt::Debug for LastWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastWord").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl LastWord {
    /// From now on the calling thread's death is seen in its shard's line.
    ///
    /// # Errors
    /// What the kernel said (a sandbox may forbid the call). The line is lit all the same, and then only the stamp tells
    /// of an end, in order or not.
    pub fn new(beacon: Arc<Beacon>, shard: u16) -> io::Result<LastWord> {
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut list = Box::new((
            Head { list: Node { next: ptr::null() }, offset: 0, pending: ptr::null() },
            Node { next: ptr::null() },
        ));
        let (head, node) = (&raw const list.0.list, &raw const list.1);
        (list.0.list.next, list.1.next) = (node, head);
        let word = (&raw const beacon.line(shard).alive).addr();
        // The kernel adds it to the node's address, modulo 2⁶⁴: the word may lie on either side.
        list.0.offset = word.wrapping_sub(node.addr()).cast_signed() as libc::c_long;
        // In this order, so that a line that is lit is one that the kernel will mark; a death in between leaves it dark.
        let registered = register(&raw const list.0);
        beacon.light(shard, thread);
        registered?;
        Ok(LastWord { beacon, shard, list: Some(list), thread: PhantomData })
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        self.beacon.extinguish(self.shard);
        // The list goes away with this; the thread goes on with none.
        if register(ptr::null()).is_err() {
            // A sandbox entered since forbids it: a list that stays registered stays in memory, and so does its word,
            // which is no longer the thread's id, so that the kernel marks nothing.
            std::mem::forget((self.list.take(), Arc::clone(&self.beacon)));
        }
    }
}

#[expect(unsafe_code, reason = "set_robust_list has no safe wrapper")]
fn register(head: *const Head) -> io::Result<()> {
    // SAFETY: the kernel keeps the address and reads it when this thread ends. The list it names is valid, circular and
    // boxed, and stays so until `LastWord::drop`, on this same thread, has replaced it by none.
    let outcome = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

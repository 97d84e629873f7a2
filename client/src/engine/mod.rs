//! Drives sessions with real sockets, clocks and threads.
//!
//! Whoever waits, reads. A thread that acquires writes its own frame and then reads the socket itself; there is no
//! hop over another thread on that path. While it reads it also settles what others asked. One thread per client, the
//! *tender*, does what nobody waits for: keepalives, the end of the lease, new connections, and reading when no thread
//! in the foreground does.
//!
//! **Why no reply is left unread and nobody sleeps for ever.** Each lane (connection to one shard) has at most one
//! foreground reader, marked under the lane's lock. A thread that finds the place taken parks and is unparked by
//! whoever settles its request, or when the reader leaves: a leaving reader unparks one parked thread of its lane, which
//! then finds the place free. When none is parked, the lane is *covered* by the tender, in one of three ways, also
//! written under the lane's lock: `Watched` (it polls the socket), `Napping` (it comes by within `NAP` and then
//! watches unless foreground threads are coming and going), `Called` (it sleeps as long as it likes, because a
//! reader has been there for at least a nap; the reader rings when it leaves). So at every moment somebody polls the
//! socket, or will within one nap. Requests nobody reads for (futures) make the lane `Watched` at once. Whoever
//! settles the request of a reader that is polling rings that lane's bell, which every reader polls beside the
//! socket. The end of the lease settles every request, so even a silent server keeps nobody longer than D.
//!
//! **Through shared memory** the same holds, with a word of the segment in the place of the socket's readiness: it tells
//! the server whom to wake. It is written only by the one whose turn it is under the lane's lock: by the reader
//! (`Looking`, or `Futex` while it sleeps), and by the tender, when there is no reader and it watches (`Socket`: a byte on
//! the socket). While the tender naps it says `Looking`, and nobody is woken. Whoever announces that he sleeps looks at
//! the ring once more. The socket's end is the connection's; the tender polls for it always.

pub(crate) mod core;
mod foreground;
mod lane;
mod nodes;
mod opening;
mod reassert;
mod session;
mod slot;
mod spares;
mod tender;
mod waiting;

pub(crate) use core::{Anchor, Core};
pub(crate) use foreground::{
    Wish, ask_for, ask_share, ask_to_convert, await_slot, cancel, give_back, share, undo,
};
pub(crate) use session::Session;
pub(crate) use slot::{Outcome, Slot};

//! `run`: a command that never overlaps the next holder of its lock.
//!
//! Four processes, each with one reason to exist:
//!
//! ```text
//! shell ─ front ─ supervisor ─ gate ─ command
//!         │        │            │      own process group, the terminal's session
//!         │        │            own group, the terminal's session
//!         │        session of its own, child subreaper, owns the lock and the timers
//!         what the shell started: signals in, exit code out, lends the terminal
//! ```
//!
//! - The **supervisor** cannot be frozen with the terminal or the job (its session is its own), and every descendant
//!   of the command stays below it whatever it does (subreaper), so it can end all of them and knows when they are
//!   gone. It lives on when the front is killed.
//! - The **gate** is armed before it may start the command: no command ever runs without somebody who will end it.
//!   It also is why Ctrl-Z works: a process group whose parents all live in another session is *orphaned*, and the
//!   kernel drops SIGTSTP and refuses terminal reads there. The gate is a parent in the right session. Should the
//!   supervisor be killed, the gate ends the command.
//! - Nothing here is `unsafe`: no code runs between fork and exec, descriptors travel over a socket that is the
//!   child's stdin, and the real stdin takes its place on arrival.

pub(crate) mod channel;
pub(crate) mod deadline;
pub(crate) mod descendants;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod lease;
pub(crate) mod messages;
pub(crate) mod readiness;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod supervisor;
pub(crate) mod terminal;

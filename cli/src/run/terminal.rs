//! Who may read the terminal. The command has a process group of its own, so the foreground must be lent to it, and
//! taken back when it stops or ends.
//!
//! It is lent at the start only when nobody else of the job can want it: stdin is the terminal and stdout is no pipe.
//! In `fairlock run x -- list | less` the pager reads the terminal; there the command gets it when the kernel stops
//! it for asking (SIGTTIN, SIGTTOU), as sudo does.
//!
//! Only a member of the foreground group may give the terminal away without being stopped itself, and ignoring
//! SIGTTOU needs `unsafe`. So taking it back is done by a short-lived process of ours *inside* the command's group.

use super::spawn;
use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, getpgrp};
use rustix::stdio;
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

/// Times the way back is tried: the process that does it can be hit by a signal meant for the command's group.
const TRIES: usize = 2;

/// The terminal this job belongs to.
#[derive(Debug)]
pub(crate) struct Terminal {
    tty: File,
    /// The group it was lent to.
    lent_to: Option<Pid>,
}

impl Terminal {
    /// The controlling terminal; `None` without one.
    pub(crate) fn controlling() -> Option<Terminal> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        tcgetpgrp(&tty).ok()?;
        Some(Terminal { tty, lent_to: None })
    }

    /// Whether our own group is in the foreground.
    pub(crate) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|group| group == getpgrp())
    }

    /// Whether it is lent at present.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent_to.is_some()
    }

    /// Gives the foreground to `group`, when it is ours to give; says whether the group has it. It may have had it
    /// already: a command that is quick to read is stopped before the terminal was lent to it.
    pub(crate) fn lend(&mut self, group: Pid) -> bool {
        let has_it = tcgetpgrp(&self.tty).is_ok_and(|foreground| foreground == group);
        let lent = has_it || self.is_ours() && tcsetpgrp(&self.tty, group).is_ok();
        if lent {
            self.lent_to = Some(group);
        }
        lent
    }

    /// Takes it back, if it still is where it was lent to: the shell may have moved it on.
    pub(crate) fn take_back(&mut self) {
        let Some(group) = self.lent_to.take() else { return };
        for _ in 0..TRIES {
            if !tcgetpgrp(&self.tty).is_ok_and(|foreground| foreground == group) {
                return;
            }
            let Ok(tty) = self.tty.try_clone() else { return };
            let mut giver = spawn::again();
            giver.arg("internal-terminal").arg(getpgrp().as_raw_pid().to_string());
            giver.stdin(Stdio::from(tty)).stdout(Stdio::null()).stderr(Stdio::null());
            let Ok(mut giver) = giver.process_group(group.as_raw_pid()).spawn() else { return };
            // It does one system call; nothing it could wait for.
            let _ = giver.wait();
        }
    }
}

/// Whether the terminal is lent before the command asks for it.
pub(crate) fn is_wanted_at_once() -> bool {
    let piped =
        fstat(stdio::stdout()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    isatty(stdio::stdin()) && !piped
}

/// The short-lived process: gives the terminal that is its stdin to `group`.
pub(crate) fn give(group: i32) -> u8 {
    let given = Pid::from_raw(group).is_some_and(|group| tcsetpgrp(stdio::stdin(), group).is_ok());
    u8::from(!given)
}

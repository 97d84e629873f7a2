//! A process that ends with the one that started it, whatever ends that one: it asks the kernel for a signal at its parent's
//! death and becomes the command it was given. So what a demo starts is gone with it, also after `kill -9`.

use crate::args::LeashArgs;
use crate::failure;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes the command; returns only when that cannot be.
pub(crate) fn leash(order: &LeashArgs) -> u8 {
    // KILL: a node must not hand over, or write the end of its cell down, because the show is over.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return failure::INTERNAL;
    }
    // It may have died before the kernel knew.
    let parent = getppid().and_then(|parent| u32::try_from(parent.as_raw_pid()).ok());
    if parent != Some(order.parent) {
        return failure::INTERNAL;
    }
    let Some((program, arguments)) = order.command.split_first() else { return failure::USAGE };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("fairlock: cannot start {}: {error}", program.to_string_lossy());
    if error.kind() == std::io::ErrorKind::NotFound { failure::NOT_FOUND } else { failure::NOT_EXECUTABLE }
}

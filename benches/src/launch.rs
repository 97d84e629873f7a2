//! Starts a program in a network of its own, on a leash: it dies with this program, whatever ends it, so that a run that is
//! killed leaves no server behind. The launcher is this program itself, started with the word `launch`, that becomes the other.
//!
//! The kernel ties the leash to the *thread* that starts the program: what shall last is started by the main thread.

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The word that makes a benchmark program a launcher.
const WORD: &str = "launch";
/// Instead of a namespace: where the program is already.
const HERE: &str = "-";

/// The command that starts a program in a network namespace, or where this program is.
///
/// # Errors
/// What the system says.
pub fn command(program: impl AsRef<OsStr>, namespace: Option<&Path>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(WORD).arg(namespace.map_or(OsStr::new(HERE), Path::as_os_str)).arg(program);
    Ok(command)
}

/// Becomes another program when the command line says so.
pub fn perhaps() {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_none_or(|word| word != WORD) {
        return;
    }
    let (Some(namespace), Some(program)) = (words.next(), words.next()) else { std::process::exit(64) };
    let error =
        if let Err(error) = prepare(&namespace) { error } else { Command::new(&program).args(words).exec() };
    eprintln!("cannot start {}: {error}", program.to_string_lossy());
    std::process::exit(71);
}

fn prepare(namespace: &OsStr) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if namespace == HERE { Ok(()) } else { enter(Path::new(namespace)) }
}

/// Moves the calling thread, and what it starts from now on, into a network namespace.
///
/// # Errors
/// What the system says.
pub fn enter(namespace: &Path) -> io::Result<()> {
    let file = File::open(namespace)?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

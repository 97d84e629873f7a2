//! Starting this very program again, in another role, with the same command line.

use rustix::fd::OwnedFd;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The running program, also when its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The option that tells the roles apart.
const ROLE_OPTION: &str = "--internal-role";

/// This program with the same command line, as `role`, with one end of a channel as stdin.
pub(crate) fn in_role(role: &str, stdin: OwnedFd) -> Command {
    let own_option =
        |argument: &OsString| argument.to_str().is_some_and(|text| text.starts_with(ROLE_OPTION));
    let mut command = again();
    command.arg(format!("{ROLE_OPTION}={role}")).stdin(Stdio::from(stdin));
    // The role stands first, where nothing of the command to run can be mistaken for it.
    let given: Vec<OsString> = env::args_os().skip(1).collect();
    let skip = usize::from(given.first().is_some_and(own_option));
    command.args(given.into_iter().skip(skip));
    command
}

/// This program, with nothing said yet.
pub(crate) fn again() -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(env::args_os().next().unwrap_or_else(|| "fairlock".into()));
    command
}

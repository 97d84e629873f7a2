//! `completions`: the completion script of a shell, made from the command line's own description.

use crate::args::{CompletionsArgs, Invocation};
use crate::failure::Failure;
use crate::print;
use clap::CommandFactory;

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written to.
pub(crate) fn completions(order: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(order.shell, &mut Invocation::command(), "fairlock", &mut script);
    print::out(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

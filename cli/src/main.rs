//! The one binary: reads the command line, hands over to the command, turns what went wrong into an exit code.
//!
//! Exit codes are a contract that scripts depend on; they stand in `failure.rs` alone. Everything a person reads
//! about an error goes to stderr, everything a script reads goes to stdout.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod cluster;
mod completions;
mod doctor;
mod failure;
mod hold;
mod ls;
mod print;
mod remote;
mod run;
mod serve;
mod sessions;
mod show;
mod status;
mod takeaway;
mod verify;
mod why;

use args::{Command, Invocation, Role, SessionCommand};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = match Invocation::try_parse() {
        Ok(invocation) => invocation,
        Err(error) => return failure::of_usage(&error),
    };
    match dispatch(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

/// Runs the command; gives the exit code of one that came to its end.
fn dispatch(invocation: &Invocation) -> Result<u8, Failure> {
    let reach = &invocation.reach;
    match (&invocation.command, invocation.role) {
        (Command::Run(order), Role::Front) => run::front::run(order, reach),
        (Command::Run(order), Role::Supervisor) => Ok(run::supervisor::supervise(order, reach)),
        (Command::Run(order), Role::Gate) => Ok(run::gate::stand(order)),
        (Command::Serve(order), _) => serve::serve(order),
        (Command::Hold(order), _) => hold::hold(order, reach),
        (Command::Ls(order), _) => ls::ls(order, reach),
        (Command::Show(order), _) => show::show(order, reach),
        (Command::Why(order), _) => why::why(order, reach),
        (Command::Sessions(_), _) => sessions::sessions(reach),
        (Command::Status(_), _) => status::status(reach),
        (Command::Break(order), _) => takeaway::break_lock(order, reach),
        (Command::Session(order), _) => match &order.command {
            SessionCommand::Kill(order) => takeaway::kill_session(order, reach),
        },
        (Command::Cluster(order), _) => cluster::cluster(order, reach),
        (Command::Leash(order), _) => Ok(cluster::leash::leash(order)),
        (Command::Doctor(order), _) => doctor::doctor(order, reach),
        (Command::Bench(order), _) => bench::bench(order, reach),
        (Command::Verify(order), _) => verify::verify(order, reach),
        (Command::Completions(order), _) => completions::completions(order),
        (Command::Terminal { group }, _) => Ok(run::terminal::give(*group)),
    }
}

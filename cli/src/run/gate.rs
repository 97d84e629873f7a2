//! The gate: starts the command when the supervisor says so, not before, and tells what becomes of it. It is the
//! command's parent in the terminal's session (see `run/mod.rs`), and ends the command if the supervisor dies.
//!
//! It does not reap the command: while that is a zombie, its number stays its own, so that nobody signals a stranger
//! and the terminal can be taken back from its group. The supervisor reaps it when the gate has gone.

use super::channel::{Channel, Received};
use super::messages::{Go, Sight};
use super::readiness::{self, now};
use super::signals::Signals;
use crate::args::RunArgs;
use crate::failure;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the inherited pipe ends are put: above what scripts open by number, below what the usual limit allows.
const INHERITED_FROM: i32 = 200;
/// Between two rounds of KILL.
const KILL_ROUND: Duration = Duration::from_millis(5);

/// Stands until the command and the supervisor are through.
pub(crate) fn stand(order: &RunArgs) -> u8 {
    let Ok((supervisor, mut descriptors)) = Channel::of_stdin() else { return failure::INTERNAL };
    // Before the command is started, so that no end of it is missed.
    let Ok(signals) = Signals::catch(&[Signal::CHILD]) else { return failure::INTERNAL };
    let go = loop {
        match supervisor.wait::<Go>() {
            Received::Message(go) => break go,
            Received::Nothing => {}
            Received::Closed => return 0,
        }
    };
    if descriptors.is_empty() {
        return failure::INTERNAL;
    }
    let stdin = descriptors.remove(0);
    let started = start_in_time(order, &go, stdin, &descriptors);
    // From here on only the command's own copies keep the pipes and the standard streams open.
    drop(descriptors);
    let _ = forget_standard_streams();
    match started {
        Ok(command) => {
            let _ = supervisor.send(&Sight::Started { pid: command.as_raw_pid() });
            watch(&supervisor, &signals, command, &go);
        }
        Err(error) => {
            let (code, text) = told(order, &error);
            let _ = supervisor.send(&Sight::NotStarted { code, text });
        }
    }
    0
}

/// Executes the command unless so much time has passed since the word to do so that the lock may be another's: the
/// machine, or this process, may have slept.
fn start_in_time(order: &RunArgs, go: &Go, stdin: OwnedFd, pipes: &[OwnedFd]) -> io::Result<Pid> {
    if go.not_after_ns.is_some_and(|end| now().0 >= end) {
        return Err(ErrorKind::TimedOut.into());
    }
    start(order, go, stdin, pipes)
}

/// Executes the command: its own group, the lock's facts in its environment, the pipes' write ends inherited.
fn start(order: &RunArgs, go: &Go, stdin: OwnedFd, pipes: &[OwnedFd]) -> io::Result<Pid> {
    let (program, arguments) = order.command.split_first().ok_or(ErrorKind::InvalidInput)?;
    let mut inherited = Vec::new();
    for pipe in pipes {
        // With a low limit of open files any number must do.
        let end = fcntl_dupfd_cloexec(pipe, INHERITED_FROM).or_else(|_| fcntl_dupfd_cloexec(pipe, 3))?;
        fcntl_setfd(&end, FdFlags::empty())?;
        inherited.push(end);
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(stdin)).process_group(0);
    command.env("FAIRLOCK_NAME", &order.lock.name).env("FAIRLOCK_MODE", &go.mode);
    command.env("FAIRLOCK_FENCE", go.fence.to_string());
    match go.token {
        Some(token) => command.env("FAIRLOCK_TOKEN", token.to_string()),
        None => command.env_remove("FAIRLOCK_TOKEN"),
    };
    // The handle neither waits nor kills when it is dropped.
    Ok(Pid::from_child(&command.spawn()?))
}

/// Exit code and text for a command that could not be executed.
fn told(order: &RunArgs, error: &io::Error) -> (u8, String) {
    let program =
        order.command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    match error.kind() {
        ErrorKind::TimedOut => (failure::LOST, "the lock was lost before the command could start".to_owned()),
        ErrorKind::NotFound => (failure::NOT_FOUND, format!("{program}: not found")),
        _ => (failure::NOT_EXECUTABLE, format!("{program}: cannot be executed: {error}")),
    }
}

/// Nobody reads what this process could say, and nobody must wait for it to close what it inherited.
pub(crate) fn forget_standard_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Tells each change of the command until the supervisor has gone.
fn watch(supervisor: &Channel, signals: &Signals, command: Pid, go: &Go) {
    let mut ended = false;
    loop {
        while let Some(sight) = look(command) {
            ended = matches!(sight, Sight::Ended { .. });
            let _ = supervisor.send(&sight);
            if ended {
                break;
            }
        }
        let watched = if ended { None } else { Some(signals.as_fd()) };
        readiness::wait([Some(supervisor.as_fd()), watched], None);
        signals.take();
        if matches!(supervisor.receive::<Go>(), Received::Closed) {
            if !ended {
                end(command, go.patience_ms);
            }
            return;
        }
    }
}

/// What happened to the command since the last look. Its end is seen again and again: it is not reaped.
fn look(command: Pid) -> Option<Sight> {
    let changes = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    if let Ok(Some(status)) = waitid(WaitId::Pid(command), changes)
        && let Some(signal) = status.stopping_signal()
    {
        return Some(Sight::Stopped { signal });
    }
    let end = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(command), end).ok()??;
    if let Some(signal) = status.terminating_signal() {
        return Some(Sight::Ended { code: failure::ended_by(signal) });
    }
    let code = status.exit_status()?;
    Some(Sight::Ended { code: u8::try_from(code & 0xFF).unwrap_or(u8::MAX) })
}

/// The supervisor was killed: nobody renews the lock. The same TERM and KILL, as far apart as it would have sent them.
fn end(command: Pid, patience_ms: Option<u64>) {
    let Some(patience_ms) = patience_ms else { return };
    let _ = kill_process_group(command, Signal::TERM);
    let _ = kill_process_group(command, Signal::CONT);
    let kill_at = readiness::now().after_millis(patience_ms);
    loop {
        // Nobody else is left who could need the zombie.
        let reap = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::Pid(command), reap);
        if test_kill_process_group(command).is_err() {
            return;
        }
        if readiness::now() >= kill_at {
            let _ = kill_process_group(command, Signal::KILL);
        }
        std::thread::sleep(KILL_ROUND);
    }
}

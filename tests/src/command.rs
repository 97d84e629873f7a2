//! `fairlock` commands as child processes: run to their end, or kept and ended by process id.

use crate::{eventually, workspace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; 128 + N after signal N, as a shell counts.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// The JSON document it printed.
    ///
    /// # Panics
    /// When it printed something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: code {} {:?} {:?}", self.code, self.stdout, self.stderr))
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// An exit status as a shell counts it.
///
/// # Panics
/// Never: a process ends by exit or by signal.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().expect("a process ends by exit or by signal"))
}

/// A `fairlock` command for this endpoint, not yet started.
pub fn fairlock<S: AsRef<OsStr>>(endpoint: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(workspace::fairlock());
    command.args(arguments).stdin(Stdio::null());
    command.env("FAIRLOCK_ENDPOINT", endpoint).env("NO_COLOR", "1");
    command
}

/// Runs a `fairlock` command to its end.
///
/// # Panics
/// When it hangs.
pub fn finish<S: AsRef<OsStr>>(endpoint: &str, arguments: impl IntoIterator<Item = S>) -> Finished {
    let mut command = fairlock(endpoint, arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command).finish()
}

/// A command that runs; dropping it kills it.
#[derive(Debug)]
pub struct Running(Option<Child>);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Running {
        Running(Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("only taken at its end")
    }

    /// Its process.
    ///
    /// # Panics
    /// After its end.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.0.as_ref().expect("only taken at its end"))
    }

    /// Sends it a signal; one that is gone already gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Its stdin, to write to or to close.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child().stdin.take()
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// When its stdout is not piped.
    pub fn line(&mut self) -> String {
        use std::io::Read;
        let stdout = self.child().stdout.as_mut().expect("piped");
        let (mut line, mut byte) = (Vec::new(), [0]);
        while matches!(stdout.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// Never: it is our child.
    pub fn is_running(&mut self) -> bool {
        self.child().try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it hangs.
    pub fn wait(&mut self) -> i32 {
        code(eventually("the command ends", || self.child().try_wait().expect("it is our child")))
    }

    /// Waits for its end and takes what it printed (short texts only).
    ///
    /// # Panics
    /// When it hangs.
    pub fn finish(mut self) -> Finished {
        self.wait();
        let child = self.0.take().expect("only taken here");
        child.wait_with_output().expect("it has ended").into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! What ends a command early: an exit code that scripts depend on, what happened, and what to do next.
//!
//! This is the only place that knows the numbers.

use fairlock_protocol::Refusal;
use std::fmt;
use std::process::ExitCode;

/// A history shows a broken promise.
pub(crate) const BROKEN_PROMISE: u8 = 1;
/// The command line was not understood, or a name or number on it is not one.
pub(crate) const USAGE: u8 = 64;
/// A history cannot be read.
pub(crate) const UNREADABLE: u8 = 65;
/// No such lock or session.
pub(crate) const NOTHING_THERE: u8 = 66;
/// No server answers, or `serve` cannot listen.
pub(crate) const NO_SERVER: u8 = 69;
/// A fault of this program or of the system below it.
pub(crate) const INTERNAL: u8 = 70;
/// The lock was not acquired in time.
pub(crate) const NOT_IN_TIME: u8 = 75;
/// The lock was lost while it was in use.
pub(crate) const LOST: u8 = 76;
/// The rules of the server do not allow it.
pub(crate) const DENIED: u8 = 77;
/// Bad configuration or state directory.
pub(crate) const CONFIGURATION: u8 = 78;
/// The command exists but cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub(crate) const NOT_FOUND: u8 = 127;

/// The exit code of something that signal number `signal` ended.
pub(crate) fn ended_by(signal: i32) -> u8 {
    u8::try_from(128_i32.saturating_add(signal)).unwrap_or(u8::MAX)
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What happened, lower case, one line.
    pub(crate) text: String,
    /// What to do next, where that is not obvious.
    pub(crate) advice: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), advice: None }
    }

    /// Something the system refused.
    pub(crate) fn system(what: &str, error: &impl fmt::Display) -> Failure {
        Failure::new(INTERNAL, format!("cannot {what}: {error}"))
    }

    /// The same, with what to do next.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Failure {
        self.advice = Some(advice.into());
        self
    }

    /// A refusal by the server.
    pub(crate) fn refused(refusal: Refusal, detail: &str) -> Failure {
        let text = if detail.is_empty() { refusal.to_string() } else { format!("{refusal} ({detail})") };
        Failure::new(code_of(refusal), text)
    }

    /// Prints it for a person.
    pub(crate) fn tell(&self) {
        eprintln!("fairlock: {}", self.text);
        if let Some(advice) = &self.advice {
            eprintln!("  {advice}");
        }
    }
}

/// The exit code that tells a script the same as this refusal.
pub(crate) fn code_of(refusal: Refusal) -> u8 {
    match refusal {
        // A full queue or a victim of a deadlock did not get the lock now and may later: that is what 75 says.
        Refusal::WouldBlock
        | Refusal::Timeout
        | Refusal::Cancelled
        | Refusal::Deadlock
        | Refusal::QueueFull
        | Refusal::Quota
        | Refusal::Busy
        | Refusal::Recovering
        | Refusal::Draining => NOT_IN_TIME,
        Refusal::BadName | Refusal::TooLong => USAGE,
        Refusal::NotFound | Refusal::NotHeld | Refusal::SessionUnknown | Refusal::NoNamespace => {
            NOTHING_THERE
        }
        Refusal::Unauthenticated | Refusal::Denied => DENIED,
        Refusal::LeaseGuard | Refusal::SessionExpired | Refusal::SessionReplaced => LOST,
        Refusal::Unavailable | Refusal::NotPrimary | Refusal::EpochChanged | Refusal::Version => NO_SERVER,
        _ => INTERNAL,
    }
}

/// Prints what clap has to say; help and version are answers (0), everything else is a usage error (64).
pub(crate) fn of_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    // Nothing sensible is left to do when the terminal itself cannot be written to.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_an_exit_code_that_means_failure() {
        for &refusal in Refusal::ALL {
            assert!((64..=78).contains(&code_of(refusal)), "{refusal}");
        }
        assert_eq!(code_of(Refusal::Timeout), 75);
        assert_eq!(code_of(Refusal::BadName), 64);
        assert_eq!(code_of(Refusal::Denied), 77);
    }

    #[test]
    fn a_signal_is_told_as_shells_tell_it() {
        assert_eq!(ended_by(15), 143);
        assert_eq!(ended_by(2), 130);
        assert_eq!(ended_by(9), 137);
    }
}

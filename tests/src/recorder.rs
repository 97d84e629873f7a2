//! Writes a history while a program uses locks: every event is one `write` to a file opened for appending, so that
//! whatever kills the program leaves whole lines behind, and at most half a last one.
//!
//! A moment of something done is read before it, a moment of something learned after it; docs/histories.md has the rest.

use crate::boottime_ns;
use fairlock::{AcquireError, Guard, LostCause, Mode, ReleaseError};
use fairlock_cli::history::{Event, What};
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One client's history. Several threads may write.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    client: String,
    /// Only its uniqueness matters; pairs with nothing.
    requests: AtomicU64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Name of the lock.
    pub name: &'a str,
    /// Mode.
    pub mode: Mode,
    /// For whom inside of the client; 0 is nobody in particular.
    pub owner: u64,
    /// How long it waits; `None` is for ever.
    pub wait: Option<Duration>,
}

/// A guard whose history is written.
#[derive(Debug)]
pub struct Recorded<'a> {
    recorder: &'a Recorder,
    request: u64,
    guard: Option<Guard>,
}

impl Recorder {
    /// Appends to this file, in the name of this client.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn new(path: &Path, client: impl Into<String>) -> Recorder {
        let file = File::options().create(true).append(true).open(path).expect("the history can be written");
        Recorder { file, client: client.into(), requests: AtomicU64::new(0) }
    }

    /// Writes one event.
    ///
    /// # Panics
    /// When the file cannot be written: a history with a gap proves nothing.
    pub fn note(&self, at_ns: u64, what: What<'_>) {
        self.note_of(&self.client, at_ns, what);
    }

    fn note_of(&self, client: &str, at_ns: u64, what: What<'_>) {
        let line = Event { at_ns, client: client.into(), what }.line();
        (&self.file).write_all(line.as_bytes()).expect("the history can be written");
    }

    /// The client has a session.
    pub fn open(&self, heartbeat: bool) {
        self.note(boottime_ns(), What::Open { heartbeat });
    }

    /// The client is about to close its session.
    pub fn closed(&self) {
        self.note(boottime_ns(), What::Closed);
    }

    /// Another client is about to be killed, or this one to crash.
    pub fn killed(&self, client: &str) {
        self.note_of(client, boottime_ns(), What::Killed);
    }

    /// This client is about to crash.
    pub fn crashing(&self) {
        self.killed(&self.client);
    }

    /// Something befell the server.
    pub fn server(&self, what: &str, memory_lost: bool) {
        let what = What::Server { node: Cow::Borrowed("server"), what: what.into(), memory_lost };
        self.note(boottime_ns(), what);
    }

    /// Asks, and writes down what came of it.
    ///
    /// # Errors
    /// What `ask` met.
    pub fn acquire(
        &self,
        wish: Wish<'_>,
        ask: impl FnOnce() -> Result<Guard, AcquireError>,
    ) -> Result<Recorded<'_>, AcquireError> {
        let request = 1 + self.requests.fetch_add(1, Ordering::Relaxed);
        let what = What::Acquire {
            request,
            namespace: "default".into(),
            name: wish.name.as_bytes().into(),
            mode: wish.mode,
            owner: wish.owner,
            wait_ms: wish.wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        self.note(boottime_ns(), what);
        match ask() {
            Ok(guard) => Ok(self.granted(request, guard)),
            Err(error) => {
                let code = Cow::Borrowed(error.refusal().name());
                // A session that ended while it waited, or a server that did not answer, leaves it open what was done.
                let what = match error {
                    AcquireError::Refused(_) | AcquireError::Deadlock(_) => What::Refused { request, code },
                    _ => What::Unknown { request, code },
                };
                self.note(boottime_ns(), what);
                Err(error)
            }
        }
    }

    fn granted(&self, request: u64, guard: Guard) -> Recorded<'_> {
        let at_ns = boottime_ns();
        let what = What::Granted {
            request,
            token: guard.try_token().map(fairlock::FencingToken::get),
            fence: guard.mode().is_fenced().then(|| guard.fence()),
            waited_ns: ns(guard.waited()),
            until_ns: until(&guard, at_ns).unwrap_or(at_ns),
            session: Cow::Borrowed(""),
        };
        self.note(at_ns, what);
        Recorded { recorder: self, request, guard: Some(guard) }
    }

    fn lost(&self, request: u64, cause: LostCause) {
        self.note(boottime_ns(), What::Lost { request, lease: cause == LostCause::Lease });
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// D as far as it is certain: the guard reads its clock after `at_ns`.
fn until(guard: &Guard, at_ns: u64) -> Option<u64> {
    guard.valid_until().map(|remaining| at_ns.saturating_add(ns(remaining)))
}

impl Recorded<'_> {
    fn guard(&self) -> &Guard {
        self.guard.as_ref().expect("taken only at its end")
    }

    /// Looks whether it is valid, and writes down until when.
    pub fn check(&self) -> bool {
        let at_ns = boottime_ns();
        let until_ns = until(self.guard(), at_ns);
        match until_ns {
            Some(until_ns) => self.recorder.note(at_ns, What::Valid { request: self.request, until_ns }),
            None => self.note_loss(),
        }
        until_ns.is_some()
    }

    fn note_loss(&self) {
        if let Err(fairlock::GuardError::Lost(cause)) = self.guard().check() {
            self.recorder.lost(self.request, cause);
        }
    }

    /// Changes the mode, waiting at most this long; says whether it is the new one.
    pub fn convert(&mut self, mode: Mode, wait: Duration) -> bool {
        let request = self.request;
        self.recorder.note(boottime_ns(), What::Convert { request, mode });
        let guard = self.guard.as_mut().expect("taken only at its end");
        let outcome = guard.convert_wait(mode, wait);
        let at_ns = boottime_ns();
        let what = What::Converted {
            request,
            mode: guard.mode(),
            token: guard.try_token().map(fairlock::FencingToken::get),
            fence: guard.mode().is_fenced().then(|| guard.fence()),
        };
        match &outcome {
            Err(fairlock::ConvertError::Lost(cause)) => self.recorder.lost(request, *cause),
            // Not known, and so left open until the release.
            Err(fairlock::ConvertError::Unanswered { .. }) => {}
            _ => self.recorder.note(at_ns, what),
        }
        outcome.is_ok()
    }

    /// Gives it back.
    pub fn release(mut self) {
        self.give_back();
    }

    fn give_back(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        self.recorder.note(boottime_ns(), What::Release { request: self.request });
        if let Err(ReleaseError::Lost(cause)) = guard.release() {
            self.recorder.lost(self.request, cause);
        }
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

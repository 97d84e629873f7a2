//! A thread that tells when the configuration in an etcd changes.
//!
//! It reads, then streams what comes behind what was read. Now and then it reads again and begins another stream, so one
//! that died without a word is noticed; and at once when etcd has compacted away what was asked for. In trouble it says
//! once that it is blind and why, and tries again ever more slowly, at least once a second.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use fairlock_replication::{Revision, Stored, Watched};

use super::etcd::{Etcd, Settings, Watching};
use super::gateway::{self, News};
use super::http::{self, Response};
use super::trouble::Trouble;

/// How long a stream is read before it is renewed.
const STREAM_TIME: Duration = Duration::from_secs(10);
/// First and longest pause after a trouble.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A running watch; ends when dropped, and tells nothing afterwards.
pub struct Watch {
    end: Arc<End>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.come();
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its thread; here is nobody to pass it on to.
            let _ = thread.join();
        }
    }
}

impl Watch {
    /// A watch of what nobody else can change.
    pub(super) fn idle() -> Watch {
        Watch { end: Arc::default(), thread: None }
    }

    /// Starts to watch.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start(
        settings: &Settings,
        told: impl FnMut(Watched) + Send + 'static,
    ) -> io::Result<Watch> {
        let end: Arc<End> = Arc::default();
        let (etcd, theirs) = (Etcd::new(settings), Arc::clone(&end));
        let mut watcher = Watcher { etcd, end: theirs, told, said: None };
        let thread =
            std::thread::Builder::new().name("register-watch".into()).spawn(move || watcher.run())?;
        Ok(Watch { end, thread: Some(thread) })
    }
}

/// How a watch is ended from elsewhere while it waits, asleep or for a stream.
#[derive(Default)]
struct End {
    state: Mutex<EndState>,
    came: Condvar,
}

#[derive(Default)]
struct EndState {
    came: bool,
    /// The stream that is being read.
    stream: Option<TcpStream>,
}

impl End {
    fn lock(&self) -> std::sync::MutexGuard<'_, EndState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self) {
        let mut state = self.lock();
        state.came = true;
        if let Some(stream) = &state.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.came.notify_all();
    }

    fn has_come(&self) -> bool {
        self.lock().came
    }

    /// Sleeps, but not beyond the end.
    fn sleep(&self, pause: Duration) {
        let slept = self.came.wait_timeout_while(self.lock(), pause, |state| !state.came);
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    /// Names the stream that is read from now on; `false`: the end has come already.
    fn reading(&self, stream: Option<TcpStream>) -> bool {
        let mut state = self.lock();
        state.stream = stream;
        !state.came
    }
}

/// The last that was told.
enum Said {
    Value(Option<Revision>),
    Blind,
}

struct Watcher<F> {
    etcd: Etcd,
    end: Arc<End>,
    told: F,
    said: Option<Said>,
}

/// Why a stream is over.
enum Over {
    /// Read again at once: its time is over, or what it asked for is compacted.
    Renew,
    /// A trouble, which reading again will show, or not.
    Ended(String),
}

impl<F: FnMut(Watched)> Watcher<F> {
    fn run(&mut self) {
        let mut pause = PAUSE_MIN;
        while !self.end.has_come() {
            let begun = Instant::now();
            match self.look() {
                Ok(Over::Renew) => {
                    pause = PAUSE_MIN;
                    // What is compacted again and again must not make us spin.
                    if begun.elapsed() < PAUSE_MIN {
                        self.end.sleep(PAUSE_MIN);
                    }
                    continue;
                }
                Ok(Over::Ended(why)) => self.tell_blind(why),
                Err(trouble) => self.tell_blind(trouble.to_string()),
            }
            // One that lasted is no repeated trouble.
            if begun.elapsed() > STREAM_TIME {
                pause = PAUSE_MIN;
            }
            self.end.sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads, and streams what comes after.
    fn look(&mut self) -> Result<Over, Trouble> {
        let found = self.etcd.find()?;
        self.tell(found.stored);
        let from = Revision(found.revision.0 + 1);
        let watching = self.etcd.watch(from, Instant::now() + STREAM_TIME)?;
        self.follow(watching)
    }

    fn follow(&mut self, mut watching: Watching) -> Result<Over, Trouble> {
        let Ok(handle) = watching.stream.handle() else {
            return Ok(Over::Ended(
                "no descriptor is left for a watch: raise the limit (ulimit -n)".to_owned(),
            ));
        };
        if !self.end.reading(Some(handle)) {
            return Ok(Over::Renew);
        }
        let over = self.read_lines(watching);
        self.end.reading(None);
        over
    }

    fn read_lines(&mut self, watching: Watching) -> Result<Over, Trouble> {
        let endpoint = watching.endpoint;
        let response = match Response::read(BufReader::new(watching.stream)) {
            Ok(response) => response,
            Err(error) => return ended(&endpoint, &error),
        };
        if response.status != 200 {
            let body = response.body().unwrap_or_default();
            return Err(refused(&endpoint, &body));
        }
        let mut lines = BufReader::new(response);
        loop {
            let mut line = Vec::new();
            match (&mut lines).take(http::BODY_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return ended(&endpoint, &io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return ended(&endpoint, &error),
            }
            let Ok(line) = serde_json::from_slice(&line) else {
                return ended(
                    &endpoint,
                    &io::Error::new(io::ErrorKind::InvalidData, "a watch that is not JSON"),
                );
            };
            match gateway::news(&line).map_err(|unusable| self.etcd.unusable(&unusable))? {
                News::Nothing => {}
                News::Changed(stored) => self.tell(stored),
                News::Compacted => return Ok(Over::Renew),
                News::Ended(code, why) => return Err(Trouble::said(&endpoint, code, &why)),
            }
        }
    }

    fn tell(&mut self, stored: Option<Stored>) {
        let revision = stored.as_ref().map(|stored| stored.revision);
        let known = matches!(self.said, Some(Said::Value(said)) if said == revision);
        if !known && !self.end.has_come() {
            self.said = Some(Said::Value(revision));
            (self.told)(Watched::Value(stored));
        }
    }

    fn tell_blind(&mut self, why: String) {
        if !matches!(self.said, Some(Said::Blind)) && !self.end.has_come() {
            self.said = Some(Said::Blind);
            (self.told)(Watched::Blind(why));
        }
    }
}

/// What the end of a stream means: one whose time is over is renewed, anything else is a trouble.
fn ended(endpoint: &str, error: &io::Error) -> Result<Over, Trouble> {
    match error.kind() {
        io::ErrorKind::TimedOut => Ok(Over::Renew),
        io::ErrorKind::InvalidData => Err(Trouble::silent(endpoint, error)),
        _ => Ok(Over::Ended(format!("the watch at {endpoint} ended ({error}); it begins again by itself"))),
    }
}

/// Why a watch was refused.
fn refused(endpoint: &str, body: &[u8]) -> Trouble {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match gateway::error(&answer) {
        Some((code, message)) => Trouble::said(endpoint, code, message),
        None => {
            Trouble::silent(endpoint, &io::Error::new(io::ErrorKind::InvalidData, "a watch that is refused"))
        }
    }
}

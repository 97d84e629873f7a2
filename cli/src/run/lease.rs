//! The lock of one command, between the client library and a loop that must never wait: whatever may block happens on
//! threads of its own and comes back as an event.
//!
//! Recalls (an operator's `break` or `session kill`) are special: the guard is lost, but the next holder enters only
//! when the guard is given back, which is after the command has gone.

use super::deadline::Standing;
use crate::args::{LockTerms, Reach};
use crate::failure::{self, Failure};
use crate::print::duration::human;
use crate::print::text::printable;
use crate::remote;
use fairlock::{AcquireError, Canceller, Client, Guard, GuardError, LostCause, Notice, Refusal};
use fairlock_protocol::{Liveness, Tick};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What happened to the lock.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is held.
    Granted(Box<Held>),
    /// It is not, and will not be.
    Refused(Failure),
    /// An operator wants it back; with `true` the next holder is in already.
    Recalled(bool),
    /// Something changed about the session: look at the guard.
    Changed,
    /// It was given back.
    Released,
}

/// How it is asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The resource's name.
    pub(crate) name: Vec<u8>,
    /// What others see.
    pub(crate) label: String,
    /// What keeps it.
    pub(crate) liveness: Option<Liveness>,
    /// With `inherit`: the read end of the pipe that keeps it.
    pub(crate) pipe: Option<OwnedFd>,
    /// Whether a recall is confirmed only when the lock is given back, rather than at once.
    pub(crate) confirm_late: bool,
}

/// Where events come from: a queue and something to poll for.
#[derive(Clone, Debug)]
struct Post {
    events: Sender<Event>,
    wake: Arc<UnixStream>,
}

impl Post {
    fn send(&self, event: Event) {
        // Whoever no longer listens needs no news; a full wake-up socket wakes just as well.
        let _ = self.events.send(event);
        let _ = (&*self.wake).write(&[1]);
    }
}

/// Whether the request was withdrawn, and how to do it once it is under way.
#[derive(Debug, Default)]
struct Withdrawal {
    withdrawn: bool,
    canceller: Option<Canceller>,
}

/// A request for a lock, under way or granted.
#[derive(Debug)]
pub(crate) struct Lease {
    events: Receiver<Event>,
    woken: UnixStream,
    post: Post,
    withdrawal: Arc<Mutex<Withdrawal>>,
}

impl Lease {
    /// Connects and asks, on a thread.
    ///
    /// # Errors
    /// What making a socket pair or a thread met.
    pub(crate) fn request(terms: &LockTerms, reach: &Reach, wish: Wish) -> io::Result<Lease> {
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let (sender, events) = mpsc::channel();
        let post = Post { events: sender, wake: Arc::new(wake) };
        let withdrawal = Arc::new(Mutex::new(Withdrawal::default()));
        let asker = Asker {
            post: post.clone(),
            withdrawal: Arc::clone(&withdrawal),
            reach: reach.clone(),
            namespace: terms.namespace.clone(),
            mode: terms.mode(),
            priority: terms.priority,
            wait: terms.wait(),
            ttl: terms.ttl,
            wish,
        };
        thread::Builder::new().name("acquire".to_owned()).spawn(move || asker.ask())?;
        Ok(Lease { events, woken, post, withdrawal })
    }

    /// The next thing that happened.
    pub(crate) fn event(&self) -> Option<Event> {
        let mut sink = [0; 16];
        while matches!((&self.woken).read(&mut sink), Ok(1..)) {}
        self.events.try_recv().ok()
    }

    /// Withdraws the request; the answer comes as an event.
    pub(crate) fn withdraw(&self) {
        let mut withdrawal = self.withdrawal.lock().unwrap_or_else(PoisonError::into_inner);
        withdrawal.withdrawn = true;
        if let Some(canceller) = &withdrawal.canceller {
            canceller.cancel();
        }
    }

    /// Gives the lock back and ends the session, on a thread; [`Event::Released`] tells when the server knows.
    pub(crate) fn release(&self, held: Held) {
        let post = self.post.clone();
        let give_back = move || {
            // Lost before is told elsewhere; here everything there is to do has been done.
            let _ = held.guard.release();
            held.client.close();
            post.send(Event::Released);
        };
        if thread::Builder::new().name("release".to_owned()).spawn(give_back).is_err() {
            // The guard was dropped with the closure: it is given back without being waited for.
            self.post.send(Event::Released);
        }
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// A held lock and its session.
#[derive(Debug)]
pub(crate) struct Held {
    /// The session.
    pub(crate) client: Client,
    /// The lock.
    pub(crate) guard: Guard,
    recalled: bool,
    forced: bool,
    /// The last deadline seen: a lost guard no longer tells.
    end: Tick,
}

impl Held {
    /// An operator wants it back.
    pub(crate) fn recall(&mut self, forced: bool) {
        self.recalled = true;
        self.forced |= forced;
    }

    /// How the guard stands at `now`, a moment read before this call, so that the deadline is never over-stated.
    pub(crate) fn standing(&mut self, now: Tick) -> Standing {
        let left = self.guard.valid_until();
        if let Some(left) = left {
            self.end = self.end.max(now.after(left));
        }
        let asked_back = matches!(self.lost(), Some(LostCause::Broken | LostCause::Killed));
        match left {
            _ if self.forced => Standing::Gone,
            _ if self.recalled || asked_back => Standing::Recalled(self.end),
            Some(_) => Standing::Held(self.end),
            None => Standing::Gone,
        }
    }

    fn lost(&self) -> Option<LostCause> {
        match self.guard.check() {
            Err(GuardError::Lost(cause)) => Some(cause),
            _ => None,
        }
    }

    /// Why it was lost, for a person.
    pub(crate) fn lost_because(&self) -> String {
        match self.lost() {
            Some(cause) => cause.to_string(),
            None if self.recalled => LostCause::Broken.to_string(),
            None => "its lease was about to end and could not be renewed".to_owned(),
        }
    }
}

/// The thread that may wait.
#[derive(Debug)]
struct Asker {
    post: Post,
    withdrawal: Arc<Mutex<Withdrawal>>,
    reach: Reach,
    namespace: String,
    mode: fairlock::Mode,
    priority: u8,
    wait: Option<Duration>,
    ttl: Option<Duration>,
    wish: Wish,
}

impl Asker {
    fn ask(mut self) {
        let post = self.post.clone();
        let event = match self.acquire() {
            Ok(held) => Event::Granted(Box::new(held)),
            Err(failure) => Event::Refused(failure),
        };
        post.send(event);
    }

    fn acquire(&mut self) -> Result<Held, Failure> {
        let client = self.connect()?;
        let mut request = client.lock(&self.wish.name).namespace(self.namespace.as_str()).mode(self.mode);
        request = request.priority(self.priority);
        if let Some(wait) = self.wait.filter(|wait| !wait.is_zero()) {
            request = request.wait(wait);
        }
        {
            let mut withdrawal = self.withdrawal.lock().unwrap_or_else(PoisonError::into_inner);
            if withdrawal.withdrawn {
                client.close();
                return Err(Failure::refused(Refusal::Cancelled, ""));
            }
            withdrawal.canceller = Some(request.canceller());
        }
        let is_try = self.wait.is_some_and(|wait| wait.is_zero());
        let answer = if is_try { request.try_acquire() } else { request.acquire() };
        match answer {
            Ok(guard) => {
                let end = Tick::ZERO;
                Ok(Held { client, guard, recalled: false, forced: false, end })
            }
            Err(error) => {
                client.close();
                Err(told(&error, &self.wish.name, self.wait))
            }
        }
    }

    fn connect(&mut self) -> Result<Client, Failure> {
        let endpoint = remote::endpoint(&self.reach)?;
        let post = self.post.clone();
        let mut builder = Client::builder()
            .label(self.wish.label.as_str())
            .transport(remote::transport(&self.reach))
            .deadline(self.reach.deadline)
            .confirm_when_released(self.wish.confirm_late)
            .on_notice(move |notice| noticed(notice, &post));
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        builder = match (self.wish.pipe.take(), self.wish.liveness) {
            (Some(pipe), _) => builder.inherit(pipe),
            (None, Some(liveness)) => builder.liveness(liveness),
            (None, None) => builder,
        };
        builder.connect(endpoint).map_err(|error| remote::of_connect(&error))
    }
}

/// Runs on the library's own thread for notices.
fn noticed(notice: Notice, post: &Post) {
    match notice {
        Notice::Broken { forced, .. } => post.send(Event::Recalled(forced)),
        Notice::Killed => post.send(Event::Recalled(false)),
        Notice::Lost => post.send(Event::Changed),
        _ => {}
    }
}

/// Why the lock was not acquired, for a person, with the exit code for a script.
fn told(error: &AcquireError, name: &[u8], wait: Option<Duration>) -> Failure {
    let name = printable(name);
    let look = format!("`fairlock why {name}` shows who holds it and who waits");
    let in_time = |text: String| Failure::new(failure::NOT_IN_TIME, text).advise(look.clone());
    match error {
        AcquireError::Refused(Refusal::WouldBlock) => {
            in_time(format!("`{name}` is taken, or others wait for it"))
        }
        AcquireError::Refused(Refusal::Timeout) => {
            let wait = wait.map(|wait| format!(" within {}", human(wait))).unwrap_or_default();
            in_time(format!("`{name}` was not free{wait}"))
        }
        AcquireError::Refused(refusal) => Failure::refused(*refusal, ""),
        AcquireError::Connection(error) => remote::of_connect(error),
        AcquireError::Lost(LostCause::Broken | LostCause::Killed) | AcquireError::Deadlock(_) => {
            in_time(remote::with_sources(error))
        }
        AcquireError::Lost(_) | AcquireError::Unanswered { .. } => {
            Failure::new(failure::NO_SERVER, remote::with_sources(error))
        }
        other => Failure::new(failure::code_of(other.refusal()), remote::with_sources(other)),
    }
}

/// What others see of a command: its words, as far as a label reaches.
pub(crate) fn label_of(command: &[std::ffi::OsString]) -> String {
    let words: Vec<String> = command.iter().map(|word| printable(word.as_bytes())).collect();
    let mut label = words.join(" ");
    let mut end = fairlock_protocol::limits::LABEL_BYTES_MAX.min(label.len());
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.truncate(end);
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_cut_at_a_character() {
        let words: Vec<std::ffi::OsString> = vec!["ü".repeat(200).into()];
        assert_eq!(label_of(&words).len(), 256);
        let words: Vec<std::ffi::OsString> = vec![format!("x{}", "ü".repeat(200)).into()];
        assert_eq!(label_of(&words).len(), 255);
        assert_eq!(label_of(&["make".into(), "all".into()]), "make all");
    }

    #[test]
    fn not_in_time_is_told_with_who_to_look_for() {
        let failure = told(&AcquireError::Refused(Refusal::Timeout), b"db", Some(Duration::from_secs(1)));
        assert_eq!(failure.code, 75);
        assert_eq!(failure.text, "`db` was not free within 1s");
        assert!(failure.advice.is_some_and(|advice| advice.contains("fairlock why db")));
        assert_eq!(told(&AcquireError::Refused(Refusal::Denied), b"db", None).code, 77);
    }
}

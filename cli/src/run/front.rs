//! The front: what the shell started and waits for. It owns nothing: signals go in, the exit code comes out, the
//! terminal is lent to the command and taken back. It may be stopped or killed; the lock does not depend on it.

use super::channel::{Channel, Received};
use super::messages::{Hello, Report, Word};
use super::signals::{ENDING, PASSED_ON, Signals};
use super::terminal::{self, Terminal};
use super::{readiness, spawn};
use crate::args::{LockTerms, Reach, RunArgs};
use crate::failure::{self, Failure};
use crate::print::text::printable;
use crate::remote;
use fairlock_protocol::Liveness;
use rustix::fd::AsFd;
use rustix::process::test_kill_process_group;
use rustix::process::{Pid, Signal, getpid, kill_current_process_group, kill_process, kill_process_group};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// How long a withdrawn request may take to be confirmed before the front leaves without.
const WITHDRAWAL: Duration = Duration::from_millis(500);
/// After this time of waiting a person at the terminal is told what for.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at a group that is being killed.
const KILL_ROUND: Duration = Duration::from_millis(20);
/// Rounds before the front itself sends KILL.
const PATIENT_ROUNDS: u32 = 250;

/// Runs the command under the lock; gives its exit code.
///
/// # Errors
/// Everything that is decided before a process is started: names, endpoints, liveness; and the system's refusals.
pub(crate) fn run(order: &RunArgs, reach: &Reach) -> Result<u8, Failure> {
    check(&order.lock, reach)?;
    let (supervisor, theirs) =
        Channel::pair().map_err(|error| Failure::system("make a socket pair", &error))?;
    supervisor
        .send_with(&Hello, &[rustix::stdio::stdin()])
        .map_err(|error| Failure::system("hand on stdin", &error))?;
    // Started before any signal is caught: what the shell had us ignore must reach the command ignored.
    spawn::in_role("supervisor", theirs)
        .spawn()
        .map_err(|error| Failure::system("start the supervisor", &error))?;
    let signals = Signals::catch(&PASSED_ON).map_err(|error| Failure::system("catch signals", &error))?;
    let front = Front {
        supervisor,
        signals,
        terminal: Terminal::controlling(),
        name: printable(order.lock.name.as_bytes()),
        group: None,
        continues: 0,
        withdrawn: None,
        tell_at: std::io::stderr().is_terminal().then(|| Instant::now() + TELL_AFTER),
    };
    front.attend()
}

/// What can be refused without a server.
///
/// # Errors
/// 64 for a name or an option, and what choosing the endpoint met.
pub(crate) fn check(terms: &LockTerms, reach: &Reach) -> Result<(), Failure> {
    remote::name(&terms.namespace, &terms.name)?;
    let local = remote::is_local(&remote::endpoint(reach)?);
    match terms.liveness.map(Liveness::from) {
        Some(liveness @ (Liveness::Process | Liveness::Inherit)) if !local => {
            let text = format!("--liveness {} needs a unix: endpoint", liveness.name());
            Err(Failure::new(failure::USAGE, text).advise("over tcp: only renewals keep a lock (heartbeat)"))
        }
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct Front {
    supervisor: Channel,
    signals: Signals,
    terminal: Option<Terminal>,
    name: String,
    /// The command's process group, from its start.
    group: Option<Pid>,
    /// How many `Continue` were sent.
    continues: u32,
    /// The signal that withdrew the request, and when to leave without a confirmation.
    withdrawn: Option<(Signal, Instant)>,
    /// When to tell what is waited for.
    tell_at: Option<Instant>,
}

impl Front {
    /// Until the supervisor has said how it ended.
    fn attend(mut self) -> Result<u8, Failure> {
        loop {
            let moment = [self.tell_at, self.withdrawn.map(|(_, at)| at)].into_iter().flatten().min();
            let timeout = moment.map(|at| at.saturating_duration_since(Instant::now()));
            readiness::wait([Some(self.supervisor.as_fd()), Some(self.signals.as_fd())], timeout);
            for signal in self.signals.take() {
                self.pass_on(signal);
            }
            loop {
                match self.supervisor.receive() {
                    Received::Message(Report::Started { group }) => self.started(group),
                    Received::Message(Report::Stopped { signal, continues }) => {
                        self.stopped(signal, continues);
                    }
                    Received::Message(Report::Over { code, text, advice }) => {
                        return self.over(code, text, advice);
                    }
                    Received::Nothing => break,
                    Received::Closed => return self.alone(),
                }
            }
            if let Some(code) = self.overdue() {
                return Ok(code);
            }
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        match signal {
            Signal::CONT => self.go_on(),
            Signal::TSTP => {
                self.say(Word::Signal(signal.as_raw()));
                self.stop();
            }
            _ => {
                self.say(Word::Signal(signal.as_raw()));
                if self.group.is_none() && ENDING.contains(&signal) && self.withdrawn.is_none() {
                    self.withdrawn = Some((signal, Instant::now() + WITHDRAWAL));
                }
            }
        }
    }

    /// A supervisor that cannot take a word is one that ended, and that is seen on the channel.
    fn say(&self, word: Word) {
        let _ = self.supervisor.send(&word);
    }

    /// Lends the terminal again, when the shell has put us into the foreground, and lets the command go on.
    fn go_on(&mut self) {
        if let (Some(terminal), Some(group)) = (&mut self.terminal, self.group)
            && terminal::is_wanted_at_once()
        {
            terminal.lend(group);
        }
        self.continues += 1;
        self.say(Word::Continue(self.continues));
    }

    fn started(&mut self, group: i32) {
        (self.group, self.withdrawn, self.tell_at) = (Pid::from_raw(group), None, None);
        if let (Some(terminal), Some(group)) = (&mut self.terminal, self.group)
            && terminal::is_wanted_at_once()
        {
            terminal.lend(group);
        }
    }

    fn stopped(&mut self, signal: i32, continues: u32) {
        // Told before the command was last continued: no longer so. Without a terminal nobody would continue us.
        let (Some(terminal), true) = (&mut self.terminal, continues == self.continues) else { return };
        let asks = signal == Signal::TTIN.as_raw() || signal == Signal::TTOU.as_raw();
        if asks && self.group.is_some_and(|group| terminal.lend(group)) {
            self.continues += 1;
            return self.say(Word::Continue(self.continues));
        }
        let was_lent = terminal.is_lent();
        terminal.take_back();
        if was_lent && signal == Signal::TSTP.as_raw() {
            // Ctrl-Z reached the command's group alone; the rest of our job (a script, say) expects it too.
            let _ = kill_current_process_group(Signal::TSTP);
            self.signals.forget(Signal::TSTP);
        }
        self.stop();
    }

    /// Stops as the job's shell expects, until it continues us.
    fn stop(&self) {
        let _ = kill_process(getpid(), Signal::STOP);
        self.signals.forget(Signal::TSTP);
    }

    fn over(mut self, code: u8, text: Option<String>, advice: Option<String>) -> Result<u8, Failure> {
        if let Some(terminal) = &mut self.terminal {
            terminal.take_back();
        }
        match text {
            Some(text) => Err(Failure { code, text, advice }),
            None => Ok(code),
        }
    }

    /// What time alone brings about.
    fn overdue(&mut self) -> Option<u8> {
        let now = Instant::now();
        if let Some((signal, at)) = self.withdrawn
            && now >= at
        {
            // The supervisor sees us go, and withdraws the request or passes the signal to a command that started.
            return Some(failure::ended_by(signal.as_raw()));
        }
        if self.tell_at.is_some_and(|at| now >= at) {
            self.tell_at = None;
            eprintln!("fairlock: waiting for `{0}` (`fairlock why {0}` tells who holds it)", self.name);
        }
        None
    }

    /// The supervisor is gone without a word: killed. The gate ends the command; see to it that it does.
    fn alone(mut self) -> Result<u8, Failure> {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let mut rounds = 0;
            while test_kill_process_group(group).is_ok() {
                rounds += 1;
                if rounds > PATIENT_ROUNDS {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                std::thread::sleep(KILL_ROUND);
            }
            if let Some(terminal) = &mut self.terminal {
                terminal.take_back();
            }
            return Err(Failure::new(failure::LOST, "the supervisor was killed; the command was ended"));
        }
        if let Some((signal, _)) = self.withdrawn {
            return Ok(failure::ended_by(signal.as_raw()));
        }
        Err(Failure::new(failure::INTERNAL, "the supervisor was killed before the command started"))
    }
}

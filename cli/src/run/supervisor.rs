//! The supervisor: owns the lock, and the command does not outlive it.
//!
//! One loop, which never waits for the server: the lock is asked for and given back on other threads (`lease.rs`), the
//! deadline is an atomic of the client library, and the timer is the kernel's. In a session of its own it is not
//! stopped with the job; as subreaper it keeps every descendant of the command below itself.
//!
//! Two pipes run through the command and all its descendants. `keep` is the server's (liveness `inherit`): while a
//! write end is open the session lives, so that the lock survives even the supervisor's death. `watch` is the
//! supervisor's own: it holds no write end of that one and thereby sees when the last descendant is gone, and gives
//! the lock back *before* it closes its end of `keep`. With one pipe the server would see the hang-up first and take
//! an orderly end for a death.

mod ending;

use super::channel::{Channel, Received};
use super::deadline::Leads;
use super::lease::{Event, Held, Lease, Wish, label_of};
use super::messages::{Go, Hello, Report, Sight, Word};
use super::readiness::{self, Alarm, now};
use super::signals::{ENDING, PASSED_ON, Signals};
use super::{gate, spawn};
use crate::args::{OnLost, Reach, RunArgs};
use crate::failure::{self, Failure};
use crate::print::text::printable;
use crate::remote;
use fairlock_protocol::{Liveness, Tick};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, set_child_subreaper,
    setsid,
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// How long the server may take to confirm a release or a withdrawal before the front is told all the same.
const CONFIRMATION: Duration = Duration::from_millis(250);
/// Between two rounds of KILL: processes that were being forked, or are slow to die.
const KILL_ROUND: Duration = Duration::from_millis(5);
/// Between two looks while only waiting for others to end, should a change not be signalled.
const LOOK_ROUND: Duration = Duration::from_secs(1);
/// How long to wait for the front to leave, so that it can still take the terminal back.
const FAREWELL: Duration = Duration::from_secs(1);

/// Supervises one command; runs as a process of its own.
pub(crate) fn supervise(order: &RunArgs, reach: &Reach) -> u8 {
    let Ok((front, mut descriptors)) = Channel::of_stdin() else { return failure::INTERNAL };
    let stdin = if descriptors.is_empty() { None } else { Some(descriptors.remove(0)) };
    let made = match stdin {
        Some(stdin) => Supervisor::arm(order, reach, stdin),
        None => Err(Failure::new(failure::INTERNAL, "no stdin was handed on")),
    };
    match made {
        Ok(mut supervisor) => {
            supervisor.front = Some(front);
            supervisor.attend()
        }
        Err(Failure { code, text, advice }) => {
            // If it cannot be told, nobody is left to be told.
            let _ = front.send(&Report::Over { code, text: Some(text), advice });
            code
        }
    }
}

/// How far the command's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The lock is waited for.
    Waiting,
    /// The gate was told to start it.
    Starting,
    /// It runs, as leader of this group.
    Running,
    /// It ended, or never started; this is the exit code.
    Over(u8),
}

#[derive(Debug)]
struct Supervisor {
    /// The front, until it has gone.
    front: Option<Channel>,
    /// The resource's name, for texts.
    name: String,
    leads: Option<Leads>,
    kill_after: Option<Duration>,
    on_lost: OnLost,
    liveness: Liveness,
    lease: Lease,
    held: Option<Held>,
    gate: Option<Channel>,
    gate_pid: Pid,
    signals: Signals,
    alarm: Alarm,
    life: Life,
    group: Option<Pid>,
    /// Readable when the command has ended, also when the gate is stopped and cannot tell.
    command: Option<OwnedFd>,
    /// Signals to pass on as soon as there is a command.
    pending: Vec<Signal>,
    continues: u32,
    /// Why the command is being ended; the exit code is then 76.
    doomed: Option<String>,
    kill_at: Option<Tick>,
    killing: bool,
    /// Read end of `watch`, until it hung up.
    watch: Option<OwnedFd>,
    /// Our write end of `keep`.
    keep: Option<OwnedFd>,
    /// What to tell the front, and when at the latest.
    report: Option<(Tick, Report)>,
    told_at: Option<Tick>,
    released: bool,
}

impl Supervisor {
    /// Makes everything that ends the command, before anything can start it.
    fn arm(order: &RunArgs, reach: &Reach, stdin: OwnedFd) -> Result<Supervisor, Failure> {
        let system = |what: &'static str| move |error: rustix::io::Errno| Failure::system(what, &error);
        let local = remote::is_local(&remote::endpoint(reach)?);
        let default = if local { Liveness::Inherit } else { Liveness::Heartbeat };
        let liveness = order.lock.liveness.map_or(default, Liveness::from);
        let (watch, watched) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(system("make a pipe"))?;
        let keep = match liveness {
            Liveness::Inherit => Some(pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?),
            _ => None,
        };
        let (read_end, keep) = keep.map_or((None, None), |(read, write)| (Some(read), Some(write)));

        let (gate, theirs) =
            Channel::pair().map_err(|error| Failure::system("make a socket pair", &error))?;
        let mut beside = vec![stdin.as_fd(), watched.as_fd()];
        beside.extend(keep.as_ref().map(AsFd::as_fd));
        gate.send_with(&Hello, &beside).map_err(|error| Failure::system("hand on descriptors", &error))?;
        let mut starter = spawn::in_role("gate", theirs);
        let process =
            starter.process_group(0).spawn().map_err(|error| Failure::system("start the gate", &error))?;
        drop((starter, stdin, watched));

        // Only now: the gate stays in the terminal's session, the supervisor leaves it.
        setsid().map_err(system("make a session"))?;
        set_child_subreaper(Some(getpid())).map_err(system("become a subreaper"))?;
        let mut caught = vec![Signal::CHILD];
        caught.extend(PASSED_ON.into_iter().filter(|&signal| signal != Signal::TSTP));
        let signals = Signals::catch(&caught).map_err(|error| Failure::system("catch signals", &error))?;
        let alarm = Alarm::new().map_err(|error| Failure::system("make a timer", &error))?;
        gate::forget_standard_streams().map_err(|error| Failure::system("open /dev/null", &error))?;
        let wish = Wish {
            name: order.lock.name.as_bytes().to_vec(),
            label: order.lock.label.clone().unwrap_or_else(|| label_of(&order.command)),
            liveness: Some(liveness),
            pipe: read_end,
            confirm_late: order.on_lost != OnLost::Ignore,
        };
        let lease = Lease::request(&order.lock, reach, wish)
            .map_err(|error| Failure::system("start a thread", &error))?;
        Ok(Supervisor {
            front: None,
            name: printable(order.lock.name.as_bytes()),
            leads: None,
            kill_after: order.kill_after,
            on_lost: order.on_lost,
            liveness,
            lease,
            held: None,
            gate: Some(gate),
            gate_pid: Pid::from_child(&process),
            signals,
            alarm,
            life: Life::Waiting,
            group: None,
            command: None,
            pending: Vec::new(),
            continues: 0,
            doomed: None,
            kill_at: None,
            killing: false,
            watch: Some(watch),
            keep,
            report: None,
            told_at: None,
            released: false,
        })
    }

    /// Until the command, its descendants, the lock and the front are all done with.
    fn attend(mut self) -> u8 {
        loop {
            let next = self.guard_the_command();
            self.settle();
            self.tell();
            if self.is_through() {
                // Leaving closes the gate's channel, and `keep` last of all.
                return 0;
            }
            let report_at = self.report.as_ref().map(|&(at, _)| at).filter(|&at| at > now());
            // A timer that cannot be set leaves the looks below, every few milliseconds when it matters.
            let set = self.alarm.set([next, report_at].into_iter().flatten().min());
            let quiet = set.is_ok() && !self.killing && !matches!(self.life, Life::Over(_));
            let round = if self.killing || set.is_err() { KILL_ROUND } else { LOOK_ROUND };
            let watch = self.watch.as_ref().filter(|_| matches!(self.life, Life::Over(_)));
            let [of_front, of_gate, of_command, of_alarm, _, _, _] = readiness::wait(
                [
                    self.front.as_ref().map(AsFd::as_fd),
                    self.gate.as_ref().map(AsFd::as_fd),
                    self.command.as_ref().map(AsFd::as_fd),
                    Some(self.alarm.as_fd()),
                    Some(self.lease.as_fd()),
                    Some(self.signals.as_fd()),
                    watch.map(AsFd::as_fd),
                ],
                if quiet { None } else { Some(round) },
            );
            if of_alarm {
                self.alarm.heard();
            }
            if of_front {
                self.hear_front();
            }
            if of_gate {
                self.hear_gate();
            }
            if of_command {
                self.command = None;
                // Ended; if the gate was stopped, it must go on to say how.
                let _ = kill_process(self.gate_pid, Signal::CONT);
            }
            self.hear_lease();
            self.hear_signals();
        }
    }

    /// Whether nothing is left to do.
    fn is_through(&self) -> bool {
        let told_long_ago = self.told_at.is_some_and(|at| now() >= at.after(FAREWELL));
        self.released && self.told_at.is_some() && (self.front.is_none() || told_long_ago)
    }

    fn hear_front(&mut self) {
        while let Some(front) = &self.front {
            match front.receive::<Word>() {
                Received::Message(Word::Signal(number)) => {
                    if let Some(signal) = Signal::from_named_raw(number) {
                        self.pass_on(signal);
                    }
                }
                Received::Message(Word::Continue(number)) => {
                    self.continues = number;
                    self.pass_on(Signal::CONT);
                }
                Received::Nothing => return,
                Received::Closed => {
                    // While the lock is waited for, nobody is left who wants it; later the command is what counts.
                    self.front = None;
                    if self.life == Life::Waiting {
                        self.withdraw(failure::INTERNAL);
                    }
                }
            }
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        match (self.life, self.group) {
            (Life::Waiting, _) if ENDING.contains(&signal) => {
                self.withdraw(failure::ended_by(signal.as_raw()));
            }
            (Life::Waiting | Life::Over(_), _) => {}
            // A group that is gone has had all the signals it needs.
            (_, Some(group)) => drop(kill_process_group(group, signal)),
            (_, None) => self.pending.push(signal),
        }
    }

    /// Gives up before the lock was granted.
    fn withdraw(&mut self, code: u8) {
        if self.report.is_none() && self.told_at.is_none() {
            self.lease.withdraw();
            self.life = Life::Over(code);
            self.report = Some((now().after(CONFIRMATION), Report::Over { code, text: None, advice: None }));
        }
    }

    fn hear_lease(&mut self) {
        while let Some(event) = self.lease.event() {
            match event {
                Event::Granted(held) if self.life == Life::Waiting => self.open_gate(*held),
                Event::Granted(held) => self.lease.release(*held),
                Event::Refused(failure) => self.refused(failure),
                Event::Recalled(forced) => {
                    if let Some(held) = &mut self.held {
                        held.recall(forced);
                    }
                }
                Event::Changed => {}
                Event::Released => {
                    self.released = true;
                    // Not before the server has ended the session: a hang-up would look like a death.
                    drop(self.keep.take());
                }
            }
        }
    }

    fn refused(&mut self, failure: Failure) {
        self.released = true;
        // Withdrawn before: that is what is told, and now at once.
        if self.life == Life::Waiting {
            let Failure { code, text, advice } = failure;
            self.life = Life::Over(code);
            self.report = Some((Tick::ZERO, Report::Over { code, text: Some(text), advice }));
        }
    }

    /// The lock is held and everything that ends the command is armed: let it start.
    fn open_gate(&mut self, mut held: Held) {
        let leads = Leads::new(held.client.ttl(), self.kill_after, self.on_lost);
        let latest = leads.latest_start(held.standing(now()));
        let patience = u64::try_from(leads.patience().as_millis()).unwrap_or(u64::MAX);
        let go = Go {
            token: held.guard.try_token().map(fairlock::FencingToken::get),
            fence: held.guard.fence(),
            mode: held.guard.mode().name().to_owned(),
            patience_ms: match self.on_lost {
                OnLost::Term => Some(patience),
                OnLost::Kill => Some(0),
                OnLost::Ignore => None,
            },
            not_after_ns: latest.map(|latest| latest.0),
        };
        (self.leads, self.held, self.life) = (Some(leads), Some(held), Life::Starting);
        if latest.is_some_and(|latest| now() >= latest) {
            return self.never_started(failure::LOST, "the lock was lost before the command could start");
        }
        let told = self.gate.as_ref().is_some_and(|gate| gate.send(&go).is_ok());
        if !told {
            self.never_started(failure::INTERNAL, "the process that starts the command was killed");
        }
    }

    fn never_started(&mut self, code: u8, text: impl Into<String>) {
        self.life = Life::Over(code);
        let report = Report::Over { code, text: Some(text.into()), advice: None };
        self.report = Some((now().after(CONFIRMATION), report));
    }

    fn hear_gate(&mut self) {
        while let Some(gate) = &self.gate {
            match gate.receive::<Sight>() {
                Received::Message(Sight::Started { pid }) => self.started(pid),
                Received::Message(Sight::NotStarted { code, text }) => self.never_started(code, text),
                Received::Message(Sight::Stopped { signal }) => {
                    self.say(&Report::Stopped { signal, continues: self.continues });
                }
                Received::Message(Sight::Ended { code }) => self.ended(code),
                Received::Nothing => return,
                Received::Closed => {
                    self.gate = None;
                    if self.life == Life::Starting {
                        // It may have forked before it was killed: whatever it left is ended before the lock passes.
                        self.doom();
                        self.killing = true;
                        self.never_started(
                            failure::INTERNAL,
                            "the process that starts the command was killed",
                        );
                    }
                }
            }
        }
    }

    fn started(&mut self, pid: i32) {
        self.group = Pid::from_raw(pid);
        self.life = Life::Running;
        self.command = self.group.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.say(&Report::Started { group: pid });
        for signal in std::mem::take(&mut self.pending) {
            self.pass_on(signal);
        }
    }

    fn ended(&mut self, code: u8) {
        if !matches!(self.life, Life::Over(_)) {
            self.life = Life::Over(if self.doomed.is_some() { failure::LOST } else { code });
            self.command = None;
        }
    }

    /// A front that cannot be told has gone, or is stopped and has lost interest in all but the end.
    fn say(&self, report: &Report) {
        if let Some(front) = &self.front {
            let _ = front.send(report);
        }
    }
}

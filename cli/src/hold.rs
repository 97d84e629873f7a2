//! `hold`: a lock for scripts that cannot wrap what they do into one command. One JSON line when it is granted; it is
//! held until stdin closes, which also happens when the script dies.

use crate::args::{HoldArgs, Reach};
use crate::failure::{self, Failure};
use crate::print;
use crate::print::json;
use crate::print::text::printable;
use crate::run::front::check;
use crate::run::lease::{Event, Held, Lease, Wish};
use crate::run::readiness::{self, now};
use crate::run::signals::{ENDING, Signals};
use fairlock_protocol::{Liveness, Tick};
use rustix::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How long a request whose script has already gone may still be answered: `hold NAME </dev/null` then takes a free
/// lock and gives it back.
const GRACE: Duration = Duration::from_millis(100);
/// How long the server may take to confirm before the process ends without.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// Between two looks at the guard; its loss by time needs no message.
const LOOK: Duration = Duration::from_millis(50);

/// Holds the lock.
///
/// # Errors
/// 75 when it is not granted in time, 76 when it is lost, 130 or 143 when a signal ends it, and the rest of `run`'s.
pub(crate) fn hold(order: &HoldArgs, reach: &Reach) -> Result<u8, Failure> {
    let terms = &order.lock;
    check(terms, reach)?;
    if terms.liveness.map(Liveness::from) == Some(Liveness::Inherit) {
        let failure = Failure::new(failure::USAGE, "hold starts no command that could inherit the lock");
        return Err(failure.advise("use --liveness process or heartbeat, or `fairlock run`"));
    }
    let signals = Signals::catch(&ENDING).map_err(|error| Failure::system("catch signals", &error))?;
    let wish = Wish {
        name: terms.name.as_bytes().to_vec(),
        label: terms.label.clone().unwrap_or_default(),
        liveness: terms.liveness.map(Liveness::from),
        pipe: None,
        confirm_late: false,
    };
    let lease =
        Lease::request(terms, reach, wish).map_err(|error| Failure::system("start a thread", &error))?;
    let name = printable(terms.name.as_bytes());
    Hold { lease, signals, name, stage: Stage::Waiting, stdin_is_open: true }.attend()
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// For the lock.
    Waiting,
    /// For the lock, until then: stdin was closed.
    Expiring(Tick),
    /// For the answer to a withdrawal or a release, at most until then; this is the exit code.
    Leaving(Tick, u8),
    /// It is held.
    Holding(Box<Held>),
}

#[derive(Debug)]
struct Hold {
    lease: Lease,
    signals: Signals,
    name: String,
    stage: Stage,
    stdin_is_open: bool,
}

impl Hold {
    fn attend(mut self) -> Result<u8, Failure> {
        loop {
            while let Some(event) = self.lease.event() {
                match (event, &self.stage) {
                    (Event::Granted(held), _) => self.granted(held)?,
                    (Event::Refused(_) | Event::Released, &Stage::Leaving(_, code)) => return Ok(code),
                    (Event::Refused(failure), _) => return Err(failure),
                    (Event::Released | Event::Recalled(_) | Event::Changed, _) => {}
                }
            }
            let patience = match &self.stage {
                Stage::Waiting => None,
                Stage::Holding(held) if held.guard.check().is_err() => {
                    let text = format!("`{}` was lost: {}", self.name, held.lost_because());
                    return Err(Failure::new(failure::LOST, text));
                }
                &Stage::Leaving(at, code) if now() >= at => return Ok(code),
                &Stage::Expiring(at) if now() >= at => {
                    self.leave(failure::NOT_IN_TIME);
                    Some(LOOK)
                }
                _ => Some(LOOK),
            };
            let stdin = self.stdin_is_open.then(rustix::stdio::stdin);
            let [of_signals, _, of_stdin] =
                readiness::wait([Some(self.signals.as_fd()), Some(self.lease.as_fd()), stdin], patience);
            if of_signals && let Some(&signal) = self.signals.take().first() {
                self.leave(failure::ended_by(signal.as_raw()));
            }
            if of_stdin && !is_open() {
                self.stdin_is_open = false;
                match self.stage {
                    Stage::Waiting => self.stage = Stage::Expiring(now().after(GRACE)),
                    _ => self.leave(0),
                }
            }
        }
    }

    fn granted(&mut self, held: Box<Held>) -> Result<(), Failure> {
        match self.stage {
            Stage::Leaving(..) => self.lease.release(*held),
            Stage::Waiting | Stage::Expiring(_) | Stage::Holding(_) => {
                print::document(&json::Held::new(&held.client, &held.guard))?;
                self.stage = Stage::Holding(held);
                if !self.stdin_is_open {
                    self.leave(0);
                }
            }
        }
        Ok(())
    }

    /// Gives back what is held, withdraws what is waited for. What was decided before stays.
    fn leave(&mut self, code: u8) {
        if matches!(self.stage, Stage::Leaving(..)) {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Leaving(now().after(CONFIRMATION), code)) {
            Stage::Holding(held) => self.lease.release(*held),
            _ => self.lease.withdraw(),
        }
    }
}

/// Reads away what was written to stdin; false at its end.
fn is_open() -> bool {
    let mut sink = [0; 4096];
    !matches!(rustix::io::read(rustix::stdio::stdin(), &mut sink), Ok(0) | Err(_))
}

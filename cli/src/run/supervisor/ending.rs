//! How it ends: the command before its lock, its descendants, the lock given back, the front told.

use super::super::deadline::Act;
use super::super::descendants;
use super::super::messages::Report;
use super::super::readiness::now;
use super::{CONFIRMATION, KILL_ROUND, Life, Supervisor};
use crate::failure;
use fairlock_protocol::{Liveness, Tick};
use rustix::process::{Signal, WaitOptions, WaitStatus, kill_process, wait};

impl Supervisor {
    /// Does what the deadline demands; says when to look again.
    pub(super) fn guard_the_command(&mut self) -> Option<Tick> {
        let (Some(held), Some(leads)) = (&mut self.held, self.leads) else { return None };
        let now = now();
        let standing = held.standing(now);
        let act = if self.killing { Act::Kill } else { leads.act(now, standing, self.kill_at) };
        match act {
            Act::Watch(at) => at,
            Act::Terminate(at) => {
                self.doom();
                self.kill_at = Some(at);
                descendants::terminate(self.group, Some(self.gate_pid));
                Some(at)
            }
            Act::Kill => {
                self.doom();
                self.killing = true;
                if self.life == Life::Starting {
                    // Whether it has forked already is not known; its children are met by the next round.
                    let _ = kill_process(self.gate_pid, Signal::KILL);
                }
                descendants::kill(self.group, Some(self.gate_pid));
                Some(now.after(KILL_ROUND))
            }
        }
    }

    /// From here on the exit code is 76, unless the command had ended before.
    pub(super) fn doom(&mut self) {
        if self.doomed.is_none() {
            let because = self.held.as_ref().map(super::Held::lost_because).unwrap_or_default();
            self.doomed = Some(because);
        }
    }

    /// When the command is over: gives the lock back as soon as nothing uses it any more, and has the front told at
    /// once when that takes longer.
    pub(super) fn settle(&mut self) {
        let Life::Over(code) = self.life else { return };
        let unused = self.held.is_some() && self.is_unused();
        if self.held.is_some() && self.report.is_none() && self.told_at.is_none() {
            let text = self.doomed.as_ref().filter(|_| code == failure::LOST);
            let text =
                text.map(|because| format!("`{}` was lost, the command was ended: {because}", self.name));
            // The next `run` of a script finds the lock free if it is: a moment for the confirmation.
            let at = if unused { now().after(CONFIRMATION) } else { Tick::ZERO };
            self.report = Some((at, Report::Over { code, text, advice: None }));
        }
        if unused && let Some(held) = self.held.take() {
            self.lease.release(held);
        }
    }

    /// Whether the lock protects nothing any more.
    fn is_unused(&mut self) -> bool {
        self.see_descendants();
        if self.doomed.is_some() {
            return descendants::all_are_gone(self.group, Some(self.gate_pid));
        }
        let group_is_gone =
            || self.group.is_none_or(|group| descendants::group_is_gone(group, Some(self.gate_pid)));
        match self.liveness {
            Liveness::Process => true,
            Liveness::Heartbeat => group_is_gone(),
            Liveness::Inherit => self.watch.is_none() && group_is_gone(),
        }
    }

    /// Looks whether the last descendant has closed `watch`.
    fn see_descendants(&mut self) {
        let mut sink = [0; 256];
        while let Some(watch) = &self.watch {
            match rustix::io::read(watch, &mut sink) {
                Ok(0) => self.watch = None,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Tells the front how it ended, when it is time.
    pub(super) fn tell(&mut self) {
        let due = |at: Tick| self.released || now() >= at;
        if let Some((_, report)) = self.report.as_ref().filter(|&&(at, _)| due(at))
            && self.front.as_ref().is_none_or(|front| front.send(report).is_ok())
        {
            self.report = None;
            self.told_at = Some(now());
        }
        if self.front.is_none() && self.told_at.is_some() {
            // Nobody is left who could need the zombie: the gate may go.
            self.gate = None;
        }
    }

    pub(super) fn hear_signals(&mut self) {
        for signal in self.signals.take() {
            if signal == Signal::CHILD { self.reap() } else { self.pass_on(signal) }
        }
    }

    /// Buries whoever came to be our child; the command itself does so only when its gate was killed.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(code) = self.group.filter(|&group| group == pid).and_then(|_| exit_code(status)) {
                self.ended(code);
            }
            if pid == self.gate_pid && self.life == Life::Starting {
                self.hear_gate();
            }
        }
    }
}

/// The exit code a shell would give.
fn exit_code(status: WaitStatus) -> Option<u8> {
    let signalled = status.terminating_signal().map(failure::ended_by);
    signalled.or_else(|| status.exit_status().map(|code| u8::try_from(code & 0xFF).unwrap_or(u8::MAX)))
}

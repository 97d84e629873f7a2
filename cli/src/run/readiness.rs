//! Waiting for several descriptors at once, and for a moment of CLOCK_BOOTTIME.

use fairlock_protocol::Tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::time::Duration;

const NS_PER_S: u64 = 1_000_000_000;

/// This moment.
pub(crate) fn now() -> Tick {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Tick(seconds.saturating_mul(NS_PER_S).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0)))
}

fn timespec(ns: u64) -> Timespec {
    let seconds = i64::try_from(ns / NS_PER_S).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: (ns % NS_PER_S).cast_signed() }
}

/// Waits until one of them can be read, has ended, or the time is over. Says which.
pub(crate) fn wait<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> [bool; N] {
    let mut places = [None; N];
    let mut polled = Vec::with_capacity(N);
    for (place, descriptor) in places.iter_mut().zip(descriptors) {
        if let Some(descriptor) = descriptor {
            *place = Some(polled.len());
            polled.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        }
    }
    let timeout = timeout.map(|time| timespec(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        // Out of memory in the kernel: looking at everything is right, only not free.
        Err(_) => return [true; N],
    }
    let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
    places.map(|place| place.and_then(|at| ready.get(at).copied()).unwrap_or(false))
}

/// A timer of the kernel's: it rings whatever this process does meanwhile.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    set: Option<Tick>,
}

impl Alarm {
    /// A timer that is not set.
    pub(crate) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Alarm { timer: timerfd_create(TimerfdClockId::Boottime, flags)?, set: None })
    }

    /// Rings at that moment, at once when it is over, never for `None`.
    pub(crate) fn set(&mut self, at: Option<Tick>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        // All zero would switch it off.
        let value = timespec(at.map_or(0, |at| at.0.max(1)));
        let spec = Itimerspec { it_interval: timespec(0), it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.set = at;
        Ok(())
    }

    /// Makes it ring once only.
    pub(crate) fn heard(&mut self) {
        let mut count = [0; 8];
        if rustix::io::read(&self.timer, &mut count).is_ok() {
            self.set = None;
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_in_the_past_rings_at_once_and_once() {
        let mut alarm = Alarm::new().expect("a timer");
        assert_eq!(wait([Some(alarm.as_fd())], Some(Duration::ZERO)), [false]);
        alarm.set(Some(Tick(1))).expect("set");
        assert_eq!(wait([Some(alarm.as_fd()), None], None), [true, false]);
        alarm.heard();
        assert_eq!(wait([Some(alarm.as_fd())], Some(Duration::ZERO)), [false]);
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(before > Tick::ZERO);
        assert!(now() >= before);
    }
}

//! Somebody who does the same small thing again and again, and knows how long it was not possible: the gap of a fail-over is
//! the longest time between two successes around it, whatever happened meanwhile.

use crate::figures::Samples;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a success: whoever waits longer does not get any.
const WATCHDOG: Duration = Duration::from_mins(2);

/// What happened since [`Pinger::begin`].
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Longest time between two successes.
    pub gap: Duration,
    /// Longest time one success took.
    pub stall: Duration,
    /// How long each took.
    pub answers: Samples,
    /// How many there were.
    pub successes: u64,
    /// How often it failed.
    pub faults: u64,
    last: Option<Instant>,
}

/// A thread that pings until it is dropped.
#[derive(Debug)]
pub struct Pinger {
    stop: Arc<AtomicBool>,
    window: Arc<Mutex<Window>>,
    thread: Option<JoinHandle<()>>,
}

impl Pinger {
    /// Does `what` again and again with this pause between.
    pub fn start(pause: Duration, mut what: impl FnMut() -> io::Result<()> + Send + 'static) -> Pinger {
        let (stop, window) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Window::default())));
        let (told, log) = (Arc::clone(&stop), Arc::clone(&window));
        let thread = std::thread::spawn(move || {
            // It carries nothing else, so Relaxed is enough; pairs with the store in `drop`.
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                let outcome = what();
                let end = Instant::now();
                open(&log).note(outcome.is_ok(), start, end);
                std::thread::sleep(pause);
            }
        });
        Pinger { stop, window, thread: Some(thread) }
    }

    /// Begins a window: what is longest from here on counts, together with the time since the last success.
    pub fn begin(&self) {
        let mut window = open(&self.window);
        *window = Window { last: window.last, ..Window::default() };
    }

    /// Waits for so many more successes.
    ///
    /// # Errors
    /// They do not come.
    pub fn more(&self, successes: u64) -> io::Result<()> {
        let begun = Instant::now();
        let wanted = open(&self.window).successes + successes;
        while open(&self.window).successes < wanted {
            if begun.elapsed() > WATCHDOG {
                return Err(io::Error::other("the pinging client is not served any more"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What happened since the window began.
    pub fn window(&self) -> Window {
        open(&self.window).clone()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    // Each change leaves it whole, so what a panic left behind can be read.
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Window {
    fn note(&mut self, succeeded: bool, start: Instant, end: Instant) {
        if !succeeded {
            self.faults += 1;
            return;
        }
        self.gap = self.gap.max(self.last.map_or(Duration::ZERO, |last| end - last));
        self.stall = self.stall.max(end - start);
        self.answers.add(end - start);
        self.successes += 1;
        self.last = Some(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_success_to_success_whatever_fails_between() {
        let (mut window, zero) = (Window::default(), Instant::now());
        let at = |ms| zero + Duration::from_millis(ms);
        window.note(true, at(0), at(1));
        window.note(false, at(2), at(30));
        window.note(true, at(40), at(42));
        assert_eq!((window.gap, window.stall), (Duration::from_millis(41), Duration::from_millis(2)));
        assert_eq!((window.successes, window.faults), (2, 1));
    }
}

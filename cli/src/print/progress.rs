//! How far a long command is, for whoever watches it.

use std::io::{IsTerminal, Write};

/// A line on a terminal that says how far it is.
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown where stderr is a terminal.
    pub(crate) fn new() -> Progress {
        Progress { shown: std::io::stderr().is_terminal() }
    }

    /// Says it anew, in the place of what was said before.
    pub(crate) fn show(&self, text: &str) {
        if self.shown {
            let mut stderr = std::io::stderr().lock();
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(stderr, "\r\x1b[K{text}");
            let _ = stderr.flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}

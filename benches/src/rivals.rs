//! What the machine and the C library do between two processes, measured by a small program in C (`rivals/rivals.c`):
//! these benchmarks have no `unsafe`, and a process-shared mutex cannot be had without.

use crate::cores::{own_core, unpin};
use crate::figures::Quantiles;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled program; removed when this is dropped.
#[derive(Debug)]
pub struct Rivals {
    program: PathBuf,
}

impl Rivals {
    /// Compiles it.
    ///
    /// # Errors
    /// There is no C compiler, or it refuses.
    pub fn compile() -> io::Result<Rivals> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/rivals.c");
        let program = std::env::temp_dir().join(format!("fairlock-rivals-{}", std::process::id()));
        let status =
            Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(&source).status()?;
        if status.success() { Ok(Rivals { program }) } else { Err(io::Error::other("cc refused rivals.c")) }
    }

    /// Runs one measurement: `pair` without cores, `line`, `futex`, `wake` and `handoff` between this core and `other`.
    ///
    /// # Errors
    /// It did not run, or printed something else than three numbers.
    pub fn run(&self, what: &str, other: Option<usize>, rounds: usize) -> io::Result<Quantiles> {
        let mut command = Command::new(&self.program);
        command.arg(what);
        if let Some(other) = other {
            unpin();
            command.arg(own_core().to_string()).arg(other.to_string());
        }
        let output = command.arg(rounds.to_string()).output()?;
        crate::cores::pin(own_core());
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [p50, p99, p999] => Ok(Quantiles { p50, p99, p999 }),
            _ => Err(io::Error::other(format!("rivals {what} printed `{}`", text.trim()))),
        }
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

//! A directory for the state of what is measured, gone when its owner is. In memory where the machine has such a place: a
//! disk's time to write would be what is measured.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file system in memory, on nearly every Linux.
const MEMORY: &str = "/dev/shm";

/// What the names of directories begin with, before the process id of their maker.
const PREFIX: &str = "fairlock-bench-";

/// A directory.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// Where scratch directories lie, for a heading.
pub fn kind() -> &'static str {
    if is_memory() { "state in memory (/dev/shm)" } else { "state in the temporary directory" }
}

fn is_memory() -> bool {
    Path::new(MEMORY).is_dir()
}

/// Where directories are made.
fn base() -> PathBuf {
    if is_memory() { PathBuf::from(MEMORY) } else { std::env::temp_dir() }
}

/// Removes the directories of runs that were killed.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir(base()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Scratch {
    /// A new, empty one.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Scratch> {
        // Only its uniqueness matters; pairs with nothing.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

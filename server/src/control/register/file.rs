//! The register of a cell of one node, in a directory of its machine.
//!
//! The lock on the directory makes this process the only one that writes, so a swap is a comparison and a replacement,
//! and a revision needs to mean something only as long as this process lives.

use std::path::Path;

use fairlock_replication::configuration::CONFIGURATION_BYTES_MAX;
use fairlock_replication::{Answer, Configuration, Register, Revision, Stored};

use crate::state::{StateDirectory, StateError};

/// The configuration.
const CONFIGURATION: &str = "configuration";
/// The configuration that is being written.
const CONFIGURATION_NEW: &str = "configuration.new";

/// A register in a directory.
#[derive(Debug)]
pub(super) struct FileRegister {
    directory: StateDirectory,
    /// What was seen there last; `None`: nothing was there.
    seen: Option<Vec<u8>>,
    /// Rises whenever something else is seen.
    revision: u64,
}

impl FileRegister {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn open(path: &Path) -> Result<FileRegister, StateError> {
        let directory = StateDirectory::open(path).map_err(|error| match error {
            StateError::Locked { path, pid } => StateError::RegisterLocked { path, pid },
            other => other,
        })?;
        Ok(FileRegister { directory, seen: None, revision: 0 })
    }

    fn look(&mut self) -> Result<Option<Stored>, StateError> {
        let bytes = self.directory.read_file(CONFIGURATION, CONFIGURATION_BYTES_MAX)?;
        if bytes != self.seen {
            self.revision += 1;
            self.seen = bytes;
        }
        let Some(bytes) = &self.seen else { return Ok(None) };
        let configuration = Configuration::from_text(bytes);
        let configuration =
            configuration.map_err(|error| self.directory.not_a_record(CONFIGURATION, error))?;
        Ok(Some(Stored { configuration, revision: Revision(self.revision) }))
    }

    fn swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Result<Answer, StateError> {
        let there = self.look()?;
        if there.as_ref().map(|stored| stored.revision) != expected {
            return Ok(Answer::Conflict(there));
        }
        let text = new.to_text();
        self.directory.prepare_file(CONFIGURATION_NEW, text.as_bytes())?;
        if let Err(error) = self.directory.replace_file(CONFIGURATION_NEW, CONFIGURATION) {
            return Ok(Answer::Unknown(error.to_string()));
        }
        self.revision += 1;
        self.seen = Some(text.into_bytes());
        Ok(Answer::Written(Revision(self.revision)))
    }
}

impl Register for FileRegister {
    fn read(&mut self) -> Answer {
        self.look().map_or_else(|error| Answer::Failed(error.to_string()), Answer::Value)
    }

    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer {
        self.swap(expected, new).unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }
}

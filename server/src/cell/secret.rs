//! What the nodes of a cell know and nobody else, and how one shows that it knows it: an HMAC-SHA-256 over everything that
//! was said on the stream so far, with the role of who says it. Both sides' random bytes are in it, so it fits no other
//! stream; the role is in it, so it cannot be sent back to who made it.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::Sha256;

use crate::config::ConfigError;

/// Bytes of a proof.
pub(super) const PROOF_BYTES: usize = 32;
/// Shortest secret, in bytes: fewer could be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// Longest file that is read.
const FILE_BYTES_MAX: usize = 4096;
/// Permissions that let everybody on the host read or change the file.
const OPEN_TO_OTHERS: u32 = 0o006;

/// Who proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Who called.
    Caller,
    /// Who was called.
    Answerer,
}

impl Role {
    /// Both of one length, so that no role and transcript read like another.
    const fn label(self) -> &'static [u8; 24] {
        match self {
            Role::Caller => b"fairlock peer 1 caller  ",
            Role::Answerer => b"fairlock peer 1 answerer",
        }
    }
}

/// The secret of a cell. It shows itself nowhere.
#[derive(Clone)]
pub(crate) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// Reads it from a file, without the blanks and line ends around it.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, everybody on the host may, or it holds too little or too much.
    pub(crate) fn read(path: &Path) -> Result<Secret, ConfigError> {
        let refuse = |message| ConfigError::Secret { path: path.to_path_buf(), message };
        let unreadable = |source| ConfigError::SecretUnreadable { path: path.to_path_buf(), source };
        // A pipe without a writer would hold the start up.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags of open(2) are an int");
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(unreadable)?;
        // Of the file that was opened, not of whatever is at its place a moment later.
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(refuse("is not a file"));
        }
        if found.mode() & OPEN_TO_OTHERS != 0 {
            return Err(refuse(
                "can be read or changed by everybody on this host; chmod it to 0600, or 0640",
            ));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(refuse("is longer than 4096 bytes"));
        }
        Secret::new(&bytes).ok_or_else(|| {
            refuse("holds fewer than 16 bytes; `head -c 32 /dev/urandom | base64` makes a good secret")
        })
    }

    /// From bytes; `None` when they are too few.
    pub(super) fn new(bytes: &[u8]) -> Option<Secret> {
        let bytes = bytes.trim_ascii();
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Secret(bytes.to_vec()))
    }

    /// Proves in this role, for what was said.
    pub(super) fn prove(&self, role: Role, said: &[u8]) -> [u8; PROOF_BYTES] {
        self.over(role, said).finalize().into_bytes().into()
    }

    /// Whether who sent `proof` in this role knows the secret. It takes the same time wherever the proof is wrong.
    pub(super) fn is_proven(&self, role: Role, said: &[u8], proof: &[u8]) -> bool {
        self.over(role, said).verify_slice(proof).is_ok()
    }

    fn over(&self, role: Role, said: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(role.label());
        mac.update(said);
        mac
    }
}

#[cfg(test)]
mod tests;

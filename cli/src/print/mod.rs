//! What people and scripts read: aligned tables and short sentences for the first, one JSON document for the second.

pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod text;

use crate::failure::Failure;
use std::io::Write;

/// Writes one whole answer to stdout.
///
/// # Errors
/// A full disk, say; a reader that left early (`| head`) is not an error.
pub(crate) fn out(answer: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(answer.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::system("write to stdout", &error))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document and a line end to stdout.
///
/// # Errors
/// As [`out`].
pub(crate) fn document(document: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(|error| Failure::system("write JSON", &error))?;
    out(&format!("{text}\n"))
}

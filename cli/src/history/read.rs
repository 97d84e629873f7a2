//! Files of lines. A last line without its end is the trace of a writer that was killed; it is counted and left out. Any
//! other line that is none is an error: a judgement of half a history would say nothing.

use super::event::Event;
use super::line::EventError;
use super::report::Place;
use super::story::Story;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Lines between two reports of how far it is.
const PROGRESS_LINES: u32 = 1 << 16;

/// Why a history cannot be judged.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is no event.
    Line {
        /// Of which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u32,
        /// What is wrong with it.
        source: EventError,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::File { path, .. } => write!(f, "{} cannot be read", path.display()),
            ReadError::Line { path, line, .. } => write!(f, "{}:{line} is no event", path.display()),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::File { source, .. } => Some(source),
            ReadError::Line { source, .. } => Some(source),
        }
    }
}

/// Reads several files as one history. `progress` is told now and then how many bytes have been read.
///
/// # Errors
/// [`ReadError`], at the first file or line that cannot be read.
pub fn read<P: AsRef<Path>>(paths: &[P], mut progress: impl FnMut(u64)) -> Result<Story, ReadError> {
    let mut story = Story::default();
    let mut bytes = 0;
    for (number, path) in (0..).zip(paths) {
        read_file(path.as_ref(), number, &mut story, &mut bytes, &mut progress)?;
    }
    Ok(story)
}

fn read_file(
    path: &Path,
    file: u32,
    story: &mut Story,
    bytes: &mut u64,
    progress: &mut impl FnMut(u64),
) -> Result<(), ReadError> {
    let unreadable = |source| ReadError::File { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(unreadable)?);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let length = reader.read_until(b'\n', &mut text).map_err(unreadable)?;
        *bytes += length as u64;
        if line % PROGRESS_LINES == 0 {
            progress(*bytes);
        }
        match text.strip_suffix(b"\n") {
            Some(whole) if whole.iter().all(u8::is_ascii_whitespace) => {}
            Some(whole) => {
                let event = Event::parse(whole).map_err(|source| ReadError::Line {
                    path: path.to_owned(),
                    line,
                    source,
                })?;
                story.add(Place { file, line }, &event);
            }
            None => {
                story.counts().cut += u64::from(length > 0);
                break;
            }
        }
    }
    progress(*bytes);
    Ok(())
}

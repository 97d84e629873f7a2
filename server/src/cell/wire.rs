//! A stream during its introduction: every read and write ends at one moment, however slowly the other side drips, and
//! everything that was said, in order, is kept for the proofs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::Trouble;
use super::introduction::Introduction;
use super::secret::{PROOF_BYTES, Role};
use super::words::{
    HEAD_BYTES, NONCE_BYTES, OPENING_BYTES, Opening, SENTENCE_BYTES_MAX, VERSION, version_of,
};

/// Most bytes that are read of somebody who is not listened to any more.
const PARTING_BYTES_MAX: usize = 2 * SENTENCE_BYTES_MAX;

/// By when something is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    time: Duration,
    until: Instant,
}

impl Limit {
    /// From now on.
    pub(super) fn of(time: Duration) -> Limit {
        Limit { time, until: Instant::now() + time }
    }

    /// What is left.
    ///
    /// # Errors
    /// [`Trouble::Late`] when nothing is.
    pub(super) fn left(self) -> Result<Duration, Trouble> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Trouble::Late { limit: self.time }) } else { Ok(left) }
    }

    /// A share of what is left, when `parts` things are yet to be tried.
    pub(super) fn share(self, parts: usize) -> Limit {
        let left = self.until.saturating_duration_since(Instant::now());
        let parts = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        Limit { until: Instant::now() + left / parts, ..self }
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    limit: Limit,
    /// Everything that was said on it, by both sides.
    transcript: Vec<u8>,
    has_spoken: bool,
    has_heard: bool,
    was_reset: bool,
}

impl Wire {
    /// A connected stream.
    ///
    /// # Errors
    /// [`Trouble::Io`].
    pub(super) fn new(socket: TcpStream, limit: Limit) -> Result<Wire, Trouble> {
        // A listener may have made it nonblocking.
        socket.set_nonblocking(false).map_err(Trouble::io("cannot wait on the stream"))?;
        socket.set_nodelay(true).map_err(Trouble::io("cannot send without delay"))?;
        let transcript = Vec::with_capacity(1024);
        Ok(Wire { socket, limit, transcript, has_spoken: false, has_heard: false, was_reset: false })
    }

    /// Says who listens here, no more: whether there is a secret, and random bytes.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn say_opening(&mut self, me: &Introduction) -> Result<Opening, Trouble> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| Trouble::io("the kernel gives no randomness")(io::Error::other(error)))?;
        let opening = Opening { secret: me.secret.is_some(), busy: false, nonce };
        self.say(&opening.encode())?;
        Ok(opening)
    }

    /// Hears the opening of the other side.
    ///
    /// # Errors
    /// [`Trouble`]; [`Trouble::Version`] as soon as the part that every version has is there.
    pub(super) fn hear_opening(&mut self) -> Result<Opening, Trouble> {
        let mut bytes = [0; OPENING_BYTES];
        let (head, rest) = bytes.split_at_mut(HEAD_BYTES);
        self.hear(head)?;
        let mut copy = [0; HEAD_BYTES];
        copy.copy_from_slice(head);
        let theirs = version_of(copy).ok_or(Trouble::NotAPeer)?;
        if theirs != VERSION {
            return Err(Trouble::Version { theirs });
        }
        self.hear(rest)?;
        Ok(Opening::decode(&bytes)?)
    }

    /// Says a sentence and proves it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn say_sentence(
        &mut self,
        me: &Introduction,
        role: Role,
        fields: &[u8],
    ) -> Result<(), Trouble> {
        let proof_bytes = if me.secret.is_some() { PROOF_BYTES } else { 0 };
        let mut sentence = length(fields.len() + proof_bytes);
        sentence.extend_from_slice(fields);
        if let Some(secret) = &me.secret {
            self.transcript.extend_from_slice(&sentence);
            let proof = secret.prove(role, &self.transcript);
            self.transcript.truncate(self.transcript.len() - sentence.len());
            sentence.extend_from_slice(&proof);
        }
        self.say(&sentence)
    }

    /// Says a sentence that cannot be proven, because the other side has not.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn say_unproven(&mut self, fields: &[u8]) -> Result<(), Trouble> {
        let mut sentence = length(fields.len());
        sentence.extend_from_slice(fields);
        self.say(&sentence)
    }

    /// Hears a sentence: its fields, and whether they are proven; without a secret they are when no proof is there.
    ///
    /// # Errors
    /// [`Trouble`]. That a proof is wrong is none: it is for the caller to say so.
    pub(super) fn hear_sentence(
        &mut self,
        me: &Introduction,
        role: Role,
    ) -> Result<(Vec<u8>, bool), Trouble> {
        let mut claimed = [0; 2];
        self.hear(&mut claimed)?;
        let claimed = u16::from_le_bytes(claimed);
        if usize::from(claimed) > SENTENCE_BYTES_MAX {
            return Err(Trouble::TooLong { claimed });
        }
        let mut fields = vec![0; usize::from(claimed)];
        self.hear(&mut fields)?;
        let Some(secret) = &me.secret else { return Ok((fields, true)) };
        // Too short for a proof: it may be the word that ours was wrong.
        let Some(end) = fields.len().checked_sub(PROOF_BYTES) else { return Ok((fields, false)) };
        let (said, proof) = self.transcript.split_at(self.transcript.len() - PROOF_BYTES);
        let is_proven = secret.is_proven(role, said, proof);
        fields.truncate(end);
        Ok((fields, is_proven))
    }

    /// The stream behind the introduction.
    ///
    /// # Errors
    /// [`Trouble::Io`].
    pub(super) fn into_socket(self) -> Result<OwnedFd, Trouble> {
        let cleared = self.socket.set_read_timeout(None).and_then(|()| self.socket.set_write_timeout(None));
        cleared.map_err(Trouble::io("cannot lift the time limit of the stream"))?;
        Ok(self.socket.into())
    }

    /// Ends the stream so that what was said last arrives: a socket that is closed with something unread is reset, and a
    /// reset may overtake it. Who was told nothing is owed nothing.
    pub(super) fn part(mut self) {
        if !self.has_spoken || self.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut scraps = [0; 512];
        let mut rest = PARTING_BYTES_MAX;
        while let Ok(left) = self.limit.left() {
            if self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match self.socket.read(&mut scraps) {
                Ok(bytes) if bytes > 0 && bytes < rest => rest -= bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.transcript.extend_from_slice(bytes);
        self.has_spoken = true;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = self.limit.left()?;
            self.socket.set_write_timeout(Some(left)).map_err(Trouble::io("cannot limit a write"))?;
            match self.socket.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if goes_on(&error) => {}
                // It may have said why before it went: what arrived can still be read.
                Err(error) if is_reset(&error) && !self.has_heard => {
                    self.was_reset = true;
                    return Ok(());
                }
                Err(error) if is_reset(&error) => return Err(Trouble::Ended),
                Err(source) => return Err(Trouble::Io { doing: "cannot write", source }),
            }
        }
        Ok(())
    }

    fn hear(&mut self, bytes: &mut [u8]) -> Result<(), Trouble> {
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
            let left = self.limit.left()?;
            self.socket.set_read_timeout(Some(left)).map_err(Trouble::io("cannot limit a read"))?;
            match self.socket.read(rest) {
                Ok(0) if self.was_reset && !self.has_heard => return Err(Trouble::Reset),
                Ok(0) => return Err(Trouble::Ended),
                Ok(read) => have += read,
                Err(error) if goes_on(&error) => continue,
                Err(error) if is_reset(&error) && !self.has_heard => return Err(Trouble::Reset),
                Err(error) if is_reset(&error) => return Err(Trouble::Ended),
                Err(source) => return Err(Trouble::Io { doing: "cannot read", source }),
            }
            self.has_heard = true;
        }
        self.transcript.extend_from_slice(bytes);
        Ok(())
    }
}

/// Whether to look at the clock and try again.
fn goes_on(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

/// The length before a sentence.
fn length(bytes: usize) -> Vec<u8> {
    assert!(bytes <= SENTENCE_BYTES_MAX, "an introduction is bounded by what it is made of");
    u16::try_from(bytes).expect("asserted above").to_le_bytes().to_vec()
}

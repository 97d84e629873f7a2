//! A segment under a client that writes anything anywhere, as the server reads it: pieces are as long as a slot carries,
//! positions are believed only where they can be, and a word is taken exactly when it was free in the right tenure.
//!
//! The bytes are a list of steps, each a byte that says what is written and the bytes that it takes. Between two steps the
//! server's side reads a share, answers, and looks at a word, as a shard does in a pass.

use super::{corpus, frames};
use crate::memory::places;
use crate::random::Random;
use fairlock_shm::ring::{Receiver, SLOT_BYTES, Sender};
use fairlock_shm::segment::{RING_SLOTS, Segment, WORDS};
use fairlock_shm::word::{Generation, Seen};
use std::os::fd::OwnedFd;

/// Pieces read between two steps.
const PIECES_PER_STEP: usize = 64;
/// Steps of one run.
const STEPS_MAX: usize = 512;
/// Steps, by the two low bits of their first byte: the slot that is due, the reader's position, the state of the word that
/// is looked at next; any other writes anywhere.
const DUE: u8 = 1;
const TAKEN: u8 = 2;
const STATE: u8 = 3;
/// The low byte of the state of a free word.
const FREE: u64 = 1;

struct Play {
    segment: Segment,
    file: OwnedFd,
    requests: Receiver,
    /// Slots taken so far.
    taken: u64,
    replies: Sender,
    /// Bytes that the client said.
    said: Vec<u8>,
    generation: Generation,
}

/// Some steps: streams that are sound or a little spoilt, and between them lies of every kind.
pub fn steps(sound: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut steps = Vec::new();
    for _ in 0..random.below(12) {
        match random.below(8) {
            0 => {
                let what = random.next().to_le_bytes()[0] & !3;
                steps.push(what);
                steps.extend(random.bytes(4 + usize::from(what)));
            }
            1 => {
                let taken = if random.once_in(4) { random.next() } else { random.below(64) };
                steps.push(TAKEN);
                steps.extend(taken.to_le_bytes());
            }
            2 => {
                let state = random.below(16) << 32 | random.below(4);
                steps.push(STATE);
                steps.extend(state.to_le_bytes());
            }
            3 => slots(&mut steps, &corpus::spoilt(sound, random)),
            _ => slots(&mut steps, &sound[random.index(sound.len())]),
        }
    }
    steps
}

/// Steps that publish a stream slot by slot.
fn slots(steps: &mut Vec<u8>, stream: &[u8]) {
    for piece in stream.chunks(SLOT_BYTES) {
        let length = u8::try_from(piece.len()).unwrap_or(u8::MAX);
        steps.extend([DUE, length]);
        steps.extend_from_slice(piece);
        steps.resize(steps.len() + SLOT_BYTES - piece.len(), 0);
    }
}

/// Carries the steps out. Gives how many frames were understood.
///
/// # Panics
/// When the server's side breaks a promise.
pub fn any_bytes(bytes: &[u8]) -> u64 {
    let (segment, file) = Segment::create().expect("memory is left");
    let (requests, replies, generation) = (Receiver::default(), Sender::default(), Generation(0));
    let mut play = Play { segment, file, requests, taken: 0, replies, said: Vec::new(), generation };
    let mut rest = bytes;
    for _ in 0..STEPS_MAX {
        let Some(after) = play.write(rest) else { break };
        rest = after;
        if play.serve().is_none() {
            // The session ends, and nothing of the segment is read again.
            break;
        }
    }
    frames::any_bytes(&play.said) as u64
}

impl Play {
    /// What the client writes in one step; gives the bytes of the next ones.
    fn write<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&what, bytes) = bytes.split_first()?;
        match what % 4 {
            DUE => {
                // The slot that is due, of a length that may be a lie.
                let (&[length], bytes) = bytes.split_first_chunk::<1>()?;
                let (body, bytes) = bytes.split_first_chunk::<SLOT_BYTES>()?;
                let lap = self.taken / RING_SLOTS as u64 + 1;
                let mut line = body[..4].to_vec();
                line.push(length);
                line.extend_from_slice(&lap.to_le_bytes()[..3]);
                line.extend_from_slice(&body[4..]);
                let slot = 1 + self.taken % RING_SLOTS as u64;
                self.put(places::REQUESTS + slot * places::LINE, &line);
                Some(bytes)
            }
            TAKEN => {
                // How far it says that it has read.
                let (taken, bytes) = bytes.split_first_chunk::<8>()?;
                self.put(places::REPLIES, taken);
                Some(bytes)
            }
            STATE => {
                let (state, bytes) = bytes.split_first_chunk::<8>()?;
                self.put(self.word_at(), state);
                Some(bytes)
            }
            _ => {
                let (place, bytes) = bytes.split_first_chunk::<4>()?;
                let (piece, bytes) = bytes.split_at(bytes.len().min(usize::from(what)));
                let room = (Segment::BYTES - piece.len()) as u64;
                self.put(u64::from(u32::from_le_bytes(*place)) % room, piece);
                Some(bytes)
            }
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let written = rustix::io::pwrite(&self.file, bytes, at);
        assert_eq!(written, Ok(bytes.len()), "a segment can be written");
    }

    fn word_index(&self) -> u32 {
        self.generation.0 * 7 % u32::try_from(WORDS).unwrap_or(1)
    }

    fn word_at(&self) -> u64 {
        places::WORDS + u64::from(self.word_index()) * places::LINE
    }

    /// What a shard does in a pass. `None`: the session ends.
    fn serve(&mut self) -> Option<()> {
        for _ in 0..PIECES_PER_STEP {
            let Some(piece) = self.requests.receive(self.segment.requests()).ok()? else { break };
            let length = piece.bytes().len();
            assert!((1..=SLOT_BYTES).contains(&length), "{length} bytes in a slot");
            self.taken += 1;
            self.said.extend_from_slice(piece.bytes());
        }
        self.requests.give_back(self.segment.requests());
        let answer = [7; 5 * SLOT_BYTES];
        let sent = self.replies.send(self.segment.replies(), &answer).ok()?;
        assert!(sent <= answer.len() && sent % SLOT_BYTES == 0, "{sent} bytes of whole slots");
        let _ = (self.segment.parking().to_wake(), self.segment.leaving());
        self.tenure();
        Some(())
    }

    /// Ends the tenure of one word as the server does, and begins that of another.
    fn tenure(&mut self) {
        let word = self.segment.word(self.word_index()).expect("a word of the segment");
        let state = self.state();
        let free = u64::from(self.generation.0) << 32 | FREE;
        word.want();
        assert_eq!(word.take(self.generation), state == free, "taken when free, and only then: {state:x}");
        let seen = word.void(self.generation);
        assert!(seen != Seen::Free, "what was taken is not free");
        assert_eq!(word.look(self.generation), Seen::Neither, "nobody is inside any more");
        self.generation = Generation(self.generation.0 + 1);
        let next = self.segment.word(self.word_index()).expect("a word of the segment");
        next.grant(self.generation, false);
        assert_eq!(next.look(self.generation), Seen::Held);
    }

    fn state(&self) -> u64 {
        let mut bytes = [0; 8];
        let read = rustix::io::pread(&self.file, &mut bytes, self.word_at());
        assert_eq!(read, Ok(bytes.len()), "a segment can be read");
        u64::from_le_bytes(bytes)
    }
}

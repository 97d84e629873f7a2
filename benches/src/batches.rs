//! Locks by the batch over one connection: taken in one batch, given back in the next, with several batches on the way so
//! that the server has work while this program reads. Whoever answers such batches is a [`Peer`].

use crate::figures::median;
use crate::process::Measured;
use crate::raw::{Raw, name};
use crate::redis::Pipeline;
use fairlock_protocol::{GrantId, Reply, Request, Wait};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Names in turn, so that the table is larger than the nearest cache.
const NAMES: u64 = 100_000;
/// A copy that has not confirmed after so long fails the measurement, in milliseconds.
const COPY_PATIENCE_MS: u16 = 5000;

/// What one round gave.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Operations a second: each lock that is taken is one, and each that is given back.
    pub rate: f64,
    /// Time the server ran for one operation, in nanoseconds.
    pub server_ns: f64,
    /// Middle of the time from the sending of a batch to its last answer, in microseconds.
    pub batch_us: f64,
}

/// Whom batches go to.
pub trait Peer {
    /// Sends a batch that takes these names.
    ///
    /// # Errors
    /// What the system says.
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()>;
    /// Waits for its answers.
    ///
    /// # Errors
    /// What the system says, or another answer.
    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>>;
    /// Sends a batch that gives them back.
    ///
    /// # Errors
    /// As [`Peer::send_takes`].
    fn send_gives(&mut self, names: &[[u8; 16]], grants: &[GrantId]) -> io::Result<()>;
    /// Waits for its answers.
    ///
    /// # Errors
    /// As [`Peer::taken`].
    fn given(&mut self, count: usize) -> io::Result<()>;
}

/// A server, or (`false`) an echo that answers with frames of the same lengths.
impl Peer for (Raw, bool) {
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()> {
        for name in names {
            self.0.put_acquire(name, Wait::Try);
        }
        self.0.send()
    }

    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>> {
        let real = self.1;
        let grant = |raw: &mut Raw| {
            if real {
                return raw.granted().map(|granted| granted.grant);
            }
            raw.frame(|_| GrantId::from_raw(1))?.ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        (0..count).map(|_| grant(&mut self.0)).collect()
    }

    fn send_gives(&mut self, _: &[[u8; 16]], grants: &[GrantId]) -> io::Result<()> {
        for &grant in grants {
            self.0.put(&Request::Release(grant));
        }
        self.0.send()
    }

    fn given(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            if self.1 {
                self.0.reply(|_, reply| matches!(reply, Reply::Released { .. }).then_some(()))?;
            } else {
                self.0.frame(|_| ())?;
            }
        }
        Ok(())
    }
}

impl Peer for Pipeline {
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()> {
        for name in names {
            self.put_set(name);
        }
        self.send()
    }

    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>> {
        self.answers(count, b"+OK\r\n").map(|()| Vec::new())
    }

    fn send_gives(&mut self, names: &[[u8; 16]], _: &[GrantId]) -> io::Result<()> {
        for name in names {
            self.put_delete(name);
        }
        self.send()
    }

    fn given(&mut self, count: usize) -> io::Result<()> {
        self.answers(count, b":1\r\n")
    }
}

/// A batch on the way.
struct Batch {
    sent: Instant,
    names: Vec<[u8; 16]>,
    takes: bool,
}

/// Runs batches for a while: so many operations in each, so many batches on the way.
///
/// # Errors
/// What the peer says.
pub fn run(
    peer: &mut dyn Peer,
    process: &Measured,
    shape: (usize, usize),
    span: Duration,
) -> io::Result<Pace> {
    let (size, on_the_way) = shape;
    let mut numbers = (0..NAMES).cycle();
    let mut batches = VecDeque::new();
    let mut next = |peer: &mut dyn Peer| -> io::Result<Batch> {
        let names: Vec<[u8; 16]> = numbers.by_ref().take(size).map(name).collect();
        peer.send_takes(&names)?;
        Ok(Batch { sent: Instant::now(), names, takes: true })
    };
    for _ in 0..on_the_way {
        batches.push_back(next(peer)?);
    }
    let (mut operations, mut spans) = (0_usize, Vec::new());
    let (start, cpu) = (Instant::now(), process.cpu_time()?);
    while let Some(batch) = batches.pop_front() {
        let Batch { sent, names, takes } = batch;
        let over = start.elapsed() >= span;
        if takes {
            let grants = peer.taken(size)?;
            spans.push(sent.elapsed().as_secs_f64() * 1e6);
            peer.send_gives(&names, &grants)?;
            batches.push_back(Batch { sent: Instant::now(), names, takes: false });
        } else {
            peer.given(size)?;
            spans.push(sent.elapsed().as_secs_f64() * 1e6);
            if !over {
                batches.push_back(next(peer)?);
            }
        }
        operations += size;
    }
    let (took, ran) = (start.elapsed(), process.cpu_time()?.saturating_sub(cpu));
    Ok(Pace {
        rate: operations as f64 / took.as_secs_f64(),
        server_ns: ran.as_secs_f64() * 1e9 / operations as f64,
        batch_us: median(&spans),
    })
}

/// Redis with a copy, which confirms each batch.
#[derive(Debug)]
pub struct Copied(pub Pipeline);

impl Peer for Copied {
    fn send_takes(&mut self, names: &[[u8; 16]]) -> io::Result<()> {
        for name in names {
            self.0.put_set(name);
        }
        self.0.put_wait(COPY_PATIENCE_MS);
        self.0.send()
    }

    fn taken(&mut self, count: usize) -> io::Result<Vec<GrantId>> {
        self.0.answers(count, b"+OK\r\n")?;
        self.0.answer_is(b":1\r\n").map(|()| Vec::new())
    }

    fn send_gives(&mut self, names: &[[u8; 16]], _: &[GrantId]) -> io::Result<()> {
        for name in names {
            self.0.put_delete(name);
        }
        self.0.put_wait(COPY_PATIENCE_MS);
        self.0.send()
    }

    fn given(&mut self, count: usize) -> io::Result<()> {
        self.0.answers(count, b":1\r\n")?;
        self.0.answer_is(b":1\r\n")
    }
}

//! Received bytes lie in chunks of one size from a pool that never grows, so receiving allocates nothing and a flood
//! cannot take more memory than the pool. [`Pool`] is the epoll driver's; the ring has its own, shared with the kernel.

use super::{CHUNK_BYTES, CHUNKS};

/// A piece of received bytes in a pooled buffer. Whoever has it owns the buffer until it is recycled.
#[derive(Debug)]
#[must_use = "a chunk that is not recycled is lost to the pool"]
pub(crate) struct Chunk {
    buffer: u16,
    start: u32,
    len: u32,
}

impl Chunk {
    pub(super) fn new(buffer: u16, len: usize) -> Chunk {
        assert!(buffer < CHUNKS, "a buffer beyond the pool");
        assert!(len <= CHUNK_BYTES, "more bytes than a chunk holds");
        Chunk { buffer, start: 0, len: u32::try_from(len).expect("a chunk is 16 KiB") }
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Drops the first bytes, which the caller has dealt with.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn skip(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "more bytes skipped than there are");
        let bytes = u32::try_from(bytes).expect("not more than a chunk");
        self.start += bytes;
        self.len -= bytes;
    }

    pub(super) fn buffer(&self) -> u16 {
        self.buffer
    }

    /// Where the bytes lie in the pool's memory, buffer after buffer.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.buffer) * CHUNK_BYTES + self.start as usize;
        start..start + self.len()
    }
}

/// Which buffers are with the caller. A chunk of another driver, or one given back twice, is our own mistake.
#[derive(Debug)]
pub(super) struct Lent {
    out: [bool; CHUNKS as usize],
    count: usize,
}

impl Lent {
    pub(super) fn none() -> Lent {
        Lent { out: [false; CHUNKS as usize], count: 0 }
    }

    pub(super) fn lend(&mut self, buffer: u16) {
        let out = &mut self.out[usize::from(buffer)];
        assert!(!*out, "a buffer is lent once");
        *out = true;
        self.count += 1;
    }

    pub(super) fn take_back(&mut self, buffer: u16) {
        let out = &mut self.out[usize::from(buffer)];
        assert!(*out, "a chunk is given back once, to the driver it came from");
        *out = false;
        self.count -= 1;
    }

    pub(super) fn is_out(&self, buffer: u16) -> bool {
        self.out[usize::from(buffer)]
    }

    /// Buffers not with the caller.
    pub(super) fn left(&self) -> usize {
        usize::from(CHUNKS) - self.count
    }
}

/// The epoll driver's buffers.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Vec<u8>,
    free: Vec<u16>,
    lent: Lent,
}

impl Pool {
    pub(super) fn new() -> Pool {
        let memory = vec![0; usize::from(CHUNKS) * CHUNK_BYTES];
        Pool { memory, free: (0..CHUNKS).rev().collect(), lent: Lent::none() }
    }

    /// Chunks that can be filled now.
    pub(super) fn left(&self) -> usize {
        debug_assert_eq!(self.free.len(), self.lent.left());
        self.free.len()
    }

    /// Fills a chunk by `fill`, which says how many bytes it wrote; with none or an error the buffer stays here.
    /// `None` when every buffer is lent.
    pub(super) fn fill<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Option<Result<Chunk, E>> {
        let buffer = *self.free.last()?;
        let start = usize::from(buffer) * CHUNK_BYTES;
        match fill(&mut self.memory[start..start + CHUNK_BYTES]) {
            Ok(0) => Some(Ok(Chunk::new(buffer, 0))),
            Ok(len) => {
                self.free.pop();
                self.lent.lend(buffer);
                Some(Ok(Chunk::new(buffer, len)))
            }
            Err(error) => Some(Err(error)),
        }
    }

    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        assert!(self.lent.is_out(chunk.buffer()), "a chunk of another driver");
        &self.memory[chunk.range()]
    }

    #[expect(clippy::needless_pass_by_value, reason = "giving back ends the ownership of the buffer")]
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.lent.take_back(chunk.buffer());
        self.free.push(chunk.buffer());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &mut Pool, bytes: &[u8]) -> Chunk {
        let fill = |space: &mut [u8]| {
            space[..bytes.len()].copy_from_slice(bytes);
            Ok::<usize, ()>(bytes.len())
        };
        pool.fill(fill).unwrap().unwrap()
    }

    #[test]
    fn a_pool_lends_each_buffer_once_and_never_grows() {
        let mut pool = Pool::new();
        let chunks: Vec<Chunk> = (0..CHUNKS).map(|_| filled(&mut pool, b"x")).collect();
        assert!(pool.fill(|_| Ok::<usize, ()>(1)).is_none());
        let buffers: std::collections::HashSet<u16> = chunks.iter().map(Chunk::buffer).collect();
        assert_eq!(buffers.len(), usize::from(CHUNKS));
        for chunk in chunks {
            pool.give_back(chunk);
        }
        assert_eq!(pool.left(), usize::from(CHUNKS));
    }

    #[test]
    fn an_empty_fill_keeps_the_buffer() {
        let mut pool = Pool::new();
        let chunk = pool.fill(|_| Ok::<usize, ()>(0)).unwrap().unwrap();
        assert_eq!((chunk.len(), pool.left()), (0, usize::from(CHUNKS)));
        assert_eq!(pool.fill(|_| Err::<usize, &str>("no")).unwrap().unwrap_err(), "no");
        assert_eq!(pool.left(), usize::from(CHUNKS));
    }

    #[test]
    fn skipping_moves_the_start() {
        let mut pool = Pool::new();
        let mut chunk = filled(&mut pool, b"header body");
        chunk.skip(7);
        assert_eq!(pool.bytes(&chunk), b"body");
        pool.give_back(chunk);
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_chunk_of_another_pool_is_refused() {
        let chunk = filled(&mut Pool::new(), b"x");
        Pool::new().give_back(chunk);
    }
}

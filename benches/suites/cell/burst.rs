//! Many locks at once through the client library: all are asked for before the first answer is awaited, then all are given
//! back.

use fairlock::{AcquireError, Acquiring, Client, Guard};
use fairlock_benches::raw::name;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Names in turn, so that the table is larger than the nearest cache.
const NAMES: u64 = 100_000;

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Grants a second, with so many asked for at once.
pub(crate) fn grants_per_s(client: &Client, size: usize, span: Duration) -> io::Result<f64> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut numbers = (0..NAMES).cycle();
    let (start, mut grants) = (Instant::now(), 0);
    while start.elapsed() < span {
        let asked = numbers.by_ref().take(size).map(|number| ask(client, number, &waker));
        let asked: Vec<Asked> = asked.collect();
        for waiting in asked {
            let guard = await_one(waiting, &waker).map_err(io::Error::other)?;
            drop(guard);
            grants += 1;
        }
    }
    Ok(f64::from(grants) / start.elapsed().as_secs_f64())
}

/// One that is asked for; its answer, if it came at once.
enum Asked {
    Answered(Result<Guard, AcquireError>),
    Waiting(Acquiring),
}

/// The first look at it sends the request.
fn ask(client: &Client, number: u64, waker: &Waker) -> Asked {
    let mut acquiring = client.lock(name(number)).acquire_async();
    match pin!(&mut acquiring).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(answer) => Asked::Answered(answer),
        Poll::Pending => Asked::Waiting(acquiring),
    }
}

fn await_one(asked: Asked, waker: &Waker) -> Result<Guard, AcquireError> {
    let mut acquiring = match asked {
        Asked::Answered(answer) => return answer,
        Asked::Waiting(acquiring) => pin!(acquiring),
    };
    loop {
        match acquiring.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

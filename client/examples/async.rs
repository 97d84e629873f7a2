//! Locks from futures, on no executor in particular: two are asked for at once, one is given up while it waits, and
//! the loss of a held one is a future too.

use fairlock::Client;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// The smallest executor there is; any other does as well.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("tcp://127.0.0.1:7411")?;
    block_on(async {
        let (first, second) = (client.lock("a").acquire_async(), client.lock("b").acquire_async());
        let (a, b) = (first.await?, second.await?);
        println!("tokens {} and {}", a.token().get(), b.token().get());

        // Dropping a future withdraws its request; a grant that raced in is given back.
        drop(client.lock("c").acquire_async());

        let mut lost = pin!(a.lost());
        let is_lost = poll_fn(|context| Poll::Ready(lost.as_mut().poll(context).is_ready())).await;
        println!("lost by now: {is_lost}");
        b.release()?;
        Ok(())
    })
}

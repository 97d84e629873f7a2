//! A resource that checks tokens: the same rule as a `WHERE` clause. What comes from an older tenure is refused, even
//! when it arrives after a newer one has begun; no clock is involved.
//!
//! ```sql
//! CREATE TABLE orders (id BIGINT PRIMARY KEY, state TEXT, fence BIGINT NOT NULL DEFAULT 0);
//! UPDATE orders SET state = $1, fence = GREATEST(fence, $3) WHERE id = $4 AND $2 > fence;  -- $2 token, $3 fence
//! ```
//! No row changed means: a newer tenure was here; stop.

use fairlock::Client;

/// One row of that table.
#[derive(Debug, Default)]
struct Row {
    state: String,
    fence: u64,
}

impl Row {
    /// The statement above: how many rows changed.
    fn update(&mut self, state: &str, token: u64, fence: u64) -> usize {
        if token <= self.fence {
            return 0;
        }
        state.clone_into(&mut self.state);
        self.fence = self.fence.max(fence);
        1
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("tcp://127.0.0.1:7411")?;
    let mut row = Row::default();

    let first = client.lock("orders/42").acquire()?;
    let (late_token, late_fence) = (first.token().get(), first.fence());
    assert_eq!(row.update("packed", late_token, late_fence), 1);
    first.release()?;

    let second = client.lock("orders/42").acquire()?;
    assert_eq!(row.update("sent", second.token().get(), second.fence()), 1);

    // A write of the first tenure that was held up on its way.
    assert_eq!(row.update("packed again", late_token, late_fence), 0);
    println!("{row:?}");
    Ok(())
}

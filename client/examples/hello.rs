//! The shortest way to hold a lock: connect, acquire, work, release.
//!
//! `cargo run -p fairlock --example hello -- tcp://127.0.0.1:7411`

use fairlock::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7411".to_owned());
    let client = Client::connect(&endpoint)?;
    let guard = client.lock("hello").acquire()?;
    println!("held under token {} after {:?}", guard.token().get(), guard.waited());
    guard.check()?;
    guard.release()?;
    client.close();
    Ok(())
}

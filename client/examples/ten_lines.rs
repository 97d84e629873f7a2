//! A lock, its token, and what to do when somebody else has it, in ten lines.

use fairlock::{AcquireError, Client, Refusal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("tcp://127.0.0.1:7411")?;
    match client.lock("orders/42").try_acquire() {
        Ok(guard) => println!("ours under token {}", guard.token().get()),
        Err(AcquireError::Refused(Refusal::WouldBlock)) => println!("somebody else works on it"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

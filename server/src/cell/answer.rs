//! The side that was called: it hears who calls before it says who it is.

use std::net::TcpStream;
use std::time::Duration;

use super::introduction::{Presentation, Purpose, Request, judge};
use super::secret::Role;
use super::wire::{Limit, Wire};
use super::words::Reply;
use super::{Caller, Introduction, Trouble};

/// Lets who is on the other end of an accepted stream introduce itself, and introduces this node. Takes `limit` at most.
///
/// # Errors
/// [`Trouble`]: the stream is closed, and the other end knows why if it may.
pub(crate) fn answer(me: &Introduction, socket: TcpStream, limit: Duration) -> Result<Caller, Trouble> {
    let mut wire = Wire::new(socket, Limit::of(limit))?;
    match meet(me, &mut wire) {
        Ok((Presentation { member, .. }, purpose)) => {
            Ok(Caller { member, purpose, socket: wire.into_socket()? })
        }
        Err(trouble) => {
            wire.part();
            Err(trouble)
        }
    }
}

fn meet(me: &Introduction, wire: &mut Wire) -> Result<(Presentation, Purpose), Trouble> {
    let theirs = match wire.hear_opening() {
        // It reads our version and knows.
        Err(trouble @ Trouble::Version { .. }) => {
            wire.say_opening(me)?;
            return Err(trouble);
        }
        heard => heard?,
    };
    let ours = wire.say_opening(me)?;
    if ours.secret != theirs.secret {
        return Err(Trouble::OneSecret { ours: ours.secret });
    }
    let (fields, is_proven) = wire.hear_sentence(me, Role::Caller)?;
    if !is_proven {
        wire.say_unproven(&Reply::WrongProof.encode())?;
        return Err(Trouble::WrongProof);
    }
    let request = Request::decode(&fields)?;
    let here = me.presentation();
    wire.say_sentence(me, Role::Answerer, &Reply::Present(here.clone()).encode())?;
    judge(&request, &here)?;
    Ok((request.caller, request.purpose))
}

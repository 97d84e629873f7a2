//! `cluster`: how a cell of several nodes is, and what its operators do to it.

mod demo;
pub(crate) mod leash;
mod status;

use crate::args::{ClusterArgs, ClusterCommand, EvictArgs, ForceNewArgs, Reach, SwitchoverArgs};
use crate::failure::{self, Failure};
use crate::print;
use crate::print::duration::human;
use crate::remote;
use fairlock::AdminError;
use fairlock::admin::Fulfilled;
use fairlock_protocol::Refusal;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Pause before it is asked again whether those who are named answered.
const CALL_PAUSE: Duration = Duration::from_millis(50);

/// Does what was asked.
///
/// # Errors
/// What reaching the cell met, or what it refused.
pub(crate) fn cluster(order: &ClusterArgs, reach: &Reach) -> Result<u8, Failure> {
    match &order.command {
        ClusterCommand::Status(_) => status::status(reach),
        ClusterCommand::Switchover(order) => switchover(order, reach),
        ClusterCommand::Evict(order) => evict(order, reach),
        ClusterCommand::ForceNew(order) => force_new(order, reach),
        ClusterCommand::Demo(order) => demo::demo(order, reach),
    }
}

/// What was done, for scripts.
#[derive(Debug, Serialize)]
struct Done<'a> {
    #[serde(rename = "done")]
    what: &'static str,
    took_ms: u128,
    epoch: u32,
    /// The primary's endpoint since.
    primary: &'a str,
}

fn tell(reach: &Reach, what: &'static str, text: &str, done: &Fulfilled) -> Result<u8, Failure> {
    if reach.json {
        let Fulfilled { took, epoch, primary, .. } = done;
        print::document(&Done { what, took_ms: took.as_millis(), epoch: *epoch, primary })?;
    } else {
        print::out(&format!("{text}, after {}; epoch {}\n", human(done.took), done.epoch))?;
    }
    Ok(0)
}

fn switchover(order: &SwitchoverArgs, reach: &Reach) -> Result<u8, Failure> {
    if let Some(to) = &order.to {
        check_name(to)?;
    }
    let mut admin = remote::admin(reach)?;
    let done = admin.switchover(order.to.as_deref()).map_err(|error| of_cell(&error))?;
    let text = match &order.to {
        Some(to) => format!("{to} at {} is the primary now", done.primary),
        None => format!("the node at {} is the primary now", done.primary),
    };
    tell(reach, "switchover", &text, &done)
}

fn evict(order: &EvictArgs, reach: &Reach) -> Result<u8, Failure> {
    check_name(&order.node)?;
    let mut admin = remote::admin(reach)?;
    let done = admin.evict(&order.node).map_err(|error| of_cell(&error))?;
    let text = format!("{} is out; if it lives it joins again by itself", order.node);
    tell(reach, "evict", &text, &done)
}

fn force_new(order: &ForceNewArgs, reach: &Reach) -> Result<u8, Failure> {
    order.off.iter().try_for_each(|node| check_name(node))?;
    let mut admin = remote::admin(reach)?;
    let begun = Instant::now();
    // Whoever is named is called first.
    let outcome = loop {
        match admin.force_new(&order.off) {
            Err(error) if error.refusal() == Some(Refusal::Busy) && begun.elapsed() < reach.deadline => {
                std::thread::sleep(CALL_PAUSE);
            }
            outcome => break outcome,
        }
    };
    let done = outcome.map_err(|error| {
        let failure = of_cell(&error);
        if failure.code == failure::DENIED {
            failure.advise("`fairlock cluster status` on the node that is left says whom it waits for")
        } else {
            failure
        }
    })?;
    let text = "this node is the primary of the cell, which has begun anew: locks of before are lost but for those that holders \
                prove; nothing is granted until the longest lease of before is over (`fairlock cluster status`)";
    tell(reach, "force-new", text, &done)
}

/// A name that no node can have is a usage error, whatever runs.
fn check_name(node: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if (1..=64).contains(&node.len()) && node.bytes().all(allowed) {
        return Ok(());
    }
    Err(Failure::new(failure::USAGE, format!("`{node}` names no node: a name has 1 to 64 of a-z 0-9 . _ -")))
}

/// What a refusal about a cell is told as.
fn of_cell(error: &AdminError) -> Failure {
    match error.refusal() {
        Some(Refusal::Unsupported) => {
            Failure::new(failure::NOTHING_THERE, "this server runs alone: it belongs to no cell").advise(
                "`fairlock serve --help` tells how to start a node of one, `fairlock cluster demo` shows one",
            )
        }
        Some(Refusal::NotPrimary) => Failure::new(failure::NO_SERVER, "no primary answers")
            .advise("`fairlock cluster status` on each node says what it waits for"),
        _ => remote::of_admin(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_node_can_have_is_a_usage_error() {
        assert!(check_name("rack-1.a_b").is_ok());
        for name in ["", "A", "a b", "a,b", &"x".repeat(65)] {
            assert_eq!(check_name(name).map_err(|failure| failure.code), Err(64), "{name}");
        }
    }

    #[test]
    fn each_refusal_has_the_code_that_the_help_names() {
        let code = |refusal| of_cell(&AdminError::Explained { refusal, detail: "x".to_owned() }).code;
        let refusals = [Refusal::Unsupported, Refusal::NotPrimary, Refusal::NotFound, Refusal::Denied];
        assert_eq!(refusals.map(code), [66, 69, 66, 77]);
        assert_eq!([Refusal::Timeout, Refusal::Busy, Refusal::Unavailable].map(code), [75, 75, 69]);
    }
}

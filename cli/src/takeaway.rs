//! `break` and `session kill`: an operator takes locks away. The holder is told and the next one enters when it has
//! confirmed, or at its lease's end; `--force` lets the next one in at once, the one exception to exclusion.

use crate::args::{BreakArgs, KillArgs, Reach};
use crate::failure::{self, Failure};
use crate::print;
use crate::print::text::{counted, printable};
use crate::remote;
use fairlock::SessionId;
use serde_json::json;

/// Takes a lock from its holders.
///
/// # Errors
/// 66 when nobody holds it, and what reaching the server met.
pub(crate) fn break_lock(order: &BreakArgs, reach: &Reach) -> Result<u8, Failure> {
    let name = remote::name(&order.namespace, &order.name)?;
    let told = remote::admin(reach)?
        .break_lock(&order.namespace, name, order.force)
        .map_err(|error| nothing_there(remote::of_admin(&error), "nobody holds it", "fairlock ls"))?;
    if reach.json {
        print::document(&json!({"name": printable(name), "holders": told, "forced": order.force}))?;
    } else {
        let holders = counted(told.into(), "holder");
        let what = if order.force {
            "taken away at once; the old holder may still be running"
        } else {
            "told to let go; the next one enters when it has, or at its lease's end"
        };
        print::out(&format!("{}: {holders} {what}\n", printable(name)))?;
    }
    Ok(0)
}

/// Ends a session.
///
/// # Errors
/// 64 for an id that is none, 66 when there is no such session, and what reaching the server met.
pub(crate) fn kill_session(order: &KillArgs, reach: &Reach) -> Result<u8, Failure> {
    let session: SessionId =
        order.id.parse().map_err(|error| Failure::new(failure::USAGE, format!("{error}")))?;
    remote::admin(reach)?
        .kill(session, order.force)
        .map_err(|error| nothing_there(remote::of_admin(&error), "no such session", "fairlock sessions"))?;
    if reach.json {
        print::document(&json!({"session": session.to_string(), "forced": order.force}))?;
    } else {
        let what = if order.force { "ended" } else { "told to end; its locks pass when it has let go" };
        print::out(&format!("session {session}: {what}\n"))?;
    }
    Ok(0)
}

/// Says more plainly what was not found, and where to look.
fn nothing_there(failure: Failure, what: &str, look: &str) -> Failure {
    if failure.code == failure::NOTHING_THERE {
        Failure::new(failure::NOTHING_THERE, what).advise(format!("`{look}` lists what there is"))
    } else {
        failure
    }
}

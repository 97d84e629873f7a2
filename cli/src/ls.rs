//! `ls`: the names in use.

use crate::args::{LsArgs, Reach};
use crate::failure::Failure;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Side, Table};
use crate::print::text::printable;
use crate::print::{self, json};
use crate::remote;
use fairlock::admin::LockLine;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Lists the names that begin with the prefix.
///
/// # Errors
/// What reaching the server or writing the answer met.
pub(crate) fn ls(order: &LsArgs, reach: &Reach) -> Result<u8, Failure> {
    let prefix = order.prefix.as_deref().unwrap_or(OsStr::new("")).as_bytes();
    if !prefix.is_empty() {
        remote::name("default", OsStr::from_bytes(prefix))?;
    }
    let locks = remote::admin(reach)?.list(prefix).map_err(|error| remote::of_admin(&error))?;
    if reach.json {
        let locks: Vec<json::Lock> = locks.iter().map(Into::into).collect();
        print::document(&locks)?;
    } else if locks.is_empty() {
        eprintln!("no name in use{}", if prefix.is_empty() { "" } else { " begins with this" });
    } else {
        print::out(&table(&locks).render(Style::of_stdout()))?;
    }
    Ok(0)
}

/// How many hold it; what only stays with a client is told apart.
fn holders(lock: &LockLine) -> String {
    match lock.cached {
        0 => lock.holders.to_string(),
        cached if cached == lock.holders => format!("{cached} cached"),
        cached => format!("{}, {cached} cached", lock.holders),
    }
}

/// The namespace is shown only where one is not the default.
fn table(locks: &[LockLine]) -> Table {
    let mut table = Table::new(&[
        ("NAME", Side::Left),
        ("MODE", Side::Left),
        ("HOLDERS", Side::Right),
        ("WAITERS", Side::Right),
        ("NAMESPACE", Side::Left),
    ]);
    for lock in locks {
        let waiting = if lock.waiters > 0 { Tone::Warn } else { Tone::Dim };
        table.row([
            Cell::toned(printable(&lock.name), Tone::Strong),
            lock.mode.map_or("-", fairlock::Mode::name).into(),
            holders(lock).into(),
            Cell::toned(lock.waiters.to_string(), waiting),
            Cell::toned(lock.namespace.clone(), Tone::Dim),
        ]);
    }
    table
}

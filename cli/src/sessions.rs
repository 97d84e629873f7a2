//! `sessions`: the clients of a server, their leases, what they hold and wait for.

use crate::args::Reach;
use crate::failure::Failure;
use crate::print::duration::human_ms;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Side, Table};
use crate::print::text::{printable, shortened};
use crate::print::{self, json};
use crate::remote;
use fairlock::admin::SessionLine;

/// Longest program path in a table.
const EXE_COLUMNS: usize = 32;

/// Lists the sessions.
///
/// # Errors
/// What reaching the server or writing the answer met.
pub(crate) fn sessions(reach: &Reach) -> Result<u8, Failure> {
    let sessions = remote::admin(reach)?.sessions().map_err(|error| remote::of_admin(&error))?;
    if reach.json {
        let sessions: Vec<json::Session> = sessions.iter().map(Into::into).collect();
        print::document(&sessions)?;
    } else if sessions.is_empty() {
        eprintln!("no session is open");
    } else {
        print::out(&table(&sessions).render(Style::of_stdout()))?;
    }
    Ok(0)
}

fn table(sessions: &[SessionLine]) -> Table {
    let mut table = Table::new(&[
        ("SESSION", Side::Left),
        ("PID", Side::Right),
        ("HOST", Side::Left),
        ("VIA", Side::Left),
        ("ALIVE BY", Side::Left),
        ("TTL", Side::Right),
        ("LEFT", Side::Right),
        ("HOLDS", Side::Right),
        ("WAITS", Side::Right),
        ("PROGRAM", Side::Left),
        ("LABEL", Side::Left),
    ]);
    for session in sessions {
        let left = session.expires_in_ms.map_or_else(|| "-".to_owned(), |ms| human_ms(ms.into()));
        let via =
            if session.transport == fairlock::admin::Transport::Away { Tone::Warn } else { Tone::Plain };
        table.row([
            Cell::toned(session.session.to_string(), Tone::Strong),
            session.pid.to_string().into(),
            printable(session.host.as_bytes()).into(),
            Cell::toned(session.transport.name(), via),
            session.liveness.name().into(),
            human_ms(session.ttl_ms.into()).into(),
            left.into(),
            session.grants.to_string().into(),
            session.waits.to_string().into(),
            shortened(&printable(session.exe.as_bytes()), EXE_COLUMNS).into(),
            Cell::toned(printable(session.label.as_bytes()), Tone::Dim),
        ]);
    }
    table
}

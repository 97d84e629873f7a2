//! `show`: holders, conversions and waiters of one lock, as a table.

use crate::args::{NameArgs, Reach};
use crate::failure::Failure;
use crate::print::duration::human_ms;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Side, Table};
use crate::print::text::{printable, shortened};
use crate::print::{self, json};
use crate::remote;
use fairlock::Discipline;
use fairlock::admin::{Show, ShowLine};

/// Longest label in a table; `--json` has it whole.
const LABEL_COLUMNS: usize = 40;

/// Shows one lock.
///
/// # Errors
/// What reaching the server or writing the answer met.
pub(crate) fn show(order: &NameArgs, reach: &Reach) -> Result<u8, Failure> {
    let name = remote::name(&order.namespace, &order.name)?;
    let show = ask(order, reach, name)?;
    if reach.json {
        print::document(&json::Queue::new(&order.namespace, name, &show))?;
    } else if is_free(&show) {
        let obstacles = obstacles(reach);
        print::out(&format!("{} is free: nobody holds it, nobody waits\n{obstacles}", printable(name)))?;
    } else {
        print::out(&table(&show).render(Style::of_stdout()))?;
    }
    Ok(0)
}

/// Asks the server about one name.
///
/// # Errors
/// What reaching the server met.
pub(crate) fn ask(order: &NameArgs, reach: &Reach, name: &[u8]) -> Result<Show, Failure> {
    remote::admin(reach)?.show(&order.namespace, name).map_err(|error| remote::of_admin(&error))
}

/// Why a free lock may not be granted all the same, in whole lines; empty: nothing is in the way. Best effort: the answer
/// about the lock is there already.
pub(crate) fn obstacles(reach: &Reach) -> String {
    let status =
        remote::admin(reach).and_then(|mut admin| admin.status().map_err(|error| remote::of_admin(&error)));
    let Ok(status) = status else { return String::new() };
    let in_the_way = status.alarms.iter().filter(|alarm| alarm.contains("nothing is granted"));
    let mut lines: Vec<String> =
        in_the_way.map(|alarm| format!("  {}\n", printable(alarm.as_bytes()))).collect();
    if status.recovering_ms > 0 {
        let left = human_ms(status.recovering_ms.into());
        lines.push(format!("  nothing is granted for {left} more, until old leases are over\n"));
    }
    lines.concat()
}

/// Nobody holds it, nobody waits.
pub(crate) fn is_free(show: &Show) -> bool {
    show.holders.is_empty() && show.conversions.is_empty() && show.waiters.is_empty()
}

/// What a person recognises a process by: its label, else its program.
pub(crate) fn called(line: &ShowLine) -> String {
    let label = if line.label.is_empty() {
        line.exe.rsplit('/').next().unwrap_or_default()
    } else {
        line.label.as_str()
    };
    shortened(&printable(label.as_bytes()), LABEL_COLUMNS)
}

fn table(show: &Show) -> Table {
    let mut table = Table::new(&[
        ("STATE", Side::Left),
        ("MODE", Side::Left),
        ("FOR", Side::Right),
        ("PID", Side::Right),
        ("HOST", Side::Left),
        ("SESSION", Side::Left),
        ("VIA", Side::Left),
        ("TOKEN", Side::Right),
        ("LABEL", Side::Left),
    ]);
    let mut row = |state: String, tone: Tone, mode: String, line: &ShowLine| {
        table.row([
            Cell::toned(state, tone),
            Cell::toned(mode, Tone::Strong),
            human_ms(line.age_ms).into(),
            line.pid.to_string().into(),
            printable(line.host.as_bytes()).into(),
            line.session.to_string().into(),
            line.transport.name().into(),
            line.token.map_or_else(|| "-".to_owned(), |token| token.get().to_string()).into(),
            Cell::toned(called(line), Tone::Dim),
        ]);
    };
    for line in &show.holders {
        let state = if line.cached { "cached" } else { "holds" };
        row(state.to_owned(), Tone::Good, line.mode.name().to_owned(), line);
    }
    for line in &show.conversions {
        let from = line.from.map_or("?", fairlock::Mode::name);
        row(format!("converts {}", line.position), Tone::Warn, format!("{from}→{}", line.mode), line);
    }
    for line in &show.waiters {
        let class = match line.discipline {
            Discipline::Priority => format!(", class {}", line.class),
            Discipline::Strict | Discipline::Phase => String::new(),
        };
        row(format!("waits {}{class}", line.position), Tone::Warn, line.mode.name().to_owned(), line);
    }
    table
}

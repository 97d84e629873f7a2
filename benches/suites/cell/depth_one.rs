//! P8, one lock at a time: acquire and release at a cell of two nodes and of three, beside a cell of one at places like
//! theirs, in turns within each round. Clients and backups share a core (a client waits while a backup works), the first
//! nodes have the other; then all are on one.

use crate::ground::{Ground, Manner};
use fairlock_benches::cell::Cell;
use fairlock_benches::cores::{Place, own_core, pin};
use fairlock_benches::exchange::{Both, through_library, through_protocol};
use fairlock_benches::figures::{Series, heading, row};
use fairlock_benches::options::Options;
use fairlock_benches::raw::Raw;
use fairlock_benches::stream;
use std::io;
use std::time::Duration;

const TTL: Duration = Duration::from_mins(1);
/// Longest lease of a raw client: it renews nothing.
pub(crate) const TTL_MS: u32 = 3_600_000;

/// One cell and what was measured with it.
struct Party {
    title: &'static str,
    raw: Raw,
    client: fairlock::Client,
    thin: Both<Series>,
    whole: Both<Series>,
    _cell: Cell,
}

impl Party {
    fn start(ground: &Ground<'_>, nodes: usize, manner: Manner<'_>) -> io::Result<Party> {
        let cell = ground.cell(nodes, manner)?;
        let client = connect(&cell, TTL)?;
        let raw = Raw::open(&cell.nodes[0].door(), stream::Manner::Sleeping, TTL_MS)?;
        let title = ["one node (limit)", "two nodes", "three nodes"][nodes - 1];
        let (thin, whole) = (Both::default(), Both::default());
        Ok(Party { title, raw, client, thin, whole, _cell: cell })
    }

    fn round(&mut self, count: usize) -> io::Result<()> {
        self.thin.add(&through_protocol(&mut self.raw, count)?);
        self.whole.add(&through_library(&self.client, count)?);
        Ok(())
    }
}

/// A client of a cell.
pub(crate) fn connect(cell: &Cell, ttl: Duration) -> io::Result<fairlock::Client> {
    let builder = fairlock::Client::builder().ttl(ttl).label("bench");
    builder.connect(cell.endpoint().as_str()).map_err(io::Error::other)
}

pub(crate) fn measure(options: &Options, ground: &Ground<'_>) -> io::Result<()> {
    if !options.wants("P8 depth one") {
        return Ok(());
    }
    for io in &options.io {
        for place in [Place::Cross, Place::Same] {
            if place == Place::Cross && place.other_core() == own_core() {
                println!("\nskipped: {} needs two cores", place.name());
                continue;
            }
            for poll in ["never", "auto"] {
                let cores = Some((place.other_core(), own_core()));
                one(options, ground, place, Manner { io, poll, cores })?;
            }
        }
    }
    Ok(())
}

fn one(options: &Options, ground: &Ground<'_>, place: Place, manner: Manner<'_>) -> io::Result<()> {
    let parties: io::Result<Vec<Party>> = (1..=3).map(|nodes| Party::start(ground, nodes, manner)).collect();
    let mut parties = parties?;
    pin(own_core());
    let count = options.of(3000, 200);
    for _ in 0..options.rounds {
        parties.iter_mut().try_for_each(|party| party.round(count))?;
    }
    heading(&format!(
        "P8 depth 1, tcp, {}, --io {} --poll {} (target: two nodes <= 2.2 x one)",
        place.name(),
        manner.io,
        manner.poll
    ));
    table("acquire, raw protocol", &parties, |party| &party.thin.acquire);
    table("acquire, client library", &parties, |party| &party.whole.acquire);
    table("acquire + release, raw protocol", &parties, |party| &party.thin.pair);
    table("acquire + unawaited release, library", &parties, |party| &party.whole.pair);
    Ok(())
}

fn table(what: &str, parties: &[Party], pick: fn(&Party) -> &Series) {
    println!("  {what}");
    let Some(limit) = parties.first() else { return };
    for (at, party) in parties.iter().enumerate() {
        row(&format!("  {}", party.title), pick(party), (at > 0).then(|| pick(limit)));
    }
}

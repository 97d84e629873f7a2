//! `bench`: what a lock costs here, on this machine and this way to the server. Every client has a session and names
//! of its own, so it measures the path, not a queue. Nothing is judged: figures, not verdicts.

mod crowd;

use crate::args::{BenchArgs, Reach};
use crate::failure::Failure;
use crate::print;
use crate::print::duration::human;
use crate::print::style::Style;
use crate::print::table::{Side, Table};
use crate::remote;
use crate::serve::OwnServer;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Quantiles of one measurement, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
    p999: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(times: &Histogram<u64>) -> Quantiles {
        let at = |quantile| times.value_at_quantile(quantile);
        Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// The document.
#[derive(Debug, Serialize)]
struct Measured {
    transport: String,
    clients: u32,
    locks: u32,
    /// From the call to the guard.
    acquire_ns: Quantiles,
    /// Acquire and release, a name the client has not just held.
    pair_ns: Quantiles,
    /// Acquire and release of the name it has just held, prepared once: without a message where grants are cached.
    cached_pair_ns: Quantiles,
    ops_per_s: u64,
    /// Memory of the lock table for each lock held; `null` without `--locks`.
    bytes_per_lock: Option<u64>,
}

/// Measures.
///
/// # Errors
/// What starting a server, reaching it or writing the answer met.
pub(crate) fn bench(order: &BenchArgs, reach: &Reach) -> Result<u8, Failure> {
    let (reach, own) = somewhere(reach)?;
    let measured = measure(order, &reach)?;
    if reach.json {
        print::document(&measured)?;
    } else {
        print::out(&text(&measured, own.is_some(), Style::of_stdout()))?;
    }
    Ok(0)
}

/// Where to measure: at the endpoint, else at the default one if anybody is there, else at a server of our own.
fn somewhere(reach: &Reach) -> Result<(Reach, Option<Own>), Failure> {
    let named = reach.endpoint.as_deref().is_some_and(|text| !text.trim().is_empty());
    if named || remote::admin(reach).is_ok() {
        return Ok((reach.clone(), None));
    }
    let own = Own::start()?;
    let endpoint = Some(own.server.as_ref().map(OwnServer::endpoint).unwrap_or_default());
    Ok((Reach { endpoint, ..reach.clone() }, Some(own)))
}

/// A server for the time of the measurement, and its directory.
struct Own {
    server: Option<OwnServer>,
    directory: PathBuf,
}

impl Own {
    fn start() -> Result<Own, Failure> {
        let directory = std::env::temp_dir().join(format!("fairlock-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| Failure::system(&format!("create {}", directory.display()), &error))?;
        let mut own = Own { server: None, directory };
        own.server = Some(OwnServer::start(&own.directory)?);
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.server = None;
        // Left behind it is a few hundred bytes in the temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn measure(order: &BenchArgs, reach: &Reach) -> Result<Measured, Failure> {
    let mut admin = remote::admin(reach)?;
    let status =
        |admin: &mut fairlock::admin::Admin| admin.status().map_err(|error| remote::of_admin(&error));
    let before = status(&mut admin)?.table_bytes;
    let stock = crowd::Stock::hold(order.locks, reach)?;
    let bytes = status(&mut admin)?.table_bytes.saturating_sub(before);
    let result = crowd::run(order.clients, order.seconds, reach)?;
    let sessions = admin.sessions().map_err(|error| remote::of_admin(&error))?;
    let transport = sessions.iter().find(|line| line.session == result.one.session());
    let transport = transport.map_or("unknown", |line| line.transport.name()).to_owned();
    drop(stock);
    Ok(Measured {
        transport,
        clients: order.clients,
        locks: order.locks,
        acquire_ns: (&result.acquire).into(),
        pair_ns: (&result.pair).into(),
        cached_pair_ns: (&result.again).into(),
        ops_per_s: per_second(result.pair.len(), result.took),
        bytes_per_lock: (order.locks > 0).then(|| bytes / u64::from(order.locks)),
    })
}

fn per_second(count: u64, took: Duration) -> u64 {
    let ns = took.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / ns).unwrap_or(u64::MAX)
}

fn text(measured: &Measured, own: bool, style: Style) -> String {
    let clients = crate::print::text::counted(measured.clients.into(), "client");
    let server = if own { ", a server of its own in this process" } else { "" };
    let mut table =
        Table::new(&[("", Side::Left), ("P50", Side::Right), ("P99", Side::Right), ("P99.9", Side::Right)]);
    let ns = |ns| human(Duration::from_nanos(ns));
    for (name, times) in [
        ("acquire", measured.acquire_ns),
        ("acquire + release", measured.pair_ns),
        ("the same name again", measured.cached_pair_ns),
    ] {
        table.row([name.into(), ns(times.p50).into(), ns(times.p99).into(), ns(times.p999).into()]);
    }
    let held = measured
        .bytes_per_lock
        .map(|bytes| format!("{} locks held meanwhile, {bytes} bytes each\n", measured.locks));
    format!(
        "{clients} over {}{server}\n\n{}\n{} acquires and releases per second\n{}",
        measured.transport,
        table.render(style),
        measured.ops_per_s,
        held.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_exactly_the_fields_of_the_contract() {
        let times = Quantiles { p50: 1, p99: 2, p999: 3 };
        let measured = Measured {
            transport: "tcp".to_owned(),
            clients: 1,
            locks: 0,
            acquire_ns: times,
            pair_ns: times,
            cached_pair_ns: times,
            ops_per_s: per_second(3_000, Duration::from_secs(3)),
            bytes_per_lock: None,
        };
        let document = serde_json::to_value(&measured).expect("plain data");
        let mut keys: Vec<&String> = document.as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "acquire_ns",
                "bytes_per_lock",
                "cached_pair_ns",
                "clients",
                "locks",
                "ops_per_s",
                "pair_ns",
                "transport"
            ]
        );
        assert_eq!(document["acquire_ns"], serde_json::json!({"p50": 1, "p99": 2, "p999": 3}));
        assert_eq!(document["ops_per_s"], 1000);
    }
}

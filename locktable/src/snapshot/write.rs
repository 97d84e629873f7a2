//! The order in which a table is told.

use super::pieces::Pieces;
use super::tag;
use super::{bundles, grants, locks, sessions, waiters};
use crate::list;
use crate::record::Notify;
use crate::rolling::Rolling;
use crate::slab::{Record, Slab};
use crate::table::{Limits, Table};
use alloc::vec::Vec;

pub(super) fn whole(table: &Table, mut give: impl FnMut(Vec<u8>)) {
    assert!(table.touched.is_empty() && table.advancing.is_empty(), "a snapshot is taken between commands");
    let mut out = Pieces::new(&mut give);
    head(table, &mut out);
    for (namespace, rules) in table.namespaces.told().iter() {
        let age_step_ns = u64::try_from(rules.age_step.as_nanos()).unwrap_or(u64::MAX);
        let mut w = out.record(tag::RULE);
        w.u8(rules.discipline.wire()).u32(rules.bypass_budget).u64(age_step_ns).text(namespace.as_bytes());
    }
    for namespace in table.namespaces.texts() {
        out.record(tag::NAMESPACE).text(namespace.as_bytes());
    }
    store(&table.sessions, &mut out, |session, out| sessions::write(table, session, out));
    store(&table.locks, &mut out, |lock, out| locks::write(table, lock, out));
    store(&table.grants, &mut out, |grant, out| grants::write(table, grant, out));
    store(&table.waiters, &mut out, |waiter, out| waiters::write(table, waiter, out));
    store(&table.bundles, &mut out, bundles::write);
    lists(table, &mut out);
    for digest in table.marks.digests() {
        out.record(tag::MARK).digest(digest);
    }
    for token in &table.reasserted {
        out.record(tag::REASSERTED).u64(*token);
    }
    out.finish();
}

fn head(table: &Table, out: &mut Pieces<'_>) {
    let mut w = out.record(tag::HEAD);
    w.u16(table.shard.0).u32(table.epoch.get()).u64(table.seq);
    let generations = table.generations;
    w.u32(generations.grant).u32(generations.waiter).u32(generations.session);
    w.u64(table.bundles_begun).u64(table.wheel.now_ms());
    let Rolling(high, low) = table.rolling.unwrap_or_default();
    w.u8(u8::from(table.rolling.is_some())).u64(high).u64(low);
    for limit in limits(&table.limits) {
        w.u64(limit);
    }
    let count = |length: usize| u32::try_from(length).expect("namespaces are numbered in 16 bits");
    w.u32(count(table.namespaces.told().iter().len())).u32(count(table.namespaces.texts().len()));
    for total in table.counts.clone().totals() {
        w.u64(*total);
    }
}

/// Bounds as numbers: what they are decides who is refused, so they are the same on all nodes.
pub(super) fn limits(limits: &Limits) -> [u64; 7] {
    [
        limits.locks_per_session.into(),
        limits.sessions.into(),
        limits.waiters_per_resource.into(),
        limits.unacknowledged as u64,
        limits.reentry.into(),
        limits.death_marks as u64,
        limits.namespaces as u64,
    ]
}

/// A store whose slot numbers stay: its book, then its records in order.
fn store<T: Record, const B: u32>(
    slab: &Slab<T, B>,
    out: &mut Pieces<'_>,
    mut write: impl FnMut(&T, &mut Pieces<'_>),
) {
    let mut w = out.record(tag::BOOK);
    for head in slab.chunks().heads() {
        w.u32(head);
    }
    for page in slab.chunks().pages() {
        let mut w = out.record(tag::PAGE);
        for word in page {
            w.u32(word);
        }
    }
    for record in slab.records() {
        match record.next_vacant() {
            Some(next) => {
                out.record(tag::VACANT).u32(next);
            }
            None => write(record, out),
        }
    }
}

/// The lists that no link of a record told of here is part of.
fn lists(table: &Table, out: &mut Pieces<'_>) {
    for rota in table.rotas.slots() {
        let heirs = table.rotas[rota].heirs;
        for turn in list::walk(&table.turns, heirs.head, |turn| turn.heir) {
            out.record(tag::HEIR).u32(table.turns[turn].waiter);
        }
    }
    for crowd in table.crowds.slots() {
        let crowd = &table.crowds[crowd];
        for (lists, told) in [(&crowd.quiet, 0), (&crowd.told, 1)] {
            for ends in lists {
                for extra in list::walk(&table.extras, ends.head, |extra| extra.notice) {
                    out.record(tag::NOTICE).u32(table.extras[extra].grant).u8(told);
                }
            }
        }
    }
    // Who holds alone is in no list yet, and wants to know all the same.
    for extra in table.extras.slots() {
        let extra = &table.extras[extra];
        if extra.notify != Notify::Off && table.crowd_of(table.grants[extra.grant].lock).is_none() {
            out.record(tag::NOTICE).u32(extra.grant).u8(0);
        }
    }
}

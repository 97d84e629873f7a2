//! The order in which a table is told, and how far telling has come: a bounded number of records at a time, all of them as
//! they were when it began, while the table goes on.
//!
//! What changes is kept record by record before it changes ([`crate::kept`]), in every store whose records are told or lead
//! to what is told. The few things without a store (counters, namespaces) are told at the beginning.

use super::pieces::Pieces;
use super::restore::{BUNDLES, GRANTS, LOCKS, SESSIONS, WAITERS};
use super::tag;
use super::{bundles, grants, locks, sessions, waiters};
use crate::chunks::NONE;
use crate::list::Link;
use crate::record::Notify;
use crate::rolling::Rolling;
use crate::slab::{Record, Slab};
use crate::table::{Limits, Table};
use alloc::vec::Vec;

/// A snapshot that is being told.
#[derive(Debug)]
pub(crate) struct Telling {
    stage: Stage,
    /// The slot, chunk or death that is next in this stage.
    at: u32,
    /// The oldest death there was.
    oldest_mark: u32,
    /// Tokens that were reasserted by then.
    reasserted: Vec<u64>,
    pub(super) pieces: Pieces,
}

/// What is told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The chunks of a store, by its number.
    Pages(u8),
    /// The records of a store.
    Records(u8),
    /// The lists that no link of a record told of here is part of.
    Heirs,
    Notices,
    /// Who holds alone is in no list yet, and wants notices all the same.
    Alone,
    Marks,
    Reasserted,
    Over,
}

impl Telling {
    /// Begins, with what is told of the table at once.
    pub(super) fn new(table: &Table) -> Telling {
        assert!(
            table.touched.is_empty() && table.advancing.is_empty(),
            "a snapshot is taken between commands"
        );
        let mut out = Pieces::new();
        head(table, &mut out);
        for (namespace, rules) in table.namespaces.told().iter() {
            let age_step_ns = u64::try_from(rules.age_step.as_nanos()).unwrap_or(u64::MAX);
            let mut w = out.record(tag::RULE);
            w.u8(rules.discipline.wire())
                .u32(rules.bypass_budget)
                .u64(age_step_ns)
                .text(namespace.as_bytes());
        }
        for namespace in table.namespaces.texts() {
            out.record(tag::NAMESPACE).text(namespace.as_bytes());
        }
        let mut telling = Telling {
            stage: Stage::Over,
            at: 0,
            oldest_mark: table.marks.oldest(),
            reasserted: table.reasserted.iter().copied().collect(),
            pieces: out,
        };
        telling.open_store(table, SESSIONS);
        telling
    }

    /// Tells up to `left` records more, or until a piece is full.
    pub(super) fn go_on(&mut self, table: &Table, mut left: u32) {
        while left > 0 && !self.pieces.has_full() && self.stage != Stage::Over {
            let done = match self.stage {
                Stage::Pages(store) => self.page(table, store),
                Stage::Records(store) => self.records(table, store, &mut left),
                Stage::Heirs => self.heirs(table),
                Stage::Notices => self.notices(table),
                Stage::Alone => self.alone(table),
                Stage::Marks => self.mark(table),
                Stage::Reasserted => self.reasserted(),
                Stage::Over => true,
            };
            left = left.saturating_sub(1);
            if done {
                self.turn_to_next(table);
            }
        }
    }

    /// Whether everything was told and the last piece can be taken.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn turn_to_next(&mut self, table: &Table) {
        (self.stage, self.at) = match self.stage {
            Stage::Pages(store) => (Stage::Records(store), 0),
            Stage::Records(store) if store < BUNDLES => return self.open_store(table, store + 1),
            Stage::Records(_) => (Stage::Heirs, 0),
            Stage::Heirs => (Stage::Notices, 0),
            Stage::Notices => (Stage::Alone, 0),
            Stage::Alone => (Stage::Marks, self.oldest_mark),
            Stage::Marks => (Stage::Reasserted, 0),
            Stage::Reasserted | Stage::Over => {
                self.pieces.finish();
                (Stage::Over, 0)
            }
        };
    }

    /// A store whose slot numbers stay: its book, then its records in order.
    fn open_store(&mut self, table: &Table, store: u8) {
        let heads = match store {
            SESSIONS => table.sessions.heads_as_they_were(),
            LOCKS => table.locks.heads_as_they_were(),
            GRANTS => table.grants.heads_as_they_were(),
            WAITERS => table.waiters.heads_as_they_were(),
            _ => table.bundles.heads_as_they_were(),
        };
        let mut w = self.pieces.record(tag::BOOK);
        for head in heads {
            w.u32(head);
        }
        (self.stage, self.at) = (Stage::Pages(store), 0);
    }

    fn page(&mut self, table: &Table, store: u8) -> bool {
        let chunk = self.at as usize;
        let page = match store {
            SESSIONS => table.sessions.page_as_it_was(chunk),
            LOCKS => table.locks.page_as_it_was(chunk),
            GRANTS => table.grants.page_as_it_was(chunk),
            WAITERS => table.waiters.page_as_it_was(chunk),
            _ => table.bundles.page_as_it_was(chunk),
        };
        let Some(page) = page else { return true };
        let mut w = self.pieces.record(tag::PAGE);
        for word in page {
            w.u32(word);
        }
        self.at += 1;
        false
    }

    fn records(&mut self, table: &Table, store: u8, left: &mut u32) -> bool {
        let (at, out) = (&mut self.at, &mut self.pieces);
        match store {
            SESSIONS => stretch(&table.sessions, at, left, out, |one, out| sessions::write(table, one, out)),
            LOCKS => stretch(&table.locks, at, left, out, |one, out| locks::write(table, one, out)),
            GRANTS => stretch(&table.grants, at, left, out, |one, out| grants::write(table, one, out)),
            WAITERS => stretch(&table.waiters, at, left, out, |one, out| waiters::write(table, one, out)),
            _ => stretch(&table.bundles, at, left, out, bundles::write),
        }
    }

    fn heirs(&mut self, table: &Table) -> bool {
        let Some(rota) = next_in_use(&table.rotas, &mut self.at) else { return true };
        let mut at = rota.heirs.head;
        while at != NONE {
            let turn = table.turns.as_it_was(at);
            self.pieces.record(tag::HEIR).u32(turn.waiter);
            at = turn.heir.next;
        }
        false
    }

    fn notices(&mut self, table: &Table) -> bool {
        let Some(crowd) = next_in_use(&table.crowds, &mut self.at) else { return true };
        for (lists, told) in [(&crowd.quiet, 0), (&crowd.told, 1)] {
            for ends in lists {
                let mut at = ends.head;
                while at != NONE {
                    let extra = table.extras.as_it_was(at);
                    self.pieces.record(tag::NOTICE).u32(extra.grant).u8(told);
                    let Link { next, .. } = extra.notice;
                    at = next;
                }
            }
        }
        false
    }

    fn alone(&mut self, table: &Table) -> bool {
        let Some(extra) = next_in_use(&table.extras, &mut self.at) else { return true };
        if extra.notify != Notify::Off {
            let lock = table.grants.as_it_was(extra.grant).lock;
            if table.locks.as_it_was(lock).crowd == NONE {
                self.pieces.record(tag::NOTICE).u32(extra.grant).u8(0);
            }
        }
        false
    }

    fn reasserted(&mut self) -> bool {
        let Some(token) = self.reasserted.get(self.at as usize) else { return true };
        self.pieces.record(tag::REASSERTED).u64(*token);
        self.at += 1;
        false
    }

    fn mark(&mut self, table: &Table) -> bool {
        if self.at == NONE {
            return true;
        }
        let (digest, next) = table.marks.as_it_was(self.at);
        self.pieces.record(tag::MARK).digest(digest);
        self.at = next;
        false
    }
}

/// Tells the next records of a store, vacant ones too, and says whether these were all.
fn stretch<T: Record, const B: u32>(
    slab: &Slab<T, B>,
    at: &mut u32,
    left: &mut u32,
    out: &mut Pieces,
    mut write: impl FnMut(&T, &mut Pieces),
) -> bool {
    while *left > 0 && !out.has_full() {
        let Some(slot) = slab.next_as_it_was(*at) else { return true };
        let record = slab.as_it_was(slot);
        match record.next_vacant() {
            Some(next) => {
                out.record(tag::VACANT).u32(next);
            }
            None => write(record, out),
        }
        (*at, *left) = (slot + 1, *left - 1);
    }
    false
}

/// The next record that was in use, vacant ones passed over; `at` moves on behind it.
fn next_in_use<'a, T: Record, const B: u32>(slab: &'a Slab<T, B>, at: &mut u32) -> Option<&'a T> {
    loop {
        let slot = slab.next_as_it_was(*at)?;
        *at = slot + 1;
        let record = slab.as_it_was(slot);
        if record.next_vacant().is_none() {
            return Some(record);
        }
    }
}

fn head(table: &Table, out: &mut Pieces) {
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

//! A table from its pieces, one by one as they come: what is read is put where it was, and when everything is there it
//! is checked and what follows from it is made anew ([`super::check`]).

use super::bundles::Incomplete;
use super::pieces::Sum;
use super::write::limits;
use super::{
    BadSnapshot, PIECE_BYTES_MAX, SNAPSHOT_VERSION, check, grants, locks, sessions, sound, tag, waiters,
};
use crate::chunks::{Chunks, NONE};
use crate::list::{Ends, Link};
use crate::rolling::Rolling;
use crate::rules::Rules;
use crate::slab::{Record, Slab};
use crate::table::{Generations, Settings, Table};
use crate::wheel::Wheel;
use alloc::vec::Vec;
use core::time::Duration;
use fairlock_protocol::limits::REASSERTS_MAX;
use fairlock_protocol::wire::Reader;
use fairlock_protocol::{Digest, Discipline, Epoch, Malformed, Namespace, Refusal};

/// Puts a table together from the pieces of a snapshot.
#[derive(Debug)]
pub struct Restorer {
    table: Table,
    /// Pieces taken in.
    pieces: u32,
    sum: Sum,
    stage: Stage,
    /// Rules, then namespaces, that are still to come.
    rules_left: u32,
    namespaces_left: u32,
    rules_seen: usize,
    /// The book of the present store.
    heads: [u32; 4],
    pages: Vec<[u32; 5]>,
    /// The chunk that the present store is filled in.
    at: usize,
    /// Kept answers of this session that are still to come.
    kept: (u32, u64),
    bundle: Option<Incomplete>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Rules,
    /// The chunks of a store, by its number.
    Pages(u8),
    /// The records of a store.
    Records(u8),
    /// Everything is checked; the lists follow.
    Lists,
    /// The last piece was the last.
    Over,
}

/// Stores, by the order in which they come.
const SESSIONS: u8 = 0;
const LOCKS: u8 = 1;
const GRANTS: u8 = 2;
const WAITERS: u8 = 3;
const BUNDLES: u8 = 4;

impl Restorer {
    /// Begins. The settings are those of the node that reads; bounds, rules and shard must be those of the table that
    /// was told, and its epoch is taken over.
    pub fn new(settings: Settings) -> Restorer {
        Restorer {
            table: Table::new(settings),
            pieces: 0,
            sum: Sum::default(),
            stage: Stage::Head,
            rules_left: 0,
            namespaces_left: 0,
            rules_seen: 0,
            heads: [NONE; 4],
            pages: Vec::new(),
            at: 0,
            kept: (NONE, 0),
            bundle: None,
        }
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing comes of this snapshot then.
    pub fn piece(&mut self, piece: &[u8]) -> Result<(), BadSnapshot> {
        if piece.len() > PIECE_BYTES_MAX {
            let claimed = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            return Err(Malformed::TooLarge { claimed }.into());
        }
        let mut r = Reader::new(piece);
        let (version, number) = (r.u16("version")?, r.u32("number")?);
        if version != SNAPSHOT_VERSION {
            return Err(BadSnapshot::Version { found: version });
        }
        if number != self.pieces || self.stage == Stage::Over {
            return Err(BadSnapshot::Piece { expected: self.pieces, found: number });
        }
        self.pieces += 1;
        loop {
            let mut after = r;
            if after.remaining().is_empty() {
                self.sum.add(piece);
                return Ok(());
            }
            let tag = r.u8("tag")?;
            if tag == tag::END {
                return self.end(piece, r);
            }
            if matches!(tag, tag::HEIR | tag::NOTICE | tag::MARK | tag::REASSERTED) {
                self.enter_lists()?;
            }
            self.record(tag, &mut r)?;
        }
    }

    /// The table, when the last piece has come.
    ///
    /// # Errors
    /// [`BadSnapshot::Incomplete`].
    pub fn finish(self) -> Result<Table, BadSnapshot> {
        if self.stage == Stage::Over { Ok(self.table) } else { Err(BadSnapshot::Incomplete) }
    }

    /// The end of the last piece.
    fn end(&mut self, piece: &[u8], mut r: Reader<'_>) -> Result<(), BadSnapshot> {
        self.enter_lists()?;
        let count = r.u32("piece_count")?;
        let sum = (r.u64("sum")?, r.u64("sum")?);
        r.end()?;
        sound(count == self.pieces, "there are more pieces, or fewer")?;
        self.sum.add(&piece[..piece.len() - 16]);
        if self.sum.total() != sum {
            return Err(BadSnapshot::Sum);
        }
        self.stage = Stage::Over;
        Ok(())
    }

    fn record(&mut self, tag: u8, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        match (self.stage, tag) {
            (Stage::Head, tag::HEAD) => self.head(r),
            (Stage::Rules, tag::RULE) if self.rules_left > 0 => self.rule(r),
            (Stage::Rules, tag::NAMESPACE) if self.rules_left == 0 && self.namespaces_left > 0 => {
                self.namespaces_left -= 1;
                let namespace = read_namespace(r)?;
                sound(self.table.namespaces.put_back(namespace), "a namespace comes twice, or one too many")
            }
            (_, tag::BOOK) => self.book(r),
            (Stage::Pages(store), tag::PAGE) => self.page(store, r),
            (Stage::Records(SESSIONS), tag::KEPT) if self.kept.1 > 0 => {
                self.kept.1 -= 1;
                let answer = sessions::read_kept(r)?;
                self.table.sessions[self.kept.0].kept.push_back(answer);
                Ok(())
            }
            (Stage::Records(BUNDLES), tag::ITEM) => self.item(r),
            (Stage::Records(store), _) => self.slot(store, tag, r),
            (Stage::Lists, tag::HEIR) => {
                let waiter = r.u32("waiter")?;
                check::heir(&mut self.table, waiter)
            }
            (Stage::Lists, tag::NOTICE) => {
                let (grant, told) = (r.u32("grant")?, r.u8("told")? != 0);
                check::notice(&mut self.table, grant, told)
            }
            (Stage::Lists, tag::MARK) => {
                let digest = Digest([r.u64("digest")?, r.u64("digest")?]);
                let table = &mut self.table;
                sound(table.marks.put_back(table.key, digest), "a death comes twice, or one too many")
            }
            (Stage::Lists, tag::REASSERTED) => {
                let claimed = &mut self.table.reasserted;
                let fits = claimed.len() < REASSERTS_MAX && claimed.insert(r.u64("token")?);
                sound(fits, "a token was claimed twice")
            }
            _ => Err(Malformed::UnknownKind(tag).into()),
        }
    }

    fn head(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let table = &mut self.table;
        if r.u16("shard")? != table.shard.0 {
            return Err(BadSnapshot::Settings("shard"));
        }
        table.epoch = Epoch::new(r.u32("epoch")?).ok_or(Malformed::Illegal("epoch"))?;
        table.seq = r.u64("seq")?;
        table.generations = Generations {
            grant: r.u32("generations")?,
            waiter: r.u32("generations")?,
            session: r.u32("generations")?,
        };
        table.bundles_begun = r.u64("bundles_begun")?;
        table.wheel = Wheel::at(r.u64("wheel")?);
        let rolls = r.u8("rolls")? != 0;
        let rolling = Rolling(r.u64("rolling")?, r.u64("rolling")?);
        table.rolling = rolls.then_some(rolling);
        for limit in limits(&table.limits) {
            if r.u64("limit")? != limit {
                return Err(BadSnapshot::Settings("limits"));
            }
        }
        (self.rules_left, self.namespaces_left) = (r.u32("rule_count")?, r.u32("namespace_count")?);
        for total in table.counts.totals() {
            *total = r.u64("total")?;
        }
        if self.rules_left as usize != table.namespaces.told().iter().len() {
            return Err(BadSnapshot::Settings("namespaces"));
        }
        sound(
            (1..=fairlock_protocol::ids::TOKEN_SEQ_END).contains(&table.seq),
            "tokens are numbered from 1",
        )?;
        self.stage = Stage::Rules;
        Ok(())
    }

    fn rule(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let discipline =
            Discipline::from_wire(r.u8("discipline")?).ok_or(Malformed::Illegal("discipline"))?;
        let (bypass_budget, age_step) = (r.u32("budget")?, Duration::from_nanos(r.u64("age_step")?));
        let namespace = read_namespace(r)?;
        let told = (namespace.as_str(), Rules { discipline, bypass_budget, age_step });
        if self.table.namespaces.told().iter().nth(self.rules_seen) != Some(told) {
            return Err(BadSnapshot::Settings("namespaces"));
        }
        (self.rules_left, self.rules_seen) = (self.rules_left - 1, self.rules_seen + 1);
        Ok(())
    }

    /// The next store begins: the one before it must be complete.
    fn book(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let next = match self.stage {
            Stage::Rules if self.rules_left == 0 && self.namespaces_left == 0 => SESSIONS,
            Stage::Records(store) if store < BUNDLES => {
                self.close_store(store)?;
                store + 1
            }
            _ => return Err(Malformed::UnknownKind(tag::BOOK).into()),
        };
        for head in &mut self.heads {
            *head = r.u32("book")?;
        }
        self.pages.clear();
        self.stage = Stage::Pages(next);
        if self.heads[0] == 0 { self.open_store(next) } else { Ok(()) }
    }

    fn page(&mut self, store: u8, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let mut page = [0; 5];
        for word in &mut page {
            *word = r.u32("page")?;
        }
        self.pages.push(page);
        if self.pages.len() == self.heads[0] as usize { self.open_store(store) } else { Ok(()) }
    }

    /// All chunks of a store are known: its records follow.
    fn open_store(&mut self, store: u8) -> Result<(), BadSnapshot> {
        let (heads, pages) = (self.heads, &self.pages);
        let table = &mut self.table;
        match store {
            SESSIONS => table.sessions = opened(heads, pages)?,
            LOCKS => table.locks = opened(heads, pages)?,
            GRANTS => table.grants = opened(heads, pages)?,
            WAITERS => table.waiters = opened(heads, pages)?,
            _ => table.bundles = opened(heads, pages)?,
        }
        self.at = 0;
        self.stage = Stage::Records(store);
        Ok(())
    }

    /// The next record of a store.
    fn slot(&mut self, store: u8, tag: u8, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        sound(self.kept.1 == 0 && self.bundle.is_none(), "something of the record before is missing")?;
        let (table, at) = (&mut self.table, &mut self.at);
        let next = match store {
            SESSIONS => table.sessions.next_missing(at),
            LOCKS => table.locks.next_missing(at),
            GRANTS => table.grants.next_missing(at),
            WAITERS => table.waiters.next_missing(at),
            _ => table.bundles.next_missing(at),
        };
        let slot = next.ok_or(BadSnapshot::Unsound("a store has one record too many"))?;
        match (store, tag) {
            (SESSIONS, tag::SESSION) => {
                let (session, kept) = sessions::read(table, slot, r)?;
                table.sessions.put_back(slot, session);
                self.kept = (slot, kept);
            }
            (LOCKS, tag::LOCK) => {
                let lock = locks::read(table, slot, r)?;
                table.locks.put_back(slot, lock);
            }
            (GRANTS, tag::GRANT) => {
                let grant = grants::read(table, slot, r)?;
                table.grants.put_back(slot, grant);
            }
            (WAITERS, tag::WAITER) => {
                let waiter = waiters::read(table, slot, r)?;
                table.waiters.put_back(slot, waiter);
            }
            (BUNDLES, tag::BUNDLE) => self.bundle = Some(Incomplete::read(slot, r)?),
            (_, tag::VACANT) => {
                let next = r.u32("vacant")?;
                match store {
                    SESSIONS => leave_vacant(&mut table.sessions, slot, next),
                    LOCKS => leave_vacant(&mut table.locks, slot, next),
                    GRANTS => leave_vacant(&mut table.grants, slot, next),
                    WAITERS => leave_vacant(&mut table.waiters, slot, next),
                    _ => leave_vacant(&mut table.bundles, slot, next),
                }
            }
            _ => return Err(Malformed::UnknownKind(tag).into()),
        }
        Ok(())
    }

    /// One of several locks that the present bundle asks for.
    fn item(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let mut bundle = self.bundle.take().ok_or(Malformed::UnknownKind(tag::ITEM))?;
        bundle.item(r)?;
        if bundle.is_complete() {
            self.table.bundles.put_back(bundle.slot, bundle.done());
        } else {
            self.bundle = Some(bundle);
        }
        Ok(())
    }

    fn close_store(&self, store: u8) -> Result<(), BadSnapshot> {
        let table = &self.table;
        let whole = match store {
            SESSIONS => table.sessions.is_whole(),
            LOCKS => table.locks.is_whole(),
            GRANTS => table.grants.is_whole(),
            WAITERS => table.waiters.is_whole(),
            _ => table.bundles.is_whole(),
        };
        sound(whole && self.kept.1 == 0 && self.bundle.is_none(), "a store is not what its book says")
    }

    /// After the last store: everything is there, and is checked before anything is built upon it.
    fn enter_lists(&mut self) -> Result<(), BadSnapshot> {
        if self.stage == Stage::Lists {
            return Ok(());
        }
        if self.stage != Stage::Records(BUNDLES) {
            return Err(BadSnapshot::Incomplete);
        }
        self.close_store(BUNDLES)?;
        check::whole(&mut self.table)?;
        self.stage = Stage::Lists;
        Ok(())
    }
}

fn opened<T: Record, const B: u32>(heads: [u32; 4], pages: &[[u32; 5]]) -> Result<Slab<T, B>, BadSnapshot> {
    let book = Chunks::from_parts(B, heads, pages);
    book.map(Slab::with_book).ok_or(BadSnapshot::Unsound("the book of a store does not fit together"))
}

fn leave_vacant<T: Record, const B: u32>(slab: &mut Slab<T, B>, slot: u32, next: u32) {
    slab.put_back(slot, T::vacant(next));
}

pub(super) fn read_link(r: &mut Reader<'_>) -> Result<Link, Malformed> {
    Ok(Link { prev: r.u32("link")?, next: r.u32("link")? })
}

pub(super) fn read_ends(r: &mut Reader<'_>) -> Result<Ends, Malformed> {
    Ok(Ends { head: r.u32("ends")?, tail: r.u32("ends")? })
}

/// Bytes behind their length.
pub(super) fn read_text<'a>(r: &mut Reader<'a>, most: usize) -> Result<&'a [u8], Malformed> {
    let length = usize::from(r.u16("text_length")?);
    if length > most {
        return Err(Malformed::Refused(Refusal::TooLong));
    }
    r.bytes(length, "text")
}

fn read_namespace<'a>(r: &mut Reader<'a>) -> Result<Namespace<'a>, BadSnapshot> {
    Ok(Namespace::new(read_text(r, fairlock_protocol::limits::NAMESPACE_BYTES_MAX)?)?)
}

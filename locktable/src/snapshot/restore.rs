//! A table from its pieces, one by one as they come: what is read is put where it was, and when everything is there it
//! is checked and what follows from it is made anew ([`super::check`]), a bounded number of records at a time.

use super::bundles::Incomplete;
use super::check::Check;
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
    check: Check,
    /// What was read of the present piece so far: the rest waits until everything before it is checked.
    rest: Option<(Vec<u8>, usize)>,
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
    /// The records are complete, and being checked.
    Checks,
    /// Everything is checked; the lists follow.
    Lists,
    /// The last piece was the last.
    Over,
}

/// Stores, by the order in which they come.
pub(super) const SESSIONS: u8 = 0;
pub(super) const LOCKS: u8 = 1;
pub(super) const GRANTS: u8 = 2;
pub(super) const WAITERS: u8 = 3;
pub(super) const BUNDLES: u8 = 4;

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
            check: Check::default(),
            rest: None,
        }
    }

    /// Takes in the next piece. [`Restorer::go_on`] does what is left to do of it.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing comes of this snapshot then.
    ///
    /// # Panics
    /// When something of the piece before is left to do.
    pub fn piece(&mut self, piece: &[u8]) -> Result<(), BadSnapshot> {
        assert!(self.rest.is_none(), "one piece after the other");
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
        self.read(piece, r)
    }

    /// Does up to about `records` records' worth of what is left to do, and says whether the next piece can come.
    ///
    /// # Errors
    /// Says what is wrong with the snapshot; nothing comes of it then.
    pub fn go_on(&mut self, records: u32) -> Result<bool, BadSnapshot> {
        let mut left = records;
        if self.stage == Stage::Checks && self.check.go_on(&mut self.table, &mut left)? {
            self.stage = Stage::Lists;
        }
        if self.stage != Stage::Checks
            && let Some((piece, from)) = self.rest.take()
        {
            self.read(&piece, Reader::new(&piece[from..]))?;
        }
        Ok(self.rest.is_none())
    }

    /// Reads records of a piece to its end, or to where everything before must have been checked.
    fn read(&mut self, piece: &[u8], mut r: Reader<'_>) -> Result<(), BadSnapshot> {
        loop {
            let mut after = r;
            let from = piece.len() - after.remaining().len();
            if from == piece.len() {
                self.sum.add(piece);
                return Ok(());
            }
            let tag = r.u8("tag")?;
            let listed = matches!(tag, tag::HEIR | tag::NOTICE | tag::MARK | tag::REASSERTED | tag::END);
            if listed && self.stage != Stage::Lists {
                self.enter_checks()?;
                self.rest = Some((piece.into(), from));
                return Ok(());
            }
            if tag == tag::END {
                return self.end(piece, r);
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
        let next = self.next_missing(store);
        let slot = next.ok_or(BadSnapshot::Unsound("a store has one record too many"))?;
        let table = &mut self.table;
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
            (BUNDLES, tag::BUNDLE) => {
                self.bundle = Some(Incomplete::read(slot, r)?);
                return Ok(());
            }
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
        self.look_at_chunk(store, slot)
    }

    /// One of several locks that the present bundle asks for.
    fn item(&mut self, r: &mut Reader<'_>) -> Result<(), BadSnapshot> {
        let mut bundle = self.bundle.take().ok_or(Malformed::UnknownKind(tag::ITEM))?;
        bundle.item(r)?;
        if !bundle.is_complete() {
            self.bundle = Some(bundle);
            return Ok(());
        }
        let slot = bundle.slot;
        self.table.bundles.put_back(slot, bundle.done());
        self.look_at_chunk(BUNDLES, slot)
    }

    fn close_store(&mut self, store: u8) -> Result<(), BadSnapshot> {
        let missing = self.next_missing(store).is_some();
        let whole = !missing && self.kept.1 == 0 && self.bundle.is_none();
        sound(whole, "a store is not what its book says")
    }

    /// The slot of the record of a store that comes next.
    fn next_missing(&mut self, store: u8) -> Option<u32> {
        let (table, at) = (&self.table, &mut self.at);
        match store {
            SESSIONS => table.sessions.next_missing(at),
            LOCKS => table.locks.next_missing(at),
            GRANTS => table.grants.next_missing(at),
            WAITERS => table.waiters.next_missing(at),
            _ => table.bundles.next_missing(at),
        }
    }

    /// After a record came back: when it was the last of its chunk, the chunk must be what the book says.
    fn look_at_chunk(&self, store: u8, slot: u32) -> Result<(), BadSnapshot> {
        let table = &self.table;
        let whole = match store {
            SESSIONS => table.sessions.chunk_is_sound(slot),
            LOCKS => table.locks.chunk_is_sound(slot),
            GRANTS => table.grants.chunk_is_sound(slot),
            WAITERS => table.waiters.chunk_is_sound(slot),
            _ => table.bundles.chunk_is_sound(slot),
        };
        sound(whole, "a store is not what its book says")
    }

    /// After the last store: everything is there, and is checked before anything is built upon it.
    fn enter_checks(&mut self) -> Result<(), BadSnapshot> {
        if self.stage != Stage::Records(BUNDLES) {
            return Err(BadSnapshot::Incomplete);
        }
        self.close_store(BUNDLES)?;
        self.stage = Stage::Checks;
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

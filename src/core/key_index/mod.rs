//! key → (file, row position): where the live rows of each key are.
//!
//! The index is a cache of the table, and the table is the truth: it follows the table by snapshot diff, and can always
//! be rebuilt from the key columns. It keeps **every** live position of a key, so that an upsert or delete supersedes all
//! of them, also where a foreign writer made duplicates.

pub mod encode;
mod lists;
pub mod saved;
mod table;
mod texts;

pub use self::encode::{ENCODING_VERSION, KeyEncoder};
pub use self::saved::SavedTag;
pub use super::change::Key;

use self::lists::{Lists, Word};
use self::table::Table;

/// The physical place of a row: the number that the index's owner gave the file, and the row's number in it from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file's number.
    pub file: u32,
    /// The row's number in the file.
    pub row: u32,
}

/// How much of a key the index keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWidth {
    /// 64 bits, which are the key itself: slots of 16 bytes. The upper half of every [`Key`] is 0.
    Exact,
    /// 128 bits, a hash of the key: slots of 24 bytes.
    Hashed,
}

/// What the index knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The key has no live row.
    Absent,
    /// The key's only live row, and its order value (0 in an index without order).
    One(Location, i64),
    /// The key has several live rows: those of this list, see [`KeyIndex::listed`]. The number is good until the index
    /// changes.
    Many(u32),
}

/// Where the live rows of each key are, in memory.
///
/// At most 24 bytes per key ([`KeyWidth::Exact`]) or 32 ([`KeyWidth::Hashed`]), growth included, and 8 more with an order
/// value. Keys must be spread evenly over their upper bits of what is kept, as [`KeyEncoder`] makes them: others are found
/// just as well, but slowly.
#[derive(Debug)]
pub struct KeyIndex {
    slots: Slots,
    lists: Lists,
}

#[derive(Debug)]
enum Slots {
    Exact(Table<1, 2>),
    ExactOrdered(Table<1, 3>),
    Hashed(Table<2, 3>),
    HashedOrdered(Table<2, 4>),
}

/// Runs the same expression on whichever table it is.
macro_rules! on {
    ($slots:expr, $table:ident => $body:expr) => {
        match $slots {
            Slots::Exact($table) => $body,
            Slots::ExactOrdered($table) => $body,
            Slots::Hashed($table) => $body,
            Slots::HashedOrdered($table) => $body,
        }
    };
}
use on;

impl KeyIndex {
    /// An empty index; `ordered` keeps an order value per key.
    #[must_use]
    pub fn new(width: KeyWidth, ordered: bool) -> Self {
        let slots = match (width, ordered) {
            (KeyWidth::Exact, false) => Slots::Exact(Table::new()),
            (KeyWidth::Exact, true) => Slots::ExactOrdered(Table::new()),
            (KeyWidth::Hashed, false) => Slots::Hashed(Table::new()),
            (KeyWidth::Hashed, true) => Slots::HashedOrdered(Table::new()),
        };
        KeyIndex { slots, lists: Lists::default() }
    }

    /// How much of a key is kept.
    #[must_use]
    pub fn width(&self) -> KeyWidth {
        match self.slots {
            Slots::Exact(_) | Slots::ExactOrdered(_) => KeyWidth::Exact,
            Slots::Hashed(_) | Slots::HashedOrdered(_) => KeyWidth::Hashed,
        }
    }

    /// Whether an order value is kept per key.
    #[must_use]
    pub fn ordered(&self) -> bool {
        matches!(self.slots, Slots::ExactOrdered(_) | Slots::HashedOrdered(_))
    }

    /// How many distinct keys have a live row.
    #[must_use]
    pub fn keys(&self) -> u64 {
        on!(&self.slots, table => table.len() as u64)
    }

    /// Bytes allocated.
    #[must_use]
    pub fn memory(&self) -> usize {
        on!(&self.slots, table => table.memory()) + self.lists.memory()
    }

    /// Looks up a batch: `out[i]` becomes what is known of `keys[i]`. Faster per key than single look-ups, because the
    /// memory of later keys is fetched while earlier ones are compared.
    pub fn probe(&self, keys: &[Key], out: &mut Vec<Probe>) {
        out.clear();
        out.reserve(keys.len());
        on!(&self.slots, table => table.get_batch(keys, |entry| {
            out.push(match entry {
                None => Probe::Absent,
                Some((word, order)) => match lists::read(word) {
                    Word::One(at) => Probe::One(at, order),
                    Word::List(id) => Probe::Many(id),
                },
            });
        }));
    }

    /// The positions and order values behind a [`Probe::Many`].
    #[must_use]
    pub fn listed(&self, id: u32) -> &[(Location, i64)] {
        self.lists.get(id)
    }

    /// Every live position of a key.
    pub fn locations(&self, key: Key) -> impl Iterator<Item = Location> {
        let entry = on!(&self.slots, table => table.get(key));
        let (one, list) = self.positions(entry.map(|(word, _)| word));
        one.into_iter().chain(list.iter().map(|&(at, _)| at))
    }

    /// The largest order value of a key's live rows; `None` for an absent key and in an index without order.
    #[must_use]
    pub fn order(&self, key: Key) -> Option<i64> {
        if !self.ordered() {
            return None;
        }
        on!(&self.slots, table => table.get(key)).map(|(_, order)| order)
    }

    /// Adds a live position to those of the key. A position that is there already only gets the new order value.
    pub fn insert(&mut self, key: Key, at: Location, order: i64) {
        self.insert_batch(&[(key, at, order)]);
    }

    /// [`KeyIndex::insert`] of each entry in order, faster per key than single calls.
    pub fn insert_batch(&mut self, entries: &[(Key, Location, i64)]) {
        let (ordered, lists) = (self.ordered(), &mut self.lists);
        on!(&mut self.slots, table => table.upsert_batch(entries, |e| e.0, |&(_, at, order), old| {
            lists.also(at, if ordered { order } else { 0 }, old)
        }));
    }

    /// Makes `at` the key's only live position.
    pub fn replace(&mut self, key: Key, at: Location, order: i64) {
        self.replace_batch(&[(key, at, order)]);
    }

    /// [`KeyIndex::replace`] of each entry in order, faster per key than single calls.
    pub fn replace_batch(&mut self, entries: &[(Key, Location, i64)]) {
        let (ordered, lists) = (self.ordered(), &mut self.lists);
        on!(&mut self.slots, table => table.upsert_batch(entries, |e| e.0, |&(_, at, order), old| {
            lists.only(at, if ordered { order } else { 0 }, old)
        }));
    }

    /// Takes one position from those of the key; nothing where the key is not there.
    pub fn remove(&mut self, key: Key, at: Location) {
        let lists = &mut self.lists;
        on!(&mut self.slots, table => table.change(key, |entry| lists.filter(entry, |other| other != at)));
    }

    /// Forgets the key.
    pub fn remove_all(&mut self, key: Key) {
        let lists = &mut self.lists;
        on!(&mut self.slots, table => table.change(key, |entry| {
            lists.release(entry.0);
            None
        }));
    }

    /// Keeps the positions that `keep` says, in one sweep over the index: how removed files and foreign deletes are
    /// followed.
    pub fn retain(&mut self, mut keep: impl FnMut(Location) -> bool) {
        let lists = &mut self.lists;
        on!(&mut self.slots, table => table.change_all(|entry| lists.filter(entry, &mut keep)));
    }

    /// Every live position with its key and order value (0 in an index without order), in key order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Location, i64)> {
        let entries: Box<dyn Iterator<Item = _>> = on!(&self.slots, table => Box::new(table.iter()));
        entries.flat_map(|(key, (word, order))| {
            let (one, list) = self.positions(Some(word));
            one.map(|at| (key, at, order)).into_iter().chain(list.iter().map(move |&(at, order)| (key, at, order)))
        })
    }

    /// The positions that a location word stands for.
    fn positions(&self, word: Option<u64>) -> (Option<Location>, &[(Location, i64)]) {
        match word.map(lists::read) {
            None => (None, &[]),
            Some(Word::One(at)) => (Some(at), &[]),
            Some(Word::List(id)) => (None, self.lists.get(id)),
        }
    }
}

#[cfg(test)]
mod tests;

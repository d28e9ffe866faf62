//! Location words: one position, or the number of a list where a key has several.

use super::Location;
use super::table::Entry;

/// The file number that marks a list. A position in a file of this number is kept in a list, too, so every position can
/// be kept.
const LISTED: u32 = u32::MAX;

/// What a location word says.
pub(super) enum Word {
    One(Location),
    /// The number of the key's list.
    List(u32),
}

/// The positions of the keys that have more than one: duplicates that foreign writers made.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Never empty where a key refers to it; empty where it is free.
    lists: Vec<Vec<(Location, i64)>>,
    free: Vec<u32>,
}

/// Reads a location word.
#[inline]
pub(super) fn read(word: u64) -> Word {
    let (file, row) = ((word >> 32) as u32, word as u32);
    if file == LISTED { Word::List(row) } else { Word::One(Location { file, row }) }
}

fn word(file: u32, row: u32) -> u64 {
    u64::from(file) << 32 | u64::from(row)
}

impl Lists {
    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        let positions: usize = self.lists.iter().map(Vec::capacity).sum();
        positions * size_of::<(Location, i64)>()
            + self.lists.capacity() * size_of::<Vec<(Location, i64)>>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// The positions of list `id`; none where there is no such list.
    pub(super) fn get(&self, id: u32) -> &[(Location, i64)] {
        self.lists.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Every list by number, the free ones empty.
    pub(super) fn all(&self) -> &[Vec<(Location, i64)>] {
        &self.lists
    }

    /// Lists as [`Lists::all`] gave them.
    pub(super) fn from_all(lists: Vec<Vec<(Location, i64)>>) -> Self {
        let free = (0u32..).zip(&lists).filter(|(_, list)| list.is_empty()).map(|(id, _)| id).collect();
        Lists { lists, free }
    }

    /// The entry of a key whose only position is `at`.
    #[inline]
    pub(super) fn only(&mut self, at: Location, order: i64, old: Option<Entry>) -> Entry {
        if let Some((old, _)) = old {
            self.release(old);
        }
        if at.file == LISTED {
            return self.keep(vec![(at, order)]);
        }
        (word(at.file, at.row), order)
    }

    /// The entry of a key that also has the position `at`.
    pub(super) fn also(&mut self, at: Location, order: i64, old: Option<Entry>) -> Entry {
        let Some((old, old_order)) = old else { return self.only(at, order, None) };
        let mut list = match read(old) {
            Word::One(one) if one == at => return (old, order),
            Word::One(one) => vec![(one, old_order)],
            Word::List(id) => self.release_list(id),
        };
        match list.iter_mut().find(|(location, _)| *location == at) {
            Some(found) => found.1 = order,
            None => list.push((at, order)),
        }
        self.keep(list)
    }

    /// The entry of a key that keeps those of its positions that `keep` says; `None` when none is left.
    #[inline]
    pub(super) fn filter(&mut self, entry: Entry, mut keep: impl FnMut(Location) -> bool) -> Option<Entry> {
        match read(entry.0) {
            Word::One(one) => keep(one).then_some(entry),
            Word::List(id) => {
                let mut list = self.release_list(id);
                list.retain(|&(at, _)| keep(at));
                match list[..] {
                    [] => None,
                    [(at, order)] => Some(self.only(at, order, None)),
                    _ => Some(self.keep(list)),
                }
            }
        }
    }

    /// Frees the list of a word that is no longer used.
    #[inline]
    pub(super) fn release(&mut self, word: u64) {
        if let Word::List(id) = read(word) {
            self.release_list(id);
        }
    }

    fn release_list(&mut self, id: u32) -> Vec<(Location, i64)> {
        let list = self.lists.get_mut(id as usize).map(std::mem::take).unwrap_or_default();
        self.free.push(id);
        if self.free.len() == self.lists.len() {
            (self.lists, self.free) = (Vec::new(), Vec::new());
        }
        list
    }

    /// The entry of a key with these positions; its order is the largest of theirs.
    fn keep(&mut self, list: Vec<(Location, i64)>) -> Entry {
        let order = list.iter().map(|&(_, order)| order).max().unwrap_or_default();
        let id = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            (self.lists.len() - 1) as u32
        });
        self.lists[id as usize] = list;
        (word(LISTED, id), order)
    }
}

//! The slots of the index: shards of open addressing in which the entries lie in key order.
//!
//! A key's home is its hash scaled to the shard, so homes rise with the hash and "sorted by hash" costs nothing: an entry
//! lies at its home or after it, with no gap between, and a search ends at the first greater key, also for a key that is
//! absent. Removing shifts back, so there are no tombstones. Growing copies one shard from front to back, which is cheap
//! enough to grow by a small factor, and that is what keeps the bytes per key low.

use super::Key;

/// Shards per table: growth copies one of them, so the copy is a small part of the memory and of a batch's time.
pub(super) const SHARDS: usize = 256;

/// The location word of a slot that holds no key.
pub(super) const EMPTY: u64 = u64::MAX;

/// Slots after the last home. Few shards ever need more; those get them when they do.
const TAIL: usize = 24;

/// Capacities of empty shards, in 256ths of a slot, and how much of it the first and the last shard are apart. The step
/// equals one growth, so shards grow one after the other, and memory per key is the same at every number of keys.
const BASE: u64 = 16 << 8;
const BASE_STEP: u64 = BASE / 8 / SHARDS as u64;

/// How many look-ups ahead a batch fetches.
const AHEAD: usize = 16;

/// A key's location word and order value.
pub(super) type Entry = (u64, i64);

/// Keys of `K` words in slots of `N` words: the key, the location word and, where `N` is `K + 2`, the order value.
#[derive(Debug)]
pub(super) struct Table<const K: usize, const N: usize> {
    shards: Vec<Shard<K, N>>,
}

#[derive(Debug)]
struct Shard<const K: usize, const N: usize> {
    slots: Vec<[u64; N]>,
    /// How many slots are the home of some hash; the rest takes what is pushed past the last one.
    homes: usize,
    len: usize,
    /// Capacity of the smallest step, in 256ths of a slot.
    base: u64,
}

impl<const K: usize, const N: usize> Table<K, N> {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS as u64)
            .map(|i| Shard { slots: Vec::new(), homes: 0, len: 0, base: BASE + BASE_STEP * i })
            .collect();
        Table { shards }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.len).sum()
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        let slots: usize = self.shards.iter().map(|s| s.slots.capacity()).sum();
        slots * size_of::<[u64; N]>() + self.shards.capacity() * size_of::<Shard<K, N>>()
    }

    pub(super) fn get(&self, key: Key) -> Option<Entry> {
        let key = words(key);
        let shard = &self.shards[shard_of(key[0])];
        shard.find(&key).ok().map(|i| entry::<K, N>(&shard.slots[i]))
    }

    /// Calls `each` with the entry of every key, in order.
    pub(super) fn get_batch(&self, keys: &[Key], mut each: impl FnMut(Option<Entry>)) {
        for key in keys.iter().take(AHEAD) {
            self.prefetch(*key);
        }
        for (i, &key) in keys.iter().enumerate() {
            if let Some(&ahead) = keys.get(i + AHEAD) {
                self.prefetch(ahead);
            }
            each(self.get(key));
        }
    }

    /// Sets the entry of a key to what `entry` makes of the present one.
    pub(super) fn upsert(&mut self, key: Key, make: impl FnOnce(Option<Entry>) -> Entry) {
        let key = words(key);
        let shard = &mut self.shards[shard_of(key[0])];
        match shard.find(&key) {
            Ok(i) => {
                let made = make(Some(entry::<K, N>(&shard.slots[i])));
                set::<K, N>(&mut shard.slots[i], made);
            }
            Err(i) => {
                let mut slot = [0; N];
                slot[..K].copy_from_slice(&key);
                set::<K, N>(&mut slot, make(None));
                shard.insert(i, slot);
            }
        }
    }

    /// [`Table::upsert`] of many keys; `make` also gets the number of the key.
    pub(super) fn upsert_batch<T>(
        &mut self,
        batch: &[T],
        key: impl Fn(&T) -> Key,
        mut make: impl FnMut(&T, Option<Entry>) -> Entry,
    ) {
        for item in batch.iter().take(AHEAD) {
            self.prefetch(key(item));
        }
        for (i, item) in batch.iter().enumerate() {
            if let Some(ahead) = batch.get(i + AHEAD) {
                self.prefetch(key(ahead));
            }
            self.upsert(key(item), |entry| make(item, entry));
        }
    }

    /// Sets the entry of a key that is present to what `change` makes of it, or removes the key where that is `None`.
    pub(super) fn change(&mut self, key: Key, change: impl FnOnce(Entry) -> Option<Entry>) {
        let key = words(key);
        let shard = &mut self.shards[shard_of(key[0])];
        let Ok(i) = shard.find(&key) else { return };
        match change(entry::<K, N>(&shard.slots[i])) {
            Some(made) => set::<K, N>(&mut shard.slots[i], made),
            None => shard.remove(i),
        }
    }

    /// [`Table::change`] of every key, in one sweep.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(Entry) -> Option<Entry>) {
        for shard in &mut self.shards {
            shard.change_all(&mut change);
        }
    }

    /// Every key with its entry, in key order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Entry)> {
        self.shards.iter().flat_map(Shard::occupied).map(|slot| (key_of::<K, N>(slot), entry::<K, N>(slot)))
    }

    /// The occupied slots of one shard after the other, in key order.
    pub(super) fn shards(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = &[u64; N]>)> {
        self.shards.iter().map(|shard| (shard.len, shard.occupied()))
    }

    /// Fills an empty shard with slots that [`Table::shards`] gave.
    ///
    /// # Errors
    /// The slots are not in key order, or not of this shard.
    pub(super) fn fill(&mut self, shard: usize, slots: &[[u64; N]]) -> Result<(), String> {
        let sorted = slots.is_sorted_by(|a, b| a[..K] < b[..K]);
        if !sorted || slots.iter().any(|slot| shard_of(slot[0]) != shard || slot[K] == EMPTY) {
            return Err(format!("shard {shard} is out of order"));
        }
        if slots.is_empty() {
            return Ok(());
        }
        let shard = &mut self.shards[shard];
        shard.len = slots.len();
        shard.lay_out(slots);
        Ok(())
    }

    /// Asks the processor for the slots where a search will begin.
    #[inline]
    fn prefetch(&self, key: Key) {
        let hash = words::<K>(key)[0];
        let shard = &self.shards[shard_of(hash)];
        let first = shard.slots.as_ptr().wrapping_add(home(hash, shard.homes)).cast::<i8>();
        prefetch_line(first);
        prefetch_line(first.wrapping_add(64));
    }
}

impl<const K: usize, const N: usize> Shard<K, N> {
    const VACANT: [u64; N] = [EMPTY; N];

    /// Where the key is, or where it would have to be inserted.
    #[inline]
    fn find(&self, key: &[u64; K]) -> Result<usize, usize> {
        let mut i = home(key[0], self.homes);
        while let Some(slot) = self.slots.get(i) {
            if slot[K] == EMPTY || slot[0] > key[0] {
                return Err(i);
            }
            if slot[0] == key[0] {
                match slot[..K].cmp(key) {
                    std::cmp::Ordering::Equal => return Ok(i),
                    std::cmp::Ordering::Greater => return Err(i),
                    std::cmp::Ordering::Less => {}
                }
            }
            i += 1;
        }
        Err(i)
    }

    fn insert(&mut self, mut i: usize, slot: [u64; N]) {
        self.len += 1;
        if self.len > len_max(self.homes) {
            let old = std::mem::take(&mut self.slots);
            self.lay_out(&old);
            let mut key = [0; K];
            key.copy_from_slice(&slot[..K]);
            i = self.find(&key).unwrap_or_else(|i| i);
        }
        let vacant = self.slots[i..].iter().position(|s| s[K] == EMPTY);
        let end = vacant.map_or(self.slots.len(), |n| i + n);
        if end == self.slots.len() {
            lengthen(&mut self.slots);
        }
        self.slots.copy_within(i..end, i + 1);
        self.slots[i] = slot;
    }

    fn remove(&mut self, i: usize) {
        let follows = |(n, s): (usize, &[u64; N])| s[K] == EMPTY || home(s[0], self.homes) == i + 1 + n;
        let rest = self.slots[i + 1..].iter().enumerate().position(follows);
        let end = rest.map_or(self.slots.len(), |n| i + 1 + n);
        self.slots.copy_within(i + 1..end, i);
        self.slots[end - 1] = Self::VACANT;
        self.len -= 1;
        self.shrink();
    }

    fn change_all(&mut self, change: &mut impl FnMut(Entry) -> Option<Entry>) {
        let mut next = 0;
        for i in 0..self.slots.len() {
            let mut slot = std::mem::replace(&mut self.slots[i], Self::VACANT);
            if slot[K] == EMPTY {
                continue;
            }
            match change(entry::<K, N>(&slot)) {
                Some(made) => {
                    set::<K, N>(&mut slot, made);
                    // Never after i: the entries before this one were placed no later than they were found.
                    let at = home(slot[0], self.homes).max(next);
                    self.slots[at] = slot;
                    next = at + 1;
                }
                None => self.len -= 1,
            }
        }
        self.shrink();
    }

    fn occupied(&self) -> impl Iterator<Item = &[u64; N]> {
        self.slots.iter().filter(|slot| slot[K] != EMPTY)
    }

    /// Gives memory back when less than half of it is used.
    fn shrink(&mut self) {
        if self.len == 0 {
            (self.slots, self.homes) = (Vec::new(), 0);
        } else if self.len * 2 < len_max(self.homes) && capacity(self.base, self.len) < self.homes {
            let old = std::mem::take(&mut self.slots);
            self.lay_out(&old);
        }
    }

    /// Lays the occupied ones of `slots`, which are in key order, into the smallest capacity for `len` keys.
    fn lay_out(&mut self, slots: &[[u64; N]]) {
        self.homes = capacity(self.base, self.len);
        self.slots = vec![Self::VACANT; self.homes + TAIL];
        let mut next = 0;
        for slot in slots.iter().filter(|slot| slot[K] != EMPTY) {
            let at = home(slot[0], self.homes).max(next);
            if at == self.slots.len() {
                lengthen(&mut self.slots);
            }
            self.slots[at] = *slot;
            next = at + 1;
        }
    }
}

/// The words of a key, most significant first; the first is its hash.
#[inline]
fn words<const K: usize>(key: Key) -> [u64; K] {
    debug_assert!(K > 1 || key.0 >> 64 == 0, "an exact key has 64 bits");
    std::array::from_fn(|i| (key.0 >> (64 * (K - 1 - i))) as u64)
}

fn key_of<const K: usize, const N: usize>(slot: &[u64; N]) -> Key {
    Key(slot[..K].iter().fold(0, |key, &word| key << 64 | u128::from(word)))
}

#[inline]
fn entry<const K: usize, const N: usize>(slot: &[u64; N]) -> Entry {
    (slot[K], slot.get(K + 1).map_or(0, |&order| order as i64))
}

#[inline]
fn set<const K: usize, const N: usize>(slot: &mut [u64; N], (word, order): Entry) {
    slot[K] = word;
    if let Some(place) = slot.get_mut(K + 1) {
        *place = order as u64;
    }
}

/// The first bits of the hash choose the shard, the others the home in it.
#[inline]
fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARDS.ilog2())) as usize
}

#[inline]
fn home(hash: u64, homes: usize) -> usize {
    ((u128::from(hash << SHARDS.ilog2()) * homes as u128) >> 64) as usize
}

/// How many keys fit `homes`: more, and the runs that an insertion shifts become long.
fn len_max(homes: usize) -> usize {
    homes * 7 / 8
}

/// The smallest capacity of the series that starts at `base` in which `len` keys fit.
fn capacity(base: u64, len: usize) -> usize {
    let mut size = base;
    while len_max((size >> 8) as usize) < len {
        size += size / 8;
    }
    (size >> 8) as usize
}

/// Adds slots after the last one. By a part of the length, so that also keys whose hashes are all alike (only a caller
/// that does not hash could give such) cost memory in proportion.
fn lengthen<const N: usize>(slots: &mut Vec<[u64; N]>) {
    let more = TAIL + slots.len() / 16;
    slots.reserve_exact(more);
    slots.resize(slots.len() + more, [EMPTY; N]);
}

#[inline]
fn prefetch_line(_address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it reads nothing and faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(_address, _MM_HINT_T0);
    }
}

#[cfg(test)]
impl<const K: usize, const N: usize> Table<K, N> {
    /// Bytes allocated while the shard that is largest after its next growth is copied.
    pub(super) fn memory_growing(&self) -> usize {
        let next = self.shards.iter().map(|s| capacity(s.base, len_max(s.homes) + 1) + TAIL).max().unwrap_or(0);
        self.memory() + next * size_of::<[u64; N]>()
    }

    /// How far the most displaced key lies from its home.
    pub(super) fn displacement_max(&self) -> usize {
        let shard = |s: &Shard<K, N>| {
            let slots = s.slots.iter().enumerate().filter(|(_, slot)| slot[K] != EMPTY);
            slots.map(|(i, slot)| i - home(slot[0], s.homes)).max().unwrap_or(0)
        };
        self.shards.iter().map(shard).max().unwrap_or(0)
    }

    /// Panics where the order of the slots is broken.
    pub(super) fn check(&self) {
        for (number, shard) in self.shards.iter().enumerate() {
            assert_eq!(shard.occupied().count(), shard.len);
            assert!(shard.occupied().is_sorted_by(|a, b| a[..K] < b[..K]), "shard {number} is not sorted");
            for (i, slot) in shard.slots.iter().enumerate().filter(|(_, slot)| slot[K] != EMPTY) {
                let home = home(slot[0], shard.homes);
                assert!(home <= i && shard_of(slot[0]) == number);
                assert!(shard.slots[home..i].iter().all(|s| s[K] != EMPTY), "gap before slot {i} of shard {number}");
            }
        }
    }
}

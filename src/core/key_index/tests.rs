use std::collections::HashMap;

use super::*;

/// The repository's usual small generator: every seed gives another sequence, and each draw looks random.
pub(super) struct Draw(pub u64);

impl Draw {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        spread(self.0)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn spread(value: u64) -> u64 {
    let x = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

const KINDS: [(KeyWidth, bool); 4] =
    [(KeyWidth::Exact, false), (KeyWidth::Exact, true), (KeyWidth::Hashed, false), (KeyWidth::Hashed, true)];

fn key(width: KeyWidth, number: u64) -> Key {
    match width {
        KeyWidth::Exact => Key(u128::from(spread(number))),
        KeyWidth::Hashed => Key(u128::from(spread(number)) << 64 | u128::from(spread(!number))),
    }
}

fn at(file: u32, row: u32) -> Location {
    Location { file, row }
}

/// The index as one would write it without a thought for memory.
#[derive(Default)]
struct Model(HashMap<Key, Vec<(Location, i64)>>);

impl Model {
    fn insert(&mut self, key: Key, at: Location, order: i64) {
        let list = self.0.entry(key).or_default();
        match list.iter_mut().find(|(other, _)| *other == at) {
            Some(found) => found.1 = order,
            None => list.push((at, order)),
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(Key, Location) -> bool) {
        self.0.retain(|&key, list| {
            list.retain(|&(at, _)| keep(key, at));
            !list.is_empty()
        });
    }

    fn sorted(&self) -> Vec<(Key, Location, i64)> {
        let mut all: Vec<_> = self.0.iter().flat_map(|(&k, l)| l.iter().map(move |&(at, o)| (k, at, o))).collect();
        all.sort_unstable();
        all
    }
}

fn compare(index: &KeyIndex, model: &Model) {
    on!(&index.slots, table => table.check());
    assert_eq!(index.keys(), model.0.len() as u64);
    let mut all: Vec<_> = index.iter().collect();
    assert!(all.is_sorted_by_key(|entry| entry.0));
    all.sort_unstable();
    assert!(all == model.sorted(), "the index and the model differ");
}

fn compare_key(index: &KeyIndex, model: &Model, key: Key, probe: Probe) {
    let listed = model.0.get(&key).map_or(&[][..], Vec::as_slice);
    let mut expected: Vec<_> = listed.iter().map(|l| l.0).collect();
    let mut found: Vec<_> = index.locations(key).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    let order = listed.iter().map(|l| l.1).max();
    assert_eq!(index.order(key), order.filter(|_| index.ordered()));
    match probe {
        Probe::Absent => assert!(expected.is_empty()),
        Probe::One(at, found) => assert_eq!((vec![at], Some(found)), (expected, order)),
        Probe::Many(id) => assert_eq!(index.listed(id).len(), expected.len()),
    }
}

/// One random operation on both; few keys per seed, so that each is often hit again, and few files, so that sweeps are felt.
fn step(index: &mut KeyIndex, model: &mut Model, draw: &mut Draw, keys: u64) {
    let (width, ordered) = (index.width(), index.ordered());
    let key_at = |draw: &mut Draw| key(width, draw.below(keys));
    let place = |draw: &mut Draw| {
        // File u32::MAX is the index's own mark for lists; a position in it must be kept all the same.
        let file = if draw.below(500) == 0 { u32::MAX } else { draw.below(8) as u32 };
        at(file, if draw.below(500) == 0 { u32::MAX } else { draw.below(4) as u32 })
    };
    let order = |draw: &mut Draw| if ordered { draw.next() as i64 } else { 0 };
    match draw.below(1000) {
        0..400 => {
            let (key, at, order) = (key_at(draw), place(draw), order(draw));
            index.insert(key, at, order);
            model.insert(key, at, order);
        }
        400..600 => {
            let (key, at, order) = (key_at(draw), place(draw), order(draw));
            index.replace(key, at, order);
            model.0.insert(key, vec![(at, order)]);
        }
        600..800 => {
            let (key, at) = (key_at(draw), place(draw));
            index.remove(key, at);
            model.retain_of(key, |other| other != at);
        }
        800..995 => {
            let key = key_at(draw);
            index.remove_all(key);
            model.0.remove(&key);
        }
        995 => {
            let batch: Vec<_> = (0..50).map(|_| (key_at(draw), place(draw), order(draw))).collect();
            index.replace_batch(&batch);
            batch.iter().for_each(|&(key, at, order)| drop(model.0.insert(key, vec![(at, order)])));
        }
        996 => {
            let batch: Vec<_> = (0..50).map(|_| (key_at(draw), place(draw), order(draw))).collect();
            index.insert_batch(&batch);
            batch.iter().for_each(|&(key, at, order)| model.insert(key, at, order));
        }
        997 => {
            let gone = draw.below(8) as u32;
            index.retain(|at| at.file != gone);
            model.retain(|_, at| at.file != gone);
        }
        998 => {
            let batch: Vec<_> = (0..50).map(|_| key_at(draw)).collect();
            let mut probes = vec![Probe::Absent];
            index.probe(&batch, &mut probes);
            assert_eq!(probes.len(), batch.len());
            batch.iter().zip(probes).for_each(|(&key, probe)| compare_key(index, model, key, probe));
        }
        _ => compare(index, model),
    }
}

impl Model {
    fn retain_of(&mut self, key: Key, mut keep: impl FnMut(Location) -> bool) {
        if let Some(list) = self.0.get_mut(&key) {
            list.retain(|&(at, _)| keep(at));
            if list.is_empty() {
                self.0.remove(&key);
            }
        }
    }
}

#[test]
fn it_is_a_map_from_keys_to_sets_of_positions() {
    for seed in 0..60 {
        let mut draw = Draw(seed);
        let (width, ordered) = KINDS[seed as usize % 4];
        let (mut index, mut model) = (KeyIndex::new(width, ordered), Model::default());
        let keys = [3, 60, 900, 20_000][seed as usize / 4 % 4];
        for _ in 0..20_000 {
            step(&mut index, &mut model, &mut draw, keys);
        }
        compare(&index, &model);
        index.retain(|_| false);
        assert_eq!((index.keys(), index.iter().count()), (0, 0));
        assert!(index.memory() < 20_000, "an index that was emptied gives its memory back");
    }
}

#[test]
fn keys_whose_hashes_are_alike_are_slow_but_right() {
    for (width, ordered) in KINDS {
        let (mut index, mut model) = (KeyIndex::new(width, ordered), Model::default());
        let mut draw = Draw(7);
        for number in 0..3000_u64 {
            let key = Key(u128::from(draw.below(2000)));
            let order = if ordered { number as i64 } else { 0 };
            if draw.below(4) == 0 {
                index.remove_all(key);
                model.0.remove(&key);
            } else {
                index.insert(key, at(1, number as u32), order);
                model.insert(key, at(1, number as u32), order);
            }
        }
        compare(&index, &model);
        let top = Key(if width == KeyWidth::Exact { u128::from(u64::MAX) } else { u128::MAX });
        index.replace(top, at(2, 2), 0);
        model.insert(top, at(2, 2), 0);
        compare(&index, &model);
    }
}

#[test]
fn a_second_position_is_kept_beside_the_first_until_one_replaces_both() {
    let mut index = KeyIndex::new(KeyWidth::Exact, true);
    let key = Key(1 << 60);
    index.insert(key, at(1, 1), 50);
    index.insert(key, at(2, 2), 40);
    index.insert(key, at(2, 2), 40);
    assert_eq!(index.locations(key).collect::<Vec<_>>(), [at(1, 1), at(2, 2)]);
    assert_eq!((index.keys(), index.order(key)), (1, Some(50)));
    index.remove(key, at(1, 1));
    assert_eq!((index.locations(key).collect::<Vec<_>>(), index.order(key)), (vec![at(2, 2)], Some(40)));
    index.insert(key, at(3, 3), 45);
    index.replace(key, at(4, 4), 7);
    assert_eq!((index.locations(key).collect::<Vec<_>>(), index.order(key)), (vec![at(4, 4)], Some(7)));
    assert_eq!(index.lists.memory(), 0);
}

/// Fills an index to `keys` keys; from the first million on, checks the bytes per key at every 10 000, with the shard that
/// grows counted twice.
fn stays_within(width: KeyWidth, ordered: bool, keys: u64, bytes_max: usize) {
    let mut index = KeyIndex::new(width, ordered);
    let mut worst = (0.0, 0);
    let mut batch = Vec::new();
    for done in (0..keys).step_by(10_000) {
        batch.clear();
        batch.extend((done..done + 10_000).map(|n| (key(width, n), at(1, n as u32), 0)));
        index.insert_batch(&batch);
        if done >= 1_000_000 - 10_000 {
            let bytes = on!(&index.slots, table => table.memory_growing()) as f64 / index.keys() as f64;
            worst = if bytes > worst.0 { (bytes, index.keys()) } else { worst };
        }
    }
    assert_eq!(index.keys(), keys);
    println!("{width:?} ordered={ordered}: at most {:.2} bytes per key, at {} keys", worst.0, worst.1);
    assert!(worst.0 <= bytes_max as f64, "{:.2} bytes per key at {} keys, {bytes_max} are promised", worst.0, worst.1);
}

#[test]
fn an_exact_key_costs_at_most_24_bytes_up_to_10_million() {
    stays_within(KeyWidth::Exact, false, 10_000_000, 24);
}

#[test]
fn a_hashed_key_costs_at_most_32_bytes_up_to_10_million() {
    stays_within(KeyWidth::Hashed, false, 10_000_000, 32);
}

#[test]
fn an_order_value_costs_at_most_8_bytes_more() {
    stays_within(KeyWidth::Exact, true, 3_000_000, 32);
    stays_within(KeyWidth::Hashed, true, 3_000_000, 40);
}

#[test]
fn crafted_integers_spread_like_random_ones() {
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;
    let encoder = |secret| KeyEncoder::new(secret, &[crate::core::schema::Type::Long]).unwrap();
    let displacement = |secret: [u64; 2], values: Vec<i64>| {
        let column: ArrayRef = Arc::new(Int64Array::from(values));
        let keys = encoder(secret).encode(&[column]).unwrap();
        let mut index = KeyIndex::new(KeyWidth::Exact, false);
        let entries: Vec<_> = keys.iter().map(|&key| (key, at(0, 0), 0)).collect();
        index.insert_batch(&entries);
        on!(&index.slots, table => table.displacement_max())
    };
    let secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    const COUNT: i64 = 100_000;
    let random = displacement(secret, (0..COUNT).map(|i| spread(i as u64) as i64).collect());
    let mut crafted: Vec<(String, Vec<i64>)> = vec![
        ("sequential".into(), (0..COUNT).collect()),
        ("negative".into(), (-COUNT..0).collect()),
        ("alike low bits".into(), (0..COUNT).map(|i| i << 44).collect()),
        ("bits reversed".into(), (0..COUNT).map(i64::reverse_bits).collect()),
        // What undoes a multiplication by the golden ratio, the usual unkeyed mix: consecutive hashes.
        ("golden".into(), (0..COUNT).map(|i| i.wrapping_mul(golden_inverse())).collect()),
    ];
    for stride in [3, 1000, 4096, 1 << 20, 1 << 32, (1 << 40) + 1] {
        crafted.push((format!("stride {stride}"), (0..COUNT).map(|i| i.wrapping_mul(stride)).collect()));
    }
    for (name, values) in crafted {
        for secret in [secret, [0, 0], [1, u64::MAX]] {
            let found = displacement(secret, values.clone());
            assert!(found <= random * 2 + 32, "{name}: displaced by {found}, random keys by {random}");
        }
    }
}

/// The inverse of the golden ratio's odd 64-bit fraction, modulo 2⁶⁴.
fn golden_inverse() -> i64 {
    let golden = 0x9e37_79b9_7f4a_7c15_u64;
    let mut inverse = golden;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(golden.wrapping_mul(inverse)));
    }
    assert_eq!(golden.wrapping_mul(inverse), 1);
    inverse as i64
}

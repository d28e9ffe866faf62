//! What the key index costs: CPU time per operation and bytes per key, counted by the allocator, growth included.
//!
//! `cargo bench --bench key_index [millions of keys …]`; without numbers: 1, 3 and 10.

#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot run should say so and stop")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use firn::core::key_index::{Key, KeyEncoder, KeyIndex, KeyWidth, Location, Probe};
use firn::core::schema::Type;

/// The system's allocator, counting the bytes that are allocated and the most there ever were.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(ALLOCATED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: u64 = 16_384;

fn main() {
    // Cargo itself passes `--bench`.
    let named: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let millions = if named.is_empty() { vec![1, 3, 10] } else { named };
    println!("ns of CPU per operation, batches of {BATCH} random keys; bytes per key as allocated");
    println!("| keys | kind | insert | upsert | probe hit | probe miss | sweep | bytes/key | growing, at most |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for million in millions {
        for (width, ordered) in [(KeyWidth::Exact, false), (KeyWidth::Hashed, false), (KeyWidth::Exact, true)] {
            measure(width, ordered, million * 1_000_000);
        }
    }
    println!();
    println!("| key columns | encode, ns of CPU per key |");
    println!("|---|---|");
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..BATCH as i64));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..BATCH).map(|i| format!("SYM{i:08}"))));
    measure_encoding("long", &[Type::Long], std::slice::from_ref(&ids));
    measure_encoding("string", &[Type::String], std::slice::from_ref(&names));
    measure_encoding("string, long", &[Type::String, Type::Long], &[names, ids]);
}

fn measure(width: KeyWidth, ordered: bool, keys: u64) {
    let before = ALLOCATED.load(Relaxed);
    let mut index = KeyIndex::new(width, ordered);
    let mut batch: Vec<(Key, Location, i64)> = Vec::with_capacity(BATCH as usize);
    let own = batch.capacity() * size_of::<(Key, Location, i64)>();
    let (mut insert, mut growing) = (0, 0.0_f64);
    for first in (0..keys).step_by(BATCH as usize) {
        fill(&mut batch, width, first..keys.min(first + BATCH));
        PEAK.store(ALLOCATED.load(Relaxed), Relaxed);
        insert += cpu(|| index.replace_batch(&batch));
        if first >= 1_000_000 || first + BATCH >= keys {
            growing = growing.max((PEAK.load(Relaxed) - before - own) as f64 / index.keys() as f64);
        }
    }
    let bytes = (ALLOCATED.load(Relaxed) - before - own) as f64 / index.keys() as f64;

    // Keys in an order that has nothing to do with the index's; the time to draw them is not counted.
    let rounds = 2_000_000 / BATCH;
    let (mut upsert, mut hit, mut miss) = (0, 0, 0);
    let mut probes: Vec<Probe> = Vec::new();
    for round in 0..rounds {
        fill(&mut batch, width, (round * BATCH..(round + 1) * BATCH).map(|n| scatter(n) % keys));
        upsert += cpu(|| index.replace_batch(&batch));
        fill(&mut batch, width, (round * BATCH..(round + 1) * BATCH).map(|n| scatter(!n) % keys));
        let present: Vec<Key> = batch.iter().map(|e| e.0).collect();
        hit += cpu(|| index.probe(&present, &mut probes));
        assert!(!probes.contains(&Probe::Absent), "every key is there");
        fill(&mut batch, width, (round * BATCH..(round + 1) * BATCH).map(|n| keys + n));
        let absent: Vec<Key> = batch.iter().map(|e| e.0).collect();
        miss += cpu(|| index.probe(&absent, &mut probes));
        assert!(probes.iter().all(|p| *p == Probe::Absent), "no key is there");
    }
    let sweep = cpu(|| index.retain(|at| black_box(at.row) % 100 != 0));
    let each = |ns: u64, n: u64| ns as f64 / n as f64;
    let per = |ns: u64| each(ns, rounds * BATCH);
    let order = if ordered { " + order" } else { "" };
    println!(
        "| {} M | {width:?}{order} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {bytes:.1} | {growing:.1} |",
        keys / 1_000_000,
        each(insert, keys),
        per(upsert),
        per(hit),
        per(miss),
        each(sweep, keys),
    );
}

fn measure_encoding(name: &str, types: &[Type], columns: &[ArrayRef]) {
    let encoder = KeyEncoder::new([1, 2], types).expect("these types can be keys");
    let rounds = 200;
    let ns: u64 = (0..rounds).map(|_| cpu(|| drop(black_box(encoder.encode(black_box(columns)))))).sum();
    println!("| {name} | {:.1} |", ns as f64 / (rounds * BATCH) as f64);
}

fn fill(batch: &mut Vec<(Key, Location, i64)>, width: KeyWidth, numbers: impl Iterator<Item = u64>) {
    batch.clear();
    batch.extend(numbers.map(|n| {
        let high = if width == KeyWidth::Hashed { u128::from(scatter(!n)) << 64 } else { 0 };
        (Key(high | u128::from(scatter(n))), Location { file: (n >> 20) as u32, row: n as u32 }, n as i64)
    }));
}

/// A bijection whose values look random.
fn scatter(n: u64) -> u64 {
    let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Nanoseconds of the process's CPU time that `work` takes.
fn cpu(work: impl FnOnce()) -> u64 {
    let start = cpu_now();
    work();
    cpu_now() - start
}

fn cpu_now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

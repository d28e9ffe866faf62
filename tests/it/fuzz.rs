//! The fuzz targets over their corpus and a fixed number of mutations of it. `docs/testing.md` has the long run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use self::targets::{TARGETS, Target};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Mutations of each corpus.
const ROUNDS: u64 = 3_000;

/// SplitMix64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Changes bytes, counts, stretches; or joins the start of one input and the end of another.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    const EXTREMES: [&[u8]; 5] =
        [&[0xff; 9], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[0x80; 10], &[0], &[1]];
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let to = at + random.below((bytes.len() - at + 1).min(9));
        match random.below(6) {
            0 => drop(bytes.drain(at..to)),
            1 => drop(bytes.splice(at..to, EXTREMES[random.below(EXTREMES.len())].iter().copied())),
            2 => {
                let part = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, part));
            }
            3 => {
                let other = &corpus[random.below(corpus.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.below(2) == 0 { *byte ^ (1 << random.below(8)) } else { random.below(256) as u8 };
                }
            }
        }
    }
    bytes
}

fn run(name: &str, target: Target, bytes: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    assert!(held.is_ok(), "{name} does not hold for b\"{}\"", bytes.escape_ascii());
}

/// INV-16
#[test]
fn every_target_holds_for_its_corpus_and_mutations_of_it() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 10, "{name}: {} inputs", corpus.len());
        corpus.iter().for_each(|bytes| run(name, target, bytes));
        let mut random = Random(1);
        for _ in 0..ROUNDS {
            run(name, target, &mutated(&mut random, &corpus));
        }
    }
}

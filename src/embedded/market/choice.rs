//! Which key comes next: every one alike, or a few of them most of the time.

use super::Random;

/// A distribution over the keys `0..keys`.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    Uniform { keys: u64 },
    Zipf { keys: u64, zipf: Zipf },
}

impl Choice {
    pub(super) fn uniform(keys: u64) -> Choice {
        Choice::Uniform { keys }
    }

    pub(super) fn zipf(keys: u64, exponent: f64) -> Choice {
        if exponent > 0.0 { Choice::Zipf { keys, zipf: Zipf::new(keys, exponent) } } else { Choice::uniform(keys) }
    }

    pub(super) fn keys(&self) -> u64 {
        match self {
            Choice::Uniform { keys } | Choice::Zipf { keys, .. } => *keys,
        }
    }

    pub(super) fn pick(&self, random: &mut Random) -> i64 {
        let key = match self {
            Choice::Uniform { keys } => scale(random.next(), *keys),
            Choice::Zipf { keys, zipf } => scatter(zipf.rank(random), *keys),
        };
        key as i64
    }
}

/// Maps all of `u64` evenly onto `0..keys`.
fn scale(bits: u64, keys: u64) -> u64 {
    ((u128::from(bits) * u128::from(keys)) >> 64) as u64
}

/// Puts popular ranks far apart. One to one, because the multiplier is a prime larger than any count of keys in use.
fn scatter(rank: u64, keys: u64) -> u64 {
    const PRIME: u128 = 18_446_744_073_709_551_557;
    ((u128::from(rank) * PRIME) % u128::from(keys)) as u64
}

/// Zipf's law by rejection-inversion (Hörmann and Derflinger, 1996): constant time per draw and no table, which at
/// ten million keys would take longer to build than a benchmark runs.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    keys: f64,
    exponent: f64,
    area_first: f64,
    area_all: f64,
    accept: f64,
}

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { keys: keys as f64, exponent, area_first: 0.0, area_all: 0.0, accept: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_all = zipf.area(zipf.keys + 0.5);
        zipf.accept = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.weight(2.0));
        zipf
    }

    /// A rank from 0, the most popular, to `keys - 1`.
    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let fraction = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            let area = self.area_all + fraction * (self.area_first - self.area_all);
            let x = self.area_inverse(area);
            let rank = x.round().clamp(1.0, self.keys);
            if rank - x <= self.accept || area >= self.area(rank + 0.5) - self.weight(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of `weight`.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.exponent) * log;
        let grown = if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 };
        grown * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        let t = (area * (1.0 - self.exponent)).max(-1.0);
        let shrunk = if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 };
        (shrunk * area).exp()
    }
}

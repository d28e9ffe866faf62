//! Rows of any engine as canonical text, so that they can be compared as multisets.
//!
//! | type | text |
//! |---|---|
//! | null | `∅` |
//! | boolean, integers | `true`, `-7` |
//! | real, double | the shortest that reads back: `1.5`, `1e16`; `NaN`, `Infinity` |
//! | decimal | all digits of its scale: `1.50` |
//! | varchar, uuid | as it is; quoted as in JSON inside of other values |
//! | varbinary | `0x00ff` |
//! | date, time, timestamp | `2026-01-01`, `10:00:00.000000`, `2026-01-01 10:00:00.000000`; with a zone in UTC, ` UTC` appended |
//! | array, map, row | `[a, b]`, `{k=v}` sorted, `(a, b)` |

use std::collections::BTreeMap;
use std::fmt::Write;

/// How a null is written.
pub const NULL: &str = "∅";

/// Differences printed before the rest is only counted.
const SHOWN: usize = 20;

/// Panics with a readable difference unless both sides hold the same rows, each as often.
#[track_caller]
pub fn assert_same_rows(left: &[Vec<String>], right: &[Vec<String>]) {
    if let Some(difference) = difference(left, right) {
        panic!("the rows differ ({} left, {} right)\n{difference}", left.len(), right.len());
    }
}

/// The rows that one side has more often than the other, as text; nothing when both are the same multiset.
pub fn difference(left: &[Vec<String>], right: &[Vec<String>]) -> Option<String> {
    let mut surplus: BTreeMap<&[String], i64> = BTreeMap::new();
    for row in left {
        *surplus.entry(row).or_default() += 1;
    }
    for row in right {
        *surplus.entry(row).or_default() -= 1;
    }
    surplus.retain(|_, count| *count != 0);
    if surplus.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (row, count) in surplus.iter().take(SHOWN) {
        let side = if *count > 0 { "only left " } else { "only right" };
        let _ = writeln!(text, "  {side} x{}: {}", count.abs(), row.join(" | "));
    }
    if surplus.len() > SHOWN {
        let _ = writeln!(text, "  … and {} more different rows", surplus.len() - SHOWN);
    }
    Some(text)
}

/// Rows from literals, for expectations: `rows(&[&["1", "a"], &["2", NULL]])`.
pub fn rows(literals: &[&[&str]]) -> Vec<Vec<String>> {
    literals.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
}

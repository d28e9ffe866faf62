//! Which dead letters may be submitted again: not those that would undo what came after them.

use std::collections::BTreeMap;

use super::change::Key;
use super::letter::Place;

/// What a table makes of an event that comes late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is one more row.
    Row,
    /// It overwrites whatever is there.
    Overwrites,
    /// A column decides, as long as the row is there.
    Ordered,
}

/// A letter that could be a row or a deletion by now.
#[derive(Debug)]
struct Candidate {
    place: Place,
    /// The newest event of its key behind it, where there is one: whether it is a deletion.
    later: Option<bool>,
    /// Events behind it that the log does not have any more.
    gap: bool,
}

/// Letters beside what the log has behind them.
#[derive(Debug)]
pub struct Resubmission {
    late: Late,
    candidates: Vec<Candidate>,
    /// Candidates by topic id, partition and key.
    by_key: BTreeMap<(String, i32, u128), Vec<usize>>,
}

impl Resubmission {
    /// No letters yet.
    #[must_use]
    pub fn new(late: Late) -> Self {
        Resubmission { late, candidates: Vec::new(), by_key: BTreeMap::new() }
    }

    /// Adds a letter; `key` is what it is about, and `first` the first offset that its partition's log still has.
    pub fn add(&mut self, place: &Place, key: Option<Key>, first: i64) {
        if let Some(key) = key {
            let of_key = self.by_key.entry((place.topic_id.clone(), place.partition, key.0)).or_default();
            of_key.push(self.candidates.len());
        }
        let gap = first > place.offset + 1;
        self.candidates.push(Candidate { place: place.clone(), later: None, gap });
    }

    /// Takes in an event of the log, in offset order per partition; a deletion or a row of `key`.
    pub fn note(&mut self, place: &Place, key: Key, deletes: bool) {
        let of_key = self.by_key.get(&(place.topic_id.clone(), place.partition, key.0));
        for &at in of_key.into_iter().flatten() {
            if let Some(candidate) = self.candidates.get_mut(at).filter(|c| c.place.offset < place.offset) {
                candidate.later = Some(deletes);
            }
        }
    }

    /// For each letter whether it may be submitted, else why not.
    pub fn decide(&self) -> impl Iterator<Item = (&Place, Result<(), &'static str>)> {
        self.candidates.iter().map(|c| (&c.place, self.of(c)))
    }

    fn of(&self, candidate: &Candidate) -> Result<(), &'static str> {
        match (self.late, candidate.later) {
            (Late::Row, _) | (Late::Ordered, Some(false)) => Ok(()),
            (_, Some(true)) => Err("its key was deleted since, and would come back"),
            (Late::Overwrites, Some(false)) => {
                Err("its key was written since, and would be overwritten with an older value")
            }
            (_, None) if candidate.gap => {
                Err("the log does not have all that came after it, so its key may have been written or deleted since")
            }
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32, offset: i64) -> Place {
        Place { topic_id: "t".into(), partition, offset }
    }

    /// One letter of key 7 at partition 0, offset 10, and the events behind it as (partition, offset, key, deletes).
    fn check(late: Late, first: i64, log: &[(i32, i64, u128, bool)], expected: Option<&str>) {
        let mut resubmission = Resubmission::new(late);
        resubmission.add(&place(0, 10), Some(Key(7)), first);
        for (partition, offset, key, deletes) in log {
            resubmission.note(&place(*partition, *offset), Key(*key), *deletes);
        }
        let (_, decided) = resubmission.decide().next().unwrap();
        match expected {
            None => assert_eq!(decided, Ok(())),
            Some(part) => assert!(decided.unwrap_err().contains(part), "{decided:?}"),
        }
    }

    #[test]
    fn a_key_that_was_written_or_deleted_since_is_left_alone() {
        let others = [(0, 9, 7, false), (0, 11, 8, false), (1, 12, 7, true)];
        for late in [Late::Row, Late::Overwrites, Late::Ordered] {
            check(late, 0, &others, None);
        }
        check(Late::Overwrites, 0, &[(0, 11, 7, false)], Some("written since"));
        check(Late::Overwrites, 0, &[(0, 11, 7, false), (0, 12, 7, true)], Some("deleted since"));
        check(Late::Overwrites, 0, &[(0, 11, 7, true), (0, 12, 7, false)], Some("written since"));
        check(Late::Row, 0, &[(0, 11, 7, true)], None);
    }

    #[test]
    fn a_column_decides_only_where_there_is_a_row() {
        check(Late::Ordered, 0, &[(0, 11, 7, false)], None);
        check(Late::Ordered, 0, &[(0, 11, 7, true), (0, 12, 7, false)], None);
        check(Late::Ordered, 0, &[(0, 11, 7, false), (0, 12, 7, true)], Some("deleted since"));
    }

    #[test]
    fn what_the_log_has_lost_may_have_been_of_the_same_key() {
        check(Late::Overwrites, 11, &[], None);
        check(Late::Overwrites, 12, &[], Some("does not have all"));
        check(Late::Ordered, 12, &[], Some("does not have all"));
        check(Late::Ordered, 12, &[(0, 15, 7, false)], None);
        check(Late::Row, 12, &[], None);
    }
}

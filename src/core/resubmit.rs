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
    timestamp_ms: i64,
    late: Late,
    /// By topic id and partition, the newest event of its key that came later: whether it is a deletion.
    later: BTreeMap<(String, i32), bool>,
    /// Some of what came later is not in the log any more.
    gap: bool,
}

impl Candidate {
    /// Whether an event at this place came later. In its own partition the offset says so; between partitions there are
    /// only timestamps, and what could have been later counts as later.
    fn is_before(&self, place: &Place, timestamp_ms: i64) -> bool {
        if (&self.place.topic_id, self.place.partition) == (&place.topic_id, place.partition) {
            return self.place.offset < place.offset;
        }
        self.timestamp_ms < 0 || timestamp_ms < 0 || self.timestamp_ms <= timestamp_ms
    }
}

/// Letters beside what the log has behind them.
#[derive(Debug)]
pub struct Resubmission {
    late: Late,
    candidates: BTreeMap<Place, Candidate>,
    by_key: BTreeMap<u128, Vec<Place>>,
}

impl Resubmission {
    /// No letters yet.
    #[must_use]
    pub fn new(late: Late) -> Self {
        Resubmission { late, candidates: BTreeMap::new(), by_key: BTreeMap::new() }
    }

    /// Adds a letter; `keys` are what it is about, in each table that takes it, and the timestamp is in milliseconds since
    /// 1970, negative where unknown. A tombstone deletes whatever is there: no column decides.
    pub fn add(&mut self, place: &Place, timestamp_ms: i64, keys: &[Key], is_tombstone: bool) {
        for key in keys {
            self.by_key.entry(key.0).or_default().push(place.clone());
        }
        let late = match self.late {
            Late::Ordered if is_tombstone => Late::Overwrites,
            late => late,
        };
        let candidate = Candidate { place: place.clone(), timestamp_ms, late, later: BTreeMap::new(), gap: false };
        self.candidates.insert(place.clone(), candidate);
    }

    /// Takes in that the log of a partition begins at this place, and has all of that partition that happened after
    /// `complete_after_ms`. It is told once all letters are there.
    pub fn begins(&mut self, first: &Place, complete_after_ms: i64) {
        if first.offset == 0 {
            return;
        }
        for candidate in self.candidates.values_mut() {
            let Place { topic_id, partition, offset } = &candidate.place;
            candidate.gap |= if (topic_id, partition) == (&first.topic_id, &first.partition) {
                offset + 1 < first.offset
            } else {
                candidate.timestamp_ms.max(-1) <= complete_after_ms
            };
        }
    }

    /// Takes in an event of the log, in offset order per partition; a deletion or a row of `key`. The place of a letter
    /// that was submitted again is where it was when it was rejected.
    pub fn note(&mut self, place: &Place, timestamp_ms: i64, key: Key, deletes: bool) {
        for of_key in self.by_key.get(&key.0).into_iter().flatten() {
            if let Some(candidate) = self.candidates.get_mut(of_key).filter(|c| c.is_before(place, timestamp_ms)) {
                candidate.later.insert((place.topic_id.clone(), place.partition), deletes);
            }
        }
    }

    /// Why a letter may not be submitted; none where it may.
    #[must_use]
    pub fn refusal(&self, place: &Place) -> Option<&'static str> {
        let Some(Candidate { late, later, gap, .. }) = self.candidates.get(place) else {
            return Some("nothing is known about it");
        };
        match late {
            Late::Row => None,
            _ if later.values().any(|deletes| *deletes) => Some("its key was deleted since, and would come back"),
            Late::Overwrites if !later.is_empty() => {
                Some("its key was written since, and would be overwritten with an older value")
            }
            _ if later.is_empty() && *gap => {
                Some("the log does not have all that came after it, so its key may have been written or deleted since")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32, offset: i64) -> Place {
        Place { topic_id: "t".into(), partition, offset }
    }

    /// One letter of key 7 at partition 0, offset 10, time 100, and the log as (partition, offset, time, key, deletes).
    /// With `gap` the partition has lost offset 11.
    fn check(late: Late, gap: bool, log: &[(i32, i64, i64, u128, bool)], expected: Option<&str>) {
        let mut resubmission = Resubmission::new(late);
        resubmission.add(&place(0, 10), 100, &[Key(7)], false);
        resubmission.begins(&place(0, if gap { 12 } else { 11 }), i64::MAX);
        for (partition, offset, time, key, deletes) in log {
            resubmission.note(&place(*partition, *offset), *time, Key(*key), *deletes);
        }
        let refusal = resubmission.refusal(&place(0, 10));
        match expected {
            None => assert_eq!(refusal, None),
            Some(part) => assert!(refusal.unwrap().contains(part), "{refusal:?}"),
        }
    }

    #[test]
    fn a_key_that_was_written_or_deleted_since_is_left_alone() {
        let others = [(0, 9, 200, 7, false), (0, 11, 200, 8, false), (1, 12, 99, 7, true)];
        for late in [Late::Row, Late::Overwrites, Late::Ordered] {
            check(late, false, &others, None);
        }
        // In its own partition the offset counts, whatever the timestamps say.
        check(Late::Overwrites, false, &[(0, 11, 5, 7, false)], Some("written since"));
        check(Late::Overwrites, false, &[(0, 11, 200, 7, false), (0, 12, 200, 7, true)], Some("deleted since"));
        check(Late::Overwrites, false, &[(0, 11, 200, 7, true), (0, 12, 200, 7, false)], Some("written since"));
        check(Late::Row, false, &[(0, 11, 200, 7, true)], None);
    }

    #[test]
    fn a_key_that_changed_its_partition_is_seen() {
        check(Late::Overwrites, false, &[(1, 3, 100, 7, false)], Some("written since"));
        check(Late::Ordered, false, &[(1, 3, 101, 7, true)], Some("deleted since"));
        // Nobody knows when this one was.
        check(Late::Overwrites, false, &[(1, 3, -1, 7, false)], Some("written since"));
        // Deleted in one partition and written in another: which was last is not known.
        check(Late::Ordered, false, &[(1, 3, 101, 7, true), (0, 11, 102, 7, false)], Some("deleted since"));
    }

    #[test]
    fn a_column_decides_only_where_there_is_a_row() {
        check(Late::Ordered, false, &[(0, 11, 200, 7, false)], None);
        check(Late::Ordered, false, &[(0, 11, 200, 7, true), (0, 12, 200, 7, false)], None);
        check(Late::Ordered, false, &[(0, 11, 200, 7, false), (0, 12, 200, 7, true)], Some("deleted since"));
    }

    #[test]
    fn a_tombstone_of_several_tables_is_left_alone_where_one_of_its_keys_was_written_since() {
        for late in [Late::Overwrites, Late::Ordered] {
            for (written, expected) in [(8, None), (7, Some("written since")), (9, Some("written since"))] {
                let mut resubmission = Resubmission::new(late);
                resubmission.add(&place(0, 10), 100, &[Key(7), Key(9)], true);
                resubmission.begins(&place(0, 11), i64::MAX);
                resubmission.note(&place(0, 11), 200, Key(written), false);
                let refusal = resubmission.refusal(&place(0, 10));
                assert_eq!(refusal.is_some(), expected.is_some(), "no column decides about a tombstone: {refusal:?}");
                assert!(expected.is_none_or(|part| refusal.is_some_and(|why| why.contains(part))), "{refusal:?}");
            }
        }
    }

    #[test]
    fn what_the_log_has_lost_may_have_been_of_the_same_key() {
        check(Late::Overwrites, false, &[], None);
        check(Late::Overwrites, true, &[], Some("does not have all"));
        check(Late::Ordered, true, &[], Some("does not have all"));
        check(Late::Ordered, true, &[(0, 15, 200, 7, false)], None);
        check(Late::Row, true, &[], None);
    }

    #[test]
    fn what_another_partition_has_lost_counts_where_it_may_have_come_later() {
        for (first, complete_after_ms, timestamp_ms, gap) in [
            (0, i64::MAX, 100, false),
            (5, i64::MIN, 100, false),
            (5, 99, 100, false),
            (5, 100, 100, true),
            (5, i64::MAX, 100, true),
            (5, 0, -1, true),
            (5, i64::MIN, -1, false),
        ] {
            let mut resubmission = Resubmission::new(Late::Overwrites);
            resubmission.add(&place(0, 10), timestamp_ms, &[Key(7)], false);
            resubmission.begins(&place(1, first), complete_after_ms);
            assert_eq!(
                resubmission.refusal(&place(0, 10)).is_some(),
                gap,
                "{first} {complete_after_ms} {timestamp_ms}"
            );
        }
    }
}

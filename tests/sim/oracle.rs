//! The promise, checked at every snapshot: its rows are the fold of exactly the events below its V, plus what foreign
//! writers did, in commit order.
//!
//! The oracle folds by itself, one event after the other, from the log; it shares no code with the writer.

use std::collections::BTreeMap;

use firn::core::change::Op;
use firn::core::fold::Semantics;
use firn::core::offsets::{PartitionId, Vector};
use firn::table::model::{Model, ModelSnapshot};

use crate::columns::{Stored, check_row};
use crate::world::{PARTITIONS, Record, TOPIC};

/// A row, by where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub key: u64,
    /// Partition and offset of its event; (-1, n) for the n-th foreign write.
    pub source: (i32, i64),
    pub order: i64,
}

impl Row {
    pub fn of(partition: i32, record: &Record) -> Row {
        Row { key: record.key, source: (partition, record.offset), order: record.order }
    }

    pub fn foreign(key: u64, number: u64) -> Row {
        Row { key, source: (-1, number as i64), order: 0 }
    }
}

/// What a snapshot must hold.
#[derive(Debug, Clone, Default)]
struct Expected {
    rows: Vec<Row>,
    vector: Option<Vector>,
}

pub struct Oracle {
    semantics: Semantics,
    expected: BTreeMap<i64, Expected>,
    pub checked: u64,
}

impl Oracle {
    pub fn new(semantics: Semantics) -> Self {
        Oracle { semantics, expected: BTreeMap::new(), checked: 0 }
    }

    pub fn check(&mut self, snapshot: &ModelSnapshot<Stored>, log: &[Vec<Record>]) -> Result<(), String> {
        self.checked += 1;
        let parent = snapshot.parent.map(|p| self.expected[&p].clone()).unwrap_or_default();
        let live = || snapshot.files.values().flat_map(|f| f.live().map(|(_, stored)| stored));
        for stored in live() {
            let (partition, offset) = stored.row.source;
            let of_partition = usize::try_from(partition).ok().and_then(|p| log.get(p));
            let schema = of_partition.map_or(0, |log| log[log.partition_point(|r| r.offset < offset)].schema);
            check_row(stored, schema, &snapshot.schema).map_err(|e| format!("snapshot {}: {e}", snapshot.id))?;
        }
        let mut actual: Vec<Row> = live().map(|stored| stored.row.clone()).collect();
        actual.sort();
        let Some(vector) = &snapshot.vector else {
            // What a foreign writer did is right by definition.
            self.expected.insert(snapshot.id, Expected { rows: actual, vector: parent.vector });
            return Ok(());
        };
        let mut rows = parent.rows;
        for partition in 0..PARTITIONS {
            let id = PartitionId { topic: TOPIC.into(), partition };
            let from = parent.vector.as_ref().and_then(|v| v.next(&id)).unwrap_or(0);
            let Some(next) = vector.next(&id) else {
                return Err(format!("snapshot {}: partition {partition} is missing in V", snapshot.id));
            };
            if next < from {
                return Err(format!(
                    "snapshot {}: V of partition {partition} went back, {from} to {next}",
                    snapshot.id
                ));
            }
            for record in log[partition as usize].iter().filter(|r| !r.bad && r.offset >= from && r.offset < next) {
                self.apply(&mut rows, Row::of(partition, record), record.op);
            }
        }
        rows.sort();
        let id = snapshot.id;
        if rows != actual {
            let missing: Vec<&Row> = rows.iter().filter(|r| !actual.contains(r)).collect();
            let surplus: Vec<&Row> = actual.iter().filter(|r| !rows.contains(r)).collect();
            let counts = (rows.len(), actual.len());
            return Err(format!(
                "snapshot {id}: {} rows expected, {} found; missing {missing:?}, surplus {surplus:?}",
                counts.0, counts.1
            ));
        }
        self.expected.insert(id, Expected { rows, vector: Some(vector.clone()) });
        Ok(())
    }

    /// The schemas of the events that a snapshot brought.
    pub fn schemas_of(&self, snapshot: &ModelSnapshot<Stored>, log: &[Vec<Record>]) -> Vec<usize> {
        let before = snapshot.parent.and_then(|parent| self.expected.get(&parent)).and_then(|e| e.vector.as_ref());
        let mut schemas = Vec::new();
        for partition in 0..PARTITIONS {
            let id = PartitionId { topic: TOPIC.into(), partition };
            let from = before.and_then(|v| v.next(&id)).unwrap_or(0);
            let next = snapshot.vector.as_ref().and_then(|v| v.next(&id)).unwrap_or(0);
            let events = log[partition as usize].iter().filter(|r| !r.bad && r.op == Op::Upsert);
            schemas.extend(events.filter(|r| r.offset >= from && r.offset < next).map(|r| r.schema));
        }
        schemas
    }

    fn apply(&self, rows: &mut Vec<Row>, row: Row, op: Op) {
        if self.semantics == Semantics::Append {
            if op == Op::Upsert {
                rows.push(row);
            }
            return;
        }
        let newest = rows.iter().filter(|r| r.key == row.key).map(|r| r.order).max();
        if self.semantics == Semantics::Ordered && op == Op::Upsert && newest.is_some_and(|order| row.order < order) {
            return;
        }
        rows.retain(|r| r.key != row.key);
        if op == Op::Upsert {
            rows.push(row);
        }
    }

    /// The true V of the current snapshot.
    pub fn current_vector(&self, table: &Model<Stored>) -> Vector {
        let current = table.current().and_then(|s| self.expected.get(&s.id));
        current.and_then(|e| e.vector.clone()).unwrap_or_else(|| Vector::new("cluster"))
    }

    /// Whether V cannot be shown from what the table retains.
    pub fn is_lost(&self, table: &Model<Stored>) -> bool {
        if table.ancestry().any(|s| s.vector.is_some()) {
            return false;
        }
        let missing = table.ancestry().last().and_then(|oldest| oldest.parent);
        match (missing, table.anchor()) {
            (Some(parent), Some(anchor)) => anchor.snapshot != parent,
            (None, None) => false,
            _ => true,
        }
    }
}

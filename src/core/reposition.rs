//! Moves V by an operator's order: what `firn offsets set` may do, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::{History, VectorRead};
use super::offsets::{Position, Start, TopicPositions, Vector};
use super::schema::Pins;
use crate::error::{Error, Result};

/// The log of one partition as the broker describes it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLog {
    /// The first offset that the log still has.
    pub first: i64,
    /// Below it every transaction is decided: what can be read.
    pub stable: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// Where the settings let a first start begin.
    pub start: Start,
}

/// A topic as the broker describes it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLog {
    pub id: Arc<str>,
    pub partitions: BTreeMap<i32, PartitionLog>,
}

/// The topics of a pipeline as the broker describes them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub cluster: String,
    /// By name.
    pub topics: BTreeMap<String, TopicLog>,
}

/// What the operator ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The next offset of partitions, by topic name.
    pub positions: Vec<(String, i32, i64)>,
    /// Accept the V of the table property, after the history that held V was lost.
    pub from_property: bool,
    /// The topic was created again, or the brokers are another cluster: begin anew where V's identity does not hold.
    pub new_epoch: bool,
    /// Take offsets that the log does not have.
    pub force: bool,
    /// Schema ids that mean another schema by now: the table is to forget what they meant.
    pub accepted_schemas: BTreeSet<u32>,
}

/// Why V says nothing about this log: another cluster, or a topic of another id. None where it holds.
#[must_use]
pub fn mismatch(vector: &Vector, log: &Log) -> Option<String> {
    if vector.topics.is_empty() {
        return None;
    }
    if vector.cluster != log.cluster {
        let (held, now) = (&vector.cluster, &log.cluster);
        return Some(format!("it holds offsets of Kafka cluster {held}, but the brokers are cluster {now}"));
    }
    vector.topics.iter().find_map(|(id, stored)| {
        let now = log.topics.get(&stored.name).filter(|now| now.id != *id)?;
        Some(format!("topic {} was deleted and created again (its id {id} became {})", stored.name, now.id))
    })
}

/// The V that `order` makes of the table's. Positions that are not named stay; in a new epoch, topics whose cluster and id
/// are still the same stay too, and all others begin at the log's first offset.
///
/// # Errors
/// [`Error::Config`] for an order that cannot be carried out, [`Error::Decision`] for one that lacks a flag.
pub fn reposition(history: &History, log: &Log, order: &Order) -> Result<Vector> {
    let mut vector = basis(history, log, order)?;
    if order.new_epoch {
        vector = begin_epoch(vector, log, order.positions.is_empty())?;
    } else if let Some(why) = mismatch(&vector, log) {
        return Err(Error::Decision(format!(
            "{why}: its offsets mean nothing there; add --new-epoch to begin anew, at the log's first offset or where \
             --partition says"
        )));
    }
    let accepts = !order.accepted_schemas.is_empty();
    if order.positions.is_empty() && !order.new_epoch && !order.from_property && !accepts {
        return Err(Error::Config(
            "nothing to set: give --partition, --from-property, --new-epoch or --accept-schema".into(),
        ));
    }
    for position in vector.topics.values_mut().flat_map(|t| t.partitions.values_mut()) {
        position.from = position.next;
    }
    let mut named = BTreeSet::new();
    for (topic, partition, offset) in &order.positions {
        if !named.insert((topic, partition)) {
            return Err(Error::Config(format!("{topic}/{partition} is named twice")));
        }
        set(&mut vector, log, (topic, *partition, *offset), order.force)?;
    }
    Ok(vector)
}

/// The schema ids that the table remembers after `order`; `None` where it accepts none.
///
/// # Errors
/// [`Error::Config`] for an id that the table does not remember, or where what it remembers cannot be read.
pub fn accept_schemas(property: Option<&str>, order: &Order) -> Result<Option<Pins>> {
    if order.accepted_schemas.is_empty() {
        return Ok(None);
    }
    let held = Pins::read(property).map_err(Error::Config)?;
    let known: BTreeSet<u32> = held.iter().map(|(id, _)| id).collect();
    if let Some(id) = order.accepted_schemas.difference(&known).next() {
        return Err(Error::Config(format!(
            "--accept-schema {id}: the table remembers no schema of this id, so there is nothing to accept"
        )));
    }
    Ok(held.without(&order.accepted_schemas))
}

/// The V to begin with.
fn basis(history: &History, log: &Log, order: &Order) -> Result<Vector> {
    match history.vector(None) {
        VectorRead::Found(_) if order.from_property => Err(Error::Config(
            "--from-property: the table's history holds the position, so there is nothing to accept".into(),
        )),
        VectorRead::Found(vector) if vector.topics.is_empty() => Ok(Vector::new(log.cluster.clone())),
        VectorRead::Found(vector) => Ok(vector),
        VectorRead::Lost(Some(anchor)) if order.from_property => Ok(anchor.vector),
        VectorRead::Never | VectorRead::Lost(None) if order.from_property => {
            Err(Error::Config("--from-property: the table has no property firn.offsets".into()))
        }
        VectorRead::Never => Ok(Vector::new(log.cluster.clone())),
        VectorRead::Lost(_) if order.new_epoch => Ok(Vector::new(log.cluster.clone())),
        VectorRead::Lost(_) => Err(Error::Decision(
            "the snapshot that held the position is gone: accept the table property with --from-property, or begin anew \
             with --new-epoch"
                .into(),
        )),
    }
}

fn begin_epoch(mut vector: Vector, log: &Log, nothing_named: bool) -> Result<Vector> {
    if vector.cluster != log.cluster {
        vector = Vector::new(log.cluster.clone());
    }
    vector.topics.retain(|id, stored| log.topics.get(&stored.name).is_none_or(|now| now.id == *id));
    let mut added = false;
    for (name, topic) in &log.topics {
        if !vector.topics.contains_key(&topic.id) {
            enter(&mut vector, name, topic, |p| Start { offset: p.first, earliest: true });
            added = true;
        }
    }
    if !added && nothing_named {
        return Err(Error::Config(
            "--new-epoch: the cluster and the topics are the ones that the table knows; name what to read again with \
             --partition"
                .into(),
        ));
    }
    Ok(vector)
}

/// Adds all partitions of a topic: one that was left out would begin at 0.
fn enter(vector: &mut Vector, name: &str, topic: &TopicLog, start: impl Fn(&PartitionLog) -> Start) {
    let partitions = topic.partitions.iter().map(|(&n, log)| (n, Position::at_start(start(log)))).collect();
    vector.topics.insert(topic.id.clone(), TopicPositions { name: name.to_owned(), partitions });
}

fn set(vector: &mut Vector, log: &Log, (name, partition, offset): (&str, i32, i64), force: bool) -> Result<()> {
    let topic = log.topics.get(name).ok_or_else(|| {
        let known: Vec<&str> = log.topics.keys().map(String::as_str).collect();
        Error::Config(format!("topic {name} is none of the pipeline's: it reads {}", known.join(", ")))
    })?;
    let bounds = topic.partitions.get(&partition).ok_or_else(|| {
        Error::Config(format!("topic {name} has no partition {partition}: it has {}", topic.partitions.len()))
    })?;
    if !(bounds.first..=bounds.end).contains(&offset) && !force {
        return Err(Error::Config(format!(
            "{name}/{partition}={offset}: the log has offsets {} to {}; choose one of them, or insist with --force",
            bounds.first, bounds.end
        )));
    }
    if !vector.topics.contains_key(&topic.id) {
        enter(vector, name, topic, |p| p.start);
    }
    let Some(stored) = vector.topics.get_mut(&topic.id) else { return Ok(()) };
    let whole = Start { offset: 0, earliest: true };
    let position = stored.partitions.entry(partition).or_insert_with(|| Position::at_start(whole));
    if offset == bounds.first {
        // The log may lose more before it is read: then its beginning is looked for again.
        position.start = Start { offset, earliest: true };
    } else if offset < position.start.offset || position.start.offset == position.next {
        position.start = Start { offset, earliest: false };
    }
    (position.from, position.next) = (offset, offset);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::{Ancestor, Anchor, WalkEnd};
    use crate::core::offsets::PartitionId;
    use crate::core::schema::Fingerprint;

    fn log(cluster: &str, id: &str) -> Log {
        let part = |first, end, at| {
            let start = Start { offset: at, earliest: false };
            PartitionLog { first, stable: end, end, start }
        };
        let partitions = BTreeMap::from([(0, part(10, 100, 50)), (1, part(20, 200, 60))]);
        Log { cluster: cluster.into(), topics: BTreeMap::from([("t".into(), TopicLog { id: id.into(), partitions })]) }
    }

    fn vector(cluster: &str, id: &str, next: [i64; 2]) -> Vector {
        let start = Start { offset: 10, earliest: true };
        let partitions = (0..).zip(next).map(|(n, next)| (n, Position { start, from: 10, next })).collect();
        let topics = BTreeMap::from([(Arc::from(id), TopicPositions { name: "t".into(), partitions })]);
        Vector { cluster: cluster.into(), topics }
    }

    #[test]
    fn a_schema_is_accepted_only_where_the_table_remembers_it() {
        let held = Pins::default().with(&[(7, Fingerprint(1)), (8, Fingerprint(2))]).unwrap().unwrap().to_json();
        let order = |ids: &[u32]| Order { accepted_schemas: ids.iter().copied().collect(), ..Order::default() };
        let left = accept_schemas(Some(&held), &order(&[7])).unwrap().unwrap();
        assert_eq!(left.iter().collect::<Vec<_>>(), [(8, Fingerprint(2))]);
        assert_eq!(accept_schemas(Some(&held), &order(&[])).unwrap(), None);
        assert!(accept_schemas(Some(&held), &order(&[7, 9])).unwrap_err().to_string().contains("--accept-schema 9"));
        assert!(accept_schemas(None, &order(&[7])).is_err());
        // The position stays, and need not be named.
        let of = history(Some(vector("c", "id", [70, 80])), WalkEnd::Root, None);
        assert_eq!(
            reposition(&of, &log("c", "id"), &order(&[7]))
                .unwrap()
                .next(&PartitionId { topic: "id".into(), partition: 1 }),
            Some(80)
        );
    }

    fn history(vector: Option<Vector>, end: WalkEnd, anchor: Option<Vector>) -> History {
        let ancestor = Ancestor { id: 5, parent: Some(4), sequence: 5, timestamp_ms: 0, attempt: None, vector };
        let anchor = anchor.map(|vector| Anchor { vector, snapshot: 1, sequence: 1 });
        History { ancestors: vec![ancestor], end, anchor }
    }

    fn found(next: [i64; 2]) -> History {
        history(Some(vector("c", "a", next)), WalkEnd::Root, None)
    }

    fn at(positions: &[(i32, i64)]) -> Order {
        Order { positions: positions.iter().map(|&(p, o)| ("t".into(), p, o)).collect(), ..Order::default() }
    }

    fn nexts(vector: &Vector, id: &str) -> Vec<Option<i64>> {
        (0..2).map(|partition| vector.next(&PartitionId { topic: id.into(), partition })).collect()
    }

    #[test]
    fn what_is_not_named_stays() {
        let moved = reposition(&found([30, 40]), &log("c", "a"), &at(&[(1, 25)])).unwrap();
        assert_eq!(nexts(&moved, "a"), [Some(30), Some(25)]);
        assert!(moved.iter().all(|(_, p)| p.from == p.next), "this commit adds no event");
    }

    #[test]
    fn what_the_log_does_not_have_needs_force() {
        for offset in [9, 101] {
            let refused = reposition(&found([30, 40]), &log("c", "a"), &at(&[(0, offset)])).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{refused}");
            let forced = Order { force: true, ..at(&[(0, offset)]) };
            let moved = reposition(&found([30, 40]), &log("c", "a"), &forced).unwrap();
            assert_eq!(nexts(&moved, "a"), [Some(offset), Some(40)]);
        }
        for wrong in [at(&[]), at(&[(2, 30)]), at(&[(0, 30), (0, 31)])] {
            assert_eq!(reposition(&found([30, 40]), &log("c", "a"), &wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn another_cluster_or_a_recreated_topic_needs_a_new_epoch() {
        for (cluster, id) in [("d", "a"), ("c", "b")] {
            let now = log(cluster, id);
            let refused = reposition(&found([30, 40]), &now, &at(&[(0, 30)])).unwrap_err();
            assert_eq!(refused.exit_code(), 4, "{refused}");
            let begun = Order { new_epoch: true, ..at(&[(1, 77)]) };
            let moved = reposition(&found([30, 40]), &now, &begun).unwrap();
            assert_eq!((moved.cluster.as_str(), moved.topics.len()), (cluster, 1));
            assert_eq!(nexts(&moved, id), [Some(10), Some(77)]);
        }
        let same = Order { new_epoch: true, ..Order::default() };
        assert_eq!(reposition(&found([30, 40]), &log("c", "a"), &same).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_lost_position_is_accepted_from_the_property_or_given_up() {
        let lost = history(None, WalkEnd::Pruned { parent: 4 }, Some(vector("c", "a", [31, 41])));
        assert_eq!(reposition(&lost, &log("c", "a"), &at(&[(0, 30)])).unwrap_err().exit_code(), 4);
        let accept = Order { from_property: true, ..Order::default() };
        assert_eq!(nexts(&reposition(&lost, &log("c", "a"), &accept).unwrap(), "a"), [Some(31), Some(41)]);
        let corrected = Order { from_property: true, ..at(&[(0, 90)]) };
        assert_eq!(nexts(&reposition(&lost, &log("c", "a"), &corrected).unwrap(), "a"), [Some(90), Some(41)]);
        let anew = Order { new_epoch: true, ..Order::default() };
        assert_eq!(nexts(&reposition(&lost, &log("c", "a"), &anew).unwrap(), "a"), [Some(10), Some(20)]);
        assert_eq!(reposition(&found([30, 40]), &log("c", "a"), &accept).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_topic_that_is_new_to_v_enters_with_all_its_partitions() {
        let never = history(None, WalkEnd::Root, None);
        let moved = reposition(&never, &log("c", "a"), &at(&[(1, 70)])).unwrap();
        assert_eq!(nexts(&moved, "a"), [Some(50), Some(70)]);
    }
}

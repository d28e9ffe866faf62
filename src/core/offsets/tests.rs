use super::*;

fn id(topic: &str, partition: i32) -> PartitionId {
    PartitionId { topic: topic.into(), partition }
}

fn vector(positions: &[(i32, i64)]) -> Vector {
    let at = |&(partition, next)| {
        let start = Start { offset: 3, earliest: true };
        (partition, Position { start, from: 3, next })
    };
    let topic = TopicPositions { name: "orders".into(), partitions: positions.iter().map(at).collect() };
    Vector { cluster: "c".into(), topics: BTreeMap::from([("a".into(), topic)]) }
}

/// INV-3: next offsets by (cluster, topic id, partition).
#[test]
fn a_position_is_found_by_topic_id_and_partition() {
    let v = vector(&[(0, 10), (1, 20)]);
    assert_eq!(v.next(&id("a", 1)), Some(20));
    assert_eq!(v.get(&id("a", 0)).map(|p| (p.from, p.next)), Some((3, 10)));
    assert_eq!(v.next(&id("orders", 1)), None, "the name is no identity");
}

#[test]
fn a_new_partition_of_a_known_topic_starts_at_zero_and_an_unknown_topic_has_no_position() {
    let v = vector(&[(0, 10)]);
    assert_eq!(v.next(&id("a", 7)), Some(0));
    assert_eq!(v.get(&id("a", 7)), None);
    assert_eq!(v.next(&id("b", 0)), None);
    let next = v.advance([(&id("a", 7), 4), (&id("b", 0), 9)]);
    let start = Start { offset: 0, earliest: true };
    assert_eq!(next.get(&id("a", 7)), Some(&Position { start, from: 0, next: 4 }));
    assert_eq!(next.next(&id("b", 0)), None, "a topic without a stored start is not begun by a commit");
}

/// INV-4: what a commit stores is the full vector of its parent, and its own partitions moved on, never back.
#[test]
fn advancing_keeps_every_partition_and_never_goes_back() {
    let v = vector(&[(0, 10), (1, 20), (2, 30)]);
    let next = v.advance([(&id("a", 0), 17), (&id("a", 1), 5)]);
    let positions: Vec<_> = next.iter().map(|(id, p)| (id.partition, p.from, p.next)).collect();
    assert_eq!(positions, [(0, 10, 17), (1, 20, 20), (2, 30, 30)], "offsets 11 to 16 may be a gap");
    assert!(next.iter().all(|(_, p)| p.start == Start { offset: 3, earliest: true }));
    assert!(next.contains(&v) && !v.contains(&next) && v.contains(&v));
}

#[test]
fn containing_means_the_same_cluster_and_no_partition_behind() {
    let v = vector(&[(0, 10), (1, 20)]);
    assert!(!v.contains(&vector(&[(0, 11)])));
    assert!(v.contains(&vector(&[(0, 10)])));
    assert!(!v.contains(&vector(&[(5, 1)])), "partition 5 is at 0 here");
    assert!(!Vector { cluster: "other".into(), ..v.clone() }.contains(&v));
    assert!(!Vector::new("c").contains(&v));
}

#[test]
fn a_vector_survives_its_json() {
    let v = vector(&[(0, 0), (11, i64::MAX)]);
    assert_eq!(Vector::from_json(&v.to_json()), Ok(v));
    for (broken, says) in [("", "EOF"), ("[]", "not a position vector"), (r#"{"cluster":"c"}"#, "topics")] {
        let error = Vector::from_json(broken).unwrap_err();
        assert!(error.starts_with("not a position vector: ") && error.contains(says), "{broken}: {error}");
    }
}

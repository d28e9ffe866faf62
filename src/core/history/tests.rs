//! INV-5: V is that of the nearest ancestor; the anchor counts only where it is proven to be one; else a person decides.

use super::*;

fn vector(cluster: &str) -> Vector {
    Vector::new(cluster)
}

fn ancestor(id: SnapshotId, v: Option<&str>) -> Ancestor {
    Ancestor {
        id,
        parent: Some(id - 1),
        sequence: id,
        timestamp_ms: 0,
        attempt: v.map(|v| format!("attempt-{v}")),
        vector: v.map(vector),
    }
}

fn anchor(snapshot: SnapshotId, sequence: i64) -> Anchor {
    Anchor { vector: vector("anchored"), snapshot, sequence }
}

fn history(ancestors: Vec<Ancestor>, end: WalkEnd, anchor: Option<Anchor>) -> History {
    History { ancestors, end, anchor }
}

fn found(v: &str) -> VectorRead {
    VectorRead::Found(vector(v))
}

#[test]
fn the_nearest_ancestor_with_a_vector_says_v() {
    let ancestors = vec![ancestor(9, None), ancestor(8, Some("near")), ancestor(7, Some("far"))];
    for end in [WalkEnd::Root, WalkEnd::Known, WalkEnd::Pruned { parent: 6 }] {
        let h = history(ancestors.clone(), end, Some(anchor(9, 9)));
        assert_eq!(h.vector(Some(&vector("known"))), found("near"), "{end:?}");
    }
}

#[test]
fn a_table_without_any_trace_of_firn_was_never_written() {
    assert_eq!(history(vec![], WalkEnd::Root, None).vector(None), VectorRead::Never);
    assert_eq!(history(vec![ancestor(1, None)], WalkEnd::Root, None).vector(None), VectorRead::Never);
}

#[test]
fn the_anchor_counts_when_the_oldest_retained_snapshot_names_it_as_its_parent() {
    let pruned = |parent, anchor| history(vec![ancestor(9, None)], WalkEnd::Pruned { parent }, anchor).vector(None);
    assert_eq!(pruned(8, Some(anchor(8, 8))), found("anchored"));
    let lost = |a| VectorRead::Lost(Some(Box::new(a)));
    assert_eq!(pruned(8, Some(anchor(7, 7))), lost(anchor(7, 7)), "something lies in between");
    assert_eq!(pruned(8, Some(anchor(8, 9))), lost(anchor(8, 9)), "an ancestor is not younger");
    assert_eq!(pruned(8, None), VectorRead::Lost(None), "what was expired may have been ours");
}

#[test]
fn an_anchor_without_its_snapshot_in_a_complete_history_is_for_a_person_to_decide() {
    let h = history(vec![ancestor(1, None)], WalkEnd::Root, Some(anchor(5, 5)));
    assert_eq!(
        h.vector(None),
        VectorRead::Lost(Some(Box::new(anchor(5, 5)))),
        "rolled back to before our first commit"
    );
}

#[test]
fn a_walk_that_ends_at_what_the_caller_knew_is_answered_by_the_caller() {
    let h = history(vec![ancestor(9, None)], WalkEnd::Known, Some(anchor(3, 3)));
    assert_eq!(h.vector(Some(&vector("known"))), found("known"));
    assert_eq!(h.vector(None), VectorRead::Lost(Some(Box::new(anchor(3, 3)))));
}

/// INV-7: the attempt id says what became of an attempt.
#[test]
fn an_attempt_is_found_by_its_id() {
    let h = history(vec![ancestor(9, None), ancestor(8, Some("x")), ancestor(7, Some("y"))], WalkEnd::Root, None);
    assert_eq!(h.landed("attempt-y").map(|a| a.id), Some(7));
    assert_eq!(h.landed("attempt-z"), None);
}

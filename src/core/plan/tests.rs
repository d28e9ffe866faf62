use super::*;

fn at(file: u32, row: u32) -> Location {
    Location { file, row }
}

#[test]
fn positions_are_grouped_by_file_each_once_and_in_order() {
    assert_eq!(group_by_file(Vec::new()), []);
    let grouped = group_by_file(vec![at(2, 5), at(0, u32::MAX), at(2, 1), at(0, 0), at(2, 5)]);
    let expected = [(0, [0, u32::MAX].into_iter().collect()), (2, [1, 5].into_iter().collect::<RoaringBitmap>())];
    assert_eq!(grouped, expected);
}

#[test]
fn grouping_does_not_depend_on_the_order_of_positions() {
    let all: Vec<Location> = (0..400u32).map(|n| at(n * 7 % 5, n * 7919 % 100_000)).collect();
    let forward = group_by_file(all.clone());
    assert_eq!(forward, group_by_file(all.iter().rev().copied().collect()));
    assert_eq!(forward.iter().map(|(_, rows)| rows.len()).sum::<u64>(), 400);
    assert!(forward.is_sorted_by_key(|(file, _)| *file));
}

/// INV-12: a file has one deletion vector, and a new one contains the old one.
#[test]
fn a_new_deletion_vector_contains_the_old_one() {
    let old: RoaringBitmap = [1, 2, 70_000].into_iter().collect();
    let new: RoaringBitmap = [2, 3].into_iter().collect();
    let merged = merge_deletes(&old, &new, Mutants::default());
    assert_eq!(merged.iter().collect::<Vec<_>>(), [1, 2, 3, 70_000]);
    assert_eq!(merge_deletes(&RoaringBitmap::new(), &new, Mutants::default()), new);
}

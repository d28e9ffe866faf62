//! What every implementation of `LakeTable` promises, tested through the trait alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use firn::core::history::{SnapshotId, VectorRead, View};
use firn::core::offsets::{PartitionId, Position, Start, TopicPositions, Vector};
use firn::core::schema::{Field, TableSchema, Type, to_arrow};
use firn::files::{RowOrder, WrittenFile};
use firn::table::{Change, Diff, LakeTable, LiveFile, NewRows, Outcome};
use futures::TryStreamExt;
use roaring::RoaringBitmap;

/// A row of the test tables: id (the key), venue, n.
pub type Row = (i64, String, i64);

/// A place where test tables live.
#[async_trait]
pub trait Lake: Send + Sync {
    /// Creates a table with the columns of [`schema`]; partitioned by venue if asked for.
    async fn create(&self, name: &str, by_venue: bool) -> Arc<dyn LakeTable>;
    /// Creates a table with these columns.
    async fn create_with(&self, name: &str, schema: TableSchema) -> Arc<dyn LakeTable>;
    /// Another handle on the same table.
    async fn open(&self, name: &str) -> Arc<dyn LakeTable>;
    /// The table's rows, sorted, read by a scan that knows nothing of the writer.
    async fn rows(&self, name: &str, snapshot: Option<SnapshotId>) -> Vec<Row>;
}

/// The columns of the test tables.
pub fn schema() -> TableSchema {
    let mut schema = TableSchema {
        fields: vec![
            Field::new("id", Type::Long, true),
            Field::new("venue", Type::String, false),
            Field::new("n", Type::Long, false),
        ],
        key: vec!["id".into()],
    };
    schema.number();
    schema
}

/// A vector whose only partition has `next` as its next offset.
pub fn vector(next: i64) -> Vector {
    let start = Start { offset: 0, earliest: true };
    let partitions = BTreeMap::from([(0, Position { start, from: 0, next })]);
    let topics = BTreeMap::from([(Arc::from("t1"), TopicPositions { name: "trades".into(), partitions })]);
    Vector { cluster: "c1".into(), topics }
}

/// The next offset in V.
pub fn next(vector: &Vector) -> i64 {
    vector.next(&PartitionId { topic: "t1".into(), partition: 0 }).unwrap()
}

/// V of a view that has one.
pub fn found(view: &View) -> i64 {
    match view.history.vector(None) {
        VectorRead::Found(vector) => next(&vector),
        other => panic!("V is not to be found: {other:?}"),
    }
}

pub fn committed(outcome: Outcome) -> View {
    match outcome {
        Outcome::Committed(view) => *view,
        other => panic!("not committed: {other:?}"),
    }
}

/// A writer of test rows: an index of its own, and one commit at a time.
pub struct Writer {
    pub table: Arc<dyn LakeTable>,
    pub index: HashMap<i64, (Arc<str>, u32)>,
    /// The rows as they should be.
    pub model: BTreeMap<i64, Row>,
    pub base: Option<SnapshotId>,
    pub offset: i64,
    pub now_ms: i64,
    attempts: u32,
    name: &'static str,
}

impl Writer {
    pub fn new(table: Arc<dyn LakeTable>, name: &'static str) -> Self {
        let (index, model) = (HashMap::new(), BTreeMap::new());
        Writer { table, index, model, base: None, offset: 0, now_ms: 1_790_000_000_000, attempts: 0, name }
    }

    /// Reads what the table has now into the index and the model.
    pub async fn catch_up(&mut self) -> View {
        let view = self.table.load(None).await.unwrap();
        self.base = view.snapshot;
        let diff = self.table.diff(None).await.unwrap();
        assert!(diff.whole);
        (self.index, self.model) = read(&*self.table, &diff.added).await;
        view
    }

    pub async fn write(&mut self, rows: &[(i64, &str, i64)]) -> (String, Vec<WrittenFile>) {
        self.attempts += 1;
        let attempt = format!("{}-{}", self.name, self.attempts);
        if rows.is_empty() {
            return (attempt, Vec::new());
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ];
        let schema = Arc::new(to_arrow(&self.table.schema()));
        let batch = RecordBatch::try_new(schema, columns).unwrap();
        let files = self.table.write(&attempt, NewRows { batches: vec![batch], schema_change: None }).await.unwrap();
        (attempt, files)
    }

    /// The change that upserts `rows` and deletes `gone`.
    pub async fn plan(&mut self, rows: &[(i64, &str, i64)], gone: &[i64]) -> Change {
        let mut superseded: BTreeMap<Arc<str>, RoaringBitmap> = BTreeMap::new();
        for id in rows.iter().map(|r| r.0).chain(gone.iter().copied()) {
            if let Some((path, position)) = self.index.get(&id) {
                superseded.entry(path.clone()).or_default().insert(*position);
            }
        }
        let (attempt, files) = self.write(rows).await;
        Change {
            base: self.base,
            attempt,
            pipeline: "p1".into(),
            files,
            superseded: superseded.into_iter().collect(),
            schema_change: None,
            vector: vector(self.offset),
            now_ms: self.now_ms,
            pins: None,
            reason: None,
        }
    }

    /// Upserts and deletes in one commit that has to succeed.
    pub async fn apply(&mut self, rows: &[(i64, &str, i64)], gone: &[i64]) -> View {
        self.offset += (rows.len() + gone.len()) as i64;
        self.now_ms += 10;
        let change = self.plan(rows, gone).await;
        let files = change.files.clone();
        let view = committed(self.table.commit(change).await);
        self.base = view.snapshot;
        for id in gone {
            self.index.remove(id);
            self.model.remove(id);
        }
        for file in &files {
            for position in 0..u32::try_from(file.records).unwrap() {
                let row = match &file.rows {
                    RowOrder::Range { start } => start + position,
                    RowOrder::List(list) => list[position as usize],
                };
                let (id, venue, n) = rows[row as usize];
                self.index.insert(id, (file.path.as_str().into(), position));
                self.model.insert(id, (id, venue.into(), n));
            }
        }
        view
    }

    pub fn rows(&self) -> Vec<Row> {
        self.model.values().cloned().collect()
    }
}

/// Reads files through the trait: where each key is, and its row.
async fn read(table: &dyn LakeTable, files: &[LiveFile]) -> (HashMap<i64, (Arc<str>, u32)>, BTreeMap<i64, Row>) {
    let (mut index, mut model) = (HashMap::new(), BTreeMap::new());
    let columns = ["id", "venue", "n"].map(str::to_owned);
    for file in files {
        let mut stream = table.rows(file, &columns).await.unwrap();
        while let Some(rows) = stream.try_next().await.unwrap() {
            for (row, position) in to_rows(&rows.columns).into_iter().zip(&rows.positions) {
                let before = index.insert(row.0, (file.path.clone(), *position));
                assert_eq!(before, None, "key {} is live twice", row.0);
                model.insert(row.0, row);
            }
        }
    }
    (index, model)
}

pub fn to_rows(batch: &RecordBatch) -> Vec<Row> {
    let (ids, ns) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
    let venues = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Utf8).unwrap();
    let venues = venues.as_string::<i32>();
    (0..batch.num_rows()).map(|i| (ids.value(i), venues.value(i).to_owned(), ns.value(i))).collect()
}

/// The live positions of every file, as an index that followed all diffs would have them.
async fn live_positions(table: &dyn LakeTable) -> BTreeMap<Arc<str>, BTreeSet<u32>> {
    let mut live = BTreeMap::new();
    for file in table.diff(None).await.unwrap().added {
        let mut stream = table.rows(&file, &["id".to_owned()]).await.unwrap();
        let positions: &mut BTreeSet<u32> = live.entry(file.path.clone()).or_default();
        while let Some(rows) = stream.try_next().await.unwrap() {
            positions.extend(rows.positions);
        }
    }
    live
}

/// Applies a diff to live positions, as the key index does.
async fn follow(table: &dyn LakeTable, live: &mut BTreeMap<Arc<str>, BTreeSet<u32>>, diff: &Diff) {
    assert!(!diff.whole);
    for path in &diff.removed {
        live.remove(path);
    }
    for (path, deleted) in &diff.deletes {
        live.get_mut(path).expect("deletes only in files that were live").retain(|p| !deleted.contains(*p));
    }
    for file in &diff.added {
        let mut stream = table.rows(file, &["id".to_owned()]).await.unwrap();
        let positions: &mut BTreeSet<u32> = live.entry(file.path.clone()).or_default();
        while let Some(rows) = stream.try_next().await.unwrap() {
            positions.extend(rows.positions);
        }
    }
}

/// Runs the whole contract.
pub async fn check(lake: &dyn Lake) {
    rows_come_back(lake).await;
    stale_commits_are_refused(lake).await;
    attempts_are_found(lake).await;
    empty_commits_carry_v(lake).await;
    diffs_follow_the_table(lake).await;
    keys_move_between_partitions(lake).await;
    a_clock_behind_the_parent_is_no_obstacle(lake).await;
    every_snapshot_stays_readable(lake).await;
    crate::columns::check(lake).await;
}

async fn rows_come_back(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("rows", false).await, "a");
    let view = writer.table.load(None).await.unwrap();
    assert_eq!((view.snapshot, view.history.vector(None)), (None, VectorRead::Never));
    assert_eq!(view.pipeline.as_deref(), Some("p1"));
    assert_eq!(view.schema.key, ["id"]);

    let view = writer.apply(&[(1, "x", 1), (2, "y", 2), (3, "x", 3)], &[]).await;
    assert_eq!(found(&view), 3);
    assert_eq!(lake.rows("rows", None).await, writer.rows());
    writer.apply(&[(2, "y", 20), (4, "z", 4)], &[1]).await;
    writer.apply(&[(3, "x", 30)], &[]).await;
    writer.apply(&[], &[4]).await;
    assert_eq!(lake.rows("rows", None).await, writer.rows());

    let again = lake.open("rows").await;
    let mut second = Writer::new(again, "b");
    let view = second.catch_up().await;
    assert_eq!((second.rows(), found(&view)), (writer.rows(), 8));
    assert_eq!(second.index, writer.index);
}

async fn stale_commits_are_refused(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("stale", false).await, "a");
    writer.apply(&[(1, "x", 1)], &[]).await;
    let mut zombie = Writer::new(lake.open("stale").await, "z");
    zombie.catch_up().await;
    writer.apply(&[(1, "x", 2)], &[]).await;

    let change = zombie.plan(&[(1, "x", 99)], &[]).await;
    let outcome = zombie.table.commit(change.clone()).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(lake.rows("stale", None).await, writer.rows());
    // Having looked again does not make a change that was planned before any better.
    zombie.table.load(None).await.unwrap();
    let outcome = zombie.table.commit(change).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(lake.rows("stale", None).await, writer.rows());
}

async fn attempts_are_found(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("attempts", false).await, "a");
    let base = writer.apply(&[(1, "x", 1)], &[]).await.snapshot;
    writer.apply(&[(2, "x", 2)], &[]).await;
    writer.apply(&[(3, "x", 3)], &[]).await;
    let other = lake.open("attempts").await;
    let view = other.load(base).await.unwrap();
    assert_eq!(view.history.ancestors.len(), 2, "back to what the caller knew");
    assert_eq!(view.history.end, firn::core::history::WalkEnd::Known);
    assert!(view.history.landed("a-2").is_some() && view.history.landed("a-3").is_some());
    assert!(view.history.landed("a-4").is_none());
    assert_eq!(view.history.landed("a-2").unwrap().vector.as_ref().map(next), Some(2));
}

async fn empty_commits_carry_v(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("empty", false).await, "a");
    writer.offset = 7;
    let view = writer.apply(&[], &[]).await;
    assert_eq!(found(&view), 7);
    assert!(lake.rows("empty", None).await.is_empty());
    writer.apply(&[(1, "x", 1)], &[]).await;
    writer.offset = 20;
    writer.apply(&[], &[]).await;
    assert_eq!(found(&lake.open("empty").await.load(None).await.unwrap()), 20);
    assert_eq!(lake.rows("empty", None).await, writer.rows());
}

async fn diffs_follow_the_table(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("diffs", true).await, "a");
    let watcher = lake.open("diffs").await;
    let mut known = writer.apply(&[(1, "x", 1), (2, "y", 2), (3, "x", 3)], &[]).await.snapshot;
    watcher.load(None).await.unwrap();
    let mut live = live_positions(&*watcher).await;
    for round in 0..12i64 {
        let id = 1 + round % 3;
        writer.apply(&[(id, "x", 100 + round), (10 + round, "y", round)], &[]).await;
        if round % 3 == 1 {
            writer.apply(&[], &[10 + round]).await;
        }
        if round % 2 == 0 {
            let view = watcher.load(known).await.unwrap();
            let diff = watcher.diff(known).await.unwrap();
            follow(&*watcher, &mut live, &diff).await;
            assert_eq!(live, live_positions(&*watcher).await, "round {round}");
            known = view.snapshot;
        }
    }
    let same = watcher.diff(known).await.unwrap();
    assert!(!same.whole && same.added.is_empty() && same.removed.is_empty() && same.deletes.is_empty());
    assert!(watcher.diff(Some(12345)).await.unwrap().whole, "an unknown snapshot cannot be compared");
}

async fn keys_move_between_partitions(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("moves", true).await, "a");
    writer.apply(&[(1, "x", 1), (2, "y", 2), (3, "x", 3)], &[]).await;
    writer.apply(&[(1, "y", 10), (2, "x", 20)], &[]).await;
    writer.apply(&[(3, "z", 30)], &[2]).await;
    assert_eq!(lake.rows("moves", None).await, writer.rows());
}

async fn a_clock_behind_the_parent_is_no_obstacle(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("clock", false).await, "a");
    let first = writer.apply(&[(1, "x", 1)], &[]).await;
    writer.now_ms -= 3_600_000;
    let second = writer.apply(&[(1, "x", 2)], &[]).await;
    // INV-11
    assert!(second.history.ancestors[0].timestamp_ms > first.history.ancestors[0].timestamp_ms);
    assert_eq!(lake.rows("clock", None).await, writer.rows());
}

async fn every_snapshot_stays_readable(lake: &dyn Lake) {
    let mut writer = Writer::new(lake.create("travel", true).await, "a");
    let mut snapshots = Vec::new();
    for n in 0..30i64 {
        let view = writer.apply(&[(n % 7, "x", n), (n % 5 + 100, "y", n)], &[]).await;
        snapshots.push((view.snapshot, writer.rows()));
    }
    for (snapshot, rows) in snapshots {
        assert_eq!(lake.rows("travel", snapshot).await, rows);
    }
}

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::*;
use crate::core::history::VectorRead;
use crate::core::offsets::{Position, Start, TopicPositions};
use crate::core::schema::{SchemaChange, TableSchema};
use crate::files::WrittenFile;
use crate::service::testing::table;
use crate::table::iceberg::{IcebergTable, REASON};
use crate::table::{Diff, FileRows, LiveFile, NewRows};

/// V of a topic with two partitions.
fn vector(cluster: &str, first: i64, second: i64) -> Vector {
    let at = |next| Position { start: Start { offset: 0, earliest: true }, from: next, next };
    let partitions = [(0, at(first)), (1, at(second))].into();
    let topics = [(Arc::from("id"), TopicPositions { name: "t".into(), partitions })].into();
    Vector { cluster: cluster.into(), topics }
}

fn held(view: &View) -> Vector {
    match view.history.vector(None) {
        VectorRead::Found(vector) => vector,
        other => panic!("{other:?}"),
    }
}

async fn snapshots(table: &IcebergTable) -> usize {
    table.load(None).await.unwrap();
    table.metadata().snapshots().count()
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The commit is made and its answer lost.
    AnswerLost,
    /// The commit never arrives.
    RequestLost,
    /// Another writer commits first.
    Overtaken,
    /// The catalog is away.
    Away,
}

/// A table whose first commits meet trouble.
struct Troubled {
    table: IcebergTable,
    /// Met from the last one on.
    troubles: Mutex<Vec<Trouble>>,
}

impl Troubled {
    fn next(&self) -> Option<Trouble> {
        self.troubles.lock().unwrap().pop()
    }
}

#[async_trait]
impl LakeTable for Troubled {
    fn name(&self) -> &str {
        self.table.name()
    }

    fn schema(&self) -> Arc<TableSchema> {
        LakeTable::schema(&self.table)
    }

    fn schemas(&self) -> Option<String> {
        self.table.schemas()
    }

    async fn load(&self, since: Option<SnapshotId>) -> Result<View> {
        self.table.load(since).await
    }

    async fn diff(&self, since: Option<SnapshotId>) -> Result<Diff> {
        self.table.diff(since).await
    }

    async fn rows(&self, file: &LiveFile, columns: &[String]) -> Result<BoxStream<'static, Result<FileRows>>> {
        self.table.rows(file, columns).await
    }

    fn check_change(&self, change: &SchemaChange) -> Result<()> {
        self.table.check_change(change)
    }

    async fn write(&self, attempt: &str, rows: NewRows) -> Result<Vec<WrittenFile>> {
        self.table.write(attempt, rows).await
    }

    async fn commit(&self, change: Change) -> Outcome {
        match self.next() {
            None => self.table.commit(change).await,
            Some(Trouble::AnswerLost) => {
                assert!(matches!(self.table.commit(change).await, Outcome::Committed(_)));
                Outcome::Unknown("the answer was lost".into())
            }
            Some(Trouble::RequestLost) => Outcome::Unknown("the request was lost".into()),
            Some(Trouble::Away) => Outcome::NotSent(Error::Unreachable("the catalog is away".into())),
            Some(Trouble::Overtaken) => {
                let before = held(&self.table.load(None).await.unwrap());
                let mut theirs = before.clone();
                let moved = theirs.topics.values_mut().next().unwrap().partitions.get_mut(&1).unwrap();
                moved.next += 1_000;
                let other = Change {
                    attempt: "theirs".into(),
                    pins: None,
                    reason: None,
                    vector: theirs,
                    files: Vec::new(),
                    superseded: Vec::new(),
                    schema_change: None,
                    pipeline: change.pipeline.clone(),
                    ..change
                };
                assert!(matches!(self.table.commit(other).await, Outcome::Committed(_)));
                self.table.commit(change).await
            }
        }
    }
}

#[tokio::test]
async fn an_epoch_is_an_empty_commit_with_its_position_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(&folder).await;
    for (n, cluster) in ["one", "two"].into_iter().enumerate() {
        open_epoch(&table, "p", &vector(cluster, 0, 0), "another broker").await.unwrap();
        let view = table.load(None).await.unwrap();
        assert_eq!(held(&view), vector(cluster, 0, 0));
        assert_eq!(snapshots(&table).await, n + 1);
        let metadata = table.metadata();
        let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
        assert_eq!(summary.get(REASON).map(String::as_str), Some("another broker"));
    }
}

#[tokio::test]
async fn lost_answers_and_outages_leave_one_commit() {
    use Trouble::{AnswerLost, Away, RequestLost};
    for troubles in [vec![AnswerLost], vec![RequestLost], vec![Away], vec![AnswerLost, RequestLost, Away]] {
        let folder = tempfile::tempdir().unwrap();
        let troubled = Troubled { table: table(&folder).await, troubles: Mutex::new(troubles.clone()) };
        open_epoch(&troubled, "p", &vector("c", 5, 6), "r").await.unwrap();
        assert_eq!(snapshots(&troubled.table).await, 1, "{troubles:?}");
        assert_eq!(held(&troubled.table.load(None).await.unwrap()), vector("c", 5, 6));
    }
}

#[tokio::test]
async fn a_position_is_made_anew_of_what_others_committed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let troubled = Troubled { table: table(&folder).await, troubles: Mutex::default() };
    open_epoch(&troubled, "p", &vector("c", 10, 10), "r").await.unwrap();
    troubled.troubles.lock().unwrap().push(Trouble::Overtaken);
    let first_to_three = |view: &View| {
        let mut vector = held(view);
        vector.topics.values_mut().next().unwrap().partitions.get_mut(&0).unwrap().next = 3;
        Ok(Moved { vector, pins: None })
    };
    let set = set_vector(&troubled, "p", &first_to_three, "r").await.unwrap();
    let next = |vector: &Vector| vector.iter().map(|(_, position)| position.next).collect::<Vec<_>>();
    assert_eq!(next(&set), [3, 1_010]);
    assert_eq!(next(&held(&troubled.table.load(None).await.unwrap())), [3, 1_010]);
}

#[tokio::test]
async fn the_table_of_another_pipeline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(&folder).await;
    let refused = open_epoch(&table, "q", &vector("c", 0, 0), "r").await.unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("belongs to pipeline p, not to q"), "{refused}");
    assert_eq!(snapshots(&table).await, 0);
}

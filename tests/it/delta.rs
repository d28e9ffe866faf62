//! Delta tables in a folder: the contract, and what only Delta has.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use firn::Error;
use firn::core::history::{SnapshotId, VectorRead, WalkEnd};
use firn::core::schema::{Field, TableFormat, TableSchema, Type};
use firn::files::Store;
use firn::query::{Engine, Limits};
use firn::table::delta::{DeltaCatalog, DeltaConfig, DeltaTable};
use firn::table::iceberg::{SortColumn, TableSpec};
use firn::table::{LakeTable, Outcome};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::columns::grow;
use crate::contract::{self, Lake, Row, Writer, committed, found, schema, to_rows};

struct Delta {
    catalog: Arc<DeltaCatalog>,
    folder: TempDir,
}

/// A new warehouse in a folder of its own. With `FIRN_KEEP_TABLES` set the folder stays, for a look with other engines.
fn lake() -> Delta {
    lake_with(&[])
}

fn lake_with(properties: &[(&str, &str)]) -> Delta {
    let mut folder = tempfile::tempdir().unwrap();
    folder.disable_cleanup(std::env::var_os("FIRN_KEEP_TABLES").is_some());
    let config = DeltaConfig {
        name: "lake".into(),
        warehouse: folder.path().to_string_lossy().into_owned(),
        properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    Delta { catalog: DeltaCatalog::open(&config).unwrap(), folder }
}

fn namespace() -> Vec<String> {
    vec!["market".into()]
}

fn spec(schema: TableSchema, by: &[&str]) -> TableSpec {
    TableSpec {
        schema,
        format_version: 2,
        partition_by: by.iter().map(|c| ("identity".to_owned(), (*c).to_owned())).collect(),
        sort_by: vec![SortColumn { column: "n".into(), descending: true, nulls_first: true }],
        pipeline: "p1".into(),
    }
}

impl Delta {
    async fn table(&self, name: &str) -> DeltaTable {
        self.catalog.load_table(&namespace(), name).await.unwrap().expect("the table exists")
    }

    async fn writer(&self, name: &str) -> Writer {
        Writer::new(self.create(name, false).await, "a")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join("market").join(name).join("_delta_log")
    }

    fn commit_file(&self, name: &str, version: i64) -> PathBuf {
        self.log(name).join(format!("{version:020}.json"))
    }

    fn actions(&self, name: &str, version: i64) -> Vec<Value> {
        let text = std::fs::read_to_string(self.commit_file(name, version)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Writes a version as another engine would.
    fn foreign(&self, name: &str, version: i64, actions: &[Value]) {
        let file = self.commit_file(name, version);
        assert!(!file.exists(), "version {version} exists");
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        std::fs::write(file, lines.join("\n") + "\n").unwrap();
    }

    /// Changes a property of the table by a version of its own.
    async fn set_property(&self, name: &str, property: &str, value: &str) {
        let version = self.table(name).await.version().await;
        let mut metadata = (0..=version)
            .rev()
            .flat_map(|v| self.actions(name, v))
            .find_map(|action| action.get("metaData").cloned())
            .unwrap();
        metadata["configuration"][property] = json!(value);
        self.foreign(name, version + 1, &[info("SET TBLPROPERTIES", json!({})), json!({"metaData": metadata})]);
    }

    fn versions(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.log(name))
            .unwrap()
            .flatten()
            .map(|f| f.file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with("0000"))
            .collect();
        names.sort();
        names
    }
}

fn info(operation: &str, parameters: Value) -> Value {
    json!({"commitInfo": {"timestamp": 1_790_000_000_000_i64, "operation": operation, "operationParameters": parameters}})
}

fn pick<'a>(actions: &'a [Value], kind: &str) -> Vec<&'a Value> {
    actions.iter().filter_map(|action| action.get(kind)).collect()
}

#[async_trait]
impl Lake for Delta {
    async fn create(&self, name: &str, by_venue: bool) -> Arc<dyn LakeTable> {
        let by: &[&str] = if by_venue { &["venue"] } else { &[] };
        Arc::new(self.catalog.create_table(&namespace(), name, spec(schema(), by)).await.unwrap())
    }

    async fn create_with(&self, name: &str, schema: TableSchema) -> Arc<dyn LakeTable> {
        Arc::new(self.catalog.create_table(&namespace(), name, spec(schema, &[])).await.unwrap())
    }

    async fn open(&self, name: &str) -> Arc<dyn LakeTable> {
        Arc::new(self.table(name).await)
    }

    async fn rows(&self, name: &str, snapshot: Option<SnapshotId>) -> Vec<Row> {
        let table = self.table(name).await;
        let plan = table.plan_scan(snapshot).await.unwrap();
        let columns: Vec<String> = ["id", "venue", "n"].map(str::to_owned).to_vec();
        let mut rows = Vec::new();
        for file in &plan.files {
            let stream = table.read_file(&plan.columns, file, &columns).await.unwrap();
            for batch in stream.try_collect::<Vec<_>>().await.unwrap() {
                rows.extend(to_rows(&batch.columns));
            }
        }
        rows.sort();
        rows
    }
}

#[tokio::test]
async fn the_contract_holds_on_delta() {
    contract::check(&lake()).await;
}

/// D2: a version of the table of before would be a hole in the log of the one that is there now.
#[tokio::test]
async fn a_table_that_was_created_again_gets_no_version_of_the_old_one() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    for n in 1..4 {
        writer.apply(&[(n, "x", n)], &[]).await;
    }
    let late = writer.plan(&[(1, "y", 9)], &[]).await;
    std::fs::rename(lake.folder.path().join("market"), lake.folder.path().join("dropped")).unwrap();
    let again = lake.create("t", false).await;
    assert_eq!(lake.versions("t").len(), 1);

    let outcome = writer.table.commit(late.clone()).await;
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("not in the log any more")), "{outcome:?}");
    let error = writer.table.load(None).await.unwrap_err();
    assert!(matches!(&error, Error::Decision(why) if why.contains("dropped and created again")), "{error}");
    assert!(!matches!(writer.table.commit(late).await, Outcome::Committed(_)));
    assert_eq!(lake.versions("t").len(), 1, "nothing was written into its log");
    assert!(lake.rows("t", None).await.is_empty());
    assert!(again.load(None).await.is_ok());
}

#[tokio::test]
async fn a_commit_is_one_version_with_v_as_a_txn_of_each_partition() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1), (2, "y", 2)], &[]).await;
    writer.apply(&[(1, "x", 10)], &[]).await;
    let actions = lake.actions("t", 2);
    let txns: BTreeMap<&str, i64> =
        pick(&actions, "txn").iter().map(|t| (t["appId"].as_str().unwrap(), t["version"].as_i64().unwrap())).collect();
    assert_eq!(txns["firn:c1:t1:0"], 3);
    assert_eq!(actions[0]["commitInfo"]["firn.attempt-id"], "a-2");
    let (adds, removes) = (pick(&actions, "add"), pick(&actions, "remove"));
    assert_eq!((adds.len(), removes.len()), (2, 1));
    let marked = adds.iter().find(|a| a.get("deletionVector").is_some()).unwrap();
    assert_eq!((&marked["path"], &marked["deletionVector"]["cardinality"]), (&removes[0]["path"], &json!(1)));
    let stats: Value = serde_json::from_str(marked["stats"].as_str().unwrap()).unwrap();
    assert_eq!((&stats["numRecords"], &stats["tightBounds"]), (&json!(2), &json!(false)));
    assert!(pick(&actions, "metaData").is_empty(), "properties change only when partitions do");
    let first = lake.actions("t", 0);
    let protocol = pick(&first, "protocol")[0];
    assert_eq!(protocol["readerFeatures"], json!(["deletionVectors"]));
    assert_eq!(protocol["writerFeatures"], json!(["deletionVectors", "invariants", "appendOnly"]));
    // A file whose last row goes leaves the table.
    writer.apply(&[], &[2]).await;
    let actions = lake.actions("t", 3);
    assert_eq!((pick(&actions, "add").len(), pick(&actions, "remove").len()), (0, 1));
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

/// INV-12
#[tokio::test]
async fn a_data_file_has_one_vector_that_contains_the_one_before() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    let rows: Vec<(i64, &str, i64)> = (0..10).map(|id| (id, "x", id)).collect();
    writer.apply(&rows, &[]).await;
    for id in 0..9 {
        writer.apply(&[(id, "x", 100 + id)], &[]).await;
        let table = lake.table("t").await;
        let plan = table.plan_scan(None).await.unwrap();
        let paths: HashSet<&str> = plan.files.iter().map(firn::table::delta::DeltaFile::location).collect();
        assert_eq!(paths.len(), plan.files.len());
        let deleted: u64 = plan.files.iter().map(firn::table::delta::DeltaFile::deleted).sum();
        assert_eq!(deleted, id as u64 + 1);
    }
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn checkpoints_hold_everything_and_old_log_files_go() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(0, "x", 0)], &[]).await;
    lake.set_property("t", "delta.checkpointInterval", "10").await;
    lake.set_property("t", "delta.logRetentionDuration", "interval 0 seconds").await;
    writer.base = writer.table.load(writer.base).await.unwrap().snapshot;
    for n in 1..65i64 {
        writer.now_ms = i64::MAX / 4 + n;
        writer.apply(&[(n % 13, "x", n), (n + 100, "y", n)], &[]).await;
        // The table can be read at every moment, by one who comes new.
        let fresh = lake.table("t").await;
        assert_eq!(found(&fresh.load(None).await.unwrap()), writer.offset, "after {n}");
    }
    let versions = lake.versions("t");
    assert!(versions.len() < 40, "{versions:?}");
    assert!(versions.iter().any(|n| n.ends_with(".checkpoint.parquet")));
    assert_eq!(lake.rows("t", None).await, writer.rows());

    // From the checkpoint alone: V, the key, the files and their vectors.
    let newest = versions.iter().filter(|n| n.ends_with(".checkpoint.parquet")).max().unwrap()[..20].to_owned();
    let version: i64 = newest.parse().unwrap();
    let before = lake.rows("t", Some(version)).await;
    for name in versions.iter().filter(|n| n.ends_with(".json")) {
        std::fs::remove_file(lake.log("t").join(name)).unwrap();
    }
    let table = lake.table("t").await;
    let view = table.load(None).await.unwrap();
    assert_eq!(
        (view.snapshot, view.pipeline.as_deref(), &*view.schema.key),
        (Some(version), Some("p1"), &["id".to_owned()][..])
    );
    assert!(matches!(view.history.end, WalkEnd::Pruned { .. }));
    assert!(matches!(view.history.vector(None), VectorRead::Found(_)), "{:?}", view.history);
    assert_eq!(lake.rows("t", None).await, before);
    let mut second = Writer::new(Arc::new(table), "b");
    second.catch_up().await;
    second.offset = 5000;
    second.apply(&[(1, "x", 9)], &[]).await;
    assert_eq!(lake.rows("t", None).await, second.rows());
}

#[tokio::test]
async fn v_survives_foreign_commits_and_a_cleaned_log() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    lake.set_property("t", "delta.checkpointInterval", "1").await;
    writer.base = writer.table.load(writer.base).await.unwrap().snapshot;
    writer.apply(&[(2, "x", 2)], &[]).await;
    let last = writer.base.unwrap();
    lake.foreign("t", last + 1, &[info("OPTIMIZE", json!({}))]);
    for version in 0..=last {
        std::fs::remove_file(lake.commit_file("t", version)).unwrap();
    }
    let view = lake.table("t").await.load(None).await.unwrap();
    assert_eq!(found(&view), 2, "the checkpoint has V, and nothing lies between: {view:?}");

    // Where a foreign version is gone too, it may have been a RESTORE, and nothing proves V.
    lake.foreign("t", last + 2, &[info("OPTIMIZE", json!({}))]);
    let mut table = Writer::new(Arc::new(lake.table("t").await), "b");
    table.catch_up().await;
    std::fs::remove_file(lake.commit_file("t", last + 1)).unwrap();
    let checkpoint = lake.log("t").join(format!("{last:020}.checkpoint.parquet"));
    std::fs::rename(&checkpoint, lake.log("t").join(format!("{:020}.checkpoint.parquet", last + 1))).unwrap();
    let view = lake.table("t").await.load(None).await.unwrap();
    assert!(matches!(view.history.vector(None), VectorRead::Lost(Some(_))), "{:?}", view.history);
}

#[tokio::test]
async fn a_restore_brings_back_the_v_of_its_version() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    let (rows, base) = (writer.rows(), writer.base);
    writer.apply(&[(1, "x", 2), (2, "y", 2)], &[]).await;
    // What RESTORE does: files of version 1 back, `txn` actions as they are.
    let (one, two) = (lake.actions("t", 1), lake.actions("t", 2));
    let mut actions = vec![info("RESTORE", json!({"version": "1", "timestamp": null}))];
    for add in pick(&two, "add") {
        let mut remove = add.clone();
        remove["deletionTimestamp"] = json!(1);
        actions.push(json!({"remove": remove}));
    }
    actions.extend(pick(&one, "add").iter().map(|add| json!({"add": add})));
    lake.foreign("t", 3, &actions);

    let view = writer.table.load(writer.base).await.unwrap();
    assert_eq!((view.snapshot, found(&view)), (Some(3), 1));
    let diff = writer.table.diff(writer.base).await.unwrap();
    assert!(!diff.whole && diff.removed.len() + diff.added.len() >= 1, "{diff:?}");
    assert_eq!(lake.rows("t", None).await, rows);
    assert_eq!(found(&lake.table("t").await.load(base).await.unwrap()), 1, "for one who knew version 1 as well");
    let mut again = Writer::new(lake.open("t").await, "b");
    let view = again.catch_up().await;
    assert_eq!(found(&view), 1);
    again.offset = found(&view);
    again.apply(&[(1, "x", 3)], &[]).await;
    assert_eq!(lake.rows("t", None).await, again.rows());
    assert_eq!(found(&lake.table("t").await.load(None).await.unwrap()), 2, "and V is said explicitly");

    // By a time, or to a version whose log is gone: a person decides.
    lake.foreign("t", 5, &[info("RESTORE", json!({"version": null, "timestamp": "2026-01-01 00:00:00"}))]);
    let view = lake.table("t").await.load(None).await.unwrap();
    assert!(matches!(view.history.vector(None), VectorRead::Lost(Some(_))), "{:?}", view.history);
}

#[tokio::test]
async fn a_restore_to_before_the_first_commit_begins_anew() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    lake.foreign("t", 2, &[info("RESTORE", json!({"version": 0}))]);
    let view = lake.table("t").await.load(None).await.unwrap();
    assert_eq!(view.history.vector(None), VectorRead::Never);
}

#[tokio::test]
async fn an_occupied_version_is_refused_and_an_own_one_is_found() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    lake.foreign("t", 2, &[info("OPTIMIZE", json!({}))]);
    let change = writer.plan(&[(1, "x", 2)], &[]).await;
    let outcome = writer.table.commit(change).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let view = writer.table.load(writer.base).await.unwrap();
    assert_eq!(view.history.ancestors.len(), 1);
    assert!(view.history.ancestors[0].vector.is_none() && view.history.ancestors[0].attempt.is_none());
    writer.base = view.snapshot;

    // The answer to the first try was lost, and the request is made again by something in between.
    let change = writer.plan(&[(1, "x", 3)], &[]).await;
    let text = format!(
        "{}\n",
        json!({"commitInfo": {"timestamp": 1, "operation": "MERGE", "firn.attempt-id": change.attempt}})
    );
    std::fs::write(lake.commit_file("t", 3), text).unwrap();
    let outcome = writer.table.commit(change).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_writer_that_slept_through_a_cleaned_log_does_not_write_into_the_past() {
    let lake = lake();
    let mut sleeper = lake.writer("t").await;
    sleeper.apply(&[(1, "x", 1)], &[]).await;
    lake.set_property("t", "delta.checkpointInterval", "5").await;
    let mut writer = Writer::new(lake.open("t").await, "b");
    writer.catch_up().await;
    writer.offset = 1;
    for n in 0..10 {
        writer.apply(&[(n, "y", n)], &[]).await;
    }
    for version in 0..8 {
        std::fs::remove_file(lake.commit_file("t", version)).unwrap();
    }
    let change = sleeper.plan(&[(1, "x", 99)], &[]).await;
    let outcome = sleeper.table.commit(change).await;
    assert!(matches!(outcome, Outcome::Unknown(_) | Outcome::Refused(_)), "{outcome:?}");
    let view = sleeper.table.load(sleeper.base).await.unwrap();
    assert_eq!((view.snapshot, found(&view)), (writer.base, writer.offset));
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn foreign_deletes_updates_and_rewrites_are_followed() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1), (2, "x", 2), (3, "x", 3)], &[]).await;
    writer.apply(&[(4, "x", 4)], &[]).await;
    let base = writer.base;
    let adds: Vec<Value> =
        (1..=2).flat_map(|v| pick(&lake.actions("t", v), "add").into_iter().cloned().collect::<Vec<_>>()).collect();
    // A copy-on-write DELETE of the second file, and a rewrite of the first under another name.
    let old = self::folder(&lake, "t").join(adds[0]["path"].as_str().unwrap());
    std::fs::copy(&old, self::folder(&lake, "t").join("rewritten file.parquet")).unwrap();
    let mut rewritten = adds[0].clone();
    rewritten["path"] = json!("rewritten%20file.parquet");
    let removes =
        adds.iter().map(|a| json!({"remove": {"path": a["path"], "dataChange": true, "deletionTimestamp": 1}}));
    let mut actions = vec![info("OPTIMIZE", json!({}))];
    actions.extend(removes);
    actions.push(json!({"add": rewritten}));
    lake.foreign("t", 3, &actions);

    let view = writer.table.load(None).await.unwrap();
    let diff = writer.table.diff(base).await.unwrap();
    assert_eq!((diff.whole, diff.removed.len(), diff.added.len(), diff.deletes.len()), (false, 2, 1, 0));
    assert!(diff.added[0].path.ends_with("/rewritten file.parquet"), "{diff:?}");
    assert_eq!(found(&view), 4, "V is that of the nearest commit of Firn");
    let mut again = Writer::new(lake.open("t").await, "b");
    again.catch_up().await;
    again.offset = 4;
    assert_eq!(again.rows().len(), 3);
    again.apply(&[(2, "x", 20)], &[]).await;
    assert_eq!(lake.rows("t", None).await, again.rows());
    // One who was away all the time compares with what the log still says of then.
    let late = lake.table("t").await;
    late.load(None).await.unwrap();
    assert!(!late.diff(base).await.unwrap().whole);
}

fn folder(lake: &Delta, name: &str) -> PathBuf {
    lake.folder.path().join("market").join(name)
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name_before_anything_is_written() {
    for (property, feature) in [
        ("delta.appendOnly", ""),
        ("delta.enableChangeDataFeed", ""),
        ("delta.enableRowTracking", ""),
        ("delta.setTransactionRetentionDuration", ""),
        ("delta.constraints.positive", ""),
        ("", "rowTracking"),
        ("", "icebergCompatV2"),
    ] {
        let lake = lake();
        let writer = lake.writer("t").await;
        let named = if feature.is_empty() {
            lake.set_property("t", property, "true").await;
            property
        } else {
            let features = json!(["deletionVectors", "invariants", "appendOnly", feature]);
            let protocol = json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": features});
            lake.foreign("t", 1, &[json!({"protocol": protocol})]);
            feature
        };
        let before = lake.versions("t");
        let table = lake.table("t").await;
        let Outcome::NotSent(error) = table.prepare(&schema().key).await else { panic!("{named} is accepted") };
        assert!(error.to_string().contains(named) && error.exit_code() == 4, "{error}");
        assert_eq!(lake.versions("t"), before);
        drop(writer);
    }
    // A reader feature is refused to readers, too.
    let lake = lake();
    lake.create("t", false).await;
    let features = json!(["deletionVectors", "timeTravelling"]);
    let protocol =
        json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features});
    lake.foreign("t", 1, &[json!({"protocol": protocol})]);
    let error = lake.catalog.load_table(&namespace(), "t").await.unwrap_err();
    assert!(error.to_string().contains("timeTravelling"), "{error}");
}

#[tokio::test]
async fn a_retention_of_transactions_is_accepted_on_the_operators_word() {
    let lake = lake_with(&[("accept-transaction-retention", "true")]);
    lake.create("t", false).await;
    lake.set_property("t", "delta.setTransactionRetentionDuration", "interval 30 days").await;
    committed(lake.table("t").await.prepare(&schema().key).await);
}

#[tokio::test]
async fn a_table_grows_and_old_rows_stay_readable() {
    let lake = lake();
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    let mut wanted = schema();
    wanted.fields.push(Field::new("note", Type::Uuid, false));
    wanted.fields.push(Field::new("at", Type::Time, false));
    let table = lake.table("t").await;
    grow(&table, &wanted, &[TableFormat::Delta]).await;
    let kinds: Vec<Type> = table.schema().fields.iter().map(|f| f.kind.clone()).collect();
    assert_eq!(kinds[3..], [Type::Uuid, Type::Time], "what Delta has no type for keeps its meaning");
    let version = table.version().await;
    committed(table.prepare(&schema().key).await);
    assert_eq!(table.version().await, version, "nothing to do is nothing done");
    // A change that was planned before does not slip in under the new schema.
    let change = writer.plan(&[(2, "x", 2)], &[]).await;
    assert!(matches!(writer.table.commit(change).await, Outcome::Refused(_)));
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn a_wider_type_is_a_table_feature() {
    let lake = lake();
    let mut narrow = schema();
    narrow.fields[2].kind = Type::Int;
    lake.catalog.create_table(&namespace(), "t", spec(narrow, &[])).await.unwrap();
    let table = lake.table("t").await;
    grow(&table, &schema(), &[TableFormat::Delta]).await;
    assert_eq!(table.schema().column("n").unwrap().kind, Type::Long);
    let actions = lake.actions("t", 1);
    assert!(pick(&actions, "protocol")[0]["readerFeatures"].to_string().contains("typeWidening"));
    let metadata = pick(&actions, "metaData")[0];
    assert!(
        metadata["schemaString"].as_str().unwrap().contains(r#""fromType":"integer","toType":"long""#),
        "{metadata}"
    );
    assert_eq!(metadata["configuration"]["delta.enableTypeWidening"], "true");
}

#[tokio::test]
async fn tables_are_listed_and_created_once_and_partitioned_by_columns_alone() {
    let lake = lake();
    lake.create("one", false).await;
    let uuid = lake.table("one").await.load(None).await.unwrap().table;
    lake.create("one", true).await;
    assert_eq!(lake.table("one").await.load(None).await.unwrap().table, uuid, "an existing table is opened as it is");
    assert_eq!(lake.catalog.list_tables().await.unwrap(), [(namespace(), "one".to_owned())]);
    assert!(lake.catalog.load_table(&namespace(), "two").await.unwrap().is_none());
    assert!(lake.catalog.load_table(&["..".into()], "two").await.unwrap().is_none());
    let mut bucketed = spec(schema(), &[]);
    bucketed.partition_by = vec![("bucket[4]".into(), "id".into())];
    let error = lake.catalog.create_table(&namespace(), "two", bucketed).await.unwrap_err();
    assert!(error.to_string().contains("partition_by") && error.exit_code() == 2, "{error}");
}

#[tokio::test]
async fn an_empty_string_cannot_be_a_partition() {
    let lake = lake();
    let mut writer = Writer::new(lake.create("t", true).await, "a");
    writer.apply(&[(1, "a b/c%d=\u{e9}", 1)], &[]).await;
    assert_eq!(lake.rows("t", None).await, writer.rows());
    let change = writer.plan(&[(2, "", 2)], &[]).await;
    let outcome = writer.table.commit(change).await;
    assert!(matches!(&outcome, Outcome::NotSent(e) if e.to_string().contains("empty string")), "{outcome:?}");
}

/// A thousand commits: a late one costs what an early one did. The bound is the design's, twice.
#[tokio::test]
async fn the_time_of_a_commit_does_not_grow_with_the_table() {
    if std::env::var_os("FIRN_LONG").is_none() {
        return;
    }
    let lake = lake();
    let mut writer = lake.writer("t").await;
    let mut times = Vec::new();
    for n in 0..1000i64 {
        let started = Instant::now();
        writer.apply(&[(n % 10, "x", n), (n + 1000, "y", n)], &[]).await;
        times.push(started.elapsed());
    }
    let median = |range: std::ops::Range<usize>| -> Duration {
        let mut of = times[range].to_vec();
        of.sort();
        of[of.len() / 2]
    };
    let (early, late) = (median(10..60), median(950..1000));
    println!("median of commits 11-60: {early:?}, 951-1000: {late:?}");
    assert!(late <= early * 2, "{early:?} became {late:?}");
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_is_queried_as_the_model_had_it_then() {
    for by in [&[][..], &["venue"]] {
        let lake = lake();
        let table = lake.catalog.create_table(&namespace(), "trades", spec(schema(), by)).await.unwrap();
        let engine = Engine::new(vec![lake.catalog.clone().into()], Limits::default()).unwrap();
        let mut writer = Writer::new(Arc::new(table), "w");
        crate::query::check_snapshots(&engine, &mut writer, 1, &format!("{by:?}")).await;
    }
}

/// A local disk on which answers get lost: of the puts that `loses` picks, after they were carried out or before.
#[derive(Debug)]
struct Lossy {
    disk: LocalFileSystem,
    /// What happens to the next commit.
    next: Mutex<Option<Loss>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    /// It is carried out, and its answer is lost.
    Answer,
    /// It is lost on its way.
    Request,
}

impl std::fmt::Display for Lossy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lossy {}", self.disk)
    }
}

#[async_trait]
impl ObjectStore for Lossy {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let is_commit = at.as_ref().ends_with(".json");
        let loss = self.next.lock().unwrap().take_if(|_| is_commit);
        let lost = || object_store::Error::Generic { store: "lossy", source: "the connection was reset".into() };
        match loss {
            Some(Loss::Request) => Err(lost()),
            Some(Loss::Answer) => self.disk.put_opts(at, payload, options).await.and(Err(lost())),
            None => self.disk.put_opts(at, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.disk.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.disk.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.disk.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.disk.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.disk.copy_opts(from, to, options).await
    }
}

/// INV-7
#[tokio::test]
async fn a_lost_answer_is_resolved_by_reading_the_version_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = DeltaConfig {
        name: "lake".into(),
        warehouse: folder.path().to_string_lossy().into_owned(),
        properties: BTreeMap::new(),
    };
    let lossy = Arc::new(Lossy { disk: LocalFileSystem::new(), next: Mutex::default() });
    let catalog = DeltaCatalog::open_in(&config, Store::over(lossy.clone())).unwrap();
    let lake = Delta { catalog, folder };
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    *lossy.next.lock().unwrap() = Some(Loss::Answer);
    writer.apply(&[(1, "x", 2)], &[]).await;
    assert_eq!(*lossy.next.lock().unwrap(), None, "an answer was lost");
    assert_eq!(lake.rows("t", None).await, writer.rows());

    // Nothing is there, but it may still come: nobody can tell yet.
    *lossy.next.lock().unwrap() = Some(Loss::Request);
    let change = writer.plan(&[(1, "x", 3)], &[]).await;
    let outcome = writer.table.commit(change.clone()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    let view = writer.table.load(writer.base).await.unwrap();
    assert_eq!((view.snapshot, view.history.landed(&change.attempt)), (writer.base, None));
    writer.apply(&[(1, "x", 4)], &[]).await;
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

/// A table whose columns have other names in files, as other engines make it, without a file yet.
fn mapped(lake: &Delta, mode: &str) {
    let field = |id: i64, name: &str, kind: &str| {
        json!({"name": name, "type": kind, "nullable": true, "metadata":
            {"delta.columnMapping.id": id, "delta.columnMapping.physicalName": format!("col-{id}")}})
    };
    let schema = json!({"type": "struct", "fields":
        [field(1, "id", "long"), field(2, "venue", "string"), field(3, "n", "long")]});
    let configuration = json!({"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "3"});
    std::fs::create_dir_all(lake.log("t")).unwrap();
    lake.foreign("t", 0, &[
        info("CREATE TABLE", json!({})),
        json!({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}),
        json!({"metaData": {"id": "m", "format": {"provider": "parquet", "options": {}}, "schemaString": schema.to_string(),
            "partitionColumns": ["venue"], "configuration": configuration}}),
    ]);
}

#[tokio::test]
async fn mapped_columns_are_written_under_their_physical_names() {
    for mode in ["name", "id"] {
        let lake = lake();
        mapped(&lake, mode);
        let table = lake.table("t").await;
        committed(table.prepare(&schema().key).await);
        let protocol = pick(&lake.actions("t", 1), "protocol")[0].clone();
        assert_eq!((&protocol["minReaderVersion"], &protocol["minWriterVersion"]), (&json!(3), &json!(7)));
        for feature in ["columnMapping", "deletionVectors", "appendOnly", "invariants", "generatedColumns"] {
            assert!(protocol["writerFeatures"].to_string().contains(feature), "what version 5 implied is listed");
        }
        let mut writer = Writer::new(Arc::new(table), "a");
        writer.catch_up().await;
        writer.apply(&[(1, "x", 1), (2, "y", 2)], &[]).await;
        writer.apply(&[(1, "y", 10)], &[]).await;
        assert_eq!(lake.rows("t", None).await, writer.rows());
        let adds = lake.actions("t", 2);
        let add = pick(&adds, "add")[0];
        assert!(add["partitionValues"].get("col-2").is_some(), "{add}");
        assert!(add["stats"].as_str().unwrap().contains(r#""minValues":{"col-1":"#), "{add}");
        let file = std::fs::File::open(folder(&lake, "t").join(add["path"].as_str().unwrap())).unwrap();
        let parquet = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let columns: Vec<(String, i32)> = parquet
            .parquet_schema()
            .root_schema()
            .get_fields()
            .iter()
            .map(|f| (f.name().to_owned(), f.get_basic_info().id()))
            .collect();
        assert_eq!(columns, [("col-1".to_owned(), 1), ("col-3".to_owned(), 3)]);
        // A new column gets a number and a name of its own.
        let mut wanted = schema();
        wanted.fields.push(Field::new("note", Type::String, false));
        grow(&lake.table("t").await, &wanted, &[TableFormat::Delta]).await;
        let metadata = pick(&lake.actions("t", 4), "metaData")[0].clone();
        assert_eq!(metadata["configuration"]["delta.columnMapping.maxColumnId"], "4");
        let engine = Engine::new(vec![lake.catalog.clone().into()], Limits::default()).unwrap();
        let answer = engine.query("SELECT id, venue, n FROM lake.market.t WHERE note IS NULL").await.unwrap();
        let found: Vec<arrow::array::RecordBatch> = answer.stream.try_collect().await.unwrap();
        let mut found: Vec<Row> = found.iter().flat_map(to_rows).collect();
        found.sort();
        assert_eq!(found, writer.rows());
    }
}

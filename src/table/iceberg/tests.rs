//! Deletes that Firn never writes but other engines do.

use std::collections::BTreeMap;
use std::collections::HashMap;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema};
use futures::TryStreamExt;
use iceberg::TableUpdate;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, MAIN_BRANCH, ManifestContentType, Operation, Snapshot,
    SnapshotReference, SnapshotRetention, Summary,
};
use parquet::arrow::ArrowWriter;
use roaring::RoaringBitmap;

use super::manifests::{Content, Writer};
use super::promoted::Promoted;
use super::snapshot::{Base, write_list};
use super::*;
use crate::core::offsets::Vector;
use crate::core::schema::{Field, Type};

async fn table(folder: &std::path::Path) -> IcebergTable {
    let config = CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Sqlite { path: folder.join("catalog.db") },
        warehouse: Some(folder.to_string_lossy().into_owned()),
        properties: BTreeMap::new(),
    };
    let schema = TableSchema { fields: vec![Field::new("id", Type::Long, true)], key: vec!["id".into()] };
    let (partition_by, sort_by, pipeline) = (vec![], vec![], "p".to_owned());
    let spec = TableSpec { schema, format_version: 2, partition_by, sort_by, pipeline };
    open_catalog(config).await.unwrap().create_table(&["m".into()], "t", spec).await.unwrap()
}

/// Appends ids `from..from + 10` as one file, and deletes `superseded`.
async fn append(table: &IcebergTable, from: i64, superseded: &[(&Arc<str>, u32)]) -> Arc<str> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 10));
    let batch = RecordBatch::try_new(table.arrow_schema(), vec![ids]).unwrap();
    let attempt = format!("a{from}");
    let files = table.write(&attempt, NewRows { batches: vec![batch], schema_change: None }).await.unwrap();
    let path: Arc<str> = files[0].path.as_str().into();
    let superseded = superseded.iter().map(|(path, p)| ((*path).clone(), RoaringBitmap::from([*p]))).collect();
    let change = Change {
        base: table.metadata().current_snapshot_id(),
        attempt,
        pipeline: "p".into(),
        files,
        superseded,
        schema_change: None,
        vector: Vector::new("c"),
        now_ms: 1,
        pins: None,
        reason: None,
    };
    let outcome = table.commit(change).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    path
}

async fn ids(table: &IcebergTable) -> Vec<i64> {
    let mut ids = Vec::new();
    for file in table.diff(None).await.unwrap().added {
        let rows: Vec<FileRows> = table.rows(&file, &["id".into()]).await.unwrap().try_collect().await.unwrap();
        for rows in rows {
            let column = rows.columns.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            ids.extend(column.values().iter().copied());
        }
    }
    // A scan says the same.
    let plan = table.plan_scan(None).await.unwrap();
    let mut left = 0;
    for file in &plan.files {
        left += file.records() - table.load_deletes(file).await.unwrap().len();
    }
    assert_eq!(left, ids.len() as u64);
    ids.sort_unstable();
    ids
}

/// Commits delete files as another engine would.
async fn foreign_deletes(table: &IcebergTable, deletes: Vec<DataFile>) -> Outcome {
    let state = table.state();
    let metadata = &state.loaded.metadata;
    let mut live = table.live.lock().await;
    table.follow(&mut live, &state).await.unwrap();
    let (snapshot, sequence) = (metadata.last_sequence_number() + 1000, metadata.last_sequence_number() + 1);
    let folder = format!("{}/metadata", metadata.location());
    let attempt = format!("foreign{sequence}");
    let store = table.store();
    let promoted = &Promoted::of(metadata);
    let mut writer =
        Writer { store, metadata, promoted, folder: &folder, attempt: &attempt, snapshot, sequence, count: 0 };
    let content = Content { added: deletes, ..Content::default() };
    let (manifest, _) = writer.write(ManifestContentType::Deletes, 0, content).await.unwrap();
    let mut list = live.manifests.clone();
    list.push(manifest);
    let base = Base { store, before: metadata, metadata, live: &live, cache: &table.manifests };
    let path = format!("{folder}/snap-{attempt}.avro");
    write_list(&base, &path, snapshot, sequence, &list).await.unwrap();
    drop(live);
    let made = Snapshot::builder()
        .with_snapshot_id(snapshot)
        .with_parent_snapshot_id(metadata.current_snapshot_id())
        .with_sequence_number(sequence)
        .with_timestamp_ms(metadata.last_updated_ms() + 1)
        .with_manifest_list(path)
        .with_summary(Summary { operation: Operation::Delete, additional_properties: HashMap::new() })
        .with_schema_id(0)
        .build();
    let reference = SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None));
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot: made },
        TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.into(), reference },
    ];
    table.commit_metadata(updates, vec![]).await
}

/// A position-delete file that names several data files, as Trino and Spark write them by partition.
async fn position_deletes(table: &IcebergTable, name: &str, rows: &[(&Arc<str>, i64)]) -> DataFile {
    let field = |name: &str, kind, id: i32| {
        ArrowField::new(name, kind, false).with_metadata(HashMap::from([("PARQUET:field_id".into(), id.to_string())]))
    };
    let schema = Arc::new(ArrowSchema::new(vec![
        field("file_path", DataType::Utf8, 2_147_483_546),
        field("pos", DataType::Int64, 2_147_483_545),
    ]));
    let mut rows = rows.to_vec();
    rows.sort();
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &**r.0)));
    let positions: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, vec![paths, positions]).unwrap()).unwrap();
    writer.close().unwrap();
    let path = format!("{}/data/{name}.parquet", table.metadata().location());
    let size = bytes.len() as u64;
    table.store().put(&path, bytes.into()).await.unwrap();
    file(DataContentType::PositionDeletes, path, rows.len() as u64, size)
}

fn file(content: DataContentType, path: String, records: u64, size: u64) -> DataFile {
    DataFileBuilder::default()
        .content(content)
        .file_path(path)
        .file_format(DataFileFormat::Parquet)
        .record_count(records)
        .file_size_in_bytes(size)
        .equality_ids((content == DataContentType::EqualityDeletes).then(|| vec![1]))
        .build()
        .unwrap()
}

#[tokio::test]
async fn foreign_deletes_for_several_files_go_only_when_all_are_in_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(folder.path()).await;
    let first = append(&table, 0, &[]).await;
    let second = append(&table, 10, &[(&first, 9)]).await;
    let before = table.metadata().current_snapshot_id();
    let deletes = position_deletes(&table, "theirs", &[(&first, 0), (&first, 1), (&second, 5)]).await;
    let outcome = foreign_deletes(&table, vec![deletes]).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");

    let diff = table.diff(before).await.unwrap();
    let mut deleted: Vec<_> =
        diff.deletes.iter().map(|(path, p)| (path.clone(), p.iter().collect::<Vec<_>>())).collect();
    deleted.sort();
    let mut wanted = vec![(first.clone(), vec![0, 1, 9]), (second.clone(), vec![5])];
    wanted.sort();
    assert_eq!(deleted, wanted, "all deleted positions, older ones of the same file included");
    assert!(diff.added.is_empty() && diff.removed.is_empty());
    let expected: Vec<i64> = (2..20).filter(|id| ![9, 15].contains(id)).collect();
    assert_eq!(ids(&table).await, expected);

    assert!(matches!(table.upgrade_to_v3().await, Outcome::Committed(_)));
    append(&table, 20, &[(&first, 2)]).await;
    let names = |live: &Live| {
        let all = live.scoped.values().flatten().chain(&live.shared);
        let mut kinds: Vec<bool> = all.map(super::live::DeleteRef::is_vector).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(names(&*table.live.lock().await), [false, true], "the second file still needs theirs");
    let expected: Vec<i64> = (3..30).filter(|id| ![9, 15].contains(id)).collect();
    assert_eq!(ids(&table).await, expected);

    append(&table, 30, &[(&second, 6)]).await;
    assert_eq!(names(&*table.live.lock().await), [true, true], "now both files have vectors that contain it");
    let expected: Vec<i64> = (3..40).filter(|id| ![9, 15, 16].contains(id)).collect();
    assert_eq!(ids(&table).await, expected);
}

#[tokio::test]
async fn equality_deletes_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(folder.path()).await;
    append(&table, 0, &[]).await;
    let deletes = file(DataContentType::EqualityDeletes, "file:///theirs-eq.parquet".into(), 1, 100);
    foreign_deletes(&table, vec![deletes]).await;
    for error in [table.load(None).await.unwrap_err(), table.plan_scan(None).await.unwrap_err()] {
        assert!(matches!(error, Error::Decision(_)));
        let text = error.to_string();
        assert!(text.contains("file:///theirs-eq.parquet") && text.contains("rewrite_data_files"), "{text}");
    }
}

#[tokio::test]
async fn a_table_that_was_dropped_is_for_a_person_to_decide() {
    let folder = tempfile::tempdir().unwrap();
    let old = table(folder.path()).await;
    // The same catalog without the table.
    let path = folder.path().join("empty.db");
    let (kind, warehouse) = (CatalogKind::Sqlite { path }, Some(folder.path().to_string_lossy().into_owned()));
    let config = CatalogConfig { name: "lake".into(), kind, warehouse, properties: BTreeMap::new() };
    let dropped = IcebergTable { catalog: open_catalog(config).await.unwrap(), ..old };
    let error = dropped.load(None).await.unwrap_err();
    assert!(matches!(error, Error::Decision(_)), "{error}");
    assert!(error.to_string().contains("table lake.m.t is not in its catalog any more: restore it"), "{error}");
}

#[tokio::test]
async fn another_table_of_the_same_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let old = table(folder.path()).await;
    let folder2 = tempfile::tempdir().unwrap();
    let other = table(folder2.path()).await;
    let answers = Arc::new(CatalogHandle {
        name: "lake".into(),
        store: other.store.clone(),
        catalog: other.catalog.catalog.clone(),
    });
    let moved = IcebergTable { catalog: answers, ..old };
    let error = moved.load(None).await.unwrap_err();
    assert!(matches!(error, Error::Decision(_)) && error.to_string().contains("dropped and created again"), "{error}");
}

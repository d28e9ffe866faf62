//! Iceberg tables on a SQLite catalog: the contract, and what only Iceberg has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use firn::core::history::{SnapshotId, VectorRead, WalkEnd};
use firn::core::schema::{Field, TableFormat, TableSchema, Type};
use firn::files::read_rows;
use firn::table::iceberg::{
    CatalogConfig, CatalogHandle, CatalogKind, IcebergTable, SortColumn, TableSpec, open_catalog,
};
use firn::table::{LakeTable, Outcome};
use futures::TryStreamExt;
use iceberg::TableUpdate;
use iceberg::spec::{
    DataContentType, DataFileFormat, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestList, ManifestStatus,
    NullOrder, SnapshotReference, SnapshotRetention, SortDirection, TableMetadata,
};
use tempfile::TempDir;

use crate::columns::grow;
use crate::contract::{self, Lake, Row, Writer, committed, found, schema, to_rows};

struct Iceberg {
    catalog: Arc<CatalogHandle>,
    namespace: Vec<String>,
    format_version: u8,
    _folder: TempDir,
}

/// A new catalog in a folder of its own. With `FIRN_KEEP_TABLES` set the folder stays, for a look with other engines.
async fn lake(format_version: u8) -> Iceberg {
    let mut folder = tempfile::tempdir().unwrap();
    folder.disable_cleanup(std::env::var_os("FIRN_KEEP_TABLES").is_some());
    let config = CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Sqlite { path: folder.path().join("catalog.db") },
        warehouse: Some(folder.path().join("warehouse").to_string_lossy().into_owned()),
        properties: BTreeMap::new(),
    };
    Iceberg { catalog: open_catalog(config).await.unwrap(), namespace: namespace(), format_version, _folder: folder }
}

fn namespace() -> Vec<String> {
    vec!["market".into()]
}

impl Iceberg {
    async fn table(&self, name: &str) -> IcebergTable {
        self.catalog.load_table(&self.namespace, name).await.unwrap().expect("the table exists")
    }

    async fn writer(&self, name: &str) -> Writer {
        Writer::new(self.create(name, false).await, "a")
    }
}

impl Iceberg {
    fn spec(&self, schema: TableSchema) -> TableSpec {
        TableSpec {
            schema,
            format_version: self.format_version,
            partition_by: Vec::new(),
            sort_by: vec![SortColumn { column: "n".into(), descending: true, nulls_first: false }],
            pipeline: "p1".into(),
        }
    }
}

#[async_trait]
impl Lake for Iceberg {
    async fn create(&self, name: &str, by_venue: bool) -> Arc<dyn LakeTable> {
        let partition_by = if by_venue { vec![("identity".to_owned(), "venue".to_owned())] } else { vec![] };
        let spec = TableSpec { partition_by, ..self.spec(schema()) };
        Arc::new(self.catalog.create_table(&self.namespace, name, spec).await.unwrap())
    }

    async fn create_with(&self, name: &str, schema: TableSchema) -> Arc<dyn LakeTable> {
        Arc::new(self.catalog.create_table(&self.namespace, name, self.spec(schema)).await.unwrap())
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
            let deleted = table.load_deletes(file).await.unwrap();
            let stream = read_rows(table.store(), file.path(), &plan.schema, &columns, deleted).await.unwrap();
            for batch in stream.try_collect::<Vec<_>>().await.unwrap() {
                rows.extend(to_rows(&batch.columns));
            }
        }
        rows.sort();
        rows
    }
}

/// What the manifests of the current snapshot say, read with the `iceberg` crate alone.
struct Content {
    data: Vec<(String, u64, Option<i64>)>,
    /// Data file that a delete names, and whether it is a vector.
    deletes: Vec<(String, bool)>,
    deleted_positions: u64,
    manifests: usize,
}

async fn content(table: &IcebergTable) -> Content {
    let metadata = table.metadata();
    let io = table.store().file_io();
    let mut content = Content { data: vec![], deletes: vec![], deleted_positions: 0, manifests: 0 };
    let Some(snapshot) = metadata.current_snapshot() else { return content };
    let text = io.new_input(snapshot.manifest_list()).unwrap().read().await.unwrap();
    let list = ManifestList::parse_with_version(&text, metadata.format_version()).unwrap();
    for manifest in list.entries() {
        content.manifests += 1;
        let mut next = manifest.first_row_id;
        for entry in manifest.load_manifest(&io).await.unwrap().entries() {
            if entry.status() == ManifestStatus::Deleted {
                continue;
            }
            let file = entry.data_file();
            if file.content_type() == DataContentType::Data {
                assert_eq!(manifest.content, ManifestContentType::Data);
                let id = file.first_row_id().or_else(|| {
                    let id = next?;
                    next = Some(id + file.record_count());
                    i64::try_from(id).ok()
                });
                content.data.push((file.file_path().to_owned(), file.record_count(), id));
            } else {
                let vector = file.file_format() == DataFileFormat::Puffin;
                content.deletes.push((file.referenced_data_file().expect("Firn's deletes name their file"), vector));
                content.deleted_positions += file.record_count();
            }
        }
    }
    content
}

fn summary(table: &IcebergTable) -> HashMap<String, String> {
    table.metadata().current_snapshot().unwrap().summary().additional_properties.clone()
}

fn assert_totals(table: &IcebergTable, content: &Content) {
    let summary = summary(table);
    let total = |key: &str| summary[key].parse::<u64>().unwrap();
    assert_eq!(total("total-data-files"), content.data.len() as u64);
    assert_eq!(total("total-records"), content.data.iter().map(|d| d.1).sum::<u64>());
    assert_eq!(total("total-delete-files"), content.deletes.len() as u64);
    assert_eq!(total("total-position-deletes"), content.deleted_positions);
}

#[tokio::test]
async fn the_contract_holds_on_iceberg_v2() {
    contract::check(&lake(2).await).await;
}

#[tokio::test]
async fn the_contract_holds_on_iceberg_v3() {
    contract::check(&lake(3).await).await;
}

/// `FIRN_REST_URI` names an Iceberg REST server that has no namespace `market` yet and writes to the local disk.
#[tokio::test]
async fn the_contract_holds_on_a_rest_catalog() {
    let Ok(uri) = std::env::var("FIRN_REST_URI") else { return };
    for format_version in [2, 3] {
        let config = CatalogConfig {
            name: "rest".into(),
            kind: CatalogKind::Rest { uri: uri.clone() },
            warehouse: None,
            properties: BTreeMap::new(),
        };
        let catalog = open_catalog(config).await.unwrap();
        let namespace = vec![format!("market{format_version}"), "sub".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        contract::check(&Iceberg { catalog, namespace, format_version, _folder: folder }).await;
    }
}

/// Ten rows in one file, each superseded by a commit of its own.
async fn supersede_one_by_one(lake: &Iceberg, name: &str) -> Writer {
    let mut writer = lake.writer(name).await;
    let rows: Vec<(i64, &str, i64)> = (0..10).map(|id| (id, "x", id)).collect();
    writer.apply(&rows, &[]).await;
    for id in 0..9 {
        writer.apply(&[(id, "x", 100 + id)], &[]).await;
        let table = lake.table(name).await;
        assert_totals(&table, &content(&table).await);
    }
    writer
}

#[tokio::test]
async fn a_data_file_has_at_most_one_deletion_vector() {
    let lake = lake(3).await;
    let writer = supersede_one_by_one(&lake, "t").await;
    let content = content(&lake.table("t").await).await;
    assert!(content.deletes.iter().all(|(_, vector)| *vector));
    let files: HashSet<&str> = content.deletes.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(content.deletes.len(), files.len());
    assert_eq!(content.deleted_positions, 9, "nothing is deleted twice");
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn a_data_file_has_a_bounded_number_of_position_delete_files() {
    let lake = lake(2).await;
    let writer = supersede_one_by_one(&lake, "t").await;
    let content = content(&lake.table("t").await).await;
    let mut per_file: HashMap<&str, usize> = HashMap::new();
    for (path, vector) in &content.deletes {
        assert!(!vector);
        *per_file.entry(path).or_default() += 1;
    }
    assert!(per_file.values().all(|n| *n <= 4), "{per_file:?}");
    assert_eq!(content.deleted_positions, 9, "what was merged is gone");
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn after_an_upgrade_the_first_vector_of_a_file_replaces_its_position_deletes() {
    let lake = lake(2).await;
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1), (2, "x", 2), (3, "x", 3), (4, "x", 4)], &[]).await;
    writer.apply(&[(1, "x", 10)], &[]).await;
    writer.apply(&[], &[2]).await;
    committed(lake.table("t").await.upgrade_to_v3().await);
    writer.table.load(None).await.unwrap();
    assert_eq!(lake.rows("t", None).await, writer.rows(), "the upgrade changes no row");
    writer.apply(&[(5, "x", 5)], &[]).await;
    assert_eq!(
        content(&lake.table("t").await).await.deletes.len(),
        2,
        "position deletes stay where nothing new is deleted"
    );
    writer.apply(&[(3, "x", 30)], &[]).await;

    let table = lake.table("t").await;
    assert_eq!(table.metadata().format_version(), FormatVersion::V3);
    let content = content(&table).await;
    assert_eq!(content.deletes.iter().map(|d| d.1).collect::<Vec<_>>(), [true]);
    assert_eq!(content.deleted_positions, 3);
    assert_totals(&table, &content);
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn what_a_commit_keeps_in_memory_is_what_it_stored() {
    for version in [2, 3] {
        let lake = lake(version).await;
        let writer = supersede_one_by_one(&lake, "t").await;
        drop(writer);
        let table = lake.table("t").await;
        let mut writer = Writer::new(Arc::new(lake.table("t").await), "b");
        writer.catch_up().await;
        writer.apply(&[(77, "x", 77)], &[]).await;
        let io = table.store().file_io();
        table.load(None).await.unwrap();
        let stored = TableMetadata::read_from(&io, table.metadata_location()).await.unwrap();
        assert_eq!(*table.metadata(), stored);
        assert_eq!(stored.snapshots().len(), 11);
        // A handle that committed several times renders from parts that it never read back.
        let own = lake.table("t").await;
        let mut writer = Writer::new(Arc::new(own), "c");
        writer.catch_up().await;
        for n in 0..5 {
            writer.apply(&[(n, "x", n)], &[]).await;
        }
        let last = lake.table("t").await;
        let stored = TableMetadata::read_from(&io, last.metadata_location()).await.unwrap();
        assert_eq!(stored.snapshots().len(), 16);
        assert_eq!(stored.history().len(), 16);
        assert_eq!(stored.metadata_log().len(), 16);
    }
}

/// Removes all snapshots but the current one from the metadata, as expiry does.
async fn expire(lake: &Iceberg, name: &str) {
    let table = lake.table(name).await;
    let metadata = table.metadata();
    let current = metadata.current_snapshot_id();
    let ids = metadata.snapshots().map(|s| s.snapshot_id()).filter(|id| Some(*id) != current).collect();
    committed(table.commit_metadata(vec![TableUpdate::RemoveSnapshots { snapshot_ids: ids }], vec![]).await);
}

/// A snapshot without V on top of the current one, as another engine would add.
async fn foreign_commit(lake: &Iceberg, name: &str) {
    let table = lake.table(name).await;
    let metadata = table.metadata();
    let parent = metadata.current_snapshot().unwrap();
    let mut summary = parent.summary().clone();
    summary.additional_properties.retain(|key, _| !key.starts_with("firn."));
    let snapshot = iceberg::spec::Snapshot::builder()
        .with_snapshot_id(parent.snapshot_id() / 2 + 1)
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(metadata.last_sequence_number() + 1)
        .with_timestamp_ms(metadata.last_updated_ms() + 5)
        .with_manifest_list(parent.manifest_list())
        .with_summary(summary)
        .with_schema_id(metadata.current_schema_id());
    let snapshot = if metadata.format_version() >= FormatVersion::V3 {
        snapshot.with_row_range(metadata.next_row_id(), 0).build()
    } else {
        snapshot.build()
    };
    let id = snapshot.snapshot_id();
    let retention = SnapshotRetention::branch(None, None, None);
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.into(), reference: SnapshotReference::new(id, retention) },
    ];
    committed(table.commit_metadata(updates, vec![]).await);
}

#[tokio::test]
async fn v_survives_foreign_commits_and_the_expiry_of_its_snapshot() {
    for version in [2, 3] {
        let lake = lake(version).await;
        let mut writer = lake.writer("t").await;
        writer.apply(&[(1, "x", 1)], &[]).await;
        writer.apply(&[(2, "x", 2)], &[]).await;
        foreign_commit(&lake, "t").await;
        expire(&lake, "t").await;

        let view = lake.table("t").await.load(None).await.unwrap();
        assert_eq!(found(&view), 2, "older metadata files still list the snapshot");

        // Once those are gone too, the property proves V: its snapshot is the missing parent.
        let table = lake.table("t").await;
        let log = table.metadata().metadata_log().to_vec();
        for entry in &log {
            std::fs::remove_file(entry.metadata_file.strip_prefix("file://").unwrap()).unwrap();
        }
        let view = table.load(None).await.unwrap();
        assert!(matches!(view.history.end, WalkEnd::Pruned { .. }));
        assert_eq!(found(&view), 2);

        // With one more foreign snapshot in the gap nothing proves it any more.
        foreign_commit(&lake, "t").await;
        expire(&lake, "t").await;
        for entry in lake.table("t").await.metadata().metadata_log() {
            let _ = std::fs::remove_file(entry.metadata_file.strip_prefix("file://").unwrap());
        }
        let view = lake.table("t").await.load(None).await.unwrap();
        assert!(matches!(view.history.vector(None), VectorRead::Lost(Some(_))), "{:?}", view.history);
    }
}

#[tokio::test]
async fn a_rollback_rolls_v_back() {
    let lake = lake(3).await;
    let mut writer = lake.writer("t").await;
    let first = writer.apply(&[(1, "x", 1)], &[]).await;
    let rows = writer.rows();
    writer.apply(&[(1, "x", 2), (2, "y", 2)], &[]).await;
    let reference = SnapshotReference::new(first.snapshot.unwrap(), SnapshotRetention::branch(None, None, None));
    let update = TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.into(), reference };
    committed(lake.table("t").await.commit_metadata(vec![update], vec![]).await);

    let view = writer.table.load(writer.base).await.unwrap();
    assert_eq!((view.snapshot, found(&view)), (first.snapshot, 1));
    let diff = writer.table.diff(writer.base).await.unwrap();
    assert!(!diff.whole);
    assert_eq!(diff.removed.len(), 2, "the younger file, and the file whose row is back: {diff:?}");
    assert_eq!(lake.rows("t", None).await, rows);
    let mut writer = Writer::new(lake.open("t").await, "b");
    writer.catch_up().await;
    writer.apply(&[(1, "x", 3)], &[]).await;
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn foreign_snapshots_do_not_stop_a_writer_that_looks_again() {
    let lake = lake(2).await;
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    foreign_commit(&lake, "t").await;
    let change = writer.plan(&[(1, "x", 2)], &[]).await;
    let outcome = writer.table.commit(change).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let view = writer.table.load(writer.base).await.unwrap();
    assert_eq!(view.history.ancestors.len(), 1);
    assert!(view.history.ancestors[0].vector.is_none());
    writer.base = view.snapshot;
    writer.apply(&[(1, "x", 2)], &[]).await;
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

/// INV-10
#[tokio::test]
async fn the_metadata_log_is_bounded_and_no_file_is_deleted() {
    let lake = lake(2).await;
    let mut writer = lake.writer("t").await;
    let updates = HashMap::from([("write.metadata.previous-versions-max".to_owned(), "5".to_owned())]);
    committed(lake.table("t").await.commit_metadata(vec![TableUpdate::SetProperties { updates }], vec![]).await);
    writer.table.load(None).await.unwrap();
    for n in 0..12 {
        writer.apply(&[(n, "x", n)], &[]).await;
    }
    let table = lake.table("t").await;
    assert_eq!(table.metadata().metadata_log().len(), 5);
    let folder = table.metadata_location();
    let folder = folder.strip_prefix("file://").unwrap().rsplit_once('/').unwrap().0.to_owned();
    let files = std::fs::read_dir(folder).unwrap().flatten();
    assert_eq!(files.filter(|f| f.file_name().to_string_lossy().ends_with(".metadata.json")).count(), 14);
}

#[tokio::test]
async fn manifests_stay_few_and_row_ids_stay_put() {
    let lake = lake(3).await;
    let mut writer = lake.writer("t").await;
    let mut ids: HashMap<String, i64> = HashMap::new();
    for n in 0..130i64 {
        let old = if n > 3 { vec![n * 7 % n] } else { vec![] };
        writer.apply(&[(n, "x", n), (n + 1000, "y", n)], &old).await;
        if n % 13 == 0 {
            let content = content(&lake.table("t").await).await;
            for (path, _, id) in content.data {
                let id = id.expect("every row has an id");
                assert_eq!(*ids.entry(path).or_insert(id), id, "row ids never change");
            }
        }
    }
    let table = lake.table("t").await;
    let content = content(&table).await;
    assert!(content.manifests <= 40, "{} manifests", content.manifests);
    let unique: HashSet<_> = content.data.iter().map(|d| d.2).collect();
    assert_eq!(unique.len(), content.data.len());
    assert_totals(&table, &content);
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn a_table_grows_with_its_schema_and_old_rows_stay_readable() {
    let lake = lake(2).await;
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 1)], &[]).await;
    let mut wanted = schema();
    wanted.fields.push(Field::new("note", Type::String, false));
    let table = lake.table("t").await;
    grow(&table, &wanted, &[TableFormat::IcebergV2]).await;
    assert_eq!(table.schema().column("note").unwrap().id, 4);
    // A change that was planned before does not slip in under the new schema.
    let change = writer.plan(&[(2, "x", 2)], &[]).await;
    assert!(matches!(writer.table.commit(change).await, Outcome::Refused(_)));
    assert_eq!(lake.rows("t", None).await, writer.rows());
}

#[tokio::test]
async fn rows_are_in_the_order_of_the_table() {
    let lake = lake(2).await;
    let mut writer = lake.writer("t").await;
    writer.apply(&[(1, "x", 5), (2, "x", 9), (3, "x", -1), (4, "x", 7)], &[]).await;
    let table = lake.table("t").await;
    let metadata = table.metadata();
    let order = &metadata.default_sort_order().fields[0];
    assert_eq!((order.direction, order.null_order), (SortDirection::Descending, NullOrder::Last));
    let plan = table.plan_scan(None).await.unwrap();
    let columns = ["id", "venue", "n"].map(str::to_owned);
    let path = plan.files[0].path();
    let deleted = table.load_deletes(&plan.files[0]).await.unwrap();
    let stream = read_rows(table.store(), path, &plan.schema, &columns, deleted).await.unwrap();
    let rows: Vec<Row> =
        stream.try_collect::<Vec<_>>().await.unwrap().iter().flat_map(|b| to_rows(&b.columns)).collect();
    assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), [9, 7, 5, -1]);
    assert_eq!(plan.files[0].file.sort_order_id(), Some(1));
}

#[tokio::test]
async fn tables_are_listed_and_created_once() {
    let lake = lake(2).await;
    lake.create("one", false).await;
    let first = lake.table("one").await.metadata_location();
    lake.create("one", true).await;
    assert_eq!(lake.table("one").await.metadata_location(), first, "an existing table is opened as it is");
    assert_eq!(lake.catalog.list_tables().await.unwrap(), [(namespace(), "one".to_owned())]);
    assert!(lake.catalog.load_table(&namespace(), "two").await.unwrap().is_none());
    assert!(first.starts_with("file:///") && first.contains("/warehouse/market/one/metadata/00000-"), "{first}");
}

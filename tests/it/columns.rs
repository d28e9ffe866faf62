//! What every implementation of `LakeTable` promises of a table whose columns change: with the first rows that need it, in
//! their commit, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use firn::core::history::{SnapshotId, View};
use firn::core::schema::{Asked, Field, SchemaChange, TableFormat, TableSchema, Type, plan_change, to_arrow};
use firn::table::{Change, LakeTable, NewRows, Outcome};
use futures::TryStreamExt;

use crate::contract::{Lake, committed, found, schema, vector};

/// The change that lets the table hold rows of `wanted`, as a writer plans it.
pub fn planned(view: &View, wanted: &TableSchema, formats: &[TableFormat]) -> Option<Arc<SchemaChange>> {
    let wanted = [Arc::new(wanted.clone())];
    let asked = Asked {
        table: &view.schema,
        last_field_id: view.last_field_id,
        names: &TableSchema::default(),
        wanted: &wanted,
        formats,
    };
    plan_change(asked, format!("t-{:?}", view.snapshot.unwrap_or_default())).unwrap().map(Arc::new)
}

fn change_of(base: Option<SnapshotId>, attempt: &str, next: i64) -> Change {
    Change {
        base,
        attempt: attempt.into(),
        pipeline: "p1".into(),
        files: Vec::new(),
        superseded: Vec::new(),
        schema_change: None,
        vector: vector(next),
        now_ms: 1_790_000_000_000,
        pins: None,
        reason: None,
    }
}

/// Changes the table's columns to hold rows of `wanted` too, in a commit without rows.
pub async fn grow(table: &dyn LakeTable, wanted: &TableSchema, formats: &[TableFormat]) -> View {
    let view = table.load(None).await.unwrap();
    let schema_change = planned(&view, wanted, formats);
    let next = view.history.ancestors.iter().find_map(|a| a.vector.as_ref()).map_or(0, crate::contract::next);
    let attempt = format!("grow-{}", view.last_field_id);
    committed(table.commit(Change { schema_change, ..change_of(view.snapshot, &attempt, next) }).await)
}

/// id, n and note of every row, by id.
async fn rows(table: &dyn LakeTable) -> BTreeMap<i64, (i64, Option<String>)> {
    let columns = ["id", "n", "note"].map(str::to_owned);
    let mut found = BTreeMap::new();
    for file in table.diff(None).await.unwrap().added {
        for part in table.rows(&file, &columns).await.unwrap().try_collect::<Vec<_>>().await.unwrap() {
            let (ids, ns) = (
                part.columns.column(0).as_primitive::<Int64Type>(),
                part.columns.column(1).as_primitive::<Int64Type>(),
            );
            let notes = arrow::compute::cast(part.columns.column(2), &arrow::datatypes::DataType::Utf8).unwrap();
            let notes = notes.as_string::<i32>();
            for row in 0..part.columns.num_rows() {
                let note = notes.is_valid(row).then(|| notes.value(row).to_owned());
                assert_eq!(found.insert(ids.value(row), (ns.value(row), note)), None);
            }
        }
    }
    found
}

/// The test columns with `n` as an int, and with a note besides where asked for.
fn narrow() -> TableSchema {
    let mut narrow = schema();
    narrow.fields[2].kind = Type::Int;
    narrow
}

fn wide() -> TableSchema {
    let mut wide = schema();
    wide.fields.push(Field::new("note", Type::String, false));
    wide
}

/// Rows of an older schema: `n` is an int, and there is no note.
fn older(rows: &[(i64, i32)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "x"))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.1))),
    ];
    RecordBatch::try_new(Arc::new(to_arrow(&narrow())), columns).unwrap()
}

/// Rows of the newer one.
fn newer(rows: &[(i64, i64, &str)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "y"))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
    ];
    RecordBatch::try_new(Arc::new(to_arrow(&wide())), columns).unwrap()
}

const ANY: &[TableFormat] = &[TableFormat::IcebergV2, TableFormat::IcebergV3, TableFormat::Delta];

/// Writes these batches for a change, and makes the commit of both.
async fn prepared(table: &dyn LakeTable, attempt: &str, view: &View, next: i64, batches: Vec<RecordBatch>) -> Change {
    let schema_change = planned(view, &wide(), ANY);
    let rows = NewRows { batches, schema_change: schema_change.clone() };
    let files = table.write(attempt, rows).await.unwrap();
    Change { files, schema_change, ..change_of(view.snapshot, attempt, next) }
}

async fn start(lake: &dyn Lake, name: &str) -> (Arc<dyn LakeTable>, View) {
    let table = lake.create_with(name, narrow()).await;
    let view = table.load(None).await.unwrap();
    let files = table.write("a-1", NewRows { batches: vec![older(&[(1, 10)])], schema_change: None }).await.unwrap();
    let view = committed(table.commit(Change { files, ..change_of(view.snapshot, "a-1", 1) }).await);
    (table, view)
}

pub async fn check(lake: &dyn Lake) {
    columns_come_with_the_rows_that_need_them(lake).await;
    a_change_planned_on_other_columns_is_refused(lake).await;
}

async fn columns_come_with_the_rows_that_need_them(lake: &dyn Lake) {
    let (table, before) = start(lake, "columns").await;
    // Rows of both schemas are in one batch.
    let batches = vec![older(&[(2, 20)]), newer(&[(3, 5_000_000_000, "three")]), older(&[(4, 40)])];
    let change = prepared(&*table, "a-2", &before, 4, batches).await;
    assert_eq!(table.load(None).await.unwrap().schema, before.schema, "nothing is there before its commit");
    let view = committed(table.commit(change).await);
    assert_eq!(view.history.ancestors.len(), 1, "one commit");
    assert_eq!(view.history.ancestors[0].attempt.as_deref(), Some("a-2"));
    let other = lake.open("columns").await;
    for (table, view) in [(table.clone(), view.clone()), (other.clone(), other.load(before.snapshot).await.unwrap())] {
        let kinds: Vec<_> = view.schema.fields.iter().map(|f| (f.name.as_str(), f.kind.clone())).collect();
        assert_eq!(kinds[2..], [("n", Type::Long), ("note", Type::String)]);
        assert_eq!((table.schema(), found(&view)), (view.schema.clone(), 4));
        assert!(view.history.landed("a-2").is_some(), "a lost answer is settled for rows and columns alike");
        let three = (5_000_000_000, Some("three".to_owned()));
        let expected = [(1, (10, None)), (2, (20, None)), (3, three), (4, (40, None))];
        assert_eq!(rows(&*table).await, BTreeMap::from(expected));
    }
    // The next commit has nothing to change, and rows of either schema go on.
    let change = prepared(&*table, "a-3", &view, 6, vec![older(&[(5, 50)]), newer(&[(6, 6, "six")])]).await;
    assert_eq!(change.schema_change, None);
    let view = committed(table.commit(change).await);
    assert_eq!((rows(&*table).await.len(), view.schema.fields.len()), (6, 4));
}

async fn a_change_planned_on_other_columns_is_refused(lake: &dyn Lake) {
    let (table, before) = start(lake, "overtaken").await;
    let late = lake.open("overtaken").await;
    let seen = late.load(None).await.unwrap();
    let lost = prepared(&*late, "b-1", &seen, 3, vec![newer(&[(2, 2, "late")])]).await;
    committed(table.commit(prepared(&*table, "a-2", &before, 2, vec![newer(&[(3, 3, "first")])]).await).await);

    assert!(matches!(late.commit(lost.clone()).await, Outcome::Refused(_)));
    // Having looked again does not make it any better: its numbers may mean other columns by now.
    let seen = late.load(None).await.unwrap();
    let outcome = late.commit(Change { base: seen.snapshot, ..lost }).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let again = prepared(&*late, "b-2", &seen, 3, vec![newer(&[(2, 2, "late")])]).await;
    assert_eq!(again.schema_change, None, "somebody else has added the column");
    committed(late.commit(again).await);
    let expected = [(1, (10, None)), (2, (2, Some("late".to_owned()))), (3, (3, Some("first".to_owned())))];
    assert_eq!(rows(&*late).await, BTreeMap::from(expected));
}

use arrow::array::{Array, AsArray, Float32Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;

use super::*;
use crate::core::schema::{FIELD_ID_KEY, Field as Column, Type};

async fn file(store: &Store, ids: bool) -> &'static str {
    let field = |name: &str, kind, id: i32| {
        let field = Field::new(name, kind, true);
        if ids { field.with_metadata([(FIELD_ID_KEY.to_string(), id.to_string())].into()) } else { field }
    };
    let schema = Arc::new(Schema::new(vec![
        field("a", DataType::Int32, 1),
        field("b", DataType::Float32, 2),
        field("c", DataType::Int64, 3),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..10)),
        Arc::new(Float32Array::from_iter_values((0..10).map(|i| i as f32))),
        Arc::new(Int64Array::from_iter_values(100..110)),
    ];
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).unwrap();
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    // Deletes in a later row group must land on its rows.
    writer.write(&rows.slice(0, 4)).unwrap();
    writer.flush().unwrap();
    writer.write(&rows.slice(4, 6)).unwrap();
    store.put("/t/f.parquet", writer.into_inner().unwrap().into()).await.unwrap();
    "/t/f.parquet"
}

fn column(id: i32, name: &str, kind: Type) -> Column {
    Column { id, ..Column::new(name, kind, false) }
}

async fn read(store: &Store, table: &TableSchema, columns: &[&str], deleted: &[u32]) -> Result<Vec<FileRows>> {
    let columns: Vec<_> = columns.iter().map(|c| (*c).to_string()).collect();
    let deleted = deleted.iter().copied().collect();
    read_rows(store, "/t/f.parquet", table, &columns, deleted).await?.try_collect().await
}

#[tokio::test]
async fn columns_are_found_by_id_promoted_and_given_in_the_asked_order() {
    let store = Store::over(Arc::new(InMemory::new()));
    file(&store, true).await;
    // The names were swapped since, and a became a long.
    let fields = vec![column(3, "a", Type::Long), column(2, "b", Type::Double), column(1, "c", Type::Long)];
    let table = TableSchema { fields, key: Vec::new() };
    let rows = read(&store, &table, &["c", "a"], &[0, 5, 9]).await.unwrap();
    let (mut positions, mut was_a, mut was_c) = (Vec::new(), Vec::new(), Vec::new());
    for part in rows {
        positions.extend(part.positions);
        was_a.extend_from_slice(part.columns.column(0).as_primitive::<Int64Type>().values());
        was_c.extend_from_slice(part.columns.column(1).as_primitive::<Int64Type>().values());
    }
    assert_eq!(positions, [1, 2, 3, 4, 6, 7, 8]);
    assert_eq!(was_a, [1, 2, 3, 4, 6, 7, 8]);
    assert_eq!(was_c, [101, 102, 103, 104, 106, 107, 108]);
}

#[tokio::test]
async fn columns_that_the_file_lacks_are_null() {
    let store = Store::over(Arc::new(InMemory::new()));
    file(&store, true).await;
    let table = TableSchema { fields: vec![column(9, "new", Type::String)], key: Vec::new() };
    let rows = read(&store, &table, &["new"], &[3]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.positions.len()).sum::<usize>(), 9);
    assert!(rows.iter().all(|r| r.columns.column(0).null_count() == r.columns.num_rows()));
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let store = Store::over(Arc::new(InMemory::new()));
    let location = file(&store, false).await;
    let table = TableSchema { fields: vec![column(1, "a", Type::Int)], key: Vec::new() };
    let error = read(&store, &table, &["a"], &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Decision(m) if m.contains(location) && m.contains("no field ids")), "{error}");
}

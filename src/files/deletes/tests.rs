use iceberg::spec::PrimitiveLiteral;
use object_store::memory::InMemory;

use super::*;

fn store() -> Store {
    Store::over(Arc::new(InMemory::new()))
}

#[tokio::test]
async fn a_delete_file_names_its_data_file_in_bounds_and_entry() {
    let store = store();
    let long = format!("file:///t/data/{}/a.parquet", "p".repeat(300));
    let deletes = [(Arc::from(long.as_str()), [7, 5, 1 << 31].into_iter().collect())];
    let written = write_position_deletes(&store, "file:///t/data/", "a2", &deletes).await.unwrap();
    assert_eq!(written[0].path, "file:///t/data/a2-0-deletes.parquet");
    let entry = to_delete_file(&written[0], Struct::empty(), 2).unwrap();
    assert_eq!(entry.referenced_data_file().as_deref(), Some(long.as_str()));
    assert_eq!(entry.content_type(), DataContentType::PositionDeletes);
    assert_eq!((entry.record_count(), entry.file_size_in_bytes()), (3, store.size(&written[0].path).await.unwrap()));
    for bounds in [entry.lower_bounds(), entry.upper_bounds()] {
        assert_eq!(bounds[&FILE_PATH], Datum::string(&long));
    }
    assert_eq!(entry.lower_bounds()[&POS].literal(), &PrimitiveLiteral::Long(5));
    assert_eq!(entry.upper_bounds()[&POS].literal(), &PrimitiveLiteral::Long(1 << 31));

    let file = read::open(&store, &written[0].path).await.unwrap();
    let group = file.metadata().row_group(0);
    let ids: Vec<_> = group.columns().iter().map(|c| c.column_descr().self_type().get_basic_info().id()).collect();
    assert_eq!(ids, [FILE_PATH, POS]);
    let path = group.column(0).statistics().unwrap();
    assert!(path.min_is_exact() && path.min_bytes_opt() == Some(long.as_bytes()));
    assert!(file.parquet_schema().columns().iter().all(|c| c.max_def_level() == 0), "both columns are required");
}

/// A file as another engine writes it: several data files, ids missing, columns in another order, a row column.
async fn foreign(store: &Store, positions: Vec<i64>) -> String {
    let schema = Arc::new(ArrowSchema::new(vec![
        Field::new("row", DataType::Int32, true),
        Field::new("pos", DataType::Int64, false),
        Field::new("file_path", DataType::LargeUtf8, false),
    ]));
    let paths: Vec<_> = (0..positions.len()).map(|i| if i < 2 { "a" } else { "b" }).collect();
    let columns: Vec<Arc<dyn Array>> = vec![
        arrow::array::new_null_array(&DataType::Int32, positions.len()),
        Arc::new(Int64Array::from(positions)),
        Arc::new(arrow::array::LargeStringArray::from(paths)),
    ];
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    store.put("/t/foreign.parquet", writer.into_inner().unwrap().into()).await.unwrap();
    "/t/foreign.parquet".to_string()
}

#[tokio::test]
async fn delete_files_of_other_engines_are_read_whole_or_for_one_file() {
    let store = store();
    let file = foreign(&store, vec![4, 2, 9, 9, 0]).await;
    let all = read_position_deletes(&store, &file, None).await.unwrap();
    assert_eq!(all["a"].iter().collect::<Vec<_>>(), [2, 4]);
    assert_eq!(all["b"].iter().collect::<Vec<_>>(), [0, 9]);
    let only = read_position_deletes(&store, &file, Some("b")).await.unwrap();
    assert_eq!(only.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn positions_that_no_file_has_are_refused() {
    for position in [-1, 1 << 32] {
        let store = store();
        let file = foreign(&store, vec![0, position]).await;
        let error = read_position_deletes(&store, &file, None).await.unwrap_err();
        assert!(matches!(&error, Error::Decision(m) if m.contains(&format!("position {position} of a"))), "{error}");
    }
}

#[tokio::test]
async fn other_files_are_not_taken_for_delete_files() {
    let store = store();
    store.put("/t/x.parquet", Bytes::from_static(b"PAR1 is not enough PAR1")).await.unwrap();
    assert!(matches!(read_position_deletes(&store, "/t/x.parquet", None).await, Err(Error::Decision(_))));
    assert!(matches!(read_position_deletes(&store, "/t/none.parquet", None).await, Err(Error::Unreachable(_))));
}

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use futures::TryStreamExt;
use iceberg::spec::{
    Datum, Literal, NestedField, NullOrder, PartitionSpec, PrimitiveType, Schema, SortDirection, SortField, SortOrder,
    StructType, Transform, Type,
};
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Encoding, LogicalType};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

thread_local! {
    static OPEN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts open writers of an encoder's thread; the most at a time is the second figure.
pub(super) struct Open;

impl Open {
    pub(super) fn one() -> Self {
        OPEN.with(|o| {
            let (now, most) = o.get();
            o.set((now + 1, most.max(now + 1)));
            // Checked here, since the encoder's thread is not the test's.
            assert_eq!(now, 0, "a second writer was opened");
        });
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.with(|o| o.set((o.get().0 - 1, o.get().1)));
    }
}

fn field(id: i32, name: &str, kind: PrimitiveType) -> Arc<NestedField> {
    Arc::new(NestedField::optional(id, name, Type::Primitive(kind)))
}

fn target(schema: Schema) -> WriteTarget {
    WriteTarget {
        store: Store::over(Arc::new(InMemory::new())),
        folder: "file:///w/t/data".to_string(),
        schema: Arc::new(schema),
        spec: Arc::new(PartitionSpec::unpartition_spec()),
        sort_order: Arc::new(SortOrder::unsorted_order()),
        target_file_bytes: 256 << 20,
        leave_out: Vec::new(),
    }
}

fn partitioned(mut target: WriteTarget, fields: &[(&str, &str, Transform)]) -> WriteTarget {
    let mut spec = PartitionSpec::builder(target.schema.clone()).with_spec_id(3);
    for (column, name, transform) in fields {
        spec = spec.add_partition_field(*column, *name, *transform).unwrap();
    }
    target.spec = Arc::new(spec.build().unwrap());
    target
}

/// The Arrow schema as the product has it: binaries are not large.
fn arrow(schema: &Schema) -> arrow::datatypes::Schema {
    let arrow = iceberg::arrow::schema_to_arrow_schema(schema).unwrap();
    let small = |f: &Arc<arrow::datatypes::Field>| match f.data_type() {
        DataType::LargeBinary => Arc::new(f.as_ref().clone().with_data_type(DataType::Binary)),
        _ => f.clone(),
    };
    arrow::datatypes::Schema::new(arrow.fields().iter().map(small).collect::<Vec<_>>())
}

fn batch(schema: &Schema, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::new(arrow(schema)), columns).unwrap()
}

async fn write(target: &WriteTarget, batches: Vec<RecordBatch>) -> Vec<WrittenFile> {
    write_data_files(target, "a1", batches).await.unwrap()
}

async fn read(target: &WriteTarget, file: &WrittenFile) -> (RecordBatch, Arc<ParquetMetaData>) {
    let bytes = target.store.get(&file.path).await.unwrap();
    assert_eq!(bytes.len() as u64, file.bytes);
    let options =
        parquet::arrow::arrow_reader::ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).unwrap();
    let metadata = builder.metadata().clone();
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let all = concat_batches(&schema, &batches).unwrap();
    assert_eq!(all.num_rows() as u64, file.records);
    (all, metadata)
}

fn quotes() -> Schema {
    let fields = vec![
        field(1, "id", PrimitiveType::Long),
        field(2, "symbol", PrimitiveType::String),
        field(3, "price", PrimitiveType::Double),
        field(4, "ts", PrimitiveType::Timestamptz),
        field(5, "uuid", PrimitiveType::Uuid),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn quote_rows(schema: &Schema, ids: std::ops::Range<i64>) -> RecordBatch {
    let n = ids.clone().count();
    batch(
        schema,
        vec![
            Arc::new(Int64Array::from_iter_values(ids.clone())),
            Arc::new(StringArray::from_iter_values(ids.clone().map(|i| format!("S{}", i % 7)))),
            Arc::new(Float64Array::from_iter_values(ids.clone().map(|i| i as f64 / 8.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(ids).with_timezone("+00:00")),
            Arc::new(FixedSizeBinaryArray::try_from_iter((0..n).map(|i| (i as u128).to_be_bytes())).unwrap()),
        ],
    )
}

#[tokio::test]
async fn rows_of_an_unpartitioned_table_are_written_as_they_come() {
    let target = target(quotes());
    let (one, two) = (quote_rows(&target.schema, 0..40_000), quote_rows(&target.schema, 40_000..50_000));
    let files = write(&target, vec![one.clone(), one.slice(0, 0), two.clone()]).await;
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].path, "file:///w/t/data/a1-0.parquet");
    assert_eq!(files[0].rows, RowOrder::Range { start: 0 });
    assert_eq!((files[0].sort_order, files[0].partition_spec), (None, 0));
    let (rows, metadata) = read(&target, &files[0]).await;
    let expected = concat_batches(&one.schema(), [&one, &two]).unwrap();
    for i in [0, 1, 2, 4] {
        assert_eq!(rows.column(i), expected.column(i), "column {i}");
    }
    assert_eq!(files[0].split_offsets, [4]);

    let group = metadata.row_group(0);
    let ids: Vec<_> = group.columns().iter().map(|c| c.column_descr().self_type().get_basic_info().id()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    let encodings = |i: usize| group.column(i).encodings().collect::<HashSet<_>>();
    assert!(encodings(0).contains(&Encoding::DELTA_BINARY_PACKED));
    assert!(group.column(1).dictionary_page_offset().is_some() && group.column(2).dictionary_page_offset().is_none());
    assert_eq!(group.column(4).column_descr().logical_type_ref(), Some(&LogicalType::Uuid));
    assert!(metadata.column_index().is_some() && metadata.offset_index().is_some());
    assert!(to_data_file(&files[0]).is_ok());
}

#[tokio::test]
async fn a_large_batch_becomes_several_files_that_cover_its_rows_once() {
    let mut target = target(quotes());
    target.target_file_bytes = 200_000;
    let rows = quote_rows(&target.schema, 0..300_000);
    let files = write(&target, vec![rows]).await;
    assert!(files.len() > 2, "{}", files.len());
    let mut next = 0;
    for (n, file) in files.iter().enumerate() {
        assert_eq!(file.rows, RowOrder::Range { start: next });
        assert!(file.path.ends_with(&format!("/a1-{n}.parquet")));
        let (rows, _) = read(&target, file).await;
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), i64::from(next));
        next += file.records as u32;
    }
    assert_eq!(next, 300_000);
}

#[tokio::test]
async fn partitions_get_their_own_files_with_values_and_readable_folders() {
    let schema = Schema::builder()
        .with_fields(vec![field(1, "day", PrimitiveType::Date), field(2, "na/me", PrimitiveType::String)])
        .build()
        .unwrap();
    let target =
        partitioned(target(schema), &[("day", "day_month", Transform::Month), ("na/me", "n", Transform::Identity)]);
    let rows = batch(
        &target.schema,
        vec![
            Arc::new(Date32Array::from(vec![Some(0), Some(-1), None, Some(0), Some(30)])),
            Arc::new(StringArray::from(vec![Some("a b/ü"), None, Some(""), None, Some("a b/ü")])),
        ],
    );
    let files = write(&target, vec![rows.slice(0, 2), rows.slice(2, 3)]).await;
    let found: HashMap<_, _> = files
        .iter()
        .map(|f| (f.path.strip_prefix("file:///w/t/data/").unwrap().rsplit_once('/').unwrap().0, f))
        .collect();
    let expected = [
        ("day_month=1970-01/n=a+b%2F%C3%BC", vec![0, 4], Some(0), Some("a b/ü")),
        ("day_month=1969-12/n=null", vec![1], Some(-1), None),
        ("day_month=null/n=", vec![2], None, Some("")),
        ("day_month=1970-01/n=null", vec![3], Some(0), None),
    ];
    assert_eq!(found.len(), expected.len());
    for (folder, rows, month, name) in expected {
        let file = found[folder];
        assert_eq!(file.rows, RowOrder::List(rows));
        assert_eq!(file.partition.fields(), [month.map(Literal::int), name.map(Literal::string)]);
        assert_eq!(file.partition_spec, 3);
        read(&target, file).await;
    }
}

#[tokio::test]
async fn fifty_thousand_partitions_are_written_with_one_open_writer() {
    let schema = Schema::builder().with_fields(vec![field(1, "k", PrimitiveType::Int)]).build().unwrap();
    let target = partitioned(target(schema), &[("k", "k", Transform::Identity)]);
    let keys = Int32Array::from_iter_values((0..50_000).rev());
    let files = write(&target, vec![batch(&target.schema, vec![Arc::new(keys)])]).await;
    assert_eq!(files.len(), 50_000);
    assert_eq!(files[7].partition.fields(), [Some(Literal::int(7))]);
    assert_eq!(files[7].rows, RowOrder::List(vec![49_992]));
}

#[tokio::test]
async fn rows_are_sorted_within_files_and_equal_ones_keep_their_order() {
    let schema = Schema::builder()
        .with_fields(vec![field(1, "a", PrimitiveType::Int), field(2, "b", PrimitiveType::String)])
        .build()
        .unwrap();
    let mut target = target(schema);
    let sort = |source_id, transform, direction, null_order| SortField { source_id, transform, direction, null_order };
    target.sort_order = Arc::new(SortOrder {
        order_id: 4,
        fields: vec![
            sort(1, Transform::Identity, SortDirection::Descending, NullOrder::Last),
            sort(2, Transform::Truncate(1), SortDirection::Ascending, NullOrder::First),
        ],
    });
    let rows = batch(
        &target.schema,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(1), Some(3), Some(1)])),
            Arc::new(StringArray::from(vec![Some("x2"), Some("n"), Some("b"), Some("x1"), None, Some("a")])),
        ],
    );
    let files = write(&target, vec![rows.slice(0, 3), rows.slice(3, 3)]).await;
    assert_eq!(files[0].rows, RowOrder::List(vec![4, 2, 5, 0, 3, 1]));
    assert_eq!(files[0].sort_order, Some(4));
    let (sorted, _) = read(&target, &files[0]).await;
    let a: Vec<_> = sorted.column(0).as_primitive::<Int32Type>().iter().collect();
    assert_eq!(a, [Some(3), Some(3), Some(1), Some(1), Some(1), None]);
}

#[tokio::test]
async fn a_partition_source_inside_an_absent_struct_is_null() {
    let inner = StructType::new(vec![field(2, "x", PrimitiveType::Int)]);
    let schema = Schema::builder()
        .with_fields(vec![Arc::new(NestedField::optional(1, "s", Type::Struct(inner)))])
        .build()
        .unwrap();
    let target = partitioned(target(schema), &[("s.x", "x", Transform::Identity)]);
    let arrow = arrow(&target.schema);
    let DataType::Struct(fields) = arrow.field(0).data_type().clone() else { panic!() };
    let x: ArrayRef = Arc::new(Int32Array::from(vec![7, 7]));
    let s = StructArray::new(fields, vec![x], Some(vec![true, false].into()));
    let files = write(&target, vec![batch(&target.schema, vec![Arc::new(s)])]).await;
    let values: HashSet<_> = files.iter().map(|f| f.partition.fields()[0].clone()).collect();
    assert_eq!(values, HashSet::from([None, Some(Literal::int(7))]));
}

#[tokio::test]
async fn a_store_that_refuses_a_file_ends_the_write() {
    let target = target(quotes());
    let rows = quote_rows(&target.schema, 0..10);
    write(&target, vec![rows.clone()]).await;
    let again = write_data_files(&target, "a1", vec![rows]).await.unwrap_err();
    assert!(matches!(&again, Error::Internal(m) if m.contains("a1-0.parquet exists already")), "{again}");
}

/// All primitive types, some of them again inside a struct and a list.
fn every_type() -> Schema {
    let decimal = |precision| PrimitiveType::Decimal { precision, scale: 2 };
    let nested = StructType::new(vec![field(20, "d", PrimitiveType::Double), field(21, "t", PrimitiveType::String)]);
    let element = Arc::new(NestedField::list_element(31, Type::Primitive(PrimitiveType::Long), false));
    let fields = vec![
        field(1, "bool", PrimitiveType::Boolean),
        field(2, "int", PrimitiveType::Int),
        field(3, "long", PrimitiveType::Long),
        field(4, "float", PrimitiveType::Float),
        field(5, "double", PrimitiveType::Double),
        field(6, "dec9", decimal(9)),
        field(7, "dec18", decimal(18)),
        field(8, "dec38", decimal(38)),
        field(9, "date", PrimitiveType::Date),
        field(10, "time", PrimitiveType::Time),
        field(11, "ts", PrimitiveType::Timestamp),
        field(12, "tsns", PrimitiveType::TimestampNs),
        field(13, "string", PrimitiveType::String),
        field(14, "uuid", PrimitiveType::Uuid),
        field(15, "fixed", PrimitiveType::Fixed(3)),
        field(16, "binary", PrimitiveType::Binary),
        Arc::new(NestedField::optional(17, "s", Type::Struct(nested))),
        Arc::new(NestedField::optional(30, "l", Type::List(iceberg::spec::ListType::new(element)))),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn some<T>(rng: &mut StdRng, n: usize, mut value: impl FnMut(&mut StdRng) -> T) -> Vec<Option<T>> {
    (0..n).map(|_| if rng.random_bool(0.2) { None } else { Some(value(rng)) }).collect()
}

fn a_double(rng: &mut StdRng) -> f64 {
    [f64::NAN, -f64::NAN, 0.0, -0.0, f64::INFINITY, -1.5, rng.random(), f64::MIN_POSITIVE][rng.random_range(0..8)]
}

fn a_string(rng: &mut StdRng) -> String {
    let letters = ['a', 'ü', '\u{D7FF}', '\u{10FFFF}', '😀', '\u{0}'];
    let length = [0, 3, 15, 16, 17, 40, 400][rng.random_range(0..7)];
    (0..length).map(|_| letters[rng.random_range(0..letters.len())]).collect()
}

fn random_rows(schema: &Schema, rng: &mut StdRng, n: usize) -> RecordBatch {
    let arrow = arrow(schema);
    let decimal = |rng: &mut StdRng, digits: u32, precision| -> ArrayRef {
        let most = 10i128.pow(digits) - 1;
        let values = some(rng, n, |r| [-most, most, 0, -1, r.random_range(-most..most)][r.random_range(0..5)]);
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, 2).unwrap())
    };
    let bytes = |rng: &mut StdRng, long: usize| {
        some(rng, n, |r| (0..r.random_range(0..long)).map(|_| [0, 0xFF, 7][r.random_range(0..3)]).collect::<Vec<u8>>())
    };
    let fixed = |rng: &mut StdRng, size: usize| -> ArrayRef {
        let values = some(rng, n, |r| (0..size).map(|_| r.random()).collect::<Vec<u8>>());
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), size as i32).unwrap())
    };
    let DataType::Struct(inner) = arrow.field(16).data_type().clone() else { panic!() };
    let children: Vec<ArrayRef> =
        vec![Arc::new(Float64Array::from(some(rng, n, a_double))), Arc::new(StringArray::from(some(rng, n, a_string)))];
    let present: Vec<bool> = (0..n).map(|_| rng.random_bool(0.7)).collect();
    let DataType::List(element) = arrow.field(17).data_type().clone() else { panic!() };
    let mut list = ListBuilder::new(Int64Builder::new()).with_field(element);
    for _ in 0..n {
        (0..rng.random_range(0..3)).for_each(|_| list.values().append_value(rng.random()));
        list.append(rng.random_bool(0.9));
    }
    let edge = |rng: &mut StdRng| [i64::MIN, i64::MAX, 0, rng.random()][rng.random_range(0..4)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(some(rng, n, |r| r.random()))),
        Arc::new(Int32Array::from(some(rng, n, |r| [i32::MIN, i32::MAX, 5][r.random_range(0..3)]))),
        Arc::new(Int64Array::from(some(rng, n, edge))),
        Arc::new(Float32Array::from(some(rng, n, |r| a_double(r) as f32))),
        Arc::new(Float64Array::from(some(rng, n, a_double))),
        decimal(rng, 9, 9),
        decimal(rng, 18, 18),
        decimal(rng, 38, 38),
        Arc::new(Date32Array::from(some(rng, n, |r| r.random_range(-100_000..100_000)))),
        Arc::new(Time64MicrosecondArray::from(some(rng, n, |r| r.random_range(0..86_400_000_000)))),
        Arc::new(TimestampMicrosecondArray::from(some(rng, n, edge))),
        Arc::new(TimestampNanosecondArray::from(some(rng, n, edge))),
        Arc::new(StringArray::from(some(rng, n, a_string))),
        fixed(rng, 16),
        fixed(rng, 3),
        Arc::new(BinaryArray::from_iter(bytes(rng, 40))),
        Arc::new(StructArray::new(inner, children, Some(present.into()))),
        Arc::new(list.finish()),
    ];
    batch(schema, columns)
}

/// Values of a leaf as data: null where the parent is absent.
fn leaf_values(rows: &RecordBatch, id: i32) -> ArrayRef {
    if id < 20 {
        return rows.column(id as usize - 1).clone();
    }
    let s = rows.column(16).as_struct();
    let child = s.column(id as usize - 20);
    make_array(
        child
            .to_data()
            .into_builder()
            .nulls(arrow::buffer::NullBuffer::union(s.nulls(), child.nulls()))
            .build()
            .unwrap(),
    )
}

/// Whether value `row` lies within the bounds; NaN and null always do.
fn within(values: &ArrayRef, row: usize, kind: &PrimitiveType, low: Option<&Datum>, high: Option<&Datum>) -> bool {
    let Some(value) = crate::files::layout::datum(values, row, kind).unwrap() else { return true };
    value.is_nan() || (low.is_none_or(|low| *low <= value) && high.is_none_or(|high| *high >= value))
}

#[tokio::test]
async fn metrics_are_true_of_random_rows_of_every_type() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let target = target(every_type());
        // Some files have one row group, some several, some a column with a single value or none.
        let n = [1, 2, 9, 300][rng.random_range(0..4)];
        let rows = random_rows(&target.schema, &mut rng, n);
        let files = if seed % 2 == 0 {
            write(&target, vec![rows.clone()]).await
        } else {
            vec![in_row_groups(&target, &rows, 1 + n / 3).await]
        };
        let metrics = &files[0].metrics;
        for field_id in (1..=16).chain([20, 21]) {
            let values = leaf_values(&rows, field_id);
            let schema_field = target.schema.field_by_id(field_id).unwrap();
            let kind = schema_field.field_type.as_primitive_type().unwrap();
            let context = format!("seed {seed} field {}", schema_field.name);
            let (low, high) = (metrics.lower_bounds.get(&field_id), metrics.upper_bounds.get(&field_id));
            assert_eq!(metrics.value_counts[&field_id], n as u64, "{context}");
            assert_eq!(metrics.null_value_counts[&field_id], values.null_count() as u64, "{context}");
            let datums: Vec<_> =
                (0..n).filter_map(|row| crate::files::layout::datum(&values, row, kind).unwrap()).collect();
            let nans = datums.iter().filter(|d| d.is_nan()).count() as u64;
            let float = matches!(kind, PrimitiveType::Float | PrimitiveType::Double);
            assert_eq!(metrics.nan_value_counts.get(&field_id).copied(), float.then_some(nans), "{context}");
            assert!((0..n).all(|row| within(&values, row, kind, low, high)), "{context}: {low:?} {high:?}");

            let ordered = datums.len() as u64 > nans;
            assert_eq!(low.is_some(), ordered, "{context}");
            let cut = matches!(kind, PrimitiveType::String | PrimitiveType::Binary);
            if cut {
                let length = |d: &Datum| match d.literal() {
                    iceberg::spec::PrimitiveLiteral::String(s) => s.chars().count(),
                    iceberg::spec::PrimitiveLiteral::Binary(b) => b.len(),
                    _ => unreachable!(),
                };
                assert!([low, high].into_iter().flatten().all(|d| length(d) <= 16), "{context}");
            } else {
                assert_eq!(high.is_some(), ordered, "{context}");
                // Bounds that are not cut are values of the column (zero may have the other sign).
                let is_value = |b: &Datum| datums.iter().any(|d| d == b || (float && is_zero(b) && is_zero(d)));
                assert!([low, high].into_iter().flatten().all(is_value), "{context}");
            }
        }
        let list = rows.column(17).as_list::<i32>();
        let elements: u64 = list.iter().flatten().map(|elements| elements.len() as u64).sum();
        assert!(metrics.value_counts[&31] >= elements && !metrics.lower_bounds.contains_key(&31));
        to_data_file(&files[0]).unwrap();
    }
}

fn is_zero(datum: &Datum) -> bool {
    use iceberg::spec::PrimitiveLiteral::{Double, Float};
    match datum.literal() {
        Float(v) => v.0 == 0.0,
        Double(v) => v.0 == 0.0,
        _ => false,
    }
}

/// The same figures from a file with row groups of `size` rows, which the writer only makes of half a million.
async fn in_row_groups(target: &WriteTarget, rows: &RecordBatch, size: usize) -> WrittenFile {
    let options = encoding::options(&rows.schema(), &target.schema).unwrap();
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), rows.schema(), options).unwrap();
    let mut floats = Floats::default();
    for start in (0..rows.num_rows()).step_by(size) {
        let part = rows.slice(start, size.min(rows.num_rows() - start));
        writer.write(&part).unwrap();
        writer.flush().unwrap();
        floats.add(&part);
    }
    let metadata = writer.finish().unwrap();
    let mut file = write(target, vec![rows.clone()]).await.remove(0);
    assert!(rows.num_rows() == 1 || metadata.num_row_groups() > 1);
    file.metrics = from_parquet(&metadata, &target.schema, &floats).unwrap();
    file
}

#[tokio::test]
async fn bounds_at_the_edges_of_strings_are_rounded_up_or_left_out() {
    let schema = Schema::builder()
        .with_fields(vec![field(1, "s", PrimitiveType::String), field(2, "b", PrimitiveType::Binary)])
        .build()
        .unwrap();
    let sixteen = "abcdefghijklmnop";
    let cases = [
        (sixteen.to_string(), Some(sixteen.to_string())),
        (format!("{sixteen}q"), Some("abcdefghijklmnoq".to_string())),
        (format!("{}\u{D7FF}z", &sixteen[..15]), Some(format!("{}\u{E000}", &sixteen[..15]))),
        (format!("{}\u{10FFFF}z", &sixteen[..15]), Some("abcdefghijklmnp".to_string())),
        ("\u{10FFFF}".repeat(17), None),
        ("x".repeat(5000), Some("x".repeat(15) + "y")),
    ];
    for (value, upper) in cases {
        let target = target(schema.clone());
        let rows = vec![
            Arc::new(StringArray::from(vec![value.as_str()])) as ArrayRef,
            Arc::new(BinaryArray::from_vec(vec![&[0xFF; 17]])),
        ];
        let files = write(&target, vec![batch(&target.schema, rows)]).await;
        let metrics = &files[0].metrics;
        assert_eq!(metrics.upper_bounds.get(&1), upper.map(Datum::string).as_ref(), "{value:?}");
        let lower: String = value.chars().take(16).collect();
        assert_eq!(metrics.lower_bounds.get(&1), Some(&Datum::string(lower)));
        assert_eq!(metrics.upper_bounds.get(&2), None);
        assert_eq!(metrics.lower_bounds.get(&2), Some(&Datum::binary([0xFF; 16])));
    }
}

#[tokio::test]
async fn written_rows_come_back_by_field_id_with_positions() {
    let target = target(quotes());
    let files = write(&target, vec![quote_rows(&target.schema, 0..100_000)]).await;
    let mut table = crate::core::schema::TableSchema::default();
    let renamed = crate::core::schema::Field {
        id: 1,
        ..crate::core::schema::Field::new("key", crate::core::schema::Type::Long, true)
    };
    let added = crate::core::schema::Field {
        id: 9,
        ..crate::core::schema::Field::new("new", crate::core::schema::Type::String, true)
    };
    table.fields = vec![added, renamed];
    let deleted: crate::files::DeletedPositions = (0..100_000).filter(|p| p % 3 == 0 && *p > 40_000).collect();
    let columns = ["key".to_string(), "new".to_string()];
    let stream =
        crate::files::read_rows(&target.store, &files[0].path, &table, &columns, deleted.clone()).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let (mut positions, mut keys) = (Vec::new(), Vec::new());
    for rows in &batches {
        positions.extend_from_slice(&rows.positions);
        keys.extend_from_slice(rows.columns.column(0).as_primitive::<Int64Type>().values());
        assert_eq!(rows.columns.column(1).null_count(), rows.positions.len());
    }
    assert!(positions.iter().zip(&keys).all(|(p, k)| i64::from(*p) == *k));
    assert_eq!(positions, (0..100_000).filter(|p| !deleted.contains(*p)).collect::<Vec<_>>());
}

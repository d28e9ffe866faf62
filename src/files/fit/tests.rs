use std::collections::HashMap;

use arrow::array::{Date32Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{FieldRef, Schema};

use super::*;

fn field(name: &str, kind: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, kind, nullable))
}

/// Two required fields, the second record null: its fields hold placeholders.
fn customers() -> (DataType, ArrayRef) {
    let fields = Fields::from(vec![field("name", DataType::Utf8, false), field("level", DataType::Int32, false)]);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["ada", "", "bob"])), Arc::new(Int32Array::from(vec![1, 0, 3]))];
    let nulls = Some(NullBuffer::from(vec![true, false, true]));
    let array = StructArray::new(fields.clone(), columns, nulls);
    (DataType::Struct(fields), Arc::new(array))
}

/// A field was added, another promoted, and the order changed.
fn wanted() -> DataType {
    DataType::Struct(Fields::from(vec![
        field("since", DataType::Date32, true),
        field("level", DataType::Int64, true),
        field("name", DataType::Utf8, true),
    ]))
}

#[track_caller]
fn check_customers(fitted: &dyn Array) {
    let fitted = fitted.as_struct();
    assert_eq!(fitted.column(0).null_count(), 3);
    let levels = fitted.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
    assert_eq!(levels, &Int64Array::from(vec![Some(1), None, Some(3)]));
    let names = fitted.column(2).as_string::<i32>();
    assert_eq!(names, &StringArray::from(vec![Some("ada"), None, Some("bob")]));
}

#[test]
fn fields_of_a_null_record_are_null() {
    check_customers(&fit(&customers().1, &wanted(), Matching::ByName(Absent::Older)).unwrap());
}

#[test]
fn records_in_lists_and_maps_gain_fields_and_wider_types() {
    let (kind, records) = customers();
    let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
    let list = ListArray::new(field("element", kind.clone(), true), offsets.clone(), records.clone(), None);
    let list = fit(
        &(Arc::new(list) as ArrayRef),
        &DataType::List(field("element", wanted(), true)),
        Matching::ByName(Absent::Older),
    )
    .unwrap();
    assert_eq!(list.as_list::<i32>().value_length(0), 2);
    check_customers(list.as_list::<i32>().values());

    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let parts = vec![field("key", DataType::Utf8, false), field("value", kind, true)];
    let entries = StructArray::new(Fields::from(parts), vec![keys.clone(), records], None);
    let map = MapArray::new(field("key_value", entries.data_type().clone(), false), offsets, entries, None, false);
    let parts = vec![field("k", DataType::Utf8, false), field("v", wanted(), true)];
    let entry = field("entries", DataType::Struct(Fields::from(parts)), false);
    let map = fit(&(Arc::new(map) as ArrayRef), &DataType::Map(entry, false), Matching::ByName(Absent::Older)).unwrap();
    assert_eq!(map.as_map().keys(), &keys);
    check_customers(map.as_map().values());
}

/// A required record within an optional one has no placeholder either.
#[test]
fn fields_of_a_record_within_a_null_record_are_null() {
    let customers = customers().1;
    let whole = StructArray::new(
        Fields::from(vec![field("name", DataType::Utf8, false)]),
        vec![Arc::new(StringArray::from(vec!["a", "", "b"]))],
        None,
    );
    let outer = Fields::from(vec![field("inner", whole.data_type().clone(), false)]);
    let outer = StructArray::new(outer, vec![Arc::new(whole)], customers.nulls().cloned());
    let to = |inner: DataType| DataType::Struct(Fields::from(vec![field("inner", inner, true)]));
    let inner = DataType::Struct(Fields::from(vec![field("name", DataType::Utf8, true)]));
    let outer = fit(&(Arc::new(outer) as ArrayRef), &to(inner), Matching::ByName(Absent::Older)).unwrap();
    let names = outer.as_struct().column(0).as_struct().column(0);
    assert_eq!(names.as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("b")]));
}

#[test]
fn rows_that_were_gathered_before_a_rename_find_their_column_at_every_depth() {
    use crate::core::schema::{Field as Column, TableSchema, Type, to_arrow};
    let table = |name: &str, inner: &str, aliases: &[&str]| {
        let renamed = |name: &str, kind, at: usize| Column {
            aliases: aliases.get(at).map(|a| (*a).to_owned()).into_iter().collect(),
            ..Column::new(name, kind, false)
        };
        let record = Type::Struct(vec![renamed(inner, Type::Int, 1)]);
        let fields = vec![renamed(name, Type::Int, 0), Column::new("s", record, false)];
        Arc::new(to_arrow(&TableSchema { fields, key: Vec::new() }))
    };
    let before = table("price", "old", &[]);
    let numbers = || -> ArrayRef { Arc::new(Int32Array::from(vec![1, 2])) };
    let DataType::Struct(fields) = before.field(1).data_type() else { panic!("a record") };
    let record = Arc::new(StructArray::new(fields.clone(), vec![numbers()], None));
    let batch = RecordBatch::try_new(before.clone(), vec![numbers(), record]).unwrap();
    let after = conform(&batch, &table("amount", "new", &["price", "old"])).unwrap();
    assert_eq!(after.column(0), &numbers());
    assert_eq!(after.column(1).as_struct().column(0), &numbers());
    let strange = conform(&batch, &table("amount", "new", &["other", "other"])).unwrap();
    assert_eq!(strange.column(0).null_count(), 2, "another column is another column");
}

/// A column with the other names that it has.
fn renamed(name: &str, others: &str) -> Field {
    let metadata = HashMap::from([("firn:names".to_owned(), others.to_owned())]);
    Field::new(name, DataType::Int64, true).with_metadata(metadata)
}

#[test]
fn rows_find_a_renamed_column_whether_they_were_gathered_before_or_after() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let plain = |name: &str| Field::new(name, DataType::Int64, true);
    for (from, to) in [(plain("old"), renamed("new", "older\nold")), (renamed("new", "old"), plain("old"))] {
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![from])), vec![column.clone()]).unwrap();
        let fitted = conform(&batch, &Arc::new(Schema::new(vec![to]))).unwrap();
        assert_eq!(fitted.column(0).as_primitive::<Int64Type>().value(0), 7);
    }
    // A table that has columns of both names takes each for itself.
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![renamed("new", "old")])), vec![column]).unwrap();
    let both = Arc::new(Schema::new(vec![plain("old"), plain("new")]));
    let fitted = conform(&batch, &both).unwrap();
    assert_eq!((fitted.column(0).null_count(), fitted.column(1).null_count()), (1, 0));
}

#[test]
fn a_value_that_does_not_fit_is_an_error_and_no_null() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![5_000_000_000]));
    assert!(fit(&column, &DataType::Int32, Matching::ByName(Absent::NotGiven)).is_err());
}

#[test]
fn what_is_absent_is_its_default_at_every_depth_and_null_where_its_record_is() {
    let with = |key: &str, json: &str, kind: DataType| {
        let notes = [(format!("firn:{key}-default"), json.to_owned())];
        Field::new("d", kind, true).with_metadata(notes.into_iter().collect())
    };
    let older = |kind| with("initial", r#"{"Int":7}"#, kind);
    let a: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let record = StructArray::try_new(
        vec![Field::new("a", DataType::Int32, true)].into(),
        vec![a.clone()],
        Some(vec![true, false].into()),
    );
    let record: ArrayRef = Arc::new(record.unwrap());
    let to = DataType::Struct(vec![Field::new("a", DataType::Int32, true), older(DataType::Date32)].into());
    let filled = fit(&record, &to, Matching::ByName(Absent::Older)).unwrap();
    let dates = filled.as_struct().column(1).as_primitive::<arrow::datatypes::Date32Type>();
    assert_eq!(dates.iter().collect::<Vec<_>>(), [Some(7), None]);
    let unnoted = fit(&record, &to, Matching::ByName(Absent::NotGiven)).unwrap();
    assert_eq!(unnoted.as_struct().column(1).null_count(), 2);

    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        with("write", r#"{"Bytes":[0,1]}"#, DataType::FixedSizeBinary(2)).with_nullable(false),
    ]));
    let batch = RecordBatch::try_from_iter([("a", a)]).unwrap();
    let written = conform(&batch, &schema).unwrap();
    assert_eq!(written.column(1).as_fixed_size_binary().value(1), [0, 1]);
}

#[test]
fn dates_are_read_as_midnights_and_only_midnights_are_dates_again() {
    let dates = |days: &[Option<i32>]| -> ArrayRef { Arc::new(Date32Array::from(days.to_vec())) };
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let days = [Some(0), Some(-1), Some(-719_162), Some(2_932_896), Some(106_751_991), None];
    let found = fit(&dates(&days), &timestamp, Matching::InOrder).unwrap();
    let micros: Vec<_> = found.as_primitive::<TimestampMicrosecondType>().iter().collect();
    assert_eq!(micros, days.map(|day| day.map(|day| i64::from(day) * 86_400_000_000)));
    assert_eq!(&fit(&found, &DataType::Date32, Matching::InOrder).unwrap(), &dates(&days));
    let beyond = fit(&dates(&[Some(106_751_992)]), &timestamp, Matching::InOrder).unwrap_err().to_string();
    assert!(beyond.contains("106751992 days from 1970-01-01 is beyond"), "{beyond}");
    for micros in [1, -1, i64::MAX] {
        let later: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]));
        assert!(fit(&later, &DataType::Date32, Matching::InOrder).is_err());
    }
}

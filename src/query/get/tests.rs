use std::collections::HashMap;

use super::*;
use crate::query::testing::{Maker, Row, table, texts};

#[tokio::test]
async fn the_current_row_of_a_key_is_the_one_that_is_not_deleted() {
    let mut maker = Maker::new(10, 5);
    let rows: Vec<Row> = (0..100).map(Row::number).collect();
    maker.add(&rows, &[42, 7]).await;
    maker.add(&[Row { qty: Some(-1), ..Row::number(42) }], &[]).await;
    let engine = maker.engine(table(), 2);
    let row = engine.get("lake.market.trades", &["42"]).await.unwrap().unwrap();
    assert_eq!(row.num_rows(), 1);
    assert!(texts(&[row])[0].starts_with("42|S00|-1|"));
    assert!(engine.get("lake.market.trades", &["7"]).await.unwrap().is_none());
    assert!(engine.get("lake.market.trades", &["-5"]).await.unwrap().is_none());
    for (name, values, reason) in [
        ("lake.market.trades", vec!["1", "2"], "the key of lake.market.trades is (id): 2 values were given"),
        ("lake.market.trades", vec![], "0 values"),
        ("lake.market.trades", vec!["x"], "key column id of lake.market.trades: 'x' is not a value of type Int64"),
        ("lake.market.trades", vec!["1.5"], "is not a value"),
        ("lake.market.trades", vec!["99999999999999999999"], "is not a value"),
        ("lake.market.trades", vec![""], "is not a value"),
        ("lake.market.none", vec!["1"], "there is no table lake.market.none"),
        ("trades", vec!["1"], "write catalog.namespace.table"),
    ] {
        let error = engine.get(name, &values).await.unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains(reason)), "{name} {values:?}: {error}");
    }
}

#[test]
fn values_are_read_exactly_or_not_at_all() {
    let field = |kind: DataType| Field::new("k", kind, true);
    let uuid = field(DataType::FixedSizeBinary(16))
        .with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]));
    let decimal = field(DataType::Decimal128(10, 2));
    let utc = field(DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(parse(&decimal, "1.50").unwrap(), ScalarValue::Decimal128(Some(150), 10, 2));
    assert_eq!(parse(&decimal, "1.500").unwrap(), ScalarValue::Decimal128(Some(150), 10, 2));
    assert_eq!(parse(&field(DataType::Binary), "0x00fF").unwrap(), ScalarValue::Binary(Some(vec![0, 255])));
    assert_eq!(parse(&field(DataType::Utf8), "a'b").unwrap(), ScalarValue::Utf8(Some("a'b".into())));
    assert_eq!(
        parse(&utc, "2026-01-01T00:00:01Z").unwrap(),
        ScalarValue::TimestampMicrosecond(Some(1_767_225_601_000_000), Some("UTC".into()))
    );
    assert!(parse(&uuid, "67e55044-10b1-426f-9247-bb680e5fe0c8").is_ok());
    for (field, text) in [
        (&decimal, "1.005"),
        (&decimal, "1e2"),
        (&decimal, "x"),
        (&uuid, "67e5"),
        (&utc, "yesterday"),
        (&field(DataType::Binary), "abc"),
        (&field(DataType::FixedSizeBinary(2)), "00"),
        (&field(DataType::Boolean), "maybe"),
        (&field(DataType::Int32), "3000000000"),
    ] {
        assert!(parse(field, text).is_err(), "{text} as {}", field.data_type());
    }
}

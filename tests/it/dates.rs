//! Dates that become timestamps, which Iceberg v3 alone allows.

use firn::service;
use firn::settings::Settings;
use iceberg::spec::{Datum, ManifestList, PrimitiveType};
use serde_json::json;

use crate::evolve::{ICEBERG, ICEBERG_V3, encode, ids, register, rows, schema, verdict, world};
use crate::run::World;

const DELTA: &str = "{catalog: lake, name: market.trades}";
const DAY: i64 = 86_400_000_000;
/// Days of 0001-01-01 and of 9999-12-31.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

/// A schema with a column, items of a list and a field of a record of this type.
fn typed(kind: &str) -> String {
    schema(&format!(
        r#",{{"name":"d","type":{kind}}},{{"name":"l","type":{{"type":"array","items":{kind}}}}},
            {{"name":"s","type":{{"type":"record","name":"S","fields":[{{"name":"e","type":["null",{kind}]}}]}}}}"#
    ))
}

fn date() -> String {
    typed(r#"{"type":"int","logicalType":"date"}"#)
}

fn timestamp() -> String {
    typed(r#"{"type":"long","logicalType":"local-timestamp-micros"}"#)
}

/// An event whose values are all `value`: days or microseconds, as the schema has it.
fn event(id: u32, schema: &str, key: i64, value: i64) -> Vec<u8> {
    let (int, long) =
        (r#"{"type":"int","logicalType":"date"}"#, r#"{"type":"long","logicalType":"local-timestamp-micros"}"#);
    // The encoder takes plain numbers, and the bytes are the same.
    let plain = schema.replace(int, r#""int""#).replace(long, r#""long""#);
    encode(id, &plain, json!({"id": key, "d": value, "l": [value], "s": {"e": value}}))
}

fn row(key: i64, text: &str) -> serde_json::Value {
    json!({"id": key, "d": text, "l": [text], "s": {"e": text}})
}

/// Every bound of the column in the manifests of the current snapshot, as the manifests have them.
async fn bounds(world: &World, column: &str) -> Vec<Datum> {
    let settings = Settings::load(&world.config()).unwrap();
    let catalog = service::open_catalog(&settings.catalogs["ice"]).await.unwrap();
    let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap();
    let metadata = table.metadata();
    let id = metadata.current_schema().field_by_name(column).unwrap().id;
    let io = table.store().file_io();
    let text = table.store().get(metadata.current_snapshot().unwrap().manifest_list()).await.unwrap();
    let list = ManifestList::parse_with_version(&text, metadata.format_version()).unwrap();
    let mut bounds = Vec::new();
    for manifest in list.entries() {
        for entry in manifest.load_manifest(&io).await.unwrap().entries() {
            let file = entry.data_file();
            bounds.extend(file.lower_bounds().get(&id).into_iter().chain(file.upper_bounds().get(&id)).cloned());
        }
    }
    bounds
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_become_timestamps_on_v3_and_no_filter_loses_a_row_of_an_older_file() {
    for partitions in ["", ", partition_by: ['year(d)']"] {
        let world = world(&[&ICEBERG_V3.replace('}', &format!("{partitions}}}"))], "").await;
        let old = register(&world, &date());
        for (key, day) in [(1, 0), (2, -1), (3, FIRST_DAY), (4, LAST_DAY), (5, 20_000)] {
            world.send(0, &[event(old, &date(), key, day)]);
            world.catch_up().await.unwrap();
        }
        assert!(bounds(&world, "d").await.len() >= 10);

        let (report, text, ended) = verdict(&world, Some(&timestamp())).await;
        assert!(ended.is_ok() && report["compatible"] == true, "{text}");
        for part in
            ["widens column d from date to timestamp", "widens column l.element", "Trino 483 and pyiceberg 0.12 fail"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let new = register(&world, &timestamp());
        // The same batch has rows that were gathered before the column grew, and behind.
        world.send(
            0,
            &[event(old, &date(), 6, 1), event(new, &timestamp(), 7, 3 * DAY + 1), event(old, &date(), 8, 20_001)],
        );
        world.send(0, &[event(new, &timestamp(), 5, 20_000 * DAY + DAY / 2)]);
        world.catch_up().await.unwrap();
        world.send(1, &[event(old, &date(), 9, 2)]);
        world.catch_up().await.unwrap();

        let expected = [
            row(1, "1970-01-01T00:00:00"),
            row(2, "1969-12-31T00:00:00"),
            row(3, "0001-01-01T00:00:00"),
            row(4, "9999-12-31T00:00:00"),
            row(5, "2024-10-04T12:00:00"),
            row(6, "1970-01-02T00:00:00"),
            row(7, "1970-01-04T00:00:00.000001"),
            row(8, "2024-10-05T00:00:00"),
            row(9, "1970-01-03T00:00:00"),
        ];
        assert_eq!(rows(&world, "ice.market.trades").await, expected);
        for (filter, expected) in [
            ("d = TIMESTAMP '1970-01-01 00:00:00'", vec![1]),
            ("d < TIMESTAMP '1970-01-01 00:00:00'", vec![2, 3]),
            ("d <= CAST('0001-01-01' AS TIMESTAMP(6))", vec![3]),
            ("d >= CAST('9999-12-31' AS TIMESTAMP(6))", vec![4]),
            ("d > TIMESTAMP '1970-01-01 00:00:00' AND d < TIMESTAMP '1970-01-05 00:00:00'", vec![6, 7, 9]),
            ("d IN (TIMESTAMP '2024-10-04 12:00:00', TIMESTAMP '1969-12-31 00:00:00')", vec![2, 5]),
            ("d = DATE '2024-10-05'", vec![8]),
            ("s['e'] = CAST('9999-12-31' AS TIMESTAMP(6)) OR l[1] = TIMESTAMP '1970-01-02 00:00:00'", vec![4, 6]),
            ("d IS NULL", vec![]),
        ] {
            assert_eq!(ids(&world, "ice.market.trades", filter).await, expected, "{filter}");
        }
        // No reader takes days for microseconds.
        let kinds: Vec<_> = bounds(&world, "d").await.iter().map(|bound| bound.data_type().clone()).collect();
        assert!(kinds.len() >= 10 && kinds.iter().all(|kind| *kind == PrimitiveType::Timestamp), "{kinds:?}");
        let (report, text, _) = verdict(&world, Some(&date())).await;
        assert!(report["compatible"] == true && text.contains("nothing changes"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_stays_one_where_a_table_cannot_follow_and_the_reason_names_it() {
    let parted = |by: &str| ICEBERG_V3.replace('}', &format!(", partition_by: ['{by}']}}"));
    for (tables, more, why) in [
        (
            vec![ICEBERG.to_owned()],
            "",
            "only iceberg v3 allows to widen date to timestamp, and a table here is iceberg v2",
        ),
        (vec![ICEBERG_V3.to_owned(), DELTA.to_owned()], "", "and a table here is delta"),
        (vec![parted("bucket(4, d)")], "", "the table is partitioned by bucket[4] of it"),
        (vec![parted("d")], "", "the table is partitioned by identity of it"),
        (vec![ICEBERG_V3.to_owned()], "    order_by: d\n", "it is the pipeline's `order_by`"),
    ] {
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let world = world(&tables, more).await;
        let (old, new) = (register(&world, &date()), register(&world, &timestamp()));
        register(&world, &date().replace(r#""d","type""#, r#""d","doc":"newest","type""#));
        world.send(0, &[event(old, &date(), 1, 1)]);
        world.catch_up().await.unwrap();
        if more.is_empty() {
            let (_, text, ended) = verdict(&world, Some(&timestamp())).await;
            assert!(ended.is_err() && text.contains(why), "{text}");
        }
        world.send(0, &[event(new, &timestamp(), 2, 1)]);
        let error = world.catch_up().await.unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(rows(&world, "ice.market.trades").await, [row(1, "1970-01-02")], "{tables:?}");
    }
    let world = world(&[ICEBERG_V3], "").await;
    let id = register(&world, &date());
    world.send(0, &[event(id, &date(), 1, 1)]);
    world.catch_up().await.unwrap();
    for (kind, why) in
        [("timestamp-micros", "it is no instant"), ("local-timestamp-nanos", "before 1677 or after 2262")]
    {
        let (_, text, ended) = verdict(&world, Some(&timestamp().replace("local-timestamp-micros", kind))).await;
        assert!(ended.is_err() && text.contains(why), "{text}");
    }
}

//! Delta tables between Firn and python deltalake, which is another implementation: each reads and changes what the other
//! wrote. Rows are compared, never counts.
//!
//! `FIRN_INTEROP=1` turns these tests on and installs deltalake; `FIRN_DELTA_PYTHON` names a Python that has it already.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use firn::core::history::VectorRead;
use firn::core::schema::{Field, TableSchema, Type, to_arrow};
use firn::table::delta::{DeltaCatalog, DeltaConfig};
use firn::table::iceberg::TableSpec;
use firn::table::{Change, FileRows, LakeTable, NewRows};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::{Row, Writer, committed, found, schema};

/// A Python with deltalake, where these tests are wanted.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("FIRN_DELTA_PYTHON") {
        return Some(python.into());
    }
    if std::env::var("FIRN_INTEROP").as_deref() != Ok("1") {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/native/deltalake.sh");
    let installed = Command::new(&script).arg("install").status().expect("the script starts");
    assert!(installed.success(), "deltalake cannot be installed");
    let home = Command::new(&script).arg("home").output().expect("the script starts").stdout;
    Some(Path::new(String::from_utf8(home).unwrap().trim()).join("bin/python"))
}

struct Lake {
    python: PathBuf,
    catalog: Arc<DeltaCatalog>,
    folder: TempDir,
}

fn lake(python: PathBuf) -> Lake {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().to_string_lossy().into_owned();
    let config = DeltaConfig { name: "lake".into(), warehouse, properties: std::collections::BTreeMap::new() };
    Lake { python, catalog: DeltaCatalog::open(&config).unwrap(), folder }
}

impl Lake {
    fn path(&self) -> PathBuf {
        self.folder.path().join("market/t")
    }

    /// Has deltalake do something.
    fn ask(&self, mut request: Value) -> Value {
        request["path"] = json!(self.path());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/delta_tables.py");
        let mut child = Command::new(&self.python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{request} failed");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn rows(&self, version: Option<i64>, filter: &str) -> Vec<Row> {
        serde_json::from_value(self.ask(json!({"op": "rows", "version": version, "where": filter}))).unwrap()
    }

    async fn create(&self, by: &[&str]) -> Writer {
        let spec = TableSpec {
            schema: schema(),
            format_version: 2,
            partition_by: by.iter().map(|c| ("identity".to_owned(), (*c).to_owned())).collect(),
            sort_by: Vec::new(),
            pipeline: "p1".into(),
        };
        Writer::new(Arc::new(self.catalog.create_table(&["market".into()], "t", spec).await.unwrap()), "a")
    }

    /// A writer that takes the table as it is now.
    async fn open(&self, name: &'static str) -> Writer {
        let table = self.catalog.load_table(&["market".into()], "t").await.unwrap().expect("the table is there");
        committed(table.prepare(&schema().key).await);
        let mut writer = Writer::new(Arc::new(table), name);
        let view = writer.catch_up().await;
        if let VectorRead::Found(_) = view.history.vector(None) {
            writer.offset = found(&view);
        }
        writer
    }
}

#[tokio::test]
async fn deltalake_reads_every_version_that_firn_wrote() {
    let Some(python) = python() else { return };
    for by in [&[][..], &["venue"]] {
        let lake = lake(python.clone());
        let mut writer = lake.create(by).await;
        let mut versions = Vec::new();
        for n in 0..25i64 {
            let venue = ["x", "y", "a b/c%=\u{e9}"][n as usize % 3];
            let gone: &[i64] = if n % 5 == 4 { &[102] } else { &[] };
            let view = writer.apply(&[(n % 7, venue, n), (n % 5 + 100, "y", -n)], gone).await;
            versions.push((view.snapshot, writer.rows()));
        }
        for (version, rows) in versions.iter().step_by(6).chain(versions.last()) {
            assert_eq!(lake.rows(*version, ""), *rows, "version {version:?}");
        }
        // Filters meet our statistics.
        for (filter, keep) in [
            ("n >= 20", (|r: &Row| r.2 >= 20) as fn(&Row) -> bool),
            ("n < 0 AND id > 102", |r| r.2 < 0 && r.0 > 102),
            ("venue = 'y'", |r| r.1 == "y"),
            ("venue > 'x'", |r| r.1.as_str() > "x"),
        ] {
            let expected: Vec<Row> = writer.rows().into_iter().filter(keep).collect();
            assert_eq!(lake.rows(None, filter), expected, "{filter}");
        }
        let said = lake.ask(json!({"op": "version", "apps": ["firn:c1:t1:0"]}));
        assert_eq!(said["txn"]["firn:c1:t1:0"], writer.offset, "deltalake reads V as a transaction version");
    }
}

#[tokio::test]
async fn deltalake_reads_checkpoints_of_firn_and_firn_those_of_deltalake() {
    let Some(python) = python() else { return };
    let lake = lake(python);
    let mut writer = lake.create(&["venue"]).await;
    for n in 0..110i64 {
        writer.apply(&[(n % 7, "x", n), (n % 50 + 100, "y", -n)], &[]).await;
    }
    let log = lake.path().join("_delta_log");
    assert!(log.join(format!("{:020}.checkpoint.parquet", 100)).exists());
    for version in 0..100 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    assert_eq!(lake.rows(None, ""), writer.rows());
    lake.ask(json!({"op": "checkpoint"}));
    assert!(log.join(format!("{:020}.checkpoint.parquet", 110)).exists(), "deltalake wrote one");
    for version in 100..=110 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let mut second = lake.open("b").await;
    assert_eq!((second.rows(), second.offset), (writer.rows(), writer.offset), "V survives in deltalake's checkpoint");
    second.apply(&[(1, "x", 1000)], &[]).await;
    assert_eq!(lake.rows(None, ""), second.rows());
}

#[tokio::test]
async fn firn_upserts_into_tables_that_deltalake_made() {
    let Some(python) = python() else { return };
    let vectors = json!({"delta.enableDeletionVectors": "true"});
    for (by, configuration) in [
        (json!([]), json!({})),
        (json!(["venue"]), json!({})),
        (json!([]), vectors.clone()),
        (json!(["venue"]), vectors.clone()),
    ] {
        let lake = lake(python.clone());
        let rows: Vec<(i64, &str, i64)> = (0..20).map(|id| (id, ["x", "y z"][id as usize % 2], id)).collect();
        lake.ask(json!({"op": "write", "rows": rows, "by": by, "configuration": configuration}));
        lake.ask(json!({"op": "write", "rows": [[20, "x", 20], [21, null, 21]], "by": by}));
        lake.ask(json!({"op": "delete", "where": "id = 21"}));
        let mut writer = lake.open("a").await;
        assert_eq!(writer.rows().len(), 21);
        assert_eq!(writer.table.load(None).await.unwrap().schema.key, ["id"], "the key is noted");
        writer.offset = 100;
        writer.apply(&[(3, "x", 300), (4, "new", 400), (50, "x", 50)], &[7, 20]).await;
        writer.apply(&[(3, "x", 301)], &[]).await;
        assert_eq!(lake.rows(None, ""), writer.rows(), "by {by}, {configuration}");
        assert_eq!(found(&lake.open("b").await.table.load(None).await.unwrap()), writer.offset);
    }
}

#[tokio::test]
async fn firn_follows_what_deltalake_does_to_its_table() {
    let Some(python) = python() else { return };
    for by in [&[][..], &["venue"]] {
        let lake = lake(python.clone());
        let mut writer = lake.create(by).await;
        writer.apply(&[(1, "x", 1), (2, "y", 2), (3, "x", 3), (4, "y", 4)], &[]).await;
        writer.apply(&[(5, "x", 5), (2, "y", 20)], &[]).await;
        for (name, request) in [
            ("b", json!({"op": "delete", "where": "id = 3"})),
            ("c", json!({"op": "update", "where": "id = 4", "set": {"n": "n + 1000"}})),
            ("d", json!({"op": "write", "rows": [[9, "x", 9]]})),
            ("e", json!({"op": "optimize"})),
        ] {
            lake.ask(request.clone());
            let theirs = lake.rows(None, "");
            let base = writer.base;
            let view = writer.table.load(None).await.unwrap();
            assert_eq!(found(&view), writer.offset, "V is that of the nearest commit of Firn");
            assert!(!writer.table.diff(base).await.unwrap().whole, "{request} is followed by its difference");
            let mut again = lake.open(name).await;
            assert_eq!(again.rows(), theirs, "after {request}");
            again.apply(&[(2, "y", again.offset * 10)], &[]).await;
            assert_eq!(lake.rows(None, ""), again.rows());
            (writer.base, writer.offset) = (again.base, again.offset);
            writer.table.load(None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_restore_by_deltalake_rolls_v_back() {
    let Some(python) = python() else { return };
    let lake = lake(python);
    let mut writer = lake.create(&[]).await;
    let first = writer.apply(&[(1, "x", 1), (2, "x", 2)], &[]).await;
    let rows = writer.rows();
    writer.apply(&[(1, "x", 10), (3, "x", 3)], &[2]).await;
    lake.ask(json!({"op": "restore", "version": first.snapshot}));
    assert_eq!(lake.rows(None, ""), rows);
    let mut again = lake.open("b").await;
    assert_eq!((again.rows(), again.offset), (rows, 2), "V is that of the restored version");
    again.apply(&[(1, "x", 10), (3, "x", 3)], &[2]).await;
    assert_eq!(again.rows(), writer.rows(), "the replay gives what was there before");
    assert_eq!(lake.rows(None, ""), writer.rows());
}

/// Columns of every type, some of which Delta has another type for.
fn every_type() -> TableSchema {
    let mut all = TableSchema { fields: schema().fields, key: vec!["id".into()] };
    let inner = vec![Field::new("a", Type::Int, true), Field::new("b", Type::Timestamp { utc: true }, false)];
    for (name, kind) in [
        ("b", Type::Boolean),
        ("d", Type::Decimal { precision: 38, scale: 4 }),
        ("day", Type::Date),
        ("at", Type::Time),
        ("tz", Type::Timestamp { utc: true }),
        ("u", Type::Uuid),
        ("f", Type::Fixed(3)),
        ("bin", Type::Binary),
        ("x", Type::Double),
        ("s", Type::Struct(inner)),
        ("l", Type::List(Box::new(Field::new("element", Type::Uuid, false)))),
        (
            "m",
            Type::Map(
                Box::new(Field::new("key", Type::String, true)),
                Box::new(Field::new("value", Type::Long, false)),
            ),
        ),
    ] {
        all.fields.push(Field::new(name, kind, false));
    }
    all.number();
    all
}

#[tokio::test]
async fn every_type_is_read_as_it_was_written() {
    let Some(python) = python() else { return };
    let (lake, all) = (lake(python), every_type());
    let spec = TableSpec {
        schema: all.clone(),
        format_version: 2,
        partition_by: vec![("identity".into(), "day".into())],
        sort_by: Vec::new(),
        pipeline: "p1".into(),
    };
    let table = lake.catalog.create_table(&["market".into()], "t", spec).await.unwrap();
    let kinds = |schema: &TableSchema| schema.fields.iter().map(|f| f.kind.to_string()).collect::<Vec<_>>();
    assert_eq!(kinds(&table.schema()), kinds(&all));

    let lines = [
        json!({"id": 1, "venue": "x", "n": 1, "b": true, "d": "1234567890123456789012345678901234.5678", "day": "2024-02-29",
            "at": "10:11:12.000013", "tz": "2024-01-01T00:00:00.000001Z", "u": "00112233445566778899aabbccddeeff",
            "f": "010203", "bin": "00ff", "x": -0.5, "s": {"a": 7, "b": "1969-12-31T23:59:59.999999Z"},
            "l": ["ffeeddccbbaa99887766554433221100", null], "m": {"k": 5, "j": null}}),
        json!({"id": 2, "venue": "y", "n": 2}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let reader = arrow::json::ReaderBuilder::new(Arc::new(to_arrow(&table.schema())));
    let batch = reader.build(text.as_bytes()).unwrap().next().unwrap().unwrap();
    let files = table.write("a-1", NewRows { batches: vec![batch.clone()], schema_change: None }).await.unwrap();
    let change = Change {
        base: None,
        attempt: "a-1".into(),
        pipeline: "p1".into(),
        files,
        superseded: Vec::new(),
        schema_change: None,
        vector: crate::contract::vector(2),
        now_ms: 1_790_000_000_000,
        pins: None,
        reason: None,
    };
    committed(table.commit(change).await);
    let names: Vec<String> = all.fields.iter().map(|f| f.name.clone()).collect();
    for file in table.diff(None).await.unwrap().added {
        let read: Vec<FileRows> = table.rows(&file, &names).await.unwrap().try_collect().await.unwrap();
        let id = read[0].columns.column(0).as_primitive::<Int64Type>().value(0) as usize;
        for (field, column) in all.fields.iter().zip(read[0].columns.columns()) {
            let wrote = batch.column_by_name(&field.name).unwrap().slice(id - 1, 1);
            assert_eq!(column.to_data(), wrote.to_data(), "column {}", field.name);
        }
    }
    let said = lake.ask(json!({"op": "types"}));
    for (name, expected) in [
        ("b", "True"),
        ("d", "1234567890123456789012345678901234.5678"),
        ("day", "2024-02-29"),
        ("at", "36672000013"),
        ("tz", "2024-01-01 00:00:00.000001+00:00"),
        ("u", "00112233-4455-6677-8899-aabbccddeeff"),
        ("f", "b'\\x01\\x02\\x03'"),
        ("x", "-0.5"),
        ("l", "['ffeeddcc-bbaa-9988-7766-554433221100', None]"),
        ("m", "[('j', None), ('k', 5)]"),
    ] {
        assert_eq!(said[name][0], expected, "{name}");
        assert_eq!(said[name][1], "None", "{name}");
    }
    assert!(said["s"][0].as_str().unwrap().contains("1969, 12, 31, 23, 59, 59, 999999"), "{said}");
}

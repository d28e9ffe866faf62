//! Names and partition values that are hostile as paths and identifiers, read back by every engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::kafka::{Compression, Record};
use crate::process::{catch_up, until_caught_up};
use crate::rows::{NULL, assert_same_rows};
use crate::s3::firn_values;
use crate::stack::{Catalog, Stack, unique};
use crate::wanted;

/// Partition values; none is null.
fn values() -> Vec<Option<String>> {
    let long = ["x".repeat(1000), "é".repeat(500)];
    let plain = [
        "../x",
        "..",
        ".",
        "/",
        "//",
        "/etc/x",
        "a/../b",
        "%2e%2e",
        "%2F",
        "%",
        "null",
        "NULL",
        "None",
        "true",
        "7",
        "__HIVE_DEFAULT_PARTITION__",
        "a=b/c=d",
        " ",
        "  x ",
        "'",
        "\"",
        "\\",
        "\\\\x",
        "a\nb",
        "\t",
        "a\0b",
        "é",
        "e\u{301}",
        "A",
        "a",
        "CON",
        "x.",
        "~",
        "*",
        "?",
        "#x",
        "a?b",
        "a&b=c;",
        "a+b",
        "\u{202e}x",
        "😀",
        ":",
        "s3://x/y",
    ];
    let all = plain.iter().map(|value| (*value).to_owned()).chain(long);
    all.map(Some).chain([None]).collect()
}

/// Names of columns.
const COLUMNS: [&str; 33] = [
    "select",
    "from",
    "table",
    "__proto__",
    "constructor",
    "$dollar",
    "a b",
    "a/b",
    "a\\b",
    "quo\"te",
    "ap'os",
    "back`tick",
    "é",
    "e\u{301}",
    "CON",
    "%2e%2e",
    "~",
    "@at",
    "#hash",
    "{brace}",
    "a,b",
    "a;b",
    "a=b",
    "(paren)",
    "-dash",
    "1digit",
    "_kafka2",
    "🙂",
    "null",
    "a:b",
    "a|b",
    "*",
    "?",
];

struct Names {
    stack: &'static Stack,
    topic: String,
    dir: tempfile::TempDir,
    /// How many records there are.
    sent: usize,
}

impl Names {
    fn new(stem: &str) -> Names {
        let (stack, topic) = (Stack::get(), unique(stem));
        stack.kafka.create_topic(&topic, 1, &[]);
        Names { stack, topic, dir: tempfile::tempdir().unwrap(), sent: 0 }
    }

    fn table(&self) -> String {
        self.topic.replace('-', "_")
    }

    /// A pipeline for each format.
    fn config(&self, more: &str) -> PathBuf {
        let (stack, topic, table) = (self.stack, &self.topic, self.table());
        let pipeline = |name: &str, catalog: &str| {
            format!(
                "\x20 {topic}-{name}:\n    topics: [{topic}]\n    key: [id]\n    lineage: false\n    \
                 tables: [{{catalog: {catalog}, name: market.{table}{more}}}]\n"
            )
        };
        let text = format!(
            "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs:\n  lake: {}\n\
             \x20 delta: {{type: delta, warehouse: \"s3://{}/delta\", properties: {{{}}}}}\npipelines:\n{}{}state_dir: ./state\n",
            stack.kafka.plaintext,
            stack.registry.url,
            stack.firn_catalog(Catalog::Sqlite),
            stack.s3.bucket,
            stack.s3.properties(&stack.s3.url),
            pipeline("iceberg", "lake"),
            pipeline("delta", "delta")
        );
        let path = self.dir.path().join("firn.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn produce(&mut self, values: impl IntoIterator<Item = Vec<u8>>) {
        let records = values.into_iter().map(|value| Record { value: Some(value), ..Record::default() });
        let records: Vec<_> = records.collect();
        self.sent += records.len();
        self.stack.kafka.produce(&self.topic, &records, Compression::None);
    }

    /// Makes the Delta table known to Trino; its name there.
    fn register(&self) -> String {
        let (trino, bucket, table) = (&self.stack.trino_delta, &self.stack.s3.bucket, self.table());
        trino
            .query(&format!("CREATE SCHEMA IF NOT EXISTS delta.market WITH (location = 's3://{bucket}/delta/market')"));
        trino.query(&format!("CALL delta.system.register_table('market', '{table}', '{}')", self.delta_location()));
        format!("delta.market.{table}")
    }

    fn delta_location(&self) -> String {
        format!("s3://{}/delta/market/{}", self.stack.s3.bucket, self.table())
    }

    /// All rows as each engine reads them, with who it was.
    fn read(&self, config: &Path, columns: &[&str], in_trino: &str) -> Vec<(&'static str, Vec<Vec<String>>)> {
        let (stack, table) = (self.stack, self.table());
        let lake = stack.pyiceberg_catalog(Catalog::Sqlite);
        let deltalake = stack.deltalake(&self.delta_location(), json!({"op": "rows", "columns": "*"}));
        vec![
            ("firn, iceberg", firn_values(config, &format!("lake.market.{table}"), columns)),
            ("firn, delta", firn_values(config, &format!("delta.market.{table}"), columns)),
            ("pyiceberg", stack.pyiceberg_rows(&lake, &format!("market.{table}"), None)),
            ("trino, iceberg", stack.trino.query(&format!("SELECT * FROM sqlite.market.{table}"))),
            ("deltalake", serde_json::from_value(deltalake).unwrap()),
            ("trino, delta", stack.trino_delta.query(&format!("SELECT * FROM {in_trino}"))),
        ]
    }
}

/// FAILURES O1: a value is a value, wherever its file lies.
#[test]
fn hostile_partition_values_are_rows_like_any_other() {
    if !wanted() {
        return;
    }
    let mut names = Names::new("values");
    let schema =
        r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"p","type":["null","string"]}]}"#;
    let encoder = names.stack.registry.encoder(&format!("{}-value", names.topic), schema);
    let encode = |id: usize, p: &Option<String>| {
        let p = match p {
            None => Avro::Union(0, Box::new(Avro::Null)),
            Some(text) => Avro::Union(1, Box::new(Avro::String(text.clone()))),
        };
        encoder.encode(Avro::Record(vec![("id".into(), Avro::Long(id as i64)), ("p".into(), p)]))
    };
    let values = values();
    names.produce(values.iter().enumerate().map(|(id, value)| encode(id, value)));
    let config = names.config(", partition_by: [p]");
    catch_up(&config);
    let expected: Vec<Vec<String>> = values
        .iter()
        .enumerate()
        .map(|(id, value)| vec![id.to_string(), value.clone().unwrap_or_else(|| NULL.to_owned())])
        .collect();
    let delta = names.register();
    for (engine, rows) in names.read(&config, &["id", "p"], &delta) {
        println!("{engine}");
        assert_same_rows(&rows, &expected);
    }
    // Files are found by their partitions, and nothing lies outside of the table.
    let iceberg = format!("sqlite.market.{}", names.table());
    for (trino, table) in [(&names.stack.trino, &iceberg), (&names.stack.trino_delta, &delta)] {
        for value in ["../x", "null", "__HIVE_DEFAULT_PARTITION__", "%2e%2e", "é", "a/../b"] {
            let found = trino.query(&format!("SELECT p FROM {table} WHERE p = '{value}'"));
            assert_eq!(found, [[value]], "{table}");
        }
        assert_eq!(trino.query(&format!("SELECT count(*) FROM {table} WHERE p IS NULL")), [["1"]], "{table}");
    }
    let folder = names.stack.warehouse_of(Catalog::Sqlite).join("market").join(names.table());
    let files = names.stack.trino.query(&format!("SELECT file_path FROM sqlite.market.\"{}$files\"", names.table()));
    for file in &files {
        let path = file[0].strip_prefix("file://").unwrap_or(&file[0]);
        assert!(std::fs::canonicalize(path).unwrap().starts_with(std::fs::canonicalize(&folder).unwrap()), "{path}");
    }

    // The empty string is a partition of its own where the format has it.
    names.produce([encode(1_000, &Some(String::new()))]);
    let (code, stderr) = until_caught_up(&config, Duration::from_secs(90));
    assert!(code == 4 && stderr.contains("Delta cannot tell it from null"), "{code}: {stderr}");
    let empty = [vec!["1000".to_owned(), String::new()]];
    let lake = names.stack.pyiceberg_catalog(Catalog::Sqlite);
    let rows = names.stack.pyiceberg_rows(&lake, &format!("market.{}", names.table()), None);
    assert_same_rows(&rows, &[&expected[..], &empty].concat());
    let found = names.stack.trino.query(&format!("SELECT id FROM {iceberg} WHERE p = ''"));
    assert_eq!(found, [["1000"]]);
}

#[test]
fn hostile_column_names_are_columns_of_their_own() {
    if !wanted() {
        return;
    }
    let mut names = Names::new("columns");
    let columns = COLUMNS;
    let text = json!({"type": "string"});
    let properties: serde_json::Map<String, Value> = {
        let own = columns.iter().map(|name| ((*name).to_owned(), text.clone()));
        own.chain([("id".to_owned(), json!({"type": "integer"}))]).collect()
    };
    let schema = json!({"title": "R", "type": "object", "properties": properties, "required": ["id"]}).to_string();
    let subject = format!("{}-value", names.topic);
    let id = names.stack.registry.register_as("JSON", &subject, &schema, &[]);
    let value = |number: usize, columns: &[&str]| {
        let cells = columns.iter().map(|name| ((*name).to_owned(), json!(format!("{number} {name}"))));
        let row: serde_json::Map<String, Value> = cells.chain([("id".to_owned(), json!(number))]).collect();
        crate::registry::framed(id, Value::Object(row).to_string().as_bytes())
    };
    names.produce((0..3).map(|number| value(number, &columns)));
    let config = names.config("");
    catch_up(&config);
    // As the schema's text has them.
    let order: Vec<&str> = properties.keys().map(String::as_str).collect();
    let cell = |number: usize, name: &str| if name == "id" { number.to_string() } else { format!("{number} {name}") };
    let expected: Vec<Vec<String>> =
        (0..3).map(|number| order.iter().map(|name| cell(number, name)).collect()).collect();
    let delta = names.register();
    for (engine, rows) in names.read(&config, &order, &delta) {
        println!("{engine}");
        assert_same_rows(&rows, &expected);
    }
}

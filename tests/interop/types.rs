//! What other engines make of the types that no other engine writes: unions as structs, recursive values as JSON, durations,
//! and the defaults of columns that were added.

use std::path::PathBuf;

use serde_json::json;

use crate::kafka::{Compression, Record};
use crate::process::{catch_up, firn};
use crate::registry::framed;
use crate::rows::assert_same_rows;
use crate::stack::{Catalog, Stack, unique};
use crate::values::long;
use crate::wanted;

/// A topic, and a folder for the configuration.
struct Typed {
    stack: &'static Stack,
    topic: String,
    dir: tempfile::TempDir,
}

impl Typed {
    fn new(stem: &str) -> Typed {
        let stack = Stack::get();
        let topic = unique(stem).replace('-', "_");
        stack.kafka.create_topic(&topic, 1, &[]);
        Typed { stack, topic, dir: tempfile::tempdir().unwrap() }
    }

    fn register(&self, schema: &str) -> u32 {
        let subject = format!("{}-value", self.topic);
        let id = self.stack.registry.register(&subject, schema);
        self.stack.registry.set_compatibility(&subject, "NONE");
        id
    }

    fn send(&self, id: u32, bodies: &[Vec<u8>]) {
        let record = |body: &Vec<u8>| Record { value: Some(framed(id, body)), ..Record::default() };
        let records: Vec<_> = bodies.iter().map(record).collect();
        self.stack.kafka.produce(&self.topic, &records, Compression::None);
    }

    /// A `firn.yaml` with these tables; Iceberg in the SQLite catalog, Delta in the object store.
    fn config(&self, tables: &str) -> PathBuf {
        let (stack, topic) = (self.stack, &self.topic);
        let (bucket, properties) = (&stack.s3.bucket, stack.s3.properties(&stack.s3.url));
        let text = format!(
            "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs:\n  lake: {}\n\
             \x20 delta: {{type: delta, warehouse: \"s3://{bucket}/delta\", properties: {{{properties}}}}}\n\
             pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    lineage: false\n    recursive_types: json\n    \
             commit: {{interval: 500ms}}\n    tables: [{tables}]\nstate_dir: ./state\n",
            stack.kafka.plaintext,
            stack.registry.url,
            stack.firn_catalog(Catalog::Sqlite),
        );
        let path = self.dir.path().join("firn.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn trino(&self, table: &str, columns: &str) -> Vec<Vec<String>> {
        self.stack.trino.query(&format!("SELECT {columns} FROM sqlite.{table}"))
    }

    fn pyiceberg(&self, table: &str) -> Vec<Vec<String>> {
        self.stack.pyiceberg_rows(&self.stack.pyiceberg_catalog(Catalog::Sqlite), table, None)
    }
}

fn text(value: &str) -> Vec<u8> {
    [&long(value.len() as i64)[..], value.as_bytes()].concat()
}

fn owned(rows: &[&[&str]]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
}

const UNIONS: &str = r#"{"type":"record","name":"Typed","namespace":"test","fields":[{"name":"id","type":"long"},
    {"name":"u","type":["null","int","string",
        {"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","string"]}]},
        {"type":"array","items":["int","string"]},{"type":"record","name":"Bare","fields":[]}]},
    {"name":"d","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},
    {"name":"tree","type":["null",{"type":"record","name":"Tree","fields":[{"name":"v","type":"double"},
        {"name":"next","type":["null","Tree"]}]}]}]}"#;

/// Bodies of [`UNIONS`], and their rows.
fn unions() -> (Vec<Vec<u8>>, Vec<Vec<String>>) {
    let duration = |parts: [u32; 3]| parts.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let node = |v: f64, next: Vec<u8>| [v.to_le_bytes().to_vec(), next].concat();
    let leaf = |v: f64| node(v, long(0));
    let most = u32::MAX;
    let bodies = vec![
        [long(1), long(0), duration([0; 3]), long(0)].concat(),
        [long(2), long(1), long(-7), duration([1, 2, 3]), long(1), leaf(0.5)].concat(),
        [
            long(3),
            long(2),
            text("\u{1F984}"),
            duration([most; 3]),
            long(1),
            node(1.5, [long(1), leaf(f64::NAN)].concat()),
        ]
        .concat(),
        [long(4), long(3), long(5), long(0), duration([0; 3]), long(0)].concat(),
        [long(5), long(4), long(2), long(0), long(-1), long(1), text("x"), long(0), duration([0; 3]), long(0)].concat(),
        [long(6), long(5), duration([0; 3]), long(0)].concat(),
    ];
    let none = "(0, 0, 0)";
    let rows = owned(&[
        &["1", "∅", none, "∅"],
        &["2", r#"("int", -7, ∅, ∅, ∅)"#, "(1, 2, 3)", "(0.5, ∅)"],
        &[
            "3",
            "(\"string\", ∅, \"\u{1F984}\", ∅, ∅)",
            "(4294967295, 4294967295, 4294967295)",
            r#"(1.5, "{\"v\":\"NaN\",\"next\":null}")"#,
        ],
        &["4", r#"("P", ∅, ∅, (5, ∅), ∅)"#, none, "∅"],
        &["5", r#"("array", ∅, ∅, ∅, [("int", -1, ∅), ("string", ∅, "x")])"#, none, "∅"],
        &["6", r#"("Bare", ∅, ∅, ∅, ∅)"#, none, "∅"],
    ]);
    (bodies, rows)
}

/// pyiceberg 0.12 shows a list that is null inside of a struct as an empty one; pyarrow reads the same file as null.
fn as_pyiceberg_sees(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let seen =
        |cell: &String| cell.strip_suffix(", ∅)").filter(|u| u.matches(", ").count() > 2).map(|u| format!("{u}, [])"));
    let row = |row: &Vec<String>| row.iter().map(|cell| seen(cell).unwrap_or_else(|| cell.clone())).collect();
    rows.iter().map(row).collect()
}

#[test]
fn every_engine_reads_unions_durations_and_json() {
    if !wanted() {
        return;
    }
    let typed = Typed::new("unions");
    let topic = &typed.topic;
    let (bodies, expected) = unions();
    let id = typed.register(UNIONS);
    typed.send(id, &bodies);
    let config = typed.config(&format!(
        "{{catalog: lake, name: types.{topic}_2, format_version: 2}}, {{catalog: lake, name: types.{topic}_3, format_version: 3}}, \
         {{catalog: delta, name: types.{topic}}}"
    ));
    catch_up(&config);
    for version in [2, 3] {
        let table = format!("types.{topic}_{version}");
        assert_same_rows(&typed.trino(&table, "*"), &expected);
        assert_same_rows(&typed.pyiceberg(&table), &as_pyiceberg_sees(&expected));
        let ints = typed.stack.trino.query(&format!("SELECT u.int FROM sqlite.{table} WHERE u.tag = 'int'"));
        assert_eq!(ints, [["-7"]]);
    }

    let (bucket, trino) = (&typed.stack.s3.bucket, &typed.stack.trino_delta);
    trino.query(&format!("CREATE SCHEMA IF NOT EXISTS delta.types WITH (location = 's3://{bucket}/delta/types')"));
    let location = format!("s3://{bucket}/delta/types/{topic}");
    trino.query(&format!("CALL delta.system.register_table('types', '{topic}', '{location}')"));
    assert_same_rows(&trino.query(&format!("SELECT * FROM delta.types.{topic}")), &expected);
    let columns = "id, u['tag'], u['int'], u['P']['a'], d['months'], tree['next']";
    let found = typed.stack.deltalake(&location, json!({"op": "rows", "columns": columns}));
    let flat = owned(&[
        &["1", "∅", "∅", "∅", "0", "∅"],
        &["2", "int", "-7", "∅", "1", "∅"],
        &["3", "string", "∅", "∅", "4294967295", r#"{"v":"NaN","next":null}"#],
        &["4", "P", "∅", "5", "0", "∅"],
        &["5", "array", "∅", "∅", "0", "∅"],
        &["6", "Bare", "∅", "∅", "0", "∅"],
    ]);
    assert_same_rows(&serde_json::from_value::<Vec<Vec<String>>>(found).unwrap(), &flat);
}

#[test]
fn engines_read_the_defaults_of_added_columns() {
    if !wanted() {
        return;
    }
    let typed = Typed::new("defaults");
    let topic = &typed.topic;
    let schema = |more: &str, deep: &str| {
        format!(
            r#"{{"type":"record","name":"Typed","namespace":"test","fields":[{{"name":"id","type":"long"}},
                {{"name":"s","type":{{"type":"record","name":"S","fields":[{{"name":"a","type":"int"}}{deep}]}}}}{more}]}}"#
        )
    };
    let (first, second) = (
        schema("", ""),
        schema(
            r#",{"name":"n","type":"int","default":7},{"name":"o","type":["string","null"],"default":"x"},
               {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":1000}"#,
            r#",{"name":"b","type":"string","default":"deep"}"#,
        ),
    );
    let config = typed.config(&format!("{{catalog: lake, name: types.{topic}, format_version: 3}}"));
    let old = typed.register(&first);
    typed.send(old, &[[long(1), long(1)].concat(), [long(2), long(2)].concat()]);
    catch_up(&config);
    let new = typed.register(&second);
    typed.send(new, &[[long(3), long(3), text("b"), long(8), long(1), long(2)].concat()]);
    typed.send(old, &[[long(4), long(4)].concat()]);
    catch_up(&config);

    let defaults = |id: &str| {
        vec![
            id.to_owned(),
            format!("({id}, \"deep\")"),
            "7".into(),
            "x".into(),
            "1970-01-01 00:00:01.000000 UTC".into(),
        ]
    };
    let mut expected = vec![defaults("1"), defaults("2"), defaults("4")];
    expected.extend(owned(&[&["3", "(3, \"b\")", "8", "∅", "1970-01-01 00:00:00.002000 UTC"]]));
    let table = format!("types.{topic}");
    let sql = format!("SELECT id, n, o, s['b'] AS b FROM lake.{table} ORDER BY id");
    let output = firn(["sql", "-c", &config.display().to_string(), "--format", "csv", &sql]);
    let ours = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        ours.trim(),
        "id,n,o,b\n1,7,x,deep\n2,7,x,deep\n3,8,,b\n4,7,x,deep",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_same_rows(&typed.pyiceberg(&table), &expected);
    // Trino 483 knows the defaults of columns, and not those of fields inside of them.
    let in_trino = |row: &Vec<String>| {
        let older = ["1", "2"].contains(&row[0].as_str());
        row.iter().map(|cell| if older { cell.replace("\"deep\"", "∅") } else { cell.clone() }).collect()
    };
    assert_same_rows(&typed.trino(&table, "*"), &expected.iter().map(in_trino).collect::<Vec<_>>());
    let found = typed.stack.trino.query(&format!("SELECT id FROM sqlite.{table} WHERE n = 7 AND o = 'x'"));
    assert_same_rows(&found, &owned(&[&["1"], &["2"], &["4"]]));
}

#[test]
fn no_engine_reads_a_date_that_became_a_timestamp_wrong() {
    if !wanted() {
        return;
    }
    let typed = Typed::new("dates");
    let (topic, trino) = (&typed.topic, &typed.stack.trino);
    let schema = |kind: &str| {
        format!(
            r#"{{"type":"record","name":"Typed","namespace":"test","fields":[{{"name":"id","type":"long"}},
                {{"name":"d","type":{{"type":{kind}}}}}]}}"#
        )
    };
    let config = typed.config(&format!("{{catalog: lake, name: types.{topic}, format_version: 3}}"));
    let (day, noon) = (86_400_000_000, 43_200_000_000);
    let old = typed.register(&schema(r#""int","logicalType":"date""#));
    typed.send(old, &[[long(1), long(20_000)].concat(), [long(2), long(-1)].concat()]);
    catch_up(&config);
    let new = typed.register(&schema(r#""long","logicalType":"local-timestamp-micros""#));
    typed.send(new, &[[long(3), long(21_000 * day + noon)].concat()]);
    typed.send(old, &[[long(4), long(21_001)].concat()]);
    catch_up(&config);

    let sql = format!("SELECT id, d FROM lake.types.{topic} WHERE d < TIMESTAMP '2027-07-02 00:00:00' ORDER BY id");
    let output = firn(["sql", "-c", &config.display().to_string(), "--format", "csv", &sql]);
    let ours = String::from_utf8(output.stdout).unwrap();
    let expected = "id,d\n1,2024-10-04T00:00:00\n2,1969-12-31T00:00:00\n3,2027-07-01T12:00:00";
    assert_eq!(ours.trim(), expected, "{}", String::from_utf8_lossy(&output.stderr));

    let table = format!("types.{topic}");
    assert_same_rows(&typed.trino(&table, "id"), &owned(&[&["1"], &["2"], &["3"], &["4"]]));
    let newer = format!("SELECT id, d FROM sqlite.{table} WHERE d > TIMESTAMP '2027-01-01 00:00:00'");
    let rows = [["3", "2027-07-01 12:00:00.000000"], ["4", "2027-07-02 00:00:00.000000"]];
    assert_same_rows(&trino.query(&newer), &rows.map(|row| row.map(str::to_owned).to_vec()));
    // With the bounds of old files as dates, these answers were empty: Trino took days for microseconds.
    for filter in ["d = TIMESTAMP '2024-10-04 00:00:00'", "d < TIMESTAMP '2024-01-01 00:00:00'", "id = 1"] {
        let failed = trino.try_answer(&format!("SELECT id, d FROM sqlite.{table} WHERE {filter}")).unwrap_err();
        assert!(failed.contains("Unsupported Trino column type (timestamp(6))"), "{filter}: {failed}");
    }
    let catalog = typed.stack.pyiceberg_catalog(Catalog::Sqlite);
    let read = std::panic::AssertUnwindSafe(|| typed.stack.pyiceberg_rows(&catalog, &table, None));
    let failed = std::panic::catch_unwind(read);
    assert!(failed.is_err(), "pyiceberg reads dates as timestamps by now: {failed:?}");
}

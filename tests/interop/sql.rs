//! The filed queries of `tests/queries`, answered by `firn sql` and by Trino on the same tables.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::temporal_conversions::{date32_to_datetime, time64us_to_time, timestamp_us_to_datetime};
use firn::embedded::Market;
use firn::embedded::market::{KEY_SCHEMA, VALUE_SCHEMA};
use firn::query::Engine;
use firn::settings::Settings;
use futures::TryStreamExt;

use crate::kafka::{Compression, Record};
use crate::orders;
use crate::process::{catch_up, firn};
use crate::rows::{NULL, difference};
use crate::stack::{Catalog, Stack, block_on, unique};
use crate::trino::Answer;
use crate::wanted;

const KEYS: u64 = 2_000;
const ORDERS: u64 = 60;

/// Both tables that the queries speak of, in a namespace of their own.
struct Tables {
    stack: &'static Stack,
    namespace: String,
    config: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tables {
    fn write() -> Tables {
        let (stack, namespace, dir) = (Stack::get(), unique("filed"), tempfile::tempdir().unwrap());
        let (trades, orders) = (format!("{namespace}_trades"), format!("{namespace}_orders"));
        stack.kafka.create_topic(&trades, 4, &[]);
        stack.kafka.create_topic(&orders, 2, &[]);
        let config = dir.path().join("firn.yaml");
        let text = format!(
            "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs: {{lake: {}}}\npipelines:\n\
             \x20 {trades}:\n    topics: [{trades}]\n    tables: [{{catalog: lake, name: {namespace}.trades, format_version: 3}}]\n\
             \x20 {orders}:\n    topics: [{orders}]\n    key: [order_id]\n    tables: [{{catalog: lake, name: {namespace}.orders, format_version: 2}}]\n\
             state_dir: ./state\n",
            stack.kafka.plaintext,
            stack.registry.url,
            stack.firn_catalog(Catalog::Sqlite)
        );
        std::fs::write(&config, text).unwrap();
        let value = stack.registry.register(&format!("{trades}-value"), VALUE_SCHEMA);
        let key = stack.registry.register(&format!("{trades}-key"), KEY_SCHEMA);
        let mut market = Market::new(7, KEYS, 0.05).with_schema_ids(value, key);
        let encoder = stack.registry.encoder(&format!("{orders}-value"), orders::SCHEMA);
        // the second round supersedes rows of the first, in both tables
        for round in 0..2 {
            let records: Vec<_> = (0..4_000).map(|_| traded(&mut market)).collect();
            stack.kafka.produce(&trades, &records, Compression::Lz4);
            let numbers = (0..ORDERS).filter(|n| round == 0 || n % 3 == 0);
            let placed = |n: u64| Record {
                partition: (n % 2) as i32,
                value: Some(encoder.encode(orders::order(n, round))),
                ..Record::default()
            };
            stack.kafka.produce(&orders, &numbers.map(placed).collect::<Vec<_>>(), Compression::None);
            catch_up(&config);
        }
        Tables { stack, namespace, config, _dir: dir }
    }

    /// A query's two spellings, on these tables.
    fn spellings(&self, text: &str) -> (String, String) {
        let (mut firn, mut trino, mut side) = (String::new(), String::new(), 0);
        for line in text.lines() {
            match line.trim() {
                "-- firn:" => side = 1,
                "-- trino:" => side = 2,
                line if line.starts_with("--") => {}
                line => {
                    if side != 2 {
                        firn.push_str(&format!("{line}\n"));
                    }
                    if side != 1 {
                        trino.push_str(&format!("{line}\n"));
                    }
                }
            }
        }
        let ours = format!("lake.{}.", self.namespace);
        let theirs = format!("{}.{}.", Catalog::Sqlite.name(), self.namespace);
        (firn.replace("lake.market.", &ours), trino.replace("lake.market.", &theirs))
    }
}

fn traded(market: &mut Market) -> Record {
    let event = market.next_event();
    Record {
        partition: (event.id % 4) as i32,
        key: Some(event.key.to_vec()),
        value: event.value.map(<[u8]>::to_vec),
        timestamp: Some(event.ts),
        ..Record::default()
    }
}

fn filed() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queries");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    files
}

async fn answer(engine: &Engine, sql: &str) -> Result<Answer, String> {
    let answer = engine.query(sql).await.map_err(|e| e.to_string())?;
    let columns = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
    let types = answer.schema.fields().iter().map(|field| type_name(field)).collect();
    let batches: Vec<RecordBatch> = answer.stream.try_collect().await.map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    for batch in batches {
        let fields = batch.schema();
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(fields.fields());
            rows.push(cells.map(|(column, field)| cell(column, field, row, false)).collect());
        }
    }
    Ok(Answer { columns, types, rows })
}

fn is_uuid(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.uuid")
}

/// A column's type as Trino names it.
fn type_name(field: &Field) -> String {
    let child = |field: &Field| type_name(field);
    match field.data_type() {
        DataType::FixedSizeBinary(16) if is_uuid(field) => "uuid".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "varbinary".into()
        }
        DataType::Date32 => "date".into(),
        DataType::Time64(TimeUnit::Microsecond) => "time(6)".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp(6)".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp(6) with time zone".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::List(element) => format!("array({})", child(element)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => format!("map({}, {})", child(&pair[0]), child(&pair[1])),
            other => format!("map of {other}"),
        },
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name(), child(field))).collect();
            format!("row({})", fields.join(", "))
        }
        other => format!("{other}"),
    }
}

/// What Trino says about lengths of texts and quotes names, left out.
fn plain(kind: &str) -> String {
    let lengths = regex::Regex::new(r"(var)?char\(\d+\)").unwrap();
    lengths.replace_all(kind, "varchar").replace('"', "")
}

fn cell(column: &dyn Array, field: &Field, row: usize, nested: bool) -> String {
    use arrow::datatypes as t;
    if column.is_null(row) {
        return NULL.to_owned();
    }
    let text = |text: &str| if nested { serde_json::Value::from(text).to_string() } else { text.to_owned() };
    let hex = |bytes: &[u8]| bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    match column.data_type() {
        DataType::FixedSizeBinary(16) if is_uuid(field) => {
            let bytes: [u8; 16] = column.as_fixed_size_binary().value(row).try_into().unwrap();
            uuid::Uuid::from_bytes(bytes).to_string()
        }
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<t::Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<t::Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<t::Int64Type>().value(row).to_string(),
        DataType::Float32 => {
            format!("{:?}", column.as_primitive::<t::Float32Type>().value(row)).replace("inf", "Infinity")
        }
        DataType::Float64 => {
            format!("{:?}", column.as_primitive::<t::Float64Type>().value(row)).replace("inf", "Infinity")
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Binary => hex(column.as_binary::<i32>().value(row)),
        DataType::BinaryView => hex(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => hex(column.as_fixed_size_binary().value(row)),
        DataType::Date32 => {
            date32_to_datetime(column.as_primitive::<t::Date32Type>().value(row)).unwrap().date().to_string()
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let time = time64us_to_time(column.as_primitive::<t::Time64MicrosecondType>().value(row));
            time.unwrap().format("%H:%M:%S%.6f").to_string()
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let time = timestamp_us_to_datetime(column.as_primitive::<t::TimestampMicrosecondType>().value(row));
            let zone = if zone.is_some() { " UTC" } else { "" };
            format!("{}{zone}", time.unwrap().format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        DataType::Decimal128(..) => column.as_primitive::<t::Decimal128Type>().value_as_string(row),
        DataType::List(element) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<_> = (0..items.len()).map(|i| cell(&items, element, i, true)).collect();
            format!("[{}]", items.join(", "))
        }
        DataType::Map(..) => {
            let pairs = column.as_map().value(row);
            let (keys, values) = (pairs.column(0), pairs.column(1));
            let (key, value) = (&pairs.fields()[0], &pairs.fields()[1]);
            let pair = |i| format!("{}={}", cell(keys, key, i, true), cell(values, value, i, true));
            let mut pairs: Vec<_> = (0..pairs.len()).map(pair).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns().iter().zip(fields);
            let cells: Vec<_> = columns.map(|(column, field)| cell(column, field, row, true)).collect();
            format!("({})", cells.join(", "))
        }
        // the types differ then, which says more
        other => format!("no text for {other}"),
    }
}

/// In what the two answers differ.
fn compared(ours: &Answer, theirs: &Answer, ordered: bool) -> Result<(), String> {
    if ours.columns != theirs.columns {
        return Err(format!("columns {:?}, trino {:?}", ours.columns, theirs.columns));
    }
    let (left, right): (Vec<_>, Vec<_>) =
        (ours.types.iter().map(|t| plain(t)).collect(), theirs.types.iter().map(|t| plain(t)).collect());
    if left != right {
        return Err(format!("types {left:?}, trino {right:?}"));
    }
    if let Some(difference) = difference(&ours.rows, &theirs.rows) {
        return Err(format!("rows differ ({}, trino {})\n{difference}", ours.rows.len(), theirs.rows.len()));
    }
    if ordered && ours.rows != theirs.rows {
        return Err("the same rows in another order".into());
    }
    Ok(())
}

#[test]
fn every_filed_query_is_answered_as_trino_answers_it() {
    if !wanted() {
        return;
    }
    let tables = Tables::write();
    let settings = Settings::load(&tables.config).unwrap();
    let engine = block_on(firn::service::open_engine(&settings)).unwrap();
    let (mut wrong, mut same, mut with_rows) = (Vec::new(), 0, 0);
    for file in filed() {
        let text = std::fs::read_to_string(&file).unwrap();
        let ordered = text.starts_with("-- ordered");
        let (firn, trino) = tables.spellings(&text);
        let ours = block_on(answer(&engine, &firn));
        let theirs = tables.stack.trino.try_answer(&trino);
        let outcome = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => compared(ours, theirs, ordered),
            (ours, theirs) => Err(format!(
                "ours: {}; trino's: {}",
                ours.as_ref().err().map_or("an answer", |e| e),
                theirs.as_ref().err().map_or("an answer", |e| e)
            )),
        };
        match outcome {
            Ok(()) => {
                same += 1;
                with_rows += usize::from(ours.is_ok_and(|answer| !answer.rows.is_empty()));
            }
            Err(reason) => wrong.push(format!("{}: {reason}", file.file_name().unwrap().display())),
        }
    }
    assert!(wrong.is_empty(), "{} differ, {same} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(with_rows >= 60, "only {with_rows} of {same} queries returned rows");
    the_program_prints_the_same(&tables);
}

/// `firn sql` itself, in both text formats.
fn the_program_prints_the_same(tables: &Tables) {
    let sql = "SELECT symbol, count(*) AS n, max(qty) AS most FROM lake.market.trades GROUP BY symbol";
    let (ours, theirs) = tables.spellings(sql);
    let config = tables.config.display().to_string();
    let printed = |format: &str| {
        let output = firn(["sql", "-c", &config, "--format", format, &ours]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = tables.stack.trino.query(&theirs);
    let csv = printed("csv");
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("symbol,n,most"));
    let rows: Vec<Vec<String>> = lines.map(|line| line.split(',').map(str::to_owned).collect()).collect();
    assert_eq!(difference(&rows, &expected), None);
    let json = printed("json");
    let rows: Vec<Vec<String>> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| vec![row["symbol"].as_str().unwrap().into(), row["n"].to_string(), row["most"].to_string()])
        .collect();
    assert_eq!(difference(&rows, &expected), None);
}

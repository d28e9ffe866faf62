//! What reading costs per stored row as the share of deleted rows grows: `cargo bench --bench scan`.
//!
//! Five files of a million rows each, as Firn's writer encodes them; the figure is CPU time of the process, best of
//! three, footers and deletion vectors already read.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops at the first surprise")]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use firn::core::schema::{Field, TableSchema, Type, to_arrow};
use firn::query::scan::{DataFile, Deletes, Scan};
use firn::query::{Engine, Limits};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use roaring::RoaringBitmap;

const FILES: usize = 5;
const ROWS: u32 = 1_000_000;
const STEP: i64 = 50_000;
const RUNS: usize = 3;

const QUERIES: [(&str, &str); 5] = [
    ("count(*)", "SELECT count(*) FROM lake.market.trades"),
    ("count(*) where", "SELECT count(*) FROM lake.market.trades WHERE symbol <> ''"),
    ("sum(qty)", "SELECT sum(qty) FROM lake.market.trades"),
    ("group by", "SELECT symbol, sum(qty), max(price) FROM lake.market.trades GROUP BY symbol"),
    ("all columns", "SELECT * FROM lake.market.trades"),
];

fn schema() -> TableSchema {
    let field = |name: &str, kind: Type| Field::new(name, kind, false);
    let mut schema = TableSchema {
        fields: vec![
            field("symbol", Type::String),
            Field::new("id", Type::Long, true),
            field("event_type", Type::String),
            field("price", Type::Double),
            field("bid", Type::Double),
            field("ask", Type::Double),
            field("qty", Type::Long),
            field("venue", Type::String),
            field("ts", Type::Timestamp { utc: true }),
        ],
        key: vec!["id".into()],
    };
    schema.number();
    schema
}

/// xorshift64*: the same data on every machine.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

fn batch(schema: &TableSchema, from: i64, state: &mut u64) -> RecordBatch {
    let mut numbers = |below: u64| (0..STEP).map(|_| random(state) % below).collect::<Vec<_>>();
    let text = |values: Vec<u64>, prefix: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values.into_iter().map(|v| format!("{prefix}{v}"))))
    };
    let price = |values: Vec<u64>| -> ArrayRef {
        let cents = values.into_iter().map(|v| (v % 8 != 0).then_some(v as f64 / 100.0));
        Arc::new(cents.collect::<Float64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(numbers(500), "SYM"),
        Arc::new(Int64Array::from_iter_values(from..from + STEP)),
        text(numbers(2), "TYPE"),
        price(numbers(100_000)),
        price(numbers(100_000)),
        price(numbers(100_000)),
        Arc::new(Int64Array::from_iter_values(numbers(10_000).into_iter().map(|v| v as i64))),
        text(numbers(12), "VENUE"),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..STEP).map(|i| 1_767_225_600_000_000 + (from + i) * 1000))
                .with_timezone("+00:00"),
        ),
    ];
    RecordBatch::try_new(Arc::new(to_arrow(schema)), columns).unwrap()
}

fn write_file(path: &std::path::Path, schema: &TableSchema, first: i64) -> u64 {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_max_row_group_row_count(Some(262_144))
        .build();
    let out = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(out, Arc::new(to_arrow(schema)), Some(properties)).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ first as u64;
    for from in (first..first + i64::from(ROWS)).step_by(STEP as usize) {
        writer.write(&batch(schema, from, &mut state)).unwrap();
    }
    writer.close().unwrap();
    std::fs::metadata(path).unwrap().len()
}

#[derive(Debug)]
struct Vectors(Vec<Arc<RoaringBitmap>>);

#[async_trait]
impl Deletes for Vectors {
    async fn positions(&self, file: usize) -> firn::Result<Arc<RoaringBitmap>> {
        Ok(self.0[file].clone())
    }
}

fn vectors(percent: u64) -> Vec<Arc<RoaringBitmap>> {
    let mut state = 88_172_645_463_325_252;
    let one = |_| Arc::new((0..ROWS).filter(|_| random(&mut state) % 100 < percent).collect::<RoaringBitmap>());
    (0..FILES).map(one).collect()
}

/// CPU seconds that the process has used.
fn cpu() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct it is given, and RUSAGE_SELF is always valid.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

async fn cost(engine: &Engine, sql: &str) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..=RUNS {
        let before = cpu();
        let mut stream = engine.query(sql).await.unwrap().stream;
        while stream.try_next().await.unwrap().is_some() {}
        best = best.min(cpu() - before);
    }
    best * 1e9 / (FILES as f64 * f64::from(ROWS))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Arc::new(schema());
    let files: Vec<(Path, u64)> = (0..FILES)
        .map(|i| {
            let path = folder.path().join(format!("{i}.parquet"));
            let bytes = write_file(&path, &schema, i as i64 * i64::from(ROWS));
            (Path::from_absolute_path(&path).unwrap(), bytes)
        })
        .collect();
    println!(
        "{FILES} files of {ROWS} rows, {} MB; CPU ns per stored row",
        files.iter().map(|f| f.1).sum::<u64>() >> 20
    );
    print!("| deleted |");
    QUERIES.iter().for_each(|(name, _)| print!(" {name} |"));
    println!();
    for percent in [0, 1, 20, 80] {
        let vectors = if percent == 0 { vec![Arc::default(); FILES] } else { vectors(percent) };
        let files = files.iter().zip(&vectors).map(|((key, bytes), vector)| DataFile {
            key: key.clone(),
            bytes: *bytes,
            records: u64::from(ROWS),
            has_deletes: !vector.is_empty(),
            deleted: Some(vector.len()),
            columns: HashMap::new(),
            buckets: Vec::new(),
            constants: Vec::new(),
        });
        let scan = Scan {
            name: "lake.market.trades".into(),
            schema: schema.clone(),
            files: files.collect(),
            deletes: Arc::new(Vectors(vectors)),
            store: Arc::new(LocalFileSystem::new()),
            naming: firn::files::Naming::ById,
            constant: Vec::new(),
        };
        let engine = Engine::new(Vec::new(), Limits::default()).unwrap().with_scan("lake", "market", "trades", scan);
        print!("| {percent} % |");
        for (_, sql) in QUERIES {
            print!(" {:.1} |", cost(&engine, sql).await);
        }
        println!();
    }
}

//! How long a commit takes as a table's history grows, with every snapshot kept: `cargo bench --bench commit`, or with one of
//! `-- v3`, `-- v2` and `-- delta` after it.
//!
//! Each commit adds one data file and supersedes rows of three files chosen from all earlier ones.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use firn::core::offsets::{Position, Start, TopicPositions, Vector};
use firn::core::schema::{Field, TableSchema, Type, to_arrow};
use firn::table::delta::{DeltaCatalog, DeltaConfig};
use firn::table::iceberg::{CatalogConfig, CatalogKind, TableSpec, open_catalog};
use firn::table::{Change, LakeTable, NewRows, Outcome};
use roaring::RoaringBitmap;

const COMMITS: usize = 1000;
const ROWS: i64 = 1000;

fn vector(next: i64) -> Vector {
    let position = |_| Position { start: Start { offset: 0, earliest: true }, from: next, next };
    let partitions = (0..4).map(|p| (p, position(p))).collect();
    let topics =
        BTreeMap::from([(Arc::from("0aBcDeFgHiJkLmNoPqRsTu"), TopicPositions { name: "trades".into(), partitions })]);
    Vector { cluster: "4L6g3nShT-eMCtK--X86sw".into(), topics }
}

/// Processor time of this process so far: on a busy machine it says more than the clock.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes to `time`, which outlives it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

async fn table(folder: &std::path::Path, format: &str) -> Arc<dyn LakeTable> {
    let mut schema = TableSchema {
        fields: vec![Field::new("id", Type::Long, true), Field::new("n", Type::Long, false)],
        key: vec!["id".into()],
    };
    schema.number();
    let format_version = if format == "v3" { 3 } else { 2 };
    let (partition_by, sort_by) = (vec![], vec![]);
    let spec = TableSpec { schema, format_version, partition_by, sort_by, pipeline: "bench".into() };
    if format == "delta" {
        let warehouse = folder.join("warehouse").to_string_lossy().into_owned();
        let config = DeltaConfig { name: "lake".into(), warehouse, properties: BTreeMap::new() };
        let catalog = DeltaCatalog::open(&config).unwrap();
        return Arc::new(catalog.create_table(&["market".into()], "trades", spec).await.unwrap());
    }
    let config = CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Sqlite { path: folder.join("catalog.db") },
        warehouse: Some(folder.join("warehouse").to_string_lossy().into_owned()),
        properties: BTreeMap::new(),
    };
    let catalog = open_catalog(config).await.unwrap();
    Arc::new(catalog.create_table(&["market".into()], "trades", spec).await.unwrap())
}

async fn run(format: &str) {
    let folder = tempfile::tempdir().unwrap();
    let table = table(folder.path(), format).await;
    let mut base = table.load(None).await.unwrap().snapshot;
    let mut paths: Vec<Arc<str>> = Vec::new();
    let (mut times, mut cpus) = (Vec::new(), Vec::new());
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    for commit in 0..COMMITS {
        let from = commit as i64 * ROWS;
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + ROWS));
        let batch = RecordBatch::try_new(Arc::new(to_arrow(&table.schema())), vec![ids.clone(), ids]).unwrap();
        let attempt = format!("bench-{commit}");
        let files = table.write(&attempt, NewRows { batches: vec![batch], schema_change: None }).await.unwrap();
        let mut superseded: BTreeMap<Arc<str>, RoaringBitmap> = BTreeMap::new();
        for _ in 0..3usize.min(paths.len()) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let path = paths[(random % paths.len() as u64) as usize].clone();
            superseded.entry(path).or_default().insert((commit as u32 * 7) % ROWS as u32);
        }
        let added = files.iter().map(|f| Arc::from(f.path.as_str())).collect::<Vec<_>>();
        let change = Change {
            base,
            attempt,
            pipeline: "bench".into(),
            files,
            superseded: superseded.into_iter().collect(),
            schema_change: None,
            vector: vector(from + ROWS),
            now_ms: 1_790_000_000_000 + from,
            pins: None,
            reason: None,
        };
        let (start, busy) = (Instant::now(), cpu());
        let outcome = table.commit(change).await;
        times.push(start.elapsed());
        cpus.push(cpu() - busy);
        let Outcome::Committed(view) = outcome else { panic!("{outcome:?}") };
        base = view.snapshot;
        paths.extend(added);
    }
    for (what, all) in [("elapsed", &times), ("cpu", &cpus)] {
        let (early, late) = (median(&all[10..60]), median(&all[COMMITS - 50..]));
        let ratio = late.as_secs_f64() / early.as_secs_f64();
        let most = all.iter().max().unwrap();
        println!(
            "{format} {what}: commits 11-60 median {early:.1?}, 951-1000 {late:.1?} ({ratio:.2}x), slowest {most:.1?}"
        );
    }
    for (i, (times, cpus)) in times.chunks(100).zip(cpus.chunks(100)).enumerate() {
        let (from, to) = (i * 100 + 1, (i + 1) * 100);
        println!("  commits {from:>4}-{to:<4} median elapsed {:.1?}, cpu {:.1?}", median(times), median(cpus));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let asked: Vec<String> = std::env::args().collect();
        let all = ["v3", "v2", "delta"];
        for format in
            all.into_iter().filter(|f| asked.iter().any(|a| a == f) || !asked.iter().any(|a| all.contains(&a.as_str())))
        {
            run(format).await;
        }
    });
}

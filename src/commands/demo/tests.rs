use std::collections::BTreeMap;
use std::io;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use futures::TryStreamExt;

use super::*;
use crate::embedded::producer::partition_of;
use crate::files::read_rows;
use crate::table::iceberg::{IcebergTable, OFFSETS, REASON};

const SOME: u64 = 20_000;
/// When the market opens in a test.
const OPENING: u64 = 1_767_623_400_000;

/// A row as the table must hold it. Prices are bits: equal means equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: i64,
    symbol: String,
    event_type: String,
    price: Option<u64>,
    bid: Option<u64>,
    ask: Option<u64>,
    qty: Option<i64>,
    venue: String,
    ts_ms: i64,
    partition: i32,
    offset: i64,
}

/// The fold of a demo's events, made without any of the code that the demo runs but the generator.
#[derive(Debug, Default)]
struct Fold {
    rows: BTreeMap<i64, Row>,
    tombstones: u64,
}

impl Fold {
    fn take(&mut self, seed: u64, events: u64) {
        let mut market = market(seed, (1, 2));
        let mut offsets = [0i64; PARTITIONS as usize];
        self.tombstones = 0;
        for _ in 0..events {
            let event = market.next_event();
            let partition = partition_of(event.id, PARTITIONS);
            let offset = offsets[partition as usize];
            offsets[partition as usize] += 1;
            let Some(tick) = event.tick else {
                self.tombstones += 1;
                self.rows.remove(&event.id);
                continue;
            };
            let row = Row {
                id: tick.id,
                symbol: tick.symbol.into(),
                event_type: tick.event_type.symbol().into(),
                price: tick.price.map(f64::to_bits),
                bid: tick.bid.map(f64::to_bits),
                ask: tick.ask.map(f64::to_bits),
                qty: tick.qty,
                venue: tick.venue.into(),
                ts_ms: tick.ts,
                partition,
                offset,
            };
            self.rows.insert(event.id, row);
        }
    }
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let text = |name: &str, i| column(name).as_string::<i32>().value(i).to_owned();
    let long = |name: &str, i| column(name).is_valid(i).then(|| column(name).as_primitive::<Int64Type>().value(i));
    let bits =
        |name: &str, i| column(name).is_valid(i).then(|| column(name).as_primitive::<Float64Type>().value(i).to_bits());
    let lineage = column("_kafka").as_struct();
    let partitions = lineage.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
    let offsets = lineage.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
    let micros = arrow::compute::cast(column("ts"), &DataType::Int64).unwrap();
    let micros = micros.as_primitive::<Int64Type>();
    (0..batch.num_rows())
        .map(|i| Row {
            id: long("id", i).unwrap(),
            symbol: text("symbol", i),
            event_type: text("event_type", i),
            price: bits("price", i),
            bid: bits("bid", i),
            ask: bits("ask", i),
            qty: long("qty", i),
            venue: text("venue", i),
            ts_ms: micros.value(i) / 1_000,
            partition: partitions.value(i),
            offset: offsets.value(i),
        })
        .collect()
}

/// The demo's table, opened by the settings that it left.
async fn table(dir: &Path) -> IcebergTable {
    let settings = Settings::load(&dir.join("firn.yaml")).unwrap();
    let table = &settings.pipelines[PIPELINE].tables[0];
    let catalog = service::open_catalog(&settings.catalogs[&table.catalog]).await.unwrap();
    let table = catalog.load_table(&table.namespace, &table.name).await.unwrap().expect("the demo made its table");
    table.load(None).await.unwrap();
    table
}

/// All rows, sorted, read file by file without the query engine.
async fn rows(dir: &Path) -> Vec<Row> {
    let table = table(dir).await;
    let plan = table.plan_scan(None).await.unwrap();
    let columns: Vec<String> = plan.schema.fields.iter().map(|field| field.name.clone()).collect();
    let mut rows = Vec::new();
    for file in &plan.files {
        let deleted = table.load_deletes(file).await.unwrap();
        let stream = read_rows(table.store(), file.path(), &plan.schema, &columns, deleted).await.unwrap();
        for part in stream.try_collect::<Vec<_>>().await.unwrap() {
            rows.extend(rows_of(&part.columns));
        }
    }
    rows.sort();
    rows
}

async fn run(dir: &Path, seed: u64, events: u64) -> (Report, String) {
    let args = DemoArgs { dir: dir.to_owned(), exit: true, events: Some(events) };
    let mut out = Vec::new();
    let mut line = Line::new(Box::new(io::sink()), false);
    let report = perform(&args, seed, &mut out, &mut line, &CancellationToken::new()).await.unwrap();
    (report, String::from_utf8(out).unwrap())
}

/// The number that the closing report prints before `what`.
fn printed(text: &str, what: &str) -> u64 {
    let line = text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}` in\n{text}"));
    line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_demos_in_one_folder_leave_the_fold_of_both_and_say_so() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("demo");
    let mut fold = Fold::default();

    let (first, text) = run(&dir, OPENING, SOME).await;
    fold.take(OPENING, SOME);
    assert_eq!(rows(&dir).await, fold.rows.values().cloned().collect::<Vec<_>>());
    let after_first = fold.rows.len() as u64;
    assert!(fold.tombstones > 300, "the events hold deletions");
    assert_eq!((first.events, first.tombstones, first.committed), (SOME, fold.tombstones, SOME));
    assert_eq!(first.rows, after_first);
    assert!(!text.contains("Found "), "{text}");
    assert_eq!(printed(&text, "events in,"), SOME);
    assert_eq!(printed(&text, "rows in the table"), after_first);
    assert_eq!(printed(&text, "commits"), first.commits);

    let (second, text) = run(&dir, OPENING + 60_000, SOME).await;
    fold.take(OPENING + 60_000, SOME);
    assert_eq!(rows(&dir).await, fold.rows.values().cloned().collect::<Vec<_>>());
    assert_eq!(second.rows, fold.rows.len() as u64);
    assert!(second.superseded > 1_000, "{second:?}");
    assert_eq!(printed(&text, "superseded rows"), second.superseded);
    assert_eq!(printed(&text, "rows, last commit"), after_first);
    assert!(text.contains("(20,000 events)"), "{text}");
    for name in ["AAPL", "AMZN", "GOOGL", "NVDA", "TSLA"] {
        let newest = fold.rows.values().filter(|row| row.symbol == name).map(|row| row.ts_ms).max().unwrap();
        assert!(newest > OPENING as i64 + 60_000, "a row of the second demo");
        assert!(text.lines().any(|line| line.contains(name) && line.contains(&format!(".{:03}", newest % 1_000))));
    }
    only_one_epoch_was_opened(&dir).await;
}

/// The empty commit between the two demos carries a position at 0 and says why.
async fn only_one_epoch_was_opened(dir: &Path) {
    let metadata = table(dir).await.metadata();
    let opened: Vec<_> =
        metadata.snapshots().filter(|s| s.summary().additional_properties.contains_key(REASON)).collect();
    let [epoch] = opened.as_slice() else { panic!("{} epochs", opened.len()) };
    let summary = &epoch.summary().additional_properties;
    assert_eq!(summary[REASON], EPOCH_REASON);
    let vector = Vector::from_json(&summary[OFFSETS]).unwrap();
    assert_eq!(vector.iter().filter(|(_, position)| position.next == 0).count(), PARTITIONS as usize);
    assert_eq!(summary.get("added-records").map_or("0", String::as_str), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_stopped_has_committed_what_it_produced() {
    let temp = tempfile::tempdir().unwrap();
    let args = DemoArgs { dir: temp.path().to_owned(), exit: false, events: Some(3_000) };
    let stop = CancellationToken::new();
    let (mut out, mut line) = (Vec::new(), Line::new(Box::new(io::sink()), false));
    let stopping = {
        let stop = stop.clone();
        let dir = temp.path().to_owned();
        tokio::spawn(async move {
            // Some commits after the first answers, so that it is stopped while it goes on.
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let settings = Settings::load(&dir.join("firn.yaml"));
                let grown =
                    settings.is_ok() && dir.join("data/catalog.db").exists() && committed_in(&dir).await > 3_500;
                if grown || Instant::now() > deadline {
                    break stop.cancel();
                }
            }
        })
    };
    let report = perform(&args, OPENING, &mut out, &mut line, &stop).await.unwrap();
    stopping.await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(report.events > 3_500, "{report:?}");
    assert!(text.contains("Going on at 1,000 events a second, until Ctrl-C."), "{text}");
    assert!(text.contains("Stopped: ") && !text.contains("not committed"), "{text}");
    let mut fold = Fold::default();
    fold.take(OPENING, report.events);
    assert_eq!(rows(temp.path()).await, fold.rows.values().cloned().collect::<Vec<_>>());
}

/// Events in the table's position.
async fn committed_in(dir: &Path) -> i64 {
    let settings = Settings::load(&dir.join("firn.yaml")).unwrap();
    let table = &settings.pipelines[PIPELINE].tables[0];
    let Ok(catalog) = service::open_catalog(&settings.catalogs[&table.catalog]).await else { return 0 };
    let Ok(Some(table)) = catalog.load_table(&table.namespace, &table.name).await else { return 0 };
    match table.load(None).await.map(|view| view.history.vector(None)) {
        Ok(VectorRead::Found(vector)) => vector.iter().map(|(_, position)| position.next).sum(),
        _ => 0,
    }
}

#[tokio::test]
async fn a_demo_of_nothing_is_refused_before_anything_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("demo");
    let args = DemoArgs { dir: dir.clone(), exit: true, events: Some(0) };
    let mut line = Line::new(Box::new(io::sink()), false);
    let refused = perform(&args, OPENING, &mut Vec::new(), &mut line, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(!dir.exists());
}

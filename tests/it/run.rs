//! Pipelines from end to end on the embedded broker and registry, and the operators' commands on their tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use firn::commands::{self, CheckArgs, OffsetsSetArgs, OffsetsShowArgs};
use firn::embedded::{Broker, Registry};
use firn::files::read_rows;
use firn::query::Format;
use firn::service::{self, Patience, Progress, RunOptions};
use firn::settings::Settings;
use firn::{Error, Result};
use futures::TryStreamExt;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::contract::{Row, to_rows};

pub const V1: &str = r#"{"type": "record", "name": "Trade", "fields": [
    {"name": "id", "type": "long"}, {"name": "venue", "type": "string"}, {"name": "n", "type": "long"}]}"#;
/// A later version of the schema, with one column more.
pub const V2: &str = r#"{"type": "record", "name": "Trade", "fields": [
    {"name": "id", "type": "long"}, {"name": "venue", "type": "string"}, {"name": "n", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": null}]}"#;

/// What is there is waited for, however slow the machine is.
const PATIENT: Patience = Patience { unreachable: MINUTE, topic: MINUTE, subject: MINUTE };
const MINUTE: Duration = Duration::from_secs(60);
/// A topic or a subject that never comes is not waited for.
pub const IMPATIENT: Patience = Patience { topic: Duration::ZERO, subject: Duration::ZERO, ..PATIENT };

pub struct World {
    pub folder: TempDir,
    pub broker: Broker,
    pub registry: Option<Registry>,
    pub registry_url: String,
}

/// A `long` as Avro writes it.
pub fn long(n: i64) -> Vec<u8> {
    let mut n = ((n << 1) ^ (n >> 63)) as u64;
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A trade as schema `schema` writes it.
pub fn trade(schema: u32, id: i64, n: i64) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(schema.to_be_bytes());
    body.extend(long(id));
    body.extend(long(4));
    body.extend(b"XNAS");
    body.extend(long(n));
    if schema == 2 {
        body.extend(long(1));
        body.extend(long(2));
        body.extend(b"hi");
    }
    body
}

impl World {
    pub async fn new() -> World {
        let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        assert_eq!(registry.register("trades-value", V1).unwrap(), 1);
        let world = World {
            folder: tempfile::tempdir().unwrap(),
            broker: Broker::start(&[("trades".into(), 2)]).unwrap(),
            registry_url: registry.url(),
            registry: Some(registry),
        };
        world.write_settings("stop");
        world
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("firn.yaml")
    }

    pub fn write_settings(&self, on_bad_record: &str) {
        self.write_settings_for(self.broker.bootstrap_servers(), "trades", on_bad_record);
    }

    pub fn write_settings_for(&self, brokers: &str, topic: &str, on_bad_record: &str) {
        let text = format!(
            "kafka: {{brokers: '{brokers}'}}\nschema_registry: {{url: '{}'}}\n\
             catalogs: {{lake: {{type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}}}\n\
             pipelines:\n  p:\n    topics: [{topic}]\n    key: [id]\n    on_bad_record: {on_bad_record}\n    \
             commit: {{interval: 200ms}}\n    tables: [{{catalog: lake, name: market.trades, format_version: 3}}]\n",
            self.registry_url
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn send(&self, partition: i32, values: &[Vec<u8>]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        for value in values {
            producer.send(BaseRecord::<(), _>::to("trades").partition(partition).payload(value)).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    pub async fn catch_up(&self) -> Result<()> {
        self.catch_up_with(PATIENT).await
    }

    /// The same, for what is not going to be there.
    pub async fn catch_up_with(&self, patience: Patience) -> Result<()> {
        let options = RunOptions { until_caught_up: true, patience, ..RunOptions::default() };
        let settings = Settings::load(&self.config()).unwrap();
        let stop = CancellationToken::new();
        let run = service::run(&settings, &options, &stop);
        tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends by itself")
    }

    pub async fn rows(&self) -> Vec<Row> {
        let settings = Settings::load(&self.config()).unwrap();
        let catalog = service::open_catalog(&settings.catalogs["lake"]).await.unwrap();
        let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap();
        let plan = table.plan_scan(None).await.unwrap();
        let columns = ["id", "venue", "n"].map(str::to_owned);
        let mut rows = Vec::new();
        for file in &plan.files {
            let deleted = table.load_deletes(file).await.unwrap();
            let stream = read_rows(table.store(), file.path(), &plan.schema, &columns, deleted).await.unwrap();
            for batch in stream.try_collect::<Vec<_>>().await.unwrap() {
                rows.extend(to_rows(&batch.columns));
            }
        }
        rows.sort();
        rows
    }

    pub async fn ids(&self) -> Vec<i64> {
        self.rows().await.into_iter().map(|(id, ..)| id).collect()
    }

    pub async fn show(&self) -> (serde_json::Value, Result<()>) {
        let mut out = Vec::new();
        let ended =
            commands::offsets_show(OffsetsShowArgs { config: self.config(), format: Format::Json }, &mut out).await;
        let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
        (shown["tables"][0].clone(), ended)
    }

    /// Next and lag of both partitions.
    pub async fn positions(&self) -> Vec<(i64, i64)> {
        let (table, ended) = self.show().await;
        ended.unwrap();
        let number = |p: &serde_json::Value, key: &str| p[key].as_i64().unwrap();
        table["partitions"].as_array().unwrap().iter().map(|p| (number(p, "next"), number(p, "lag"))).collect()
    }

    pub async fn check(&self) -> (String, Result<()>) {
        let mut out = Vec::new();
        let ended = commands::check(CheckArgs { config: self.config(), verbose: false }, &mut out).await;
        (String::from_utf8(out).unwrap(), ended)
    }

    pub async fn set(&self, args: OffsetsSetArgs) -> Result<String> {
        let mut out = Vec::new();
        let args = OffsetsSetArgs { config: self.config(), pipeline: "p".into(), reason: "a test".into(), ..args };
        commands::offsets_set(args, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }
}

fn code(ended: &Result<()>) -> u8 {
    ended.as_ref().err().map_or(0, Error::exit_code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_stops_after_what_came_before_it_and_skip_goes_on_to_the_end() {
    let world = World::new().await;
    world.send(0, &(0..5).map(|id| trade(1, id, 1)).collect::<Vec<_>>());
    world.send(0, &[b"\x07rubbish".to_vec()]);
    world.send(0, &(5..8).map(|id| trade(1, id, 1)).collect::<Vec<_>>());
    let error = world.catch_up().await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    for part in ["trades/0", "offset 5", "magic", "on_bad_record: skip"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    assert_eq!(world.ids().await, [0, 1, 2, 3, 4], "everything before it is committed");

    // The last record is a bad one, too: V reaches the end although no event is there.
    world.send(0, &[b"\x07rubbish".to_vec()]);
    world.write_settings("skip");
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, (0..8).collect::<Vec<_>>());
    assert_eq!(world.positions().await, [(10, 0), (0, 0)]);
    world.catch_up().await.unwrap();
    assert_eq!(world.positions().await, [(10, 0), (0, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_start_ends_with_its_code() {
    let mut world = World::new().await;
    world.write_settings_for(world.broker.bootstrap_servers(), "no_such_topic", "stop");
    let error = world.catch_up_with(IMPATIENT).await.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains("topic no_such_topic does not exist"), "{error}");
    let (text, ended) = world.check().await;
    assert_eq!(code(&ended), 2, "{text}");

    let gone = Patience { unreachable: Duration::from_secs(1), ..IMPATIENT };
    world.write_settings_for("127.0.0.1:1", "trades", "stop");
    let error = world.catch_up_with(gone).await.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    let (text, ended) = world.check().await;
    assert_eq!(code(&ended), 3, "{text}");

    world.write_settings("stop");
    world.registry.take().unwrap().stop().await;
    let error = world.catch_up_with(gone).await.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}

/// FAILURES D6: for the whole pipeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_outage_is_waited_out_and_the_table_grows_afterwards() {
    let mut world = World::new().await;
    world.send(0, &[trade(1, 1, 1)]);
    let progress = Arc::new(Progress::default());
    let options =
        RunOptions { progress: BTreeMap::from([("p".to_owned(), progress.clone())]), ..RunOptions::default() };
    let (stop, settings) = (CancellationToken::new(), Settings::load(&world.config()).unwrap());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { service::run(&settings, &options, &stop).await }
    });
    let reach = async |events: u64| {
        for _ in 0..600 {
            if progress.events.load(Ordering::Relaxed) >= events {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{events} events are not reached");
    };
    reach(1).await;
    world.registry.take().unwrap().stop().await;
    world.send(0, &[trade(1, 2, 1), trade(2, 3, 1)]);
    reach(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!running.is_finished(), "an outage makes no record bad");
    let listen = world.registry_url.strip_prefix("http://").unwrap().parse().unwrap();
    let registry = Registry::start(listen).await.unwrap();
    assert_eq!(
        (registry.register("trades-value", V1).unwrap(), registry.register("trades-value", V2).unwrap()),
        (1, 2)
    );
    reach(3).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(world.ids().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_upgraded_in_place_and_never_downgraded() {
    let world = World::new().await;
    let settings = std::fs::read_to_string(world.config()).unwrap();
    let at = |version: u8| settings.replace("format_version: 3", &format!("format_version: {version}"));
    for (id, configured, found) in [(1, 2, 2), (2, 3, 3), (3, 2, 3)] {
        std::fs::write(world.config(), at(configured)).unwrap();
        world.send(0, &[trade(1, 1, id), trade(1, id, id)]);
        world.catch_up().await.unwrap();
        let settings = Settings::load(&world.config()).unwrap();
        let catalog = service::open_catalog(&settings.catalogs["lake"]).await.unwrap();
        let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap();
        assert_eq!(table.format_version(), found);
        assert_eq!(world.ids().await, (1..=id).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_shown_and_set_and_a_replay_gives_the_same_rows() {
    let world = World::new().await;
    world.send(0, &(0..6).map(|id| trade(1, id % 3, id)).collect::<Vec<_>>());
    world.send(1, &[trade(1, 10, 1)]);
    let (text, ended) = world.check().await;
    assert_eq!((code(&ended), text.contains("not there yet")), (0, true), "{text}");
    assert!(!world.folder.path().join("c.db").exists(), "a check leaves nothing behind");
    world.catch_up().await.unwrap();
    let rows = world.rows().await;
    assert_eq!(rows.len(), 4);
    assert_eq!(world.positions().await, [(6, 0), (1, 0)]);
    let (text, ended) = world.check().await;
    assert_eq!((code(&ended), text.contains('✗')), (0, false), "{text}");

    let to = |partition: &str| OffsetsSetArgs { positions: vec![partition.parse().unwrap()], ..Default::default() };
    let set = world.set(to("trades/0=2")).await.unwrap();
    assert!(set.contains("4 offsets are read again") && set.contains("same rows"), "{set}");
    assert_eq!(world.positions().await, [(2, 4), (1, 0)]);
    world.catch_up().await.unwrap();
    assert_eq!((world.rows().await, world.positions().await), (rows, vec![(6, 0), (1, 0)]));

    for (wrong, expected) in [("trades/0=7", 2), ("trades/9=1", 2), ("other/0=1", 2)] {
        assert_eq!(world.set(to(wrong)).await.unwrap_err().exit_code(), expected, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_stops_everything_until_a_new_epoch_is_ordered() {
    let mut world = World::new().await;
    world.send(0, &[trade(1, 1, 1), trade(1, 2, 1)]);
    world.catch_up().await.unwrap();
    // Topics and offsets begin anew, as after a move to another cluster.
    world.broker = Broker::start(&[("trades".into(), 2)]).unwrap();
    world.write_settings("stop");
    world.send(0, &[trade(1, 3, 1)]);
    let error = world.catch_up().await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    assert_eq!(world.ids().await, [1, 2], "nothing is written on a guess");
    let (table, ended) = world.show().await;
    assert_eq!(code(&ended), 4);
    assert!(table["notes"].to_string().contains("--new-epoch"), "{table}");
    let (text, ended) = world.check().await;
    assert_eq!(code(&ended), 4, "{text}");

    let refused = world.set(OffsetsSetArgs { positions: vec!["trades/0=0".parse().unwrap()], ..Default::default() });
    assert_eq!(refused.await.unwrap_err().exit_code(), 4);
    world.set(OffsetsSetArgs { new_epoch: true, ..Default::default() }).await.unwrap();
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1, 2, 3]);
    assert_eq!(world.positions().await, [(1, 0), (0, 0)]);
}

#[tokio::test]
async fn embedded_brokers_are_reported_as_not_running_and_are_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("firn.yaml");
    write_embedded(&config);
    let mut out = Vec::new();
    commands::offsets_show(OffsetsShowArgs { config: config.clone(), format: Format::Table }, &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().contains("embedded and not running"));
    let mut out = Vec::new();
    commands::check(CheckArgs { config, verbose: true }, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("embedded, not running here") && !text.contains("hunter2"), "{text}");
}

fn write_embedded(config: &Path) {
    let text = "kafka: {brokers: embedded, properties: {sasl.password: hunter2}}\nschema_registry: {url: embedded}\n\
        catalogs: {lake: {type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}\n\
        pipelines: {p: {topics: [t], key: [id], tables: [{catalog: lake, name: a.b}]}}\n";
    std::fs::write(config, text).unwrap();
}

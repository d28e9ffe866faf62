//! What an event costs from Kafka to a committed table: CPU time of the `firn run` process alone, real Kafka beside it.
//!
//! `compose/native/stack.sh start kafka`, then `FIRN_BENCH_BROKERS=127.0.0.1:18090 cargo bench --bench upsert`.
//! `FIRN_BENCH_EVENTS` (default 5 000 000) and `FIRN_BENCH_KEYS` (default `1000000,10000000`) change the size.
//! `FIRN_BENCH_TABLES` says into what, from `iceberg`, `delta` and `both` (default: all three, the last two at the first number
//! of keys only).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops at the first thing that is not as expected, and says so"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use firn::embedded::market::{KEY_SCHEMA, VALUE_SCHEMA};
use firn::embedded::producer::{Job, produce};
use firn::embedded::{Market, Registry};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

const PARTITIONS: i32 = 4;

/// What a run keeps, by name.
const TABLES: [(&str, &str); 3] = [("iceberg", ICEBERG), ("delta", DELTA), ("both", BOTH)];
const ICEBERG: &str = "{catalog: lake, name: bench.events, format_version: 3}";
const DELTA: &str = "{catalog: delta, name: bench.events}";
const BOTH: &str = "{catalog: lake, name: bench.events, format_version: 3}, {catalog: delta, name: bench.events}";

/// What one run of the program took.
struct Cost {
    cpu: Duration,
    wall: Duration,
    peak_bytes: u64,
}

struct Bench {
    brokers: String,
    registry: Registry,
    runtime: tokio::runtime::Runtime,
    events: u64,
}

fn main() {
    // `cargo test --benches` asks every target to list or run its tests; there are none.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return;
    }
    let Ok(brokers) = std::env::var("FIRN_BENCH_BROKERS") else {
        println!(
            "upsert: set FIRN_BENCH_BROKERS to the address of a Kafka broker (compose/native/stack.sh start kafka)"
        );
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(Registry::start(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let bench = Bench { brokers, registry, runtime, events: number("FIRN_BENCH_EVENTS", 5_000_000) };
    let keys = std::env::var("FIRN_BENCH_KEYS").unwrap_or_else(|_| "1000000,10000000".into());
    println!("| run | events | CPU µs/event | wall events/s | peak MiB |");
    println!("|---|---|---|---|---|");
    let wanted = std::env::var("FIRN_BENCH_TABLES").unwrap_or_else(|_| "iceberg,delta,both".into());
    let tables = || TABLES.into_iter().filter(|(name, _)| wanted.split(',').any(|wanted| wanted.trim() == *name));
    for (i, keys) in keys.split(',').map(|k| k.trim().parse::<u64>().unwrap()).enumerate() {
        for (name, tables) in tables().filter(|(name, _)| i == 0 || *name == "iceberg") {
            bench.upsert(keys, name, tables);
        }
    }
    bench.append();
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

impl Bench {
    /// A topic with its schemas.
    fn topic(&self, stem: &str) -> String {
        let topic = format!("bench-{stem}-{}", std::process::id());
        let value = self.registry.register(&format!("{topic}-value"), VALUE_SCHEMA).unwrap();
        let key = self.registry.register(&format!("{topic}-key"), KEY_SCHEMA).unwrap();
        assert_eq!((value, key), (1, 2), "the generator writes these ids");
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
        let created = self.runtime.block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        topic
    }

    fn produce(&self, topic: &str, market: &mut Market, events: u64) {
        let job = Job { bootstrap_servers: &self.brokers, topic, events, lead_max: 40_000 };
        let produced = produce(&job, market, |_| i64::MAX / 2, &AtomicBool::new(false)).unwrap();
        assert_eq!(produced.events, events);
    }

    fn upsert(&self, keys: u64, name: &str, tables: &str) {
        let topic = self.topic(&format!("upsert-{keys}-{name}"));
        let dir = tempfile::tempdir().unwrap();
        let config = self.config(dir.path(), &topic, "key: [id]", tables);
        let mut market = Market::new(7, keys, 0.0);
        self.produce(&topic, &mut market, keys);
        print_row(&format!("fill, {keys} keys, {name}"), keys, &run(&config));
        self.produce(&topic, &mut market, self.events);
        if name == "iceberg" {
            self.consume_only(&topic, keys + self.events);
        }
        print_row(&format!("upsert, {keys} keys, {name}"), self.events, &run(&config));
    }

    fn append(&self) {
        let topic = self.topic("append");
        let dir = tempfile::tempdir().unwrap();
        let config = self.config(dir.path(), &topic, "mode: append", ICEBERG);
        let mut market = Market::new(7, 1_000_000, 0.0);
        self.produce(&topic, &mut market, self.events);
        print_row("append", self.events, &run(&config));
    }

    fn config(&self, dir: &Path, topic: &str, pipeline: &str, tables: &str) -> std::path::PathBuf {
        let text = format!(
            "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\n\
             catalogs:\n  lake: {{type: iceberg-sql, uri: \"sqlite:catalog.db\", warehouse: ./warehouse}}\n\
             \x20 delta: {{type: delta, warehouse: ./delta}}\n\
             pipelines:\n  bench:\n    topics: [\"{topic}\"]\n    {pipeline}\n    commit: {{interval: 10s}}\n\
             \x20   tables: [{tables}]\nstate_dir: ./state\n",
            self.brokers,
            self.registry.url()
        );
        let path = dir.join("firn.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The same topic, read and dropped, through the ordinary client: what reading alone gives on this machine now.
    fn consume_only(&self, topic: &str, events: u64) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", format!("{topic}-only"))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let before = own_cpu();
        let mut seen = 0;
        let mut began = None;
        while seen < events {
            if let Some(Ok(_)) = consumer.poll(Duration::from_secs(1)) {
                began.get_or_insert_with(Instant::now);
                seen += 1;
            }
        }
        let wall = began.map(|b: Instant| b.elapsed()).unwrap_or_default();
        print_row("consume only", events, &Cost { cpu: own_cpu() - before, wall, peak_bytes: 0 });
    }
}

fn print_row(name: &str, events: u64, cost: &Cost) {
    let micros = cost.cpu.as_secs_f64() * 1e6 / events as f64;
    let rate = events as f64 / cost.wall.as_secs_f64();
    println!("| {name} | {events} | {micros:.3} | {rate:.0} | {} |", cost.peak_bytes >> 20);
}

/// Runs the program until it has caught up, and asks the system what it took.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it took")]
fn run(config: &Path) -> Cost {
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_firn"))
        .args(["run", "-c", &config.display().to_string(), "--until-caught-up"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(config.with_extension("log")).unwrap())
        .spawn()
        .unwrap();
    let mut status = 0;
    // SAFETY: plain old data, filled in by the call below.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and not waited for elsewhere; both pointers are valid.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
    let log = || std::fs::read_to_string(config.with_extension("log")).unwrap_or_default();
    assert!(waited > 0 && status == 0, "firn failed: {}", log());
    Cost { cpu: cpu_of(&usage), wall: began.elapsed(), peak_bytes: usage.ru_maxrss as u64 * 1024 }
}

fn own_cpu() -> Duration {
    // SAFETY: plain old data, filled in by the call below.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    cpu_of(&usage)
}

fn cpu_of(usage: &libc::rusage) -> Duration {
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

//! Partitions change hands while records keep coming: how long it takes, and that nothing is lost or doubled.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firn::service::{self, Progress, RunOptions};
use firn::settings::Settings;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_util::sync::CancellationToken;

use crate::run::{World, trade};

const KEYS: i64 = 50;
/// The embedded broker lets every rebalance last a second less than this, so the default would hide what is measured.
const SESSION: Duration = Duration::from_secs(2);
/// What is promised is 15 s; the rest is for a machine that has more to do.
const SOON: Duration = Duration::from_secs(45);

fn write_settings(world: &World) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    let session = format!("properties: {{session.timeout.ms: {}}}}}", SESSION.as_millis());
    let text = text.replacen("'}", &format!("', {session}"), 1);
    assert!(text.contains("session.timeout.ms"), "{text}");
    std::fs::write(world.config(), text).unwrap();
}

/// Produces until it is told to stop, and returns the last value of each key. A key belongs to one partition.
fn produce(brokers: &str, stop: &AtomicBool) -> BTreeMap<i64, i64> {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut last = BTreeMap::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let (key, value) = (n % KEYS, trade(1, n % KEYS, n));
        producer.send(BaseRecord::<(), _>::to("trades").partition((key % 2) as i32).payload(&value)).unwrap();
        last.insert(key, n);
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    last
}

/// A pipeline in this process.
struct Member {
    progress: Arc<Progress>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<firn::Result<()>>,
}

impl Member {
    fn start(world: &World) -> Member {
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let reports = BTreeMap::from([("p".to_owned(), progress.clone())]);
        let options = RunOptions { progress: reports, ..RunOptions::default() };
        let (settings, token) = (Settings::load(&world.config()).unwrap(), stop.clone());
        let running = tokio::spawn(async move { service::run(&settings, &options, &token).await });
        Member { progress, stop, running }
    }

    fn events(&self) -> u64 {
        self.progress.events.load(Ordering::Relaxed)
    }

    /// What its last commit added to each partition, as from and next offset.
    fn added(&self) -> Vec<(i64, i64)> {
        let vector = self.progress.vector.lock().unwrap();
        vector.iter().flat_map(|v| v.iter().map(|(_, p)| (p.from, p.next)).collect::<Vec<_>>()).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn holds_exactly(world: &World, last: &BTreeMap<i64, i64>) {
    world.catch_up().await.unwrap();
    let rows: Vec<(i64, i64)> = world.rows().await.into_iter().map(|(id, _, n)| (id, n)).collect();
    assert_eq!(rows, last.iter().map(|(&id, &n)| (id, n)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_joins_does_not_wait_until_the_others_have_nothing_to_do() {
    let world = World::new().await;
    write_settings(&world);
    let (full, brokers) = (Arc::new(AtomicBool::new(false)), world.broker.bootstrap_servers().to_owned());
    let producing = std::thread::spawn({
        let full = full.clone();
        move || produce(&brokers, &full)
    });
    let first = Member::start(&world);
    until("the first commits", || first.events() > 300).await;
    let begun = Instant::now();
    let second = Member::start(&world);
    until("the second commits", || second.events() > 0).await;
    let joined = begun.elapsed();
    let before = (first.events(), second.events());
    until("both commit", || first.events() > before.0 + 100 && second.events() > before.1 + 100).await;
    full.store(true, Ordering::Relaxed);
    let last = producing.join().unwrap();
    println!("a member that joined under load committed after {joined:.1?}");
    assert!(joined < SOON, "it took {joined:?}");
    first.end().await;
    second.end().await;
    holds_exactly(&world, &last).await;
}

/// Ends a process that a failed test leaves behind.
struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_a_killed_process_are_taken_over() {
    let world = World::new().await;
    write_settings(&world);
    let (full, brokers) = (Arc::new(AtomicBool::new(false)), world.broker.bootstrap_servers().to_owned());
    let producing = std::thread::spawn({
        let full = full.clone();
        move || produce(&brokers, &full)
    });
    let survivor = Member::start(&world);
    until("the survivor commits", || survivor.events() > 100).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    command.args(["run", "-c"]).arg(world.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut killed = Kill(command.spawn().unwrap());
    // For two seconds its commits have added to one partition, while V of the other one went on.
    let mut since = (Instant::now(), usize::MAX, 0);
    until("each commits one partition", || {
        assert!(killed.0.try_wait().unwrap().is_none(), "it ended by itself");
        let added = survivor.added();
        let Some(other) = added.iter().position(|(from, next)| from == next) else {
            since = (Instant::now(), usize::MAX, 0);
            return false;
        };
        if since.1 != other {
            since = (Instant::now(), other, added[other].1);
        }
        since.0.elapsed() > Duration::from_secs(2) && added[other].1 > since.2 + 100
    })
    .await;
    killed.0.kill().unwrap();
    let (died, taken) = (Instant::now(), since.1);
    until("the survivor goes on", || survivor.added()[taken].0 < survivor.added()[taken].1).await;
    let resumed = died.elapsed();
    full.store(true, Ordering::Relaxed);
    let last = producing.join().unwrap();
    println!("after kill -9 and a session of {SESSION:?}: committed after {resumed:.1?}");
    assert!(resumed < SOON, "it took {resumed:?}");
    survivor.end().await;
    holds_exactly(&world, &last).await;
}

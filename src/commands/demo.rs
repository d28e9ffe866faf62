//! `firn demo`: broker, registry, producer, pipeline and queries in one process, on data that stays in a folder.

mod answers;
mod folder;
mod line;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::answers::Answers;
use self::folder::Folder;
use self::line::{Line, Speed, ago, counted, grouped, per_second};
use super::{DemoArgs, Output, print};
use crate::core::history::VectorRead;
use crate::core::offsets::{Position, TopicPositions, Vector};
use crate::embedded::market::{KEY_SCHEMA, VALUE_SCHEMA};
use crate::embedded::producer::{Job, LEAD_MAX, Produced, produce_paced};
use crate::embedded::{Broker, Market, Registry};
use crate::service::{self, Progress, RunOptions, START_PATIENCE};
use crate::settings::{Brokers, RegistryUrl, Settings, Table};
use crate::source::StartAt;
use crate::table::LakeTable;
use crate::{Error, Result};

const PIPELINE: &str = "market";
const TOPIC: &str = "market";
/// The producer may be [`LEAD_MAX`] events per partition ahead of the last commit; so many partitions let it run on
/// while a batch is committed.
const PARTITIONS: i32 = 16;
const EVENTS: u64 = 2_000_000;
/// Quote lines.
const KEYS: u64 = 50_000;
/// This share of the events deletes its row.
const DELETES: f64 = 0.02;
/// Events a second once the first answers are given.
const GENTLE: u64 = 1_000;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long what was produced may take to be committed once the demo was told to stop.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// Between lines of progress in a log, while the demo goes on by itself.
const LIVE_EVERY: Duration = Duration::from_secs(30);
const EPOCH_REASON: &str = "firn demo: the embedded broker of the last run is gone with its records; a new one begins";

/// Produces market data into the embedded broker, keeps it in a table, and asks the table about it. Works in a folder
/// with the data of earlier demos, too: it goes on from their rows.
///
/// # Errors
/// [`Error::Config`] when the folder holds something else than a demo, else as [`run`](super::run).
pub async fn demo(args: DemoArgs, out: Output<'_>) -> Result<()> {
    let stop = super::stop_signal()?;
    let seed = u64::try_from(service::now_ms()).unwrap_or(0);
    perform(&args, seed, out, &mut Line::on_stderr(), &stop).await.map(|_| ())
}

/// What a demo did.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    /// Records that the broker took.
    events: u64,
    /// Those of them that delete.
    tombstones: u64,
    /// Records that are in the table.
    committed: u64,
    commits: u64,
    superseded: u64,
    /// Rows in the table, counted by SQL.
    rows: u64,
}

/// The whole demo. `seed` decides which events it makes, and when the market opens: in milliseconds since 1970.
async fn perform(
    args: &DemoArgs,
    seed: u64,
    out: Output<'_>,
    line: &mut Line,
    stop: &CancellationToken,
) -> Result<Report> {
    let events = args.events.unwrap_or(EVENTS);
    if events == 0 {
        return Err(Error::Config("--events: the demo needs at least one event".into()));
    }
    let folder = Folder::open(&args.dir)?;
    let table = folder.table()?.table_ref();
    let answers = Answers::open(&folder.settings, &table).await?;
    let parts = Parts::start(&folder.settings).await?;
    greet(&folder, out)?;
    let rows_before = begin_epoch(&folder, &parts.settings, &answers, out).await?;

    let producing = format!(
        "Producing {} events of market data (quotes, trades, deletions) on {} keys, and upserting them into {table}.\n\n",
        grouped(events),
        grouped(KEYS)
    );
    print(out, &producing)?;
    let began = Instant::now();
    let mut work = Work::start(&parts, rows_before, seed);
    let ended = work.fill(&parts, events, u64::MAX, line, stop).await;
    line.clear();
    let told = match ended {
        Ok(()) if work.stopped => Ok(()),
        Ok(()) => tell(&work, began.elapsed(), &answers, &folder.config, args.exit, out).await,
        Err(error) => Err(error),
    };
    let ended = match told {
        Ok(()) if !args.exit && !work.stopped => {
            line.every(LIVE_EVERY);
            let live = format!("\nGoing on at {} events a second, until Ctrl-C.\n\n", grouped(GENTLE));
            print(out, &live)?;
            let ended = work.fill(&parts, u64::MAX, GENTLE, line, stop).await;
            line.clear();
            ended
        }
        other => other,
    };
    let ended = work.end(ended).await;
    parts.registry.stop().await;
    ended?;
    // Stopped before the first event, it may not even have made the table.
    let rows = if work.events == 0 { rows_before } else { answers.rows().await? };
    let report = work.report(rows);
    if work.stopped {
        print(out, &goodbye(&report))?;
    }
    Ok(report)
}

fn greet(folder: &Folder, out: Output<'_>) -> Result<()> {
    let file = folder.config.display();
    let edited = if folder.edited { ", as you edited it" } else { "" };
    print(
        out,
        &format!(
            "Firn demo: broker, schema registry, producer, pipeline and queries in one process.\nSettings: {file}{edited}\n\n"
        ),
    )
}

fn goodbye(report: &Report) -> String {
    let left = match report.events.saturating_sub(report.committed) {
        0 => String::new(),
        left => format!("\n{} more were produced and not committed; they are gone with the broker.", grouped(left)),
    };
    format!(
        "Stopped: {} events are in the table, in {}; it has {} rows.{left}\nThe next `firn demo` in this folder goes on from there.\n",
        grouped(report.committed),
        counted(report.commits, "commit"),
        grouped(report.rows)
    )
}

/// The closing report, the answers, and what to try next.
async fn tell(
    work: &Work,
    took: Duration,
    answers: &Answers,
    config: &Path,
    exit: bool,
    out: Output<'_>,
) -> Result<()> {
    let report = work.report(answers.rows().await?);
    let figures = [
        (report.events, format!("events in, {} of them deletions", grouped(report.tombstones))),
        (per_second(report.events, took), format!("events/s, over {:.1} s until the last commit", took.as_secs_f64())),
        (report.commits, "commits".to_owned()),
        (report.superseded, "superseded rows: replaced or deleted by later events".to_owned()),
        (report.rows, "rows in the table, one per key".to_owned()),
    ];
    let mut text = format!("Done: the table holds everything up to the end of all {PARTITIONS} partitions.\n\n");
    figures.iter().for_each(|(number, what)| text.push_str(&format!("{:>13}  {what}\n", grouped(*number))));
    text.push('\n');
    print(out, &text)?;
    answers.latest(out).await?;
    answers.next_commands(config, !exit, out).await
}

/// The embedded parts, and settings that lead to them.
struct Parts {
    broker: Broker,
    registry: Registry,
    settings: Settings,
    /// What the registry calls the schemas of values and of keys.
    schema_ids: (u32, u32),
}

impl Parts {
    async fn start(settings: &Settings) -> Result<Parts> {
        let broker = Broker::start(&[(TOPIC.to_owned(), PARTITIONS)])?;
        let registry = Registry::start(([127, 0, 0, 1], 0).into()).await?;
        let value = registry.register(&format!("{TOPIC}-value"), VALUE_SCHEMA)?;
        let key = registry.register(&format!("{TOPIC}-key"), KEY_SCHEMA)?;
        let mut settings = settings.clone();
        settings.kafka.brokers = Brokers::List(broker.bootstrap_servers().to_owned());
        settings.schema_registry.url = RegistryUrl::Url(registry.url());
        Ok(Parts { broker, registry, settings, schema_ids: (value, key) })
    }
}

impl Folder {
    /// The table that the demo tells about.
    fn table(&self) -> Result<&Table> {
        let first = self.pipeline()?.tables.first();
        first.ok_or_else(|| Error::Internal("a pipeline without a table passed the checks".into()))
    }
}

/// Where earlier demos left tables: says what is in them, and sets their V to the beginning of this broker. Returns the
/// rows of the first table.
async fn begin_epoch(folder: &Folder, reachable: &Settings, answers: &Answers, out: Output<'_>) -> Result<u64> {
    let pipeline = folder.pipeline()?;
    let mut rows = 0;
    for (number, table) in pipeline.tables.iter().enumerate() {
        let catalog = folder.settings.catalogs.get(&table.catalog);
        let catalog = catalog.ok_or_else(|| Error::Config(format!("there is no catalog {}", table.catalog)))?;
        let catalog = service::open_catalog(catalog).await?;
        let Some(opened) = catalog.load_table(&table.namespace, &table.name).await? else { continue };
        let view = opened.load(None).await?;
        let held = match view.history.vector(None) {
            VectorRead::Never => continue,
            VectorRead::Found(vector) => Some(vector),
            VectorRead::Lost(_) => None,
        };
        let first = beginning(reachable).await?;
        service::open_epoch(&opened, PIPELINE, &first, EPOCH_REASON).await?;
        if number > 0 {
            continue;
        }
        rows = answers.rows().await?;
        let snapshot = view.snapshot.unwrap_or_default();
        let committed = ago(view.updated_ms, service::now_ms());
        let position = held.as_ref().map_or_else(|| "a position that was lost".into(), position);
        let text = format!(
            "Found {} of an earlier demo:\n  {} rows, last commit {committed} (snapshot {snapshot}), {position}.\n\
             That broker was in memory and is gone, so a new epoch was opened: an empty commit with the position in this one.\n\n",
            opened.name(),
            grouped(rows)
        );
        print(out, &text)?;
    }
    Ok(rows)
}

/// V in words.
fn position(vector: &Vector) -> String {
    let nexts: Vec<u64> = vector.iter().map(|(_, position)| u64::try_from(position.next).unwrap_or(0)).collect();
    let total = grouped(nexts.iter().sum());
    match (nexts.iter().min(), nexts.iter().max()) {
        (Some(&least), Some(&most)) => {
            format!("position {} to {} in {} partitions ({total} events)", grouped(least), grouped(most), nexts.len())
        }
        _ => "no position yet".into(),
    }
}

/// V at the beginning of this demo's broker.
async fn beginning(settings: &Settings) -> Result<Vector> {
    let pipeline = settings.pipeline(PIPELINE)?;
    let cluster = service::cluster(settings)?;
    let topology = cluster.describe(&service::selection(pipeline)?, START_PATIENCE, START_PATIENCE).await?;
    let starts = cluster.start_offsets(&topology, StartAt::Earliest).await?;
    let mut vector = Vector::new(topology.cluster_id.clone());
    for (partition, id) in topology.partitions() {
        let Some(&start) = starts.get(&id) else { continue };
        let topic = vector.topics.entry(id.topic.clone());
        let topic = topic.or_insert_with(|| TopicPositions {
            name: partition.topic.to_string(),
            partitions: std::collections::BTreeMap::new(),
        });
        topic.partitions.insert(id.partition, Position::at_start(start));
    }
    Ok(vector)
}

/// The pipeline and the producer while they run.
struct Work {
    /// None once it has ended.
    service: Option<JoinHandle<Result<()>>>,
    stop_service: CancellationToken,
    progress: Arc<Progress>,
    market: Option<Market>,
    rows_before: u64,
    /// Records that the broker took, in all and by partition.
    events: u64,
    tombstones: u64,
    by_partition: Vec<u64>,
    /// Somebody wants the demo to end.
    stopped: bool,
}

impl Work {
    fn start(parts: &Parts, rows_before: u64, seed: u64) -> Work {
        let progress = Arc::new(Progress::default());
        let stop_service = CancellationToken::new();
        let options =
            RunOptions { progress: [(PIPELINE.to_owned(), progress.clone())].into(), ..RunOptions::default() };
        let (settings, stop) = (parts.settings.clone(), stop_service.clone());
        let service = tokio::spawn(async move { service::run(&settings, &options, &stop).await });
        Work {
            service: Some(service),
            stop_service,
            progress,
            market: Some(market(seed, parts.schema_ids)),
            rows_before,
            events: 0,
            tombstones: 0,
            by_partition: vec![0; PARTITIONS as usize],
            stopped: false,
        }
    }

    /// Produces so many events, and waits until all are committed; ends earlier where it is told to stop.
    async fn fill(
        &mut self,
        parts: &Parts,
        events: u64,
        per_second: u64,
        line: &mut Line,
        stop: &CancellationToken,
    ) -> Result<()> {
        let halt = Arc::new(AtomicBool::new(false));
        // However this ends, the producer must not go on.
        let _halt = HaltOnDrop(halt.clone());
        let mut producer = Some(self.produce(parts, events, per_second, halt.clone())?);
        let goal = (events != u64::MAX).then_some(self.events.saturating_add(events));
        let (mut speed, mut looks) = (Speed::default(), tokio::time::interval(LOOK));
        let mut give_up = None;
        loop {
            tokio::select! {
                ended = await_some(&mut self.service) => return Err(early(ended)),
                ended = await_some(&mut producer) => {
                    let (market, produced) = ended.map_err(|e| Error::Internal(format!("the producer: {e}")))??;
                    self.market = Some(market);
                    self.took(&produced);
                }
                () = stop.cancelled(), if !self.stopped => {
                    self.stopped = true;
                    halt.store(true, Relaxed);
                    give_up = Some(Instant::now() + LAST_COMMIT);
                }
                _ = looks.tick() => {
                    let committed = self.progress.events.load(Relaxed);
                    let now = speed.at(Instant::now(), committed);
                    line.show(|| self.status(committed, goal, now));
                }
            }
            let late = give_up.is_some_and(|at| Instant::now() >= at);
            if producer.is_none() && (!self.is_behind() || late) {
                return Ok(());
            }
        }
    }

    /// Produces on a thread of its own, never too far ahead of the last commit.
    fn produce(
        &mut self,
        parts: &Parts,
        events: u64,
        per_second: u64,
        halt: Arc<AtomicBool>,
    ) -> Result<JoinHandle<Result<(Market, Produced)>>> {
        let mut market =
            self.market.take().ok_or_else(|| Error::Internal("an earlier producer is still at work".into()))?;
        let (servers, progress) = (parts.broker.bootstrap_servers().to_owned(), self.progress.clone());
        Ok(tokio::task::spawn_blocking(move || {
            let job = Job { bootstrap_servers: &servers, topic: TOPIC, events, lead_max: LEAD_MAX };
            let consumed = |partition| committed(&progress, partition);
            let produced = produce_paced(&job, &mut market, per_second, consumed, &halt)?;
            Ok((market, produced))
        }))
    }

    fn took(&mut self, produced: &Produced) {
        self.events += produced.events;
        self.tombstones += produced.tombstones;
        for (sum, more) in self.by_partition.iter_mut().zip(&produced.by_partition) {
            *sum += more;
        }
    }

    /// Not everything that was produced is in the table.
    fn is_behind(&self) -> bool {
        (0i32..)
            .zip(&self.by_partition)
            .any(|(partition, &end)| u64::try_from(committed(&self.progress, partition)).unwrap_or(0) < end)
    }

    fn status(&self, committed: u64, goal: Option<u64>, per_second: u64) -> String {
        let of = goal.map(|goal| format!(" of {}", grouped(goal))).unwrap_or_default();
        let appended = self.rows_before + self.progress.appended.load(Relaxed);
        let superseded = self.progress.superseded.load(Relaxed);
        format!(
            "{}{of} events  {} events/s  {}  {} rows  {} superseded",
            grouped(committed),
            grouped(per_second),
            counted(self.progress.commits.load(Relaxed), "commit"),
            grouped(appended.saturating_sub(superseded)),
            grouped(superseded)
        )
    }

    /// Stops the pipeline, which commits what it has. `ended` is how the work went.
    async fn end(&mut self, ended: Result<()>) -> Result<()> {
        self.stop_service.cancel();
        let Some(service) = self.service.take() else { return ended };
        let stopped = service.await.unwrap_or_else(|e| Err(Error::Internal(format!("the pipeline: {e}"))));
        ended.and(stopped)
    }

    fn report(&self, rows: u64) -> Report {
        Report {
            events: self.events,
            tombstones: self.tombstones,
            committed: self.progress.events.load(Relaxed),
            commits: self.progress.commits.load(Relaxed),
            superseded: self.progress.superseded.load(Relaxed),
            rows,
        }
    }
}

/// The events that a seed stands for.
fn market(seed: u64, (value, key): (u32, u32)) -> Market {
    let opening = i64::try_from(seed).unwrap_or(0);
    Market::new(seed, KEYS, DELETES).with_schema_ids(value, key).starting_at(opening)
}

/// The first offset of a partition that is not in the table.
fn committed(progress: &Progress, partition: i32) -> i64 {
    let Ok(vector) = progress.vector.lock() else { return 0 };
    let topic = vector.as_ref().and_then(|vector| vector.topics.values().find(|topic| topic.name == TOPIC));
    topic.and_then(|topic| topic.partitions.get(&partition)).map_or(0, |position| position.next)
}

/// Waits for a task and takes its handle away; forever where there is none.
async fn await_some<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    let Some(handle) = task else { return std::future::pending().await };
    let ended = handle.await;
    *task = None;
    ended
}

/// The pipeline ended before it was told to.
fn early(ended: Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => Error::Internal("the pipeline ended before the demo did".into()),
        Err(error) => Error::Internal(format!("the pipeline: {error}")),
    }
}

struct HaltOnDrop(Arc<AtomicBool>);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests;

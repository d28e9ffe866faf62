//! Starts the parts, wires them, and stops them in order. The only reader of the clock.

mod clock;
mod epoch;
mod intake;
mod lanes;
mod log;
mod memory;
mod observing;
mod opening;
mod outlook;
mod pipeline;
mod replay;
mod retry;
mod saved_index;
mod schemas;
mod starts;
mod table_task;
mod tables;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::clock::now_ms;
pub use self::epoch::{Moved, open_epoch, set_vector};
pub use self::log::{cluster_within, read_log};
pub use self::outlook::{Outlook, outlook};
pub use self::pipeline::Progress;
pub use self::replay::{Replay, dead_letters, replay};
pub use self::schemas::{Latest, latest, record_types, value_subject, value_subjects};
pub use self::tables::{Catalogs, event_shape, format, lane_formats, open_catalog, open_engine, open_lake};

use self::intake::{Intake, Rules};
use self::memory::{CHUNKS_QUEUED, Shares};
use self::observing::{Observing, Rejected};
use self::opening::{open_lanes, prepare};
use self::pipeline::{DRAIN, Ended, PipelineRun, Reported, by_identity, topic_ids};
use self::retry::{Waiting, backoff};
use self::schemas::{SchemaDesk, first_topic};
use self::starts::Starts;
use self::table_task::TableTask;
use crate::core::budget::Budget;
use crate::settings::{Brokers, Pipeline, RegistryUrl, SchemaRegistry, Settings, Topics};
use crate::source::{Access, Cluster, DeadLetters, Login, Registry, Source, SourceConfig, TopicSelection, Topology};
use crate::table::LakeTable;
use crate::telemetry::{Dependency, PipelineTelemetry, Server, Task, Telemetry};
use crate::{Error, Result};

/// How long one question to the broker may take.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a dependency may take to answer at start before the process ends with exit code 3.
pub const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long things that may be about to come are waited for at start. Once a pipeline has run, outages are waited out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a dependency may take to answer before the process ends with exit code 3.
    pub unreachable: Duration,
    /// How long a topic may take to appear.
    pub topic: Duration,
    /// How long the subject of a topic's values may take to appear in the schema registry.
    pub subject: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Patience { unreachable: START_PATIENCE, topic: seconds(10), subject: seconds(30) }
    }
}

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// End once every partition has reached the end seen at start.
    pub until_caught_up: bool,
    /// How long what is missing at start is waited for.
    pub patience: Patience,
    /// What each pipeline reports, by name.
    pub progress: BTreeMap<String, Arc<Progress>>,
}

/// Runs the writer role of every pipeline until `stop`, or until caught up. A pipeline that needs a person leaves the
/// others running; its error is returned when all have ended.
///
/// # Errors
/// The error with the highest exit code among the pipelines.
pub async fn run(settings: &Settings, options: &RunOptions, stop: &CancellationToken) -> Result<()> {
    if settings.kafka.brokers == Brokers::Embedded {
        return Err(Error::Config(
            "kafka.brokers: embedded serves `firn demo` and `firn broker`; `firn run` needs the address of a broker"
                .into(),
        ));
    }
    let telemetry = Arc::new(Telemetry::new(settings.secrets())?);
    let server = match settings.observe.listen {
        Some(listen) => Some(Server::start(listen, telemetry.clone()).await?),
        None => None,
    };
    let settings = Arc::new(settings.clone());
    let catalogs = Arc::new(Catalogs::default());
    tokio::spawn(announce_stop(stop.clone(), telemetry.clone()));
    let mut running = JoinSet::new();
    for pipeline in settings.pipelines.values() {
        let (settings, catalogs, stop) = (settings.clone(), catalogs.clone(), stop.clone());
        let (pipeline, options) = (pipeline.clone(), options.clone());
        let tables: Vec<String> = pipeline.tables.iter().map(|table| table.table_ref().to_string()).collect();
        let telemetry = telemetry.pipeline(&pipeline.name, &tables);
        running.spawn(async move {
            let ended = supervise(&settings, &catalogs, &pipeline, &options, (&telemetry, &stop)).await;
            telemetry.ended(ended.as_ref().err());
            if let Err(error) = &ended {
                tracing::error!(pipeline = pipeline.name, %error, "the pipeline has stopped");
            }
            ended.map_err(|e| e.within(format_args!("pipeline {}", pipeline.name)))
        });
    }
    let mut worst: Result<()> = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(Error::Internal(format!("a pipeline ended unexpectedly: {e}"))));
        if let Err(error) = ended
            && worst.as_ref().err().is_none_or(|w| w.exit_code() < error.exit_code())
        {
            worst = Err(error);
        }
    }
    if let Some(server) = server {
        server.stop().await;
    }
    worst
}

async fn announce_stop(stop: CancellationToken, telemetry: Arc<Telemetry>) {
    stop.cancelled().await;
    telemetry.stopping();
}

/// Runs a pipeline, again from V after an outage that ended it.
async fn supervise(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    options: &RunOptions,
    (telemetry, stop): (&PipelineTelemetry, &CancellationToken),
) -> Result<()> {
    let mut options = options.clone();
    let mut outages = 0;
    loop {
        telemetry.starting();
        let starting = start(settings, catalogs, pipeline, &options, telemetry);
        let run = tokio::select! {
            run = starting => run?,
            () = stop.cancelled() => return Ok(()),
        };
        // It has run: from here on an outage is waited out, and work goes on from V.
        options.patience.unreachable = Duration::MAX;
        match run.run(stop.clone()).await {
            Err(Error::Unreachable(why)) if !stop.is_cancelled() => {
                outages += 1;
                tracing::warn!(pipeline = pipeline.name, why, outages, "reading again from the table's position");
                telemetry.failed(&Task::only(Dependency::Pipeline), &why);
                tokio::select! {
                    () = tokio::time::sleep(backoff(outages)) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            Err(error) => return Err(error),
            Ok(Ended::Stopped | Ended::CaughtUp) => return Ok(()),
        }
    }
}

/// librdkafka's properties with the secrets in them.
#[must_use]
pub fn kafka_properties(settings: &Settings) -> BTreeMap<String, String> {
    settings.kafka.properties.iter().map(|(k, v)| (k.clone(), v.expose_secret().to_owned())).collect()
}

/// The registry client of the settings.
///
/// # Errors
/// [`Error::Config`] for `embedded`, which is another process's, and for an address that is none.
pub fn registry(settings: &Settings) -> Result<Registry> {
    let RegistryUrl::Url(url) = &settings.schema_registry.url else {
        return Err(Error::Config("schema_registry.url: embedded serves `firn demo` and `firn broker` alone".into()));
    };
    let SchemaRegistry { username, password, token, tls, .. } = &settings.schema_registry;
    let basic = username.clone().map(|user| Login::Basic(user, password.clone().unwrap_or_default()));
    let text = |secret: &SecretString| secret.expose_secret().to_owned();
    let identity = tls.certificate.as_ref().zip(tls.key.as_ref());
    let access = Access {
        login: basic.or_else(|| token.clone().map(Login::Bearer)),
        authorities: tls.ca.as_ref().map(|ca| text(ca).into_bytes()),
        identity: identity.map(|(certificate, key)| format!("{}\n{}", text(certificate), text(key)).into()),
    };
    Registry::new(url, access)
}

/// A client that asks the brokers of the settings.
///
/// # Errors
/// [`Error::Config`] for `embedded`, and for properties that librdkafka refuses.
pub fn cluster(settings: &Settings) -> Result<Cluster> {
    cluster_within(settings, BROKER_TIMEOUT)
}

/// Which topics a pipeline reads.
///
/// # Errors
/// [`Error::Config`] for a pattern that is none.
pub fn selection(pipeline: &Pipeline) -> Result<TopicSelection> {
    match &pipeline.topics {
        Topics::Names(names) => TopicSelection::parse(names),
        Topics::Pattern(pattern) => TopicSelection::parse(std::slice::from_ref(pattern)),
    }
}

/// What a pipeline reads from.
struct Reached {
    cluster: Cluster,
    topics: TopicSelection,
    topology: Topology,
    registry: Registry,
    newest: Latest,
}

/// Reaches brokers and registry, which may take as long as `waiting` says.
async fn reach<'w>(
    settings: &Settings,
    pipeline: &Pipeline,
    patience: Patience,
    waiting: &(dyn Fn(Task) -> Waiting<'w> + Sync),
) -> Result<Reached> {
    let topics = selection(pipeline)?;
    let cluster = cluster_within(settings, BROKER_TIMEOUT.min(patience.unreachable))?;
    let describe = || cluster.describe(&topics, Duration::ZERO, patience.topic);
    let topology = waiting(Task::only(Dependency::Broker)).until_reachable(describe).await?;
    let registry = registry(settings)?;
    let topic = first_topic(&topology)?;
    let ask = || latest(&registry, pipeline, &topic, patience.subject);
    let newest = waiting(Task::only(Dependency::SchemaRegistry)).until_reachable(ask).await?;
    Ok(Reached { cluster, topics, topology, registry, newest })
}

/// Reaches everything a pipeline needs, and starts reading.
async fn start(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    options: &RunOptions,
    telemetry: &PipelineTelemetry,
) -> Result<PipelineRun> {
    let waiting = |task| Waiting { telemetry, task, patience: Some(options.patience.unreachable) };
    let reached = reach(settings, pipeline, options.patience, &waiting).await?;
    let Reached { cluster, topics, topology, registry, newest } = reached;
    let open = open_lanes(settings, catalogs, pipeline, &newest, &waiting).await?;
    let until = match options.until_caught_up {
        true => {
            let partitions: Vec<_> = topology.partitions().map(|(partition, _)| partition).collect();
            Some(by_identity(&topology, &cluster.last_stable_offsets(&partitions).await?))
        }
        false => None,
    };
    let first = topology.topics.values().map(|info| info.id.clone()).collect();
    let shares = Shares::of(settings, pipeline);
    let dead_letters = letter_box(settings, pipeline, &cluster, shares.letters).await?;
    let starts = Arc::new(Starts { cluster, topics, start: pipeline.start, first });

    let (answer, answers) = mpsc::channel(16);
    let task = |number, table: &Arc<dyn LakeTable>| {
        let mut task =
            TableTask::new(number, table.clone(), &pipeline.name, starts.clone(), answer.clone(), telemetry.clone());
        task.dead_letters = dead_letters.clone();
        task
    };
    let (tables, lanes, needs) = prepare(settings, pipeline, open, newest.key.as_ref(), task)?;

    let (chunks, intake) = mpsc::channel(CHUNKS_QUEUED as usize);
    let (schema_answers, schema_questions) = std::sync::mpsc::sync_channel(4);
    let topic_ids = Arc::new(std::sync::Mutex::new(topic_ids(&topology)));
    let rejected = Arc::new(std::sync::Mutex::new(Rejected::default()));
    let rules = Rules {
        pipeline: pipeline.name.clone(),
        on_bad_record: pipeline.on_bad_record,
        on_incompatible_schema: pipeline.on_incompatible_schema,
        on_unknown_type: pipeline.on_unknown_type,
        budget: Budget::new(pipeline.max_bad_ratio),
        dead_letters,
    };
    let share = (shares.chunk, telemetry.beat("the poll thread"));
    let handler = Intake::new(lanes, topic_ids.clone(), chunks, schema_questions, rules, rejected.clone(), share);
    let source = Source::start(&source_config(settings, pipeline, &topology)?, Box::new(handler))?;
    let desk = SchemaDesk { registry, needs, answers: schema_answers, telemetry: telemetry.clone() };
    let progress = options.progress.get(&pipeline.name).cloned().unwrap_or_default();
    Ok(PipelineRun {
        name: pipeline.name.clone(),
        observing: Observing::new(telemetry.clone(), tables.len()),
        source,
        intake,
        answers,
        tables,
        starts,
        desk,
        topology,
        topic_ids,
        until,
        progress,
        rejected,
        reported: Reported::default(),
        epochs: 0,
        revoking: None,
        draining: None,
        looked: Instant::now(),
        topics_looked: Instant::now(),
    })
}

/// The dead-letter topic of a pipeline, where it has one. Its topic has to be there: nothing is to be rejected into the void.
async fn letter_box(
    settings: &Settings,
    pipeline: &Pipeline,
    cluster: &Cluster,
    queue_bytes: u64,
) -> Result<Option<Arc<DeadLetters>>> {
    let (Some(topic), Brokers::List(brokers)) = (&pipeline.dead_letter, &settings.kafka.brokers) else {
        return Ok(None);
    };
    let selection = TopicSelection::parse(std::slice::from_ref(topic))?;
    match cluster.describe_once(&selection).await {
        Ok(_) => {}
        Err(Error::Config(_)) => {
            return Err(Error::Config(format!(
                "the dead-letter topic {topic} does not exist: create it, with records at least as large as those of the topics \
                 that are read"
            )));
        }
        Err(error) => return Err(error),
    }
    let letters = DeadLetters::connect(brokers, &kafka_properties(settings), topic, queue_bytes).await?;
    Ok(Some(Arc::new(letters)))
}

fn source_config(settings: &Settings, pipeline: &Pipeline, topology: &Topology) -> Result<SourceConfig> {
    let Brokers::List(brokers) = &settings.kafka.brokers else {
        return Err(Error::Config("kafka.brokers: embedded is not running here".into()));
    };
    Ok(SourceConfig {
        brokers: brokers.clone(),
        properties: kafka_properties(settings),
        group: pipeline.group.clone(),
        topics: topology.topics.keys().map(ToString::to_string).collect(),
        queue_bytes: Shares::of(settings, pipeline).fetched,
        revoke_patience: DRAIN + Duration::from_secs(5),
    })
}

//! Starts the parts, wires them, and stops them in order. The only reader of the clock.

mod clock;
mod epoch;
mod intake;
mod log;
mod pipeline;
mod replay;
mod retry;
mod saved_index;
mod schemas;
mod starts;
mod table_task;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::clock::now_ms;
pub use self::epoch::{open_epoch, set_vector};
pub use self::log::{cluster_within, read_log};
pub use self::pipeline::Progress;
pub use self::replay::{Replay, dead_letters, replay};
pub use self::tables::{Catalogs, event_shape, formats, open_catalog, open_engine, open_lake};

use self::intake::{Intake, Rejected, Rules};
use self::pipeline::{DRAIN, Ended, PipelineRun, Reported, TableRun, by_identity, topic_ids};
use self::retry::{backoff, until_reachable};
use self::schemas::{Needs, SchemaDesk, first_topic, latest};
use self::starts::Starts;
use self::table_task::TableTask;
use crate::avro::{Decoder, EventShape, table_schema};
use crate::core::budget::Budget;
use crate::core::fold::Semantics;
use crate::core::key_index::{KeyEncoder, KeyWidth};
use crate::core::mutant::Mutants;
use crate::core::schema::{TableSchema, learn_names};
use crate::core::writer::{Writer, WriterConfig};
use crate::settings::{Brokers, Mode, Pipeline, RegistryUrl, SchemaRegistry, Settings, Topics};
use crate::source::{Access, Cluster, DeadLetters, Login, Registry, Source, SourceConfig, TopicSelection};
use crate::table::LakeTable;
use crate::{Error, Result};

/// How long one question to the broker may take.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Chunks between the poll thread and the writers at most.
const CHUNKS: usize = 4;

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
    let settings = Arc::new(settings.clone());
    let catalogs = Arc::new(Catalogs::default());
    let mut running = JoinSet::new();
    for pipeline in settings.pipelines.values() {
        let (settings, catalogs, stop) = (settings.clone(), catalogs.clone(), stop.clone());
        let (pipeline, options) = (pipeline.clone(), options.clone());
        running.spawn(async move {
            let ended = supervise(&settings, &catalogs, &pipeline, &options, &stop).await;
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
    worst
}

/// Runs a pipeline, again and again where its tables have to grow first.
async fn supervise(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    options: &RunOptions,
    stop: &CancellationToken,
) -> Result<()> {
    let mut seen = Vec::new();
    let mut options = options.clone();
    let mut outages = 0;
    loop {
        let starting = start(settings, catalogs, pipeline, &options, &seen);
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
                tokio::select! {
                    () = tokio::time::sleep(backoff(outages)) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            Err(error) => return Err(error),
            Ok(Ended::Stopped | Ended::CaughtUp) => return Ok(()),
            Ok(Ended::SchemaChanged(schema)) => {
                tracing::info!(pipeline = pipeline.name, "a schema has columns that the tables lack; adding them");
                seen.push(schema);
            }
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

/// Reaches everything a pipeline needs, and starts reading.
async fn start(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    options: &RunOptions,
    seen: &[Arc<str>],
) -> Result<PipelineRun> {
    let topics = selection(pipeline)?;
    let cluster = cluster_within(settings, BROKER_TIMEOUT.min(options.patience.unreachable))?;
    let topology = cluster.describe(&topics, options.patience.unreachable, options.patience.topic).await?;
    let registry = registry(settings)?;
    let topic = first_topic(&topology)?;
    let patience = options.patience;
    let ask = || latest(&registry, &topic, patience.subject);
    let newest = until_reachable("schema registry", Some(patience.unreachable), ask).await?;
    let shape = event_shape(pipeline).with_key_schema(newest.key.is_some());
    let (tables, wanted) = open_tables(settings, catalogs, pipeline, &shape, &newest, (seen, patience)).await?;
    let until = match options.until_caught_up {
        true => {
            let partitions: Vec<_> = topology.partitions().map(|(partition, _)| partition).collect();
            Some(by_identity(&topology, &cluster.last_stable_offsets(&partitions).await?))
        }
        false => None,
    };
    let first = topology.topics.values().map(|info| info.id.clone()).collect();
    let dead_letters = letter_box(settings, pipeline, &cluster).await?;
    let starts = Arc::new(Starts { cluster, topics, start: pipeline.start, first });

    let (answer, answers) = mpsc::channel(16);
    let schema = known_names(&tables[0].schema(), &wanted);
    let plan = saved_index::plan(settings, pipeline, &tables, &schema)?;
    let mut runs = Vec::new();
    for (number, (table, restored)) in tables.iter().zip(plan.restored).enumerate() {
        let mut task = TableTask::new(number, table.clone(), &pipeline.name, starts.clone(), answer.clone());
        task.keys = plan.encoder.clone();
        task.order_by = pipeline.order_by.clone();
        task.dead_letters = dead_letters.clone();
        task.saved = plan.places.get(number).cloned();
        let writer = Writer::new(writer_config(settings, pipeline, table.name(), &schema, plan.encoder.as_deref()));
        runs.push(TableRun { task, writer: saved_index::restore(writer, restored) });
    }

    let (chunks, intake) = mpsc::channel(CHUNKS);
    let (schema_answers, schema_questions) = std::sync::mpsc::sync_channel(4);
    let (grown, growth) = mpsc::channel(4);
    let decoder = decoder(&schema, &shape, plan.encoder.clone())?;
    let topic_ids = Arc::new(std::sync::Mutex::new(topic_ids(&topology)));
    let rejected = Arc::new(std::sync::Mutex::new(Rejected::default()));
    let rules = Rules {
        pipeline: pipeline.name.clone(),
        on_bad_record: pipeline.on_bad_record,
        on_incompatible_schema: pipeline.on_incompatible_schema,
        budget: Budget::new(pipeline.max_bad_ratio),
        dead_letters,
    };
    let handler = Intake::new(decoder, topic_ids.clone(), chunks, schema_questions, rules, rejected.clone());
    let source = Source::start(&source_config(settings, pipeline, &topology)?, Box::new(handler))?;
    let needs = Needs {
        shape,
        key_schema: newest.key,
        table: schema,
        formats: formats(settings, pipeline).into(),
        format_version: pipeline.tables.iter().map(|t| t.format_version).min().unwrap_or(2),
    };
    let desk = SchemaDesk { registry, needs, answers: schema_answers, grown };
    let progress = options.progress.get(&pipeline.name).cloned().unwrap_or_default();
    Ok(PipelineRun {
        name: pipeline.name.clone(),
        source,
        intake,
        answers,
        growth,
        tables: runs,
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
async fn letter_box(settings: &Settings, pipeline: &Pipeline, cluster: &Cluster) -> Result<Option<Arc<DeadLetters>>> {
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
    let letters = DeadLetters::connect(brokers, &kafka_properties(settings), topic).await?;
    Ok(Some(Arc::new(letters)))
}

/// Opens all tables of a pipeline, grown to the newest schema and to those seen in the stream.
async fn open_tables(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    shape: &EventShape,
    newest: &schemas::Latest,
    (seen, patience): (&[Arc<str>], Patience),
) -> Result<(Vec<Arc<dyn LakeTable>>, Vec<TableSchema>)> {
    let mut opened: Vec<Arc<dyn LakeTable>> = Vec::new();
    let mut asked = Vec::new();
    let formats = formats(settings, pipeline);
    for table in &pipeline.tables {
        let name = table.catalog.as_str();
        let catalog = until_reachable(name, Some(patience.unreachable), || catalogs.get(settings, name)).await?;
        let mut last = None;
        for value in std::iter::once(&newest.value).chain(seen) {
            let wanted = table_schema(value, newest.key.as_deref(), shape, table.format_version)?;
            let opening = tables::Opening { pipeline, formats: &formats, table };
            let open = || tables::open_table(&catalog, &opening, &wanted);
            last = Some(until_reachable(name, Some(patience.unreachable), open).await?);
            asked.push(wanted);
        }
        opened.extend(last);
    }
    let columns = |table: &Arc<dyn LakeTable>| -> BTreeSet<String> {
        table.schema().fields.iter().map(|f| f.name.clone()).collect()
    };
    if let Some(other) = opened.iter().find(|t| columns(t) != columns(&opened[0])) {
        return Err(Error::Config(format!(
            "pipeline {}: tables {} and {} have different columns; the tables of one pipeline take the same rows",
            pipeline.name,
            opened[0].name(),
            other.name()
        )));
    }
    Ok((opened, asked))
}

/// The table's columns with the other names under which the events of these schemas have them.
fn known_names(table: &TableSchema, wanted: &[TableSchema]) -> Arc<TableSchema> {
    let mut known = table.clone();
    wanted.iter().for_each(|wanted| learn_names(&mut known, wanted));
    Arc::new(known)
}

fn decoder(schema: &TableSchema, shape: &EventShape, encoder: Option<Arc<KeyEncoder>>) -> Result<Decoder> {
    let encode = move |columns: &[arrow::array::ArrayRef]| match &encoder {
        Some(encoder) => encoder.encode(columns),
        None => Ok(Vec::new()),
    };
    Decoder::new(schema, shape, Box::new(encode))
}

fn writer_config(
    settings: &Settings,
    pipeline: &Pipeline,
    table: &str,
    schema: &TableSchema,
    encoder: Option<&KeyEncoder>,
) -> WriterConfig {
    // Half of the budget is for the batch in flight and the one being filled.
    let bytes = pipeline.commit.max_bytes.min(settings.memory / 4);
    WriterConfig {
        table: table.to_owned(),
        pipeline: pipeline.name.clone(),
        writer: format!("{:016x}", rand::rng().random::<u64>()),
        semantics: match (pipeline.mode, &pipeline.order_by) {
            (Mode::Append, _) => Semantics::Append,
            (Mode::Upsert, None) => Semantics::LastWins,
            (Mode::Upsert, Some(_)) => Semantics::Ordered,
        },
        key_width: encoder.map_or(KeyWidth::Exact, KeyEncoder::width),
        key: schema.key.clone(),
        interval_ms: i64::try_from(pipeline.commit.interval.as_millis()).unwrap_or(i64::MAX),
        max_rows: usize::try_from(pipeline.commit.max_rows).unwrap_or(usize::MAX),
        max_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        mutants: Mutants::default(),
    }
}

fn source_config(settings: &Settings, pipeline: &Pipeline, topology: &crate::source::Topology) -> Result<SourceConfig> {
    let Brokers::List(brokers) = &settings.kafka.brokers else {
        return Err(Error::Config("kafka.brokers: embedded is not running here".into()));
    };
    Ok(SourceConfig {
        brokers: brokers.clone(),
        properties: kafka_properties(settings),
        group: pipeline.group.clone(),
        topics: topology.topics.keys().map(ToString::to_string).collect(),
        queue_bytes: (settings.memory / 8).clamp(8 << 20, 16 << 20),
        revoke_patience: DRAIN + Duration::from_secs(5),
    })
}

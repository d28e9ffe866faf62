//! `firn check`: what is wrong with the file, its servers and its tables, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;

use super::{Output, catalog_is_new, in_time, load, print, worse};
use crate::core::history::{VectorRead, View};
use crate::core::reposition::{Log, mismatch};
use crate::core::schema::{Difference, Fingerprint, Pins, TableFormat, TableSchema, evolve};
use crate::service::{self, Catalogs, Latest, event_shape};
use crate::settings::{Brokers, Mode, Pipeline, RegistryUrl, Settings, Table, Topics};
use crate::source::{Registry, RegistryError};
use crate::table::{Catalog, OpenTable};
use crate::{Error, Result};

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many questions to a server are under way at once.
const ASKED_TOGETHER: usize = 16;

/// `firn check`.
#[derive(Debug, Clone, Default)]
pub struct CheckArgs {
    /// The settings file.
    pub config: PathBuf,
    /// Print the settings in effect, without secrets.
    pub verbose: bool,
}

/// Lines of findings, and the worst of them.
#[derive(Default)]
struct Findings {
    text: String,
    worst: Option<Error>,
    problems: usize,
}

impl Findings {
    fn good(&mut self, what: impl std::fmt::Display) {
        self.text.push_str(&format!("✓ {what}\n"));
    }

    fn info(&mut self, what: impl std::fmt::Display) {
        self.text.push_str(&format!("– {what}\n"));
    }

    fn bad(&mut self, error: Error) {
        self.text.push_str(&format!("✗ {error}\n"));
        self.problems += 1;
        worse(&mut self.worst, error);
    }

    fn extend(&mut self, other: Findings) {
        self.text.push_str(&other.text);
        self.problems += other.problems;
        if let Some(error) = other.worst {
            worse(&mut self.worst, error);
        }
    }
}

/// Says what is wrong with the file, its servers and its tables, and what to do.
///
/// # Errors
/// After printing, the worst of what was found: [`Error::Config`] when the file is wrong, [`Error::Unreachable`] when a
/// server does not answer, [`Error::Decision`] when a person has to decide.
pub async fn check(args: CheckArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let mut findings = Findings::default();
    if args.verbose {
        findings.text.push_str(&format!("{}\n", settings.redacted()));
    }
    findings.good(format_args!("{}: valid", settings.path.display()));
    settings.notes.iter().for_each(|note| findings.info(note));

    let catalogs = Catalogs::default();
    let (kafka, catalogs_found) = tokio::join!(check_kafka(&settings), check_catalogs(&settings, &catalogs));
    let (kafka, logs) = kafka;
    findings.extend(kafka);
    let (found, registry, schemas) = check_registry(&settings, &logs).await;
    findings.extend(found);
    let (catalogs_found, reached) = catalogs_found;
    findings.extend(catalogs_found);

    let tables = settings.pipelines.values().flat_map(|p| p.tables.iter().map(move |t| (p, t)));
    let checked = join_all(tables.filter(|(_, t)| reached.contains(&t.catalog)).map(|(pipeline, table)| {
        let known = (logs.get(&pipeline.name), registry.as_ref(), schemas.get(&pipeline.name));
        check_table(&settings, &catalogs, pipeline, table, known)
    }));
    checked.await.into_iter().for_each(|found| findings.extend(found));
    print(out, &findings.text)?;
    match findings.worst {
        None => Ok(()),
        Some(error) if findings.problems == 1 => Err(error),
        Some(error) => Err(error.within(format_args!("{} problems, the worst", findings.problems))),
    }
}

// ---- servers --------------------------------------------------------------------------------------------------------

/// The brokers, and the log of each pipeline by its name.
async fn check_kafka(settings: &Settings) -> (Findings, BTreeMap<String, Log>) {
    let (mut found, mut logs) = (Findings::default(), BTreeMap::new());
    if settings.pipelines.is_empty() {
        return (found, logs);
    }
    if settings.kafka.brokers == Brokers::Embedded {
        found.info("kafka: embedded, not running here (it runs inside `firn demo` and `firn broker`)");
        return (found, logs);
    }
    let cluster = match service::cluster_within(settings, PATIENCE) {
        Ok(cluster) => cluster,
        Err(error) => {
            found.bad(error);
            return (found, logs);
        }
    };
    let asked = settings.pipelines.values().map(|pipeline| {
        let cluster = &cluster;
        async move { (pipeline, in_time("kafka", PATIENCE, service::read_log(cluster, pipeline)).await) }
    });
    let (mut silent, mut known) = (false, BTreeSet::new());
    for (pipeline, answer) in join_all(asked).await {
        match answer {
            Ok(log) => {
                if known.insert(log.cluster.clone()) {
                    found.good(format_args!("kafka: cluster {}", log.cluster));
                }
                for (name, topic) in &log.topics {
                    let count = topic.partitions.len();
                    found.good(format_args!("topic {name}: {count} partitions, id {}", topic.id));
                }
                if log.topics.is_empty() {
                    found.info(format_args!("pipeline {}: no topic matches yet", pipeline.name));
                }
                logs.insert(pipeline.name.clone(), log);
            }
            // One line is enough for one server.
            Err(Error::Unreachable(_)) if std::mem::replace(&mut silent, true) => {}
            Err(error @ Error::Unreachable(_)) => found.bad(error.within("kafka")),
            Err(error) => found.bad(error.within(format_args!("pipeline {}", pipeline.name))),
        }
    }
    (found, logs)
}

/// The registry, where it answers, and the newest schemas of each pipeline by its name.
async fn check_registry(
    settings: &Settings,
    logs: &BTreeMap<String, Log>,
) -> (Findings, Option<Registry>, BTreeMap<String, Latest>) {
    let (mut found, mut schemas) = (Findings::default(), BTreeMap::new());
    if settings.pipelines.is_empty() {
        return (found, None, schemas);
    }
    let RegistryUrl::Url(url) = &settings.schema_registry.url else {
        found.info("schema registry: embedded, not running here (it runs inside `firn demo` and `firn broker`)");
        return (found, None, schemas);
    };
    let registry = match service::registry(settings) {
        Ok(registry) => registry,
        Err(error) => {
            found.bad(error);
            return (found, None, schemas);
        }
    };
    let listed = async { registry.subjects().await.map_err(Error::from) };
    match in_time("schema registry", PATIENCE, listed).await {
        Ok(subjects) => found.good(format_args!("schema registry {url}: {} subjects", subjects.len())),
        Err(error) => {
            found.bad(error);
            return (found, None, schemas);
        }
    }
    let asked = settings.pipelines.values().filter_map(|pipeline| {
        let topic = first_topic(pipeline, logs.get(&pipeline.name))?;
        let registry = &registry;
        Some(async move {
            let newest = service::latest(registry, pipeline, &topic, Duration::ZERO);
            let newest = in_time("schema registry", PATIENCE, newest).await;
            (pipeline, topic, newest)
        })
    });
    for (pipeline, topic, newest) in join_all(asked).await {
        match newest {
            Ok(newest) => {
                for subject in service::value_subjects(pipeline, &topic) {
                    found.good(format_args!("subject {subject}: the newest schema can be read"));
                }
                schemas.insert(pipeline.name.clone(), newest);
            }
            Err(error) => found.bad(error.within(format_args!("pipeline {}", pipeline.name))),
        }
    }
    (found, Some(registry), schemas)
}

/// The topics of a pipeline share one table schema: that of the first, in order of names.
fn first_topic(pipeline: &Pipeline, log: Option<&Log>) -> Option<String> {
    match (&pipeline.topics, log) {
        (_, Some(log)) => log.topics.keys().next().cloned(),
        (Topics::Names(names), None) => names.iter().min().cloned(),
        (Topics::Pattern(_), None) => None,
    }
}

/// The catalogs, and the names of those that answered.
async fn check_catalogs(settings: &Settings, catalogs: &Catalogs) -> (Findings, BTreeSet<String>) {
    let (mut found, mut reached) = (Findings::default(), BTreeSet::new());
    let asked = settings.catalogs.keys().map(|name| async move {
        if catalog_is_new(settings, name) {
            return (name, None);
        }
        let what = format!("catalog {name}");
        // Opening may not say a word to the server; a look at a table does.
        let probe = async {
            let catalog = catalogs.get(settings, name).await?;
            catalog.load_table(&["firn_check".to_owned()], "firn_check").await?;
            let written = settings.pipelines.values().flat_map(|p| &p.tables).any(|table| table.catalog == *name);
            match &catalog {
                Catalog::Delta(delta) if written => delta.check_store().await,
                _ => Ok(()),
            }
        };
        (name, Some(in_time(&what, PATIENCE, probe).await))
    });
    for (name, answer) in join_all(asked).await {
        match answer {
            None => {
                found.info(format_args!("catalog {name}: its database is not there yet; `firn run` creates it"));
                reached.insert(name.clone());
            }
            Some(Ok(())) => {
                found.good(format_args!("catalog {name}: answers"));
                reached.insert(name.clone());
            }
            Some(Err(error)) => found.bad(error),
        }
    }
    (found, reached)
}

// ---- tables ---------------------------------------------------------------------------------------------------------

async fn check_table(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    table: &Table,
    (log, registry, schemas): (Option<&Log>, Option<&Registry>, Option<&Latest>),
) -> Findings {
    let mut found = Findings::default();
    let (name, formats) = (format!("table {}", table.table_ref()), service::lane_formats(settings, pipeline, table));
    let mut wanted = Vec::new();
    if let Some(newest) = schemas {
        let shape = event_shape(pipeline, table);
        for value in newest.values.iter().filter(|value| value.has_any_of(&shape.types)) {
            match value.table_schema(newest.key.as_deref(), &shape, table.format_version) {
                Ok(schema) => wanted.push(schema),
                Err(error) => found.bad(error.within(format_args!("pipeline {}", pipeline.name))),
            }
        }
    }
    let opened = async {
        if catalog_is_new(settings, &table.catalog) {
            return Ok(None);
        }
        let catalog = catalogs.get(settings, &table.catalog).await?;
        let Some(opened) = catalog.load_table(&table.namespace, &table.name).await? else { return Ok(None) };
        // Equality deletes are found here.
        let view = opened.lake().load(None).await?;
        Ok(Some((opened, view)))
    };
    match in_time(&name, PATIENCE, opened).await {
        Ok(None) => found.info(format_args!("{name}: not there yet; `firn run` creates it")),
        Ok(Some((opened, view))) => {
            let mut inside = Findings::default();
            check_owner(&mut inside, pipeline, &view);
            check_columns(&mut inside, pipeline, table, (&opened, &formats), &view, &wanted);
            check_position(&mut inside, &view, log);
            check_schema_ids(&mut inside, &view, registry).await;
            found.extend(prefixed(inside, &name));
        }
        Err(error) if error.to_string().contains(&table.table_ref().to_string()) => found.bad(error),
        Err(error) => found.bad(error.within(&name)),
    }
    found
}

/// The same findings, each beginning with the table's name.
fn prefixed(inside: Findings, name: &str) -> Findings {
    let mut text = String::new();
    for line in inside.text.lines() {
        let (sign, rest) = line.split_once(' ').unwrap_or(("–", line));
        text.push_str(&format!("{sign} {name}: {rest}\n"));
    }
    Findings { text, worst: inside.worst.map(|e| e.within(name)), problems: inside.problems }
}

fn check_owner(found: &mut Findings, pipeline: &Pipeline, view: &View) {
    match &view.pipeline {
        Some(owner) if *owner == pipeline.name => found.good(format_args!("belongs to pipeline {owner}")),
        Some(owner) => found.bad(Error::Config(format!(
            "belongs to pipeline {owner}, not to {}: give {} a table of its own, or remove the table property firn.pipeline \
             if {owner} is retired",
            pipeline.name, pipeline.name
        ))),
        None => found.info("belongs to no pipeline yet; the first commit makes it this pipeline's"),
    }
}

fn check_format(found: &mut Findings, table: &Table, opened: &OpenTable) {
    match opened {
        OpenTable::Iceberg(iceberg) => {
            let (version, asked) = (iceberg.metadata().format_version() as u8, table.format_version);
            if version == asked {
                found.good(format_args!("Iceberg format version {version}"));
            } else {
                found.info(format_args!(
                    "has Iceberg format version {version}, the settings say {asked}; it stays as it is until it is upgraded"
                ));
            }
        }
        OpenTable::Delta(delta) => match delta.check_writable() {
            Ok(()) => found.good("Delta, with table features that firn writes"),
            Err(error) => found.bad(error),
        },
    }
}

fn check_columns(
    found: &mut Findings,
    pipeline: &Pipeline,
    table: &Table,
    (opened, formats): (&OpenTable, &[TableFormat]),
    view: &View,
    wanted: &[TableSchema],
) {
    check_format(found, table, opened);
    let Some(first) = wanted.first() else {
        found.info("columns not compared: there is no schema to compare with");
        return;
    };
    let as_set = |key: &[String]| key.iter().cloned().collect::<BTreeSet<_>>();
    if pipeline.mode == Mode::Upsert && as_set(&view.schema.key) != as_set(&first.key) {
        found.bad(Error::Config(format!(
            "its identifier fields are [{}], but the pipeline's key is [{}]: make them equal",
            view.schema.key.join(", "),
            first.key.join(", ")
        )));
    }
    let own = opened.lake().schema();
    let differences: Vec<_> = wanted.iter().flat_map(|wanted| evolve(&own, wanted, formats, 0).changes).collect();
    if differences.is_empty() {
        found.good("its columns hold what the newest schema has");
    }
    for difference in differences {
        match &difference {
            Difference::Cannot { .. } => found.bad(Error::Decision(format!(
                "{difference}; register a schema that fits, or read the topic into a new table"
            ))),
            change => found.info(format_args!(
                "the newest schema {change}; `firn run` does that with the first rows that need it"
            )),
        }
    }
}

/// Whether the schema ids of the table's records mean what they meant.
async fn check_schema_ids(found: &mut Findings, view: &View, registry: Option<&Registry>) {
    let pins = match Pins::read(view.schemas.as_deref()) {
        Ok(pins) => pins,
        Err(why) => return found.bad(Error::Decision(why)),
    };
    let Some(registry) = registry else { return };
    let ask = |(id, _)| async move {
        let asked = async { registry.schema(id as i32).await.map(|s| Some(s.fingerprint)).or_else(known_to_be_gone) };
        (id, in_time("schema registry", PATIENCE, asked).await)
    };
    let mut answers = futures::stream::iter(pins.iter()).map(ask).buffered(ASKED_TOGETHER);
    let (mut same, mut wrong) = (0, 0);
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(None) => {
                wrong += 1;
                found.info(format_args!(
                    "schema id {id}, which records in it name, is not in the schema registry any more: a further record that \
                     names it stops the pipeline"
                ));
            }
            Ok(Some(now)) => match pins.check(id, now) {
                Ok(()) => same += 1,
                Err(repinned) => {
                    wrong += 1;
                    found.bad(Error::Decision(repinned.to_string()));
                }
            },
            // One line is enough for one server.
            Err(error) => return found.bad(error),
        }
    }
    if same > 0 && wrong == 0 {
        found.good("the schema ids of its records mean what they meant");
    }
}

/// A schema that the registry does not have is an answer too.
fn known_to_be_gone(error: RegistryError) -> Result<Option<Fingerprint>> {
    match error {
        RegistryError::NotFound(_) => Ok(None),
        other => Err(other.into()),
    }
}

fn check_position(found: &mut Findings, view: &View, log: Option<&Log>) {
    let set = "look with `firn offsets show`, settle it with `firn offsets set";
    match view.history.vector(None) {
        VectorRead::Never => found.info("firn has not committed to it yet"),
        VectorRead::Lost(_) => found.bad(Error::Decision(format!(
            "the snapshot that held its position is gone, and the current one cannot be shown to descend from it; {set} \
             --from-property`"
        ))),
        VectorRead::Found(vector) => {
            if let Some(why) = log.and_then(|log| mismatch(&vector, log)) {
                found.bad(Error::Decision(format!("{why}; {set} --new-epoch`")));
                return;
            }
            let lost = vector.iter().find_map(|(id, position)| {
                let (name, topic) = log?.topics.iter().find(|(_, topic)| topic.id == id.topic)?;
                let first = topic.partitions.get(&id.partition)?.first;
                let untouched = position.start.earliest && position.next == position.start.offset;
                (position.next < first && !untouched).then(|| (name.clone(), id.partition, position.next, first))
            });
            match lost {
                None => found.good("its position in the log is known"),
                Some((topic, partition, next, first)) => found.bad(Error::Decision(format!(
                    "{topic}/{partition} is to be read from offset {next}, but the log begins at {first}: records that were \
                     never written are gone; restore the log, or accept the loss with `firn offsets set --partition \
                     {topic}/{partition}={first}`"
                ))),
            }
        }
    }
}

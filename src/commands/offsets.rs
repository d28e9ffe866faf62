//! `firn offsets show` and `firn offsets set`: the position of each table in the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::{Output, PartitionOffset, aligned, catalog_is_new, in_time, load, print, worse};
use crate::core::history::{VectorRead, View};
use crate::core::offsets::Vector;
use crate::core::reposition::{Log, Order, accept_schemas, mismatch, reposition};
use crate::query::Format;
use crate::service::{self, Catalogs, Moved};
use crate::settings::{Brokers, Mode, Pipeline, Settings, Table};
use crate::table::LakeTable;
use crate::{Error, Result};

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `firn offsets show`.
#[derive(Debug, Clone)]
pub struct OffsetsShowArgs {
    /// The settings file.
    pub config: PathBuf,
    /// [`Format::Json`] for one JSON document; anything else for people.
    pub format: Format,
}

/// `firn offsets set`.
#[derive(Debug, Clone, Default)]
pub struct OffsetsSetArgs {
    /// The settings file.
    pub config: PathBuf,
    /// The pipeline whose tables get the position.
    pub pipeline: String,
    /// `catalog.namespace.table`; none: every table of the pipeline.
    pub table: Option<String>,
    /// The next offset of each partition that changes.
    pub positions: Vec<PartitionOffset>,
    /// Accept the V of the table property, after the history that held V was lost.
    pub from_property: bool,
    /// Begin anew: the topic was created again, or the brokers are another cluster.
    pub new_epoch: bool,
    /// Take offsets that the log does not have.
    pub force: bool,
    /// Schema ids that mean another schema by now, which is to count.
    pub accept_schemas: Vec<u32>,
    /// Kept in the table's history.
    pub reason: String,
}

/// Where one table is.
#[derive(Debug, Serialize)]
struct TableReport {
    pipeline: String,
    table: String,
    /// `found`, `never`, `lost`, `missing`, `unreachable`.
    state: &'static str,
    snapshot: Option<i64>,
    committed: Option<String>,
    /// The cluster that the offsets are of.
    cluster: Option<String>,
    /// `reachable`, `embedded`, `unreachable`.
    brokers: &'static str,
    partitions: Vec<PartitionReport>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PartitionReport {
    topic: String,
    topic_id: String,
    partition: i32,
    start: Option<i64>,
    next: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
}

/// What the brokers say.
enum Brokered {
    Embedded,
    Log(Log),
    Failed(Error),
}

impl Brokered {
    async fn ask(settings: &Settings, pipeline: &Pipeline) -> Brokered {
        if settings.kafka.brokers == Brokers::Embedded {
            return Brokered::Embedded;
        }
        let asked = async { service::read_log(&service::cluster_within(settings, PATIENCE)?, pipeline).await };
        match in_time("kafka", PATIENCE + PATIENCE, asked).await {
            Ok(log) => Brokered::Log(log),
            Err(error) => Brokered::Failed(error),
        }
    }

    fn log(&self) -> Option<&Log> {
        if let Brokered::Log(log) = self { Some(log) } else { None }
    }

    fn name(&self) -> &'static str {
        match self {
            Brokered::Embedded => "embedded",
            Brokered::Log(_) => "reachable",
            Brokered::Failed(_) => "unreachable",
        }
    }
}

/// Prints V of each table and how far it is behind the log.
///
/// # Errors
/// After printing: [`Error::Unreachable`] where a server did not answer, [`Error::Decision`] where a table's V is lost or is of
/// another log. [`Error::Config`] when the settings are wrong.
pub async fn offsets_show(args: OffsetsShowArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let catalogs = Catalogs::default();
    let (mut reports, mut worst) = (Vec::new(), None);
    for pipeline in settings.pipelines.values() {
        let brokers = Brokered::ask(&settings, pipeline).await;
        if let Brokered::Failed(error) = &brokers {
            worse(&mut worst, error.clone().within(format_args!("pipeline {}", pipeline.name)));
        }
        for table in &pipeline.tables {
            reports.push(report(&settings, &catalogs, pipeline, table, &brokers, &mut worst).await);
        }
    }
    let text = match args.format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&serde_json::json!({ "tables": reports }));
            json.map_err(|e| Error::Internal(format!("cannot print JSON: {e}")))? + "\n"
        }
        _ => reports.iter().map(TableReport::to_text).collect::<Vec<_>>().join("\n"),
    };
    print(out, &text)?;
    worst.map_or(Ok(()), Err)
}

async fn report(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &Pipeline,
    table: &Table,
    brokers: &Brokered,
    worst: &mut Option<Error>,
) -> TableReport {
    let mut report = TableReport {
        pipeline: pipeline.name.clone(),
        table: table.table_ref().to_string(),
        state: "unreachable",
        snapshot: None,
        committed: None,
        cluster: None,
        brokers: brokers.name(),
        partitions: Vec::new(),
        notes: Vec::new(),
    };
    match brokers {
        Brokered::Embedded => report.notes.push("the brokers are embedded and not running here: no end, no lag".into()),
        Brokered::Failed(error) => report.notes.push(format!("the brokers are not running, or not reachable: {error}")),
        Brokered::Log(_) => {}
    }
    let opened = match open(settings, catalogs, table).await {
        Ok(Some(opened)) => opened,
        Ok(None) => {
            report.state = "missing";
            report.notes.push("the table is not there yet: `firn run` creates it".into());
            return report;
        }
        Err(error) => {
            report.notes.push(error.to_string());
            worse(worst, error);
            return report;
        }
    };
    let decision = match in_time(&report.table, PATIENCE, opened.load(None)).await {
        Ok(view) => fill(&mut report, &view, brokers.log()),
        Err(error) => Some(error),
    };
    if let Some(error) = decision {
        report.notes.push(hint(&error, settings, &report));
        worse(worst, error.within(format_args!("table {}", report.table)));
    }
    report
}

/// Adds what the table says; returns what a person has to decide.
fn fill(report: &mut TableReport, view: &View, log: Option<&Log>) -> Option<Error> {
    report.snapshot = view.snapshot;
    report.committed = view.history.ancestors.first().and_then(|a| time(a.timestamp_ms));
    let (vector, decision) = match view.history.vector(None) {
        VectorRead::Found(vector) => {
            report.state = "found";
            let why = log.and_then(|log| mismatch(&vector, log));
            let decision = why.map(|why| {
                Error::Decision(format!("{why}: its offsets mean nothing there; begin a new epoch with --new-epoch"))
            });
            (vector, decision)
        }
        VectorRead::Never => {
            report.state = "never";
            report.notes.push("firn has not committed to this table yet".into());
            return None;
        }
        VectorRead::Lost(anchor) => {
            report.state = "lost";
            let what =
                "the snapshot that held the position is gone, and the current one cannot be shown to descend from it";
            let Some(anchor) = anchor else {
                return Some(Error::Decision(format!("{what}; no property has the position either")));
            };
            let error =
                format!("{what}; the positions below are those of the property, as of snapshot {}", anchor.snapshot);
            (anchor.vector, Some(Error::Decision(error)))
        }
    };
    report.cluster = Some(vector.cluster.clone());
    report.partitions = partitions(&vector, log);
    decision
}

/// All partitions of V, and those of the log that V does not have.
fn partitions(vector: &Vector, log: Option<&Log>) -> Vec<PartitionReport> {
    let mut rows: BTreeMap<(String, Arc<str>, i32), PartitionReport> = BTreeMap::new();
    for (id, stored) in &vector.topics {
        for (&partition, position) in &stored.partitions {
            let (start, next) = (Some(position.start.offset), Some(position.next));
            let (topic, topic_id) = (stored.name.clone(), id.to_string());
            let row = PartitionReport { topic, topic_id, partition, start, next, end: None, lag: None };
            rows.insert((stored.name.clone(), id.clone(), partition), row);
        }
    }
    let same = log.filter(|log| log.cluster == vector.cluster);
    for (name, topic) in same.into_iter().flat_map(|log| &log.topics) {
        for (&partition, log) in &topic.partitions {
            let key = (name.clone(), topic.id.clone(), partition);
            let row = rows.entry(key).or_insert_with(|| PartitionReport {
                topic: name.clone(),
                topic_id: topic.id.to_string(),
                partition,
                start: None,
                // A partition that joined a known topic is read from 0.
                next: vector.topics.contains_key(&topic.id).then_some(0),
                end: None,
                lag: None,
            });
            row.end = Some(log.stable);
            row.lag = row.next.map(|next| (log.stable - next.max(log.first)).max(0));
        }
    }
    rows.into_values().collect()
}

/// The message, and the command that settles it.
fn hint(error: &Error, settings: &Settings, report: &TableReport) -> String {
    let flag = match (error, report.state) {
        (Error::Decision(_), "lost") if report.cluster.is_some() => "--from-property",
        (Error::Decision(_), "lost" | "found") => "--new-epoch",
        _ => return error.to_string(),
    };
    let (file, pipeline, table) = (settings.path.display(), &report.pipeline, &report.table);
    format!(
        "{error}; `firn offsets set -c {file} --pipeline {pipeline} --table {table} {flag} --reason \"…\"` accepts that"
    )
}

impl TableReport {
    fn to_text(&self) -> String {
        let mut text = format!("{} (pipeline {})\n", self.table, self.pipeline);
        if let (Some(snapshot), Some(committed)) = (self.snapshot, &self.committed) {
            let _ = writeln!(text, "  snapshot {snapshot}, committed {committed}");
        }
        if let Some(cluster) = &self.cluster {
            let _ = writeln!(text, "  kafka cluster {cluster}");
        }
        let topics: BTreeMap<&str, &str> =
            self.partitions.iter().map(|p| (p.topic_id.as_str(), p.topic.as_str())).collect();
        for (id, name) in topics {
            let _ = writeln!(text, "  topic {name}, id {id}");
        }
        if !self.partitions.is_empty() {
            let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let mut rows = vec![["topic", "partition", "start", "next", "end", "lag"].map(str::to_owned).to_vec()];
            rows.extend(self.partitions.iter().map(|p| {
                let numbers = [p.start, p.next, p.end, p.lag].map(number);
                [p.topic.clone(), p.partition.to_string()].into_iter().chain(numbers).collect()
            }));
            text.push_str(&aligned("  ", &rows));
        }
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "  {note}");
        });
        text
    }
}

async fn open(settings: &Settings, catalogs: &Catalogs, table: &Table) -> Result<Option<Arc<dyn LakeTable>>> {
    if catalog_is_new(settings, &table.catalog) {
        return Ok(None);
    }
    let opened =
        async { catalogs.get(settings, &table.catalog).await?.load_table(&table.namespace, &table.name).await };
    let opened = in_time(&format!("catalog {}", table.catalog), PATIENCE, opened).await?;
    Ok(opened.map(|table| table.lake()))
}

/// Sets V by an empty commit that carries the reason.
///
/// # Errors
/// [`Error::Config`] when the pipeline or table is not configured, or the log does not have an offset;
/// [`Error::Decision`] when a flag has to say so first; [`Error::Unreachable`] when a server does not answer.
pub async fn offsets_set(args: OffsetsSetArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let pipeline = settings.pipeline(&args.pipeline)?;
    let wanted = args.table.as_deref().map(|name| settings.table_ref(name)).transpose()?;
    let tables: Vec<&Table> =
        pipeline.tables.iter().filter(|t| wanted.as_ref().is_none_or(|w| t.table_ref() == *w)).collect();
    if let Some(table) = wanted.filter(|_| tables.is_empty()) {
        return Err(Error::Config(format!("pipeline '{}' does not write the table '{table}'", pipeline.name)));
    }
    let order = Order {
        positions: args.positions.iter().map(|p| (p.topic.clone(), p.partition, p.offset)).collect(),
        from_property: args.from_property,
        new_epoch: args.new_epoch,
        force: args.force,
        accepted_schemas: args.accept_schemas.iter().copied().collect(),
    };
    let log = match Brokered::ask(&settings, pipeline).await {
        Brokered::Log(log) => log,
        Brokered::Failed(error) => return Err(error),
        Brokered::Embedded => {
            return Err(Error::Config(
                "kafka.brokers is `embedded`, which is not running here: offsets are set against the brokers that have them"
                    .into(),
            ));
        }
    };
    let catalogs = Catalogs::default();
    let mut opened = Vec::new();
    for table in tables {
        let name = table.table_ref().to_string();
        let found = open(&settings, &catalogs, table).await?;
        let found =
            found.ok_or_else(|| Error::Config(format!("table {name} is not there yet: `firn run` creates it")))?;
        // All are looked at before the first is changed.
        let view = in_time(&name, PATIENCE, found.load(None)).await?;
        moved(&view, &log, &order).map_err(|e| e.within(format_args!("table {name}")))?;
        opened.push(found);
    }
    for table in opened {
        // The state that the newest try was made of: what a running writer commits meanwhile is not undone unseen.
        let before = Mutex::new(None);
        let next = |view: &View| {
            *before.lock().unwrap_or_else(PoisonError::into_inner) = Some(view.clone());
            moved(view, &log, &order).map_err(|e| e.within(format_args!("table {}", table.name())))
        };
        let after = service::set_vector(&*table, &pipeline.name, &next, &args.reason).await?;
        let before = before.into_inner().unwrap_or_else(PoisonError::into_inner);
        print(out, &changed(table.name(), before.as_ref(), &after, pipeline.mode))?;
        for id in &order.accepted_schemas {
            let text = "what the schema registry says of it next is what counts";
            print(out, &format!("  schema id {id}: what it meant is forgotten; {text}\n"))?;
        }
    }
    Ok(())
}

fn moved(view: &View, log: &Log, order: &Order) -> Result<Moved> {
    let pins = accept_schemas(view.schemas.as_deref(), order)?;
    Ok(Moved { vector: reposition(&view.history, log, order)?, pins })
}

/// What was and what is, and what that means.
fn changed(table: &str, before: Option<&View>, after: &Vector, mode: Mode) -> String {
    let before = match before.map(|view| view.history.vector(None)) {
        Some(VectorRead::Found(vector)) => Some(vector),
        Some(VectorRead::Lost(anchor)) => anchor.map(|a| a.vector),
        Some(VectorRead::Never) | None => None,
    };
    let mut rows = vec![["topic", "partition", "before", "after", ""].map(str::to_owned).to_vec()];
    let (mut back, mut forward) = (false, false);
    for (id, position) in after.iter() {
        let known = before.as_ref().filter(|v| v.cluster == after.cluster && v.topics.contains_key(&id.topic));
        let was = known.and_then(|v| v.next(&id));
        let meaning = match was.map(|was| position.next - was) {
            None => "new".to_owned(),
            Some(0) => String::new(),
            Some(moved) if moved < 0 => {
                back = true;
                format!("{} offsets are read again", -moved)
            }
            Some(moved) => {
                forward = true;
                format!("{moved} offsets are never read")
            }
        };
        let name = after.topics.get(&id.topic).map_or(&*id.topic, |t| t.name.as_str());
        let was = was.map_or_else(|| "-".to_owned(), |was| was.to_string());
        rows.push(vec![name.to_owned(), id.partition.to_string(), was, position.next.to_string(), meaning]);
    }
    let mut text = format!("{table}: position set (kafka cluster {})\n{}", after.cluster, aligned("  ", &rows));
    if back && mode == Mode::Append {
        text.push_str("  a replay: in append mode the events read again become rows a second time\n");
    } else if back {
        text.push_str("  a replay: events read again are upserted once more, which gives the same rows in the end\n");
    }
    if forward {
        text.push_str("  events that are skipped never enter the table\n");
    }
    text
}

fn time(ms: i64) -> Option<String> {
    chrono::DateTime::from_timestamp_millis(ms).map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

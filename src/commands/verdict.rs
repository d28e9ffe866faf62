//! `firn schema verdict`: what a schema would do to the tables of a pipeline, before it is registered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;

use super::{Output, aligned, catalog_is_new, in_time, load, print};
use crate::avro::{KeySchema, SchemaKind, SchemaText, ValueSchema};
use crate::core::schema::{Difference, TableSchema, verdict};
use crate::query::Format;
use crate::service::{self, Catalogs, Latest, Outlook, event_shape, read_log};
use crate::settings::{Mode, Pipeline, Settings, Table, Topics};
use crate::source::{Registry, RegistryError};
use crate::table::OpenTable;
use crate::{Error, Result};

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// A schema is a page or two; more than this is another file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// `firn schema verdict`.
#[derive(Debug, Clone)]
pub struct VerdictArgs {
    /// The settings file.
    pub config: PathBuf,
    /// The pipeline whose tables are asked about.
    pub pipeline: String,
    /// The schema of the values, as a file; none: the newest one that the registry has.
    pub schema: Option<PathBuf>,
    /// [`Format::Json`] for one JSON document; anything else for people.
    pub format: Format,
}

/// What is known of a schema and its tables.
#[derive(Debug, Serialize)]
struct Report {
    pipeline: String,
    /// Whether every table can hold its rows.
    compatible: bool,
    /// Where the schema comes from.
    schema: String,
    registry: Said,
    tables: Vec<TableReport>,
}

/// What the registry says of the schema.
#[derive(Debug, Serialize)]
struct Said {
    subject: String,
    /// `compatible`, `incompatible`, `registered`, `no_versions`, `unknown`.
    answer: &'static str,
    messages: Vec<String>,
}

/// What would become of one table.
#[derive(Debug, Serialize)]
struct TableReport {
    table: String,
    format: String,
    compatible: bool,
    exists: bool,
    changes: Vec<Change>,
}

/// One thing that would happen.
#[derive(Debug, Serialize)]
struct Change {
    action: &'static str,
    /// Dotted; empty where the whole schema is meant.
    path: String,
    from: Option<String>,
    to: Option<String>,
    why: Option<String>,
    old_data: &'static str,
    old_readers: &'static str,
    #[serde(skip)]
    sentence: String,
}

/// Says what a schema would do to each table of a pipeline, and what the registry thinks of it. Changes nothing.
///
/// # Errors
/// After printing, [`Error::No`] when a table cannot hold its rows. [`Error::Config`] when settings or file are wrong,
/// [`Error::Unreachable`] when a server does not answer that is needed.
pub async fn schema_verdict(args: VerdictArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let pipeline = settings.pipeline(&args.pipeline)?;
    let registry = service::registry(&settings);
    let topic = topic(&settings, pipeline).await?;
    let (schema, source, said) = candidate(registry.as_ref().ok(), (pipeline, &topic), args.schema.as_deref()).await?;
    let newest = match registry {
        Ok(registry) => newest(&registry, &topic, pipeline, said.answer != "unknown").await?,
        Err(_) => Latest { values: Vec::new(), key: None, ids: Vec::new() },
    };
    let catalogs = Catalogs::default();
    let parsed = ValueSchema::parse(&schema);
    let takers = takers(pipeline, parsed.as_ref().ok())?;
    let opened = pipeline.tables.iter().map(|table| open(&settings, &catalogs, table));
    let opened = join_all(opened).await.into_iter().collect::<Result<Vec<_>>>()?;
    let tables = match parsed {
        Err(why) => {
            let tables = pipeline.tables.iter().zip(&opened);
            tables.map(|(table, opened)| TableReport::unreadable(&settings, table, opened.as_ref(), &why)).collect()
        }
        Ok(schema) => {
            let lakes = opened.iter().map(|table| table.as_ref().map(OpenTable::lake)).collect();
            let found = service::outlook(&settings, pipeline, lakes, &newest, &Arc::new(schema));
            let found = found.into_iter().zip(&opened).filter(|(outlook, _)| takers.contains(&outlook.table));
            found.map(|(outlook, opened)| TableReport::of(&settings, &outlook, opened.as_ref())).collect::<Vec<_>>()
        }
    };
    let report = Report {
        pipeline: pipeline.name.clone(),
        compatible: tables.iter().all(|t| t.compatible),
        schema: source,
        registry: said,
        tables,
    };
    let text = match args.format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&report);
            json.map_err(|e| Error::Internal(format!("cannot print JSON: {e}")))? + "\n"
        }
        _ => report.to_text(),
    };
    print(out, &text)?;
    match report.tables.iter().find(|t| !t.compatible) {
        None => Ok(()),
        Some(table) => Err(Error::No(format!("table {} cannot hold rows of this schema", table.table))),
    }
}

/// The topic whose schemas the tables have: the first, in order of names.
async fn topic(settings: &Settings, pipeline: &Pipeline) -> Result<String> {
    match &pipeline.topics {
        Topics::Names(names) => Ok(names.iter().min().cloned().unwrap_or_default()),
        Topics::Pattern(pattern) => {
            let cluster = service::cluster_within(settings, PATIENCE)?;
            let log = in_time("kafka", PATIENCE, read_log(&cluster, pipeline)).await?;
            let first = log.topics.keys().next().cloned();
            first.ok_or_else(|| Error::Config(format!("pipeline {}: no topic matches {pattern} yet", pipeline.name)))
        }
    }
}

/// The tables that take a record type of this schema; all of them where it cannot be read, which each of them reports.
fn takers<'p>(pipeline: &'p Pipeline, schema: Option<&ValueSchema>) -> Result<Vec<&'p Table>> {
    let Some(schema) = schema else { return Ok(pipeline.tables.iter().collect()) };
    let takes = |table: &&Table| schema.has_any_of(&event_shape(pipeline, table).types);
    let tables: Vec<_> = pipeline.tables.iter().filter(takes).collect();
    if tables.is_empty() {
        let types: Vec<_> = service::record_types(pipeline).into_iter().map(String::as_str).collect();
        return Err(Error::Config(format!(
            "no table of pipeline {} takes record type {schema}; the settings name {}",
            pipeline.name,
            types.join(", ")
        )));
    }
    Ok(tables)
}

/// The schema that is asked about, where it comes from, and what the registry says of it.
async fn candidate(
    registry: Option<&Registry>,
    (pipeline, topic): (&Pipeline, &str),
    file: Option<&Path>,
) -> Result<(SchemaText, String, Said)> {
    let Some(file) = file else {
        let subjects = service::value_subjects(pipeline, topic);
        let [subject] = subjects.as_slice() else {
            return Err(Error::Config(format!(
                "pipeline {} has a subject for each record type: name a file with the schema of one",
                pipeline.name
            )));
        };
        let subject = subject.clone();
        let registry = registry.ok_or_else(|| {
            Error::Config("the registry is embedded and not running here: name a file with the schema".into())
        })?;
        let newest = async { registry.latest(&subject).await.map_err(Error::from) };
        let newest = in_time("schema registry", PATIENCE, newest).await?;
        let source = format!("version {} of subject {subject}", newest.version);
        let said = Said { subject, answer: "registered", messages: Vec::new() };
        return Ok((newest.schema.text, source, said));
    };
    let text = read(file)?;
    let text = SchemaText::new(SchemaKind::guess(&text), &text);
    let record_type = ValueSchema::parse(&text).ok().and_then(|schema| schema.names().next().cloned());
    let subject = service::value_subject(pipeline, topic, record_type.as_deref().unwrap_or_default());
    let said = match registry {
        None => Said::unknown(subject, "the registry is embedded and not running here".into()),
        Some(registry) => opinion(registry, subject, &text).await,
    };
    Ok((text, file.display().to_string(), said))
}

async fn opinion(registry: &Registry, subject: String, text: &SchemaText) -> Said {
    let asked = tokio::time::timeout(PATIENCE, registry.opinion(&subject, text)).await;
    match asked {
        Ok(Ok(opinion)) => {
            let answer = if opinion.compatible { "compatible" } else { "incompatible" };
            Said { subject, answer, messages: opinion.messages }
        }
        Ok(Err(RegistryError::NotFound(_))) => Said { subject, answer: "no_versions", messages: Vec::new() },
        Ok(Err(error)) => Said::unknown(subject, error.to_string()),
        Err(_) => Said::unknown(subject, format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The newest schemas that the registry has. Where it does not answer, only a schema of record keys is missed, and only where
/// they are the primary key.
async fn newest(registry: &Registry, topic: &str, pipeline: &Pipeline, answers: bool) -> Result<Latest> {
    let key = key_schema(registry, topic, pipeline).await?.map(Arc::from);
    let mut values = Vec::new();
    for subject in service::value_subjects(pipeline, topic).into_iter().filter(|_| answers) {
        let asked = async { registry.latest(&subject).await.map_err(Error::from) };
        let version = in_time("schema registry", PATIENCE, asked).await;
        // None yet, or one that makes no rows: the pipeline has not made room for it either.
        values.extend(version.ok().and_then(|version| ValueSchema::parse(&version.schema.text).ok()).map(Arc::new));
    }
    Ok(Latest { values, key, ids: Vec::new() })
}

/// The newest schema of the record keys. Only where they are the primary key does it have to be there.
async fn key_schema(registry: &Registry, topic: &str, pipeline: &Pipeline) -> Result<Option<KeySchema>> {
    let needed = pipeline.mode == Mode::Upsert && pipeline.key.is_none();
    let asked = async { Ok(registry.latest(&format!("{topic}-key")).await) };
    match in_time("schema registry", PATIENCE, asked).await {
        Ok(Ok(version)) => Ok(Some(KeySchema::parse(&version.schema.text))),
        Ok(Err(RegistryError::NotFound(_) | RegistryError::Unsupported { .. })) => Ok(None),
        Ok(Err(error)) if needed => Err(error.into()),
        Err(error) if needed => Err(error),
        _ => Ok(None),
    }
}

fn read(file: &Path) -> Result<String> {
    let failed = |e: std::io::Error| Error::Config(format!("cannot read the schema {}: {e}", file.display()));
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Error::Config(format!("{}: larger than 4 MiB; this is no schema", file.display())));
    }
    std::fs::read_to_string(file).map_err(failed)
}

/// The table as it is now; none where it does not exist yet.
async fn open(settings: &Settings, catalogs: &Catalogs, table: &Table) -> Result<Option<OpenTable>> {
    let opened = async {
        if catalog_is_new(settings, &table.catalog) {
            return Ok(None);
        }
        let catalog = catalogs.get(settings, &table.catalog).await?;
        catalog.load_table(&table.namespace, &table.name).await
    };
    in_time(&format!("table {}", table.table_ref()), PATIENCE, opened).await
}

impl TableReport {
    fn of(settings: &Settings, outlook: &Outlook<'_>, opened: Option<&OpenTable>) -> TableReport {
        let created = outlook.created.fields.iter().map(|f| Change::created(&f.name, &f.kind.to_string()));
        TableReport {
            table: outlook.table.table_ref().to_string(),
            format: opened.map_or(service::format(settings, outlook.table), OpenTable::format).to_string(),
            compatible: outlook.is_possible(),
            exists: opened.is_some(),
            changes: created.chain(outlook.changes.iter().map(Change::of)).collect(),
        }
    }

    /// That of a schema that makes no rows.
    fn unreadable(settings: &Settings, table: &Table, opened: Option<&OpenTable>, why: &Error) -> TableReport {
        let changes = vec![Difference::no_way(why.to_string())];
        let outlook = Outlook { table, lake: None, created: TableSchema::default(), changes };
        TableReport::of(settings, &outlook, opened)
    }
}

impl Said {
    fn unknown(subject: String, why: String) -> Said {
        Said { subject, answer: "unknown", messages: vec![why] }
    }
}

impl Change {
    fn of(difference: &Difference) -> Change {
        let meaning = verdict(difference);
        let (path, from, to, why) = match difference {
            Difference::Add { path, kind, .. } => (path, None, Some(kind.to_string()), None),
            Difference::Widen { path, from, to } => (path, Some(from.to_string()), Some(to.to_string()), None),
            Difference::Rename { path, to } => (path, None, Some(to.clone()), None),
            Difference::Relax { path } => (path, None, None, None),
            Difference::Cannot { path, types, why } => {
                let (from, to) = types.as_ref().map(|(a, b)| (a.to_string(), b.to_string())).unzip();
                (path, from, to, Some(why.clone()))
            }
        };
        Change {
            action: meaning.action,
            path: path.clone(),
            from,
            to,
            why,
            old_data: meaning.old_data,
            old_readers: meaning.old_readers,
            sentence: difference.to_string(),
        }
    }

    fn created(name: &str, kind: &str) -> Change {
        Change {
            action: "create",
            path: name.to_owned(),
            from: None,
            to: Some(kind.to_owned()),
            why: None,
            old_data: "there is none: the table does not exist yet",
            old_readers: "there are none",
            sentence: format!("the new table has column {name} ({kind})"),
        }
    }

    fn sign(&self) -> &'static str {
        if self.action == "not_possible" { "✗" } else { "+" }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!("pipeline {}: {}\n", self.pipeline, self.schema);
        let registry = match self.registry.answer {
            "compatible" => "would take it".to_owned(),
            "incompatible" => "would refuse it".to_owned(),
            "registered" => "has it".to_owned(),
            "no_versions" => "has no version to compare with".to_owned(),
            _ => "was not asked".to_owned(),
        };
        text.push_str(&format!("schema registry, subject {}: {registry}\n", self.registry.subject));
        self.registry.messages.iter().for_each(|message| text.push_str(&format!("  {message}\n")));
        for table in &self.tables {
            let answer = if table.compatible { "compatible" } else { "not possible" };
            text.push_str(&format!("\ntable {} ({}): {answer}\n", table.table, table.format));
            if table.changes.is_empty() {
                text.push_str("  nothing changes\n");
            }
            if !table.exists && table.compatible {
                let rows = table.changes.iter().map(|c| vec![c.path.clone(), c.to.clone().unwrap_or_default()]);
                text.push_str("  it does not exist yet, and would be created with\n");
                text.push_str(&aligned("    ", &rows.collect::<Vec<_>>()));
                continue;
            }
            for change in &table.changes {
                let Change { sentence, old_data, old_readers, .. } = change;
                text.push_str(&format!("  {} {sentence}\n", change.sign()));
                text.push_str(&format!("      old data: {old_data}\n      readers:  {old_readers}\n"));
            }
        }
        text
    }
}

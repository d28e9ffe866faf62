//! Fetches the schemas that records name, and decides whether the tables can hold their rows.

use std::sync::Arc;
use std::time::Duration;

use super::intake::SchemaAnswer;
use crate::avro::{EventShape, Half, KeySchema, SchemaText, ValueSchema};
use crate::core::schema::{Asked, Difference, Fingerprint, Pins, SchemaChange, TableFormat, TableSchema, follow};
use crate::settings::{Pipeline, SubjectStrategy};
use crate::source::{Registry, RegistryError, Schema, Topology, Version};
use crate::table::LakeTable;
use crate::telemetry::{Dependency, PipelineTelemetry, Task};
use crate::{Error, Result};

/// The newest schemas of a topic.
#[derive(Debug, Clone)]
pub struct Latest {
    /// Those of the values, one for each subject.
    pub values: Vec<Arc<ValueSchema>>,
    /// The key's schema, where the registry has one.
    pub key: Option<Arc<KeySchema>>,
    /// The ids of all of them, by their subjects.
    pub ids: Vec<(String, u32, Fingerprint)>,
}

/// The record types that the tables of a pipeline take by name, in the order of the settings.
#[must_use]
pub fn record_types(pipeline: &Pipeline) -> Vec<&String> {
    let mut names: Vec<&String> = pipeline.record_types.iter().collect();
    for name in pipeline.tables.iter().filter_map(|table| table.record_type.as_ref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The subjects that have the value schemas of a topic.
#[must_use]
pub fn value_subjects(pipeline: &Pipeline, topic: &str) -> Vec<String> {
    match pipeline.subject_strategy {
        SubjectStrategy::Topic => vec![value_subject(pipeline, topic, "")],
        _ => record_types(pipeline).into_iter().map(|name| value_subject(pipeline, topic, name)).collect(),
    }
}

/// The subject that has the value schema of a record type.
#[must_use]
pub fn value_subject(pipeline: &Pipeline, topic: &str, record_type: &str) -> String {
    match pipeline.subject_strategy {
        SubjectStrategy::Topic => format!("{topic}-value"),
        SubjectStrategy::Record => record_type.to_owned(),
        SubjectStrategy::TopicRecord => format!("{topic}-{record_type}"),
    }
}

/// Asks for the newest schemas of a topic: those of its values, and subject `<topic>-key`. The former may take `patience`
/// to appear.
///
/// # Errors
/// [`Error::Config`] where the registry does not have a subject, or no schema has a record type that a table takes.
pub async fn latest(registry: &Registry, pipeline: &Pipeline, topic: &str, patience: Duration) -> Result<Latest> {
    let since = std::time::Instant::now();
    let (mut values, mut ids) = (Vec::new(), Vec::new());
    let id = |Version { subject, schema, .. }: &Version| (subject.clone(), schema.id as u32, schema.fingerprint);
    for subject in value_subjects(pipeline, topic) {
        let left = patience.saturating_sub(since.elapsed());
        let version = newest_value(registry, topic, &subject, left).await?;
        ids.push(id(&version));
        values.push(parse(version.schema.text).await.map_err(|e| e.within(format_args!("subject {subject}")))?);
    }
    let has = |name: &String| values.iter().any(|schema| schema.names().any(|known| **known == **name));
    if let Some(missing) = record_types(pipeline).into_iter().find(|name| !has(name)) {
        let subjects = value_subjects(pipeline, topic).join(", ");
        let known: Vec<_> = values.iter().map(|schema| schema.to_string()).collect();
        return Err(Error::Config(format!(
            "record type {missing} is not in the newest schema of {subjects}, which is {}: register it there (with \
             `subject_strategy: topic` as a union of all types), or set another `subject_strategy`",
            known.join("; ")
        )));
    }
    let key = match registry.latest(&format!("{topic}-key")).await {
        Ok(version) => {
            ids.push(id(&version));
            Some(parse_key(version.schema.text).await)
        }
        // A registry that has none, or one in a language that is not read, leaves it to `record_key`.
        Err(RegistryError::NotFound(_) | RegistryError::Unsupported { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Latest { values, key, ids })
}

/// The newest schema of a subject, which may take `patience` to appear.
async fn newest_value(registry: &Registry, topic: &str, subject: &str, patience: Duration) -> Result<Version> {
    let since = std::time::Instant::now();
    loop {
        match registry.latest(subject).await {
            Ok(version) => return Ok(version),
            Err(RegistryError::NotFound(_)) if since.elapsed() < patience => {
                tracing::warn!(
                    subject,
                    "the schema registry does not have this subject yet; waiting for its first schema"
                );
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Err(RegistryError::NotFound(_)) => {
                return Err(Error::Config(format!(
                    "the schema registry has no subject {subject}: register the value schema of topic {topic}, then start again"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Answers the intake's questions about schemas.
pub(super) struct SchemaDesk {
    pub(super) registry: Registry,
    /// Of each lane.
    pub(super) needs: Vec<Needs>,
    pub(super) answers: std::sync::mpsc::SyncSender<(u32, Half, SchemaAnswer)>,
    pub(super) telemetry: PipelineTelemetry,
}

/// What a value's schema is held against.
#[derive(Clone)]
pub(super) struct Needs {
    pub(super) shape: EventShape,
    pub(super) key_schema: Option<Arc<KeySchema>>,
    /// The tables of the lane, as of their last load.
    pub(super) tables: Vec<Arc<dyn LakeTable>>,
    /// The columns that the lane began with, with all names under which events have them.
    pub(super) names: Arc<TableSchema>,
    pub(super) formats: Arc<[TableFormat]>,
    /// The lowest of the Iceberg tables.
    pub(super) format_version: u8,
}

impl Needs {
    /// The table that a value's schema would make, where all tables of the lane can hold its rows, changed or not; else
    /// what is in the way. They change with the first rows that need it, each in the commit of these rows.
    fn of(&self, value: &ValueSchema) -> Result<Option<Arc<TableSchema>>, String> {
        if !value.has_any_of(&self.shape.types) {
            return Ok(None);
        }
        let wanted = value.table_schema(self.key_schema.as_deref(), &self.shape, self.format_version);
        let wanted = [Arc::new(wanted.map_err(|error| error.to_string())?)];
        for table in &self.tables {
            let changes = differences(&**table, &self.names, &wanted, &self.formats);
            if let Some(obstacle) = changes.iter().find(|change| change.is_obstacle()) {
                return Err(obstacle.to_string());
            }
        }
        let [wanted] = wanted;
        Ok(Some(wanted))
    }

    /// What becomes of a schema that the registry has. Nothing is read with one that records of its id were not written with.
    async fn look_at(lanes: &[Needs], schema: Schema, of: Half) -> SchemaAnswer {
        let tables = lanes.iter().flat_map(|lane| &lane.tables);
        if let Err(error) = check_pins(tables, schema.id as u32, Some(schema.fingerprint)) {
            return SchemaAnswer::Failed(error);
        }
        if of == Half::Key {
            return SchemaAnswer::Key(parse_key(schema.text).await);
        }
        match parse(schema.text).await {
            Err(error) => SchemaAnswer::Incompatible(error.to_string()),
            Ok(schema) => Needs::answer(lanes, schema),
        }
    }

    /// What becomes of a schema: all lanes take it, or none.
    fn answer(lanes: &[Needs], schema: Arc<ValueSchema>) -> SchemaAnswer {
        match lanes.iter().map(|lane| lane.of(&schema)).collect() {
            Ok(wanted) => SchemaAnswer::Value { schema, wanted },
            Err(why) => SchemaAnswer::Incompatible(why),
        }
    }
}

/// What changes in a table so that it holds rows of the schemas, with everything that is in the way. The rows are gathered in
/// columns with these `names`.
pub(super) fn differences(
    table: &dyn LakeTable,
    names: &TableSchema,
    wanted: &[Arc<TableSchema>],
    formats: &[TableFormat],
) -> Vec<Difference> {
    let schema = table.schema();
    let asked = Asked { table: &schema, last_field_id: schema.highest_id(), names, wanted, formats };
    let mut followed = follow(asked);
    if followed.obstacle().is_none()
        && let Some(change) = SchemaChange::to(&schema, followed.clone(), String::new())
        && let Err(why) = table.check_change(&change)
    {
        followed.changes.push(Difference::no_way(why.to_string()));
    }
    followed.changes
}

impl SchemaDesk {
    /// Fetches a schema in the background, waiting for the registry as long as it takes: an outage makes no record bad.
    pub(super) fn fetch(&self, id: u32, of: Half) {
        let (registry, answers) = (self.registry.clone(), self.answers.clone());
        let (needs, telemetry) = (self.needs.clone(), self.telemetry.clone());
        tokio::spawn(async move {
            let task = Task::only(Dependency::SchemaRegistry);
            telemetry.began(&task);
            let stalled = |error: &RegistryError| {
                tracing::warn!(id, %error, "waiting for a schema");
                telemetry.failed(&task, &error.to_string());
            };
            let schema = registry.schema_waiting(id as i32, stalled).await;
            telemetry.answered(&task);
            let answer = match schema {
                Ok(schema) => Needs::look_at(&needs, schema, of).await,
                Err(RegistryError::NotFound(what)) => {
                    match check_pins(needs.iter().flat_map(|n| &n.tables), id, None) {
                        Ok(()) => SchemaAnswer::Unknown(format!("the schema registry has no {what}")),
                        Err(error) => SchemaAnswer::Failed(error),
                    }
                }
                Err(error) => SchemaAnswer::Failed(error.into()),
            };
            // One question at a time: there is room, unless the poll thread is gone.
            let _ = answers.try_send((id, of, answer));
        });
    }
}

/// Compares what the registry says of a schema id, nothing where it does not have it, with what the tables remember of it, as
/// of their last load.
///
/// # Errors
/// [`Error::Decision`] with the table that has records of that id, read with a schema that the registry has no more.
pub(super) fn check_pins<'t>(
    tables: impl IntoIterator<Item = &'t Arc<dyn LakeTable>>,
    id: u32,
    now: Option<Fingerprint>,
) -> Result<()> {
    let check = |pins: Pins| match now {
        Some(now) => pins.check(id, now).map_err(|repinned| repinned.to_string()),
        None => pins.check_gone(id).map_err(|gone| gone.to_string()),
    };
    for table in tables {
        let checked = Pins::read(table.schemas().as_deref()).and_then(check);
        checked.map_err(|why| Error::Decision(format!("table {}: {why}", table.name())))?;
    }
    Ok(())
}

/// Parses a schema aside: a large one takes its time, and whatever its parser does concerns that schema only.
async fn parse(schema: SchemaText) -> Result<Arc<ValueSchema>> {
    let parsed = tokio::task::spawn_blocking(move || ValueSchema::parse(&schema)).await;
    parsed.unwrap_or_else(|e| Err(Error::Decision(format!("value schema: its parser failed: {e}")))).map(Arc::new)
}

/// As [`parse`], of record keys.
async fn parse_key(schema: SchemaText) -> Arc<KeySchema> {
    let parsed = tokio::task::spawn_blocking(move || KeySchema::parse(&schema)).await;
    Arc::new(parsed.unwrap_or_else(|e| KeySchema::refused(format!("its parser failed: {e}"))))
}

/// The topics of a pipeline share one table schema: the newest of the first topic, in order of names.
pub(super) fn first_topic(topology: &Topology) -> Result<Arc<str>> {
    topology.topics.keys().next().cloned().ok_or_else(|| Error::Config("no topic matches yet: nothing to read".into()))
}

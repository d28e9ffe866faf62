//! Fetches the schemas that records name, and notices when one of them asks for columns that the tables do not have.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::intake::SchemaAnswer;
use crate::avro::{EventShape, Half, table_schema};
use crate::core::schema::{TableSchema, Type};
use crate::source::{Registry, RegistryError, Topology};
use crate::{Error, Result};

/// The newest schemas of a topic.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    /// Text of the value's schema.
    pub(super) value: Arc<str>,
    /// Text of the key's schema, where the registry has one.
    pub(super) key: Option<Arc<str>>,
}

/// Asks for the newest schemas of a topic: subjects `<topic>-value` and `<topic>-key`. The first may take `patience` to
/// appear.
pub(super) async fn latest(registry: &Registry, topic: &str, patience: Duration) -> Result<Latest> {
    let subject = format!("{topic}-value");
    let since = std::time::Instant::now();
    let value = loop {
        match registry.latest(&subject).await {
            Ok(version) => break version.schema.text,
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
    };
    let key = match registry.latest(&format!("{topic}-key")).await {
        Ok(version) => Some(version.schema.text),
        // A registry that has a string or other non-record key schema, or none, leaves it to `record_key`.
        Err(RegistryError::NotFound(_) | RegistryError::Unsupported { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Latest { value, key })
}

/// Answers the intake's questions about schemas.
pub(super) struct SchemaDesk {
    pub(super) registry: Registry,
    pub(super) shape: EventShape,
    pub(super) key_schema: Option<Arc<str>>,
    pub(super) table: Arc<TableSchema>,
    pub(super) format_version: u8,
    pub(super) answers: std::sync::mpsc::SyncSender<(u32, Half, SchemaAnswer)>,
    /// Tells the pipeline that the tables have to grow first.
    pub(super) grown: mpsc::Sender<Result<Arc<str>>>,
}

impl SchemaDesk {
    /// Fetches a schema in the background, waiting for the registry as long as it takes: an outage makes no record bad.
    pub(super) fn fetch(&self, id: u32, of: Half) {
        let (registry, answers, grown) = (self.registry.clone(), self.answers.clone(), self.grown.clone());
        let (shape, table, key) = (self.shape.clone(), self.table.clone(), self.key_schema.clone());
        let version = self.format_version;
        tokio::spawn(async move {
            let stalled = |error: &RegistryError| tracing::warn!(id, %error, "waiting for a schema");
            let answer = match registry.schema_waiting(id as i32, stalled).await {
                Ok(schema) if of == Half::Key => SchemaAnswer::Found(schema.text.to_string()),
                Ok(schema) => match needs_growth(&schema.text, key.as_deref(), &shape, version, &table) {
                    Ok(true) => {
                        // A pipeline that has ended needs no columns.
                        let _ = grown.send(Ok(schema.text)).await;
                        return;
                    }
                    _ => SchemaAnswer::Found(schema.text.to_string()),
                },
                Err(RegistryError::NotFound(what)) => {
                    SchemaAnswer::Unknown(format!("the schema registry has no {what}"))
                }
                Err(error) => {
                    let _ = grown.send(Err(error.into())).await;
                    return;
                }
            };
            // One question at a time: there is room, unless the poll thread is gone.
            let _ = answers.try_send((id, of, answer));
        });
    }
}

/// Whether values of this schema have columns that the table lacks, or wider ones.
fn needs_growth(
    value: &str,
    key: Option<&str>,
    shape: &EventShape,
    format_version: u8,
    table: &TableSchema,
) -> Result<bool> {
    let wanted = table_schema(value, key, shape, format_version)?;
    Ok(wanted.fields.iter().any(|field| match table.column(&field.name) {
        None => true,
        Some(known) => is_wider(&field.kind, &known.kind),
    }))
}

/// Whether a column of type `wanted` holds values that one of type `known` cannot, and `known` can become it.
fn is_wider(wanted: &Type, known: &Type) -> bool {
    match (wanted, known) {
        (Type::Long, Type::Int) | (Type::Double, Type::Float) => true,
        (Type::Decimal { precision: new, scale: s }, Type::Decimal { precision: old, scale: t }) => new > old && s == t,
        (Type::Struct(new), Type::Struct(old)) => new
            .iter()
            .any(|field| old.iter().find(|o| o.name == field.name).is_none_or(|o| is_wider(&field.kind, &o.kind))),
        (Type::List(new), Type::List(old)) => is_wider(&new.kind, &old.kind),
        (Type::Map(_, new), Type::Map(_, old)) => is_wider(&new.kind, &old.kind),
        _ => false,
    }
}

/// The topics of a pipeline share one table schema: the newest of the first topic, in order of names.
pub(super) fn first_topic(topology: &Topology) -> Result<Arc<str>> {
    topology.topics.keys().next().cloned().ok_or_else(|| Error::Config("no topic matches yet: nothing to read".into()))
}

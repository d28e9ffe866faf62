//! Fetches the schemas that records name, and notices when one of them asks for columns that the tables do not have.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::intake::SchemaAnswer;
use crate::avro::{EventShape, Half, table_schema};
use crate::core::schema::{TableFormat, TableSchema, evolve};
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
    pub(super) needs: Needs,
    pub(super) answers: std::sync::mpsc::SyncSender<(u32, Half, SchemaAnswer)>,
    /// Tells the pipeline that the tables have to grow first.
    pub(super) grown: mpsc::Sender<Result<Arc<str>>>,
}

/// What a value's schema is held against.
#[derive(Clone)]
pub(super) struct Needs {
    pub(super) shape: EventShape,
    pub(super) key_schema: Option<Arc<str>>,
    pub(super) table: Arc<TableSchema>,
    pub(super) formats: Arc<[TableFormat]>,
    /// The lowest of the Iceberg tables.
    pub(super) format_version: u8,
}

/// What a value's schema asks of the tables.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// They have to change first.
    Change,
    /// They cannot hold its rows, and why.
    Impossible(String),
}

impl Needs {
    fn of(&self, value: &str) -> Need {
        let wanted = match table_schema(value, self.key_schema.as_deref(), &self.shape, self.format_version) {
            Ok(wanted) => wanted,
            Err(error) => return Need::Impossible(error.to_string()),
        };
        let evolution = evolve(&self.table, &wanted, &self.formats, 0);
        match evolution.obstacle() {
            Some(obstacle) => Need::Impossible(obstacle.to_string()),
            None if evolution.changes.is_empty() => Need::Nothing,
            None => Need::Change,
        }
    }
}

impl SchemaDesk {
    /// Fetches a schema in the background, waiting for the registry as long as it takes: an outage makes no record bad.
    pub(super) fn fetch(&self, id: u32, of: Half) {
        let (registry, answers, grown) = (self.registry.clone(), self.answers.clone(), self.grown.clone());
        let needs = self.needs.clone();
        tokio::spawn(async move {
            let stalled = |error: &RegistryError| tracing::warn!(id, %error, "waiting for a schema");
            let answer = match registry.schema_waiting(id as i32, stalled).await {
                Ok(schema) if of == Half::Key => SchemaAnswer::Found(schema.text.to_string()),
                Ok(schema) => match needs.of(&schema.text) {
                    Need::Change => {
                        // A pipeline that has ended needs no columns.
                        let _ = grown.send(Ok(schema.text)).await;
                        return;
                    }
                    Need::Nothing => SchemaAnswer::Found(schema.text.to_string()),
                    Need::Impossible(why) => SchemaAnswer::Incompatible(why),
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

/// The topics of a pipeline share one table schema: the newest of the first topic, in order of names.
pub(super) fn first_topic(topology: &Topology) -> Result<Arc<str>> {
    topology.topics.keys().next().cloned().ok_or_else(|| Error::Config("no topic matches yet: nothing to read".into()))
}

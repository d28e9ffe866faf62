//! What a table needs so that Firn can write it, and how its columns change.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::actions::{Action, MetaData, Protocol};
use super::create::info;
use super::history::{self, KEY};
use super::protocol::{self, ENABLE_VECTORS, MAPPING_MAX_ID, MAPPING_MODE};
use super::schema::Columns;
use super::{DeltaTable, Head, SORT_BY, partition, schema};
use crate::core::schema::{Difference, SchemaChange};
use crate::error::{Error, Result};
use crate::table::Outcome;

/// Table property: whether types may become wider.
const ENABLE_WIDENING: &str = "delta.enableTypeWidening";

/// A table with other columns.
#[derive(Debug)]
pub(super) struct Grown {
    /// The protocol, where it has to change.
    pub protocol: Option<Protocol>,
    /// Its properties and columns.
    pub metadata: MetaData,
    /// The columns as data files have them.
    pub columns: Columns,
}

/// The table of `head` after `change`. What it says of a change is always the same, so that files that were written for the
/// change are those of the commit that makes it.
///
/// # Errors
/// [`Error::Decision`] naming a column whose type Delta does not have.
pub(super) fn grow(head: &Head, change: &SchemaChange) -> Result<Grown> {
    let mut metadata = head.metadata.as_ref().clone();
    let mut features = Vec::new();
    let regrown = schema::regrow(&metadata, change)?;
    metadata.schema_string = regrown.schema_string;
    rename_settings(&mut metadata, &change.changes);
    if let Some(max) = regrown.max_column_id {
        metadata.configuration.insert(MAPPING_MAX_ID.into(), max.to_string());
        features.push("columnMapping");
    }
    if regrown.maps_names {
        metadata.configuration.insert(MAPPING_MODE.into(), "name".into());
    }
    if regrown.widened {
        features.push("typeWidening");
        metadata.configuration.insert(ENABLE_WIDENING.into(), "true".into());
    }
    if schema::has_local_timestamps(&change.to.fields) {
        features.push("timestampNtz");
    }
    let columns = schema::columns(&metadata, &history::key(&metadata.configuration))?;
    Ok(Grown { protocol: protocol::with(&head.protocol, &features), metadata, columns })
}

/// Follows renamed columns in what names columns outside of the schema.
fn rename_settings(metadata: &mut MetaData, changes: &[Difference]) {
    for change in changes {
        let Difference::Rename { path, to } = change else { continue };
        for column in metadata.partition_columns.iter_mut().filter(|column| *column == path) {
            column.clone_from(to);
        }
        if let Some(order) = metadata.configuration.get_mut(SORT_BY) {
            let renamed = order.split(',').map(|part| match part.split_once(' ') {
                Some((name, how)) if name == path => format!("{to} {how}"),
                None if part == path => to.clone(),
                _ => part.to_owned(),
            });
            *order = renamed.collect::<Vec<_>>().join(",");
        }
    }
}

impl DeltaTable {
    /// Makes the table one that Firn writes: enables deletion vectors, and notes `key` where no key is noted. Where nothing
    /// changes, nothing is committed.
    pub async fn prepare(&self, key: &[String]) -> Outcome {
        match self.try_prepare(key).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::NotSent(error),
        }
    }

    async fn try_prepare(&self, key: &[String]) -> Result<Outcome> {
        let mut state = self.current().await?;
        let head = self.head();
        self.check_write(&head)?;
        self.writing.store(true, Ordering::Relaxed);
        for &place in &head.columns.partition {
            partition::check(&head.logical.fields[place]).map_err(|e| match e {
                Error::Config(text) => self.in_context(Error::Decision(text)),
                other => other,
            })?;
        }
        let mut metadata = head.metadata.as_ref().clone();
        metadata.configuration.insert(ENABLE_VECTORS.into(), "true".into());
        if !key.is_empty() {
            metadata.configuration.entry(KEY.into()).or_insert_with(|| key.join(","));
        }
        let protocol = protocol::with(&head.protocol, &["deletionVectors"]);
        let since = history::snapshot_of(&state);
        if protocol.is_none() && metadata == *head.metadata {
            let view = history::view(&self.log, &state, &head.logical, since).await;
            return Ok(Outcome::Committed(Box::new(view.map_err(|e| self.in_context(e))?)));
        }
        let attempt = Uuid::new_v4().to_string();
        let mut actions = vec![Action::CommitInfo(info("SET TBLPROPERTIES", &attempt))];
        actions.extend(protocol.map(Action::Protocol));
        actions.push(Action::MetaData(metadata));
        self.push(&mut state, actions, &attempt, since).await
    }
}

//! The actions of a Delta log, as the protocol spells them in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Values of partition columns by physical name, as text; null is null.
pub(super) type PartitionValues = BTreeMap<String, Option<String>>;

/// A data file joins the table, or gets another deletion vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    /// Percent-encoded; relative to the table's folder, or absolute.
    pub path: String,
    #[serde(default)]
    pub partition_values: PartitionValues,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<VectorRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_row_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_row_commit_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustering_provider: Option<String>,
}

/// A data file, with the deletion vector that it has, leaves the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<PartitionValues>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<VectorRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_row_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_row_commit_version: Option<i64>,
}

/// Where a deletion vector is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VectorRef {
    /// `u`: in a file of the table named by a uuid, `p`: at an absolute path, `i`: inline.
    pub storage_type: String,
    pub path_or_inline_dv: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    pub cardinality: i64,
}

impl VectorRef {
    /// Identifies a vector: equal ids mean equal content.
    pub(super) fn id(&self) -> String {
        let offset = self.offset.map_or_else(String::new, |offset| format!("@{offset}"));
        format!("{}{}{offset}", self.storage_type, self.path_or_inline_dv)
    }
}

/// The table's columns and properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetaData {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default)]
    pub format: Format,
    pub schema_string: String,
    #[serde(default)]
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// How data files are encoded; Parquet is all there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Format { provider: "parquet".into(), options: BTreeMap::new() }
    }
}

/// What a reader and a writer must understand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// The newest version of one writing application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// Configuration of a named part of the system, kept for whoever owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DomainMetadata {
    pub domain: String,
    pub configuration: String,
    #[serde(default)]
    pub removed: bool,
}

/// A file that a checkpoint of the second kind keeps its file actions in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sidecar {
    pub path: String,
}

/// One action to write.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    CommitInfo(serde_json::Map<String, serde_json::Value>),
    Protocol(Protocol),
    MetaData(MetaData),
    Txn(Txn),
    Remove(Remove),
    Add(Add),
    DomainMetadata(DomainMetadata),
}

/// One line that was read: at most one of these is there, and none for a kind of action that changes nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Line {
    pub commit_info: Option<serde_json::Map<String, serde_json::Value>>,
    pub protocol: Option<Protocol>,
    pub meta_data: Option<MetaData>,
    pub txn: Option<Txn>,
    pub remove: Option<Remove>,
    pub add: Option<Add>,
    pub domain_metadata: Option<DomainMetadata>,
    pub sidecar: Option<Sidecar>,
}

impl From<Action> for Line {
    fn from(action: Action) -> Self {
        let mut line = Line::default();
        match action {
            Action::CommitInfo(info) => line.commit_info = Some(info),
            Action::Protocol(protocol) => line.protocol = Some(protocol),
            Action::MetaData(metadata) => line.meta_data = Some(metadata),
            Action::Txn(txn) => line.txn = Some(txn),
            Action::Remove(remove) => line.remove = Some(remove),
            Action::Add(add) => line.add = Some(add),
            Action::DomainMetadata(domain) => line.domain_metadata = Some(domain),
        }
        line
    }
}

/// The lines of a commit or of a checkpoint in JSON.
pub(super) fn parse(location: &str, text: &[u8]) -> Result<Vec<Line>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let parsed = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
    parsed.map_err(|e| Error::Decision(format!("{location} is not a part of a Delta log: {e}")))
}

/// Actions as the lines of a commit.
pub(super) fn render(actions: &[Action]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut text, action)
            .map_err(|e| Error::Internal(format!("cannot write a log action: {e}")))?;
        text.push(b'\n');
    }
    Ok(text)
}

//! A table's metadata as the text that is stored, kept beside the parsed form.
//!
//! A commit adds one snapshot to a document that lists every retained one. Serializing all of them again each time would
//! make a commit cost as much as the table has history; here the snapshots are kept as text and only joined. What this
//! version of the `iceberg` crate does not know about a table's metadata is kept too, instead of being dropped.

use std::sync::Arc;

use bytes::Bytes;
use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, TableMetadata};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The text of a metadata file in parts: what changes with every commit is rendered anew, the snapshots are joined.
#[derive(Debug, Clone)]
pub struct Document {
    head: Map<String, Value>,
    snapshots: Vec<Arc<RawValue>>,
}

/// Parts of the head that are rendered from the parsed metadata, because they grow with the history.
const LOGS: [&str; 3] = ["snapshots", "snapshot-log", "metadata-log"];

impl Document {
    /// Takes a metadata file apart.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn parse(text: &[u8]) -> serde_json::Result<Document> {
        let parts: SnapshotsOnly<'_> = serde_json::from_slice(text)?;
        let snapshots = parts.snapshots.unwrap_or_default().into_iter().map(|s| Arc::from(s.to_owned())).collect();
        let HeadOnly(head) = serde_json::from_slice(text)?;
        Ok(Document { head, snapshots })
    }

    /// The document of `after`, which is what `updates` made of the metadata that this document is of. `None` where an
    /// update is of a kind that is only rendered whole.
    #[must_use]
    pub fn apply(&self, updates: &[TableUpdate], after: &TableMetadata) -> Option<Document> {
        let mut next = self.clone();
        for update in updates {
            match update {
                TableUpdate::AddSnapshot { .. } => next.snapshots.push(snapshot_text(update)?),
                TableUpdate::SetSnapshotRef { ref_name, reference } => next.set_ref(ref_name, reference)?,
                TableUpdate::SetProperties { updates } => {
                    let properties = next.object("properties")?;
                    for (name, value) in updates {
                        properties.insert(name.clone(), Value::String(value.clone()));
                    }
                }
                _ => return None,
            }
        }
        let head = &mut next.head;
        head.insert("last-sequence-number".into(), json!(after.last_sequence_number()));
        head.insert("last-updated-ms".into(), json!(after.last_updated_ms()));
        if let Some(id) = after.current_snapshot_id() {
            head.insert("current-snapshot-id".into(), json!(id));
        }
        if head.contains_key("next-row-id") {
            head.insert("next-row-id".into(), json!(after.next_row_id()));
        }
        Some(next)
    }

    fn set_ref(&mut self, name: &str, reference: &SnapshotReference) -> Option<()> {
        let value = serde_json::to_value(reference).ok()?;
        self.object("refs")?.insert(name.to_owned(), value);
        Some(())
    }

    fn object(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        let value = self.head.entry(name.to_owned()).or_insert_with(|| json!({}));
        if value.is_null() {
            *value = json!({});
        }
        value.as_object_mut()
    }

    /// The text of the metadata file, with the logs of `metadata`.
    ///
    /// # Errors
    /// A part cannot be written as JSON.
    pub fn render(&self, metadata: &TableMetadata) -> serde_json::Result<Bytes> {
        let size: usize = self.snapshots.iter().map(|s| s.get().len() + 1).sum();
        let mut text = serde_json::to_vec(&self.head)?;
        text.reserve(size + 128 * metadata.history().len() + 256 * metadata.metadata_log().len());
        text.pop();
        if text.last() != Some(&b'{') {
            text.push(b',');
        }
        text.extend_from_slice(b"\"snapshots\":[");
        for (i, snapshot) in self.snapshots.iter().enumerate() {
            if i > 0 {
                text.push(b',');
            }
            text.extend_from_slice(snapshot.get().as_bytes());
        }
        text.extend_from_slice(b"],\"snapshot-log\":");
        serde_json::to_writer(&mut text, metadata.history())?;
        text.extend_from_slice(b",\"metadata-log\":");
        serde_json::to_writer(&mut text, metadata.metadata_log())?;
        text.push(b'}');
        Ok(text.into())
    }
}

/// The snapshot of an update as it is stored: what a REST catalog would be sent is the same text.
fn snapshot_text(update: &TableUpdate) -> Option<Arc<RawValue>> {
    let mut value = serde_json::to_value(update).ok()?;
    let snapshot = value.as_object_mut()?.remove("snapshot")?;
    serde_json::value::to_raw_value(&snapshot).ok().map(Arc::from)
}

#[derive(Deserialize)]
struct SnapshotsOnly<'a> {
    #[serde(borrow, default)]
    snapshots: Option<Vec<&'a RawValue>>,
}

/// Everything but the logs, which are skipped without being built.
struct HeadOnly(Map<String, Value>);

impl<'de> Deserialize<'de> for HeadOnly {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = HeadOnly;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table metadata object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<HeadOnly, A::Error> {
                let mut head = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if LOGS.contains(&name.as_str()) {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    } else {
                        head.insert(name, map.next_value()?);
                    }
                }
                Ok(HeadOnly(head))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

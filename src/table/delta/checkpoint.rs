//! Checkpoints: the state of the log at one version in a Parquet file, read in both kinds, written in the first.

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::actions::{self, Action, Add, Line};
use super::log::Log;
use super::state::State;
use crate::error::{Error, Result};

/// Actions that are encoded at a time.
const STEP: usize = 4096;

/// The state that the checkpoint of `version` holds.
///
/// # Errors
/// [`Error::Decision`] where it is not a checkpoint, else as reading.
pub(super) async fn read(log: &Log, version: i64, names: &[String]) -> Result<State> {
    let mut state = State::empty();
    let mut sidecars = Vec::new();
    for name in names {
        for line in lines(log, name).await? {
            match &line.sidecar {
                Some(sidecar) => sidecars.push(sidecar.path.clone()),
                None => state.restore(&log.root, line),
            }
        }
    }
    for sidecar in sidecars {
        // A name in the folder of sidecars; anything else is a path that was never promised.
        let name = sidecar.rsplit('/').next().unwrap_or_default();
        for line in lines(log, &format!("_sidecars/{name}")).await? {
            state.restore(&log.root, line);
        }
    }
    state.version = version;
    state.checkpoint = Some(version);
    Ok(state)
}

async fn lines(log: &Log, name: &str) -> Result<Vec<Line>> {
    let location = log.location(name);
    let bytes = log.store.get(&location).await?;
    if name.ends_with(".json") {
        return actions::parse(&location, &bytes);
    }
    let decoding = tokio::task::spawn_blocking(move || {
        decode(bytes).map_err(|e| Error::Decision(format!("{location} is not a checkpoint: {e}")))
    });
    decoding.await.map_err(|e| Error::Internal(format!("reading a checkpoint failed: {e}")))?
}

/// What of a checkpoint is read; the rest repeats it in other forms.
const COLUMNS: [&str; 26] = [
    "txn",
    "metaData",
    "protocol",
    "domainMetadata",
    "sidecar",
    "add.path",
    "add.partitionValues",
    "add.size",
    "add.modificationTime",
    "add.dataChange",
    "add.stats",
    "add.tags",
    "add.deletionVector",
    "add.baseRowId",
    "add.defaultRowCommitVersion",
    "add.clusteringProvider",
    "remove.path",
    "remove.deletionTimestamp",
    "remove.dataChange",
    "remove.extendedFileMetadata",
    "remove.partitionValues",
    "remove.size",
    "remove.tags",
    "remove.deletionVector",
    "remove.baseRowId",
    "remove.defaultRowCommitVersion",
];

fn decode(bytes: Bytes) -> Result<Vec<Line>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| text(&e))?;
    let leaves = builder.parquet_schema().columns().iter().enumerate();
    let is_read = |path: &str| {
        COLUMNS.iter().any(|c| path.strip_prefix(c).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let read: Vec<usize> = leaves.filter(|(_, c)| is_read(&c.path().string())).map(|(i, _)| i).collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), read);
    let mut lines = Vec::new();
    for batch in builder.with_projection(mask).with_batch_size(STEP).build().map_err(|e| text(&e))? {
        let batch = batch.map_err(|e| text(&e))?;
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|e| text(&e))?;
        lines.extend(actions::parse("it", &writer.into_inner()).map_err(|e| text(&e))?);
    }
    Ok(lines)
}

/// The actions of a checkpoint of `state`.
fn all(state: &State) -> impl Iterator<Item = Action> {
    let protocol = state.protocol.iter().map(|p| Action::Protocol(p.as_ref().clone()));
    let metadata = state.metadata.iter().map(|m| Action::MetaData(m.as_ref().clone()));
    let txns = state.txns.values().cloned().map(Action::Txn);
    let domains = state.domains.values().filter(|d| !d.removed).cloned().map(Action::DomainMetadata);
    // A checkpoint repeats what was there: it changes no data.
    let adds = state.files.values().map(|f| Action::Add(Add { data_change: false, ..f.add.clone() }));
    let removes = state.removed.values().map(|r| {
        let mut remove = r.clone();
        remove.data_change = false;
        Action::Remove(remove)
    });
    protocol.chain(metadata).chain(txns).chain(domains).chain(removes).chain(adds)
}

/// Writes a checkpoint of `state` and points readers at it.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take it.
pub(super) async fn write(log: &Log, state: &State) -> Result<()> {
    let (bytes, actions) = encode(state)?;
    let (version, size) = (state.version, bytes.len());
    let name = format!("{version:020}.checkpoint.parquet");
    // Another writer's checkpoint of the same version says the same.
    let created = log.store.create(&log.location(&name), bytes).await?;
    if created {
        let hint =
            json!({"version": version, "size": actions, "sizeInBytes": size, "numOfAddFiles": state.files.len()});
        log.store.replace(&log.location("_last_checkpoint"), hint.to_string().into()).await?;
    }
    Ok(())
}

fn encode(state: &State) -> Result<(Bytes, usize)> {
    let failed = |e: &dyn std::fmt::Display| Error::Internal(format!("cannot encode a checkpoint: {e}"));
    let schema = schema();
    let properties = WriterProperties::builder()
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::SNAPPY)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).map_err(|e| failed(&e))?;
    let (mut actions, mut step) = (0, Vec::with_capacity(STEP));
    let mut all = all(state);
    loop {
        step.clear();
        step.extend(all.by_ref().take(STEP));
        if step.is_empty() {
            break;
        }
        actions += step.len();
        let text = actions::render(&step)?;
        let reader = ReaderBuilder::new(schema.clone()).with_batch_size(STEP).build(Cursor::new(text));
        for batch in reader.map_err(|e| failed(&e))? {
            writer.write(&batch.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        }
    }
    writer.close().map_err(|e| failed(&e))?;
    Ok((bytes.into(), actions))
}

fn map(name: &str) -> Field {
    let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn list(name: &str) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true)
}

fn group(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(Fields::from(fields)), true)
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let vector = || {
        let fields = vec![text("storageType"), text("pathOrInlineDv"), int("offset"), int("sizeInBytes")];
        group("deletionVector", [fields, vec![long("cardinality")]].concat())
    };
    Arc::new(Schema::new(vec![
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                map("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
                text("clusteringProvider"),
                text("stats"),
            ],
        ),
        group(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues"),
                long("size"),
                map("tags"),
                vector(),
                long("baseRowId"),
                long("defaultRowCommitVersion"),
            ],
        ),
        group(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                group("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                list("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        group(
            "protocol",
            vec![int("minReaderVersion"), int("minWriterVersion"), list("readerFeatures"), list("writerFeatures")],
        ),
        group("domainMetadata", vec![text("domain"), text("configuration"), flag("removed")]),
    ]))
}

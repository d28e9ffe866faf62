//! Copies of the key indexes on the local disk: a quick start, and nothing that would be missed.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use rand::RngExt;

use crate::core::key_index::{ENCODING_VERSION, KeyEncoder, KeyIndex, SavedTag, saved};
use crate::core::order;
use crate::core::schema::{Field, TableSchema};
use crate::core::writer::Writer;
use crate::settings::{Mode, Pipeline, Settings};
use crate::table::LakeTable;
use crate::{Error, Result};

/// Where a table's index is saved, and what it must say to be read again.
#[derive(Debug, Clone)]
pub(super) struct SavedPlace {
    path: PathBuf,
    key_fields: Vec<i32>,
    key_types: Vec<String>,
    order_field: Option<i32>,
    order_class: Option<String>,
    secret: [u64; 2],
}

/// An index that was read from disk.
pub(super) struct RestoredIndex {
    index: KeyIndex,
    tag: SavedTag,
}

/// How keys are encoded, and what is known of them from the last run.
pub(super) struct IndexPlan {
    /// None in `append` mode.
    pub(super) encoder: Option<Arc<KeyEncoder>>,
    /// Per table; none in `append` mode.
    pub(super) places: Vec<SavedPlace>,
    /// Per table.
    pub(super) restored: Vec<Option<RestoredIndex>>,
}

/// Decides on the key encoding of tables that take the same rows: that of the saved indexes where they fit, else a new secret.
pub(super) fn plan(
    settings: &Settings,
    pipeline: &Pipeline,
    tables: &[Arc<dyn LakeTable>],
    (schema, order_by): (&TableSchema, Option<&String>),
) -> Result<IndexPlan> {
    if pipeline.mode == Mode::Append {
        return Ok(IndexPlan { encoder: None, places: Vec::new(), restored: tables.iter().map(|_| None).collect() });
    }
    let wrong = |text: String| Error::Config(format!("pipeline {}: {text}", pipeline.name));
    let keys: Vec<&Field> = schema.key.iter().filter_map(|name| schema.column(name)).collect();
    let types: Vec<_> = keys.iter().map(|field| field.kind.clone()).collect();
    let order = order_by.map(|name| {
        let field = schema.column(name).ok_or_else(|| wrong(format!("order_by: there is no column {name}")))?;
        match order::is_orderable(&field.kind) {
            true => Ok(field),
            false => Err(wrong(format!(
                "order_by: {name} is a {}; numbers of up to 64 bits, dates, times and timestamps can order events",
                field.kind
            ))),
        }
    });
    let order = order.transpose()?;
    let mut place = SavedPlace {
        path: PathBuf::new(),
        key_fields: keys.iter().map(|field| field.id).collect(),
        key_types: types.iter().map(ToString::to_string).collect(),
        order_field: order.map(|field| field.id),
        order_class: order.map(|field| order::class(&field.kind)),
        secret: [rand::rng().random(), rand::rng().random()],
    };
    let mut places = Vec::new();
    let mut restored: Vec<Option<RestoredIndex>> = Vec::new();
    for table in tables {
        place.path = settings.state_dir.join(&pipeline.name).join(format!("{}.index", table.name()));
        let found = read(&place, restored.iter().flatten().next().is_some());
        if let Some(found) = &found {
            place.secret = found.tag.secret;
        }
        restored.push(found);
        places.push(place.clone());
    }
    // One secret for all tables: places named before the first index was found take it over.
    for earlier in &mut places {
        earlier.secret = place.secret;
    }
    let encoder = KeyEncoder::new(place.secret, &types).map_err(|e| wrong(format!("key: {e}")))?;
    Ok(IndexPlan { encoder: Some(Arc::new(encoder)), places, restored })
}

/// Reads a saved index, if it is there, whole, and of the same keys. Anything else is dropped: the table has it all.
fn read(place: &SavedPlace, secret_is_fixed: bool) -> Option<RestoredIndex> {
    let file = File::open(&place.path).ok()?;
    let (tag, index) = match saved::read(&mut BufReader::with_capacity(1 << 20, file)) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(path = %place.path.display(), error, "the saved key index is not usable; reading the keys again");
            return None;
        }
    };
    let same = tag.key_fields == place.key_fields
        && tag.key_types == place.key_types
        && tag.order_field == place.order_field
        && tag.order_class == place.order_class
        && tag.encoding_version == ENCODING_VERSION
        && tag.slice.is_none()
        && index.ordered() == place.order_field.is_some()
        && (!secret_is_fixed || tag.secret == place.secret);
    same.then_some(RestoredIndex { index, tag })
}

/// A writer that starts from a saved index, where there is one.
pub(super) fn restore(writer: Writer<RecordBatch>, restored: Option<RestoredIndex>) -> Writer<RecordBatch> {
    let Some(RestoredIndex { index, tag }) = restored else { return writer };
    let files = tag.files.into_iter().map(|(number, path)| (number, Arc::from(path)));
    tracing::info!(snapshot = tag.snapshot, keys = index.keys(), "key index read from disk");
    writer.with_index(index, files, tag.table, tag.snapshot)
}

/// Saves a writer's index: written aside, synced, and renamed, so that a crash leaves the old copy or the new one.
pub(super) fn save(place: &SavedPlace, writer: &Writer<RecordBatch>) -> Result<()> {
    let Some(state) = writer.index() else { return Ok(()) };
    let tag = SavedTag {
        table: state.table.to_owned(),
        snapshot: state.snapshot,
        sequence: 0,
        key_fields: place.key_fields.clone(),
        key_types: place.key_types.clone(),
        encoding_version: ENCODING_VERSION,
        order_field: place.order_field,
        order_class: place.order_class.clone(),
        slice: None,
        secret: place.secret,
        files: state.files.iter().map(|(number, path)| (*number, path.to_string())).collect(),
    };
    let failed = |e: std::io::Error| Error::Unreachable(format!("cannot save {}: {e}", place.path.display()));
    write_aside(&place.path, |file| saved::write(state.index, &tag, file)).map_err(failed)
}

fn write_aside(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension("index.new");
    // The copy holds the secret that keys are hashed with.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    std::fs::rename(&aside, path)
}

//! What a pipeline begins with: its tables, opened lane by lane, and what makes rows for them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use rand::RngExt;

use super::lanes::Lanes;
use super::memory::Shares;
use super::pipeline::TableRun;
use super::retry::Waiting;
use super::schemas::{Latest, Needs, check_pins, differences};
use super::table_task::TableTask;
use super::tables::{self, event_shape, lane_formats};
use super::{Catalogs, saved_index};
use crate::avro::{Decoder, EventShape, KeySchema, grown_columns};
use crate::core::fold::Semantics;
use crate::core::key_index::{KeyEncoder, KeyWidth};
use crate::core::mutant::Mutants;
use crate::core::schema::{Difference, TableFormat, TableSchema};
use crate::core::writer::{Writer, WriterConfig};
use crate::settings::{Mode, OnIncompatibleSchema, Pipeline, Settings, Table};
use crate::table::LakeTable;
use crate::telemetry::{Dependency, Task};
use crate::{Error, Result};

/// Tables that take the same rows, opened.
pub(super) struct OpenLane<'p> {
    pub(super) shape: EventShape,
    /// How their events are ordered.
    order_by: Option<&'p String>,
    tables: Vec<Arc<dyn LakeTable>>,
    /// The columns in which their rows are gathered, with the other names that events have for them.
    schema: Arc<TableSchema>,
    formats: Arc<[TableFormat]>,
    /// The lowest of the Iceberg tables.
    format_version: u8,
}

/// The tables of a pipeline, those that take the same rows together, in the order of the settings.
pub(super) fn lanes(pipeline: &Pipeline) -> Vec<Vec<&Table>> {
    let mut lanes: Vec<Vec<&Table>> = Vec::new();
    for table in &pipeline.tables {
        match lanes.iter_mut().find(|lane| lane[0].record_type == table.record_type) {
            Some(lane) => lane.push(table),
            None => lanes.push(vec![table]),
        }
    }
    lanes
}

/// Opens the tables of every lane; those that are missing are created for the newest schemas.
pub(super) async fn open_lanes<'p, 'w>(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &'p Pipeline,
    newest: &Latest,
    waiting: &(dyn Fn(Task) -> Waiting<'w> + Sync),
) -> Result<Vec<OpenLane<'p>>> {
    let mut open = Vec::new();
    for lane in lanes(pipeline) {
        let shape = event_shape(pipeline, lane[0]).with_key_schema(newest.key.is_some());
        let formats = lane_formats(settings, pipeline, lane[0]);
        let mut tables = Vec::new();
        for table in &lane {
            let name = table.catalog.as_str();
            let catalog = waiting(Task::of(Dependency::Catalog, name));
            let catalog = catalog.until_reachable(|| catalogs.get(settings, name)).await?;
            let waiting = waiting(Task::of(Dependency::Table, &table.table_ref().to_string()));
            let mut wanted = wanted(newest, &shape, table.format_version)?.into_iter();
            let Some(mut all) = wanted.next() else { continue };
            // A table that is created has what any of the newest schemas asks for.
            for other in wanted {
                let grown = grown_columns(&all, &other, &[tables::format(settings, table)], None);
                all = grown.map_err(|obstacle| Error::Decision(obstacle.to_string()))?;
            }
            all = all.common_to(&formats);
            let opening = tables::Opening { pipeline, table, telemetry: waiting.telemetry };
            let opened = || tables::open_table(&catalog, &opening, &all);
            tables.push(waiting.until_reachable(opened).await?);
        }
        for (subject, id, fingerprint) in &newest.ids {
            check_pins(&tables, *id, Some(*fingerprint)).map_err(|e| e.within(format_args!("subject {subject}")))?;
        }
        let format_version = lane.iter().map(|table| table.format_version).min().unwrap_or(2);
        let schema = columns_of(&tables, pipeline, &shape, &wanted(newest, &shape, format_version)?, &formats)?;
        let order_by = pipeline.order_of(lane[0]);
        let (schema, formats) = (Arc::new(schema), formats.into());
        open.push(OpenLane { shape, order_by, tables, schema, formats, format_version });
    }
    Ok(open)
}

/// The tables that the newest schemas would make, as far as they have types of such a table.
pub(super) fn wanted(newest: &Latest, shape: &EventShape, format_version: u8) -> Result<Vec<TableSchema>> {
    let values = newest.values.iter().filter(|value| value.has_any_of(&shape.types));
    values.map(|value| value.table_schema(newest.key.as_deref(), shape, format_version)).collect()
}

/// The columns in which a lane gathers the rows of its tables: those of all of them, and what the newest schemas ask for
/// besides. A crash between the commits of two tables leaves one with columns that the other does not have yet.
///
/// # Errors
/// [`Error::Config`] where the tables cannot take the same rows, [`Error::Decision`] where they cannot hold those of a
/// newest schema, which `on_incompatible_schema: dead_letter` leaves to its records.
pub(super) fn columns_of(
    tables: &[Arc<dyn LakeTable>],
    pipeline: &Pipeline,
    shape: &EventShape,
    newest: &[TableSchema],
    formats: &[TableFormat],
) -> Result<TableSchema> {
    let mut columns = shared_columns(tables, &pipeline.name, shape, formats)?;
    for wanted in newest {
        match followed(tables, &columns, shape, wanted, formats) {
            Ok(grown) => columns = grown,
            // Events of that schema go to the dead letters; the others go on.
            Err(why) if pipeline.on_incompatible_schema == OnIncompatibleSchema::DeadLetter => {
                tracing::warn!(pipeline = pipeline.name, %why, "a schema does not fit the tables, which stay as they are");
            }
            Err(why) => return Err(why),
        }
    }
    Ok(columns)
}

/// The columns in which a lane gathers the rows of its tables as they are: those of all of them.
///
/// # Errors
/// [`Error::Config`] where the tables cannot take the same rows.
pub(super) fn shared_columns(
    tables: &[Arc<dyn LakeTable>],
    pipeline: &str,
    shape: &EventShape,
    formats: &[TableFormat],
) -> Result<TableSchema> {
    let Some((first, others)) = tables.split_first() else {
        return Err(Error::Internal(format!("pipeline {pipeline}: a lane without tables")));
    };
    let mut columns = first.schema().common_to(formats);
    for other in others {
        columns = grown_columns(&columns, &other.schema(), formats, shape.order_column()).map_err(|e| {
            Error::Config(format!(
                "pipeline {pipeline}: tables {} and {} do not take the same rows: {e}",
                first.name(),
                other.name()
            ))
        })?;
    }
    Ok(columns)
}

/// The columns with what a schema asks for besides, which each of the tables can follow.
///
/// # Errors
/// [`Error::Decision`] with what is in the way.
pub(super) fn followed(
    tables: &[Arc<dyn LakeTable>],
    columns: &TableSchema,
    shape: &EventShape,
    wanted: &TableSchema,
    formats: &[TableFormat],
) -> Result<TableSchema> {
    let asked = [Arc::new(wanted.clone())];
    for table in tables {
        let changes = differences(&**table, columns, &asked, formats);
        if let Some(obstacle) = changes.into_iter().find(Difference::is_obstacle) {
            return Err(Error::Decision(format!("table {}: {obstacle}", table.name())));
        }
    }
    let grown = grown_columns(columns, wanted, formats, shape.order_column());
    let grown = grown.map_err(|obstacle| Error::Decision(obstacle.to_string()))?;
    // The settings, too, have to make sense with the columns as they would be.
    decoder(&grown, shape, None).map(|_| grown)
}

/// The writers of all tables, the lanes' decoders, and what values' schemas are held against.
pub(super) fn prepare(
    settings: &Settings,
    pipeline: &Pipeline,
    lanes: Vec<OpenLane<'_>>,
    key_schema: Option<&Arc<KeySchema>>,
    task: impl Fn(usize, &Arc<dyn LakeTable>) -> TableTask,
) -> Result<(Vec<TableRun>, Lanes, Vec<Needs>)> {
    let (mut runs, mut decoders, mut needs) = (Vec::new(), Vec::new(), Vec::new());
    let bytes = Shares::of(settings, pipeline).batch;
    for (number, lane) in lanes.into_iter().enumerate() {
        let OpenLane { shape, order_by, tables, schema, formats, format_version } = lane;
        let plan = saved_index::plan(settings, pipeline, &tables, (&schema, order_by))?;
        let mut places = plan.places.into_iter();
        for (table, restored) in tables.iter().zip(plan.restored) {
            let mut task = task(runs.len(), table);
            task.keys = plan.encoder.clone();
            task.order_by = order_by.cloned();
            task.saved = places.next();
            let mut config =
                writer_config(pipeline, (table.name(), order_by, &*formats), &schema, plan.encoder.as_deref());
            config.max_bytes = config.max_bytes.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let writer = saved_index::restore(Writer::new(config), restored);
            runs.push(TableRun { task, writer, lane: number });
        }
        decoders.push((decoder(&schema, &shape, plan.encoder)?, shape.types.clone(), formats.clone()));
        needs.push(Needs { shape, key_schema: key_schema.cloned(), tables, names: schema, formats, format_version });
    }
    Ok((runs, Lanes::new(decoders), needs))
}

/// A decoder for tables with these columns.
pub(super) fn decoder(schema: &TableSchema, shape: &EventShape, encoder: Option<Arc<KeyEncoder>>) -> Result<Decoder> {
    let encode = move |columns: &[ArrayRef]| match &encoder {
        Some(encoder) => encoder.encode(columns),
        None => Ok(Vec::new()),
    };
    Decoder::new(schema, shape, Box::new(encode))
}

fn writer_config(
    pipeline: &Pipeline,
    (table, order_by, formats): (&str, Option<&String>, &[TableFormat]),
    schema: &TableSchema,
    encoder: Option<&KeyEncoder>,
) -> WriterConfig {
    WriterConfig {
        table: table.to_owned(),
        pipeline: pipeline.name.clone(),
        writer: format!("{:016x}", rand::rng().random::<u64>()),
        semantics: match (pipeline.mode, order_by) {
            (Mode::Append, _) => Semantics::Append,
            (Mode::Upsert, None) => Semantics::LastWins,
            (Mode::Upsert, Some(_)) => Semantics::Ordered,
        },
        key_width: encoder.map_or(KeyWidth::Exact, KeyEncoder::width),
        key: schema.key.clone(),
        formats: formats.to_vec(),
        interval_ms: i64::try_from(pipeline.commit.interval.as_millis()).unwrap_or(i64::MAX),
        max_rows: usize::try_from(pipeline.commit.max_rows).unwrap_or(usize::MAX),
        max_bytes: usize::try_from(pipeline.commit.max_bytes).unwrap_or(usize::MAX),
        mutants: Mutants::default(),
    }
}

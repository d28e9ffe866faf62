//! What a pipeline begins with: its tables, opened lane by lane, and what makes rows for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use rand::RngExt;

use super::lanes::Lanes;
use super::memory::Shares;
use super::pipeline::TableRun;
use super::retry::Waiting;
use super::schemas::{Latest, Needs};
use super::table_task::TableTask;
use super::tables::{self, event_shape, lane_formats};
use super::{Catalogs, saved_index};
use crate::avro::{Decoder, EventShape, ValueSchema};
use crate::core::fold::Semantics;
use crate::core::key_index::{KeyEncoder, KeyWidth};
use crate::core::mutant::Mutants;
use crate::core::schema::{TableFormat, TableSchema, learn_names};
use crate::core::writer::{Writer, WriterConfig};
use crate::settings::{Mode, Pipeline, Settings, Table};
use crate::table::LakeTable;
use crate::telemetry::{Dependency, Task};
use crate::{Error, Result};

/// Tables that take the same rows, opened.
pub(super) struct OpenLane<'p> {
    pub(super) shape: EventShape,
    /// How their events are ordered.
    order_by: Option<&'p String>,
    tables: Vec<Arc<dyn LakeTable>>,
    /// Their columns, with the other names that events have for them.
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

/// Opens the tables of every lane, grown to the newest schemas and to those seen in the stream.
pub(super) async fn open_lanes<'p, 'w>(
    settings: &Settings,
    catalogs: &Catalogs,
    pipeline: &'p Pipeline,
    newest: &Latest,
    (seen, waiting): (&[Arc<ValueSchema>], &(dyn Fn(Task) -> Waiting<'w> + Sync)),
) -> Result<Vec<OpenLane<'p>>> {
    let mut open = Vec::new();
    for lane in lanes(pipeline) {
        let shape = event_shape(pipeline, lane[0]).with_key_schema(newest.key.is_some());
        let formats = lane_formats(settings, pipeline, lane[0]);
        let (mut tables, mut asked) = (Vec::new(), Vec::new());
        for table in &lane {
            let name = table.catalog.as_str();
            let catalog = waiting(Task::of(Dependency::Catalog, name));
            let catalog = catalog.until_reachable(|| catalogs.get(settings, name)).await?;
            let waiting = waiting(Task::of(Dependency::Table, &table.table_ref().to_string()));
            let opening = tables::Opening { pipeline, formats: &formats, table, telemetry: waiting.telemetry };
            let mut last = None;
            for value in newest.values.iter().chain(seen).filter(|value| value.has_any_of(&shape.types)) {
                let wanted = value.table_schema(newest.key.as_deref(), &shape, table.format_version)?;
                let opened = || tables::open_table(&catalog, &opening, &wanted);
                last = Some(waiting.until_reachable(opened).await?);
                asked.push(wanted);
            }
            tables.extend(last);
        }
        check_columns(pipeline, &tables)?;
        let Some(first) = tables.first() else {
            return Err(Error::Internal(format!("pipeline {}: a lane without tables", pipeline.name)));
        };
        let schema = known_names(&first.schema(), &asked);
        let format_version = lane.iter().map(|table| table.format_version).min().unwrap_or(2);
        let order_by = pipeline.order_of(lane[0]);
        open.push(OpenLane { shape, order_by, tables, schema, formats: formats.into(), format_version });
    }
    Ok(open)
}

/// The tables of one lane take the same rows.
fn check_columns(pipeline: &Pipeline, tables: &[Arc<dyn LakeTable>]) -> Result<()> {
    let columns = |table: &Arc<dyn LakeTable>| -> BTreeSet<String> {
        table.schema().fields.iter().map(|f| f.name.clone()).collect()
    };
    match tables.iter().find(|t| columns(t) != columns(&tables[0])) {
        None => Ok(()),
        Some(other) => Err(Error::Config(format!(
            "pipeline {}: tables {} and {} have different columns; tables that take the same rows need the same",
            pipeline.name,
            tables[0].name(),
            other.name()
        ))),
    }
}

/// The table's columns with the other names under which the events of these schemas have them.
pub(super) fn known_names(table: &TableSchema, wanted: &[TableSchema]) -> Arc<TableSchema> {
    let mut known = table.clone();
    wanted.iter().for_each(|wanted| learn_names(&mut known, wanted));
    Arc::new(known)
}

/// The writers of all tables, the lanes' decoders, and what values' schemas are held against.
pub(super) fn prepare(
    settings: &Settings,
    pipeline: &Pipeline,
    lanes: Vec<OpenLane<'_>>,
    key_schema: Option<&Arc<str>>,
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
            let mut config = writer_config(pipeline, (table.name(), order_by), &schema, plan.encoder.as_deref());
            config.max_bytes = config.max_bytes.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let writer = saved_index::restore(Writer::new(config), restored);
            runs.push(TableRun { task, writer, lane: number });
        }
        decoders.push((decoder(&schema, &shape, plan.encoder)?, shape.types.clone()));
        needs.push(Needs { shape, key_schema: key_schema.cloned(), table: schema, formats, format_version });
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
    (table, order_by): (&str, Option<&String>),
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
        interval_ms: i64::try_from(pipeline.commit.interval.as_millis()).unwrap_or(i64::MAX),
        max_rows: usize::try_from(pipeline.commit.max_rows).unwrap_or(usize::MAX),
        max_bytes: usize::try_from(pipeline.commit.max_bytes).unwrap_or(usize::MAX),
        mutants: Mutants::default(),
    }
}

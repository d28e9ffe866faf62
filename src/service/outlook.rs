//! What a schema would do to the tables of a pipeline: the decisions that a running pipeline takes, without one.

use std::sync::Arc;

use super::lanes::Lanes;
use super::opening::{self, decoder, followed, shared_columns, wanted};
use super::schemas::{Latest, differences};
use super::tables::{check_spec, event_shape, lane_formats};
use crate::avro::{ValueSchema, grown_columns};
use crate::core::schema::{Difference, TableSchema};
use crate::settings::{Pipeline, Settings, Table};
use crate::table::LakeTable;
use crate::{Error, Result};

/// A table of a pipeline, and what a schema would do to it.
pub struct Outlook<'p> {
    /// As the settings have it.
    pub table: &'p Table,
    /// As it is; none where it does not exist yet.
    pub lake: Option<Arc<dyn LakeTable>>,
    /// The columns that a new table would have; empty where there is a table, or can be none.
    pub created: TableSchema,
    /// What would change, with everything that is in the way; nothing where the table takes no record type of the schema.
    pub changes: Vec<Difference>,
}

impl Outlook<'_> {
    /// Whether the table can hold rows of the schema, or takes none.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        !self.changes.iter().any(Difference::is_obstacle)
    }

    fn stands_in_the_way(&mut self, why: &str) {
        self.created = TableSchema::default();
        self.changes.push(Difference::no_way(why.to_owned()));
    }
}

/// Says what a schema would do to the tables of a pipeline, in the order of the settings; `lakes` are those that are there.
/// `newest` are the schemas that are registered: a pipeline that runs has made room for their rows already, as far as its
/// tables can.
#[must_use]
pub fn outlook<'p>(
    settings: &Settings,
    pipeline: &'p Pipeline,
    lakes: Vec<Option<Arc<dyn LakeTable>>>,
    newest: &Latest,
    schema: &Arc<ValueSchema>,
) -> Vec<Outlook<'p>> {
    let tables = pipeline.tables.iter().zip(lakes);
    let mut tables: Vec<Outlook<'p>> = tables
        .map(|(table, lake)| Outlook { table, lake, created: TableSchema::default(), changes: Vec::new() })
        .collect();
    for lane in opening::lanes(pipeline) {
        let mut lane: Vec<_> = tables.iter_mut().filter(|o| lane[0].record_type == o.table.record_type).collect();
        if let Err(why) = look(settings, pipeline, &mut lane, newest, schema) {
            lane.iter_mut().for_each(|table| table.stands_in_the_way(&why.to_string()));
        }
    }
    let refusing = tables.iter().find(|table| !table.is_possible()).map(|table| table.table.table_ref().to_string());
    if let Some(refusing) = refusing {
        let why = format!(
            "table {refusing} cannot hold its rows, and the tables of a pipeline follow a schema all of them or none"
        );
        tables.iter_mut().filter(|table| table.is_possible()).for_each(|table| table.stands_in_the_way(&why));
    }
    tables
}

/// Looks at the tables that take the same rows. What keeps one of them from it is noted there, what keeps all of them is the
/// error.
fn look(
    settings: &Settings,
    pipeline: &Pipeline,
    lane: &mut [&mut Outlook<'_>],
    newest: &Latest,
    schema: &Arc<ValueSchema>,
) -> Result<()> {
    let first = lane.first().map(|outlook| outlook.table);
    let first = first.ok_or_else(|| Error::Internal(format!("pipeline {}: a lane without tables", pipeline.name)))?;
    let shape = event_shape(pipeline, first).with_key_schema(newest.key.is_some());
    if !schema.has_any_of(&shape.types) {
        return Ok(());
    }
    let formats = lane_formats(settings, pipeline, first);
    let format_version = lane.iter().map(|outlook| outlook.table.format_version).min().unwrap_or(2);
    let asked = schema.table_schema(newest.key.as_deref(), &shape, format_version)?;
    let lakes: Vec<_> = lane.iter().filter_map(|outlook| outlook.lake.clone()).collect();
    let mut columns = match lakes.is_empty() {
        true => asked.common_to(&formats),
        false => shared_columns(&lakes, &pipeline.name, &shape, &formats)?,
    };
    for known in wanted(newest, &shape, format_version).unwrap_or_default() {
        // Records of a schema that does not fit are bad ones, or have stopped the pipeline.
        columns = followed(&lakes, &columns, &shape, &known, &formats).unwrap_or(columns);
    }
    let asked = [Arc::new(asked)];
    for outlook in lane.iter_mut() {
        match &outlook.lake {
            Some(lake) => outlook.changes = differences(&**lake, &columns, &asked, &formats),
            None => match check_spec(settings, pipeline, outlook.table, &asked[0]) {
                Ok(()) => outlook.created = TableSchema::clone(&asked[0]),
                Err(why) => outlook.stands_in_the_way(&why.to_string()),
            },
        }
    }
    if let Err(obstacle) = grown_columns(&columns, &asked[0], &formats, shape.order_column()) {
        let possible = lane.iter_mut().filter(|outlook| outlook.is_possible());
        possible.for_each(|outlook| outlook.changes.push(obstacle.clone()));
        return Ok(());
    }
    if lane.iter().all(|outlook| outlook.is_possible()) {
        let decoder = decoder(&columns, &shape, None)?;
        let mut lanes = Lanes::new([(decoder, shape.types.clone(), formats.into())]);
        if let Some(key) = newest.key.as_ref().filter(|_| shape.keyed_by_record()) {
            lanes.add_keys(0, key)?;
        }
        let [asked] = asked;
        lanes.grow(0, schema, &vec![Some(asked)])?;
    }
    Ok(())
}

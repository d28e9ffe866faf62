//! The schemas that a decoder knows. They come up while events are read, and the columns grow with them.

use std::sync::Arc;

use super::avro_type::Avro;
use super::decoder::Decoder;
use super::key_schema::{KeySchema, Keys};
use super::plan::Target;
use super::plans::{KeyPlan, Plans, ValuePlan};
use super::record_key;
use super::value_schema::{SchemaKind, SchemaText, ValueSchema};
use crate::core::order;
use crate::core::schema::{
    Difference, Evolution, Field, NAMES_MAX, TableFormat, TableSchema, crowded, evolve, learn_names,
};
use crate::{Error, Result};

impl Decoder {
    /// The columns of the rows, with every name under which events have them.
    #[must_use]
    pub fn columns(&self) -> &Arc<TableSchema> {
        &self.table
    }

    /// The columns that a schema asks for; see [`Decoder::asks`].
    #[must_use]
    pub fn wanted(&self, asks: u32) -> Option<&Arc<TableSchema>> {
        self.wanted.get((asks as usize).checked_sub(1)?)
    }

    /// As [`Decoder::add_values`], of an Avro schema's text.
    ///
    /// # Errors
    /// As [`Decoder::add_values`] and [`ValueSchema::avro`].
    pub fn add_value_schema(&mut self, id: u32, text: &str) -> Result<()> {
        self.add_values(id, &Arc::new(ValueSchema::avro(text)?))
    }

    /// Makes the plans for values of the schema with this id.
    ///
    /// # Errors
    /// [`Error::Decision`] with the path and both types where values of this schema cannot be the table's rows.
    pub fn add_values(&mut self, id: u32, schema: &Arc<ValueSchema>) -> Result<()> {
        self.add_asking(id, schema, 0)
    }

    fn add_asking(&mut self, id: u32, schema: &Arc<ValueSchema>, asks: u32) -> Result<()> {
        let refuse = |e: String| Error::Decision(format!("value schema {id}: {e}"));
        let columns: Vec<&Field> = self.fields().collect();
        let targets: Vec<Target<'_>> = columns
            .iter()
            .enumerate()
            .filter(|(i, _)| !(self.keyed_by_record && self.key_columns.contains(i)))
            .map(|(column, field)| Target { column, field, refuse_null: self.refuse_null(column) })
            .collect();
        let elsewhere: &[String] = if self.keyed_by_record { &self.table.key } else { &[] };
        let plan = ValuePlan::compile(schema, &self.shape, &targets, elsewhere).map_err(refuse)?;
        self.values.insert(id, ValuePlan { asks, ..plan }, schema.types());
        Ok(())
    }

    /// As [`Decoder::add_keys`], of an Avro schema's text.
    ///
    /// # Errors
    /// As [`Decoder::add_keys`].
    pub fn add_key_schema(&mut self, id: u32, text: &str) -> Result<()> {
        self.add_keys(id, &Arc::new(KeySchema::parse(&SchemaText::new(SchemaKind::Avro, text))))
    }

    /// Makes the plan for record keys of the schema with this id.
    ///
    /// # Errors
    /// [`Error::Decision`] where the primary key is the record key and keys of this schema do not have its columns.
    /// Elsewhere only tombstones need the record key: those whose schema does not yield the key are bad records.
    pub fn add_keys(&mut self, id: u32, schema: &Arc<KeySchema>) -> Result<()> {
        let refuse = |e: String| Error::Decision(format!("key schema {id}: {e}"));
        let Keys { avro, types, .. } = schema.keys().map_err(refuse)?;
        let columns: Vec<&Field> = self.fields().collect();
        let fields: Vec<&Field> = self.key_columns.iter().map(|&i| columns[i]).collect();
        let in_order: Vec<usize> = (0..fields.len()).collect();
        let into_deleted = record_key::compile(avro, &fields, &in_order);
        let into_row = if self.keyed_by_record {
            if !matches!(**avro, Avro::Record(_)) {
                return Err(refuse(format!("a record is needed, whose fields are the primary key; this is {avro}")));
            }
            Some(record_key::compile(avro, &fields, &self.key_columns).map_err(refuse)?)
        } else {
            None
        };
        let plan = KeyPlan { schema: Some(schema.clone()), into_row, into_deleted: into_deleted.ok() };
        self.keys.insert(id, plan, *types);
        Ok(())
    }

    /// Notes that record keys of the schema with this id do not have the key columns.
    pub fn refuse_key_schema(&mut self, id: u32) {
        self.keys.insert(id, KeyPlan { schema: None, into_row: None, into_deleted: None }, 1);
    }

    /// Paths of the fields that values of this schema have and the table does not, a hundred at most; they are passed over.
    #[must_use]
    pub fn unknown_fields(&self, id: u32) -> &[String] {
        let plan = self.values.get(id).and_then(|plan| plan.types.iter().flatten().next());
        plan.map_or(&[], |of| of.plan.unknown.as_slice())
    }

    /// The columns with those that a schema asks for besides; see [`grown_columns`].
    ///
    /// # Errors
    /// [`Error::Decision`] with what is in the way.
    pub fn grown(&self, wanted: &TableSchema, formats: &[TableFormat]) -> Result<TableSchema> {
        grown_columns(&self.table, wanted, formats, self.shape.order_column())
            .map_err(|obstacle| Error::Decision(obstacle.to_string()))
    }

    /// Makes the plans for values of the schema with this id, which would make a table of the columns `wanted`. Where the
    /// columns cannot hold its rows yet, they grow as [`evolve`] says for tables of these formats, and events of the schemas
    /// that are known go into the new columns too. The batch has to be finished.
    ///
    /// # Errors
    /// [`Error::Decision`] with the path and both types where no columns can hold rows of this schema and of the others.
    pub fn grow(
        &mut self,
        id: u32,
        schema: &Arc<ValueSchema>,
        wanted: &Arc<TableSchema>,
        formats: &[TableFormat],
    ) -> Result<()> {
        if !self.offsets.is_empty() {
            return Err(Error::Internal("columns were to grow under a batch that is not finished".into()));
        }
        let grown = self.grown(wanted, formats)?;
        if grown == *self.table {
            return self.take_in(id, schema, wanted);
        }
        // Where the schema is refused after all, nothing has grown.
        let mut next = self.rebuilt(&grown)?;
        next.take_in(id, schema, wanted)?;
        // Of rejected records, which are no events.
        next.used = std::mem::take(&mut self.used);
        *self = next;
        Ok(())
    }

    fn take_in(&mut self, id: u32, schema: &Arc<ValueSchema>, wanted: &Arc<TableSchema>) -> Result<()> {
        if self.values.is_full(schema.types()) {
            // All of them are asked for again.
            (self.values, self.wanted) = (Plans::default(), Vec::new());
        }
        let known = self.wanted.iter().position(|known| known == wanted);
        let place = known.unwrap_or(self.wanted.len());
        if place == self.wanted.len() {
            self.wanted.push(wanted.clone());
        }
        self.add_asking(id, schema, place as u32 + 1)
    }

    /// A decoder with other columns, and with the schemas that are known.
    fn rebuilt(&self, columns: &TableSchema) -> Result<Decoder> {
        let mut next = Decoder::build(columns, &self.shape, self.encode.clone())?;
        // One that does not fit any more is asked for again when an event names it, and refused by name then.
        for (id, known) in self.values.iter() {
            let _ = next.add_asking(id, &known.schema, known.asks);
        }
        for (id, known) in self.keys.iter() {
            match &known.schema {
                Some(schema) => drop(next.add_keys(id, schema)),
                None => next.refuse_key_schema(id),
            }
        }
        next.wanted.clone_from(&self.wanted);
        Ok(next)
    }
}

/// `columns` with those that `wanted` asks for, and the names under which it has them.
///
/// # Errors
/// What is in the way. Values of the column `order_by` decide which event is newer: its type
/// becomes wider only where the values keep their place in that order as the key index has it.
pub fn grown_columns(
    columns: &TableSchema,
    wanted: &TableSchema,
    formats: &[TableFormat],
    order_by: Option<&str>,
) -> Result<TableSchema, Difference> {
    let evolution = evolve(columns, wanted, formats, columns.highest_id());
    if let Some(obstacle) = evolution.obstacle() {
        return Err(obstacle.clone());
    }
    let Evolution { schema: mut grown, .. } = evolution;
    learn_names(&mut grown, wanted);
    if let Some(path) = crowded(&columns.fields, &grown.fields) {
        let why = format!(
            "it would be known by more than {NAMES_MAX} other names, which are all that is kept: leave aliases out of the \
             schema that no event has any more, or give the field the name of the column"
        );
        return Err(Difference::Cannot { path, types: None, why });
    }
    if let Some(name) = order_by
        && let (Some(before), Some(after)) = (columns.column(name), grown.column(name))
        && order::class(&before.kind) != order::class(&after.kind)
    {
        return Err(Difference::Cannot {
            path: name.to_owned(),
            types: Some((before.kind.clone(), after.kind.clone())),
            why: "it is the pipeline's `order_by`, and its values would change their order".to_owned(),
        });
    }
    Ok(grown)
}

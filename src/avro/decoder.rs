//! Events in the Confluent wire format → Arrow batches in a table's columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::bad::{BadRecord, Half, Reason, Stop};
use super::columns::{Column, Wanted};
use super::cursor::Cursor;
use super::lineage::Lineage;
use super::plan::Plan;
use super::plans::{KeyPlan, Plans, TypePlan, ValuePlan};
use super::read::append_record;
use super::shape::{DeleteBy, EventShape, Mode, Nanoseconds, RecordKey};
use super::used::Used;
use super::value_schema::Reader;
use super::wire::{Event, schema_id};
use super::{binding, record_key, schema};
use crate::core::change::{Key, NO_ROW, Op};
use crate::core::order;
use crate::core::schema::{Field, Fingerprint, GROWN_ROW_BYTES_MAX, TableSchema, to_arrow};
use crate::{Error, Result};

/// When a batch has to be finished: Arrow's offsets are 32-bit.
const BATCH_BYTES_MAX: usize = 1 << 30;
const BATCH_EVENTS_MAX: usize = 1 << 30;
/// How many events may pass before the columns are measured again.
const MEASURE_EVERY: usize = 1024;

type EncodeKeysFn = dyn Fn(&[ArrayRef]) -> Result<Vec<Key>, String> + Send + Sync;

/// Key columns, in key order and in the table's Arrow types → one key per row.
pub type EncodeKeys = Box<EncodeKeysFn>;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It is a row of the batch.
    Row,
    /// It deletes a row.
    Delete,
    /// A tombstone in [`Mode::Append`]: it means nothing.
    Passed,
    /// Nothing was done: give the decoder this schema, then push the event again.
    NeedsSchema {
        /// The registry's id.
        id: u32,
        /// Which half of the event names it.
        of: Half,
    },
    /// Nothing was done: finish the batch, then push the event again.
    Full,
    /// It cannot be read. The batch is as it was before.
    Bad(BadRecord),
}

/// A decoded stretch of events, in the order they were pushed; fields as in [`crate::core::change::Chunk`].
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows, in the table's columns. Deletes by field have a row here that no event refers to.
    pub batch: RecordBatch,
    /// Offset of each event.
    pub offsets: Vec<i64>,
    /// Key of each event; empty in [`Mode::Append`].
    pub keys: Vec<Key>,
    /// What each event does; empty where all are upserts.
    pub ops: Vec<Op>,
    /// Order value of each event; empty without `order_by`.
    pub orders: Vec<i64>,
    /// Row of each event; empty where event i is row i.
    pub row_of: Vec<u32>,
    /// The schemas that records named, rejected ones included, each once or once per half.
    pub schemas: Vec<(u32, Fingerprint)>,
    /// Memory that all of this takes, in bytes.
    pub bytes: usize,
}

/// Decodes one table's events, whatever writer schemas they name, into one set of columns.
pub struct Decoder {
    pub(super) table: Arc<TableSchema>,
    pub(super) shape: EventShape,
    arrow: SchemaRef,
    mode: Mode,
    pub(super) keyed_by_record: bool,
    record_key: Option<RecordKey>,
    /// Every column of the table but the lineage column.
    columns: Vec<Column>,
    /// Column of each key field, in key order.
    pub(super) key_columns: Vec<usize>,
    order_column: Option<usize>,
    delete_column: Option<(usize, Wanted)>,
    lineage: Option<Lineage>,
    lineage_at: Option<usize>,
    /// Keys of tombstones, in key order.
    deleted: Vec<Column>,
    deleted_rows: usize,
    /// The Avro form of a body that is in another encoding.
    rewritten: Vec<u8>,
    /// How many times lost digits that their columns cannot hold.
    cut_times: u64,
    rows: usize,
    pub(super) offsets: Vec<i64>,
    ops: Vec<Op>,
    row_of: Vec<u32>,
    /// Bytes that were measured when the batch had `measured` events, and what may have been added since.
    bytes_then: usize,
    bytes_since: usize,
    measured: usize,
    /// How many bytes make a batch full.
    bytes_max: usize,
    /// What a row takes at least, as columns.
    row_bytes: usize,
    pub(super) values: Plans<ValuePlan>,
    pub(super) keys: Plans<KeyPlan>,
    /// What schemas ask of the table, each once. A plan names it by its place, counted from 1.
    pub(super) wanted: Vec<Arc<TableSchema>>,
    /// That of the last event.
    asks: u32,
    /// The schemas that values and record keys named.
    pub(super) used: (Used, Used),
    pub(super) encode: Arc<EncodeKeysFn>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("table", &self.table).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for a table whose events mean what `shape` says.
    ///
    /// # Errors
    /// [`Error::Decision`] where table and shape do not fit: a key, order, delete or lineage column that is not there or
    /// of another type; and where a row of nulls would take too much memory.
    pub fn new(table: &TableSchema, shape: &EventShape, encode: EncodeKeys) -> Result<Self> {
        Decoder::build(table, shape, Arc::from(encode))
    }

    pub(super) fn build(table: &TableSchema, shape: &EventShape, encode: Arc<EncodeKeysFn>) -> Result<Self> {
        schema::check_settings(&table.fields, shape)?;
        let lineage_at = binding::lineage_position(table, shape)?;
        let fields: Vec<&Field> =
            table.fields.iter().enumerate().filter(|(i, _)| Some(*i) != lineage_at).map(|f| f.1).collect();
        let position = |name: &str| fields.iter().position(|f| f.name == name);
        let key_columns =
            if shape.mode == Mode::Upsert { binding::key_positions(table, shape, &fields)? } else { Vec::new() };
        let key_fields: Vec<&Field> = key_columns.iter().map(|&i| fields[i]).collect();
        let delete_column = match &shape.delete {
            DeleteBy::Field { field, values } if shape.mode == Mode::Upsert => match position(field) {
                Some(at) => Some((at, binding::wanted(fields[at], values)?)),
                None => None,
            },
            _ => None,
        };
        let types: Vec<_> = key_fields.iter().map(|f| &f.kind).collect();
        let row_bytes = schema::row_bytes(&table.fields, GROWN_ROW_BYTES_MAX)?;
        let room = binding::rows_at_first(&fields);
        let record_key = shape.record_key.or_else(|| RecordKey::detect(shape.keyed_by_record(), &types));
        Ok(Decoder {
            arrow: Arc::new(to_arrow(table)),
            mode: shape.mode,
            keyed_by_record: shape.keyed_by_record(),
            record_key,
            columns: fields.iter().map(|f| Column::new(f, room)).collect(),
            deleted: key_fields.iter().map(|f| Column::new(f, 0)).collect(),
            key_columns,
            order_column: shape.order_column().and_then(position),
            delete_column,
            lineage: lineage_at.map(|_| Lineage::default()),
            lineage_at,
            deleted_rows: 0,
            rewritten: Vec::new(),
            cut_times: 0,
            rows: 0,
            offsets: Vec::new(),
            ops: Vec::new(),
            row_of: Vec::new(),
            bytes_then: 0,
            bytes_since: 0,
            measured: 0,
            bytes_max: BATCH_BYTES_MAX,
            row_bytes,
            values: Plans::default(),
            keys: Plans::default(),
            wanted: Vec::new(),
            asks: 0,
            used: Default::default(),
            encode,
            shape: shape.clone(),
            table: Arc::new(table.clone()),
        })
    }

    /// The schema that a tombstone with this record key needs first.
    #[must_use]
    pub fn missing_key_schema(&self, key: Option<&[u8]>) -> Option<u32> {
        if self.mode == Mode::Append || self.record_key != Some(RecordKey::Avro) {
            return None;
        }
        let (id, _) = schema_id(key?).ok()?;
        self.keys.get(id).is_none().then_some(id)
    }

    /// What the schema of the last event asks of the table, by a number that [`Decoder::wanted`] knows until the batch is
    /// finished; 0 for nothing.
    #[inline]
    #[must_use]
    pub fn asks(&self) -> u32 {
        self.asks
    }

    /// How many timestamps lost digits that their columns cannot hold, since this was last asked.
    pub fn take_cut_times(&mut self) -> u64 {
        std::mem::take(&mut self.cut_times)
    }

    /// How many events the batch holds.
    #[must_use]
    pub fn events(&self) -> usize {
        self.offsets.len()
    }

    /// How many rows the batch holds.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that the batch takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().chain(&self.deleted).map(Column::bytes).sum();
        let per_event = self.offsets.len() * 8 + self.ops.len() * 5;
        columns + per_event + self.lineage.as_ref().map_or(0, Lineage::bytes)
    }

    /// About as much as [`Decoder::bytes`], without looking at every column: what was measured some events ago, and for
    /// each event since what it may have added at most.
    #[inline]
    #[must_use]
    pub fn bytes_about(&self) -> usize {
        self.bytes_then + self.bytes_since
    }

    /// Whether the batch has to be finished before another event is taken.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes_about() >= self.bytes_max || self.offsets.len() >= BATCH_EVENTS_MAX
    }

    /// Makes a batch of so many bytes full.
    #[cfg(test)]
    pub fn set_bytes_max(&mut self, bytes: usize) {
        self.bytes_max = bytes;
    }

    /// Appends one event.
    #[inline]
    pub fn push(&mut self, event: &Event<'_>) -> Pushed {
        let events = self.offsets.len();
        if events >= self.measured + MEASURE_EVERY {
            (self.bytes_then, self.bytes_since, self.measured) = (self.bytes(), 0, events);
        }
        if self.is_full() {
            return Pushed::Full;
        }
        let done = match event.value {
            Some(value) => self.push_value(event, value),
            None if self.mode == Mode::Append => Ok(Pushed::Passed),
            None => self.push_tombstone(event),
        };
        done.unwrap_or_else(|stop| self.roll_back(*stop))
    }

    /// The batch so far; the decoder is empty afterwards and keeps its plans.
    ///
    /// # Errors
    /// [`Error::Internal`] where the columns do not fit together, which no input can bring about.
    pub fn finish(&mut self) -> Result<Decoded> {
        let bytes = self.bytes();
        let internal = |e: arrow::error::ArrowError| Error::Internal(format!("decoded columns do not fit: {e}"));
        let arrow = self.arrow.clone();
        let mut columns = self.columns.iter_mut();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(arrow.fields().len());
        for (i, field) in arrow.fields().iter().enumerate() {
            let array = match (&mut self.lineage, Some(i) == self.lineage_at) {
                (Some(lineage), true) => lineage.finish(field.data_type()),
                _ => match columns.next() {
                    Some(column) => column.finish(field.data_type()),
                    None => continue,
                },
            };
            arrays.push(array.map_err(internal)?);
        }
        let batch = RecordBatch::try_new(arrow, arrays).map_err(internal)?;
        let keys = self.finish_keys(&batch)?;
        let orders = self.finish_orders(&batch)?;
        let room = self.offsets.len();
        self.rows = 0;
        self.deleted_rows = 0;
        (self.bytes_then, self.bytes_since, self.measured) = (0, 0, 0);
        Ok(Decoded {
            batch,
            offsets: std::mem::replace(&mut self.offsets, Vec::with_capacity(room)),
            keys,
            ops: std::mem::take(&mut self.ops),
            orders,
            row_of: std::mem::take(&mut self.row_of),
            schemas: [self.used.0.take(), self.used.1.take()].concat(),
            bytes,
        })
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        let lineage_at = self.lineage_at;
        self.table.fields.iter().enumerate().filter(move |(i, _)| Some(*i) != lineage_at).map(|(_, field)| field)
    }

    pub(super) fn refuse_null(&self, column: usize) -> Option<Reason> {
        if self.key_columns.contains(&column) {
            Some(Reason::NullKey)
        } else if self.order_column == Some(column) {
            Some(Reason::NullOrder)
        } else {
            None
        }
    }

    #[inline]
    fn push_value(&mut self, event: &Event<'_>, value: &[u8]) -> Result<Pushed, Box<Stop>> {
        let (id, body) = split(value, Half::Value)?;
        if self.keyed_by_record {
            self.append_key_to_row(event)?;
        }
        let of_schema = self.values.find(id).ok_or_else(|| Stop::needs(id, Half::Value))?;
        self.asks = of_schema.asks;
        self.used.0.note(id, of_schema.schema.fingerprint());
        let (number, of_type, body) = of_schema.of(body).map_err(|reason| Stop::reason(reason, Half::Value))?;
        let TypePlan { plan, shared } = of_type;
        let exact = self.shape.nanoseconds != Nanoseconds::Truncate;
        let body = match &of_schema.reader {
            Reader::Avro => body,
            other => {
                self.rewritten.clear();
                other.rewrite(number, body, &mut self.rewritten).map_err(|fault| Stop::foreign(fault, Half::Value))?;
                &self.rewritten
            }
        };
        let bad = |fault| Stop::bad(fault, &plan.names, Half::Value);
        if let Some(shared) = shared {
            append_record(shared, &mut self.columns, &mut Cursor::new(body).exact_times(exact)).map_err(bad)?;
        }
        let mut cursor = Cursor::new(body).exact_times(exact);
        append_all(plan, &mut self.columns, &mut cursor).map_err(bad)?;
        self.cut_times += cursor.cut_times;
        let symbols = plan.symbols;
        let deletes = match &self.delete_column {
            Some((column, wanted)) => self.columns[*column].last_is(wanted),
            None => false,
        };
        self.rows += 1;
        if let Some(lineage) = &mut self.lineage {
            lineage.push(event);
        }
        self.bytes_since += self.row_bytes + value.len() + cursor.spent() + symbols;
        if deletes {
            self.note(event, Op::Delete, NO_ROW);
            return Ok(Pushed::Delete);
        }
        if self.ops.is_empty() {
            self.offsets.push(event.offset);
        } else {
            self.note(event, Op::Upsert, (self.rows - 1) as u32);
        }
        Ok(Pushed::Row)
    }

    fn append_key_to_row(&mut self, event: &Event<'_>) -> Result<(), Box<Stop>> {
        let key = event.key.ok_or_else(|| Stop::reason(Reason::NullKey, Half::Key))?;
        let (id, body) = split(key, Half::Key)?;
        let plans = self.keys.find(id).ok_or_else(|| Stop::needs(id, Half::Key))?;
        plans.fingerprint().iter().for_each(|schema| self.used.1.note(id, *schema));
        let plan = plans.into_row.as_ref().ok_or_else(|| Stop::reason(Reason::BadKey, Half::Key))?;
        let body = plans.avro_of(body, &mut self.rewritten)?;
        append_all(plan, &mut self.columns, &mut Cursor::new(body))
            .map_err(|fault| Stop::bad(fault, &plan.names, Half::Key))
    }

    fn push_tombstone(&mut self, event: &Event<'_>) -> Result<Pushed, Box<Stop>> {
        let key = event.key.ok_or_else(|| Stop::reason(Reason::NullKey, Half::Key))?;
        match (self.record_key, self.deleted.as_mut_slice()) {
            (Some(RecordKey::Avro), _) => {
                let (id, body) = split(key, Half::Key)?;
                let plans = self.keys.find(id).ok_or_else(|| Stop::needs(id, Half::Key))?;
                plans.fingerprint().iter().for_each(|schema| self.used.1.note(id, *schema));
                let plan = plans.into_deleted.as_ref().ok_or_else(|| Stop::reason(Reason::BadKey, Half::Key))?;
                let body = plans.avro_of(body, &mut self.rewritten)?;
                append_all(plan, &mut self.deleted, &mut Cursor::new(body))
                    .map_err(|fault| Stop::bad(fault, &plan.names, Half::Key))?;
            }
            (Some(form), [column]) => {
                record_key::append_raw(form, key, column).map_err(|reason| Stop::reason(reason, Half::Key))?;
            }
            _ => return Err(Stop::reason(Reason::BadKey, Half::Key)),
        }
        self.deleted_rows += 1;
        self.asks = 0;
        self.bytes_since += self.row_bytes + key.len();
        self.note(event, Op::Tombstone, NO_ROW);
        Ok(Pushed::Delete)
    }

    /// Notes an event in a batch where not every event is the upsert of its own row.
    fn note(&mut self, event: &Event<'_>, op: Op, row: u32) {
        if self.ops.is_empty() {
            let plain = self.offsets.len();
            self.ops.resize(plain, Op::Upsert);
            self.row_of.extend(0..plain as u32);
        }
        self.offsets.push(event.offset);
        self.ops.push(op);
        self.row_of.push(row);
    }

    #[cold]
    fn roll_back(&mut self, stop: Stop) -> Pushed {
        self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
        self.deleted.iter_mut().for_each(|column| column.truncate(self.deleted_rows));
        match stop {
            Stop::NeedsSchema { id, of } => Pushed::NeedsSchema { id, of },
            Stop::Bad(bad) => Pushed::Bad(bad),
        }
    }

    fn finish_keys(&mut self, batch: &RecordBatch) -> Result<Vec<Key>> {
        if self.mode == Mode::Append {
            return Ok(Vec::new());
        }
        let at = |column: usize| column + usize::from(self.lineage_at.is_some_and(|lineage| lineage <= column));
        let columns: Vec<ArrayRef> = self.key_columns.iter().map(|&c| batch.column(at(c)).clone()).collect();
        let of_rows = (self.encode)(&columns).map_err(Error::Internal)?;
        if self.ops.is_empty() {
            return Ok(of_rows);
        }
        let mut arrays = Vec::with_capacity(self.deleted.len());
        for (column, like) in self.deleted.iter_mut().zip(&columns) {
            let array = column.finish(like.data_type());
            arrays.push(array.map_err(|e| Error::Internal(format!("keys of tombstones: {e}")))?);
        }
        let of_tombstones = (self.encode)(&arrays).map_err(Error::Internal)?;
        Ok(in_event_order(&self.ops, of_rows, of_tombstones))
    }

    fn finish_orders(&self, batch: &RecordBatch) -> Result<Vec<i64>> {
        let Some(column) = self.order_column else { return Ok(Vec::new()) };
        let at = column + usize::from(self.lineage_at.is_some_and(|lineage| lineage <= column));
        let of_rows = order::encode_or_least(batch.column(at)).map_err(Error::Internal)?;
        if self.ops.is_empty() {
            return Ok(of_rows);
        }
        Ok(in_event_order(&self.ops, of_rows, std::iter::repeat(0)))
    }
}

/// Merges what rows and tombstones say, each in order, into event order. A delete by field has a row.
fn in_event_order<T>(
    ops: &[Op],
    of_rows: impl IntoIterator<Item = T>,
    of_tombstones: impl IntoIterator<Item = T>,
) -> Vec<T> {
    let (mut rows, mut tombstones) = (of_rows.into_iter(), of_tombstones.into_iter());
    ops.iter().filter_map(|op| if *op == Op::Tombstone { tombstones.next() } else { rows.next() }).collect()
}

#[inline]
fn split(bytes: &[u8], half: Half) -> Result<(u32, &[u8]), Box<Stop>> {
    schema_id(bytes).map_err(|reason| Stop::reason(reason, half))
}

/// Appends a whole body.
#[inline]
fn append_all(plan: &Plan, columns: &mut [Column], cursor: &mut Cursor<'_>) -> Result<(), (Reason, usize)> {
    append_record(&plan.record, columns, cursor)?;
    if cursor.left() > 0 { Err((Reason::TrailingBytes, usize::MAX)) } else { Ok(()) }
}

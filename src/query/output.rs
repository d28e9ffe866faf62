//! How answers look: aligned columns, CSV, one JSON object per line, or a Parquet file.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::engine::Answer;
use super::query_error;
use super::schema::is_uuid;
use crate::{Error, Result};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// With a header line.
    Csv,
    /// One object per line.
    Json,
    /// One Parquet file.
    Parquet,
}

/// Rows that decide how wide the columns of a table are; later ones are cut to that.
const MEASURED_ROWS: usize = 1000;
/// Characters of a cell.
const CELL_MAX: usize = 60;

const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.f";
const TIMESTAMP_UTC: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Prints an answer as it arrives and returns how many rows it had.
///
/// # Errors
/// As the query; [`Error::Unreachable`] where the output cannot be written.
pub async fn print(mut answer: Answer, format: Format, out: &mut (dyn Write + Send)) -> Result<u64> {
    let mut printer = Printer::new(format, &answer.schema, out)?;
    let mut rows = 0;
    while let Some(batch) = answer.stream.try_next().await.map_err(query_error)? {
        rows += batch.num_rows() as u64;
        printer.batch(&batch)?;
    }
    printer.finish()?;
    Ok(rows)
}

enum Printer<'o> {
    Table(Table<'o>),
    Csv(Box<arrow::csv::Writer<&'o mut (dyn Write + Send)>>),
    Json(arrow::json::Writer<&'o mut (dyn Write + Send), LineDelimited>),
    Parquet(Box<ArrowWriter<&'o mut (dyn Write + Send)>>),
}

impl<'o> Printer<'o> {
    fn new(format: Format, schema: &SchemaRef, out: &'o mut (dyn Write + Send)) -> Result<Self> {
        Ok(match format {
            Format::Table => {
                Printer::Table(Table { out, schema: schema.clone(), waiting: Vec::new(), widths: None, rows: 0 })
            }
            Format::Csv => {
                let builder = CsvBuilder::new()
                    .with_timestamp_format(TIMESTAMP.into())
                    .with_timestamp_tz_format(TIMESTAMP_UTC.into());
                let mut writer = builder.build(out);
                // An answer without rows has its header too.
                let empty = RecordBatch::new_empty(texts_schema(schema, true));
                writer.write(&empty).map_err(|e| written(&e))?;
                Printer::Csv(Box::new(writer))
            }
            Format::Json => Printer::Json(JsonBuilder::new().with_explicit_nulls(true).build(out)),
            Format::Parquet => {
                let writer = ArrowWriter::try_new(out, schema.clone(), None);
                Printer::Parquet(Box::new(writer.map_err(|e| encoded(&e))?))
            }
        })
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Printer::Table(table) => table.batch(batch),
            Printer::Csv(csv) => csv.write(&texts(batch, true)?).map_err(|e| written(&e)),
            Printer::Json(json) => json.write(&texts(batch, false)?).map_err(|e| written(&e)),
            Printer::Parquet(parquet) => parquet.write(batch).map_err(|e| encoded(&e)),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Printer::Table(table) => table.finish(),
            Printer::Csv(csv) => flush(csv.into_inner()),
            Printer::Json(mut json) => {
                json.finish().map_err(|e| written(&e))?;
                flush(json.into_inner())
            }
            Printer::Parquet(mut parquet) => {
                parquet.finish().map_err(|e| encoded(&e))?;
                flush(*parquet.inner_mut())
            }
        }
    }
}

fn flush(out: &mut (dyn Write + Send)) -> Result<()> {
    out.flush().map_err(|e| unwritable(&e))
}

fn unwritable(error: &std::io::Error) -> Error {
    Error::Unreachable(format!("cannot write the output: {error}"))
}

fn written(error: &ArrowError) -> Error {
    match error {
        ArrowError::IoError(text, _) => Error::Unreachable(format!("cannot write the output: {text}")),
        other => Error::Config(format!("the answer cannot be written in this format: {other}")),
    }
}

fn encoded(error: &ParquetError) -> Error {
    match error {
        ParquetError::External(e) => Error::Unreachable(format!("cannot write the output: {e}")),
        other => Error::Config(format!("the answer cannot be written as Parquet: {other}")),
    }
}

fn becomes_text(field: &Field, nested_too: bool) -> bool {
    is_uuid(field) || (nested_too && (field.data_type().is_nested() || is_bytes(field.data_type())))
}

fn is_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn texts_schema(schema: &Schema, nested_too: bool) -> SchemaRef {
    let field = |field: &Arc<Field>| match becomes_text(field, nested_too) {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// UUIDs as text, and where the format has no nested values, those too.
fn texts(batch: &RecordBatch, nested_too: bool) -> Result<RecordBatch> {
    let schema = batch.schema();
    let column = |(field, array): (&Arc<Field>, &ArrayRef)| -> Result<ArrayRef> {
        if !becomes_text(field, nested_too) {
            return Ok(array.clone());
        }
        let cells = Cells::new(field, array)?;
        Ok(Arc::new((0..array.len()).map(|row| cells.text(row)).collect::<StringArray>()))
    };
    let columns = schema.fields().iter().zip(batch.columns()).map(column).collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(texts_schema(&schema, nested_too), columns, &options).map_err(|e| written(&e))
}

/// The values of a column as text; null is none.
enum Cells<'a> {
    Uuid(&'a arrow::array::FixedSizeBinaryArray),
    Other(&'a dyn Array, Box<ArrayFormatter<'a>>),
}

impl<'a> Cells<'a> {
    fn new(field: &Field, array: &'a ArrayRef) -> Result<Self> {
        if is_uuid(field)
            && let Some(ids) = array.as_fixed_size_binary_opt()
        {
            return Ok(Cells::Uuid(ids));
        }
        let options = FormatOptions::new()
            .with_null("null")
            .with_timestamp_format(Some(TIMESTAMP))
            .with_timestamp_tz_format(Some(TIMESTAMP_UTC));
        let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(|e| written(&e))?;
        Ok(Cells::Other(array.as_ref(), Box::new(formatter)))
    }

    fn text(&self, row: usize) -> Option<String> {
        match self {
            Cells::Uuid(ids) => {
                let id = (!ids.is_null(row)).then(|| uuid::Uuid::from_slice(ids.value(row)))?;
                id.ok().map(|id| id.to_string())
            }
            Cells::Other(array, formatter) => (!array.is_null(row)).then(|| formatter.value(row).to_string()),
        }
    }
}

/// Aligned columns. The first rows wait until the widths are known; the rest is printed as it comes.
struct Table<'o> {
    out: &'o mut (dyn Write + Send),
    schema: SchemaRef,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl Table<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let cells = schema.fields().iter().zip(batch.columns()).map(|(field, array)| Cells::new(field, array));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let row: Vec<String> = cells.iter().map(|c| one_line(c.text(row).as_deref().unwrap_or("null"))).collect();
            self.rows += 1;
            if self.widths.is_some() {
                self.line(&row)?;
                continue;
            }
            self.waiting.push(row);
            if self.waiting.len() >= MEASURED_ROWS {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// Prints the header and the rows that waited.
    fn begin(&mut self) -> Result<()> {
        let header: Vec<String> = self.schema.fields().iter().map(|f| one_line(f.name())).collect();
        let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
        for row in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        self.widths = Some(widths);
        self.line(&header)?;
        self.line(&rule)?;
        for row in std::mem::take(&mut self.waiting) {
            self.line(&row)?;
        }
        Ok(())
    }

    fn line(&mut self, cells: &[String]) -> Result<()> {
        let mut line = String::new();
        let widths = self.widths.as_deref().unwrap_or_default();
        for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let right = self.schema.field(i).data_type().is_numeric();
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let separator = if i == 0 { "" } else { "  " };
            line.push_str(separator);
            let (before, after) = if right { (gap.as_str(), "") } else { ("", gap.as_str()) };
            line.extend([before, cell, after]);
        }
        writeln!(self.out, "{}", line.trim_end()).map_err(|e| unwritable(&e))
    }

    fn finish(mut self) -> Result<()> {
        if self.widths.is_none() {
            self.begin()?;
        }
        let rows = if self.rows == 1 { "row" } else { "rows" };
        writeln!(self.out, "({} {rows})", self.rows).map_err(|e| unwritable(&e))?;
        flush(self.out)
    }
}

/// A cell on one line, without control characters (a terminal would obey them), cut at the limit.
fn one_line(text: &str) -> String {
    let clean: Cow<'_, str> = if text.contains(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    };
    match clean.char_indices().nth(CELL_MAX) {
        Some(_) => clean.chars().take(CELL_MAX - 1).chain(['…']).collect(),
        None => clean.into_owned(),
    }
}

#[cfg(test)]
mod tests;

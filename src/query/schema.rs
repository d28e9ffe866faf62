//! The table's columns as queries see them, and a data file's columns under the table's names.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType, TypePtr};

use crate::core::schema::{Field, TableSchema, Type, to_arrow};

/// Marks columns whose 16 bytes are a UUID, as Arrow's canonical extension types do.
const EXTENSION: &str = "ARROW:extension:name";
const UUID: &str = "arrow.uuid";

/// The table's columns as an Arrow schema for queries: no field ids, everything nullable (older files may lack a
/// column that is required now), times with a zone in `UTC` (as Parquet readers spell it).
#[must_use]
pub fn query_schema(schema: &TableSchema) -> Schema {
    let arrow = to_arrow(schema);
    let fields = arrow.fields().iter().zip(&schema.fields).map(|(field, column)| {
        let plain = ArrowField::new(field.name(), relaxed(field.data_type()), true);
        match column.kind {
            Type::Uuid => plain.with_metadata(HashMap::from([(EXTENSION.to_owned(), UUID.to_owned())])),
            _ => plain,
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Whether the column holds UUIDs.
pub(super) fn is_uuid(field: &ArrowField) -> bool {
    field.metadata().get(EXTENSION).is_some_and(|name| name == UUID)
}

fn relaxed(kind: &DataType) -> DataType {
    let child = |f: &Arc<ArrowField>| Arc::new(ArrowField::new(f.name(), relaxed(f.data_type()), true));
    match kind {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(child).collect::<Fields>()),
        DataType::List(element) => DataType::List(child(element)),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(map_entries(entries)), *sorted),
        DataType::Timestamp(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), Some(_)) => {
            DataType::Timestamp(*unit, Some(Arc::from("UTC")))
        }
        other => other.clone(),
    }
}

/// Arrow requires entries and keys of a map to be there.
fn map_entries(entries: &ArrowField) -> ArrowField {
    let kind = match entries.data_type() {
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .enumerate()
                .map(|(i, f)| ArrowField::new(f.name(), relaxed(f.data_type()), i > 0))
                .collect::<Fields>(),
        ),
        other => other.clone(),
    };
    ArrowField::new(entries.name(), kind, false)
}

/// The footer of a data file with its columns under the table's names, matched by field id at every depth. Columns that
/// the table no longer has get names that no query can say. The Arrow schema that some writers embed is left out: types
/// then follow from Parquet alone, whoever wrote the file.
///
/// # Errors
/// [`ParquetError::General`] where a file has columns but no field ids.
pub(super) fn named_by_id(footer: &ParquetMetaData, table: &TableSchema) -> Result<ParquetMetaData, ParquetError> {
    let file = footer.file_metadata();
    let root = file.schema_descr().root_schema();
    let columns = root.get_fields();
    if !columns.is_empty() && !columns.iter().any(|c| c.get_basic_info().has_id()) {
        return Err(ParquetError::General("it has no field ids: imported files are not supported".into()));
    }
    let renamed = rename_fields(columns, &table.fields)?;
    let root = ParquetType::group_type_builder(root.name()).with_fields(renamed).build()?;
    let meta = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        None,
        Arc::new(SchemaDescriptor::new(Arc::new(root))),
        file.column_orders().cloned(),
    );
    let builder = ParquetMetaDataBuilder::new(meta)
        .set_row_groups(footer.row_groups().to_vec())
        .set_column_index(footer.column_index().cloned())
        .set_offset_index(footer.offset_index().cloned());
    Ok(builder.build())
}

fn rename_fields(in_file: &[TypePtr], wanted: &[Field]) -> Result<Vec<TypePtr>, ParquetError> {
    let rename = |(place, column): (usize, &TypePtr)| {
        let info = column.get_basic_info();
        match wanted.iter().find(|f| info.has_id() && info.id() == f.id) {
            Some(field) => rename(column, &field.name, Some(&field.kind)),
            None => rename(column, &format!("\u{0}{place}"), None),
        }
    };
    in_file.iter().enumerate().map(rename).collect()
}

/// `node` under another name, without its id, its children named as `kind` says.
fn rename(node: &TypePtr, name: &str, kind: Option<&Type>) -> Result<TypePtr, ParquetError> {
    let info = node.get_basic_info();
    match node.as_ref() {
        ParquetType::PrimitiveType { physical_type, type_length, scale, precision, .. } => {
            let built = ParquetType::primitive_type_builder(name, *physical_type)
                .with_repetition(info.repetition())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_length(*type_length)
                .with_precision(*precision)
                .with_scale(*scale)
                .build()?;
            Ok(Arc::new(built))
        }
        ParquetType::GroupType { fields, .. } => {
            let fields = match kind {
                Some(Type::Struct(wanted)) => rename_fields(fields, wanted)?,
                Some(Type::List(element)) => repeated(fields, "list", &[element])?,
                Some(Type::Map(key, value)) => repeated(fields, "key_value", &[key, value])?,
                _ => fields.clone(),
            };
            group(node, name, fields)
        }
    }
}

/// The repeated group between a list or map and its elements. Lists of the old two-level kind are left as they are.
fn repeated(fields: &[TypePtr], name: &str, wanted: &[&Field]) -> Result<Vec<TypePtr>, ParquetError> {
    let [middle] = fields else { return Ok(fields.to_vec()) };
    if !middle.is_group() || middle.get_fields().len() != wanted.len() || middle.get_basic_info().has_id() {
        return Ok(fields.to_vec());
    }
    let rename = |(child, field): (&TypePtr, &&Field)| rename(child, &field.name, Some(&field.kind));
    let children = middle.get_fields().iter().zip(wanted).map(rename).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![group(middle, name, children)?])
}

fn group(node: &TypePtr, name: &str, fields: Vec<TypePtr>) -> Result<TypePtr, ParquetError> {
    let info = node.get_basic_info();
    let mut builder = ParquetType::group_type_builder(name)
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields);
    if info.has_repetition() {
        builder = builder.with_repetition(info.repetition());
    }
    Ok(Arc::new(builder.build()?))
}

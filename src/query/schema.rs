//! The table's columns as queries see them, and a data file's columns under the table's names.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType, TypePtr};

use crate::core::schema::{Field, TableSchema, Type, to_arrow};
use crate::files::Naming;

/// Marks columns whose 16 bytes are a UUID, as Arrow's canonical extension types do.
const EXTENSION: &str = "ARROW:extension:name";
const UUID: &str = "arrow.uuid";

/// The table's columns as an Arrow schema for queries: no field ids, everything nullable (older files may lack a
/// column that is required now), times with a zone in `UTC` (as Parquet readers spell it).
#[must_use]
pub fn query_schema(schema: &TableSchema) -> Schema {
    let arrow = to_arrow(schema);
    let fields = arrow.fields().iter().zip(&schema.fields).map(|(field, column)| {
        let plain = ArrowField::new(field.name(), relaxed(field.data_type(), Keep::Nothing), true);
        match column.kind {
            Type::Uuid => plain.with_metadata(HashMap::from([(EXTENSION.to_owned(), UUID.to_owned())])),
            _ => plain,
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// [`query_schema`] with the columns' defaults noted at every depth, for rows of files that are older than a column.
pub(super) fn with_defaults(schema: &TableSchema) -> Schema {
    let arrow = to_arrow(schema);
    let field = |f: &Arc<ArrowField>| {
        ArrowField::new(f.name(), relaxed(f.data_type(), Keep::Metadata), true).with_metadata(f.metadata().clone())
    };
    Schema::new(arrow.fields().iter().map(field).collect::<Vec<_>>())
}

/// Whether the notes on a field are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Metadata,
}

/// Whether the column holds UUIDs.
pub(super) fn is_uuid(field: &ArrowField) -> bool {
    field.metadata().get(EXTENSION).is_some_and(|name| name == UUID)
}

fn relaxed(kind: &DataType, keep: Keep) -> DataType {
    let child =
        |f: &Arc<ArrowField>| Arc::new(noted(ArrowField::new(f.name(), relaxed(f.data_type(), keep), true), f, keep));
    match kind {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(child).collect::<Fields>()),
        DataType::List(element) => DataType::List(child(element)),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(map_entries(entries, keep)), *sorted),
        DataType::Timestamp(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), Some(_)) => {
            DataType::Timestamp(*unit, Some(Arc::from("UTC")))
        }
        other => other.clone(),
    }
}

fn noted(field: ArrowField, like: &ArrowField, keep: Keep) -> ArrowField {
    if keep == Keep::Metadata { field.with_metadata(like.metadata().clone()) } else { field }
}

/// Arrow requires entries and keys of a map to be there.
fn map_entries(entries: &ArrowField, keep: Keep) -> ArrowField {
    let kind = match entries.data_type() {
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .enumerate()
                .map(|(i, f)| noted(ArrowField::new(f.name(), relaxed(f.data_type(), keep), i > 0), f, keep))
                .collect::<Fields>(),
        ),
        other => other.clone(),
    };
    ArrowField::new(entries.name(), kind, false)
}

/// The footer of a data file with its columns under the table's names, matched at every depth as `naming` says. Columns that
/// the table no longer has get names that no query can say. The Arrow schema that some writers embed is left out: types
/// then follow from Parquet alone, whoever wrote the file.
///
/// # Errors
/// [`ParquetError::General`] where a file has columns but no field ids, and these are what columns are found by.
pub(super) fn named_as(
    footer: &ParquetMetaData,
    table: &TableSchema,
    naming: &Naming,
) -> Result<ParquetMetaData, ParquetError> {
    let file = footer.file_metadata();
    let root = file.schema_descr().root_schema();
    let columns = root.get_fields();
    let by_id = matches!(naming, Naming::ById);
    if by_id && !columns.is_empty() && !columns.iter().any(|c| c.get_basic_info().has_id()) {
        return Err(ParquetError::General("it has no field ids: imported files are not supported".into()));
    }
    let physical = match naming {
        Naming::ById => None,
        Naming::ByName(physical) => Some(physical.fields.as_slice()),
    };
    let renamed = rename_fields(columns, &table.fields, physical)?;
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

/// `physical` are the wanted fields as files call them; without it they are found by id.
fn rename_fields(
    in_file: &[TypePtr],
    wanted: &[Field],
    physical: Option<&[Field]>,
) -> Result<Vec<TypePtr>, ParquetError> {
    let rename = |(place, column): (usize, &TypePtr)| {
        let info = column.get_basic_info();
        let found = match physical {
            None => wanted.iter().position(|f| info.has_id() && info.id() == f.id),
            Some(physical) => physical.iter().position(|f| f.name == info.name()),
        };
        match found {
            Some(i) => rename(column, &wanted[i].name, Some(&wanted[i].kind), physical.map(|p| &p[i].kind)),
            None => rename(column, &format!("\u{0}{place}"), None, None),
        }
    };
    in_file.iter().enumerate().map(rename).collect()
}

/// `node` under another name, without its id, its children named as `kind` says; `physical` is what files call these.
fn rename(node: &TypePtr, name: &str, kind: Option<&Type>, physical: Option<&Type>) -> Result<TypePtr, ParquetError> {
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
            let fields = match (kind, physical) {
                (Some(Type::Struct(wanted)), Some(Type::Struct(named))) => rename_fields(fields, wanted, Some(named))?,
                (Some(Type::Struct(wanted)), _) => rename_fields(fields, wanted, None)?,
                (Some(Type::List(element)), Some(Type::List(named))) => {
                    repeated(fields, "list", &[element], &[Some(&named.kind)])?
                }
                (Some(Type::List(element)), _) => repeated(fields, "list", &[element], &[None])?,
                (Some(Type::Map(key, value)), Some(Type::Map(k, v))) => {
                    repeated(fields, "key_value", &[key, value], &[Some(&k.kind), Some(&v.kind)])?
                }
                (Some(Type::Map(key, value)), _) => repeated(fields, "key_value", &[key, value], &[None, None])?,
                _ => fields.clone(),
            };
            group(node, name, fields)
        }
    }
}

/// The repeated group between a list or map and its elements. Lists of the old two-level kind are left as they are.
fn repeated(
    fields: &[TypePtr],
    name: &str,
    wanted: &[&Field],
    physical: &[Option<&Type>],
) -> Result<Vec<TypePtr>, ParquetError> {
    let [middle] = fields else { return Ok(fields.to_vec()) };
    if !middle.is_group() || middle.get_fields().len() != wanted.len() || middle.get_basic_info().has_id() {
        return Ok(fields.to_vec());
    }
    let rename = |((child, field), physical): ((&TypePtr, &&Field), &Option<&Type>)| {
        rename(child, &field.name, Some(&field.kind), *physical)
    };
    let children = middle.get_fields().iter().zip(wanted).zip(physical).map(rename);
    let children = children.collect::<Result<Vec<_>, _>>()?;
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

//! How columns are encoded in Parquet files.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{PrimitiveType, Schema, Type};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, LogicalType, Type as Physical, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType, TypePtr};

/// Rows of a row group: enough for long runs and dictionaries, few enough for readers to skip some and to share a file.
const ROW_GROUP_ROWS: usize = 524_288;
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Longer strings have cut statistics, which are still bounds. Far above the length of the bounds in manifests.
const STATISTICS_BYTES: usize = 1024;

/// Options of a data file's writer: zstd; dictionaries for what repeats (strings, decimals), differences for integers and
/// times, floats and uuids as they are; statistics per page, so that there is a page index.
pub(super) fn options(arrow: &ArrowSchema, schema: &Schema) -> Result<ArrowWriterOptions, ParquetError> {
    let parquet_schema = parquet_schema(arrow, schema)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
    for column in parquet_schema.columns() {
        let decimal = matches!(column.logical_type_ref(), Some(LogicalType::Decimal { .. }));
        let encoding = match column.physical_type() {
            Physical::INT32 | Physical::INT64 if !decimal => Encoding::DELTA_BINARY_PACKED,
            Physical::FLOAT | Physical::DOUBLE => Encoding::PLAIN,
            Physical::FIXED_LEN_BYTE_ARRAY if !decimal => Encoding::PLAIN,
            _ => continue,
        };
        properties = properties
            .set_column_dictionary_enabled(column.path().clone(), false)
            .set_column_encoding(column.path().clone(), encoding);
    }
    Ok(ArrowWriterOptions::new()
        .with_properties(properties.build())
        // Readers take types from Parquet and names by field id; Arrow's own schema could only contradict them.
        .with_skip_arrow_metadata(true)
        .with_parquet_schema(parquet_schema))
}

/// The Arrow schema in Parquet, with the uuid annotation that Arrow has no type for and that Trino insists on.
fn parquet_schema(arrow: &ArrowSchema, schema: &Schema) -> Result<SchemaDescriptor, ParquetError> {
    let plain = ArrowSchemaConverter::new().schema_root("table").convert(arrow)?;
    let mut uuids = HashSet::new();
    for column in plain.columns() {
        let info = column.self_type().get_basic_info();
        if info.has_id()
            && let Some(field) = schema.field_by_id(info.id())
            && *field.field_type == Type::Primitive(PrimitiveType::Uuid)
        {
            uuids.insert(info.id());
        }
    }
    if uuids.is_empty() {
        return Ok(plain);
    }
    Ok(SchemaDescriptor::new(with_uuids(&plain.root_schema_ptr(), &uuids)?))
}

fn with_uuids(node: &TypePtr, uuids: &HashSet<i32>) -> Result<TypePtr, ParquetError> {
    let info = node.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if node.is_group() {
        let fields = node.get_fields().iter().map(|f| with_uuids(f, uuids)).collect::<Result<Vec<_>, _>>()?;
        let mut group = ParquetType::group_type_builder(info.name()).with_id(id).with_fields(fields);
        if info.has_repetition() {
            group = group
                .with_repetition(info.repetition())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned());
        }
        return Ok(Arc::new(group.build()?));
    }
    if !id.is_some_and(|id| uuids.contains(&id)) {
        return Ok(node.clone());
    }
    let leaf = ParquetType::primitive_type_builder(info.name(), Physical::FIXED_LEN_BYTE_ARRAY)
        .with_length(16)
        .with_repetition(info.repetition())
        .with_logical_type(Some(LogicalType::Uuid))
        .with_id(id);
    Ok(Arc::new(leaf.build()?))
}

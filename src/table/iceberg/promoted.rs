//! Bounds of columns that were dates when the files were written, and are timestamps now.
//!
//! A bound is stored as bytes, and its type is that of the column in the schema of its manifest. Four bytes of a date in a
//! manifest of a later schema are, by the specification, still a date. No reader knows that: some fail, and others take the
//! days for microseconds and leave out files that have rows of the answer. So such bounds are written as timestamps: in
//! every manifest that is written again, and of all manifests in the commit that promotes the column.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{Datum, NestedField, PrimitiveLiteral, PrimitiveType, TableMetadata, Type};

use super::manifests::{Bounds, Entry, rebuild_with};
use crate::core::schema::DAY_MICROS;
use crate::error::Result;

/// Columns that were dates in an older schema of the table and are timestamps in the current one, by id.
#[derive(Debug, Default)]
pub(super) struct Promoted(HashSet<i32>);

impl Promoted {
    pub(super) fn of(metadata: &TableMetadata) -> Promoted {
        let current = metadata.current_schema();
        let mut ids = HashSet::new();
        for older in metadata.schemas_iter().filter(|schema| schema.schema_id() != current.schema_id()) {
            let fields = older.as_struct().fields().iter();
            let mut level: Vec<&NestedField> = fields.map(AsRef::as_ref).collect();
            while let Some(field) = level.pop() {
                match &*field.field_type {
                    Type::Primitive(PrimitiveType::Date) => {
                        let now = current.field_by_id(field.id).map(|field| &*field.field_type);
                        if now == Some(&Type::Primitive(PrimitiveType::Timestamp)) {
                            ids.insert(field.id);
                        }
                    }
                    Type::Primitive(_) => {}
                    Type::Struct(below) => level.extend(below.fields().iter().map(AsRef::as_ref)),
                    Type::List(list) => level.push(&list.element_field),
                    Type::Map(map) => level.extend([map.key_field.as_ref(), map.value_field.as_ref()]),
                }
            }
        }
        Promoted(ids)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the file has bounds of a column that was a date.
    pub(super) fn has_dates(&self, entry: &Entry) -> bool {
        let is_date = |bounds: &Bounds| self.0.iter().any(|id| bounds.get(id).is_some_and(is_date));
        is_date(entry.file.lower_bounds()) || is_date(entry.file.upper_bounds())
    }

    /// The entry with bounds in the types of the table's current columns.
    pub(super) fn entry(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>> {
        if !self.has_dates(entry) {
            return Ok(entry.clone());
        }
        let bounds = (self.bounds(entry.file.lower_bounds()), self.bounds(entry.file.upper_bounds()));
        let file = rebuild_with(&entry.file, entry.spec, entry.file.first_row_id(), bounds)?;
        Ok(Arc::new(Entry { file, ..Entry::clone(entry) }))
    }

    /// A bound that no timestamp can hold is left out: the file is opened then, whatever is asked for.
    fn bounds(&self, bounds: &Bounds) -> Bounds {
        let one = |(id, bound): (&i32, &Datum)| match (self.0.contains(id) && is_date(bound), bound.literal()) {
            (true, PrimitiveLiteral::Int(days)) => {
                let micros = i64::from(*days).checked_mul(DAY_MICROS)?;
                Some((*id, Datum::timestamp_micros(micros)))
            }
            _ => Some((*id, bound.clone())),
        };
        bounds.iter().filter_map(one).collect::<HashMap<_, _>>()
    }
}

fn is_date(bound: &Datum) -> bool {
    *bound.data_type() == PrimitiveType::Date
}

//! Which values fit a column as it is, and which types a column may be promoted to.

use super::Type;

/// What a table is kept in, as far as it decides how columns may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// Iceberg of format version 2.
    IcebergV2,
    /// Iceberg of format version 3.
    IcebergV3,
    /// Delta, whose feature for wider types is turned on where it is needed.
    Delta,
}

impl std::fmt::Display for TableFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TableFormat::IcebergV2 => "iceberg v2",
            TableFormat::IcebergV3 => "iceberg v3",
            TableFormat::Delta => "delta",
        })
    }
}

/// Whether a column can hold values of another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Holds,
    /// Once it has this type, in which its old values are read too.
    Widened(Type),
    /// In no way that readers of its old files could follow; the reason.
    No(String),
}

/// How a column of type `table` takes values of the type `wanted`, neither of them a record, list or map; `formats` are
/// those of all tables that take the same rows.
pub fn fit(table: &Type, wanted: &Type, formats: &[TableFormat]) -> Fit {
    if holds(table, wanted) {
        return Fit::Holds;
    }
    match (table, wanted) {
        (Type::Int, Type::Long) => Fit::Widened(Type::Long),
        (Type::Float, Type::Double) => Fit::Widened(Type::Double),
        (Type::Decimal { scale: s, .. }, Type::Decimal { scale: t, .. }) if s == t => Fit::Widened(wanted.clone()),
        (Type::Int, Type::Double) => match formats.iter().find(|f| **f != TableFormat::Delta) {
            None => Fit::Widened(Type::Double),
            Some(format) => Fit::No(format!("only delta allows to widen int to double, and a table here is {format}")),
        },
        (Type::Date, Type::Timestamp { utc: false }) => {
            match formats.iter().find(|f| **f != TableFormat::IcebergV3) {
                None => Fit::Widened(wanted.clone()),
                Some(format) => Fit::No(format!("only iceberg v3 allows to widen date to timestamp, and a table here is {format}")),
            }
        }
        (Type::Date, Type::Timestamp { utc: true } | Type::TimestampNanos { utc: true }) => Fit::No(
            "a date has no time zone, so it is no instant; a timestamp without a zone (local-timestamp-micros) could follow, on \
             iceberg v3"
                .into(),
        ),
        (Type::Date, Type::TimestampNanos { utc: false }) => Fit::No(
            "dates before 1677 or after 2262 could not be read any more; local-timestamp-micros could follow, on iceberg v3"
                .into(),
        ),
        (Type::Timestamp { utc: a }, Type::TimestampNanos { utc: b }) if a == b => {
            Fit::No("the column keeps microseconds, and nanoseconds would be cut off".into())
        }
        (Type::Decimal { .. }, Type::Decimal { .. }) => Fit::No("a decimal keeps its scale".into()),
        _ => Fit::No(no_promotion(formats)),
    }
}

fn no_promotion(formats: &[TableFormat]) -> String {
    match formats {
        [one] => format!("{one} has no such promotion"),
        _ => "the formats of its tables have no such promotion".into(),
    }
}

/// Whether a column holds all values of another type as they are: by Avro's own rules for reading (an integer as a
/// floating number, bytes as text), and a date as its midnight. The decoder reads exactly these.
fn holds(table: &Type, wanted: &Type) -> bool {
    match (table, wanted) {
        (Type::Long | Type::Float | Type::Double, Type::Int)
        | (Type::Float | Type::Double, Type::Long)
        | (Type::Double, Type::Float)
        | (Type::String, Type::Binary | Type::Uuid)
        | (Type::Binary, Type::String) => true,
        (Type::TimestampNanos { utc: a }, Type::Timestamp { utc: b }) => a == b,
        // At midnight. Events of the schema before go on while the column is already wider.
        (Type::Timestamp { utc: false }, Type::Date) => true,
        (Type::Decimal { precision: p, scale: s }, Type::Decimal { precision: q, scale: t }) => q <= p && s == t,
        (a, b) => a == b,
    }
}

/// Whether two types are equal but for ids and for what may be null.
#[must_use]
pub fn same_type(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Struct(x), Type::Struct(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(f, g)| f.name == g.name && same_type(&f.kind, &g.kind))
        }
        (Type::List(x), Type::List(y)) => same_type(&x.kind, &y.kind),
        (Type::Map(k, v), Type::Map(l, w)) => same_type(&k.kind, &l.kind) && same_type(&v.kind, &w.kind),
        (a, b) => a == b,
    }
}

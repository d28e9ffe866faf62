//! Values that a column has where nobody gave one.

use serde::{Deserialize, Serialize};

use super::{DAY_MICROS, Field, TableFormat, TableSchema, Type};

/// A value of a column that is no record, list or map. Floating numbers are kept as their bits, so that values are equal
/// or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constant {
    /// Of a boolean column.
    Boolean(bool),
    /// Of an int or date column.
    Int(i32),
    /// Of a long, time or timestamp column.
    Long(i64),
    /// The bits of a float.
    Float(u32),
    /// The bits of a double.
    Double(u64),
    /// The digits of a decimal, without its point.
    Decimal(i128),
    /// Of a string column.
    String(String),
    /// Of a binary, fixed or uuid column.
    Bytes(Vec<u8>),
}

impl Constant {
    /// The same value in a wider type that a column becomes, as readers of its old files see it.
    #[must_use]
    pub fn widened(self, to: &Type) -> Constant {
        match (self, to) {
            (Constant::Int(v), Type::Long) => Constant::Long(v.into()),
            (Constant::Int(v), Type::Double) => Constant::Double(f64::from(v).to_bits()),
            (Constant::Int(v), Type::Timestamp { .. }) => Constant::Long(i64::from(v).saturating_mul(DAY_MICROS)),
            (Constant::Float(v), Type::Double) => Constant::Double(f64::from(f32::from_bits(v)).to_bits()),
            (same, _) => same,
        }
    }

    /// The bytes that it has beyond its place in a column.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Constant::String(v) => v.len(),
            Constant::Bytes(v) => v.len(),
            _ => 0,
        }
    }
}

/// Numbers as they are, text in quotes, bytes in hexadecimal; the digits of a decimal, which does not know its scale.
impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Constant::Boolean(v) => v.fmt(f),
            Constant::Int(v) => v.fmt(f),
            Constant::Long(v) => v.fmt(f),
            Constant::Float(v) => f32::from_bits(*v).fmt(f),
            Constant::Double(v) => f64::from_bits(*v).fmt(f),
            Constant::Decimal(v) => v.fmt(f),
            Constant::String(v) => write!(f, "{v:?}"),
            Constant::Bytes(v) => {
                f.write_str("0x")?;
                v.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Whether columns of such tables, which take the same rows, can have a value where nobody gave one.
pub fn have_defaults(formats: &[TableFormat]) -> bool {
    formats.iter().all(|format| *format == TableFormat::IcebergV3)
}

impl TableSchema {
    /// The columns as tables of these formats, which take the same rows, can all have them: where one of them keeps no
    /// defaults, rows of none have any.
    #[must_use]
    pub fn common_to(&self, formats: &[TableFormat]) -> TableSchema {
        let mut common = self.clone();
        if !have_defaults(formats) {
            forget(&mut common.fields);
        }
        common
    }
}

/// Forgets the values for rows that come without a field, in these fields and below.
pub fn forget(fields: &mut [Field]) {
    for field in fields {
        field.write_default = None;
        match &mut field.kind {
            Type::Struct(fields) => forget(fields),
            Type::List(element) => forget(std::slice::from_mut(element)),
            Type::Map(_, value) => forget(std::slice::from_mut(value)),
            _ => {}
        }
    }
}

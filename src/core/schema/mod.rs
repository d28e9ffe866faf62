//! The columns of a table, without any format's spelling of them.

mod arrow;
mod change;
mod constant;
mod evolve;
mod names;
mod pins;
mod promote;
mod size;
mod union;
mod verdict;

pub use self::arrow::{Absent, FIELD_ID_KEY, default_of, field_id, other_names, to_arrow};
pub use self::change::{Asked, SchemaChange, follow, plan_change};
pub use self::constant::Constant;
pub use self::evolve::{Difference, Evolution, evolve};
pub use self::names::{NAMES_MAX, Named, check_names, crowded, learn_names, matches};
pub use self::pins::{Fingerprint, Gone, PINS_MAX, Pins, Repinned};
pub use self::promote::{TableFormat, same_type};
pub use self::size::{GROWN_ROW_BYTES_MAX, memory_of, row_bytes};
pub use self::union::{TAG, branches_of, union_of};
pub use self::verdict::{Verdict, verdict};

/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// A column type, as wide as Iceberg and Delta can both say it. Names follow the Iceberg specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Boolean,
    /// 32-bit signed.
    Int,
    /// 64-bit signed.
    Long,
    Float,
    Double,
    /// Exact decimal; `precision` ≤ 38 digits, `scale` of them after the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 1970-01-01T00:00:00, with (`utc`) or without a time zone.
    Timestamp {
        utc: bool,
    },
    /// Nanoseconds since 1970-01-01T00:00:00 (Iceberg v3 only).
    TimestampNanos {
        utc: bool,
    },
    String,
    Uuid,
    /// Exactly this many bytes.
    Fixed(u32),
    Binary,
    Struct(Vec<Field>),
    /// The element is a field named `element`.
    List(Box<Field>),
    /// The key is a required field named `key`, the value a field named `value`.
    Map(Box<Field>, Box<Field>),
}

/// A named, numbered column or nested field. Readers find it by `id`, so a rename keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Unique in the table; 0 means "not numbered yet" (see [`TableSchema::number`]).
    pub id: i32,
    pub name: String,
    /// A required field is never null.
    pub required: bool,
    pub kind: Type,
    pub doc: Option<String>,
    /// Other names under which events may carry it: names that the column had before, or the aliases of an Avro field.
    pub aliases: Vec<String>,
    /// What it is in rows that were written before it was added. Iceberg v3 only; else null.
    pub initial_default: Option<Constant>,
    /// What it is in rows whose writer does not give it. Iceberg v3 only; else null.
    pub write_default: Option<Constant>,
    /// A transform by which the table is or was partitioned, and whose result follows from the type: `identity` or `bucket[16]`.
    pub partitioned_by: Option<String>,
}

impl Field {
    /// A field that is not numbered yet.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Type, required: bool) -> Self {
        Field {
            id: 0,
            name: name.into(),
            required,
            kind,
            doc: None,
            aliases: Vec::new(),
            initial_default: None,
            write_default: None,
            partitioned_by: None,
        }
    }
}

/// The columns of a table in order, and which of them are its primary key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSchema {
    pub fields: Vec<Field>,
    /// Names of the key columns in key order (top level only); empty in `append` mode.
    pub key: Vec<String>,
}

impl TableSchema {
    /// The top-level column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The highest id of a field, at any depth; 0 where none is numbered.
    #[must_use]
    pub fn highest_id(&self) -> i32 {
        fn of<'f>(fields: impl IntoIterator<Item = &'f Field>) -> i32 {
            let below = |kind: &Type| match kind {
                Type::Struct(fields) => of(fields),
                Type::List(element) => of([&**element]),
                Type::Map(key, value) => of([&**key, &**value]),
                _ => 0,
            };
            fields.into_iter().map(|f| f.id.max(below(&f.kind))).max().unwrap_or(0)
        }
        of(&self.fields)
    }

    /// Gives every field an id from 1, all of one level before the next, as Iceberg's own writers do.
    pub fn number(&mut self) {
        let mut next = 1;
        let mut level: Vec<&mut Field> = self.fields.iter_mut().collect();
        while !level.is_empty() {
            let mut below = Vec::new();
            for field in level {
                field.id = next;
                next += 1;
                match &mut field.kind {
                    Type::Struct(fields) => below.extend(fields.iter_mut()),
                    Type::List(element) => below.push(&mut **element),
                    Type::Map(key, value) => below.extend([&mut **key, &mut **value]),
                    _ => {}
                }
            }
            level = below;
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Boolean => f.write_str("boolean"),
            Type::Int => f.write_str("int"),
            Type::Long => f.write_str("long"),
            Type::Float => f.write_str("float"),
            Type::Double => f.write_str("double"),
            Type::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Type::Date => f.write_str("date"),
            Type::Time => f.write_str("time"),
            Type::Timestamp { utc: true } => f.write_str("timestamptz"),
            Type::Timestamp { utc: false } => f.write_str("timestamp"),
            Type::TimestampNanos { utc: true } => f.write_str("timestamptz_ns"),
            Type::TimestampNanos { utc: false } => f.write_str("timestamp_ns"),
            Type::String => f.write_str("string"),
            Type::Uuid => f.write_str("uuid"),
            Type::Fixed(n) => write!(f, "fixed[{n}]"),
            Type::Binary => f.write_str("binary"),
            Type::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", field.name, field.kind)?;
                }
                f.write_str(">")
            }
            Type::List(element) => write!(f, "list<{}>", element.kind),
            Type::Map(key, value) => write!(f, "map<{}, {}>", key.kind, value.kind),
        }
    }
}

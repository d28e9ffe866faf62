//! Avro types as a decoding plan is compiled from them.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::recursive::JsonPlan;

/// How many branches of a union are named in messages.
const BRANCHES_SHOWN: usize = 10;

use serde_json::Value;

/// The unit of a timestamp on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// A type where it is mentioned.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeRef {
    /// What it is called as a branch of a union: the name of the Avro type below a logical type, or a named type's own
    /// without its namespace.
    pub name: Arc<str>,
    avro: Arc<Avro>,
}

impl TypeRef {
    /// A mention of `avro` under this name.
    pub fn new(name: impl Into<Arc<str>>, avro: Avro) -> TypeRef {
        TypeRef { name: name.into(), avro: Arc::new(avro) }
    }
}

/// A type that nobody gave a name: what Avro calls it.
impl From<Avro> for TypeRef {
    fn from(avro: Avro) -> TypeRef {
        let name = match &avro {
            Avro::Null => "null",
            Avro::Boolean => "boolean",
            Avro::Int | Avro::Date | Avro::TimeMillis => "int",
            Avro::Long | Avro::TimeMicros | Avro::Timestamp { .. } | Avro::Instant => "long",
            Avro::Float => "float",
            Avro::Double => "double",
            Avro::Bytes | Avro::Decimal { size: None, .. } => "bytes",
            Avro::String | Avro::UuidText => "string",
            Avro::Fixed(_) | Avro::Decimal { .. } | Avro::UuidBytes | Avro::Duration => "fixed",
            Avro::Enum(_) => "enum",
            Avro::Array(_) => "array",
            Avro::Map(_) => "map",
            Avro::Record(_) | Avro::Recursive(_) => "record",
            Avro::Union(_) => "union",
        };
        TypeRef::new(name, avro)
    }
}

impl Deref for TypeRef {
    type Target = Avro;

    fn deref(&self) -> &Avro {
        &self.avro
    }
}

impl std::fmt::Display for TypeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.avro.fmt(f)
    }
}

/// An Avro type with its logical type; mentions of named types are shared.
#[derive(Debug, Clone, PartialEq)]
pub enum Avro {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// The symbols in the order of their numbers.
    Enum(Arc<[Box<str>]>),
    Array(TypeRef),
    Map(TypeRef),
    Record(Vec<AvroField>),
    Union(Vec<TypeRef>),
    /// `size` is that of the fixed it annotates; `None` for bytes.
    Decimal {
        precision: u8,
        scale: u8,
        size: Option<usize>,
    },
    UuidText,
    UuidBytes,
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp {
        unit: Unit,
        utc: bool,
    },
    Duration,
    /// A point in time as JSON and Protobuf have it, in no Avro schema: two longs, the seconds since 1970, and twice the
    /// nanoseconds behind them, one more where there are digits behind these.
    Instant,
    /// A record inside itself.
    Recursive(Recursive),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct AvroField {
    pub name: String,
    pub kind: TypeRef,
    pub doc: Option<String>,
    /// Names that the field had before.
    pub aliases: Vec<String>,
    /// What it is in records that do not have it, as the schema has it.
    pub default: Option<Value>,
}

/// The point at which a type contains itself.
#[derive(Debug, Clone)]
pub struct Recursive {
    /// The type's full name.
    pub full_name: Arc<str>,
    /// Among the schema's.
    pub number: usize,
    /// What the schema's mentions of types inside themselves share.
    pub all: Arc<Recursion>,
}

impl Recursive {
    /// The type, as long as the schema is there.
    pub fn target(&self) -> Option<Arc<Avro>> {
        self.all.lock().get(&self.number).and_then(Weak::upgrade)
    }
}

impl PartialEq for Recursive {
    fn eq(&self, other: &Self) -> bool {
        self.full_name == other.full_name
    }
}

/// The named types of a schema, and how those inside themselves are read.
#[derive(Debug, Default)]
pub struct Recursion {
    /// They do not keep the types alive, which contain this.
    types: Mutex<HashMap<usize, Weak<Avro>>>,
    plan: OnceLock<Result<Arc<JsonPlan>, String>>,
}

impl Recursion {
    /// Says what a type is, once it is parsed.
    pub fn close(&self, number: usize, of: &TypeRef) {
        self.lock().insert(number, Arc::downgrade(&of.avro));
    }

    /// How all types of the schema that may be inside themselves are read; made once, for all of its plans.
    ///
    /// # Errors
    /// As [`JsonPlan::new`].
    pub fn plan(&self) -> Result<Arc<JsonPlan>, String> {
        self.plan.get_or_init(|| JsonPlan::new(&self.named()).map(Arc::new)).clone()
    }

    fn named(&self) -> HashMap<usize, Arc<Avro>> {
        self.lock().iter().filter_map(|(number, avro)| Some((*number, avro.upgrade()?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Weak<Avro>>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Avro {
    /// The non-null branch of a union of null and one other type, or of a union of one type.
    pub fn optional(&self) -> Option<(&TypeRef, bool)> {
        let Avro::Union(branches) = self else { return None };
        match branches.as_slice() {
            [one] if **one != Avro::Null => Some((one, false)),
            [a, b] if **a == Avro::Null && **b != Avro::Null => Some((b, true)),
            [a, b] if **b == Avro::Null && **a != Avro::Null => Some((a, true)),
            _ => None,
        }
    }

    /// Whether it has one value only, and that says nothing: null.
    pub fn is_only_null(&self) -> bool {
        match self {
            Avro::Null => true,
            Avro::Union(branches) => branches.iter().all(|b| **b == Avro::Null),
            _ => false,
        }
    }

    /// Whether a branch of this type says all by being there: a record without columns.
    pub fn is_bare(&self) -> bool {
        matches!(self, Avro::Record(fields) if fields.iter().all(|f| f.kind.is_only_null()))
    }

    /// How many types there are when every mention of a named type is written out.
    pub fn types(&self) -> usize {
        match self {
            Avro::Record(fields) => 1 + fields.iter().map(|f| f.kind.types()).sum::<usize>(),
            Avro::Union(branches) => 1 + branches.iter().map(|b| b.types()).sum::<usize>(),
            Avro::Array(inner) | Avro::Map(inner) => 1 + inner.types(),
            _ => 1,
        }
    }

    /// The least number of bytes that a value takes on the wire.
    pub fn bytes_min(&self) -> usize {
        match self {
            Avro::Recursive(recursive) => recursive.target().map_or(0, |of| of.bytes_outside_itself()),
            other => other.bytes_outside_itself(),
        }
    }

    /// As [`Avro::bytes_min`], without what it takes to repeat a type within itself.
    fn bytes_outside_itself(&self) -> usize {
        match self {
            Avro::Null | Avro::Recursive(_) => 0,
            Avro::Float => 4,
            Avro::Double => 8,
            Avro::Fixed(n) | Avro::Decimal { size: Some(n), .. } => *n,
            Avro::UuidBytes => 16,
            Avro::Duration => 12,
            Avro::Instant => 2,
            Avro::Record(fields) => fields.iter().map(|f| f.kind.bytes_outside_itself()).fold(0, usize::saturating_add),
            Avro::Union(branches) => {
                1usize.saturating_add(branches.iter().map(|b| b.bytes_outside_itself()).min().unwrap_or(0))
            }
            _ => 1,
        }
    }
}

/// The name that two branches of a union share, which then cannot be told apart by it. Names that differ only in upper and
/// lower case are one name to engines.
pub fn shared_name(branches: &[TypeRef]) -> Option<&str> {
    let mut seen = std::collections::HashSet::new();
    branches.iter().find(|b| !seen.insert(b.name.to_lowercase())).map(|b| &*b.name)
}

impl std::fmt::Display for Avro {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stamp = |unit: &Unit| match unit {
            Unit::Millis => "millis",
            Unit::Micros => "micros",
            Unit::Nanos => "nanos",
        };
        match self {
            Avro::Null => f.write_str("null"),
            Avro::Boolean => f.write_str("boolean"),
            Avro::Int => f.write_str("int"),
            Avro::Long => f.write_str("long"),
            Avro::Float => f.write_str("float"),
            Avro::Double => f.write_str("double"),
            Avro::Bytes => f.write_str("bytes"),
            Avro::String => f.write_str("string"),
            Avro::Fixed(n) => write!(f, "fixed({n})"),
            Avro::Enum(_) => f.write_str("enum"),
            Avro::Array(_) => f.write_str("array"),
            Avro::Map(_) => f.write_str("map"),
            Avro::Record(_) => f.write_str("record"),
            Avro::Union(branches) => {
                f.write_str("union of ")?;
                for (i, branch) in branches.iter().take(BRANCHES_SHOWN).enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{branch}")?;
                }
                if branches.len() > BRANCHES_SHOWN { f.write_str(", …") } else { Ok(()) }
            }
            Avro::Decimal { precision, scale, .. } => write!(f, "decimal({precision}, {scale})"),
            Avro::UuidText | Avro::UuidBytes => f.write_str("uuid"),
            Avro::Date => f.write_str("date"),
            Avro::TimeMillis => f.write_str("time-millis"),
            Avro::TimeMicros => f.write_str("time-micros"),
            Avro::Timestamp { unit, utc: true } => write!(f, "timestamp-{}", stamp(unit)),
            Avro::Timestamp { unit, utc: false } => write!(f, "local-timestamp-{}", stamp(unit)),
            Avro::Duration => f.write_str("duration"),
            Avro::Instant => f.write_str("timestamp"),
            Avro::Recursive(recursive) => write!(f, "recursive {}", recursive.full_name),
        }
    }
}

//! Recursive values as JSON text: what has no columns, because it would need ever more of them.
//!
//! The text is plain JSON of the schema that the record was written with: records and maps are objects, a value of an
//! optional type is itself or null, one of a union of more types is an object like the column of such a union
//! (`{"tag": "int", "int": 5}`), bytes are Base64, decimals, dates and times are text, and so are NaN and infinities.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde::Serialize;

use super::avro_type::{Avro, AvroField, TypeRef, Unit, shared_name};
use super::bad::Reason;
use super::cursor::Cursor;
use super::read::{DAY_MILLIS, decimal, uuid};
use super::schema::DURATION;
use crate::core::schema::DAY_MICROS;
use crate::core::schema::TAG;

/// How deep objects and arrays may be nested: common readers of JSON go to 128 at least.
const DEPTH_MAX: usize = 100;
/// How long one text may be.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// How to read a schema's recursive types as text. It has each of them once, however often they are mentioned.
#[derive(Debug, Clone, Default)]
pub struct JsonPlan {
    /// By the number of the type.
    types: HashMap<usize, Shape>,
}

#[derive(Debug, Clone)]
enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Symbol(Arc<[Box<str>]>),
    Fixed(usize),
    Decimal {
        size: Option<usize>,
        scale: u8,
        limit: i128,
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
    Record(Vec<(Box<str>, Shape)>),
    Array {
        items: Box<Shape>,
        bytes_min: usize,
    },
    Map {
        values: Box<Shape>,
        bytes_min: usize,
    },
    /// The branches; those that are told by name have one.
    Union(Vec<(Option<Arc<str>>, Shape)>),
    /// The recursive type of this number.
    Type(usize),
}

impl JsonPlan {
    /// The plan for those of a schema's types, by number, that are mentioned inside themselves.
    ///
    /// # Errors
    /// A decimal has too many digits, or two branches of a union have one name.
    pub fn new(named: &HashMap<usize, Arc<Avro>>) -> Result<JsonPlan, String> {
        let mut compiler = Compiler { numbers: HashMap::new(), plan: JsonPlan::default() };
        for avro in named.values() {
            compiler.find(avro);
        }
        let numbers = compiler.numbers.clone();
        for number in numbers.values() {
            if let Some(avro) = named.get(number) {
                let shape = compiler.content(avro)?;
                compiler.plan.types.insert(*number, shape);
            }
        }
        Ok(compiler.plan)
    }

    /// Appends the next value, of the type of this number, as text.
    ///
    /// # Errors
    /// The value is not well encoded, too deep, or too long as text.
    pub fn append(&self, number: usize, cursor: &mut Cursor<'_>, text: &mut Vec<u8>) -> Result<(), Reason> {
        let start = text.len();
        let end = start.saturating_add(TEXT_BYTES_MAX);
        Writer { plan: self, end, cursor, text }.value(&Shape::Type(number), 0)?;
        // Names and symbols may take much more as text than on the wire.
        cursor.spend(text.len() - start, 1)
    }
}

struct Compiler {
    /// The numbers of the recursive types, by where they are.
    numbers: HashMap<*const Avro, usize>,
    plan: JsonPlan,
}

impl Compiler {
    /// Notes the types that are mentioned inside themselves.
    fn find(&mut self, avro: &Avro) {
        match avro {
            Avro::Record(fields) => fields.iter().for_each(|f| self.find(&f.kind)),
            Avro::Union(branches) => branches.iter().for_each(|b| self.find(b)),
            Avro::Array(inner) | Avro::Map(inner) => self.find(inner),
            Avro::Recursive(of) => {
                if let Some(target) = of.target() {
                    self.numbers.insert(Arc::as_ptr(&target), of.number);
                }
            }
            _ => {}
        }
    }

    /// A type where it is mentioned.
    fn shape(&mut self, avro: &Avro) -> Result<Shape, String> {
        match self.numbers.get(&std::ptr::from_ref(avro)) {
            Some(number) => Ok(Shape::Type(*number)),
            None => self.content(avro),
        }
    }

    fn content(&mut self, avro: &Avro) -> Result<Shape, String> {
        Ok(match avro {
            Avro::Null => Shape::Null,
            Avro::Boolean => Shape::Boolean,
            Avro::Int => Shape::Int,
            Avro::Long => Shape::Long,
            Avro::Float => Shape::Float,
            Avro::Double => Shape::Double,
            Avro::Bytes => Shape::Bytes,
            Avro::String => Shape::Text,
            Avro::Fixed(n) => Shape::Fixed(*n),
            Avro::Enum(symbols) => Shape::Symbol(symbols.clone()),
            Avro::Decimal { precision, scale, size } if *precision <= 38 => {
                Shape::Decimal { size: *size, scale: *scale, limit: 10i128.pow(u32::from(*precision)) }
            }
            Avro::Decimal { .. } => return Err(format!("{avro} has more than 38 digits")),
            Avro::UuidText => Shape::UuidText,
            Avro::UuidBytes => Shape::UuidBytes,
            Avro::Date => Shape::Date,
            Avro::TimeMillis => Shape::TimeMillis,
            Avro::TimeMicros => Shape::TimeMicros,
            Avro::Timestamp { unit, utc } => Shape::Timestamp { unit: *unit, utc: *utc },
            Avro::Duration => Shape::Duration,
            // Schemas in other languages have no types inside themselves.
            Avro::Instant => return Err(format!("a {avro} is in no avro schema")),
            Avro::Record(fields) => {
                let field = |f: &AvroField| Ok((f.name.as_str().into(), self.shape(&f.kind)?));
                Shape::Record(fields.iter().map(field).collect::<Result<_, String>>()?)
            }
            Avro::Array(items) => Shape::Array { items: Box::new(self.shape(items)?), bytes_min: items.bytes_min() },
            Avro::Map(values) => {
                let bytes_min = values.bytes_min().saturating_add(1);
                Shape::Map { values: Box::new(self.shape(values)?), bytes_min }
            }
            Avro::Union(branches) => self.union(avro, branches)?,
            Avro::Recursive(of) => Shape::Type(of.number),
        })
    }

    fn union(&mut self, avro: &Avro, branches: &[TypeRef]) -> Result<Shape, String> {
        let many = avro.optional().is_none() && !avro.is_only_null();
        if let Some(name) = shared_name(branches).filter(|_| many) {
            return Err(format!("two branches of a union are named `{name}`"));
        }
        let branch = |branch: &TypeRef| {
            let name = (many && **branch != Avro::Null).then(|| branch.name.clone());
            Ok((name, self.shape(branch)?))
        };
        Ok(Shape::Union(branches.iter().map(branch).collect::<Result<_, String>>()?))
    }
}

struct Writer<'p, 'c, 'b> {
    plan: &'p JsonPlan,
    cursor: &'c mut Cursor<'b>,
    text: &'c mut Vec<u8>,
    /// How long the text may get.
    end: usize,
}

impl<'p> Writer<'p, '_, '_> {
    /// One value, `depth` objects and arrays down.
    fn value(&mut self, shape: &'p Shape, depth: usize) -> Result<(), Reason> {
        match shape {
            Shape::Type(number) => match self.plan.types.get(number) {
                Some(shape) => self.value(shape, depth),
                None => Ok(()),
            },
            Shape::Record(fields) => self.record(fields, depth),
            Shape::Union(branches) => {
                let at = self.cursor.index(branches.len(), Reason::UnionBranch)?;
                let (name, shape) = &branches[at];
                let Some(name) = name else { return self.value(shape, depth) };
                self.enter(b"{", depth)?;
                self.member(TAG)?;
                self.plain(name)?;
                self.raw(b",")?;
                self.member(name)?;
                self.value(shape, depth + 1)?;
                self.raw(b"}")
            }
            Shape::Array { items, bytes_min } => {
                self.enter(b"[", depth)?;
                self.items(b"]", *bytes_min, |writer| writer.value(items, depth + 1))
            }
            Shape::Map { values, bytes_min } => {
                self.enter(b"{", depth)?;
                self.items(b"}", *bytes_min, |writer| {
                    let key = writer.cursor.text()?;
                    writer.text_of(key)?;
                    writer.raw(b":")?;
                    writer.value(values, depth + 1)
                })
            }
            scalar => self.scalar(scalar),
        }
    }

    /// Begins an object or array.
    fn enter(&mut self, text: &[u8], depth: usize) -> Result<(), Reason> {
        if depth >= DEPTH_MAX { Err(Reason::TooDeep) } else { self.raw(text) }
    }

    fn record(&mut self, fields: &'p [(Box<str>, Shape)], depth: usize) -> Result<(), Reason> {
        self.enter(b"{", depth)?;
        for (i, (name, shape)) in fields.iter().enumerate() {
            self.raw(if i == 0 { b"" } else { b"," })?;
            self.member(name)?;
            self.value(shape, depth + 1)?;
        }
        self.raw(b"}")
    }

    fn member(&mut self, name: &str) -> Result<(), Reason> {
        self.plain(&name)?;
        self.raw(b":")
    }

    fn items(
        &mut self,
        close: &[u8],
        bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let mut first = true;
        loop {
            let count = self.cursor.block(bytes_min)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                self.raw(if std::mem::take(&mut first) { b"" } else { b"," })?;
                item(self)?;
            }
        }
        self.raw(close)
    }

    fn scalar(&mut self, shape: &Shape) -> Result<(), Reason> {
        match shape {
            Shape::Boolean => {
                let value = self.cursor.boolean()?;
                self.plain(&value)
            }
            Shape::Int => {
                let value = self.cursor.int()?;
                self.plain(&value)
            }
            Shape::Long => {
                let value = self.cursor.long()?;
                self.plain(&value)
            }
            Shape::Float => {
                let value = self.cursor.float()?;
                if value.is_finite() { self.plain(&value) } else { self.unnumbered(value.into()) }
            }
            Shape::Double => {
                let value = self.cursor.double()?;
                if value.is_finite() { self.plain(&value) } else { self.unnumbered(value) }
            }
            Shape::Bytes => {
                let value = self.cursor.bytes()?;
                self.base64(value)
            }
            Shape::Fixed(n) => {
                let value = self.cursor.take(*n)?;
                self.base64(value)
            }
            Shape::Text => {
                let value = self.cursor.text()?;
                self.text_of(value)
            }
            Shape::Symbol(symbols) => {
                let symbol = &symbols[self.cursor.index(symbols.len(), Reason::EnumIndex)?];
                self.plain(symbol)
            }
            Shape::Decimal { size, scale, limit } => {
                let bytes = match size {
                    Some(n) => self.cursor.take(*n)?,
                    None => self.cursor.bytes()?,
                };
                let value = decimal(bytes, *limit)?;
                self.plain(&decimal_text(value, usize::from(*scale)))
            }
            Shape::UuidText => {
                let value = uuid(self.cursor.bytes()?)?;
                self.plain(&uuid::Uuid::from_bytes(value).hyphenated().to_string())
            }
            Shape::UuidBytes => {
                let value = uuid::Uuid::from_bytes(self.cursor.array()?);
                self.plain(&value.hyphenated().to_string())
            }
            Shape::Duration => self.duration(),
            Shape::Date | Shape::TimeMillis | Shape::TimeMicros | Shape::Timestamp { .. } => {
                let text = time_text(shape, self.cursor)?;
                self.plain(&text)
            }
            _ => self.raw(b"null"),
        }
    }

    fn duration(&mut self) -> Result<(), Reason> {
        for (i, part) in DURATION.iter().enumerate() {
            let value = u32::from_le_bytes(self.cursor.array()?);
            self.raw(format!("{}\"{part}\":{value}", if i == 0 { '{' } else { ',' }).as_bytes())?;
        }
        self.raw(b"}")
    }

    fn raw(&mut self, text: &[u8]) -> Result<(), Reason> {
        if self.text.len() + text.len() > self.end {
            return Err(Reason::TooLarge);
        }
        self.text.extend_from_slice(text);
        Ok(())
    }

    fn plain(&mut self, value: &impl Serialize) -> Result<(), Reason> {
        serde_json::to_writer(&mut *self.text, value).map_err(|_| Reason::TooLarge)?;
        self.raw(b"")
    }

    /// What is no number in JSON.
    fn unnumbered(&mut self, value: f64) -> Result<(), Reason> {
        let name: &[u8] = match (value.is_nan(), value > 0.0) {
            (true, _) => b"\"NaN\"",
            (_, true) => b"\"Infinity\"",
            _ => b"\"-Infinity\"",
        };
        self.raw(name)
    }

    /// Text that was checked to be UTF-8.
    fn text_of(&mut self, text: &[u8]) -> Result<(), Reason> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Reason::TooLarge);
        }
        let text = std::str::from_utf8(text).map_err(|_| Reason::InvalidUtf8)?;
        self.plain(&text)
    }

    fn base64(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(Reason::TooLarge);
        }
        self.raw(b"\"")?;
        self.raw(BASE64.encode(bytes).as_bytes())?;
        self.raw(b"\"")
    }
}

/// A decimal with all the digits of its scale.
fn decimal_text(value: i128, scale: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{part}")
}

/// A date or time as ISO 8601 writes it.
fn time_text(shape: &Shape, cursor: &mut Cursor<'_>) -> Result<String, Reason> {
    const DAYS_TO_1970: i32 = 719_163;
    let clock = |nanos: i64, form: &str| -> Option<String> {
        let time = NaiveTime::from_num_seconds_from_midnight_opt(
            u32::try_from(nanos / 1_000_000_000).ok()?,
            u32::try_from(nanos % 1_000_000_000).ok()?,
        )?;
        Some(time.format(form).to_string())
    };
    let text = match shape {
        Shape::Date => {
            let days = cursor.int()?.checked_add(DAYS_TO_1970);
            days.and_then(NaiveDate::from_num_days_from_ce_opt).map(|date| date.format("%Y-%m-%d").to_string())
        }
        Shape::TimeMillis => match cursor.int()? {
            time @ 0..DAY_MILLIS => clock(i64::from(time) * 1_000_000, "%H:%M:%S%.3f"),
            _ => None,
        },
        Shape::TimeMicros => match cursor.long()? {
            time @ 0..DAY_MICROS => clock(time * 1000, "%H:%M:%S%.6f"),
            _ => None,
        },
        Shape::Timestamp { unit, utc } => {
            let value = cursor.long()?;
            let (at, digits) = match unit {
                Unit::Millis => (DateTime::from_timestamp_millis(value), "%.3f"),
                Unit::Micros => (DateTime::from_timestamp_micros(value), "%.6f"),
                Unit::Nanos => (Some(DateTime::from_timestamp_nanos(value)), "%.9f"),
            };
            let zone = if *utc { "Z" } else { "" };
            at.map(|at| at.naive_utc().format(&format!("%Y-%m-%dT%H:%M:%S{digits}{zone}")).to_string())
        }
        _ => None,
    };
    text.ok_or(Reason::OutOfRange)
}

//! Avro schema texts, parsed into the types that a decoding plan is compiled from.
//!
//! The Avro crate's parser is not used here, because it forgets what a plan needs: whether a uuid is text or 16 bytes, and
//! the logical type of a named type where it is mentioned again.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::avro_type::{Avro, AvroField, Recursion, Recursive, TypeRef, Unit};

/// How long a schema text may be.
pub const SCHEMA_BYTES_MAX: usize = 2 << 20;
/// How deeply types may be nested.
const DEPTH_MAX: usize = 64;
/// How many types a schema may have when every mention of a named type is written out.
const TYPES_MAX: usize = 20_000;

/// How many bytes of names, docs and symbols a schema may have when every mention of a named type is written out: a plan
/// and a table's columns keep them at each place.
const WORDS_BYTES_MAX: usize = 16 << 20;
/// How long a name may be. Each type that is declared repeats its namespace, and each path the names above it.
pub const NAME_BYTES_MAX: usize = 1024;
/// How many aliases of a field are looked at.
const ALIASES_MAX: usize = 64;

/// Parses a schema text.
///
/// # Errors
/// The text is not JSON or not an Avro schema, or the schema is beyond the limits of this module; the message says where.
pub fn parse(text: &str) -> Result<TypeRef, String> {
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(format!("the schema has {} bytes, the limit is {SCHEMA_BYTES_MAX}", text.len()));
    }
    let json: Value = serde_json::from_str(text).map_err(|e| format!("the schema is not json: {e}"))?;
    let mut parser = Parser { named: HashMap::new(), recursion: Arc::default() };
    Ok(parser.any(&json, &At { path: "", namespace: "", depth: 0 })?.kind)
}

/// A parsed type with what it adds to the limits.
#[derive(Clone)]
struct Sized {
    kind: TypeRef,
    types: usize,
    depth: usize,
    words: usize,
}

impl Sized {
    fn leaf(name: impl Into<Arc<str>>, kind: Avro) -> Sized {
        Sized { kind: TypeRef::new(name, kind), types: 1, depth: 1, words: 0 }
    }

    /// A type of these parts, with `words` bytes of names, docs and symbols of its own.
    fn of(kind: TypeRef, parts: &[Sized], words: usize, at: &At<'_>) -> Result<Sized, String> {
        let types = parts.iter().map(|p| p.types).fold(1, usize::saturating_add);
        let words = parts.iter().map(|p| p.words).fold(words, usize::saturating_add);
        let depth = parts.iter().map(|p| p.depth).max().unwrap_or(0) + 1;
        if types > TYPES_MAX {
            return Err(at.fault(format!("written out the schema has more than {TYPES_MAX} types")));
        }
        if words > WORDS_BYTES_MAX {
            return Err(at.fault(format!(
                "written out the schema has more than {WORDS_BYTES_MAX} bytes of names, docs and symbols"
            )));
        }
        if depth > DEPTH_MAX {
            return Err(at.fault(format!("types are nested more than {DEPTH_MAX} deep")));
        }
        Ok(Sized { kind, types, depth, words })
    }
}

/// Where the parser is.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a str,
    namespace: &'a str,
    depth: usize,
}

impl At<'_> {
    fn fault(&self, what: impl std::fmt::Display) -> String {
        if self.path.is_empty() { what.to_string() } else { format!("{}: {what}", self.path) }
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

struct Parser {
    named: HashMap<String, Named>,
    recursion: Arc<Recursion>,
}

/// A named type.
enum Named {
    /// It is being parsed: a mention of it now is inside itself. The number is that of its declaration.
    Open(usize),
    Known(Sized),
}

impl Parser {
    fn any(&mut self, json: &Value, at: &At<'_>) -> Result<Sized, String> {
        if at.depth > DEPTH_MAX {
            return Err(at.fault(format!("types are nested more than {DEPTH_MAX} deep")));
        }
        match json {
            Value::String(name) => self.mention(name, at),
            Value::Array(branches) => self.union(branches, at),
            Value::Object(object) => self.object(object, at),
            _ => Err(at.fault("not an avro type")),
        }
    }

    fn mention(&self, name: &str, at: &At<'_>) -> Result<Sized, String> {
        let kind = match name {
            "null" => Avro::Null,
            "boolean" => Avro::Boolean,
            "int" => Avro::Int,
            "long" => Avro::Long,
            "float" => Avro::Float,
            "double" => Avro::Double,
            "bytes" => Avro::Bytes,
            "string" => Avro::String,
            _ => {
                check_length(name, at)?;
                let full = full_name(name, at.namespace);
                return match self.named.get(&full).or_else(|| self.named.get(name)) {
                    Some(Named::Known(known)) => Ok(known.clone()),
                    Some(Named::Open(number)) => {
                        let all = self.recursion.clone();
                        let inside = Recursive { full_name: full.as_str().into(), number: *number, all };
                        Ok(Sized::leaf(short_name(&full), Avro::Recursive(inside)))
                    }
                    None => Err(at.fault(format!("unknown type `{name}`"))),
                };
            }
        };
        Ok(Sized::leaf(name, kind))
    }

    fn union(&mut self, branches: &[Value], at: &At<'_>) -> Result<Sized, String> {
        if branches.is_empty() {
            return Err(at.fault("a union without branches"));
        }
        let inner = At { depth: at.depth + 1, ..*at };
        let mut parsed = Vec::with_capacity(branches.len());
        for branch in branches {
            let branch = self.any(branch, &inner)?;
            if matches!(*branch.kind, Avro::Union(_)) {
                return Err(at.fault("a union directly inside a union"));
            }
            parsed.push(branch);
        }
        let branches = parsed.iter().map(|b| b.kind.clone()).collect();
        Sized::of(TypeRef::new("union", Avro::Union(branches)), &parsed, 0, at)
    }

    fn object(&mut self, object: &Map<String, Value>, at: &At<'_>) -> Result<Sized, String> {
        let kind = object.get("type").ok_or_else(|| at.fault("a type without `type`"))?;
        match kind.as_str() {
            Some("record" | "error") => self.record(object, at),
            Some("enum") => self.enumeration(object, at),
            Some("fixed") => self.fixed(object, at),
            Some("array") => self.collection(object, "items", Avro::Array, at),
            Some("map") => self.collection(object, "values", Avro::Map, at),
            _ => {
                let inner = self.any(kind, &At { depth: at.depth + 1, ..*at })?;
                Ok(match logical(object, &inner.kind) {
                    Some(kind) => Sized::leaf(inner.kind.name, kind),
                    None => inner,
                })
            }
        }
    }

    fn collection(
        &mut self,
        object: &Map<String, Value>,
        of: &str,
        make: fn(TypeRef) -> Avro,
        at: &At<'_>,
    ) -> Result<Sized, String> {
        let items = object.get(of).ok_or_else(|| at.fault(format!("no `{of}`")))?;
        let (name, below) = if of == "items" { ("array", "element") } else { ("map", "value") };
        let path = at.below(below);
        let items = self.any(items, &At { path: &path, depth: at.depth + 1, ..*at })?;
        Sized::of(TypeRef::new(name, make(items.kind.clone())), std::slice::from_ref(&items), 0, at)
    }

    fn record(&mut self, object: &Map<String, Value>, at: &At<'_>) -> Result<Sized, String> {
        let (full, namespace) = self.declare(object, at)?;
        let fields =
            object.get("fields").and_then(Value::as_array).ok_or_else(|| at.fault("a record without fields"))?;
        let mut parsed = Vec::with_capacity(fields.len());
        let mut sizes = Vec::with_capacity(fields.len());
        let mut words = 0usize;
        let mut names = std::collections::HashSet::new();
        for field in fields {
            let name = field.get("name").and_then(Value::as_str).ok_or_else(|| at.fault("a field without a name"))?;
            if !names.insert(name) {
                return Err(at.fault(format!("two fields are named `{name}`")));
            }
            check_length(name, at)?;
            let path = at.below(name);
            let inner = At { path: &path, namespace: &namespace, depth: at.depth + 1 };
            let kind = field.get("type").ok_or_else(|| inner.fault("a field without a type"))?;
            let sized = self.any(kind, &inner)?;
            // Some producers write the logical type beside the field's type instead of inside it. Like every other
            // implementation, take the field for what its type says.
            let default = field.get("default").cloned();
            let doc = field.get("doc").and_then(Value::as_str).map(str::to_string);
            let aliases = field.get("aliases").and_then(Value::as_array);
            let aliases = aliases.into_iter().flatten().filter_map(Value::as_str).take(ALIASES_MAX);
            let aliases: Vec<String> = aliases.map(str::to_string).collect();
            words += name.len() + doc.as_ref().map_or(0, String::len) + aliases.iter().map(String::len).sum::<usize>();
            words += default.as_ref().and_then(Value::as_str).map_or(0, str::len);
            parsed.push(AvroField { name: name.to_string(), kind: sized.kind.clone(), doc, aliases, default });
            sizes.push(sized);
        }
        let kind = TypeRef::new(short_name(&full), Avro::Record(parsed));
        let sized = Sized::of(kind, &sizes, words, at)?;
        Ok(self.close(full, sized))
    }

    fn enumeration(&mut self, object: &Map<String, Value>, at: &At<'_>) -> Result<Sized, String> {
        let (full, _) = self.declare(object, at)?;
        let symbols =
            object.get("symbols").and_then(Value::as_array).ok_or_else(|| at.fault("an enum without symbols"))?;
        let symbols = symbols.iter().map(|s| s.as_str().map(Box::from)).collect::<Option<Arc<[Box<str>]>>>();
        let symbols = symbols.ok_or_else(|| at.fault("an enum symbol that is not text"))?;
        let words = symbols.iter().map(|s| s.len() + 1).sum();
        let sized = Sized::of(TypeRef::new(short_name(&full), Avro::Enum(symbols)), &[], words, at)?;
        Ok(self.close(full, sized))
    }

    fn fixed(&mut self, object: &Map<String, Value>, at: &At<'_>) -> Result<Sized, String> {
        let (full, _) = self.declare(object, at)?;
        let size = object.get("size").and_then(Value::as_u64).ok_or_else(|| at.fault("a fixed without a size"))?;
        let size = i32::try_from(size).map_err(|_| at.fault(format!("a fixed of {size} bytes")))? as usize;
        let plain = Avro::Fixed(size);
        let sized = Sized::leaf(short_name(&full), logical(object, &plain).unwrap_or(plain));
        Ok(self.close(full, sized))
    }

    /// Opens a named type; its full name and the namespace of what is inside.
    fn declare(&mut self, object: &Map<String, Value>, at: &At<'_>) -> Result<(String, String), String> {
        let name = object.get("name").and_then(Value::as_str).ok_or_else(|| at.fault("a named type without a name"))?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(at.namespace);
        let full = full_name(name, namespace);
        check_length(&full, at)?;
        if self.named.contains_key(&full) {
            return Err(at.fault(format!("type `{full}` is defined twice")));
        }
        let namespace = full.rsplit_once('.').map(|(namespace, _)| namespace.to_string()).unwrap_or_default();
        self.named.insert(full.clone(), Named::Open(self.named.len()));
        Ok((full, namespace))
    }

    /// A named type is known from here on, also where it was mentioned inside itself.
    fn close(&mut self, full: String, sized: Sized) -> Sized {
        if let Some(Named::Open(number)) = self.named.insert(full, Named::Known(sized.clone())) {
            self.recursion.close(number, &sized.kind);
        }
        sized
    }
}

/// A name with its namespace, unless it has one of its own.
pub fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_string() } else { format!("{namespace}.{name}") }
}

fn short_name(full: &str) -> &str {
    full.rsplit_once('.').map_or(full, |(_, name)| name)
}

fn check_length(name: &str, at: &At<'_>) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        let start: String = name.chars().take(40).collect();
        return Err(at.fault(format!("the name `{start}…` has more than {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// The logical type of `object` over `plain`. One that is unknown or does not fit its type is ignored, as the Avro
/// specification asks.
fn logical(object: &Map<String, Value>, plain: &Avro) -> Option<Avro> {
    let name = object.get("logicalType")?.as_str()?;
    let stamp = |unit, utc| Some(Avro::Timestamp { unit, utc });
    match (name, plain) {
        ("decimal", Avro::Bytes) => decimal(object, None),
        ("decimal", Avro::Fixed(n)) => decimal(object, Some(*n)),
        ("uuid", Avro::String) => Some(Avro::UuidText),
        ("uuid", Avro::Fixed(16)) => Some(Avro::UuidBytes),
        ("date", Avro::Int) => Some(Avro::Date),
        ("time-millis", Avro::Int) => Some(Avro::TimeMillis),
        ("time-micros", Avro::Long) => Some(Avro::TimeMicros),
        ("timestamp-millis", Avro::Long) => stamp(Unit::Millis, true),
        ("timestamp-micros", Avro::Long) => stamp(Unit::Micros, true),
        ("timestamp-nanos", Avro::Long) => stamp(Unit::Nanos, true),
        ("local-timestamp-millis", Avro::Long) => stamp(Unit::Millis, false),
        ("local-timestamp-micros", Avro::Long) => stamp(Unit::Micros, false),
        ("local-timestamp-nanos", Avro::Long) => stamp(Unit::Nanos, false),
        ("duration", Avro::Fixed(12)) => Some(Avro::Duration),
        _ => None,
    }
}

fn decimal(object: &Map<String, Value>, size: Option<usize>) -> Option<Avro> {
    let precision = u8::try_from(object.get("precision")?.as_u64()?).ok()?;
    let scale = match object.get("scale") {
        Some(scale) => u8::try_from(scale.as_u64()?).ok()?,
        None => 0,
    };
    (precision > 0 && scale <= precision).then_some(Avro::Decimal { precision, scale, size })
}

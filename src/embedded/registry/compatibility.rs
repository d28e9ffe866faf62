//! Whether data written with one Avro schema can be read with another, by the rules of the Avro specification that
//! Confluent's registry applies.
//!
//! `apache_avro::schema_compatibility` is not used: it calls a decimal unreadable by the very same decimal, and a named
//! type unreadable where one schema defines it and the other refers to it.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, Name, RecordField, RecordSchema, ResolvedSchema};
use serde_json::Value;

/// Named types may refer to each other, so the depth of the text does not bound that of the walk.
const DEPTH_MAX: usize = 200;
/// More differences than anybody reads.
const FINDINGS_MAX: usize = 20;
/// How many pairs of types are compared: two unions of many branches make a pair of each two.
const PAIRS_MAX: usize = 1_000_000;
/// How long a name or namespace may be: each type that is declared in a namespace repeats it.
const NAME_BYTES_MAX: usize = 1024;

/// Which direction a subject promises, and against which of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Anything goes.
    None,
    /// The new schema reads data of the latest.
    Backward,
    /// The new schema reads data of all versions.
    BackwardTransitive,
    /// The latest schema reads data of the new one.
    Forward,
    /// All versions read data of the new one.
    ForwardTransitive,
    /// Both directions with the latest.
    Full,
    /// Both directions with all versions.
    FullTransitive,
}

impl Level {
    const ALL: [(Level, &'static str); 7] = [
        (Level::None, "NONE"),
        (Level::Backward, "BACKWARD"),
        (Level::BackwardTransitive, "BACKWARD_TRANSITIVE"),
        (Level::Forward, "FORWARD"),
        (Level::ForwardTransitive, "FORWARD_TRANSITIVE"),
        (Level::Full, "FULL"),
        (Level::FullTransitive, "FULL_TRANSITIVE"),
    ];

    /// The level of this name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Level> {
        Level::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(level, _)| *level)
    }

    /// The name that the REST interface uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        Level::ALL.iter().find(|(level, _)| *level == self).map_or("NONE", |(_, name)| name)
    }

    /// Whether every version is compared, not only the latest.
    pub(super) fn transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    fn backward(self) -> bool {
        matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive)
    }

    fn forward(self) -> bool {
        matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive)
    }
}

/// An Avro schema without its logical types, which the rules do not look at.
#[derive(Debug)]
pub(super) struct Physical(Schema);

impl Physical {
    /// From the schema's JSON; the error says what is wrong with it.
    pub(super) fn parse(schema: &Value) -> Result<Physical, String> {
        let mut bare = schema.clone();
        make_physical(&mut bare)?;
        Schema::parse(&bare).map(Physical).map_err(|error| error.to_string())
    }
}

/// Drops the logical types, and refuses names that are too long.
fn make_physical(schema: &mut Value) -> Result<(), String> {
    match schema {
        Value::Array(branches) => branches.iter_mut().try_for_each(make_physical),
        Value::Object(attributes) => {
            attributes.remove("logicalType");
            let mut names = ["name", "namespace"].iter().filter_map(|key| attributes.get(*key)?.as_str());
            if names.any(|name| name.len() > NAME_BYTES_MAX) {
                return Err(format!("a name has more than {NAME_BYTES_MAX} bytes"));
            }
            // A field is an object with a type, as a schema is; its default is never looked into.
            let parts = attributes.iter_mut().filter(|(key, _)| PARTS.contains(&key.as_str()));
            parts.map(|(_, part)| part).try_for_each(make_physical)
        }
        _ => Ok(()),
    }
}

/// The attributes that hold types.
const PARTS: [&str; 4] = ["type", "items", "values", "fields"];

/// What stands against `new` following `old` at this level, in the words of Confluent's registry; nothing if it may.
pub(super) fn differences(level: Level, new: &Physical, old: &Physical) -> Vec<String> {
    let mut found = Vec::new();
    if level.backward() {
        found.extend(cannot_read(&new.0, &old.0, "new", "old"));
    }
    if level.forward() {
        found.extend(cannot_read(&old.0, &new.0, "old", "new"));
    }
    found
}

fn cannot_read(reader: &Schema, writer: &Schema, reader_is: &str, writer_is: &str) -> Vec<String> {
    let (Ok(reader_names), Ok(writer_names)) = (ResolvedSchema::try_from(reader), ResolvedSchema::try_from(writer))
    else {
        return vec![format!(
            "{{errorType:'INVALID', description:'a name in the {reader_is} schema has no definition'}}"
        )];
    };
    let mut walk = Walk { reader_names, writer_names, seen: HashMap::new(), path: Vec::new(), findings: Vec::new() };
    walk.reads(reader, None, writer, None);
    walk.findings
        .into_iter()
        .map(|(kind, path, detail)| {
            format!(
                "{{errorType:'{kind}', description:'the {reader_is} schema cannot read data of the {writer_is} schema \
                 at path /{path}: {detail}'}}"
            )
        })
        .collect()
}

struct Walk<'s> {
    reader_names: ResolvedSchema<'s>,
    writer_names: ResolvedSchema<'s>,
    /// Verdicts by the addresses of reader and writer; a pair that is being compared counts as readable, which is
    /// what ends the walk of recursive types.
    seen: HashMap<(usize, usize), bool>,
    path: Vec<String>,
    findings: Vec<(&'static str, String, String)>,
}

/// The namespace that unqualified names inside a named type belong to.
type Namespace<'a> = Option<&'a str>;

impl<'s> Walk<'s> {
    fn reads(
        &mut self,
        reader: &'s Schema,
        in_reader: Namespace<'s>,
        writer: &'s Schema,
        in_writer: Namespace<'s>,
    ) -> bool {
        let (reader, in_reader) = resolve(&self.reader_names, reader, in_reader);
        let (writer, in_writer) = resolve(&self.writer_names, writer, in_writer);
        let pair = (std::ptr::from_ref(reader) as usize, std::ptr::from_ref(writer) as usize);
        if let Some(readable) = self.seen.get(&pair).copied() {
            // What was found then may have been dropped with its union, so a difference is named each time.
            return readable
                || self.differ("TYPE_MISMATCH", format!("{} cannot be read as {}", kind(writer), kind(reader)));
        }
        if self.path.len() >= DEPTH_MAX {
            return self.differ("TOO_DEEP", format!("nested more than {DEPTH_MAX} deep"));
        }
        if self.seen.len() >= PAIRS_MAX {
            return self.differ("TOO_LARGE", format!("more than {PAIRS_MAX} pairs of types to compare"));
        }
        self.seen.insert(pair, true);
        let verdict = self.compare(reader, in_reader, writer, in_writer);
        self.seen.insert(pair, verdict);
        verdict
    }

    fn compare(
        &mut self,
        reader: &'s Schema,
        in_reader: Namespace<'s>,
        writer: &'s Schema,
        in_writer: Namespace<'s>,
    ) -> bool {
        match (reader, writer) {
            // Every branch that the writer may have chosen has to be readable.
            (_, Schema::Union(branches)) => {
                let mut all = true;
                for (i, branch) in branches.variants().iter().enumerate() {
                    all &= self.within(i.to_string(), |walk| walk.reads(reader, in_reader, branch, in_writer));
                }
                all
            }
            (Schema::Union(branches), _) => {
                // Branches that do not fit are no finding as long as one does.
                let before = self.findings.len();
                let fits = branches.variants().iter().any(|b| self.reads(b, in_reader, writer, in_writer));
                self.findings.truncate(before);
                fits || self.differ("MISSING_UNION_BRANCH", format!("no branch for {}", kind(writer)))
            }
            (Schema::Record(r), Schema::Record(w)) => self.named(reader, &r.name, &w.name) && self.record(r, w),
            (Schema::Enum(r), Schema::Enum(w)) => self.named(reader, &r.name, &w.name) && self.symbols(r, w),
            (Schema::Fixed(r), Schema::Fixed(w)) => {
                self.named(reader, &r.name, &w.name)
                    && (r.size == w.size
                        || self.differ("FIXED_SIZE_MISMATCH", format!("expected {} bytes, found {}", w.size, r.size)))
            }
            (Schema::Array(r), Schema::Array(w)) => {
                self.within("items".into(), |walk| walk.reads(&r.items, in_reader, &w.items, in_writer))
            }
            (Schema::Map(r), Schema::Map(w)) => {
                self.within("values".into(), |walk| walk.reads(&r.types, in_reader, &w.types, in_writer))
            }
            _ => {
                promotes(writer, reader)
                    || self.differ("TYPE_MISMATCH", format!("{} cannot be read as {}", kind(writer), kind(reader)))
            }
        }
    }

    fn record(&mut self, reader: &'s RecordSchema, writer: &'s RecordSchema) -> bool {
        let mut all = true;
        for field in &reader.fields {
            let counterpart = counterpart(field, writer);
            all &= self.within(field.name.clone(), |walk| match counterpart {
                Some(written) => walk.reads(
                    &field.schema,
                    reader.name.namespace.as_deref(),
                    &written.schema,
                    writer.name.namespace.as_deref(),
                ),
                None => {
                    field.default.is_some()
                        || walk.differ("READER_FIELD_MISSING_DEFAULT_VALUE", "a new field without a default".into())
                }
            });
        }
        all
    }

    fn symbols(&mut self, reader: &EnumSchema, writer: &EnumSchema) -> bool {
        let missing: Vec<&str> =
            writer.symbols.iter().filter(|s| !reader.symbols.contains(s)).map(String::as_str).collect();
        missing.is_empty()
            || reader.default.is_some()
            || self.differ("MISSING_ENUM_SYMBOLS", format!("no symbol for {}", missing.join(", ")))
    }

    /// Names are compared without their namespaces; an alias of the reader is as good as its name, and is compared whole.
    fn named(&mut self, reader: &Schema, reader_name: &Name, writer_name: &Name) -> bool {
        let aliased =
            || reader.aliases().is_some_and(|all| all.iter().any(|a| a.fullname(None) == writer_name.fullname(None)));
        reader_name.name == writer_name.name
            || aliased()
            || self.differ("NAME_MISMATCH", format!("expected {}, found {}", writer_name.name, reader_name.name))
    }

    fn within(&mut self, step: String, look: impl FnOnce(&mut Self) -> bool) -> bool {
        self.path.push(step);
        let verdict = look(self);
        self.path.pop();
        verdict
    }

    fn differ(&mut self, kind: &'static str, detail: String) -> bool {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push((kind, self.path.join("/"), detail));
        }
        false
    }
}

fn resolve<'s>(names: &ResolvedSchema<'s>, schema: &'s Schema, within: Namespace<'s>) -> (&'s Schema, Namespace<'s>) {
    let Schema::Ref { name } = schema else { return (schema, within) };
    let full = name.fully_qualified_name(&within.map(str::to_string));
    match names.get_names().get(&full).or_else(|| names.get_names().get(name)) {
        Some(definition) => (definition, definition.name().and_then(|n| n.namespace.as_deref())),
        None => (schema, within),
    }
}

/// The writer's field that a reader's field is filled from: of the same name, or of one of its aliases.
fn counterpart<'s>(field: &RecordField, writer: &'s RecordSchema) -> Option<&'s RecordField> {
    let by_name = |name: &String| writer.fields.iter().find(|written| &written.name == name);
    by_name(&field.name).or_else(|| field.aliases.iter().flatten().find_map(by_name))
}

fn promotes(writer: &Schema, reader: &Schema) -> bool {
    use Schema::{Boolean, Bytes, Double, Float, Int, Long, Null, String};
    matches!(
        (writer, reader),
        (Null, Null)
            | (Boolean, Boolean)
            | (Int, Int | Long | Float | Double)
            | (Long, Long | Float | Double)
            | (Float, Float | Double)
            | (Double, Double)
            | (Bytes | String, Bytes | String)
    )
}

fn kind(schema: &Schema) -> String {
    match schema {
        Schema::Null => "null".into(),
        Schema::Boolean => "boolean".into(),
        Schema::Int => "int".into(),
        Schema::Long => "long".into(),
        Schema::Float => "float".into(),
        Schema::Double => "double".into(),
        Schema::Bytes => "bytes".into(),
        Schema::String => "string".into(),
        Schema::Array(_) => "an array".into(),
        Schema::Map(_) => "a map".into(),
        Schema::Union(_) => "a union".into(),
        Schema::Record(record) => format!("record {}", record.name.name),
        Schema::Enum(symbols) => format!("enum {}", symbols.name.name),
        Schema::Fixed(fixed) => format!("fixed {}", fixed.name.name),
        Schema::Ref { name } => name.name.clone(),
        // `Physical` leaves none of the logical types.
        _ => "a logical type".into(),
    }
}

#[cfg(test)]
mod tests;

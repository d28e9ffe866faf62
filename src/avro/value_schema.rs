//! The schema of a topic's values: the record types that it has, and how a body says of which one it is.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::avro_type::{Avro, AvroField, TypeRef};
use super::bad::Reason;
use super::cursor::Cursor;
use super::shape::Types;
use super::{json, protobuf, writer_schema};
use crate::core::schema::Fingerprint;
use crate::{Error, Result};

/// How deeply a message may be declared inside of others.
const MESSAGES_DEEP_MAX: i64 = 64;
/// How long the reason may be for which a schema is refused.
const REFUSAL_CHARS: usize = 2000;
/// How many types are named in messages.
const NAMES_SHOWN: usize = 20;

/// The language of a schema, and with it the encoding of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    /// Avro.
    Avro,
    /// JSON Schema.
    Json,
    /// Protobuf.
    Protobuf,
}

impl SchemaKind {
    /// The name in the API of schema registries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Json => "JSON",
            SchemaKind::Protobuf => "PROTOBUF",
        }
    }

    /// The language of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<SchemaKind> {
        [SchemaKind::Avro, SchemaKind::Json, SchemaKind::Protobuf].into_iter().find(|kind| kind.name() == name)
    }

    /// The language of a text: what is no JSON is Protobuf, an object with the words of JSON Schema is one, anything else is
    /// Avro.
    #[must_use]
    pub fn guess(text: &str) -> SchemaKind {
        let words = ["$schema", "properties", "$ref", "oneOf", "definitions", "$defs"];
        match serde_json::from_str::<Value>(text) {
            Ok(json) if words.iter().any(|word| json.get(word).is_some()) => SchemaKind::Json,
            Err(_) if text.contains("message") => SchemaKind::Protobuf,
            _ => SchemaKind::Avro,
        }
    }
}

/// A schema as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    /// Its language.
    pub kind: SchemaKind,
    /// The text. Avro's references are written out in it.
    pub text: Arc<str>,
    /// The texts of the schemas that it refers to, directly or not, by the name of the reference.
    pub imports: Arc<[(String, String)]>,
}

impl SchemaText {
    /// A schema that refers to no other.
    #[must_use]
    pub fn new(kind: SchemaKind, text: &str) -> SchemaText {
        SchemaText { kind, text: Arc::from(text), imports: Arc::from([]) }
    }

    /// How many bytes it has, with what it refers to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.imports.iter().map(|(_, text)| text.len()).fold(self.text.len(), usize::saturating_add)
    }
}

/// A value schema, parsed.
#[derive(Debug, Clone)]
pub struct ValueSchema {
    branches: Vec<Branch>,
    form: Form,
    /// How many there are in all, mentions of named types written out.
    types: usize,
    reader: Reader,
    fingerprint: Fingerprint,
}

/// How the body of a value becomes Avro.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    /// It is.
    Avro,
    Json(Arc<json::Node>),
    /// By the number of the type.
    Protobuf(Arc<[Option<Arc<protobuf::Message>>]>),
}

impl Reader {
    /// Appends the Avro form of a body, which is of the type with this number.
    pub(super) fn rewrite(&self, number: usize, body: &[u8], out: &mut Vec<u8>) -> Result<(), (Reason, String)> {
        match self {
            Reader::Avro => {
                out.extend_from_slice(body);
                Ok(())
            }
            Reader::Json(node) => json::write(node, body, out),
            Reader::Protobuf(messages) => match messages.get(number) {
                Some(Some(message)) => protobuf::write(message, body, out),
                _ => Err((Reason::UnionBranch, String::new())),
            },
        }
    }
}

/// One type that values of a schema may have.
#[derive(Debug, Clone)]
struct Branch {
    /// Its full name; that of the type where it has none.
    name: Arc<str>,
    /// Its record, or why it has none.
    record: Result<TypeRef, String>,
}

/// How a body says of which type it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// There is only one.
    Single,
    /// An Avro union: the number of the branch is in front.
    Union,
    /// A list of Protobuf messages: the place of the message is in front.
    Messages(Arc<HashMap<Vec<u32>, usize>>),
}

impl Form {
    /// The number of a body's type, and what is behind it.
    #[inline]
    pub fn split<'b>(&self, body: &'b [u8], branches: usize) -> Result<(usize, &'b [u8]), Reason> {
        let mut cursor = Cursor::new(body);
        let number = match self {
            Form::Single => return Ok((0, body)),
            Form::Union => cursor.index(branches, Reason::UnionBranch)?,
            Form::Messages(places) => *places.get(&place(&mut cursor)?).ok_or(Reason::UnionBranch)?,
        };
        Ok((number, cursor.rest()))
    }
}

/// The place of a Protobuf message in its file: how many numbers, and those from the outermost message inwards. No numbers
/// stand for the first message.
fn place(cursor: &mut Cursor<'_>) -> Result<Vec<u32>, Reason> {
    let count = match cursor.long()? {
        0 => return Ok(vec![0]),
        count if (1..=MESSAGES_DEEP_MAX).contains(&count) => count,
        _ => return Err(Reason::UnionBranch),
    };
    (0..count).map(|_| u32::try_from(cursor.long()?).map_err(|_| Reason::UnionBranch)).collect()
}

impl ValueSchema {
    /// Parses a schema. In Avro it is a record, or a union in which each record is a type of its own.
    ///
    /// # Errors
    /// [`Error::Decision`] for a text that is no schema, or one beyond the limits on schemas.
    pub fn parse(schema: &SchemaText) -> Result<ValueSchema> {
        match schema.kind {
            SchemaKind::Avro => ValueSchema::avro(&schema.text),
            SchemaKind::Json => {
                let read = json::read(&schema.text, &schema.imports);
                let (name, mut node) = read.map_err(|e| refusal(&e))?;
                let json::Kind::Object(object) = &node.kind else {
                    return Err(refusal(&format!("an object with properties is needed, this is {}", node.avro())));
                };
                let fields = object.avro();
                let types = fields.iter().map(|field| field.kind.types()).sum::<usize>() + 1;
                let record = Ok(Avro::Record(fields).into());
                let branches = vec![Branch { name: Arc::from(name), record }];
                // A value that is null is none.
                node.nullable = false;
                let reader = Reader::Json(Arc::new(node));
                let fingerprint = schema.fingerprint();
                Ok(ValueSchema { branches, form: Form::Single, reader, types, fingerprint })
            }
            SchemaKind::Protobuf => {
                let read = protobuf::read(&schema.text, &schema.imports);
                let messages = |defined| ValueSchema::messages(defined, schema.fingerprint());
                read.map(messages).map_err(|e| refusal(&e))
            }
        }
    }

    fn messages(defined: Vec<protobuf::Defined>, fingerprint: Fingerprint) -> ValueSchema {
        let types = defined.iter().filter_map(|d| d.message.as_ref().ok()).map(|message| message.types()).sum();
        let places = defined.iter().enumerate().map(|(number, d)| (d.path.clone(), number)).collect();
        let messages: Vec<_> = defined.iter().map(|d| d.message.clone().ok()).collect();
        let branches = defined.into_iter().map(|d| Branch {
            name: Arc::from(d.name),
            record: d.message.map(|message| Avro::Record(message.avro()).into()),
        });
        let reader = Reader::Protobuf(messages.into());
        let form = Form::Messages(Arc::new(places));
        ValueSchema { branches: branches.collect(), form, reader, types, fingerprint }
    }

    /// Parses an Avro schema.
    ///
    /// # Errors
    /// As [`ValueSchema::parse`].
    pub fn avro(text: &str) -> Result<ValueSchema> {
        let avro = writer_schema::parse(text).map_err(|e| refusal(&e))?;
        let json: Value = serde_json::from_str(text).map_err(|e| refusal(&e.to_string()))?;
        let (form, branches) = match (&*avro, json.as_array()) {
            (Avro::Union(kinds), Some(parts)) => {
                (Form::Union, kinds.iter().zip(parts).map(|(kind, json)| Branch::new(kind, json)).collect())
            }
            _ => (Form::Single, vec![Branch::new(&avro, &json)]),
        };
        let fingerprint = SchemaText::new(SchemaKind::Avro, text).fingerprint();
        Ok(ValueSchema { branches, form, reader: Reader::Avro, types: avro.types(), fingerprint })
    }

    /// How a body says of which type it is.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form.clone()
    }

    /// What identifies its meaning.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// How many types it has when every mention of a named type is written out.
    pub(super) fn types(&self) -> usize {
        self.types
    }

    /// How a body becomes Avro.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The full names of the types, in the order of their numbers.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.branches.iter().map(|branch| &branch.name)
    }

    /// Whether it has a record type that such a table takes.
    #[must_use]
    pub fn has_any_of(&self, types: &Types) -> bool {
        self.names().any(|name| types.take(name))
    }

    /// The types in the order of their numbers: full name, and the fields of one that is a record.
    pub(super) fn branches(&self) -> impl Iterator<Item = (&str, Option<&[AvroField]>)> {
        self.branches.iter().map(|branch| (&*branch.name, branch.fields().ok()))
    }

    /// The fields of those types that a table takes, by full name.
    ///
    /// # Errors
    /// One of them has no columns, or there is none.
    pub(super) fn records(&self, types: &Types) -> Result<Vec<(&str, &[AvroField])>, String> {
        let taken = self.branches.iter().filter(|branch| types.take(&branch.name));
        let fields = taken.map(|branch| match branch.fields() {
            Ok(fields) => Ok((&*branch.name, fields)),
            Err(why) => Err(format!("record type {}: {why}", branch.name)),
        });
        match fields.collect::<Result<Vec<_>, _>>()? {
            none if none.is_empty() => Err(format!("it has no record type of the table; it is {self}")),
            records => Ok(records),
        }
    }

    /// The fields of the one record type; in Protobuf, of the first message.
    ///
    /// # Errors
    /// The schema is no record, or a union.
    pub(super) fn only(&self) -> Result<&[AvroField], String> {
        match (&self.form, self.branches.as_slice()) {
            (Form::Single, [Branch { record: Err(_), .. }]) => Err(format!("a record is needed, this is {self}")),
            (Form::Single, [one]) | (Form::Messages(_), [one, ..]) => one.fields(),
            (Form::Single | Form::Messages(_), _) => Err(format!("a record is needed, this is {self}")),
            (Form::Union, _) => Err(format!(
                "a record is needed, this is {self}; several record types in one topic need `record_type` in each table, or \
                 `record_types`"
            )),
        }
    }
}

/// The words of a schema may be in the reason, and these may be long.
fn refusal(why: &str) -> Error {
    let shown: String = why.chars().take(REFUSAL_CHARS).collect();
    let more = if shown.len() < why.len() { "…" } else { "" };
    Error::Decision(format!("value schema: {shown}{more}"))
}

/// What it is, for messages.
impl std::fmt::Display for ValueSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.names().take(NAMES_SHOWN).map(|name| &**name).collect();
        let union = if self.form == Form::Union { "union of " } else { "" };
        let more = if self.branches.len() > NAMES_SHOWN { ", …" } else { "" };
        write!(f, "{union}{}{more}", names.join(", "))
    }
}

impl Branch {
    fn new(kind: &TypeRef, json: &Value) -> Branch {
        match **kind {
            Avro::Record(_) => Branch { name: Arc::from(full_name(json)), record: Ok(kind.clone()) },
            _ => Branch { name: Arc::from(kind.to_string()), record: Err(format!("a {kind} is no record")) },
        }
    }

    fn fields(&self) -> Result<&[AvroField], String> {
        match &self.record {
            Ok(kind) => match &**kind {
                Avro::Record(fields) => Ok(fields),
                other => Err(format!("a {other} is no record")),
            },
            Err(why) => Err(why.clone()),
        }
    }
}

/// The full name of a record's definition.
fn full_name(json: &Value) -> String {
    let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
    // `{"type": {"type": "record", …}}` is a record too.
    match (text("name"), json.get("type")) {
        ("", Some(inner @ Value::Object(_))) => full_name(inner),
        (name, _) => writer_schema::full_name(name, text("namespace")),
    }
}

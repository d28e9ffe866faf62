//! JSON Schema → the types of a table, and how values are read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::tree::Tree;
use crate::avro::avro_type::{Avro, AvroField, TypeRef};
use crate::avro::writer_schema::{NAME_BYTES_MAX, SCHEMA_BYTES_MAX};

/// How deeply types may be nested, references included.
const DEPTH_MAX: usize = 64;
/// How many types a schema may have when every reference is written out.
const TYPES_MAX: usize = 20_000;
/// How many bytes of names, descriptions and symbols, and of what else is written beside them, a schema may have when every
/// reference is written out.
const WORDS_BYTES_MAX: usize = 16 << 20;
/// What a word of a schema counts at least.
const WORD_BYTES: usize = 16;
/// The name of the only type where the schema has no title.
const UNTITLED: &str = "object";
/// What Kafka Connect calls a decimal.
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// As many digits as a column has at most.
const DIGITS_MAX: u8 = 38;

/// A value of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: Kind,
    /// Whether `null` is a value too.
    pub nullable: bool,
    /// The only numbers that it may have, and 0 and 1 for booleans. Texts are symbols.
    among: Option<Arc<[f64]>>,
}

/// What a value is when it is not null.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    /// One of these texts.
    Symbol(Arc<[Box<str>]>),
    Uuid,
    /// `2026-01-31`.
    Date,
    /// `2026-01-31T12:00:00.000001Z`, with any offset.
    Instant,
    /// Base64.
    Bytes,
    List(Box<Node>),
    Map(Box<Node>),
    Object(Object),
}

/// An object with fields of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub fields: Vec<Property>,
    /// The place of each field.
    pub places: HashMap<String, usize>,
    /// Whether there may be no others.
    pub closed: bool,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub name: String,
    pub node: Node,
    /// Whether it has to be there.
    pub required: bool,
    doc: Option<String>,
}

/// Reads a schema: the name of its type, and what its values are. `imports` are schemas that it may refer to, by the name of the
/// reference.
///
/// # Errors
/// Where and why it is no schema of values that have columns.
pub fn read(text: &str, imports: &[(String, String)]) -> Result<(String, Node), String> {
    let parse = |text: &str| -> Result<Tree, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("the schema has {} bytes, the limit is {SCHEMA_BYTES_MAX}", text.len()));
        }
        serde_json::from_str(text).map_err(|e| format!("the schema is not json: {e}"))
    };
    let mut documents = vec![(String::new(), parse(text)?)];
    for (name, text) in imports {
        documents.push((name.clone(), parse(text).map_err(|e| format!("{name}: {e}"))?));
    }
    let mut reader = Reader { documents: &documents, types: 0, words: 0, depth: 0, following: Vec::new() };
    let at = At { document: 0, path: "" };
    let root = &documents[0].1;
    let node = reader.node(root, at)?;
    Ok((root.text("title").unwrap_or(UNTITLED).to_owned(), node))
}

/// Where the reader is.
#[derive(Clone, Copy)]
struct At<'a> {
    /// References without a name are to this one.
    document: usize,
    path: &'a str,
}

impl At<'_> {
    fn fault(&self, what: impl std::fmt::Display) -> String {
        if self.path.is_empty() { what.to_string() } else { format!("field `{}`: {what}", self.path) }
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

struct Reader<'t> {
    documents: &'t [(String, Tree)],
    types: usize,
    words: usize,
    depth: usize,
    /// The references that are being followed: one that comes back is of a type that contains itself.
    following: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    fn node(&mut self, tree: &'t Tree, at: At<'_>) -> Result<Node, String> {
        self.types += 1;
        self.depth += 1;
        let doc = tree.text("description").map_or(0, str::len);
        let symbols: usize = only(tree).iter().map(|value| value.as_text().map_or(WORD_BYTES, str::len)).sum();
        self.words += doc + symbols + tree.entries().len() * WORD_BYTES;
        if self.words > WORDS_BYTES_MAX {
            return Err(at.fault(format!("written out the schema has more than {WORDS_BYTES_MAX} bytes of words")));
        }
        if self.types > TYPES_MAX || self.depth > DEPTH_MAX {
            return Err(at.fault(format!("more than {TYPES_MAX} types, or nested more than {DEPTH_MAX} deep")));
        }
        let node = self.any(tree, at);
        self.depth -= 1;
        node
    }

    fn any(&mut self, tree: &'t Tree, at: At<'_>) -> Result<Node, String> {
        if let Some(reference) = tree.get("$ref") {
            return self.follow(reference.as_text().unwrap_or_default(), at);
        }
        for (key, choice) in [("oneOf", true), ("anyOf", true), ("allOf", false)] {
            if let Some(branches) = tree.get(key) {
                return self.branches(branches.items(), (key, choice), at);
            }
        }
        let only = only(tree);
        let (name, nullable) = type_name(tree, &only, at)?;
        let kind = match name {
            "boolean" => Kind::Boolean,
            "integer" => integer(tree),
            "number" => number(tree, at)?,
            "string" => string(tree, &only),
            "array" => self.list(tree, at)?,
            "object" => self.object(tree, at)?,
            other => return Err(at.fault(format!("type `{other}` has no column type"))),
        };
        let among = match kind {
            Kind::Boolean | Kind::Int | Kind::Long | Kind::Float | Kind::Double => numbers(&only),
            _ => None,
        };
        Ok(Node { kind, nullable, among })
    }

    fn follow(&mut self, reference: &str, at: At<'_>) -> Result<Node, String> {
        let (name, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let document = match name {
            "" => Some(at.document),
            name => self.documents.iter().position(|(known, _)| known == name),
        };
        let found = document.and_then(|d| Some((d, self.documents.get(d)?.1.pointer(pointer)?)));
        let (document, tree) =
            found.ok_or_else(|| at.fault(format!("it refers to `{reference}`, which is not there")))?;
        let place = (document, pointer.to_owned());
        if self.following.contains(&place) || (pointer.is_empty() && document == 0) {
            return Err(at.fault(format!("type `{reference}` contains itself, which has no column type")));
        }
        self.following.push(place);
        let node = self.node(tree, At { document, path: at.path });
        self.following.pop();
        node
    }

    /// A choice between null and one other type, or a list with one type.
    fn branches(&mut self, branches: &'t [Tree], (key, choice): (&str, bool), at: At<'_>) -> Result<Node, String> {
        let is_null = |tree: &&Tree| choice && tree.text("type") == Some("null");
        let others: Vec<&Tree> = branches.iter().filter(|tree| !is_null(tree)).collect();
        match others.as_slice() {
            [one] => {
                let node = self.node(one, at)?;
                Ok(Node { nullable: node.nullable || others.len() < branches.len(), ..node })
            }
            _ => {
                Err(at
                    .fault(format!("`{key}` of {} types has no column type, only of null and one other", others.len())))
            }
        }
    }

    fn list(&mut self, tree: &'t Tree, at: At<'_>) -> Result<Kind, String> {
        match tree.get("items") {
            Some(items @ Tree::Object(_)) if tree.get("prefixItems").is_none() => {
                let path = at.below("element");
                Ok(Kind::List(Box::new(self.node(items, At { path: &path, ..at })?)))
            }
            _ => Err(at.fault("an array needs `items` with one type to have a column type")),
        }
    }

    fn object(&mut self, tree: &'t Tree, at: At<'_>) -> Result<Kind, String> {
        let more = tree.get("additionalProperties");
        if tree.get("patternProperties").is_some() {
            return Err(at.fault("`patternProperties` have no column type"));
        }
        let properties = tree.get("properties").map(Tree::entries).unwrap_or_default();
        if properties.is_empty() {
            let Some(values @ Tree::Object(_)) = more else {
                return Err(
                    at.fault("an object without `properties` or a type of `additionalProperties` has no column type")
                );
            };
            let path = at.below("value");
            return Ok(Kind::Map(Box::new(self.node(values, At { path: &path, ..at })?)));
        }
        let required = tree.get("required").map(Tree::items).unwrap_or_default();
        let required: HashSet<&str> = required.iter().filter_map(Tree::as_text).collect();
        let mut indexed = Vec::with_capacity(properties.len());
        for (name, property) in properties {
            if name.len() > NAME_BYTES_MAX {
                return Err(at.fault(format!("a name has more than {NAME_BYTES_MAX} bytes")));
            }
            self.words += name.len() + WORD_BYTES;
            let path = at.below(name);
            let node = self.node(property, At { path: &path, ..at })?;
            let required = required.contains(&name.as_str());
            // A field that may be left out is null then.
            let node = Node { nullable: node.nullable || !required, ..node };
            let doc = property.text("description").map(str::to_owned);
            indexed.push((number_of(property, "connect.index"), Property { name: name.clone(), node, required, doc }));
        }
        // Kafka Connect says what its order was, since its objects are not written in it.
        if indexed.iter().all(|(index, _)| index.is_some()) {
            indexed.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        }
        let fields: Vec<Property> = indexed.into_iter().map(|(_, property)| property).collect();
        let places = fields.iter().enumerate().map(|(place, field)| (field.name.clone(), place)).collect();
        Ok(Kind::Object(Object { fields, places, closed: more == Some(&Tree::Boolean(false)) }))
    }
}

/// The type that a schema names, and whether it may be null.
fn type_name<'t>(tree: &'t Tree, only: &[&Tree], at: At<'_>) -> Result<(&'t str, bool), String> {
    match tree.get("type") {
        Some(Tree::Text(name)) => Ok((name, false)),
        Some(Tree::List(names)) => {
            let others: Vec<&str> = names.iter().filter_map(Tree::as_text).filter(|name| *name != "null").collect();
            match others.as_slice() {
                [one] => Ok((one, others.len() < names.len())),
                _ => Err(at.fault(format!("a type of {} has no column type", others.join(" or ")))),
            }
        }
        _ if tree.get("properties").is_some() => Ok(("object", false)),
        _ if tree.get("items").is_some() => Ok(("array", false)),
        _ => type_of(only).ok_or_else(|| at.fault("a schema without a type has no column type")),
    }
}

/// The values that a schema lists, if it does.
fn only(tree: &Tree) -> Vec<&Tree> {
    match (tree.get("const"), tree.get("enum")) {
        (Some(one), _) => vec![one],
        (None, several) => several.map(Tree::items).unwrap_or_default().iter().collect(),
    }
}

/// The type of listed values, and whether null is one of them.
fn type_of(only: &[&Tree]) -> Option<(&'static str, bool)> {
    let values: Vec<&&Tree> = only.iter().filter(|value| ***value != Tree::Null).collect();
    let all = |is: fn(&Tree) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    let name = match () {
        () if all(|value| matches!(value, Tree::Text(_))) => "string",
        () if all(|value| matches!(value, Tree::Boolean(_))) => "boolean",
        () if all(|value| matches!(value, Tree::Number(n) if n.fract() == 0.0)) => "integer",
        () if all(|value| matches!(value, Tree::Number(_))) => "number",
        () => return None,
    };
    Some((name, values.len() < only.len()))
}

/// Listed numbers and booleans.
fn numbers(only: &[&Tree]) -> Option<Arc<[f64]>> {
    let number = |value: &&Tree| match value {
        Tree::Number(number) => Some(*number),
        Tree::Boolean(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    };
    (!only.is_empty()).then(|| only.iter().filter_map(number).collect())
}

fn number_of(tree: &Tree, key: &str) -> Option<f64> {
    match tree.get(key) {
        Some(Tree::Number(number)) => Some(*number),
        _ => None,
    }
}

/// 32 bits where the schema says that they suffice.
fn integer(tree: &Tree) -> Kind {
    let hint = tree.text("connect.type").or(tree.text("format"));
    let within =
        |key: &str| number_of(tree, key).is_some_and(|n| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n));
    let low = within("minimum") || within("exclusiveMinimum");
    let high = within("maximum") || within("exclusiveMaximum");
    match hint {
        Some("int8" | "int16" | "int32") => Kind::Int,
        Some("int64") => Kind::Long,
        _ if low && high => Kind::Int,
        _ => Kind::Long,
    }
}

fn number(tree: &Tree, at: At<'_>) -> Result<Kind, String> {
    if tree.text("title") != Some(DECIMAL) {
        let single = tree.text("connect.type") == Some("float32");
        return Ok(if single { Kind::Float } else { Kind::Double });
    }
    let parameter =
        |key: &str| tree.get("connect.parameters").and_then(|p| p.text(key)).and_then(|n| n.parse::<u8>().ok());
    let precision = parameter("connect.decimal.precision").unwrap_or(DIGITS_MAX);
    match parameter("scale") {
        Some(scale) if (1..=DIGITS_MAX).contains(&precision) && scale <= precision => {
            Ok(Kind::Decimal { precision, scale })
        }
        _ => Err(at.fault("a decimal needs a `scale` among its `connect.parameters`, and at most 38 digits")),
    }
}

fn string(tree: &Tree, only: &[&Tree]) -> Kind {
    let symbols: Arc<[Box<str>]> = only.iter().filter_map(|value| value.as_text()).map(Box::from).collect();
    let encoded = tree.text("contentEncoding") == Some("base64") || tree.text("connect.type") == Some("bytes");
    match tree.text("format") {
        _ if !symbols.is_empty() => Kind::Symbol(symbols),
        _ if encoded => Kind::Bytes,
        Some("date") => Kind::Date,
        Some("date-time") => Kind::Instant,
        Some("uuid") => Kind::Uuid,
        _ => Kind::Text,
    }
}

impl Node {
    /// Whether a number, or 0 or 1 for a boolean, is one of those that the schema lists.
    pub fn allows(&self, number: f64) -> bool {
        self.among.as_ref().is_none_or(|among| among.contains(&number))
    }

    /// The Avro type that a value is written as.
    pub fn avro(&self) -> TypeRef {
        let kind = self.kind.avro().into();
        if self.nullable { Avro::Union(vec![Avro::Null.into(), kind]).into() } else { kind }
    }
}

impl Kind {
    fn avro(&self) -> Avro {
        match self {
            Kind::Boolean => Avro::Boolean,
            Kind::Int => Avro::Int,
            Kind::Long => Avro::Long,
            Kind::Float => Avro::Float,
            Kind::Double => Avro::Double,
            Kind::Decimal { precision, scale } => Avro::Decimal { precision: *precision, scale: *scale, size: None },
            Kind::Text => Avro::String,
            Kind::Symbol(symbols) => Avro::Enum(symbols.clone()),
            Kind::Uuid => Avro::UuidText,
            Kind::Date => Avro::Date,
            Kind::Instant => Avro::Instant,
            Kind::Bytes => Avro::Bytes,
            Kind::List(items) => Avro::Array(items.avro()),
            Kind::Map(values) => Avro::Map(values.avro()),
            Kind::Object(object) => Avro::Record(object.avro()),
        }
    }
}

impl Object {
    /// The fields of the Avro record that an object is written as.
    pub fn avro(&self) -> Vec<AvroField> {
        let field = |property: &Property| AvroField {
            name: property.name.clone(),
            kind: property.node.avro(),
            doc: property.doc.clone(),
            aliases: Vec::new(),
            default: None,
        };
        self.fields.iter().map(field).collect()
    }
}

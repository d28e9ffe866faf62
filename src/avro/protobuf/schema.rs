//! Protobuf messages → the types of a table, and how values are read.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::avro::avro_type::{Avro, AvroField, TypeRef};
use crate::avro::writer_schema::{NAME_BYTES_MAX, SCHEMA_BYTES_MAX};

/// How deeply messages may be nested.
const DEPTH_MAX: usize = 64;
/// How many types a message may have when every mention of another one is written out.
const TYPES_MAX: usize = 20_000;
/// So many bytes of a name count as one type more.
const NAME_BYTES: usize = 64;
/// How many types all messages of a schema may have together.
const ALL_TYPES_MAX: usize = 200_000;
/// How many messages a schema may define.
const MESSAGES_MAX: usize = 2_000;
/// The name under which the schema itself is compiled.
const ITSELF: &str = "firn.value.proto";
/// What Confluent's registry brings along, and schemas made by Kafka Connect import.
const BESIDE: [(&str, &str); 2] = [
    ("confluent/meta.proto", include_str!("confluent_meta.proto")),
    ("confluent/type/decimal.proto", include_str!("confluent_decimal.proto")),
];

/// A message with the fields that are columns.
#[derive(Debug)]
pub struct Message {
    pub fields: Vec<Field>,
    /// The place of each field by its number.
    pub places: HashMap<u32, usize>,
    /// The places of the members of each oneof.
    pub oneofs: Vec<Vec<usize>>,
    /// How many types it has, written out.
    types: usize,
    depth: usize,
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub count: Count,
    /// The oneof that it is a member of.
    pub oneof: Option<usize>,
}

/// How often a field is there.
#[derive(Debug)]
pub enum Count {
    /// Always, as proto2 may ask for.
    Required,
    /// Null where it is not.
    Optional,
    /// Where it is not, the default of its type.
    Implicit,
    Repeated,
    /// A map with keys of this type; the field's own type is that of the values.
    Map(Scalar),
}

/// The type of a field.
#[derive(Debug, Clone)]
pub enum Kind {
    Scalar(Scalar),
    /// The names by number.
    Enum(Arc<HashMap<i32, String>>),
    Message(Arc<Message>),
    /// A message with one field, which stands for a value that may be null.
    Wrapper(Scalar),
    Timestamp,
}

/// A type that is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    Text,
    Bytes,
}

/// A message that the schema defines.
#[derive(Debug)]
pub struct Defined {
    /// Its full name.
    pub name: String,
    /// Its place: the number among the top-level messages, then those among the messages within.
    pub path: Vec<u32>,
    /// It, or why it has no columns.
    pub message: Result<Arc<Message>, String>,
}

/// Reads a schema: the messages that it defines, the outer ones before those within. `imports` are what it may import, by
/// path.
///
/// # Errors
/// Where and why it is no schema.
pub fn read(text: &str, imports: &[(String, String)]) -> Result<Vec<Defined>, String> {
    let pool = compile(text, imports)?;
    let file = pool.get_file_by_name(ITSELF).ok_or_else(|| "the schema is not there after compiling it".to_owned())?;
    defined(&file)
}

/// Compiles a schema with what it imports.
///
/// # Errors
/// As [`read`].
pub fn compile(text: &str, imports: &[(String, String)]) -> Result<DescriptorPool, String> {
    let bytes = imports.iter().map(|(_, text)| text.len()).fold(text.len(), usize::saturating_add);
    if bytes > SCHEMA_BYTES_MAX {
        return Err(format!("the schema has {bytes} bytes with its imports, the limit is {SCHEMA_BYTES_MAX}"));
    }
    for text in imports.iter().map(|(_, text)| text.as_str()).chain([text]) {
        check_depth(text)?;
    }
    // Its parser asserts where it should refuse: at `019`, an octal number with a digit that there is not.
    let compiled = std::panic::catch_unwind(|| compile_files(text, imports));
    compiled.unwrap_or_else(|_| Err("the schema is not protobuf: its parser gave up on it".to_owned()))
}

fn compile_files(text: &str, imports: &[(String, String)]) -> Result<DescriptorPool, String> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Files { text: text.to_owned(), imports: imports.to_vec() });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(ITSELF).map_err(|e| format!("the schema is not protobuf: {e}"))?;
    Ok(compiler.descriptor_pool())
}

/// The parser goes down with every bracket.
fn check_depth(text: &str) -> Result<(), String> {
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("the schema is nested more than {DEPTH_MAX} deep"));
        }
    }
    Ok(())
}

struct Files {
    text: String,
    imports: Vec<(String, String)>,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == ITSELF {
            return File::from_source(name, &self.text);
        }
        let own = self.imports.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str());
        let beside = || BESIDE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        match own.or_else(beside) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn defined(file: &FileDescriptor) -> Result<Vec<Defined>, String> {
    let (mut all, mut types) = (Vec::new(), 0);
    let mut waiting: std::collections::VecDeque<(Vec<u32>, MessageDescriptor)> =
        file.messages().enumerate().map(|(n, message)| (vec![n as u32], message)).collect();
    let mut builder = Builder::default();
    while let Some((path, message)) = waiting.pop_front() {
        if all.len() >= MESSAGES_MAX {
            return Err(format!("the schema defines more than {MESSAGES_MAX} messages"));
        }
        let within = message.child_messages().filter(|inner| !inner.is_map_entry());
        for (n, inner) in within.enumerate() {
            waiting.push_back((path.iter().copied().chain([n as u32]).collect(), inner));
        }
        let name = message.full_name().to_owned();
        let message = builder.message(&message, "");
        types += message.as_ref().map_or(1, |message| message.types);
        if types > ALL_TYPES_MAX {
            return Err(format!("the messages of the schema have more than {ALL_TYPES_MAX} types together"));
        }
        all.push(Defined { name, path, message });
    }
    if all.is_empty() { Err("the schema defines no message".into()) } else { Ok(all) }
}

/// Messages and enums that are done, by full name; no message is inside of itself.
#[derive(Default)]
struct Builder {
    done: HashMap<String, Result<Arc<Message>, String>>,
    enums: HashMap<String, Arc<HashMap<i32, String>>>,
    within: Vec<String>,
}

impl Builder {
    fn message(&mut self, descriptor: &MessageDescriptor, path: &str) -> Result<Arc<Message>, String> {
        let name = descriptor.full_name().to_owned();
        if let Some(done) = self.done.get(&name) {
            return done.clone();
        }
        if self.within.contains(&name) || self.within.len() >= DEPTH_MAX {
            return Err(format!(
                "field `{path}`: message {name} contains itself, or is nested too deeply, and has no column type"
            ));
        }
        self.within.push(name.clone());
        let message = self.fields(descriptor, path).map(Arc::new);
        self.within.pop();
        // What failed inside of a message that is not done yet may be fine elsewhere.
        if message.is_ok() || self.within.is_empty() {
            self.done.insert(name, message.clone());
        }
        message
    }

    fn fields(&mut self, descriptor: &MessageDescriptor, path: &str) -> Result<Message, String> {
        let mut message =
            Message { fields: Vec::new(), places: HashMap::new(), oneofs: Vec::new(), types: 1, depth: 1 };
        let mut oneofs: HashMap<String, usize> = HashMap::new();
        for proto in &descriptor.descriptor_proto().field {
            let Some(field) = descriptor.get_field_by_name(proto.name()) else { continue };
            if proto.name().len() > NAME_BYTES_MAX {
                return Err(format!("a name has more than {NAME_BYTES_MAX} bytes"));
            }
            let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
            let (kind, count) = self.field(&field, &path)?;
            let place = message.fields.len();
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()).map(|oneof| {
                let next = oneofs.len();
                *oneofs.entry(oneof.name().to_owned()).or_insert(next)
            });
            if let Some(oneof) = oneof {
                message.oneofs.resize(message.oneofs.len().max(oneof + 1), Vec::new());
                message.oneofs[oneof].push(place);
            }
            let (types, depth) = if let Kind::Message(inner) = &kind { (inner.types, inner.depth) } else { (1, 1) };
            // A long name counts as several types: it is copied as often.
            message.types = message.types.saturating_add(types).saturating_add(field.name().len() / NAME_BYTES);
            message.depth = message.depth.max(depth + 1);
            if message.types > TYPES_MAX || message.depth > DEPTH_MAX {
                return Err(format!(
                    "field `{path}`: more than {TYPES_MAX} types, or nested more than {DEPTH_MAX} deep"
                ));
            }
            message.places.insert(field.number(), place);
            message.fields.push(Field { name: field.name().to_owned(), kind, count, oneof });
        }
        Ok(message)
    }

    fn field(&mut self, field: &FieldDescriptor, path: &str) -> Result<(Kind, Count), String> {
        if field.is_group() {
            return Err(format!("field `{path}`: a group has no column type"));
        }
        if field.is_map() {
            let prost_reflect::Kind::Message(entry) = field.kind() else {
                return Err(format!("field `{path}`: a map without entries"));
            };
            let Some(key) = scalar(&entry.map_entry_key_field().kind()) else {
                return Err(format!("field `{path}`: a map needs keys that are no messages"));
            };
            return Ok((self.kind(&entry.map_entry_value_field().kind(), path)?, Count::Map(key)));
        }
        let kind = self.kind(&field.kind(), path)?;
        let count = match field.cardinality() {
            Cardinality::Repeated => Count::Repeated,
            Cardinality::Required => Count::Required,
            Cardinality::Optional if field.supports_presence() => Count::Optional,
            Cardinality::Optional => Count::Implicit,
        };
        Ok((kind, count))
    }

    fn kind(&mut self, kind: &prost_reflect::Kind, path: &str) -> Result<Kind, String> {
        match kind {
            prost_reflect::Kind::Message(message) => match message.full_name() {
                "google.protobuf.Timestamp" => Ok(Kind::Timestamp),
                name => match wrapper(name) {
                    Some(scalar) => Ok(Kind::Wrapper(scalar)),
                    None => Ok(Kind::Message(self.message(message, path)?)),
                },
            },
            prost_reflect::Kind::Enum(names) => Ok(Kind::Enum(self.names(names))),
            other => match scalar(other) {
                Some(scalar) => Ok(Kind::Scalar(scalar)),
                None => Err(format!("field `{path}`: {other:?} has no column type")),
            },
        }
    }
}

impl Builder {
    /// The names of an enum by number, shared by all fields of it. Of several for one number, the first.
    fn names(&mut self, descriptor: &EnumDescriptor) -> Arc<HashMap<i32, String>> {
        let known = self.enums.entry(descriptor.full_name().to_owned()).or_insert_with(|| {
            let mut names = HashMap::new();
            for value in &descriptor.enum_descriptor_proto().value {
                names.entry(value.number()).or_insert_with(|| value.name().to_owned());
            }
            Arc::new(names)
        });
        known.clone()
    }
}

fn scalar(kind: &prost_reflect::Kind) -> Option<Scalar> {
    use prost_reflect::Kind as Of;
    Some(match kind {
        Of::Double => Scalar::Double,
        Of::Float => Scalar::Float,
        Of::Int32 => Scalar::Int32,
        Of::Int64 => Scalar::Int64,
        Of::Uint32 => Scalar::Uint32,
        Of::Uint64 => Scalar::Uint64,
        Of::Sint32 => Scalar::Sint32,
        Of::Sint64 => Scalar::Sint64,
        Of::Fixed32 => Scalar::Fixed32,
        Of::Fixed64 => Scalar::Fixed64,
        Of::Sfixed32 => Scalar::Sfixed32,
        Of::Sfixed64 => Scalar::Sfixed64,
        Of::Bool => Scalar::Bool,
        Of::String => Scalar::Text,
        Of::Bytes => Scalar::Bytes,
        Of::Message(_) | Of::Enum(_) => return None,
    })
}

/// What a wrapper of `google/protobuf/wrappers.proto` holds.
fn wrapper(name: &str) -> Option<Scalar> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "DoubleValue" => Scalar::Double,
        "FloatValue" => Scalar::Float,
        "Int64Value" => Scalar::Int64,
        "UInt64Value" => Scalar::Uint64,
        "Int32Value" => Scalar::Int32,
        "UInt32Value" => Scalar::Uint32,
        "BoolValue" => Scalar::Bool,
        "StringValue" => Scalar::Text,
        "BytesValue" => Scalar::Bytes,
        _ => return None,
    })
}

impl Message {
    /// How many types it has when every mention of another message is written out.
    pub fn types(&self) -> usize {
        self.types
    }

    /// The fields of the Avro record that a message is written as.
    pub fn avro(&self) -> Vec<AvroField> {
        let field = |field: &Field| AvroField {
            name: field.name.clone(),
            kind: field.avro(),
            doc: None,
            aliases: Vec::new(),
            default: None,
        };
        self.fields.iter().map(field).collect()
    }
}

impl Field {
    /// Whether it is null where it is not there.
    pub fn nullable(&self) -> bool {
        let may_be_null = matches!(self.kind, Kind::Message(_) | Kind::Wrapper(_) | Kind::Timestamp);
        match self.count {
            Count::Optional => true,
            Count::Implicit => may_be_null,
            Count::Required | Count::Repeated | Count::Map(_) => false,
        }
    }

    fn avro(&self) -> TypeRef {
        let kind: TypeRef = self.kind.avro().into();
        match self.count {
            Count::Repeated => Avro::Array(kind).into(),
            Count::Map(_) => Avro::Map(kind).into(),
            _ if self.nullable() => Avro::Union(vec![Avro::Null.into(), kind]).into(),
            _ => kind,
        }
    }
}

impl Kind {
    fn avro(&self) -> Avro {
        match self {
            Kind::Scalar(scalar) | Kind::Wrapper(scalar) => scalar.avro(),
            Kind::Enum(_) => Avro::String,
            Kind::Message(message) => Avro::Record(message.avro()),
            Kind::Timestamp => Avro::Instant,
        }
    }
}

impl Scalar {
    fn avro(self) -> Avro {
        match self {
            Scalar::Double => Avro::Double,
            Scalar::Float => Avro::Float,
            Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => Avro::Int,
            Scalar::Bool => Avro::Boolean,
            Scalar::Text => Avro::String,
            Scalar::Bytes => Avro::Bytes,
            _ => Avro::Long,
        }
    }
}

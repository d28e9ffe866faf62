//! What a schema says, written out in one way: by this, schemas are compared that a registry gives out under one id.
//!
//! It has everything that decides which values a record has and under which names, and nothing else. Spacing, the order of
//! attributes, documentation, defaults, and whether a name has its namespace from where it stands: none of that matters to
//! records that were written. Aliases do, since they say which column a field is.
//!
//! Tables keep fingerprints of this ([`crate::core::schema::Pins`]): where it becomes another text for the same schema,
//! their form has to change with it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::value_schema::{SchemaKind, SchemaText};
use super::writer_schema::full_name;
use crate::core::schema::Fingerprint;

/// Attributes of JSON schemas that say nothing about values. `title` is the name of a record type.
const JSON_NOTES: [&str; 7] = ["$comment", "default", "deprecated", "description", "examples", "readOnly", "writeOnly"];
/// Attributes of JSON schemas whose keys are names of the schema's own.
const JSON_NAMED: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// Attributes of JSON schemas that are values.
const JSON_VALUES: [&str; 2] = ["const", "enum"];
/// How many bytes of names are written out with their namespaces: one namespace may stand around very many types. Names beyond
/// are left as they are.
const NAMES_BYTES_MAX: usize = 16 << 20;

impl SchemaText {
    /// What identifies its meaning, with that of what it refers to.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut all = format!("{} {}", self.kind.name(), meaning(self.kind, &self.text));
        for (name, text) in self.imports.iter() {
            let _ = write!(all, "\n{} {}", quoted(name), meaning(self.kind, text));
        }
        Fingerprint::of(&all)
    }
}

/// A text that is no schema means itself.
fn meaning(kind: SchemaKind, text: &str) -> String {
    let json = || serde_json::from_str::<Value>(text).ok();
    match kind {
        SchemaKind::Protobuf => protobuf(text),
        SchemaKind::Json => json().map_or_else(|| text.to_owned(), |json| json_schema(&json)),
        SchemaKind::Avro => json().map_or_else(|| text.to_owned(), |json| Avro::default().of(&json, "")),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn joined(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(",")
}

/// Writes out a schema as Avro's parsing canonical form does, and logical types and aliases besides.
#[derive(Default)]
struct Avro {
    /// The types that were declared so far.
    named: BTreeSet<String>,
    /// How many bytes of names were written out.
    names_bytes: usize,
}

impl Avro {
    fn of(&mut self, schema: &Value, namespace: &str) -> String {
        match schema {
            Value::String(name) => self.mention(name, namespace),
            Value::Array(branches) => {
                format!("[{}]", joined(branches.iter().map(|branch| self.of(branch, namespace))))
            }
            Value::Object(object) => self.object(object, namespace),
            other => other.to_string(),
        }
    }

    fn full_name(&mut self, name: &str, namespace: &str) -> String {
        let bytes = name.len() + namespace.len();
        if bytes > NAMES_BYTES_MAX - self.names_bytes {
            return name.to_owned();
        }
        self.names_bytes += bytes;
        full_name(name, namespace)
    }

    fn mention(&mut self, name: &str, namespace: &str) -> String {
        let full = self.full_name(name, namespace);
        quoted(if self.named.contains(&full) { &full } else { name })
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> String {
        let Some(kind) = object.get("type") else { return Value::Object(object.clone()).to_string() };
        match kind.as_str() {
            Some("record" | "error") => {
                let (name, inside) = self.declare(object, namespace);
                let fields = object.get("fields").and_then(Value::as_array);
                let fields = fields.into_iter().flatten().map(|field| self.field(field, &inside));
                format!("{{{name},\"fields\":[{}]}}", joined(fields))
            }
            Some("enum") => {
                let (name, _) = self.declare(object, namespace);
                format!("{{{name},\"symbols\":{}}}", object.get("symbols").unwrap_or(&Value::Null))
            }
            Some("fixed") => {
                let (name, _) = self.declare(object, namespace);
                format!("{{{name},\"size\":{}{}}}", object.get("size").unwrap_or(&Value::Null), logical(object))
            }
            Some(kind @ ("array" | "map")) => {
                let of = object.get(if kind == "array" { "items" } else { "values" }).unwrap_or(&Value::Null);
                format!("{{\"{kind}\":{}}}", self.of(of, namespace))
            }
            _ => {
                let inner = self.of(kind, namespace);
                match logical(object) {
                    none if none.is_empty() => inner,
                    logical => format!("{{\"type\":{inner}{logical}}}"),
                }
            }
        }
    }

    /// The head of a named type, and the namespace of what is inside.
    fn declare(&mut self, object: &Map<String, Value>, namespace: &str) -> (String, String) {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let full = self.full_name(text("name").unwrap_or_default(), text("namespace").unwrap_or(namespace));
        let inside = full.rsplit_once('.').map(|(namespace, _)| namespace.to_owned()).unwrap_or_default();
        let kind = match text("type") {
            Some("error") => "record",
            other => other.unwrap_or_default(),
        };
        let head = format!("\"{kind}\":{}{}", quoted(&full), aliases(object));
        self.named.insert(full);
        (head, inside)
    }

    fn field(&mut self, field: &Value, namespace: &str) -> String {
        let Some(object) = field.as_object() else { return field.to_string() };
        let part = |key: &str| object.get(key).unwrap_or(&Value::Null);
        let kind = self.of(part("type"), namespace);
        format!("{{\"name\":{}{},\"type\":{kind}}}", part("name"), aliases(object))
    }
}

fn aliases(object: &Map<String, Value>) -> String {
    match object.get("aliases") {
        Some(Value::Array(names)) if !names.is_empty() => {
            format!(",\"aliases\":[{}]", joined(names.iter().map(Value::to_string)))
        }
        _ => String::new(),
    }
}

fn logical(object: &Map<String, Value>) -> String {
    let Some(name) = object.get("logicalType") else { return String::new() };
    let mut text = format!(",\"logicalType\":{name}");
    if name.as_str() == Some("decimal") {
        let zero = Value::from(0);
        let part = |key: &str| object.get(key).unwrap_or(&zero);
        let _ = write!(text, ",\"precision\":{},\"scale\":{}", part("precision"), part("scale"));
    }
    text
}

/// Writes out a JSON schema: attributes in the order of their names, without notes.
fn json_schema(schema: &Value) -> String {
    match schema {
        Value::Object(object) => {
            let told = object.iter().filter(|(key, _)| !JSON_NOTES.contains(&key.as_str()));
            braced(told.map(|(key, value)| match value {
                Value::Object(own) if JSON_NAMED.contains(&key.as_str()) => {
                    (key, braced(own.iter().map(|(name, schema)| (name, json_schema(schema)))))
                }
                value if JSON_VALUES.contains(&key.as_str()) => (key, json_value(value)),
                value => (key, json_schema(value)),
            }))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(json_schema))),
        other => other.to_string(),
    }
}

fn json_value(value: &Value) -> String {
    match value {
        Value::Object(object) => braced(object.iter().map(|(key, value)| (key, json_value(value)))),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(json_value))),
        other => other.to_string(),
    }
}

/// An object of these entries, in the order of their keys.
fn braced<'a>(entries: impl Iterator<Item = (&'a String, String)>) -> String {
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    format!("{{{}}}", joined(entries.into_iter().map(|(key, value)| format!("{}:{value}", quoted(key)))))
}

/// The words and signs of a Protobuf schema, without comments, one space between them.
fn protobuf(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let length = match first {
            c if c.is_whitespace() => c.len_utf8(),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' | '\'' => quotation(rest, first),
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        if !(first.is_whitespace() || token.starts_with("//") || token.starts_with("/*")) {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(token);
        }
        rest = behind;
    }
    out
}

/// The length of the quoted text that `rest` begins with.
fn quotation(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: SchemaKind, one: &str, other: &str, same: bool) {
        let of = |text| SchemaText::new(kind, text).fingerprint();
        let shown = || format!("{}\n{}", meaning(kind, one), meaning(kind, other));
        assert_eq!(of(one) == of(other), same, "{one}\n{other}\n{}", shown());
    }

    const PLAIN: &str = r#"{"type":"record","name":"R","namespace":"n","fields":[
        {"name":"a","type":"int"},{"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
        {"name":"f","type":["null","n.E"]}]}"#;

    #[test]
    fn what_does_not_concern_records_does_not_make_another_avro_schema() {
        for same in [
            r#"{"name":"n.R","doc":"words","type":"record","fields":[{"type":{"type":"int"},"doc":"more","name":"a","default":1},
                {"name":"e","type":{"type":"enum","symbols":["X","Y"],"name":"E","default":"X","namespace":"n"},"order":"ignore"},
                {"name":"f","type":["null","E"],"default":null}]}"#,
            r#"{"type":"error","name":"R","namespace":"n","x":{"y":[1]},"fields":[{"name":"a","type":"int","aliases":[]},
                {"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},{"name":"f","type":["null",{"type":"E"}]}]}"#,
        ] {
            check(SchemaKind::Avro, PLAIN, same, true);
        }
    }

    #[test]
    fn what_records_are_read_by_makes_another_avro_schema() {
        for (from, to) in [
            (r#""a","type":"int""#, r#""a","type":"long""#),
            (r#""name":"a""#, r#""name":"b""#),
            (r#""name":"a""#, r#""name":"a","aliases":["b"]"#),
            (r#""X","Y""#, r#""Y","X""#),
            (r#""null","n.E""#, r#""n.E","null""#),
            (r#""namespace":"n","fields""#, r#""namespace":"n","aliases":["Q"],"fields""#),
            (r#""name":"R""#, r#""name":"Q""#),
            (r#""a","type":"int""#, r#""a","type":{"type":"int","logicalType":"date"}"#),
        ] {
            assert!(PLAIN.contains(from));
            check(SchemaKind::Avro, PLAIN, &PLAIN.replace(from, to), false);
        }
        let decimal = |more: &str| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9{more}}}"#);
        check(SchemaKind::Avro, &decimal(""), &decimal(r#","scale":0"#), true);
        check(SchemaKind::Avro, &decimal(""), &decimal(r#","scale":2"#), false);
        let fixed = |size: u32| format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#);
        check(SchemaKind::Avro, &fixed(4), &fixed(8), false);
        check(SchemaKind::Avro, r#"{"type":"array","items":"int"}"#, r#"{"type":"map","values":"int"}"#, false);
        check(SchemaKind::Avro, "no json", "no  json", false);
    }

    /// Tables hold these: another value here is another form of pins.
    #[test]
    fn fingerprints_stay_what_they_are() {
        let proto = "syntax = \"proto3\"; message M { int32 a = 1; }";
        let json = r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#;
        let all = [(SchemaKind::Avro, PLAIN), (SchemaKind::Json, json), (SchemaKind::Protobuf, proto)];
        let fingerprints = all.map(|(kind, text)| SchemaText::new(kind, text).fingerprint().to_string());
        assert_eq!(
            fingerprints,
            [
                "7703b520f740b3e0bd7785984231e7e0",
                "baba3cfbed113fcdbc193dd57c193825",
                "2d5871a17c705b57e89dc4e358cf1f52"
            ]
        );
    }

    #[test]
    fn json_schemas_are_compared_without_notes() {
        let plain =
            r#"{"type":"object","properties":{"a":{"type":"integer"},"description":{"enum":["x",{"default":1}]}}}"#;
        let same = r#"{"properties":{"description":{"enum":["x",{"default":1}],"description":"d"},
            "a":{"default":3,"type":"integer","examples":[1]}},"$comment":"c","type":"object"}"#;
        check(SchemaKind::Json, plain, same, true);
        check(SchemaKind::Json, plain, &plain.replace("integer", "number"), false);
        check(SchemaKind::Json, plain, &plain.replace("\"description\"", "\"title\""), false);
        check(SchemaKind::Json, plain, &plain.replace("\"default\":1", "\"default\":2"), false);
    }

    #[test]
    fn protobuf_schemas_are_compared_by_their_words() {
        let plain = "syntax = \"proto3\";\nmessage M {\n  string a = 1; // the first\n  map<string, int64> b = 2;\n}\n";
        let same = "/* all\n of it */ syntax=\"proto3\"; message M{string a=1;map<string,int64> b=2;}//";
        check(SchemaKind::Protobuf, plain, same, true);
        check(SchemaKind::Protobuf, plain, &plain.replace("a = 1", "a = 3"), false);
        let option = "option x = \"a // b\\\" c\";";
        check(SchemaKind::Protobuf, option, &option.replace(" b", ""), false);
        check(SchemaKind::Protobuf, option, &option.replace(" = ", "="), true);
        check(SchemaKind::Protobuf, "\"open /* ", "\"open", false);
    }

    #[test]
    fn imports_belong_to_the_meaning() {
        let of = |import: &str| SchemaText {
            imports: [("m.proto".to_owned(), import.to_owned())].into(),
            ..SchemaText::new(SchemaKind::Protobuf, "import \"m.proto\";")
        };
        assert_eq!(of("message A {}").fingerprint(), of("message A{ }").fingerprint());
        assert_ne!(of("message A {}").fingerprint(), of("message B {}").fingerprint());
    }
}

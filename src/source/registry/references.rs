//! Schemas that refer to types of other subjects, written out as one schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// How deeply schemas may be nested while they are written out.
const DEPTH_MAX: usize = 100;
/// How long a schema may become that is written out.
const BYTES_MAX: usize = 2 << 20;

/// `schema` with each type that it mentions and does not define written out at its first mention. `types` are the texts
/// of the referenced schemas by the name of their type.
///
/// # Errors
/// A text that is no JSON, or a schema beyond the limits of this module.
pub fn write_out(schema: &str, types: &[(String, String)]) -> Result<String, String> {
    let parse = |text: &str| -> Result<Value, String> {
        serde_json::from_str(text).map_err(|e| format!("a referenced schema is not json: {e}"))
    };
    let mut known = BTreeMap::new();
    for (name, text) in types {
        known.insert(name.clone(), parse(text)?);
    }
    let mut writer = Writer { known, defined: BTreeSet::new(), bytes: schema.len() };
    let written = writer.any(parse(schema)?, "", 0)?;
    Ok(written.to_string())
}

struct Writer {
    known: BTreeMap<String, Value>,
    defined: BTreeSet<String>,
    bytes: usize,
}

impl Writer {
    fn any(&mut self, value: Value, namespace: &str, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("written out, its types are nested more than {DEPTH_MAX} deep"));
        }
        match value {
            Value::String(name) => self.mention(name, namespace, depth),
            Value::Array(branches) => {
                let branches = branches.into_iter().map(|b| self.any(b, namespace, depth + 1));
                Ok(Value::Array(branches.collect::<Result<_, _>>()?))
            }
            Value::Object(object) => self.object(object, namespace, depth),
            other => Ok(other),
        }
    }

    fn mention(&mut self, name: String, namespace: &str, depth: usize) -> Result<Value, String> {
        let full = full_name(&name, namespace);
        // A name without a namespace may be one of the null namespace.
        let found = [full, name.clone()].into_iter().find(|n| self.known.contains_key(n) && !self.defined.contains(n));
        let Some((full, mut definition)) = found.and_then(|n| self.known.get(&n).cloned().map(|d| (n, d))) else {
            return Ok(Value::String(name));
        };
        self.bytes += definition.to_string().len();
        if self.bytes > BYTES_MAX {
            return Err(format!("written out, it has more than {BYTES_MAX} bytes"));
        }
        // Inside of another type it must not take on that type's namespace.
        if let Some(object) = definition.as_object_mut()
            && object.contains_key("name")
            && !object.contains_key("namespace")
        {
            object.insert("namespace".into(), json!(""));
        }
        self.defined.insert(full);
        self.any(definition, "", depth + 1)
    }

    fn object(&mut self, mut object: Map<String, Value>, namespace: &str, depth: usize) -> Result<Value, String> {
        let namespace = self.declare(&object, namespace);
        for part in ["items", "values"] {
            if let Some(inner) = object.get_mut(part) {
                *inner = self.any(inner.take(), &namespace, depth + 1)?;
            }
        }
        let fields = object.get_mut("fields").and_then(Value::as_array_mut);
        for field in fields.into_iter().flatten() {
            if let Some(kind) = field.get_mut("type") {
                *kind = self.any(kind.take(), &namespace, depth + 1)?;
            }
        }
        let complex = ["record", "error", "enum", "fixed", "array", "map"];
        if let Some(kind) = object.get_mut("type")
            && kind.as_str().is_none_or(|name| !complex.contains(&name))
        {
            *kind = self.any(kind.take(), &namespace, depth + 1)?;
        }
        Ok(Value::Object(object))
    }

    /// Notes a named type; the namespace of what is inside.
    fn declare(&mut self, object: &Map<String, Value>, namespace: &str) -> String {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else { return namespace.to_owned() };
        let full = full_name(name, text("namespace").unwrap_or(namespace));
        let inside = full.rsplit_once('.').map(|(namespace, _)| namespace.to_owned()).unwrap_or_default();
        self.defined.insert(full);
        inside
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &str, types: &[(&str, &str)], expected: &str) {
        let types: Vec<_> = types.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let expected: Value = serde_json::from_str(expected).unwrap();
        let written: Value = serde_json::from_str(&write_out(schema, &types).unwrap()).unwrap();
        assert_eq!(written, expected);
    }

    #[test]
    fn a_type_is_written_out_at_its_first_mention_alone() {
        check(
            r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":"o.T"},{"name":"b","type":["null","o.T"]}]}"#,
            &[("o.T", r#"{"type":"fixed","name":"T","namespace":"o","size":4}"#)],
            r#"{"type":"record","name":"R","namespace":"n","fields":[
                {"name":"a","type":{"type":"fixed","name":"T","namespace":"o","size":4}},{"name":"b","type":["null","o.T"]}]}"#,
        );
    }

    #[test]
    fn references_of_references_and_collections_are_followed() {
        check(
            r#"{"type":"array","items":"A"}"#,
            &[
                ("A", r#"{"type":"record","name":"A","fields":[{"name":"b","type":{"type":"map","values":"n.B"}}]}"#),
                ("n.B", r#"{"type":"enum","name":"n.B","symbols":["x"]}"#),
                ("unused", r#""string""#),
            ],
            r#"{"type":"array","items":{"type":"record","name":"A","namespace":"","fields":[
                {"name":"b","type":{"type":"map","values":{"type":"enum","name":"n.B","symbols":["x"],"namespace":""}}}]}}"#,
        );
    }

    #[test]
    fn a_type_of_no_namespace_keeps_none_inside_of_another() {
        let inner = r#"{"type":"record","name":"In","fields":[{"name":"x","type":"int"}]}"#;
        let outer = r#"{"type":"record","name":"Out","namespace":"n","fields":[{"name":"a","type":"In"},{"name":"b","type":"In"}]}"#;
        let written = write_out(outer, &[("In".to_owned(), inner.to_owned())]).unwrap();
        assert!(written.contains(r#""namespace":"""#), "{written}");
    }

    #[test]
    fn types_that_refer_to_each_other_end() {
        let types = [("A", "B"), ("B", "A")].map(|(name, of)| {
            let text = format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"x","type":"{of}"}}]}}"#);
            (name.to_owned(), text)
        });
        let written = write_out(r#""A""#, &types).unwrap();
        assert_eq!(written.matches("\"fields\"").count(), 2, "{written}");
    }
}

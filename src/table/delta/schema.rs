//! Firn's column types and Delta's, both ways, and what columns are called in data files.

use serde_json::{Map, Value, json};

use super::actions::MetaData;
use super::protocol::{MAPPING_MAX_ID, MAPPING_MODE};
use crate::core::schema::{Difference, Field, SchemaChange, TableSchema, Type};
use crate::error::{Error, Result};

/// Metadata of a column whose type Delta does not have: what it is to Firn. `.element`, `.key` and `.value` follow for
/// what is inside a list or a map.
const TYPE: &str = "firn.type";
/// Metadata of a renamed column: the names that it had.
const FORMER_NAMES: &str = "firn.formerNames";
const MAPPING_ID: &str = "delta.columnMapping.id";
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";

/// How columns are found in data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// By their names.
    None,
    /// By physical names.
    Name,
    /// By field ids.
    Id,
}

/// The columns of a table in three spellings of the same shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// As Firn knows them, with the key.
    pub logical: TableSchema,
    /// The same names, with the types that data files have.
    pub stored: TableSchema,
    /// Names and types as data files have them.
    pub physical: TableSchema,
    /// How they are found there.
    pub mapping: Mapping,
    /// Places of the partition columns, in partition order. Their values are in the log, not in the files.
    pub partition: Vec<usize>,
}

/// Reads the columns of a table.
///
/// # Errors
/// [`Error::Decision`] naming the column whose type Firn does not have, or a key that is none.
pub(super) fn columns(metadata: &MetaData, key: &[String]) -> Result<Columns> {
    let mapping = match metadata.configuration.get(MAPPING_MODE).map(String::as_str) {
        None | Some("none") => Mapping::None,
        Some("name") => Mapping::Name,
        Some("id") => Mapping::Id,
        Some(other) => return Err(Error::Decision(format!("its column mapping mode '{other}' is not known"))),
    };
    let root = parse(&metadata.schema_string)?;
    let mut reader = Reader { mapping, physical: false, unnumbered: false };
    let mut logical = TableSchema { fields: reader.fields(&root)?, key: key.to_vec() };
    reader.physical = true;
    let mut physical = TableSchema { fields: reader.fields(&root)?, key: Vec::new() };
    if mapping == Mapping::None {
        logical.number();
    } else if reader.unnumbered {
        number_the_rest(&mut logical.fields);
    }
    copy_ids(&logical.fields, &mut physical.fields);
    let stored = TableSchema { fields: stored(&logical.fields), key: key.to_vec() };
    physical.fields = stored_types(&physical.fields);
    let place = |name: &String| {
        let found = logical.fields.iter().position(|f| f.name == *name);
        found.ok_or_else(|| Error::Decision(format!("its partition column {name} is not among its columns")))
    };
    let partition = metadata.partition_columns.iter().map(place).collect::<Result<_>>()?;
    if let Some(missing) = key.iter().find(|name| logical.column(name).is_none()) {
        return Err(Error::Decision(format!("its property firn.key names {missing}, which is not a column")));
    }
    Ok(Columns { logical, stored, physical, mapping, partition })
}

/// The fields of a schema in JSON.
fn parse(schema: &str) -> Result<Vec<Value>> {
    let bad = |what: String| Error::Decision(format!("its schema cannot be read: {what}"));
    let root: Value = serde_json::from_str(schema).map_err(|e| bad(e.to_string()))?;
    root.get("fields").and_then(Value::as_array).cloned().ok_or_else(|| bad("it has no fields".into()))
}

struct Reader {
    mapping: Mapping,
    /// Names as in data files.
    physical: bool,
    /// Something has no id of its own: what is inside lists and maps.
    unnumbered: bool,
}

impl Reader {
    fn fields(&mut self, fields: &[Value]) -> Result<Vec<Field>> {
        fields.iter().map(|f| self.field(f)).collect()
    }

    fn field(&mut self, field: &Value) -> Result<Field> {
        let name = text(field, "name")?;
        let empty = Map::new();
        let metadata = field.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let kind = self.kind(field.get("type").unwrap_or(&Value::Null), metadata, TYPE.to_owned());
        let kind = kind.map_err(|e| e.within(format!("column {name}")))?;
        let nullable = field.get("nullable").and_then(Value::as_bool).unwrap_or(true);
        let mut read = Field::new(name, kind, !nullable);
        read.doc = metadata.get("comment").and_then(Value::as_str).map(str::to_owned);
        let former = metadata.get(FORMER_NAMES).and_then(Value::as_array);
        read.aliases = former.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if self.mapping != Mapping::None {
            let id = metadata.get(MAPPING_ID).and_then(Value::as_i64).and_then(|id| i32::try_from(id).ok());
            read.id = id.ok_or_else(|| Error::Decision(format!("column {name} has no id, but columns are mapped")))?;
            if self.physical {
                let physical = metadata.get(PHYSICAL_NAME).and_then(Value::as_str);
                read.name = physical.unwrap_or(name).to_owned();
            }
        }
        Ok(read)
    }

    /// The type in `value`; `at` is where `metadata` says what it is to Firn.
    fn kind(&mut self, value: &Value, metadata: &Map<String, Value>, at: String) -> Result<Type> {
        let firn = metadata.get(&at).and_then(Value::as_str);
        if let Some(name) = value.as_str() {
            return primitive(name, firn);
        }
        match value.get("type").and_then(Value::as_str) {
            Some("struct") => {
                let fields = value.get("fields").and_then(Value::as_array).cloned().unwrap_or_default();
                Ok(Type::Struct(self.fields(&fields)?))
            }
            Some("array") => {
                self.unnumbered = true;
                let element = self.kind(&value["elementType"], metadata, format!("{at}.element"))?;
                let required = !value.get("containsNull").and_then(Value::as_bool).unwrap_or(true);
                Ok(Type::List(Box::new(Field::new("element", element, required))))
            }
            Some("map") => {
                self.unnumbered = true;
                let key = self.kind(&value["keyType"], metadata, format!("{at}.key"))?;
                let required = !value.get("valueContainsNull").and_then(Value::as_bool).unwrap_or(true);
                let of = self.kind(&value["valueType"], metadata, format!("{at}.value"))?;
                Ok(Type::Map(Box::new(Field::new("key", key, true)), Box::new(Field::new("value", of, required))))
            }
            _ => Err(Error::Decision(format!("its type {value} is not supported"))),
        }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    let found = value.get(key).and_then(Value::as_str);
    found.ok_or_else(|| Error::Decision(format!("its schema cannot be read: a field has no {key}")))
}

/// A primitive type, or what `firn` says that it stands for.
fn primitive(name: &str, firn: Option<&str>) -> Result<Type> {
    Ok(match (name, firn) {
        ("string", Some("uuid")) => Type::Uuid,
        ("long", Some("time")) => Type::Time,
        ("binary", Some(fixed)) if fixed.starts_with("fixed[") => {
            let bytes = fixed.trim_start_matches("fixed[").trim_end_matches(']').parse();
            Type::Fixed(bytes.map_err(|_| Error::Decision(format!("'{fixed}' is not a type")))?)
        }
        ("boolean", _) => Type::Boolean,
        ("byte" | "short" | "integer", _) => Type::Int,
        ("long", _) => Type::Long,
        ("float", _) => Type::Float,
        ("double", _) => Type::Double,
        ("date", _) => Type::Date,
        ("timestamp", _) => Type::Timestamp { utc: true },
        ("timestamp_ntz", _) => Type::Timestamp { utc: false },
        ("string", _) => Type::String,
        ("binary", _) => Type::Binary,
        (decimal, _) if decimal.starts_with("decimal(") => {
            let inner = decimal.trim_start_matches("decimal(").trim_end_matches(')');
            let parts = inner.split_once(',').and_then(|(p, s)| Some((p.trim().parse().ok()?, s.trim().parse().ok()?)));
            let (precision, scale) = parts.ok_or_else(|| Error::Decision(format!("'{decimal}' is not a type")))?;
            Type::Decimal { precision, scale }
        }
        ("decimal", _) => Type::Decimal { precision: 10, scale: 0 },
        (other, _) => return Err(Error::Decision(format!("its type {other} is not supported"))),
    })
}

/// Refuses columns that Firn would read well and write wrongly.
pub(super) fn check_writable(metadata: &MetaData) -> Result<()> {
    for field in parse(&metadata.schema_string)? {
        let name = text(&field, "name")?;
        if ["\"byte\"", "\"short\""].iter().any(|narrow| field["type"].to_string().contains(narrow)) {
            return Err(Error::Decision(format!(
                "column {name} has the type byte or short, into which numbers of Avro may not fit; make it an integer"
            )));
        }
    }
    Ok(())
}

fn children(kind: &mut Type) -> Vec<&mut Field> {
    match kind {
        Type::Struct(fields) => fields.iter_mut().collect(),
        Type::List(element) => vec![element],
        Type::Map(key, value) => vec![key, value],
        _ => Vec::new(),
    }
}

/// Gives ids to what column mapping leaves without: elements, keys and values.
fn number_the_rest(fields: &mut [Field]) {
    fn max(fields: &mut [&mut Field]) -> i32 {
        fields.iter_mut().map(|f| f.id.max(max(&mut children(&mut f.kind)))).max().unwrap_or(0)
    }
    fn fill(fields: Vec<&mut Field>, next: &mut i32) {
        for field in fields {
            if field.id == 0 {
                *next += 1;
                field.id = *next;
            }
            fill(children(&mut field.kind), next);
        }
    }
    let mut next = max(&mut fields.iter_mut().collect::<Vec<_>>());
    fill(fields.iter_mut().collect(), &mut next);
}

fn copy_ids(from: &[Field], to: &mut [Field]) {
    for (from, to) in from.iter().zip(to) {
        to.id = from.id;
        let mut from = from.kind.clone();
        let source: Vec<Field> = children(&mut from).into_iter().map(|f| f.clone()).collect();
        for (from, to) in source.iter().zip(children(&mut to.kind)) {
            copy_ids(std::slice::from_ref(from), std::slice::from_mut(to));
        }
    }
}

fn stored(fields: &[Field]) -> Vec<Field> {
    stored_types(fields)
}

/// The fields with the types that data files have: Delta has no uuid, time and fixed types.
fn stored_types(fields: &[Field]) -> Vec<Field> {
    fields.iter().map(|f| Field { kind: stored_type(&f.kind), ..f.clone() }).collect()
}

fn stored_type(kind: &Type) -> Type {
    let child = |f: &Field| Box::new(Field { kind: stored_type(&f.kind), ..f.clone() });
    match kind {
        Type::Uuid => Type::String,
        Type::Time => Type::Long,
        Type::Fixed(_) => Type::Binary,
        Type::Struct(fields) => Type::Struct(stored_types(fields)),
        Type::List(element) => Type::List(child(element)),
        Type::Map(key, value) => Type::Map(child(key), child(value)),
        other => other.clone(),
    }
}

/// The columns in Delta's JSON.
///
/// # Errors
/// [`Error::Decision`] naming a column whose type Delta cannot hold.
pub(super) fn render(schema: &TableSchema) -> Result<String> {
    let mut growth = Growth { next_id: None, prefix: "", maps_names: false, widened: false };
    let fields = growth.fields(&schema.fields, &[], true)?;
    Ok(json!({"type": "struct", "fields": fields}).to_string())
}

/// What a table's columns become.
#[derive(Debug)]
pub(super) struct Grown {
    pub schema_string: String,
    /// The new highest id, where columns are mapped.
    pub max_column_id: Option<i64>,
    /// Columns are mapped by name from now on.
    pub maps_names: bool,
    /// A type became wider, which is a table feature.
    pub widened: bool,
}

/// The columns of `metadata` after `change`, which keeps all of them; what others noted on columns stays. To rename columns,
/// they have to be mapped: files keep the old names.
pub(super) fn regrow(metadata: &MetaData, change: &SchemaChange) -> Result<Grown> {
    let grown = &change.to;
    let renames = change.changes.iter().any(|change| matches!(change, Difference::Rename { .. }));
    let mapped = metadata.configuration.get(MAPPING_MODE).is_some_and(|mode| mode != "none");
    let highest = || i64::from(grown.highest_id());
    let max = metadata.configuration.get(MAPPING_MAX_ID).filter(|_| mapped).and_then(|id| id.parse().ok());
    let maps_names = renames && !mapped;
    let next_id = (mapped || renames).then(|| max.unwrap_or_else(highest));
    let mut growth = Growth { next_id, prefix: &change.id, maps_names, widened: false };
    let fields = growth.fields(&grown.fields, &parse(&metadata.schema_string)?, true)?;
    let schema_string = json!({"type": "struct", "fields": fields}).to_string();
    Ok(Grown { schema_string, max_column_id: growth.next_id, maps_names, widened: growth.widened })
}

struct Growth<'a> {
    next_id: Option<i64>,
    /// In the name that a new column has in files, which no other column ever had.
    prefix: &'a str,
    /// Columns that are there are given an id and the name that they have in files.
    maps_names: bool,
    widened: bool,
}

impl Growth<'_> {
    fn fields(&mut self, fields: &[Field], known: &[Value], top: bool) -> Result<Vec<Value>> {
        let named = |name: &String| known.iter().find(|k| k["name"] == *name);
        let taken = |k: &&Value| fields.iter().any(|f| k["name"] == *f.name);
        let find = |f: &Field| named(&f.name).or_else(|| f.aliases.iter().filter_map(named).find(|k| !taken(k)));
        fields.iter().map(|f| self.field(f, find(f), top)).collect()
    }

    fn field(&mut self, field: &Field, known: Option<&Value>, top: bool) -> Result<Value> {
        let mut metadata = known.and_then(|k| k["metadata"].as_object()).cloned().unwrap_or_default();
        match known {
            None => self.describe(field, &mut metadata),
            Some(known) if self.maps_names => {
                metadata.insert(MAPPING_ID.into(), json!(field.id));
                metadata.insert(PHYSICAL_NAME.into(), known["name"].clone());
            }
            Some(_) => {}
        }
        if known.is_some_and(|k| k["name"] != *field.name) {
            metadata.insert(FORMER_NAMES.into(), json!(field.aliases));
        }
        let before = known.map(|k| &k["type"]);
        let kind = self.kind(&field.kind, before, &mut metadata, TYPE);
        let kind = kind.map_err(|e| e.within(format!("column {}", field.name)))?;
        // A required field of a struct that may itself be absent is refused by some writers of Delta.
        let required = field.required && top;
        let nullable = known.map_or(!required, |k| k["nullable"].as_bool().unwrap_or(true) || !field.required);
        Ok(json!({"name": field.name, "type": kind, "nullable": nullable, "metadata": metadata}))
    }

    /// What is noted on a new column.
    fn describe(&mut self, field: &Field, metadata: &mut Map<String, Value>) {
        if let Some(doc) = &field.doc {
            metadata.insert("comment".into(), json!(doc));
        }
        if let Some(next) = &mut self.next_id {
            *next += 1;
            metadata.insert(MAPPING_ID.into(), json!(*next));
            metadata.insert(PHYSICAL_NAME.into(), json!(format!("col-{}-{next}", self.prefix)));
        }
    }

    fn kind(
        &mut self,
        kind: &Type,
        known: Option<&Value>,
        metadata: &mut Map<String, Value>,
        at: &str,
    ) -> Result<Value> {
        let name = match kind {
            Type::Struct(fields) => {
                let known = known.and_then(|k| k["fields"].as_array()).cloned().unwrap_or_default();
                return Ok(json!({"type": "struct", "fields": self.fields(fields, &known, false)?}));
            }
            Type::List(element) => {
                let inner = known.map(|k| &k["elementType"]);
                let of = self.kind(&element.kind, inner, metadata, &format!("{at}.element"))?;
                return Ok(json!({"type": "array", "elementType": of, "containsNull": true}));
            }
            Type::Map(key, value) => {
                let of = self.kind(&key.kind, known.map(|k| &k["keyType"]), metadata, &format!("{at}.key"))?;
                let inner = known.map(|k| &k["valueType"]);
                let to = self.kind(&value.kind, inner, metadata, &format!("{at}.value"))?;
                return Ok(json!({"type": "map", "keyType": of, "valueType": to, "valueContainsNull": true}));
            }
            other => name(other)?,
        };
        if let Some(firn) = firn_type(kind) {
            metadata.insert(at.to_owned(), json!(firn));
        }
        if let Some(before) = known.and_then(Value::as_str).filter(|before| *before != name) {
            // A byte or a short is an integer to Firn, and stays what it is.
            if matches!((before, name.as_str()), ("byte" | "short", "integer")) {
                return Ok(json!(before));
            }
            self.widened = true;
            let mut change = json!({"fromType": before, "toType": name});
            if let Some(path) = at.strip_prefix(TYPE).and_then(|p| p.strip_prefix('.')) {
                change["fieldPath"] = json!(path);
            }
            let changes = metadata.entry("delta.typeChanges").or_insert_with(|| json!([]));
            if let Some(changes) = changes.as_array_mut() {
                changes.push(change);
            }
        }
        Ok(json!(name))
    }
}

fn name(kind: &Type) -> Result<String> {
    Ok(match kind {
        Type::Boolean => "boolean",
        Type::Int => "integer",
        Type::Long | Type::Time => "long",
        Type::Float => "float",
        Type::Double => "double",
        Type::Date => "date",
        Type::Timestamp { utc: true } => "timestamp",
        Type::Timestamp { utc: false } => "timestamp_ntz",
        Type::String | Type::Uuid => "string",
        Type::Binary | Type::Fixed(_) => "binary",
        Type::Decimal { precision, scale } => return Ok(format!("decimal({precision},{scale})")),
        Type::TimestampNanos { .. } => {
            return Err(Error::Decision("Delta has no timestamps in nanoseconds; use microseconds".into()));
        }
        Type::Struct(_) | Type::List(_) | Type::Map(..) => return Err(Error::Internal("not a primitive type".into())),
    }
    .to_owned())
}

fn firn_type(kind: &Type) -> Option<String> {
    match kind {
        Type::Uuid => Some("uuid".into()),
        Type::Time => Some("time".into()),
        Type::Fixed(bytes) => Some(format!("fixed[{bytes}]")),
        _ => None,
    }
}

/// Whether a type in it needs the feature `timestampNtz`.
pub(super) fn has_local_timestamps(fields: &[Field]) -> bool {
    fields.iter().any(|f| match &f.kind {
        Type::Timestamp { utc: false } => true,
        Type::Struct(fields) => has_local_timestamps(fields),
        Type::List(element) => has_local_timestamps(std::slice::from_ref(element)),
        Type::Map(_, value) => has_local_timestamps(std::slice::from_ref(value)),
        _ => false,
    })
}

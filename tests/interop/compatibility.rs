//! Pairs of schemas, and who says of which that one reads the other's data: the real registry, the embedded one, and the
//! decoder.

use std::sync::Arc;

use firn::avro::{Decoder, DeleteBy, EventShape, Mode, Nanoseconds, RecursiveTypes, Types, ValueSchema, table_schema};
use firn::core::schema::TableFormat;
use firn::embedded::Registry as Embedded;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::stack::{Stack, block_on, unique};
use crate::wanted;

/// Pairs that are made from the seed.
const PAIRS: usize = 200;
const SEED: u64 = 7;
const LEVELS: [&str; 3] = ["BACKWARD", "FORWARD", "FULL"];
/// Questions under way at once.
const TOGETHER: usize = 32;

// ---- the classics -----------------------------------------------------------------------------------------------------

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","namespace":"x","fields":[{fields}]}}"#)
}

/// Types of a field that are changed into each other.
const TYPES: [&str; 24] = [
    r#""int""#,
    r#""string""#,
    r#"["null","int"]"#,
    r#"["int","null"]"#,
    r#"["null","long"]"#,
    r#"["null","string"]"#,
    r#"["int"]"#,
    r#"["int","string"]"#,
    r#"["null","int","string"]"#,
    r#"["long","bytes"]"#,
    r#"["float","double"]"#,
    r#"{"type":"array","items":"int"}"#,
    r#"{"type":"array","items":["null","int"]}"#,
    r#"{"type":"array","items":"string"}"#,
    r#"{"type":"map","values":"int"}"#,
    r#"{"type":"map","values":"long"}"#,
    r#"{"type":"int","logicalType":"date"}"#,
    r#"{"type":"long","logicalType":"timestamp-millis"}"#,
    r#"{"type":"long","logicalType":"timestamp-micros"}"#,
    r#"{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}"#,
    r#"{"type":"record","name":"S","fields":[{"name":"a","type":"long"},{"name":"b","type":"int","default":0}]}"#,
    r#"{"type":"record","name":"T","fields":[{"name":"a","type":"int"}]}"#,
    r#"["null",{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}]"#,
    r#"["null",{"type":"record","name":"T","fields":[{"name":"a","type":"int"}]}]"#,
];

/// What the tests of Avro and of Confluent's registry are about: old schema, new schema.
fn classics() -> Vec<(String, String)> {
    let field = |kind: &str| record(&format!(r#"{{"name":"f","type":{kind}}}"#));
    let with = |kind: &str, default: &str| record(&format!(r#"{{"name":"f","type":{kind},"default":{default}}}"#));
    let primitives = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let quoted = |kind: &str| format!("\"{kind}\"");
    let mut pairs = Vec::new();
    let primitives = primitives.map(|kind| field(&quoted(kind)));
    let one = |name: &str| format!(r#"{{"name":"{name}","type":"string"}}"#);
    let defaulted = |name: &str| format!(r#"{{"name":"{name}","type":"string","default":"x"}}"#);
    let aliased = |name: &str, alias: &str| format!(r#"{{"name":"{name}","type":"string","aliases":["{alias}"]}}"#);
    let fields = [
        record(&one("f1")),
        record(&format!("{},{}", one("f1"), one("f2"))),
        record(&format!("{},{}", one("f1"), defaulted("f2"))),
        record(&format!("{},{}", defaulted("f2"), one("f1"))),
        record(&format!("{},{},{}", one("f1"), defaulted("f2"), defaulted("f3"))),
        record(&format!("{},{},{}", one("f1"), one("f2"), defaulted("f3"))),
        record(&aliased("g1", "f1")),
        record(&one("g1")),
        record(""),
        record(&one("f1")).replace("\"R\"", "\"Q\""),
        record(&one("f1")).replace("\"x\"", "\"y\""),
        record(&one("f1")).replace("\"name\":\"R\"", "\"name\":\"Q\",\"aliases\":[\"R\"]"),
    ];
    let enums = [r#"["A"]"#, r#"["A","B"]"#, r#"["B","A"]"#, r#"["A","B","C"]"#];
    let of = |symbols: &str, more: &str| field(&format!(r#"{{"type":"enum","name":"E","symbols":{symbols}{more}}}"#));
    let enums: Vec<_> = enums.iter().flat_map(|e| [of(e, ""), of(e, r#","default":"A""#)]).collect();
    let fixed = |name: &str, size: u32, more: &str| {
        field(&format!(r#"{{"type":"fixed","name":"{name}","size":{size}{more}}}"#))
    };
    let decimal = |precision: u32, scale: u32| {
        field(&format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#))
    };
    let others = [
        fixed("F", 4, ""),
        fixed("F", 8, ""),
        fixed("G", 4, ""),
        fixed("G", 4, r#","aliases":["F"]"#),
        fixed("n.F", 4, ""),
        decimal(9, 2),
        decimal(12, 2),
        decimal(9, 3),
        field("\"bytes\""),
        field("\"string\""),
    ];
    let unions = TYPES.map(&field);
    let list = |kind: &str| record(&format!(r#"{{"name":"v","type":"{kind}"}},{{"name":"next","type":["null","R"]}}"#));
    let lists = [list("int"), list("long"), list("string")];
    for group in [&primitives[..], &fields, &enums, &others, &unions, &lists] {
        // Both directions are asked of each pair.
        for (at, old) in group.iter().enumerate() {
            pairs.extend(group[at..].iter().map(|new| (old.clone(), new.clone())));
        }
    }
    pairs.push((with("[\"null\",\"int\"]", "null"), with("[\"int\",\"null\"]", "0")));
    pairs.push((with("\"int\"", "1"), field("\"int\"")));
    pairs
}

// ---- made from the seed -----------------------------------------------------------------------------------------------

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

struct Schemas {
    random: Random,
    /// Names that were given out in the schema.
    names: usize,
}

impl Schemas {
    fn pair(&mut self) -> (String, String) {
        self.names = 0;
        let old = self.record(2);
        let mut new = self.evolved(&old);
        if new == old {
            new = self.evolved(&old);
        }
        (old.to_string(), new.to_string())
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("N{}", self.names)
    }

    fn primitive(&mut self) -> Value {
        const ALL: [&str; 8] = ["boolean", "int", "long", "float", "double", "bytes", "string", "long"];
        match self.random.below(10) {
            8 => json!({"type": "int", "logicalType": "date"}),
            9 => json!({"type": "long", "logicalType": "timestamp-micros"}),
            n => json!(ALL[n]),
        }
    }

    fn kind(&mut self, depth: usize) -> Value {
        match self.random.below(if depth == 0 { 8 } else { 14 }) {
            0..6 => self.primitive(),
            6 => {
                let symbols = &["A", "B", "C", "D"][..1 + self.random.below(4)];
                json!({"type": "enum", "name": self.name(), "symbols": symbols})
            }
            7 => json!({"type": "fixed", "name": self.name(), "size": 1 + self.random.below(8)}),
            8 => json!({"type": "array", "items": self.kind(depth - 1)}),
            9 => json!({"type": "map", "values": self.kind(depth - 1)}),
            10 => self.record(depth - 1),
            11 => json!(["int", "string", self.record(depth - 1)]),
            _ => match self.kind(depth - 1) {
                union @ Value::Array(_) => union,
                other => json!(["null", other]),
            },
        }
    }

    fn record(&mut self, depth: usize) -> Value {
        let name = self.name();
        let fields: Vec<_> = (0..1 + self.random.below(4)).map(|n| self.field(n, depth)).collect();
        json!({"type": "record", "name": name, "fields": fields})
    }

    fn field(&mut self, number: usize, depth: usize) -> Value {
        let kind = self.kind(depth);
        let mut field = json!({"name": format!("f{number}"), "type": kind});
        if self.random.chance(3)
            && let Some(default) = default_of(&kind)
        {
            field["default"] = default;
        }
        field
    }

    /// A type that its owner changed a little, or not.
    fn evolved(&mut self, kind: &Value) -> Value {
        if kind["type"] != "record" && self.random.chance(5) {
            return self.changed(kind);
        }
        let mut next = kind.clone();
        match kind["type"].as_str() {
            Some("record") => {
                let fields = next["fields"].as_array_mut().unwrap();
                for field in fields.iter_mut() {
                    let kind = self.evolved(&field["type"]);
                    if kind != field["type"] {
                        field["type"] = kind;
                        field.as_object_mut().unwrap().remove("default");
                    }
                }
                self.change_fields(fields);
            }
            Some("array") => next["items"] = self.evolved(&kind["items"]),
            Some("map") => next["values"] = self.evolved(&kind["values"]),
            _ => {
                for branch in next.as_array_mut().into_iter().flatten() {
                    if branch["type"] == "record" {
                        *branch = self.evolved(branch);
                    }
                }
            }
        }
        next
    }

    fn change_fields(&mut self, fields: &mut Vec<Value>) {
        let at = self.random.below(fields.len());
        match self.random.below(12) {
            0 => fields.push(json!({"name": "added", "type": ["null", "int"], "default": null})),
            1 => fields.push(json!({"name": "added", "type": self.primitive()})),
            2 if fields.len() > 1 => drop(fields.remove(at)),
            3 => {
                fields[at]["aliases"] = json!([fields[at]["name"].clone()]);
                fields[at]["name"] = json!("renamed");
            }
            4 => fields[at]["name"] = json!("renamed"),
            5 => fields.reverse(),
            6 => drop(fields[at].as_object_mut().unwrap().remove("default")),
            7 => {
                if let Some(default) = default_of(&fields[at]["type"]) {
                    fields[at]["default"] = default;
                }
            }
            _ => {}
        }
    }

    fn changed(&mut self, kind: &Value) -> Value {
        let mut next = kind.clone();
        match kind["type"].as_str() {
            Some("enum") => {
                let symbols = &["A", "B", "C", "D"][self.random.below(2)..2 + self.random.below(3)];
                next["symbols"] = json!(symbols);
                if self.random.chance(3) {
                    next["default"] = json!(symbols[0]);
                }
            }
            Some("fixed") if self.random.chance(2) => next["size"] = json!(1 + self.random.below(8)),
            Some("fixed") => next["name"] = json!("Renamed"),
            Some("array") => next = json!({"type": "map", "values": kind["items"]}),
            _ => match next.as_array_mut() {
                Some(branches) if self.random.chance(2) => drop(branches.remove(0)),
                Some(branches) if !branches.contains(&json!("double")) => branches.push(json!("double")),
                Some(branches) => branches.reverse(),
                None if self.random.chance(3) => next = json!(["null", kind]),
                None => next = self.primitive(),
            },
        }
        next
    }
}

/// A default that every implementation takes.
fn default_of(kind: &Value) -> Option<Value> {
    match kind.as_str().or(kind["type"].as_str()) {
        Some("boolean") => Some(json!(true)),
        Some("int" | "long") => Some(json!(0)),
        Some("float" | "double") => Some(json!(0.5)),
        Some("string") => Some(json!("x")),
        Some("array") => Some(json!([])),
        Some("map") => Some(json!({})),
        _ if kind[0] == "null" => Some(Value::Null),
        _ => None,
    }
}

// ---- the answers ------------------------------------------------------------------------------------------------------

type Answers = [Result<bool, String>; 3];

/// What a registry says of new after old, at each level.
async fn ask(http: &reqwest::Client, url: &str, subject: &str, (old, new): &(String, String)) -> Answers {
    let send = |request: reqwest::RequestBuilder| async {
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let (status, body) = (answer.status(), answer.text().await.map_err(|e| e.to_string())?);
        if status.is_success() { Ok(body) } else { Err(format!("{status} {body}")) }
    };
    let refused = |why: String| std::array::from_fn(|_| Err(why.clone()));
    let versions = format!("{url}/subjects/{subject}/versions");
    if let Err(why) = send(http.post(versions).json(&json!({"schema": old}))).await {
        return refused(why);
    }
    let mut said = refused("not asked".into());
    for (answer, level) in said.iter_mut().zip(LEVELS) {
        let set = http.put(format!("{url}/config/{subject}")).json(&json!({"compatibility": level}));
        let question = http.post(format!("{url}/compatibility/subjects/{subject}/versions/latest"));
        *answer = match send(set).await {
            Ok(_) => send(question.json(&json!({"schema": new}))).await,
            Err(why) => Err(why),
        }
        .map(|body| serde_json::from_str::<Value>(&body).unwrap()["is_compatible"].as_bool().unwrap());
    }
    said
}

async fn ask_all(url: &str, pairs: &[(String, String)]) -> Vec<Answers> {
    let (http, prefix) = (reqwest::Client::new(), unique("compatibility"));
    let asked = pairs.iter().cloned().enumerate().map(|(number, pair)| {
        let (http, url, subject) = (http.clone(), url.to_owned(), format!("{prefix}-{number}"));
        async move { ask(&http, &url, &subject, &pair).await }
    });
    futures::stream::iter(asked).buffered(TOGETHER).collect().await
}

/// Whether records of one schema can be rows of the table that another one makes, in columns that grow as a pipeline lets
/// them; none where one of the two makes no table.
fn decodes(reader: &str, writer: &str) -> Option<Result<(), String>> {
    let shape = EventShape {
        mode: Mode::Append,
        key: None,
        record_key: None,
        order_by: None,
        delete: DeleteBy::Tombstone,
        lineage: None,
        types: Types::Any,
        recursive_types: RecursiveTypes::Json,
        nanoseconds: Nanoseconds::Keep,
    };
    let table = |schema: &str| table_schema(schema, None, &shape, 3).ok();
    let (table, wanted) = (table(reader)?, Arc::new(table(writer)?));
    let mut decoder = Decoder::new(&table, &shape, Box::new(|_| Ok(Vec::new()))).ok()?;
    let schema = Arc::new(ValueSchema::avro(writer).ok()?);
    Some(decoder.grow(1, &schema, &wanted, &[TableFormat::IcebergV3]).map_err(|e| e.to_string()))
}

/// Where a registry lets a schema follow and a table does not: `docs/types.md` says why.
fn differs_on_purpose(reader: &str, writer: &str) -> bool {
    let logical = [reader, writer].iter().any(|schema| schema.contains("logicalType"));
    logical || writer.contains("aliases")
}

#[test]
fn registries_and_the_decoder_agree_on_which_schemas_follow_each_other() {
    if !wanted() {
        return;
    }
    let mut schemas = Schemas { random: Random(SEED), names: 0 };
    let mut pairs = classics();
    pairs.extend((0..PAIRS).map(|_| schemas.pair()));
    let (theirs, ours) = block_on(async {
        let embedded = Embedded::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (real, embedded) = (&Stack::get().registry.url, embedded.url());
        tokio::join!(ask_all(real, &pairs), ask_all(&embedded, &pairs))
    });
    let mut different = Vec::new();
    for ((pair, theirs), ours) in pairs.iter().zip(&theirs).zip(&ours) {
        let said = |answer: &Answers| answer.clone().map(Result::ok);
        if said(theirs) != said(ours) {
            different.push(format!("old {}\n  new {}\n  theirs {theirs:?}\n  ours {ours:?}", pair.0, pair.1));
        }
    }
    assert!(different.is_empty(), "{} differences between registries\n{}", different.len(), different.join("\n"));

    let (mut read, mut refused, mut more) = (0, 0, 0);
    for ((old, new), [backward, forward, _]) in pairs.iter().zip(&theirs) {
        for (reader, writer, said) in [(new, old, backward), (old, new, forward)] {
            let (Ok(may_follow), Some(decodes)) = (said, decodes(reader, writer)) else { continue };
            match decodes {
                Ok(()) if *may_follow => read += 1,
                // Tables hold more than the rules of Avro let pass.
                Ok(()) => more += 1,
                Err(_) if !may_follow => refused += 1,
                Err(_) if differs_on_purpose(reader, writer) => {}
                Err(why) => different.push(format!("reader {reader}\n  writer {writer}\n  {why}")),
            }
        }
    }
    assert!(different.is_empty(), "records that the registry lets follow are refused\n{}", different.join("\n"));
    assert!(
        read > 300 && refused > 300 && more > 50,
        "the pairs say little: {read} read, {refused} refused, {more} more"
    );
}

//! The schema registry, and Avro in Confluent's wire format.

use apache_avro::Schema;
use apache_avro::types::Value;
use serde_json::json;

use crate::stack::block_on;

/// A registry with Confluent's REST API.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The API's root, as `schema_registry.url` in `firn.yaml`.
    pub url: String,
}

/// A schema of another subject, by the name under which it is referred to.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Reference {
    /// The name in the schema that refers to it.
    pub name: String,
    /// Where it is registered.
    pub subject: String,
    /// As which version.
    pub version: i32,
}

/// Encodes values of one registered schema: magic byte, schema id, Avro body.
pub struct Encoder {
    /// The registry's id of the schema.
    pub id: u32,
    /// The schema.
    pub schema: Schema,
}

impl Registry {
    /// Registers an Avro schema under a subject and returns its id.
    pub fn register(&self, subject: &str, schema: &str) -> u32 {
        self.try_register(subject, schema)
            .unwrap_or_else(|(status, body)| panic!("register {subject}: {status} {body}"))
    }

    /// As [`Registry::register`]; the error is the status and the body, for schemas that must be refused.
    pub fn try_register(&self, subject: &str, schema: &str) -> Result<u32, (u16, String)> {
        let request = reqwest::Client::new()
            .post(format!("{}/subjects/{subject}/versions", self.url))
            .json(&json!({"schema": schema}));
        let answer: serde_json::Value = send(request)?;
        Ok(answer["id"].as_u64().and_then(|id| id.try_into().ok()).expect("the registry answers with an id"))
    }

    /// Registers a schema of another type than Avro (`JSON`, `PROTOBUF`), with what it refers to.
    pub fn register_as(&self, kind: &str, subject: &str, schema: &str, references: &[Reference]) -> u32 {
        let request = reqwest::Client::new()
            .post(format!("{}/subjects/{subject}/versions", self.url))
            .json(&json!({"schema": schema, "schemaType": kind, "references": references}));
        let answer = send(request).unwrap_or_else(|(status, body)| panic!("register {subject}: {status} {body}"));
        answer["id"].as_u64().and_then(|id| id.try_into().ok()).expect("the registry answers with an id")
    }

    /// Registers a schema and returns an encoder for it.
    pub fn encoder(&self, subject: &str, schema: &str) -> Encoder {
        let id = self.register(subject, schema);
        Encoder { id, schema: Schema::parse_str(schema).expect("an Avro schema") }
    }

    /// The text of a schema by its id.
    pub fn schema(&self, id: u32) -> String {
        let answer = send(reqwest::Client::new().get(format!("{}/schemas/ids/{id}", self.url)))
            .unwrap_or_else(|(status, body)| panic!("schema {id}: {status} {body}"));
        answer["schema"].as_str().expect("the registry answers with a schema").to_owned()
    }

    /// Sets a subject's compatibility level (`BACKWARD`, `NONE`, …).
    pub fn set_compatibility(&self, subject: &str, level: &str) {
        let request =
            reqwest::Client::new().put(format!("{}/config/{subject}", self.url)).json(&json!({"compatibility": level}));
        send(request).unwrap_or_else(|(status, body)| panic!("compatibility of {subject}: {status} {body}"));
    }

    /// Deletes a subject with all its versions.
    pub fn delete_subject(&self, subject: &str) {
        send(reqwest::Client::new().delete(format!("{}/subjects/{subject}", self.url)))
            .unwrap_or_else(|(status, body)| panic!("delete {subject}: {status} {body}"));
    }
}

fn send(request: reqwest::RequestBuilder) -> Result<serde_json::Value, (u16, String)> {
    block_on(async {
        let response = request.send().await.expect("the registry answers");
        let status = response.status();
        let body = response.text().await.expect("the registry's answer is text");
        if !status.is_success() {
            return Err((status.as_u16(), body));
        }
        Ok(serde_json::from_str(&body).expect("the registry's answer is JSON"))
    })
}

impl Encoder {
    /// A message: header and body.
    pub fn encode(&self, value: impl Into<Value>) -> Vec<u8> {
        let body = apache_avro::to_avro_datum(&self.schema, value).expect("the value fits the schema");
        framed(self.id, &body)
    }

    /// A message from JSON. Unions take the first branch that fits; decimals, bytes and timestamps want [`Encoder::encode`].
    pub fn encode_json(&self, value: serde_json::Value) -> Vec<u8> {
        self.encode(Value::from(value).resolve(&self.schema).expect("the value fits the schema"))
    }
}

/// Any body behind a header, for messages that are to be wrong.
pub fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// The body of a message and the schema id in its header.
pub fn unframed(message: &[u8]) -> (u32, &[u8]) {
    let (header, body) = message.split_at(5);
    assert_eq!(header[0], 0, "the magic byte");
    (u32::from_be_bytes([header[1], header[2], header[3], header[4]]), body)
}

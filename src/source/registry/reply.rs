//! What the registry's answers mean, from their status and bytes alone.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{RegistryError, Schema, references, shortened};
use crate::avro::{SchemaKind, SchemaText};

/// How many schemas of other subjects a schema may refer to, directly or not.
const REFERENCES_MAX: usize = 100;
/// How many bytes those may have in all.
const REFERENCED_BYTES_MAX: usize = 2 << 20;

/// What the registry answers about a schema; attributes we do not know are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaBody {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
    pub(super) id: Option<i32>,
    pub(super) subject: Option<String>,
    pub(super) version: Option<i32>,
}

/// A type of another subject that a schema refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(super) struct Reference {
    name: String,
    pub(super) subject: String,
    pub(super) version: i32,
}

#[derive(Deserialize)]
struct ErrorBody {
    error_code: i64,
    #[serde(default)]
    message: String,
}

/// Why an answer has not what was asked for.
#[derive(Debug)]
pub(super) enum No {
    /// The registry itself says that there is no such thing.
    NotFound,
    /// The registry says what is wrong with what it was sent.
    Refused(String),
    /// Anything else: nothing that could be trusted.
    Untrusted(String),
}

/// What an answer says.
pub(super) fn meaning<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T, No> {
    if (200..300).contains(&status) {
        return serde_json::from_slice(body).map_err(|e| No::Untrusted(format!("an unreadable answer ({e})")));
    }
    let name = reqwest::StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |s| s.to_string());
    // 404 alone comes from any web server at a wrong path; the registry's own codes have five digits.
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(error) if status == 404 && (40_400..40_500).contains(&error.error_code) => Err(No::NotFound),
        Ok(error) if status == 422 => Err(No::Refused(shortened(&error.message))),
        Ok(error) => Err(No::Untrusted(format!("{name}: {}", shortened(&error.message)))),
        Err(_) => Err(No::Untrusted(name)),
    }
}

/// A schema and those that it refers to, as far as they have come.
pub(super) struct Gathering {
    kind: SchemaKind,
    text: String,
    /// Texts by the name of the type that they define.
    types: Vec<(String, String)>,
    waiting: VecDeque<Reference>,
    asked: HashSet<Reference>,
    bytes: usize,
}

impl Gathering {
    /// Begins with the schema itself. The error says why Firn does not read it.
    pub(super) fn new(body: SchemaBody) -> Result<Gathering, String> {
        let kind = match body.schema_type.as_deref() {
            None => SchemaKind::Avro,
            Some(name) => {
                SchemaKind::named(name).ok_or_else(|| format!("is of type {}, which is not read", shortened(name)))?
            }
        };
        let mut gathering = Gathering {
            kind,
            text: body.schema,
            types: Vec::new(),
            waiting: VecDeque::new(),
            asked: HashSet::new(),
            bytes: 0,
        };
        gathering.wait_for(body.references)?;
        Ok(gathering)
    }

    fn wait_for(&mut self, references: Vec<Reference>) -> Result<(), String> {
        for reference in references {
            if self.asked.insert(reference.clone()) {
                self.waiting.push_back(reference);
            }
            if self.asked.len() > REFERENCES_MAX {
                return Err(format!("it refers to more than {REFERENCES_MAX} other schemas"));
            }
        }
        Ok(())
    }

    /// What to ask for next.
    pub(super) fn next(&mut self) -> Option<Reference> {
        self.waiting.pop_front()
    }

    /// Takes the answer to the last question.
    pub(super) fn take(&mut self, reference: Reference, body: SchemaBody) -> Result<(), String> {
        self.bytes += body.schema.len();
        if self.bytes > REFERENCED_BYTES_MAX {
            return Err(format!("the schemas that it refers to have more than {REFERENCED_BYTES_MAX} bytes"));
        }
        self.types.push((reference.name, body.schema));
        self.wait_for(body.references)
    }

    /// The schema with what it refers to: in Avro, the types of other subjects are written out in it.
    pub(super) fn finish(self, id: i32) -> Result<Schema, String> {
        let Gathering { kind, text, types, .. } = self;
        let text = match (kind, types.is_empty()) {
            (_, true) => SchemaText::new(kind, &text),
            (SchemaKind::Avro, false) => SchemaText::new(kind, &references::write_out(&text, &types)?),
            (_, false) => SchemaText { kind, text: Arc::from(text), imports: types.into() },
        };
        let fingerprint = text.fingerprint();
        Ok(Schema { id, text, fingerprint })
    }
}

/// The schema of an id as these answers give it, each a status and a body: the first is about the id, and those after it
/// about the subjects and versions that are asked for in turn. It does what [`super::Registry::refresh`] does, without a
/// registry.
///
/// # Errors
/// As there.
pub fn schema_in_answers<'a>(
    id: i32,
    answers: impl IntoIterator<Item = (u16, &'a [u8])>,
) -> Result<Schema, RegistryError> {
    let what = format!("schema with id {id}");
    let untrusted = |reason: String| RegistryError::Unavailable { url: String::new(), reason };
    let refused = |reason: String| RegistryError::Unsupported { what: what.clone(), reason };
    let mut answers = answers.into_iter();
    let mut ask = || -> Result<SchemaBody, No> {
        let (status, body) = answers.next().ok_or_else(|| No::Untrusted("no answer".into()))?;
        meaning(status, body)
    };
    let first = ask().map_err(|no| match no {
        No::NotFound => RegistryError::NotFound(what.clone()),
        No::Refused(reason) => refused(reason),
        No::Untrusted(reason) => untrusted(reason),
    })?;
    let mut gathering = Gathering::new(first).map_err(refused)?;
    while let Some(reference) = gathering.next() {
        let body = ask().map_err(|no| untrusted(format!("{no:?}")))?;
        gathering.take(reference, body).map_err(refused)?;
    }
    gathering.finish(id).map_err(refused)
}

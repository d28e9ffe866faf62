//! What the registry knows: schemas by id, subjects with their versions, compatibility levels. No HTTP here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::avro::{SchemaKind, SchemaText, ValueSchema};

use super::compatibility::{self, Level, Physical};

/// Schemas that the registry keeps at most; they live in memory.
const SCHEMAS_MAX: usize = 10_000;
/// Bytes of schema text that the registry keeps at most.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a request is refused; the REST interface turns each into a Confluent error code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    SubjectNotFound(String),
    VersionNotFound(String),
    SchemaNotFound(String),
    SubjectSoftDeleted(String),
    SubjectNotSoftDeleted(String),
    VersionSoftDeleted(String, u32),
    VersionNotSoftDeleted(String, u32),
    LevelNotConfigured(String),
    Incompatible(String, Vec<String>),
    InvalidSchema(String),
    InvalidVersion(String),
    InvalidLevel,
    Full,
}

/// A version as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionName {
    Latest,
    Number(u32),
}

impl VersionName {
    pub(super) fn parse(text: &str) -> Result<VersionName, Refusal> {
        if text == "latest" || text == "-1" {
            return Ok(VersionName::Latest);
        }
        match text.parse::<u32>() {
            Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(VersionName::Number(number)),
            _ => Err(Refusal::InvalidVersion(text.to_string())),
        }
    }
}

/// Whether a request sees what was soft-deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Live,
    WithDeleted,
}

/// How a deletion is meant: first soft, which keeps the schema readable by id, then for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    Soft,
    Permanent,
}

/// A schema as a version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) id: u32,
    pub(super) version: u32,
    pub(super) text: Arc<str>,
    pub(super) kind: SchemaKind,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    number: u32,
    id: u32,
    deleted: bool,
}

struct Schema {
    text: Arc<str>,
    kind: SchemaKind,
    physical: Option<Physical>,
}

/// A schema that was parsed and is about to be looked up, compared or stored.
pub(super) struct Candidate {
    text: String,
    identity: Value,
    kind: SchemaKind,
    /// What versions are compared by; only Avro's are.
    physical: Option<Physical>,
}

impl Candidate {
    /// Checks a schema's text.
    pub(super) fn parse(kind: SchemaKind, text: &str) -> Result<Candidate, Refusal> {
        if kind == SchemaKind::Protobuf {
            ValueSchema::parse(&SchemaText::new(kind, text)).map_err(|e| Refusal::InvalidSchema(e.to_string()))?;
            let identity = serde_json::json!({ "protobuf": text });
            return Ok(Candidate { text: text.to_string(), identity, kind, physical: None });
        }
        let json: Value = serde_json::from_str(text)
            .map_err(|error| Refusal::InvalidSchema(format!("the schema is not JSON: {error}")))?;
        if kind == SchemaKind::Json {
            let identity = serde_json::json!({ "json schema": json });
            return Ok(Candidate { text: text.to_string(), identity, kind, physical: None });
        }
        apache_avro::Schema::parse(&json)
            .map_err(|error| Refusal::InvalidSchema(format!("the schema is not Avro: {error}")))?;
        let physical = Some(Physical::parse(&json).map_err(Refusal::InvalidSchema)?);
        let mut identity = json;
        simplify(&mut identity);
        Ok(Candidate { text: text.to_string(), identity, kind, physical })
    }
}

/// `{"type": "string"}` says the same as `"string"`. White space and the order of attributes are gone already;
/// everything else, documentation included, makes another schema, as in Confluent's registry.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(branches) => branches.iter_mut().for_each(simplify),
        Value::Object(attributes) => {
            for (name, attribute) in attributes.iter_mut() {
                if matches!(name.as_str(), "type" | "items" | "values" | "fields") {
                    simplify(attribute);
                }
            }
            if attributes.len() == 1
                && let Some(only) = attributes.remove("type")
            {
                *schema = only;
            }
        }
        _ => {}
    }
}

/// All state of a registry.
pub(super) struct Store {
    /// The schema of id n at n - 1. Ids are never given twice, so nothing leaves this list.
    schemas: Vec<Schema>,
    ids: HashMap<Value, u32>,
    subjects: BTreeMap<String, Vec<Version>>,
    text_bytes: usize,
    level: Level,
    levels: HashMap<String, Level>,
}

impl Store {
    pub(super) fn new() -> Store {
        Store {
            schemas: Vec::new(),
            ids: HashMap::new(),
            subjects: BTreeMap::new(),
            text_bytes: 0,
            level: Level::Backward,
            levels: HashMap::new(),
        }
    }

    pub(super) fn subjects(&self, scope: Scope) -> Vec<String> {
        let shown = |versions: &[Version]| versions.iter().any(|v| visible(v, scope));
        self.subjects.iter().filter(|(_, versions)| shown(versions)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn versions(&self, subject: &str, scope: Scope) -> Result<Vec<u32>, Refusal> {
        Ok(self.shown(subject, scope)?.iter().map(|v| v.number).collect())
    }

    pub(super) fn version(&self, subject: &str, name: VersionName, scope: Scope) -> Result<Registered, Refusal> {
        let versions = self.shown(subject, scope)?;
        let found = match name {
            VersionName::Latest => versions.last(),
            VersionName::Number(number) => versions.iter().find(|v| v.number == number),
        };
        match (found, name) {
            (Some(version), _) => Ok(self.registered(version)),
            (None, VersionName::Number(number)) => Err(Refusal::VersionNotFound(number.to_string())),
            (None, VersionName::Latest) => Err(Refusal::VersionNotFound("latest".into())),
        }
    }

    /// Adds a version to a subject, or finds the one that says the same.
    pub(super) fn register(&mut self, subject: &str, candidate: Candidate) -> Result<u32, Refusal> {
        let known = self.ids.get(&candidate.identity).copied();
        let versions = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        if let Some(id) = known
            && versions.iter().any(|v| v.id == id && !v.deleted)
        {
            return Ok(id);
        }
        let differences = self.differences(subject, &candidate);
        if !differences.is_empty() {
            return Err(Refusal::Incompatible(subject.to_string(), differences));
        }
        let number = versions.last().map_or(1, |v| v.number + 1);
        let id = match known {
            Some(id) => id,
            None => self.add(candidate)?,
        };
        let versions = self.subjects.entry(subject.to_string()).or_default();
        // A version that was deleted softly and comes back gets a new number; its old one is forgotten.
        versions.retain(|v| v.id != id);
        versions.push(Version { number, id, deleted: false });
        Ok(id)
    }

    fn add(&mut self, candidate: Candidate) -> Result<u32, Refusal> {
        if self.schemas.len() >= SCHEMAS_MAX || self.text_bytes + candidate.text.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Full);
        }
        self.text_bytes += candidate.text.len();
        let Candidate { text, kind, physical, .. } = candidate;
        self.schemas.push(Schema { text: text.into(), kind, physical });
        let id = self.schemas.len() as u32;
        self.ids.insert(candidate.identity, id);
        Ok(id)
    }

    /// The version of `subject` that says the same as the candidate.
    pub(super) fn find(&self, subject: &str, candidate: &Candidate, scope: Scope) -> Result<Registered, Refusal> {
        let versions = self.shown(subject, scope)?;
        let id = self.ids.get(&candidate.identity);
        let found = versions.iter().rev().find(|v| Some(&v.id) == id);
        found.map(|v| self.registered(v)).ok_or_else(|| Refusal::SchemaNotFound("schema not found".into()))
    }

    /// The text of a schema that some subject has, even if softly deleted.
    pub(super) fn by_id(&self, id: u32) -> Result<(Arc<str>, SchemaKind), Refusal> {
        let used = self.subjects.values().flatten().any(|v| v.id == id);
        let schema = id.checked_sub(1).and_then(|i| self.schemas.get(i as usize)).filter(|_| used);
        schema
            .map(|s| (Arc::clone(&s.text), s.kind))
            .ok_or_else(|| Refusal::SchemaNotFound(format!("schema {id} not found")))
    }

    /// Subjects and version numbers under which a schema is known.
    pub(super) fn uses(&self, id: u32, scope: Scope) -> Result<Vec<(String, u32)>, Refusal> {
        self.by_id(id)?;
        let all = self.subjects.iter().flat_map(|(subject, versions)| versions.iter().map(move |v| (subject, v)));
        Ok(all.filter(|(_, v)| v.id == id && visible(v, scope)).map(|(s, v)| (s.clone(), v.number)).collect())
    }

    /// Subjects under which a schema is known, each once.
    pub(super) fn users(&self, id: u32, scope: Scope) -> Result<BTreeSet<String>, Refusal> {
        Ok(self.uses(id, scope)?.into_iter().map(|(subject, _)| subject).collect())
    }

    /// Deletes a subject; returns the version numbers that went.
    pub(super) fn delete_subject(&mut self, subject: &str, how: Deletion) -> Result<Vec<u32>, Refusal> {
        let not_found = || Refusal::SubjectNotFound(subject.to_string());
        let versions = self.subjects.get_mut(subject).ok_or_else(not_found)?;
        let live = versions.iter().any(|v| !v.deleted);
        match how {
            Deletion::Soft if !live => Err(Refusal::SubjectSoftDeleted(subject.to_string())),
            Deletion::Soft => {
                let gone = versions.iter_mut().filter(|v| !v.deleted);
                let gone = gone.map(|v| {
                    v.deleted = true;
                    v.number
                });
                let gone = gone.collect();
                self.levels.remove(subject);
                Ok(gone)
            }
            Deletion::Permanent if live => Err(Refusal::SubjectNotSoftDeleted(subject.to_string())),
            Deletion::Permanent => {
                let gone = versions.iter().map(|v| v.number).collect();
                self.subjects.remove(subject);
                Ok(gone)
            }
        }
    }

    /// Deletes one version; returns its number.
    pub(super) fn delete_version(&mut self, subject: &str, name: VersionName, how: Deletion) -> Result<u32, Refusal> {
        let scope = if how == Deletion::Permanent { Scope::WithDeleted } else { Scope::Live };
        let number = match name {
            VersionName::Latest => self.version(subject, name, scope)?.version,
            VersionName::Number(number) => number,
        };
        let not_found = || Refusal::SubjectNotFound(subject.to_string());
        let versions = self.subjects.get_mut(subject).ok_or_else(not_found)?;
        let found = versions.iter().position(|v| v.number == number);
        let at = found.ok_or_else(|| Refusal::VersionNotFound(number.to_string()))?;
        match (how, versions[at].deleted) {
            (Deletion::Soft, true) => return Err(Refusal::VersionSoftDeleted(subject.to_string(), number)),
            (Deletion::Permanent, false) => return Err(Refusal::VersionNotSoftDeleted(subject.to_string(), number)),
            (Deletion::Soft, false) => versions[at].deleted = true,
            (Deletion::Permanent, true) => {
                versions.remove(at);
                if versions.is_empty() {
                    self.subjects.remove(subject);
                }
            }
        }
        Ok(number)
    }

    /// What the level of `subject` holds against the candidate as its next version; nothing if it may be registered.
    pub(super) fn differences(&self, subject: &str, candidate: &Candidate) -> Vec<String> {
        let level = self.effective_level(subject);
        let live = self.shown(subject, Scope::Live).unwrap_or_default();
        let reach = if level.transitive() { live.len() } else { 1 };
        let compared = live.iter().rev().take(reach);
        compared.flat_map(|v| self.against(level, candidate, v)).collect()
    }

    /// What the level of `subject` holds against the candidate beside one version.
    pub(super) fn differences_from(
        &self,
        subject: &str,
        name: VersionName,
        candidate: &Candidate,
    ) -> Result<Vec<String>, Refusal> {
        let level = self.effective_level(subject);
        let versions = self.shown(subject, Scope::Live);
        match (versions, name) {
            // There is nothing that it could be incompatible with.
            (Err(_), VersionName::Latest) => Ok(Vec::new()),
            (Err(refusal), VersionName::Number(_)) => Err(refusal),
            (Ok(_), _) => {
                let number = self.version(subject, name, Scope::Live)?;
                let version = Version { number: number.version, id: number.id, deleted: false };
                Ok(self.against(level, candidate, &version))
            }
        }
    }

    fn against(&self, level: Level, candidate: &Candidate, version: &Version) -> Vec<String> {
        let old = &self.schemas[version.id as usize - 1];
        let mut found = match (&candidate.physical, &old.physical) {
            _ if candidate.kind != old.kind && level != Level::None => {
                vec![format!("{{a schema of type {} after one of type {}}}", candidate.kind.name(), old.kind.name())]
            }
            (Some(new), Some(old)) => compatibility::differences(level, new, old),
            _ => Vec::new(),
        };
        if !found.is_empty() {
            found.push(format!("{{oldSchemaVersion: {}}}", version.number));
            found.push(format!("{{compatibility: '{}'}}", level.name()));
        }
        found
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// The level set for this subject itself.
    pub(super) fn own_level(&self, subject: &str) -> Result<Level, Refusal> {
        self.levels.get(subject).copied().ok_or_else(|| Refusal::LevelNotConfigured(subject.to_string()))
    }

    /// The level that applies to this subject.
    pub(super) fn effective_level(&self, subject: &str) -> Level {
        self.levels.get(subject).copied().unwrap_or(self.level)
    }

    pub(super) fn set_own_level(&mut self, subject: &str, level: Level) -> Result<(), Refusal> {
        if self.levels.len() >= SCHEMAS_MAX && !self.levels.contains_key(subject) {
            return Err(Refusal::Full);
        }
        self.levels.insert(subject.to_string(), level);
        Ok(())
    }

    pub(super) fn forget_own_level(&mut self, subject: &str) -> Result<Level, Refusal> {
        self.levels.remove(subject).ok_or_else(|| Refusal::LevelNotConfigured(subject.to_string()))
    }

    fn shown(&self, subject: &str, scope: Scope) -> Result<Vec<Version>, Refusal> {
        let versions = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        let shown: Vec<Version> = versions.iter().filter(|v| visible(v, scope)).copied().collect();
        if shown.is_empty() { Err(Refusal::SubjectNotFound(subject.to_string())) } else { Ok(shown) }
    }

    fn registered(&self, version: &Version) -> Registered {
        let Schema { text, kind, .. } = &self.schemas[version.id as usize - 1];
        Registered { id: version.id, version: version.number, text: text.clone(), kind: *kind }
    }
}

fn visible(version: &Version, scope: Scope) -> bool {
    !version.deleted || scope == Scope::WithDeleted
}

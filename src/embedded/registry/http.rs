//! The REST interface of Confluent's schema registry over the [`Store`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::BODY_BYTES_MAX;
use super::compatibility::Level;
use super::store::{Candidate, Deletion, Refusal, Registered, Scope, Store, VersionName};
use crate::avro::SchemaKind;

/// The store, shared by all requests.
pub(super) type Shared = Arc<Mutex<Store>>;
type Options = Query<HashMap<String, String>>;
type Body = Result<Bytes, BytesRejection>;
type Reply = Result<Answer, Problem>;

/// A panicking request leaves the store as consistent as it found it: every change is the last step of its method.
pub(super) fn lock(store: &Shared) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All routes.
pub(super) fn router(store: Shared) -> Router {
    Router::new()
        .route("/", get(async || Answer(json!({}))))
        .route("/schemas/types", get(async || Answer(json!(["AVRO"]))))
        .route("/mode", get(async || Answer(json!({"mode": "READWRITE"}))))
        .route("/schemas/ids/{id}", get(schema_by_id))
        .route("/schemas/ids/{id}/schema", get(schema_text_by_id))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/subjects", get(list_subjects))
        .route("/subjects/{subject}", post(find_schema).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(list_versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/compatibility/subjects/{subject}/versions", post(compatible_with_subject))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatible_with_version))
        .route("/config", get(default_level).put(set_default_level))
        .route("/config/{subject}", get(level).put(set_level).delete(delete_level))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, 404, "HTTP 404 Not Found"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, 405, "HTTP 405 Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(store)
}

/// A JSON body with the registry's media type.
struct Answer(Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")], self.0.to_string()).into_response()
    }
}

/// An error as Confluent's clients expect it: a status, a finer code and a sentence.
struct Problem {
    status: StatusCode,
    code: u32,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Problem {
        Problem { status, code, message: message.into() }
    }

    fn unprocessable(code: u32, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    fn not_found(code: u32, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Answer(json!({"error_code": self.code, "message": self.message}));
        (self.status, body).into_response()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal {
            Refusal::SubjectNotFound(s) => Problem::not_found(40401, format!("Subject '{s}' not found.")),
            Refusal::VersionNotFound(v) => Problem::not_found(40402, format!("Version {v} not found.")),
            Refusal::SchemaNotFound(what) => Problem::not_found(40403, what),
            Refusal::SubjectSoftDeleted(s) => Problem::not_found(
                40404,
                format!("Subject '{s}' was soft deleted. Set permanent=true to delete permanently"),
            ),
            Refusal::SubjectNotSoftDeleted(s) => Problem::not_found(
                40405,
                format!("Subject '{s}' was not deleted first before being permanently deleted"),
            ),
            Refusal::VersionSoftDeleted(s, v) => Problem::not_found(
                40406,
                format!("Subject '{s}' Version {v} was soft deleted. Set permanent=true to delete permanently"),
            ),
            Refusal::VersionNotSoftDeleted(s, v) => Problem::not_found(
                40407,
                format!("Subject '{s}' Version {v} was not deleted first before being permanently deleted"),
            ),
            Refusal::LevelNotConfigured(s) => {
                Problem::not_found(40408, format!("Subject '{s}' does not have subject-level compatibility configured"))
            }
            Refusal::Incompatible(s, details) => Problem::new(
                StatusCode::CONFLICT,
                409,
                format!(
                    "Schema being registered is incompatible with an earlier schema for subject \"{s}\", details: [{}]",
                    details.join(", ")
                ),
            ),
            Refusal::InvalidSchema(why) => Problem::unprocessable(42201, format!("Invalid schema: {why}")),
            Refusal::InvalidVersion(v) => Problem::unprocessable(
                42202,
                format!(
                    "The specified version '{v}' is not a valid version id. Allowed values are between [1, 2^31-1] and \
                     the string \"latest\""
                ),
            ),
            Refusal::InvalidLevel => Problem::unprocessable(
                42203,
                "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, \
                 forward_transitive, and full_transitive",
            ),
            Refusal::Full => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                50001,
                "The embedded registry is full: it keeps schemas in memory, and restarting it forgets them",
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    #[serde(default)]
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

#[derive(Deserialize)]
struct LevelBody {
    compatibility: String,
}

fn parsed<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| {
        Problem::new(rejection.status(), u32::from(rejection.status().as_u16()), rejection.body_text())
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, 400, format!("the body is not as expected: {error}")))
}

fn candidate(body: Body) -> Result<Candidate, Problem> {
    let body: SchemaBody = parsed(body)?;
    let name = body.schema_type.as_deref().unwrap_or("AVRO");
    let kind = SchemaKind::named(&name.to_ascii_uppercase()).ok_or_else(|| {
        let why = format!("Invalid schema: the embedded registry knows AVRO, JSON and PROTOBUF, not {name}");
        Problem::unprocessable(42201, why)
    })?;
    if !body.references.is_empty() {
        return Err(Problem::unprocessable(
            42201,
            "Invalid schema: the embedded registry does not support references; write the types into one schema",
        ));
    }
    Ok(Candidate::parse(kind, &body.schema)?)
}

fn requested_level(body: Body) -> Result<Level, Problem> {
    let body: LevelBody = parsed(body)?;
    Ok(Level::parse(&body.compatibility).ok_or(Refusal::InvalidLevel)?)
}

fn flag(options: &Options, name: &str) -> bool {
    options.0.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn scope(options: &Options) -> Scope {
    if flag(options, "deleted") { Scope::WithDeleted } else { Scope::Live }
}

fn deletion(options: &Options) -> Deletion {
    if flag(options, "permanent") { Deletion::Permanent } else { Deletion::Soft }
}

fn schema_id(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::not_found(404, "HTTP 404 Not Found"))
}

/// A schema that is asked for by its text alone, unwrapped.
fn text(schema: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")], schema.to_string()).into_response()
}

fn described(subject: &str, registered: &Registered) -> Answer {
    let answer = json!({
        "subject": subject,
        "id": registered.id,
        "version": registered.version,
        "schema": &*registered.text,
    });
    Answer(typed(answer, registered.kind))
}

/// Like Confluent's registry, it says the type of a schema where that is not Avro.
fn typed(mut answer: Value, kind: SchemaKind) -> Value {
    if kind != SchemaKind::Avro {
        answer["schemaType"] = json!(kind.name());
    }
    answer
}

async fn schema_by_id(State(store): State<Shared>, Path(id): Path<String>) -> Reply {
    let (schema, kind) = lock(&store).by_id(schema_id(&id)?)?;
    Ok(Answer(typed(json!({"schema": &*schema}), kind)))
}

async fn schema_text_by_id(State(store): State<Shared>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(text(&lock(&store).by_id(schema_id(&id)?)?.0))
}

async fn schema_subjects(State(store): State<Shared>, Path(id): Path<String>, options: Options) -> Reply {
    Ok(Answer(json!(lock(&store).users(schema_id(&id)?, scope(&options))?)))
}

async fn schema_versions(State(store): State<Shared>, Path(id): Path<String>, options: Options) -> Reply {
    let uses = lock(&store).uses(schema_id(&id)?, scope(&options))?;
    Ok(Answer(uses.into_iter().map(|(subject, version)| json!({"subject": subject, "version": version})).collect()))
}

async fn list_subjects(State(store): State<Shared>, options: Options) -> Reply {
    let mut subjects = lock(&store).subjects(scope(&options));
    if let Some(prefix) = options.0.get("subjectPrefix") {
        subjects.retain(|subject| subject.starts_with(prefix.as_str()));
    }
    Ok(Answer(json!(subjects)))
}

async fn find_schema(State(store): State<Shared>, Path(subject): Path<String>, options: Options, body: Body) -> Reply {
    let candidate = candidate(body)?;
    let found = lock(&store).find(&subject, &candidate, scope(&options))?;
    Ok(described(&subject, &found))
}

async fn delete_subject(State(store): State<Shared>, Path(subject): Path<String>, options: Options) -> Reply {
    Ok(Answer(json!(lock(&store).delete_subject(&subject, deletion(&options))?)))
}

async fn list_versions(State(store): State<Shared>, Path(subject): Path<String>, options: Options) -> Reply {
    Ok(Answer(json!(lock(&store).versions(&subject, scope(&options))?)))
}

async fn register(State(store): State<Shared>, Path(subject): Path<String>, body: Body) -> Reply {
    let candidate = candidate(body)?;
    Ok(Answer(json!({"id": lock(&store).register(&subject, candidate)?})))
}

async fn version(
    State(store): State<Shared>,
    Path((subject, name)): Path<(String, String)>,
    options: Options,
) -> Reply {
    let found = lock(&store).version(&subject, VersionName::parse(&name)?, scope(&options))?;
    Ok(described(&subject, &found))
}

async fn version_text(
    State(store): State<Shared>,
    Path((subject, name)): Path<(String, String)>,
    options: Options,
) -> Result<Response, Problem> {
    let found = lock(&store).version(&subject, VersionName::parse(&name)?, scope(&options))?;
    Ok(text(&found.text))
}

async fn delete_version(
    State(store): State<Shared>,
    Path((subject, name)): Path<(String, String)>,
    options: Options,
) -> Reply {
    let name = VersionName::parse(&name)?;
    Ok(Answer(json!(lock(&store).delete_version(&subject, name, deletion(&options))?)))
}

fn verdict(differences: Vec<String>, options: &Options) -> Answer {
    let mut answer = json!({"is_compatible": differences.is_empty()});
    if flag(options, "verbose") {
        answer["messages"] = json!(differences);
    }
    Answer(answer)
}

async fn compatible_with_subject(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    options: Options,
    body: Body,
) -> Reply {
    let candidate = candidate(body)?;
    let differences = lock(&store).differences(&subject, &candidate);
    Ok(verdict(differences, &options))
}

async fn compatible_with_version(
    State(store): State<Shared>,
    Path((subject, name)): Path<(String, String)>,
    options: Options,
    body: Body,
) -> Reply {
    let candidate = candidate(body)?;
    let differences = lock(&store).differences_from(&subject, VersionName::parse(&name)?, &candidate)?;
    Ok(verdict(differences, &options))
}

async fn default_level(State(store): State<Shared>) -> Answer {
    Answer(json!({"compatibilityLevel": lock(&store).level().name()}))
}

async fn set_default_level(State(store): State<Shared>, body: Body) -> Reply {
    let level = requested_level(body)?;
    lock(&store).set_level(level);
    Ok(Answer(json!({"compatibility": level.name()})))
}

async fn level(State(store): State<Shared>, Path(subject): Path<String>, options: Options) -> Reply {
    let store = lock(&store);
    let level =
        if flag(&options, "defaultToGlobal") { store.effective_level(&subject) } else { store.own_level(&subject)? };
    Ok(Answer(json!({"compatibilityLevel": level.name()})))
}

async fn set_level(State(store): State<Shared>, Path(subject): Path<String>, body: Body) -> Reply {
    let level = requested_level(body)?;
    lock(&store).set_own_level(&subject, level)?;
    Ok(Answer(json!({"compatibility": level.name()})))
}

async fn delete_level(State(store): State<Shared>, Path(subject): Path<String>) -> Reply {
    let level = lock(&store).forget_own_level(&subject)?;
    Ok(Answer(json!({"compatibilityLevel": level.name()})))
}

//! A client of Confluent's schema registry API.
//!
//! The one question that must never be answered wrongly: is this record bad, or can the registry not say? Only the
//! registry's own "no such schema" makes a record bad. Silence, a proxy's page, a refusal to talk to us: all of that is
//! waited out (DESIGN rule 18).

mod references;
mod reply;

pub use self::reply::schema_in_answers;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use self::reply::{Gathering, No, SchemaBody};
use crate::avro::SchemaText;
use crate::core::schema::Fingerprint;
use crate::{Error, Result};

/// A schema that the registry gave out under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The id that records carry.
    pub id: i32,
    /// What the registry has, with what it refers to.
    pub text: SchemaText,
    /// What it says, whatever its spacing and its words for people.
    pub fingerprint: Fingerprint,
}

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The subject's name.
    pub subject: String,
    /// Counted from 1.
    pub version: i32,
    /// What is registered under it.
    pub schema: Schema,
}

/// Why there is no schema, by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry knows no such id, subject or version. For an id: the record that names it is bad.
    #[error("the schema registry has no {0}")]
    NotFound(String),
    /// No answer that could be trusted; ask again later. Nothing is wrong with the record.
    #[error("schema registry {url}: {reason}")]
    Unavailable { url: String, reason: String },
    /// The schema is there, but not one that Firn reads.
    #[error("{what}: {reason}")]
    Unsupported { what: String, reason: String },
    /// Another schema under an id that was used before. Records would be decoded wrongly: a person has to decide.
    #[error(
        "schema id {id} had another schema a while ago (of fingerprint {held}, now {now}): the registry was reset, restored or \
         replaced; restore it, or start again to have the tables say which of the two they have records of"
    )]
    Changed { id: i32, held: Fingerprint, now: Fingerprint },
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Error {
        let text = error.to_string();
        match error {
            RegistryError::Unavailable { .. } => Error::Unreachable(text),
            RegistryError::NotFound(_) | RegistryError::Unsupported { .. } => Error::Config(text),
            RegistryError::Changed { .. } => Error::Decision(text),
        }
    }
}

/// How Firn says who it is.
#[derive(Debug, Clone)]
pub enum Login {
    /// A user name and a password.
    Basic(String, SecretString),
    /// A token.
    Bearer(SecretString),
}

/// What a registry wants besides its address.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Sent with every request.
    pub login: Option<Login>,
    /// Certificates in PEM of authorities to trust, besides the public ones.
    pub authorities: Option<Vec<u8>>,
    /// Certificate and private key in PEM, which the connection presents.
    pub identity: Option<SecretString>,
}

/// What the registry says of a schema that is not registered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// Whether it would take it.
    pub compatible: bool,
    /// Why not, where it says so.
    pub messages: Vec<String>,
}

/// A registry. Cloning shares connections and cache.
#[derive(Debug, Clone)]
pub struct Registry {
    http: reqwest::Client,
    base: Url,
    login: Option<Login>,
    known: Arc<Mutex<Known>>,
}

/// Schemas kept in memory, and how many bytes of text.
const SCHEMAS_MAX: usize = 4_096;
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Ids whose content is remembered (24 bytes each).
const PINS_MAX: usize = 262_144;
/// The largest answer that is read.
const BODY_MAX: usize = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(20);
/// The first pause after a failed try, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

#[derive(Debug, Default)]
struct Known {
    schemas: HashMap<i32, Schema>,
    /// Ids in the order they came, to let the oldest go.
    order: VecDeque<i32>,
    /// Of the texts in `schemas`.
    bytes: usize,
    pins: HashMap<i32, Fingerprint>,
}

impl Known {
    fn admit(&mut self, schema: Schema) -> Result<Schema, RegistryError> {
        self.pin(schema.id, schema.fingerprint)?;
        self.bytes += schema.text.bytes();
        match self.schemas.insert(schema.id, schema.clone()) {
            Some(before) => self.bytes -= before.text.bytes(),
            None => self.order.push_back(schema.id),
        }
        while self.order.len() > SCHEMAS_MAX || self.bytes > TEXT_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.schemas.remove(&oldest).map_or(0, |gone| gone.text.bytes());
        }
        Ok(schema)
    }

    fn pin(&mut self, id: i32, fingerprint: Fingerprint) -> Result<(), RegistryError> {
        match self.pins.get(&id) {
            Some(&held) if held != fingerprint => Err(RegistryError::Changed { id, held, now: fingerprint }),
            None if self.pins.len() < PINS_MAX => {
                self.pins.insert(id, fingerprint);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct OpinionBody {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

impl Registry {
    /// A registry at `url`.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not one of http or https, or a certificate or key cannot be read.
    pub fn new(url: &str, access: Access) -> Result<Registry> {
        Registry::patient(url, access, TIMEOUT)
    }

    /// A registry whose answers may take this long, from the request to their last byte.
    fn patient(url: &str, access: Access, timeout: Duration) -> Result<Registry> {
        let mut base: Url =
            url.parse().map_err(|e| Error::Config(format!("schema_registry.url: not an address ({e})")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(Error::Config("schema_registry.url: not an http or https address".into()));
        }
        // An address with a password in it would be logged.
        let from_url = (!base.username().is_empty())
            .then(|| Login::Basic(base.username().to_owned(), base.password().unwrap_or_default().into()));
        let login = access.login.or(from_url);
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        stripped.map_err(|()| Error::Config("schema_registry.url: cannot carry a user name".into()))?;
        // So that joining appends to the path instead of replacing its last part.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // A redirect could carry the password to another host.
            .redirect(reqwest::redirect::Policy::none());
        let wrong = |key: &str| Error::Config(format!("schema_registry.tls.{key}: not a certificate or key in PEM"));
        if let Some(pem) = &access.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| wrong("ca"))?;
            if authorities.is_empty() {
                return Err(wrong("ca"));
            }
            http = authorities.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        if let Some(pem) = &access.identity {
            let identity = reqwest::Identity::from_pem(pem.expose_secret().as_bytes());
            http = http.identity(identity.map_err(|_| wrong("certificate"))?);
        }
        let http =
            http.build().map_err(|e| Error::Config(format!("schema_registry: no connection can be made: {e}")))?;
        Ok(Registry { http, base, login, known: Arc::default() })
    }

    /// A schema that is in memory.
    #[must_use]
    pub fn cached(&self, id: i32) -> Option<Schema> {
        self.known().schemas.get(&id).cloned()
    }

    /// The schema of an id; asked for once, since ids never change their meaning.
    ///
    /// # Errors
    /// See [`RegistryError`]; one try.
    pub async fn schema(&self, id: i32) -> Result<Schema, RegistryError> {
        match self.cached(id) {
            Some(schema) => Ok(schema),
            None => self.refresh(id).await,
        }
    }

    /// The schema of an id as the registry says it now.
    ///
    /// # Errors
    /// As [`Registry::schema`]; [`RegistryError::Changed`] if it is not the schema that is known.
    pub async fn refresh(&self, id: i32) -> Result<Schema, RegistryError> {
        let what = format!("schema with id {id}");
        let body: SchemaBody = self.get(&["schemas", "ids", &id.to_string()], &what).await?;
        let schema = self.readable(body, id, &what).await?;
        self.known().admit(schema)
    }

    /// Like [`Registry::schema`], but waits for the registry as long as it takes, ever longer between tries, up to half
    /// a minute. `stalled` hears of every failed try. Drop the future to give up.
    ///
    /// # Errors
    /// As [`Registry::schema`], except that the registry is never unavailable.
    pub async fn schema_waiting(
        &self,
        id: i32,
        mut stalled: impl FnMut(&RegistryError),
    ) -> Result<Schema, RegistryError> {
        let mut pause = BACKOFF.0;
        loop {
            match self.schema(id).await {
                Err(error @ RegistryError::Unavailable { .. }) => stalled(&error),
                other => return other,
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// The latest version of a subject.
    ///
    /// # Errors
    /// As [`Registry::schema`].
    pub async fn latest(&self, subject: &str) -> Result<Version, RegistryError> {
        self.version(subject, "latest").await
    }

    /// A version of a subject: a number, or `latest`.
    ///
    /// # Errors
    /// As [`Registry::schema`].
    pub async fn version(&self, subject: &str, version: &str) -> Result<Version, RegistryError> {
        let what = format!("version {version} of subject {subject}");
        let body: SchemaBody = self.get(&["subjects", subject, "versions", version], &what).await?;
        let (Some(id), Some(number)) = (body.id, body.version) else {
            return Err(self.unavailable("an answer without id and version"));
        };
        let subject = body.subject.clone().unwrap_or_else(|| subject.to_owned());
        let schema = self.readable(body, id, &what).await?;
        let schema = self.known().admit(schema)?;
        Ok(Version { subject, version: number, schema })
    }

    /// The names of all subjects.
    ///
    /// # Errors
    /// As [`Registry::schema`].
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.get(&["subjects"], "list of subjects").await
    }

    /// Whether the registry would take `schema` as the next version of a subject.
    ///
    /// # Errors
    /// As [`Registry::schema`]; [`RegistryError::NotFound`] where the subject has no version yet.
    pub async fn opinion(&self, subject: &str, schema: &SchemaText) -> Result<Opinion, RegistryError> {
        let mut url = self.url(&["compatibility", "subjects", subject, "versions", "latest"]);
        url.set_query(Some("verbose=true"));
        let body = serde_json::json!({ "schema": &*schema.text, "schemaType": schema.kind.name() });
        let what = format!("subject {subject}");
        match self.answer::<OpinionBody>(self.http.post(url).json(&body), &what).await {
            Ok(said) => Ok(Opinion { compatible: said.is_compatible, messages: said.messages }),
            // 422: it is no schema to the registry.
            Err(RegistryError::Unsupported { reason, .. }) => Ok(Opinion { compatible: false, messages: vec![reason] }),
            Err(error) => Err(error),
        }
    }

    /// The schema of an answer, if it is one that Firn reads. Types of other subjects are written out in it.
    async fn readable(&self, body: SchemaBody, id: i32, what: &str) -> Result<Schema, RegistryError> {
        let refuse = |reason: String| RegistryError::Unsupported { what: what.to_owned(), reason };
        let mut gathering = Gathering::new(body).map_err(refuse)?;
        while let Some(reference) = gathering.next() {
            let (subject, version) = (&reference.subject, reference.version.to_string());
            let of = format!("version {version} of subject {subject}, to which {what} refers");
            let body = match self.get(&["subjects", subject, "versions", &version], &of).await {
                // The schema itself is there: what is missing is no fault of the records that name it.
                Err(RegistryError::NotFound(of)) => return Err(self.unavailable(&format!("it has no {of}"))),
                other => other?,
            };
            gathering.take(reference, body).map_err(refuse)?;
        }
        gathering.finish(id).map_err(refuse)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Escapes what is no part of a path: a subject may contain slashes.
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &[&str], what: &str) -> Result<T, RegistryError> {
        self.answer(self.http.get(self.url(path)), what).await
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        what: &str,
    ) -> Result<T, RegistryError> {
        let mut request = request.header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        request = match &self.login {
            Some(Login::Basic(user, password)) => request.basic_auth(user, Some(password.expose_secret())),
            Some(Login::Bearer(token)) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let response = request.send().await.map_err(|e| self.unavailable(&cause(&e)))?;
        let status = response.status().as_u16();
        let body = self.body(response).await?;
        reply::meaning(status, &body).map_err(|no| match no {
            No::NotFound => RegistryError::NotFound(what.to_owned()),
            No::Refused(reason) => RegistryError::Unsupported { what: what.to_owned(), reason },
            No::Untrusted(reason) => self.unavailable(&reason),
        })
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| self.unavailable(&cause(&e)))? {
            if body.len() + part.len() > BODY_MAX {
                return Err(self.unavailable(&format!("an answer of more than {BODY_MAX} bytes")));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn unavailable(&self, reason: &str) -> RegistryError {
        RegistryError::Unavailable { url: self.base.to_string(), reason: reason.to_owned() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The innermost reason, without the address (which can carry a password).
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    match inner.to_string() {
        inner if error.is_timeout() => format!("no answer in time ({inner})"),
        inner => match advice(&inner) {
            Some(advice) => format!("{inner}: {advice}"),
            None => inner,
        },
    }
}

/// What to do about a TLS connection that did not come about, by the words of the TLS library.
fn advice(reason: &str) -> Option<&'static str> {
    const PRESENT: &str =
        "the registry wants a certificate: set schema_registry.tls.certificate and schema_registry.tls.key";
    const PERHAPS: &str =
        "if the registry wants a certificate, set schema_registry.tls.certificate and schema_registry.tls.key";
    const REPLACE: &str = "the registry does not accept the certificate of schema_registry.tls.certificate: it has expired, \
                           or is of an authority that the registry does not know";
    const TRUST: &str =
        "the registry's certificate is of an unknown authority: set schema_registry.tls.ca to the authority";
    let known = [
        ("received fatal alert: CertificateRequired", PRESENT),
        ("received fatal alert: HandshakeFailure", PERHAPS),
        ("received fatal alert: CertificateExpired", REPLACE),
        ("received fatal alert: UnknownCA", REPLACE),
        ("received fatal alert: BadCertificate", REPLACE),
        ("received fatal alert: CertificateUnknown", REPLACE),
        ("invalid peer certificate: UnknownIssuer", TRUST),
        ("invalid peer certificate: certificate expired", "the registry's own certificate has expired"),
        ("invalid peer certificate: Expired", "the registry's own certificate has expired"),
        (
            "invalid peer certificate: certificate not valid for name",
            "schema_registry.url names another host than the certificate",
        ),
    ];
    known.iter().find(|(words, _)| reason.contains(words)).map(|(_, advice)| *advice)
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Between half and all of `pause`, so that members do not ask at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests;

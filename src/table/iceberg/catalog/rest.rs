//! An Iceberg REST catalog. A client of our own, because a commit must be sent once and its answer must be told apart:
//! done, refused, or unknown.

mod vending;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use self::vending::{Loan, Loans};
use super::auth::Auth;
use super::{Answer, Catalog, CatalogConfig, CatalogKind, Creation, Loaded, TableName};
use crate::error::{Error, Result};
use crate::files::Store;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Table metadata lists every snapshot; this is some hundred thousand of them.
const TABLE_BODY_BYTES_MAX: usize = 512 << 20;
const SMALL_BODY_BYTES_MAX: usize = 8 << 20;
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
const ERROR_TEXT_CHARS_MAX: usize = 500;
const LIST_PAGES_MAX: usize = 1000;

#[derive(Deserialize, Default)]
struct ConfigAnswer {
    #[serde(default)]
    defaults: HashMap<String, Option<String>>,
    #[serde(default)]
    overrides: HashMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct TableAnswer {
    #[serde(rename = "metadata-location")]
    location: Option<String>,
    metadata: TableMetadata,
    #[serde(flatten)]
    loan: Loan,
}

#[derive(Serialize)]
struct CommitRequest<'a> {
    identifier: TableIdent,
    requirements: &'a [TableRequirement],
    updates: &'a [TableUpdate],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CreateRequest<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    schema: Schema,
    partition_spec: UnboundPartitionSpec,
    write_order: SortOrder,
    stage_create: bool,
    properties: BTreeMap<String, String>,
}

/// A page of a listing: of namespaces or of tables.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    namespaces: Vec<Vec<String>>,
    #[serde(default)]
    identifiers: Vec<Identifier>,
    #[serde(rename = "next-page-token", default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    namespace: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: Option<String>,
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

/// A REST catalog.
pub(super) struct RestCatalog {
    name: String,
    http: reqwest::Client,
    auth: Auth,
    /// `<uri>/v1` and the prefix that the server asked for.
    base: String,
    /// Between the levels of a namespace in a path, percent-encoded.
    separator: String,
    /// With what the file and the server say about the files of all tables.
    store: Store,
    loans: Mutex<Loans>,
}

impl RestCatalog {
    pub(super) async fn open(config: &CatalogConfig) -> Result<Self> {
        let CatalogKind::Rest { uri } = &config.kind else {
            return Err(Error::Internal("not a REST catalog".into()));
        };
        let address = uri.trim_end_matches('/').to_owned();
        let http = client(&config.name, &config.properties)?;
        let auth = Auth::new(&http, &address, &config.properties);
        let mut catalog = RestCatalog {
            name: config.name.clone(),
            http,
            auth,
            base: address,
            separator: "%1F".into(),
            store: Store::local(),
            loans: Mutex::default(),
        };
        let answer = catalog.server_config(config.warehouse.as_deref()).await?;

        let flat = |m: HashMap<String, Option<String>>| m.into_iter().filter_map(|(k, v)| Some((k, v?)));
        let mut properties: BTreeMap<String, String> = flat(answer.defaults).collect();
        properties.extend(config.properties.clone());
        properties.extend(flat(answer.overrides));
        catalog.store = Store::with_properties(&properties);
        if vending::wanted(&properties) {
            let (name, value) = vending::DELEGATION;
            let asked = |key: &String| key.strip_prefix("header.").is_some_and(|h| h.eq_ignore_ascii_case(name));
            if !properties.keys().any(asked) {
                properties.insert(format!("header.{name}"), value.to_owned());
            }
        }
        catalog.http = client(&config.name, &properties)?;
        let address = properties.get("uri").map_or(catalog.base.as_str(), |u| u.trim_end_matches('/')).to_owned();
        catalog.auth = Auth::new(&catalog.http, &address, &properties);
        if let Some(separator) = properties.get("namespace-separator") {
            catalog.separator.clone_from(separator);
        }
        catalog.base = match properties.get("prefix").map(|p| p.trim_matches('/')).filter(|p| !p.is_empty()) {
            Some(prefix) => format!("{address}/v1/{prefix}"),
            None => format!("{address}/v1"),
        };
        Ok(catalog)
    }

    /// The files of tables for which nothing is lent.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    async fn server_config(&self, warehouse: Option<&str>) -> Result<ConfigAnswer> {
        let query: Vec<(&str, &str)> = warehouse.map(|w| ("warehouse", w)).into_iter().collect();
        let answer = self.get(&format!("{}/v1/config", self.base), &query, "read its configuration").await?;
        match answer.status() {
            // Servers from before this endpoint have nothing to say.
            StatusCode::NOT_FOUND => Ok(ConfigAnswer::default()),
            status if status.is_success() => self.json(answer, SMALL_BODY_BYTES_MAX, "read its configuration").await,
            _ => Err(self.error(answer, "read its configuration").await),
        }
    }

    fn namespace_path(&self, namespace: &[String]) -> String {
        let levels: Vec<String> = namespace.iter().map(|l| encode(l)).collect();
        format!("{}/namespaces/{}", self.base, levels.join(&self.separator))
    }

    fn table_path(&self, table: &TableName) -> String {
        format!("{}/tables/{}", self.namespace_path(&table.namespace), encode(&table.table))
    }

    /// Sends a request that may be repeated; a refused token is renewed once.
    async fn send(&self, what: &str, request: impl Fn() -> RequestBuilder) -> Result<Response> {
        let mut renewed = false;
        loop {
            let token = self.auth.token().await.map_err(|e| e.within(format!("catalog {}", self.name)))?;
            let answer = bearer(request(), token.as_ref()).send().await;
            let answer = answer.map_err(|e| self.unreachable(what, &e.without_url().to_string()))?;
            let refused = token_refused(answer.status());
            if refused && !renewed && self.auth.refused(token.as_ref()).await {
                renewed = true;
                continue;
            }
            return Ok(answer);
        }
    }

    async fn get(&self, url: &str, query: &[(&str, &str)], what: &str) -> Result<Response> {
        self.send(what, || self.http.request(Method::GET, url).query(query)).await
    }

    fn unreachable(&self, what: &str, why: &str) -> Error {
        Error::Unreachable(format!("catalog {} at {}: cannot {what}: {why}", self.name, host(&self.base)))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, answer: Response, limit: usize, what: &str) -> Result<T> {
        let body = read_body(answer, limit).await.map_err(|e| self.unreachable(what, &e))?;
        serde_json::from_slice(&body).map_err(|e| self.unreachable(what, &format!("its answer cannot be read: {e}")))
    }

    async fn error(&self, answer: Response, what: &str) -> Error {
        let status = answer.status();
        let text = format!("catalog {}: cannot {what}: {}", self.name, error_text(answer).await);
        match status.as_u16() {
            400 | 405 | 406 => Error::Config(text),
            404 => Error::Decision(text),
            _ => Error::Unreachable(text),
        }
    }

    async fn create_namespaces(&self, namespace: &[String]) -> Result<()> {
        for depth in 1..=namespace.len() {
            let level = &namespace[..depth];
            let what = format!("create namespace {}", level.join("."));
            let body = serde_json::json!({ "namespace": level, "properties": {} });
            let url = format!("{}/namespaces", self.base);
            let known = self.get(&self.namespace_path(level), &[], &what).await?;
            if known.status().is_success() {
                continue;
            }
            let answer = self.send(&what, || self.http.post(&url).json(&body)).await?;
            if !answer.status().is_success() && answer.status() != StatusCode::CONFLICT {
                return Err(self.error(answer, &what).await);
            }
        }
        Ok(())
    }

    /// All pages of a listing.
    async fn pages(&self, url: &str, query: &[(&str, &str)], what: &str) -> Result<Vec<Page>> {
        let (mut pages, mut token) = (Vec::new(), None::<String>);
        for _ in 0..LIST_PAGES_MAX {
            let mut query = query.to_vec();
            query.extend(token.as_deref().map(|token| ("pageToken", token)));
            let answer = self.get(url, &query, what).await?;
            if !answer.status().is_success() {
                return Err(self.error(answer, what).await);
            }
            let page: Page = self.json(answer, SMALL_BODY_BYTES_MAX, what).await?;
            token = page.next.clone().filter(|next| !next.is_empty());
            pages.push(page);
            if token.is_none() {
                return Ok(pages);
            }
        }
        Err(self.unreachable(what, &format!("there are more than {LIST_PAGES_MAX} pages of them")))
    }

    /// The namespaces right under `parent`; the empty one is the root.
    async fn namespaces_of(&self, parent: &[String]) -> Result<Vec<Vec<String>>> {
        let joined = parent.join("\u{1f}");
        let query: Vec<(&str, &str)> = if parent.is_empty() { vec![] } else { vec![("parent", &joined)] };
        let pages = self.pages(&format!("{}/namespaces", self.base), &query, "list namespaces").await?;
        Ok(pages.into_iter().flat_map(|page| page.namespaces).filter(|found| found.len() > parent.len()).collect())
    }

    async fn tables_of(&self, namespace: &[String]) -> Result<Vec<TableName>> {
        let pages = self.pages(&format!("{}/tables", self.namespace_path(namespace)), &[], "list tables").await?;
        let named = |i: Identifier| TableName { namespace: i.namespace, table: i.name };
        Ok(pages.into_iter().flat_map(|page| page.identifiers).map(named).collect())
    }

    /// Sends a commit once and sorts the answer.
    async fn post_commit(&self, url: &str, request: &CommitRequest<'_>) -> Answer {
        let token = match self.auth.token().await {
            Ok(token) => token,
            Err(e) => return Answer::NotSent(e.within(format!("catalog {}", self.name))),
        };
        let sent = bearer(self.http.post(url).json(request), token.as_ref()).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(e) if e.is_connect() || e.is_builder() => {
                return Answer::NotSent(self.unreachable("commit", &e.without_url().to_string()));
            }
            Err(e) => return Answer::Unknown(format!("catalog {}: {}", self.name, e.without_url())),
        };
        let status = answer.status();
        if status.is_success() {
            return match read_body(answer, TABLE_BODY_BYTES_MAX).await.and_then(|b| table_answer(&b)) {
                Ok((loaded, _)) => Answer::Committed(loaded),
                Err(e) => Answer::Unknown(format!("catalog {}: committed, but the answer is lost: {e}", self.name)),
            };
        }
        if token_refused(status) {
            self.auth.refused(token.as_ref()).await;
        }
        match status.as_u16() {
            // What the server did not even look at, or says that it refuses. Whether that is so, a reload shows.
            400 | 409 | 412 | 422 => Answer::Refused(error_text(answer).await),
            401 | 403 | 404 | 413 | 419 | 429 => Answer::NotSent(self.error(answer, "commit").await),
            _ => Answer::Unknown(format!("catalog {}: {}", self.name, error_text(answer).await)),
        }
    }
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn load(&self, table: &TableName, known: Option<&Loaded>) -> Result<Option<Loaded>> {
        let what = format!("load table {table}");
        let answer = self.get(&self.table_path(table), &[], &what).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let body = read_body(answer, TABLE_BODY_BYTES_MAX).await.map_err(|e| self.unreachable(&what, &e))?;
                let (loaded, loan) = table_answer(&body).map_err(|e| self.unreachable(&what, &e))?;
                self.keep(table, loan);
                Ok(Some(known.filter(|k| k.location == loaded.location).cloned().unwrap_or(loaded)))
            }
            _ => Err(self.error(answer, &what).await),
        }
    }

    async fn create(&self, table: &TableName, creation: Creation) -> Result<Loaded> {
        self.create_namespaces(&table.namespace).await?;
        let what = format!("create table {table}");
        let mut properties = creation.properties;
        properties.insert("format-version".into(), creation.format_version.to_string());
        let request = CreateRequest {
            name: &table.table,
            location: creation.location,
            schema: creation.schema,
            partition_spec: creation.spec,
            write_order: creation.sort_order,
            stage_create: false,
            properties,
        };
        let url = format!("{}/tables", self.namespace_path(&table.namespace));
        let answer = self.send(&what, || self.http.post(&url).json(&request)).await?;
        if answer.status() != StatusCode::CONFLICT && !answer.status().is_success() {
            return Err(self.error(answer, &what).await);
        }
        // Loaded again in either case: what the server made of the request is what counts.
        let loaded = self.load(table, None).await?;
        loaded.ok_or_else(|| self.unreachable(&what, "it says that the table exists, and that it does not"))
    }

    async fn commit(
        &self,
        table: &TableName,
        base: &Loaded,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Answer {
        for requirement in &requirements {
            if let Err(e) = requirement.check(Some(&base.metadata)) {
                return Answer::Refused(e.to_string());
            }
        }
        let identifier = TableIdent::from_strs(table.namespace.iter().chain([&table.table]));
        let identifier = match identifier {
            Ok(identifier) => identifier,
            Err(e) => return Answer::NotSent(Error::Config(e.to_string())),
        };
        let request = CommitRequest { identifier, requirements: &requirements, updates: &updates };
        self.post_commit(&self.table_path(table), &request).await
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        let (mut tables, mut waiting) = (Vec::new(), vec![Vec::<String>::new()]);
        while let Some(parent) = waiting.pop() {
            if !parent.is_empty() {
                tables.extend(self.tables_of(&parent).await?);
            }
            waiting.extend(self.namespaces_of(&parent).await?);
        }
        tables.sort_by_key(ToString::to_string);
        Ok(tables)
    }

    fn location_of(&self, _table: &TableName) -> Option<String> {
        None
    }

    fn store_of(self: Arc<Self>, table: &TableName) -> Option<Store> {
        self.lent_store(table)
    }
}

/// A client that sends the `header.*` properties with every request.
fn client(name: &str, properties: &BTreeMap<String, String>) -> Result<reqwest::Client> {
    let mut headers = HeaderMap::new();
    for (key, value) in properties {
        let Some(header) = key.strip_prefix("header.") else { continue };
        let bad = || Error::Config(format!("catalog {name}: property {key} is not a valid HTTP header"));
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(header.as_bytes()).map_err(|_| bad())?, value);
    }
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .default_headers(headers)
        // A redirected POST could be sent twice.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| Error::Internal(format!("no HTTP client: {e}")))
}

fn bearer(request: RequestBuilder, token: Option<&SecretString>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token.expose_secret()),
        None => request,
    }
}

/// 419 is what some servers answer where others say 401.
fn token_refused(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 419)
}

fn table_answer(body: &[u8]) -> Result<(Loaded, Loan), String> {
    let answer: TableAnswer = serde_json::from_slice(body).map_err(|e| format!("it cannot be read: {e}"))?;
    let location = answer.location.ok_or("it has no metadata-location")?;
    Ok((Loaded { metadata: Arc::new(answer.metadata), location, document: None }, answer.loan))
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_body(mut answer: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| e.without_url().to_string())? {
        if body.len() + chunk.len() > limit {
            return Err(format!("its answer is larger than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Status and message of a refusal, cut to a readable length.
async fn error_text(answer: Response) -> String {
    let status = answer.status();
    let body = read_body(answer, ERROR_BODY_BYTES_MAX).await.unwrap_or_default();
    let told = serde_json::from_slice::<ErrorAnswer>(&body).ok().map(|a| {
        format!("{} {}", a.error.kind.unwrap_or_default(), a.error.message.unwrap_or_default()).trim().to_owned()
    });
    match told.filter(|t| !t.is_empty()) {
        Some(text) => format!("{status}: {}", text.chars().take(ERROR_TEXT_CHARS_MAX).collect::<String>()),
        None => format!("it answered {status}"),
    }
}

/// A path segment.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `host:port` of an address, without what may be secret in it.
fn host(address: &str) -> String {
    let parsed = url::Url::parse(address).ok();
    let host = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    host.map_or_else(|| "an address that is none".to_owned(), |(host, port)| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests;

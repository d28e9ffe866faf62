//! Buckets of object stores, opened by the properties that Iceberg's REST protocol has for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AwsCredential, S3ConditionalPut};
use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};

use super::lent::{Lent, LentCredentials};
use super::place::{BucketName, Provider};
use crate::{Error, Result};

type Properties = BTreeMap<String, String>;

/// The properties that open buckets. `adls.sas-token` and `adls.connection-string` may have the account's name or host after
/// a dot.
pub const STORE_PROPERTIES: [&str; 20] = [
    "s3.endpoint",
    "s3.region",
    "client.region",
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "s3.path-style-access",
    "gcs.oauth2.token",
    "gcs.service.host",
    "gcs.no-auth",
    "gcs.project-id",
    "adls.account-name",
    "adls.account-key",
    "adls.auth.shared-key.account.name",
    "adls.auth.shared-key.account.key",
    "adls.sas-token",
    "adls.connection-string",
    "adls.tenant-id",
    "adls.client-id",
    "adls.client-secret",
];

/// A file is sent in one piece, and this is half a gigabyte at 14 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Requests that are sent once are small: a version of a log, a hint.
const ONCE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever asked has a loop of its own around this, which waits longer and says so.
const RETRIES: usize = 3;
/// Requests are repeated with the credentials and the signature that they began with.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Buckets that are kept open, each with its connections.
const BUCKETS_MAX: usize = 64;

/// Whether a property of a catalog concerns its object store.
#[must_use]
pub fn is_store_property(name: &str) -> bool {
    name == "client.region" || ["s3.", "gcs.", "adls."].iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses a property of an object store that does not exist: a misspelt one would have no effect.
///
/// # Errors
/// [`Error::Config`] with the properties that there are.
pub fn check_store_properties(catalog: &str, properties: &Properties) -> Result<()> {
    let of_account = |name: &str| ["adls.sas-token.", "adls.connection-string."].iter().any(|p| name.starts_with(p));
    let known = |name: &str| STORE_PROPERTIES.contains(&name) || of_account(name);
    match properties.keys().find(|name| is_store_property(name) && !known(name)) {
        None => Ok(()),
        Some(name) => {
            let family = name.split('.').next().unwrap_or_default();
            let there_are: Vec<&str> =
                STORE_PROPERTIES.into_iter().filter(|known| known.split('.').next() == Some(family)).collect();
            Err(Error::Config(format!(
                "catalog {catalog}: the property '{name}' is not known; of these there are {}",
                there_are.join(", ")
            )))
        }
    }
}

/// A bucket, spoken to in two ways.
#[derive(Clone)]
pub(super) struct Bucket {
    /// Repeats requests that fail. For reading, and for objects whose name nobody else will ever write.
    pub patient: Arc<dyn ObjectStore>,
    /// Sends each request once: a repeated put-if-absent would be refused by its own first try.
    pub once: Arc<dyn ObjectStore>,
}

/// The buckets of a catalog, or of one table whose catalog lends credentials for it.
#[derive(Default)]
pub(super) struct Buckets {
    properties: Properties,
    pub lent: Option<Arc<Lent>>,
    /// By name, and by the beginning of the locations that the credentials are for.
    open: Mutex<HashMap<(BucketName, String), Bucket>>,
}

impl std::fmt::Debug for Buckets {
    /// Without the properties: they are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    /// Of a catalog's properties those that concern object stores are used.
    pub(super) fn new(properties: &Properties) -> Self {
        let ours = properties.iter().filter(|(name, _)| is_store_property(name));
        Buckets { properties: ours.map(|(k, v)| (k.clone(), v.clone())).collect(), ..Buckets::default() }
    }

    /// The same buckets, opened with what a catalog lends.
    pub(super) fn lent(&self, lent: Arc<Lent>) -> Self {
        Buckets { properties: self.properties.clone(), lent: Some(lent), open: Mutex::default() }
    }

    /// The bucket of a location.
    pub(super) fn get(&self, name: &BucketName, location: &str) -> Result<Bucket> {
        let grants = self.lent.as_ref().map(|lent| lent.last());
        let prefix = grants.as_ref().map_or("", |grants| grants.prefix(location)).to_owned();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (name.clone(), prefix);
        if let Some(bucket) = open.get(&known) {
            return Ok(bucket.clone());
        }
        let mut properties = self.properties.clone();
        properties.extend(grants.map(|grants| grants.properties(location)).unwrap_or_default());
        let opening = Opening { name, properties, lent: self.lent.clone(), prefix: known.1.clone() };
        let bucket = opening.bucket().map_err(|e| e.within(format!("{}://{}", name.scheme, name.authority)))?;
        // A catalog that lends for ever new prefixes makes others of no use.
        if open.len() >= BUCKETS_MAX {
            open.clear();
        }
        open.insert(known, bucket.clone());
        Ok(bucket)
    }
}

/// A bucket on its way to be opened.
struct Opening<'o> {
    name: &'o BucketName,
    properties: Properties,
    lent: Option<Arc<Lent>>,
    prefix: String,
}

fn config(error: object_store::Error) -> Error {
    Error::Config(error.to_string())
}

impl Opening<'_> {
    fn get(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is(&self, property: &str, value: bool) -> bool {
        self.get(property).is_some_and(|found| found.eq_ignore_ascii_case(if value { "true" } else { "false" }))
    }

    /// Credentials that come from the catalog each time, where it lends any.
    fn lent<T>(&self, read: impl Fn(&Properties) -> Option<T> + Send + Sync + 'static) -> Option<LentCredentials<T>> {
        let lent = self.lent.as_ref()?;
        read(&lent.last().properties(&self.prefix))?;
        Some(LentCredentials { lent: lent.clone(), prefix: self.prefix.clone(), read: Box::new(read) })
    }

    fn bucket(&self) -> Result<Bucket> {
        let one = |retries, timeout| match self.name.provider {
            Provider::S3 => self.s3(retries, timeout),
            Provider::Google => self.google(retries, timeout),
            Provider::Azure => self.azure(retries, timeout),
        };
        Ok(Bucket { patient: one(RETRIES, REQUEST_TIMEOUT)?, once: one(0, ONCE_TIMEOUT)? })
    }

    fn s3(&self, retries: usize, timeout: Duration) -> Result<Arc<dyn ObjectStore>> {
        let bucket = self.name.authority.as_str();
        let region = self.get("s3.region").or(self.get("client.region"));
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(retry(retries));
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        let endpoint = self.get("s3.endpoint").map(str::to_owned).or_else(|| std::env::var("AWS_ENDPOINT_URL").ok());
        // Amazon wants the bucket in the host's name, most others want it in the path.
        let in_host = if endpoint.is_some() {
            self.is("s3.path-style-access", false)
        } else {
            !self.is("s3.path-style-access", true)
        };
        builder = builder.with_virtual_hosted_style_request(in_host);
        let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        if let Some(endpoint) = endpoint {
            let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
            let host = host.trim_end_matches('/');
            let address = if in_host { format!("{scheme}://{bucket}.{host}") } else { format!("{scheme}://{host}") };
            builder = builder.with_endpoint(address);
        }
        builder = builder.with_client_options(client(plain, timeout));
        if let Some(lent) = self.lent(aws_credential) {
            builder = builder.with_credentials(Arc::new(lent));
        } else if let Some(credential) = aws_credential(&self.properties) {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        } else if self.get("s3.access-key-id").is_some() || self.get("s3.secret-access-key").is_some() {
            let text = "s3.access-key-id and s3.secret-access-key belong together, and one of them is missing";
            return Err(Error::Config(text.into()));
        } else if self.is("s3.remote-signing-enabled", true) {
            let text = "the catalog wants to sign each request itself, which is not supported: have it vend credentials, or set \
                        s3.access-key-id and s3.secret-access-key";
            return Err(Error::Config(text.into()));
        }
        builder.build().map(|store| Arc::new(store) as _).map_err(config)
    }

    fn google(&self, retries: usize, timeout: Duration) -> Result<Arc<dyn ObjectStore>> {
        let host = self.get("gcs.service.host");
        let plain = host.is_some_and(|host| host.starts_with("http://"));
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(&self.name.authority)
            .with_retry(retry(retries))
            .with_client_options(client(plain, timeout));
        if let Some(host) = host {
            builder = builder.with_base_url(host.trim_end_matches('/'));
        }
        if let Some(lent) = self.lent(google_credential) {
            builder = builder.with_credentials(Arc::new(lent));
        } else if let Some(credential) = google_credential(&self.properties) {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        } else if self.is("gcs.no-auth", true) {
            // Writing asks for credentials nevertheless, and the search for them would fail or hang.
            let nobody = GcpCredential { bearer: String::new() };
            builder =
                builder.with_skip_signature(true).with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
        }
        builder.build().map(|store| Arc::new(store) as _).map_err(config)
    }

    fn azure(&self, retries: usize, timeout: Duration) -> Result<Arc<dyn ObjectStore>> {
        let whole = &self.name.authority;
        let (container, host) = whole.split_once('@').ok_or_else(|| {
            Error::Config("write CONTAINER@ACCOUNT.dfs.core.windows.net between the scheme and the path".into())
        })?;
        let account = host.split('.').next().unwrap_or_default().to_owned();
        let address = azure_address(&self.properties, &account, host);
        let plain = address.as_ref().is_some_and(|address| address.starts_with("http://"));
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_account(&account)
            .with_container_name(container)
            .with_use_fabric_endpoint(host.ends_with("fabric.microsoft.com"))
            .with_retry(retry(retries))
            .with_client_options(client(plain, timeout));
        if let Some(address) = address {
            builder = builder.with_endpoint(address);
        }
        let (of_account, of_host) = (account.clone(), host.to_owned());
        let read = move |properties: &Properties| azure_credential(properties, &of_account, &of_host);
        if let Some(lent) = self.lent(read.clone()) {
            builder = builder.with_credentials(Arc::new(lent));
        } else if let Some(credential) = read(&self.properties) {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        } else if let (Some(id), Some(secret), Some(tenant)) =
            (self.get("adls.client-id"), self.get("adls.client-secret"), self.get("adls.tenant-id"))
        {
            builder = builder.with_client_secret_authorization(id, secret, tenant);
        }
        builder.build().map(|store| Arc::new(store) as _).map_err(config)
    }
}

fn value(properties: &Properties, name: &str) -> Option<String> {
    properties.get(name).filter(|value| !value.is_empty()).cloned()
}

fn aws_credential(properties: &Properties) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: value(properties, "s3.access-key-id")?,
        secret_key: value(properties, "s3.secret-access-key")?,
        token: value(properties, "s3.session-token"),
    })
}

fn google_credential(properties: &Properties) -> Option<GcpCredential> {
    Some(GcpCredential { bearer: value(properties, "gcs.oauth2.token")? })
}

/// The value of a property that may have the account's host or name after a dot.
fn of_account(properties: &Properties, name: &str, account: &str, host: &str) -> Option<String> {
    let names = [format!("{name}.{host}"), format!("{name}.{account}"), name.to_owned()];
    names.iter().find_map(|name| value(properties, name))
}

/// A part of an account's connection string: `AccountName=…;AccountKey=…`.
fn connection_part(properties: &Properties, account: &str, host: &str, part: &str) -> Option<String> {
    let whole = of_account(properties, "adls.connection-string", account, host)?;
    let mut pairs = whole.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, value)| value.to_owned())
}

/// Where the account's blobs are, if not at Azure: what Iceberg calls a connection string is either that address or Azure's
/// own string with the address in it.
fn azure_address(properties: &Properties, account: &str, host: &str) -> Option<String> {
    let whole = of_account(properties, "adls.connection-string", account, host)?;
    let address = if whole.starts_with("http://") || whole.starts_with("https://") {
        whole
    } else {
        connection_part(properties, account, host, "BlobEndpoint")?
    };
    Some(address.trim_end_matches('/').to_owned())
}

fn azure_credential(properties: &Properties, account: &str, host: &str) -> Option<AzureCredential> {
    let token = of_account(properties, "adls.sas-token", account, host)
        .or_else(|| connection_part(properties, account, host, "SharedAccessSignature"));
    if let Some(token) = token {
        let pairs = url::form_urlencoded::parse(token.trim_start_matches('?').as_bytes());
        return Some(AzureCredential::SASToken(pairs.into_owned().collect()));
    }
    let names = ["adls.account-key", "adls.auth.shared-key.account.key"];
    let key = names.iter().find_map(|name| value(properties, name));
    let key = key.or_else(|| connection_part(properties, account, host, "AccountKey"))?;
    AzureAccessKey::try_new(&key).ok().map(AzureCredential::AccessKey)
}

fn client(plain: bool, timeout: Duration) -> ClientOptions {
    ClientOptions::new().with_allow_http(plain).with_timeout(timeout).with_connect_timeout(CONNECT_TIMEOUT)
}

fn retry(max_retries: usize) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries, retry_timeout: RETRY_TIMEOUT }
}

#[cfg(test)]
mod tests;

//! Credentials that a catalog lends for the files of one table, renewed before they expire.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::CredentialProvider;

use crate::{Error, Result};

/// A loan is renewed when less than this is left of it, or a quarter of its life where that is less.
const MARGIN_MS: i64 = 5 * 60 * 1000;
/// A catalog that could not renew a loan is asked again after this, as long as the old one holds.
const AGAIN_MS: i64 = 10 * 1000;

/// What a catalog answered about the files of a table.
#[derive(Clone, Default)]
pub struct Grants {
    /// Properties for all files.
    pub config: BTreeMap<String, String>,
    /// Properties for the files whose locations begin so, on top of `config`; of several the longest beginning counts.
    pub by_prefix: Vec<(String, BTreeMap<String, String>)>,
}

impl std::fmt::Debug for Grants {
    /// Without the properties: they are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefixes: Vec<&String> = self.by_prefix.iter().map(|(prefix, _)| prefix).collect();
        f.debug_struct("Grants").field("by_prefix", &prefixes).finish_non_exhaustive()
    }
}

impl Grants {
    fn longest(&self, location: &str) -> Option<&(String, BTreeMap<String, String>)> {
        self.by_prefix.iter().filter(|(prefix, _)| location.starts_with(prefix.as_str())).max_by_key(|(p, _)| p.len())
    }

    /// The beginning of locations that `location` shares its properties with.
    pub(super) fn prefix(&self, location: &str) -> &str {
        self.longest(location).map_or("", |(prefix, _)| prefix)
    }

    /// The properties for `location`.
    pub(super) fn properties(&self, location: &str) -> BTreeMap<String, String> {
        let mut properties = self.config.clone();
        properties.extend(self.longest(location).map(|(_, of_prefix)| of_prefix.clone()).unwrap_or_default());
        properties
    }

    /// When the first of the credentials ends, in milliseconds since 1970.
    fn expires_ms(&self) -> Option<i64> {
        let all = std::iter::once(&self.config).chain(self.by_prefix.iter().map(|(_, properties)| properties));
        let times = all.flatten().filter(|(name, _)| {
            let names = ["s3.session-token-expires-at-ms", "gcs.oauth2.token-expires-at"];
            names.contains(&name.as_str()) || name.starts_with("adls.sas-token-expires-at-ms")
        });
        times.filter_map(|(_, value)| value.parse().ok()).min()
    }
}

/// Who lends.
#[async_trait]
pub trait Lender: Send + Sync {
    /// Asks for new credentials.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the catalog does not answer.
    async fn lend(&self) -> Result<Grants>;
}

/// A loan, and who renews it.
pub struct Lent {
    lender: Box<dyn Lender>,
    held: RwLock<Held>,
    /// Taken by the one request that renews; the others wait for it.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Held {
    grants: Arc<Grants>,
    received_ms: i64,
    /// Never, where the catalog does not say how long the loan holds and nobody was refused.
    renew_at_ms: i64,
    expires_ms: i64,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Held {
    fn new(grants: Grants, now_ms: i64) -> Self {
        let expires_ms = grants.expires_ms().unwrap_or(i64::MAX);
        let life = expires_ms.saturating_sub(now_ms).max(0);
        let renew_at_ms = expires_ms.saturating_sub(MARGIN_MS.min(life / 4));
        Held { grants: Arc::new(grants), received_ms: now_ms, renew_at_ms, expires_ms }
    }
}

impl Lent {
    /// A first loan.
    #[must_use]
    pub fn new(grants: Grants, lender: Box<dyn Lender>) -> Self {
        Lent { lender, held: RwLock::new(Held::new(grants, now_ms())), renewing: tokio::sync::Mutex::default() }
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The catalog sent newer credentials by itself.
    pub fn take(&self, grants: Grants) {
        self.change(|held| *held = Held::new(grants, now_ms()));
    }

    /// A store refused what was lent: it is renewed before the next request, unless it was fresh.
    pub(super) fn doubt(&self) {
        let now = now_ms();
        self.change(|held| {
            if now - held.received_ms >= AGAIN_MS {
                held.renew_at_ms = held.renew_at_ms.min(now);
            }
        });
    }

    /// What was lent last.
    pub(super) fn last(&self) -> Arc<Grants> {
        self.held().grants
    }

    /// What is lent now, renewed if it is about to expire.
    ///
    /// # Errors
    /// As [`Lender::lend`], once the old loan is over.
    pub(super) async fn current(&self) -> Result<Arc<Grants>> {
        let held = self.held();
        if now_ms() < held.renew_at_ms {
            return Ok(held.grants);
        }
        let _one = self.renewing.lock().await;
        let held = self.held();
        if now_ms() < held.renew_at_ms {
            return Ok(held.grants);
        }
        match self.lender.lend().await {
            Ok(grants) => self.take(grants),
            Err(error) if now_ms() < held.expires_ms => {
                tracing::warn!(%error, "credentials for a table's files were not renewed; the old ones still hold");
                self.change(|held| held.renew_at_ms = (now_ms() + AGAIN_MS).min(held.expires_ms));
            }
            Err(error) => return Err(error.within("the credentials for the table's files have expired")),
        }
        Ok(self.last())
    }
}

/// Finds a store's credentials among properties.
pub(super) type ReadCredentials<T> = Box<dyn Fn(&BTreeMap<String, String>) -> Option<T> + Send + Sync>;

/// The credentials for locations that begin alike, as one of the stores takes them.
pub(super) struct LentCredentials<T> {
    pub lent: Arc<Lent>,
    /// The beginning of the locations.
    pub prefix: String,
    pub read: ReadCredentials<T>,
}

impl<T> std::fmt::Debug for LentCredentials<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LentCredentials").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> CredentialProvider for LentCredentials<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        let failed = |e: Error| object_store::Error::Generic { store: "catalog", source: Box::new(e) };
        let grants = self.lent.current().await.map_err(failed)?;
        let missing = || {
            let text = "the catalog lends no credentials for these files any more; check its configuration";
            failed(Error::Unreachable(text.into()))
        };
        (self.read)(&grants.properties(&self.prefix)).map(Arc::new).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests;

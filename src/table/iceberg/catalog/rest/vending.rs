//! Credentials for a table's files, which the server sends with the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, Weak};

use async_trait::async_trait;
use serde::Deserialize;

use super::{RestCatalog, TABLE_BODY_BYTES_MAX, read_body};
use crate::error::{Error, Result};
use crate::files::{Grants, Lender, Lent, Store, is_store_property};
use crate::table::iceberg::catalog::TableName;

/// Asks for credentials instead of none, or of signing each request remotely.
pub(super) const DELEGATION: (&str, &str) = ("x-iceberg-access-delegation", "vended-credentials");

/// Properties that are credentials: whoever sets one needs none from the server.
const OWN: [&str; 5] =
    ["s3.access-key-id", "gcs.oauth2.token", "adls.account-key", "adls.sas-token", "adls.client-secret"];

/// Whether the server is to be asked for credentials.
pub(super) fn wanted(properties: &BTreeMap<String, String>) -> bool {
    !OWN.iter().any(|name| properties.get(*name).is_some_and(|value| !value.is_empty()))
}

/// The part of an answer about a table that concerns its files.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Loan {
    #[serde(default)]
    config: HashMap<String, Option<String>>,
    #[serde(default)]
    storage_credentials: Vec<StorageCredential>,
}

#[derive(Deserialize)]
struct StorageCredential {
    prefix: String,
    #[serde(default)]
    config: HashMap<String, Option<String>>,
}

impl Loan {
    fn grants(self) -> Grants {
        let ours = |all: HashMap<String, Option<String>>| -> BTreeMap<String, String> {
            all.into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .filter(|(n, _)| is_store_property(n))
                .collect()
        };
        let by_prefix = self.storage_credentials.into_iter().map(|one| (one.prefix, ours(one.config)));
        Grants { by_prefix: by_prefix.collect(), config: ours(self.config) }
    }
}

/// The loans of a catalog's tables, by table.
#[derive(Default)]
pub(super) struct Loans {
    /// Of tables that are loaded and not open yet.
    waiting: HashMap<String, Grants>,
    /// Of tables that are open.
    open: HashMap<String, Weak<Lent>>,
}

impl RestCatalog {
    /// Keeps what the server sent with a table. A table that is open uses it from now on.
    pub(super) fn keep(&self, table: &TableName, loan: Loan) {
        let grants = loan.grants();
        if grants.config.is_empty() && grants.by_prefix.is_empty() {
            return;
        }
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        match loans.open.get(&table.to_string()).and_then(Weak::upgrade) {
            Some(lent) => lent.take(grants),
            None => drop(loans.waiting.insert(table.to_string(), grants)),
        }
    }

    /// The store of a table that was loaded, where the server lent something for it.
    pub(super) fn lent_store(self: Arc<Self>, table: &TableName) -> Option<Store> {
        let name = table.to_string();
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = match loans.open.get(&name).and_then(Weak::upgrade) {
            Some(lent) => lent,
            None => {
                let lender = TableLender { catalog: Arc::downgrade(&self), table: table.clone() };
                Arc::new(Lent::new(loans.waiting.remove(&name)?, Box::new(lender)))
            }
        };
        loans.open.retain(|_, open| open.strong_count() > 0);
        loans.open.insert(name, Arc::downgrade(&lent));
        Some(self.store.lent(lent))
    }

    async fn loan(&self, table: &TableName) -> Result<Grants> {
        let what = format!("renew the credentials of table {table}");
        // Without the snapshots that nobody will look at.
        let answer = self.get(&self.table_path(table), &[("snapshots", "refs")], &what).await?;
        if !answer.status().is_success() {
            return Err(self.error(answer, &what).await);
        }
        let body = read_body(answer, TABLE_BODY_BYTES_MAX).await.map_err(|e| self.unreachable(&what, &e))?;
        // The text is not shown: it holds secrets.
        let loan = serde_json::from_slice::<Loan>(&body);
        Ok(loan.map_err(|_| self.unreachable(&what, "its answer cannot be read"))?.grants())
    }
}

/// Asks the catalog for the table again.
struct TableLender {
    catalog: Weak<RestCatalog>,
    table: TableName,
}

#[async_trait]
impl Lender for TableLender {
    async fn lend(&self) -> Result<Grants> {
        let catalog = self.catalog.upgrade().ok_or_else(|| Error::Internal("the catalog is closed".into()))?;
        catalog.loan(&self.table).await
    }
}

//! A schema registry inside this process: the REST interface that Kafka clients know, for Avro, JSON Schema and Protobuf, in memory.

mod compatibility;
mod http;
mod store;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::compatibility::Level;
use self::http::{Shared, lock};
use self::store::{Candidate, Refusal, Store};
use crate::avro::SchemaKind;
use crate::{Error, Result};

/// A request body may have so many bytes; a longer one is refused with 413.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long requests that are under way may take to end after a stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// A running registry. It forgets everything when it stops; ids then start at 1 again, so it must not outlive, nor be
/// outlived by, the broker whose records carry them.
///
/// What differs from Confluent's registry: versions are compared in Avro only, no references, no `normalize`, no modes or contexts, no
/// authentication. The same text (but for white space, order of attributes and `{"type": "x"}` for `"x"`) has the same
/// id in all subjects, and gets it again after it was deleted.
pub struct Registry {
    store: Shared,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Registry {
    /// Serves on `listen`; port 0 takes a free one. Needs a Tokio runtime, on which the server runs until
    /// [`stop`](Self::stop) or drop.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the address is taken or not of this machine.
    pub async fn start(listen: SocketAddr) -> Result<Registry> {
        let refused = |error: std::io::Error| {
            Error::Unreachable(format!(
                "the embedded registry cannot listen on {listen}: {error}; choose another address or end what uses it"
            ))
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let store: Shared = Arc::new(Mutex::new(Store::new()));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = axum::serve(listener, http::router(Arc::clone(&store))).with_graceful_shutdown(async {
            // A dropped sender ends the server as well as a word from it.
            let _ = stopped.await;
        });
        let server = tokio::spawn(async move {
            // axum retries failing accepts by itself and returns no error.
            let _ = served.await;
        });
        Ok(Registry { store, address, stop: Some(stop), server })
    }

    /// `http://host:port`, for `schema_registry.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds `schema` to `subject` without a detour over HTTP, under the same rules; returns the schema's id.
    ///
    /// # Errors
    /// [`Error::No`] when the schema is incompatible, [`Error::Config`] when it is no Avro schema,
    /// [`Error::Unreachable`] when the registry is full.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        self.register_as(SchemaKind::Avro, subject, schema)
    }

    /// As [`Registry::register`], of a schema in this language.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_as(&self, kind: SchemaKind, subject: &str, schema: &str) -> Result<u32> {
        let candidate = Candidate::parse(kind, schema).map_err(|refusal| explain(subject, refusal))?;
        lock(&self.store).register(subject, candidate).map_err(|refusal| explain(subject, refusal))
    }

    /// Sets the compatibility level of a subject, or of all others where `subject` is none.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the registry is full.
    pub fn set_level(&self, subject: Option<&str>, level: Level) -> Result<()> {
        let mut store = lock(&self.store);
        match subject {
            Some(subject) => store.set_own_level(subject, level).map_err(|refusal| explain(subject, refusal)),
            None => {
                store.set_level(level);
                Ok(())
            }
        }
    }

    /// Stops listening, lets requests under way end for a moment, and forgets everything.
    pub async fn stop(mut self) {
        self.stop.take();
        if tokio::time::timeout(STOP_WITHIN, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("address", &self.address).finish_non_exhaustive()
    }
}

fn explain(subject: &str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Incompatible(_, details) => Error::No(format!(
            "subject {subject}: the schema is incompatible with an earlier version: {}",
            details.join(", ")
        )),
        Refusal::InvalidSchema(why) => Error::Config(format!("subject {subject}: {why}")),
        Refusal::Full => Error::Unreachable(format!("subject {subject}: the embedded registry is full")),
        other => Error::Internal(format!("subject {subject}: {other:?}")),
    }
}

#[cfg(test)]
mod tests;

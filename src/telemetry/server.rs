//! `/metrics`, `/livez` and `/readyz` over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Reason, Telemetry};
use crate::{Error, Result};

/// How long requests under way may take when the process ends.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The HTTP server; it ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    /// Listens before anything else of the process begins, so that a wrong address is found at once.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when another program has the port, [`Error::Config`] when the address is not of this machine
    /// or may not be used.
    pub async fn start(listen: SocketAddr, telemetry: Arc<Telemetry>) -> Result<Server> {
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::Unreachable(format!(
                "observe.listen: {listen} is in use by another program: end it, or choose another port"
            )),
            _ => Error::Config(format!("observe.listen: cannot listen on {listen}: {error}; choose another address")),
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let served = axum::serve(listener, router(telemetry)).with_graceful_shutdown(stopped);
        let served = tokio::spawn(async move {
            // axum retries failing accepts by itself and returns no error.
            let _ = served.await;
        });
        tracing::info!(%address, "metrics and health are served");
        Ok(Server { address, stop, served })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests under way end for a moment, and stops.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_WITHIN, &mut self.served).await.is_err() {
            self.served.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn router(telemetry: Arc<Telemetry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(telemetry)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry.scrape()).into_response()
}

async fn livez(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let stuck = telemetry.stuck();
    verdict(stuck.is_empty(), &json!({"alive": stuck.is_empty(), "stuck": stuck}))
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let now = telemetry.now_ms();
    let reasons: Vec<Value> = telemetry.reasons().iter().map(|reason| shown(reason, now)).collect();
    verdict(reasons.is_empty(), &json!({"ready": reasons.is_empty(), "reasons": reasons}))
}

fn verdict(good: bool, body: &Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

fn shown(reason: &Reason, now_ms: i64) -> Value {
    let time = |ms| chrono::DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339());
    json!({
        "pipeline": reason.pipeline,
        "dependency": reason.task.as_ref().map(|task| task.dependency.name()),
        "subject": reason.task.as_ref().map(|task| &*task.subject).filter(|subject| !subject.is_empty()),
        "since": reason.since_ms.and_then(time),
        "seconds": reason.since_ms.map(|since| (now_ms - since).max(0) / 1000),
        "error": reason.error,
    })
}

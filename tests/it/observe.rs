//! What a run shows of itself: metrics, readiness, liveness.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use firn::embedded::Registry;
use firn::service::{self, RunOptions};
use firn::settings::Settings;
use firn::{Error, Result};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::run::{V2, World, trade};

const LIMIT: Duration = Duration::from_secs(90);

/// A run that is observed.
struct Observed {
    port: u16,
    stop: CancellationToken,
    run: JoinHandle<Result<()>>,
}

impl Observed {
    /// Runs the world's pipeline with metrics on a free port.
    fn start(world: &World) -> Observed {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = Settings::load(&world.config()).unwrap();
        settings.observe.listen = Some(([127, 0, 0, 1], port).into());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = tokio::spawn(async move { service::run(&settings, &RunOptions::default(), &stopped).await });
        Observed { port, stop, run }
    }

    /// Status and body; none where nobody listens yet.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.unwrap()))
    }

    /// Waits until `/readyz` has this status and its reasons, as text, contain `part`.
    async fn ready(&self, status: u16, part: &str) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let answer = self.get("/readyz").await;
            if let Some((found, body)) = &answer
                && *found == status
                && body.contains(part)
            {
                return serde_json::from_str(body).unwrap();
            }
            assert!(Instant::now() < end, "not {status} with {part:?}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The value of the one line of `/metrics` that begins so.
    async fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics").await?;
        assert_eq!(status, 200);
        text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.trim().parse().ok())
    }

    async fn metric_becomes(&self, name_and_labels: &str, expected: f64) {
        self.metric_passes(name_and_labels, |value| value == expected).await;
    }

    /// Waits until a metric has a value that passes.
    async fn metric_passes(&self, name_and_labels: &str, passes: impl Fn(f64) -> bool) {
        let end = Instant::now() + LIMIT;
        while !self.metric(name_and_labels).await.is_some_and(&passes) {
            let (now, all) = (Instant::now(), self.get("/metrics").await);
            assert!(now < end, "{name_and_labels} does not come in {all:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.run).await.unwrap().unwrap().unwrap();
    }
}

const TABLE: &str = r#"{pipeline="p",table="lake.market.trades"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_what_it_does_and_is_ready_once_its_table_is_loaded() {
    let world = World::new().await;
    world.write_settings("skip");
    world.send(0, &(0..7).map(|id| trade(1, id % 3, id)).collect::<Vec<_>>());
    world.send(1, &[b"\x07rubbish".to_vec()]);
    let observed = Observed::start(&world);
    let body = observed.ready(200, "").await;
    assert_eq!(body, serde_json::json!({"ready": true, "reasons": []}));
    observed.metric_becomes(&format!("firn_events_total{TABLE}"), 7.0).await;
    observed.metric_becomes(&format!("firn_index_keys{TABLE}"), 3.0).await;
    observed.metric_becomes(r#"firn_bad_records_total{pipeline="p",reason="bad_magic_byte"}"#, 1.0).await;
    observed.metric_becomes(r#"firn_consumer_lag{partition="0",pipeline="p",topic="trades"}"#, 0.0).await;
    observed.metric_becomes(&format!("firn_buffered_bytes{TABLE}"), 0.0).await;
    observed.metric_passes(&format!("firn_commits_total{TABLE}"), |commits| commits >= 1.0).await;
    observed.metric_passes(&format!("firn_commit_seconds_count{TABLE}"), |commits| commits >= 1.0).await;
    observed.metric_becomes("firn_ready", 1.0).await;
    let (status, body) = observed.get("/livez").await.unwrap();
    assert_eq!((status, body.trim()), (200, r#"{"alive":true,"stuck":[]}"#));
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_what_does_not_answer_and_heals_by_itself() {
    let mut world = World::new().await;
    world.send(0, &[trade(1, 1, 1)]);
    let observed = Observed::start(&world);
    observed.metric_becomes(&format!("firn_events_total{TABLE}"), 1.0).await;
    observed.ready(200, "").await;

    // The registry: a record under a schema that nobody knows yet waits for it.
    let address = world.registry_url.trim_start_matches("http://").parse().unwrap();
    world.registry.take().unwrap().stop().await;
    world.send(0, &[trade(2, 2, 2)]);
    let body = observed.ready(503, "schema_registry").await;
    let reason = &body["reasons"][0];
    assert_eq!((reason["pipeline"].as_str(), reason["dependency"].as_str()), (Some("p"), Some("schema_registry")));
    assert!(
        reason["error"].as_str().is_some_and(|e| !e.is_empty() && e != "no answer yet") && reason["since"].is_string(),
        "{body}"
    );
    let stalled = r#"firn_stalled_seconds{dependency="schema_registry",pipeline="p",subject=""}"#;
    observed.metric_passes(stalled, |seconds| seconds > 0.0).await;
    let registry = Registry::start(address).await.unwrap();
    registry.register("trades-value", crate::run::V1).unwrap();
    registry.register("trades-value", V2).unwrap();
    observed.metric_becomes(&format!("firn_events_total{TABLE}"), 2.0).await;
    observed.ready(200, "").await;
    observed.metric_becomes(stalled, 0.0).await;

    // The disk: where the table's data files go there is no folder any more.
    let data = world.folder.path().join("w/market/trades/data");
    let aside = world.folder.path().join("aside");
    std::fs::rename(&data, &aside).unwrap();
    std::fs::write(&data, "in the way").unwrap();
    world.send(0, &[trade(2, 3, 3)]);
    let body = observed.ready(503, "lake.market.trades").await;
    assert_eq!(body["reasons"][0]["dependency"], "table", "{body}");
    observed.metric_passes(&format!("firn_buffered_bytes{TABLE}"), |bytes| bytes > 0.0).await;
    std::fs::remove_file(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    observed.metric_becomes(&format!("firn_events_total{TABLE}"), 3.0).await;
    observed.ready(200, "").await;
    observed.end().await;
    assert_eq!(world.ids().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_ends_a_run_before_anything_begins() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Settings::load(&world.config()).unwrap();
    settings.observe.listen = Some(taken.local_addr().unwrap());
    let error = service::run(&settings, &RunOptions::default(), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(m) if m.contains("observe.listen") && m.contains("in use")), "{error}");
    assert!(!world.folder.path().join("c.db").exists(), "nothing was begun");
}

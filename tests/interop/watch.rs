//! What a running firn shows of itself.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use crate::stack::block_on;

/// The metrics and health of a firn on a port of its own.
pub struct Watch {
    port: u16,
}

impl Watch {
    /// Adds a free port to a `firn.yaml`.
    pub fn configure(config: &Path) -> Watch {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = std::fs::read_to_string(config).unwrap();
        std::fs::write(config, format!("{text}observe: {{listen: \"127.0.0.1:{port}\"}}\n")).unwrap();
        Watch { port }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        block_on(async {
            let answer = reqwest::get(url).await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    }

    /// Whether it is ready, and the reasons why not; none while nobody listens.
    pub fn ready(&self) -> Option<(bool, Vec<Value>)> {
        let (status, body) = self.get("/readyz")?;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, if body["ready"] == true { 200 } else { 503 }, "{body}");
        Some((status == 200, body["reasons"].as_array().unwrap().clone()))
    }

    /// The value of a metric with these labels, in alphabetical order; 0 where it is not there.
    pub fn metric(&self, name_and_labels: &str) -> f64 {
        let text = self.get("/metrics").map(|(_, text)| text).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }
}

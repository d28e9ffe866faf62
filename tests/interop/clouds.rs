//! Tables of both formats in the stores of Azure and Google: the same code as on S3, another protocol below.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{FirnProcess, catch_up, firn, until_caught_up};
use crate::proxy::{Fate, Proxy, Request};
use crate::rows::assert_same_rows;
use crate::s3::{DELTA, ICEBERG, firn_rows};
use crate::scenario::{COLUMNS, Scenario};
use crate::stack::{Catalog, Stack};
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloud {
    Azure,
    Google,
}

impl Cloud {
    /// Where its server is.
    fn url(self) -> &'static str {
        match self {
            Cloud::Azure => &Stack::get().azure.0,
            Cloud::Google => &Stack::get().gcs,
        }
    }

    /// What every table's location begins with.
    fn root(self) -> &'static str {
        match self {
            Cloud::Azure => "abfss://lake@devstoreaccount1.dfs.core.windows.net",
            Cloud::Google => "gs://lake",
        }
    }

    /// A catalog's properties for whoever speaks to the store at `url`.
    fn properties(self, url: &str) -> String {
        match self {
            Cloud::Azure => {
                let key = &Stack::get().azure.1;
                format!("adls.connection-string: \"{url}\", adls.account-key: \"{key}\"")
            }
            Cloud::Google => format!("gcs.service.host: \"{url}\", gcs.no-auth: true"),
        }
    }

    /// The options with which deltalake opens it.
    fn deltalake(self) -> Value {
        match self {
            Cloud::Azure => json!({
                "azure_storage_account_name": "devstoreaccount1", "azure_storage_account_key": Stack::get().azure.1,
                "azure_storage_endpoint": self.url(), "azure_allow_http": "true", "allow_http": "true",
            }),
            Cloud::Google => {
                json!({"google_base_url": self.url(), "google_skip_signature": "true", "allow_http": "true"})
            }
        }
    }

    /// The properties with which pyiceberg opens it.
    fn pyiceberg(self) -> Vec<(String, String)> {
        let (url, key) = (self.url(), &Stack::get().azure.1);
        let connection = format!("AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={url};");
        let pairs = match self {
            Cloud::Azure => vec![("adls.account-name", "devstoreaccount1"), ("adls.connection-string", &connection)],
            Cloud::Google => vec![
                ("gcs.service.host", url),
                ("gcs.oauth2.token", "unused"),
                // The end of the year 2100.
                ("gcs.oauth2.token-expires-at", "4133980799000"),
            ],
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Whether a request is a put-if-absent below a folder of this name.
    fn is_conditional_put(self, request: &Request, folder: &str) -> bool {
        let header = match self {
            Cloud::Azure => "if-none-match",
            Cloud::Google => "x-goog-if-generation-match",
        };
        // Google's names come encoded but for letters and digits.
        let path = request.path.replace("%5F", "_");
        request.method == "PUT" && request.header(header).is_some() && path.contains(folder)
    }

    /// A `firn.yaml` whose catalogs are in the store at `url`.
    fn config(self, scenario: &Scenario, url: &str, tables: &[&str]) -> PathBuf {
        let (stack, topic) = (scenario.stack, &scenario.topic);
        let (root, properties) = (self.root(), self.properties(url));
        let tables = tables.join(", ").replace("TABLE", &scenario.table());
        let text = format!(
            "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs:\n\
             \x20 lake: {{type: iceberg-sql, uri: \"sqlite:{}\", warehouse: \"{root}/iceberg\", properties: {{{properties}}}}}\n\
             \x20 delta: {{type: delta, warehouse: \"{root}/delta\", properties: {{{properties}}}}}\n\
             pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    commit: {{interval: 500ms}}\n    tables: [{tables}]\n\
             state_dir: ./state\n",
            stack.kafka.plaintext,
            stack.registry.url,
            // A catalog of its own: Trino looks at all tables of the shared one, and cannot open these.
            scenario.dir.path().join("catalog.db").display(),
        );
        let path = scenario.dir.path().join("firn.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn has_deltalake_do(self, scenario: &Scenario, request: Value) -> Value {
        let location = format!("{}/delta/{}", self.root(), scenario.table().replacen('.', "/", 1));
        scenario.stack.deltalake_at(&location, self.deltalake(), request)
    }

    #[track_caller]
    fn delta_is_right(self, scenario: &Scenario, config: &std::path::Path) {
        let rows = self.has_deltalake_do(scenario, json!({"op": "rows", "columns": COLUMNS}));
        assert_same_rows(&serde_json::from_value::<Vec<Vec<String>>>(rows).unwrap(), &scenario.expected());
        assert_same_rows(&firn_rows(config, &format!("delta.{}", scenario.table())), &scenario.expected());
    }

    #[track_caller]
    fn iceberg_is_right(self, scenario: &Scenario, config: &std::path::Path) {
        let mut properties = self.pyiceberg();
        let uri = format!("sqlite:///{}", scenario.dir.path().join("catalog.db").display());
        let warehouse = format!("{}/iceberg", self.root());
        for (name, value) in [("type", "sql"), ("uri", &uri), ("warehouse", &warehouse)] {
            properties.push((name.to_owned(), value.to_owned()));
        }
        let all = scenario.stack.pyiceberg_rows(&properties, &scenario.table(), None);
        let rows: Vec<Vec<String>> = all.into_iter().map(|row| row.into_iter().take(4).collect()).collect();
        assert_same_rows(&rows, &scenario.expected());
        assert_same_rows(&firn_rows(config, &format!("lake.{}", scenario.table())), &scenario.expected());
    }
}

fn both_formats_are_read_alike(cloud: Cloud) {
    let mut scenario = Scenario::new("cloud", Catalog::Sqlite, 2);
    let config = cloud.config(&scenario, cloud.url(), &[ICEBERG, DELTA]);
    for _ in 0..3 {
        scenario.produce(1_000, 300);
        catch_up(&config);
        cloud.iceberg_is_right(&scenario, &config);
        cloud.delta_is_right(&scenario, &config);
    }
    let checked = firn(["check", "-c", &config.display().to_string()]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn both_formats_on_azure_are_read_alike() {
    if wanted() {
        both_formats_are_read_alike(Cloud::Azure);
    }
}

#[test]
fn both_formats_on_google_are_read_alike() {
    if wanted() {
        both_formats_are_read_alike(Cloud::Google);
    }
}

fn a_version_whose_answer_is_lost_counts_once(cloud: Cloud) {
    let fates = [Fate::LoseAnswer, Fate::AnswerWith(503), Fate::Repeat, Fate::Drop, Fate::AnswerWith(412)];
    let mut scenario = Scenario::new("cloudlost", Catalog::Sqlite, 1);
    let (met, mut versions) = (Arc::new(AtomicUsize::new(0)), 0);
    let counter = Arc::clone(&met);
    let proxy = Proxy::start(
        cloud.url(),
        Box::new(move |request| {
            let of_log = cloud.is_conditional_put(request, "_delta_log");
            versions += usize::from(of_log);
            // The first version makes the table, and every second one arrives in peace.
            if !of_log || versions % 2 == 1 {
                return Fate::Pass;
            }
            fates[counter.fetch_add(1, Ordering::SeqCst) % fates.len()].clone()
        }),
    );
    let config = cloud.config(&scenario, &proxy.url, &[DELTA]);
    scenario.produce(200, 100);
    let mut process = FirnProcess::run(&config, &[]);
    let end = Instant::now() + LIMIT;
    while met.load(Ordering::SeqCst) < 5 {
        assert!(process.is_running() && Instant::now() < end, "{}", process.stderr());
        scenario.produce(50, 100);
        std::thread::sleep(Duration::from_millis(150));
    }
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    catch_up(&config);
    cloud.delta_is_right(&scenario, &config);
}

#[test]
fn a_version_on_azure_whose_answer_is_lost_counts_once() {
    if wanted() {
        a_version_whose_answer_is_lost_counts_once(Cloud::Azure);
    }
}

#[test]
fn a_version_on_google_whose_answer_is_lost_counts_once() {
    if wanted() {
        a_version_whose_answer_is_lost_counts_once(Cloud::Google);
    }
}

#[test]
fn a_store_of_either_that_replaces_what_it_was_told_to_keep_is_refused() {
    if !wanted() {
        return;
    }
    for cloud in [Cloud::Azure, Cloud::Google] {
        let mut scenario = Scenario::new("cloudcareless", Catalog::Sqlite, 1);
        let mut probes = 0;
        let proxy = Proxy::start(
            cloud.url(),
            Box::new(move |request| {
                let probe = cloud.is_conditional_put(request, "_firn_probe");
                probes += usize::from(probe);
                if probe && probes % 2 == 0 { Fate::Refuse(201, String::new()) } else { Fate::Pass }
            }),
        );
        let config = cloud.config(&scenario, &proxy.url, &[DELTA]);
        scenario.produce(20, 10);
        let (code, stderr) = until_caught_up(&config, LIMIT);
        assert_eq!(code, 2, "{cloud:?}: {stderr}");
        assert!(stderr.contains("conditional writes"), "{cloud:?}: {stderr}");
    }
}

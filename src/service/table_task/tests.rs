use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::service::testing::table;
use crate::settings::Start;
use crate::source::{Cluster, TopicSelection};
use crate::telemetry::Telemetry;

/// A run of the pipeline may end while the broker is away, and the next one begin: what the first still asked the broker would be
/// asked for ever, once more for each run, with its batch held in memory.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cluster = Cluster::connect(&nobody, &BTreeMap::new(), Duration::from_millis(20)).unwrap();
    let topics = TopicSelection::parse(&["t".into()]).unwrap();
    let starts = Arc::new(Starts { cluster, topics, start: Start::Earliest, first: BTreeSet::new() });
    let telemetry = Arc::new(Telemetry::new(Vec::new()).unwrap());
    let (answer, mut answers) = mpsc::channel(1);
    let pipeline = telemetry.pipeline("p", &["lake.a.t".into()]);
    let task = TableTask::new(0, Arc::new(table(&folder).await), "p", starts.clone(), answer, pipeline);
    task.spawn(Action::Inspect);
    drop(task);

    let under_way = || Arc::strong_count(&starts) > 1;
    assert!(tokio::time::timeout(Duration::from_millis(500), answers.recv()).await.is_err(), "it asks again and again");
    assert!(under_way());
    drop(answers);
    tokio::time::timeout(Duration::from_secs(30), async {
        while under_way() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is given up");
}

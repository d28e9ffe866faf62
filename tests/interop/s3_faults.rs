//! An object store on a bad day: lost answers, refusals, outages, credentials that end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::process::{FirnProcess, catch_up, eventually, until_caught_up};
use crate::proxy::{Fate, Proxy, Request};
use crate::rows::assert_same_rows;
use crate::s3::{DELTA, ICEBERG, config, delta_is_right, iceberg_is_right, register, scenario};
use crate::scenario::{COLUMNS, Scenario};
use crate::stack::{Stack, block_on, unique};
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(90);

/// Whether it is a put-if-absent of a version of a Delta log.
fn is_version(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with(".json") && request.header("if-none-match").is_some()
}

fn stop(process: &mut FirnProcess) {
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
}

#[test]
fn a_version_whose_answer_is_lost_counts_once() {
    if !wanted() {
        return;
    }
    let fates = [
        Fate::LoseAnswer,
        Fate::AnswerWith(503),
        Fate::Repeat,
        Fate::Drop,
        Fate::Refuse(409, String::new()),
        Fate::AnswerWith(412),
    ];
    let mut scenario = scenario("s3lost", 2);
    let (met, mut versions) = (Arc::new(AtomicUsize::new(0)), 0);
    let counter = Arc::clone(&met);
    let proxy = Proxy::start(
        &Stack::get().s3.url,
        Box::new(move |request| {
            // The first version makes the table, and every second one arrives in peace.
            versions += usize::from(is_version(request));
            if !is_version(request) || versions % 2 == 1 {
                return Fate::Pass;
            }
            fates[counter.fetch_add(1, Ordering::SeqCst) % fates.len()].clone()
        }),
    );
    let config = config(&scenario, &proxy.url, &[DELTA]);
    scenario.produce(300, 150);
    let mut process = FirnProcess::run(&config, &[]);
    let end = Instant::now() + LIMIT;
    while met.load(Ordering::SeqCst) < 12 {
        assert!(process.is_running() && Instant::now() < end, "{}", process.stderr());
        scenario.produce(50, 150);
        std::thread::sleep(Duration::from_millis(150));
    }
    stop(&mut process);
    catch_up(&config);
    let in_trino = register(&scenario);
    delta_is_right(&scenario, &config, &in_trino);
}

#[test]
fn a_store_that_replaces_what_it_was_told_to_keep_is_refused() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("careless", 1);
    let (puts, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (probes, others) = (Arc::clone(&puts), Arc::clone(&written));
    let proxy = Proxy::start(
        &Stack::get().s3.url,
        Box::new(move |request| match request.method == "PUT" {
            true if request.path.contains("_firn_probe") => match probes.fetch_add(1, Ordering::SeqCst) {
                0 => Fate::Pass,
                _ => Fate::Refuse(200, String::new()),
            },
            put => {
                others.fetch_add(usize::from(put), Ordering::SeqCst);
                Fate::Pass
            }
        }),
    );
    let config = config(&scenario, &proxy.url, &[DELTA]);
    let checked = crate::process::firn(["check", "-c", &config.display().to_string()]);
    assert_eq!(checked.status.code(), Some(2), "{}", String::from_utf8_lossy(&checked.stdout));
    puts.store(0, Ordering::SeqCst);
    scenario.produce(20, 10);
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("conditional writes (If-None-Match)"), "{stderr}");
    assert_eq!((puts.load(Ordering::SeqCst), written.load(Ordering::SeqCst)), (2, 0), "nothing else was written");
}

#[test]
fn a_busy_store_is_waited_for_and_one_table_s_outage_loses_nothing() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("outage", 2);
    let down = Arc::new(AtomicBool::new(false));
    let (is_down, mut count) = (Arc::clone(&down), 0usize);
    let slow = "<Error><Code>SlowDown</Code></Error>";
    let proxy = Proxy::start(
        &Stack::get().s3.url,
        Box::new(move |request| {
            count += 1;
            match request.path.contains("/delta/") {
                true if is_down.load(Ordering::SeqCst) => Fate::Refuse(503, slow.into()),
                // A bad day for everyone: each eleventh request is refused, each thirteenth answer lost.
                _ if count % 11 == 0 => Fate::Refuse(503, slow.into()),
                _ if count % 13 == 0 => Fate::LoseAnswer,
                _ => Fate::Pass,
            }
        }),
    );
    let config = config(&scenario, &proxy.url, &[ICEBERG, DELTA]);
    scenario.produce(500, 200);
    let mut process = FirnProcess::run(&config, &[]);
    process.wait_for_stderr("commit written", LIMIT);
    down.store(true, Ordering::SeqCst);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        assert!(process.is_running(), "{}", process.stderr());
        scenario.produce(100, 200);
        std::thread::sleep(Duration::from_millis(200));
    }
    process.wait_for_stderr("does not answer; waiting", LIMIT);
    down.store(false, Ordering::SeqCst);
    let (table, expected) = (scenario.table(), scenario.expected());
    eventually("both tables have everything", LIMIT, || {
        let rows = |catalog: &str| crate::s3::firn_rows(&config, &format!("{catalog}.{table}"));
        ["lake", "delta"].iter().all(|catalog| crate::rows::difference(&rows(catalog), &expected).is_none())
    });
    stop(&mut process);
    let in_trino = register(&scenario);
    iceberg_is_right(&scenario, &config);
    delta_is_right(&scenario, &config, &in_trino);
}

/// Requests of a commit by kind, once the writer runs: each commit supersedes rows of two older files.
fn requests_of_a_commit(table: &str) -> BTreeMap<String, usize> {
    let mut scenario = scenario("requests", 1);
    let (seen, counting) = (Arc::new(Mutex::new(BTreeMap::<String, usize>::new())), Arc::new(AtomicBool::new(false)));
    let (sink, on) = (Arc::clone(&seen), Arc::clone(&counting));
    let proxy = Proxy::start(
        &Stack::get().s3.url,
        Box::new(move |request| {
            if on.load(Ordering::SeqCst) {
                *sink.lock().unwrap().entry(request.method.clone()).or_default() += 1;
            }
            Fate::Pass
        }),
    );
    let config = config(&scenario, &proxy.url, &[table]);
    scenario.produce(500, 50);
    let mut process = FirnProcess::run(&config, &[]);
    let commits = |process: &FirnProcess| process.stderr().matches("commit written").count();
    process.wait_for_stderr("commit written", LIMIT);
    let one_more = |scenario: &mut Scenario, process: &mut FirnProcess| {
        let before = commits(process);
        scenario.produce(50, 50);
        eventually("a commit", LIMIT, || commits(process) > before);
        std::thread::sleep(Duration::from_millis(700));
        commits(process) - before
    };
    for _ in 0..3 {
        one_more(&mut scenario, &mut process);
    }
    counting.store(true, Ordering::SeqCst);
    let made: usize = (0..6).map(|_| one_more(&mut scenario, &mut process)).sum();
    counting.store(false, Ordering::SeqCst);
    stop(&mut process);
    let seen = seen.lock().unwrap();
    seen.iter().map(|(method, n)| (method.clone(), n.div_ceil(made))).collect()
}

#[test]
fn a_commit_takes_a_bounded_number_of_requests() {
    if !wanted() {
        return;
    }
    for (table, most) in [(DELTA, DELTA_REQUESTS_MAX), (ICEBERG, ICEBERG_REQUESTS_MAX)] {
        let requests = requests_of_a_commit(table);
        crate::say(&format!("requests of a commit to {table}: {requests:?}"));
        assert!(requests.values().sum::<usize>() <= most, "{table}: {requests:?}, at most {most} are expected");
        assert_eq!(requests.get("DELETE"), None, "writers delete nothing");
    }
}

/// One more than docs/performance.md has: a look at an idle table may fall among them.
const DELTA_REQUESTS_MAX: usize = 6;
const ICEBERG_REQUESTS_MAX: usize = 7;

/// Seconds for which lent credentials of the test are good.
const LOAN_SECONDS: u64 = 4;

/// When the loans made so far end. The one of number n is to the account n of those that the server has for loans.
static LOANS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
const ACCOUNTS: usize = 9;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A table as the catalog sends it, with credentials added: the wrong ones for all files, the right ones for its own.
fn lend(body: &str) -> String {
    let Ok(mut table) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    let Some(location) = table["metadata"]["location"].as_str().map(str::to_owned) else { return body.to_owned() };
    let (secret, end) = (&Stack::get().s3.secret, now_ms() + LOAN_SECONDS * 1000);
    let mut loans = LOANS.lock().unwrap();
    let account = format!("loan-{}", loans.len() % ACCOUNTS + 1);
    loans.push(end);
    table["config"] = json!({"s3.access-key-id": "nobody", "s3.secret-access-key": "wrong"});
    table["storage-credentials"] = json!([
        {"prefix": "s3://", "config": {"s3.access-key-id": "nobody", "s3.secret-access-key": "wrong"}},
        {"prefix": location, "config": {
            "s3.access-key-id": account, "s3.secret-access-key": secret, "s3.session-token-expires-at-ms": end.to_string(),
        }},
    ]);
    table.to_string()
}

/// When the loan ends with which a request is signed; nothing where it is not signed with one.
fn end_of_loan(request: &Request) -> Option<u64> {
    let account = request.header("authorization")?.split("Credential=loan-").nth(1)?.split('/').next()?;
    let account: usize = account.parse().ok()?;
    LOANS.lock().unwrap().iter().skip(account - 1).step_by(ACCOUNTS).next_back().copied()
}

#[test]
fn lent_credentials_are_used_by_prefix_and_renewed_before_they_end() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("lent", 2);
    let (stack, namespace) = (scenario.stack, unique("lent"));
    // The server itself puts tables on the disk, unless it is told where: this one is made for firn, which adds its columns.
    let location = format!("s3://{}/rest/{namespace}/t", stack.s3.bucket);
    let key = json!({"id": 1, "name": "id", "type": "long", "required": true});
    let table = json!({
        "name": "t", "location": location, "properties": {"format-version": "3"},
        "schema": {"type": "struct", "fields": [key], "identifier-field-ids": [1]},
    });
    for (path, body) in [("", json!({"namespace": [namespace]})), (&*format!("/{namespace}/tables"), table)] {
        let url = format!("{}/v1/namespaces{path}", stack.rest);
        let made = block_on(async { reqwest::Client::new().post(url).json(&body).send().await.unwrap().status() });
        assert!(made.is_success(), "{made}");
    }

    let asked = Arc::new(AtomicUsize::new(0));
    let asks = Arc::clone(&asked);
    let catalog = Proxy::start(
        &stack.rest,
        Box::new(move |request| {
            asks.fetch_add(
                usize::from(request.header("x-iceberg-access-delegation") == Some("vended-credentials")),
                Ordering::SeqCst,
            );
            let of_table = request.path.contains("/tables/") && request.method == "GET";
            if of_table { Fate::Edit(lend) } else { Fate::Pass }
        }),
    );
    let (refused, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (refuses, passes) = (Arc::clone(&refused), Arc::clone(&passed));
    let store = Proxy::start(
        &stack.s3.url,
        Box::new(move |request| match end_of_loan(request) {
            Some(end) if now_ms() < end => {
                passes.fetch_add(1, Ordering::SeqCst);
                Fate::Pass
            }
            _ => {
                refuses.fetch_add(1, Ordering::SeqCst);
                Fate::Refuse(400, "<Error><Code>ExpiredToken</Code></Error>".into())
            }
        }),
    );
    let topic = &scenario.topic;
    let text = format!(
        "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs:\n\
         \x20 lake: {{type: iceberg-rest, uri: \"{}\", properties: {{s3.endpoint: \"{}\", s3.region: us-east-1}}}}\n\
         pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    commit: {{interval: 500ms}}\n\
         \x20   tables: [{{catalog: lake, name: {namespace}.t, format_version: 3}}]\nstate_dir: ./state\n",
        stack.kafka.plaintext, stack.registry.url, catalog.url, store.url
    );
    let config = scenario.dir.path().join("firn.yaml");
    std::fs::write(&config, text).unwrap();
    scenario.produce(500, 200);
    let mut process = FirnProcess::run(&config, &[]);
    let end = Instant::now() + Duration::from_secs(2 * LOAN_SECONDS);
    while Instant::now() < end {
        assert!(process.is_running(), "{}", process.stderr());
        scenario.produce(100, 200);
        std::thread::sleep(Duration::from_millis(300));
    }
    // Nothing is loaded without events: what was lent is over when the next file is written, which asks for it first.
    std::thread::sleep(Duration::from_secs(2 * LOAN_SECONDS));
    let commits = process.stderr().matches("commit written").count();
    scenario.produce(100, 200);
    eventually("it writes after a pause", LIMIT, || process.stderr().matches("commit written").count() > commits);
    stop(&mut process);
    let (loans, refused) = (LOANS.lock().unwrap().len(), refused.load(Ordering::SeqCst));
    let passed = passed.load(Ordering::SeqCst);
    crate::say(&format!("{loans} loans, {passed} requests with one, {refused} with none or an expired one"));
    assert!(passed > 0 && loans >= 3 && asked.load(Ordering::SeqCst) >= loans, "{loans} loans");
    assert_eq!(refused, 0, "each was renewed in time");
    assert!(!process.stderr().contains(&stack.s3.secret), "a secret in the log");
    catch_up(&config);
    let rows = stack.trino.query(&format!("SELECT {COLUMNS} FROM rest.{namespace}.t"));
    assert_same_rows(&rows, &scenario.expected());
    assert_same_rows(&crate::s3::firn_rows(&config, &format!("lake.{namespace}.t")), &scenario.expected());
}

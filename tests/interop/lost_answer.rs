//! A REST catalog behind a bad network, and one that wants to know who asks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::{FirnProcess, catch_up};
use crate::proxy::{Fate, Proxy, Request, Rule};
use crate::rows::assert_same_rows;
use crate::scenario::Scenario;
use crate::stack::{Catalog, Stack};
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(60);

/// The scenario's file with the REST catalog's address replaced, and properties for the catalog.
fn config_through(scenario: &Scenario, proxy: &Proxy, properties: &str) -> PathBuf {
    let path = scenario.config(3, "");
    through(&path, &scenario.stack.rest, &proxy.url, properties);
    path
}

fn through(path: &Path, from: &str, to: &str, properties: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    let text = text.replace(&format!("uri: \"{from}\""), &format!("uri: \"{to}\"{properties}"));
    std::fs::write(path, text).unwrap();
}

/// Every second commit meets its fate; tells how often.
fn every_second_commit(mut fate: impl FnMut(usize) -> Fate + Send + 'static) -> (Rule, Arc<Mutex<usize>>) {
    let met = Arc::new(Mutex::new(0));
    let (counter, mut commits) = (Arc::clone(&met), 0);
    let rule = move |request: &Request| {
        if !request.is_commit() {
            return Fate::Pass;
        }
        commits += 1;
        if commits % 2 == 0 {
            return Fate::Pass;
        }
        let mut met = counter.lock().unwrap();
        *met += 1;
        fate(*met)
    };
    (Box::new(rule), met)
}

fn stays_exact(stem: &str, fate: impl FnMut(usize) -> Fate + Send + 'static) {
    let mut scenario = Scenario::new(stem, Catalog::Rest, 2);
    let (rule, met) = every_second_commit(fate);
    let proxy = Proxy::start(&Stack::get().rest, rule);
    let config = config_through(&scenario, &proxy, "");
    scenario.produce(500, 200);
    let mut process = FirnProcess::run(&config, &[]);
    let end = Instant::now() + LIMIT;
    while *met.lock().unwrap() < 6 {
        assert!(process.is_running() && Instant::now() < end, "{}", process.stderr());
        scenario.produce(100, 200);
        std::thread::sleep(Duration::from_millis(200));
    }
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    catch_up(&config);
    println!("{stem}: {} commits met it", met.lock().unwrap());
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
}

#[test]
fn a_commit_whose_answer_is_lost_counts_once() {
    if wanted() {
        stays_exact("lost", |_| Fate::LoseAnswer);
    }
}

#[test]
fn a_commit_answered_with_503_counts_once() {
    if wanted() {
        stays_exact("unavailable", |_| Fate::AnswerWith(503));
    }
}

#[test]
fn a_commit_that_the_network_repeats_counts_once() {
    if wanted() {
        stays_exact("repeated", |_| Fate::Repeat);
    }
}

#[test]
fn a_commit_that_never_arrives_is_tried_again() {
    if wanted() {
        let refusal = r#"{"error":{"message":"overloaded","type":"ServiceUnavailable","code":503}}"#;
        stays_exact("dropped", move |n| if n % 2 == 0 { Fate::Drop } else { Fate::Refuse(503, refusal.into()) });
    }
}

/// A crash after the commit arrived and before its answer did.
#[test]
fn a_kill_between_a_commit_and_its_answer_neither_loses_nor_doubles() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("killed", Catalog::Rest, 2);
    let held = Arc::new(Mutex::new(0));
    let (counter, mut commits) = (Arc::clone(&held), 0);
    let proxy = Proxy::start(
        &Stack::get().rest,
        Box::new(move |request| {
            commits += usize::from(request.is_commit());
            if request.is_commit() && commits % 3 == 0 {
                *counter.lock().unwrap() += 1;
                return Fate::LoseAnswer;
            }
            Fate::Pass
        }),
    );
    let config = config_through(&scenario, &proxy, "");
    for _ in 0..4 {
        let before = *held.lock().unwrap();
        scenario.produce(300, 200);
        let mut process = FirnProcess::run(&config, &[]);
        let end = Instant::now() + LIMIT;
        while *held.lock().unwrap() == before {
            assert!(process.is_running() && Instant::now() < end, "{}", process.stderr());
            scenario.produce(50, 200);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(process.kill_9());
    }
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
}

/// Seconds for which a token of the test's catalog is good.
const TOKEN_SECONDS: u64 = 3;

/// Hands out tokens and lets nobody in without a fresh one.
struct Guard {
    issued: Vec<Instant>,
    refused: usize,
    wrong: usize,
}

impl Guard {
    fn decide(&mut self, request: &Request) -> Fate {
        if request.path.starts_with("/v1/oauth/tokens") {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let in_body = body.contains("client_id=reader") && body.contains("client_secret=s3cret");
            // `reader:s3cret` in Base64
            let in_header = request.header("authorization") == Some("Basic cmVhZGVyOnMzY3JldA==");
            if !body.contains("grant_type=client_credentials") || !(in_body || in_header) {
                self.wrong += 1;
                return Fate::Refuse(401, r#"{"error":"invalid_client","error_description":"who are you?"}"#.into());
            }
            self.issued.push(Instant::now());
            let token = self.issued.len() - 1;
            return Fate::Refuse(
                200,
                format!(r#"{{"access_token":"token-{token}","token_type":"bearer","expires_in":{TOKEN_SECONDS}}}"#),
            );
        }
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer token-"));
        let issued = token.and_then(|number| self.issued.get(number.parse::<usize>().ok()?));
        // a second more than it is good for: requests take their time on the way
        if issued.is_some_and(|issued| issued.elapsed() < Duration::from_secs(TOKEN_SECONDS + 1)) {
            return Fate::Pass;
        }
        self.refused += 1;
        Fate::Refuse(401, r#"{"error":{"message":"no valid token","type":"NotAuthorizedException","code":401}}"#.into())
    }
}

#[test]
fn a_catalog_with_oauth_is_written_with_tokens_that_are_refreshed() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("oauth", Catalog::Rest, 2);
    let guard = Arc::new(Mutex::new(Guard { issued: vec![], refused: 0, wrong: 0 }));
    let at_the_door = Arc::clone(&guard);
    let proxy = Proxy::start(&Stack::get().rest, Box::new(move |request| at_the_door.lock().unwrap().decide(request)));
    let config = config_through(&scenario, &proxy, ", properties: {credential: \"reader:s3cret\"}");
    scenario.produce(500, 200);
    let mut process = FirnProcess::run(&config, &[]);
    let end = Instant::now() + Duration::from_secs(3 * TOKEN_SECONDS + 2);
    while Instant::now() < end {
        assert!(process.is_running(), "{}", process.stderr());
        scenario.produce(100, 200);
        std::thread::sleep(Duration::from_millis(300));
    }
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    catch_up(&config);
    {
        let guard = guard.lock().unwrap();
        println!("{} tokens issued, {} requests refused", guard.issued.len(), guard.refused);
        assert!(guard.issued.len() >= 4, "{} tokens", guard.issued.len());
        assert_eq!(guard.wrong, 0);
    }
    assert_same_rows(&scenario.trino(), &scenario.expected());

    let wrong = scenario.dir.path().join("wrong.yaml");
    std::fs::write(&wrong, std::fs::read_to_string(&config).unwrap().replace("s3cret", "guess")).unwrap();
    let (code, stderr) = crate::process::until_caught_up(&wrong, Duration::from_secs(100));
    assert!(matches!(code, 2 | 3), "exit code {code}: {stderr}");
    assert!(!stderr.contains("guess"), "a secret in the log: {stderr}");
}

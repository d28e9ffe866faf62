//! One table of two is away for long: what that costs, and what it must not cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::process::{FirnProcess, eventually};
use crate::proxy::{Fate, Proxy};
use crate::rows::difference;
use crate::s3::{DELTA, ICEBERG, config, delta_is_right, firn_rows, iceberg_is_right, register, scenario};
use crate::stack::Stack;
use crate::wanted;
use crate::watch::Watch;

const LIMIT: Duration = Duration::from_secs(120);
/// `memory` of the pipeline. Its events take four times as much.
const MEMORY: u64 = 64_000_000;
const KEYS: u64 = 2_000;
const EVENT_BYTES: usize = 1_000;
const EVENTS: usize = 4 * MEMORY as usize / EVENT_BYTES;

/// Memory of a process that is its own and in use, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// What was seen of the buffers while a table was away.
#[derive(Debug, Default)]
struct Peaks {
    resident: u64,
    /// Of each table.
    buffered: [f64; 2],
}

/// INV-17 and INV-18, with everything real but the outage.
#[test]
fn a_table_that_is_away_is_bounded_back_pressure_and_red_readiness_and_no_loss() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("pressure", 2);
    scenario.padding = EVENT_BYTES;
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let proxy = Proxy::start(
        &Stack::get().s3.url,
        Box::new(move |request| match request.path.contains("/delta/") && is_down.load(Ordering::SeqCst) {
            true => Fate::Refuse(503, "<Error><Code>SlowDown</Code></Error>".into()),
            false => Fate::Pass,
        }),
    );
    let config = config(&scenario, &proxy.url, &[ICEBERG, DELTA]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}memory: {MEMORY}B\n")).unwrap();
    let watch = Watch::configure(&config);
    let (pipeline, table) = (scenario.topic.clone(), scenario.table());
    let names = [format!("lake.{table}"), format!("delta.{table}")];
    let metric =
        |name: &str, table: &str| watch.metric(&format!("{name}{{pipeline=\"{pipeline}\",table=\"{table}\"}}"));

    // As much as fills every buffer once goes through before: what is reused later is there.
    scenario.produce(EVENTS / 4, KEYS);
    let mut process = FirnProcess::run(&config, &[]);
    let mut sent = EVENTS / 4;
    eventually("it is ready", LIMIT, || watch.ready().is_some_and(|(ready, _)| ready));
    let has = |table: &str, events: usize| metric("firn_events_total", table) >= events as f64;
    eventually("both tables have the first events", LIMIT, || names.iter().all(|table| has(table, sent)));
    let before = resident(process.pid());

    down.store(true, Ordering::SeqCst);
    let mut peaks = Peaks::default();
    let look = |peaks: &mut Peaks, process: &FirnProcess| {
        peaks.resident = peaks.resident.max(resident(process.pid()));
        for (peak, table) in peaks.buffered.iter_mut().zip(&names) {
            *peak = peak.max(metric("firn_buffered_bytes", table));
        }
    };
    while sent < EVENTS {
        scenario.produce(EVENTS / 20, KEYS);
        sent += EVENTS / 20;
        look(&mut peaks, &process);
    }
    let paused = format!("firn_back_pressure{{pipeline=\"{pipeline}\"}}");
    eventually("reading is paused", LIMIT, || watch.metric(&paused) == 1.0);
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        look(&mut peaks, &process);
        let (ready, reasons) = watch.ready().unwrap();
        let named = reasons.iter().all(|reason| reason["subject"] == *names[1] && reason["error"].is_string());
        assert!(!ready && !reasons.is_empty() && named, "{reasons:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(process.is_running(), "{}", process.stderr());
    let committed = names.each_ref().map(|table| metric("firn_events_total", table));
    let limits = names.each_ref().map(|table| metric("firn_buffer_limit_bytes", table));
    crate::say(&format!(
        "one table away: {peaks:?}, resident {before} before; limits {limits:?}, committed {committed:?} of {sent}"
    ));
    assert!(committed[0] > committed[1], "the other table went on: {committed:?}");
    assert!((committed[0] as usize) < sent, "and waits now: {committed:?}");
    // A batch may be too large by one chunk, which is a 32nd of the memory.
    let most = limits[1] + 2.0 * MEMORY as f64 / 32.0;
    assert!(limits[1] > 0.0 && peaks.buffered[1] > limits[1] / 2.0, "{peaks:?} {limits:?}");
    assert!(peaks.buffered.iter().all(|&peak| peak <= most) && most < MEMORY as f64, "{peaks:?}, at most {most}");
    assert!(peaks.resident < before + MEMORY, "{peaks:?}, {before} before");

    down.store(false, Ordering::SeqCst);
    eventually("both tables have everything", LIMIT, || names.iter().all(|table| has(table, sent)));
    eventually("it is ready again", LIMIT, || watch.ready().is_some_and(|(ready, _)| ready));
    eventually("reading is no longer paused", LIMIT, || watch.metric(&paused) == 0.0);
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    for name in &names {
        assert_eq!(difference(&firn_rows(&config, name), &scenario.expected()), None, "{name}");
    }
    let in_trino = register(&scenario);
    iceberg_is_right(&scenario, &config);
    delta_is_right(&scenario, &config, &in_trino);
}

//! Firn beside the real servers: Kafka, a schema registry, Iceberg catalogs, Trino, pyiceberg, from `compose/native`.
//!
//! `FIRN_INTEROP=1` turns these tests on, and then a part that is missing is a failure. Without it one test says what was left
//! out. `FIRN_STACK_RUN=<folder>` uses the servers of that folder and leaves them running, which is quicker while working on a
//! test; otherwise they are started for this process and end with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is not as expected, and says so"
)]

mod bad_input;
mod clouds;
mod compatibility;
mod dead_letters;
mod evolving;
mod foreign;
mod harness;
mod kafka;
mod lost_answer;
mod names;
mod orders;
mod partitions;
#[allow(dead_code, reason = "the tests of the program use it all; the harness's own do not")]
mod process;
mod proxy;
mod registry;
mod rows;
mod s3;
mod s3_delta;
mod s3_faults;
mod s3_pressure;
mod scenario;
mod sharing;
mod spark;
mod sql;
#[allow(dead_code, reason = "the tests of the program use it all; the harness's own do not")]
mod stack;
mod trino;
mod types;
mod upsert;
mod values;
mod watch;
mod wire;

/// Whether the tests against real servers are wanted. Every test here begins with `if !wanted() { return }`.
fn wanted() -> bool {
    std::env::var("FIRN_INTEROP").is_ok_and(|value| value == "1")
}

/// Whether the long mode is wanted; a line says that `what` is left out without it.
fn long(what: &str) -> bool {
    let wanted = std::env::var("FIRN_INTEROP_LONG").is_ok_and(|value| value == "1");
    if !wanted {
        say(&format!("left out: {what} (FIRN_INTEROP_LONG=1 adds it)"));
    }
    wanted
}

/// Straight to the terminal: the test runner swallows what a passing test prints.
fn say(line: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

#[test]
fn says_what_was_left_out() {
    if !wanted() {
        say(
            "interop tests left out (Kafka, registry, catalogs, Trino, pyiceberg): FIRN_INTEROP=1 cargo test runs them",
        );
    }
}

//! The program under test, as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::stack::Stack;

/// A `firn` that runs beside the test. Dropping it kills it.
pub struct FirnProcess {
    child: Child,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
}

/// Runs `firn` to its end.
pub fn firn<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_firn")).args(args).stdin(Stdio::null()).output().expect("firn starts")
}

impl FirnProcess {
    /// Starts `firn run -c <config>` with further arguments.
    pub fn run(config: &Path, more: &[&str]) -> FirnProcess {
        let mut args = vec!["run".into(), "-c".into(), config.display().to_string()];
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        FirnProcess::spawn(args)
    }

    /// Starts `firn` with these arguments.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> FirnProcess {
        let mut child = Command::new(env!("CARGO_BIN_EXE_firn"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("firn starts");
        if std::env::var("FIRN_INTEROP").is_ok() {
            Stack::get().watch(child.id());
        }
        let stderr = capture(child.stderr.take().expect("stderr is piped"));
        let stdout = capture(child.stdout.take().expect("stdout is piped"));
        FirnProcess { child, stderr, stdout }
    }

    /// The process id, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader panicked").clone()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("no reader panicked").clone()
    }

    /// Bytes of memory that it holds now.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Asks it to stop as an operator does (SIGTERM); follow with [`FirnProcess::wait`].
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends any signal: SIGSTOP and SIGCONT make a zombie that wakes up later.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: kill takes two integers; the child has not been waited for, so that the pid is still its own
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}");
    }

    /// Ends it with SIGKILL and waits until it is gone. True when it still ran.
    pub fn kill_9(&mut self) -> bool {
        let ran = self.is_running();
        if ran {
            self.child.kill().expect("the child is ours");
            self.child.wait().expect("the child is ours");
        }
        ran
    }

    /// Waits for its end. Panics with its stderr when it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(Instant::now() < end, "firn still runs after {limit:?}; its stderr:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its stderr contains `text`. Panics when it ends before, or after `limit`.
    pub fn wait_for_stderr(&mut self, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            // asked before reading, so that the last words of a process that ended are seen
            let running = self.is_running();
            if self.stderr().contains(text) {
                return;
            }
            assert!(running, "firn ended without saying {text:?}; its stderr:\n{}", self.stderr());
            assert!(Instant::now() < end, "no {text:?} after {limit:?}; stderr so far:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for FirnProcess {
    fn drop(&mut self) {
        self.kill_9();
        if std::thread::panicking() {
            eprintln!("--- stderr of firn (pid {}):\n{}", self.child.id(), self.stderr());
        }
    }
}

fn capture(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            sink.lock().expect("no reader panicked").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// Runs `firn run --until-caught-up` to its end, which must come within `limit`: its exit code and what it said.
pub fn until_caught_up(config: &Path, limit: Duration) -> (i32, String) {
    let mut process = FirnProcess::run(config, &["--until-caught-up"]);
    let status = process.wait(limit);
    // the reader of stderr may be a moment behind the end of the process
    std::thread::sleep(Duration::from_millis(100));
    (status.code().unwrap_or(-1), process.stderr())
}

/// As [`until_caught_up`]; it must succeed.
#[track_caller]
pub fn catch_up(config: &Path) {
    let (code, stderr) = until_caught_up(config, Duration::from_secs(120));
    assert_eq!(code, 0, "{stderr}");
}

/// Waits until `done` says so, and how long that took. Panics after `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "not after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    began.elapsed()
}

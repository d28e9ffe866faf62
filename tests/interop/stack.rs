//! The servers of this test process.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::kafka::Kafka;
use crate::registry::Registry;
use crate::trino::Trino;

/// How many ports a stack takes, from the first one on.
const PORTS: u16 = 14;

/// Real servers that answer on 127.0.0.1. One for the whole test process: tests keep apart by topic, subject, group and
/// namespace names (see [`unique`]).
pub struct Stack {
    /// State of the servers, logs included (`<run>/<server>/out.log`).
    pub run: PathBuf,
    /// Folder under which all catalogs keep their tables: `sqlite/`, `postgres/`, `rest/`.
    pub warehouse: PathBuf,
    /// The broker's listeners, and a client for each.
    pub kafka: Kafka,
    /// The schema registry with Confluent's API.
    pub registry: Registry,
    /// Trino, with the catalogs `sqlite`, `postgres` and `rest`.
    pub trino: Trino,
    /// The REST catalog's address.
    pub rest: String,
    /// The PostgreSQL database of the JDBC catalog, as `postgres://user:password@host:port/database`.
    pub postgres: String,
    /// The SQLite file of the JDBC catalog.
    pub sqlite: PathBuf,
    /// A Python with pyiceberg.
    pub python: PathBuf,
    /// The object store.
    pub s3: S3,
    /// The Trino that has the catalog `delta`, on the object store.
    pub trino_delta: Trino,
    /// Azure's blob service: its address, account included, and the account's key. Container `lake`.
    pub azure: (String, String),
    /// Google Cloud Storage: its address. Bucket `lake`.
    pub gcs: String,
    /// A Python with deltalake.
    pub python_delta: PathBuf,
    /// Ends the servers when this process ends, however it ends: it waits for its stdin to close.
    watchdog: Option<Mutex<Child>>,
}

/// An S3 server with one bucket.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Its address, `http://host:port`.
    pub url: String,
    pub key: String,
    pub secret: String,
    pub bucket: String,
}

impl S3 {
    /// The properties of a catalog in a `firn.yaml`, in flow style without the braces, for whoever speaks to it at `url`.
    pub fn properties(&self, url: &str) -> String {
        format!(
            "s3.endpoint: \"{url}\", s3.region: us-east-1, s3.path-style-access: true, s3.access-key-id: {}, \
             s3.secret-access-key: {}",
            self.key, self.secret
        )
    }
}

/// The three catalogs that every server of the stack can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catalog {
    /// JDBC layout in SQLite, catalog name `lake`.
    Sqlite,
    /// JDBC layout in PostgreSQL, catalog name `lake`.
    Postgres,
    /// Iceberg's REST catalog.
    Rest,
}

impl Catalog {
    /// All of them, for tests that must hold on each.
    pub const ALL: [Catalog; 3] = [Catalog::Sqlite, Catalog::Postgres, Catalog::Rest];

    /// The catalog's name in Trino, and its folder in the warehouse.
    pub fn name(self) -> &'static str {
        match self {
            Catalog::Sqlite => "sqlite",
            Catalog::Postgres => "postgres",
            Catalog::Rest => "rest",
        }
    }
}

impl Stack {
    /// The servers, started by the first call. Panics, in every test alike, when one of them is not to be had.
    pub fn get() -> &'static Stack {
        static STACK: OnceLock<Result<Stack, String>> = OnceLock::new();
        match STACK.get_or_init(Stack::start) {
            Ok(stack) => stack,
            Err(reason) => panic!("the servers did not start: {reason}"),
        }
    }

    fn start() -> Result<Stack, String> {
        let mut watchdog = None;
        let (run, first_port) = match std::env::var_os("FIRN_STACK_RUN") {
            Some(run) => (PathBuf::from(run), None),
            None => {
                let run = std::env::temp_dir().join(format!("firn-interop-{}", std::process::id()));
                std::fs::create_dir_all(&run).map_err(|e| format!("{}: {e}", run.display()))?;
                // before the servers, so that a start that is interrupted leaves nothing behind
                watchdog = Some(Mutex::new(spawn_watchdog(&run)?));
                (run, Some(free_ports()))
            }
        };
        let mut start = script(&run);
        start.arg("start");
        if let Some(port) = first_port {
            start.env("FIRN_STACK_PORT", port.to_string());
        }
        let output = start.output().map_err(|e| format!("stack.sh: {e}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let output = script(&run).arg("env").output().map_err(|e| format!("stack.sh env: {e}"))?;
        Stack::from_addresses(run, &String::from_utf8_lossy(&output.stdout), watchdog)
    }

    fn from_addresses(run: PathBuf, lines: &str, watchdog: Option<Mutex<Child>>) -> Result<Stack, String> {
        let value = |key: &str| {
            let found = lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.map(str::to_owned).ok_or_else(|| format!("stack.sh env does not print {key}"))
        };
        Ok(Stack {
            run,
            warehouse: value("FIRN_WAREHOUSE")?.into(),
            kafka: Kafka {
                plaintext: value("KAFKA")?,
                sasl_plaintext: value("KAFKA_SASL")?,
                ssl: value("KAFKA_SSL")?,
                sasl_ssl: value("KAFKA_SASL_SSL")?,
                ca: value("KAFKA_CA")?.into(),
            },
            registry: Registry { url: value("REGISTRY")? },
            trino: Trino { url: value("TRINO")? },
            rest: value("REST")?,
            postgres: value("POSTGRES")?,
            sqlite: value("SQLITE")?.into(),
            python: value("PYTHON")?.into(),
            s3: S3 {
                url: value("S3")?,
                key: value("S3_KEY")?,
                secret: value("S3_SECRET")?,
                bucket: value("S3_BUCKET")?,
            },
            trino_delta: Trino { url: value("TRINO_DELTA")? },
            azure: (value("AZURE")?, value("AZURE_KEY")?),
            gcs: value("GCS")?,
            python_delta: value("PYTHON_DELTA")?.into(),
            watchdog,
        })
    }

    /// The folder of a catalog's tables, as Firn's `warehouse` and as pyiceberg's.
    pub fn warehouse_of(&self, catalog: Catalog) -> PathBuf {
        self.warehouse.join(catalog.name())
    }

    /// What follows `catalogs: {lake: ` in a `firn.yaml` for this catalog, as one line of YAML in flow style.
    pub fn firn_catalog(&self, catalog: Catalog) -> String {
        let warehouse = self.warehouse_of(catalog);
        let warehouse = warehouse.display();
        match catalog {
            Catalog::Sqlite => {
                format!("{{type: iceberg-sql, uri: \"sqlite:{}\", warehouse: \"{warehouse}\"}}", self.sqlite.display())
            }
            Catalog::Postgres => {
                format!("{{type: iceberg-sql, uri: \"{}\", warehouse: \"{warehouse}\"}}", self.postgres)
            }
            Catalog::Rest => format!("{{type: iceberg-rest, uri: \"{}\", warehouse: \"{warehouse}\"}}", self.rest),
        }
    }

    /// The properties with which pyiceberg's `load_catalog("lake", **properties)` opens this catalog.
    pub fn pyiceberg_catalog(&self, catalog: Catalog) -> Vec<(String, String)> {
        let (kind, uri) = match catalog {
            Catalog::Sqlite => ("sql", format!("sqlite:///{}", self.sqlite.display())),
            Catalog::Postgres => ("sql", self.postgres.replacen("postgres://", "postgresql+psycopg2://", 1)),
            Catalog::Rest => ("rest", self.rest.clone()),
        };
        let warehouse = format!("file://{}", self.warehouse_of(catalog).display());
        [("type", kind.to_owned()), ("uri", uri), ("warehouse", warehouse)].map(|(k, v)| (k.to_owned(), v)).to_vec()
    }

    /// Rows of a table as pyiceberg reads them, of the current snapshot or of the given one, rendered as in [`crate::rows`].
    pub fn pyiceberg_rows(&self, catalog: &[(String, String)], table: &str, snapshot: Option<i64>) -> Vec<Vec<String>> {
        let request = serde_json::json!({
            "catalog": catalog.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "table": table,
            "snapshot": snapshot,
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/read_table.py");
        let lines = self.python_lines(&script, &request.to_string());
        lines.lines().map(|line| serde_json::from_str(line).expect("a row of read_table.py")).collect()
    }

    /// Has deltalake do something with a table in the object store: see `delta_table.py`.
    pub fn deltalake(&self, location: &str, request: serde_json::Value) -> serde_json::Value {
        let options = serde_json::json!({
            "AWS_ENDPOINT_URL": self.s3.url, "AWS_ACCESS_KEY_ID": self.s3.key, "AWS_SECRET_ACCESS_KEY": self.s3.secret,
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        });
        self.deltalake_at(location, options, request)
    }

    /// The same, with a table in another store, opened with these options of object_store.
    pub fn deltalake_at(
        &self,
        location: &str,
        options: serde_json::Value,
        mut request: serde_json::Value,
    ) -> serde_json::Value {
        request["url"] = location.into();
        request["options"] = options;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/delta_table.py");
        let lines = run_python(&self.python_delta, &script, &request.to_string());
        serde_json::from_str(&lines).expect("an answer of delta_table.py")
    }

    /// Runs a Python script in the environment with pyiceberg, `input` on its stdin, and returns what it prints.
    pub fn python_lines(&self, script: &Path, input: &str) -> String {
        run_python(&self.python, script, input)
    }
}

fn run_python(python: &Path, script: &Path, input: &str) -> String {
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("python reads its input");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

impl Stack {
    /// Lets a Kafka client of this name produce only so many bytes a second, or as many as it wants.
    pub fn limit_producer(&self, client: &str, bytes_per_second: Option<u64>) {
        let (verb, quota) = match bytes_per_second {
            Some(bytes) => ("--add-config", format!("producer_byte_rate={bytes}")),
            None => ("--delete-config", "producer_byte_rate".to_owned()),
        };
        let mut tool = script_named("kafka.sh", &self.run);
        tool.args(["tool", "kafka.admin.ConfigCommand", "--bootstrap-server", &self.kafka.plaintext, "--alter"]);
        tool.args([verb, &quota, "--entity-type", "clients", "--entity-name", client]);
        assert!(tool.status().expect("kafka.sh runs").success());
    }

    /// Has the watchdog kill this process too, if the test process ends without having done so.
    pub fn watch(&self, pid: u32) {
        if self.watchdog.is_none() {
            return;
        }
        let Some(started) = start_time(pid) else { return };
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.run.join("processes"))
            .expect("the run folder is writable");
        writeln!(file, "{pid} {started}").expect("the run folder is writable");
    }
}

/// When a process started, in clock ticks since boot: with it, a pid names one process for good.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// A name that no other test and no other run uses: for topics, groups, subjects, namespaces.
pub fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    format!("{stem}_{:x}{:x}_{}", std::process::id(), nanos / 1000, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a future to its end from a test, whatever thread it is on.
pub fn block_on<F: Future + Send>(future: F) -> F::Output
where
    F::Output: Send,
{
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    });
    // a thread of its own, as a runtime's thread must not block on another
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join().expect("the future does not panic"))
}

fn script(run: &Path) -> Command {
    script_named("stack.sh", run)
}

fn script_named(name: &str, run: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/native").join(name));
    command.env("FIRN_STACK_RUN", run).stdin(Stdio::null());
    command
}

fn spawn_watchdog(run: &Path) -> Result<Child, String> {
    // a session of its own: an interrupt from the terminal must end the tests and not what cleans up after them
    Command::new("setsid")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/native/stack.sh"))
        .arg("watch")
        .env("FIRN_STACK_RUN", run)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("setsid: {e}"))
}

/// The first of a row of free ports, below those that the kernel gives to outgoing connections.
fn free_ports() -> u16 {
    let seed = std::process::id() as u16 % 1000;
    let candidates = (0..1000).map(|step| 15_000 + (seed + step) % 1000 * PORTS);
    candidates
        .into_iter()
        .find(|first| (*first..first + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .expect("free ports in a row")
}

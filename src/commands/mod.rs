//! What each command of the command line does: settings in, one call into the library, text out.
//!
//! Arguments are plain data, so that a test or another program can run a command without a command line.

mod broker;
mod check;
mod dead_letters;
mod demo;
mod offsets;
mod verdict;

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::broker::{BrokerArgs, broker};
pub use self::check::{CheckArgs, check};
pub use self::dead_letters::{DeadLettersReplayArgs, DeadLettersShowArgs, dead_letters_replay, dead_letters_show};
pub use self::demo::demo;
pub use self::offsets::{OffsetsSetArgs, OffsetsShowArgs, offsets_set, offsets_show};
pub use self::verdict::{VerdictArgs, schema_verdict};

use crate::query::{self, Format};
use crate::service::{self, RunOptions};
use crate::settings::{Brokers, CatalogKind, RegistryUrl, Role, Settings, SqlUri};
use crate::{Error, Result};

/// Where a command prints its answer. Logs go elsewhere.
pub type Output<'o> = &'o mut (dyn Write + Send);

/// `firn demo`.
#[derive(Debug, Clone)]
pub struct DemoArgs {
    /// Where its data and its `firn.yaml` go.
    pub dir: PathBuf,
    /// End after the first answers instead of going on until stopped.
    pub exit: bool,
    /// How many events to produce; none: the demo's own number.
    pub events: Option<u64>,
}

/// `firn run`.
#[derive(Debug, Clone)]
pub struct RunArgs {
    /// What the settings file says.
    pub settings: Settings,
    /// End with success once every partition has reached the end seen at start.
    pub until_caught_up: bool,
    /// Narrows the roles of the file; empty: all of them.
    pub roles: Vec<Role>,
}

/// `firn sql`.
#[derive(Debug, Clone)]
pub struct SqlArgs {
    /// The settings file.
    pub config: PathBuf,
    /// How rows are printed.
    pub format: Format,
    /// One statement; none: a prompt.
    pub query: Option<String>,
}

/// `firn get`.
#[derive(Debug, Clone)]
pub struct GetArgs {
    /// The settings file.
    pub config: PathBuf,
    /// `catalog.namespace.table`.
    pub table: String,
    /// One value per key column, in key order.
    pub values: Vec<String>,
}

/// The next offset of a partition, written `topic/partition=offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffset {
    /// By name.
    pub topic: String,
    /// From 0.
    pub partition: i32,
    /// The first offset that is not in the table.
    pub offset: i64,
}

/// A topic to create, written `name` or `name:partitions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// At least one.
    pub partitions: i32,
}

impl FromStr for PartitionOffset {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = text.rsplit_once('=').and_then(|(place, offset)| {
            let (topic, partition) = place.rsplit_once('/')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            Some(PartitionOffset { topic: topic.to_owned(), partition, offset })
        });
        match parsed {
            Some(at) if !at.topic.is_empty() && at.partition >= 0 && at.offset >= 0 => Ok(at),
            _ => Err("write topic/partition=offset, such as trades/0=1500".to_owned()),
        }
    }
}

impl FromStr for TopicSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, partitions) = text.rsplit_once(':').unwrap_or((text, "1"));
        crate::settings::check_topic(name).map_err(|reason| format!("'{name}' {reason}"))?;
        match partitions.parse() {
            Ok(partitions @ 1..=1000) => Ok(TopicSpec { name: name.to_owned(), partitions }),
            _ => Err("write name:partitions with 1 to 1000 partitions, such as trades:4".to_owned()),
        }
    }
}

/// Runs the roles of the file until the process is told to stop, or has caught up where that was asked for.
///
/// # Errors
/// [`Error::Config`] when the settings are wrong, [`Error::Unreachable`] when a dependency does not answer at start,
/// [`Error::Decision`] when the data needs a person.
pub async fn run(args: RunArgs) -> Result<()> {
    let settings = &args.settings;
    log_notes(settings);
    let roles = narrowed(settings, &args.roles)?;
    if roles.contains(&Role::Writer) {
        refuse_embedded(settings)?;
    }
    let stop = stop_signal()?;
    let options = RunOptions { until_caught_up: args.until_caught_up, ..RunOptions::default() };
    service::run(settings, &options, &stop).await
}

/// Answers one query on the configured catalogs, or opens a prompt.
///
/// # Errors
/// [`Error::Config`] when the settings or the query are wrong, [`Error::Unreachable`] when a catalog does not answer.
pub async fn sql(args: SqlArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let engine = service::open_engine(&settings).await?;
    match &args.query {
        Some(statement) => query::print(engine.query(statement).await?, args.format, out).await.map(|_| ()),
        None => query::prompt(&engine, args.format, &settings.state_dir.join("sql_history"), out).await,
    }
}

/// Prints the current row of a key.
///
/// # Errors
/// [`Error::No`] when there is none, [`Error::Config`] when the table or the values are wrong.
pub async fn get(args: GetArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let table = settings.table_ref(&args.table)?;
    let engine = service::open_engine(&settings).await?;
    let given: Vec<&str> = args.values.iter().map(String::as_str).collect();
    let configured = settings.pipelines.values().find(|p| p.tables.iter().any(|t| t.table_ref() == table));
    let values = match configured.and_then(|p| p.key.as_ref()) {
        // The table keeps its key as a set: values come in the order of the configuration.
        Some(names) if names.len() == given.len() => {
            let value_of = |column: &String| names.iter().position(|name| name == column).map(|i| given[i]);
            let ordered: Option<Vec<&str>> = engine.key(&args.table).await?.iter().map(value_of).collect();
            ordered.unwrap_or(given)
        }
        _ => given,
    };
    match engine.get(&args.table, &values).await? {
        Some(row) => query::print(query::Answer::of(row), Format::Table, out).await.map(|_| ()),
        None => Err(Error::No(format!("{} has no row with the key {}", args.table, args.values.join(", ")))),
    }
}

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// [`Error::Internal`] when signals cannot be listened to.
pub fn stop_signal() -> Result<CancellationToken> {
    let failed = |e: std::io::Error| Error::Internal(format!("cannot listen to signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(130);
            }
            tracing::info!("stopping: what was read is committed first");
            stopped.cancel();
        }
    });
    Ok(stop)
}

/// Reads the settings and logs what has no effect.
fn load(config: &std::path::Path) -> Result<Settings> {
    let settings = Settings::load(config)?;
    log_notes(&settings);
    Ok(settings)
}

fn log_notes(settings: &Settings) {
    for note in &settings.notes {
        tracing::warn!(note, "a setting has no effect");
    }
}

/// The roles of this process: those of the file, or the wanted ones among them.
fn narrowed(settings: &Settings, wanted: &[Role]) -> Result<Vec<Role>> {
    if wanted.iter().any(|role| !settings.roles.contains(role)) {
        return Err(Error::Config(format!("{} does not configure the role asked for", settings.path.display())));
    }
    let roles = if wanted.is_empty() { settings.roles.clone() } else { wanted.to_vec() };
    if roles.is_empty() {
        let file = settings.path.display();
        return Err(Error::Config(format!("{file} configures nothing to run; add a pipeline below `pipelines`")));
    }
    Ok(roles)
}

/// The embedded parts end with the process that serves them: nothing could be resumed.
fn refuse_embedded(settings: &Settings) -> Result<()> {
    let key = if settings.kafka.brokers == Brokers::Embedded {
        "kafka.brokers"
    } else if settings.schema_registry.url == RegistryUrl::Embedded {
        "schema_registry.url"
    } else {
        return Ok(());
    };
    let file = settings.path.display();
    Err(Error::Config(format!(
        "{file}: {key} is `embedded`, which serves `firn demo` only; give the address of a server to `firn run`"
    )))
}

/// Keeps the error with the highest exit code.
fn worse(worst: &mut Option<Error>, error: Error) {
    if worst.as_ref().is_none_or(|w| w.exit_code() < error.exit_code()) {
        *worst = Some(error);
    }
}

/// The answer of a server, or that it did not answer within `patience`.
async fn in_time<T>(what: &str, patience: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = || Error::Unreachable(format!("{what} does not answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(silent()))
}

/// Whether a catalog's database is a file that does not exist yet: opening it would create it.
fn catalog_is_new(settings: &Settings, name: &str) -> bool {
    match settings.catalogs.get(name).map(|catalog| &catalog.kind) {
        Some(CatalogKind::IcebergSql { uri: SqlUri::Sqlite(path) }) => !path.exists(),
        _ => false,
    }
}

/// Rows of equally many cells as aligned columns, each line after `indent`; cells of digits are aligned to the right.
fn aligned(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let padded = if number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&padded);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints an answer.
///
/// # Errors
/// [`Error::Unreachable`] when the output cannot be written; the command line knows a closed pipe by its own.
pub fn print(out: Output<'_>, text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Error::Unreachable(format!("cannot write the output: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_offset_is_read_from_the_right_so_that_topics_may_hold_any_sign() {
        let at = |topic: &str, partition, offset| Ok(PartitionOffset { topic: topic.to_owned(), partition, offset });
        assert_eq!("trades/0=1500".parse(), at("trades", 0, 1500));
        assert_eq!("a.b_c-d/12=0".parse(), at("a.b_c-d", 12, 0));
        for wrong in ["trades/0", "trades=5", "/0=5", "trades/-1=5", "trades/0=-5", "trades/x=5", ""] {
            assert!(wrong.parse::<PartitionOffset>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_topic_is_named_with_or_without_its_partitions() {
        assert_eq!("trades:4".parse(), Ok(TopicSpec { name: "trades".into(), partitions: 4 }));
        assert_eq!("trades".parse(), Ok(TopicSpec { name: "trades".into(), partitions: 1 }));
        for wrong in ["", ":4", "trades:0", "trades:x", "tra des:1", "../x:1"] {
            assert!(wrong.parse::<TopicSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn run_refuses_the_embedded_parts() {
        let text = "kafka: {brokers: embedded}\nschema_registry: {url: embedded}\n\
            catalogs: {lake: {type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}\n\
            pipelines: {p: {topics: [t], tables: [{catalog: lake, name: a.b}]}}\n";
        let settings = Settings::parse(text, std::path::Path::new("/base"), &|_| None).unwrap();
        assert_eq!(narrowed(&settings, &[]).unwrap(), [Role::Writer]);
        let error = refuse_embedded(&settings).unwrap_err();
        assert!(error.to_string().contains("kafka.brokers is `embedded`"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

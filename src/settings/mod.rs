//! `firn.yaml`: what an operator may set. Plain data, checked as a whole: unknown keys are refused, all faults are
//! reported at once with their lines, and secrets are never printed.
//!
//! Nothing here reaches a server; that a broker answers or a column exists is for `firn check` to find out.

mod build;
mod fault;
mod keys;
mod names;
mod pipeline;
mod read;
mod record_types;
mod redact;
mod substitute;
#[cfg(test)]
mod tests;
mod yaml;

pub use self::record_types::{OnUnknownType, SubjectStrategy};

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use self::fault::{Faults, suggestion};
pub(crate) use self::names::check_topic;
use crate::{Error, Result};

/// A file of settings is a page or two; more than this is another file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that `firn.yaml` says, with defaults filled in and paths made absolute.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file, as it was named.
    pub path: PathBuf,
    /// The folder of the file, absolute: relative paths in it begin here.
    pub base_dir: PathBuf,
    /// The source log.
    pub kafka: Kafka,
    /// Where the schemas of the events are.
    pub schema_registry: SchemaRegistry,
    /// By name: the catalog's name in SQL, and the JDBC `catalog_name`.
    pub catalogs: BTreeMap<String, Catalog>,
    /// By name.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// Bytes that buffers may take together; partitions are paused beyond it.
    pub memory: u64,
    /// Where copies of the key index are kept, absolute. Safe to delete.
    pub state_dir: PathBuf,
    /// What the process shows of itself.
    pub observe: Observe,
    /// What `firn run` does; by default all that is configured.
    pub roles: Vec<Role>,
    /// Keys that are valid but have no effect as the rest stands, for the log: `pipelines.p.key: …`.
    pub notes: Vec<String>,
}

/// The source log.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// Where the brokers are.
    pub brokers: Brokers,
    /// Passed to librdkafka untouched. Values may be secrets, so all are kept as such.
    pub properties: BTreeMap<String, SecretString>,
}

/// Where the brokers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brokers {
    /// The in-process broker of `firn demo` and `firn broker`.
    Embedded,
    /// `host:port`, several separated by commas.
    List(String),
}

/// The Confluent-compatible schema registry.
#[derive(Debug, Clone)]
pub struct SchemaRegistry {
    /// Where the registry is.
    pub url: RegistryUrl,
    /// For HTTP basic authentication.
    pub username: Option<String>,
    /// Set only together with `username`.
    pub password: Option<SecretString>,
    /// For bearer authentication; not set together with `username`.
    pub token: Option<SecretString>,
    /// Certificates of the connection.
    pub tls: RegistryTls,
}

/// Certificates and keys in PEM.
#[derive(Debug, Clone, Default)]
pub struct RegistryTls {
    /// Authorities to trust besides the public ones.
    pub ca: Option<SecretString>,
    /// What Firn presents; set only together with `key`.
    pub certificate: Option<SecretString>,
    /// The private key of `certificate`.
    pub key: Option<SecretString>,
}

/// Where the registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// The in-process registry of `firn demo` and `firn broker`.
    Embedded,
    /// http or https, without a final slash, without credentials.
    Url(String),
}

/// One catalog of tables.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Its key in the file.
    pub name: String,
    /// How it is spoken to, and where.
    pub kind: CatalogKind,
    /// Where new tables live: `file:///ABSOLUTE/PATH` or the address of a bucket, without a final slash. A REST catalog may have any name here, or none.
    pub warehouse: Option<String>,
    /// Iceberg REST names (`credential`, `token`, `scope`, …), or those of a Delta catalog. Values may be secrets, so all are kept as such.
    pub properties: BTreeMap<String, SecretString>,
}

/// How a catalog is spoken to.
#[derive(Debug, Clone)]
pub enum CatalogKind {
    /// The JDBC layout that Trino, Spark and pyiceberg share.
    IcebergSql {
        /// The database.
        uri: SqlUri,
    },
    /// The Iceberg REST protocol; http or https without a final slash.
    IcebergRest {
        /// Without `/v1`.
        uri: String,
    },
    /// The folders of the warehouse, each a Delta table.
    Delta,
}

/// The database of a SQL catalog.
#[derive(Debug, Clone)]
pub enum SqlUri {
    /// An absolute path.
    Sqlite(PathBuf),
    /// `postgres://user:password@host:port/database`.
    Postgres(SecretString),
}

/// One stream of events and the tables it is kept in.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its key in the file.
    pub name: String,
    /// What it reads.
    pub topics: Topics,
    /// The consumer group; no other pipeline has the same one.
    pub group: String,
    /// Where the registry keeps the schemas of its values.
    pub subject_strategy: SubjectStrategy,
    /// The record types of which each table has a struct column; empty: the tables say which one they take.
    pub record_types: Vec<String>,
    /// What happens to a record of another type than the tables take, where they take some of the topic's.
    pub on_unknown_type: OnUnknownType,
    /// The key columns, fields of the value. None: the fields of the Kafka record key.
    pub key: Option<Vec<String>>,
    /// How record keys are encoded. None: detected per subject.
    pub record_key: Option<RecordKey>,
    /// What an event does to the table.
    pub mode: Mode,
    /// The name of the lineage column; none leaves it out.
    pub lineage: Option<String>,
    /// An event whose value in this column is smaller never overwrites.
    pub order_by: Option<String>,
    /// What deletes a row.
    pub delete: Delete,
    /// At least one.
    pub tables: Vec<Table>,
    /// When a batch is committed.
    pub commit: Commit,
    /// Where the first start begins; later ones continue at V.
    pub start: Start,
    /// What happens to a record that cannot be read.
    pub on_bad_record: OnBadRecord,
    /// What happens to the records of a schema that does not fit the tables.
    pub on_incompatible_schema: OnIncompatibleSchema,
    /// What becomes of a type that contains itself.
    pub recursive_types: RecursiveTypes,
    /// What becomes of digits finer than microseconds in timestamps of JSON and Protobuf.
    pub nanoseconds: Nanoseconds,
    /// The topic of rejected records, where there is one.
    pub dead_letter: Option<String>,
    /// The share of bad records, from 0 to 1, beyond which the pipeline stops.
    pub max_bad_ratio: Option<f64>,
}

/// What a pipeline reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// At least one; no two are equal.
    Names(Vec<String>),
    /// A regular expression that begins with `^`.
    Pattern(String),
}

/// How a Kafka record key is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKey {
    /// Confluent wire format.
    Avro,
    /// Plain UTF-8.
    String,
    /// 8 bytes, big-endian.
    Int64,
    /// 4 bytes, big-endian.
    Int32,
}

/// What an event does to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One row per key; the last event wins.
    Upsert,
    /// Every event is a row.
    Append,
}

/// What deletes a row. A tombstone always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// Only a record without a value.
    Tombstone,
    /// Also an event whose field has one of these values.
    Field {
        /// A top-level field of the value.
        field: String,
        /// Compared as text; at least one.
        values: Vec<String>,
    },
}

/// One table that a pipeline writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The name of a configured catalog.
    pub catalog: String,
    /// At least one part. No part is empty or unsafe as a folder name.
    pub namespace: Vec<String>,
    /// The last part of the name.
    pub name: String,
    /// Iceberg's: 2 or 3. Of no meaning to Delta.
    pub format_version: u8,
    /// How the table is partitioned; empty: not at all.
    pub partition_by: Vec<PartitionField>,
    /// How rows are sorted within a file; empty: not at all.
    pub sort_by: Vec<SortField>,
    /// The only record type that it takes. None: whatever the topic has.
    pub record_type: Option<String>,
    /// Its key columns, where they are not those of the pipeline.
    pub key: Option<Vec<String>>,
    /// Its order column, where that is not the pipeline's.
    pub order_by: Option<String>,
}

/// One field of a partition specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    /// What is done to the value.
    pub transform: Transform,
    /// A top-level column.
    pub column: String,
}

/// How a column's value becomes a partition value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// The value itself.
    Identity,
    /// The hash modulo this.
    Bucket(u32),
    /// The first so many characters or bytes, or the value rounded down to a multiple.
    Truncate(u32),
    /// Years since 1970.
    Year,
    /// Months since 1970.
    Month,
    /// Days since 1970.
    Day,
    /// Hours since 1970.
    Hour,
}

/// One field of a sort order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortField {
    /// A top-level column.
    pub column: String,
    /// Largest first.
    pub descending: bool,
    /// Rows without a value come before the others.
    pub nulls_first: bool,
}

/// When a batch is committed: at whichever limit is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// How long a change may wait. Shorter means fresher tables and more, smaller files.
    pub interval: Duration,
    /// Events in a batch.
    pub max_rows: u64,
    /// Bytes of events as they lie in the log.
    pub max_bytes: u64,
}

/// Where a pipeline's first start begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first event that the log still has.
    Earliest,
    /// The next event.
    Latest,
    /// The first event at or after this time, in milliseconds since 1970.
    Time(i64),
}

/// What happens to a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadRecord {
    /// The pipeline stops with exit code 4.
    Stop,
    /// The record is counted, logged and passed over.
    Skip,
    /// As it is, with the reason, it goes to a topic of its own.
    DeadLetter,
}

/// What happens to the records of a schema whose rows the tables cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIncompatibleSchema {
    /// The pipeline stops with exit code 4.
    Stop,
    /// Each is a bad record that goes to the dead letters; records of other schemas go on.
    DeadLetter,
}

/// What a running process shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observe {
    /// Where `/metrics`, `/livez` and `/readyz` are served; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// How log lines look.
    pub log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object each, for programs.
    Json,
}

/// What becomes of a type that contains itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecursiveTypes {
    /// Its schema fits no table.
    Refuse,
    /// Where it contains itself, the column is JSON text.
    Json,
}

/// What becomes of digits finer than microseconds in timestamps of JSON and Protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nanoseconds {
    /// They are cut off, and counted.
    Truncate,
    /// A record that has some is a bad one.
    Reject,
    /// Columns have nanoseconds.
    Keep,
}

/// A job of `firn run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Keeps the tables of the pipelines.
    Writer,
}

/// A table by its full name, `catalog.namespace.table`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRef {
    /// The first part.
    pub catalog: String,
    /// The parts between; at least one.
    pub namespace: Vec<String>,
    /// The last part.
    pub name: String,
}

impl Settings {
    /// Reads and checks a file, with variables from the process environment.
    ///
    /// # Errors
    /// [`Error::Config`] when the file cannot be read or anything in it is wrong; the message has one line per fault.
    pub fn load(path: &Path) -> Result<Settings> {
        let text = read(path)?;
        let file = std::path::absolute(path).map_err(|e| unreadable(path, &e))?;
        let base_dir = file.parent().unwrap_or(Path::new("/"));
        build::settings(path, &text, base_dir, &|name| std::env::var(name).ok())
    }

    /// Checks `text` as if it were the file `firn.yaml` in `base_dir` (an absolute path).
    ///
    /// # Errors
    /// [`Error::Config`] when anything is wrong; the message has one line per fault, each beginning `firn.yaml:LINE:`.
    pub fn parse(text: &str, base_dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        build::settings(Path::new("firn.yaml"), text, base_dir, env)
    }

    /// The table of this full name, `catalog.namespace.table`, in a configured catalog.
    ///
    /// # Errors
    /// [`Error::Config`] when the name has another form or the catalog is not configured.
    pub fn table_ref(&self, full_name: &str) -> Result<TableRef> {
        let wrong = |reason: String| Error::Config(format!("table '{}': {reason}", fault::printable(full_name)));
        let table = names::table_ref(full_name).map_err(wrong)?;
        if !self.catalogs.contains_key(&table.catalog) {
            let near = suggestion(&table.catalog, self.catalogs.keys().map(String::as_str));
            return Err(wrong(format!("{} has no catalog '{}'; {near}", self.path.display(), table.catalog)));
        }
        Ok(table)
    }

    /// The pipeline of this name.
    ///
    /// # Errors
    /// [`Error::Config`] when there is none, with the nearest name that there is.
    pub fn pipeline(&self, name: &str) -> Result<&Pipeline> {
        self.pipelines.get(name).ok_or_else(|| {
            let near = suggestion(name, self.pipelines.keys().map(String::as_str));
            Error::Config(format!("{} has no pipeline '{}'; {near}", self.path.display(), fault::printable(name)))
        })
    }
}

impl Table {
    /// The full name.
    #[must_use]
    pub fn table_ref(&self) -> TableRef {
        TableRef { catalog: self.catalog.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl std::fmt::Display for TableRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.catalog, self.namespace.join("."), self.name)
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "writer" => Ok(Role::Writer),
            _ if build::ROLES_NOT_BUILT.contains(&text) => Err(format!("`{text}` is not built yet; valid: writer")),
            _ => Err(format!("'{}' is not known; valid: writer", fault::printable(text))),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let mut faults = Faults::default();
        faults.add(1 + valid.iter().filter(|byte| **byte == b'\n').count(), "", "the file is not UTF-8 from here on");
        // A file cut at the limit may end within a character; its size is the fault then.
        if e.as_bytes().len() as u64 > FILE_BYTES_MAX { too_large(path) } else { faults.into_error(path) }
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Config(format!("cannot read the settings {}: {error}; name another file with -c", path.display()))
}

fn too_large(path: &Path) -> Error {
    Error::Config(format!("{}: larger than 1 MiB; this is no settings file", path.display()))
}

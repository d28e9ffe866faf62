//! The effective settings without secrets, as YAML that reads back: what was left out is shown with its default.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use secrecy::{ExposeSecret, SecretString};

use super::read::show_size;
use super::{
    Brokers, Catalog, CatalogKind, Delete, LogFormat, Mode, Nanoseconds, Observe, OnBadRecord, OnIncompatibleSchema,
    OnUnknownType, PartitionField, Pipeline, RecordKey, RecursiveTypes, RegistryUrl, Role, Settings, SortField, SqlUri,
    Start, SubjectStrategy, Table, Topics, Transform,
};

const HIDDEN: &str = "***";

/// Properties that hold no secret and that one wants to see. Any other value is hidden, known or not.
const SHOWN: [&str; 21] = [
    "client.id",
    "client.rack",
    "client.region",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "sasl.mechanism",
    "sasl.mechanisms",
    "scope",
    "security.protocol",
    "session.timeout.ms",
    "ssl.ca.location",
    "accept-transaction-retention",
    "gcs.project-id",
    "gcs.service.host",
    "oauth2-server-uri",
    "s3.endpoint",
    "s3.path-style-access",
    "s3.region",
];

impl Settings {
    /// The effective settings as YAML; every secret is `***`.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.to_string()
    }

    /// What must not appear in any message: every secret of the file, as it is sent.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretString> {
        let registry = &self.schema_registry;
        let mut secrets: Vec<_> =
            [&registry.password, &registry.token, &registry.tls.key].into_iter().flatten().collect();
        let catalogs = self.catalogs.values().map(|catalog| &catalog.properties);
        for properties in std::iter::once(&self.kafka.properties).chain(catalogs) {
            secrets
                .extend(properties.iter().filter(|(name, _)| !SHOWN.contains(&name.as_str())).map(|(_, value)| value));
        }
        let mut secrets: Vec<SecretString> = secrets.into_iter().cloned().collect();
        for catalog in self.catalogs.values() {
            let CatalogKind::IcebergSql { uri: SqlUri::Postgres(uri) } = &catalog.kind else { continue };
            let url = url::Url::parse(uri.expose_secret()).ok();
            secrets.extend(url.as_ref().and_then(url::Url::password).map(SecretString::from));
        }
        // Numbers and switches are settings, and blackening them would make messages unreadable.
        let plain = |text: &str| text.parse::<f64>().is_ok() || matches!(text, "true" | "false" | "");
        secrets.retain(|secret| !plain(secret.expose_secret()));
        secrets
    }
}

impl Display for Settings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let brokers = match &self.kafka.brokers {
            Brokers::Embedded => "embedded",
            Brokers::List(list) => list,
        };
        writeln!(f, "kafka:\n  brokers: {}", quoted(brokers))?;
        properties(f, "  ", &self.kafka.properties)?;
        let registry = &self.schema_registry;
        let url = match &registry.url {
            RegistryUrl::Embedded => "embedded",
            RegistryUrl::Url(url) => url,
        };
        writeln!(f, "schema_registry:\n  url: {}", quoted(url))?;
        if let Some(username) = &registry.username {
            writeln!(f, "  username: {}", quoted(username))?;
        }
        if registry.password.is_some() {
            writeln!(f, "  password: {}", quoted(HIDDEN))?;
        }
        if registry.token.is_some() {
            writeln!(f, "  token: {}", quoted(HIDDEN))?;
        }
        let tls = [("ca", &registry.tls.ca), ("certificate", &registry.tls.certificate), ("key", &registry.tls.key)];
        let tls: Vec<_> = tls.iter().filter(|(_, set)| set.is_some()).map(|(key, _)| *key).collect();
        if !tls.is_empty() {
            writeln!(f, "  tls:")?;
            tls.iter().try_for_each(|key| writeln!(f, "    {key}: {}", quoted(HIDDEN)))?;
        }
        writeln!(f, "catalogs:")?;
        self.catalogs.values().try_for_each(|catalog| show_catalog(f, catalog))?;
        if !self.pipelines.is_empty() {
            writeln!(f, "pipelines:")?;
        }
        self.pipelines.values().try_for_each(|pipeline| show_pipeline(f, pipeline))?;
        writeln!(f, "memory: {}", show_size(self.memory))?;
        writeln!(f, "state_dir: {}", quoted(&self.state_dir.display().to_string()))?;
        show_observe(f, &self.observe)?;
        let roles: Vec<&str> = self.roles.iter().map(role_name).collect();
        writeln!(f, "roles: [{}]", roles.join(", "))
    }
}

fn show_observe(f: &mut Formatter<'_>, observe: &Observe) -> fmt::Result {
    let log = match observe.log {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    match observe.listen {
        Some(listen) => writeln!(f, "observe: {{listen: {}, log: {log}}}", quoted(&listen.to_string())),
        None => writeln!(f, "observe: {{log: {log}}}"),
    }
}

fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Writer => "writer",
    }
}

fn show_catalog(f: &mut Formatter<'_>, catalog: &Catalog) -> fmt::Result {
    let (kind, uri) = match &catalog.kind {
        CatalogKind::IcebergSql { uri: SqlUri::Sqlite(path) } => {
            ("iceberg-sql", format!("sqlite://{}", path.display()))
        }
        CatalogKind::IcebergSql { uri: SqlUri::Postgres(uri) } => ("iceberg-sql", postgres(uri)),
        CatalogKind::IcebergRest { uri } => ("iceberg-rest", uri.clone()),
        CatalogKind::Delta => ("delta", String::new()),
    };
    writeln!(f, "  {}:\n    type: {kind}", catalog.name)?;
    if !uri.is_empty() {
        writeln!(f, "    uri: {}", quoted(&uri))?;
    }
    if let Some(warehouse) = &catalog.warehouse {
        writeln!(f, "    warehouse: {}", quoted(warehouse))?;
    }
    properties(f, "    ", &catalog.properties)
}

/// Where the database is, without who logs in; the query of a URL may hold a password too.
fn postgres(uri: &SecretString) -> String {
    let Ok(url) = url::Url::parse(uri.expose_secret()) else { return format!("postgres://{HIDDEN}") };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("postgres://{HIDDEN}@{}{port}{}", url.host_str().unwrap_or_default(), url.path())
}

fn show_pipeline(f: &mut Formatter<'_>, pipeline: &Pipeline) -> fmt::Result {
    writeln!(f, "  {}:", pipeline.name)?;
    match &pipeline.topics {
        Topics::Names(names) => writeln!(f, "    topics: {}", list(names))?,
        Topics::Pattern(pattern) => writeln!(f, "    topics: {}", quoted(pattern))?,
    }
    writeln!(f, "    group: {}", quoted(&pipeline.group))?;
    show_record_types(f, pipeline)?;
    if let Some(key) = &pipeline.key {
        writeln!(f, "    key: {}", list(key))?;
    }
    if let Some(record_key) = pipeline.record_key {
        let name = match record_key {
            RecordKey::Avro => "avro",
            RecordKey::String => "string",
            RecordKey::Int64 => "int64",
            RecordKey::Int32 => "int32",
        };
        writeln!(f, "    record_key: {name}")?;
    }
    let mode = match pipeline.mode {
        Mode::Upsert => "upsert",
        Mode::Append => "append",
    };
    writeln!(f, "    mode: {mode}\n    lineage: {}", pipeline.lineage.as_deref().unwrap_or("false"))?;
    if let Some(order_by) = &pipeline.order_by {
        writeln!(f, "    order_by: {}", quoted(order_by))?;
    }
    match &pipeline.delete {
        Delete::Tombstone => writeln!(f, "    delete: tombstone")?,
        Delete::Field { field, values } => {
            writeln!(f, "    delete: {{field: {}, values: {}}}", quoted(field), list(values))?;
        }
    }
    writeln!(f, "    tables:")?;
    pipeline.tables.iter().try_for_each(|table| show_table(f, table))?;
    let commit = &pipeline.commit;
    let (interval, bytes) = (humantime::format_duration(commit.interval), show_size(commit.max_bytes));
    writeln!(f, "    commit: {{interval: {interval}, max_rows: {}, max_bytes: {bytes}}}", commit.max_rows)?;
    writeln!(f, "    start: {}", start(pipeline.start))?;
    let on_bad_record = match pipeline.on_bad_record {
        OnBadRecord::Stop => "stop",
        OnBadRecord::Skip => "skip",
        OnBadRecord::DeadLetter => "dead_letter",
    };
    let on_incompatible_schema = match pipeline.on_incompatible_schema {
        OnIncompatibleSchema::Stop => "stop",
        OnIncompatibleSchema::DeadLetter => "dead_letter",
    };
    writeln!(f, "    on_bad_record: {on_bad_record}")?;
    writeln!(f, "    on_incompatible_schema: {on_incompatible_schema}")?;
    let recursive_types = match pipeline.recursive_types {
        RecursiveTypes::Refuse => "refuse",
        RecursiveTypes::Json => "json",
    };
    writeln!(f, "    recursive_types: {recursive_types}")?;
    let nanoseconds = match pipeline.nanoseconds {
        Nanoseconds::Truncate => "truncate",
        Nanoseconds::Reject => "reject",
        Nanoseconds::Keep => "keep",
    };
    writeln!(f, "    nanoseconds: {nanoseconds}")?;
    if let Some(topic) = &pipeline.dead_letter {
        writeln!(f, "    dead_letter: {{topic: {}}}", quoted(topic))?;
    }
    pipeline.max_bad_ratio.map_or(Ok(()), |share| writeln!(f, "    max_bad_ratio: {share}"))
}

fn show_record_types(f: &mut Formatter<'_>, pipeline: &Pipeline) -> fmt::Result {
    let strategy = match pipeline.subject_strategy {
        SubjectStrategy::Topic => "topic",
        SubjectStrategy::Record => "record",
        SubjectStrategy::TopicRecord => "topic_record",
    };
    let on_unknown_type = match pipeline.on_unknown_type {
        OnUnknownType::Stop => "stop",
        OnUnknownType::Skip => "skip",
        OnUnknownType::DeadLetter => "dead_letter",
    };
    writeln!(f, "    subject_strategy: {strategy}")?;
    if !pipeline.record_types.is_empty() {
        writeln!(f, "    record_types: {}", list(&pipeline.record_types))?;
    }
    if pipeline.has_record_types() {
        writeln!(f, "    on_unknown_type: {on_unknown_type}")?;
    }
    Ok(())
}

fn show_table(f: &mut Formatter<'_>, table: &Table) -> fmt::Result {
    let name = format!("{}.{}", table.namespace.join("."), table.name);
    let partition: Vec<String> = table.partition_by.iter().map(PartitionField::to_string).collect();
    let sort: Vec<String> = table.sort_by.iter().map(SortField::to_string).collect();
    let (catalog, version) = (&table.catalog, table.format_version);
    writeln!(f, "      - catalog: {catalog}\n        name: {}\n        format_version: {version}", quoted(&name))?;
    if let Some(record_type) = &table.record_type {
        writeln!(f, "        record_type: {}", quoted(record_type))?;
    }
    if let Some(key) = &table.key {
        writeln!(f, "        key: {}", list(key))?;
    }
    if let Some(order_by) = &table.order_by {
        writeln!(f, "        order_by: {}", quoted(order_by))?;
    }
    writeln!(f, "        partition_by: {}\n        sort_by: {}", list(&partition), list(&sort))
}

impl Display for PartitionField {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            Transform::Identity => f.write_str(column),
            Transform::Bucket(count) => write!(f, "bucket({count}, {column})"),
            Transform::Truncate(width) => write!(f, "truncate({width}, {column})"),
            Transform::Year => write!(f, "year({column})"),
            Transform::Month => write!(f, "month({column})"),
            Transform::Day => write!(f, "day({column})"),
            Transform::Hour => write!(f, "hour({column})"),
        }
    }
}

impl Display for SortField {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "desc" } else { "asc" };
        let nulls = if self.nulls_first { "first" } else { "last" };
        write!(f, "{} {direction} nulls {nulls}", self.column)
    }
}

fn start(start: Start) -> String {
    match start {
        Start::Earliest => "earliest".to_owned(),
        Start::Latest => "latest".to_owned(),
        Start::Time(millis) => match chrono::DateTime::from_timestamp_millis(millis) {
            Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            None => format!("{millis} ms since 1970"),
        },
    }
}

fn properties(f: &mut Formatter<'_>, indent: &str, properties: &BTreeMap<String, SecretString>) -> fmt::Result {
    if properties.is_empty() {
        return Ok(());
    }
    writeln!(f, "{indent}properties:")?;
    for (name, value) in properties {
        let value = if SHOWN.contains(&name.as_str()) { value.expose_secret() } else { HIDDEN };
        writeln!(f, "{indent}  {}: {}", quoted(name), quoted(value))?;
    }
    Ok(())
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// Plain where YAML and a reader take it for what it is, else in double quotes; JSON's escapes are YAML's. What would
/// read as a variable is escaped.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    if begins && text.chars().all(plain) && text != "null" {
        return text;
    }
    serde_json::Value::String(text).to_string()
}

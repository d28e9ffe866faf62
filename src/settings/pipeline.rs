//! One pipeline of the file, and what two pipelines may not share.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::{Faults, suggestion};
use super::names;
use super::read::{Item, Section};
use super::record_types;
use super::{
    Catalog, CatalogKind, Commit, Delete, Mode, Nanoseconds, OnBadRecord, OnIncompatibleSchema, OnUnknownType,
    Pipeline, RecordKey, RecursiveTypes, Start, Table, TableRef, Topics, keys,
};

const LINEAGE: &str = "_kafka";
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const ROWS: u64 = 1_000_000;
const ROWS_MAX: u64 = 50_000_000;
const BYTES: u64 = 256_000_000;
const BYTES_MIN: u64 = 1_000_000;

/// What a pipeline is checked against.
pub(super) struct Context<'c> {
    /// Every catalog that the file names, right or wrong.
    declared: &'c [String],
    catalogs: &'c BTreeMap<String, Catalog>,
    memory: u64,
    /// The key path that writes each table already.
    tables: BTreeMap<TableRef, (String, TableRef)>,
    /// The same by folder: two catalogs may share one warehouse.
    folders: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
    pub notes: Vec<String>,
}

impl<'c> Context<'c> {
    pub(super) fn new(declared: &'c [String], catalogs: &'c BTreeMap<String, Catalog>, memory: u64) -> Self {
        let (tables, folders, groups, notes) = Default::default();
        Context { declared, catalogs, memory, tables, folders, groups, notes }
    }
}

/// Reads one pipeline. What is wrong in it is reported and replaced by its default.
pub(super) fn pipeline(name: &str, item: Item<'_>, context: &mut Context<'_>, faults: &mut Faults) -> Pipeline {
    let section = Section::open(item, &keys::PIPELINE, faults);
    let modes = [("upsert", Mode::Upsert), ("append", Mode::Append)];
    let mode = choice(&section, "mode", &modes, &[], faults).unwrap_or(Mode::Upsert);
    refuse_unbuilt(&section, faults);
    let pipeline = Pipeline {
        name: name.to_owned(),
        topics: topics(&section, faults),
        group: group(name, &section, context, faults),
        subject_strategy: record_types::subject_strategy(&section, faults),
        record_types: record_types::record_types(&section, faults),
        on_unknown_type: record_types::on_unknown_type(&section, faults),
        key: key(&section, faults),
        record_key: record_key(&section, faults),
        mode,
        lineage: lineage(&section, faults),
        order_by: section.get("order_by").and_then(|item| column(&item, faults)),
        delete: delete(&section, faults),
        tables: tables(&section, context, faults),
        commit: commit(&section, context.memory, faults),
        start: start(&section, faults),
        on_bad_record: on_bad_record(&section, faults),
        on_incompatible_schema: on_incompatible_schema(&section, faults),
        recursive_types: recursive_types(&section, faults),
        nanoseconds: nanoseconds(&section, faults),
        dead_letter: dead_letter(&section, faults),
        max_bad_ratio: max_bad_ratio(&section, faults),
    };
    check_columns(&section, &pipeline, faults);
    record_types::check(&section, &pipeline, &mut context.notes, faults);
    check_dead_letters(&section, &pipeline, context, faults);
    if mode == Mode::Append {
        for key in ["key", "record_key", "order_by", "delete"] {
            if let Some(item) = section.get(key) {
                context.notes.push(format!("{}: no effect with `mode: append`", item.path));
            }
        }
    }
    pipeline
}

pub(super) fn choice<T: Copy>(
    section: &Section<'_>,
    key: &str,
    valid: &[(&'static str, T)],
    not_built: &[&str],
    faults: &mut Faults,
) -> Option<T> {
    section.get(key)?.choice(valid, not_built, faults)
}

/// Keys that exist for the sake of values that are not built: only the value that changes nothing is accepted.
fn refuse_unbuilt(section: &Section<'_>, faults: &mut Faults) {
    if let Some(item) = section.get("key_partitioned")
        && item.choice(&[("false", false), ("true", true)], &[], faults) == Some(true)
    {
        item.fault(faults, "`key_partitioned: true` is not built yet; every member follows the whole table");
    }
}

fn record_key(section: &Section<'_>, faults: &mut Faults) -> Option<RecordKey> {
    let valid = [
        ("avro", RecordKey::Avro),
        ("string", RecordKey::String),
        ("int64", RecordKey::Int64),
        ("int32", RecordKey::Int32),
    ];
    choice(section, "record_key", &valid, &[], faults)
}

fn on_bad_record(section: &Section<'_>, faults: &mut Faults) -> OnBadRecord {
    let valid = [("stop", OnBadRecord::Stop), ("skip", OnBadRecord::Skip), ("dead_letter", OnBadRecord::DeadLetter)];
    choice(section, "on_bad_record", &valid, &[], faults).unwrap_or(OnBadRecord::Stop)
}

fn on_incompatible_schema(section: &Section<'_>, faults: &mut Faults) -> OnIncompatibleSchema {
    let valid = [("stop", OnIncompatibleSchema::Stop), ("dead_letter", OnIncompatibleSchema::DeadLetter)];
    choice(section, "on_incompatible_schema", &valid, &[], faults).unwrap_or(OnIncompatibleSchema::Stop)
}

fn nanoseconds(section: &Section<'_>, faults: &mut Faults) -> Nanoseconds {
    let valid = [("truncate", Nanoseconds::Truncate), ("reject", Nanoseconds::Reject), ("keep", Nanoseconds::Keep)];
    choice(section, "nanoseconds", &valid, &[], faults).unwrap_or(Nanoseconds::Truncate)
}

fn recursive_types(section: &Section<'_>, faults: &mut Faults) -> RecursiveTypes {
    let valid = [("refuse", RecursiveTypes::Refuse), ("json", RecursiveTypes::Json)];
    choice(section, "recursive_types", &valid, &[], faults).unwrap_or(RecursiveTypes::Refuse)
}

fn dead_letter(section: &Section<'_>, faults: &mut Faults) -> Option<String> {
    let section = Section::open(section.get("dead_letter")?, &keys::DEAD_LETTER, faults);
    let topic = section.need("topic", faults)?;
    let read = topic.text(faults).map(|text| names::check_topic(text).map(|()| text.to_owned()))?;
    told(&topic, read, faults)
}

fn max_bad_ratio(section: &Section<'_>, faults: &mut Faults) -> Option<f64> {
    let item = section.get("max_bad_ratio")?;
    match item.text(faults)?.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Some(share),
        _ => {
            item.fault(faults, format!("{} is not a share from 0 to 1, such as 0.05", item.shown()));
            None
        }
    }
}

/// A topic for what is sent there, and no way back into the pipeline.
fn check_dead_letters(section: &Section<'_>, pipeline: &Pipeline, context: &mut Context<'_>, faults: &mut Faults) {
    let wanted = [
        ("on_bad_record", pipeline.on_bad_record == OnBadRecord::DeadLetter),
        ("on_incompatible_schema", pipeline.on_incompatible_schema == OnIncompatibleSchema::DeadLetter),
        ("on_unknown_type", pipeline.on_unknown_type == OnUnknownType::DeadLetter),
    ];
    let asking = wanted.iter().find(|(_, asks)| *asks);
    match (&pipeline.dead_letter, asking) {
        (None, Some((key, _))) if section.get("dead_letter").is_none() => {
            let message = format!("`{key}: dead_letter` needs the topic; set `dead_letter: {{topic: …}}`");
            faults.add(section.line, &section.path, message);
        }
        (Some(_), None) => {
            let path = &section.path;
            context.notes.push(format!("{path}.dead_letter: no effect without `on_bad_record: dead_letter`"));
        }
        _ => {}
    }
    let Some(topic) = &pipeline.dead_letter else { return };
    let reads = match &pipeline.topics {
        Topics::Names(names) => names.contains(topic),
        Topics::Pattern(pattern) => regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(topic)),
    };
    if reads {
        let message = format!("the dead-letter topic '{topic}' is one of the topics that the pipeline reads");
        faults.add(section.line, &section.path, message);
    }
}

fn topics(section: &Section<'_>, faults: &mut Faults) -> Topics {
    let Some(topics) = section.need("topics", faults) else { return Topics::Names(Vec::new()) };
    let items = topics.list();
    let mut found: Vec<String> = Vec::new();
    let mut pattern = None;
    for item in &items {
        let Some(text) = item.text(faults) else { continue };
        if text.starts_with('^') {
            pattern = Some(text.to_owned());
            if let Err(error) = regex::Regex::new(text) {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                item.fault(faults, format!("{} is no regular expression: {reason}", item.shown()));
            }
        } else if let Err(reason) = names::check_topic(text) {
            item.fault(faults, format!("{} {reason}", item.shown()));
        } else if found.iter().any(|name| name == text) {
            item.fault(faults, format!("{} is listed twice", item.shown()));
        }
        found.push(text.to_owned());
    }
    if items.is_empty() {
        topics.fault(faults, "names no topic");
    }
    match pattern {
        Some(pattern) => {
            if items.len() > 1 {
                topics.fault(faults, "is a list of names or one regex, not both");
            }
            Topics::Pattern(pattern)
        }
        None => Topics::Names(found),
    }
}

fn group(name: &str, section: &Section<'_>, context: &mut Context<'_>, faults: &mut Faults) -> String {
    let item = section.get("group");
    let group = match item.as_ref().and_then(|item| item.text(faults)) {
        Some(group) => group.to_owned(),
        None => format!("firn-{name}"),
    };
    if let Some(other) = context.groups.insert(group.clone(), section.path.clone()) {
        let line = item.map_or(section.line, |item| item.node.line);
        // Members of one group split the partitions: each pipeline would see a part of its events.
        faults.add(line, &section.path, format!("{other} has the same consumer group '{group}'; set another `group`"));
    }
    group
}

fn column(item: &Item<'_>, faults: &mut Faults) -> Option<String> {
    let read = names::column(item.text(faults)?);
    told(item, read, faults)
}

/// The value, or its fault reported with the text in front.
pub(super) fn told<T>(item: &Item<'_>, read: Result<T, String>, faults: &mut Faults) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(reason) => {
            item.fault(faults, format!("{} {reason}", item.shown()));
            None
        }
    }
}

fn key(section: &Section<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let key = section.get("key")?;
    let mut columns: Vec<String> = Vec::new();
    for item in key.list() {
        let Some(name) = column(&item, faults) else { continue };
        if columns.contains(&name) {
            item.fault(faults, format!("{} is listed twice", item.shown()));
        }
        columns.push(name);
    }
    if key.list().is_empty() {
        key.fault(faults, "names no column; leave `key` out to take the fields of the record key");
    }
    Some(columns)
}

fn lineage(section: &Section<'_>, faults: &mut Faults) -> Option<String> {
    let Some(item) = section.get("lineage") else { return Some(LINEAGE.to_owned()) };
    match item.text(faults)? {
        "false" => None,
        "true" => Some(LINEAGE.to_owned()),
        _ => column(&item, faults),
    }
}

fn delete(section: &Section<'_>, faults: &mut Faults) -> Delete {
    let Some(item) = section.get("delete") else { return Delete::Tombstone };
    if !item.is_map() {
        item.choice(&[("tombstone", ())], &["debezium"], faults);
        return Delete::Tombstone;
    }
    let section = Section::open(item, &keys::DELETE, faults);
    let field = section.need("field", faults).and_then(|item| column(&item, faults));
    let mut values = Vec::new();
    if let Some(list) = section.need("values", faults) {
        values.extend(list.list().iter().filter_map(|item| item.text(faults)).map(str::to_owned));
        if list.list().is_empty() {
            list.fault(faults, "names no value; an event whose field has one of them is a delete");
        }
    }
    Delete::Field { field: field.unwrap_or_default(), values }
}

fn commit(section: &Section<'_>, memory: u64, faults: &mut Faults) -> Commit {
    // A default that follows from `memory`: with little of it, a batch must still leave room for the next.
    let mut commit = Commit { interval: INTERVAL, max_rows: ROWS, max_bytes: BYTES.min(memory / 4).max(BYTES_MIN) };
    let Some(item) = section.get("commit") else { return commit };
    let section = Section::open(item, &keys::COMMIT, faults);
    if let Some(item) = section.get("interval") {
        commit.interval = item.duration(INTERVAL_MIN..=INTERVAL_MAX, faults).unwrap_or(INTERVAL);
    }
    if let Some(item) = section.get("max_rows") {
        commit.max_rows = item.number(1..=ROWS_MAX, faults).unwrap_or(ROWS);
    }
    if let Some(item) = section.get("max_bytes")
        && let Some(bytes) = item.size(BYTES_MIN..=u64::MAX, faults)
    {
        commit.max_bytes = bytes;
        if bytes > memory {
            item.fault(faults, format!("{} is more than `memory`", item.shown()));
        }
    }
    commit
}

fn start(section: &Section<'_>, faults: &mut Faults) -> Start {
    let Some(item) = section.get("start") else { return Start::Earliest };
    let Some(text) = item.text(faults) else { return Start::Earliest };
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        match chrono::DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis()) {
            Ok(millis @ 0..) => return Start::Time(millis),
            Ok(_) => item.fault(faults, format!("{} is before 1970", item.shown())),
            Err(_) => {
                item.fault(faults, format!("{} is not a time; write one like 2026-01-01T00:00:00Z", item.shown()))
            }
        }
        return Start::Earliest;
    }
    let valid = [("earliest", Start::Earliest), ("latest", Start::Latest)];
    if let Some((_, start)) = valid.iter().find(|(name, _)| *name == text) {
        return *start;
    }
    let near = suggestion(text, ["earliest", "latest", "a time like 2026-01-01T00:00:00Z"]);
    item.fault(faults, format!("{} is not known; {near}", item.shown()));
    Start::Earliest
}

fn tables(section: &Section<'_>, context: &mut Context<'_>, faults: &mut Faults) -> Vec<Table> {
    let Some(tables) = section.need("tables", faults) else { return Vec::new() };
    if !tables.is_list() {
        tables.fault(faults, "must be a list: `- {catalog: …, name: namespace.table}`");
        return Vec::new();
    }
    if tables.list().is_empty() {
        tables.fault(faults, "names no table");
    }
    tables.list().into_iter().filter_map(|item| table(item, context, faults)).collect()
}

fn table(item: Item<'_>, context: &mut Context<'_>, faults: &mut Faults) -> Option<Table> {
    let section = Section::open(item, &keys::TABLE, faults);
    let catalog = section.need("catalog", faults).and_then(|item| known_catalog(&item, context, faults));
    let named = section.need("name", faults);
    let name = named.as_ref().and_then(|item| {
        let read = names::table_name(item.text(faults)?);
        told(item, read, faults)
    });
    let versions = [("2", 2), ("3", 3)];
    let format_version = choice(&section, "format_version", &versions, &[], faults).unwrap_or(2);
    let partition_by = fields(&section, "partition_by", names::partition_field, faults);
    let sort_by = fields(&section, "sort_by", names::sort_field, faults);
    for (i, field) in sort_by.iter().enumerate() {
        if sort_by[..i].iter().any(|before| before.column == field.column) {
            faults.add(section.line, &section.path, format!("`sort_by` names '{}' twice", field.column));
        }
    }
    let delta = catalog.as_ref().and_then(|name| context.catalogs.get(name));
    if delta.is_some_and(|c| matches!(c.kind, CatalogKind::Delta)) {
        if let Some(item) = section.get("format_version") {
            item.fault(faults, "is Iceberg's: a Delta table has none");
        }
        if let Some(field) = partition_by.iter().find(|field| field.transform != super::Transform::Identity) {
            let why = format!(
                "partition_by: a Delta table is partitioned by columns as they are, not by a transform of '{}'",
                field.column
            );
            faults.add(section.line, &section.path, why);
        }
    }
    let (namespace, name) = name?;
    let record_type = section.get("record_type").and_then(|item| record_types::record_type(&item, faults));
    let (key, order_by) = (key(&section, faults), section.get("order_by").and_then(|item| column(&item, faults)));
    let catalog = catalog?;
    let table = Table { catalog, namespace, name, format_version, partition_by, sort_by, record_type, key, order_by };
    if let Some(item) = named {
        claim(&table, &section.path, &item, context, faults);
    }
    Some(table)
}

fn known_catalog(item: &Item<'_>, context: &Context<'_>, faults: &mut Faults) -> Option<String> {
    let name = item.text(faults)?;
    if !context.declared.iter().any(|declared| declared == name) {
        let near = suggestion(name, context.declared.iter().map(String::as_str));
        item.fault(faults, format!("there is no catalog {}; {near}", item.shown()));
        return None;
    }
    Some(name.to_owned())
}

fn fields<T: PartialEq>(
    section: &Section<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<T, String>,
    faults: &mut Faults,
) -> Vec<T> {
    let mut fields = Vec::new();
    for item in section.get(key).map(|item| item.list()).unwrap_or_default() {
        let Some(text) = item.text(faults) else { continue };
        let Some(field) = told(&item, read(text), faults) else { continue };
        if fields.contains(&field) {
            item.fault(faults, format!("{} is listed twice", item.shown()));
        }
        fields.push(field);
    }
    fields
}

/// A table has one writer: refuses a second one, by name or by the folder where the rows would lie. Names that differ only
/// in case are one: Trino's engines fold them, and so do some file systems, where two Delta logs would be one.
fn claim(table: &Table, path: &str, item: &Item<'_>, context: &mut Context<'_>, faults: &mut Faults) {
    let own = table.table_ref();
    let fold = |part: &String| part.to_lowercase();
    let (namespace, name) = (own.namespace.iter().map(fold).collect::<Vec<_>>(), fold(&own.name));
    let folder_name = format!("{}/{name}", namespace.join("."));
    let folded = TableRef { catalog: own.catalog.clone(), namespace, name };
    let by_name = context.tables.insert(folded, (path.to_owned(), own.clone()));
    let local = context
        .catalogs
        .get(&table.catalog)
        .filter(|c| matches!(c.kind, CatalogKind::IcebergSql { .. } | CatalogKind::Delta));
    let by_folder = local
        .and_then(|catalog| catalog.warehouse.as_ref())
        .and_then(|warehouse| context.folders.insert(format!("{warehouse}/{folder_name}"), path.to_owned()));
    if let Some((other, same)) = by_name.as_ref().filter(|(_, same)| *same != own) {
        item.fault(
            faults,
            format!("{other} writes the table '{same}', whose name differs only in upper and lower case; give one another name"),
        );
    } else if let Some((other, _)) = by_name {
        item.fault(faults, format!("{other} writes the table '{own}' already; a table has one pipeline"));
    } else if let Some(other) = by_folder {
        item.fault(faults, format!("{other} writes the same folder, through another catalog on the same warehouse"));
    }
}

/// Columns that cannot be two things at once.
fn check_columns(section: &Section<'_>, pipeline: &Pipeline, faults: &mut Faults) {
    let Some(lineage) = &pipeline.lineage else { return };
    let partition = pipeline.tables.iter().flat_map(|t| &t.partition_by).map(|field| &field.column);
    let sort = pipeline.tables.iter().flat_map(|t| &t.sort_by).map(|field| &field.column);
    let keys = pipeline.tables.iter().flat_map(|t| t.key.iter().flatten().chain(&t.order_by));
    let used = pipeline.key.iter().flatten().chain(&pipeline.order_by).chain(keys).chain(partition).chain(sort);
    if used.into_iter().any(|column| column == lineage) {
        let message = format!("'{lineage}' is the lineage column and cannot be a key, order, partition or sort column");
        faults.add(section.line, &section.path, message);
    }
}

//! Table features: which of them Firn reads and writes, and how a table gets one that it lacks.

use std::collections::BTreeSet;

use super::actions::{MetaData, Protocol};
use crate::error::{Error, Result};

/// Features that change how a table is read, all of them understood here. Of variants that is because a table without a
/// variant column has nothing to understand, and one with such a column is refused for it.
const READ: [&str; 9] = [
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "variantType",
    "variantType-preview",
];
/// Features that only writers have to know. Some demand something once they are used: see [`check_write`].
const WRITE: [&str; 10] = [
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    "identityColumns",
    "inCommitTimestamp",
    "domainMetadata",
    "clustering",
    "allowColumnDefaults",
];
/// What the writer versions before features stood for, each with the first version that has it.
const LEGACY_WRITE: [(i32, &str); 7] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];
/// From these versions on features are listed by name.
const READER_LISTS: i32 = 3;
const WRITER_LISTS: i32 = 7;

/// Table property: whether writers may delete by deletion vector.
pub(super) const ENABLE_VECTORS: &str = "delta.enableDeletionVectors";
/// Table property: how column names are mapped to names in files.
pub(super) const MAPPING_MODE: &str = "delta.columnMapping.mode";
/// Table property: the highest column id that was given out.
pub(super) const MAPPING_MAX_ID: &str = "delta.columnMapping.maxColumnId";
/// Table property: how long the newest version of each writing application is remembered.
pub(super) const TXN_RETENTION: &str = "delta.setTransactionRetentionDuration";

fn features(protocol: &Protocol) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut read, mut write) = (BTreeSet::new(), BTreeSet::new());
    if protocol.min_reader_version >= READER_LISTS {
        read.extend(protocol.reader_features.iter().flatten().map(String::as_str));
    } else if protocol.min_reader_version == 2 {
        read.insert("columnMapping");
    }
    if protocol.min_writer_version >= WRITER_LISTS {
        write.extend(protocol.writer_features.iter().flatten().map(String::as_str));
    } else {
        write.extend(LEGACY_WRITE.iter().filter(|(from, _)| *from <= protocol.min_writer_version).map(|(_, f)| *f));
    }
    (read, write)
}

/// Refuses by name what a reader would have to understand and does not.
pub(super) fn check_read(protocol: &Protocol) -> Result<()> {
    if protocol.min_reader_version > READER_LISTS {
        let version = protocol.min_reader_version;
        return Err(Error::Decision(format!("it needs a reader of Delta version {version}, which this is not")));
    }
    let listed = protocol.reader_features.iter().flatten();
    refuse(listed.filter(|_| protocol.min_reader_version >= READER_LISTS).filter(|f| !READ.contains(&f.as_str())))
}

fn refuse<'f>(unknown: impl Iterator<Item = &'f String>) -> Result<()> {
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Error::Decision(format!(
        "it has table features that are not supported: {}; drop them (ALTER TABLE … DROP FEATURE), or use another table",
        unknown.join(", ")
    )))
}

/// Refuses by name what a writer would have to honour and does not. `forgetting` is the operator's word that a
/// retention of transaction versions is accepted.
pub(super) fn check_write(protocol: &Protocol, metadata: &MetaData, forgetting: bool) -> Result<()> {
    check_read(protocol)?;
    if protocol.min_writer_version > WRITER_LISTS {
        let version = protocol.min_writer_version;
        return Err(Error::Decision(format!("it needs a writer of Delta version {version}, which this is not")));
    }
    if protocol.min_writer_version >= WRITER_LISTS {
        let listed = protocol.writer_features.iter().flatten();
        refuse(listed.filter(|f| !READ.contains(&f.as_str()) && !WRITE.contains(&f.as_str())))?;
    }
    let is_on = |name: &str| metadata.configuration.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    for (property, what) in [
        ("delta.appendOnly", "rows of it may not be changed"),
        ("delta.enableChangeDataFeed", "a change data feed is not written"),
        ("delta.enableInCommitTimestamps", "timestamps in commits are not written"),
        ("delta.enableRowTracking", "row ids are not written"),
    ] {
        if is_on(property) {
            return Err(Error::Decision(format!(
                "its property {property} is true, and {what}; set it to false, or use another table"
            )));
        }
    }
    if let Some(name) = metadata.configuration.keys().find(|k| k.starts_with("delta.constraints.")) {
        return Err(Error::Decision(format!(
            "it has the constraint {name}, and constraints are not checked; drop it, or use another table"
        )));
    }
    for (key, what) in [
        ("\"delta.invariants\"", "an invariant on a column"),
        ("\"delta.generationExpression\"", "a generated column"),
        ("\"delta.identity.start\"", "an identity column"),
    ] {
        if metadata.schema_string.contains(key) {
            return Err(Error::Decision(format!("it has {what}, which is not supported; use another table")));
        }
    }
    match metadata.configuration.get(TXN_RETENTION) {
        Some(retention) if !forgetting => Err(Error::Decision(format!(
            "its property {TXN_RETENTION} is '{retention}': after that time without a commit the table forgets the \
             position, and events would be read twice; remove the property, or accept that with the catalog property \
             accept-transaction-retention: true"
        ))),
        _ => Ok(()),
    }
}

/// The protocol with these features too; what older versions implied is then listed. None where it has them already.
pub(super) fn with(protocol: &Protocol, wanted: &[&str]) -> Option<Protocol> {
    let (read, write) = features(protocol);
    let missing = |f: &&&str| !write.contains(**f) || (READ.contains(*f) && !read.contains(**f));
    if wanted.iter().filter(missing).count() == 0 {
        return None;
    }
    let (mut read, mut write) = (
        protocol.reader_features.clone().unwrap_or_else(|| owned(&read)),
        protocol.writer_features.clone().unwrap_or_else(|| owned(&write)),
    );
    let add = |list: &mut Vec<String>, name: &str| {
        if !list.iter().any(|f| f == name) {
            list.push(name.to_owned());
        }
    };
    for feature in wanted {
        add(&mut write, feature);
        if READ.contains(feature) {
            add(&mut read, feature);
        }
    }
    let lists_read = !read.is_empty();
    Some(Protocol {
        min_reader_version: if lists_read { READER_LISTS } else { protocol.min_reader_version },
        min_writer_version: WRITER_LISTS,
        reader_features: lists_read.then_some(read),
        writer_features: Some(write),
    })
}

fn owned(features: &BTreeSet<&str>) -> Vec<String> {
    features.iter().map(|f| (*f).to_owned()).collect()
}

/// Whether deletion vectors may be written.
pub(super) fn vectors_enabled(protocol: &Protocol, metadata: &MetaData) -> bool {
    let on = metadata.configuration.get(ENABLE_VECTORS).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    on && with(protocol, &["deletionVectors"]).is_none()
}

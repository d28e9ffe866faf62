//! Several record types in one topic: which table takes which, and where the registry keeps their schemas.

use super::fault::Faults;
use super::pipeline::{choice, told};
use super::read::{Item, Section};
use super::{Pipeline, Table};

/// How long the name of a record type may be.
const NAME_MAX: usize = 255;

/// Where the registry keeps the schemas of a topic's values: the usual strategies of serializers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectStrategy {
    /// `<topic>-value`.
    Topic,
    /// The record type's full name.
    Record,
    /// `<topic>-<record type>`.
    TopicRecord,
}

/// What happens to a record of a type that no table takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknownType {
    /// The pipeline ends there.
    Stop,
    /// It is counted, and passed over.
    Skip,
    /// It is kept in the dead-letter topic.
    DeadLetter,
}

impl Pipeline {
    /// The key columns of a table; None: the fields of the record key.
    #[must_use]
    pub fn key_of<'p>(&'p self, table: &'p Table) -> Option<&'p Vec<String>> {
        table.key.as_ref().or(self.key.as_ref())
    }

    /// Whether the tables take record types by name.
    #[must_use]
    pub fn has_record_types(&self) -> bool {
        !self.record_types.is_empty() || self.tables.iter().any(|table| table.record_type.is_some())
    }

    /// The order column of a table.
    #[must_use]
    pub fn order_of<'p>(&'p self, table: &'p Table) -> Option<&'p String> {
        table.order_by.as_ref().or(self.order_by.as_ref())
    }
}

pub(super) fn subject_strategy(section: &Section<'_>, faults: &mut Faults) -> SubjectStrategy {
    let valid = [
        ("topic", SubjectStrategy::Topic),
        ("record", SubjectStrategy::Record),
        ("topic_record", SubjectStrategy::TopicRecord),
    ];
    choice(section, "subject_strategy", &valid, &[], faults).unwrap_or(SubjectStrategy::Topic)
}

pub(super) fn on_unknown_type(section: &Section<'_>, faults: &mut Faults) -> OnUnknownType {
    let valid =
        [("stop", OnUnknownType::Stop), ("skip", OnUnknownType::Skip), ("dead_letter", OnUnknownType::DeadLetter)];
    choice(section, "on_unknown_type", &valid, &[], faults).unwrap_or(OnUnknownType::Stop)
}

/// The full name of a record type.
pub(super) fn record_type(item: &Item<'_>, faults: &mut Faults) -> Option<String> {
    let text = item.text(faults)?;
    let read = match text.len() {
        0..=NAME_MAX if !text.starts_with('.') && !text.ends_with('.') => Ok(text.to_owned()),
        0..=NAME_MAX => Err("is not the full name of a record type, such as com.acme.Order".to_owned()),
        _ => Err(format!("is longer than {NAME_MAX} bytes")),
    };
    told(item, read, faults)
}

/// The record types that are struct columns of each table.
pub(super) fn record_types(section: &Section<'_>, faults: &mut Faults) -> Vec<String> {
    let Some(list) = section.get("record_types") else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for item in list.list() {
        let Some(name) = record_type(&item, faults) else { continue };
        let column = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
        if let Some(other) = names.iter().find(|other| column(other) == column(&name)) {
            item.fault(faults, format!("'{name}' would have the same struct column as '{other}'"));
        }
        names.push(name);
    }
    if list.list().is_empty() {
        list.fault(faults, "names no record type");
    }
    names
}

/// Whether tables and record types fit together.
pub(super) fn check(section: &Section<'_>, pipeline: &Pipeline, notes: &mut Vec<String>, faults: &mut Faults) {
    let mut fault = |message: String| faults.add(section.line, &section.path, message);
    let typed = pipeline.tables.iter().filter(|table| table.record_type.is_some()).count();
    if typed > 0 && typed < pipeline.tables.len() {
        fault("either all tables have a `record_type` or none: an event is a row of one table".into());
    }
    if typed > 0 && !pipeline.record_types.is_empty() {
        fault("`record_types` puts all types into each table, `record_type` one: use one of the two".into());
    }
    let routed = pipeline.has_record_types();
    if !routed && pipeline.subject_strategy != SubjectStrategy::Topic {
        let why = "`subject_strategy` other than `topic` needs the record types: set `record_type` in each table, or `record_types`";
        fault(why.into());
    }
    if !routed && section.get("on_unknown_type").is_some() {
        notes.push(format!("{}.on_unknown_type: no effect without record types", section.path));
    }
    for table in &pipeline.tables {
        if table.record_type.is_none() && (table.key.is_some() || table.order_by.is_some()) {
            let name = table.table_ref();
            fault(format!(
                "table '{name}': `key` and `order_by` of a table go with its `record_type`; set the pipeline's"
            ));
        }
    }
    for (i, table) in pipeline.tables.iter().enumerate() {
        let same = |other: &&Table| other.record_type == table.record_type;
        let Some(other) = pipeline.tables[..i].iter().find(same).filter(|_| table.record_type.is_some()) else {
            continue;
        };
        if pipeline.key_of(other) != pipeline.key_of(table) || pipeline.order_of(other) != pipeline.order_of(table) {
            let (a, b) = (other.table_ref(), table.table_ref());
            fault(format!("tables '{a}' and '{b}' take the same record type, with another `key` or `order_by`"));
        }
    }
}

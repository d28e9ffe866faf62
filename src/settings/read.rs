//! Reads typed values out of the tree. A wrong value is reported and reads as absent, so that one run finds every fault.

use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::SecretString;

use super::fault::{Faults, printable, suggestion};
use super::keys::Keys;
use super::substitute::below;
use super::yaml::{Entry, Node, Value};

/// Key files hold one line; this bounds what a wrong path can read.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A value and the key path it stands at.
#[derive(Debug, Clone)]
pub(super) struct Item<'t> {
    pub path: String,
    pub node: &'t Node,
}

/// A mapping with a fixed set of keys.
#[derive(Debug)]
pub(super) struct Section<'t> {
    pub path: String,
    pub line: usize,
    entries: &'t [Entry],
    /// The value is of another kind, which was reported: its missing keys are no further news.
    broken: bool,
}

impl<'t> Section<'t> {
    /// Opens `item` as a mapping, and refuses every key that is unknown or not built. Absent reads as empty.
    pub(super) fn open(item: Item<'t>, keys: &Keys, faults: &mut Faults) -> Self {
        let entries = item.map(faults);
        for entry in entries {
            if keys.not_built.contains(&entry.key.as_str()) {
                let path = below(&item.path, &entry.key);
                faults.add(entry.line, &path, format!("`{}` is not built yet", entry.key));
            } else if !keys.accepted.contains(&entry.key.as_str()) {
                let near = suggestion(&entry.key, keys.accepted.iter().copied());
                faults.add(entry.line, &item.path, format!("unknown key '{}'; {near}", printable(&entry.key)));
            }
        }
        let broken = !matches!(item.node.value, Value::Map(_) | Value::Null);
        Section { line: item.node.line, path: item.path, entries, broken }
    }

    /// The value of a key; none when it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<Item<'t>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let item = Item { path: below(&self.path, key), node: &entry.node };
        (!matches!(item.node.value, Value::Null)).then_some(item)
    }

    /// The value of a key that has no default.
    pub(super) fn need(&self, key: &str, faults: &mut Faults) -> Option<Item<'t>> {
        let item = self.get(key);
        if item.is_none() && !self.broken {
            faults.add(self.line, &self.path, format!("`{key}` is missing"));
        }
        item
    }
}

impl<'t> Item<'t> {
    pub(super) fn fault(&self, faults: &mut Faults, message: impl Into<String>) {
        faults.add(self.node.line, &self.path, message);
    }

    /// The value as it stands in the file, for messages. Never used for secrets.
    pub(super) fn shown(&self) -> String {
        match &self.node.value {
            Value::Scalar(scalar) => format!("'{}'", printable(&scalar.raw)),
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    fn map(&self, faults: &mut Faults) -> &'t [Entry] {
        match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.fault(faults, format!("must be a mapping (`key: value`), not {}", self.kind()));
                &[]
            }
        }
    }

    fn kind(&self) -> &'static str {
        match &self.node.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The entries of a mapping whose keys are names chosen by the user.
    pub(super) fn named(&self, faults: &mut Faults) -> Vec<(&'t str, Item<'t>)> {
        let entries = self.map(faults).iter();
        entries.map(|e| (e.key.as_str(), Item { path: below(&self.path, &e.key), node: &e.node })).collect()
    }

    /// The items of a list; a single value reads as a list of one.
    pub(super) fn list(&self) -> Vec<Item<'t>> {
        match &self.node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(i, node)| Item { path: format!("{}[{i}]", self.path), node }).collect()
            }
            _ => vec![self.clone()],
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The text after substitution, empty or not.
    fn scalar(&self, faults: &mut Faults) -> Option<&'t str> {
        match &self.node.value {
            Value::Scalar(scalar) => scalar.text.as_deref(),
            _ => {
                self.fault(faults, format!("must be a single value, not {}", self.kind()));
                None
            }
        }
    }

    /// The text of a value that must not be empty.
    pub(super) fn text(&self, faults: &mut Faults) -> Option<&'t str> {
        let text = self.scalar(faults)?;
        if text.trim().is_empty() {
            self.fault(faults, "is empty");
            return None;
        }
        if text.chars().any(char::is_control) {
            self.fault(faults, format!("{} contains a control character", self.shown()));
            return None;
        }
        Some(text)
    }

    /// The text of a value for which empty means "not set", as `${VAR:-}` leaves it.
    pub(super) fn text_or_unset(&self, faults: &mut Faults) -> Option<&'t str> {
        self.scalar(faults).filter(|text| !text.is_empty())
    }

    /// A secret: the text itself, or `{file: PATH}` relative to `base_dir`. Messages never show it.
    pub(super) fn secret(&self, base_dir: &Path, faults: &mut Faults) -> Option<SecretString> {
        const KEYS: Keys = Keys { accepted: &["file"], not_built: &[] };
        if !self.is_map() {
            return self.scalar(faults).map(SecretString::from);
        }
        let file = Section::open(self.clone(), &KEYS, faults).need("file", faults)?;
        let path = base_dir.join(file.text(faults)?);
        match read_secret(&path) {
            Ok(secret) => Some(secret),
            Err(reason) => {
                file.fault(faults, format!("cannot read {}: {reason}", file.shown()));
                None
            }
        }
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(
        &self,
        valid: &[(&'static str, T)],
        not_built: &[&str],
        faults: &mut Faults,
    ) -> Option<T> {
        let text = self.text(faults)?;
        if let Some((_, value)) = valid.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let message = if not_built.contains(&text) {
            format!("`{text}` is not built yet; {}", suggestion("", valid.iter().map(|(name, _)| *name)))
        } else {
            format!("{} is not known; {}", self.shown(), suggestion(text, valid.iter().map(|(name, _)| *name)))
        };
        self.fault(faults, message);
        None
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, within: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        let text = self.text(faults)?;
        // `1_000_000` is how people write it, and YAML 1.1 read it so.
        match text.replace('_', "").parse::<u64>() {
            Ok(number) => self.bounded(number, &within, |n| n.to_string(), faults),
            Err(_) => {
                self.fault(faults, format!("{} is not a whole number", self.shown()));
                None
            }
        }
    }

    /// A size in bytes, such as `256MB` (decimal) or `256MiB` (binary).
    pub(super) fn size(&self, within: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        match ByteSize::from_str(self.text(faults)?) {
            Ok(size) => self.bounded(size.as_u64(), &within, show_size, faults),
            Err(_) => {
                self.fault(faults, format!("{} is not a size; write one like 256MB or 2GiB", self.shown()));
                None
            }
        }
    }

    /// A duration, such as `10s` or `500ms`.
    pub(super) fn duration(&self, within: RangeInclusive<Duration>, faults: &mut Faults) -> Option<Duration> {
        match humantime::parse_duration(self.text(faults)?) {
            Ok(duration) => self.bounded(duration, &within, |d| humantime::format_duration(d).to_string(), faults),
            Err(_) => {
                self.fault(faults, format!("{} is not a duration; write one like 10s or 500ms", self.shown()));
                None
            }
        }
    }

    fn bounded<T: PartialOrd + Copy>(
        &self,
        value: T,
        within: &RangeInclusive<T>,
        show: impl Fn(T) -> String,
        faults: &mut Faults,
    ) -> Option<T> {
        if within.contains(&value) {
            return Some(value);
        }
        let (least, most) = (show(*within.start()), show(*within.end()));
        self.fault(faults, format!("{} is out of bounds; from {least} to {most}", self.shown()));
        None
    }
}

/// A size that reads back as the same number: the largest decimal or binary unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 8] = [
        (1_000_000_000_000, "TB"),
        (1 << 40, "TiB"),
        (1_000_000_000, "GB"),
        (1 << 30, "GiB"),
        (1_000_000, "MB"),
        (1 << 20, "MiB"),
        (1_000, "kB"),
        (1 << 10, "KiB"),
    ];
    match UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Reads a secret without the line end that editors add.
fn read_secret(path: &Path) -> Result<SecretString, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("it is larger than {SECRET_BYTES_MAX} bytes"));
    }
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

//! Dead letters: records that could not be rows, as they are kept in a topic of their own and found again there.
//!
//! The key, the value and the headers are those of the rejected record. Headers behind them say where it was and what was
//! wrong, under the names that Kafka Connect uses and under names of our own. A record that with them would be larger
//! than the topic takes becomes several: none is too large to be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

/// How long the text of what was wrong may be.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Bytes that a batch takes besides its records, generously.
const BATCH_BYTES: usize = 100;
/// Bytes that a record or a header takes besides its content, generously.
const ITEM_BYTES: usize = 24;
/// The least bytes of a payload for which a part is worth its headers.
const PART_BYTES_MIN: usize = 512;

const PARTITION: &str = "__connect.errors.partition";
const OFFSET: &str = "__connect.errors.offset";
const TOPIC: &str = "__connect.errors.topic";
const PIPELINE: &str = "__connect.errors.connector.name";
const STAGE: &str = "__connect.errors.stage";
const CLASS: &str = "__connect.errors.exception.class.name";
const MESSAGE: &str = "__connect.errors.exception.message";
const REASON: &str = "firn.reason";
const TOPIC_ID: &str = "firn.topic.id";
const TIMESTAMP: &str = "firn.timestamp";
/// How many of the headers in front are the record's own.
const OWN_HEADERS: &str = "firn.headers";
/// Which part this is, and of how many: `2/3`.
const PART: &str = "firn.part";
/// How many bytes of the payload are the key's; -1 for a record without a key.
const KEY_BYTES: &str = "firn.key.bytes";
/// How many bytes of the payload are the value's; -1 for a tombstone.
const VALUE_BYTES: &str = "firn.value.bytes";
const REPLAYED: &str = "firn.replayed";
/// Of a record that was submitted again: the pipeline that it is meant for. Others that read the topic have had it.
pub const REPLAY_FOR: &CStr = c"firn.replay.pipeline";
const REPLAY_FOR_TEXT: &str = match REPLAY_FOR.to_str() {
    Ok(text) => text,
    Err(_) => "",
};
/// Of a record that was submitted again: where it was when it was rejected.
const REPLAY_OF: &str = "firn.replay.of";

/// A header: its name, and its value where it has one.
pub type Header = (String, Option<Vec<u8>>);

/// What identifies a record for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's id, which a topic of the same name that was created later does not have.
    pub topic_id: String,
    /// From 0.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic_id, self.partition, self.offset)
    }
}

/// A rejected record and why it was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it was.
    pub place: Place,
    /// The topic's name.
    pub topic: String,
    /// Milliseconds since 1970; negative: unknown.
    pub timestamp_ms: i64,
    /// The pipeline that rejected it.
    pub pipeline: String,
    /// What was wrong, in one word.
    pub reason: String,
    /// Whether it was found in the key.
    pub in_key: bool,
    /// What was wrong, in a sentence.
    pub message: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<Header>,
}

/// A record of the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The rejected record's, or of a part the place, so that all parts are in one partition.
    pub key: Option<Vec<u8>>,
    /// The rejected record's, or a part of its key and value.
    pub value: Option<Vec<u8>>,
    /// The rejected record's, then ours.
    pub headers: Vec<Header>,
}

impl Letter {
    /// The letter as records of which none is larger than `bytes_max` in a batch of its own.
    ///
    /// # Errors
    /// The headers alone are larger than that.
    pub fn records(&self, bytes_max: usize) -> Result<Vec<Record>, String> {
        let mut headers = self.headers.clone();
        headers.extend(self.notes());
        let whole = Record { key: self.key.clone(), value: self.value.clone(), headers };
        if size(&whole) <= bytes_max {
            return Ok(vec![whole]);
        }
        let payload = [self.key.as_deref().unwrap_or_default(), self.value.as_deref().unwrap_or_default()].concat();
        let name = self.place.to_string().into_bytes();
        let bare = Record { key: Some(name.clone()), value: None, headers: whole.headers };
        // The longest that the headers of parts can become.
        let head = size(&bare) + size_of_all(&self.part_notes(9_999_999, 9_999_999));
        let room = bytes_max.checked_sub(head).filter(|room| *room >= PART_BYTES_MIN).ok_or_else(|| {
            format!("its headers take {head} bytes, and the dead-letter topic takes records of {bytes_max} bytes")
        })?;
        let parts = payload.len().div_ceil(room).max(1);
        let chunks = payload.chunks(room).enumerate().map(|(at, chunk)| {
            let mut headers = if at == 0 { bare.headers.clone() } else { self.place_notes() };
            headers.extend(self.part_notes(at + 1, parts));
            Record { key: Some(name.clone()), value: Some(chunk.to_vec()), headers }
        });
        Ok(chunks.collect())
    }

    /// The record as it is submitted again: for its pipeline alone, with its place in the order of its partition.
    #[must_use]
    pub fn again(&self) -> Record {
        let mut headers = self.headers.clone();
        // Those of an earlier time, when it was rejected once more.
        headers.retain(|(name, _)| name != REPLAY_FOR_TEXT && name != REPLAY_OF);
        headers.extend([note(REPLAY_FOR_TEXT, &self.pipeline), note(REPLAY_OF, &self.place)]);
        Record { key: self.key.clone(), value: self.value.clone(), headers }
    }

    /// The record that says, in the dead letters, that this one was submitted again.
    #[must_use]
    pub fn replayed(&self) -> Record {
        let mut headers = self.place_notes();
        headers.push(note(REPLAYED, "true"));
        // Not a tombstone: where the topic is compacted, it is to stay.
        Record { key: Some(self.place.to_string().into_bytes()), value: Some(Vec::new()), headers }
    }

    fn place_notes(&self) -> Vec<Header> {
        vec![
            note(TOPIC, &self.topic),
            note(PARTITION, self.place.partition),
            note(OFFSET, self.place.offset),
            note(TOPIC_ID, &self.place.topic_id),
            note(PIPELINE, &self.pipeline),
        ]
    }

    fn notes(&self) -> Vec<Header> {
        let mut notes = self.place_notes();
        notes.extend([
            note(STAGE, if self.in_key { "KEY_CONVERTER" } else { "VALUE_CONVERTER" }),
            note(CLASS, format_args!("firn.{}", self.reason)),
            note(MESSAGE, self.message.chars().take(MESSAGE_CHARS_MAX).collect::<String>()),
            note(REASON, &self.reason),
            note(TIMESTAMP, self.timestamp_ms),
            note(OWN_HEADERS, self.headers.len()),
        ]);
        notes
    }

    fn part_notes(&self, part: usize, parts: usize) -> Vec<Header> {
        let bytes = |half: &Option<Vec<u8>>| half.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        let (key, value) = (bytes(&self.key), bytes(&self.value));
        vec![note(PART, format_args!("{part}/{parts}")), note(KEY_BYTES, key), note(VALUE_BYTES, value)]
    }
}

/// Where a record was when it was rejected, if it was submitted again since.
#[must_use]
pub fn replay_of(headers: &[Header]) -> Option<Place> {
    let mut parts = find(headers, REPLAY_OF)?.rsplitn(3, '/');
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some(Place { topic_id: parts.next()?.to_owned(), partition, offset })
}

fn note(name: &str, value: impl std::fmt::Display) -> Header {
    (name.to_owned(), Some(value.to_string().into_bytes()))
}

fn size(record: &Record) -> usize {
    let part = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    BATCH_BYTES + ITEM_BYTES + part(&record.key) + part(&record.value) + size_of_all(&record.headers)
}

fn size_of_all(headers: &[Header]) -> usize {
    headers.iter().map(|(name, value)| ITEM_BYTES + name.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

/// The letters of one pipeline in a dead-letter topic, as they come together from its records.
#[derive(Debug, Default)]
pub struct Letters {
    pipeline: String,
    /// Whole letters, each once however often it was sent.
    pub whole: BTreeMap<Place, Letter>,
    /// Those that were submitted again.
    pub replayed: BTreeSet<Place>,
    /// Records that are no letters of ours.
    pub foreign: u64,
    parts: BTreeMap<Place, Parts>,
}

#[derive(Debug)]
struct Parts {
    head: Option<Letter>,
    /// Bytes of key and value; -1 for one that is not there.
    bytes: (i64, i64),
    chunks: BTreeMap<usize, Vec<u8>>,
    of: usize,
}

impl Letters {
    /// None yet of this pipeline. What is of others is passed over: they may have rejected the same records.
    #[must_use]
    pub fn of(pipeline: &str) -> Letters {
        Letters { pipeline: pipeline.to_owned(), ..Letters::default() }
    }

    /// Takes in one record of the topic.
    pub fn add(&mut self, record: Record) {
        let (Some(place), Some(pipeline)) = (place(&record.headers), find(&record.headers, PIPELINE)) else {
            self.foreign += 1;
            return;
        };
        if pipeline != self.pipeline {
            return;
        }
        if find(&record.headers, REPLAYED).is_some() {
            self.replayed.insert(place);
            return;
        }
        match find(&record.headers, PART).and_then(|text| text.split_once('/')).map(|(n, of)| (n.parse(), of.parse())) {
            None => match letter(record, place.clone()) {
                Some(letter) => drop(self.whole.insert(place, letter)),
                None => self.foreign += 1,
            },
            Some((Ok(part), Ok(of))) => self.add_part(record, place, part, of),
            Some(_) => self.foreign += 1,
        }
    }

    /// Letters of which not all parts are there.
    #[must_use]
    pub fn incomplete(&self) -> usize {
        self.parts.keys().filter(|place| !self.whole.contains_key(place)).count()
    }

    fn add_part(&mut self, mut record: Record, place: Place, part: usize, of: usize) {
        let number = |name: &str| find(&record.headers, name).and_then(|n| n.parse().ok()).unwrap_or(-1);
        let bytes = (number(KEY_BYTES), number(VALUE_BYTES));
        let chunk = record.value.take().unwrap_or_default();
        let parts =
            self.parts.entry(place.clone()).or_insert_with(|| Parts { head: None, bytes, chunks: BTreeMap::new(), of });
        // Sent again after the topic's limit changed: the newer cut counts.
        if parts.of != of {
            *parts = Parts { head: None, bytes, chunks: BTreeMap::new(), of };
        }
        parts.chunks.insert(part, chunk);
        if part == 1 {
            parts.head = letter(record, place.clone());
        }
        if parts.chunks.len() == of
            && let Some(mut whole) = parts.head.take()
        {
            let payload: Vec<u8> = std::mem::take(&mut parts.chunks).into_values().flatten().collect();
            let cut = usize::try_from(parts.bytes.0).unwrap_or(0).min(payload.len());
            let (key, value) = payload.split_at(cut);
            whole.key = (parts.bytes.0 >= 0).then(|| key.to_vec());
            whole.value = (parts.bytes.1 >= 0).then(|| value.to_vec());
            self.whole.insert(place, whole);
        }
    }
}

/// The last header of a name, as text: ours are behind the record's own.
fn find<'h>(headers: &'h [Header], name: &str) -> Option<&'h str> {
    let value = headers.iter().rev().find(|(known, _)| known == name)?.1.as_deref()?;
    std::str::from_utf8(value).ok()
}

fn place(headers: &[Header]) -> Option<Place> {
    Some(Place {
        topic_id: find(headers, TOPIC_ID)?.to_owned(),
        partition: find(headers, PARTITION)?.parse().ok()?,
        offset: find(headers, OFFSET)?.parse().ok()?,
    })
}

fn letter(record: Record, place: Place) -> Option<Letter> {
    let text = |name: &str| find(&record.headers, name).map(str::to_owned);
    let own: usize = text(OWN_HEADERS)?.parse().ok()?;
    Some(Letter {
        place,
        topic: text(TOPIC)?,
        timestamp_ms: text(TIMESTAMP).and_then(|n| n.parse().ok()).unwrap_or(-1),
        pipeline: text(PIPELINE)?,
        reason: text(REASON)?,
        in_key: text(STAGE).is_some_and(|stage| stage == "KEY_CONVERTER"),
        message: text(MESSAGE).unwrap_or_default(),
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().take(own).collect(),
    })
}

#[cfg(test)]
mod tests;

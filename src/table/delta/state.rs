//! What a Delta log says at one version, followed in memory from version to version.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use super::actions::{Add, DomainMetadata, Line, MetaData, Protocol, Remove, Txn};
use super::history::CommitNote;
use super::log::locate;
use super::stats;
use crate::error::Result;

/// Changes of files that are kept to say what was live a while ago.
const JOURNAL_ENTRIES_MAX: usize = 200_000;
/// Notes of commits that are kept.
const NOTES_MAX: usize = 2000;

/// A live data file.
#[derive(Debug)]
pub(super) struct Entry {
    pub add: Add,
    /// Where it is.
    pub location: Arc<str>,
    /// Physical rows; found in the file itself where the log does not say.
    pub records: OnceLock<u64>,
}

impl Entry {
    pub(super) fn new(root: &str, add: Add) -> Self {
        let records = OnceLock::new();
        if let Some(known) = stats::records(add.stats.as_deref()) {
            let _ = records.set(known);
        }
        Entry { location: locate(root, &add.path).into(), records, add }
    }

    /// Identifies its deletion vector, if it has one.
    pub(super) fn vector_id(&self) -> Option<String> {
        self.add.deletion_vector.as_ref().map(super::actions::VectorRef::id)
    }
}

/// A removed file is told by its path and by the vector that it had.
type RemovedId = (String, Option<String>);

/// The version of a dispute that the version being taken in has just begun.
const UNSETTLED: i64 = -1;

/// The state of the log at a version.
#[derive(Debug)]
pub(super) struct State {
    /// -1 before the first.
    pub version: i64,
    pub protocol: Option<Arc<Protocol>>,
    pub metadata: Option<Arc<MetaData>>,
    pub txns: BTreeMap<String, Txn>,
    pub domains: BTreeMap<String, DomainMetadata>,
    /// By location.
    pub files: HashMap<Arc<str>, Arc<Entry>>,
    /// Removed lately, for the next checkpoint.
    pub removed: HashMap<RemovedId, Remove>,
    /// What commits said about themselves, as far as they were read.
    pub notes: BTreeMap<i64, CommitNote>,
    /// Per version, the files that it changed, as they were before.
    journal: VecDeque<(i64, Changes)>,
    journal_entries: usize,
    /// The newest version at which a checkpoint is known to be.
    pub checkpoint: Option<i64>,
    /// Live files that a version removed without naming their deletion vector. By the protocol they stay; who wrote that
    /// version believes that they are gone.
    disputed: BTreeMap<Arc<str>, i64>,
}

/// Files as they were before a version; none: not live.
type Changes = Vec<(Arc<str>, Option<Arc<Entry>>)>;

impl State {
    /// Before the first version.
    pub(super) fn empty() -> Self {
        State {
            version: -1,
            protocol: None,
            metadata: None,
            txns: BTreeMap::new(),
            domains: BTreeMap::new(),
            files: HashMap::new(),
            removed: HashMap::new(),
            notes: BTreeMap::new(),
            journal: VecDeque::new(),
            journal_entries: 0,
            checkpoint: None,
            disputed: BTreeMap::new(),
        }
    }

    /// Says what is missing of a table, or what in it engines disagree about.
    pub(super) fn check_complete(&self) -> Result<(), String> {
        match (&self.protocol, &self.metadata) {
            (Some(_), Some(_)) => match self.disputed.first_key_value() {
                None => Ok(()),
                Some((path, version)) => Err(format!(
                    "version {version} removes {path} without its deletion vector, so that its rows are gone for some engines \
                     and there for others (OPTIMIZE of Trino 476 does that); restore the version before it with an engine \
                     that has RESTORE, or drop this table"
                )),
            },
            (None, _) => Err("no version says what protocol it follows; restore it".into()),
            (_, None) => Err("no version says what its columns are; restore it".into()),
        }
    }

    /// Takes a version in. The order of the actions of one version means nothing: removals come first.
    ///
    /// # Errors
    /// Where what Firn stored in it cannot be read.
    pub(super) fn apply(&mut self, root: &str, version: i64, lines: Vec<Line>) -> Result<()> {
        let mut changes: Changes = Vec::new();
        let mut added = Vec::new();
        let mut note = CommitNote::default();
        for line in lines {
            if let Some(info) = line.commit_info {
                note = CommitNote::read(version, &info)?;
            }
            if let Some(remove) = line.remove {
                self.remove(root, remove, &mut changes);
            }
            added.extend(line.add);
            self.set(line.protocol, line.meta_data, line.txn, line.domain_metadata);
        }
        for add in added {
            self.add(root, add, Some(&mut changes));
        }
        self.settle_disputes(version, &note);
        self.version = version;
        self.remember(version, note, changes);
        Ok(())
    }

    fn settle_disputes(&mut self, version: i64, note: &CommitNote) {
        // Whoever restores a version says which files there are.
        if note.operation == "RESTORE" {
            self.disputed.clear();
        }
        self.disputed.values_mut().filter(|since| **since == UNSETTLED).for_each(|since| *since = version);
    }

    fn remember(&mut self, version: i64, note: CommitNote, changes: Changes) {
        self.notes.insert(version, note);
        while self.notes.len() > NOTES_MAX {
            self.notes.pop_first();
        }
        self.journal_entries += changes.len() + 1;
        self.journal.push_back((version, changes));
        while self.journal_entries > JOURNAL_ENTRIES_MAX
            && let Some((_, oldest)) = self.journal.pop_front()
        {
            self.journal_entries -= oldest.len() + 1;
        }
    }

    fn set(
        &mut self,
        protocol: Option<Protocol>,
        metadata: Option<MetaData>,
        txn: Option<Txn>,
        domain: Option<DomainMetadata>,
    ) {
        if let Some(protocol) = protocol {
            self.protocol = Some(Arc::new(protocol));
        }
        if let Some(metadata) = metadata {
            self.metadata = Some(Arc::new(metadata));
        }
        if let Some(txn) = txn {
            self.txns.insert(txn.app_id.clone(), txn);
        }
        if let Some(domain) = domain {
            self.domains.insert(domain.domain.clone(), domain);
        }
    }

    fn remove(&mut self, root: &str, remove: Remove, changes: &mut Changes) {
        let location: Arc<str> = locate(root, &remove.path).into();
        let vector = remove.deletion_vector.as_ref().map(super::actions::VectorRef::id);
        // Removing a file with a vector that it no longer has changes nothing.
        if self.files.get(&location).is_some_and(|live| live.vector_id() == vector) {
            let before = self.files.remove(&location);
            self.disputed.remove(&location);
            changes.push((location, before));
        } else if vector.is_none() && self.files.contains_key(&location) {
            self.disputed.insert(location, UNSETTLED);
        }
        self.removed.insert((remove.path.clone(), vector), remove);
    }

    fn add(&mut self, root: &str, add: Add, changes: Option<&mut Changes>) {
        let entry = Arc::new(Entry::new(root, add));
        self.removed.remove(&(entry.add.path.clone(), entry.vector_id()));
        self.disputed.remove(&entry.location);
        let before = self.files.insert(entry.location.clone(), entry.clone());
        if let Some(changes) = changes {
            changes.push((entry.location.clone(), before));
        }
    }

    /// Takes a line of a checkpoint in.
    pub(super) fn restore(&mut self, root: &str, line: Line) {
        self.set(line.protocol, line.meta_data, line.txn, line.domain_metadata);
        if let Some(add) = line.add {
            self.add(root, add, None);
        }
        if let Some(remove) = line.remove {
            let vector = remove.deletion_vector.as_ref().map(super::actions::VectorRef::id);
            self.removed.insert((remove.path.clone(), vector), remove);
        }
    }

    /// Files that changed after version `since`, as they were then; none where that is not remembered.
    pub(super) fn changed_since(&self, since: i64) -> Option<HashMap<Arc<str>, Option<Arc<Entry>>>> {
        if since > self.version {
            return None;
        }
        let first = self.journal.front().map_or(self.version + 1, |(version, _)| *version);
        if since + 1 < first {
            return None;
        }
        let mut before = HashMap::new();
        for (_, changes) in self.journal.iter().filter(|(version, _)| *version > since) {
            for (location, entry) in changes {
                before.entry(location.clone()).or_insert_with(|| entry.clone());
            }
        }
        Some(before)
    }

    /// Forgets removals from before `time_ms`, as checkpoints do.
    pub(super) fn forget_removed_before(&mut self, time_ms: i64) {
        self.removed.retain(|_, remove| remove.deletion_timestamp.unwrap_or(0) > time_ms);
    }
}

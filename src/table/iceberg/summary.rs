//! The counts in a snapshot's summary, as every engine shows them.

use std::collections::{BTreeSet, HashMap};

use iceberg::spec::{DataContentType, DataFile, DataFileFormat};

use super::live::Live;

/// What a commit adds and removes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    added: Totals,
    removed: Totals,
    partitions: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Totals {
    data_files: u64,
    records: u64,
    delete_files: u64,
    position_delete_files: u64,
    vectors: u64,
    position_deletes: u64,
    bytes: u64,
}

impl Totals {
    fn count(&mut self, file: &DataFile) {
        if file.content_type() == DataContentType::Data {
            self.data_files += 1;
            self.records += file.record_count();
            self.bytes += file.file_size_in_bytes();
            return;
        }
        self.delete_files += 1;
        self.position_deletes += file.record_count();
        if file.file_format() == DataFileFormat::Puffin {
            self.vectors += 1;
            // A Puffin file holds several vectors; each counts with its own bytes.
            self.bytes += file.content_size_in_bytes().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        } else {
            self.position_delete_files += 1;
            self.bytes += file.file_size_in_bytes();
        }
    }
}

impl Counts {
    pub(super) fn add(&mut self, file: &DataFile, spec: i32) {
        self.added.count(file);
        self.partitions.insert(format!("{spec} {:?}", file.partition()));
    }

    pub(super) fn remove(&mut self, file: &DataFile, spec: i32) {
        self.removed.count(file);
        self.partitions.insert(format!("{spec} {:?}", file.partition()));
    }

    /// The standard summary keys, with totals that continue those of `parent`. Totals that the parent's writer left out
    /// are counted in `live`, which is what the parent holds.
    pub(super) fn summary(&self, parent: Option<&HashMap<String, String>>, live: &Live) -> HashMap<String, String> {
        let mut summary = HashMap::new();
        let (a, r) = (&self.added, &self.removed);
        for (key, value) in [
            ("added-data-files", a.data_files),
            ("deleted-data-files", r.data_files),
            ("added-records", a.records),
            ("deleted-records", r.records),
            ("added-delete-files", a.delete_files),
            ("removed-delete-files", r.delete_files),
            ("added-position-delete-files", a.position_delete_files),
            ("removed-position-delete-files", r.position_delete_files),
            ("added-dvs", a.vectors),
            ("removed-dvs", r.vectors),
            ("added-position-deletes", a.position_deletes),
            ("removed-position-deletes", r.position_deletes),
            ("added-files-size", a.bytes),
            ("removed-files-size", r.bytes),
        ] {
            if value > 0 {
                summary.insert(key.to_owned(), value.to_string());
            }
        }
        summary.insert("changed-partition-count".to_owned(), self.partitions.len().to_string());
        let held = |key: &str| parent.and_then(|p| p.get(key)).and_then(|v| v.parse::<u64>().ok());
        let deletes = || live.scoped.values().flatten().chain(&live.shared);
        let mut total = |key: &str, count: &dyn Fn() -> u64, added: u64, removed: u64| {
            let before = held(key).unwrap_or_else(count);
            summary.insert(key.to_owned(), (before + added).saturating_sub(removed).to_string());
        };
        total("total-data-files", &|| live.data.len() as u64, a.data_files, r.data_files);
        total("total-records", &|| live.data.values().map(|f| f.records).sum(), a.records, r.records);
        total("total-delete-files", &|| deletes().count() as u64, a.delete_files, r.delete_files);
        let positions = || deletes().map(|d| d.entry.file.record_count()).sum();
        total("total-position-deletes", &positions, a.position_deletes, r.position_deletes);
        total("total-equality-deletes", &|| 0, 0, 0);
        let bytes = || {
            let mut all = Totals::default();
            deletes().for_each(|d| all.count(&d.entry.file));
            all.bytes + live.data.values().map(|f| f.bytes).sum::<u64>()
        };
        total("total-files-size", &bytes, a.bytes, r.bytes);
        summary
    }
}

//! Which schemas the records of a batch name.

use crate::core::schema::Fingerprint;

/// Schema ids, each once, with what they were taken for. Records of one schema come in runs.
#[derive(Debug, Default)]
pub struct Used {
    last: Option<u32>,
    /// In the order of their ids.
    ids: Vec<(u32, Fingerprint)>,
}

impl Used {
    /// Notes the schema that a record names.
    #[inline]
    pub fn note(&mut self, id: u32, schema: Fingerprint) {
        if self.last != Some(id) {
            self.last = Some(id);
            if let Err(place) = self.ids.binary_search_by_key(&id, |(known, _)| *known) {
                self.ids.insert(place, (id, schema));
            }
        }
    }

    /// All of them; none are left.
    pub fn take(&mut self) -> Vec<(u32, Fingerprint)> {
        std::mem::take(self).ids
    }
}

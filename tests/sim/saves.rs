//! What processes leave on their disks: saved indexes, in the bytes that production saves.

use std::sync::Arc;

use firn::core::key_index::{ENCODING_VERSION, KeyIndex, SavedTag, saved};
use firn::core::writer::Writer;

/// How many saved copies are kept, of whatever age.
const KEPT: usize = 8;

/// Saved indexes of all processes, in no order.
#[derive(Default)]
pub struct Saves(Vec<Vec<u8>>);

impl Saves {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps a copy of the writer's index, where it has one now; in the place of copy `instead` when there are enough.
    pub fn put(&mut self, writer: &Writer<()>, instead: usize) {
        let Some(state) = writer.index() else { return };
        let tag = SavedTag {
            table: state.table.to_owned(),
            snapshot: state.snapshot,
            sequence: 0,
            key_fields: vec![],
            key_types: vec![],
            encoding_version: ENCODING_VERSION,
            order_field: None,
            order_class: None,
            slice: None,
            secret: [0, 0],
            files: state.files.iter().map(|(number, path)| (*number, path.to_string())).collect(),
        };
        let mut bytes = Vec::new();
        saved::write(state.index, &tag, &mut bytes).expect("memory takes all of it");
        if self.0.len() < KEPT {
            self.0.push(bytes);
        } else {
            self.0[instead % KEPT] = bytes;
        }
    }

    pub fn read(&self, which: usize) -> (SavedTag, KeyIndex) {
        saved::read(&mut self.0[which].as_slice()).expect("a copy is read as it was written")
    }
}

/// A writer that starts from what was saved.
pub fn restore(writer: Writer<()>, (tag, index): (SavedTag, KeyIndex)) -> Writer<()> {
    let files = tag.files.into_iter().map(|(number, path)| (number, Arc::from(path)));
    writer.with_index(index, files, tag.table, tag.snapshot)
}

//! Deletion vectors of a Delta table: where they are, what is in them, and new ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::actions::VectorRef;
use super::z85;
use crate::error::{Error, Result};
use crate::files::{DeletedPositions, Store, decode_vector, encode_vector, read_vector};

/// The first byte of a file of deletion vectors: the version of its format.
const FORMAT: u8 = 1;
/// Characters of a uuid in base 85.
const UUID_DIGITS: usize = 20;
/// Bytes around a vector in a file: its size before, a checksum behind.
const FRAME: u64 = 8;
/// A file of deletion vectors is closed once it has this many bytes.
const FILE_BYTES: usize = 64 << 20;
/// What is kept in memory of vectors that were read or written lately.
const CACHED_BYTES_MAX: usize = 64 << 20;

/// Vectors that were read or written lately, by [`VectorRef::id`]. They never change.
#[derive(Debug, Default)]
pub(super) struct VectorCache {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_id: HashMap<String, (Arc<DeletedPositions>, usize)>,
    /// Oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

impl VectorCache {
    /// The positions in a vector of the table at `root`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be read, [`Error::Decision`] where it is not a vector.
    pub(super) async fn read(&self, store: &Store, root: &str, vector: &VectorRef) -> Result<Arc<DeletedPositions>> {
        let id = vector.id();
        if let Some((positions, _)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&id) {
            return Ok(positions.clone());
        }
        let positions = Arc::new(read(store, root, vector).await?);
        if positions.len() != vector.cardinality as u64 {
            return Err(Error::Decision(format!(
                "deletion vector {id} has {} positions, but the log says {}: the table is damaged",
                positions.len(),
                vector.cardinality
            )));
        }
        self.put(vector, &positions);
        Ok(positions)
    }

    /// Keeps a vector that was written a moment ago.
    pub(super) fn put(&self, vector: &VectorRef, positions: &Arc<DeletedPositions>) {
        let (id, bytes) = (vector.id(), positions.serialized_size() + 128);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > CACHED_BYTES_MAX / 4 || held.by_id.contains_key(&id) {
            return;
        }
        held.by_id.insert(id.clone(), (positions.clone(), bytes));
        held.order.push_back(id);
        held.bytes += bytes;
        while held.bytes > CACHED_BYTES_MAX
            && let Some(oldest) = held.order.pop_front()
        {
            held.bytes -= held.by_id.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
    }
}

async fn read(store: &Store, root: &str, vector: &VectorRef) -> Result<DeletedPositions> {
    let bad = |what: &str| Error::Decision(format!("deletion vector {}: {what}", vector.id()));
    let size = u64::try_from(vector.size_in_bytes).map_err(|_| bad("its size is negative"))?;
    let location = match vector.storage_type.as_str() {
        "u" => {
            let spelled = &vector.path_or_inline_dv;
            let start = spelled.len().checked_sub(UUID_DIGITS).filter(|at| spelled.is_char_boundary(*at));
            let (prefix, uuid) = spelled.split_at(start.ok_or_else(|| bad("its uuid is too short"))?);
            let uuid = z85::decode(uuid).and_then(|bytes| Uuid::from_slice(&bytes).ok());
            let uuid = uuid.ok_or_else(|| bad("its uuid cannot be read"))?;
            let slash = if prefix.is_empty() { "" } else { "/" };
            format!("{root}/{prefix}{slash}deletion_vector_{uuid}.bin")
        }
        "p" => vector.path_or_inline_dv.clone(),
        "i" => {
            let mut bytes = z85::decode(&vector.path_or_inline_dv).ok_or_else(|| bad("it cannot be read"))?;
            bytes.truncate(vector.size_in_bytes as usize);
            return decode_vector(&framed(&bytes)).map_err(|e| e.within(vector.id()));
        }
        other => return Err(bad(&format!("it is stored in a way that is not known: {other}"))),
    };
    let offset = u64::try_from(vector.offset.unwrap_or(0)).map_err(|_| bad("its offset is negative"))?;
    read_vector(store, &location, offset, size + FRAME).await
}

/// An inline vector with the frame that vectors in files have.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(bytes.len() + FRAME as usize);
    framed.extend((bytes.len() as u32).to_be_bytes());
    framed.extend(bytes);
    framed.extend(crc32fast::hash(bytes).to_be_bytes());
    framed
}

/// Writes vectors into as few files as their size allows, named by new uuids in the folder of the table.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file.
pub(super) async fn write(store: &Store, root: &str, vectors: &[Arc<DeletedPositions>]) -> Result<Vec<VectorRef>> {
    let (mut written, mut from) = (Vec::with_capacity(vectors.len()), 0);
    while from < vectors.len() {
        let uuid = Uuid::new_v4();
        let (mut bytes, mut end) = (vec![FORMAT], from);
        while end < vectors.len() && bytes.len() < FILE_BYTES {
            let record = encode_vector(&vectors[end]);
            written.push(VectorRef {
                storage_type: "u".into(),
                path_or_inline_dv: z85::encode(uuid.as_bytes()),
                offset: Some(bytes.len() as i32),
                size_in_bytes: (record.len() as u64 - FRAME) as i32,
                cardinality: vectors[end].len() as i64,
            });
            bytes.extend_from_slice(&record);
            end += 1;
        }
        from = end;
        store.put(&format!("{root}/deletion_vector_{uuid}.bin"), bytes.into()).await?;
    }
    Ok(written)
}

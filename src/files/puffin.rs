//! Deletion vectors (Iceberg v3 and Delta share the bytes) and the Puffin files that hold Iceberg's.

use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::json;

use super::{DeleteEncoding, DeletedPositions, Store, WrittenDeletes};
use crate::{Error, Result};

/// First bytes of the checksummed part of a deletion vector.
const VECTOR_MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];
/// Bytes in front of the bitmap (length, magic) and behind it (checksum).
const VECTOR_FRAME: usize = 12;
/// A vector of 2³² positions in the least compact form has about half of this.
const VECTOR_BYTES_MAX: u64 = 1 << 30;

const PUFFIN_MAGIC: [u8; 4] = *b"PFA1";
/// A Puffin file is closed once it has this many bytes, so that only so much is in memory.
const PUFFIN_BYTES: usize = 64 << 20;
/// The reserved field id of a row's position, which a deletion vector is "about".
const POSITION_FIELD: i32 = 2_147_483_645;

/// The bytes of a deletion vector: length, magic, a 64-bit roaring bitmap in the portable format, checksum.
///
/// They are a `deletion-vector-v1` blob of Iceberg and, byte for byte, a record of a Delta deletion-vector file.
#[must_use]
pub fn encode_vector(positions: &DeletedPositions) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VECTOR_FRAME + 12 + positions.serialized_size());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&VECTOR_MAGIC);
    // The 64-bit format is a list of 32-bit bitmaps by their high half; ours is the one of high half 0.
    bytes.extend_from_slice(&u64::from(!positions.is_empty()).to_le_bytes());
    if !positions.is_empty() {
        bytes.extend_from_slice(&0u32.to_le_bytes());
        // Writing to a vector does not fail.
        let _ = positions.serialize_into(&mut bytes);
    }
    let checked = (bytes.len() - 4) as u32;
    let checksum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&checked.to_be_bytes());
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The positions in a deletion vector.
///
/// # Errors
/// [`Error::Decision`] where length, magic, checksum or bitmap are wrong, or a position is not below 2³².
pub fn decode_vector(bytes: &[u8]) -> Result<DeletedPositions> {
    let bad = |what: &str| Error::Decision(format!("corrupt deletion vector: {what}"));
    if bytes.len() < VECTOR_FRAME + 8 {
        return Err(bad("it is too short"));
    }
    let (length, rest) = bytes.split_at(4);
    let (checked, checksum) = rest.split_at(rest.len() - 4);
    if number(length) as usize != checked.len() {
        return Err(bad("its length is not what it says"));
    }
    let Some(bitmaps) = checked.strip_prefix(&VECTOR_MAGIC) else { return Err(bad("the magic bytes are wrong")) };
    if crc32fast::hash(checked) != number(checksum) {
        return Err(bad("the checksum is wrong"));
    }
    portable(bitmaps).map_err(|what| bad(&what))
}

/// A big-endian number of four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// A 64-bit roaring bitmap whose values all are below 2³².
fn portable(bytes: &[u8]) -> Result<RoaringBitmap, String> {
    let (count, mut rest) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
    let (mut count, mut all) = (u64::from_le_bytes(*count), RoaringBitmap::new());
    let mut expected_above = None;
    while count > 0 {
        let (high, bitmap) = rest.split_first_chunk::<4>().ok_or("a bitmap is missing")?;
        let high = u32::from_le_bytes(*high);
        if expected_above.is_some_and(|before| high <= before) {
            return Err("its bitmaps are out of order".to_string());
        }
        rest = bitmap;
        let low = RoaringBitmap::deserialize_from(&mut rest).map_err(|e| format!("bad bitmap: {e}"))?;
        if high == 0 {
            all = low;
        } else if let Some(first) = low.min() {
            let position = u64::from(high) << 32 | u64::from(first);
            return Err(format!("position {position} is beyond 2^32, and files of so many rows are not supported"));
        }
        (expected_above, count) = (Some(high), count - 1);
    }
    // Trino leaves zeros behind the bitmaps of its Delta vectors, and every reader passes over them.
    if rest.iter().all(|byte| *byte == 0) { Ok(all) } else { Err("bytes follow the bitmap".to_string()) }
}

/// Writes deletion vectors of several data files into one Puffin file, `<folder>/<attempt>-<n>-deletes.puffin` (more than
/// one only where it would get large); empty sets are left out. No attempt may be written twice.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file.
pub async fn write_vectors(
    store: &Store,
    folder: &str,
    attempt: &str,
    deletes: &[(Arc<str>, DeletedPositions)],
) -> Result<Vec<WrittenDeletes>> {
    let (mut all, mut from, mut n) = (Vec::new(), 0, 0);
    while from < deletes.len() {
        let path = format!("{}/{attempt}-{n}-deletes.puffin", folder.trim_end_matches('/'));
        let (mut file, mut end) = (Puffin::new(), from);
        while end < deletes.len() && file.bytes.len() < PUFFIN_BYTES {
            let (data_file, positions) = &deletes[end];
            if !positions.is_empty() {
                file.add(&path, data_file, positions);
            }
            end += 1;
        }
        from = end;
        if file.vectors.is_empty() {
            continue;
        }
        let (bytes, vectors) = file.finish();
        store.put(&path, bytes.into()).await?;
        all.extend(vectors);
        n += 1;
    }
    Ok(all)
}

/// A Puffin file in memory.
struct Puffin {
    bytes: Vec<u8>,
    /// Entries of the footer.
    blobs: Vec<serde_json::Value>,
    vectors: Vec<WrittenDeletes>,
}

impl Puffin {
    fn new() -> Self {
        Puffin { bytes: PUFFIN_MAGIC.to_vec(), blobs: Vec::new(), vectors: Vec::new() }
    }

    fn add(&mut self, path: &str, data_file: &Arc<str>, positions: &DeletedPositions) {
        let blob = encode_vector(positions);
        let (offset, length) = (self.bytes.len() as u64, blob.len() as u64);
        self.bytes.extend_from_slice(&blob);
        self.blobs.push(json!({
            "type": "deletion-vector-v1",
            "fields": [POSITION_FIELD],
            "snapshot-id": -1,
            "sequence-number": -1,
            "offset": offset,
            "length": length,
            "properties": { "referenced-data-file": &**data_file, "cardinality": positions.len().to_string() },
        }));
        self.vectors.push(WrittenDeletes {
            path: path.to_string(),
            bytes: 0,
            data_file: data_file.clone(),
            positions: positions.len(),
            encoding: DeleteEncoding::Vector { offset, length },
        });
    }

    /// Appends the footer: magic, entries, their length, flags (none: not compressed), magic.
    fn finish(mut self) -> (Vec<u8>, Vec<WrittenDeletes>) {
        let created_by = concat!("firn ", env!("CARGO_PKG_VERSION"));
        let entries = json!({ "blobs": self.blobs, "properties": { "created-by": created_by } }).to_string();
        self.bytes.extend_from_slice(&PUFFIN_MAGIC);
        self.bytes.extend_from_slice(entries.as_bytes());
        self.bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&PUFFIN_MAGIC);
        for vector in &mut self.vectors {
            vector.bytes = self.bytes.len() as u64;
        }
        (self.bytes, self.vectors)
    }
}

/// Reads the deletion vector at `offset` of a Puffin file with one range request.
///
/// # Errors
/// [`Error::Unreachable`] where it cannot be read, [`Error::Decision`] as [`decode_vector`].
pub async fn read_vector(store: &Store, location: &str, offset: u64, length: u64) -> Result<DeletedPositions> {
    let context = || format!("{location} at byte {offset}");
    let end = offset.checked_add(length).filter(|_| length <= VECTOR_BYTES_MAX);
    let Some(end) = end else {
        return Err(Error::Decision(format!("a deletion vector of {length} bytes is not plausible")).within(context()));
    };
    decode_vector(&store.get_range(location, offset..end).await?).map_err(|e| e.within(context()))
}

#[cfg(test)]
mod tests;

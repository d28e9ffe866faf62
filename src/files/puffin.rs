//! Deletion vectors (Iceberg v3 and Delta share the bytes) and the Puffin files that hold Iceberg's.

use std::sync::Arc;

use super::{DeletedPositions, Store, WrittenDeletes};
use crate::{Error, Result};

/// The bytes of a deletion vector: length, magic, a 64-bit roaring bitmap in the portable format, checksum.
///
/// They are a `deletion-vector-v1` blob of Iceberg and, byte for byte, a record of a Delta deletion-vector file.
#[must_use]
pub fn encode_vector(positions: &DeletedPositions) -> Vec<u8> {
    let _ = positions;
    Vec::new()
}

/// The positions in a deletion vector.
///
/// # Errors
/// [`Error::Decision`] where length, magic, checksum or bitmap are wrong, or a position is not below 2³².
pub fn decode_vector(bytes: &[u8]) -> Result<DeletedPositions> {
    let _ = bytes;
    Err(Error::Internal("being written".to_string()))
}

/// Writes deletion vectors of several data files into one Puffin file, `<folder>/<attempt>-<n>-deletes.puffin` (more than
/// one only where it would get large); empty sets are left out.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file.
pub async fn write_vectors(
    store: &Store,
    folder: &str,
    attempt: &str,
    deletes: &[(Arc<str>, DeletedPositions)],
) -> Result<Vec<WrittenDeletes>> {
    let _ = (store, folder, attempt, deletes);
    Err(Error::Internal("being written".to_string()))
}

/// Reads the deletion vector at `offset` of a Puffin file with one range request.
///
/// # Errors
/// [`Error::Unreachable`] where it cannot be read, [`Error::Decision`] as [`decode_vector`].
pub async fn read_vector(store: &Store, location: &str, offset: u64, length: u64) -> Result<DeletedPositions> {
    let _ = (store, location, offset, length);
    Err(Error::Internal("being written".to_string()))
}

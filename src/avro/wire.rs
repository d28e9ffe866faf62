//! A record as Kafka delivers it: Confluent's wire format.

use std::sync::Arc;

use super::bad::Reason;

/// How long one value or key may be.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// One record as Kafka delivered it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The topic's name, for the lineage column.
    pub topic: &'a Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Kafka's timestamp in milliseconds; negative: unknown.
    pub timestamp_ms: i64,
    /// The record key.
    pub key: Option<&'a [u8]>,
    /// The record value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Schema id and body of the wire format.
///
/// # Errors
/// The bytes are no such format.
#[inline]
pub fn schema_id(bytes: &[u8]) -> Result<(u32, &[u8]), Reason> {
    match bytes {
        [0, a, b, c, d, body @ ..] if bytes.len() <= RECORD_BYTES_MAX => {
            Ok((u32::from_be_bytes([*a, *b, *c, *d]), body))
        }
        [0, _, _, _, _, ..] => Err(Reason::TooLarge),
        [] | [0, ..] => Err(Reason::TooShort),
        _ => Err(Reason::Magic),
    }
}

//! What a writer holds that is not in the table yet.

use super::Writer;

/// Events that are read and not committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory that they take, in bytes. Tables of one pipeline hold the same chunks.
    pub bytes: usize,
    /// At about this many no more are taken: those of the batch in flight and of the one being filled.
    pub bytes_max: usize,
    /// When the oldest of them arrived, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// A batch is on its way into the table.
    pub in_flight: bool,
}

impl<R> Writer<R> {
    /// What is read and not committed.
    #[must_use]
    pub fn held(&self) -> Held {
        let batches = [self.flight.as_ref().map(|flight| &*flight.batch), Some(&self.filling)];
        let with_events = || batches.iter().flatten().filter(|batch| batch.events > 0);
        Held {
            bytes: batches.iter().flatten().map(|batch| batch.bytes).sum(),
            bytes_max: self.config.max_bytes.saturating_mul(2),
            since_ms: with_events().filter_map(|batch| batch.since_ms).min(),
            in_flight: self.flight.is_some(),
        }
    }
}

//! Which records the handler sees: the filter of DESIGN rule 2, one entry at a time.

use std::sync::Arc;

use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::TopicPartition;
use super::handle::{Event, Flow, Handler, Message};
use super::kafka::Raw;
use crate::core::offsets::Epoch;

/// A partition this source has seen.
pub(super) struct Slot {
    pub(super) partition: TopicPartition,
    pub(super) assigned: bool,
    /// Set while the service wants it read.
    pub(super) open: Option<Open>,
    /// librdkafka reads it.
    pub(super) reading: bool,
}

/// How it is read.
pub(super) struct Open {
    pub(super) epoch: Epoch,
    /// The smallest offset that may be shown next.
    pub(super) next: i64,
    /// Something of this epoch arrived, so its queue is routed right.
    pub(super) seen: bool,
}

/// What became of an entry.
pub(super) enum Shown {
    Done,
    Full,
    Tell(Event),
}

/// Shows one entry of an assigned partition, if it passes.
#[inline]
pub(super) fn show(handler: &mut dyn Handler, number: usize, slot: &mut Slot, raw: Raw<'_>) -> Shown {
    let Some(open) = &mut slot.open else { return Shown::Done };
    let offset = raw.offset();
    match raw.code() {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
            if offset < open.next {
                return Shown::Done;
            }
            let message = Message {
                slot: number,
                partition: &slot.partition,
                offset,
                timestamp_ms: raw.timestamp_ms(),
                key: raw.key(),
                value: raw.value(),
                headers: raw.headers(),
                epoch: open.epoch,
            };
            if handler.on_message(&message) == Flow::Full {
                return Shown::Full;
            }
            (open.next, open.seen) = (offset + 1, true);
            Shown::Done
        }
        Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            if offset < open.next {
                return Shown::Done;
            }
            if handler.on_end(number, &slot.partition, offset, open.epoch) == Flow::Full {
                return Shown::Full;
            }
            (open.next, open.seen) = (offset, true);
            Shown::Done
        }
        // A late answer to an earlier fetch.
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET if offset < open.next => Shown::Done,
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET => {
            let (epoch, reason) = (open.epoch, raw.error_text());
            Shown::Tell(Event::OutOfRange { partition: slot.partition.clone(), offset, epoch, reason })
        }
        _ => Shown::Tell(trouble(raw)),
    }
}

/// An error as the service hears of it.
pub(super) fn trouble(raw: Raw<'_>) -> Event {
    let partition = raw.topic().map(|topic| TopicPartition { topic: Arc::from(topic), partition: raw.partition() });
    Event::Trouble { partition, reason: raw.error_text() }
}

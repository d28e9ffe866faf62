//! A member of a consumer group that reads in batches.
//!
//! Two queues: *control* carries rebalances and errors, *data* carries records. librdkafka would put both into one; then
//! back-pressure would have to pause partitions, which throws away what was fetched, to get at the callbacks behind the
//! records. Kept apart, back-pressure is simply not reading data, and librdkafka stops fetching when its queue is full.
//!
//! librdkafka numbers the fetches of a partition: stopping one makes everything queued before outdated, in whatever
//! queue, and a read drops what is outdated. The number is raised before [`Consumer::unassign`] returns. So after
//! `unassign` no older record is ever read, and `assign` starts at the offset it is given (DESIGN rule 2: a seek alone
//! would not be trusted; [`super::poll`] checks offsets again and drops the batch that was already taken out).

use std::ffi::CStr;
use std::ptr;
use std::time::Duration;

use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::TopicPartition;
use super::client::{Client, ClientError, Queue, Rebalance, c_text, code_text, complaint, plain, text_of};
use crate::{Error, Result};

/// See the module.
pub(super) struct Consumer {
    // Queues are released before the client they belong to: fields drop in this order.
    control: Queue,
    data: Queue,
    client: Client,
}

/// Which of the two queues to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Control,
    Data,
}

impl Consumer {
    pub(super) fn new(config: &rdkafka::ClientConfig) -> Result<Consumer> {
        let client = Client::new(config)?;
        // SAFETY: the handle is a valid consumer; both queue calls return an owned queue.
        let (control, data) = unsafe {
            // Errors of the client go the way of the group's events, so that one read serves both.
            let code = sys::rd_kafka_poll_set_consumer(client.ptr());
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(Error::Internal(format!("kafka consumer: {}", code_text(code))));
            }
            (sys::rd_kafka_queue_get_consumer(client.ptr()), sys::rd_kafka_queue_new(client.ptr()))
        };
        Ok(Consumer { control: Queue::own(control)?, data: Queue::own(data)?, client })
    }

    /// Joins the group for these topics, replacing an earlier subscription.
    pub(super) fn subscribe(&self, topics: &[String]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            c_text(topic)?;
            list.add_topic_unassigned(topic);
        }
        // SAFETY: handle and list are valid; the list is copied.
        match unsafe { sys::rd_kafka_subscribe(self.client.ptr(), list.ptr()) } {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Error::Config(format!("cannot subscribe to {}: {}", topics.join(", "), code_text(code)))),
        }
    }

    /// Waits up to `timeout` for records or errors, or until `batch` is full. The batch must be empty.
    pub(super) fn read(&self, from: From, timeout: Duration, batch: &mut Batch) {
        let queue = if from == From::Control { &self.control } else { &self.data };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        batch.clear();
        // SAFETY: the array has room for `len` pointers; librdkafka fills the first `count` with messages that are
        // ours to destroy.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(queue.ptr(), millis, batch.messages.as_mut_ptr(), batch.messages.len())
        };
        batch.filled = usize::try_from(count).unwrap_or(0);
    }

    /// Whether the group changes hands partition by partition. `None` before the first assignment.
    pub(super) fn cooperative(&self) -> Option<bool> {
        // SAFETY: returns a static string, or null before the handle has a group.
        let protocol = unsafe { text_of(sys::rd_kafka_rebalance_protocol(self.client.ptr())) };
        match protocol.as_str() {
            "COOPERATIVE" => Some(true),
            "EAGER" => Some(false),
            _ => None,
        }
    }

    /// Starts reading partitions at offsets. An empty list only answers a pending assignment.
    pub(super) fn assign(&self, partitions: &[(&TopicPartition, i64)]) -> Result<(), String> {
        for (partition, _) in partitions {
            // First, so that the fetch that now starts does not pick the control queue.
            self.route(partition)?;
        }
        let list = list_of(partitions)?;
        // SAFETY: handle and list are valid; the list is copied; the returned error is ours.
        match unsafe { complaint(sys::rd_kafka_incremental_assign(self.client.ptr(), list.ptr())) } {
            Some(why) => Err(why),
            // Again, because stopping an earlier fetch unroutes the partition's queue.
            None => partitions.iter().try_for_each(|(partition, _)| self.route(partition)),
        }
    }

    /// Stops reading partitions. An empty list only answers a pending revocation.
    pub(super) fn unassign(&self, partitions: &[&TopicPartition]) -> Result<(), String> {
        let list = list_of(&partitions.iter().map(|p| (*p, 0)).collect::<Vec<_>>())?;
        // SAFETY: as in `assign`.
        match unsafe { complaint(sys::rd_kafka_incremental_unassign(self.client.ptr(), list.ptr())) } {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// Sends a partition's records to the data queue. Safe to repeat.
    pub(super) fn route(&self, partition: &TopicPartition) -> Result<(), String> {
        let name = c_text(&partition.topic).map_err(|e| e.to_string())?;
        // SAFETY: handle, name and both queues are valid; forwarding takes its own reference, and ours is released.
        unsafe {
            let raw = sys::rd_kafka_queue_get_partition(self.client.ptr(), name.as_ptr(), partition.partition);
            let queue = Queue::own(raw).map_err(|e| e.to_string())?;
            sys::rd_kafka_queue_forward(queue.ptr(), self.data.ptr());
        }
        Ok(())
    }

    /// Tells the group how far the tables are. Only a hint for people's lag monitors: nothing waits for it.
    pub(super) fn commit(&self, offsets: &[(&TopicPartition, i64)]) -> Result<(), String> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = list_of(offsets)?;
        // SAFETY: handle and list are valid; the list is copied.
        match unsafe { sys::rd_kafka_commit(self.client.ptr(), list.ptr(), 1) } {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(code_text(code)),
        }
    }

    /// Whether a broker answers within `timeout`.
    pub(super) fn reachable(&self, timeout: Duration) -> bool {
        let mut metadata = ptr::null();
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: on success `metadata` is ours to destroy; no topic handle is passed.
        unsafe {
            let code = sys::rd_kafka_metadata(self.client.ptr(), 0, ptr::null_mut(), &raw mut metadata, millis);
            if !metadata.is_null() {
                sys::rd_kafka_metadata_destroy(metadata);
            }
            code == Code::RD_KAFKA_RESP_ERR_NO_ERROR
        }
    }

    /// Begins to leave the group. Go on reading control, and answer revocations, until [`Consumer::closed`].
    pub(super) fn close(&self) -> Result<(), String> {
        // SAFETY: handle and queue are valid; the returned error is ours.
        match unsafe { complaint(sys::rd_kafka_consumer_close_queue(self.client.ptr(), self.control.ptr())) } {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    pub(super) fn closed(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { sys::rd_kafka_consumer_closed(self.client.ptr()) == 1 }
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.client.next_rebalance()
    }

    pub(super) fn next_error(&self) -> Option<ClientError> {
        self.client.next_error()
    }

    pub(super) fn fatal(&self) -> Option<String> {
        self.client.fatal()
    }
}

fn list_of(partitions: &[(&TopicPartition, i64)]) -> Result<TopicPartitionList, String> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset))
            .map_err(|e| format!("{partition} at {offset}: {e}"))?;
    }
    Ok(list)
}

/// Messages taken out of a queue and not yet handed on, oldest first.
pub(super) struct Batch {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    filled: usize,
    at: usize,
}

// SAFETY: messages are owned and may be read and destroyed on any thread.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for this many messages.
    pub(super) fn new(size: usize) -> Batch {
        Batch { messages: vec![ptr::null_mut(); size.max(1)], filled: 0, at: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.filled
    }

    /// The oldest message.
    #[inline]
    pub(super) fn first(&self) -> Option<Raw<'_>> {
        // SAFETY: entries from `at` to `filled` are live messages, which only `advance` and `clear` destroy.
        (self.at < self.filled).then(|| Raw(unsafe { &*self.messages[self.at] }))
    }

    /// Done with the oldest message.
    #[inline]
    pub(super) fn advance(&mut self) {
        if self.at < self.filled {
            // SAFETY: a live message of ours; `at` moves on, so it is never touched again.
            unsafe { sys::rd_kafka_message_destroy(self.messages[self.at]) }
            self.at += 1;
        }
    }

    /// Keeps only what `keep` says, in order.
    pub(super) fn retain(&mut self, keep: impl Fn(Raw<'_>) -> bool) {
        let mut kept = self.at;
        for i in self.at..self.filled {
            // SAFETY: entries from `at` to `filled` are live; one that is dropped is overwritten or cut off below.
            unsafe {
                if keep(Raw(&*self.messages[i])) {
                    self.messages.swap(kept, i);
                    kept += 1;
                } else {
                    sys::rd_kafka_message_destroy(self.messages[i]);
                }
            }
        }
        self.filled = kept;
    }

    pub(super) fn clear(&mut self) {
        while !self.is_empty() {
            self.advance();
        }
        (self.at, self.filled) = (0, 0);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One entry of a [`Batch`]: a record, or an error that takes its place in the log.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a>(&'a sys::rd_kafka_message_t);

impl<'a> Raw<'a> {
    /// What identifies the topic while the batch that holds this message lives.
    #[inline]
    pub(super) fn topic_ptr(self) -> usize {
        self.0.rkt as usize
    }

    /// The topic's name; `None` for an error that concerns no topic.
    pub(super) fn topic(self) -> Option<&'a str> {
        if self.0.rkt.is_null() {
            return None;
        }
        // SAFETY: the message keeps its topic alive, and the name is a terminated string inside of it.
        unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_topic_name(self.0.rkt)) }.to_str().ok()
    }

    #[inline]
    pub(super) fn partition(self) -> i32 {
        self.0.partition
    }

    #[inline]
    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    #[inline]
    pub(super) fn code(self) -> Code {
        self.0.err
    }

    #[inline]
    pub(super) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: a non-null key has `key_len` bytes, which live as long as the message.
        unsafe { bytes(self.0.key, self.0.key_len) }
    }

    #[inline]
    pub(super) fn value(self) -> Option<&'a [u8]> {
        // SAFETY: as for the key. Only for records: an error's payload is its text.
        unsafe { bytes(self.0.payload, self.0.len) }
    }

    /// Milliseconds since 1970, as the producer or the broker says; -1 if neither does.
    #[inline]
    pub(super) fn timestamp_ms(self) -> i64 {
        // SAFETY: the message is live; the kind of timestamp is optional.
        unsafe { sys::rd_kafka_message_timestamp(self.0, ptr::null_mut()) }
    }

    /// Where the headers are.
    #[inline]
    pub(super) fn headers(self) -> Headers<'a> {
        Headers(Some(self.0))
    }

    pub(super) fn error_text(self) -> String {
        // SAFETY: the message is live.
        plain(&unsafe { text_of(sys::rd_kafka_message_errstr(self.0)) }).to_owned()
    }
}

/// The headers of a record that has not been passed on yet.
#[derive(Clone, Copy)]
pub struct Headers<'a>(Option<&'a sys::rd_kafka_message_t>);

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.copied()).finish()
    }
}

impl Headers<'_> {
    /// Those of a record that has none.
    pub const NONE: Headers<'static> = Headers(None);

    /// The value of the last header of this name.
    #[inline]
    #[must_use]
    pub fn last(&self, name: &CStr) -> Option<&[u8]> {
        let list = self.list()?;
        let (mut value, mut len) = (ptr::null(), 0);
        // SAFETY: the list is the message's; the value is valid as long as it is.
        unsafe {
            let code = sys::rd_kafka_header_get_last(list, name.as_ptr(), &mut value, &mut len);
            if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { bytes(value.cast_mut(), len) } else { None }
        }
    }

    /// The parsed headers; none where the record has none.
    #[inline]
    fn list(&self) -> Option<*mut sys::rd_kafka_headers_t> {
        let message = self.0?;
        let mut list = ptr::null_mut();
        // SAFETY: the message is live, and keeps its headers, which are parsed in place.
        let code = unsafe { sys::rd_kafka_message_headers(message, &mut list) };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && !list.is_null()).then_some(list)
    }

    /// Name and value of each, in order; a header may have no value.
    #[must_use]
    pub fn copied(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let Some(list) = self.list() else { return Vec::new() };
        let mut found = Vec::new();
        loop {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list is the message's; name and value are valid as long as it is.
            let header = unsafe {
                let code = sys::rd_kafka_header_get_all(list, found.len(), &mut name, &mut value, &mut len);
                (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR)
                    .then(|| (text_of(name), bytes(value.cast_mut(), len).map(<[u8]>::to_vec)))
            };
            match header {
                Some(header) => found.push(header),
                None => return found,
            }
        }
    }
}

#[inline]
unsafe fn bytes<'a>(at: *mut std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>().cast_const(), len) })
}

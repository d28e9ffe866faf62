//! Questions to the brokers that rdkafka has no function for: topic ids, last stable offsets. All calls block up to
//! their timeout.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::TopicPartition;
use super::client::{Client, Queue, c_text, code_text, partitions_of, plain, text_of};
use crate::{Error, Result};

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The broker does not know this kind of question.
    Unsupported,
    /// The topic or partition is not there.
    Missing,
    /// No answer, or one that says to try again.
    Unavailable(String),
    /// An answer that waiting does not change.
    Denied(String),
}

/// What a broker says about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// `None` where brokers have no topic ids.
    pub(super) id: Option<String>,
    pub(super) partitions: Vec<i32>,
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Earliest,
    /// The high watermark; with `committed` the last stable offset, below which no transaction is open.
    Latest,
    /// The first offset whose timestamp is not before this, in milliseconds since 1970.
    Time(i64),
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

fn refusal(code: Code) -> Refusal {
    use Code::*;
    match code {
        RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE | RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION => Refusal::Unsupported,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION => Refusal::Missing,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION => Refusal::Denied(code_text(code)),
        _ => Refusal::Unavailable(plain(&code_text(code)).to_owned()),
    }
}

/// The cluster's id; `None` if no broker says one in time.
pub(super) fn cluster_id(client: &Client, timeout: Duration) -> Option<String> {
    // SAFETY: the handle is valid; the string is ours to free.
    unsafe {
        let id = sys::rd_kafka_clusterid(client.ptr(), millis(timeout));
        if id.is_null() {
            return None;
        }
        let text = text_of(id);
        sys::rd_kafka_mem_free(client.ptr(), id.cast());
        Some(text)
    }
}

/// An owned answer to a metadata request.
struct Metadata(*const sys::rd_kafka_metadata_t);

fn metadata(client: &Client, all: bool, timeout: Duration) -> Result<Metadata, Refusal> {
    let mut metadata = ptr::null();
    // SAFETY: the handle is valid; on success `metadata` is ours.
    let code = unsafe {
        sys::rd_kafka_metadata(client.ptr(), all.into(), ptr::null_mut(), &raw mut metadata, millis(timeout))
    };
    if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(Metadata(metadata)) } else { Err(refusal(code)) }
}

impl Metadata {
    /// The broker that answered.
    fn answering(&self) -> i32 {
        // SAFETY: live until dropped.
        unsafe { (*self.0).orig_broker_id }
    }

    fn topics(&self) -> BTreeMap<String, Vec<i32>> {
        // SAFETY: live until dropped, and consistent with its counts.
        unsafe {
            let count = usize::try_from((*self.0).topic_cnt).unwrap_or(0);
            (0..count)
                .map(|i| &*(*self.0).topics.add(i))
                .filter(|t| t.err == Code::RD_KAFKA_RESP_ERR_NO_ERROR)
                .map(|t| {
                    let partitions = usize::try_from(t.partition_cnt).unwrap_or(0);
                    (text_of(t.topic), (0..partitions).map(|p| (*t.partitions.add(p)).id).collect())
                })
                .collect()
        }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing borrowed from it is left.
        unsafe { sys::rd_kafka_metadata_destroy(self.0) }
    }
}

/// Names and partitions of all topics.
pub(super) fn all_topics(client: &Client, timeout: Duration) -> Result<BTreeMap<String, Vec<i32>>, Refusal> {
    Ok(metadata(client, true, timeout)?.topics())
}

/// What the brokers say about these topics, one answer per topic.
pub(super) fn describe(
    client: &Client,
    topics: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, Result<Described, Refusal>>, Refusal> {
    let names: Vec<CString> =
        topics.iter().map(|t| c_text(t)).collect::<Result<_>>().map_err(|e| Refusal::Denied(e.to_string()))?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    let options = Options::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    // Any broker knows; librdkafka would wait for the controller.
    options.ask(metadata(client, false, timeout)?.answering());
    let queue = new_queue(client)?;
    // SAFETY: the collection copies the names and is ours to destroy; the request copies the collection.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(client.ptr(), collection, options.0, queue.ptr());
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    let answer = Answer::wait(&queue, timeout)?;
    let mut found = BTreeMap::new();
    // SAFETY: the result and all that it points to live as long as `answer`.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
        if result.is_null() {
            return Err(Refusal::Unsupported);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for i in 0..count {
            let topic = *descriptions.add(i);
            let name = text_of(sys::rd_kafka_TopicDescription_name(topic));
            let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
            let described =
                if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(described(topic)) } else { Err(refusal(code)) };
            found.insert(name, described);
        }
    }
    Ok(found)
}

/// # Safety
/// `topic` is a live description.
unsafe fn described(topic: *const sys::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: the parts live as long as the description.
    unsafe {
        let mut count = 0;
        let infos = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let mut partitions: Vec<i32> =
            (0..count).map(|i| sys::rd_kafka_TopicPartitionInfo_partition(*infos.add(i))).collect();
        partitions.sort_unstable();
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let absent = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                && sys::rd_kafka_Uuid_least_significant_bits(id) == 0);
        let id = (!absent).then(|| text_of(sys::rd_kafka_Uuid_base64str(id)));
        Described { id, partitions }
    }
}

/// One offset per partition, as brokers answer under `committed` (read_committed) isolation or not. A partition without
/// a record after the time asked for has offset -1.
pub(super) fn offsets(
    client: &Client,
    partitions: &[(TopicPartition, Ask)],
    committed: bool,
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, Refusal> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (p, _) in partitions {
        c_text(&p.topic).map_err(|e| Refusal::Denied(e.to_string()))?;
        list.add_partition_offset(&p.topic, p.partition, Offset::Offset(0))
            .map_err(|e| Refusal::Denied(e.to_string()))?;
    }
    let options = Options::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
    let queue = new_queue(client)?;
    // SAFETY: the list has one element per partition, in order, whose offset field carries the question (a value that
    // rdkafka's own type cannot express); the request copies list and options.
    unsafe {
        for (i, (_, ask)) in partitions.iter().enumerate() {
            (*(*list.ptr()).elems.add(i)).offset = match ask {
                Ask::Earliest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
                Ask::Latest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
                Ask::Time(ms) => (*ms).max(0),
            };
        }
        if committed {
            let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(options.0, level);
            if let Some(why) = super::client::complaint(error) {
                return Err(Refusal::Denied(why));
            }
        }
        sys::rd_kafka_ListOffsets(client.ptr(), list.ptr(), options.0, queue.ptr());
    }
    let answer = Answer::wait(&queue, timeout)?;
    let mut found = BTreeMap::new();
    // SAFETY: the result and all that it points to live as long as `answer`.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(answer.0);
        if result.is_null() {
            return Err(Refusal::Unsupported);
        }
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for i in 0..count {
            let element = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
            if element.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(refusal(element.err));
            }
            found.insert(TopicPartition::new(text_of(element.topic), element.partition), element.offset);
        }
    }
    Ok(found)
}

/// The first and the next offset of a partition's log, open transactions included.
pub(super) fn watermarks(
    client: &Client,
    partition: &TopicPartition,
    timeout: Duration,
) -> Result<(i64, i64), Refusal> {
    let name = c_text(&partition.topic).map_err(|e| Refusal::Denied(e.to_string()))?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the handle, the name and both numbers are valid during the call.
    let code = unsafe {
        sys::rd_kafka_query_watermark_offsets(
            client.ptr(),
            name.as_ptr(),
            partition.partition,
            &raw mut low,
            &raw mut high,
            millis(timeout),
        )
    };
    if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok((low, high)) } else { Err(refusal(code)) }
}

/// How far the group's members say they are; partitions without a stored offset are left out.
pub(super) fn group_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, Refusal> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for p in partitions {
        c_text(&p.topic).map_err(|e| Refusal::Denied(e.to_string()))?;
        list.add_partition(&p.topic, p.partition);
    }
    // SAFETY: handle and list are valid; the call fills in the list's offsets.
    unsafe {
        let code = sys::rd_kafka_committed(client.ptr(), list.ptr(), millis(timeout));
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(refusal(code));
        }
        Ok(partitions_of(list.ptr()).into_iter().filter(|(_, offset)| *offset >= 0).collect())
    }
}

fn new_queue(client: &Client) -> Result<Queue, Refusal> {
    // SAFETY: the handle is valid; the queue is ours.
    Queue::own(unsafe { sys::rd_kafka_queue_new(client.ptr()) }).map_err(|e| Refusal::Denied(e.to_string()))
}

struct Options(*mut sys::rd_kafka_AdminOptions_t);

impl Options {
    fn new(client: &Client, kind: sys::rd_kafka_admin_op_t, timeout: Duration) -> Options {
        let mut text = [0 as c_char; 256];
        // SAFETY: the options are ours; a timeout out of range is refused without effect, and the wait has its own.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.ptr(), kind);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), text.as_mut_ptr(), text.len());
            Options(options)
        }
    }

    /// Asks this broker instead of the controller.
    fn ask(&self, broker: i32) {
        let mut text = [0 as c_char; 256];
        // SAFETY: the options are ours; an id out of range is refused without effect.
        unsafe {
            sys::rd_kafka_AdminOptions_set_broker(self.0, broker, text.as_mut_ptr(), text.len());
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, and not used after this.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// The answer to an admin request.
struct Answer(*mut sys::rd_kafka_event_t);

impl Answer {
    fn wait(queue: &Queue, timeout: Duration) -> Result<Answer, Refusal> {
        // The request ends by itself at the timeout; a little more lets its own error arrive.
        let patience = millis(timeout + Duration::from_millis(500));
        // SAFETY: the queue is valid and only this request answers to it; the event is ours.
        unsafe {
            let event = sys::rd_kafka_queue_poll(queue.ptr(), patience);
            if event.is_null() {
                return Err(Refusal::Unavailable("no answer in time".into()));
            }
            let answer = Answer(event);
            let code = sys::rd_kafka_event_error(event);
            if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(answer);
            }
            Err(match refusal(code) {
                Refusal::Unavailable(_) => {
                    Refusal::Unavailable(plain(&text_of(sys::rd_kafka_event_error_string(event))).to_owned())
                }
                other => other,
            })
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing borrowed from it is left.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Unsupported => Error::Config("the broker is too old for this question".into()),
            Refusal::Missing => Error::Config("the topic or partition does not exist".into()),
            Refusal::Unavailable(why) => Error::Unreachable(why),
            Refusal::Denied(why) => Error::Config(why),
        }
    }
}

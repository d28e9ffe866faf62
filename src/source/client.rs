//! A librdkafka handle and what it tells us. With `kafka` and `admin` this is all the unsafe code of the source.
//!
//! rdkafka's own consumers hand out one message at a time and take rebalances as events; reading in batches (half the
//! CPU per message) needs callbacks registered before the handle is made, so the handle is made here.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka_sys as sys;

use super::TopicPartition;
use crate::{Error, Result};

/// What the group coordinator asks for. It stays pending until it is answered with an (un)assign call.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    /// `lost`: the group has already given them away, so there is nothing to wait for.
    Revoke {
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
    Failed(String),
}

/// A broker or client error that concerns no single partition.
#[derive(Debug)]
pub(super) struct ClientError {
    pub(super) code: c_int,
    pub(super) reason: String,
}

/// Where callbacks leave what they were told. They only write it down: the state lives in the poll loop.
#[derive(Default)]
struct Told {
    rebalances: Mutex<VecDeque<Rebalance>>,
    errors: Mutex<VecDeque<ClientError>>,
}

/// Errors kept between two polls; more of them say nothing new.
const ERRORS_MAX: usize = 64;

/// An owned `rd_kafka_t`.
pub(super) struct Client {
    handle: NonNull<sys::rd_kafka_t>,
    /// librdkafka's callbacks hold its address, so it outlives the handle (see `drop`).
    told: Box<Told>,
}

// SAFETY: librdkafka's handles may be used from any thread, several at once; `told` is behind mutexes.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// A client of this configuration. It connects in the background: an unreachable broker is no error here.
    pub(super) fn new(config: &ClientConfig) -> Result<Client> {
        let native = super::config::native(config)?;
        let told = Box::<Told>::default();
        let mut text = [0 as c_char; 512];
        // SAFETY: the configuration is duplicated because rd_kafka_new takes ownership of it on success only, and
        // `native` frees its own in any case. `told` is boxed: its address stays valid while the handle lives.
        let handle = unsafe {
            let conf = sys::rd_kafka_conf_dup(native.ptr());
            sys::rd_kafka_conf_set_opaque(conf, ptr::from_ref(&*told).cast_mut().cast::<c_void>());
            sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            let kind = sys::rd_kafka_type_t::RD_KAFKA_CONSUMER;
            let handle = sys::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            if handle.is_null() {
                sys::rd_kafka_conf_destroy(conf);
            }
            handle
        };
        match NonNull::new(handle) {
            Some(handle) => Ok(Client { handle, told }),
            // SAFETY: librdkafka wrote a terminated string into `text`.
            None => Err(Error::Config(format!("kafka: {}", plain(&unsafe { text_of(text.as_ptr()) })))),
        }
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.handle.as_ptr()
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.told.rebalances).pop_front()
    }

    pub(super) fn next_error(&self) -> Option<ClientError> {
        lock(&self.told.errors).pop_front()
    }

    /// Why the client can never work again, if so.
    pub(super) fn fatal(&self) -> Option<String> {
        let mut text = [0 as c_char; 512];
        // SAFETY: the buffer and its length belong together; librdkafka terminates what it writes.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.ptr(), text.as_mut_ptr(), text.len());
            (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| text_of(text.as_ptr()))
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: queues and messages were released before (they borrow or precede the client); the group was left by
        // `Consumer::close`, and a second try here could wait without a limit. No callback runs after this returns.
        unsafe { sys::rd_kafka_destroy_flags(self.ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

/// An owned queue. It must be dropped before its client: declare it above the client in a struct.
pub(super) struct Queue(pub(super) NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Takes ownership of a queue that librdkafka returned.
    pub(super) fn own(queue: *mut sys::rd_kafka_queue_t) -> Result<Queue> {
        NonNull::new(queue).map(Queue).ok_or_else(|| Error::Internal("librdkafka gave no queue".into()))
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: owned, and not used after this.
        unsafe { sys::rd_kafka_queue_destroy(self.ptr()) }
    }
}

/// A terminated string of librdkafka's as ours; empty for null.
///
/// # Safety
/// `text` is null or a terminated string.
pub(super) unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A name as C reads it.
pub(super) fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Config(format!("kafka: {text:?} contains a zero byte")))
}

/// An owned error object as its text.
///
/// # Safety
/// `error` is null or owned by the caller, who does not use it afterwards.
pub(super) unsafe fn complaint(error: *mut sys::rd_kafka_error_t) -> Option<String> {
    if error.is_null() {
        return None;
    }
    // SAFETY: not null, and owned.
    unsafe {
        let text = text_of(sys::rd_kafka_error_string(error));
        sys::rd_kafka_error_destroy(error);
        Some(text)
    }
}

/// An error code as text.
pub(super) fn code_text(code: sys::rd_kafka_resp_err_t) -> String {
    // SAFETY: returns a static string for any code.
    unsafe { text_of(sys::rd_kafka_err2str(code)) }
}

/// A foreign message in our style: no final stop.
pub(super) fn plain(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

/// The partitions of a list with their offsets.
///
/// # Safety
/// `list` is null or a valid list.
pub(super) unsafe fn partitions_of(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<(TopicPartition, i64)> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a valid list has `cnt` elements with terminated names.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count)
            .map(|i| {
                let element = &*(*list).elems.add(i);
                (TopicPartition::new(text_of(element.topic), element.partition), element.offset)
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by the poll thread from within a read of the control queue. librdkafka waits for the (un)assign call that
/// answers it and not for this function, so the answer can come later, from the poll loop.
unsafe extern "C" fn on_rebalance(
    handle: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the client's `told`, which outlives the handle; the list is valid during the call.
    let (told, partitions) = unsafe { (&*opaque.cast::<Told>(), partitions_of(list)) };
    let partitions = partitions.into_iter().map(|(partition, _)| partition).collect();
    let event = match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(partitions),
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
            // SAFETY: the handle is the one that calls.
            let lost = unsafe { sys::rd_kafka_assignment_lost(handle) } != 0;
            Rebalance::Revoke { partitions, lost }
        }
        other => Rebalance::Failed(code_text(other)),
    };
    lock(&told.rebalances).push_back(event);
}

unsafe extern "C" fn on_error(_: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `on_rebalance`; the reason is terminated.
    let (told, reason) = unsafe { (&*opaque.cast::<Told>(), text_of(reason)) };
    let mut errors = lock(&told.errors);
    if errors.len() < ERRORS_MAX {
        errors.push_back(ClientError { code, reason });
    }
}

/// Called by any of librdkafka's threads.
unsafe extern "C" fn on_log(_: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: both are terminated strings or null.
    let (facility, line) = unsafe { (text_of(facility), text_of(line)) };
    match level {
        ..=3 => tracing::error!(facility, line, "librdkafka"),
        4 => tracing::warn!(facility, line, "librdkafka"),
        5 | 6 => tracing::info!(facility, line, "librdkafka"),
        _ => tracing::debug!(facility, line, "librdkafka"),
    }
}

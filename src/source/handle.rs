//! What the service and the poll thread say to each other, and what handles the records.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::kafka::{Consumer, Headers};
use super::poll::Poll;
use super::{SourceConfig, TopicPartition, config};
use crate::core::offsets::Epoch;
use crate::{Error, Result};

/// A record as the poll thread shows it: nothing is copied, so it cannot be kept.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// A small number for the partition, the same for the life of the source; for tables indexed by partition.
    pub slot: usize,
    /// Where it is from.
    pub partition: &'a TopicPartition,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 if the record has no time.
    pub timestamp_ms: i64,
    /// The record key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, which are looked up only where they are asked for.
    pub headers: Headers<'a>,
    /// The epoch of the [`Command::Open`] under which it was read.
    pub epoch: Epoch,
}

/// Whether a handler takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Taken.
    Taken,
    /// Not taken: show me the same again later. Nothing else is shown meanwhile.
    Full,
}

/// What is done with records, on the poll thread. It should not block: a blocked poll thread answers no rebalance.
pub trait Handler {
    /// A record, in offset order per partition and epoch.
    fn on_message(&mut self, message: &Message<'_>) -> Flow;

    /// Everything below `next` was shown or is no record (markers, aborted transactions, gaps).
    fn on_end(&mut self, slot: usize, partition: &TopicPartition, next: i64, epoch: Epoch) -> Flow;

    /// Called several times a second, whether there were records or not: time to pass on what has waited long enough.
    fn on_idle(&mut self);

    /// Partitions are about to be taken away: pass on what there is, so that it can still be committed.
    fn on_revoke(&mut self) {
        self.on_idle();
    }
}

/// What the service asks of the poll thread.
#[derive(Debug)]
pub enum Command {
    /// Read an assigned partition from `offset` on; until then it is not read. Opening an open one starts it anew: no
    /// record read before is shown with this epoch, which must be one that was never used.
    Open { partition: TopicPartition, offset: i64, epoch: Epoch },
    /// Stop reading a partition; it stays assigned.
    Close(TopicPartition),
    /// The tables' positions, for the group's lag monitors.
    CommitHint(Vec<(TopicPartition, i64)>),
    /// Show no more records until [`Command::Resume`]. What was fetched stays fetched.
    Pause,
    /// Show records again.
    Resume,
    /// The topics to own partitions of, from now on.
    Subscribe(Vec<String>),
    /// Leave the group and end. Commit first: nothing waits for a commit any more.
    Stop,
}

/// What the poll thread tells the service.
#[derive(Debug)]
pub enum Event {
    /// These partitions are ours now, besides those we had. None is read until it is opened.
    Assigned { partitions: Vec<TopicPartition>, generation: u64 },
    /// These partitions go to another member once `done` is sent or dropped, or the patience of
    /// [`SourceConfig::revoke_patience`] ends. No record of theirs is shown any more.
    Revoked { partitions: Vec<TopicPartition>, generation: u64, done: oneshot::Sender<()> },
    /// These partitions already belong to somebody else.
    Lost { partitions: Vec<TopicPartition>, generation: u64 },
    /// The broker does not have `offset`; nothing of the partition is shown until it is opened again. librdkafka does
    /// not number this answer, so it can be a late one to an earlier fetch: compare with the watermarks, and open again
    /// if the offset is there. Only V can say what its absence means.
    OutOfRange { partition: TopicPartition, offset: i64, epoch: Epoch, reason: String },
    /// A partition or topic that cannot be read now (deleted, not authorised, unreadable bytes). librdkafka retries.
    Trouble { partition: Option<TopicPartition>, reason: String },
    /// No broker answers since then; librdkafka goes on trying.
    Stalled { since: Instant, reason: String },
    /// A broker answers again.
    Recovered,
    /// The consumer cannot go on; the thread has ended.
    Failed(Error),
}

/// A running consumer. Dropping it stops the thread too, without waiting for it.
#[derive(Debug)]
pub struct Source {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Commands and events under way at most.
pub(super) const QUEUE: usize = 256;
impl Source {
    /// Starts the poll thread and joins the group.
    ///
    /// # Errors
    /// [`Error::Config`] for properties that librdkafka refuses. An unreachable broker is no error: it becomes
    /// [`Event::Stalled`].
    pub fn start(config: &SourceConfig, handler: Box<dyn Handler + Send>) -> Result<Source> {
        let native = config::consumer(&config.brokers, &config.properties, &config.group, config.queue_bytes)?;
        let consumer = Consumer::new(&native)?;
        consumer.subscribe(&config.topics)?;
        let (commands, from_service) = mpsc::channel(QUEUE);
        let (to_service, events) = mpsc::channel(QUEUE);
        let patience = config.revoke_patience;
        let thread = std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || Poll::new(consumer, handler, from_service, to_service, patience).run())
            .map_err(|e| Error::Internal(format!("cannot start the poll thread: {e}")))?;
        Ok(Source { commands, events, thread: Some(thread) })
    }

    /// The next event; `None` once the thread has ended.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`Error::Internal`] if the thread has ended.
    pub async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| Error::Internal("the kafka poll thread has ended".into()))
    }

    /// Where commands can be sent from elsewhere.
    #[must_use]
    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Leaves the group and waits for the thread to end.
    pub async fn stop(mut self) {
        // An ended thread does not take the command, and needs none.
        let _ = self.commands.send(Command::Stop).await;
        self.events.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the handler has been reported by the missing events; there is nothing left to save.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

//! The poll thread: one per pipeline, the only one that touches the consumer.
//!
//! What a record must pass before the handler sees it (DESIGN rule 2): its partition is open; its offset is not below
//! where it was opened, nor below one already handed on in this epoch. Records from before an [`Command::Open`] cannot
//! get there: those already taken out of librdkafka are thrown away with the batch, those still inside are outdated by
//! stopping the fetch, and until both have happened nothing is read. Whoever folds the records drops older epochs once
//! more.
//!
//! Where librdkafka goes on after a rebalance is never left to it. It pauses all partitions and then continues each at
//! "the last message of a batch plus one", and it counts the mark of a partition's end as such a message: the first
//! record that arrives after the end would be skipped (seen in 2.12.1). So after every change of the assignment each
//! open partition is started again at the offset that the handler is to see next ([`Poll::restart`]).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rdkafka_sys::rd_kafka_resp_err_t as Code;
use tokio::sync::{mpsc, oneshot};

use super::TopicPartition;
use super::client::Rebalance;
use super::handle::{Command, Event, Handler, QUEUE};
use super::kafka::{Batch, Consumer, From, Raw};
use super::show::{Open, Shown, Slot, show, trouble};
use crate::{Error, Result};

/// Records taken out of librdkafka at once.
const BATCH: usize = 4096;
/// How long a read waits for a batch to fill: the delay of a record on a slow topic.
const WAIT: Duration = Duration::from_millis(25);
/// How soon a full handler is asked again, and how long a command waits while nothing is read.
const RETRY: Duration = Duration::from_millis(5);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How often an unreachable broker is asked, and how long for.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(250));

struct Revocation {
    slots: Vec<usize>,
    until: Instant,
    done: oneshot::Receiver<()>,
}

/// See the module.
pub(super) struct Poll {
    // The batch holds messages of the consumer: it is dropped first.
    held: Batch,
    control: Batch,
    consumer: Consumer,
    handler: Box<dyn Handler + Send>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    patience: Duration,
    slots: Vec<Slot>,
    by_name: HashMap<TopicPartition, usize>,
    /// Events that the service has no room for yet. While there are any, nothing else is read.
    outbox: VecDeque<Event>,
    revocation: Option<Revocation>,
    /// What librdkafka reads, or where, is not what it should be.
    moved: bool,
    generation: u64,
    paused: bool,
    full: bool,
    stopping: bool,
    stalled: Option<Instant>,
    probed: Instant,
}

impl Poll {
    pub(super) fn new(
        consumer: Consumer,
        handler: Box<dyn Handler + Send>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        patience: Duration,
    ) -> Poll {
        Poll {
            held: Batch::new(BATCH),
            control: Batch::new(64),
            consumer,
            handler,
            commands,
            events,
            patience,
            slots: Vec::new(),
            by_name: HashMap::new(),
            outbox: VecDeque::new(),
            revocation: None,
            moved: false,
            generation: 0,
            paused: false,
            full: false,
            stopping: false,
            stalled: None,
            probed: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        let failure = loop {
            if let Err(e) = self.turn() {
                break Some(e);
            }
            if self.stopping {
                break None;
            }
        };
        self.held.clear();
        self.leave();
        if let Some(error) = failure {
            // The service may be gone as well; then nobody needs to know.
            let _ = self.events.blocking_send(Event::Failed(error));
        }
    }

    /// One round: commands, events, callbacks, records.
    fn turn(&mut self) -> Result<()> {
        self.obey()?;
        self.post();
        let open = self.slots.iter().any(|s| s.open.is_some());
        let readable = open && !self.paused && !self.full && self.outbox.is_empty();
        self.serve(if readable && self.revocation.is_none() { Duration::ZERO } else { RETRY })?;
        self.finish_revocation(Instant::now())?;
        // While librdkafka waits for the answer to a revocation, it takes any change of the assignment for it.
        if self.moved && self.revocation.is_none() {
            self.restart()?;
        }
        if readable && !self.moved && self.held.is_empty() {
            self.consumer.read(From::Data, WAIT, &mut self.held);
            if self.held.is_empty() {
                self.reroute();
            }
        }
        if !self.paused {
            self.deliver();
        }
        self.handler.on_idle();
        Ok(())
    }

    /// Carries out what the service asked for.
    fn obey(&mut self) -> Result<()> {
        while !self.stopping {
            match self.commands.try_recv() {
                Ok(command) => self.obey_one(command)?,
                Err(mpsc::error::TryRecvError::Empty) => break,
                // The service dropped its handle.
                Err(mpsc::error::TryRecvError::Disconnected) => self.stopping = true,
            }
        }
        Ok(())
    }

    fn obey_one(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Open { partition, offset, epoch } => {
                self.set_open(&partition, Some(Open { epoch, next: offset, seen: false }));
            }
            Command::Close(partition) => self.set_open(&partition, None),
            Command::CommitHint(offsets) => self.hint(&offsets),
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::Subscribe(topics) => self.consumer.subscribe(&topics)?,
            Command::Stop => self.stopping = true,
        }
        Ok(())
    }

    fn set_open(&mut self, partition: &TopicPartition, open: Option<Open>) {
        match self.by_name.get(partition) {
            Some(&slot) if self.slots[slot].assigned => {
                self.slots[slot].open = open;
                self.moved = true;
                self.forget(&[slot]);
            }
            // It was taken away while the command was under way; the service learns that from the event.
            _ => tracing::debug!(%partition, "not opened or closed: no longer assigned"),
        }
    }

    /// Makes librdkafka read what is open, each partition from the offset to be shown next.
    fn restart(&mut self) -> Result<()> {
        // All of it is fetched again from there.
        self.held.clear();
        self.halt(&(0..self.slots.len()).collect::<Vec<_>>());
        let open: Vec<(&TopicPartition, i64)> =
            self.slots.iter().filter_map(|s| Some((&s.partition, s.open.as_ref()?.next))).collect();
        if !open.is_empty() {
            self.consumer.assign(&open).map_err(|why| Error::Internal(format!("kafka assignment: {why}")))?;
        }
        for slot in &mut self.slots {
            slot.reading = slot.open.is_some();
            if let Some(open) = &mut slot.open {
                open.seen = false;
            }
        }
        self.moved = false;
        Ok(())
    }

    /// Stops librdkafka's reading of these partitions. Returns whether it was told anything.
    fn halt(&mut self, slots: &[usize]) -> bool {
        let reading: Vec<usize> =
            slots.iter().copied().filter(|&s| std::mem::take(&mut self.slots[s].reading)).collect();
        if reading.is_empty() {
            return false;
        }
        let partitions: Vec<&TopicPartition> = reading.iter().map(|&s| &self.slots[s].partition).collect();
        match self.consumer.unassign(&partitions) {
            Ok(()) => true,
            // It has let go of some by itself; the others must not keep their place.
            Err(why) => {
                tracing::debug!(why, "some partitions were not being read");
                partitions.iter().filter(|p| self.consumer.unassign(&[p]).is_ok()).count() > 0
            }
        }
    }

    /// Throws away the held records of these partitions, keeping the order of the others.
    fn forget(&mut self, slots: &[usize]) {
        let gone = |raw: Raw<'_>| {
            raw.topic().is_some_and(|topic| {
                slots.iter().any(|&s| {
                    let p = &self.slots[s].partition;
                    p.partition == raw.partition() && *p.topic == *topic
                })
            })
        };
        self.held.retain(|raw| !gone(raw));
    }

    fn hint(&self, offsets: &[(TopicPartition, i64)]) {
        let ours: Vec<(&TopicPartition, i64)> = offsets
            .iter()
            .filter(|(p, _)| self.by_name.get(p).is_some_and(|&s| self.slots[s].assigned))
            .map(|(p, offset)| (p, *offset))
            .collect();
        if let Err(why) = self.consumer.commit(&ours) {
            tracing::debug!(why, "group offsets not stored; the tables have the position");
        }
    }

    /// Gives the service what it has room for.
    fn post(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    /// Reads callbacks and errors.
    fn serve(&mut self, timeout: Duration) -> Result<()> {
        self.consumer.read(From::Control, timeout, &mut self.control);
        while let Some(raw) = self.control.first() {
            if raw.code() == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                // Records go to the other queue. One that does not is of a fetch that was stopped meanwhile.
                tracing::debug!(offset = raw.offset(), "record on the control queue dropped");
            } else {
                let trouble = trouble(raw);
                self.report(trouble);
            }
            self.control.advance();
        }
        if let Some(why) = self.consumer.fatal() {
            return Err(Error::Unreachable(format!("kafka consumer: {why}")));
        }
        while let Some(error) = self.consumer.next_error() {
            if error.code == Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32 && self.stalled.is_none() {
                let since = Instant::now();
                self.stalled = Some(since);
                self.outbox.push_back(Event::Stalled { since, reason: error.reason });
            } else {
                tracing::debug!(code = error.code, reason = error.reason, "kafka client");
            }
        }
        self.probe();
        // A pending revocation is answered before the next callback is looked at.
        while self.revocation.is_none() {
            let Some(rebalance) = self.consumer.next_rebalance() else { break };
            self.rebalance(rebalance)?;
        }
        Ok(())
    }

    /// Looks whether an outage is over: an idle topic would never tell.
    fn probe(&mut self) {
        if self.stalled.is_some() && self.probed.elapsed() >= PROBE.0 {
            let reachable = self.consumer.reachable(PROBE.1);
            self.probed = Instant::now();
            if reachable {
                self.stalled = None;
                self.outbox.push_back(Event::Recovered);
            }
        }
    }

    /// Passes trouble on, unless the service is far behind already.
    fn report(&mut self, event: Event) {
        if self.outbox.len() < QUEUE {
            self.outbox.push_back(event);
        }
    }

    fn rebalance(&mut self, rebalance: Rebalance) -> Result<()> {
        self.generation += 1;
        let generation = self.generation;
        match rebalance {
            Rebalance::Assign(partitions) => {
                if self.consumer.cooperative() == Some(false) {
                    return Err(Error::Config(
                        "kafka: another member makes this group change all partitions at once; \
                         give the pipeline a group of its own"
                            .into(),
                    ));
                }
                // Says that we know. The partitions are added one by one as they are opened, at V.
                self.consumer.assign(&[]).map_err(|why| Error::Internal(format!("kafka assignment: {why}")))?;
                self.moved = true;
                for partition in &partitions {
                    let slot = self.slot(partition);
                    self.slots[slot].assigned = true;
                }
                self.outbox.push_back(Event::Assigned { partitions, generation });
            }
            Rebalance::Revoke { partitions, lost } => {
                let slots: Vec<usize> = partitions.iter().map(|p| self.slot(p)).collect();
                self.handler.on_revoke();
                self.forget(&slots);
                for &slot in &slots {
                    self.slots[slot].assigned = false;
                }
                if lost {
                    self.release(&slots)?;
                    self.outbox.push_back(Event::Lost { partitions, generation });
                } else {
                    let (done, wait) = oneshot::channel();
                    self.revocation = Some(Revocation { slots, until: Instant::now() + self.patience, done: wait });
                    self.outbox.push_back(Event::Revoked { partitions, generation, done });
                }
            }
            Rebalance::Failed(why) => self.report(Event::Trouble { partition: None, reason: why }),
        }
        Ok(())
    }

    /// Lets revoked partitions go once the service has committed, or has had its time.
    fn finish_revocation(&mut self, now: Instant) -> Result<()> {
        let Some(revocation) = &mut self.revocation else { return Ok(()) };
        let waiting = matches!(revocation.done.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if waiting && now < revocation.until && !self.stopping {
            return Ok(());
        }
        if waiting {
            tracing::warn!("partitions given away before their commit; their new owner reads from the table");
        }
        let slots = self.revocation.take().map(|r| r.slots).unwrap_or_default();
        self.release(&slots)
    }

    /// Answers a revocation: librdkafka goes on once something is unassigned, be it nothing.
    fn release(&mut self, slots: &[usize]) -> Result<()> {
        for &slot in slots {
            self.slots[slot].open = None;
        }
        self.moved = true;
        if !self.halt(slots) {
            self.consumer.unassign(&[]).map_err(|why| Error::Internal(format!("kafka revocation: {why}")))?;
        }
        Ok(())
    }

    fn slot(&mut self, partition: &TopicPartition) -> usize {
        if let Some(&slot) = self.by_name.get(partition) {
            return slot;
        }
        let slot = self.slots.len();
        self.slots.push(Slot { partition: partition.clone(), assigned: false, open: None, reading: false });
        self.by_name.insert(partition.clone(), slot);
        slot
    }

    /// Routes partitions that have shown nothing yet once more: a stop that was under way may have undone it.
    fn reroute(&self) {
        for slot in &self.slots {
            if slot.reading
                && slot.open.as_ref().is_some_and(|o| !o.seen)
                && let Err(why) = self.consumer.route(&slot.partition)
            {
                tracing::debug!(why, "partition not routed");
            }
        }
    }

    /// Shows the held records to the handler until it is full.
    fn deliver(&mut self) {
        self.full = false;
        // Messages of one batch keep their topics alive, so within it the address names the topic.
        let mut last = (0, -1, usize::MAX);
        while let Some(raw) = self.held.first() {
            if (last.0, last.1) != (raw.topic_ptr(), raw.partition()) {
                last = (raw.topic_ptr(), raw.partition(), self.find(raw));
            }
            let shown = match self.slots.get_mut(last.2) {
                Some(slot) if slot.assigned => show(&mut *self.handler, last.2, slot, raw),
                _ => Shown::Done,
            };
            match shown {
                Shown::Done => {}
                Shown::Full => {
                    self.full = true;
                    return;
                }
                Shown::Tell(event) => self.report(event),
            }
            self.held.advance();
        }
    }

    fn find(&self, raw: Raw<'_>) -> usize {
        let Some(topic) = raw.topic() else { return usize::MAX };
        let partition = TopicPartition::new(topic, raw.partition());
        self.by_name.get(&partition).copied().unwrap_or(usize::MAX)
    }

    /// Leaves the group, so that others need not wait for the session to end.
    fn leave(&mut self) {
        let until = Instant::now() + LEAVE;
        if let Err(why) = self.consumer.close() {
            tracing::debug!(why, "group not left");
            return;
        }
        while !self.consumer.closed() && Instant::now() < until {
            self.consumer.read(From::Control, RETRY, &mut self.control);
            self.control.clear();
            while self.consumer.next_rebalance().is_some() {
                if !self.halt(&(0..self.slots.len()).collect::<Vec<_>>())
                    && let Err(why) = self.consumer.unassign(&[])
                {
                    tracing::debug!(why, "nothing to let go");
                }
            }
        }
    }
}

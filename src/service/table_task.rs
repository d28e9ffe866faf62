//! Carries out what a table's writer wants done, and answers it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::retry::{Waiting, backoff};
use super::saved_index::{self, SavedPlace};
use super::{clock, starts::Starts};
use crate::core::batch::Batch;
use crate::core::history::SnapshotId;
use crate::core::key_index::KeyEncoder;
use crate::core::order;
use crate::core::plan::Plan;
use crate::core::schema::SchemaChange;
use crate::core::writer::{Action, CommitOrder, Event, Outcome, PlacedFile, Placement, Writer};
use crate::error::Error;
use crate::files::{RowOrder, WrittenFile, conform};
use crate::source::DeadLetters;
use crate::table::{Change, LakeTable, LiveFile, NewRows, Outcome as TableOutcome};
use crate::telemetry::{Dependency, PipelineTelemetry, Task};
use crate::{Result, table};

/// The writer's name for what happened in production.
pub(super) type TableEvent = Event<RecordBatch>;

/// What a writer's edge needs; cloned into each action that is carried out.
#[derive(Clone)]
pub(super) struct TableTask {
    pub(super) number: usize,
    pub(super) table: Arc<dyn LakeTable>,
    pub(super) pipeline: String,
    /// Absent in `append` mode.
    pub(super) keys: Option<Arc<KeyEncoder>>,
    pub(super) order_by: Option<String>,
    pub(super) starts: Arc<Starts>,
    /// The pipeline's dead letters, which a commit waits for.
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
    /// Where the index is saved; absent in `append` mode.
    pub(super) saved: Option<SavedPlace>,
    /// Files that were written and are not committed yet, by path.
    written: Arc<Mutex<HashMap<Arc<str>, WrittenFile>>>,
    answers: mpsc::Sender<(usize, Result<TableEvent>)>,
    telemetry: PipelineTelemetry,
}

impl TableTask {
    pub(super) fn new(
        number: usize,
        table: Arc<dyn LakeTable>,
        pipeline: &str,
        starts: Arc<Starts>,
        answers: mpsc::Sender<(usize, Result<TableEvent>)>,
        telemetry: PipelineTelemetry,
    ) -> Self {
        TableTask {
            number,
            table,
            pipeline: pipeline.to_string(),
            keys: None,
            order_by: None,
            starts,
            dead_letters: None,
            saved: None,
            written: Arc::default(),
            answers,
            telemetry,
        }
    }

    /// Carries out an action that has an answer, in the background, until nobody wants the answer any more. What is under way
    /// is then given up like at the end of the process: of a commit the next run of the pipeline finds out whether it is in.
    pub(super) fn spawn(&self, action: Action<RecordBatch>) {
        let task = self.clone();
        tokio::spawn(async move {
            let done = async {
                if let Err(error) = task.carry_out(action).await {
                    task.answer(Err(error.within(task.table.name()))).await;
                }
            };
            tokio::select! {
                () = done => {}
                () = task.answers.closed() => {}
            }
        });
    }

    /// Saves the writer's index, where it has one.
    pub(super) fn save(&self, writer: &Writer<RecordBatch>) -> Result<()> {
        self.saved.as_ref().map_or(Ok(()), |place| saved_index::save(place, writer))
    }

    async fn answer(&self, event: Result<TableEvent>) {
        // A pipeline that has ended needs no answers.
        let _ = self.answers.send((self.number, event)).await;
    }

    /// Waits out an outage of what the task needs.
    fn waiting(&self, dependency: Dependency) -> Waiting<'_> {
        let task = match dependency {
            Dependency::Table | Dependency::Commit => Task::of(dependency, self.table.name()),
            _ => Task::only(dependency),
        };
        Waiting { telemetry: &self.telemetry, task, patience: None }
    }

    async fn carry_out(&self, action: Action<RecordBatch>) -> Result<()> {
        let (table, broker) = (self.waiting(Dependency::Table), self.waiting(Dependency::Broker));
        let event = match action {
            Action::Load { since, again } => {
                tokio::time::sleep(backoff(again)).await;
                let view = table.until_reachable(|| self.table.load(since)).await?;
                Event::Loaded(Box::new(view))
            }
            Action::Follow { since } => {
                table.until_reachable(|| self.follow(since)).await?;
                Event::Followed
            }
            Action::ResolveStarts { topics, partitions } => {
                Event::Starts(broker.until_reachable(|| self.starts.resolve(&topics, &partitions)).await?)
            }
            Action::Inspect => Event::Topics(broker.until_reachable(|| self.starts.topology()).await?),
            Action::Write { attempt, batch, plan, schema_change } => {
                let mut again = 0u32;
                let write = || {
                    // A name is never used twice, not even for a file that was not written whole.
                    again += 1;
                    let rows = (batch.clone(), plan.clone());
                    self.write(format!("{attempt}-{again}"), rows, schema_change.clone())
                };
                Event::Written(table.until_reachable(write).await?)
            }
            Action::Commit(order) => {
                // What V passes was rejected before this: the dead letters are with their broker first.
                if let Some(letters) = &self.dead_letters {
                    self.waiting(Dependency::DeadLetters).until_reachable(|| letters.settled()).await?;
                }
                Event::Outcome(self.commit(order).await?)
            }
            Action::Open { .. } | Action::Landed(_) | Action::Stop(_) => return Ok(()),
        };
        self.answer(Ok(event)).await;
        Ok(())
    }

    /// Shows the writer what changed since `since`; repeated as a whole when it fails, which the writer takes well.
    async fn follow(&self, since: Option<SnapshotId>) -> Result<()> {
        let diff = self.table.diff(since).await?;
        self.answer(Ok(Event::Diff { whole: diff.whole, removed: diff.removed, deletes: diff.deletes })).await;
        for file in &diff.added {
            self.show_rows(file).await?;
        }
        Ok(())
    }

    async fn show_rows(&self, file: &LiveFile) -> Result<()> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let mut columns = self.table.schema().key.clone();
        let key_columns = columns.len();
        // A table that does not have the column yet has rows that are older than any with it.
        let schema = self.table.schema();
        columns.extend(self.order_by.clone().filter(|name| schema.column(name).is_some()));
        let mut rows = self.table.rows(file, &columns).await?;
        while let Some(part) = rows.next().await {
            let part = part?;
            let arrays = part.columns.columns();
            let orders = match arrays.get(key_columns) {
                Some(column) => order::encode_or_least(column).map_err(Error::Decision)?,
                None if self.order_by.is_some() => vec![i64::MIN; part.positions.len()],
                None => Vec::new(),
            };
            let keys = keys.encode(&arrays[..key_columns]).map_err(Error::Decision)?;
            let event = Event::Rows { path: file.path.clone(), keys, positions: part.positions, orders };
            self.answer(Ok(event)).await;
        }
        Ok(())
    }

    async fn write(
        &self,
        attempt: String,
        (batch, plan): (Arc<Batch<RecordBatch>>, Arc<Plan>),
        schema_change: Option<Arc<SchemaChange>>,
    ) -> Result<Vec<PlacedFile>> {
        let selected = tokio::task::spawn_blocking(move || select(&batch, &plan));
        let batches = selected.await.map_err(|e| Error::Internal(format!("selecting rows failed: {e}")))??;
        let files = self.table.write(&attempt, NewRows { batches, schema_change }).await?;
        let placed = files.iter().map(place).collect();
        let mut written = self.written.lock().map_err(|_| Error::Internal("a writer of files panicked".into()))?;
        written.clear();
        written.extend(files.into_iter().map(|file| (Arc::from(file.path.as_str()), file)));
        Ok(placed)
    }

    /// Tries a commit once.
    ///
    /// # Errors
    /// [`Error::Decision`] where it cannot be made and another try would end the same way.
    async fn commit(&self, order: CommitOrder) -> Result<Outcome> {
        let files = match self.written.lock() {
            Ok(written) => order.files.iter().filter_map(|f| written.get(&f.path).cloned()).collect::<Vec<_>>(),
            Err(_) => Vec::new(),
        };
        if files.len() != order.files.len() {
            tracing::error!(table = self.table.name(), "files of the batch are not at hand; planning again");
            return Ok(Outcome::NotSent);
        }
        let change = Change {
            base: order.base,
            attempt: order.attempt,
            pipeline: self.pipeline.clone(),
            files,
            superseded: order.superseded,
            schema_change: order.schema_change,
            pins: order.pins,
            vector: order.vector,
            now_ms: clock::now_ms(),
            reason: None,
        };
        let (table, task) = (self.table.name(), Task::of(Dependency::Commit, self.table.name()));
        self.telemetry.began(&task);
        Ok(match self.table.commit(change).await {
            TableOutcome::Committed(view) => Outcome::Committed(view),
            TableOutcome::Refused(why) => {
                tracing::info!(table, why, "commit refused; looking at the table");
                self.telemetry.not_committed(table, "refused");
                Outcome::Refused
            }
            TableOutcome::Unknown(why) => {
                tracing::warn!(table, why, "the answer to a commit was lost; looking at the table");
                self.telemetry.not_committed(table, "unknown");
                self.telemetry.failed(&task, &why);
                Outcome::Unknown
            }
            TableOutcome::NotSent(error @ Error::Decision(_)) => return Err(error),
            TableOutcome::NotSent(error) => {
                tracing::warn!(table, %error, "a commit failed before it was sent");
                self.telemetry.not_committed(table, "not_sent");
                self.telemetry.failed(&task, &error.to_string());
                Outcome::NotSent
            }
        })
    }
}

/// The rows of a plan, in the order in which it lists them, and all in the columns of the newest chunk: these know under
/// which names the older ones have them, which the table may not.
fn select(batch: &Batch<RecordBatch>, plan: &Plan) -> Result<Vec<RecordBatch>> {
    let newest = batch.chunks.last().map(|admitted| admitted.chunk.rows.schema());
    let select = |part: &crate::core::plan::ChunkRows| {
        let rows = &batch.chunks[part.chunk].chunk.rows;
        let respelled = match &newest {
            Some(columns) if rows.schema_ref() != columns => Some(conform(rows, columns)?),
            _ => None,
        };
        let rows = respelled.as_ref().unwrap_or(rows);
        if part.rows.len() == rows.num_rows() {
            return Ok(rows.clone());
        }
        take_record_batch(rows, &UInt32Array::from(part.rows.clone()))
            .map_err(|e| Error::Internal(format!("cannot select rows of a batch: {e}")))
    };
    plan.append.iter().map(select).collect()
}

fn place(file: &table::WrittenFile) -> PlacedFile {
    let rows = match &file.rows {
        RowOrder::Range { start } => Placement::Range { start: *start },
        RowOrder::List(list) => Placement::List(list.clone()),
    };
    PlacedFile { path: Arc::from(file.path.as_str()), records: file.records as u32, rows }
}

#[cfg(test)]
mod tests;

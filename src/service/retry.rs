//! Waiting out what does not answer: exponential backoff with jitter, and who is told of it.

use std::future::Future;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::telemetry::{PipelineTelemetry, Task};
use crate::{Error, Result};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(20);

/// How long to wait before try `again` (from 1): doubled each time up to 20 s, then a random part of it.
pub(super) fn backoff(again: u32) -> Duration {
    if again == 0 {
        return Duration::ZERO;
    }
    let full = FIRST.saturating_mul(1 << again.min(10).saturating_sub(1)).min(LONGEST);
    full.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// A request that is repeated until it is answered, and in whose stead the process is not ready.
#[derive(Debug, Clone)]
pub(super) struct Waiting<'w> {
    pub(super) telemetry: &'w PipelineTelemetry,
    pub(super) task: Task,
    /// How long it may take; without end where there is none.
    pub(super) patience: Option<Duration>,
}

impl Waiting<'_> {
    /// Repeats `attempt` for as long as what it needs does not answer. Errors that need a person end it at once.
    ///
    /// # Errors
    /// Whatever `attempt` fails with, other than [`Error::Unreachable`]; that too, once the patience is over.
    pub(super) async fn until_reachable<T, F: Future<Output = Result<T>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let Waiting { telemetry, task, patience } = self;
        let since = Instant::now();
        let mut again = 0;
        telemetry.began(task);
        let ended = loop {
            match attempt().await {
                Err(Error::Unreachable(why)) if patience.is_none_or(|limit| since.elapsed() < limit) => {
                    again += 1;
                    let stalled_seconds = since.elapsed().as_secs();
                    tracing::warn!(what = %task, stalled_seconds, why, "does not answer; waiting");
                    telemetry.failed(task, &why);
                    tokio::time::sleep(backoff(again)).await;
                }
                Ok(value) => {
                    if again > 0 {
                        tracing::info!(what = %task, seconds = since.elapsed().as_secs(), "answers again");
                    }
                    break Ok(value);
                }
                Err(error) => break Err(error),
            }
        };
        telemetry.answered(task);
        ended
    }
}

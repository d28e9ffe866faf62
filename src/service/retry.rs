//! Waiting out what does not answer: exponential backoff with jitter, and when it began.

use std::future::Future;
use std::time::{Duration, Instant};

use rand::RngExt;

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

/// Repeats `attempt` for as long as what it needs does not answer. Errors that need a person end it at once.
///
/// # Errors
/// Whatever `attempt` fails with, other than [`Error::Unreachable`]; that too, once `patience` is over.
pub(super) async fn until_reachable<T, F: Future<Output = Result<T>>>(
    what: &str,
    patience: Option<Duration>,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let since = Instant::now();
    let mut again = 0;
    loop {
        match attempt().await {
            Err(Error::Unreachable(why)) if patience.is_none_or(|limit| since.elapsed() < limit) => {
                again += 1;
                let stalled_seconds = since.elapsed().as_secs();
                tracing::warn!(what, stalled_seconds, why, "does not answer; waiting");
                tokio::time::sleep(backoff(again)).await;
            }
            Ok(value) => {
                if again > 0 {
                    tracing::info!(what, seconds = since.elapsed().as_secs(), "answers again");
                }
                return Ok(value);
            }
            Err(error) => return Err(error),
        }
    }
}

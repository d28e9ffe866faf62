//! Checkpoints when they are due, and dropping what of the log is older than anybody needs.

use super::checkpoint;
use super::log::Log;
use super::state::State;
use crate::error::Result;

/// Commits from one checkpoint to the next, where the table does not say.
const CHECKPOINT_INTERVAL: i64 = 100;
/// How long the log reaches back, where the table does not say: 30 days.
const LOG_RETENTION_MS: i64 = 30 * DAY_MS;
/// How long removed files are remembered, where the table does not say: 7 days.
const REMOVED_RETENTION_MS: i64 = 7 * DAY_MS;
const DAY_MS: i64 = 86_400_000;

fn property<'s>(state: &'s State, name: &str) -> Option<&'s str> {
    state.metadata.as_ref()?.configuration.get(name).map(String::as_str)
}

/// A time as Delta's properties spell it: `interval 30 days`. Text that is not understood counts as absent.
fn interval_ms(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("interval"));
    let (number, unit) = (words.next()?.parse::<i64>().ok()?, words.next()?.to_lowercase());
    let unit_ms = match unit.trim_end_matches('s') {
        "millisecond" => 1,
        "second" => 1000,
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => DAY_MS,
        "week" => 7 * DAY_MS,
        _ => return None,
    };
    number.checked_mul(unit_ms).filter(|ms| *ms >= 0 && words.next().is_none())
}

/// Writes a checkpoint where one is due at the state's version, then cleans the log.
///
/// # Errors
/// [`crate::Error::Unreachable`] where the store does not do it. The table is whole all the same.
pub(super) async fn after_commit(log: &Log, state: &mut State, now_ms: i64) -> Result<()> {
    let interval = property(state, "delta.checkpointInterval").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let due = state.version - state.checkpoint.unwrap_or(0) >= interval.unwrap_or(CHECKPOINT_INTERVAL);
    if !due {
        return Ok(());
    }
    let kept = property(state, "delta.deletedFileRetentionDuration").and_then(interval_ms);
    state.forget_removed_before(now_ms.saturating_sub(kept.unwrap_or(REMOVED_RETENTION_MS)));
    checkpoint::write(log, state).await?;
    state.checkpoint = Some(state.version);
    if property(state, "delta.enableExpiredLogCleanup").is_none_or(|v| !v.eq_ignore_ascii_case("false")) {
        let kept = property(state, "delta.logRetentionDuration").and_then(interval_ms);
        clean(log, now_ms.saturating_sub(kept.unwrap_or(LOG_RETENTION_MS))).await?;
    }
    Ok(())
}

/// Drops what is older than the newest checkpoint from before `time_ms`. That checkpoint and everything after it stay, so
/// that the table can be read at every moment; the oldest go first, so that a version that is there has all its successors.
async fn clean(log: &Log, time_ms: i64) -> Result<()> {
    let listing = log.list().await?;
    let mut old = listing.checkpoints.iter().filter(|(_, checkpoint)| checkpoint.modified_ms < time_ms);
    let Some((first_kept, _)) = old.next_back() else { return Ok(()) };
    for version in listing.commits.range(..first_kept).filter(|(_, modified)| **modified < time_ms).map(|(v, _)| *v) {
        log.store.remove(&log.commit_location(version)).await?;
    }
    for (_, checkpoint) in listing.checkpoints.range(..first_kept) {
        for name in &checkpoint.names {
            log.store.remove(&log.location(name)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_delta_spells_them() {
        for (text, expected) in [
            ("interval 30 days", Some(30 * DAY_MS)),
            ("INTERVAL 1 second", Some(1000)),
            ("2 weeks", Some(14 * DAY_MS)),
            ("interval 0 seconds", Some(0)),
            ("interval -1 days", None),
            ("interval 1 month", None),
            ("interval 1 day 2 hours", None),
            ("", None),
        ] {
            assert_eq!(interval_ms(text), expected, "{text}");
        }
    }
}

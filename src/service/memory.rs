//! How the memory that buffers may take is divided.

use super::opening::lanes;
use crate::settings::{Pipeline, Settings};

/// What one pipeline may buffer, in bytes. All of it together is its share of `memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Events of one batch. Tables that take the same rows have two: one on its way, and the next.
    pub(super) batch: u64,
    /// Events that are decoded together.
    pub(super) chunk: usize,
    /// Records that librdkafka has fetched.
    pub(super) fetched: u64,
    /// Dead letters on their way.
    pub(super) letters: u64,
}

/// Chunks that wait for the writers.
pub(super) const CHUNKS_QUEUED: u64 = 4;
/// Those, one that waits for room, one being decoded, and one by which each of the two batches may be too large.
const CHUNKS: u64 = CHUNKS_QUEUED + 4;

const CHUNK: (u64, u64) = (512 << 10, 32 << 20);
const FETCHED: (u64, u64) = (1 << 20, 16 << 20);
const LETTERS: (u64, u64) = (1 << 20, 256 << 20);

impl Shares {
    /// The share of a pipeline. Tables that take the same rows hold the same two batches, but each selects its own and
    /// encodes them, which takes up to one and a half batches more.
    pub(super) fn of(settings: &Settings, pipeline: &Pipeline) -> Self {
        let share = settings.memory / settings.pipelines.len().max(1) as u64;
        let (lanes, tables) = (lanes(pipeline).len().max(1) as u64, pipeline.tables.len().max(1) as u64);
        let chunk = (share / (4 * CHUNKS)).clamp(CHUNK.0, CHUNK.1);
        Shares {
            // All of them together: half the share.
            batch: share / (4 * lanes + 3 * tables),
            chunk: usize::try_from(chunk).unwrap_or(usize::MAX),
            fetched: (share / 8).clamp(FETCHED.0, FETCHED.1),
            letters: (share / 8).clamp(LETTERS.0, LETTERS.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares of the first of so many pipelines, each with lanes of so many tables; and its part of the memory.
    fn shares(memory: u64, pipelines: usize, lanes: &[usize]) -> (Shares, u64) {
        let pipeline = |n: usize| {
            let several = lanes.len() > 1;
            let tables = lanes.iter().enumerate().flat_map(|(lane, &tables)| (0..tables).map(move |t| (lane, t)));
            let record = |lane| if several { format!(", record_type: test.R{lane}") } else { String::new() };
            let tables = tables.map(|(lane, t)| format!("{{catalog: lake, name: a{n}.t{lane}_{t}{}}}", record(lane)));
            format!("p{n}: {{topics: [t], tables: [{}]}}", tables.collect::<Vec<_>>().join(", "))
        };
        let text = format!(
            "kafka: {{brokers: 'h:1'}}\nschema_registry: {{url: 'http://h'}}\nmemory: {memory}B\n\
             catalogs: {{lake: {{type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}}}\npipelines: {{{}}}\n",
            (0..pipelines).map(pipeline).collect::<Vec<_>>().join(", ")
        );
        let settings = Settings::parse(&text, std::path::Path::new("/base"), &|_| None).unwrap();
        (Shares::of(&settings, &settings.pipelines["p0"]), memory / pipelines as u64)
    }

    /// INV-18: everything that a pipeline buffers is within its share of `memory`.
    #[test]
    fn the_shares_of_a_pipeline_add_up_to_no_more_than_its_part() {
        const SMALL: u64 = 64_000_000;
        let cases: [(u64, usize, &[usize]); 6] = [
            (SMALL, 1, &[1]),
            (SMALL, 1, &[2]),
            (2_000_000_000, 1, &[1]),
            (2_000_000_000, 8, &[3]),
            (SMALL, 2, &[1]),
            (SMALL, 1, &[2, 1, 1]),
        ];
        for (memory, pipelines, lanes) in cases {
            let (shares, part) = shares(memory, pipelines, lanes);
            let tables: usize = lanes.iter().sum();
            let batches = 2 * lanes.len() as u64 * shares.batch + tables as u64 * shares.batch * 3 / 2;
            let all = batches + CHUNKS * shares.chunk as u64 + shares.fetched + shares.letters;
            assert!(all <= part, "{memory} {pipelines} {lanes:?}: {shares:?} is {all} of {part}");
        }
    }

    #[test]
    fn one_pipeline_with_the_default_has_room_for_the_default_batch() {
        assert!(shares(2_000_000_000, 1, &[1]).0.batch >= 256_000_000);
    }
}

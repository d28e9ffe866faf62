//! `firn dead-letters`: rejected records, looked at and submitted again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Output, load, print};
use crate::core::letter::Letter;
use crate::query::Format;
use crate::service::{self, Replay};
use crate::{Error, Result};

/// `firn dead-letters show`.
#[derive(Debug, Clone)]
pub struct DeadLettersShowArgs {
    /// The settings file.
    pub config: PathBuf,
    /// The pipeline that rejected them.
    pub pipeline: String,
    /// How many of each reason are named.
    pub samples: usize,
    /// [`Format::Json`] for one JSON document; anything else for people.
    pub format: Format,
}

/// `firn dead-letters replay`.
#[derive(Debug, Clone)]
pub struct DeadLettersReplayArgs {
    /// The settings file.
    pub config: PathBuf,
    /// The pipeline that rejected them.
    pub pipeline: String,
    /// Only letters of these reasons; none: all.
    pub reasons: Vec<String>,
    /// Say what would be submitted, and submit nothing.
    pub dry_run: bool,
    /// As for `show`.
    pub format: Format,
}

/// The letters of one reason.
#[derive(Debug, Default, Serialize)]
struct Group {
    letters: usize,
    replayed: usize,
    samples: Vec<Line>,
}

/// One letter.
#[derive(Debug, Serialize)]
struct Line {
    topic: String,
    topic_id: String,
    partition: i32,
    offset: i64,
    reason: String,
    message: String,
    /// Why it is not submitted again.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Line {
    fn of(letter: &Letter, refused: Option<&String>) -> Line {
        Line {
            topic: letter.topic.clone(),
            topic_id: letter.place.topic_id.clone(),
            partition: letter.place.partition,
            offset: letter.place.offset,
            reason: letter.reason.clone(),
            message: letter.message.clone(),
            refused: refused.cloned(),
        }
    }

    fn to_text(&self) -> String {
        let Line { topic, partition, offset, message, .. } = self;
        let why = self.refused.as_ref().map_or(String::new(), |why| format!("\n      {why}"));
        format!("    {topic}/{partition} at offset {offset}: {message}{why}\n")
    }
}

/// Lists the dead letters of a pipeline by reason, with samples.
///
/// # Errors
/// [`Error::Config`] where the pipeline has no dead letters, [`Error::Unreachable`] where they cannot be read.
pub async fn dead_letters_show(args: DeadLettersShowArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let pipeline = settings.pipeline(&args.pipeline)?;
    let letters = service::dead_letters(&settings, pipeline, false).await?;
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for letter in letters.whole.values() {
        let group = groups.entry(&letter.reason).or_default();
        group.letters += 1;
        group.replayed += usize::from(letters.replayed.contains(&letter.place));
        if group.samples.len() < args.samples {
            group.samples.push(Line::of(letter, None));
        }
    }
    let text = match args.format {
        Format::Json => json(&serde_json::json!({
            "pipeline": pipeline.name, "reasons": groups, "incomplete": letters.incomplete(), "foreign": letters.foreign
        }))?,
        _ => {
            let mut text = format!("pipeline {}: {} dead letters\n", pipeline.name, letters.whole.len());
            for (reason, group) in &groups {
                text.push_str(&format!("  {reason}: {} letters, {} of them replayed\n", group.letters, group.replayed));
                group.samples.iter().for_each(|sample| text.push_str(&sample.to_text()));
            }
            if letters.incomplete() > 0 {
                text.push_str(&format!("  {} letters of which parts are missing\n", letters.incomplete()));
            }
            text
        }
    };
    print(out, &text)
}

/// Submits the dead letters of a pipeline again that can be rows by now. Whatever is submitted is not submitted twice; what
/// would undo a later event is refused and listed.
///
/// # Errors
/// After printing, [`Error::No`] when some were refused; else as [`dead_letters_show`].
pub async fn dead_letters_replay(args: DeadLettersReplayArgs, out: Output<'_>) -> Result<()> {
    let settings = load(&args.config)?;
    let pipeline = settings.pipeline(&args.pipeline)?;
    let Replay { submitted, refused, earlier } =
        service::replay(&settings, pipeline, &args.reasons, args.dry_run).await?;
    let refused: Vec<Line> = refused.iter().map(|(letter, why)| Line::of(letter, Some(why))).collect();
    let text = match args.format {
        Format::Json => json(&serde_json::json!({
            "pipeline": pipeline.name, "dry_run": args.dry_run, "replayed_before": earlier, "refused": refused,
            "submitted": submitted.iter().map(|letter| Line::of(letter, None)).collect::<Vec<_>>()
        }))?,
        _ => {
            let verb = if args.dry_run { "would be submitted" } else { "submitted" };
            let mut text = format!("{} letters {verb}, {earlier} were before\n", submitted.len());
            submitted.iter().for_each(|letter| text.push_str(&Line::of(letter, None).to_text()));
            if !refused.is_empty() {
                text.push_str(&format!("{} letters not submitted\n", refused.len()));
                refused.iter().for_each(|line| text.push_str(&line.to_text()));
            }
            text
        }
    };
    print(out, &text)?;
    match refused.len() {
        0 => Ok(()),
        count => Err(Error::No(format!("{count} dead letters were not submitted"))),
    }
}

fn json(value: &serde_json::Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|e| Error::Internal(format!("cannot print JSON: {e}")))? + "\n")
}

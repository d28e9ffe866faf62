//! What is wrong in a settings file: where, and the nearest thing that would be right. All of it is said at once.

use std::path::Path;

use crate::Error;

/// More faults than this are counted, not printed: the first ones usually explain the rest.
const PRINTED_MAX: usize = 50;

/// One thing that a person has to change in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    /// From 1.
    line: usize,
    /// The key path, such as `pipelines.trades.commit.interval`; empty for the file as a whole.
    path: String,
    message: String,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    pub(super) fn add(&mut self, line: usize, path: &str, message: impl Into<String>) {
        self.found.push(Fault { line, path: path.to_owned(), message: message.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All faults as one error, in the order of the file, one per line: `firn.yaml:12: pipelines.trades: …`.
    pub(super) fn into_error(mut self, file: &Path) -> Error {
        self.found.sort();
        self.found.dedup();
        let more = self.found.len().saturating_sub(PRINTED_MAX);
        let mut lines: Vec<String> = self.found.iter().take(PRINTED_MAX).map(|fault| fault.print(file)).collect();
        if more > 0 {
            lines.push(format!("{}: and {more} more", file.display()));
        }
        Error::Config(lines.join("\n"))
    }
}

impl Fault {
    fn print(&self, file: &Path) -> String {
        let separator = if self.path.is_empty() { "" } else { ": " };
        let (file, Fault { line, path, message }) = (file.display(), self);
        format!("{file}:{line}: {}{separator}{message}", printable(path))
    }
}

/// Text from the file as it may be shown: control characters escaped (a terminal obeys them), long text cut.
pub(super) fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let mut shown: String = text.chars().take(CHARS_MAX).flat_map(escaped).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn escaped(c: char) -> Vec<char> {
    // Format characters (zero width, right to left) hide what a name really is.
    let hides = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if c.is_control() || hides { c.escape_unicode().collect() } else { vec![c] }
}

/// How to go on after `name` was not among `valid`: the nearest one when it is near, else all of them.
pub(super) fn suggestion<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    match nearest(name, &valid) {
        Some(near) => format!("did you mean '{near}'?"),
        None if valid.is_empty() => "there is none to choose from".to_owned(),
        None => format!("valid: {}", valid.join(", ")),
    }
}

/// The valid name that `name` most likely stands for, if any is near.
fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    let folded = fold(name);
    let (distance, near) = valid
        .iter()
        .map(|v| (strsim::damerau_levenshtein(&folded, &fold(v)), *v))
        .min_by_key(|(distance, _)| *distance)?;
    // Never the whole name: '4' is not a slip of the pen for '2'.
    let length = near.chars().count();
    let tolerated = length.div_ceil(3).min(length.saturating_sub(1));
    (distance <= tolerated).then_some(near)
}

/// Spelling habits of other systems: `orderBy`, `order-by` and `order.by` are `order_by`.
fn fold(name: &str) -> String {
    name.chars().take(100).filter(|c| !matches!(c, '_' | '-' | '.')).flat_map(char::to_lowercase).collect()
}

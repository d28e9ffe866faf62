//! The files of a Delta log: names, listing, reading, and the one way to add a version.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::actions::{self, Line};
use super::checkpoint;
use super::state::State;
use crate::error::{Error, Result};
use crate::files::Store;

/// Files of the log that are read at a time.
const READS: usize = 8;

/// A table's log.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub store: Store,
    /// The folder of the table, without a final slash.
    pub root: String,
}

/// What a listing of the log found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Versions with a commit, and when the file was written (milliseconds).
    pub commits: BTreeMap<i64, i64>,
    /// Complete checkpoints by version, each with its files.
    pub checkpoints: BTreeMap<i64, Checkpoint>,
    /// Whether the folder has anything at all.
    pub any: bool,
}

/// A checkpoint's files.
#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoint {
    /// Names in the log's folder.
    pub names: Vec<String>,
    /// When the newest of them was written (milliseconds).
    pub modified_ms: i64,
}

/// What a name in the log's folder is.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Commit(i64),
    /// A whole checkpoint in one file.
    Checkpoint(i64),
    /// One part of so many.
    Part(i64, u32),
}

fn named(name: &str) -> Option<Named> {
    let (version, rest) = name.split_at_checked(20)?;
    let version = version.parse().ok().filter(|_| version.bytes().all(|b| b.is_ascii_digit()))?;
    let parts: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    match parts[..] {
        ["json"] => Some(Named::Commit(version)),
        ["checkpoint", "parquet"] => Some(Named::Checkpoint(version)),
        ["checkpoint", uuid, "parquet" | "json"] if uuid.len() == 36 => Some(Named::Checkpoint(version)),
        ["checkpoint", _, of, "parquet"] => Some(Named::Part(version, of.parse().ok()?)),
        _ => None,
    }
}

impl Log {
    pub(super) fn location(&self, name: &str) -> String {
        format!("{}/_delta_log/{name}", self.root)
    }

    pub(super) fn commit_location(&self, version: i64) -> String {
        self.location(&format!("{version:020}.json"))
    }

    /// The files of the log. Names of other kinds (checksums, what a writer left behind) are passed over.
    pub(super) async fn list(&self) -> Result<Listing> {
        let mut found = Listing::default();
        let mut parts: BTreeMap<(i64, u32), Checkpoint> = BTreeMap::new();
        let folder = self.location("");
        let mut listing = self.store.list(folder.trim_end_matches('/'))?;
        while let Some(file) = listing.try_next().await? {
            found.any = true;
            let Some((folder, name)) = file.location.rsplit_once('/') else { continue };
            if !folder.ends_with("/_delta_log") {
                continue;
            }
            let into = match named(name) {
                Some(Named::Commit(version)) => {
                    found.commits.insert(version, file.modified_ms);
                    continue;
                }
                // Of several whole checkpoints of a version any one will do.
                Some(Named::Checkpoint(version)) => {
                    let of_version = found.checkpoints.entry(version).or_default();
                    of_version.names.clear();
                    of_version
                }
                Some(Named::Part(version, of)) => parts.entry((version, of)).or_default(),
                None => continue,
            };
            into.names.push(name.to_owned());
            into.modified_ms = into.modified_ms.max(file.modified_ms);
        }
        for ((version, of), checkpoint) in parts {
            if checkpoint.names.len() == of as usize {
                found.checkpoints.entry(version).or_insert(checkpoint);
            }
        }
        Ok(found)
    }

    /// The lines of a version; none where there is no such file.
    pub(super) async fn commit(&self, version: i64) -> Result<Option<Vec<Line>>> {
        let location = self.commit_location(version);
        match self.store.get_if_there(&location).await? {
            Some(text) => actions::parse(&location, &text).map(Some),
            None => Ok(None),
        }
    }

    /// Makes `text` a version, unless that version exists.
    pub(super) async fn create(&self, version: i64, text: Bytes) -> Result<bool> {
        self.store.create(&self.commit_location(version), text).await
    }

    /// The state at the newest version, or at `until`; none where there is no table.
    ///
    /// # Errors
    /// [`Error::Decision`] where the log has a gap, else as reading.
    pub(super) async fn load(&self, until: Option<i64>) -> Result<Option<State>> {
        let listing = self.list().await?;
        let wanted = until.unwrap_or(i64::MAX);
        let Some(newest) = listing.commits.keys().chain(listing.checkpoints.keys()).max().copied() else {
            return match listing.any {
                true => Err(self.damaged("it has no version that can be read; restore it")),
                false => Ok(None),
            };
        };
        let checkpoint = listing.checkpoints.range(..=wanted).next_back();
        let mut state = match checkpoint {
            Some((version, files)) => checkpoint::read(self, *version, &files.names).await?,
            None => State::empty(),
        };
        let end = newest.min(wanted);
        let versions = futures::stream::iter(state.version + 1..=end);
        let mut commits = versions
            .map(|version| async move { Ok::<_, Error>((version, self.commit(version).await?)) })
            .buffered(READS);
        while let Some((version, lines)) = commits.try_next().await? {
            let lines = lines.ok_or_else(|| self.damaged(&format!("version {version} is missing; restore it")))?;
            state.apply(&self.root, version, lines)?;
        }
        drop(commits);
        if until.is_none() {
            self.advance(&mut state).await?;
        }
        match until {
            Some(until) if state.version != until => {
                Err(Error::No(format!("it has no version {until}, or the log does not reach back that far")))
            }
            _ => {
                state.check_complete().map_err(|what| self.damaged(&what))?;
                Ok(Some(state))
            }
        }
    }

    /// Applies the versions that were added since; true where there were any.
    pub(super) async fn advance(&self, state: &mut State) -> Result<bool> {
        let before = state.version;
        while let Some(lines) = self.commit(state.version + 1).await? {
            state.apply(&self.root, state.version + 1, lines)?;
        }
        state.check_complete().map_err(|what| self.damaged(&what))?;
        Ok(state.version > before)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Decision(format!("the Delta log of {} is damaged: {what}", self.root))
    }
}

/// The location of a path in the log: percent-decoded, below `root` unless it is absolute.
pub(super) fn locate(root: &str, path: &str) -> String {
    let absolute = path.starts_with('/') || path.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme));
    let decoded = percent_decoded(path);
    if absolute { decoded } else { format!("{root}/{decoded}") }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn percent_decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| path.to_owned())
}

/// How the log spells the path of a file below `root`.
pub(super) fn relative(root: &str, location: &str) -> Option<String> {
    let below = location.strip_prefix(root)?.strip_prefix('/')?;
    let mut encoded = String::with_capacity(below.len());
    for byte in below.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            _ if b"-_.~/=!$&'()*+,;@".contains(&byte) => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_log_are_told_apart() {
        let at = "00000000000000000012";
        for (name, expected) in [
            (format!("{at}.json"), Some(Named::Commit(12))),
            (format!("{at}.checkpoint.parquet"), Some(Named::Checkpoint(12))),
            (format!("{at}.checkpoint.0000000001.0000000003.parquet"), Some(Named::Part(12, 3))),
            (format!("{at}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"), Some(Named::Checkpoint(12))),
            (format!("{at}.json#1"), None),
            (format!("{at}.crc"), None),
            (format!("{at}.80a083e8-7026-4e79-81be-64bd76c43a11.json"), None),
            ("_last_checkpoint".into(), None),
            ("0000000000000000001x.json".into(), None),
            ("\u{e9}".repeat(30), None),
        ] {
            assert_eq!(named(&name), expected, "{name}");
        }
    }

    #[test]
    fn paths_survive_the_way_into_the_log_and_back() {
        let root = "file:///w/t";
        for below in ["a.parquet", "v=a b/1.parquet", "v=a%2Fb/x#?.parquet", "v=\u{e9}\u{1F600}/x.parquet", "v=a+b/x"] {
            let location = format!("{root}/{below}");
            let path = relative(root, &location).unwrap();
            assert!(path.is_ascii() && !path.contains([' ', '#', '?']), "{path}");
            assert_eq!(locate(root, &path), location);
        }
        assert_eq!(locate(root, "file:///other/x%20y.parquet"), "file:///other/x y.parquet");
        assert_eq!(locate(root, "v=10:30/x.parquet"), "file:///w/t/v=10:30/x.parquet", "a colon makes no scheme");
    }
}

//! What the demo finds in its tables: the same SQL that `firn sql` runs.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;

use crate::commands::Output;
use crate::query::{self, Engine};
use crate::settings::{Settings, TableRef};
use crate::{Error, Result, service};

/// Instruments that everyone has heard of.
const SHOWN: [&str; 5] = ["AAPL", "AMZN", "GOOGL", "NVDA", "TSLA"];

/// The tables of the demo, to be asked.
pub(super) struct Answers {
    engine: Engine,
    /// `catalog.namespace.table`.
    name: String,
    /// The same as SQL spells it.
    table: String,
}

impl Answers {
    /// Opens the catalogs of the settings.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when a catalog does not answer.
    pub(super) async fn open(settings: &Settings, table: &TableRef) -> Result<Answers> {
        let parts = std::iter::once(&table.catalog).chain(&table.namespace).chain(std::iter::once(&table.name));
        let spelled = parts.map(|part| identifier(part)).collect::<Vec<_>>().join(".");
        Ok(Answers { engine: service::open_engine(settings).await?, name: table.to_string(), table: spelled })
    }

    /// Rows in the table, counted by reading it.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub(super) async fn rows(&self) -> Result<u64> {
        Ok(self.number(&format!("SELECT count(*) FROM {}", self.table)).await?.unwrap_or(0))
    }

    /// One number; none where it is null.
    async fn number(&self, sql: &str) -> Result<Option<u64>> {
        let answer = self.engine.query(sql).await?;
        let batches: Vec<_> = answer.stream.try_collect().await.map_err(query::query_error)?;
        let first = batches.iter().find(|batch| batch.num_rows() > 0);
        let column = first.and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
        let column = column.ok_or_else(|| Error::Internal(format!("no number answers {sql}")))?;
        Ok(column.is_valid(0).then(|| column.value(0)).and_then(|number| u64::try_from(number).ok()))
    }

    /// Prints the newest row of a few instruments, and the query that finds them.
    ///
    /// # Errors
    /// As [`query::print`].
    pub(super) async fn latest(&self, out: Output<'_>) -> Result<()> {
        let names = SHOWN.map(|name| format!("'{name}'")).join(", ");
        let sql = format!(
            "SELECT symbol, ts, event_type, bid, ask, price, qty, venue, id\n\
             FROM (SELECT *, row_number() OVER (PARTITION BY symbol ORDER BY ts DESC, id) AS n\n      \
             FROM {} WHERE symbol IN ({names}))\nWHERE n = 1 ORDER BY symbol",
            self.table
        );
        super::print(out, &format!("The latest row of a few instruments:\n\n{sql}\n\n"))?;
        let answer = self.engine.query(&sql).await?;
        query::print(answer, query::Format::Table, out).await?;
        super::print(out, "\n")
    }

    /// A key that is in the table, for `firn get`.
    async fn some_key(&self) -> Result<Option<u64>> {
        self.number(&format!("SELECT max(id) FROM {} WHERE symbol = 'AAPL'", self.table)).await
    }

    /// Prints what to try next, ready to be copied into a shell.
    ///
    /// # Errors
    /// As [`Engine::query`], and when the output cannot be written.
    pub(super) async fn next_commands(&self, config: &Path, live: bool, out: Output<'_>) -> Result<()> {
        let firn = program();
        let with = format!("-c {}", quoted(&config.display().to_string()));
        let by_venue = format!(
            "SELECT venue, count(*) AS rows, round(avg(ask - bid), 4) AS spread FROM {} GROUP BY venue ORDER BY venue",
            self.table
        );
        let mut commands = vec![format!("sql {with} {}", quoted(&by_venue)), format!("sql {with}")];
        if let Some(key) = self.some_key().await? {
            commands.push(format!("get {with} {} {key}", quoted(&self.name)));
        }
        commands.extend([format!("offsets show {with}"), format!("check {with}")]);
        let mut text = String::from(if live { "To try in another terminal:\n\n" } else { "To try next:\n\n" });
        commands.iter().for_each(|command| text.push_str(&format!("  {firn} {command}\n")));
        super::print(out, &text)
    }
}

/// How this program is called from here: by its name where the shell finds it, else by its path.
fn program() -> String {
    let Ok(exe) = std::env::current_exe() else { return "firn".into() };
    let same = |dir: std::path::PathBuf| {
        let found = exe.file_name().map(|name| dir.join(name)).and_then(|path| path.canonicalize().ok());
        found.is_some_and(|found| exe.canonicalize().is_ok_and(|exe| exe == found))
    };
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(same));
    let here = std::env::current_dir().ok();
    let path = match (on_path, here.and_then(|here| Some(exe.strip_prefix(here).ok()?.to_owned()))) {
        (true, _) => exe.file_name().map(Into::into).unwrap_or(exe),
        // A bare name would be looked for on the path.
        (false, Some(below)) if below.components().count() == 1 => Path::new(".").join(below),
        (false, Some(below)) => below,
        (false, None) => exe,
    };
    quoted(&path.display().to_string())
}

/// As SQL takes it for one name.
fn identifier(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) { name.to_owned() } else { format!("\"{name}\"") }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_the_shell() {
        let words: Vec<String> = ["./firn-demo/firn.yaml", "a b", "it's", "$HOME", ""].map(quoted).to_vec();
        assert_eq!(words, ["./firn-demo/firn.yaml", "'a b'", r"'it'\''s'", "'$HOME'", "''"]);
    }
}

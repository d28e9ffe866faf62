//! The prompt of `firn sql`: statements end with `;`, an error ends nothing.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::engine::Engine;
use super::output::{Format, print};
use super::statement::STATEMENT_BYTES_MAX;
use crate::{Error, Result};

/// Statements that are remembered between sessions.
const HISTORY_MAX: usize = 1000;

/// Answers statements until `\q` or the end of the input. Ctrl-C ends a running query, or drops a half-typed statement.
///
/// `history` is the file in which statements are remembered; where it cannot be written they are not.
///
/// # Errors
/// [`Error::Unreachable`] where the terminal cannot be read or the output cannot be written.
pub async fn prompt(engine: &Engine, format: Format, history: &Path, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut editor = DefaultEditor::new().map_err(|e| unreadable(&e))?;
    let mut kept = History::open(history);
    for statement in &kept.statements {
        let _ = editor.add_history_entry(statement);
    }
    say(out, "Statements end with a semicolon; \\q ends the session.\n")?;
    let mut statement = String::new();
    loop {
        let ask = if statement.is_empty() { "firn> " } else { "   -> " };
        // The editor blocks; it goes to a thread of its own and comes back with the line.
        let reading = tokio::task::spawn_blocking(move || {
            let line = editor.readline(ask);
            (editor, line)
        });
        let (returned, line) = reading.await.map_err(|e| Error::Internal(format!("reading a line failed: {e}")))?;
        editor = returned;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(unreadable(&e)),
        };
        match take_line(&mut statement, &line) {
            Step::More => {}
            Step::Quit => return Ok(()),
            Step::Run(sql) => {
                let _ = editor.add_history_entry(format!("{sql};"));
                kept.add(&sql);
                run(engine, &sql, format, out).await?;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Quit,
    Run(String),
}

/// Adds a line to the statement, which ends with a semicolon at the end of a line.
fn take_line(statement: &mut String, line: &str) -> Step {
    let trimmed = line.trim();
    if statement.is_empty() && (trimmed.is_empty() || trimmed == ";") {
        return Step::More;
    }
    if statement.is_empty() && matches!(trimmed, "\\q" | "quit" | "exit" | "quit;" | "exit;") {
        return Step::Quit;
    }
    if !statement.is_empty() {
        statement.push('\n');
    }
    statement.push_str(line);
    // Too long is refused by the engine; it must not grow without end here.
    if trimmed.ends_with(';') || statement.len() > STATEMENT_BYTES_MAX {
        let whole = std::mem::take(statement);
        let sql = whole.trim().trim_end_matches(';').trim_end();
        return if sql.is_empty() { Step::More } else { Step::Run(sql.to_owned()) };
    }
    Step::More
}

/// Runs one statement; its error is printed. Only a failing output ends the session.
async fn run(engine: &Engine, sql: &str, format: Format, out: &mut (dyn Write + Send)) -> Result<()> {
    let answering = async {
        let answer = engine.query(sql).await?;
        print(answer, format, &mut *out).await
    };
    let answered = tokio::select! {
        answered = answering => answered,
        _ = tokio::signal::ctrl_c() => Err(Error::No("cancelled".into())),
    };
    match answered {
        Ok(_) => Ok(()),
        Err(error) => say(out, &format!("error: {error}\n")),
    }
}

fn say(out: &mut (dyn Write + Send), text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Error::Unreachable(format!("cannot write the output: {e}")))
}

fn unreadable(error: &ReadlineError) -> Error {
    Error::Unreachable(format!("cannot read from the terminal: {error}"))
}

/// Statements of earlier sessions, one a line.
struct History {
    file: PathBuf,
    statements: Vec<String>,
}

impl History {
    fn open(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let all: Vec<String> = text.lines().map(str::to_owned).collect();
        let statements = all[all.len().saturating_sub(HISTORY_MAX)..].to_vec();
        if all.len() > 2 * HISTORY_MAX {
            let _ = std::fs::write(file, statements.join("\n") + "\n");
        }
        History { file: file.to_owned(), statements }
    }

    /// Remembering is a courtesy: a full disk does not end the session.
    fn add(&mut self, sql: &str) {
        let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(folder) = self.file.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .and_then(|mut file| writeln!(file, "{line};"));
        self.statements.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_at_the_end_of_a_line() {
        let mut statement = String::new();
        assert_eq!(take_line(&mut statement, ""), Step::More);
        assert_eq!(take_line(&mut statement, "select ';',"), Step::More);
        assert_eq!(take_line(&mut statement, "  1 ;  "), Step::Run("select ';',\n  1".into()));
        assert_eq!(take_line(&mut statement, ";"), Step::More);
        assert_eq!(take_line(&mut statement, "\\q"), Step::Quit);
        assert_eq!(statement, "");
    }

    #[test]
    fn history_is_kept_between_sessions_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/history");
        History::open(&file).add("select\n 1");
        assert_eq!(History::open(&file).statements, ["select 1;"]);
        std::fs::write(&file, "x;\n".repeat(3 * HISTORY_MAX)).unwrap();
        assert_eq!(History::open(&file).statements.len(), HISTORY_MAX);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), HISTORY_MAX);
    }
}

//! Names and places that end up in paths, SQL and URLs: checked here once, so that nothing below has to.

use std::path::{Component, Path, PathBuf};

use super::{PartitionField, SortField, SqlUri, TableRef, Transform};

/// Most file systems allow this many bytes for one component.
const PART_BYTES_MAX: usize = 200;

/// Checks a name chosen by the user for a catalog or a pipeline: it becomes part of SQL, of a consumer group and of a
/// path below `state_dir`.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') || !name.chars().all(plain)
    {
        return Err("a name has 1 to 64 letters, digits, '_' and '-', and does not begin with '-'".to_owned());
    }
    Ok(())
}

/// Splits `namespace.table` into parts that are safe as folder names on every storage.
pub(super) fn table_name(text: &str) -> Result<(Vec<String>, String), String> {
    let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    if parts.iter().any(String::is_empty) {
        return Err("has an empty part; a table is named namespace.table".to_owned());
    }
    // Letters and digits of any script, but nothing that a path, a URL or a terminal gives a meaning to.
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if let Some(bad) = text.chars().find(|c| *c != '.' && !safe(*c)) {
        let bad = super::fault::printable(&bad.to_string());
        return Err(format!("contains '{bad}'; the parts of a table name have letters, digits, '_' and '-'"));
    }
    if parts.iter().any(|part| part.len() > PART_BYTES_MAX) {
        return Err(format!("has a part of more than {PART_BYTES_MAX} bytes"));
    }
    match parts.pop() {
        Some(name) if !parts.is_empty() => Ok((parts, name)),
        _ => Err("names no namespace; a table is named namespace.table".to_owned()),
    }
}

/// Splits `catalog.namespace.table`.
pub(super) fn table_ref(text: &str) -> Result<TableRef, String> {
    let Some((catalog, rest)) = text.split_once('.') else {
        return Err("a table is named catalog.namespace.table".to_owned());
    };
    check_name(catalog)?;
    let (namespace, name) = table_name(rest).map_err(|_| "a table is named catalog.namespace.table".to_owned())?;
    Ok(TableRef { catalog: catalog.to_owned(), namespace, name })
}

/// Checks a Kafka topic name by the broker's own rule.
pub(crate) fn check_topic(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || matches!(name, "." | "..") || !name.chars().all(legal) {
        return Err("is no topic name: 1 to 249 letters, digits, '.', '_' and '-'; a regex begins with '^'".to_owned());
    }
    Ok(())
}

/// Checks `host:port,…` as librdkafka reads it.
pub(super) fn check_brokers(text: &str) -> Result<(), String> {
    for broker in text.split(',').map(str::trim) {
        if broker.contains("://") {
            return Err("write host:port; the protocol goes into kafka.properties as security.protocol".to_owned());
        }
        let (host, port) = match broker.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
            _ => (broker, "9092"),
        };
        if host.is_empty() || host.contains(char::is_whitespace) || !matches!(port.parse::<u16>(), Ok(1..)) {
            return Err("is no list of brokers; write host:port, several separated by commas".to_owned());
        }
    }
    Ok(())
}

/// Checks an http(s) address. Credentials do not belong in it: addresses are logged.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|e| format!("is no URL ({e}); write http://host:port or https://host"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is not an http or https URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no user, password, query or fragment; credentials have keys of their own".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Reads the uri of an `iceberg-sql` catalog. The message never shows it: it may hold a password.
pub(super) fn sql_uri(text: &str, base_dir: &Path) -> Result<SqlUri, String> {
    const FORMS: &str = "write sqlite:PATH, sqlite:///ABSOLUTE/PATH or postgres://user:password@host:port/database";
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return Err(format!("has two slashes after sqlite:; {FORMS}")),
            None => path,
        };
        if path.is_empty() || path.starts_with(':') || path.contains(['?', '#', '%']) {
            return Err(format!("names no plain file; {FORMS}"));
        }
        return Ok(SqlUri::Sqlite(absolute(path, base_dir)));
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return match url::Url::parse(text) {
            Ok(url) if url.host().is_some() => Ok(SqlUri::Postgres(text.into())),
            Ok(_) => Err(format!("names no host; {FORMS}")),
            Err(error) => Err(format!("is no URL ({error}); {FORMS}")),
        };
    }
    Err(format!("is neither SQLite nor PostgreSQL; {FORMS}"))
}

/// Reads a warehouse: on the local disk as `file:///ABSOLUTE/PATH`, the spelling that every engine understands, and in an
/// object store as its address without a final slash.
pub(super) fn warehouse(text: &str, base_dir: &Path) -> Result<String, String> {
    let path = match text.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err("a file warehouse on another host; write file:///ABSOLUTE/PATH".to_owned()),
            None => rest,
        },
        _ if is_object_store(text) => {
            return bucket(text);
        }
        Some((_, rest)) if rest.starts_with("//") => {
            return Err(
                "is of an unknown kind; write a folder, file:///ABSOLUTE/PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX \
                        or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"
                    .to_owned(),
            );
        }
        _ => text,
    };
    let path = absolute(path, base_dir);
    let Some(path) = path.to_str() else { return Err("is below a folder whose name is not UTF-8".to_owned()) };
    // Locations are compared and parsed by engines that disagree about escapes.
    check_path(path)?;
    if path == "/" {
        return Err("is the root of the file system; use a folder".to_owned());
    }
    Ok(format!("file://{path}"))
}

fn check_path(path: &str) -> Result<(), String> {
    match path.chars().find(|c| matches!(c, '%' | '?' | '#' | '*') || c.is_control()) {
        Some(bad) => Err(format!("{path:?} contains {bad:?}, which engines read differently; use another folder")),
        None => Ok(()),
    }
}

/// Whether `text` is a place in an object store.
fn is_object_store(text: &str) -> bool {
    ["s3://", "s3a://", "gs://", "abfs://", "abfss://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Reads a place in an object store.
fn bucket(text: &str) -> Result<String, String> {
    // One spelling for new tables: the one that every engine takes.
    let text = text.strip_prefix("s3a://").map_or(text.to_owned(), |rest| format!("s3://{rest}"));
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let trimmed = rest.trim_end_matches('/');
    let (authority, path) = trimmed.split_once('/').unwrap_or((trimmed, ""));
    let bucket = match authority.split_once('@') {
        Some((container, host)) if scheme.starts_with("abfs") && host.contains('.') => container,
        _ if scheme.starts_with("abfs") => {
            return Err(format!("names no account; write {scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"));
        }
        _ => authority,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) || !bucket.chars().all(plain) {
        return Err(format!("names no bucket; write {scheme}://BUCKET/PREFIX"));
    }
    check_path(path)?;
    if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty part, '.' or '..' in its path, which object stores take literally".to_owned());
    }
    Ok(format!("{scheme}://{trimmed}"))
}

/// `path` below `base_dir` when relative, without `.` and `..` (by text: the folder need not exist yet).
pub(super) fn absolute(path: &str, base_dir: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in base_dir.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Reads a partition field: `column`, `day(column)`, `bucket(16, column)`.
pub(super) fn partition_field(text: &str) -> Result<PartitionField, String> {
    const NAMES: [&str; 7] = ["identity", "bucket", "truncate", "year", "month", "day", "hour"];
    let text = text.trim();
    let Some((name, rest)) = text.split_once('(') else {
        return Ok(PartitionField { transform: Transform::Identity, column: column(text)? });
    };
    let Some(inner) = rest.strip_suffix(')') else { return Err("has no closing ')'".to_owned()) };
    let arguments: Vec<&str> = inner.split(',').map(str::trim).collect();
    let name = name.trim().to_ascii_lowercase();
    let (transform, source) = match (name.as_str(), arguments.as_slice()) {
        ("identity", [source]) => (Transform::Identity, source),
        ("year" | "years", [source]) => (Transform::Year, source),
        ("month" | "months", [source]) => (Transform::Month, source),
        ("day" | "days", [source]) => (Transform::Day, source),
        ("hour" | "hours", [source]) => (Transform::Hour, source),
        ("bucket", [count, source]) => (Transform::Bucket(width(count, "bucket(16, column)")?), source),
        ("truncate", [count, source]) => (Transform::Truncate(width(count, "truncate(4, column)")?), source),
        ("bucket" | "truncate", _) => return Err(format!("wants two arguments: {name}(16, column)")),
        (known, _) if NAMES.contains(&known) => return Err(format!("wants one argument: {name}(column)")),
        _ => return Err(format!("is no known transform; {}", super::fault::suggestion(&name, NAMES))),
    };
    Ok(PartitionField { transform, column: column(source)? })
}

/// The number of a bucket or truncate transform; Iceberg keeps it in 32 signed bits.
fn width(text: &str, example: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number @ 1..=0x7fff_ffff) => Ok(number),
        _ => Err(format!("wants a number from 1 to 2147483647 first: {example}")),
    }
}

/// Reads a sort field: `column`, `column desc`, `column asc nulls last`. As in Iceberg, nulls go first when ascending and
/// last when descending, unless said otherwise.
pub(super) fn sort_field(text: &str) -> Result<SortField, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let lower: Vec<String> = words.iter().skip(1).map(|word| word.to_ascii_lowercase()).collect();
    let mut rest: Vec<&str> = lower.iter().map(String::as_str).collect();
    let descending = match rest.first() {
        Some(&("asc" | "desc")) => rest.remove(0) == "desc",
        _ => false,
    };
    let nulls_first = match rest.as_slice() {
        [] => !descending,
        ["nulls", "first"] => true,
        ["nulls", "last"] => false,
        _ => return Err("is no sort field; write `column`, `column desc` or `column desc nulls first`".to_owned()),
    };
    Ok(SortField { column: column(words.first().unwrap_or(&""))?, descending, nulls_first })
}

/// Checks the name of a top-level column. Names come from Avro, so Avro's rule holds.
pub(super) fn column(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(letter) || !text.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Err("is no column name: letters, digits and '_', not beginning with a digit".to_owned());
    }
    Ok(text.to_owned())
}

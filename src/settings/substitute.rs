//! `${VAR}` and `${VAR:-default}` in scalars. It happens after parsing, so a value can never add keys to the file.

use super::fault::{Faults, printable};
use super::yaml::{Node, Scalar, Value};

/// Fills in the text of every scalar below `node`, which stands at the key path `path`.
pub(super) fn substitute(node: &mut Node, path: &str, env: &dyn Fn(&str) -> Option<String>, faults: &mut Faults) {
    let line = node.line;
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => fill(scalar, line, path, env, faults),
        Value::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{path}[{i}]"), env, faults);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                substitute(&mut entry.node, &below(path, &entry.key), env, faults);
            }
        }
    }
}

/// The key path of `key` below `path`.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn fill(scalar: &mut Scalar, line: usize, path: &str, env: &dyn Fn(&str) -> Option<String>, faults: &mut Faults) {
    match expand(&scalar.raw, env) {
        Ok(text) => scalar.text = Some(text),
        Err(messages) => messages.into_iter().for_each(|message| faults.add(line, path, message)),
    }
}

/// Returns `raw` with variables replaced, or everything that is wrong with it. `$${` stands for a literal `${`.
/// As in a shell, `:-` gives the default for a variable that is missing or empty.
fn expand(raw: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    let (mut text, mut wrong, mut rest) = (String::new(), Vec::new(), raw);
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            text.push_str(before);
            text.push_str("${");
            rest = after;
            continue;
        }
        text.push_str(before);
        let Some(end) = after.find('}') else {
            wrong.push("'${' without a '}'; write '$${' for a literal '${'".to_owned());
            rest = "";
            break;
        };
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        match lookup(name, default, env) {
            Ok(value) => text.push_str(&value),
            Err(message) => wrong.push(message),
        }
        rest = &after[end + 1..];
    }
    text.push_str(rest);
    if wrong.is_empty() { Ok(text) } else { Err(wrong) }
}

fn lookup(name: &str, default: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        let shown = printable(name);
        return Err(format!("'{shown}' is no variable name; write ${{VAR}} or ${{VAR:-default}}"));
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the variable {name} is not set; set it, or write ${{{name}:-default}}")),
    }
}

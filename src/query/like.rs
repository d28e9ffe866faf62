//! `LIKE` as Trino has it: nothing escapes unless `ESCAPE` says so. The engine's own always takes the backslash, so
//! patterns are spelled anew before they are planned.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};

use crate::{Error, Result};

/// Puts a pattern, and the character that escapes in it, into the engine's spelling.
///
/// # Errors
/// [`Error::Config`] where the escape is not one character, stands before a character that needs none, or belongs to a
/// pattern that is not a literal.
pub(super) fn respell(pattern: &mut Expr, escape: &mut Option<Value>) -> Result<()> {
    let escape = match escape.take() {
        None => None,
        Some(Value::SingleQuotedString(text)) if text.chars().count() == 1 => text.chars().next(),
        Some(other) => return Err(Error::Config(format!("LIKE … ESCAPE takes one character in quotes, not {other}"))),
    };
    let text = match pattern {
        Expr::Value(value) => match &mut value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    match (text, escape) {
        (Some(text), escape) => *text = respelled(text, escape)?,
        (None, None) => *pattern = doubled(std::mem::replace(pattern, Expr::value(Value::Null))),
        (None, Some(_)) => {
            return Err(Error::Config(format!("LIKE {pattern} ESCAPE …: with ESCAPE the pattern has to be a literal")));
        }
    }
    Ok(())
}

fn respelled(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut plain = String::with_capacity(pattern.len() + 2);
    let mut chars = pattern.chars();
    while let Some(next) = chars.next() {
        let escaped = escape == Some(next);
        let character = match chars.as_str().chars().next() {
            _ if !escaped => next,
            Some(meant) if matches!(meant, '%' | '_') || escape == Some(meant) => {
                chars.next();
                meant
            }
            _ => {
                let text = format!("LIKE '{pattern}': the escape character {next} has to stand before %, _ or itself");
                return Err(Error::Config(text));
            }
        };
        if character == '\\' || (escaped && matches!(character, '%' | '_')) {
            plain.push('\\');
        }
        plain.push(character);
    }
    Ok(plain)
}

/// `replace(pattern, '\', '\\')`
fn doubled(pattern: Expr) -> Expr {
    let text = |text: &str| Expr::value(Value::SingleQuotedString(text.into()));
    let args = [pattern, text("\\"), text("\\\\")].map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("replace")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.to_vec(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::respelled;

    #[test]
    fn nothing_escapes_unless_the_query_says_so() {
        assert_eq!(respelled(r"a\_b%", None).unwrap(), r"a\\_b%");
        assert_eq!(respelled(r"a\_b%", Some('\\')).unwrap(), r"a\_b%");
        assert_eq!(respelled("a#_b##%#%", Some('#')).unwrap(), r"a\_b#%\%");
        assert_eq!(respelled(r"\#%", Some('#')).unwrap(), r"\\\%");
        assert_eq!(respelled("_%_%", Some('_')).unwrap(), r"\%\%");
    }

    #[test]
    fn an_escape_that_escapes_nothing_is_an_error() {
        for (pattern, escape) in [("a#b", '#'), ("a#", '#'), (r"\", '\\')] {
            assert!(respelled(pattern, Some(escape)).is_err(), "{pattern}");
        }
    }
}

//! Which statements are answered: one that only reads, of bounded size and depth. `FOR VERSION AS OF` and names of more
//! than three parts are rewritten here into what the planner understands.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

use super::like;
use crate::{Error, Result};

/// Longer statements are refused unread.
pub(super) const STATEMENT_BYTES_MAX: usize = 256 << 10;
/// Operators in a statement: each may add a level to a tree that is walked, and dropped, by recursion.
const OPERATORS_MAX: usize = 8000;
/// Joins and set operations in a statement: each adds a level to the plan.
const RELATIONS_MAX: usize = 128;
/// Levels of an expression. Workers evaluate these by recursion on small stacks.
const DEPTH_MAX: usize = 256;
/// Between a table's name and the snapshot of it that is meant.
const VERSION_MARK: &str = "\u{1}v";

/// Reads one statement.
///
/// # Errors
/// [`Error::Config`] for anything that is not exactly one statement that reads.
pub(super) fn parse(sql: &str) -> Result<DFStatement> {
    if sql.len() > STATEMENT_BYTES_MAX {
        let text = format!("the statement has {} bytes; the limit is {STATEMENT_BYTES_MAX}", sql.len());
        return Err(Error::Config(text));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let tokens = tokens.map_err(|e| Error::Config(format!("cannot read the statement: {e}")))?;
    check_tokens(&tokens)?;
    let built = DFParserBuilder::new(pin_versions(tokens)?).with_dialect(&GenericDialect {}).build();
    let parsed = built.and_then(|mut parser| parser.parse_statements());
    let mut parsed =
        parsed.map_err(|e| Error::Config(format!("cannot read the statement: {}", e.strip_backtrace())))?;
    let (Some(mut statement), None) = (parsed.pop_front(), parsed.pop_front()) else {
        return Err(Error::Config("write exactly one statement".into()));
    };
    check(&mut statement)?;
    Ok(statement)
}

/// The table's name and the snapshot that [`parse`] found behind it.
pub(super) fn split_version(name: &str) -> (&str, Option<i64>) {
    match name.split_once(VERSION_MARK) {
        Some((name, version)) => (name, version.parse().ok()),
        None => (name, None),
    }
}

fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut operators, mut relations) = (0, 0);
    for token in tokens {
        match &token.token {
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN | Keyword::MINUS => {
                    relations += 1
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::IN
                | Keyword::XOR
                | Keyword::BETWEEN
                | Keyword::AT
                | Keyword::COLLATE
                | Keyword::ILIKE
                | Keyword::SIMILAR => operators += 1,
                _ => {}
            },
            Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::EOF => {}
            // Strings do not nest, and neither do the ends of what does.
            Token::SingleQuotedString(_) | Token::RParen | Token::RBracket | Token::RBrace | Token::SemiColon => {}
            _ => operators += 1,
        }
    }
    for (what, count, max) in [("operators", operators, OPERATORS_MAX), ("joins and unions", relations, RELATIONS_MAX)]
    {
        if count > max {
            return Err(Error::Config(format!("the statement has {count} {what}; the limit is {max}")));
        }
    }
    Ok(())
}

/// `name FOR VERSION AS OF 1` becomes a name that carries the snapshot.
fn pin_versions(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let words: Vec<usize> = (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let keyword = |at: usize, wanted: Keyword| {
        words.get(at).is_some_and(
            |i| matches!(&tokens[*i].token, Token::Word(w) if w.keyword == wanted && w.quote_style.is_none()),
        )
    };
    let clause = [Keyword::FOR, Keyword::VERSION, Keyword::AS, Keyword::OF];
    let mut pins = Vec::new();
    for at in 1..words.len() {
        if clause.iter().enumerate().all(|(i, k)| keyword(at + i, *k)) {
            let version = words.get(at + 4).map(|i| &tokens[*i].token);
            let Some(Token::Number(version, _)) = version else {
                return Err(Error::Config("write the number of a snapshot after FOR VERSION AS OF".into()));
            };
            if version.parse::<i64>().is_err() {
                return Err(Error::Config(format!("{version} is not the number of a snapshot")));
            }
            pins.push((words[at - 1], words[at], words[at + 4], version.clone()));
        }
    }
    let mut tokens = tokens;
    for (name, from, to, version) in pins.into_iter().rev() {
        let Token::Word(word) = &mut tokens[name].token else {
            return Err(Error::Config("FOR VERSION AS OF has to follow a table's name".into()));
        };
        let plain = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() };
        *word = Word {
            value: format!("{plain}{VERSION_MARK}{version}"),
            quote_style: Some('"'),
            keyword: Keyword::NoKeyword,
        };
        tokens.drain(from..=to);
    }
    Ok(tokens)
}

fn refused(what: &str) -> Error {
    Error::Config(format!("{what} is refused: queries only read (SELECT, WITH, VALUES, EXPLAIN, SHOW, DESCRIBE)"))
}

fn check(statement: &mut DFStatement) -> Result<()> {
    let inner = match statement {
        DFStatement::Statement(inner) => inner.as_mut(),
        DFStatement::Explain(explain) => {
            return match explain.statement.as_ref() {
                DFStatement::Explain(_) => Err(refused("EXPLAIN of EXPLAIN")),
                _ => check(&mut explain.statement),
            };
        }
        DFStatement::CopyTo(_) => return Err(refused("COPY")),
        DFStatement::CreateExternalTable(_) => return Err(refused("CREATE EXTERNAL TABLE")),
        _ => return Err(refused("this statement")),
    };
    match inner {
        Statement::Query(_)
        | Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. } => {}
        other => {
            let text = other.to_string();
            return Err(refused(text.split_whitespace().next().unwrap_or("this statement")));
        }
    }
    let mut walk = Walk::default();
    match inner.visit(&mut walk) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Walk {
    depth: usize,
    statements: usize,
}

impl VisitorMut for Walk {
    type Break = Error;

    fn pre_visit_statement(&mut self, _statement: &mut Statement) -> ControlFlow<Error> {
        self.statements += 1;
        if self.statements > 1 {
            ControlFlow::Break(refused("a statement within a query"))
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(refused("FOR UPDATE"));
        }
        // Set operations are as deep as their keywords are many, which is bounded.
        let mut bodies = vec![query.body.as_ref()];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::SetOperation { left, right, .. } => bodies.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Select(select) if select.into.is_some() => return ControlFlow::Break(refused("SELECT INTO")),
                SetExpr::Select(select) if select.from.len() > RELATIONS_MAX => {
                    return ControlFlow::Break(Error::Config(format!("more than {RELATIONS_MAX} tables in one FROM")));
                }
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
                _ => return ControlFlow::Break(refused("a statement that changes data")),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.depth += 1;
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expr
            && let Err(error) = like::respell(pattern, escape_char)
        {
            return ControlFlow::Break(error);
        }
        // Chains are flat here; the planner makes a level of each link.
        let links = match expr {
            Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
            Expr::CompoundIdentifier(parts) => parts.len(),
            _ => 0,
        };
        if self.depth + links > DEPTH_MAX {
            return ControlFlow::Break(Error::Config(format!(
                "an expression is nested more than {DEPTH_MAX} levels deep: use IN (…) or a join in place of long chains"
            )));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table { name, alias, .. } = factor
            && let Some(ObjectNamePart::Identifier(last)) = name.0.last()
            && let (plain, Some(_)) = split_version(&last.value)
        {
            // Its columns are still `table.column`.
            let plain = Ident::with_quote('"', plain);
            alias.get_or_insert(TableAlias { explicit: true, name: plain, columns: Vec::new() });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Error> {
        if relation.0.len() > 3 {
            let parts: Vec<Ident> = relation.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
            if let [catalog, namespace @ .., table] = parts.as_slice() {
                let plain = |i: &Ident| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() };
                let namespace: Vec<String> = namespace.iter().map(plain).collect();
                let namespace = Ident::with_quote('"', namespace.join("."));
                relation.0 = [catalog.clone(), namespace, table.clone()].map(ObjectNamePart::Identifier).to_vec();
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;

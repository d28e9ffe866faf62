//! How a table's columns differ from those that a schema asks for, and which differences a table can follow.

use super::{Field, TableSchema, Type};

/// One difference between a table and what a schema asks of it. Paths are dotted: `order.price`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The table lacks it, and gets it as an optional one.
    Add { path: String, kind: Type },
    /// The table's type becomes wider.
    Widen { path: String, from: Type, to: Type },
    /// The table's is required, and becomes optional.
    Relax { path: String },
    /// The table cannot follow.
    Cannot { path: String, why: String },
}

/// What would happen to `table` so that it holds rows of `wanted` too, in the order of the table's columns. What only the
/// table has stays and is no difference.
#[must_use]
pub fn compare(table: &TableSchema, wanted: &TableSchema) -> Vec<Difference> {
    let mut found = Vec::new();
    fields(&table.fields, &wanted.fields, "", &mut found);
    for difference in &mut found {
        if let Difference::Relax { path } = difference
            && table.key.contains(path)
        {
            let why = "it is a key column, and would have nulls".to_owned();
            *difference = Difference::Cannot { path: path.clone(), why };
        }
    }
    found
}

fn fields(table: &[Field], wanted: &[Field], within: &str, found: &mut Vec<Difference>) {
    for old in table {
        if let Some(new) = wanted.iter().find(|w| w.name == old.name) {
            field(old, new, within, found);
        }
    }
    for new in wanted.iter().filter(|w| table.iter().all(|t| t.name != w.name)) {
        found.push(Difference::Add { path: path(within, &new.name), kind: new.kind.clone() });
    }
}

fn field(old: &Field, new: &Field, within: &str, found: &mut Vec<Difference>) {
    let path = path(within, &old.name);
    match (&old.kind, &new.kind) {
        (Type::Struct(a), Type::Struct(b)) => fields(a, b, &path, found),
        (Type::List(a), Type::List(b)) => field(a, b, &path, found),
        (Type::Map(ka, va), Type::Map(kb, vb)) => {
            if !same_type(&ka.kind, &kb.kind) {
                let why = format!("the map's keys are {} and cannot become {}", ka.kind, kb.kind);
                found.push(Difference::Cannot { path: path.clone(), why });
            }
            field(va, vb, &path, found);
        }
        (a, b) => match widen(a, b) {
            Some(to) if to != *a => found.push(Difference::Widen { path: path.clone(), from: a.clone(), to }),
            Some(_) => {}
            None => {
                let why = format!("it is {a} in the table and cannot become {b}");
                found.push(Difference::Cannot { path: path.clone(), why });
            }
        },
    }
    if old.required && !new.required {
        found.push(Difference::Relax { path });
    }
}

fn path(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

/// The type that holds values of both, if tables allow to promote the table's type to it.
#[must_use]
pub fn widen(table: &Type, wanted: &Type) -> Option<Type> {
    match (table, wanted) {
        (Type::Int, Type::Long) => Some(Type::Long),
        (Type::Float, Type::Double) => Some(Type::Double),
        // The table is wider already: narrower values fit as they are.
        (Type::Long, Type::Int) | (Type::Double, Type::Float) => Some(table.clone()),
        (Type::Decimal { precision: p, scale: s }, Type::Decimal { precision: q, scale: t }) if s == t => {
            Some(Type::Decimal { precision: *p.max(q), scale: *s })
        }
        (a, b) if a == b => Some(a.clone()),
        _ => None,
    }
}

/// Whether two types are equal but for ids and for what may be null.
#[must_use]
pub fn same_type(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Struct(x), Type::Struct(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(f, g)| f.name == g.name && same_type(&f.kind, &g.kind))
        }
        (Type::List(x), Type::List(y)) => same_type(&x.kind, &y.kind),
        (Type::Map(k, v), Type::Map(l, w)) => same_type(&k.kind, &l.kind) && same_type(&v.kind, &w.kind),
        (a, b) => a == b,
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Add { path, kind } => write!(f, "adds column {path} ({kind})"),
            Difference::Widen { path, from, to } => write!(f, "widens column {path} from {from} to {to}"),
            Difference::Relax { path } => write!(f, "lets column {path} be null"),
            Difference::Cannot { path, why } => write!(f, "column {path}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: Vec<Field>) -> TableSchema {
        TableSchema { fields, key: vec!["id".into()] }
    }

    fn check(wanted: Vec<Field>, expected: &[&str]) {
        let inner = vec![Field::new("a", Type::Int, false)];
        let table = schema(vec![
            Field::new("id", Type::Long, true),
            Field::new("price", Type::Decimal { precision: 10, scale: 2 }, true),
            Field::new("s", Type::Struct(inner), false),
        ]);
        let found: Vec<String> = compare(&table, &schema(wanted)).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_kind_of_difference_is_told_with_its_path() {
        check(vec![Field::new("id", Type::Int, true)], &[]);
        check(vec![Field::new("id", Type::Long, false)], &["column id: it is a key column, and would have nulls"]);
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        check(
            vec![Field::new("price", decimal(12, 2), false), Field::new("venue", Type::String, true)],
            &[
                "widens column price from decimal(10, 2) to decimal(12, 2)",
                "lets column price be null",
                "adds column venue (string)",
            ],
        );
        check(
            vec![Field::new("price", decimal(10, 3), true)],
            &["column price: it is decimal(10, 2) in the table and cannot become decimal(10, 3)"],
        );
        let inner = vec![Field::new("a", Type::Long, false), Field::new("b", Type::Date, false)];
        check(
            vec![Field::new("s", Type::Struct(inner), false)],
            &["widens column s.a from int to long", "adds column s.b (date)"],
        );
    }
}

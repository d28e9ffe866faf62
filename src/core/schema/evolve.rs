//! How a table's columns change so that they hold the rows of a schema too, and what no table can follow.

use std::collections::BTreeMap;

use super::constant::{forget, have_defaults};
use super::names::{Named, matches};
use super::promote::{Fit, TableFormat, fit, same_type};
use super::size::{GROWN_ROW_BYTES_MAX, memory_of, row_bytes};
use super::union::branches_of;
use super::{Constant, Field, TableSchema, Type};

/// One difference between a table and what a schema asks of it. Paths are dotted: `order.price`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The table lacks it, and gets it as an optional one.
    Add {
        /// Where.
        path: String,
        /// The type of the new column.
        kind: Type,
        /// What it is in the rows that are there, and in those of events that do not have it; none: null.
        default: Option<Constant>,
    },
    /// The table's type becomes wider.
    Widen {
        /// Where.
        path: String,
        /// The table's type.
        from: Type,
        /// What it becomes.
        to: Type,
    },
    /// The column is the same one under a new name.
    Rename {
        /// Where, by the table's name.
        path: String,
        /// The new name.
        to: String,
    },
    /// The table's is required, and becomes optional.
    Relax {
        /// Where.
        path: String,
    },
    /// The table cannot follow.
    Cannot {
        /// Where; empty where the schema as a whole is meant.
        path: String,
        /// The table's type, and the one that the schema asks for, where types are the matter.
        types: Option<(Type, Type)>,
        /// The reason.
        why: String,
    },
}

/// What becomes of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evolution {
    /// In the order of the table's columns.
    pub changes: Vec<Difference>,
    /// The table's columns with every change made that is possible. New columns are numbered.
    pub schema: TableSchema,
    /// The highest id that was given out so far.
    pub last_id: i32,
}

impl Difference {
    /// That a schema as a whole cannot be followed.
    #[must_use]
    pub fn no_way(why: String) -> Difference {
        Difference::Cannot { path: String::new(), types: None, why }
    }

    /// Whether the table cannot follow.
    #[must_use]
    pub fn is_obstacle(&self) -> bool {
        matches!(self, Difference::Cannot { .. })
    }
}

impl Evolution {
    /// The first difference that the table cannot follow.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Difference> {
        self.changes.iter().find(|change| change.is_obstacle())
    }
}

/// What happens to `table` so that it holds rows of `wanted` too. What only the table has stays; events leave it null. New
/// columns get ids above `last_id`. `formats` are those of all tables that take the same rows: what one of them cannot do,
/// none does.
#[must_use]
pub fn evolve(table: &TableSchema, wanted: &TableSchema, formats: &[TableFormat], last_id: i32) -> Evolution {
    let mut growth = Growth { formats, next: last_id, changes: Vec::new() };
    let mut fields = growth.fields(&table.fields, &wanted.fields, "");
    let (mut changes, last_id) = (growth.changes, growth.next);
    for name in &table.key {
        keep_key(name, table, wanted, &mut fields, &mut changes);
    }
    changes.extend(too_wide(&table.fields, &fields, &changes));
    Evolution { changes, schema: TableSchema { fields, key: table.key.clone() }, last_id }
}

/// A key column keeps its name and its type, and is never null: with another one, events and tombstones under way would
/// mean other rows.
fn keep_key(
    name: &String,
    table: &TableSchema,
    wanted: &TableSchema,
    fields: &mut [Field],
    changes: &mut [Difference],
) {
    let Some(column) = table.column(name) else { return };
    let path = || name.clone();
    for change in changes.iter_mut() {
        *change = match &*change {
            Difference::Widen { path: at, from, to } if at == name => {
                let why = "it is a key column, and key columns keep their type".to_owned();
                Difference::Cannot { path: path(), types: Some((from.clone(), to.clone())), why }
            }
            Difference::Rename { path: at, to } if at == name => {
                let why = format!("it is a key column and cannot be renamed to {to} by an alias");
                Difference::Cannot { path: path(), types: None, why }
            }
            Difference::Relax { path: at } if at == name => {
                let gone = wanted.column(name).is_none();
                let why = if gone {
                    "it is a key column, and the schema does not have it"
                } else {
                    "it is a key column, and would have nulls"
                };
                Difference::Cannot { path: path(), types: None, why: why.to_owned() }
            }
            _ => continue,
        };
    }
    // The place of a column does not change.
    let place = table.fields.iter().position(|f| f.name == *name);
    if let Some(kept) = place.and_then(|at| fields.get_mut(at)) {
        *kept = column.clone();
    }
}

/// What is in the way where the changes make rows too wide to be gathered: a table that has grown so could not be written
/// any more. One that is as wide already gets no wider.
fn too_wide(before: &[Field], after: &[Field], changes: &[Difference]) -> Option<Difference> {
    let (had, has) = (row_bytes(before), row_bytes(after));
    if has <= GROWN_ROW_BYTES_MAX || has <= had {
        return None;
    }
    let grows = changes.iter().filter_map(|change| match change {
        Difference::Add { path, kind, .. } | Difference::Widen { path, to: kind, .. } => Some((memory_of(kind), path)),
        _ => None,
    });
    let (_, path) = grows.max_by_key(|(bytes, _)| *bytes)?;
    let why = format!(
        "with it a row of the table takes {has} bytes even where all is null, and {GROWN_ROW_BYTES_MAX} are possible: use \
         bytes instead of wide fixed types, or read the topic into a new table"
    );
    Some(Difference::Cannot { path: path.clone(), types: None, why })
}

struct Growth<'a> {
    formats: &'a [TableFormat],
    /// The highest id so far.
    next: i32,
    changes: Vec<Difference>,
}

impl Growth<'_> {
    fn fields(&mut self, table: &[Field], wanted: &[Field], within: &str) -> Vec<Field> {
        let places = matches(&named(table), &named(wanted));
        let mut found: Vec<Option<usize>> = vec![None; table.len()];
        for (new, place) in places.iter().enumerate() {
            if let Some(slot) = place.and_then(|at| found.get_mut(at)) {
                *slot = Some(new);
            }
        }
        let mut grown = Vec::with_capacity(table.len().max(wanted.len()));
        for (old, new) in table.iter().zip(found) {
            grown.push(match new.and_then(|new| wanted.get(new)) {
                Some(new) => self.field(old, new, within),
                None => self.unmentioned(old, within),
            });
        }
        let mut taken: BTreeMap<String, String> = grown.iter().map(|f| (folded(&f.name), f.name.clone())).collect();
        for (new, _) in wanted.iter().zip(places).filter(|(_, place)| place.is_none()) {
            match taken.insert(folded(&new.name), new.name.clone()) {
                Some(near) => self.clash(new, &near, within),
                None => grown.push(self.added(new, within)),
            }
        }
        grown
    }

    fn clash(&mut self, new: &Field, near: &str, within: &str) {
        let why =
            format!("it differs from column {near} only in upper and lower case, which engines do not tell apart");
        self.changes.push(Difference::Cannot { path: path(within, &new.name), types: None, why });
    }

    /// A column that the schema does not have: its rows leave it null.
    fn unmentioned(&mut self, old: &Field, within: &str) -> Field {
        if have_defaults(self.formats) && old.write_default.is_some() {
            return old.clone();
        }
        if old.required {
            self.changes.push(Difference::Relax { path: path(within, &old.name) });
        }
        Field { required: false, ..old.clone() }
    }

    fn added(&mut self, new: &Field, within: &str) -> Field {
        let mut added = Field { aliases: Vec::new(), ..new.clone() };
        if !have_defaults(self.formats) {
            forget(std::slice::from_mut(&mut added));
        }
        added.initial_default.clone_from(&added.write_default);
        added.required &= added.initial_default.is_some();
        let (path, kind, default) = (path(within, &new.name), new.kind.clone(), added.initial_default.clone());
        self.changes.push(Difference::Add { path, kind, default });
        self.number(&mut added);
        added
    }

    fn field(&mut self, old: &Field, new: &Field, within: &str) -> Field {
        let path = path(within, &old.name);
        let mut grown = old.clone();
        // A former name is how older events call the column; only an alias asks for a new name.
        if old.name != new.name && !old.aliases.contains(&new.name) {
            self.changes.push(Difference::Rename { path: path.clone(), to: new.name.clone() });
            grown.name.clone_from(&new.name);
            grown.aliases.retain(|name| *name != new.name);
            grown.aliases.push(old.name.clone());
        }
        grown.kind = match (&old.partitioned_by, &old.kind, &new.kind) {
            (Some(transform), Type::Date, Type::Timestamp { utc: false }) => {
                let why = format!(
                    "the table is partitioned by {transform} of it, which would be another value for a timestamp"
                );
                self.refuse(&path, &old.kind, &new.kind, why);
                old.kind.clone()
            }
            (_, old, new) => self.kind(old, new, &path),
        };
        if grown.kind != old.kind {
            for default in [&mut grown.initial_default, &mut grown.write_default] {
                *default = default.take().map(|constant| constant.widened(&grown.kind));
            }
        }
        if old.required && !new.required {
            self.changes.push(Difference::Relax { path });
            grown.required = false;
        }
        grown
    }

    fn kind(&mut self, old: &Type, new: &Type, path: &str) -> Type {
        match (branches_of(old), branches_of(new)) {
            (Some(branches), None) => {
                if !branches.iter().any(|branch| self.takes(&branch.kind, new)) {
                    self.refuse(path, old, new, "no branch of the union takes values of this type".into());
                }
                return old.clone();
            }
            (None, Some(_)) => {
                let why = "a column of one type cannot become a union: its rows do not say which branch they are";
                self.refuse(path, old, new, why.into());
                return old.clone();
            }
            _ => {}
        }
        match (old, new) {
            (Type::Struct(a), Type::Struct(b)) => Type::Struct(self.fields(a, b, path)),
            (Type::List(a), Type::List(b)) => Type::List(Box::new(self.field(a, b, path))),
            (Type::Map(ka, va), Type::Map(kb, vb)) => {
                if !same_type(&ka.kind, &kb.kind) {
                    self.refuse(path, old, new, "the type of a map's keys cannot change".into());
                }
                Type::Map(ka.clone(), Box::new(self.field(va, vb, path)))
            }
            (a, b) => match fit(a, b, self.formats) {
                Fit::Holds => a.clone(),
                Fit::Widened(to) => {
                    self.changes.push(Difference::Widen { path: path.to_owned(), from: a.clone(), to: to.clone() });
                    to
                }
                Fit::No(why) => {
                    self.refuse(path, a, b, why);
                    a.clone()
                }
            },
        }
    }

    /// Whether a column of type `old` holds values of type `new` without any change.
    fn takes(&self, old: &Type, new: &Type) -> bool {
        let mut growth = Growth { formats: self.formats, next: 0, changes: Vec::new() };
        growth.kind(old, new, "");
        growth.changes.is_empty()
    }

    fn refuse(&mut self, path: &str, from: &Type, to: &Type, why: String) {
        self.changes.push(Difference::Cannot { path: path.to_owned(), types: Some((from.clone(), to.clone())), why });
    }

    /// Numbers a new field and what is below it, one level before the next.
    fn number(&mut self, field: &mut Field) {
        let mut level = vec![field];
        while !level.is_empty() {
            let mut below = Vec::new();
            for field in level {
                self.next += 1;
                field.id = self.next;
                match &mut field.kind {
                    Type::Struct(fields) => {
                        fields.iter_mut().for_each(|f| f.aliases.clear());
                        below.extend(fields.iter_mut());
                    }
                    Type::List(element) => below.push(&mut **element),
                    Type::Map(key, value) => below.extend([&mut **key, &mut **value]),
                    _ => {}
                }
            }
            level = below;
        }
    }
}

fn named(fields: &[Field]) -> Vec<Named<'_>> {
    fields.iter().map(Named::from).collect()
}

/// A name as engines compare it that do not tell upper from lower case.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

fn path(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Add { path, kind, default: None } => write!(f, "adds column {path} ({kind})"),
            Difference::Add { path, kind, default: Some(default) } => {
                write!(f, "adds column {path} ({kind}) with the default {default}")
            }
            Difference::Widen { path, from, to } => write!(f, "widens column {path} from {from} to {to}"),
            Difference::Rename { path, to } => write!(f, "renames column {path} to {to}"),
            Difference::Relax { path } => write!(f, "lets column {path} be null"),
            Difference::Cannot { path, types: Some((from, to)), why } => {
                write!(f, "column {path} is {from} in the table and cannot become {to}: {why}")
            }
            Difference::Cannot { path, types: None, why } if path.is_empty() => f.write_str(why),
            Difference::Cannot { path, types: None, why } => write!(f, "column {path}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;

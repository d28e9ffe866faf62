//! Which column a field of an event is: by its name, by a name that the column had, or by the field's aliases.

use std::collections::{BTreeMap, BTreeSet};

use super::{Field, TableSchema, Type};

/// A field by all of its names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its own name.
    pub name: &'a str,
    /// Its aliases.
    pub aliases: &'a [String],
}

impl<'a> From<&'a Field> for Named<'a> {
    fn from(field: &'a Field) -> Self {
        Named { name: &field.name, aliases: &field.aliases }
    }
}

/// For each of `fields`, the place among `columns` of the column that it is. No two fields are the same column. A name is
/// stronger than a column's former name, and that is stronger than an alias: old and new events meet in one column after
/// a rename, whichever came first.
#[must_use]
pub fn matches(columns: &[Named<'_>], fields: &[Named<'_>]) -> Vec<Option<usize>> {
    let by_name: BTreeMap<&str, usize> = columns.iter().enumerate().map(|(at, c)| (c.name, at)).collect();
    let mut found: Vec<Option<usize>> = fields.iter().map(|f| by_name.get(f.name).copied()).collect();
    let mut taken = vec![false; columns.len()];
    found.iter().flatten().for_each(|at| taken[*at] = true);
    let mut former: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, column) in columns.iter().enumerate() {
        for name in column.aliases {
            former.entry(name).or_insert(at);
        }
    }
    let mut take = |place: &mut Option<usize>, at: Option<&usize>| {
        if let Some(at) = at.filter(|at| place.is_none() && !taken[**at]) {
            taken[*at] = true;
            *place = Some(*at);
        }
    };
    for (field, place) in fields.iter().zip(&mut found) {
        take(place, former.get(field.name));
    }
    for (field, place) in fields.iter().zip(&mut found) {
        for alias in field.aliases {
            let alias = alias.as_str();
            take(place, by_name.get(alias));
            take(place, former.get(alias));
        }
    }
    found
}

/// How deeply columns may be nested. The metadata of both formats is JSON, in which a struct takes three levels, and readers,
/// those of Firn among them, give up at 128: a table with a deeper column could be created and never be read.
const DEPTH_MAX: usize = 32;
/// How long a name may be: Delta's and Hive's catalogs keep no longer ones.
const NAME_BYTES_MAX: usize = 255;

/// By how many other names a column can be known. They are kept with the columns wherever these go, and a topic may have any
/// number of schemas; without a name of an older schema, its events would go into a column of their own.
pub const NAMES_MAX: usize = 100;

/// Refuses names that engines would mistake for each other or for paths, and columns that are too deep inside of others: at
/// every depth, each is to be one column for everybody.
///
/// # Errors
/// The path of the column, and what is wrong with it.
pub fn check_names(fields: &[Field]) -> Result<(), String> {
    check_level(fields, "", 1)
}

fn check_level(fields: &[Field], within: &str, depth: usize) -> Result<(), String> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for field in fields {
        let name = field.name.as_str();
        let path = if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") };
        if name.is_empty() || name.contains('.') || name.chars().any(char::is_control) {
            return Err(format!("field `{path}`: a column's name is not empty and has no dots or control characters"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("field `{path}`: a column's name has {NAME_BYTES_MAX} bytes at most"));
        }
        if let Some(other) = seen.insert(name.to_lowercase(), name) {
            return Err(format!(
                "field `{path}` differs from `{other}` only in upper and lower case, which engines do not tell apart"
            ));
        }
        let mut kind = &field.kind;
        let (mut path, mut depth) = (path, depth);
        loop {
            if depth > DEPTH_MAX {
                return Err(format!("field `{path}`: columns are nested more than {DEPTH_MAX} deep"));
            }
            depth += 1;
            kind = match kind {
                Type::Struct(fields) => break check_level(fields, &path, depth)?,
                Type::List(element) => &element.kind,
                Type::Map(_, value) => &value.kind,
                _ => break,
            };
            path.push_str(".element");
        }
    }
    Ok(())
}

/// The path of a column that is known by more than [`NAMES_MAX`] other names, and by fewer in `before`, whose columns are
/// the first of `after`.
#[must_use]
pub fn crowded(before: &[Field], after: &[Field]) -> Option<String> {
    after.iter().enumerate().find_map(|(at, column)| {
        let known = before.get(at);
        if column.aliases.len() > NAMES_MAX.max(known.map_or(0, |known| known.aliases.len())) {
            return Some(column.name.clone());
        }
        let below = match (&column.kind, known.map(|known| &known.kind)) {
            (Type::Struct(fields), Some(Type::Struct(known))) => crowded(known, fields)?,
            (Type::Struct(fields), _) => crowded(&[], fields)?,
            (Type::List(element), Some(Type::List(known))) => crowded_inside(known, element)?,
            (Type::List(element), _) => crowded(&[], std::slice::from_ref(element))?,
            (Type::Map(_, value), Some(Type::Map(_, known))) => crowded_inside(known, value)?,
            (Type::Map(_, value), _) => crowded(&[], std::slice::from_ref(value))?,
            _ => return None,
        };
        Some(format!("{}.{below}", column.name))
    })
}

fn crowded_inside(before: &Field, after: &Field) -> Option<String> {
    crowded(std::slice::from_ref(before), std::slice::from_ref(after))
}

/// Notes on the table's columns the other names under which `wanted` knows them, at every depth: events of older schemas
/// carry those names.
pub fn learn_names(table: &mut TableSchema, wanted: &TableSchema) {
    let note = |columns: &mut [Field], wanted: &[Field], places: &[Option<usize>]| {
        note_names(columns, wanted, places, |field| std::iter::once(&field.name).chain(&field.aliases));
    };
    each_level(&mut table.fields, &wanted.fields, &note);
}

/// As [`learn_names`], for a table that rows are to be written to which were gathered in the columns `gathered`. Where the
/// table's column still has an older name, it is not known by its new one: it is to be renamed. What is a column of its own
/// there is none of the table's under a former name.
pub(super) fn learn_former_names(table: &mut TableSchema, gathered: &TableSchema) {
    let note = |columns: &mut [Field], gathered: &[Field], places: &[Option<usize>]| {
        for (at, column) in columns.iter_mut().enumerate() {
            let is_another = |name: &String| {
                gathered.iter().zip(places).any(|(field, place)| field.name == *name && *place != Some(at))
            };
            column.aliases.retain(|name| !is_another(name));
        }
        note_names(columns, gathered, places, |field| field.aliases.iter());
    };
    each_level(&mut table.fields, &gathered.fields, &note);
}

fn note_names<'w, N: Iterator<Item = &'w String>>(
    columns: &mut [Field],
    known: &'w [Field],
    places: &[Option<usize>],
    names_of: impl Fn(&'w Field) -> N,
) {
    // A name that is a column's own means that column, whatever another one was called.
    let own: BTreeSet<String> = columns.iter().map(|column| column.name.clone()).collect();
    for (field, place) in known.iter().zip(places) {
        let Some(column) = place.and_then(|at| columns.get_mut(at)) else { continue };
        for name in names_of(field) {
            // No field of that name is ever a column.
            let strange = name.len() > NAME_BYTES_MAX;
            if !strange && !own.contains(name) && !column.aliases.contains(name) {
                column.aliases.push(name.clone());
            }
        }
    }
}

/// Shows the columns of two schemas, and which field is which column, at every depth.
fn each_level(columns: &mut [Field], fields: &[Field], note: &impl Fn(&mut [Field], &[Field], &[Option<usize>])) {
    let names: Vec<Named<'_>> = fields.iter().map(Named::from).collect();
    let places = matches(&columns.iter().map(Named::from).collect::<Vec<_>>(), &names);
    note(columns, fields, &places);
    for (field, place) in fields.iter().zip(places) {
        let Some(column) = place.and_then(|at| columns.get_mut(at)) else { continue };
        let (mut column, mut field) = (&mut column.kind, &field.kind);
        loop {
            (column, field) = match (column, field) {
                (Type::Struct(columns), Type::Struct(fields)) => break each_level(columns, fields, note),
                (Type::List(a), Type::List(b)) => (&mut a.kind, &b.kind),
                (Type::Map(_, a), Type::Map(_, b)) => (&mut a.kind, &b.kind),
                _ => break,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(columns: &[(&str, &[&str])], fields: &[(&str, &[&str])], expected: &[Option<usize>]) {
        let owned = |list: &[(&str, &[&str])]| -> Vec<(String, Vec<String>)> {
            list.iter().map(|(n, a)| ((*n).to_owned(), a.iter().map(|a| (*a).to_owned()).collect())).collect()
        };
        let (columns, fields) = (owned(columns), owned(fields));
        let columns: Vec<Named<'_>> = columns.iter().map(|(name, aliases)| Named { name, aliases }).collect();
        let fields: Vec<Named<'_>> = fields.iter().map(|(name, aliases)| Named { name, aliases }).collect();
        assert_eq!(matches(&columns, &fields), expected);
    }

    #[test]
    fn a_field_is_found_by_name_then_by_former_name_then_by_alias() {
        check(&[("a", &[]), ("b", &[])], &[("b", &[]), ("c", &[])], &[Some(1), None]);
        check(&[("new", &["old"])], &[("old", &[])], &[Some(0)]);
        check(&[("old", &[])], &[("new", &["older", "old"])], &[Some(0)]);
        check(&[("c", &["b", "a"])], &[("d", &["a"])], &[Some(0)]);
    }

    #[test]
    fn names_that_engines_would_take_for_others_are_refused_at_every_depth() {
        let field = |name: &str| Field::new(name, Type::Int, false);
        let deep = |inner: Vec<Field>| {
            let list = Type::List(Box::new(Field::new("element", Type::Struct(inner), false)));
            vec![Field::new("a", Type::Struct(vec![Field::new("b", list, false)]), false)]
        };
        let long = "x".repeat(256);
        for (name, part) in [("", "not empty"), ("a.b", "no dots"), ("a\nb", "control"), (long.as_str(), "255 bytes")] {
            assert!(check_names(&[field(name)]).unwrap_err().contains(part), "{name}");
            assert!(check_names(&deep(vec![field(name)])).unwrap_err().contains("field `a.b.element."), "{name}");
        }
        let clash = check_names(&deep(vec![field("Ünd"), field("üND")])).unwrap_err();
        assert!(clash.contains("`a.b.element.üND` differs from `Ünd`"), "{clash}");
        let strange = ["__proto__", "select", "Straße", "日本語", "a b", "..x".trim_start_matches('.'), "{}", "%2F"];
        assert_eq!(check_names(&strange.map(field)), Ok(()));
    }

    #[test]
    fn no_two_fields_are_one_column_and_a_name_wins() {
        check(&[("old", &[])], &[("old", &[]), ("new", &["old"])], &[Some(0), None]);
        check(&[("new", &["old"])], &[("old", &[]), ("new", &[])], &[None, Some(0)]);
        check(&[("new", &["old"]), ("old", &[])], &[("old", &[])], &[Some(1)]);
        check(&[("x", &[])], &[("a", &["x"]), ("b", &["x"])], &[Some(0), None]);
    }
}

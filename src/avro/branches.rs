//! Which branch of a union's column a writer's value is.
//!
//! A branch is found by its name. A number whose branch the column does not have becomes the first wider one that it has,
//! and text and bytes become each other: Avro's rules for a reader whose union lacks the writer's type.

use super::avro_type::{Avro, TypeRef, shared_name};
use super::plan::{Skip, Value, compile_value, skip};
use crate::core::schema::Field;

/// Stands for the null of a union without one: no branch looks like this on the wire.
pub const NO_NULL: u64 = u64::MAX;

/// How to append a value as one branch.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The branch's name.
    pub tag: Box<[u8]>,
    pub content: Content,
}

/// What there is of a branch besides its name.
#[derive(Debug, Clone)]
pub enum Content {
    /// The field at this place among the branches.
    Field { at: usize, value: Value },
    /// No field, but perhaps bytes on the wire.
    Bare(Skip),
}

/// The null of a union as it is on the wire.
pub fn null_of(branches: &[TypeRef]) -> u64 {
    branches.iter().position(|b| **b == Avro::Null).map_or(NO_NULL, |at| at as u64 * 2)
}

/// How to append each branch of a writer's union to a column with these branches; null has none.
///
/// # Errors
/// The path of a branch that the column does not have or cannot hold.
pub fn compile(
    branches: &[TypeRef],
    columns: &[Field],
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Vec<Option<Branch>>, String> {
    if let Some(name) = shared_name(branches) {
        return Err(format!("field `{path}`: two branches of its union are named `{name}`"));
    }
    let one = |branch: &TypeRef| match **branch {
        Avro::Null => Ok(None),
        _ => compile_one(branch, columns, path, unknown).map(Some),
    };
    branches.iter().map(one).collect()
}

/// How to append a value that is always of one type to a column with these branches.
///
/// # Errors
/// As [`compile`].
pub fn compile_one(avro: &TypeRef, columns: &[Field], path: &str, unknown: &mut Vec<String>) -> Result<Branch, String> {
    let below = format!("{path}.{}", avro.name);
    let fill = |at: usize, unknown: &mut Vec<String>| {
        let value = compile_value(avro, &columns[at], None, &below, unknown)?;
        Ok(Branch { tag: columns[at].name.as_bytes().into(), content: Content::Field { at, value } })
    };
    let named = |name: &str| columns.iter().position(|column| column.name == name);
    if avro.is_bare() {
        return Ok(Branch { tag: avro.name.as_bytes().into(), content: Content::Bare(skip(avro)) });
    }
    if let Some(at) = named(&avro.name) {
        return fill(at, unknown);
    }
    let wider = wider_names(&avro.name).iter().filter_map(|name| named(name));
    wider.filter_map(|at| fill(at, &mut Vec::new()).ok()).next().ok_or_else(|| {
        let has = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("field `{path}`: its type {} is no branch of the column's union, which has {has}", avro.name)
    })
}

/// The types that Avro reads a value of this one as.
fn wider_names(name: &str) -> &'static [&'static str] {
    match name {
        "int" => &["long", "float", "double"],
        "long" => &["float", "double"],
        "float" => &["double"],
        "string" => &["bytes"],
        "bytes" => &["string"],
        _ => &[],
    }
}

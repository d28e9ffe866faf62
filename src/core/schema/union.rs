//! Unions of more than null and one type, as columns: a struct whose field `tag` names the branch that is there, and a
//! field for each branch, of which that one has the value.

use super::{Field, Type};

/// The field that says which branch is there.
pub const TAG: &str = "tag";
/// The comment on that field. It tells the column of a union from that of a record, also in a table that is found again.
const TAG_DOC: &str = "the name of the union's branch that this value is";

/// The column type of a union of these branches, each an optional field.
#[must_use]
pub fn union_of(branches: Vec<Field>) -> Type {
    let tag = Field { doc: Some(TAG_DOC.to_owned()), ..Field::new(TAG, Type::String, true) };
    Type::Struct(std::iter::once(tag).chain(branches).collect())
}

/// The branches that have a field, where this is the column type of a union.
#[must_use]
pub fn branches_of(kind: &Type) -> Option<&[Field]> {
    let Type::Struct(fields) = kind else { return None };
    let (tag, branches) = fields.split_first()?;
    let tagged = tag.name == TAG && tag.kind == Type::String && tag.doc.as_deref() == Some(TAG_DOC);
    tagged.then_some(branches)
}

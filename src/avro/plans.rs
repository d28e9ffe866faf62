//! The plans that a decoder has made, by the schema id that events name.

use std::collections::HashMap;
use std::sync::Arc;

use super::avro_type::{Avro, AvroField, TypeRef};
use super::bad::{Half, Reason, Stop};
use super::key_schema::KeySchema;
use super::plan::{self, Plan, Record, Target};
use super::shape::{EventShape, Types};
use super::value_schema::{Form, Reader, ValueSchema};
use crate::core::schema::Fingerprint;

/// How many writer schemas are kept; beyond, all are forgotten and asked for again.
const SCHEMAS_MAX: usize = 4096;
/// How many types the schemas may have in all, mentions of named types written out: a plan has a step for each.
const TYPES_MAX: usize = 1 << 20;

/// How to read the record keys of one schema. `None`: they do not yield the key's fields.
#[derive(Debug)]
pub struct KeyPlan {
    /// The schema; none where it is known only to be of no use.
    pub schema: Option<Arc<KeySchema>>,
    pub into_row: Option<Plan>,
    pub into_deleted: Option<Plan>,
}

impl KeyPlan {
    /// What the schema was taken for.
    #[inline]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.schema.as_ref()?.fingerprint()
    }

    /// The Avro form of a key's body.
    #[inline]
    pub fn avro_of<'b>(&self, body: &'b [u8], rewritten: &'b mut Vec<u8>) -> Result<&'b [u8], Box<Stop>> {
        match self.schema.as_deref().map(KeySchema::keys) {
            Some(Ok(keys)) => keys.avro_of(body, rewritten).map_err(|fault| Stop::foreign(fault, Half::Key)),
            _ => Err(Stop::reason(Reason::BadKey, Half::Key)),
        }
    }
}

/// How to read the values of one schema.
#[derive(Debug)]
pub struct ValuePlan {
    pub schema: Arc<ValueSchema>,
    /// What it asks of the table, by number; 0 for nothing.
    pub asks: u32,
    pub form: Form,
    pub reader: Reader,
    /// By the number of a body's type. `None`: no rows of this table.
    pub types: Vec<Option<TypePlan>>,
}

/// How to read the values of one type.
#[derive(Debug)]
pub struct TypePlan {
    pub plan: Plan,
    /// Reads the same body once more, for the columns that all record types share, where the rest is a struct.
    pub shared: Option<Record>,
}

impl ValuePlan {
    /// The plans for values of a schema of which a table takes the types that `shape` says. Fields named in `elsewhere`
    /// come from the record key.
    ///
    /// # Errors
    /// The path of a field that cannot be read as its column, with both types, or the record type that is not there.
    pub fn compile(
        schema: &Arc<ValueSchema>,
        shape: &EventShape,
        targets: &[Target<'_>],
        elsewhere: &[String],
    ) -> Result<ValuePlan, String> {
        // Columns of their own beside a struct.
        let (types, shared) = (&shape.types, shape.shared());
        let of = |name: &str, fields: &[AvroField]| match types {
            Types::Structs(_) => struct_plan(name, fields, targets, &shared),
            _ => plan::compile(fields, targets, elsewhere).map(|plan| TypePlan { plan, shared: None }),
        };
        let plan = |types| {
            let (form, reader) = (schema.form(), schema.reader().clone());
            ValuePlan { schema: schema.clone(), asks: 0, form, reader, types }
        };
        if *types == Types::Any {
            return Ok(plan(vec![Some(of("", schema.only()?)?)]));
        }
        let branches = schema.branches().map(|(name, fields)| match fields {
            Some(fields) if types.take(name) => of(name, fields).map(Some),
            _ => Ok(None),
        });
        let of_types: Vec<_> = branches.collect::<Result<_, String>>()?;
        if of_types.iter().all(Option::is_none) {
            return Err(format!("it has no record type of this table; it is {schema}"));
        }
        Ok(plan(of_types))
    }

    /// The number of a body's type, its plan, and what is behind the number.
    #[inline]
    pub fn of<'b>(&self, body: &'b [u8]) -> Result<(usize, &TypePlan, &'b [u8]), Reason> {
        let (number, body) = self.form.split(body, self.types.len())?;
        match self.types.get(number) {
            Some(Some(plan)) => Ok((number, plan, body)),
            _ => Err(Reason::UnionBranch),
        }
    }
}

/// The plan for a record type that is a struct column beside the columns that all types share.
fn struct_plan(
    name: &str,
    fields: &[AvroField],
    targets: &[Target<'_>],
    shared: &[&String],
) -> Result<TypePlan, String> {
    let column = Types::column(name);
    let (own, others): (Vec<Target<'_>>, Vec<Target<'_>>) =
        targets.iter().partition(|t| shared.contains(&&t.field.name));
    let target = others.iter().find(|t| t.field.name == column);
    let target = target.ok_or_else(|| format!("the table has no column `{column}` for record type {name}"))?;
    let mut plan = plan::compile_single(&TypeRef::new(name, Avro::Record(fields.to_vec())), target)?;
    for other in others.iter().filter(|other| other.column != target.column) {
        if other.field.required {
            let name = &other.field.name;
            return Err(format!("column `{name}` is required, and records of type `{column}` have no such column"));
        }
        plan.record.missing.push((other.column, None));
    }
    let shared = match own.is_empty() {
        true => None,
        false => Some(plan::compile(fields, &own, &[])?.record),
    };
    Ok(TypePlan { plan, shared })
}

/// How many ids are found without hashing: a topic rarely has more schemas in use.
const RECENT: usize = 8;

/// Plans by schema id.
#[derive(Debug)]
pub struct Plans<P> {
    by_id: HashMap<u32, usize>,
    plans: Vec<P>,
    /// Ids found last and where their plans are, each at its remainder.
    recent: [Option<(u32, usize)>; RECENT],
    types: usize,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Plans { by_id: HashMap::new(), plans: Vec::new(), recent: [None; RECENT], types: 0 }
    }
}

impl<P> Plans<P> {
    /// The plan of the schema that an event names.
    #[inline]
    pub fn find(&mut self, id: u32) -> Option<&P> {
        let recent = &mut self.recent[id as usize % RECENT];
        let at = match *recent {
            Some((known, at)) if known == id => at,
            _ => {
                let at = *self.by_id.get(&id)?;
                *recent = Some((id, at));
                at
            }
        };
        self.plans.get(at)
    }

    /// Whether all plans are forgotten when one for a schema of this many types is added.
    pub fn is_full(&self, types: usize) -> bool {
        self.plans.len() >= SCHEMAS_MAX || self.types + types > TYPES_MAX
    }

    /// Adds the plan of a schema id, for a schema of this many types.
    pub fn insert(&mut self, id: u32, plan: P, types: usize) {
        if self.is_full(types) {
            *self = Plans::default();
        }
        self.types += types;
        self.recent = [None; RECENT];
        self.by_id.insert(id, self.plans.len());
        self.plans.push(plan);
    }

    /// All plans with their schema ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &P)> {
        self.by_id.iter().filter_map(|(&id, &at)| Some((id, self.plans.get(at)?)))
    }

    /// The plan of a schema id.
    pub fn get(&self, id: u32) -> Option<&P> {
        self.plans.get(*self.by_id.get(&id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-18
    #[test]
    fn plans_are_bounded_in_number_and_in_types() {
        let mut plans = Plans::default();
        for id in 0..200 {
            plans.insert(id, id, 10_000);
            assert_eq!(plans.find(id), Some(&id));
        }
        assert!(plans.types <= TYPES_MAX && plans.plans.len() == plans.types / 10_000, "{}", plans.types);
        assert_eq!(plans.find(0), None);
        for id in 0..=SCHEMAS_MAX as u32 {
            plans.insert(id, id, 1);
        }
        assert_eq!(plans.find(1), None);
    }
}

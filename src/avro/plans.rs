//! The plans that a decoder has made, by the schema id that events name.

use std::collections::HashMap;

use super::plan::Plan;

/// How many writer schemas are kept; beyond, all are forgotten and asked for again.
const SCHEMAS_MAX: usize = 4096;

/// How to read the record keys of one schema. `None`: they do not yield the key's fields.
#[derive(Debug)]
pub struct KeyPlan {
    pub into_row: Option<Plan>,
    pub into_deleted: Option<Plan>,
}

/// Plans by schema id; events of one schema come in runs.
#[derive(Debug)]
pub struct Plans<P> {
    by_id: HashMap<u32, usize>,
    plans: Vec<P>,
    last: Option<(u32, usize)>,
}

impl<P> Plans<P> {
    /// No plans.
    pub fn new() -> Self {
        Plans { by_id: HashMap::new(), plans: Vec::new(), last: None }
    }

    /// The plan of the schema that an event names.
    #[inline]
    pub fn find(&mut self, id: u32) -> Option<&P> {
        let at = match self.last {
            Some((last, at)) if last == id => at,
            _ => {
                let at = *self.by_id.get(&id)?;
                self.last = Some((id, at));
                at
            }
        };
        self.plans.get(at)
    }

    /// Adds the plan of a schema id.
    pub fn insert(&mut self, id: u32, plan: P) {
        if self.plans.len() >= SCHEMAS_MAX {
            *self = Plans::new();
        }
        self.last = None;
        self.by_id.insert(id, self.plans.len());
        self.plans.push(plan);
    }

    /// The plan of a schema id.
    pub fn get(&self, id: u32) -> Option<&P> {
        self.plans.get(*self.by_id.get(&id)?)
    }
}

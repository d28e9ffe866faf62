//! What schema ids mean: a registry that gives ids out again, and what the table remembers of them.

use std::collections::BTreeMap;

use firn::core::schema::{Fingerprint, Pins};

use crate::columns::SCHEMAS;
use crate::random::Random;

/// The schema with which a record was read: the one that producers wrote it with is number 0.
pub type Meaning = u8;

pub fn fingerprint(schema: usize, meaning: Meaning) -> Fingerprint {
    Fingerprint((schema as u128) << 8 | u128::from(meaning))
}

pub fn meaning(fingerprint: Fingerprint) -> Meaning {
    (fingerprint.0 & 0xff) as Meaning
}

/// The registry, and what the table must remember.
#[derive(Debug, Default)]
pub struct Meanings {
    /// What the registry says of each schema now.
    registry: [Meaning; SCHEMAS],
    /// What the rows of each schema in the table were read with.
    table: BTreeMap<usize, Meaning>,
    /// The registry was replaced at least once.
    pub replaced: bool,
}

impl Meanings {
    pub fn of(&self, schema: usize) -> Meaning {
        self.registry[schema]
    }

    /// The registry gives out another schema under some ids.
    pub fn replace(&mut self, random: &mut Random) {
        for known in &mut self.registry {
            if random.chance(2) {
                *known = 1 - *known;
            }
        }
        self.replaced = true;
    }

    /// The registry says again what it said when the table's rows were read.
    pub fn restore(&mut self) {
        for (schema, meaning) in &self.table {
            self.registry[*schema] = *meaning;
        }
    }

    /// An operator accepts what the registry says now: what the table remembers without it.
    pub fn accept(&mut self, property: Option<&str>) -> Option<Pins> {
        let registry = &self.registry;
        let changed = self.table.extract_if(.., |schema, meaning| registry[*schema] != *meaning);
        let ids = changed.map(|(schema, _)| schema as u32).collect();
        Pins::read(property).unwrap().without(&ids)
    }

    /// FAILURES D4: rows of a schema are all read with the same one, and the table remembers which, whoever commits what.
    pub fn check(&mut self, rows: &[(usize, Meaning)], property: Option<&str>) -> Result<(), String> {
        for (schema, meaning) in rows {
            let known = self.table.entry(*schema).or_insert(*meaning);
            if known != meaning {
                return Err(format!("rows of schema {schema} were read with {meaning}, and earlier ones with {known}"));
            }
        }
        let held = Pins::read(property)?.iter().map(|(id, of)| (id as usize, meaning(of))).collect::<BTreeMap<_, _>>();
        let lost = self.table.iter().find(|(schema, meaning)| held.get(schema) != Some(meaning));
        if let Some((schema, meaning)) = lost {
            return Err(format!("rows of schema {schema} were read with {meaning}, and the table remembers {held:?}"));
        }
        self.table = held;
        Ok(())
    }
}

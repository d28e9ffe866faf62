//! What schema ids mean: a table pins each id whose records are in it to the schema that they were read with.
//!
//! A registry that was reset, restored from an old copy or replaced gives ids out again, and old records would be read with
//! a schema that they were not written with. Most of the time that even succeeds, with wrong values. So what an id means
//! is kept where its rows are, and compared before anything is read.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::str::FromStr;

use siphasher::sip128::{Hasher128, SipHasher13};

/// How many ids a table remembers: the highest, which are the newest, since registries count up.
pub const PINS_MAX: usize = 256;
/// How fingerprints are made. Those that were made in another way cannot be compared, and are made anew.
const FORM: u32 = 1;

/// What identifies the meaning of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// The fingerprint of a meaning, written out in one way alone.
    #[must_use]
    pub fn of(meaning: &str) -> Fingerprint {
        let mut hasher = SipHasher13::new();
        hasher.write(meaning.as_bytes());
        Fingerprint(hasher.finish128().as_u128())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Fingerprint, Self::Err> {
        u128::from_str_radix(text, 16).map(Fingerprint)
    }
}

/// The schema ids that a table remembers, each with the fingerprint of its schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<u32, Fingerprint>);

/// An id of which two schemas are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repinned {
    /// The id.
    pub id: u32,
    /// Of the schema that the table's rows were read with.
    pub held: Fingerprint,
    /// Of the schema that the registry has now.
    pub now: Fingerprint,
}

/// An id of which records are in a table, and that the registry does not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The id.
    pub id: u32,
}

/// As the table property has them.
#[derive(serde::Serialize, serde::Deserialize)]
struct Property {
    form: u32,
    #[serde(default)]
    ids: BTreeMap<u32, String>,
}

impl Pins {
    /// Reads the table property `firn.schemas`; a table without it remembers nothing.
    ///
    /// # Errors
    /// What cannot be read in it.
    pub fn read(property: Option<&str>) -> Result<Pins, String> {
        let Some(text) = property else { return Ok(Pins::default()) };
        let unreadable = |why: &dyn std::fmt::Display| {
            format!(
                "the table property firn.schemas cannot be read ({why}): remove it; schema ids are then pinned again to what \
                 the registry says of them"
            )
        };
        let property: Property = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
        if property.form != FORM {
            return Ok(Pins::default());
        }
        let pin = |(id, text): (u32, String)| text.parse().map(|fingerprint| (id, fingerprint));
        property.ids.into_iter().map(pin).collect::<Result<_, _>>().map(Pins).map_err(|e| unreadable(&e))
    }

    /// The table property.
    #[must_use]
    pub fn to_json(&self) -> String {
        let ids = self.0.iter().map(|(id, fingerprint)| (*id, fingerprint.to_string())).collect();
        // A map of numbers and text is always JSON.
        serde_json::to_string(&Property { form: FORM, ids }).unwrap_or_default()
    }

    /// Compares what a schema id means now with what it meant.
    ///
    /// # Errors
    /// It is pinned to another schema.
    pub fn check(&self, id: u32, now: Fingerprint) -> Result<(), Repinned> {
        match self.0.get(&id) {
            Some(&held) if held != now => Err(Repinned { id, held, now }),
            _ => Ok(()),
        }
    }

    /// The registry has no schema of this id.
    ///
    /// # Errors
    /// It had one when records of it were read.
    pub fn check_gone(&self, id: u32) -> Result<(), Gone> {
        if self.0.contains_key(&id) { Err(Gone { id }) } else { Ok(()) }
    }

    /// With these ids too; `None` where nothing changes. Beyond [`PINS_MAX`] the lowest ids are forgotten, also where they
    /// come up again.
    ///
    /// # Errors
    /// One of them is pinned to another schema.
    pub fn with(&self, used: &[(u32, Fingerprint)]) -> Result<Option<Pins>, Repinned> {
        let mut next = self.clone();
        for &(id, fingerprint) in used {
            next.check(id, fingerprint)?;
            next.0.insert(id, fingerprint);
        }
        while next.0.len() > PINS_MAX {
            next.0.pop_first();
        }
        Ok((next != *self).then_some(next))
    }

    /// Without these ids; `None` where nothing changes.
    #[must_use]
    pub fn without(&self, ids: &BTreeSet<u32>) -> Option<Pins> {
        let mut next = self.clone();
        next.0.retain(|id, _| !ids.contains(id));
        (next != *self).then_some(next)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Fingerprint)> {
        self.0.iter().map(|(&id, &fingerprint)| (id, fingerprint))
    }
}

impl std::fmt::Display for Repinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Repinned { id, held, now } = self;
        write!(
            f,
            "records of schema id {id} are in it, read with the schema of fingerprint {held}, and the schema registry now has \
             another one under that id, of fingerprint {now}: it was reset, restored or replaced. Records would be read with a \
             schema that they were not written with. Restore the registry, or point `schema_registry.url` at the one that the \
             producers use; if what is left to read was written with the new schema, accept it with `firn offsets set \
             --accept-schema {id}`"
        )
    }
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.id;
        write!(
            f,
            "records of schema id {id} are in it, and the schema registry has no schema of that id any more: it was reset, restored \
             from an older copy or replaced, or the schema was deleted for good. Restore it, or point `schema_registry.url` at the \
             registry that the producers use; if further records of that id are to be bad ones, forget it with `firn offsets set \
             --accept-schema {id}`"
        )
    }
}

#[cfg(test)]
mod tests;

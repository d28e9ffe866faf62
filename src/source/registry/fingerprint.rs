//! Whether two schemas are the same one.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::avro::SchemaText;

/// What identifies the content of a schema, whatever its spacing and the order of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// The fingerprint of a schema's text.
    #[must_use]
    pub fn of(schema: &str) -> Fingerprint {
        let canonical = serde_json::from_str::<serde_json::Value>(schema).map(|v| v.to_string());
        let mut hasher = SipHasher13::new();
        // Nested deeper than the parser allows: its own spacing counts.
        hasher.write(canonical.as_deref().unwrap_or(schema).as_bytes());
        Fingerprint(hasher.finish128().as_u128())
    }

    /// The fingerprint of a schema with what it refers to.
    pub(super) fn of_all(schema: &SchemaText) -> Fingerprint {
        let each = schema.imports.iter().map(|(name, text)| format!("{name}={:x}", Fingerprint::of(text).0));
        match each.collect::<Vec<_>>().join(",") {
            none if none.is_empty() => Fingerprint::of(&schema.text),
            imports => Fingerprint::of(&format!("{:x},{imports}", Fingerprint::of(&schema.text).0)),
        }
    }
}

//! The schema of a topic's record keys.

use std::sync::Arc;

use super::avro_type::{Avro, AvroField, TypeRef};
use super::bad::Reason;
use super::value_schema::{Form, Reader, SchemaKind, SchemaText, ValueSchema};
use super::{json, writer_schema};
use crate::core::schema::Fingerprint;
use crate::{Error, Result};

/// A key schema, parsed; or why it could not be, which matters only to those who need the keys.
#[derive(Debug, Clone)]
pub struct KeySchema {
    keys: Result<Keys, String>,
    fingerprint: Option<Fingerprint>,
}

/// What record keys of a schema are.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// A record, or the only value.
    pub(super) avro: TypeRef,
    /// How many types it has.
    pub(super) types: usize,
    form: Form,
    reader: Reader,
}

impl KeySchema {
    /// Parses a schema. In Protobuf, keys are the first message.
    #[must_use]
    pub fn parse(schema: &SchemaText) -> KeySchema {
        let keys = match schema.kind {
            SchemaKind::Avro => {
                writer_schema::parse(&schema.text).map(|avro| Keys::new(avro, Form::Single, Reader::Avro))
            }
            SchemaKind::Json => json::read(&schema.text, &schema.imports)
                .map(|(_, node)| Keys::new(node.avro(), Form::Single, Reader::Json(Arc::new(node)))),
            SchemaKind::Protobuf => {
                let parsed = ValueSchema::parse(schema).map_err(|e| e.to_string());
                parsed.and_then(|messages| {
                    let record = Avro::Record(messages.only()?.to_vec()).into();
                    Ok(Keys::new(record, messages.form(), messages.reader().clone()))
                })
            }
        };
        KeySchema { keys, fingerprint: Some(schema.fingerprint()) }
    }

    /// What it means, as tables remember it.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// One that could not be parsed, for this reason.
    #[must_use]
    pub fn refused(why: String) -> KeySchema {
        KeySchema { keys: Err(why), fingerprint: None }
    }

    /// What the keys are.
    pub(super) fn keys(&self) -> Result<&Keys, String> {
        self.keys.as_ref().map_err(Clone::clone)
    }

    /// The fields of the keys.
    ///
    /// # Errors
    /// The schema could not be parsed, or is no record.
    pub(super) fn fields(&self) -> Result<&[AvroField]> {
        let refuse = |e: String| Error::Decision(format!("key schema: {e}"));
        match &*self.keys().map_err(refuse)?.avro {
            Avro::Record(fields) => Ok(fields),
            other => Err(refuse(format!("a record is needed, this is {other}"))),
        }
    }
}

impl Keys {
    fn new(avro: TypeRef, form: Form, reader: Reader) -> Keys {
        Keys { types: avro.types(), avro, form, reader }
    }

    /// The Avro form of a body.
    ///
    /// # Errors
    /// What is wrong with it, and the path of the field where it was found.
    pub(super) fn avro_of<'b>(&self, body: &'b [u8], rewritten: &'b mut Vec<u8>) -> Result<&'b [u8], (Reason, String)> {
        let whole = |reason| (reason, String::new());
        let (number, body) = self.form.split(body, 1).map_err(whole)?;
        match &self.reader {
            Reader::Avro => Ok(body),
            // Another message of the file.
            _ if number != 0 => Err(whole(Reason::UnionBranch)),
            other => {
                rewritten.clear();
                other.rewrite(number, body, rewritten)?;
                Ok(rewritten)
            }
        }
    }
}

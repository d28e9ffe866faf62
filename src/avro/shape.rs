//! What a topic's events mean for a table: plain data from the settings.

/// Whether events are rows or new values of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each event is the new value, or the deletion, of the row with its key.
    Upsert,
    /// Each event is a row.
    Append,
}

/// How a record key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKey {
    /// Confluent wire format: a record with the key's fields, or the primitive of a single key column.
    Avro,
    /// UTF-8 text of a single key column.
    String,
    /// Eight bytes, big-endian.
    Int64,
    /// Four bytes, big-endian.
    Int32,
}

/// What deletes a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteBy {
    /// An event without a value. Tombstones delete whatever else is configured.
    Tombstone,
    /// An event whose value has one of these texts in this field: an enum's symbol, a string, an integer, a boolean.
    Field {
        /// A top-level field of the value.
        field: String,
        /// The values that mean "delete".
        values: Vec<String>,
    },
}

/// What a topic's events mean for a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventShape {
    /// Rows, or new values of rows.
    pub mode: Mode,
    /// The key columns in key order; `None`: the fields of the record key. Ignored in [`Mode::Append`].
    pub key: Option<Vec<String>>,
    /// How record keys are written; `None`: as [`RecordKey::detect`] says for a topic whose keys have no schema (see
    /// [`EventShape::with_key_schema`]).
    pub record_key: Option<RecordKey>,
    /// The column whose smaller values never overwrite larger ones.
    pub order_by: Option<String>,
    /// What deletes a row.
    pub delete: DeleteBy,
    /// The name of the lineage column; `None` leaves it out.
    pub lineage: Option<String>,
}

impl EventShape {
    /// Settles how record keys are written where the settings do not say: in Avro, if the registry has a schema for the
    /// topic's keys. It has to be known before a decoder is made, because bytes alone do not tell: eight bytes may be an
    /// integer or a short Avro key, and a tombstone read the wrong way deletes nothing.
    #[must_use]
    pub fn with_key_schema(mut self, registered: bool) -> Self {
        if registered {
            self.record_key.get_or_insert(RecordKey::Avro);
        }
        self
    }

    /// Whether the primary key is the record key's fields.
    pub(super) fn keyed_by_record(&self) -> bool {
        self.mode == Mode::Upsert && self.key.is_none()
    }
}

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
    /// Confluent wire format, in the language of the schema that it names: a record with the key's fields, or the primitive
    /// of a single key column.
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

/// What becomes of a type that contains itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecursiveTypes {
    /// Its schema is refused.
    #[default]
    Refuse,
    /// Where it contains itself, the value is kept as JSON text.
    Json,
}

/// What becomes of digits finer than microseconds in the timestamps of JSON and Protobuf, whose schemas do not say how many
/// there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nanoseconds {
    /// They are cut off, and counted; in a column of nanoseconds, and in a key, they are kept or the record is a bad one.
    #[default]
    Truncate,
    /// A record that has some is a bad one.
    Reject,
    /// Columns have nanoseconds.
    Keep,
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
    /// Which record types of the topic are its rows.
    pub types: Types,
    /// What becomes of a type that contains itself.
    pub recursive_types: RecursiveTypes,
    /// What becomes of digits finer than microseconds, where the schema does not say.
    pub nanoseconds: Nanoseconds,
}

/// Which record types a table takes, by full name, and how they are rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Types {
    /// The only one that the topic has, whatever its name.
    Any,
    /// This one.
    One(String),
    /// Each is an optional struct column, named by the last part of the type's name, of which one in a row is not null.
    Structs(Vec<String>),
}

impl Types {
    /// Whether records of this type are the table's rows.
    #[must_use]
    pub fn take(&self, name: &str) -> bool {
        match self {
            Types::Any => true,
            Types::One(one) => one == name,
            Types::Structs(several) => several.iter().any(|one| one == name),
        }
    }

    /// The struct column of a record type: the last part of its name.
    #[must_use]
    pub fn column(name: &str) -> &str {
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }
}

impl EventShape {
    /// Settles how record keys are written where the settings do not say: in the wire format, if the registry has a
    /// schema for the topic's keys. It has to be known before a decoder is made, because bytes alone do not tell: eight bytes may be an
    /// integer or a short Avro key, and a tombstone read the wrong way deletes nothing.
    #[must_use]
    pub fn with_key_schema(mut self, registered: bool) -> Self {
        if registered {
            self.record_key.get_or_insert(RecordKey::Avro);
        }
        self
    }

    /// The column whose smaller values never overwrite larger ones; none in append mode, where nothing is overwritten.
    #[must_use]
    pub fn order_column(&self) -> Option<&str> {
        self.order_by.as_deref().filter(|_| self.mode == Mode::Upsert)
    }

    /// The columns that hold what all record types share, where the rest of each is a struct: the fields that the
    /// settings name.
    pub(super) fn shared(&self) -> Vec<&String> {
        if self.mode == Mode::Append {
            return Vec::new();
        }
        let deleting = match &self.delete {
            DeleteBy::Field { field, .. } => Some(field),
            DeleteBy::Tombstone => None,
        };
        let mut names: Vec<&String> = self.key.iter().flatten().collect();
        for name in self.order_by.iter().chain(deleting) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether the primary key is the record key's fields.
    #[must_use]
    pub fn keyed_by_record(&self) -> bool {
        self.mode == Mode::Upsert && self.key.is_none()
    }
}

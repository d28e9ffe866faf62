//! Why a record cannot be a row. The reason is the producer's or the wire's fault and concerns that record only.

use std::fmt;

/// What is wrong with a record; the code names it in metrics and dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first byte is not the 0 of the Confluent wire format.
    Magic,
    /// Fewer bytes than the wire format's header.
    TooShort,
    /// More bytes than a body may have, or a value that no column can hold.
    TooLarge,
    /// The body ends inside a value.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A variable-length integer that is longer or larger than its type.
    BadVarint,
    /// A recursive value that is nested deeper than readers of JSON follow.
    TooDeep,
    /// A negative length, or one beyond the body.
    BadLength,
    /// An array or map block whose count or size cannot be right.
    BadBlock,
    /// A branch that the union does not have.
    UnionBranch,
    /// A symbol that the enum does not have.
    EnumIndex,
    /// A boolean that is neither 0 nor 1.
    BadBoolean,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A time, timestamp or number that the column cannot hold exactly.
    OutOfRange,
    /// A decimal with more digits than its precision.
    DecimalPrecision,
    /// Text that is not a UUID.
    BadUuid,
    /// A field number that is none, a group, or a form on the wire that its type does not have.
    WireType,
    /// Not JSON, or nested deeper than the parser goes.
    NotJson,
    /// A value of another type than the schema says.
    WrongType,
    /// A field that has to be there is not.
    MissingField,
    /// A name that is in one object twice.
    DuplicateField,
    /// A field that the schema does not have and does not allow.
    UnknownField,
    /// No record key, or a null in a key column.
    NullKey,
    /// A record key that does not have the expected form.
    BadKey,
    /// A null in the `order_by` column.
    NullOrder,
}

/// The last one is as far from the first as there are of them.
const _: () = assert!(Reason::ALL.len() == Reason::NullOrder as usize + 1, "a reason is missing in Reason::ALL");

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 25] = [
        Reason::Magic,
        Reason::TooShort,
        Reason::TooLarge,
        Reason::Truncated,
        Reason::TrailingBytes,
        Reason::BadVarint,
        Reason::TooDeep,
        Reason::BadLength,
        Reason::BadBlock,
        Reason::UnionBranch,
        Reason::EnumIndex,
        Reason::BadBoolean,
        Reason::InvalidUtf8,
        Reason::OutOfRange,
        Reason::DecimalPrecision,
        Reason::BadUuid,
        Reason::WireType,
        Reason::NotJson,
        Reason::WrongType,
        Reason::MissingField,
        Reason::DuplicateField,
        Reason::UnknownField,
        Reason::NullKey,
        Reason::BadKey,
        Reason::NullOrder,
    ];

    /// The name in metrics and dead letters: lowercase words joined by underscores.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Reason::Magic => "bad_magic_byte",
            Reason::TooShort => "too_short",
            Reason::TooLarge => "too_large",
            Reason::Truncated => "truncated",
            Reason::TrailingBytes => "trailing_bytes",
            Reason::BadVarint => "bad_varint",
            Reason::TooDeep => "too_deep",
            Reason::BadLength => "bad_length",
            Reason::BadBlock => "bad_block",
            Reason::UnionBranch => "bad_union_branch",
            Reason::EnumIndex => "bad_enum_index",
            Reason::BadBoolean => "bad_boolean",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::OutOfRange => "out_of_range",
            Reason::DecimalPrecision => "decimal_precision",
            Reason::BadUuid => "bad_uuid",
            Reason::WireType => "wire_type",
            Reason::NotJson => "not_json",
            Reason::WrongType => "wrong_type",
            Reason::MissingField => "missing_field",
            Reason::DuplicateField => "duplicate_field",
            Reason::UnknownField => "unknown_field",
            Reason::NullKey => "null_key",
            Reason::BadKey => "bad_key",
            Reason::NullOrder => "null_order",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Reason::Magic => "does not start with the magic byte 0 of the wire format",
            Reason::TooShort => "shorter than the five bytes of the wire format's header",
            Reason::TooLarge => "too large",
            Reason::Truncated => "ends inside a value",
            Reason::TrailingBytes => "has bytes after its last field",
            Reason::BadVarint => "an integer is longer or larger than its type",
            Reason::TooDeep => "a recursive value is nested more than 100 deep",
            Reason::BadLength => "a length is negative or beyond the body",
            Reason::BadBlock => "a block's count or size cannot be right",
            Reason::UnionBranch => "names a type that its schema does not have, or that is not of this table",
            Reason::EnumIndex => "names a symbol that the enum does not have",
            Reason::BadBoolean => "a boolean is neither 0 nor 1",
            Reason::InvalidUtf8 => "text is not utf-8",
            Reason::OutOfRange => "a time or number is not one that its column can hold exactly",
            Reason::DecimalPrecision => "a decimal has more digits than its precision",
            Reason::BadUuid => "text is not a uuid",
            Reason::WireType => "a field is not of the form that its type has",
            Reason::NotJson => "not json, or nested too deeply",
            Reason::WrongType => "not of the type that the schema says",
            Reason::MissingField => "it is required and not there",
            Reason::DuplicateField => "a name is there twice",
            Reason::UnknownField => "it has a field that the schema does not allow",
            Reason::NullKey => "the key is null",
            Reason::BadKey => "not of the form that record keys of this pipeline have",
            Reason::NullOrder => "the order_by column is null",
        }
    }
}

/// Which half of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Half {
    /// The record key.
    Key,
    /// The record value.
    Value,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Half::Key => "key",
            Half::Value => "value",
        })
    }
}

/// A record that cannot be a row, and why. The caller adds topic, partition and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// What is wrong.
    pub reason: Reason,
    /// Which half of the event it was found in.
    pub half: Half,
    /// The field in which decoding stopped, where it was inside one: in Avro the top-level one, else its path.
    pub field: Option<String>,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{}: {}, field `{field}`: {}", self.reason.code(), self.half, self.reason.text()),
            None => write!(f, "{}: {}: {}", self.reason.code(), self.half, self.reason.text()),
        }
    }
}

/// Why an event was not appended.
pub enum Stop {
    /// Its schema is not known yet.
    NeedsSchema { id: u32, of: Half },
    /// It cannot be read.
    Bad(BadRecord),
}

impl Stop {
    /// A schema is asked for.
    #[cold]
    pub fn needs(id: u32, of: Half) -> Box<Stop> {
        Box::new(Stop::NeedsSchema { id, of })
    }

    /// A record that is bad as a whole.
    #[cold]
    pub fn reason(reason: Reason, half: Half) -> Box<Stop> {
        Box::new(Stop::Bad(BadRecord { reason, half, field: None }))
    }

    /// A key or value in another encoding than Avro, bad at the field with this path.
    #[cold]
    pub fn foreign((reason, path): (Reason, String), half: Half) -> Box<Stop> {
        let field = (!path.is_empty()).then_some(path);
        Box::new(Stop::Bad(BadRecord { reason, half, field }))
    }

    /// A record in which a step failed; the steps are of these fields.
    #[cold]
    pub fn bad((reason, step): (Reason, usize), names: &[String], half: Half) -> Box<Stop> {
        Box::new(Stop::Bad(BadRecord { reason, half, field: names.get(step).cloned() }))
    }
}

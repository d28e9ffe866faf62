//! One Protobuf message → the Avro record of its schema.

use std::collections::HashMap;

use super::schema::{Count, Field, Kind, Message, Scalar};
use crate::avro::bad::Reason;
use crate::avro::cursor::Cursor;
use crate::avro::wire::RECORD_BYTES_MAX;
use crate::avro::write::{NANOS, put_bytes, put_index, put_instant, put_long};

/// The highest number that a field can have.
const NUMBER_MAX: u64 = (1 << 29) - 1;
/// About what an entry of a map takes in memory while a message is read.
const ENTRY_BYTES: usize = 64;
/// In front of each item of an array or map: a block of one.
const ONE: u8 = 2;

/// What is wrong with a value, and the path of the field where it was found.
pub type Fault = (Reason, String);

/// Appends the Avro body of a message to `out`.
///
/// # Errors
/// What is wrong, and where. `out` is of no use then.
pub fn write(message: &Message, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut state = State { path: Vec::new(), spent: 0 };
    put_message(message, body, out, &mut state).map_err(|reason| (reason, state.path.join(".")))
}

struct State<'s> {
    /// The fields around the value that is being read; after a failure it ends where that was.
    path: Vec<&'s str>,
    /// Bytes that came from elsewhere than the body: defaults, the names of enums.
    spent: usize,
}

impl State<'_> {
    fn spend(&mut self, bytes: usize) -> Result<(), Reason> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > RECORD_BYTES_MAX { Err(Reason::TooLarge) } else { Ok(()) }
    }
}

/// A value as it is on the wire.
#[derive(Clone, Copy)]
enum Raw<'b> {
    Varint(u64),
    Eight([u8; 8]),
    Bytes(&'b [u8]),
    Four([u8; 4]),
}

impl<'b> Raw<'b> {
    /// Reads the number of a field, and its value.
    fn next(cursor: &mut Cursor<'b>) -> Result<(u32, Raw<'b>), Reason> {
        let tag = cursor.varint()?;
        let number = match tag >> 3 {
            number @ 1..=NUMBER_MAX => number as u32,
            _ => return Err(Reason::WireType),
        };
        let raw = match tag & 7 {
            0 => Raw::Varint(cursor.varint()?),
            1 => Raw::Eight(cursor.array()?),
            2 => {
                let length = usize::try_from(cursor.varint()?).map_err(|_| Reason::BadLength)?;
                Raw::Bytes(cursor.take(length).map_err(|_| Reason::BadLength)?)
            }
            5 => Raw::Four(cursor.array()?),
            // Groups, and what is none of Protobuf's.
            _ => return Err(Reason::WireType),
        };
        Ok((number, raw))
    }
}

/// What came of a field.
enum Slot<'b> {
    Nothing,
    One(Raw<'b>),
    /// A message that came in parts, which say the same as one behind the other.
    Parts(Vec<u8>),
    /// The items of a repeated field, each as a block of an Avro array.
    Items(Vec<u8>),
    Entries(Entries),
}

/// The entries of a map: key, and value in Avro. A key that comes again has its last value.
#[derive(Default)]
struct Entries {
    list: Vec<(Vec<u8>, Vec<u8>)>,
    places: HashMap<Vec<u8>, usize>,
}

fn put_message<'s>(message: &'s Message, body: &[u8], out: &mut Vec<u8>, state: &mut State<'s>) -> Result<(), Reason> {
    state.spend(message.fields.len())?;
    let mut slots: Vec<Slot<'_>> = message.fields.iter().map(|_| Slot::Nothing).collect();
    let mut cursor = Cursor::new(body);
    while cursor.left() > 0 {
        let (number, raw) = Raw::next(&mut cursor)?;
        let Some(&place) = message.places.get(&number) else { continue };
        let field = &message.fields[place];
        state.path.push(&field.name);
        take(field, raw, &mut slots[place], state)?;
        if let Some(oneof) = field.oneof {
            let others = message.oneofs[oneof].iter().filter(|other| **other != place);
            others.for_each(|&other| slots[other] = Slot::Nothing);
        }
        state.path.pop();
    }
    for (field, slot) in message.fields.iter().zip(slots) {
        state.path.push(&field.name);
        put_field(field, slot, out, state)?;
        state.path.pop();
    }
    check_size(out)
}

fn check_size(out: &[u8]) -> Result<(), Reason> {
    if out.len() > RECORD_BYTES_MAX { Err(Reason::TooLarge) } else { Ok(()) }
}

/// Takes in one occurrence of a field.
fn take<'s, 'b>(field: &'s Field, raw: Raw<'b>, slot: &mut Slot<'b>, state: &mut State<'s>) -> Result<(), Reason> {
    match &field.count {
        Count::Repeated => {
            if !matches!(slot, Slot::Items(_)) {
                *slot = Slot::Items(Vec::new());
            }
            let Slot::Items(items) = slot else { return Ok(()) };
            put_items(&field.kind, raw, items, state)?;
            check_size(items)
        }
        Count::Map(key) => {
            if !matches!(slot, Slot::Entries(_)) {
                *slot = Slot::Entries(Entries::default());
            }
            let Slot::Entries(entries) = slot else { return Ok(()) };
            take_entry(*key, &field.kind, raw, entries, state)
        }
        _ => {
            *slot = taken(&field.kind, std::mem::replace(slot, Slot::Nothing), raw)?;
            Ok(())
        }
    }
}

/// What there is of a value that may be there once, after another occurrence: the parts of a message are merged, of
/// anything else the last one counts.
fn taken<'b>(kind: &Kind, before: Slot<'b>, raw: Raw<'b>) -> Result<Slot<'b>, Reason> {
    check_wire(kind, raw)?;
    let merges = matches!(kind, Kind::Message(_) | Kind::Wrapper(_) | Kind::Timestamp);
    Ok(match (before, raw) {
        (Slot::One(Raw::Bytes(first)), Raw::Bytes(more)) if merges => Slot::Parts([first, more].concat()),
        (Slot::Parts(mut parts), Raw::Bytes(more)) if merges => {
            parts.extend_from_slice(more);
            Slot::Parts(parts)
        }
        (_, raw) => Slot::One(raw),
    })
}

/// Whether a value has the form on the wire that its type has.
fn check_wire(kind: &Kind, raw: Raw<'_>) -> Result<(), Reason> {
    let fits = match kind {
        Kind::Scalar(scalar) => scalar.fits(raw),
        Kind::Enum(_) => matches!(raw, Raw::Varint(_)),
        Kind::Message(_) | Kind::Wrapper(_) | Kind::Timestamp => matches!(raw, Raw::Bytes(_)),
    };
    if fits { Ok(()) } else { Err(Reason::WireType) }
}

impl Scalar {
    fn fits(self, raw: Raw<'_>) -> bool {
        match self {
            Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64 => matches!(raw, Raw::Eight(_)),
            Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32 => matches!(raw, Raw::Four(_)),
            Scalar::Text | Scalar::Bytes => matches!(raw, Raw::Bytes(_)),
            _ => matches!(raw, Raw::Varint(_)),
        }
    }

    /// The next value of a packed list; none for types that are not packed.
    fn unpack<'b>(self, cursor: &mut Cursor<'b>) -> Result<Raw<'b>, Reason> {
        match self {
            Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64 => Ok(Raw::Eight(cursor.array()?)),
            Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32 => Ok(Raw::Four(cursor.array()?)),
            Scalar::Text | Scalar::Bytes => Err(Reason::WireType),
            _ => Ok(Raw::Varint(cursor.varint()?)),
        }
    }
}

/// Appends the items of one occurrence of a repeated field: one, or a packed list.
fn put_items<'s>(kind: &'s Kind, raw: Raw<'_>, items: &mut Vec<u8>, state: &mut State<'s>) -> Result<(), Reason> {
    let packed = match (kind, raw) {
        (Kind::Scalar(Scalar::Text | Scalar::Bytes), _) => None,
        (Kind::Scalar(scalar), Raw::Bytes(list)) => Some((*scalar, list)),
        (Kind::Enum(_), Raw::Bytes(list)) => Some((Scalar::Int32, list)),
        _ => None,
    };
    let Some((scalar, list)) = packed else {
        check_wire(kind, raw)?;
        items.push(ONE);
        return put_value(kind, raw, items, state);
    };
    let mut cursor = Cursor::new(list);
    while cursor.left() > 0 {
        let raw = scalar.unpack(&mut cursor)?;
        items.push(ONE);
        put_value(kind, raw, items, state)?;
        check_size(items)?;
    }
    Ok(())
}

fn take_entry<'s>(
    key: Scalar,
    kind: &'s Kind,
    raw: Raw<'_>,
    entries: &mut Entries,
    state: &mut State<'s>,
) -> Result<(), Reason> {
    let Raw::Bytes(entry) = raw else { return Err(Reason::WireType) };
    state.spend(ENTRY_BYTES)?;
    let (mut name, mut value) = (None, Slot::Nothing);
    let mut cursor = Cursor::new(entry);
    while cursor.left() > 0 {
        match Raw::next(&mut cursor)? {
            (1, raw) if key.fits(raw) => name = Some(raw),
            (2, raw) => value = taken(kind, value, raw)?,
            (1, _) => return Err(Reason::WireType),
            _ => {}
        }
    }
    let name = key_text(key, name)?;
    let mut written = Vec::new();
    match value {
        Slot::One(raw) => put_value(kind, raw, &mut written, state)?,
        Slot::Parts(parts) => put_value(kind, Raw::Bytes(&parts), &mut written, state)?,
        _ => put_default(kind, &mut written, state)?,
    }
    match entries.places.get(&name) {
        Some(&place) => entries.list[place].1 = written,
        None => {
            entries.places.insert(name.clone(), entries.list.len());
            entries.list.push((name, written));
        }
    }
    Ok(())
}

/// A key of a map as text.
fn key_text(key: Scalar, raw: Option<Raw<'_>>) -> Result<Vec<u8>, Reason> {
    Ok(match (key, raw) {
        (Scalar::Text, Some(Raw::Bytes(text))) => text.to_vec(),
        (Scalar::Text, _) => Vec::new(),
        (Scalar::Bool, Some(Raw::Varint(value))) => (value != 0).to_string().into_bytes(),
        (Scalar::Bool, _) => b"false".to_vec(),
        (_, Some(raw)) => whole(key, raw)?.to_string().into_bytes(),
        (_, None) => b"0".to_vec(),
    })
}

/// Writes what came of a field.
fn put_field<'s>(field: &'s Field, slot: Slot<'_>, out: &mut Vec<u8>, state: &mut State<'s>) -> Result<(), Reason> {
    match (slot, &field.count) {
        (Slot::Items(items), _) => {
            out.extend_from_slice(&items);
            out.push(0);
        }
        (Slot::Entries(entries), _) => {
            for (name, value) in entries.list {
                out.push(ONE);
                put_bytes(out, &name);
                out.extend_from_slice(&value);
            }
            out.push(0);
        }
        (Slot::Nothing, Count::Required) => return Err(Reason::MissingField),
        (Slot::Nothing, Count::Repeated | Count::Map(_)) => out.push(0),
        (Slot::Nothing, _) if field.nullable() => out.push(0),
        (Slot::Nothing, _) => put_default(&field.kind, out, state)?,
        (Slot::One(raw), _) => {
            if field.nullable() {
                put_index(out, 1);
            }
            put_value(&field.kind, raw, out, state)?;
        }
        (Slot::Parts(parts), _) => {
            if field.nullable() {
                put_index(out, 1);
            }
            put_value(&field.kind, Raw::Bytes(&parts), out, state)?;
        }
    }
    Ok(())
}

/// Writes a value whose form on the wire was checked.
fn put_value<'s>(kind: &'s Kind, raw: Raw<'_>, out: &mut Vec<u8>, state: &mut State<'s>) -> Result<(), Reason> {
    match (kind, raw) {
        (Kind::Scalar(scalar), raw) => put_scalar(*scalar, raw, out),
        (Kind::Enum(names), Raw::Varint(number)) => {
            let number = int32(number)?;
            match names.get(&number) {
                Some(name) => {
                    state.spend(name.len())?;
                    put_bytes(out, name.as_bytes());
                }
                // A newer schema may have a name for it.
                None => put_bytes(out, number.to_string().as_bytes()),
            }
            Ok(())
        }
        (Kind::Message(message), Raw::Bytes(body)) => put_message(message, body, out, state),
        (Kind::Wrapper(scalar), Raw::Bytes(body)) => {
            let mut value = None;
            let mut cursor = Cursor::new(body);
            while cursor.left() > 0 {
                if let (1, raw) = Raw::next(&mut cursor)? {
                    value = Some(raw).filter(|raw| scalar.fits(*raw));
                    value.ok_or(Reason::WireType)?;
                }
            }
            state.spend(1)?;
            match value {
                Some(raw) => put_scalar(*scalar, raw, out),
                None => {
                    put_nothing(*scalar, out);
                    Ok(())
                }
            }
        }
        (Kind::Timestamp, Raw::Bytes(body)) => {
            state.spend(15)?;
            put_instant(out, timestamp(body)?);
            Ok(())
        }
        _ => Err(Reason::WireType),
    }
}

fn put_scalar(scalar: Scalar, raw: Raw<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match (scalar, raw) {
        (Scalar::Double, Raw::Eight(bytes)) => out.extend_from_slice(&bytes),
        (Scalar::Float, Raw::Four(bytes)) => out.extend_from_slice(&bytes),
        (Scalar::Bool, Raw::Varint(value)) => out.push(u8::from(value != 0)),
        (Scalar::Text | Scalar::Bytes, Raw::Bytes(bytes)) => put_bytes(out, bytes),
        (_, raw) => put_long(out, whole(scalar, raw)?),
    }
    Ok(())
}

/// A whole number, if it is one of its type and of a column.
fn whole(scalar: Scalar, raw: Raw<'_>) -> Result<i64, Reason> {
    let signed = |raw: u64| (raw >> 1) as i64 ^ -((raw & 1) as i64);
    match (scalar, raw) {
        (Scalar::Int32, Raw::Varint(value)) => int32(value).map(i64::from),
        (Scalar::Int64, Raw::Varint(value)) => Ok(value as i64),
        (Scalar::Uint32, Raw::Varint(value)) => u32::try_from(value).map(i64::from).map_err(|_| Reason::OutOfRange),
        (Scalar::Uint64, Raw::Varint(value)) => i64::try_from(value).map_err(|_| Reason::OutOfRange),
        (Scalar::Sint32, Raw::Varint(value)) => {
            i32::try_from(signed(value)).map(i64::from).map_err(|_| Reason::OutOfRange)
        }
        (Scalar::Sint64, Raw::Varint(value)) => Ok(signed(value)),
        (Scalar::Fixed32, Raw::Four(bytes)) => Ok(i64::from(u32::from_le_bytes(bytes))),
        (Scalar::Sfixed32, Raw::Four(bytes)) => Ok(i64::from(i32::from_le_bytes(bytes))),
        (Scalar::Fixed64, Raw::Eight(bytes)) => {
            i64::try_from(u64::from_le_bytes(bytes)).map_err(|_| Reason::OutOfRange)
        }
        (Scalar::Sfixed64, Raw::Eight(bytes)) => Ok(i64::from_le_bytes(bytes)),
        _ => Err(Reason::WireType),
    }
}

/// A negative number of 32 bits comes with 64.
fn int32(value: u64) -> Result<i32, Reason> {
    i32::try_from(value as i64).map_err(|_| Reason::OutOfRange)
}

/// Writes what a value is that did not come.
fn put_default<'s>(kind: &'s Kind, out: &mut Vec<u8>, state: &mut State<'s>) -> Result<(), Reason> {
    match kind {
        Kind::Scalar(scalar) => put_nothing(*scalar, out),
        Kind::Enum(_) => put_value(kind, Raw::Varint(0), out, state)?,
        Kind::Message(_) | Kind::Wrapper(_) | Kind::Timestamp => put_value(kind, Raw::Bytes(&[]), out, state)?,
    }
    state.spend(8)
}

/// Writes zero, false, or no bytes.
fn put_nothing(scalar: Scalar, out: &mut Vec<u8>) {
    let zeros = match scalar {
        Scalar::Double => 8,
        Scalar::Float => 4,
        _ => 1,
    };
    out.extend(std::iter::repeat_n(0, zeros));
}

/// The seconds and nanoseconds of a `google.protobuf.Timestamp`, which has no digits behind these.
fn timestamp(body: &[u8]) -> Result<(i64, u32, bool), Reason> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut cursor = Cursor::new(body);
    while cursor.left() > 0 {
        match Raw::next(&mut cursor)? {
            (1, Raw::Varint(value)) => seconds = value as i64,
            (2, Raw::Varint(value)) => nanos = int32(value)?,
            (1 | 2, _) => return Err(Reason::WireType),
            _ => {}
        }
    }
    match u32::try_from(nanos) {
        Ok(nanos @ 0..NANOS) => Ok((seconds, nanos, false)),
        _ => Err(Reason::OutOfRange),
    }
}

//! One JSON value → the Avro record of its schema.
//!
//! What comes is checked as far as columns need it: types, required fields, names that are there twice, listed values, and
//! that numbers and times are kept exactly. Other rules of JSON Schema are between producer and serializer.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, NaiveDate};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::schema::{Kind, Node, Object};
use crate::avro::bad::Reason;
use crate::avro::wire::RECORD_BYTES_MAX;
use crate::avro::write::{NANOS, put_bytes, put_index, put_instant, put_long};

/// Below it a double has all whole numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// About what an entry of a map takes in memory while it is read.
const ENTRY_BYTES: usize = 64;
/// A field that did not come.
const ABSENT: (usize, usize) = (usize::MAX, 0);
/// In front of each item of an array or map: a block of one.
const ONE: u8 = 2;

/// What is wrong with a value, and the path of the field where it was found.
pub type Fault = (Reason, String);

/// Appends the Avro form of a value to `out`.
///
/// # Errors
/// What is wrong, and where. `out` is of no use then.
pub fn write(node: &Node, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut state = State { out, path: Vec::new(), slots: Vec::new(), spent: 0, reason: None };
    let read = Place { node, state: &mut state }.deserialize(&mut json);
    let error = match read.and_then(|()| json.end()) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let reason = state.reason.unwrap_or(match error.classify() {
        Category::Data => Reason::WrongType,
        _ => Reason::NotJson,
    });
    Err((reason, state.path.join(".")))
}

struct State<'s, 'o> {
    out: &'o mut Vec<u8>,
    /// The fields around the value that is being read.
    path: Vec<&'s str>,
    /// Where the fields of the objects around it were written.
    slots: Vec<(usize, usize)>,
    /// About what the entries of maps take in memory while they are read.
    spent: usize,
    /// Why it failed, where that is not about the type.
    reason: Option<Reason>,
}

impl State<'_, '_> {
    fn fail<E: serde::de::Error>(&mut self, reason: Reason) -> E {
        self.reason = Some(reason);
        E::custom("")
    }

    fn check_listed<E: serde::de::Error>(&mut self, node: &Node, number: f64) -> Result<(), E> {
        if node.allows(number) { Ok(()) } else { Err(self.fail(Reason::EnumIndex)) }
    }

    fn check_size<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.out.len().max(self.spent) > RECORD_BYTES_MAX { Err(self.fail(Reason::TooLarge)) } else { Ok(()) }
    }
}

/// A value that is to be written.
struct Place<'s, 't, 'o> {
    node: &'s Node,
    state: &'t mut State<'s, 'o>,
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.node.nullable { json.deserialize_option(self) } else { self.present(json) }
    }
}

impl<'de> Visitor<'de> for Place<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null or a value")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.state.out.push(0);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        put_index(self.state.out, 1);
        self.present(json)
    }
}

impl<'s> Place<'s, '_, '_> {
    fn present<'de, D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Place { node, state } = self;
        match &node.kind {
            Kind::Boolean => {
                json.deserialize_bool(Flag(state))?;
                let flag = state.out.last().copied().unwrap_or_default();
                state.check_listed(node, flag.into())
            }
            Kind::Int | Kind::Long | Kind::Float | Kind::Double | Kind::Decimal { .. } => {
                let literal = <&RawValue as serde::Deserialize>::deserialize(json)?;
                number(&node.kind, literal.get(), state.out).map_err(|reason| state.fail(reason))?;
                // A decimal in base64 is no number, and has no list.
                literal.get().parse().map_or(Ok(()), |number| state.check_listed(node, number))
            }
            Kind::List(items) => json.deserialize_seq(Items { items, state }),
            Kind::Map(values) => json.deserialize_map(Entries { values, state }),
            Kind::Object(object) => json.deserialize_map(Fields { object, state }),
            kind => json.deserialize_str(Text { kind, state }),
        }
    }
}

struct Flag<'t, 's, 'o>(&'t mut State<'s, 'o>);

impl Visitor<'_> for Flag<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.0.out.push(u8::from(value));
        Ok(())
    }
}

struct Text<'s, 't, 'o> {
    kind: &'s Kind,
    state: &'t mut State<'s, 'o>,
}

impl Visitor<'_> for Text<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        text_of(self.kind, text, self.state.out).map_err(|reason| self.state.fail(reason))
    }
}

struct Items<'s, 't, 'o> {
    items: &'s Node,
    state: &'t mut State<'s, 'o>,
}

impl<'de> Visitor<'de> for Items<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Items { items, state } = self;
        state.path.push("element");
        loop {
            state.out.push(ONE);
            if list.next_element_seed(Place { node: items, state: &mut *state })?.is_none() {
                break;
            }
            state.check_size()?;
        }
        // Instead of the block that did not come.
        state.out.pop();
        state.out.push(0);
        state.path.pop();
        Ok(())
    }
}

struct Entries<'s, 't, 'o> {
    values: &'s Node,
    state: &'t mut State<'s, 'o>,
}

impl<'de> Visitor<'de> for Entries<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Entries { values, state } = self;
        let mut names = HashSet::new();
        state.path.push("value");
        while let Some(name) = object.next_key::<String>()? {
            state.out.push(ONE);
            state.spent += ENTRY_BYTES;
            put_bytes(state.out, name.as_bytes());
            if !names.insert(name) {
                return Err(state.fail(Reason::DuplicateField));
            }
            object.next_value_seed(Place { node: values, state: &mut *state })?;
            state.check_size()?;
        }
        state.out.push(0);
        state.path.pop();
        Ok(())
    }
}

struct Fields<'s, 't, 'o> {
    object: &'s Object,
    state: &'t mut State<'s, 'o>,
}

impl<'de> Visitor<'de> for Fields<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut json: A) -> Result<(), A::Error> {
        let Fields { object, state } = self;
        let (start, slot) = (state.out.len(), state.slots.len());
        state.slots.resize(slot + object.fields.len(), ABSENT);
        let (mut next, mut in_order) = (0, true);
        while let Some(place) = json.next_key_seed(Name(object))? {
            let Some(place) = place else {
                if object.closed {
                    return Err(state.fail(Reason::UnknownField));
                }
                json.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &object.fields[place];
            state.path.push(&field.name);
            if state.slots[slot + place] != ABSENT {
                return Err(state.fail(Reason::DuplicateField));
            }
            let from = state.out.len();
            json.next_value_seed(Place { node: &field.node, state: &mut *state })?;
            state.slots[slot + place] = (from, state.out.len());
            in_order &= place == next;
            next += 1;
            state.path.pop();
        }
        if !in_order || next < object.fields.len() {
            put_in_order(object, state, (start, slot))?;
        }
        state.slots.truncate(slot);
        state.check_size()
    }
}

/// Writes the fields of an object in the order of its schema; those that did not come are null.
fn put_in_order<'s, E: serde::de::Error>(
    object: &'s Object,
    state: &mut State<'s, '_>,
    (start, slot): (usize, usize),
) -> Result<(), E> {
    let written = state.out.split_off(start);
    for (place, field) in object.fields.iter().enumerate() {
        match state.slots[slot + place] {
            ABSENT if field.required => {
                state.path.push(&field.name);
                return Err(state.fail(Reason::MissingField));
            }
            ABSENT => state.out.push(0),
            (from, to) => state.out.extend_from_slice(&written[from - start..to - start]),
        }
    }
    Ok(())
}

/// The place of a field by its name.
struct Name<'s>(&'s Object);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.places.get(name).copied())
    }
}

/// Writes a value whose JSON is a text.
fn text_of(kind: &Kind, text: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
    match kind {
        Kind::Symbol(symbols) => {
            let at = symbols.iter().position(|symbol| **symbol == *text);
            put_index(out, at.ok_or(Reason::EnumIndex)?);
        }
        Kind::Date => put_long(out, i64::from(date(text)?)),
        Kind::Instant => put_instant(out, instant(text)?),
        Kind::Bytes => put_bytes(out, &BASE64_STANDARD.decode(text).map_err(|_| Reason::WrongType)?),
        _ => put_bytes(out, text.as_bytes()),
    }
    Ok(())
}

/// Days since 1970.
fn date(text: &str) -> Result<i32, Reason> {
    let days = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10);
    days.map(|day| day.to_epoch_days()).ok_or(Reason::WrongType)
}

/// A point in time, and whether there are digits behind its nanoseconds.
fn instant(text: &str) -> Result<(i64, u32, bool), Reason> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| Reason::WrongType)?;
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let finer = fraction.bytes().take_while(u8::is_ascii_digit).skip(9).any(|digit| digit != b'0');
    match time.timestamp_subsec_nanos() {
        nanos @ 0..NANOS => Ok((time.timestamp(), nanos, finer)),
        // A leap second.
        _ => Err(Reason::OutOfRange),
    }
}

/// Writes a value whose JSON is a number, from its literal.
fn number(kind: &Kind, literal: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
    let is_number = literal.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match kind {
        Kind::Decimal { scale, .. } => return decimal(literal, is_number, *scale, out),
        _ if !is_number => return Err(Reason::WrongType),
        Kind::Int => put_long(out, i64::from(i32::try_from(whole(literal)?).map_err(|_| Reason::OutOfRange)?)),
        Kind::Long => put_long(out, whole(literal)?),
        Kind::Float => {
            let value: f32 = literal.parse().map_err(|_| Reason::WrongType)?;
            check_exact(literal, f64::from(value))?;
            out.extend_from_slice(&value.to_le_bytes());
        }
        _ => {
            let value: f64 = literal.parse().map_err(|_| Reason::WrongType)?;
            check_exact(literal, value)?;
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    Ok(())
}

/// A whole number; `1.0` and `1e3` are ones too.
fn whole(literal: &str) -> Result<i64, Reason> {
    if !literal.contains(['.', 'e', 'E']) {
        return literal.parse().map_err(|_| Reason::OutOfRange);
    }
    match literal.parse::<f64>() {
        Ok(value) if value.fract() != 0.0 => Err(Reason::WrongType),
        Ok(value) if value.abs() < EXACT_MAX => Ok(value as i64),
        _ => Err(Reason::OutOfRange),
    }
}

/// A fraction is taken to its nearest binary number, as everyone reads it; a whole number must not become another one.
fn check_exact(literal: &str, value: f64) -> Result<(), Reason> {
    let whole = !literal.contains(['.', 'e', 'E']);
    let kept =
        value.is_finite() && (!whole || value.abs() < EXACT_MAX / 536_870_912.0 || format!("{value:.0}") == literal);
    if kept { Ok(()) } else { Err(Reason::OutOfRange) }
}

/// A number, or the base64 of its unscaled value, as Kafka Connect writes decimals.
fn decimal(literal: &str, is_number: bool, scale: u8, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !is_number {
        let text: String = serde_json::from_str(literal).map_err(|_| Reason::WrongType)?;
        put_bytes(out, &BASE64_STANDARD.decode(text).map_err(|_| Reason::WrongType)?);
        return Ok(());
    }
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().map_err(|_| Reason::OutOfRange)?;
    let digits = format!("{whole}{fraction}");
    let mut value: i128 = digits.parse().map_err(|_| Reason::DecimalPrecision)?;
    let mut shift = exponent.saturating_add(i64::from(scale)).saturating_sub(fraction.len() as i64);
    while shift != 0 && value != 0 {
        let next = match shift > 0 {
            true => value.checked_mul(10),
            false => (value % 10 == 0).then_some(value / 10),
        };
        value = next.ok_or(Reason::DecimalPrecision)?;
        shift -= shift.signum();
    }
    put_bytes(out, &value.to_be_bytes());
    Ok(())
}

//! Carries out a plan: one record from a cursor into the columns.

use super::bad::Reason;
use super::branches::{Branch, Content};
use super::columns::{Column, Data, close, fits};
use super::cursor::{Cursor, Input, is_utf8};
use super::plan::{Items, Read, Record, Skip, Step, Union, Value};
use super::write::NANOS;
use crate::core::schema::DAY_MICROS;

/// Milliseconds of a day.
pub const DAY_MILLIS: i32 = 86_400_000;

/// Appends one record. After an error, which comes with the number of the step it stopped in, the columns have to be
/// truncated to the row before.
#[inline]
pub fn append_record(record: &Record, columns: &mut [Column], cursor: &mut Cursor<'_>) -> Result<(), (Reason, usize)> {
    let mut input = cursor.input;
    for (i, step) in record.steps.iter().enumerate() {
        let done = match step {
            Step::Append { column, value } => match columns.get_mut(*column) {
                Some(column) => append_value(value, column, &mut input, cursor),
                None => Ok(()),
            },
            Step::Skip(skip) => apart(&mut input, cursor, |cursor| pass_over(skip, cursor)),
        };
        if let Err(reason) = done {
            return Err((reason, i));
        }
    }
    cursor.input = input;
    for (column, constant) in &record.missing {
        if let Some(column) = columns.get_mut(*column) {
            let pushed = match constant {
                None => column.push_null(),
                Some(constant) => column.push_constant(constant),
            };
            pushed.map_err(|reason| (reason, usize::MAX))?;
        }
    }
    Ok(())
}

/// Does something that needs the whole cursor. No call is given the address of `input`: it is to stay in registers.
#[inline(always)]
fn apart<'a, T>(input: &mut Input<'a>, cursor: &mut Cursor<'a>, act: impl FnOnce(&mut Cursor<'a>) -> T) -> T {
    cursor.input = *input;
    let done = act(cursor);
    *input = cursor.input;
    done
}

/// Appends a value of a common type; the rest is behind calls.
#[inline(always)]
fn append_value<'a>(
    value: &Value,
    column: &mut Column,
    input: &mut Input<'a>,
    cursor: &mut Cursor<'a>,
) -> Result<(), Reason> {
    let present = match value.union {
        Union::Never => true,
        Union::Many { .. } => return apart(input, cursor, |cursor| append_one_of_many(value, column, cursor)),
        union => match (input.varint()?, union) {
            (0, Union::Single | Union::NullLast) | (2, Union::NullFirst) => true,
            (0, Union::NullFirst) | (2, Union::NullLast) => false,
            _ => return Err(Reason::UnionBranch),
        },
    };
    if !present {
        return null(value, column);
    }
    match (&value.read, &mut column.data) {
        (Read::Long, Data::Long(v)) => v.push(input.long()?),
        (Read::Int, Data::Int(v)) => v.push(input.int()?),
        (Read::Double, Data::Double(v)) => v.push(input.double()?),
        (Read::Text, Data::Bytes(v)) => match input.short_text() {
            Some((word, len)) => v.push_short(&word.to_le_bytes(), len)?,
            None => v.push(input.text()?)?,
        },
        (Read::Symbol(symbols), Data::Bytes(v)) => {
            let symbol = &symbols[input.index(symbols.len(), Reason::EnumIndex)?];
            match &symbol.short {
                Some(short) => v.push_short(short, symbol.text.len())?,
                None => v.push(symbol.text.as_bytes())?,
            }
        }
        (Read::Scaled(factor), Data::Long(v)) => {
            v.push(input.long()?.checked_mul(*factor).ok_or(Reason::OutOfRange)?);
        }
        (read, _) => apart(input, cursor, |cursor| append_other(read, column, cursor))?,
    }
    column.present();
    Ok(())
}

#[inline(always)]
fn null(value: &Value, column: &mut Column) -> Result<(), Reason> {
    match value.refuse_null {
        Some(reason) => Err(reason),
        None => column.push_null(),
    }
}

/// Appends a value where only the cursor is at hand.
fn append(value: &Value, column: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    let mut input = cursor.input;
    append_value(value, column, &mut input, cursor)?;
    cursor.input = input;
    Ok(())
}

/// Appends a value of a union of more than null and one type.
#[inline(never)]
fn append_one_of_many(value: &Value, column: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    cursor.branch = cursor.varint()?;
    if value.union == (Union::Many { null: cursor.branch }) {
        return null(value, column);
    }
    append_other(&value.read, column, cursor)?;
    column.present();
    Ok(())
}

#[inline(never)]
fn append_other(read: &Read, column: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    match (read, &mut column.data) {
        (Read::Boolean, Data::Boolean(v)) => v.append(cursor.boolean()?),
        (Read::IntToLong, Data::Long(v)) => v.push(i64::from(cursor.int()?)),
        (Read::DateToTimestamp, Data::Long(v)) => {
            v.push(i64::from(cursor.int()?).checked_mul(DAY_MICROS).ok_or(Reason::OutOfRange)?);
        }
        (Read::Float, Data::Float(v)) => v.push(cursor.float()?),
        (Read::IntToFloat, Data::Float(v)) => v.push(cursor.int()? as f32),
        (Read::LongToFloat, Data::Float(v)) => v.push(cursor.long()? as f32),
        (Read::IntToDouble, Data::Double(v)) => v.push(f64::from(cursor.int()?)),
        (Read::LongToDouble, Data::Double(v)) => v.push(cursor.long()? as f64),
        (Read::FloatToDouble, Data::Double(v)) => v.push(f64::from(cursor.float()?)),
        (Read::Bytes, Data::Bytes(v)) => v.push(cursor.bytes()?)?,
        (Read::Fixed(n), Data::Fixed { bytes, .. }) => {
            fits(bytes.len() + n)?;
            bytes.extend_from_slice(cursor.take(*n)?);
        }
        (Read::UuidText, Data::Fixed { bytes, .. }) => bytes.extend_from_slice(&uuid(cursor.bytes()?)?),
        (Read::UuidBytesAsText, Data::Bytes(v)) => {
            let uuid = uuid::Uuid::from_bytes(cursor.array()?);
            v.push(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes())?;
        }
        (Read::Decimal { size, limit }, Data::Decimal(v)) => {
            let bytes = match size {
                Some(n) => cursor.take(*n)?,
                None => cursor.bytes()?,
            };
            v.push(decimal(bytes, *limit)?);
        }
        (Read::TimeMillis, Data::Long(v)) => match cursor.int()? {
            time @ 0..DAY_MILLIS => v.push(i64::from(time) * 1000),
            _ => return Err(Reason::OutOfRange),
        },
        (Read::TimeMicros, Data::Long(v)) => match cursor.long()? {
            time @ 0..DAY_MICROS => v.push(time),
            _ => return Err(Reason::OutOfRange),
        },
        (Read::Record(record), Data::Struct { fields, len }) => {
            append_record(record, fields, cursor).map_err(|(reason, _)| reason)?;
            *len += 1;
        }
        (Read::Array(items), Data::List { offsets, element }) => {
            each_item(items, cursor, |cursor| append(&items.value, element, cursor))?;
            close(offsets, element.len())?;
        }
        (Read::Map(items), Data::Map { offsets, key, value }) => {
            each_item(items, cursor, |cursor| {
                if let Data::Bytes(keys) = &mut key.data {
                    keys.push(cursor.text()?)?;
                }
                append(&items.value, value, cursor)
            })?;
            close(offsets, key.len())?;
        }
        (Read::Instant { per_second, exact }, Data::Long(v)) => v.push(instant(*per_second, *exact, cursor)?),
        (Read::Duration, Data::Struct { fields, len }) => {
            for part in fields {
                let value = u32::from_le_bytes(cursor.array()?);
                if let Data::Long(v) = &mut part.data {
                    v.push(value.into());
                }
                part.present();
            }
            *len += 1;
        }
        (Read::Branches(branches), Data::Struct { fields, len }) => {
            let at = if cursor.branch & 1 == 0 { (cursor.branch >> 1) as usize } else { usize::MAX };
            let branch = branches.get(at).and_then(Option::as_ref).ok_or(Reason::UnionBranch)?;
            append_branch(branch, fields, cursor)?;
            *len += 1;
        }
        (Read::Branch(branch), Data::Struct { fields, len }) => {
            append_branch(branch, fields, cursor)?;
            *len += 1;
        }
        (Read::Json(json, number), Data::Bytes(v)) => v.write(|text| json.append(*number, cursor, text))?,
        // A plan is compiled against the very fields that the columns are made of.
        _ => debug_assert!(false, "{read:?} does not fit its column"),
    }
    Ok(())
}

/// A point in time in units of which a second has so many. What is finer is cut off towards the past, as clocks do.
fn instant(per_second: i64, exact: bool, cursor: &mut Cursor<'_>) -> Result<i64, Reason> {
    let (seconds, twice_nanos) = (cursor.long()?, cursor.long()?);
    let (nanos, unit) = (twice_nanos >> 1, i64::from(NANOS) / per_second);
    if nanos % unit != 0 || twice_nanos & 1 == 1 {
        if exact || cursor.exact_times {
            return Err(Reason::OutOfRange);
        }
        cursor.cut_times += 1;
    }
    // The sum may be in range where the product is not.
    let units = i128::from(seconds) * i128::from(per_second) + i128::from(nanos / unit);
    i64::try_from(units).map_err(|_| Reason::OutOfRange)
}

/// Appends a value as one branch of a union's column: its tag, its field, and null in the fields of the others.
fn append_branch(branch: &Branch, fields: &mut [Column], cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    let Some((tag, fields)) = fields.split_first_mut() else { return Ok(()) };
    if let Data::Bytes(v) = &mut tag.data {
        v.push(&branch.tag)?;
    }
    tag.present();
    if let Content::Bare(skip) = &branch.content {
        pass_over(skip, cursor)?;
    }
    for (i, field) in fields.iter_mut().enumerate() {
        match &branch.content {
            Content::Field { at, value } if *at == i => append(value, field, cursor)?,
            _ => field.push_null()?,
        }
    }
    Ok(())
}

fn each_item<'a>(
    items: &Items,
    cursor: &mut Cursor<'a>,
    mut item: impl FnMut(&mut Cursor<'a>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    loop {
        let count = cursor.block(items.bytes_min)?;
        if count == 0 {
            return Ok(());
        }
        cursor.spend(count, items.memory)?;
        for _ in 0..count {
            item(cursor)?;
        }
    }
}

/// The 16 bytes of a UUID's text, in any of the forms of RFC 9562.
pub fn uuid(text: &[u8]) -> Result<[u8; 16], Reason> {
    uuid::Uuid::try_parse_ascii(text).map(uuid::Uuid::into_bytes).map_err(|_| Reason::BadUuid)
}

/// Big-endian two's complement of any length.
pub fn decimal(bytes: &[u8], limit: i128) -> Result<i128, Reason> {
    let Some(first) = bytes.first() else { return Err(Reason::BadLength) };
    let sign = if first & 0x80 == 0 { 0x00 } else { 0xff };
    let (more, low) = bytes.split_at(bytes.len().saturating_sub(16));
    if more.iter().any(|b| *b != sign) {
        return Err(Reason::DecimalPrecision);
    }
    let mut wide = [sign; 16];
    wide[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(wide);
    // Cut to sixteen bytes, a longer number may have lost its sign.
    let kept_sign = (value < 0) == (sign == 0xff);
    if kept_sign && value < limit && value > -limit { Ok(value) } else { Err(Reason::DecimalPrecision) }
}

/// Passes over a value, checking that it is well encoded.
fn pass_over(skip: &Skip, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    match skip {
        Skip::Nothing => {}
        Skip::Boolean => drop(cursor.boolean()?),
        Skip::Int => drop(cursor.int()?),
        Skip::Long => drop(cursor.long()?),
        Skip::Exactly(n) => drop(cursor.take(*n)?),
        Skip::Bytes => drop(cursor.bytes()?),
        Skip::Text => {
            let bytes = cursor.bytes()?;
            if !is_utf8(bytes) {
                return Err(Reason::InvalidUtf8);
            }
        }
        Skip::Symbol(len) => drop(cursor.index(*len, Reason::EnumIndex)?),
        Skip::Record(fields) => fields.iter().try_for_each(|f| pass_over(f, cursor))?,
        Skip::Union(branches) => pass_over(&branches[cursor.index(branches.len(), Reason::UnionBranch)?], cursor)?,
        Skip::Recursive(Some(json), number) => json.append(*number, cursor, &mut Vec::new())?,
        Skip::Recursive(None, _) => return Err(Reason::TooLarge),
        Skip::Array { items, bytes_min } => loop {
            match (cursor.block(*bytes_min)?, *bytes_min) {
                (0, _) => break,
                // Nothing to pass over, however many there are.
                (_, 0) => {}
                (count, _) => (0..count).try_for_each(|_| pass_over(items, cursor))?,
            }
        },
        Skip::Map { values, bytes_min } => loop {
            match cursor.block(*bytes_min)? {
                0 => break,
                count => (0..count).try_for_each(|_| {
                    cursor.text()?;
                    pass_over(values, cursor)
                })?,
            }
        },
    }
    Ok(())
}

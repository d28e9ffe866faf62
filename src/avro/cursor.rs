//! Reads Avro's primitives from bytes that nobody vouches for.

use super::bad::Reason;

/// How many items without bytes (nulls, empty records) one record may hold in all: they cost the sender nothing, so that
/// only a limit keeps their number down.
pub const EMPTY_ITEMS_MAX: u64 = 65_536;
/// How much memory the items of one record's collections may take as columns. A byte on the wire may be a null of a wide
/// struct or the number of a long symbol.
const ITEM_MEMORY_MAX: u64 = 256 << 20;

/// The unread part of one record, with what its collections have taken so far.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    /// The unread part alone. A loop over many fields takes it out, so that it stays in registers.
    pub input: Input<'a>,
    empty_items: u64,
    item_memory: u64,
    /// The branch of a union of many that was read last, as it is on the wire.
    pub branch: u64,
    /// Whether digits of a time that its column cannot hold make the record a bad one, instead of being cut off.
    pub exact_times: bool,
    /// How many times lost digits.
    pub cut_times: u64,
}

/// Bytes that are not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> std::ops::Deref for Cursor<'a> {
    type Target = Input<'a>;

    #[inline(always)]
    fn deref(&self) -> &Input<'a> {
        &self.input
    }
}

impl std::ops::DerefMut for Cursor<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.input
    }
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let input = Input { rest: bytes };
        Cursor { input, empty_items: 0, item_memory: 0, branch: 0, exact_times: false, cut_times: 0 }
    }

    /// The same, with or without leave to cut off digits of times.
    #[inline(always)]
    pub fn exact_times(self, exact_times: bool) -> Self {
        Cursor { exact_times, ..self }
    }

    /// Notes that `count` items become columns, each of at least `memory` bytes.
    pub fn spend(&mut self, count: usize, memory: u64) -> Result<(), Reason> {
        self.item_memory = self.item_memory.saturating_add((count as u64).saturating_mul(memory));
        if self.item_memory > ITEM_MEMORY_MAX { Err(Reason::TooLarge) } else { Ok(()) }
    }

    /// Bytes that the items noted so far take at least.
    pub fn spent(&self) -> usize {
        self.item_memory as usize
    }

    /// The number of items in the next block of an array or map, 0 at its end. `item_bytes` is the least that an item
    /// takes: a block that promises more items than the body can hold is refused before anything is done for them.
    pub fn block(&mut self, item_bytes: usize) -> Result<usize, Reason> {
        let mut count = self.long()?;
        if count < 0 {
            count = count.checked_neg().ok_or(Reason::BadBlock)?;
            let bytes = self.long()?;
            if usize::try_from(bytes).map_err(|_| Reason::BadBlock)? > self.left() {
                return Err(Reason::BadBlock);
            }
        }
        let count = count as u64;
        if item_bytes == 0 {
            self.empty_items = self.empty_items.saturating_add(count);
            if self.empty_items > EMPTY_ITEMS_MAX {
                return Err(Reason::BadBlock);
            }
        } else if count > (self.left() / item_bytes) as u64 {
            return Err(Reason::BadBlock);
        }
        Ok(count as usize)
    }
}

impl<'a> Input<'a> {
    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next eight bytes as a little-endian number, with zeros for those behind the end. `None`: fewer than four are
    /// left.
    #[inline(always)]
    fn ahead(&self) -> Option<u64> {
        if let Some(word) = self.rest.first_chunk() {
            return Some(u64::from_le_bytes(*word));
        }
        let (head, tail) = (self.rest.first_chunk()?, self.rest.last_chunk()?);
        // The tail overlaps the head by what is missing to eight bytes.
        let tail = u64::from(u32::from_le_bytes(*tail)) << (8 * (self.rest.len() - 4));
        Some(u64::from(u32::from_le_bytes(*head)) | tail)
    }

    /// A variable-length integer as it is on the wire, before zig-zag decoding. Union branches and enum symbols can be
    /// compared in this form: index n is 2n.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Reason> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    /// As [`Input::varint`], for integers that are seldom of one byte.
    #[inline(always)]
    fn wide_varint(&mut self) -> Result<u64, Reason> {
        let Some(word) = self.ahead() else { return self.varint() };
        // The high bit of the last byte is the lowest that is not set.
        let ends = !word & 0x8080_8080_8080_8080;
        let (rest, value) = match (ends as u32, ends) {
            (0, 0) => return self.long_varint(),
            (0, _) => (self.rest.get(ends.trailing_zeros() as usize / 8 + 1..), eight_sevens(word & until(ends))),
            (ends, _) => {
                let word = word as u32 & until(ends.into()) as u32;
                (self.rest.get(ends.trailing_zeros() as usize / 8 + 1..), four_sevens(word).into())
            }
        };
        match rest {
            Some(rest) => {
                self.rest = rest;
                Ok(value)
            }
            None => Err(Reason::Truncated),
        }
    }

    #[inline(always)]
    fn long_varint(&mut self) -> Result<u64, Reason> {
        match long_varint(self.rest) {
            (_, 0) => Err(if self.rest.len() < 10 { Reason::Truncated } else { Reason::BadVarint }),
            (value, bytes) => {
                self.rest = self.rest.get(bytes..).unwrap_or_default();
                Ok(value)
            }
        }
    }

    /// Reads a variable-length integer of 64 bits.
    #[inline(always)]
    pub fn long(&mut self) -> Result<i64, Reason> {
        self.wide_varint().map(zig_zag)
    }

    /// Reads a variable-length integer of 32 bits.
    #[inline(always)]
    pub fn int(&mut self) -> Result<i32, Reason> {
        i32::try_from(self.long()?).map_err(|_| Reason::BadVarint)
    }

    /// Reads a boolean, which is one byte, 0 or 1.
    #[inline(always)]
    pub fn boolean(&mut self) -> Result<bool, Reason> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Reason::BadBoolean),
        }
    }

    /// Reads a float of 32 bits.
    #[inline(always)]
    pub fn float(&mut self) -> Result<f32, Reason> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// Reads a float of 64 bits.
    #[inline(always)]
    pub fn double(&mut self) -> Result<f64, Reason> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Reads exactly `N` bytes.
    #[inline(always)]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next `n` bytes.
    #[inline(always)]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Reason> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes behind their length.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let n = zig_zag(self.varint()?);
        // A negative length is a huge one here.
        let n = usize::try_from(n).map_err(|_| Reason::BadLength)?;
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Reason::BadLength)?;
        self.rest = rest;
        Ok(head)
    }

    /// Text behind its length, checked to be UTF-8.
    #[inline(always)]
    pub fn text(&mut self) -> Result<&'a [u8], Reason> {
        let bytes = self.bytes()?;
        if is_utf8(bytes) { Ok(bytes) } else { Err(Reason::InvalidUtf8) }
    }

    /// As [`Input::text`], where it has one to eight bytes, all of them ASCII: as a number, and how many. `None`, and
    /// nothing is read, where it is anything else.
    #[inline(always)]
    pub fn short_text(&mut self) -> Option<(u64, usize)> {
        let [raw, rest @ ..] = self.rest else { return None };
        let len = usize::from(*raw / 2);
        if raw & 1 != 0 || !(1..=8).contains(&len) {
            return None;
        }
        let word = Input { rest }.ahead()?;
        let over = 64 - 8 * len as u32;
        if (word << over) & 0x8080_8080_8080_8080 != 0 {
            return None;
        }
        self.rest = rest.get(len..)?;
        Some((word, len))
    }

    /// The index of an enum symbol or a union branch out of `len`.
    #[inline(always)]
    pub fn index(&mut self, len: usize, otherwise: Reason) -> Result<usize, Reason> {
        let raw = self.varint()?;
        let index = (raw >> 1) as usize;
        if raw & 1 == 0 && index < len { Ok(index) } else { Err(otherwise) }
    }
}

/// All bits below the lowest that is set, and that one.
#[inline(always)]
fn until(bits: u64) -> u64 {
    bits ^ bits.wrapping_sub(1)
}

/// Puts together the low seven bits of four bytes.
#[inline(always)]
fn four_sevens(bytes: u32) -> u32 {
    let pairs = (bytes & 0x007f_007f) | ((bytes & 0x7f00_7f00) >> 1);
    (pairs & 0x3fff) | ((pairs & 0x3fff_0000) >> 2)
}

/// Puts together the low seven bits of eight bytes.
#[inline(always)]
fn eight_sevens(bytes: u64) -> u64 {
    u64::from(four_sevens(bytes as u32)) | (u64::from(four_sevens((bytes >> 32) as u32)) << 28)
}

/// A variable-length integer and how many bytes it has, which is 0 where it does not end or is wider than 64 bits.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            // The tenth byte holds bit 63 alone.
            return if i == 9 && byte > 1 { (0, 0) } else { (value, i + 1) };
        }
    }
    (0, 0)
}

#[inline(always)]
fn zig_zag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Most text is ASCII, for which the check is cheapest.
#[inline(always)]
pub fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::tests::long;

    #[test]
    fn every_long_comes_back() {
        let mut values = vec![0, -1, 1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        values.extend((0..63).flat_map(|bit| [1i64 << bit, -(1i64 << bit), (1i64 << bit) - 1]));
        for value in values {
            let bytes = long(value);
            for (before, behind) in places() {
                let body = [&before[..], &bytes, &behind].concat();
                let mut cursor = Cursor::new(&body);
                assert_eq!(cursor.take(before.len()), Ok(&before[..]));
                assert_eq!(cursor.long(), Ok(value));
                assert_eq!(cursor.left(), behind.len());
            }
            for (cut, (before, _)) in (0..bytes.len()).flat_map(|cut| places().map(move |place| (cut, place))) {
                let body = [&before[..], &bytes[..cut]].concat();
                let mut cursor = Cursor::new(&body);
                assert_eq!(cursor.take(before.len()), Ok(&before[..]));
                assert_eq!(cursor.long(), Err(Reason::Truncated), "{value} {cut}");
                assert_eq!(cursor.left(), cut);
            }
        }
    }

    /// What may be before and behind a value: enough for eight bytes at once, or not.
    fn places() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        (0..10).flat_map(|before| [0, 1, 5, 7, 8, 9].map(|behind| (vec![0xc3; before], vec![0xa4; behind])))
    }

    #[test]
    fn short_text_is_the_text() {
        let texts = ["", "a", "ab", "EURUSD", "12345678", "123456789", "ä", "1234567ä", "123456ä", "\0", "\u{7f}"];
        let broken = [&b"\xff"[..], b"123456\xc3", b"\x80234567"];
        for text in texts.iter().map(|text| text.as_bytes()).chain(broken) {
            for (before, behind) in places() {
                let whole = [&before[..], &long(text.len() as i64), text, &behind].concat();
                let lengths = before.len()..=whole.len();
                for body in lengths.map(|length| &whole[..length]) {
                    let mut short = Cursor::new(body);
                    assert_eq!(short.take(before.len()), Ok(&before[..]));
                    let (mut any, at) = (short.clone(), short.left());
                    match short.short_text() {
                        Some((word, len)) => {
                            assert_eq!(any.text(), Ok(&word.to_le_bytes()[..len]));
                            assert_eq!(short.left(), any.left());
                        }
                        None => {
                            assert_eq!(short.left(), at);
                            let slow = any.text().is_err() || !text.is_ascii() || !(1..=8).contains(&text.len());
                            assert!(slow || at < 5, "{text:?} {before:?} {behind:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(Cursor::new(&[0xff; 11]).long(), Err(Reason::BadVarint));
        assert_eq!(Cursor::new(&[0xff; 10]).long(), Err(Reason::BadVarint));
        let mut ten = [0xff; 10];
        ten[9] = 2;
        assert_eq!(Cursor::new(&ten).long(), Err(Reason::BadVarint));
        ten[9] = 1;
        assert_eq!(Cursor::new(&ten).long(), Ok(i64::MIN));
        assert_eq!(Cursor::new(&long(1 << 31)).int(), Err(Reason::BadVarint));
    }

    #[test]
    fn blocks_that_cannot_be_are_refused() {
        let block = |count: i64, tail: &[u8], item| {
            let bytes = [&long(count)[..], tail].concat();
            Cursor::new(&bytes).block(item)
        };
        assert_eq!(block(i64::MAX, &[0; 8], 1), Err(Reason::BadBlock));
        assert_eq!(block(i64::MIN, &[0; 8], 1), Err(Reason::BadBlock));
        assert_eq!(block(i64::MAX, &[0; 8], 0), Err(Reason::BadBlock));
        assert_eq!(block(-2, &[&long(4)[..], &[0; 4]].concat(), 1), Ok(2));
        assert_eq!(block(-2, &[&long(5)[..], &[0; 4]].concat(), 1), Err(Reason::BadBlock));
        assert_eq!(block(-2, &[&long(-1)[..], &[0; 4]].concat(), 1), Err(Reason::BadBlock));
        assert_eq!(block(3, &[0; 4], 1), Ok(3));
        assert_eq!(block(3, &[0; 4], 2), Err(Reason::BadBlock));
    }

    #[test]
    fn items_without_bytes_are_counted_over_the_whole_record() {
        let bytes = [long(40_000), long(40_000)].concat();
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.block(0), Ok(40_000));
        assert_eq!(cursor.block(0), Err(Reason::BadBlock));
    }
}

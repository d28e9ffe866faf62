//! The index as bytes: saved when the process stops, so that the next one need not read the key columns again.
//!
//! ```text
//! "firn-key-index\n" version:u32 tag:(len:u32, JSON) width:u8 ordered:u8
//! 256 shards:(keys:u64, slots) lists:u32 × (positions:u32 × (file:u32, row:u32, order:i64))
//! crc32:u32 over everything before it
//! ```
//! Numbers are little-endian. A slot is the key, its location word and, when ordered, its order value, 8 bytes each. A copy is
//! used only if all of it is there, its checksum is right, and its tag says what the reader needs; else it is thrown away.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use super::lists::{self, Lists, Word};
use super::table::{SHARDS, Table};
use super::{KeyIndex, KeyWidth, Location, Slots, on};

const MAGIC: &[u8] = b"firn-key-index\n";
const VERSION: u32 = 1;

/// Bytes read or written at once; also the most that is allocated on the word of a file before its bytes are there.
const BLOCK_BYTES: usize = 64 << 10;

/// What a saved index is an index of: a reader compares it with what it needs (the index itself cannot tell). It contains
/// the secret of the key encoding, so the file must be readable by its owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTag {
    /// The table's uuid.
    pub table: String,
    /// The snapshot that the index equals.
    pub snapshot: i64,
    /// That snapshot's sequence number.
    pub sequence: i64,
    /// Ids of the key columns in key order.
    pub key_fields: Vec<i32>,
    /// Their types.
    pub key_types: Vec<String>,
    /// [`super::ENCODING_VERSION`] of the writer.
    pub encoding_version: u32,
    /// Id of the column that orders a key's events.
    pub order_field: Option<i32>,
    /// Which order values it has, see [`crate::core::order::class`].
    #[serde(default)]
    pub order_class: Option<String>,
    /// Which keys the index is limited to; none: it has the whole table.
    pub slice: Option<String>,
    /// The secret with which keys were encoded.
    pub secret: [u64; 2],
    /// Number and path of each data file that a [`Location`] names.
    pub files: Vec<(u32, String)>,
}

/// Writes the index and its tag.
///
/// # Errors
/// Whatever `to` reports.
pub fn write(index: &KeyIndex, tag: &SavedTag, to: &mut impl Write) -> std::io::Result<()> {
    let mut out = Output { to, block: Vec::with_capacity(BLOCK_BYTES + 64), sum: crc32fast::Hasher::new() };
    let tag = serde_json::to_vec(tag).map_err(std::io::Error::other)?;
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&(tag.len() as u32).to_le_bytes())?;
    out.put(&tag)?;
    out.put(&[u8::from(index.width() == KeyWidth::Hashed), u8::from(index.ordered())])?;
    on!(&index.slots, table => write_slots(table, &mut out))?;
    let all = index.lists.all();
    out.put(&(all.len() as u32).to_le_bytes())?;
    for list in all {
        out.put(&(list.len() as u32).to_le_bytes())?;
        for (at, order) in list {
            out.put(&at.file.to_le_bytes())?;
            out.put(&at.row.to_le_bytes())?;
            out.put(&order.to_le_bytes())?;
        }
    }
    out.finish()
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// What is read is not, or not all of, a saved index of this version; the message says why. Memory is taken only for
/// bytes that are there, whatever the lengths in the file say.
pub fn read(from: &mut impl Read) -> Result<(SavedTag, KeyIndex), String> {
    let mut input = Input { from, sum: crc32fast::Hasher::new() };
    if input.bytes(MAGIC.len())? != MAGIC {
        return Err("not a saved index".into());
    }
    let version = input.number()?;
    if version != VERSION {
        return Err(format!("saved index of version {version}, this is {VERSION}"));
    }
    let length = input.number()? as usize;
    let tag = input.bytes(length)?;
    let flags = input.array::<2>()?;
    let width = if flags[0] == 0 { KeyWidth::Exact } else { KeyWidth::Hashed };
    let mut index = KeyIndex::new(width, flags[1] != 0);
    on!(&mut index.slots, table => read_slots(table, &mut input))?;
    index.lists = read_lists(&mut input)?;
    input.finish()?;
    check_lists(&index)?;
    let tag = serde_json::from_slice(&tag).map_err(|e| format!("saved index with an unreadable tag: {e}"))?;
    Ok((tag, index))
}

fn write_slots<const K: usize, const N: usize, W: Write>(
    table: &Table<K, N>,
    out: &mut Output<'_, W>,
) -> std::io::Result<()> {
    for (keys, slots) in table.shards() {
        out.put(&(keys as u64).to_le_bytes())?;
        for word in slots.flatten() {
            out.put(&word.to_le_bytes())?;
        }
    }
    Ok(())
}

fn read_slots<const K: usize, const N: usize, R: Read>(
    table: &mut Table<K, N>,
    input: &mut Input<'_, R>,
) -> Result<(), String> {
    let mut slots: Vec<[u64; N]> = Vec::new();
    let mut block = Vec::new();
    for shard in 0..SHARDS {
        slots.clear();
        let mut left = u64::from_le_bytes(input.array()?);
        while left > 0 {
            let many = left.min((BLOCK_BYTES / size_of::<[u64; N]>()) as u64);
            block.resize(many as usize * size_of::<[u64; N]>(), 0);
            input.fill(&mut block)?;
            let words = block.as_chunks::<8>().0.as_chunks::<N>().0;
            slots.extend(words.iter().map(|slot| slot.map(u64::from_le_bytes)));
            left -= many;
        }
        table.fill(shard, &slots).map_err(|e| format!("saved index is damaged: {e}"))?;
    }
    Ok(())
}

fn read_lists<R: Read>(input: &mut Input<'_, R>) -> Result<Lists, String> {
    let mut lists = Vec::new();
    for _ in 0..input.number()? {
        let mut list = Vec::new();
        for _ in 0..input.number()? {
            let at = Location { file: input.number()?, row: input.number()? };
            list.push((at, i64::from_le_bytes(input.array()?)));
        }
        lists.push(list);
    }
    Ok(Lists::from_all(lists))
}

/// Every list must belong to exactly one key.
fn check_lists(index: &KeyIndex) -> Result<(), String> {
    let mut wanted: Vec<bool> = index.lists.all().iter().map(|list| !list.is_empty()).collect();
    let mut claim = |word| match lists::read(word) {
        Word::One(_) => true,
        Word::List(id) => wanted.get_mut(id as usize).is_some_and(std::mem::take),
    };
    let claimed = on!(&index.slots, table => table.iter().all(|(_, (word, _))| claim(word)));
    if !claimed || wanted.contains(&true) {
        return Err("saved index is damaged: lists and keys do not match".into());
    }
    Ok(())
}

/// Bytes on their way out, gathered into blocks and summed.
struct Output<'a, W> {
    to: &'a mut W,
    block: Vec<u8>,
    sum: crc32fast::Hasher,
}

impl<W: Write> Output<'_, W> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK_BYTES { self.pass_on() } else { Ok(()) }
    }

    fn pass_on(&mut self) -> std::io::Result<()> {
        self.sum.update(&self.block);
        self.to.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.pass_on()?;
        self.to.write_all(&self.sum.finalize().to_le_bytes())?;
        self.to.flush()
    }
}

/// Bytes on their way in, summed.
struct Input<'a, R> {
    from: &'a mut R,
    sum: crc32fast::Hasher,
}

impl<R: Read> Input<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.from.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => "saved index ends too early".to_string(),
            _ => format!("reading the saved index: {e}"),
        })?;
        self.sum.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// So many bytes; allocated as they arrive.
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + BLOCK_BYTES), 0);
            self.fill(&mut bytes[start..])?;
        }
        Ok(bytes)
    }

    /// Compares the checksum, which must be the last of the file.
    fn finish(mut self) -> Result<(), String> {
        let sum = self.sum.clone().finalize();
        if self.number()? != sum {
            return Err("saved index is damaged: its checksum is wrong".into());
        }
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("saved index is damaged: there is more behind its end".into()),
            Err(e) => Err(format!("reading the saved index: {e}")),
        }
    }
}

#[cfg(test)]
mod tests;

use super::*;
use crate::core::change::Key;
use crate::core::key_index::tests::Draw;

fn tag() -> SavedTag {
    SavedTag {
        table: "0b7e8c0e-6b1c-4a53-9d52-7f1f0c5c9d11".into(),
        snapshot: i64::MIN + 1,
        sequence: 7,
        key_fields: vec![2, 1],
        key_types: vec!["string".into(), "decimal(10, 2)".into()],
        encoding_version: crate::core::key_index::ENCODING_VERSION,
        order_field: Some(9),
        order_class: Some("integer".into()),
        slice: None,
        secret: [u64::MAX, 1],
        files: vec![(0, "data/ä.parquet".into()), (7, String::new())],
    }
}

fn filled(width: KeyWidth, ordered: bool, keys: u64) -> KeyIndex {
    let mut index = KeyIndex::new(width, ordered);
    let mut draw = Draw(keys);
    for n in 0..keys {
        let high = if width == KeyWidth::Hashed { u128::from(draw.next()) << 64 } else { 0 };
        let key = Key(high | u128::from(draw.next()));
        index.insert(key, Location { file: 3, row: n as u32 }, n as i64 - 5);
        if n % 10 == 0 {
            index.insert(key, Location { file: 4, row: n as u32 }, i64::MAX);
        }
        if n % 20 == 0 {
            index.remove(key, Location { file: 3, row: n as u32 });
        }
    }
    index
}

fn bytes(index: &KeyIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(index, &tag(), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_saved_is_what_is_read() {
    for (width, ordered) in [(KeyWidth::Exact, false), (KeyWidth::Hashed, true), (KeyWidth::Exact, true)] {
        for keys in [0, 1, 500, 70_000] {
            let index = filled(width, ordered, keys);
            let bytes = bytes(&index);
            let (read_tag, mut read) = read(&mut &bytes[..]).unwrap();
            assert_eq!((read_tag, read.width(), read.ordered()), (tag(), width, ordered));
            assert!(read.iter().eq(index.iter()));
            assert!(read.memory() <= index.memory() * 17 / 16, "{} for {} bytes", read.memory(), index.memory());
            read.retain(|at| at.file == 3);
            assert!(read.iter().all(|(key, at, _)| at.file == 3 && read.locations(key).eq([at])));
        }
    }
}

#[test]
fn every_changed_byte_and_every_missing_end_is_noticed() {
    let bytes = bytes(&filled(KeyWidth::Exact, true, 40));
    for i in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            assert!(read(&mut &damaged[..]).is_err(), "byte {i} of {}", bytes.len());
        }
        assert!(read(&mut &bytes[..i]).is_err(), "cut at {i}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert!(read(&mut &longer[..]).unwrap_err().contains("behind its end"));
    assert!(read(&mut &b"PAR1 and so on, for more bytes than there are in the magic"[..]).is_err());
}

/// The file with a checksum that is right for what it says.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&body);
    body.extend(sum.to_le_bytes());
    body
}

#[test]
fn a_length_in_the_file_takes_no_memory_by_itself() {
    let head = [MAGIC, &VERSION.to_le_bytes()].concat();
    let tag = |length: u32, text: &[u8]| [&head[..], &length.to_le_bytes(), text].concat();
    let check = |body: Vec<u8>| assert!(read(&mut &sealed(body)[..]).unwrap_err().contains("ends too early"));
    check(tag(u32::MAX, b"{}"));
    check([tag(2, b"{}"), vec![0, 0], u64::MAX.to_le_bytes().to_vec()].concat());
    let no_keys = [tag(2, b"{}"), vec![1, 1], vec![0; 8 * SHARDS]].concat();
    check([no_keys.clone(), u32::MAX.to_le_bytes().to_vec()].concat());
    check([no_keys, 1_u32.to_le_bytes().to_vec(), u32::MAX.to_le_bytes().to_vec()].concat());
}

#[test]
fn a_file_with_a_right_checksum_but_wrong_contents_is_refused() {
    let index = filled(KeyWidth::Exact, false, 40);
    let good = bytes(&index);
    let body = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good[..good.len() - 4].to_vec();
        change(&mut body);
        read(&mut &sealed(body)[..]).err()
    };
    assert_eq!(body(&|_| ()), None);
    let end = good.len() - 4;
    // The last list now names no position, so its key's word leads nowhere.
    let last = index.lists.all().last().unwrap().len();
    let cut = end - last * 16 - 4;
    let empty_last = body(&|b| {
        b.truncate(cut);
        b.extend(0_u32.to_le_bytes());
    });
    assert!(empty_last.unwrap().contains("lists and keys"));
    let text = tag().table;
    let in_tag = good.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
    assert!(body(&|b| b[in_tag - 1] = b'!').unwrap().contains("unreadable tag"));
    let first_slot = good.windows(2).position(|w| w == b"]}").unwrap() + 4 + 8;
    assert!(body(&|b| b[first_slot + 7] ^= 0xff).is_some(), "a key of another shard");
}

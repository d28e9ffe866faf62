use iceberg::puffin::PuffinReader;

use super::*;
use crate::files::{read_position_deletes, to_delete_file, write_position_deletes};

fn some_sets() -> Vec<(Arc<str>, DeletedPositions)> {
    vec![
        (Arc::from("file:///t/data/a.parquet"), [1, 3, 70_000, u32::MAX].into_iter().collect()),
        (Arc::from("file:///t/data/none.parquet"), RoaringBitmap::new()),
        (Arc::from("file:///t/data/b.parquet"), (0..200_000).collect()),
    ]
}

/// Length 36, magic, one bitmap of key 0 (cookie 12346, one array container of key 0 with two values at byte 16), CRC-32.
#[test]
fn a_vector_has_the_bytes_of_the_specification() {
    let golden = [
        0, 0, 0, 36, 0xD1, 0xD3, 0x39, 0x64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3A, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 1,
        0, 16, 0, 0, 0, 1, 0, 3, 0,
    ];
    let bytes = encode_vector(&[1, 3].into_iter().collect());
    assert_eq!(bytes[..bytes.len() - 4], golden);
    assert_eq!(bytes[bytes.len() - 4..], crc32fast::hash(&golden[4..]).to_be_bytes());
}

#[test]
fn vectors_come_back_as_they_were() {
    for (_, set) in some_sets() {
        assert_eq!(decode_vector(&encode_vector(&set)).unwrap(), set);
        let treemap = roaring::RoaringTreemap::from_bitmaps((!set.is_empty()).then(|| (0, set.clone())));
        let mut portable = Vec::new();
        treemap.serialize_into(&mut portable).unwrap();
        assert_eq!(encode_vector(&set)[8..][..portable.len()], portable);
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let checked = [&VECTOR_MAGIC[..], payload].concat();
    [&(checked.len() as u32).to_be_bytes()[..], &checked, &crc32fast::hash(&checked).to_be_bytes()].concat()
}

#[test]
fn corrupt_vectors_are_refused() {
    let good = encode_vector(&[1, 3, 9].into_iter().collect());
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x40;
        assert!(matches!(decode_vector(&bad), Err(Error::Decision(_))), "byte {i}");
        assert!(decode_vector(&good[..i]).is_err(), "cut at {i}");
    }
    assert!(decode_vector(&[&good[..], &[0]].concat()).is_err());
    // With a right checksum: trailing bytes, more bitmaps than there are, an absurd count.
    let payload = &good[8..good.len() - 4];
    assert!(decode_vector(&framed(payload)).is_ok());
    assert!(decode_vector(&framed(&[payload, &[1]].concat())).is_err());
    assert!(decode_vector(&framed(&[&[2], &payload[1..]].concat())).is_err());
    assert!(decode_vector(&framed(&[0xFF; 8])).is_err());
}

#[test]
fn positions_beyond_32_bits_are_refused_by_name() {
    let far: roaring::RoaringTreemap = [5, (7 << 32) + 1].into_iter().collect();
    let mut portable = Vec::new();
    far.serialize_into(&mut portable).unwrap();
    let error = decode_vector(&framed(&portable)).unwrap_err().to_string();
    assert!(error.contains("position 30064771073 is beyond 2^32"), "{error}");
}

#[tokio::test]
async fn the_iceberg_crate_reads_our_puffin_files() {
    let folder = tempfile::tempdir().unwrap();
    let (store, at) = (Store::local(), format!("file://{}/data", folder.path().display()));
    let sets = some_sets();
    let written = write_vectors(&store, &at, "a9", &sets).await.unwrap();
    assert_eq!(written.len(), 2);
    let input = store.file_io().new_input(&written[0].path).unwrap();
    let reader = PuffinReader::new(input);
    let blobs = reader.file_metadata().await.unwrap().blobs().to_vec();
    for ((blob, vector), (name, set)) in blobs.iter().zip(&written).zip([&sets[0], &sets[2]]) {
        let DeleteEncoding::Vector { offset, length } = vector.encoding else { panic!() };
        assert_eq!((blob.offset(), blob.length()), (offset, length));
        assert_eq!((blob.blob_type(), blob.fields()), ("deletion-vector-v1", &[2_147_483_645][..]));
        assert_eq!((blob.snapshot_id(), blob.sequence_number()), (-1, -1));
        assert_eq!(blob.properties()["referenced-data-file"], **name);
        assert_eq!(blob.properties()["cardinality"], set.len().to_string());
        assert_eq!(decode_vector(reader.blob(blob).await.unwrap().data()).unwrap(), *set);
        assert_eq!(read_vector(&store, &vector.path, offset, length).await.unwrap(), *set);
        assert_eq!(store.size(&vector.path).await.unwrap(), vector.bytes);
        assert!(read_vector(&store, &vector.path, offset + 1, length).await.is_err());
        assert!(read_vector(&store, &vector.path, offset, u64::MAX).await.is_err());
        let entry = to_delete_file(vector, iceberg::spec::Struct::empty(), 0).unwrap();
        assert_eq!(entry.content_offset(), Some(offset as i64));
        assert_eq!(entry.record_count(), set.len());
    }
    assert!(write_vectors(&store, &at, "a9", &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn both_encodings_hold_the_same_positions() {
    let store = Store::over(Arc::new(object_store::memory::InMemory::new()));
    let sets = some_sets();
    let written = write_position_deletes(&store, "file:///t/data", "a1", &sets).await.unwrap();
    for (file, (name, set)) in written.iter().zip([&sets[0], &sets[2]]) {
        let read = read_position_deletes(&store, &file.path, None).await.unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[&**name], *set);
        assert!(read_position_deletes(&store, &file.path, Some("file:///t/data/x")).await.unwrap().is_empty());
    }
}

/// As Trino 476 writes it for Delta: position 3, and four zeros that the length counts and the bitmap does not.
#[test]
fn zeros_behind_the_bitmap_are_passed_over() {
    let trinos = [
        0x00, 0x00, 0x00, 0x26, 0xd1, 0xd3, 0x39, 0x64, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x3a, 0x30, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00,
        0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x94, 0xaf, 0x39, 0x06,
    ];
    assert_eq!(decode_vector(&trinos).unwrap(), RoaringBitmap::from_iter([3]));
}

use super::*;

/// A record of everything that can be wrong, and an unknown field that is passed over (`x` is in id 2 only).
fn schema(extra: &str) -> String {
    record(&format!(
        r#"{{"name":"id","type":"long"}},{{"name":"name","type":"string"}},{{"name":"flag","type":"boolean"}},
           {{"name":"side","type":{{"type":"enum","name":"E","symbols":["BUY","SELL"]}}}},
           {{"name":"list","type":{{"type":"array","items":["null",{{"type":"record","name":"L","fields":[
               {{"name":"a","type":"string"}},{{"name":"b","type":{{"type":"map","values":"int"}}}}]}}]}}}},
           {{"name":"f","type":{{"type":"fixed","name":"F","size":3}}}},
           {{"name":"u","type":["null",{{"type":"string","logicalType":"uuid"}}]}}{extra},
           {{"name":"last","type":"string"}}"#
    ))
}

const UNKNOWN: &str = r#",{"name":"x","type":[{"type":"array","items":"null"},{"type":"record","name":"X","fields":[{"name":"y","type":{"type":"map","values":"string"}}]}]}"#;

/// The parts of a body, so that one of them can be replaced.
fn parts(id: i64) -> Vec<Vec<u8>> {
    let item = [&[2][..], &text("aa"), &[2], &text("k"), &[6], &[0]].concat();
    let uuid = [&[2][..], &text("00112233-4455-6677-8899-aabbccddeeff")].concat();
    let list = [vec![4], item, vec![0], vec![0]].concat();
    vec![long(id), text("näme"), vec![1], vec![2], list, vec![1, 2, 3], uuid, text("end")]
}

/// The parts for id 2.
fn parts_2(id: i64) -> Vec<Vec<u8>> {
    let mut parts = parts(id);
    parts.insert(7, [&[2][..], &[2], &text("k"), &text("v"), &[0]].concat());
    parts
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut parts = parts(0);
    parts[at] = bytes.to_vec();
    wire(1, &parts.concat())
}

fn with_2(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut parts = parts_2(0);
    parts[at] = bytes.to_vec();
    wire(2, &parts.concat())
}

fn kinds() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let good = wire(1, &parts(0).concat());
    let map = |value: &[u8]| [&[2][..], &[2], &text("a"), value].concat();
    let mut magic = good.clone();
    magic[0] = 1;
    vec![
        ("magic byte", magic, Reason::Magic),
        ("empty value", vec![], Reason::TooShort),
        ("four bytes", vec![0, 0, 0, 0], Reason::TooShort),
        ("header only", wire(1, &[]), Reason::Truncated),
        ("trailing byte", [&good[..], &[0]].concat(), Reason::TrailingBytes),
        ("trailing record", [&good[..], &good[5..]].concat(), Reason::TrailingBytes),
        ("long varint", with(0, &[0xff; 10]), Reason::BadVarint),
        ("invalid utf-8", with(1, &[2, 0xff]), Reason::InvalidUtf8),
        ("invalid utf-8 in the last field", with(7, &[2, 0xff]), Reason::InvalidUtf8),
        ("negative length", with(1, &long(-1)), Reason::BadLength),
        ("length i64::MIN", with(1, &long(i64::MIN)), Reason::BadLength),
        ("length i64::MAX", with(1, &long(i64::MAX)), Reason::BadLength),
        ("length beyond the body", with(1, &long(1000)), Reason::BadLength),
        ("boolean", with(2, &[2]), Reason::BadBoolean),
        ("enum index beyond", with(3, &[4]), Reason::EnumIndex),
        ("enum index negative", with(3, &[1]), Reason::EnumIndex),
        ("enum index huge", with(3, &long(i64::MAX)), Reason::EnumIndex),
        ("union branch beyond", with(6, &[4]), Reason::UnionBranch),
        ("union branch negative", with(6, &[1]), Reason::UnionBranch),
        ("union branch in an item", with(4, &[2, 6, 0]), Reason::UnionBranch),
        ("block count i64::MAX", with(4, &long(i64::MAX)), Reason::BadBlock),
        ("block count i64::MIN", with(4, &[&long(i64::MIN)[..], &[2]].concat()), Reason::BadBlock),
        ("block size beyond the body", with(4, &[&long(-1)[..], &long(1 << 40)].concat()), Reason::BadBlock),
        ("block size negative", with(4, &[&long(-1)[..], &long(-1)].concat()), Reason::BadBlock),
        ("map count beyond", with(4, &map(&long(1_000_000))), Reason::BadBlock),
        ("map key not utf-8", with(4, &map(&[2, 2, 0xff, 2, 0, 0])), Reason::InvalidUtf8),
        (
            "int beyond 32 bits",
            with(4, &map(&[&[2, 2, b'k'][..], &long(1 << 40), &[0, 0]].concat())),
            Reason::BadVarint,
        ),
        ("uuid", with(6, &[&[2][..], &text("nonsense")].concat()), Reason::BadUuid),
        ("zero-byte items", with_2(7, &[&[0][..], &long(300_000_000), &[0]].concat()), Reason::BadBlock),
        ("zero-byte items i64::MIN", with_2(7, &[&[0][..], &long(i64::MIN), &[0]].concat()), Reason::BadBlock),
        ("branch of a skipped field", with_2(7, &[4]), Reason::UnionBranch),
        ("utf-8 of a skipped field", with_2(7, &[2, 2, 0, 2, 0xff, 0]), Reason::InvalidUtf8),
    ]
}

/// The rows that come of these good records, with the bad one at a place (or none).
fn batch(ids: &[u32], bad: Option<(usize, &[u8], Reason)>, what: &str) -> Vec<String> {
    let shape = EventShape { lineage: Some("_kafka".into()), ..upsert(&["id"]) };
    let mut decoder = decoder(&schema(""), &shape);
    decoder.add_value_schema(2, &schema(UNKNOWN)).unwrap();
    for at in 0..=ids.len() {
        if let Some((place, bytes, expected)) = bad
            && place == at
        {
            let before = (decoder.rows(), decoder.bytes());
            let pushed = push(&mut decoder, 99, None, Some(bytes));
            assert_eq!(reason(&pushed), Some(expected), "{what}: {pushed:?}");
            assert_eq!((decoder.rows(), decoder.bytes()), before, "{what}");
        }
        if let Some(id) = ids.get(at) {
            let body = if *id == 1 { parts(at as i64) } else { parts_2(at as i64) }.concat();
            assert_eq!(push(&mut decoder, at as i64, None, Some(&wire(*id, &body))), Pushed::Row, "{what}");
        }
    }
    let decoded = decoder.finish().unwrap();
    decoded.batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    assert_eq!(decoded.keys.len(), ids.len());
    assert_eq!(decoded.offsets, (0..ids.len() as i64).collect::<Vec<_>>());
    rows(&decoded.batch)
}

/// INV-16
#[test]
fn a_bad_record_of_any_kind_at_any_place_leaves_its_neighbours_alone() {
    let ids = [1, 2, 1, 1, 2];
    let clean = batch(&ids, None, "none");
    assert!(clean[4].starts_with(r#"4 "näme" true "SELL" [{"aa" <{"k" 3}>} null] [01, 02, 03]"#), "{}", clean[4]);
    for (what, bytes, expected) in kinds() {
        for place in [0, 2, ids.len()] {
            assert_eq!(batch(&ids, Some((place, &bytes, expected)), what), clean, "{what} at {place}");
        }
        assert!(batch(&[], Some((0, &bytes, expected)), what).is_empty());
    }
}

#[test]
fn a_record_cut_off_anywhere_leaves_its_neighbours_alone() {
    for (id, whole) in [(1, parts(0).concat()), (2, parts_2(0).concat())] {
        let mut decoder = decoder(&schema(""), &upsert(&["id"]));
        decoder.add_value_schema(2, &schema(UNKNOWN)).unwrap();
        for cut in 0..whole.len() {
            let pushed = push(&mut decoder, 0, None, Some(&wire(id, &whole[..cut])));
            assert!(reason(&pushed).is_some(), "{cut}: {pushed:?}");
            assert_eq!(push(&mut decoder, cut as i64, None, Some(&wire(id, &whole))), Pushed::Row);
        }
        let got = rows(&decoder.finish().unwrap().batch);
        assert_eq!(got.len(), whole.len());
        assert!(got.iter().all(|row| *row == got[0]));
    }
}

/// Flips bytes at random: whatever comes of it, the decoder neither panics nor loses or changes another record.
#[test]
fn damaged_records_never_harm_others() {
    let mut random = oracle::Random::new(7);
    let mut decoder = decoder(&schema(""), &upsert(&["id"]));
    decoder.add_value_schema(2, &schema(UNKNOWN)).unwrap();
    let good = parts(1).concat();
    let (mut bad, mut expected) = (0, 0);
    for round in 0..20_000 {
        let id = 1 + random.below(2) as u32;
        let mut bytes = wire(id, &if id == 1 { parts(5) } else { parts_2(5) }.concat());
        for _ in 0..=random.below(3) {
            let at = 5 + random.below(bytes.len() as u64 - 5) as usize;
            bytes[at] = random.next() as u8;
        }
        let rows_before = decoder.rows();
        match push(&mut decoder, round, None, Some(&bytes)) {
            Pushed::Row => assert_eq!(decoder.rows(), rows_before + 1),
            Pushed::Bad(_) => {
                bad += 1;
                assert_eq!(decoder.rows(), rows_before);
                assert_eq!(push(&mut decoder, -1, None, Some(&wire(1, &good))), Pushed::Row);
                expected += 1;
            }
            other => panic!("{other:?}"),
        }
        if decoder.rows() > 500 {
            let decoded = decoder.finish().unwrap();
            decoded.batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
            let rendered = rows(&decoded.batch);
            let clean: Vec<_> =
                decoded.offsets.iter().zip(&rendered).filter(|(o, _)| **o == -1).map(|(_, r)| r).collect();
            assert!(clean.iter().all(|row| **row == *clean[0]));
            expected -= clean.len();
        }
    }
    let rest = decoder.finish().unwrap().offsets.iter().filter(|o| **o == -1).count();
    assert_eq!(expected, rest);
    assert!(bad > 2_000, "{bad} of 20000 were refused");
}

#[test]
fn small_bytes_cannot_ask_for_large_memory() {
    let fields: Vec<_> = (0..1000).map(|i| format!(r#"{{"name":"c{i}","type":["null","long"]}}"#)).collect();
    let wide = format!(r#"{{"type":"record","name":"W","fields":[{}]}}"#, fields.join(","));
    let mut decoder =
        decoder(&record(&format!(r#"{{"name":"l","type":{{"type":"array","items":["null",{wide}]}}}}"#)), &append());
    let body = [&long(1_000_000)[..], &vec![0; 1_000_001]].concat();
    assert_eq!(reason(&push_body(&mut decoder, &body)), Some(Reason::TooLarge));
    assert_eq!(push_body(&mut decoder, &[4, 0, 0, 0]), Pushed::Row);
    assert_eq!(rows(&decoder.finish().unwrap().batch), ["[null null]"]);
}

/// INV-18
#[test]
fn long_symbols_count_as_what_they_take() {
    let symbol = "x".repeat(1 << 20);
    let kind = format!(r#"{{"type":"enum","name":"E","symbols":["{symbol}"]}}"#);
    let mut decoder =
        decoder(&record(&format!(r#"{{"name":"a","type":{kind}}},{{"name":"b","type":"E"}}"#)), &append());
    for _ in 0..10 {
        assert_eq!(push_body(&mut decoder, &[0, 0]), Pushed::Row);
    }
    assert!(decoder.bytes() > 20 << 20 && decoder.bytes_about() > 20 << 20, "{}", decoder.bytes_about());
}

#[test]
fn a_bad_record_says_where_and_why() {
    let mut decoder = decoder(&schema(""), &upsert(&["id"]));
    let Pushed::Bad(bad) = push(&mut decoder, 0, None, Some(&with(3, &[4]))) else { panic!() };
    assert_eq!(bad.to_string(), "bad_enum_index: value, field `side`: names a symbol that the enum does not have");
    let Pushed::Bad(bad) = push(&mut decoder, 0, None, None) else { panic!() };
    assert_eq!(bad.to_string(), "null_key: key: the key is null");
}

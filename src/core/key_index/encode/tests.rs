use std::collections::HashSet;

use arrow::array::{
    BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};

use super::*;

const SECRET: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

fn encoder(types: &[Type]) -> KeyEncoder {
    KeyEncoder::new(SECRET, types).unwrap()
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn decimals_of(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

fn all_differ(keys: &[Key]) {
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

#[test]
fn keys_of_up_to_8_bytes_are_exact_and_others_hashed() {
    let check = |types: &[Type], expected| assert_eq!(encoder(types).width(), expected, "{types:?}");
    let decimal = |precision| Type::Decimal { precision, scale: 2 };
    check(&[Type::Long], KeyWidth::Exact);
    check(&[Type::Int, Type::Date], KeyWidth::Exact);
    check(&[Type::Fixed(3), Type::Int, Type::Boolean], KeyWidth::Exact);
    check(&[Type::Timestamp { utc: true }], KeyWidth::Exact);
    check(&[decimal(18)], KeyWidth::Exact);
    check(&[decimal(19)], KeyWidth::Hashed);
    check(&[Type::Long, Type::Boolean], KeyWidth::Hashed);
    check(&[Type::Fixed(9)], KeyWidth::Hashed);
    check(&[Type::Fixed(u32::MAX), Type::Fixed(u32::MAX)], KeyWidth::Hashed);
    check(&[Type::Uuid], KeyWidth::Hashed);
    check(&[Type::String], KeyWidth::Hashed);
    check(&[Type::Binary], KeyWidth::Hashed);
}

#[test]
fn a_type_that_cannot_be_a_key_is_named() {
    let element = Box::new(crate::core::schema::Field::new("element", Type::Int, true));
    for (kind, name) in [(Type::Double, "double"), (Type::Float, "float"), (Type::List(element), "list<int>")] {
        let error = KeyEncoder::new(SECRET, &[Type::Long, kind]).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    assert!(KeyEncoder::new(SECRET, &[]).is_err());
}

#[test]
fn the_mix_can_be_undone() {
    let inverse = |odd: u64| (0..6).fold(odd, |i, _| i.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(i))));
    let unshift = |y: u64, by: u32| (0..3).fold(y, |x, _| y ^ x >> by);
    for secret in [SECRET, [0, 0], [u64::MAX, 3]] {
        let mixer = KeyEncoder::new(secret, &[Type::Long]).unwrap().mixer;
        for value in (0..1000).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX, i64::MIN as u64]) {
            let x = unshift(mixer.mix(value), 32).wrapping_mul(inverse(mixer.odd[2])) ^ mixer.masks[1];
            let x = unshift(x, 29).wrapping_mul(inverse(mixer.odd[1]));
            let x = unshift(x, 32).wrapping_mul(inverse(mixer.odd[0])) ^ mixer.masks[0];
            assert_eq!(x, value);
        }
    }
}

#[test]
fn where_one_string_ends_and_the_next_begins_makes_another_key() {
    let left = strings(&["a", "ab", "", "abc", "", "\0", ""]);
    let right = strings(&["bc", "c", "abc", "", "", "", "\0"]);
    all_differ(&encoder(&[Type::String, Type::String]).encode(&[left.clone(), right]).unwrap());
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"a"[..]; 7]));
    all_differ(&encoder(&[Type::String, Type::Binary]).encode(&[left, bytes]).unwrap()[..3]);
}

#[test]
fn integers_of_both_signs_and_all_columns_count() {
    let small: ArrayRef = Arc::new(Int32Array::from(vec![0, -1, 1, -1, 0, i32::MIN, i32::MAX]));
    let other: ArrayRef = Arc::new(Int32Array::from(vec![0, 0, -1, 1, -1, i32::MAX, i32::MIN]));
    let two = encoder(&[Type::Int, Type::Int]).encode(&[small.clone(), other.clone()]).unwrap();
    all_differ(&two);
    assert!(two.iter().all(|key| key.0 >> 64 == 0));
    let names = strings(&["x"; 7]);
    all_differ(&encoder(&[Type::Int, Type::String, Type::Int]).encode(&[small, names, other]).unwrap());
    let long: ArrayRef = Arc::new(Int64Array::from_iter_values((-5000..5000).map(|i| i * 7919)));
    all_differ(&encoder(&[Type::Long]).encode(&[long]).unwrap());
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    all_differ(&encoder(&[Type::Boolean]).encode(&[flags]).unwrap());
}

#[test]
fn decimals_are_keys_by_value_at_the_column_s_scale() {
    for precision in [10, 18, 19, 38] {
        let by = encoder(&[Type::Decimal { precision, scale: 2 }]);
        let keys = by.encode(&[decimals_of(&[0, 150, -150, 15, 1500, 1, -1], precision, 2)]).unwrap();
        all_differ(&keys);
        assert_eq!(by.encode(&[decimals_of(&[150], 38, 2)]).unwrap(), keys[1..2], "declared precision is no value");
        assert!(by.encode(&[decimals_of(&[150], precision, 3)]).unwrap_err().contains("Decimal128"));
    }
    let by = encoder(&[Type::Decimal { precision: 10, scale: 2 }]);
    let narrow: ArrayRef = Arc::new(Decimal64Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap());
    assert_eq!(by.encode(&[narrow]).unwrap(), by.encode(&[decimals_of(&[150], 10, 2)]).unwrap());
    let wide = decimals_of(&[5, (1 << 64) + 5], 38, 2);
    assert!(by.encode(&[wide]).unwrap_err().contains("more digits"));
}

#[test]
fn what_parquet_readers_return_makes_the_same_keys() {
    let check = |kind: Type, columns: Vec<ArrayRef>| {
        let by = encoder(std::slice::from_ref(&kind));
        let keys: Vec<_> = columns.iter().map(|c| by.encode(std::slice::from_ref(c)).unwrap()).collect();
        assert!(keys.iter().all(|k| k.len() == 3 && *k == keys[0]), "{kind}");
        all_differ(&keys[0]);
    };
    let texts = vec!["a", "", "Zürich"];
    let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    check(
        Type::String,
        vec![
            strings(&texts),
            Arc::new(LargeStringArray::from(texts.clone())),
            Arc::new(StringViewArray::from(texts.clone())),
            Arc::new(dictionary),
            strings(&["x", "a", "", "Zürich", "y"]).slice(1, 3),
        ],
    );
    let bytes: Vec<&[u8]> = vec![b"a", b"", b"\xff"];
    check(
        Type::Binary,
        vec![Arc::new(BinaryArray::from(bytes.clone())), Arc::new(BinaryViewArray::from(bytes.clone()))],
    );
    check(
        Type::Long,
        vec![Arc::new(Int32Array::from(vec![-1, 0, 7])), Arc::new(Int64Array::from(vec![9, -1, 0, 7]).slice(1, 3))],
    );
    check(
        Type::Timestamp { utc: true },
        vec![
            Arc::new(TimestampMicrosecondArray::from(vec![-1000, 0, 5000]).with_timezone("+00:00")),
            Arc::new(TimestampMicrosecondArray::from(vec![-1000, 0, 5000]).with_timezone("UTC")),
            Arc::new(TimestampMillisecondArray::from(vec![-1, 0, 5]).with_timezone("UTC")),
        ],
    );
    let fixed = |rows: &[[u8; 2]]| FixedSizeBinaryArray::try_from_iter(rows.iter()).unwrap();
    check(
        Type::Fixed(2),
        vec![
            Arc::new(fixed(&[[0, 1], [1, 0], [9, 9]])),
            Arc::new(fixed(&[[5, 5], [0, 1], [1, 0], [9, 9]]).slice(1, 3)),
        ],
    );
}

#[test]
fn a_column_that_could_lose_its_value_is_refused() {
    let refused = |kind: Type, column: ArrayRef| encoder(&[kind]).encode(&[column]).unwrap_err();
    let _ = refused(Type::Long, Arc::new(Float64Array::from(vec![1.5])));
    let _ = refused(Type::Int, Arc::new(Int64Array::from(vec![1])));
    let _ = refused(Type::Long, strings(&["1"]));
    let _ = refused(Type::Timestamp { utc: false }, Arc::new(TimestampNanosecondArray::from(vec![1])));
    let nanos = refused(Type::TimestampNanos { utc: false }, Arc::new(TimestampMillisecondArray::from(vec![i64::MAX])));
    assert!(nanos.to_lowercase().contains("overflow"), "{nanos}");
    let null = refused(Type::String, Arc::new(StringArray::from(vec![Some("a"), None])));
    assert!(null.contains("1 of 2 values are null") && null.contains("key column 1 (string)"), "{null}");
    assert!(encoder(&[Type::String]).encode(&[]).is_err());
    assert!(encoder(&[Type::String, Type::String]).encode(&[strings(&["a"]), strings(&[])]).is_err());
}

#[test]
fn the_secret_decides_the_key() {
    for types in [vec![Type::Long], vec![Type::Long, Type::Long]] {
        let columns = vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef; types.len()];
        let key = |secret| KeyEncoder::new(secret, &types).unwrap().encode(&columns).unwrap()[0];
        all_differ(&[key([1, 2]), key([1, 3]), key([2, 2]), key([2, 1])]);
        assert_eq!(key([1, 2]), key([1, 2]));
    }
}

/// Keys in a saved index must mean the same to the next version, or [`ENCODING_VERSION`] must change with them.
#[test]
fn the_encoding_is_that_of_its_version() {
    let key = |types: &[Type], texts: &[&str]| encoder(types).encode_texts(texts).unwrap().0;
    let expected = SipHasher13::new_with_keys(SECRET[0], SECRET[1]).hash(b"\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\x07");
    assert_eq!(key(&[Type::String, Type::Long], &["ab", "7"]), expected.into());
    assert_eq!(ENCODING_VERSION, 1);
    assert_eq!(key(&[Type::Long], &["7"]), GOLDEN_7);
    assert_eq!(key(&[Type::Int, Type::Int], &["0", "7"]), GOLDEN_7, "two columns are laid one after the other");
}

const GOLDEN_7: u128 = 15_189_127_337_152_614_949;

#[test]
fn typed_keys_equal_those_of_the_columns() {
    let check = |kind: Type, text: &str, column: ArrayRef| {
        let by = encoder(std::slice::from_ref(&kind));
        assert_eq!(by.encode_texts(&[text]).unwrap(), by.encode(&[column]).unwrap()[0], "{kind} {text}");
    };
    let decimal = Type::Decimal { precision: 10, scale: 2 };
    check(Type::Boolean, "true", Arc::new(BooleanArray::from(vec![true])));
    check(Type::Int, "-5", Arc::new(Int32Array::from(vec![-5])));
    check(Type::Long, " 9223372036854775807 ", Arc::new(Int64Array::from(vec![i64::MAX])));
    check(Type::String, " padded ", strings(&[" padded "]));
    for (text, unscaled) in [("1.5", 150), ("-1.50", -150), ("1.5000", 150), ("7", 700), (".05", 5), ("-0", 0)] {
        check(decimal.clone(), text, decimals_of(&[unscaled], 10, 2));
    }
    check(Type::Date, "1969-12-31", Arc::new(Date32Array::from(vec![-1])));
    check(Type::Time, "00:00:01.5", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![1_500_000])));
    let micros = |v| Arc::new(TimestampMicrosecondArray::from(vec![v]));
    for (text, value) in [("1970-01-01T00:00:01Z", 1_000_000), ("1970-01-01T01:00:00.000001+01:00", 1)] {
        check(Type::Timestamp { utc: true }, text, micros(value));
    }
    check(Type::Timestamp { utc: true }, "1969-12-31T23:59:59.999999Z", micros(-1));
    check(Type::Timestamp { utc: false }, "1970-01-01T00:00:01", micros(1_000_000));
    check(Type::Timestamp { utc: false }, "1970-01-01 00:00:01.5", micros(1_500_000));
    let nanos = TimestampNanosecondArray::from(vec![1]);
    check(Type::TimestampNanos { utc: true }, "1970-01-01T00:00:00.000000001Z", Arc::new(nanos));
    let id = FixedSizeBinaryArray::try_from_iter(std::iter::once([0x11; 16])).unwrap();
    check(Type::Uuid, "11111111-1111-1111-1111-111111111111", Arc::new(id));
    check(Type::Binary, "00fF", Arc::new(BinaryArray::from(vec![&[0, 255][..]])));
    check(Type::Fixed(1), "0x7f", Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once([0x7f])).unwrap()));
}

#[test]
fn a_text_that_is_no_value_is_refused_with_how_to_write_it() {
    let check = |kind: Type, text: &str, expected: &str| {
        let error = encoder(&[kind]).encode_texts(&[text]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let decimal = Type::Decimal { precision: 4, scale: 2 };
    check(decimal.clone(), "1.005", "2 digits after the point");
    check(decimal.clone(), "123", "4 digits");
    check(decimal.clone(), "", "write it as -12.50");
    check(decimal, "1e3", "write it as -12.50");
    check(Type::Int, "2147483648", "int");
    check(Type::Timestamp { utc: true }, "2026-01-31T12:30:00", "Z");
    check(Type::Timestamp { utc: false }, "2026-01-31T12:30:00.0000001", "microseconds");
    check(Type::TimestampNanos { utc: false }, "3000-01-31T12:30:00", "2262");
    check(Type::Date, "31.1.2026", "2026-01-31");
    check(Type::Uuid, "11111111", "uuid");
    check(Type::Binary, "0", "hexadecimal");
    check(Type::Binary, "zz", "hexadecimal");
    check(Type::Fixed(2), "ff", "it has 1 bytes");
    check(Type::Boolean, "yes", "boolean");
    assert!(encoder(&[Type::Int]).encode_texts(&["1", "2"]).unwrap_err().contains("got 2 values"));
}

use super::*;

fn sample(key: Option<&[u8]>, value: Option<Vec<u8>>) -> Letter {
    Letter {
        place: Place { topic_id: "Ab_c".into(), partition: 3, offset: 1_234_567_890_123 },
        topic: "trades".into(),
        timestamp_ms: 77,
        pipeline: "p".into(),
        reason: "bad_magic_byte".into(),
        in_key: false,
        message: "value: does not start with the magic byte".into(),
        key: key.map(<[u8]>::to_vec),
        value,
        headers: vec![("trace".into(), Some(vec![0, 0xff])), ("nothing".into(), None), ("trace".into(), Some(vec![1]))],
    }
}

fn back(records: impl IntoIterator<Item = Record>) -> Letters {
    let mut letters = Letters::of("p");
    records.into_iter().for_each(|record| letters.add(record));
    letters
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn a_letter_comes_back_as_it_was_whatever_its_size() {
    for key in [None, Some(&b""[..]), Some(&b"key"[..]), Some(&[7; 3_000][..])] {
        for value in [None, Some(vec![]), Some(noise(10)), Some(noise(5_000)), Some(noise(100_000))] {
            let letter = sample(key, value);
            for limit in [2_000, 10_000, 1_000_000] {
                let mut records = letter.records(limit).unwrap();
                assert!(records.iter().all(|r| size(r) <= limit), "{limit}");
                // Parts come in any order, and more than once.
                records.reverse();
                records.push(records[0].clone());
                let letters = back(records);
                assert_eq!(letters.incomplete(), 0);
                assert!(letters.whole.values().eq([&letter]), "{:?} at {limit}", letter.key.as_ref().map(Vec::len));
            }
        }
    }
}

#[test]
fn a_record_of_the_largest_size_that_its_topic_takes_still_fits_with_the_headers() {
    let limit = 1_048_588;
    let letter = sample(Some(b"k"), Some(noise(limit - 75)));
    let records = letter.records(limit).unwrap();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|r| size(r) <= limit));
    assert_eq!(back(records).whole.len(), 1);
}

#[test]
fn headers_beyond_the_limit_are_refused_in_words() {
    let mut letter = sample(None, Some(vec![1]));
    letter.headers.push(("huge".into(), Some(noise(5_000))));
    let error = letter.records(4_000).unwrap_err();
    assert!(error.contains("headers take") && error.contains("4000 bytes"), "{error}");
}

#[test]
fn headers_have_the_names_of_kafka_connect_and_the_reason() {
    let records = sample(None, None).records(10_000).unwrap();
    let said = |name: &str| find(&records[0].headers, name).unwrap().to_owned();
    assert_eq!(said("__connect.errors.topic"), "trades");
    assert_eq!(said("__connect.errors.partition"), "3");
    assert_eq!(said("__connect.errors.offset"), "1234567890123");
    assert_eq!(said("__connect.errors.connector.name"), "p");
    assert_eq!(said("__connect.errors.stage"), "VALUE_CONVERTER");
    assert!(said("__connect.errors.exception.message").contains("magic byte"));
    assert_eq!((said("firn.reason"), said("firn.topic.id")), ("bad_magic_byte".into(), "Ab_c".into()));
}

#[test]
fn a_letter_about_a_dead_letter_keeps_both_sets_of_headers() {
    let first = sample(None, Some(vec![1])).records(10_000).unwrap().remove(0);
    let second = Letter { topic: "dlq".into(), headers: first.headers.clone(), ..sample(None, first.value) };
    let letters = back(second.records(10_000).unwrap());
    assert_eq!(letters.whole.into_values().collect::<Vec<_>>(), [second]);
}

#[test]
fn what_was_replayed_is_known_and_what_is_not_ours_is_counted() {
    let letter = sample(None, Some(vec![1]));
    let mut records = letter.records(10_000).unwrap();
    records.push(letter.replayed());
    records.push(Record { value: Some(vec![1]), ..Record::default() });
    let letters = back(records);
    assert!(letters.replayed.contains(&letter.place));
    assert_eq!((letters.whole.len(), letters.foreign, letters.incomplete()), (1, 1, 0));
}

#[test]
fn what_two_pipelines_rejected_are_letters_of_each() {
    let letter = sample(None, Some(noise(9_000)));
    let other = Letter { pipeline: "q".into(), reason: "null_key".into(), ..letter.clone() };
    let mut records = letter.records(4_000).unwrap();
    records.extend(other.records(4_000).unwrap());
    records.push(other.replayed());
    let letters = back(records);
    assert!(letters.whole.values().eq([&letter]));
    assert_eq!((letters.replayed.len(), letters.foreign), (0, 0));
}

#[test]
fn a_record_that_is_submitted_again_says_for_whom_and_where_it_was() {
    let letter = sample(Some(b"k"), Some(noise(10)));
    let again = letter.again();
    assert_eq!((again.key.as_ref(), again.value.as_ref()), (letter.key.as_ref(), letter.value.as_ref()));
    assert_eq!(again.headers[..3], letter.headers);
    assert_eq!(find(&again.headers, REPLAY_FOR_TEXT), Some("p"));
    assert_eq!(replay_of(&again.headers), Some(letter.place.clone()));
    assert_eq!(replay_of(&letter.headers), None);
    // Rejected and submitted once more: the newest place counts, and the headers do not pile up.
    let place = Place { offset: 5, ..letter.place.clone() };
    let twice = Letter { place: place.clone(), headers: again.headers.clone(), ..letter }.again();
    assert_eq!((replay_of(&twice.headers), twice.headers.len()), (Some(place), again.headers.len()));
}

#[test]
fn a_letter_with_a_part_missing_is_incomplete() {
    let mut records = sample(None, Some(noise(9_000))).records(4_000).unwrap();
    records.remove(1);
    let letters = back(records);
    assert_eq!((letters.whole.len(), letters.incomplete()), (0, 1));
}

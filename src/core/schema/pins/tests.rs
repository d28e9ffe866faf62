use super::*;

fn pins(ids: impl IntoIterator<Item = u32>) -> Pins {
    let used: Vec<_> = ids.into_iter().map(|id| (id, of(id))).collect();
    Pins::default().with(&used).unwrap().unwrap_or_default()
}

/// The one schema of an id.
fn of(id: u32) -> Fingerprint {
    Fingerprint::of(&id.to_string())
}

/// FAILURES D4
#[test]
fn an_id_keeps_its_schema_and_new_ids_join() {
    let held = pins([7]);
    assert_eq!(held.check(7, of(7)), Ok(()));
    assert_eq!(held.check(8, of(7)), Ok(()), "two ids may have the same schema");
    let other = Repinned { id: 7, held: of(7), now: of(9) };
    assert_eq!(held.check(7, of(9)), Err(other));
    assert_eq!(held.with(&[(8, of(8)), (7, of(9))]), Err(other));
    assert_eq!(held.with(&[(7, of(7))]), Ok(None), "nothing changes: nothing is to be written");
    assert_eq!(held.with(&[(8, of(8)), (7, of(7))]), Ok(Some(pins([7, 8]))));
    assert_eq!((held.check_gone(7), held.check_gone(8)), (Err(Gone { id: 7 }), Ok(())));
    // Within one batch too.
    assert!(held.with(&[(8, of(8)), (8, of(9))]).is_err());
}

#[test]
fn the_message_says_both_fingerprints_and_what_the_choices_are() {
    let text = Repinned { id: 7, held: of(7), now: of(9) }.to_string();
    for part in ["schema id 7", &of(7).to_string(), &of(9).to_string(), "Restore the registry", "--accept-schema 7"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// INV-18
#[test]
fn the_newest_ids_are_kept_and_an_old_one_that_comes_up_again_changes_nothing() {
    let most = PINS_MAX as u32;
    let held = pins(1..=most + 3);
    assert_eq!(held, pins(4..=most + 3));
    assert_eq!(held.with(&[(2, of(2))]), Ok(None));
    assert_eq!(held.with(&[(2, of(9))]), Ok(None), "what it meant is forgotten");
    assert!(held.to_json().len() < 12_000);
}

#[test]
fn an_accepted_id_is_forgotten() {
    let held = pins([7, 8]);
    assert_eq!(held.without(&[7, 9].into()), Some(pins([8])));
    assert_eq!(held.without(&[9].into()), None);
    assert_eq!(held.without(&[7].into()).unwrap().with(&[(7, of(9))]).unwrap().unwrap().check(7, of(9)), Ok(()));
}

#[test]
fn the_property_is_read_as_it_was_written() {
    let held = pins([1, u32::MAX]);
    let text = r#"{"form":1,"ids":{"1":"33d61e35cd8bc3a7dd3b6cd7f36e80a9","4294967295":"#;
    assert!(held.to_json().starts_with(&text[..20]), "{}", held.to_json());
    assert_eq!(Pins::read(Some(&held.to_json())), Ok(held));
    assert_eq!(Pins::read(None), Ok(Pins::default()));
    assert_eq!(Pins::read(Some(&Pins::default().to_json())), Ok(Pins::default()));
    // Of another version of firn: not comparable.
    assert_eq!(Pins::read(Some(r#"{"form":2,"ids":{"1":"x"},"more":[]}"#)), Ok(Pins::default()));
    for broken in ["", "{}", "[]", r#"{"form":1,"ids":{"x":"00"}}"#, r#"{"form":1,"ids":{"1":"xyz"}}"#] {
        let error = Pins::read(Some(broken)).unwrap_err();
        assert!(error.contains("firn.schemas") && error.contains("remove it"), "{broken}: {error}");
    }
}

use super::*;

/// Whether a reader's schema reads a writer's data, and what stands against it.
fn reads(reader: &str, writer: &str) -> Vec<String> {
    let parse = |text: &str| {
        let text = if text.starts_with(['{', '[']) { text.to_string() } else { format!("\"{text}\"") };
        Physical::parse(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    let (reader, writer) = (parse(reader), parse(writer));
    let found = differences(Level::Backward, &reader, &writer);
    let turned = differences(Level::Forward, &writer, &reader);
    assert_eq!(found.is_empty(), turned.is_empty(), "forward is backward the other way round");
    found
}

fn check(reader: &str, writer: &str, expected: Option<&str>) {
    let found = reads(reader, writer);
    match expected {
        None => assert!(found.is_empty(), "{reader} should read {writer}: {found:?}"),
        Some(words) => {
            assert!(!found.is_empty(), "{reader} should not read {writer}");
            assert!(found.iter().any(|f| f.contains(words)), "{reader} / {writer}: no `{words}` in {found:?}");
        }
    }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","namespace":"x","fields":[{fields}]}}"#)
}

#[test]
fn primitives_promote_as_the_specification_says() {
    let all = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let readers_of = |writer: &str| match writer {
        "int" => vec!["int", "long", "float", "double"],
        "long" => vec!["long", "float", "double"],
        "float" => vec!["float", "double"],
        "bytes" | "string" => vec!["bytes", "string"],
        same => vec![all[all.iter().position(|t| *t == same).unwrap()]],
    };
    for writer in all {
        for reader in all {
            let fits = readers_of(writer).contains(&reader);
            check(reader, writer, (!fits).then_some("TYPE_MISMATCH"));
        }
    }
}

#[test]
fn fields_may_come_with_a_default_and_go_at_will() {
    let one = record(r#"{"name":"a","type":"long"}"#);
    let with_default = record(r#"{"name":"a","type":"long"},{"name":"b","type":"int","default":0}"#);
    let without = record(r#"{"name":"a","type":"long"},{"name":"b","type":"int"}"#);
    check(&with_default, &one, None);
    check(&without, &one, Some("READER_FIELD_MISSING_DEFAULT_VALUE"));
    check(&without, &one, Some("at path /b"));
    check(&one, &without, None);
    check(&record(r#"{"name":"z","aliases":["a"],"type":"double"}"#), &one, None);
    check(&record(r#"{"name":"z","type":"long"}"#), &one, Some("/z"));
    check(&record(r#"{"name":"a","type":"string"}"#), &one, Some("long cannot be read as string"));
}

#[test]
fn unions_need_a_branch_for_everything_written() {
    check(r#"["null","long"]"#, "int", None);
    check(r#"["null","long"]"#, "string", Some("MISSING_UNION_BRANCH"));
    check(r#"["null","string"]"#, r#"["null","int"]"#, Some("at path /1"));
    check("long", r#"["int","long"]"#, None);
    check("long", r#"["null","long"]"#, Some("TYPE_MISMATCH"));
    check(r#"["null","string","int"]"#, r#"["int","null"]"#, None);
}

#[test]
fn names_sizes_symbols_and_elements_are_compared() {
    let e = |symbols: &str, more: &str| format!(r#"{{"type":"enum","name":"E","symbols":{symbols}{more}}}"#);
    check(&e(r#"["A","B"]"#, ""), &e(r#"["A"]"#, ""), None);
    check(&e(r#"["A"]"#, ""), &e(r#"["A","B"]"#, ""), Some("no symbol for B"));
    check(&e(r#"["A"]"#, r#","default":"A""#), &e(r#"["A","B"]"#, ""), None);
    let f = |name: &str, size: u32, more: &str| format!(r#"{{"type":"fixed","name":"{name}","size":{size}{more}}}"#);
    check(&f("F", 4, ""), &f("F", 4, ""), None);
    check(&f("F", 4, ""), &f("F", 8, ""), Some("FIXED_SIZE_MISMATCH"));
    check(&f("G", 4, ""), &f("F", 4, ""), Some("NAME_MISMATCH"));
    check(&f("G", 4, r#","aliases":["F"]"#), &f("F", 4, ""), None);
    check(&f("other.space.F", 4, ""), &f("F", 4, ""), None);
    // An alias is a whole name: found by comparing with a real registry.
    check(&f("G", 4, r#","aliases":["F"]"#), &f("n.F", 4, ""), Some("NAME_MISMATCH"));
    check(&f("G", 4, r#","aliases":["n.F"]"#), &f("n.F", 4, ""), None);
    check(r#"{"type":"array","items":"long"}"#, r#"{"type":"array","items":"int"}"#, None);
    check(r#"{"type":"array","items":"int"}"#, r#"{"type":"array","items":"long"}"#, Some("/items"));
    check(r#"{"type":"map","values":"int"}"#, r#"{"type":"map","values":"null"}"#, Some("/values"));
    check(r#"{"type":"map","values":"int"}"#, r#"{"type":"array","items":"int"}"#, Some("TYPE_MISMATCH"));
}

#[test]
fn logical_types_neither_help_nor_hinder() {
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    check(decimal, decimal, None);
    check("bytes", decimal, None);
    check("string", r#"{"type":"string","logicalType":"uuid"}"#, None);
    check("long", r#"{"type":"long","logicalType":"timestamp-micros"}"#, None);
    check(
        r#"{"type":"int","logicalType":"date"}"#,
        r#"{"type":"long","logicalType":"time-micros"}"#,
        Some("TYPE_MISMATCH"),
    );
    let fixed = r#"{"type":"fixed","name":"D","size":16,"logicalType":"uuid"}"#;
    check(fixed, fixed, None);
    check(fixed, "string", Some("TYPE_MISMATCH"));
}

#[test]
fn a_type_is_the_same_where_it_is_defined_and_where_it_is_named() {
    let point = r#"{"type":"record","name":"P","fields":[{"name":"v","type":"VALUE"}]}"#;
    let both =
        |first: &str, second: &str| record(&format!(r#"{{"name":"a","type":{first}}},{{"name":"b","type":{second}}}"#));
    let long = point.replace("VALUE", "long");
    let int = point.replace("VALUE", "int");
    let swapped = record(&format!(r#"{{"name":"b","type":{int}}},{{"name":"a","type":"P"}}"#));
    check(&both(&long, "\"P\""), &swapped, None);
    check(&swapped, &both(&long, "\"x.P\""), Some("/b/v"));
}

#[test]
fn a_type_that_contains_itself_is_walked_once() {
    let list = |kind: &str| record(&format!(r#"{{"name":"v","type":"{kind}"}},{{"name":"next","type":["null","R"]}}"#));
    check(&list("long"), &list("int"), None);
    check(&list("int"), &list("long"), Some("/v"));
}

#[test]
fn a_difference_that_was_met_inside_a_union_is_named_again_outside() {
    let p = |kind: &str| format!(r#"{{"type":"record","name":"P","fields":[{{"name":"v","type":"{kind}"}}]}}"#);
    let schema = |kind: &str| {
        record(&format!(r#"{{"name":"u","type":["null",{},"string"]}},{{"name":"w","type":"P"}}"#, p(kind)))
    };
    check(&schema("int"), &schema("long"), Some("/w"));
}

#[test]
fn chains_of_names_end_at_a_limit_and_not_with_the_stack() {
    // Every type refers to the one before it. They are defined in a field that the other side does not have, so the
    // walk meets the last one first.
    fn chain(length: usize, home: &str) -> String {
        let named = |i: usize, kind: &str| {
            format!(
                r#"{{"name":"f{i}","type":{{"type":"record","name":"T{i}","fields":[{{"name":"p","type":"{kind}"}}]}}}}"#
            )
        };
        let mut types = vec![named(0, "long")];
        types.extend((1..length).map(|i| named(i, &format!("T{}", i - 1))));
        let types = format!(r#"{{"type":"record","name":"Types","fields":[{}]}}"#, types.join(","));
        let defined = format!(r#"{{"name":"{home}","type":{{"type":"array","items":{types}}},"default":[]}}"#);
        record(&format!(r#"{defined},{{"name":"last","type":"T{}"}}"#, length - 1))
    }
    check(&chain(100, "here"), &chain(100, "there"), None);
    check(&chain(5_000, "here"), &chain(5_000, "there"), Some("TOO_DEEP"));
}

#[test]
fn unions_of_many_branches_and_long_names_end_at_a_limit() {
    let union = |prefix: &str| {
        let branch = |i: usize| format!(r#"{{"type":"fixed","name":"{prefix}{i}","size":1}}"#);
        format!("[{}]", (0..3_000).map(branch).collect::<Vec<_>>().join(","))
    };
    let many = union("a");
    assert!(!reads(&many, &many).is_empty(), "more pairs than are compared");
    let long = serde_json::json!({"type": "record", "name": "R", "namespace": "n".repeat(2_000), "fields": []});
    assert_eq!(Physical::parse(&long).unwrap_err(), "a name has more than 1024 bytes");
}

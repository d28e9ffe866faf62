use super::*;
use crate::core::schema::{crowded, learn_names, union_of, verdict};

const V2: &[TableFormat] = &[TableFormat::IcebergV2];
const V3: &[TableFormat] = &[TableFormat::IcebergV3];
const DELTA: &[TableFormat] = &[TableFormat::Delta];
const BOTH: &[TableFormat] = &[TableFormat::Delta, TableFormat::IcebergV3];

fn optional(name: &str, kind: Type) -> Field {
    Field::new(name, kind, false)
}

fn required(name: &str, kind: Type) -> Field {
    Field::new(name, kind, true)
}

fn also(aliases: &[&str], field: Field) -> Field {
    Field { aliases: aliases.iter().map(|a| (*a).to_owned()).collect(), ..field }
}

fn schema(fields: Vec<Field>) -> TableSchema {
    let mut schema = TableSchema { fields, key: Vec::new() };
    schema.number();
    schema
}

fn decimal(precision: u8, scale: u8) -> Type {
    Type::Decimal { precision, scale }
}

fn list(kind: Type) -> Type {
    Type::List(Box::new(optional("element", kind)))
}

fn map(kind: Type) -> Type {
    Type::Map(Box::new(required("key", Type::String)), Box::new(optional("value", kind)))
}

fn changes(table: Vec<Field>, wanted: Vec<Field>, formats: &[TableFormat]) -> Vec<String> {
    let (table, wanted) = (schema(table), schema(wanted));
    let evolution = evolve(&table, &wanted, formats, 100);
    if evolution.obstacle().is_none() {
        let again = evolve(&evolution.schema, &wanted, formats, 200);
        assert_eq!(again.changes, [], "once grown, nothing is left to do");
        let back = evolve(&evolution.schema, &table, formats, 200);
        let only_relaxed = back.changes.iter().all(|c| matches!(c, Difference::Relax { .. }));
        assert!(only_relaxed, "older events still fit: {:?}", back.changes);
    }
    evolution.changes.iter().map(ToString::to_string).collect()
}

fn one(from: Type, to: Type, formats: &[TableFormat]) -> String {
    let mut found = changes(vec![optional("x", from)], vec![optional("x", to)], formats);
    assert!(found.len() <= 1, "{found:?}");
    found.pop().unwrap_or_default()
}

#[test]
fn types_widen_where_every_format_of_the_pipeline_allows_it() {
    let cases = [
        (Type::Int, Type::Long, "widens column x from int to long"),
        (Type::Float, Type::Double, "widens column x from float to double"),
        (decimal(10, 2), decimal(12, 2), "widens column x from decimal(10, 2) to decimal(12, 2)"),
    ];
    for formats in [V2, V3, DELTA, BOTH] {
        for (from, to, expected) in &cases {
            assert_eq!(one(from.clone(), to.clone(), formats), *expected);
        }
    }
    assert_eq!(one(Type::Int, Type::Double, DELTA), "widens column x from int to double");
    for (formats, named) in [(V2, "iceberg v2"), (V3, "iceberg v3"), (BOTH, "iceberg v3")] {
        let found = one(Type::Int, Type::Double, formats);
        assert!(found.starts_with("column x is int in the table and cannot become double"), "{found}");
        assert!(found.contains(named), "{found}");
    }
}

#[test]
fn a_date_becomes_a_timestamp_where_all_tables_are_iceberg_v3_and_no_partition_follows_from_it() {
    let (date, timestamp) = (Type::Date, Type::Timestamp { utc: false });
    let said = "widens column x from date to timestamp";
    assert_eq!(one(date.clone(), timestamp.clone(), V3), said);
    assert_eq!(one(list(date.clone()), list(timestamp.clone()), V3), said.replace("column x", "column x.element"));
    for (formats, named) in [(V2, "a table here is iceberg v2"), (DELTA, "is delta"), (BOTH, "is delta")] {
        let found = one(date.clone(), timestamp.clone(), formats);
        assert!(found.contains("only iceberg v3") && found.contains(named), "{found}");
    }
    let partitioned = |by: Option<&str>| {
        let column = Field { partitioned_by: by.map(str::to_owned), ..optional("x", date.clone()) };
        changes(vec![column], vec![optional("x", timestamp.clone())], V3)
    };
    assert_eq!(partitioned(None), [said]);
    let found = partitioned(Some("bucket[16]"));
    assert!(found[0].contains("cannot become timestamp: the table is partitioned by bucket[16] of it"), "{found:?}");
    let given = Field { write_default: Some(Constant::Int(-1)), ..optional("x", date) };
    let given = Field { initial_default: Some(Constant::Int(1)), ..given };
    let grown = evolve(&schema(vec![given]), &schema(vec![optional("x", timestamp)]), V3, 9).schema;
    let defaults = [&grown.fields[0].initial_default, &grown.fields[0].write_default];
    assert_eq!(defaults, [&Some(Constant::Long(86_400_000_000)), &Some(Constant::Long(-86_400_000_000))]);
}

#[test]
fn what_cannot_be_done_says_the_path_and_both_types() {
    let refused = [
        (Type::Int, Type::Float),
        (Type::Long, Type::Float),
        (Type::Long, Type::Double),
        (Type::Long, Type::String),
        (Type::String, Type::Long),
        (decimal(10, 2), decimal(10, 3)),
        (decimal(10, 2), decimal(12, 3)),
        (Type::Date, Type::Timestamp { utc: true }),
        (Type::Date, Type::TimestampNanos { utc: false }),
        (Type::Timestamp { utc: true }, Type::Date),
        (Type::Timestamp { utc: true }, Type::Timestamp { utc: false }),
        (Type::Timestamp { utc: true }, Type::TimestampNanos { utc: true }),
        (Type::Long, Type::Timestamp { utc: true }),
        (Type::Boolean, Type::Int),
        (Type::Fixed(4), Type::Fixed(8)),
        (Type::Uuid, Type::String),
        (Type::Long, list(Type::Long)),
        (list(Type::Long), map(Type::Long)),
    ];
    for formats in [V2, V3, DELTA] {
        for (from, to) in &refused {
            let found = one(from.clone(), to.clone(), formats);
            let expected = format!("column x is {from} in the table and cannot become {to}: ");
            assert!(found.starts_with(&expected), "{found}");
        }
    }
    let deep = |kind| vec![optional("a", list(Type::Struct(vec![optional("b", map(kind))])))];
    let found = changes(deep(Type::Long), deep(Type::String), V3);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("column a.element.b.value is long in the table and cannot become string"),
        "{found:?}"
    );
}

#[test]
fn an_added_field_with_a_default_has_it_where_every_table_is_iceberg_v3() {
    let with = |field: Field, value| Field { write_default: Some(value), ..field };
    let wanted = |value| vec![optional("x", Type::Int), with(required("y", Type::Int), Constant::Int(value))];
    let table = schema(vec![optional("x", Type::Int)]);
    for formats in [V2, DELTA, BOTH] {
        let evolution = evolve(&table, &schema(wanted(5)), formats, 9);
        assert_eq!(evolution.schema.fields[1], Field { id: 10, ..optional("y", Type::Int) });
        assert_eq!(evolution.changes[0].to_string(), "adds column y (int)");
        assert!(verdict(&evolution.changes[0]).old_data.contains("read as null, whatever default"));
    }
    let evolution = evolve(&table, &schema(wanted(5)), V3, 9);
    let added = &evolution.schema.fields[1];
    assert!(added.required);
    assert_eq!((&added.initial_default, &added.write_default), (&Some(Constant::Int(5)), &Some(Constant::Int(5))));
    assert_eq!(evolution.changes[0].to_string(), "adds column y (int) with the default 5");
    assert!(verdict(&evolution.changes[0]).old_data.contains("read as the default"));
    // A schema without the field leaves it required, and one with another default changes nothing.
    assert_eq!(evolve(&evolution.schema, &table, V3, 99).changes, []);
    assert_eq!(evolve(&evolution.schema, &schema(wanted(6)), V3, 99).schema, evolution.schema);
    assert_eq!(evolve(&evolution.schema, &table, BOTH, 99).changes, [Difference::Relax { path: "y".into() }]);
    // A wider column has the wider default.
    let wide = vec![optional("x", Type::Int), required("y", Type::Long)];
    let widened = evolve(&evolution.schema, &schema(wide), V3, 99).schema;
    assert_eq!(widened.fields[1].initial_default, Some(Constant::Long(5)));
    // Below a new record there are no older rows that have it, but older events may come.
    let deep = |fields| schema(vec![optional("s", Type::Struct(fields))]);
    let evolution = evolve(&schema(vec![]), &deep(wanted(5)), V3, 9);
    let Type::Struct(fields) = &evolution.schema.fields[0].kind else { panic!() };
    assert_eq!((&fields[1].initial_default, &fields[1].write_default), (&None, &Some(Constant::Int(5))));
    let evolution = evolve(&deep(vec![optional("x", Type::Int)]), &deep(wanted(5)), V3, 9);
    let Type::Struct(fields) = &evolution.schema.fields[0].kind else { panic!() };
    assert_eq!(fields[1].initial_default, Some(Constant::Int(5)));
}

fn union(branches: &[(&str, Type)]) -> Type {
    union_of(branches.iter().map(|(name, kind)| optional(name, kind.clone())).collect())
}

#[test]
fn a_union_gains_branches_and_takes_what_one_of_them_holds() {
    let record = |fields: &[&str]| Type::Struct(fields.iter().map(|name| optional(name, Type::Int)).collect());
    let some = union(&[("int", Type::Int), ("P", record(&["a"]))]);
    for formats in [V2, V3, DELTA, BOTH] {
        let more = union(&[("string", Type::String), ("P", record(&["a", "b"])), ("int", Type::Int)]);
        let found = changes(vec![optional("x", some.clone())], vec![optional("x", more.clone())], formats);
        assert_eq!(found, ["adds column x.P.b (int)", "adds column x.string (string)"]);
        // Fewer branches, or one type of them, change nothing.
        for fewer in [some.clone(), union(&[("int", Type::Int)]), Type::Int, record(&["b"]), Type::Binary] {
            assert_eq!(one(more.clone(), fewer, formats), "");
        }
        let found = one(some.clone(), Type::Boolean, formats);
        assert!(found.ends_with("cannot become boolean: no branch of the union takes values of this type"), "{found}");
        let found = one(some.clone(), record(&["a", "c"]), formats);
        assert!(found.contains("no branch of the union takes"), "a record of another name is another branch: {found}");
        for plain in [Type::Int, record(&["int", "P"]), list(Type::Int)] {
            let found = one(plain.clone(), some.clone(), formats);
            assert!(
                found.starts_with(&format!("column x is {plain} in the table and cannot become {some}: ")),
                "{found}"
            );
            assert!(found.ends_with("its rows do not say which branch they are"), "{found}");
        }
        let found = one(some.clone(), union(&[("int", Type::Date)]), formats);
        assert!(found.starts_with("column x.int is int in the table and cannot become date"), "{found}");
        let found =
            changes(vec![optional("x", some.clone())], vec![optional("x", union(&[("p", Type::Int)]))], formats);
        assert!(found[0].starts_with("column x.p: it differs from column P only in upper and lower case"), "{found:?}");
    }
}

#[test]
fn a_wider_column_takes_narrower_values_as_they_are() {
    for (table, narrower) in [
        (Type::Long, Type::Int),
        (Type::Double, Type::Float),
        (Type::Double, Type::Int),
        (Type::Double, Type::Long),
        (Type::Float, Type::Int),
        (decimal(12, 2), decimal(10, 2)),
        (Type::TimestampNanos { utc: true }, Type::Timestamp { utc: true }),
        (Type::String, Type::Uuid),
        (Type::String, Type::Binary),
        (Type::Binary, Type::String),
    ] {
        let found = evolve(&schema(vec![optional("x", table)]), &schema(vec![optional("x", narrower)]), V3, 9);
        assert_eq!(found.changes, []);
    }
}

#[test]
fn fields_are_added_at_every_depth_as_optional_ones_with_new_ids() {
    let deep = |fields: Vec<Field>| {
        let record = Type::Struct(fields);
        vec![
            optional("s", record.clone()),
            optional("l", list(record.clone())),
            optional("m", map(record.clone())),
            optional("ll", list(list(map(record)))),
        ]
    };
    let (old, mut new) = (deep(vec![optional("a", Type::Int)]), Vec::new());
    new.extend(deep(vec![required("b", Type::Date), optional("a", Type::Long)]));
    new.push(required("top", list(Type::Struct(vec![required("c", Type::String)]))));
    let found = changes(old.clone(), new.clone(), V2);
    let expected = [
        "widens column s.a from int to long",
        "adds column s.b (date)",
        "widens column l.element.a from int to long",
        "adds column l.element.b (date)",
        "widens column m.value.a from int to long",
        "adds column m.value.b (date)",
        "widens column ll.element.element.value.a from int to long",
        "adds column ll.element.element.value.b (date)",
        "adds column top (list<struct<c: string>>)",
    ];
    assert_eq!(found, expected);
    let grown = evolve(&schema(old), &schema(new), V2, 100).schema;
    let Type::Struct(fields) = &grown.column("s").unwrap().kind else { panic!("a record") };
    assert_eq!((fields[1].name.as_str(), fields[1].id, fields[1].required), ("b", 101, false));
    let top = grown.column("top").unwrap();
    let Type::List(element) = &top.kind else { panic!("a list") };
    let Type::Struct(inner) = &element.kind else { panic!("a record") };
    assert_eq!((top.id, element.id, inner[0].id), (105, 106, 107));
    assert!(!top.required && inner[0].required, "a record that is there has its fields");
}

#[test]
fn removed_fields_stay_and_become_optional() {
    let table = vec![required("a", Type::Int), required("b", Type::Int), optional("c", Type::Int)];
    assert_eq!(changes(table, vec![required("b", Type::Int)], V3), ["lets column a be null"]);
    let record = |fields| vec![optional("s", Type::Struct(fields))];
    let table = record(vec![required("a", Type::Int), required("b", Type::Int)]);
    assert_eq!(changes(table, record(vec![required("a", Type::Int)]), V3), ["lets column s.b be null"]);
    assert_eq!(
        changes(vec![required("a", Type::Int)], vec![optional("a", Type::Int)], DELTA),
        ["lets column a be null"]
    );
}

#[test]
fn an_alias_renames_the_column_and_older_events_still_find_it() {
    let inner = |field| optional("s", Type::Struct(vec![field]));
    let table = vec![optional("price", Type::Int), inner(optional("old", Type::Date))];
    let wanted =
        vec![also(&["price"], optional("amount", Type::Long)), inner(also(&["old"], optional("new", Type::Date)))];
    let expected =
        ["renames column price to amount", "widens column price from int to long", "renames column s.old to new"];
    assert_eq!(changes(table.clone(), wanted.clone(), V3), expected);
    let grown = evolve(&schema(table.clone()), &schema(wanted), V3, 9).schema;
    assert_eq!((grown.fields[0].id, &grown.fields[0].aliases), (1, &vec!["price".to_owned()]));
    assert_eq!(evolve(&grown, &schema(table), V3, 9).changes, [], "an older event renames nothing back");
}

#[test]
fn a_table_that_was_made_under_the_new_name_learns_the_old_one() {
    let mut table = schema(vec![optional("amount", Type::Long)]);
    let older = schema(vec![optional("price", Type::Long)]);
    assert_eq!(evolve(&table, &older, V3, 9).changes.len(), 1, "not known yet: a column of its own");
    learn_names(&mut table, &schema(vec![also(&["price"], optional("amount", Type::Long))]));
    assert_eq!(evolve(&table, &older, V3, 9).changes, []);
}

#[test]
fn names_that_differ_in_case_alone_are_refused() {
    let found = changes(vec![optional("Straße", Type::Int)], vec![optional("sTRASSE", Type::Int)], V3);
    assert_eq!(found, ["adds column sTRASSE (int)"], "no full case folding: these are two names to every engine");
    let found = changes(vec![optional("price", Type::Int)], vec![optional("Price", Type::Int)], V3);
    assert!(found[0].starts_with("column Price: it differs from column price only in"), "{found:?}");
}

fn keyed(table: Vec<Field>, wanted: Vec<Field>) -> Vec<String> {
    let (mut table, wanted) = (schema(table), schema(wanted));
    table.key = vec!["id".into()];
    let evolution = evolve(&table, &wanted, V3, 9);
    assert_eq!(evolution.schema.fields[0], table.fields[0], "the key column is as it was");
    evolution.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_key_column_keeps_its_name_its_type_and_its_values() {
    let id = || required("id", Type::Int);
    let other = || optional("other", Type::Int);
    let cases: [(Field, &str); 5] = [
        (required("id", Type::Long), "column id is int in the table and cannot become long: it is a key column"),
        (required("id", Type::String), "column id is int in the table and cannot become string: "),
        (optional("id", Type::Int), "column id: it is a key column, and would have nulls"),
        (also(&["id"], required("number", Type::Int)), "column id: it is a key column and cannot be renamed to number"),
        (other(), "column id: it is a key column, and the schema does not have it"),
    ];
    for (wanted, expected) in cases {
        let found = keyed(vec![id(), other()], vec![wanted]);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    assert_eq!(keyed(vec![id(), other()], vec![id()]), [""; 0]);
}

#[test]
fn every_difference_has_a_verdict_of_its_own() {
    let x = || "x".to_owned();
    let all = [
        Difference::Add { path: x(), kind: Type::Int, default: None },
        Difference::Widen { path: x(), from: Type::Int, to: Type::Long },
        Difference::Rename { path: x(), to: x() },
        Difference::Relax { path: x() },
        Difference::Cannot { path: x(), types: None, why: x() },
    ];
    let actions: Vec<&str> = all.iter().map(|d| verdict(d).action).collect();
    assert_eq!(actions, ["add_column", "widen", "rename", "make_optional", "not_possible"]);
}

#[test]
fn a_table_never_grows_into_rows_that_cannot_be_gathered() {
    const MEGABYTE: u32 = 1 << 20;
    let wide = |range: std::ops::Range<u32>| range.map(|n| optional(&format!("w{n}"), Type::Fixed(MEGABYTE)));
    let small = |bytes| optional("small", Type::Fixed(bytes));
    let table: Vec<Field> = wide(0..63).collect();
    for formats in [V2, V3, DELTA] {
        // To the byte.
        let fits: Vec<Field> = wide(63..64).collect();
        assert_eq!(changes(table.clone(), fits, formats), ["adds column w63 (fixed[1048576])"]);
        let beyond: Vec<Field> = wide(63..64).chain([small(1)]).collect();
        let found = changes(table.clone(), beyond, formats);
        let expected =
            "column w63: with it a row of the table takes 67108865 bytes even where all is null, and 67108864 are";
        assert!(found.len() == 3 && found[2].starts_with(expected), "{found:?}");
        let inside = vec![optional("s", Type::Struct(vec![small(MEGABYTE)]))];
        let found = changes(table.clone(), inside, formats);
        assert!(found.last().unwrap().starts_with("column s: with it a row of the table takes 67108865"), "{found:?}");
    }
    // One that others made wider still takes what it holds, and may lose what it need not have.
    let wider: Vec<Field> = wide(0..70).map(|f| Field { required: true, ..f }).collect();
    assert_eq!(
        changes(wider.clone(), wide(1..70).map(|f| Field { required: true, ..f }).collect(), V3),
        ["lets column w0 be null"]
    );
    assert_eq!(evolve(&schema(wider), &schema(vec![small(1)]), V3, 99).changes.len(), 72);
}

#[test]
fn the_names_of_a_column_are_bounded_at_every_depth() {
    let names = |range: std::ops::Range<usize>| range.map(|n| format!("a{n}")).collect::<Vec<_>>();
    let known = |range| Field { aliases: names(range), ..optional("x", Type::Int) };
    let deep = |field: Field| {
        let record = Type::Struct(vec![field]);
        vec![optional("s", record.clone()), optional("m", map(list(record)))]
    };
    for (before, after, expected) in [
        (known(0..0), known(0..100), None),
        (known(0..0), known(0..101), Some("s.x")),
        (known(0..100), known(0..101), Some("s.x")),
        // What others gave a column is no reason to refuse everything.
        (known(0..150), known(0..150), None),
        (known(0..150), known(0..151), Some("s.x")),
    ] {
        assert_eq!(crowded(&deep(before), &deep(after)).as_deref(), expected);
    }
    assert_eq!(crowded(&[], &deep(known(0..101))).as_deref(), Some("s.x"), "a new column");
    let inside = |field: Field| vec![optional("m", map(list(Type::Struct(vec![field]))))];
    assert_eq!(crowded(&inside(known(0..9)), &inside(known(0..101))).as_deref(), Some("m.value.element.x"));
    let mut table = schema(vec![optional("x", Type::Int)]);
    learn_names(&mut table, &schema(vec![also(&[&"y".repeat(256)], optional("x", Type::Int))]));
    assert_eq!(table.fields[0].aliases, [""; 0], "no column is ever called so");
}

//! Random schemas and random changes of them: what the decision about columns promises, the decoder keeps.

use super::*;
use crate::core::schema::{Field, TableFormat, evolve};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Clone)]
enum Kind {
    Plain(&'static str),
    Optional(Box<Kind>),
    Record(Vec<Named>),
    Array(Box<Kind>),
    Map(Box<Kind>),
    /// Null, and types whose Avro names differ.
    Union(Vec<Kind>),
}

#[derive(Clone)]
struct Named {
    name: String,
    aliases: Vec<String>,
    kind: Kind,
}

const PLAIN: [&str; 11] = [
    r#""boolean""#,
    r#""int""#,
    r#""long""#,
    r#""float""#,
    r#""double""#,
    r#""string""#,
    r#""bytes""#,
    r#"{"type":"int","logicalType":"date"}"#,
    r#"{"type":"long","logicalType":"timestamp-millis"}"#,
    r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#,
    r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
];

/// What a type can become.
const WIDER: [(usize, usize); 3] = [(1, 2), (3, 4), (9, 10)];

fn kind(random: &mut Random, depth: u64) -> Kind {
    match random.below(if depth == 0 { 6 } else { 11 }) {
        0..=4 => Kind::Plain(PLAIN[random.below(PLAIN.len() as u64) as usize]),
        5 => Kind::Optional(Box::new(Kind::Plain(PLAIN[random.below(PLAIN.len() as u64) as usize]))),
        6 => Kind::Array(Box::new(kind(random, depth - 1))),
        7 => Kind::Map(Box::new(kind(random, depth - 1))),
        8 => Kind::Record(fields(random, depth - 1)),
        9 => {
            let values = kind(random, depth - 1);
            union(random, vec![Kind::Map(Box::new(values))])
        }
        _ => Kind::Optional(Box::new(Kind::Record(fields(random, depth - 1)))),
    }
}

/// These branches and some more.
fn union(random: &mut Random, mut branches: Vec<Kind>) -> Kind {
    for _ in 0..=random.below(3) {
        branches.insert(random.below(branches.len() as u64 + 1) as usize, kind(random, 0));
    }
    let mut names = std::collections::HashSet::new();
    branches.retain(|branch| branch_name(branch).is_some_and(|name| names.insert(name)));
    if branches.len() > 1 { Kind::Union(branches) } else { Kind::Map(Box::new(Kind::Plain(PLAIN[0]))) }
}

fn branch_name(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Plain(plain) => {
            let plain: serde_json::Value = serde_json::from_str(plain).unwrap();
            plain["type"].as_str().or(plain.as_str()).map(str::to_owned)
        }
        Kind::Map(_) => Some("map".into()),
        Kind::Array(_) => Some("array".into()),
        Kind::Optional(_) | Kind::Record(_) | Kind::Union(_) => None,
    }
}

fn fields(random: &mut Random, depth: u64) -> Vec<Named> {
    let count = 1 + random.below(4);
    (0..count).map(|n| Named { name: format!("f{n}"), aliases: Vec::new(), kind: kind(random, depth) }).collect()
}

fn changed_fields(random: &mut Random, fields: &[Named]) -> Vec<Named> {
    let mut after = Vec::new();
    for field in fields {
        let kind = changed(random, &field.kind);
        match random.below(10) {
            0 => {}
            1 => {
                let name = format!("g{}", random.below(1_000_000));
                after.push(Named { name, aliases: vec![field.name.clone()], kind });
            }
            _ => after.push(Named { kind, ..field.clone() }),
        }
    }
    if random.below(3) == 0 || after.is_empty() {
        let at = random.below(after.len() as u64 + 1) as usize;
        let added = kind(random, 1);
        let name = format!("h{}", random.below(1_000_000));
        after.insert(at, Named { name, aliases: Vec::new(), kind: added });
    }
    after
}

fn changed(random: &mut Random, kind: &Kind) -> Kind {
    match kind {
        Kind::Plain(plain) => match random.below(12) {
            0 => Kind::Plain(PLAIN[random.below(PLAIN.len() as u64) as usize]),
            1 => Kind::Optional(Box::new(kind.clone())),
            5 => union(random, vec![kind.clone()]),
            2..=4 => {
                let wider = WIDER.iter().find(|(from, _)| PLAIN[*from] == *plain);
                wider.map_or_else(|| kind.clone(), |(_, to)| Kind::Plain(PLAIN[*to]))
            }
            _ => kind.clone(),
        },
        Kind::Optional(inner) => match changed(random, inner) {
            Kind::Optional(inner) => Kind::Optional(inner),
            union @ Kind::Union(_) => union,
            inner => Kind::Optional(Box::new(inner)),
        },
        Kind::Record(fields) => Kind::Record(changed_fields(random, fields)),
        Kind::Array(items) => Kind::Array(Box::new(changed(random, items))),
        Kind::Map(values) => Kind::Map(Box::new(changed(random, values))),
        // A branch may go, others come, and sometimes one type is left.
        Kind::Union(branches) => {
            let gone = random.below(2 * branches.len() as u64) as usize;
            let left = branches.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, branch)| branch.clone());
            match random.below(6) {
                0 => left.take(1).map(|one| Kind::Optional(Box::new(one))).next().unwrap_or_else(|| kind.clone()),
                1 | 2 => kind.clone(),
                _ => union(random, left.collect()),
            }
        }
    }
}

fn json(kind: &Kind, records: &mut usize) -> String {
    match kind {
        Kind::Plain(plain) => (*plain).to_owned(),
        Kind::Optional(inner) => format!(r#"["null",{}]"#, json(inner, records)),
        Kind::Union(branches) => {
            let branches: Vec<String> = branches.iter().map(|branch| json(branch, records)).collect();
            format!(r#"["null",{}]"#, branches.join(","))
        }
        Kind::Array(items) => format!(r#"{{"type":"array","items":{}}}"#, json(items, records)),
        Kind::Map(values) => format!(r#"{{"type":"map","values":{}}}"#, json(values, records)),
        Kind::Record(fields) => {
            *records += 1;
            let name = format!("R{records}");
            let fields: Vec<String> = fields
                .iter()
                .map(|f| {
                    let kind = json(&f.kind, records);
                    format!(r#"{{"name":"{}","aliases":{:?},"type":{kind}}}"#, f.name, f.aliases)
                })
                .collect();
            format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
        }
    }
}

fn value(random: &mut Random, kind: &Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Plain(plain) => match *plain {
            r#""boolean""# => out.push(random.below(2) as u8),
            r#""float""# => out.extend((random.below(1000) as f32 / 8.0).to_le_bytes()),
            r#""double""# => out.extend((random.below(1000) as f64 / 8.0).to_le_bytes()),
            r#""string""# | r#""bytes""# => out.extend(text(&format!("t{}", random.below(100)))),
            decimal if decimal.contains("decimal") => {
                out.extend([&long(2)[..], &(random.below(9_999) as i16).to_be_bytes()].concat());
            }
            _ => out.extend(long(random.below(100_000) as i64 - 50_000)),
        },
        Kind::Optional(_) if random.below(3) == 0 => out.extend(long(0)),
        Kind::Optional(inner) => {
            out.extend(long(1));
            value(random, inner, out);
        }
        Kind::Record(fields) => fields.iter().for_each(|f| value(random, &f.kind, out)),
        Kind::Union(branches) => {
            let branch = random.below(branches.len() as u64 + 1) as usize;
            out.extend(long(branch as i64));
            branch.checked_sub(1).iter().for_each(|at| value(random, &branches[*at], out));
        }
        Kind::Array(items) => {
            for _ in 0..random.below(3) {
                out.extend(long(1));
                value(random, items, out);
            }
            out.extend(long(0));
        }
        Kind::Map(values) => {
            for n in 0..random.below(3) {
                out.extend([long(1), text(&format!("k{n}"))].concat());
                value(random, values, out);
            }
            out.extend(long(0));
        }
    }
}

/// Rows of these bodies, written under schema 1, in the columns of a decoder.
fn decoded(decoder: &mut Decoder, id: u32, bodies: &[Vec<u8>]) -> RecordBatch {
    for (offset, body) in bodies.iter().enumerate() {
        let pushed = push(decoder, offset as i64, None, Some(&wire(id, body)));
        assert_eq!(pushed, Pushed::Row);
    }
    decoder.finish().unwrap().batch
}

fn same_columns(before: &RecordBatch, after: &RecordBatch, table: &[Field], grown: &[Field], seed: u64) -> usize {
    let mut compared = 0;
    for (at, column) in table.iter().enumerate() {
        let place = grown.iter().position(|f| f.id == column.id).expect("a column stays");
        if grown[place].kind == column.kind {
            for row in 0..before.num_rows() {
                let (old, new) = (render(before.column(at), row), render(after.column(place), row));
                assert_eq!(old, new, "seed {seed}, column {}", column.name);
                compared += 1;
            }
        }
    }
    compared
}

/// INV-16
#[test]
fn whatever_tables_can_follow_the_decoder_reads_in_both_directions() {
    let (mut possible, mut compared) = (0, 0);
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let old = Kind::Record(fields(&mut random, 2));
        let new = changed(&mut random, &old);
        let (old_text, new_text) = (json(&old, &mut 0), json(&new, &mut 0));
        let table = table_schema(&old_text, None, &append(), 3).unwrap();
        let wanted = table_schema(&new_text, None, &append(), 3).unwrap();
        let evolution = evolve(&table, &wanted, &[TableFormat::IcebergV3], 1_000);
        let mut bodies = vec![Vec::new(); 4];
        bodies.iter_mut().for_each(|body| value(&mut random, &old, body));
        let mut before = Decoder::new(&table, &append(), encode()).unwrap();
        before.add_value_schema(1, &old_text).unwrap();
        let before_rows = decoded(&mut before, 1, &bodies);
        if evolution.obstacle().is_some() {
            continue;
        }
        possible += 1;
        let grown = evolution.schema;
        let mut after = Decoder::new(&grown, &append(), encode()).unwrap();
        for (id, text) in [(1, &old_text), (2, &new_text)] {
            after.add_value_schema(id, text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{old_text}\n{new_text}"));
            assert_eq!(after.unknown_fields(id), [""; 0], "seed {seed}: nothing is dropped\n{old_text}\n{new_text}");
        }
        let after_rows = decoded(&mut after, 1, &bodies);
        compared += same_columns(&before_rows, &after_rows, &table.fields, &grown.fields, seed);
        let mut newer = vec![Vec::new(); 2];
        newer.iter_mut().for_each(|body| value(&mut random, &new, body));
        assert_eq!(decoded(&mut after, 2, &newer).num_rows(), 2);
    }
    assert!(possible > 1_000 && compared > 5_000, "{possible} changes, {compared} values");
}

/// A schema with an id, these fields, and nothing else.
fn with_fields(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":"long"}}{fields}]}}"#)
}

fn parsed(text: &str) -> Arc<ValueSchema> {
    Arc::new(ValueSchema::avro(text).unwrap())
}

#[test]
fn columns_grow_while_events_are_read_and_old_schemas_go_into_them_too() {
    let old = with_fields(r#",{"name":"n","type":"int"}"#);
    let new = with_fields(r#",{"name":"m","aliases":["n"],"type":"long"},{"name":"t","type":["null","string"]}"#);
    let shape = upsert(&["id"]);
    let wanted = |text: &str| Arc::new(table_schema(text, None, &shape, 3).unwrap());
    let mut decoder = Decoder::new(&wanted(&old), &shape, encode()).unwrap();
    let formats = [TableFormat::IcebergV3];
    decoder.grow(1, &parsed(&old), &wanted(&old), &formats).unwrap();
    let (old_body, new_body) = (vec![2, 14], vec![4, 16, 2, 2, b'x']);
    assert_eq!(push(&mut decoder, 0, None, Some(&wire(1, &old_body))), Pushed::Row);
    let of_old = decoder.asks();
    assert_eq!(decoder.wanted(of_old), Some(&wanted(&old)));
    assert!(decoder.grow(2, &parsed(&new), &wanted(&new), &formats).is_err(), "not under rows that are not finished");
    let before = decoder.finish().unwrap();
    assert_eq!(before.batch.schema().field(1).name(), "n");

    decoder.grow(2, &parsed(&new), &wanted(&new), &formats).unwrap();
    for (id, body) in [(2, &new_body), (1, &old_body), (2, &new_body)] {
        assert_eq!(push(&mut decoder, 0, None, Some(&wire(id, body))), Pushed::Row, "nothing is asked for again");
        assert_eq!(decoder.wanted(decoder.asks()), Some(&wanted(if id == 1 { &old } else { &new })));
    }
    assert_ne!(decoder.asks(), of_old);
    let after = decoder.finish().unwrap().batch;
    assert_eq!(after.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["id", "m", "t"]);
    assert_eq!(after.column(1).as_primitive::<Int64Type>().values()[..], [8, 7, 8]);
    assert_eq!(after.column(2).null_count(), 1);
}

#[test]
fn an_order_column_becomes_wider_only_where_its_values_keep_their_order() {
    let n = |kind: &str| with_fields(&format!(r#",{{"name":"n","type":"{kind}"}}"#));
    let shape = EventShape { order_by: Some("n".into()), ..upsert(&["id"]) };
    let wanted = |text: &str| Arc::new(table_schema(text, None, &shape, 3).unwrap());
    let decoder = || Decoder::new(&wanted(&n("int")), &shape, encode()).unwrap();
    let formats = [TableFormat::Delta];
    decoder().grow(2, &parsed(&n("long")), &wanted(&n("long")), &formats).unwrap();
    let refused = decoder().grow(2, &parsed(&n("double")), &wanted(&n("double")), &formats).unwrap_err().to_string();
    assert!(refused.contains("column n is int in the table and cannot become double"), "{refused}");
    // Where it orders nothing, it may.
    let mut plain = Decoder::new(&wanted(&n("int")), &upsert(&["id"]), encode()).unwrap();
    plain.grow(2, &parsed(&n("double")), &wanted(&n("double")), &formats).unwrap();
}

/// A column that is renamed again and again stays one column, until it has more names than are kept: then the schema is refused.
#[test]
fn a_column_has_a_bounded_number_of_names_and_two_columns_never_become_one() {
    let named = |n: usize| {
        let aliases = n.checked_sub(1).map_or_else(String::new, |before| format!(r#""aliases":["n{before}"],"#));
        with_fields(&format!(r#",{{"name":"n{n}",{aliases}"type":"int"}}"#))
    };
    let shape = upsert(&["id"]);
    let wanted = |text: &str| Arc::new(table_schema(text, None, &shape, 3).unwrap());
    let formats = [TableFormat::IcebergV3];
    let mut decoder = Decoder::new(&wanted(&named(0)), &shape, encode()).unwrap();
    for n in 0..=100 {
        decoder.grow(n as u32, &parsed(&named(n)), &wanted(&named(n)), &formats).unwrap();
    }
    let refused = decoder.grow(101, &parsed(&named(101)), &wanted(&named(101)), &formats).unwrap_err().to_string();
    assert!(refused.contains("column n101: it would be known by more than 100 other names"), "{refused}");
    for (n, expected) in [(0, Pushed::Row), (57, Pushed::Row), (100, Pushed::Row)] {
        assert_eq!(push(&mut decoder, 0, None, Some(&wire(n, &[long(1), long(n.into())].concat()))), expected);
    }
    let needed = push(&mut decoder, 0, None, Some(&wire(101, &[2, 0])));
    assert_eq!(needed, Pushed::NeedsSchema { id: 101, of: Half::Value }, "it was refused as a whole");
    let rows = decoder.finish().unwrap().batch;
    assert_eq!(rows.num_columns(), 2, "one column under all of its names");
    assert_eq!(rows.column(1).as_primitive::<Int32Type>().values()[..], [0, 57, 100]);
}
